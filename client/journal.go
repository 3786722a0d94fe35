package client

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"

	rationv1 "github.com/rationhq/ration/gen/ration/v1"
)

// ErrJournalFull says that a report was neither delivered nor kept: too much lies in the journal already.
var ErrJournalFull = errors.New("the journal is full")

// journal keeps reports on disk until the server has taken them.
//
// Every process writes files of its own, which it holds locked as long as it lives; those whose lock is free were left by
// a process that has ended, and whoever finds them delivers them. A report is in a file that was synced before its caller
// hears of it, and leaves it after the server has taken it. A crash between sends it once more, which changes nothing:
// settlements are named by their reservation, records by their key.
type journal struct {
	dir  string
	size int64
	name string // begins the names of this process's files
	log  *slog.Logger

	mu     sync.Mutex
	closed bool
	made   int          // files so far
	active *journalFile // that reports are added to; nil: none
	sealed []*journalFile
}

// journalFile is a file that is open, and locked.
type journalFile struct {
	*os.File
	size int64
}

const (
	journalSuffix  = ".journal"
	rejectedSuffix = ".rejected"
	// fileSize is when another file is begun: what is read at once.
	fileSize = 4 << 20
)

func openJournal(dir string, size int64, log *slog.Logger) (*journal, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	j := &journal{dir: dir, size: size, name: NewKey(), log: log}
	// What cannot work is said now, and not in an outage.
	f, err := j.create()
	if err != nil {
		return nil, err
	}
	return j, f.remove()
}

// add writes a report, and returns when it is on disk.
func (j *journal) add(item *rationv1.BatchItem) error {
	line, err := appendLine(nil, item)
	if err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return errors.New("journal: the client is closed")
	}
	if j.bytes()+int64(len(line)) > j.size {
		return fmt.Errorf("%w: %d bytes lie in %s", ErrJournalFull, j.bytes(), j.dir)
	}
	if j.active == nil {
		if j.active, err = j.create(); err != nil {
			return err
		}
	}
	if err := j.active.append(line); err != nil {
		j.seal() // nothing is written behind what may be half a line
		return fmt.Errorf("journal: %w", err)
	}
	if j.active.size >= fileSize {
		j.seal()
	}
	return nil
}

// bytes is how much lies in the journal.
func (j *journal) bytes() (n int64) {
	if j.active != nil {
		n = j.active.size
	}
	for _, f := range j.sealed {
		n += f.size
	}
	return n
}

// seal lets the next report begin another file, so that this one can be delivered.
func (j *journal) seal() {
	if j.active != nil {
		j.sealed, j.active = append(j.sealed, j.active), nil
	}
}

// create makes a file, and locks it.
func (j *journal) create() (*journalFile, error) {
	for {
		j.made++
		path := filepath.Join(j.dir, fmt.Sprintf("%s-%d%s", j.name, j.made, journalSuffix))
		f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
		if err != nil {
			return nil, fmt.Errorf("journal: %w", err)
		}
		locked, err := lock(f)
		if err != nil {
			_ = f.Close()
			return nil, fmt.Errorf("journal: lock %s: %w", path, err)
		}
		if locked {
			return &journalFile{File: f}, syncDir(j.dir)
		}
		_ = f.Close() // somebody has found it before it was locked, and removes it
	}
}

// takeOver locks the files that nobody holds any more, and adds them to those that are to be delivered.
func (j *journal) takeOver() error {
	names, err := filepath.Glob(filepath.Join(j.dir, "*"+journalSuffix))
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	for _, path := range names {
		if strings.HasPrefix(filepath.Base(path), j.name) {
			continue
		}
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			continue // another process has delivered it just now; or it is not ours to read
		}
		locked, err := lock(f)
		if err != nil || !locked {
			_ = f.Close()
			continue
		}
		info, err := f.Stat()
		if err != nil {
			_ = f.Close()
			continue
		}
		j.mu.Lock()
		j.sealed = append(j.sealed, &journalFile{File: f, size: info.Size()})
		j.mu.Unlock()
	}
	return nil
}

// due returns the files that are to be delivered. While nothing can be, no more than two are kept apart from the one that
// is added to, until that is large.
func (j *journal) due() []*journalFile {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.sealed) < 2 {
		j.seal()
	}
	return append([]*journalFile(nil), j.sealed...)
}

// replace puts the entries that are left of some files into one, and removes them.
func (j *journal) replace(old []*journalFile, left []entry) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return nil
	}
	if len(left) > 0 {
		f, err := j.create()
		if err != nil {
			return err
		}
		var text []byte
		for _, e := range left {
			text = append(append(text, e.line...), '\n')
		}
		if err := f.append(text); err != nil {
			return errors.Join(fmt.Errorf("journal: %w", err), f.remove())
		}
		j.sealed = append(j.sealed, f)
	}
	gone := make(map[*journalFile]bool, len(old))
	var failed error
	for _, f := range old {
		gone[f] = true
		failed = errors.Join(failed, f.remove())
	}
	kept := j.sealed[:0]
	for _, f := range j.sealed {
		if !gone[f] {
			kept = append(kept, f)
		}
	}
	j.sealed = kept
	return failed
}

// reject writes what can never be delivered to a file that nobody reads but people.
func (j *journal) reject(lines []byte) error {
	f, err := os.OpenFile(filepath.Join(j.dir, j.name+rejectedSuffix), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	_, err = f.Write(lines)
	return errors.Join(err, f.Sync(), f.Close(), syncDir(j.dir))
}

// close gives the files free for others.
func (j *journal) close() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.closed = true
	j.seal()
	for _, f := range j.sealed {
		_ = f.Close()
	}
	j.sealed = nil
}

// append writes to the end of the file, and waits until it is on disk. After an error the file is as it was, if that can
// be had.
func (f *journalFile) append(text []byte) error {
	_, err := f.WriteAt(text, f.size)
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		return errors.Join(err, f.Truncate(f.size))
	}
	f.size += int64(len(text))
	return nil
}

// read returns all that is in the file.
func (f *journalFile) read() ([]byte, error) {
	return io.ReadAll(io.NewSectionReader(f.File, 0, f.size))
}

func (f *journalFile) remove() error {
	err := os.Remove(f.Name())
	return errors.Join(err, f.Close())
}

// syncDir makes the names of files in a directory survive.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
