package subject

import (
	"context"
	"sync"
	"time"
)

// table is a bounded map from keys to what a directory says of them. It asks for what it does not know, once for all
// who wait for it, and knows when it no longer can trust what it has.
type table[K comparable, V any] struct {
	load func(context.Context, K) (V, error)
	hash func(K) uint64
	own  func(K) K // a copy of a key that shares no memory with it
	opts *CacheOptions

	shards  [tableShards]tableShard[K, V]
	loading sync.WaitGroup
}

const tableShards = 64

type tableShard[K comparable, V any] struct {
	mu      sync.Mutex
	live    bool // every change is heard of
	closed  bool
	entries map[K]*entry[K, V]
	calls   map[K]*call[V] // what is being asked for, where its answer will be good
	ring    []*entry[K, V] // all entries, for choosing which to forget
	hand    int
	stats   CacheStats

	_ [64]byte // shards are locked by different cores: they share no cache line
}

// entry is what is known of one key.
type entry[K comparable, V any] struct {
	key   K
	value V
	// known says that there is a value; else the entry is no more than err.
	known bool
	// fresh says that the value was not changed since right, as far as it is told.
	fresh bool
	// used says that somebody asked since the hand came by.
	used bool
	// right is when the value was right for the last time that is certain. A fresh one is so still, while every change
	// is heard of.
	right time.Time
	// err is why the directory could not be asked the last time, and retry until when it is not asked again.
	err   error
	retry time.Time
}

// call is one question to the directory.
type call[V any] struct {
	done chan struct{}
	// outdated says that something has changed since it was asked: the answer is for those who wait, and nobody else.
	outdated bool
	value    V
	stale    bool
	err      error
}

func newTable[K comparable, V any](
	opts *CacheOptions, hash func(K) uint64, own func(K) K, load func(context.Context, K) (V, error),
) *table[K, V] {
	t := &table[K, V]{load: load, hash: hash, own: own, opts: opts}
	for i := range t.shards {
		t.shards[i].entries, t.shards[i].calls = make(map[K]*entry[K, V]), make(map[K]*call[V])
	}
	return t
}

func (t *table[K, V]) shard(k K) *tableShard[K, V] {
	return &t.shards[t.hash(k)%tableShards]
}

// get returns the value of a key; stale, where the directory could not be asked.
func (t *table[K, V]) get(ctx context.Context, k K) (value V, stale bool, err error) {
	s := t.shard(k)
	s.mu.Lock()
	e := s.entries[k]
	if e != nil && e.fresh && (s.live || t.opts.Clock().Sub(e.right) < t.opts.Unwatched) {
		e.used = true
		value = e.value
		s.stats.Hits++
		s.mu.Unlock()
		return value, false, nil
	}
	c := s.calls[k]
	if e != nil && e.err != nil {
		e.used = true
		now := t.opts.Clock()
		wait := now.Before(e.retry)
		value, stale, err = t.last(s, e, e.err)
		if wait || stale { // who has something to go by does not wait for a directory that failed just now
			if !wait && c == nil {
				t.start(ctx, s, k)
			}
			s.mu.Unlock()
			return value, stale, err
		}
	}
	if c == nil {
		c = t.start(ctx, s, k)
	}
	s.mu.Unlock()
	select {
	case <-c.done:
		return c.value, c.stale, c.err
	case <-ctx.Done():
		var none V
		return none, false, ctx.Err()
	}
}

// start begins to ask the directory, under the shard's lock.
func (t *table[K, V]) start(ctx context.Context, s *tableShard[K, V], k K) *call[V] {
	c := &call[V]{done: make(chan struct{})}
	if s.closed {
		c.err = errClosed
		close(c.done)
		return c
	}
	k = t.own(k)
	s.calls[k] = c
	s.stats.Loads++
	t.loading.Add(1)
	go t.ask(context.WithoutCancel(ctx), k, c) // it does not matter whether the first of those who wait leaves
	return c
}

