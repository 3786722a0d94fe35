package memory

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"

	"go.etcd.io/bbolt"

	"github.com/rationhq/ration/subject"
)

// The file has two parts. In records, each value ends with a checksum of key and value; the key of
//
//	s 3:llmalice           is that of a subject (see [subject.Ref.Encode]), the value its record
//	f 017                  the floor of a shard
//	a 017 1763822345123456.017  an audit row, in the order of time within its shard; the value is the row
//
// In meta, format is the version of all that, and tally says how many records there are, and the sum of their
// checksums: a page of the file that is an older one would show nowhere else.
var (
	partMeta    = []byte("meta")
	partRecords = []byte("records")
	keyFormat   = []byte("format")
	keyTally    = []byte("tally")
)

const (
	kindSubject = 's'
	kindFloor   = 'f'
	kindAudit   = 'a'
)

// file is what is on disk. One goroutine at a time uses it.
type file struct {
	path  string
	db    *bbolt.DB
	tally tally // as it is on disk
	// unsure says that it is not known whether the last step is on disk.
	unsure error
}

// writing is one step, as it goes on disk.
type writing struct {
	ref    subject.Ref
	record string // empty: there is none any more
	floor  uint64
	row    string
	forget string // a row that goes
}

var (
	errNoSense = errors.New("it makes no sense")
	errSum     = errors.New("its checksum is wrong")
)

func subjectKey(of subject.Ref) []byte { return []byte(string(kindSubject) + of.Encode()) }

func floorKey(shard uint8) []byte { return fmt.Appendf(nil, "%c%03d", kindFloor, shard) }

func auditKey(shard uint8, row string) []byte {
	id, _, _ := strings.Cut(row, " ")
	return fmt.Appendf(nil, "%c%03d%s", kindAudit, shard, id)
}

// write puts a step on disk, whole, and waits until it is there. If that fails nothing of it is; or it is unknown, and
// then no other is taken until the process has begun anew, and read what there is.
func (f *file) write(w *writing) error {
	if f.unsure != nil {
		return f.unsure
	}
	err := f.db.Update(func(tx *bbolt.Tx) error {
		c := changing{part: tx.Bucket(partRecords), tally: f.tally}
		c.tally.turn++
		shard := w.ref.Shard()
		c.set(subjectKey(w.ref), w.record)
		if w.floor > 0 {
			c.set(floorKey(shard), strconv.FormatUint(w.floor, 10))
		}
		c.set(auditKey(shard, w.row), w.row)
		if w.forget != "" {
			c.set(auditKey(shard, w.forget), "")
		}
		if c.err != nil {
			return c.err
		}
		return tx.Bucket(partMeta).Put(keyTally, c.tally.encode())
	})
	now, unread := f.readTally()
	switch {
	case err == nil && unread == nil:
		f.tally = now
		return nil
	case err != nil && unread == nil && now == f.tally:
		return fmt.Errorf("nothing was written: %w", err)
	}
	f.unsure = fmt.Errorf("%s: it is unknown whether a change was written; restart ration, which reads what there is: %w",
		f.path, errors.Join(err, unread))
	return f.unsure
}

func (f *file) readTally() (t tally, err error) {
	err = f.db.View(func(tx *bbolt.Tx) error {
		t, err = decodeTally(tx.Bucket(partMeta).Get(keyTally))
		return err
	})
	return t, err
}

// changing is what one transaction does to the records.
type changing struct {
	part  *bbolt.Bucket
	tally tally
	err   error
}

// set writes a record; an empty one removes it.
func (c *changing) set(key []byte, value string) {
	if c.err != nil {
		return
	}
	if old := c.part.Get(key); old != nil {
		c.tally.count, c.tally.sum = c.tally.count-1, c.tally.sum-uint64(sumOf(old))
	}
	if value == "" {
		c.err = c.part.Delete(key)
		return
	}
	record := appendSum([]byte(value), key)
	c.tally.count, c.tally.sum = c.tally.count+1, c.tally.sum+uint64(sumOf(record))
	c.err = c.part.Put(key, record)
}

// tally tells whether all records are there.
type tally struct {
	turn  uint64 // how many transactions there were
	count uint64 // of records
	sum   uint64 // of their checksums
}

func (t *tally) encode() []byte {
	var b []byte
	for _, v := range []uint64{t.turn, t.count, t.sum} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return appendSum(b, keyTally)
}

func decodeTally(record []byte) (t tally, err error) {
	content, err := checked(keyTally, record)
	if err == nil && len(content) != 24 {
		err = errNoSense
	}
	if err != nil {
		return t, fmt.Errorf("its tally: %w", err)
	}
	at := func(i int) uint64 { return binary.LittleEndian.Uint64(content[8*i:]) }
	return tally{at(0), at(1), at(2)}, nil
}

// appendSum appends the checksum of a record, of whose value b consists.
func appendSum(b, key []byte) []byte {
	return binary.LittleEndian.AppendUint32(b, checksum(key, b))
}

func checksum(key, value []byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	return crc32.Update(crc32.Checksum(key, table), table, value)
}

const sumSize = 4

// checked returns the value in front of its checksum.
func checked(key, record []byte) ([]byte, error) {
	if len(record) < sumSize {
		return nil, errSum
	}
	value := record[:len(record)-sumSize]
	if checksum(key, value) != sumOf(record) {
		return nil, errSum
	}
	return value, nil
}

func sumOf(record []byte) uint32 { return binary.LittleEndian.Uint32(record[len(record)-sumSize:]) }

func (f *file) close() error { return f.db.Close() }
