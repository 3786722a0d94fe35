package storetest

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

// testEnvelope records histories of one bucket, with holds, settlements, lapses, give-backs and debts
// in play, and holds every part of them to the bound of the algorithm.
//
// What counts as admitted: an admitted charge; of an admitted hold what stayed of it in the end, but
// never more than was held: what is recorded beyond is debt, which nobody was asked about; less what
// was given back. All of it at the instant of the admission.
func testEnvelope(t *testing.T, open Open) {
	for name, spec := range map[string]limit.Spec{
		"token_bucket":   {Algorithm: limit.TokenBucket, Limit: 20, Burst: 10, Window: minute},
		"sliding_window": {Algorithm: limit.SlidingWindow, Limit: 9, Window: minute},
		"sliding_log":    {Algorithm: limit.SlidingLog, Limit: 9, Window: minute},
		"fixed_window":   {Limit: 9, Window: minute},
		"first use":      {Limit: 9, Window: minute, FirstUse: true},
		"calendar":       {Algorithm: limit.CalendarWindow, Limit: 9, Calendar: calendar("minute;UTC")},
		"concurrency":    {Algorithm: limit.Concurrency, Limit: 9},
	} {
		t.Run(name, func(t *testing.T) {
			tally := map[string]int{}
			for range 3 * rounds {
				rapid.Check(t, func(r *rapid.T) {
					scope := &scope{TB: t}
					defer scope.end()
					clock := NewClock(noon)
					l := &ledger{r: r, spec: spec, clock: clock, store: open(scope, clock), tally: tally}
					r.Repeat(map[string]func(*rapid.T){
						"charge": l.charge,
						"spend":  l.charge, // twice as often as others
						"hold":   l.hold,
						"renew":  l.renew,
						"settle": l.settle,
						"end":    l.settle, // likewise
						"wait":   l.wait,
						"other":  l.other,
						"":       func(*rapid.T) { l.check() },
					})
				})
			}
			logTally(t, tally)
		})
	}
}

// ledger is the history of one bucket.
type ledger struct {
	r     *rapid.T
	spec  limit.Spec
	clock *Clock
	store store.Store
	tally map[string]int

	entries []admitted
	holds   []*reserved
	left    int64        // remaining, as the last answer had it
	latest  limit.Micros // where the bucket stands: it does not follow small steps back of the clock
	period  int          // of first use
	ends    limit.Micros // when it ends
}

// admitted is what one admission, or one give-back, has counted.
type admitted struct {
	at     limit.Micros
	units  int64
	period int // of first use
	held   bool
}

// reserved is a hold of the history.
type reserved struct {
	entry         int // in entries
	amount, lapse int64
	due           limit.Micros
	lapsed, ended bool
}

// apply applies a step on the bucket and notes where the bucket stands after it.
func (l *ledger) apply(lease *store.Lease, list ...store.Op) store.Outcome {
	l.r.Helper()
	now := l.clock.Now()
	out := applyStep(l.r, l.store, &store.Step{Lease: lease, Ops: list})
	l.left = out.Results[0].Remaining
	for _, h := range l.holds {
		if !h.lapsed && !h.ended && h.due <= now {
			h.lapsed = true
			l.latest = max(l.latest, h.due)
			l.entries[h.entry].units = h.lapse
		}
	}
	return out
}

// note records that units were written now.
func (l *ledger) note(units int64, begins bool) int {
	l.latest = max(l.latest, l.clock.Now())
	if begins && l.latest >= l.ends {
		l.period, l.ends = l.period+1, l.latest+l.spec.Window
	}
	l.entries = append(l.entries, admitted{at: l.latest, units: units, period: l.period})
	return len(l.entries) - 1
}

func (l *ledger) op(kind store.Kind, amount int64) store.Op {
	spec := l.spec
	spec.Headroom = rapid.SampledFrom([]int64{0, 0, 0, 3}).Draw(l.r, "headroom")
	return of(kind, charge("b", spec, amount))
}

// amount draws one, as often as not all that is left: bounds are reached by taking everything.
func (l *ledger) amount() int64 {
	if rapid.Bool().Draw(l.r, "all") {
		return max(1, l.left)
	}
	return rapid.Int64Range(1, 11).Draw(l.r, "amount")
}

