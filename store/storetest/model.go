package storetest

import (
	"cmp"
	"maps"
	"slices"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

// Model is the contract of package store in plain, slow code: maps in which everything is kept for
// ever. All arithmetic is limit's. A Model never changes: [Model.Apply] returns the next one.
//
// It is what the random tests hold a store to, and the state that the check for linearizability
// walks through. The zero Model is a store with nothing in it.
type Model struct {
	buckets map[bucketName]bucket
	leases  map[store.LeaseID]lease
	holds   int // made so far
	usage   map[sumName]columns
	events  []crossing // in the order in which they were told
}

// bucketName is a bucket's identity.
type bucketName struct{ owner, bucket string }

func nameOf(op *store.Op) bucketName { return bucketName{string(op.Owner), string(op.Bucket)} }

type bucket struct {
	state limit.State
	live  []hold // neither settled nor lapsed; in the order in which they were made
}

// mayBeForgotten says that the bucket is as good as none. What was due on it has lapsed.
func (b *bucket) mayBeForgotten(spec *limit.Spec, now limit.Micros) bool {
	return len(b.live) == 0 && now >= after(spec.Idle(&b.state), limit.Tolerance)
}

// hold is one hold of a lease. Only a renewal changes it: whether it is live says its bucket.
type hold struct {
	number        int // no other hold has it
	bucket        bucketName
	spec          limit.Spec
	mark          limit.Mark
	amount, lapse int64
	class         uint8
	due           limit.Micros
}

type lease struct {
	due     limit.Micros
	holds   []hold
	opened  bool // and not made by a settlement that knew no lease
	request uint64
	lapsed  bool // by LeaseLapse: time is not asked

	settled    bool
	settlement uint64

	note string

	added columns // to its row of usage
}

// clone returns a model that shares nothing with m which a decision changes.
func (m *Model) clone() *Model {
	c := &Model{buckets: map[bucketName]bucket{}, leases: maps.Clone(m.leases), holds: m.holds, usage: maps.Clone(m.usage), events: m.events}
	for name, b := range m.buckets {
		c.buckets[name] = bucket{cloneState(b.state), slices.Clone(b.live)}
	}
	if c.leases == nil {
		c.leases = map[store.LeaseID]lease{}
	}
	if c.usage == nil {
		c.usage = map[sumName]columns{}
	}
	return c
}

func cloneState(st limit.State) limit.State {
	if st.Log != nil {
		st.Log = &limit.Log{Entries: slices.Clone(st.Log.Entries)}
	}
	return st
}

// lease returns the lease of that id, unless it is unknown or forgotten by now.
func (m *Model) lease(id store.LeaseID, now limit.Micros) (lease, bool) {
	l, ok := m.leases[id]
	return l, ok && now < after(l.due, store.Retention)
}

// liveUnits returns how much the live holds on a bucket reserve.
func (m *Model) liveUnits(name bucketName) int64 {
	sum := int64(0)
	for _, h := range m.buckets[name].live {
		sum = limit.Add(sum, h.amount)
	}
	return sum
}

// isLive says whether a hold has neither been settled nor lapsed.
func (m *Model) isLive(h hold) bool {
	return slices.ContainsFunc(m.buckets[h.bucket].live, func(o hold) bool { return o.number == h.number })
}

// end takes a hold from the live ones of its bucket.
func (m *Model) end(h hold) {
	b := m.buckets[h.bucket]
	b.live = slices.DeleteFunc(b.live, func(o hold) bool { return o.number == h.number })
	m.buckets[h.bucket] = b
}

// replace puts a hold in the place of the one of its number.
func replace(list []hold, h hold) []hold {
	list = slices.Clone(list)
	for i := range list {
		if list[i].number == h.number {
			list[i] = h
		}
	}
	return list
}

// lapse lets the holds of a bucket that are due by now lapse, each at the instant at which it was
// due, the earliest first, by the limit that it was made under: so it does not matter who comes to see
// it, and when.
func (m *Model) lapse(name bucketName, now limit.Micros) {
	due := slices.DeleteFunc(slices.Clone(m.buckets[name].live), func(h hold) bool { return h.due > now })
	slices.SortStableFunc(due, func(a, b hold) int { return cmp.Compare(a.due, b.due) })
	for _, h := range due {
		m.end(h)
		b := m.buckets[name]
		at := h.spec.Advance(&b.state, h.due)
		h.spec.Settle(&b.state, at, h.mark, h.amount, h.lapse)
		m.buckets[name] = b
	}
}

// after returns t + d, pinned as all instants are.
func after(t, d limit.Micros) limit.Micros { return limit.Micros(limit.Add(int64(t), int64(d))) }
