package storetest

import (
	"fmt"
	"slices"

	"pgregory.net/rapid"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

// moveClock draws the next instant.
func (h *history) moveClock(m *Model) {
	now := h.clock.Now()
	switch rapid.IntRange(0, 29).Draw(h.r, "clock") {
	case 0, 1, 2, 3, 4, 5, 6:
	case 7, 8, 9, 10, 11, 12, 13:
		now += limit.Micros(rapid.Int64Range(0, int64(20*sec)).Draw(h.r, "µs"))
	case 14, 15:
		now += limit.Micros(rapid.Int64Range(0, int64(2*hour)).Draw(h.r, "µs"))
	case 16, 17:
		w := rapid.SampledFrom([]limit.Micros{7, 7 * sec, minute, hour}).Draw(h.r, "window")
		now = now - now%w + w - limit.Micros(rapid.IntRange(0, 1).Draw(h.r, "before"))
	case 18, 19, 20, 21, 22, 23, 24:
		now = h.edge(now)
	case 25, 26, 27:
		now -= limit.Micros(rapid.Int64Range(0, int64(limit.Tolerance)).Draw(h.r, "µs"))
		now = max(now, h.newest-limit.Tolerance, 0)
	case 28:
		if h.steady || rapid.IntRange(0, 3).Draw(h.r, "long ago") > 0 {
			break
		}
		back := now - limit.Micros(rapid.Int64Range(0, int64(3*hour)).Draw(h.r, "µs"))
		if back < now-limit.Tolerance && back > 0 {
			now = back
			h.stepBack(m, now)
		}
	default:
		now += rapid.SampledFrom([]limit.Micros{25 * hour, 31 * day, 400 * day}).Draw(h.r, "far")
	}
	h.clock.Set(now)
	h.newest = max(h.newest, now)
}

// edge draws one of the next instants at which something happens, or the one before or after it.
func (h *history) edge(now limit.Micros) limit.Micros {
	h.edges = slices.DeleteFunc(h.edges, func(e limit.Micros) bool { return e <= now })
	if len(h.edges) == 0 {
		return now
	}
	slices.Sort(h.edges)
	h.edges = h.edges[:min(len(h.edges), 12)]
	edge := rapid.SampledFrom(h.edges).Draw(h.r, "edge")
	return edge + limit.Micros(rapid.SampledFrom([]int{0, 0, -1, 1}).Draw(h.r, "beside"))
}

// heard notes what an answer says of the instants to come, and of what has happened.
func (h *history) heard(step *store.Step, out store.Outcome, err error) {
	now := h.clock.Now()
	if err != nil {
		h.tally["lease conflicts"]++
		return
	}
	for i, r := range out.Results {
		for _, in := range []limit.Micros{r.RetryAfter, r.ResetAfter} {
			if in > 0 && in < day {
				h.edges = append(h.edges, now+in)
			}
		}
		name := step.Ops[i].Spec.Algorithm.String()
		if step.Ops[i].Manner == limit.Plain {
			name = "plain " + name
		}
		switch {
		case r.Never:
			h.tally[name+": never"]++
		case r.Estimated:
			h.tally[name+": refused, estimated"]++
		case r.Refused:
			h.tally[name+": refused"]++
		case step.Ops[i].Judged():
			h.tally[name+": fits"]++
		}
		if r.Remaining < 0 {
			h.tally[name+": debt"]++
		}
		if r.Held > 0 {
			h.tally[name+": held"]++
		}
	}
	if out.Refused {
		h.tally["steps refused"]++
	} else {
		h.tally["steps admitted"]++
	}
	if l := step.Lease; l != nil {
		i := slices.IndexFunc(h.leases, func(known *leased) bool { return known.id == l.ID })
		switch {
		case out.Lease == store.LeaseOpened && l.Do == store.LeaseOpen || out.Lease == store.LeaseUnknown && l.Do == store.LeaseSettle:
			h.leases[i].due = now + l.Lasts // known anew
		case out.Lease == store.LeaseRenewed:
			h.leases[i].due = max(h.leases[i].due, now+l.Lasts)
			h.edges = append(h.edges, h.leases[i].due, h.leases[i].due+store.Retention)
		case out.Lease == store.LeaseNone && h.leases[i].settle == nil:
			h.leases = slices.Delete(h.leases, i, i+1) // refused
		}
	}
	h.tally["lease "+[...]string{"none", "opened", "settled", "corrected", "lapsed", "replayed", "unknown", "renewed"}[out.Lease]]++
}

// usable returns the leases about which the contract is exact. One that the clock has seen forgotten
// may be so for good, where it has stepped back since.
func (h *history) usable() []*leased {
	var list []*leased
	for _, l := range h.leases {
		forgotten := l.due + store.Retention
		if forgotten > h.newest || forgotten <= h.clock.Now() {
			list = append(list, l)
		}
	}
	// The young ones are the interesting ones, and few.
	return list[max(0, len(list)-4):]
}

// stepBack prepares for a large step back of the clock. What was over by then, a store may have
// forgotten, or not: buckets of that kind go on under new names, and leases are let go.
func (h *history) stepBack(m *Model, to limit.Micros) {
	for i, b := range h.targets {
		if m.over(nameOf(&b.op), b.op, h.newest) {
			b.op.Bucket = fmt.Appendf(nil, "b%d since %d", i, to)
			b.op = b.of(0) // which is told of by another label
		}
	}
	h.leases = slices.DeleteFunc(h.leases, func(l *leased) bool {
		return l.due <= h.newest || hasPlain(l.open) || hasPlain(l.settle) // a repeat would use the old names
	})
	h.newest = to
}

// hasPlain says that a step, which may be nil, has an op of the plain manner.
func hasPlain(step *store.Step) bool {
	return step != nil && slices.ContainsFunc(step.Ops, func(op store.Op) bool { return op.Manner == limit.Plain })
}

// over says whether a bucket was over at now: a store may have forgotten it, or ended holds on it; or,
// of the plain manner, windows before the newest.
func (m *Model) over(name bucketName, op store.Op, now limit.Micros) bool {
	if op.Manner == limit.Plain {
		return true
	}
	b := m.buckets[name]
	for _, h := range b.live {
		if h.due <= now {
			return true
		}
	}
	return len(b.live) == 0 && now >= op.Spec.Idle(&b.state)
}