func (t *table[K, V]) ask(ctx context.Context, k K, c *call[V]) {
	defer t.loading.Done()
	defer close(c.done)
	ctx, cancel := context.WithTimeout(ctx, t.opts.Timeout)
	defer cancel()
	began := t.opts.Clock()
	value, err := t.load(ctx, k)

	s := t.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	c.value, c.err = value, err
	if s.calls[k] == c {
		delete(s.calls, k)
	}
	e := s.entries[k]
	switch {
	case c.outdated && err == nil: // it may be all that is ever heard
		if e == nil {
			e = s.add(k, t.opts.Entries/tableShards)
		}
		if !e.known || !e.fresh && e.right.Before(began) {
			e.value, e.known, e.right = value, true, began
		}
	case c.outdated:
		s.stats.Failures++
		if e != nil {
			c.value, c.stale, c.err = t.last(s, e, err)
		}
	case err == nil:
		if e == nil {
			e = s.add(k, t.opts.Entries/tableShards)
		}
		e.value, e.known, e.fresh, e.right, e.err = value, true, true, began, nil
	default:
		s.stats.Failures++
		if e == nil {
			e = s.add(k, t.opts.Entries/tableShards)
		}
		e.err, e.retry = err, t.opts.Clock().Add(t.opts.Retry)
		c.value, c.stale, c.err = t.last(s, e, err)
	}
}

// last returns the value that was known last, if it was right not too long ago, else the error.
func (t *table[K, V]) last(s *tableShard[K, V], e *entry[K, V], err error) (value V, stale bool, _ error) {
	switch {
	case e.known && e.fresh && s.live:
		return e.value, false, nil
	case e.known && t.opts.Clock().Sub(e.right) <= t.opts.Stale:
		s.stats.Stale++
		return e.value, true, nil
	}
	return value, false, err
}

// add makes an entry, in the place of one that nobody has asked for lately if there is no more room.
func (s *tableShard[K, V]) add(k K, most int) *entry[K, V] {
	e := &entry[K, V]{key: k}
	s.entries[k] = e
	if len(s.ring) < max(1, most) {
		s.ring = append(s.ring, e)
		return e
	}
	for s.ring[s.hand].used {
		s.ring[s.hand].used = false
		s.hand = (s.hand + 1) % len(s.ring)
	}
	delete(s.entries, s.ring[s.hand].key)
	s.ring[s.hand] = e
	s.hand = (s.hand + 1) % len(s.ring)
	return e
}

// changed says that the value of a key is another one now.
func (t *table[K, V]) changed(k K) {
	s := t.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.entries[k]; e != nil {
		s.distrust(e, t.opts.Clock())
	}
	if c := s.calls[k]; c != nil {
		c.outdated = true
		delete(s.calls, k)
	}
}

// distrust says that the value of an entry may be another one since now, and that the directory can be asked.
func (s *tableShard[K, V]) distrust(e *entry[K, V], now time.Time) {
	if e.fresh && s.live {
		e.right = now
	}
	e.fresh, e.err = false, nil
}

// watched says that from now on every change is heard of, or not. Some may have gone unheard.
func (t *table[K, V]) watched(live bool) {
	now := t.opts.Clock()
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		for _, e := range s.ring {
			s.distrust(e, now)
		}
		for k, c := range s.calls {
			c.outdated = true
			delete(s.calls, k)
		}
		s.live = live
		s.mu.Unlock()
	}
}

// close lets nobody ask the directory any more, and waits for those who do.
func (t *table[K, V]) close() {
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		s.closed = true
		s.mu.Unlock()
	}
	t.loading.Wait()
}

func (t *table[K, V]) addTo(sum *CacheStats) {
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		sum.Entries += len(s.entries)
		sum.Hits += s.stats.Hits
		sum.Loads += s.stats.Loads
		sum.Failures += s.stats.Failures
		sum.Stale += s.stats.Stale
		s.mu.Unlock()
	}
}
