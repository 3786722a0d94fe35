package storetest

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"pgregory.net/rapid"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

// shapes are the kinds of limits that histories are made of: all but the quantities.
func shapes() []limit.Spec {
	list := []limit.Spec{
		{Algorithm: limit.TokenBucket, Window: minute},
		{Algorithm: limit.TokenBucket, Window: 7 * sec},
		{Algorithm: limit.SlidingWindow, Window: minute},
		{Algorithm: limit.SlidingWindow, Window: 7},
		{Algorithm: limit.SlidingLog, Window: minute},
		{Algorithm: limit.SlidingLog, Window: 10 * sec},
		{Algorithm: limit.FixedWindow, Window: minute},
		{Algorithm: limit.FixedWindow, Window: hour},
		{Algorithm: limit.FixedWindow, FirstUse: true, Window: minute},
		{Algorithm: limit.Concurrency},
		{Algorithm: limit.Concurrency},
	}
	for _, name := range []string{
		"minute;UTC", "hour;Europe/Berlin", "hour;Australia/Lord_Howe", "day;Europe/Berlin", "day;Asia/Beirut",
		"day;Pacific/Apia", "week;America/New_York;monday", "month;Europe/Berlin;31", "year;Europe/London;04-06",
	} {
		list = append(list, limit.Spec{Algorithm: limit.CalendarWindow, Calendar: calendar(name)})
	}
	return list
}

// starts are instants just before something happens to a calendar, and the epoch.
func starts() []limit.Micros {
	list := []limit.Micros{noon, noon, noon, 0}
	for _, at := range []string{
		"2026-03-29T00:59:50Z", "2026-10-25T00:59:50Z", // the clocks of Europe change
		"2026-10-24T21:59:50Z", "2026-10-25T22:59:50Z", // a day of 25 hours in Berlin
		"2026-04-04T14:59:50Z",                         // half an hour back on Lord Howe Island
		"2026-03-28T21:59:50Z",                         // midnight is skipped in Beirut
		"2011-12-30T09:59:50Z",                         // a day is skipped in Samoa
		"2028-02-28T22:59:50Z", "2026-02-27T22:59:50Z", // the end of February, for those who wait for a 31st
		"2026-12-31T23:59:50Z", "2026-04-05T22:59:50Z", // years end
	} {
		t, err := time.Parse(time.RFC3339, at)
		if err != nil {
			panic(err) // these stand in the suite and are right
		}
		list = append(list, limit.At(t))
	}
	return list
}

// history draws the steps of one random history and the instants between them. It keeps to few
// buckets and leases, so that they meet again, and prefers the instants at which something happens.
type history struct {
	r       *rapid.T
	clock   *Clock
	newest  limit.Micros // that the clock has shown since its last large step back
	targets []*target
	leases  []*leased
	made    int            // leases so far
	edges   []limit.Micros // at which something happens
	tally   map[string]int // what has happened, for the log
	steady  bool           // the clock makes no large steps back, and no bucket drains at another rate
	reports bool           // steps have rows
}

// target is a bucket that a history uses.
type target struct {
	op    store.Op // what all ops on it share; its Spec and Thresholds are those of the first tier
	tiers []limit.Spec
	warns [][]int64 // the Thresholds of each tier
	scale int64     // amounts that matter are around this
}

// of returns what all ops of a tier share. Its label says what is told of.
func (b *target) of(tier int) store.Op {
	op := b.op
	op.Spec, op.Thresholds = b.tiers[tier], b.warns[tier]
	op.Label = fmt.Appendf(nil, "tier %d of %q/%q", tier, op.Owner, op.Bucket)
	return op
}

// leased is a lease that a history knows.
type leased struct {
	id      store.LeaseID
	open    *store.Step // nil: a settlement made it
	settle  *store.Step // the last
	due     limit.Micros
	targets []*target // that it holds on
	row     *store.Row
}

