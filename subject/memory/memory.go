// Package memory is the subject directory in the process that uses it, kept in a file where it is to survive that.
//
// It knows the contract (package subject), nothing else. Read [Directory], then file.go for what is on disk.
package memory

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/subject"
)

// Options of a directory. The zero value is a good choice.
type Options struct {
	// Clock replaces the clock. Only tests set it.
	Clock func() limit.Micros
}

// Directory is the subject.Directory in memory.
type Directory struct {
	clock func() limit.Micros

	// writing is held by the one who changes something, from when he looks until everybody is told.
	writing sync.Mutex
	file    *file // nil: nothing is kept

	// mu is for what follows: who changes it holds writing too.
	mu      sync.RWMutex
	domains map[string]*names
	keys    map[subject.KeyHash]subject.Ref
	shards  [subject.Shards]shard
	closed  bool

	telling  sync.Mutex
	watchers map[*watcher]bool
}

// shard is what subjects that have it in common share.
type shard struct {
	// floor is the highest revision of those that were deleted.
	floor uint64
	// rows of the audit, the newest last.
	rows []string
}

type watcher struct{ tell func(subject.Notice) }

var errClosed = fmt.Errorf("%w: it is closed", subject.ErrUnavailable)

// New returns a directory that is empty, and gone with the process.
func New(opts Options) *Directory {
	if opts.Clock == nil {
		opts.Clock = func() limit.Micros { return limit.At(time.Now()) }
	}
	return &Directory{
		clock: opts.Clock, domains: make(map[string]*names), keys: make(map[subject.KeyHash]subject.Ref),
		watchers: make(map[*watcher]bool),
	}
}

// Close lets go of the file. What is asked for after it is ErrUnavailable.
func (d *Directory) Close() error {
	d.writing.Lock()
	defer d.writing.Unlock()
	d.mu.Lock()
	closed := d.closed
	d.closed = true
	d.mu.Unlock()
	if closed || d.file == nil {
		return nil
	}
	return d.file.close()
}

// Find implements subject.Directory.
func (d *Directory) Find(ctx context.Context, of subject.Ref) (subject.Subject, bool, error) {
	record, found, err := d.record(ctx, of)
	if err != nil || !found {
		return subject.Subject{}, false, err
	}
	s, err := subject.ReadRecord(of, record)
	return s, err == nil, err
}

func (d *Directory) record(ctx context.Context, of subject.Ref) (record string, found bool, err error) {
	if err := ctx.Err(); err != nil {
		return "", false, err
	}
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.closed {
		return "", false, errClosed
	}
	record, found = d.look(of)
	return record, found, nil
}

// look finds a record under mu.
func (d *Directory) look(of subject.Ref) (record string, found bool) {
	if n := d.domains[of.Domain]; n != nil {
		return n.get(of.Name)
	}
	return "", false
}

// FindByKey implements subject.Directory.
func (d *Directory) FindByKey(ctx context.Context, hash subject.KeyHash) (subject.Subject, bool, error) {
	d.mu.RLock()
	of, found := d.keys[hash]
	d.mu.RUnlock()
	if !found {
		of = subject.Ref{} // and Find says whether it can be asked
	}
	s, found, err := d.Find(ctx, of)
	if err != nil || !found || !s.Lists(hash) { // it was moved just now
		return subject.Subject{}, false, err
	}
	return s, true, nil
}

// Change implements subject.Directory.
func (d *Directory) Change(
	ctx context.Context, of subject.Ref, by subject.By, apply func(*subject.Subject) error,
) (subject.Subject, error) {
	d.writing.Lock()
	defer d.writing.Unlock()
	record, found, err := d.record(ctx, of)
	if err != nil {
		return subject.Subject{}, err
	}
	var old *subject.Subject
	if found {
		read, err := subject.ReadRecordToChange(of, record)
		if err != nil {
			return subject.Subject{}, err
		}
		old = &read
	}
	step, err := subject.Plan(of, old, by, apply)
	if err != nil {
		return subject.Subject{}, err
	}
	if step == nil {
		return *old, nil
	}
	for _, hash := range step.Added {
		if d.taken(hash) {
			return subject.Subject{}, subject.ErrKeyTaken
		}
	}
	if err := d.take(step); err != nil {
		return subject.Subject{}, err
	}
	return *step.New, nil
}

