package memory

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/rationhq/ration/internal/boltfile"
	"github.com/rationhq/ration/subject"
)

// FileName is the file that [Open] makes.
const FileName = "subjects.db"

const (
	newName = FileName + ".new-*" // one that is being made
	format  = "1"
	// lockTime is how long another process may take to let go of the file.
	lockTime = 800 * time.Millisecond
)

// Open returns the directory that is kept in dir, which is made if it is not there, in a file of its own. Each change
// is on disk before it is answered. A file that is not in order is refused, and left as it is.
func Open(dir string, opts Options) (*Directory, error) {
	d := New(opts)
	f, err := openFile(dir, d.load)
	if err != nil {
		return nil, fmt.Errorf("subjects: %w", err)
	}
	d.file = f
	return d, nil
}

// load takes in one record of the file.
func (d *Directory) load(kind byte, name, value string) error {
	switch kind {
	case kindSubject:
		of, ok := subject.ParseRef(name)
		if !ok || value == "" {
			return errNoSense
		}
		d.put(of, value)
		if strings.Contains(value, `"api_keys"`) {
			s, err := subject.ReadRecord(of, value)
			for i := range s.APIKeys {
				d.keys[s.APIKeys[i].Hash] = of
			}
			return err
		}
		return nil
	case kindFloor:
		number, err := strconv.ParseUint(name, 10, 8)
		if err == nil {
			d.shards[number].floor, err = strconv.ParseUint(value, 10, 64)
		}
		return err
	case kindAudit:
		number, err := strconv.ParseUint(name[:min(3, len(name))], 10, 8)
		if err == nil {
			d.shards[number].add(value)
			_, err = subject.ReadRowTime(value)
		}
		return err
	}
	return errNoSense
}

// openFile opens the file in dir, or makes it, and hands every record to each.
func openFile(dir string, each func(kind byte, name, value string) error) (*file, error) {
	path := filepath.Join(dir, FileName)
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = create(dir, path)
	case err == nil && info.Size() == 0: // bbolt would make it a file of its own
		err = damaged(path, errors.New("it is empty"))
	}
	if err != nil {
		return nil, err
	}
	// A shared lock keeps others from writing while the file is verified.
	locked, err := openBolt(path, true)
	if err != nil {
		return nil, err
	}
	found, err := read(path, each)
	_ = locked.Close()
	if err != nil {
		return nil, err
	}
	db, err := openBolt(path, false)
	if err != nil {
		return nil, err
	}
	f := &file{path: path, db: db, tally: found}
	now, err := f.readTally()
	if err == nil && now != found {
		err = fmt.Errorf("another process has written %s just now: use another directory", path)
	}
	if err != nil {
		_ = db.Close()
		return nil, err
	}
	return f, nil
}

// openBolt lets bbolt open the file. What it makes of one that is not its own may be a panic.
func openBolt(path string, readOnly bool) (db *bbolt.DB, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if why := recover(); why != nil {
			err = damaged(path, fmt.Errorf("%v", why))
		}
	}()
	// The list of free pages is made anew at each start: one on disk could not be verified.
	db, err = bbolt.Open(path, 0o600, &bbolt.Options{
		ReadOnly: readOnly, Timeout: lockTime, NoFreelistSync: true, FreelistType: bbolt.FreelistMapType, NoStatistics: true,
	})
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
		"or move it away to begin with no subjects", path, why)
}

// create makes a file without records. Until it is complete it has another name, so that a process which is killed
// meanwhile leaves nothing that could be mistaken for one.
func create(dir, path string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if ours, _ := filepath.Match(newName, entry.Name()); ours { // a process was killed
			_ = os.Remove(filepath.Join(dir, entry.Name()))
		}
	}
	f, err := os.CreateTemp(dir, newName)
	if err != nil {
		return err
	}
	name := f.Name()
	defer func() { _ = os.Remove(name) }()
	if err := f.Close(); err != nil {
		return err
	}
	db, err := openBolt(name, false)
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
		if err := meta.Put(keyFormat, appendSum([]byte(format), keyFormat)); err != nil {
			return err
		}
		return meta.Put(keyTally, (&tally{}).encode())
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
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// read verifies the file and hands its records to each.
func read(path string, each func(kind byte, name, value string) error) (want tally, err error) {
	var got tally
	version := ""
	err = boltfile.Walk(path, func(part string, key, record []byte) error {
		if part != string(partMeta) && part != string(partRecords) || len(key) == 0 {
			return fmt.Errorf("it has a part %.80q", part)
		}
		value, err := checked(key, record)
		switch {
		case err != nil:
			return fmt.Errorf("record %.80q: %w", key, err)
		case part == string(partMeta) && string(key) == string(keyFormat):
			version = string(value)
		case part == string(partMeta) && string(key) == string(keyTally):
			want, err = decodeTally(record)
		case part == string(partMeta):
			err = fmt.Errorf("it has an entry %.80q", key)
		case version == format:
			got.count, got.sum = got.count+1, got.sum+uint64(sumOf(record))
			if err = each(key[0], string(key[1:]), string(value)); err != nil {
				err = fmt.Errorf("record %.80q: %w", key, err)
			}
		}
		return err
	})
	got.turn = want.turn
	switch {
	case err != nil && errors.As(err, new(*fs.PathError)):
		return want, err
	case err != nil:
		return want, damaged(path, err)
	case version == "":
		return want, damaged(path, errors.New("it does not say its format"))
	case version != format:
		return want, fmt.Errorf("%s was written by another version of ration: it has format %.20q, and this one knows %s; "+
			"use that ration, or move the file away to begin with no subjects", path, version, format)
	case got != want:
		return want, damaged(path, fmt.Errorf("it has %d records, and should have %d", got.count, want.count))
	}
	return want, nil
}
