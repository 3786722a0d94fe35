package storetest

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

// testWait: wherever a history has led to, a caller that waits exactly retry_after is admitted, and
// one that waits 50 ms less, or a microsecond less, is not. Where holds are in the way the wait is an
// estimate: whoever waits as long as it is told, again and again, gets in no later than it would if
// no hold lapsed.
func testWait(t *testing.T, open Open) {
	for name, pool := range pools() {
		t.Run(name, func(t *testing.T) {
			tally := map[string]int{}
			for range rounds / 2 {
				rapid.Check(t, func(r *rapid.T) {
					scope := &scope{TB: t}
					defer scope.end()
					clock := NewClock(0)
					h := newHistory(r, clock, pool, true, map[string]int{})
					w := &waiter{
						twin:    &twin{t: r, store: open(scope, clock), clock: clock, model: &Model{}},
						history: h, tally: tally,
					}
					r.Repeat(map[string]func(*rapid.T){
						"step": func(*rapid.T) {
							step := h.next(w.model)
							out, err := w.step(step)
							h.heard(step, out, err)
						},
						"wait": w.wait,
					})
				})
			}
			logTally(t, tally)
		})
	}
}

// waiter is a caller in a history that wants in.
type waiter struct {
	*twin
	*history
	tally map[string]int
}

func (w *waiter) wait(r *rapid.T) {
	b := rapid.SampledFrom(w.targets).Draw(r, "bucket")
	op := of(store.Charge, b.op)
	op.Spec = rapid.SampledFrom(b.tiers).Draw(r, "tier")
	if b.op.Manner == limit.Plain {
		return // which knows no waiting
	}
	clock := w.twin.clock
	began := clock.Now()
	op.Amount = 1
	if room := w.ask(op).Remaining; room > 0 && rapid.IntRange(0, 3).Draw(r, "more") > 0 {
		op.Amount = min(room+rapid.Int64Range(1, 4).Draw(r, "too much"), limit.MaxAmount)
	}
	first := w.ask(op)
	switch longest := w.longest(op); {
	case first.Never || !first.Refused || longest > 10*365*day:
		w.tally["no wait"]++
	case first.Estimated:
		w.tally["estimated"]++
		w.insist(op, first, began+longest)
	default:
		w.tally["exact"]++
		for _, early := range []limit.Micros{50_000, 1} {
			if first.RetryAfter > early {
				clock.Set(began + first.RetryAfter - early)
				if !w.ask(op).Refused {
					r.Fatalf("told to wait for %d µs, but admitted %d µs earlier: %v", first.RetryAfter, early, showOp(&op))
				}
			}
		}
		clock.Set(began + first.RetryAfter)
		if w.ask(op).Refused {
			r.Fatalf("told to wait for %d µs, but then refused: %v", first.RetryAfter, showOp(&op))
		}
	}
	w.newest = max(w.newest, clock.Now())
}

// ask asks whether op fits, and writes nothing.
func (w *waiter) ask(op store.Op) limit.Status {
	return w.must(&store.Step{Ops: ops(op, wall())}).Results[0]
}

// insist waits as long as it is told, until it is admitted, which has to be by the deadline.
func (w *waiter) insist(op store.Op, told limit.Status, deadline limit.Micros) {
	for told.Refused {
		w.twin.clock.Advance(told.RetryAfter)
		if now := w.twin.clock.Now(); told.RetryAfter < 1 || now > deadline {
			w.t.Fatalf("told to wait until %d, want at most %d: %v", now, deadline, showOp(&op))
		}
		told = w.ask(op)
	}
}

// longest returns how long op has to wait if all holds are kept; for a place, until the last lapses.
func (w *waiter) longest(op store.Op) limit.Micros {
	b, now := w.model.buckets[nameOf(&op)], w.twin.clock.Now()
	if op.Spec.Algorithm == limit.Concurrency {
		last := now
		for _, h := range b.live {
			last = max(last, h.due)
		}
		return last - now
	}
	st := b.state.Clone()
	at := op.Spec.Advance(&st, now)
	return op.Spec.Judge(&st, at, max(1, op.Amount), 0).After(at - now).RetryAfter
}