func (l *ledger) charge(*rapid.T) {
	amount := l.amount()
	if l.apply(nil, l.op(store.Charge, amount)).Refused {
		l.tally["refused"]++
	} else {
		l.tally["charged"]++
		l.note(amount, true)
	}
}

func (l *ledger) hold(*rapid.T) {
	amount := l.amount()
	op := l.op(store.Hold, amount)
	op.Lapse = rapid.Int64Range(0, amount).Draw(l.r, "lapse")
	lease := opens(len(l.holds), 1)
	lease.Lasts = rapid.SampledFrom([]limit.Micros{1, 10 * sec, minute, 5 * minute}).Draw(l.r, "lasts")
	h := &reserved{amount: amount, lapse: op.Lapse, due: l.clock.Now() + lease.Lasts, ended: true}
	l.holds = append(l.holds, h)
	if l.apply(lease, op).Refused {
		l.tally["refused"]++
		return
	}
	l.tally["held"]++
	h.ended, h.entry = false, l.note(amount, true)
	l.entries[h.entry].held = true
}

// running draws one of the holds that are not settled.
func (l *ledger) running() (i int, ok bool) {
	var running []int
	for i, h := range l.holds {
		if !h.ended {
			running = append(running, i)
		}
	}
	if len(running) == 0 {
		return 0, false
	}
	return rapid.SampledFrom(running).Draw(l.r, "hold"), true
}

// renew renews a hold. What it grows by is debt.
func (l *ledger) renew(*rapid.T) {
	i, ok := l.running()
	if !ok {
		return
	}
	h := l.holds[i]
	used := max(0, rapid.Int64Range(-h.amount, h.amount+3).Draw(l.r, "used so far"))
	lease := renews(i, used)
	lease.Lasts = rapid.SampledFrom([]limit.Micros{1, 10 * sec, minute, 5 * minute}).Draw(l.r, "lasts")
	now := l.clock.Now()
	out := l.apply(lease, l.op(store.Charge, 0))
	switch {
	case (now >= h.due) != (out.Lease == store.LeaseLapsed):
		l.r.Fatalf("renewed at %d, due at %d; the lease's state: %d", now, h.due, out.Lease)
	case now < h.due:
		l.tally["renewed"]++
		l.latest = max(l.latest, now)
		h.due, h.lapse = max(h.due, now+lease.Lasts), min(h.amount, max(h.lapse, used))
	}
}

func (l *ledger) settle(*rapid.T) {
	i, ok := l.running()
	if !ok {
		return
	}
	h := l.holds[i]
	actual := max(0, rapid.Int64Range(-h.amount, h.amount+3).Draw(l.r, "actual"))
	before := l.latest
	out := l.apply(settles(i, 1, actual), l.op(store.Settle, actual))
	h.ended = true
	l.latest = max(before, l.latest, l.clock.Now())
	l.entries[h.entry].units = min(l.entries[h.entry].units, actual)
	switch {
	case (l.clock.Now() >= h.due) != (out.Lease == store.LeaseCorrected):
		l.r.Fatalf("settled at %d, due at %d; the lease's state: %d", l.clock.Now(), h.due, out.Lease)
	case h.lapsed:
		l.tally["corrected"]++
	default:
		l.tally["settled"]++
	}
}

// other gives back, or seldom records a debt.
func (l *ledger) other(*rapid.T) {
	if rapid.IntRange(0, 3).Draw(l.r, "debt") < 3 {
		l.giveBack()
		return
	}
	l.apply(nil, l.op(store.Record, l.amount()))
	l.note(0, true)
}

// giveBack returns some of what was charged, and counts what has really come back.
func (l *ledger) giveBack() {
	amount := l.amount()
	switch l.spec.Algorithm {
	case limit.TokenBucket, limit.SlidingLog, limit.Concurrency:
	default:
		// What is counted in windows does not tell the units of charges from those of holds. So nobody
		// may return the units of a hold, which is also settled.
		amount = min(amount, l.charged())
	}
	if amount <= 0 {
		return
	}
	before := l.apply(nil, l.op(store.Charge, 0), wall()).Results[0]
	if before.Used+before.Held <= 0 {
		return // to give back to a bucket that may be forgotten leaves no trace in it, and to others the time
	}
	after := l.apply(nil, l.op(store.GiveBack, amount)).Results[0]
	if back := before.Used + before.Held - after.Used - after.Held; back > 0 {
		l.tally["given back"]++
		l.note(-back, false)
	}
	l.latest = max(l.latest, l.clock.Now())
}

