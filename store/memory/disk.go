package memory

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/rationhq/ration/internal/boltfile"
)

const (
	fileName = "ration.db"
	newName  = "ration.db.new-*" // a file that is being created
	// besideName is the file of the subject directory, which may be there already.
	besideName = "subjects.db"
	// lockTime is how long another process may take to let go of the directory.
	lockTime = 800 * time.Millisecond
)

// The parts of the file.
var (
	partMeta    = []byte("meta")
	partRecords = []byte("records")
	keyFormat   = []byte("format")
	keyTally    = []byte("tally")
)

// disk is the file in which the state is kept. One goroutine at a time uses it.
type disk struct{ db *bbolt.DB }

// tally tells whether all records are there. bbolt would not miss a page that is not what it was.
type tally struct {
	turn  uint64 // how many transactions there were
	count uint64 // of records
	sum   uint64 // of their checksums
}

func (t *tally) add(record []byte)      { t.count, t.sum = t.count+1, t.sum+uint64(sumOf(record)) }
func (t *tally) subtract(record []byte) { t.count, t.sum = t.count-1, t.sum-uint64(sumOf(record)) }

func (t *tally) append(b []byte) []byte {
	start := len(b)
	for _, v := range []uint64{t.turn, t.count, t.sum} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return appendSum(b, start, string(keyTally))
}

func decodeTally(record []byte) (t tally, err error) {
	content, err := checked(string(keyTally), record)
	if err != nil {
		return t, err
	}
	r := reader{rest: content}
	t = tally{r.fixed(), r.fixed(), r.fixed()}
	return t, r.end()
}

// openDisk opens the file in dir, or creates it, and hands every record to each, in order of keys.
func openDisk(dir string, each func(key string, content []byte) error) (*disk, error) {
	path := filepath.Join(dir, fileName)
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = createFile(dir, path)
	case err == nil && info.Size() == 0: // bbolt would make it a file of its own
		err = damaged(path, errors.New("it is empty"))
	}
	if err != nil {
		return nil, err
	}
	// A shared lock keeps others from writing while the file is verified.
	locked, err := openFile(path, &bbolt.Options{ReadOnly: true})
	if err != nil {
		return nil, err
	}
	found, err := readFile(path, each)
	_ = locked.Close()
	if err != nil {
		return nil, err
	}
	db, err := openFile(path, &bbolt.Options{})
	if err != nil {
		return nil, err
	}
	d := &disk{db: db}
	current := false
	err = db.View(func(tx *bbolt.Tx) error {
		meta := tx.Bucket(partMeta)
		current = bytes.Equal(meta.Get(keyFormat), formatRecord(format))
		now, err := decodeTally(meta.Get(keyTally))
		if err == nil && now != found {
			err = fmt.Errorf("another process has written %s just now: use another directory", path)
		}
		return err
	})
	if err == nil && !current { // it is to hold from now on what an older ration does not know
		err = db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(partMeta).Put(keyFormat, formatRecord(format)) })
	}
	if err != nil {
		_ = db.Close()
		return nil, err
	}
	return d, nil
}

// formatRecord is what says of a file that it is of that format.
func formatRecord(version uint32) []byte {
	return appendSum(binary.LittleEndian.AppendUint32(nil, version), 0, string(keyFormat))
}

// openFile lets bbolt open the file. What it makes of one that is not its own may be a panic.
func openFile(path string, opts *bbolt.Options) (db *bbolt.DB, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if why := recover(); why != nil {
			err = damaged(path, fmt.Errorf("%v", why))
		}
	}()
	opts.Timeout = lockTime
	// The list of free pages is made anew at each start: one on disk could not be verified.
	opts.NoFreelistSync, opts.FreelistType = true, bbolt.FreelistMapType
	opts.NoStatistics = true
	db, err = bbolt.Open(path, 0o600, opts)
	switch {
	case err == nil:
		return db, nil
	case errors.Is(err, berrors.ErrTimeout):
		return nil, fmt.Errorf("another process has %s open: end that one, or use another directory", path)
	case errors.As(err, new(*fs.PathError)):
		return nil, err
	}
	return nil, damaged(path, err)
}

