// Package memory is the embedded store: counters in this process, exact under any concurrency.
//
// Counters live in shards, each with a lock of its own; a step locks the shards of its buckets in
// ascending order, so steps on different shards never wait for each other and none can deadlock. The
// buckets of one owner live in one shard. Leases have shards of their own, locked before those of
// buckets; no step has more than one lease. What is reported of usage lies with the owner's buckets, and for
// the whole group in stripes, which are locked last. The events of a bucket lie in its shard.
//
// A store made by [Open] also keeps what outlives a minute in a directory, with bbolt. A journal
// (journal.go) says what has changed, a flusher (flush.go) writes it, and nothing of that is on the way
// of a step that does not wait for it.
//
// It knows the storage contract (package store) and the arithmetic (package limit), nothing else.
// Read [Store.Apply] first, then decide.go, then journal.go.
package memory

import (
	"context"
	"errors"
	"hash/maphash"
	"log/slog"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

// Options of a memory store. The zero value is ready to use.
type Options struct {
	// Clock tells the time; nil means the system's clock.
	Clock func() limit.Micros
	// SweepEvery is how often the whole store has been searched for what no longer matters; 0 means
	// once a minute.
	SweepEvery time.Duration
	// MaxBytes is about how much memory counters and leases may take; 0 means 1 GiB. A step that
	// needs room for new ones beyond it fails with store.ErrFull.
	MaxBytes int64
	// Log is told when the directory cannot be written to, and when it can again; nil means
	// slog.Default. Only for Open.
	Log *slog.Logger
}

// shardCount is a power of two, well above the number of cores that will ever wait for one store.
const shardCount = 256

// Store is the embedded store.Store.
type Store struct {
	clock    func() limit.Micros
	maxBytes int64
	bytes    atomic.Int64
	seed     maphash.Seed
	shards   [shardCount]shard
	leases   [shardCount]leaseShard
	stripes  [stripeCount]stripe
	// decisions are what steps work with, to be used again.
	decisions sync.Pool
	room      roomMaker
	outbox    outbox
	lines     lines
	// journal and flusher are nil without a directory.
	journal *journal
	flusher *flusher

	stop    chan struct{}
	swept   sync.WaitGroup
	closing sync.Once
	closed  error
}

// New returns an empty store that lives in this process only. Close stops its sweeper.
func New(opts Options) *Store {
	s := newStore(opts)
	s.swept.Go(func() { s.sweepForever(sweepEvery(opts)) })
	return s
}

// Open returns a store that keeps its state in a directory, which is made if it is not there: leases,
// what a step with a lease has changed, and all counters that go on to count for more than a minute.
// See docs/storage.md for what is on disk when. A directory serves one store at a time, and one that
// is not wholly in order is refused as it is. Close writes what is left.
func Open(dir string, opts Options) (*Store, error) {
	s := newStore(opts)
	disk, err := s.load(dir)
	if err != nil {
		return nil, err
	}
	if opts.Log == nil {
		opts.Log = slog.Default()
	}
	s.journal = newJournal()
	s.flusher = &flusher{store: s, disk: disk, log: opts.Log, stop: make(chan struct{})}
	s.flusher.stopped.Go(s.flusher.run)
	s.swept.Go(func() { s.sweepForever(sweepEvery(opts)) })
	return s, nil
}

// sweepEvery returns how often a shard is swept.
func sweepEvery(opts Options) time.Duration {
	if opts.SweepEvery <= 0 {
		opts.SweepEvery = time.Minute
	}
	return opts.SweepEvery / shardCount
}

func newStore(opts Options) *Store {
	if opts.Clock == nil {
		opts.Clock = func() limit.Micros { return limit.At(time.Now()) }
	}
	if opts.MaxBytes <= 0 {
		opts.MaxBytes = 1 << 30
	}
	s := &Store{clock: opts.Clock, maxBytes: opts.MaxBytes, seed: maphash.MakeSeed(), stop: make(chan struct{})}
	s.decisions.New = func() any { return &decision{} }
	for i := range s.shards {
		s.shards[i].init()
		s.leases[i].init()
	}
	for i := range s.stripes {
		s.stripes[i].number = i
		s.stripes[i].usage.init()
	}
	return s
}

// Ready reports whether steps can be decided: always, but for those with a lease while the directory
// cannot be written to.
func (s *Store) Ready(context.Context) error { return s.journal.ready() }

// Close stops the sweeper, and writes what is not on disk yet.
func (s *Store) Close() error {
	s.closing.Do(func() {
		close(s.stop)
		s.swept.Wait()
		if s.flusher != nil {
			s.closed = s.flusher.close()
		}
	})
	return s.closed
}

// Apply implements store.Store. It never waits for anything but other steps on the same shards; with a
// directory, a step with a lease waits for the disk too.
func (s *Store) Apply(ctx context.Context, step *store.Step, out *store.Outcome) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := step.Validate(); err != nil {
		return err
	}
	if s.applyPlain(step, out) {
		return nil
	}
	if step.Lease != nil {
		if err := s.journal.ready(); err != nil {
			return err
		}
	}
	epoch, err := s.apply(step, out)
	if errors.Is(err, store.ErrFull) && s.makeRoom() {
		epoch, err = s.apply(step, out)
	}
	if err != nil || epoch == 0 {
		return err
	}
	return s.journal.wait(ctx, epoch)
}

