// Package memory is the embedded store: counters in this process, exact under any concurrency.
//
// Counters live in shards, each with a lock of its own; a step locks the shards of its buckets in
// ascending order, so steps on different shards never wait for each other and none can deadlock.
//
// It knows the storage contract (package store) and the arithmetic (package limit), nothing else.
// Read [Store.Apply] first.
package memory

import (
	"context"
	"hash/maphash"
	"math/bits"
	"sync"
	"time"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

// Options of a memory store. The zero value is ready to use.
type Options struct {
	// Clock tells the time; nil means the system's clock.
	Clock func() limit.Micros
	// SweepEvery is how often the whole store has been searched for counters that no longer
	// matter; 0 means once a minute.
	SweepEvery time.Duration
}

// shardCount is a power of two, well above the number of cores that will ever wait for one store.
const shardCount = 256

// Store is the embedded store.Store.
type Store struct {
	clock  func() limit.Micros
	seed   maphash.Seed
	shards [shardCount]shard
	stop   chan struct{}
	swept  sync.WaitGroup
	close  sync.Once
}

type shard struct {
	mu      sync.Mutex
	buckets map[string]*bucket
	_       [48]byte // keeps two shards' locks out of one cache line
}

// New returns an empty store. Close stops its sweeper.
func New(opts Options) *Store {
	if opts.Clock == nil {
		opts.Clock = func() limit.Micros { return limit.At(time.Now()) }
	}
	if opts.SweepEvery <= 0 {
		opts.SweepEvery = time.Minute
	}
	s := &Store{clock: opts.Clock, seed: maphash.MakeSeed(), stop: make(chan struct{})}
	for i := range s.shards {
		s.shards[i].buckets = make(map[string]*bucket)
	}
	s.swept.Go(func() { s.sweepForever(opts.SweepEvery / shardCount) })
	return s
}

// Ready always succeeds: the store is this process.
func (s *Store) Ready(context.Context) error { return nil }

// Close stops the sweeper.
func (s *Store) Close() error {
	s.close.Do(func() { close(s.stop) })
	s.swept.Wait()
	return nil
}

// Apply implements store.Store. It never waits for anything but other steps on the same shards.
func (s *Store) Apply(ctx context.Context, step *store.Step, out *store.Outcome) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := step.Validate(); err != nil {
		return err
	}
	var locks shardSet
	for i := range step.Ops {
		locks.add(s.shardOf(step.Ops[i].Bucket))
	}
	locks.each(func(i int) { s.shards[i].mu.Lock() })
	// The clock is read under the locks, so that later decisions on a bucket have later instants.
	out.Now = s.clock()
	s.decide(step, out)
	locks.each(func(i int) { s.shards[i].mu.Unlock() })
	return nil
}

func (s *Store) shardOf(bucket []byte) int {
	return int(maphash.Bytes(s.seed, bucket) % shardCount)
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
