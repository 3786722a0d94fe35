package memory

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math/bits"
	"strings"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

// format is the version of everything in this file, and of the file on disk.
const format = 6

// oldest is the first version that can still be read: it has no rows, leases have added to none, and there are no events.
const oldest = 3

// Records have keys by what they are of. In this order they are read back: a hold that has lapsed is
// known before its lease comes.
const (
	keyBucket = 'b' // length of the owner's name, its name, the bucket's
	keyEvent  = 'e' // as a bucket, then start of the period, threshold
	keyLapse  = 'h' // id of the lease, index of a hold of it
	keyLease  = 'l' // id of the lease
	keyRow    = 'r' // see rowKey
)

func bucketKey(owner, name string) string {
	b := make([]byte, 0, 4+len(owner)+len(name))
	b = append(b, keyBucket)
	b = binary.AppendUvarint(b, uint64(len(owner)))
	b = append(b, owner...)
	return string(append(b, name...))
}

func splitBucketKey(key string) (owner, name string) {
	n, size := binary.Uvarint([]byte(key[1:min(len(key), 1+binary.MaxVarintLen64)]))
	rest := key[1+size:]
	return rest[:n], rest[n:]
}

// validBucketKey says that splitBucketKey can take key apart.
func validBucketKey(key string) bool {
	n, size := binary.Uvarint([]byte(key[1:]))
	return size > 0 && n < uint64(len(key)-1-size)
}

// eventKey is that of an event: what is behind the first byte says all that tells it from others.
func eventKey(owner, name []byte, start limit.Micros, threshold int64) string {
	b := make([]byte, 0, 4+len(owner)+len(name)+eventTail)
	b = append(b, keyEvent)
	b = binary.AppendUvarint(b, uint64(len(owner)))
	b = append(b, owner...)
	b = append(b, name...)
	b = binary.BigEndian.AppendUint64(b, uint64(start))
	return string(binary.BigEndian.AppendUint64(b, uint64(threshold)))
}

// eventTail is how long the start and the threshold are in a key.
const eventTail = 16

// splitEventKey is the inverse of eventKey; ok says that key is one.
func splitEventKey(key string) (owner, name string, start limit.Micros, threshold int64, ok bool) {
	at := len(key) - eventTail
	if at < 1 || !validBucketKey(key[:at]) {
		return "", "", 0, 0, false
	}
	tail := []byte(key[at:])
	owner, name = splitBucketKey(key[:at])
	return owner, name, limit.Micros(binary.BigEndian.Uint64(tail)), int64(binary.BigEndian.Uint64(tail[8:])), true
}

func leaseKey(id store.LeaseID) string { return string(keyLease) + string(id[:]) }

func lapseKey(id store.LeaseID, index int) string {
	return string(binary.BigEndian.AppendUint32(append([]byte{keyLapse}, id[:]...), uint32(index)))
}

// leaseOf returns the id in a key of a lease or of a lapse.
func leaseOf(key string) (id store.LeaseID) {
	copy(id[:], key[1:])
	return id
}

// sumSize is how many bytes the checksum takes at the end of a record.
const sumSize = 4

// checksum is the CRC-32C (Castagnoli) of a record's key and content.
func checksum(key string, content []byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	return crc32.Update(crc32.Checksum([]byte(key), table), table, content)
}

// appendSum appends the checksum of key and the record that begins at start.
func appendSum(b []byte, start int, key string) []byte {
	return binary.LittleEndian.AppendUint32(b, checksum(key, b[start:]))
}

var errSum = errors.New("its checksum is wrong")

// checked returns the content of a record in front of its checksum.
func checked(key string, record []byte) ([]byte, error) {
	if len(record) < sumSize {
		return nil, errSum
	}
	content := record[:len(record)-sumSize]
	if checksum(key, content) != sumOf(record) {
		return nil, errSum
	}
	return content, nil
}

// sumOf returns the checksum that a record holds.
func sumOf(record []byte) uint32 {
	return binary.LittleEndian.Uint32(record[len(record)-sumSize:])
}