// Delete implements subject.Directory.
func (d *Directory) Delete(ctx context.Context, of subject.Ref, by subject.By) (bool, error) {
	d.writing.Lock()
	defer d.writing.Unlock()
	record, found, err := d.record(ctx, of)
	if err != nil {
		return false, err
	}
	old, _ := subject.ReadRecord(of, record) // what cannot be read can be deleted
	step, err := subject.PlanDelete(&old, by)
	if err != nil || !found {
		return false, err
	}
	if err := d.take(step); err != nil {
		return false, err
	}
	return true, nil
}

// taken reports whether a subject lists the API key.
func (d *Directory) taken(hash subject.KeyHash) bool {
	of, known := d.keys[hash]
	if !known {
		return false
	}
	record, _ := d.look(of)
	s, err := subject.ReadRecord(of, record)
	return err == nil && s.Lists(hash)
}

// take makes a step happen: on disk, in memory, and for those who watch. It sets the revision.
func (d *Directory) take(step *subject.Step) error {
	sh := &d.shards[step.Ref.Shard()]
	revision := sh.floor + 1
	if step.Old != nil {
		revision = step.Old.Revision + 1
	}
	w := writing{ref: step.Ref, floor: sh.floor}
	number := strconv.FormatUint(revision, 10)
	if step.New != nil {
		step.New.Revision = revision
		w.record = number + " " + string(step.Content)
	} else {
		w.floor = max(sh.floor, revision)
	}
	w.row = sh.nextID(d.clock(), step.Ref.Shard()) + " " + number + " " + string(step.Row)
	if len(sh.rows) >= subject.AuditRows {
		w.forget = sh.rows[0]
	}
	if d.file != nil {
		if err := d.file.write(&w); err != nil {
			return fmt.Errorf("%w: %w", subject.ErrUnavailable, err)
		}
	}
	d.mu.Lock()
	sh.floor = w.floor
	sh.add(w.row)
	d.put(w.ref, w.record)
	for _, hash := range step.Removed {
		delete(d.keys, hash)
	}
	for _, hash := range step.Added {
		d.keys[hash] = w.ref
	}
	d.mu.Unlock()
	d.tell(subject.Notice{Kind: subject.Changed, Subject: step.Ref, Keys: step.Keys()})
	return nil
}

// put writes a record down under mu; an empty one removes it.
func (d *Directory) put(of subject.Ref, record string) {
	n := d.domains[of.Domain]
	switch {
	case record == "" && n == nil:
	case record == "":
		n.remove(of.Name)
		if len(n.pieces) == 0 {
			delete(d.domains, of.Domain)
		}
	default:
		if n == nil {
			n = &names{}
			d.domains[strings.Clone(of.Domain)] = n
		}
		n.put(strings.Clone(of.Name), record)
	}
}

// nextID returns the ID of the next row, which is above all others even if the clock has stepped back.
func (sh *shard) nextID(now limit.Micros, number uint8) string {
	if n := len(sh.rows); n > 0 {
		if last, err := subject.ReadRowTime(sh.rows[n-1]); err == nil && now <= last {
			now = last + 1
		}
	}
	return subject.RowID(now, number)
}

func (sh *shard) add(row string) {
	if len(sh.rows) >= subject.AuditRows {
		sh.rows = slices.Delete(sh.rows, 0, len(sh.rows)-subject.AuditRows+1)
	}
	sh.rows = append(sh.rows, row)
}

// Watch implements subject.Directory.
func (d *Directory) Watch(ctx context.Context, tell func(subject.Notice)) {
	w := &watcher{tell}
	d.telling.Lock()
	tell(subject.Notice{Kind: subject.Live})
	d.watchers[w] = true
	d.telling.Unlock()
	<-ctx.Done()
	d.telling.Lock()
	delete(d.watchers, w)
	d.telling.Unlock()
}

func (d *Directory) tell(n subject.Notice) {
	d.telling.Lock()
	defer d.telling.Unlock()
	for w := range d.watchers {
		w.tell(n)
	}
}
