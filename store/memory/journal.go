package memory

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

// journal brings what changes onto disk: whole steps, in the order of their instants, many in one
// transaction. A store without a directory has none; all methods do nothing on nil.
//
// Time is cut into epochs. A step reads the epoch once, when all its locks are held, and everything
// that it changes belongs to that epoch. The flusher (flush.go) begins a new epoch and writes what
// belongs to those before. No lock stops the whole store meanwhile, and still a transaction holds
// whole steps only, all of those before its cut and none behind it:
//
//   - The epochs in which a shard is changed never fall: a step that locks it later reads the epoch
//     later.
//   - The flusher visits every shard after it has raised the epoch from e to e+1. A step of epoch e
//     read it before that, so it held all its locks by then, and the visit to each of its shards
//     waits until the step is done: nothing of it is missed.
//   - A step of epoch e+1 that comes to a shard before the flusher freezes what the shard had changed
//     until then: it makes the records of it, and only then changes anything. So the visit finds
//     the changes up to e as they were at the cut, beside those of e+1, which stay for next time.
//   - Only the flusher raises the epoch, and only when it has visited all shards: what is frozen
//     never is of more than the one cut under way.
//
// The shards of leases, and stripes, take part in the same way as the shards of buckets.
type journal struct {
	epoch atomic.Uint64
	// failing is why the disk cannot be written to, while that is so.
	failing atomic.Pointer[error]
	wake    chan struct{}

	mu sync.Mutex
	// flushed is the newest epoch whose flush has ended, and written the newest that is on disk.
	flushed, written uint64
	// turn is closed when the flush under way has ended, or the store is closed.
	turn   chan struct{}
	closed bool
}

func newJournal() *journal {
	j := &journal{wake: make(chan struct{}, 1), turn: make(chan struct{})}
	j.epoch.Store(1)
	return j
}

// ledger is what a shard knows of its changes that are not on disk. The shard is locked.
type ledger struct {
	on     bool // there is a disk
	epoch  uint64
	dirty  []change // of that epoch
	frozen []record // of the one before
}

// change names a record that has to be made.
type change struct {
	key  string
	kind changeKind
}

type changeKind uint8

const (
	changeNow     changeKind = iota
	changeRemoved            // there is none any more
	changeLapsed             // of a hold
)

// record is what is written: nil removes what is there.
type record struct {
	key   string
	value []byte
}

// freezer is a shard that can make records of what its ledger names.
type freezer interface{ freeze() }

// enter says that one locked shard is going to be changed.
func (j *journal) enter(l *ledger, sh freezer) {
	if j != nil {
		l.enter(j.epoch.Load(), sh)
	}
}

func (l *ledger) enter(now uint64, sh freezer) {
	if l.epoch != now {
		sh.freeze()
		l.epoch = now
	}
}

// enterStep is enter for all shards of a step, which are locked, and returns the epoch of the step.
func (j *journal) enterStep(s *Store, locks *shardSet, leases *leaseShard, stripes stripeSet) uint64 {
	if j == nil {
		return 0
	}
	now := j.epoch.Load()
	if leases != nil {
		leases.ledger.enter(now, leases)
	}
	locks.each(func(i int) { s.shards[i].ledger.enter(now, &s.shards[i]) })
	stripes.each(func(i int) { s.stripes[i].ledger.enter(now, &s.stripes[i]) })
	return now
}

// take freezes what belongs to the epochs before now, and returns all that is frozen.
func (l *ledger) take(now uint64, sh freezer) []record {
	l.enter(now, sh)
	records := l.frozen
	l.frozen = nil
	return records
}

// outlives is how long a counter must go on to count for its loss to matter.
const outlives = 60 * limit.Second

// lasting says that the bucket belongs on disk: it still counts in a minute, something is held of
// it, or a step with a lease has changed it.
func (b *bucket) lasting(now limit.Micros) bool {
	return b.life&leased != 0 || b.holds.first() != nil || b.idle()-limit.Tolerance > now+outlives
}

// changed notes that a bucket has changed. byLease says that a step with a lease did it.
func (sh *shard) changed(b *bucket, owner, name []byte, now limit.Micros, byLease bool) {
	sh.due = min(sh.due, b.idle())
	if !sh.ledger.on {
		return
	}
	if byLease {
		b.life |= leased
	}
	if b.life&dirty == 0 && (b.life&stored != 0 || b.lasting(now)) {
		b.life |= dirty
		sh.ledger.dirty = append(sh.ledger.dirty, change{bucketKey(string(owner), string(name)), changeNow})
	}
}