// apply decides step with the shard of its lease locked. It returns the epoch that has to be on disk
// before the caller is answered, or 0.
func (s *Store) apply(step *store.Step, out *store.Outcome) (epoch uint64, err error) {
	if step.Lease == nil {
		_, err = s.applyLocked(step, nil, out)
		return 0, err
	}
	leases := s.leaseShard(step.Lease.ID)
	leases.mu.Lock()
	defer leases.mu.Unlock()
	if known, now := leases.leases[step.Lease.ID], s.clock(); known != nil && now >= known.due+store.Retention {
		s.forget(leases, known, now)
	}
	return s.applyLocked(step, leases, out)
}

// applyLocked decides step with the shards of its buckets locked too.
func (s *Store) applyLocked(step *store.Step, leases *leaseShard, out *store.Outcome) (epoch uint64, err error) {
	d := s.decisions.Get().(*decision)
	locks := d.begin(s, step, leases)
	for {
		locks.each(func(i int) { s.shards[i].mu.Lock() })
		d.stripes.each(func(i int) { s.stripes[i].mu.Lock() })
		// The clock is read under the locks, so that later decisions on a bucket have later instants.
		d.look(s.clock())
		epoch = s.journal.enterStep(s, &locks, leases, d.stripes)
		state, err := d.recall()
		done := err != nil || d.lapse()
		if done && err == nil {
			err = d.decide(state, out)
		}
		d.stripes.each(func(i int) { s.stripes[i].mu.Unlock() })
		locks.each(func(i int) { s.shards[i].mu.Unlock() })
		if done {
			if !d.wrote {
				epoch = 0
			}
			if d.told {
				s.told()
			}
			d.end()
			s.decisions.Put(d)
			return epoch, err
		}
	}
}

func (s *Store) shardOf(owner, bucket []byte) int {
	if len(owner) > 0 {
		bucket = owner
	}
	return int(maphash.Bytes(s.seed, bucket) % shardCount)
}

func (s *Store) leaseShard(id store.LeaseID) *leaseShard {
	return &s.leases[maphash.Bytes(s.seed, id[:])%shardCount]
}

// shardSet is a set of shards. Walking it goes in ascending order, whatever order they came in:
// that is what keeps steps which lock several shards from waiting for each other in a circle.
type shardSet [shardCount / 64]uint64

func (set *shardSet) add(i int) { set[i/64] |= 1 << (i % 64) }

func (set *shardSet) each(f func(i int)) {
	for word, rest := range set {
		for ; rest != 0; rest &= rest - 1 {
			f(word*64 + bits.TrailingZeros64(rest))
		}
	}
}
