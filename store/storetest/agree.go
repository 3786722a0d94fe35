package storetest

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

// testModel runs random histories on the model and on the store: they agree exactly on every answer.
func testModel(t *testing.T, open Open) {
	for name, pool := range pools() {
		t.Run(name, func(t *testing.T) {
			agree(t, rounds, pool, false, open, nil)
		})
	}
}

// pools are the limits that the histories of one test are made of: each algorithm for itself, and all
// of them.
func pools() map[string][]limit.Spec {
	pools := map[string][]limit.Spec{"all": shapes()}
	for _, s := range shapes() {
		pools[s.Algorithm.String()] = append(pools[s.Algorithm.String()], s)
	}
	return pools
}

// rounds is how often each random test runs rapid's number of histories.
const rounds = 5

// agree runs rounds of histories on the stores that open makes, which tell of the same events as the model; if reports is set, steps have rows, and the store
// and the model agree in the end on what they add up to. If reopen is not nil, they are closed now and
// then, and reopen makes them anew. Then no bucket drains at two rates: when it is over depends on
// the rate, and only what is not over comes back.
func agree(t *testing.T, rounds int, pool []limit.Spec, reports bool, open, reopen Open) {
	tally := map[string]int{}
	history := func(r *rapid.T) {
		scope := &scope{TB: t}
		defer scope.end()
		clock := NewClock(0)
		h := newHistory(r, clock, pool, reopen != nil, tally)
		h.reports = reports
		w := &twin{t: r, store: open(scope, clock), clock: clock, model: &Model{}}
		r.Repeat(map[string]func(*rapid.T){"step": func(r *rapid.T) {
			if reopen != nil && rapid.IntRange(0, 9).Draw(r, "reopen") == 9 {
				if err := w.store.Close(); err != nil {
					r.Fatalf("close: %v", err)
				}
				w.store = reopen(scope, clock)
			}
			step := h.next(w.model)
			out, err := w.step(step)
			h.heard(step, out, err)
			if rapid.IntRange(0, 9).Draw(r, "read events") == 9 {
				w.deliver(r)
			}
		}})
		w.must(h.survey())
		w.events()
		h.tally["events"] += len(w.model.events)
		if reports {
			w.usage(r)
		}
	}
	for range rounds {
		rapid.Check(t, history)
	}
	logTally(t, tally)
}

// survey returns a step that asks how all buckets of a history stand, for all tiers.
func (h *history) survey() *store.Step {
	step := &store.Step{Ops: ops(wall())}
	for _, b := range h.targets {
		for tier := range b.tiers {
			step.Ops = append(step.Ops, b.of(tier))
		}
	}
	return step
}

// logTally logs how often what has happened, under -v: histories have to get around.
func logTally(t *testing.T, tally map[string]int) {
	t.Helper()
	var lines []string
	for what, n := range tally {
		lines = append(lines, fmt.Sprintf("%7d %s", n, what))
	}
	slices.SortFunc(lines, func(a, b string) int { return strings.Compare(a[8:], b[8:]) })
	t.Log("\n" + strings.Join(lines, "\n"))
}