// newHistory begins a history on a clock. pool is what its limits are made of.
func newHistory(r *rapid.T, clock *Clock, pool []limit.Spec, steady bool, tally map[string]int) *history {
	h := &history{r: r, clock: clock, steady: steady, tally: tally}
	clock.Set(rapid.SampledFrom(starts()).Draw(r, "start"))
	h.newest = clock.Now()
	huge := rapid.IntRange(0, 7).Draw(r, "huge") == 7
	for i := range rapid.IntRange(1, 4).Draw(r, "buckets") {
		shape := rapid.SampledFrom(pool).Draw(r, "shape")
		manner := limit.Strict
		if shape.Algorithm == limit.FixedWindow && !shape.FirstUse && rapid.IntRange(0, 3).Draw(r, "plain") == 0 {
			manner = limit.Plain
		}
		owner := rapid.SampledFrom([]string{"", "", "u", "v"}).Draw(r, "owner")
		h.targets = append(h.targets, &target{op: store.Op{
			Bucket: fmt.Appendf(nil, "b%d", i), Owner: []byte(owner), Manner: manner, Spec: shape,
		}})
		h.requantify(h.targets[i], huge)
	}
	return h
}

// requantify draws the quantities of a bucket's tiers: a policy has changed.
func (h *history) requantify(b *target, huge bool) {
	quantities := rapid.IntRange(2, 20)
	if huge {
		most := limit.MaxAmount
		if b.op.Spec.Algorithm == limit.SlidingLog {
			most = limit.MaxLog
		}
		quantities = rapid.IntRange(int(most)-3, int(most))
	}
	b.tiers, b.warns = nil, nil
	for range rapid.IntRange(1, 3).Draw(h.r, "tiers") {
		spec := b.op.Spec
		spec.Limit = int64(quantities.Draw(h.r, "limit"))
		switch rapid.IntRange(0, 9).Draw(h.r, "tier") {
		case 9:
			spec.Limit = 0
		case 8, 7, 6:
			spec.Headroom = rapid.Int64Range(0, spec.Limit/2+1).Draw(h.r, "headroom")
		}
		if spec.Algorithm == limit.TokenBucket {
			spec.Burst = int64(quantities.Draw(h.r, "burst"))
		}
		b.tiers = append(b.tiers, spec)
		b.warns = append(b.warns, h.thresholds(&b.op, spec.Limit))
	}
	for i := range b.tiers {
		if h.steady && b.op.Spec.Algorithm == limit.TokenBucket {
			b.tiers[i].Limit = b.tiers[0].Limit
		}
	}
	b.op = b.of(0)
	b.scale = max(1, b.op.Spec.Ceiling())
}

// thresholds draws those of a tier with that limit; often none.
func (h *history) thresholds(op *store.Op, most int64) []int64 {
	period := op.Spec.Algorithm == limit.FixedWindow || op.Spec.Algorithm == limit.CalendarWindow
	if !period || op.Manner == limit.Plain || rapid.IntRange(0, 3).Draw(h.r, "thresholds") == 0 {
		return nil
	}
	around := []int64{1, 2, 3, most / 2, most / 2, most * 8 / 10, most, most, most + most/4, limit.MaxAmount - 1}
	if most > limit.MaxAmount/8 {
		around = []int64{1, most - 2, most - 1}
	}
	list := rapid.SliceOfN(rapid.SampledFrom(around), 1, 5).Draw(h.r, "at")
	slices.Sort(list)
	list = slices.DeleteFunc(slices.Compact(list), func(t int64) bool { return t < 1 || t >= limit.MaxAmount })
	return list
}

// next draws the next step and sets the clock for it.
func (h *history) next(m *Model) *store.Step {
	h.moveClock(m)
	fresh := &store.Step{}
	step := h.draw(fresh)
	if h.reports && step == fresh {
		h.addRows(step)
	}
	return step
}