// damaged is the error for a file that cannot be used.
func damaged(path string, why error) error {
	return fmt.Errorf("%s is damaged, or is not ration's: %w; it was left as it is: restore a backup of it, "+
		"or move it away to begin with nothing", path, why)
}

// createFile makes a file without records. Until it is complete it has another name, so that a
// process which is killed meanwhile leaves nothing that could be mistaken for one.
func createFile(dir, path string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := onlyOurs(dir); err != nil {
		return err
	}
	file, err := os.CreateTemp(dir, newName)
	if err != nil {
		return err
	}
	name := file.Name()
	defer func() { _ = os.Remove(name) }()
	if err := file.Close(); err != nil {
		return err
	}
	db, err := openFile(name, &bbolt.Options{})
	if err != nil {
		return err
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		if _, err := tx.CreateBucket(partRecords); err != nil {
			return err
		}
		meta, err := tx.CreateBucket(partMeta)
		if err != nil {
			return err
		}
		if err := meta.Put(keyFormat, formatRecord(format)); err != nil {
			return err
		}
		return meta.Put(keyTally, (&tally{}).append(nil))
	})
	if err := errors.Join(err, db.Close()); err != nil {
		return fmt.Errorf("create %s: %w", path, err)
	}
	// A link fails where another process was faster; a file system without links has to rename.
	if err := os.Link(name, path); err != nil {
		if _, exists := os.Stat(path); exists == nil {
			return fmt.Errorf("another process has created %s just now: use another directory", path)
		}
		if err := os.Rename(name, path); err != nil {
			return err
		}
	}
	return syncDirectory(dir)
}

// onlyOurs reports what stands in the way of using dir for a new file, and removes what a creation
// that was cut short has left.
func onlyOurs(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		ours, _ := filepath.Match(newName, entry.Name())
		switch {
		case ours:
			if err := os.Remove(filepath.Join(dir, entry.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		case strings.HasPrefix(entry.Name(), besideName):
		case entry.Name() != "lost+found": // the root of a file system has one
			return fmt.Errorf("%s is not empty and has no %s: name a directory that is empty, or is not there yet",
				dir, fileName)
		}
	}
	return nil
}

func syncDirectory(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// readFile verifies the file and hands its records to each.
func readFile(path string, each func(key string, content []byte) error) (tally, error) {
	var want, got tally
	version := uint32(0)
	err := boltfile.Walk(path, func(part string, key, value []byte) error {
		switch part + "/" + string(key) {
		case "meta/format":
			content, err := checked(string(keyFormat), value)
			if err != nil || len(content) != 4 {
				return fmt.Errorf("its format is not readable: %w", errSum)
			}
			version = binary.LittleEndian.Uint32(content)
			return nil
		case "meta/tally":
			var err error
			want, err = decodeTally(value)
			return err
		}
		if version < oldest || version > format {
			return nil // said below
		}
		if part != string(partRecords) {
			return fmt.Errorf("it has a part %q", part)
		}
		name, record, err := unfold(key, value)
		if err == nil {
			var content []byte
			if content, err = checked(name, record); err == nil {
				got.add(record)
				err = each(name, content)
			}
		}
		if err != nil {
			return fmt.Errorf("record %.80q: %w", name, err)
		}
		return nil
	})
	switch {
	case err != nil && errors.As(err, new(*fs.PathError)):
		return want, err
	case err != nil:
		return want, damaged(path, err)
	case version == 0:
		return want, damaged(path, errors.New("it does not say its format"))
	case version < oldest || version > format:
		age := "a newer"
		if version < oldest {
			age = "an older"
		}
		return want, fmt.Errorf("%s was written by %s ration: it has format %d, and this one knows %d; "+
			"use that ration, or move the file away to begin with nothing", path, age, version, format)
	}
	if got.turn = want.turn; got != want {
		return want, damaged(path, fmt.Errorf("it has %d records, and should have %d", got.count, want.count))
	}
	return want, nil
}

// close lets go of the file.
func (d *disk) close() error { return d.db.Close() }