// appendBucket appends the record of a bucket.
func appendBucket(b []byte, key string, from *bucket) []byte {
	start := len(b)
	b = append(b, byte(from.life&leased))
	st := &from.state
	rest := st.Rest
	var entries []limit.Entry
	if st.Log != nil {
		entries, rest = st.Log.Entries[st.Rest:], 0 // those in sight
	}
	for _, v := range []int64{
		int64(from.idle()), int64(st.At), int64(st.End), st.Count, rest, st.Entered, st.Held, int64(len(entries)),
	} {
		b = binary.AppendVarint(b, v)
	}
	at := limit.Micros(0)
	for _, e := range entries {
		b = binary.AppendVarint(b, int64(e.At-at))
		b = binary.AppendVarint(b, e.Units)
		at = e.At
	}
	return appendSum(b, start, key)
}

// decodeBucket reads what appendBucket has written before the checksum.
func decodeBucket(content []byte, to *bucket) error {
	r := reader{rest: content}
	to.life = life(r.byte()) & leased
	idle := limit.Micros(r.int())
	st := &to.state
	st.At, st.End = limit.Micros(r.int()), limit.Micros(r.int())
	st.Count, st.Rest, st.Entered, st.Held = r.int(), r.int(), r.int(), r.int()
	if entries := r.count(); entries > 0 {
		st.Log = &limit.Log{Entries: make([]limit.Entry, entries)}
		at := limit.Micros(0)
		for i := range st.Log.Entries {
			at += limit.Micros(r.int())
			st.Log.Entries[i] = limit.Entry{At: at, Units: r.int()}
		}
	}
	to.setIdle(idle)
	return r.end()
}

// appendLease appends the record of a lease with all its holds.
func appendLease(b []byte, key string, l *lease) []byte {
	start := len(b)
	opened := byte(0)
	if l.opened {
		opened = 1
	}
	b = append(b, byte(l.ended), opened)
	b = binary.AppendVarint(b, int64(l.due))
	b = binary.LittleEndian.AppendUint64(b, l.openedBy)
	b = binary.LittleEndian.AppendUint64(b, l.settledBy)
	b = binary.AppendVarint(b, int64(len(l.holds)))
	for i := range l.holds {
		h := &l.holds[i]
		for _, v := range []int64{
			h.amount, h.lapse, int64(h.class), int64(h.mark.At), h.mark.Entered, int64(h.made), int64(h.ownerLen),
		} {
			b = binary.AppendVarint(b, v)
		}
		b = appendText(b, string(h.name))
		b = appendSpec(b, &h.spec)
	}
	b = appendText(b, string(l.note))
	b = append(b, l.added...)
	return appendSum(b, start, key)
}

func appendSpec(b []byte, s *limit.Spec) []byte {
	firstUse := byte(0)
	if s.FirstUse {
		firstUse = 1
	}
	b = append(b, byte(s.Algorithm), firstUse)
	for _, v := range []int64{s.Limit, s.Burst, s.Headroom, int64(s.Window)} {
		b = binary.AppendVarint(b, v)
	}
	calendar := ""
	if s.Calendar != nil {
		calendar = s.Calendar.String()
	}
	return appendText(b, calendar)
}

func appendText(b []byte, text string) []byte {
	return append(binary.AppendVarint(b, int64(len(text))), text...)
}

// calendars reads calendars, each once.
type calendars map[string]*limit.Calendar

// decodeLease reads what appendLease has written before the checksum.
func decodeLease(content []byte, to *lease, known calendars) error {
	r := reader{rest: content}
	to.ended, to.opened = ending(r.byte()), r.byte() != 0
	to.due = limit.Micros(r.int())
	to.openedBy, to.settledBy = r.fixed(), r.fixed()
	if n := r.count(); n > 0 {
		to.holds = make([]hold, n)
	}
	for i := range to.holds {
		h := &to.holds[i]
		h.lease, h.index, h.due, h.place = to, int32(i), to.due, -1
		h.amount, h.lapse, h.class = r.int(), r.int(), uint8(r.int())
		h.mark.At, h.mark.Entered = limit.Micros(r.int()), r.int()
		h.made, h.ownerLen = int(r.int()), int(r.int())
		h.name = []byte(r.text())
		if h.ownerLen < 0 || h.ownerLen > len(h.name) {
			return errContent
		}
		if err := decodeSpec(&r, &h.spec, known); err != nil {
			return err
		}
	}
	to.note = []byte(r.text())
	to.added, r.rest = string(r.rest), nil
	if !validShare(to.added) {
		return errContent
	}
	return r.end()
}