// charged returns what is still counted of charges in the current window.
func (l *ledger) charged() int64 {
	sum := int64(0)
	for _, e := range l.entries {
		now := admitted{at: max(l.latest, l.clock.Now()), period: l.period}
		if !e.held && l.sameWindow(e, now) {
			sum += e.units
		}
	}
	return sum
}

// sameWindow says whether two entries lie in one window of the limit.
func (l *ledger) sameWindow(a, b admitted) bool {
	switch {
	case l.spec.FirstUse:
		return a.period == b.period
	case l.spec.Calendar != nil:
		aStart, _ := l.spec.Calendar.Bounds(a.at)
		bStart, _ := l.spec.Calendar.Bounds(b.at)
		return aStart == bStart
	default:
		return l.spec.Start(a.at) == l.spec.Start(b.at)
	}
}

func (l *ledger) wait(*rapid.T) {
	now := l.clock.Now()
	switch rapid.IntRange(0, 7).Draw(l.r, "wait") {
	case 5:
		now += minute - now%minute - 1
	case 6:
		now += minute - now%minute
	case 7:
		now = max(l.latest, now) - limit.Micros(rapid.Int64Range(0, int64(limit.Tolerance)).Draw(l.r, "back"))
	default:
		now += limit.Micros(rapid.Int64Range(1, int64(20*sec)).Draw(l.r, "µs"))
	}
	l.clock.Set(now)
}

// check holds every part of the history to the bound.
func (l *ledger) check() {
	if l.spec.Algorithm == limit.Concurrency {
		live := int64(0)
		for _, h := range l.holds {
			if !h.ended && !h.lapsed {
				live += h.amount
			}
		}
		l.bound("live at once", live, l.spec.Limit)
		return
	}
	for i := range l.entries {
		if i > 0 && l.entries[i].at == l.entries[i-1].at {
			continue // parts begin at an instant
		}
		net := int64(0)
		for j := i; j < len(l.entries); j++ {
			net += l.entries[j].units
			l.checkPart(i, j, net)
		}
	}
}

// checkPart checks the entries i…j, of net units.
func (l *ledger) checkPart(i, j int, net int64) {
	s, from, to := &l.spec, l.entries[i], l.entries[j]
	took, w := int64(to.at-from.at), int64(s.Window)
	switch s.Algorithm {
	case limit.TokenBucket: // B + δ·N/P
		l.bound("units in any time", net*w, s.Burst*w+took*s.Limit)
	case limit.SlidingLog: // L in every (t − W, t]
		if took < w {
			l.bound("units in W", net, s.Limit)
		}
	case limit.SlidingWindow:
		if took < w { // L·(1 + δ/W), and less than twice the limit
			l.bound("units in δ", net*w, s.Limit*(w+took))
			l.bound("units in W", net, 2*s.Limit-1)
		}
		if i == 0 && to.units > 0 {
			l.checkWeighted(j)
		}
	default:
		if l.sameWindow(from, to) {
			l.bound("units in a window", net, s.Limit)
		}
	}
}

// checkWeighted: when entry j was admitted, cur·W + prev·(W − e) ≤ L·W.
func (l *ledger) checkWeighted(j int) {
	at, w := l.entries[j].at, l.spec.Window
	cur, prev := int64(0), int64(0)
	for _, e := range l.entries[:j+1] {
		switch l.spec.Start(e.at) {
		case l.spec.Start(at):
			cur += e.units
		case l.spec.Start(at) - w:
			prev += e.units
		}
	}
	l.bound("weighted units", cur*int64(w)+prev*int64(w-at%w), l.spec.Limit*int64(w))
}

func (l *ledger) bound(what string, got, most int64) {
	if got > most {
		l.r.Fatalf("%d %s, want at most %d; admitted: %+v", got, what, most, l.entries)
	}
	if got == most {
		l.tally["at the bound of "+what]++
	}
}
