package memory

import (
	"maps"
	"time"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

// sweepForever drops what no longer matters, one shard at a time, so that nobody waits for more than
// a small part of the store, until the store is closed.
func (s *Store) sweepForever(pause time.Duration) {
	ticker := time.NewTicker(max(pause, time.Millisecond))
	defer ticker.Stop()
	for next := 0; ; next = (next + 1) % shardCount {
		select {
		case <-s.stop:
			return
		case <-ticker.C:
			s.sweepBuckets(next)
			s.sweepLeases(next)
			s.sweepStripe(next % stripeCount)
		}
	}
}

// sweepBuckets drops the idle buckets of a shard. It reports whether it had to look for them, and when
// there may be some again.
func (s *Store) sweepBuckets(i int) (looked bool, next limit.Micros) {
	sh := &s.shards[i]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	now := s.clock()
	if due := min(sh.due, sh.usage.due, sh.events.due); now < due {
		return false, due
	}
	s.journal.enter(&sh.ledger, sh)
	s.bytes.Add(-sh.sweep(now) - sh.usage.sweep(now, &sh.ledger, 0))
	s.sweepEvents(sh, now)
	return true, min(sh.due, sh.usage.due, sh.events.due)
}

// sweepLeases drops the leases of a shard that need not be remembered any more. It reports whether it
// had to look for them, and when there may be some again, or some that can be done without.
func (s *Store) sweepLeases(i int) (looked bool, next limit.Micros) {
	sh := &s.leases[i]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	now := s.clock()
	if now < sh.due {
		return false, min(sh.due, sh.lapsed)
	}
	before := len(sh.leases)
	sh.due, sh.ended, sh.lapsed = never, never, never
	for _, l := range sh.leases {
		if now >= l.due+store.Retention {
			s.forget(sh, l, now)
		} else {
			sh.note(l)
		}
	}
	sh.leases = shrunk(sh.leases, before)
	return true, min(sh.due, sh.lapsed)
}

// sweep drops idle buckets, and returns about how many bytes they took.
func (sh *shard) sweep(now limit.Micros) (freed int64) {
	alone, owners := len(sh.alone), len(sh.owners)
	sh.due = never
	for name, b := range sh.alone {
		if now < b.idle() {
			sh.due = min(sh.due, b.idle())
			continue
		}
		freed += b.bytes() + aloneOverhead + int64(len(name))
		sh.drop("", name, b)
		delete(sh.alone, name)
	}
	for name, o := range sh.owners {
		freed += sh.sweepOwner(name, o, now)
		if len(o.buckets) == 0 {
			freed += ownerBytes + int64(len(name))
			delete(sh.owners, name)
		}
	}
	sh.alone = shrunk(sh.alone, alone)
	sh.owners = shrunk(sh.owners, owners)
	return freed
}

func (sh *shard) sweepOwner(name string, o *owner, now limit.Micros) (freed int64) {
	kept := 0
	for i := range o.buckets {
		b := &o.buckets[i]
		if now < b.idle() {
			sh.due = min(sh.due, b.idle())
			o.buckets[kept] = o.buckets[i]
			kept++
			continue
		}
		freed += b.bytes()
		sh.drop(name, b.name.Value(), b)
	}
	if kept == len(o.buckets) {
		return freed
	}
	o.buckets = append(make([]bucket, 0, kept), o.buckets[:kept]...)
	o.index = nil
	if kept > few {
		o.reindex()
	}
	return freed
}

// drop lets go of a bucket: all that was held of it is due.
func (sh *shard) drop(owner, name string, b *bucket) {
	for h := b.holds.first(); h != nil; h = b.holds.first() {
		b.holds.remove(h)
		sh.ledger.lapse(h)
	}
	if b.life&stored != 0 {
		sh.ledger.remove(bucketKey(owner, name))
	}
}

// forget drops a lease, and returns about how many bytes it took.
func (sh *leaseShard) forget(l *lease) (freed int64) {
	delete(sh.leases, l.id)
	sh.ledger.remove(leaseKey(l.id))
	for i := range l.holds {
		sh.ledger.remove(lapseKey(l.id, i))
	}
	return l.bytes()
}

// repeats is how long after a lease was due somebody may still settle it, or repeat what it was settled
// by, before a store that is full forgets it.
const repeats = 600 * limit.Second

// note keeps in mind when the lease may be forgotten.
func (sh *leaseShard) note(l *lease) {
	sh.due = min(sh.due, l.due+store.Retention)
	sh.lapsed = min(sh.lapsed, l.due+repeats)
	if l.ended != live {
		sh.ended = min(sh.ended, l.due+repeats)
	}
}

// shrunk returns m, made anew if it once needed much more room, which maps keep.
func shrunk[K comparable, V any](m map[K]V, before int) map[K]V {
	if before < 1024 || len(m) >= before/4 {
		return m
	}
	kept := make(map[K]V, len(m))
	maps.Copy(kept, m)
	return kept
}

// Len returns how many buckets the store remembers, idle ones that are not yet swept included.
func (s *Store) Len() int {
	n := 0
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.Lock()
		n += len(sh.alone)
		for _, o := range sh.owners {
			n += len(o.buckets)
		}
		sh.mu.Unlock()
	}
	return n
}

// Bytes returns about how much memory counters, leases, rows and events take.
func (s *Store) Bytes() int64 { return s.bytes.Load() }