// draw draws a step: it completes a fresh one, or returns one again that was applied before.
func (h *history) draw(step *store.Step) *store.Step {
	if !h.steady && rapid.IntRange(0, 24).Draw(h.r, "policy") == 24 {
		h.requantify(rapid.SampledFrom(h.targets).Draw(h.r, "bucket"), false)
	}
	step.Refused = rapid.IntRange(0, 19).Draw(h.r, "refused step") == 19
	step.Shadow = rapid.IntRange(0, 19).Draw(h.r, "shadow step") == 19
	step.QuotaOpen = rapid.IntRange(0, 19).Draw(h.r, "quota open") == 19
	known := h.usable()
	switch what := rapid.IntRange(0, 22).Draw(h.r, "what"); {
	case what < 4:
		h.addOps(step, store.Charge, store.Charge, store.Charge, store.Charge, store.GiveBack, store.Record, store.Deplete)
	case what < 9 || len(known) == 0:
		h.open(step)
	case what == 9:
		return h.reopen(step, rapid.SampledFrom(known).Draw(h.r, "lease"))
	case what < 17:
		return h.settle(step, rapid.SampledFrom(known).Draw(h.r, "lease"))
	case what < 19:
		l := rapid.SampledFrom(known).Draw(h.r, "lease")
		do := rapid.SampledFrom([]store.LeaseAction{store.LeaseLapse, store.LeaseLapse, store.LeaseLook}).Draw(h.r, "do")
		step.Lease = &store.Lease{ID: l.id, Do: do}
		h.addOps(step, store.Charge, store.Record, store.Deplete)
	case what < 22:
		h.renew(step, rapid.SampledFrom(known).Draw(h.r, "lease"))
	default: // nobody has opened it
		l := h.newLease(h.clock.Now())
		step.Lease = &store.Lease{ID: l.id, Do: store.LeaseSettle, Request: 1}
		l.settle = step
		h.addOps(step, store.Settle, store.Settle, store.Charge)
	}
	return step
}

func (h *history) newLease(due limit.Micros) *leased {
	h.made++
	l := &leased{id: id(h.made), due: due}
	h.leases = append(h.leases, l)
	h.edges = append(h.edges, due, due+store.Retention)
	return l
}

func (h *history) open(step *store.Step) {
	lasts := h.lasts()
	l := h.newLease(h.clock.Now() + lasts)
	l.open = step
	step.Lease = &store.Lease{ID: l.id, Lasts: lasts, Request: uint64(h.made), Note: h.note()}
	h.addOps(step, store.Hold, store.Hold, store.Hold, store.Charge)
	for i := range step.Ops {
		if step.Ops[i].Kind == store.Hold {
			l.targets = append(l.targets, h.targetOf(&step.Ops[i]))
		}
	}
}

// lasts draws how long a lease lasts.
func (h *history) lasts() limit.Micros {
	return rapid.SampledFrom([]limit.Micros{
		sec, 10 * sec, 10 * sec, minute, minute, 5 * minute, store.MaxLease, 1,
	}).Draw(h.r, "lasts")
}

// note draws the note of a lease; often none.
func (h *history) note() []byte {
	return rapid.SampledFrom([][]byte{nil, nil, []byte("note"), []byte("another"), bytes.Repeat([]byte{0, 255, '\n'}, 100)}).Draw(h.r, "note")
}

// reopen runs the step again that opened a lease, or another under its id.
func (h *history) reopen(step *store.Step, l *leased) *store.Step {
	if l.open != nil && rapid.IntRange(0, 3).Draw(h.r, "replay") > 0 {
		return l.open
	}
	step.Lease = &store.Lease{ID: l.id, Lasts: minute, Request: 1 << 60}
	h.addOps(step, store.Hold, store.Charge)
	return step
}

// settle settles a lease: for the first time, again, or otherwise.
func (h *history) settle(step *store.Step, l *leased) *store.Step {
	if l.settle != nil && rapid.IntRange(0, 2).Draw(h.r, "again") > 0 {
		return l.settle
	}
	step.Lease = &store.Lease{
		ID: l.id, Do: store.LeaseSettle, Request: 1 + uint64(rapid.IntRange(0, 1).Draw(h.r, "request")), Note: h.note(),
	}
	step.Lease.Actual = h.actual(l)
	h.addOps(step, store.Settle, store.Settle, store.Settle, store.Charge, store.Record, store.GiveBack, store.Deplete)
	if l.settle == nil {
		l.settle = step
	}
	return step
}