// markAll makes every bucket that counts a change.
func (s *Store) markAll() {
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.Lock()
		s.journal.enter(&sh.ledger, sh)
		now := s.clock()
		for name, b := range sh.alone {
			sh.mark(b, "", name, now)
		}
		for name, o := range sh.owners {
			for i := range o.buckets {
				sh.mark(&o.buckets[i], name, o.buckets[i].name.Value(), now)
			}
		}
		sh.mu.Unlock()
	}
}

func (sh *shard) mark(b *bucket, owner, name string, now limit.Micros) {
	if b.life&(dirty|stored) == 0 && now < b.idle() {
		b.life |= dirty
		sh.ledger.dirty = append(sh.ledger.dirty, change{bucketKey(owner, name), changeNow})
	}
}

// changed notes that a lease has changed.
func (sh *leaseShard) changed(l *lease) {
	sh.note(l)
	if sh.ledger.on && !l.dirty {
		l.dirty = true
		sh.ledger.dirty = append(sh.ledger.dirty, change{leaseKey(l.id), changeNow})
	}
}

// remove notes that there is nothing under key any more.
func (l *ledger) remove(key string) {
	if l.on {
		l.dirty = append(l.dirty, change{key, changeRemoved})
	}
}

// lapse notes that a hold has ended without its lease, whose shard is not locked. Its bucket's record
// and this go to disk together.
func (l *ledger) lapse(h *hold) {
	if l.on {
		l.dirty = append(l.dirty, change{lapseKey(h.lease.id, int(h.index)), changeLapsed})
	}
}

// freeze implements freezer.
func (sh *shard) freeze() {
	l := &sh.ledger
	arena := make([]byte, 0, 64*len(l.dirty))
	for _, c := range l.dirty {
		if c.key[0] == keyRow {
			arena = l.freezeRow(&sh.usage, c, arena)
			continue
		}
		if c.key[0] == keyEvent {
			arena = l.freezeEvent(&sh.events, c, arena)
			continue
		}
		start := len(arena)
		switch c.kind {
		case changeRemoved:
			l.frozen = append(l.frozen, record{c.key, nil})
			continue
		case changeLapsed:
			arena = appendSum(arena, start, c.key)
		case changeNow:
			owner, name := splitBucketKey(c.key)
			b := sh.find([]byte(owner), []byte(name))
			if b == nil {
				continue // it was removed: that is said too, if it is on disk
			}
			b.life = b.life&^dirty | stored
			arena = appendBucket(arena, c.key, b)
		}
		l.frozen = append(l.frozen, record{c.key, arena[start:len(arena):len(arena)]})
	}
	l.dirty = l.dirty[:0]
}

// freeze implements freezer.
func (sh *leaseShard) freeze() {
	l := &sh.ledger
	var arena []byte
	for _, c := range l.dirty {
		known := sh.leases[leaseOf(c.key)]
		switch {
		case c.kind == changeRemoved:
			l.frozen = append(l.frozen, record{c.key, nil})
		case known != nil:
			known.dirty = false
			start := len(arena)
			arena = appendLease(arena, c.key, known)
			l.frozen = append(l.frozen, record{c.key, arena[start:len(arena):len(arena)]})
		}
	}
	l.dirty = l.dirty[:0]
}

// ready reports, as ErrUnavailable, why steps with a lease cannot be kept.
func (j *journal) ready() error {
	if j == nil {
		return nil
	}
	if why := j.failing.Load(); why != nil {
		return *why
	}
	return nil
}

var errClosed = fmt.Errorf("%w: it is closed", store.ErrUnavailable)

// wait waits until the epoch is on disk.
func (j *journal) wait(ctx context.Context, epoch uint64) error {
	for {
		j.mu.Lock()
		written, flushed, closed, turn := j.written, j.flushed, j.closed, j.turn
		j.mu.Unlock()
		switch {
		case written >= epoch:
			return nil
		case closed:
			return errClosed
		case flushed >= epoch:
			if err := j.ready(); err != nil {
				return err
			} // else it was made good just now, and the next turn says so
		}
		select {
		case j.wake <- struct{}{}:
		default: // the flusher is told already
		}
		select {
		case <-turn:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// publish says how the flush of an epoch has ended.
func (j *journal) publish(epoch uint64, failed bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.flushed = epoch
	if !failed {
		j.written = epoch
	}
	close(j.turn)
	j.turn = make(chan struct{})
}

// close ends all waiting.
func (j *journal) close() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.closed = true
	close(j.turn)
	j.turn = make(chan struct{})
}