func decodeSpec(r *reader, s *limit.Spec, known calendars) error {
	s.Algorithm, s.FirstUse = limit.Algorithm(r.byte()), r.byte() != 0
	s.Limit, s.Burst, s.Headroom, s.Window = r.int(), r.int(), r.int(), limit.Micros(r.int())
	name := r.text()
	if r.bad {
		return errContent
	}
	if name != "" && known[name] == nil {
		calendar, err := limit.ParseCalendar(strings.Clone(name))
		if err != nil {
			return err
		}
		known[name] = calendar
	}
	s.Calendar = known[name]
	return s.Validate()
}

// appendEvent appends the record of an event: what its key does not say.
func appendEvent(b []byte, key string, from *event) []byte {
	start := len(b)
	delivered := byte(0)
	if from.delivered {
		delivered = 1
	}
	b = append(b, delivered)
	e := &from.told
	for _, v := range []int64{int64(e.At), int64(e.Which), e.Used, e.Limit, int64(e.End)} {
		b = binary.AppendVarint(b, v)
	}
	b = appendText(b, string(e.Label))
	return appendSum(b, start, key)
}

// decodeEvent reads what appendEvent has written before the checksum.
func decodeEvent(content []byte, to *event) error {
	r := reader{rest: content}
	to.delivered = r.byte() != 0
	e := &to.told
	e.At, e.Which, e.Used, e.Limit, e.End = limit.Micros(r.int()), int(r.int()), r.int(), r.int(), limit.Micros(r.int())
	e.Label = []byte(r.text())
	return r.end()
}

// rowKey is that of a sum: its kind, its stripe, when its period began, then with their lengths the group and the
// owner, and the dimensions.
func rowKey(name tableName, stripe int, owner, dimensions string) string {
	b := make([]byte, 0, 16+len(name.group)+len(owner)+len(dimensions))
	b = append(b, keyRow, byte(name.kind), byte(stripe))
	b = binary.BigEndian.AppendUint64(b, uint64(name.start))
	b = binary.AppendUvarint(b, uint64(len(name.group)))
	b = append(b, name.group...)
	b = binary.AppendUvarint(b, uint64(len(owner)))
	b = append(b, owner...)
	return string(append(b, dimensions...))
}

// splitRowKey is the inverse of rowKey; ok says that key is one.
func splitRowKey(key string) (name tableName, stripe int, owner, dimensions string, ok bool) {
	const head = 1 + 1 + 1 + 8
	if len(key) < head {
		return name, 0, "", "", false
	}
	name.kind, stripe = tableKind(key[1]), int(key[2])
	name.start = limit.Micros(binary.BigEndian.Uint64([]byte(key[3:head])))
	rest, ok := key[head:], true
	take := func() (text string) {
		n, size := binary.Uvarint([]byte(rest[:min(len(rest), binary.MaxVarintLen64)]))
		if size <= 0 || n > uint64(len(rest)-size) {
			ok = false
			return ""
		}
		text, rest = rest[size:size+int(n)], rest[size+int(n):]
		return text
	}
	name.group, owner = take(), take()
	ok = ok && name.kind < tableKinds && name.kind.span() <= store.Month && stripe < stripeCount &&
		(name.kind&ofGroup != 0) == (owner == "")
	return name, stripe, owner, rest, ok
}

// appendRow appends the record of a row: until when it is kept, and its sums by columns.
func appendRow(b []byte, key string, from *row, until limit.Micros) []byte {
	start := len(b)
	b = binary.AppendVarint(b, int64(until))
	b = binary.LittleEndian.AppendUint64(b, from.columns)
	for _, sum := range from.sums {
		b = binary.AppendVarint(b, sum)
	}
	return appendSum(b, start, key)
}

// decodeRow reads what appendRow has written before the checksum.
func decodeRow(content []byte, to *row) (until limit.Micros, err error) {
	r := reader{rest: content}
	until = limit.Micros(r.int())
	to.columns = r.fixed()
	to.sums = make([]int64, bits.OnesCount64(to.columns))
	for i := range to.sums {
		to.sums[i] = r.int()
	}
	return until, r.end()
}
