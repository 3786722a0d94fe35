package memory

import (
	"cmp"
	"slices"
	"sync"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

// need returns about how much memory the step adds.
func (d *decision) need() int64 {
	need := int64(0)
	for i, at := range d.ops {
		op, w := &d.step.Ops[i], &d.work[at]
		if op.Amount == 0 || !w.plain && !d.lands(op, w) {
			continue
		}
		if w.bucket == nil {
			need += w.bytes()
		}
		if op.Kind == store.Hold && !d.refuse {
			need += holdBytes + int64(len(op.Owner)+len(op.Bucket))
		}
	}
	if asked := d.step.Lease; asked != nil && d.lease == nil && asked.Do != store.LeaseLapse && !d.refuse {
		need += leaseBytes
	}
	return need
}

// bytes returns about how much memory the bucket takes that has to be created. Where the owner has
// others already, it is less.
func (w *work) bytes() int64 {
	if len(w.owner) == 0 {
		return bucketBytes + aloneOverhead + int64(len(w.name))
	}
	return bucketBytes + ownerBytes + int64(len(w.owner))
}

// room reports whether there is memory for what the step adds. Names that are known are decided on
// whatever there is.
func (d *decision) room() error {
	if need := d.need(); need > 0 && d.store.bytes.Load()+need > d.store.maxBytes {
		return store.ErrFull
	}
	return nil
}

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

// makeRoom drops what is idle, and where it finds nothing, some of the leases that were settled long
// enough ago for nobody to repeat that any more. It reports whether there is more room than before.
//
// It looks through no more than a few shards, and only into those where something may be due, so that
// in a flood of new names a refusal costs little.
func (s *Store) makeRoom() bool {
	before := s.bytes.Load()
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
		if s.bytes.Load() < before {
			return true // perhaps by another step, which was here first
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
		if s.bytes.Load() < before {
			return true
		}
		if !s.forgetSettled() {
			if seen == shardCount {
				m.from, m.until = now, next
			}
			return false
		}
	}
	return s.bytes.Load() < before
}

// forgetSettled forgets the older half of the leases that nobody needs, in the shard that has the
// oldest. It reports whether there may be such leases.
func (s *Store) forgetSettled() bool {
	oldest, ended := -1, s.clock()
	for i := range s.leases {
		sh := &s.leases[i]
		sh.mu.Lock()
		if sh.ended <= ended {
			oldest, ended = i, sh.ended
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
	s.bytes.Add(-sh.forgetSettled(s.clock()))
	return true
}

func (sh *leaseShard) forgetSettled(now limit.Micros) (freed int64) {
	var over []*lease
	for _, l := range sh.leases {
		if l.ended == settled && l.due+repeats <= now {
			over = append(over, l)
		}
	}
	slices.SortFunc(over, func(a, b *lease) int { return cmp.Compare(a.due, b.due) })
	for _, l := range over[:(len(over)+1)/2] {
		freed += sh.forget(l)
	}
	sh.ended = never
	for _, l := range sh.leases {
		sh.note(l)
	}
	return freed
}
