package memory

import (
	"cmp"
	"slices"
	"sync"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

// need returns about how much memory the step adds. It finds the rows that the step adds to.
func (d *decision) need() int64 {
	need := int64(0)
	for i, at := range d.ops {
		op, w := &d.step.Ops[i], &d.work[at]
		if op.Kind == store.GiveBack || w.plain && op.Amount == 0 || !w.plain && !d.lands(op, w) {
			continue
		}
		if w.bucket == nil {
			need += w.bytes()
		}
		need += w.logGrowth()
		if op.Kind == store.Hold && !d.refuse {
			need += holdBytes + int64(len(op.Owner)+len(op.Bucket)) + w.floorGrowth()
		}
	}
	if asked := d.step.Lease; asked != nil && d.lease == nil && (asked.Do == store.LeaseSettle || asked.Do == store.LeaseOpen && !d.refuse) {
		need += leaseBytes + int64(len(asked.Note))
		if asked.Do == store.LeaseOpen {
			need += int64(len(d.share.packed))
		}
	}
	return need + d.lookUpRows()
}

// bytes returns about how much memory the bucket takes that has to be created. Where the owner has
// others already, it is less.
func (w *work) bytes() int64 {
	if len(w.owner) == 0 {
		return bucketBytes + aloneOverhead + int64(len(w.name))
	}
	return bucketBytes + ownerBytes + int64(len(w.owner))
}

// logGrowth returns how much more memory the bucket's log may take for a charge: it doubles.
func (w *work) logGrowth() int64 {
	if w.plain || w.spec.Algorithm != limit.SlidingLog || !w.state.LogGrows(w.now) {
		return 0
	}
	if l := w.state.Log; l != nil {
		return int64(min(cap(l.Entries), limit.MaxLog)) * entryBytes
	}
	return entryBytes
}

// floorGrowth returns how much more memory the floors of the bucket's holds may take for another one: they double.
func (w *work) floorGrowth() int64 {
	if w.spec.Algorithm != limit.TokenBucket {
		return 0
	}
	if l := w.state.Log; l != nil {
		if len(l.Floors) < cap(l.Floors) || len(l.Floors) == limit.MaxFloors {
			return 0
		}
		return int64(cap(l.Floors)) * floorBytes
	}
	return floorBytes
}

// room reports whether there is memory for what the step adds. Names that are known, and whose logs have
// room, are decided on whatever there is.
func (d *decision) room() error {
	if need := d.need(); need > 0 && d.store.bytes.Load()+need > d.store.maxBytes {
		return store.ErrFull
	}
	return nil
}

// roomAtOnce is how many bytes are freed before it is called enough: a step that found none needs more
// than the smallest thing that can be dropped.
const roomAtOnce = 64 << 10

// shardsAtOnce bounds how many shards one step looks through to make room.
const shardsAtOnce = 8

// roomMaker drops what can be done without when the store is full.
type roomMaker struct {
	mu sync.Mutex
	// shard is where it was last.
	shard int
	// Between these instants, a second at most, it need not look again: it has found nothing.
	from, until limit.Micros
}

// makeRoom drops what is idle, and where it finds nothing, some of the leases that were due long
// enough ago; and then what owners have reported in periods that are over. It reports whether there is more
// room than before.
//
// It looks through no more than a few shards, and only into those where something may be due, so that
// in a flood of new names a refusal costs little.
func (s *Store) makeRoom() bool {
	before := s.bytes.Load()
	enough := func() bool { return s.bytes.Load() <= before-roomAtOnce }
	m := &s.room
	m.mu.Lock()
	defer m.mu.Unlock()
	now := s.clock()
	if m.from <= now && now < m.until {
		return s.bytes.Load() < before
	}
	next := now + limit.Second
	seen := 0
	for looked := 0; seen < shardCount && looked < shardsAtOnce; seen++ {
		if enough() { // perhaps by another step, which was here first
			return true
		}
		m.shard = (m.shard + 1) % shardCount
		buckets, nextBucket := s.sweepBuckets(m.shard)
		leases, nextLease := s.sweepLeases(m.shard)
		if buckets || leases {
			looked++
		}
		next = min(next, nextBucket, nextLease)
	}
	for range shardsAtOnce {
		if enough() {
			break
		}
		if !s.forgetDue(endedOnly) && !s.forgetDue(lapsedToo) && !s.forgetRows() {
			if seen == shardCount && s.bytes.Load() >= before {
				m.from, m.until = now, next
			}
			break
		}
	}
	return s.bytes.Load() < before
}

// dispensable is which leases can be done without when the store is full.
type dispensable int

const (
	endedOnly dispensable = iota // whose holder has settled them, or said that it is done
	lapsedToo                    // those that nobody has ended, too
)

// since returns when the first such lease of a shard became dispensable. The shard is locked.
func (sh *leaseShard) since(which dispensable) limit.Micros {
	if which == endedOnly {
		return sh.ended
	}
	return sh.lapsed
}

// forgetDue forgets the older half of the leases that were due long enough ago, in the shard that has
// the oldest. It reports whether there may be such leases.
func (s *Store) forgetDue(which dispensable) bool {
	oldest, since := -1, s.clock()
	for i := range s.leases {
		sh := &s.leases[i]
		sh.mu.Lock()
		if t := sh.since(which); t <= since {
			oldest, since = i, t
		}
		sh.mu.Unlock()
	}
	if oldest < 0 {
		return false
	}
	sh := &s.leases[oldest]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	s.journal.enter(&sh.ledger, sh)
	s.forgetOldest(sh, which, s.clock())
	return true
}

func (s *Store) forgetOldest(sh *leaseShard, which dispensable, now limit.Micros) {
	var over []*lease
	for _, l := range sh.leases {
		if l.due+repeats <= now && (which == lapsedToo || l.ended != live) {
			over = append(over, l)
		}
	}
	slices.SortFunc(over, func(a, b *lease) int { return cmp.Compare(a.due, b.due) })
	for _, l := range over[:(len(over)+1)/2] {
		s.forget(sh, l, now)
	}
	sh.ended, sh.lapsed = never, never
	for _, l := range sh.leases {
		sh.note(l)
	}
}