// renew renews a lease, and asks how some buckets stand.
func (h *history) renew(step *store.Step, l *leased) {
	step.Lease = &store.Lease{ID: l.id, Do: store.LeaseRenew, Lasts: h.lasts(), Actual: h.actual(l), Note: h.note()}
	h.addOps(step, store.Charge)
	for i := range step.Ops {
		step.Ops[i].Amount = 0
	}
}

// actual draws what was used of a lease, per class.
func (h *history) actual(l *leased) (list []int64) {
	scale := int64(5)
	if len(l.targets) > 0 {
		scale = l.targets[0].scale
	}
	for range rapid.IntRange(0, 3).Draw(h.r, "classes") {
		actual := h.amount(scale)
		if rapid.IntRange(0, 4).Draw(h.r, "unknown") == 4 {
			actual = store.Unknown
		}
		list = append(list, actual)
	}
	return list
}

// addOps adds up to three ops of the given kinds to step.
func (h *history) addOps(step *store.Step, kinds ...store.Kind) {
	for range rapid.IntRange(0, 3).Draw(h.r, "ops") {
		b := rapid.SampledFrom(h.targets).Draw(h.r, "bucket")
		tier := 0
		if rapid.IntRange(0, 3).Draw(h.r, "other tier") == 3 {
			tier = rapid.IntRange(0, len(b.tiers)-1).Draw(h.r, "tier")
		}
		op := b.of(tier)
		if rapid.IntRange(0, 5).Draw(h.r, "says no thresholds") == 5 {
			op.Thresholds = nil
		}
		op.Kind = rapid.SampledFrom(kinds).Draw(h.r, "kind")
		if op.Manner == limit.Plain && op.Kind > store.GiveBack {
			op.Kind = store.Charge
		}
		if op.Kind == store.Deplete && op.Spec.Algorithm == limit.Concurrency {
			op.Kind = store.Record
		}
		op.Amount = h.amount(b.scale)
		if op.Kind == store.Hold {
			op.Lapse = rapid.SampledFrom([]int64{0, op.Amount / 2, op.Amount}).Draw(h.r, "lapse")
			op.Class = uint8(rapid.IntRange(0, 2).Draw(h.r, "class"))
		}
		if op.Kind == store.Deplete {
			h.deplete(&op)
		}
		op.Shadow = rapid.IntRange(0, 9).Draw(h.r, "shadow") == 9
		op.Quota = rapid.IntRange(0, 9).Draw(h.r, "quota") == 9
		op.CountRefusals = rapid.IntRange(0, 7).Draw(h.r, "count refusals") == 7
		step.Ops = append(step.Ops, op)
	}
}

// deplete draws how much a depletion leaves, often nothing, and how long it is to be until another unit fits.
func (h *history) deplete(op *store.Op) {
	if rapid.Bool().Draw(h.r, "nothing left") {
		op.Amount = 0
	}
	op.Wait = rapid.SampledFrom([]limit.Micros{
		0, 0, 1, 7 * sec, 20*sec + 1, minute, limit.LongestWait, limit.LongestWait + 1, limit.Micros(limit.MaxAmount),
	}).Draw(h.r, "wait")
}

// amount draws one that matters to a limit of about scale units.
func (h *history) amount(scale int64) int64 {
	switch rapid.IntRange(0, 11).Draw(h.r, "amount") {
	case 0, 1, 2, 3, 4:
		return 1
	case 5, 6, 7:
		return rapid.Int64Range(1, max(1, scale/3)).Draw(h.r, "units")
	case 8:
		return rapid.Int64Range(1, scale).Draw(h.r, "units")
	case 9:
		return 0
	case 10:
		return min(limit.MaxAmount, scale+1)
	default:
		return rapid.SampledFrom([]int64{scale, limit.MaxAmount, limit.MaxAmount - 1}).Draw(h.r, "units")
	}
}

func (h *history) targetOf(op *store.Op) *target {
	i := slices.IndexFunc(h.targets, func(b *target) bool { return nameOf(&b.op) == nameOf(op) })
	return h.targets[i]
}
