package memory

import (
	"container/heap"
	"sync"

	"github.com/rationhq/ration/internal/indexed"
	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

// leaseShard is a part of the leases.
type leaseShard struct {
	mu     sync.Mutex
	leases map[store.LeaseID]*lease
	// due is the earliest instant at which a lease may be forgotten; ended and lapsed are the earliest
	// at which that may happen, where room is short, to one whose holder has ended it, and to any.
	due, ended, lapsed limit.Micros
	ledger             ledger
}

func (sh *leaseShard) init() {
	sh.leases = make(map[store.LeaseID]*lease)
	sh.due, sh.ended, sh.lapsed = never, never, never
}

// lease is a reservation, or what is remembered of one.
type lease struct {
	id    store.LeaseID
	due   limit.Micros
	ended ending
	// dirty: it has changed, and its shard's ledger names it.
	dirty bool
	// opened says that a step opened it; else a settlement came without one.
	opened bool
	// openedBy and settledBy tell a repeat from another request.
	openedBy, settledBy uint64
	// holds is nil once the lease was settled.
	holds []hold
	note  []byte
	// added is what the lease has added to its row of usage, packed (share.go); empty once it was settled.
	added string
}

// ending is how a lease has ended. One that is not settled and due has lapsed too.
type ending uint8

const (
	live ending = iota
	lapsed
	settled
)

// hold is what a lease reserves of one bucket.
type hold struct {
	lease         *lease
	due           limit.Micros
	amount, lapse int64
	class         uint8
	index         int32 // among the holds of its lease
	mark          limit.Mark
	spec          limit.Spec
	name          []byte // of the bucket, behind that of its owner
	ownerLen      int
	place         int // among the holds of its bucket; -1 once it has ended
	made          int // counts the holds of its bucket, which orders those that are due at once
}

// ended says that the hold is none any more. The shard of its bucket is locked.
func (h *hold) ended() bool { return h.place < 0 }

func (h *hold) owner() []byte  { return h.name[:h.ownerLen] }
func (h *hold) bucket() []byte { return h.name[h.ownerLen:] }

// hasLapsed says that nobody has settled the lease in time.
func (l *lease) hasLapsed(now limit.Micros) bool {
	return l.ended == lapsed || l.ended == live && now >= l.due
}

// lapse ends a hold of a bucket, and returns how many bytes more the bucket takes. It uses the hold's
// own spec, whoever comes to see it: a lapse is the same at whatever time it is done.
func (sh *shard) lapse(b *bucket, h *hold, now limit.Micros) (grown int64) {
	before := b.bytes()
	b.holds.remove(h)
	at := h.spec.Advance(&b.state, h.due)
	h.spec.Settle(&b.state, at, h.mark, h.amount, h.lapse)
	b.keep(&h.spec)
	sh.ledger.lapse(h)
	sh.changed(b, h.owner(), h.bucket(), now, false)
	return b.bytes() - before
}

// forget drops a lease that need not be remembered any more. Those of its holds that nobody has come to
// see lapse now: nobody could find them later. Its shard is locked.
func (s *Store) forget(sh *leaseShard, l *lease, now limit.Micros) {
	var locks shardSet
	for i := range l.holds {
		locks.add(s.shardOf(l.holds[i].owner(), l.holds[i].bucket()))
	}
	locks.each(func(i int) { s.shards[i].mu.Lock() })
	s.journal.enterStep(s, &locks, sh, 0)
	for i := range l.holds {
		h := &l.holds[i]
		if h.ended() {
			continue
		}
		shard := &s.shards[s.shardOf(h.owner(), h.bucket())]
		b := shard.find(h.owner(), h.bucket())
		for !h.ended() { // those that were due before it go first
			s.bytes.Add(shard.lapse(b, b.holds.first(), now))
		}
	}
	locks.each(func(i int) { s.shards[i].mu.Unlock() })
	s.bytes.Add(-sh.forget(l))
}

// bytes returns about how much memory the lease takes.
func (l *lease) bytes() int64 {
	n := leaseBytes + int64(len(l.note)+len(l.added))
	for i := range l.holds {
		n += holdBytes + int64(len(l.holds[i].name))
	}
	return n
}

// holds are the live holds of one bucket, the first to lapse at the top.
type holds struct {
	heap indexed.Heap[*hold]
	made int
	// latest is an instant at which all of them are due.
	latest limit.Micros
}

func (hs *holds) add(h *hold) {
	hs.made++
	h.made = hs.made
	hs.latest = max(hs.latest, h.due)
	heap.Push(&hs.heap, h)
}

func (hs *holds) remove(h *hold) {
	heap.Remove(&hs.heap, h.place)
	h.place = -1
}

// moveTo has a hold lapse at another instant, which is not before the one that it had.
func (hs *holds) moveTo(h *hold, due limit.Micros) {
	h.due = due
	hs.latest = max(hs.latest, due)
	heap.Fix(&hs.heap, h.place)
}

// first returns the hold that lapses first, or nil. hs may be nil.
func (hs *holds) first() *hold {
	if hs == nil || len(hs.heap) == 0 {
		return nil
	}
	return hs.heap[0]
}

// foreseen returns the hold that lapses first of those that are as asked, if it is among the
// store.Foreseen first; else nil. hs may be nil.
//
// It takes the heap apart from the top: what lapses next is one of those whose parent it has seen.
func (hs *holds) foreseen(asked func(*hold) bool) *hold {
	if hs == nil || len(hs.heap) == 0 {
		return nil
	}
	var places [store.Foreseen + 1]int // of the candidates; one more for each that was seen
	count := 1
	for seen := 0; seen < store.Foreseen && count > 0; seen++ {
		next := 0
		for i := 1; i < count; i++ {
			if hs.heap.Less(places[i], places[next]) {
				next = i
			}
		}
		place := places[next]
		if asked(hs.heap[place]) {
			return hs.heap[place]
		}
		count--
		places[next] = places[count]
		for child := 2*place + 1; child <= 2*place+2 && child < len(hs.heap); child++ {
			places[count] = child
			count++
		}
	}
	return nil
}

// Before implements indexed.Item.
func (h *hold) Before(other *hold) bool {
	if h.due != other.due {
		return h.due < other.due
	}
	return h.made < other.made
}

// Moved implements indexed.Item.
func (h *hold) Moved(place int) { h.place = place }
