package storetest

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

// testConservation: in every answer of a random history used + held + remaining is the ceiling, what
// is held is what live holds hold, and what refuses has changed nothing.
func testConservation(t *testing.T, open Open, rounds int) {
	tally := map[string]int{}
	for range rounds {
		rapid.Check(t, func(r *rapid.T) {
			scope := &scope{TB: t}
			defer scope.end()
			clock := NewClock(0)
			h := newHistory(r, clock, shapes(), false, tally)
			w := &twin{t: r, store: open(scope, clock), clock: clock, model: &Model{}}
			pinned := map[bucketName]bool{}
			r.Repeat(map[string]func(*rapid.T){"step": func(r *rapid.T) {
				step := h.next(w.model)
				before := w.must(h.survey())
				out, err := w.step(step)
				h.heard(step, out, err)
				after := w.must(h.survey())
				for name := range w.model.buckets {
					pinned[name] = pinned[name] || w.model.liveUnits(name) == limit.MaxAmount
				}
				conserved(r, w.model, pinned, h.survey(), after)
				if err == nil {
					conserved(r, w.model, pinned, step, out)
				}
				if err != nil || out.Refused && !lands(step) {
					unchanged(r, h.survey(), before, after)
					tally["left all unchanged"]++
				}
			}})
		})
	}
	logTally(t, tally)
}

// conserved checks the results of strict ops for themselves. Sums that have been pinned at 2^53−1 tell
// no more what is in them.
func conserved(r *rapid.T, m *Model, pinned map[bucketName]bool, step *store.Step, out store.Outcome) {
	for i, s := range out.Results {
		op := &step.Ops[i]
		live := m.liveUnits(nameOf(op))
		all := s.Used + s.Held
		switch {
		case op.Manner == limit.Plain:
		case all+s.Remaining != op.Spec.Ceiling():
			r.Fatalf("%s: %+v: does not add up to %d", showOp(op), s, op.Spec.Ceiling())
		case s.Used < 0 || s.Held < 0 || s.Held > live:
			r.Fatalf("%s: %+v: used or held below 0, or more held than the %d of live holds", showOp(op), s, live)
		case op.Spec.Algorithm == limit.Concurrency && !pinned[nameOf(op)] && all != live:
			r.Fatalf("%s: %+v: live holds are %d", showOp(op), s, live)
		case all == 0 && s.ResetAfter != 0:
			r.Fatalf("%s: %+v: nothing is used, but that shall take time", showOp(op), s)
		case s.Refused && !s.Never && s.RetryAfter < 1 && s.Remaining < op.Demand():
			r.Fatalf("%s: %+v: refused, without a time to wait", showOp(op), s)
		}
	}
}

// lands says that something of a refused step is written to strict buckets all the same.
func lands(step *store.Step) bool {
	if step.Lease != nil && step.Lease.Do != store.LeaseOpen {
		return true
	}
	for i := range step.Ops {
		if op := &step.Ops[i]; !op.Judged() || op.CountRefusals {
			return true
		}
	}
	return false
}

// unchanged compares two surveys of one instant.
func unchanged(r *rapid.T, survey *store.Step, before, after store.Outcome) {
	for i := range survey.Ops {
		if survey.Ops[i].Manner == limit.Strict && before.Results[i] != after.Results[i] {
			r.Fatalf("%s: %+v before, %+v after a step that was refused", showOp(&survey.Ops[i]), before.Results[i], after.Results[i])
		}
	}
}
