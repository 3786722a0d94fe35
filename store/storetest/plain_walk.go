package storetest

import (
	"fmt"
	"strings"
	"testing"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

// counted is what a plain op leaves: how much its window has counted, and whether it refused.
type counted struct {
	used    int64
	refused bool
}

func used(n int64) counted { return counted{used: n} }
func over(n int64) counted { return counted{n, true} }

// wantPlain compares the overall verdict, and all that the results of plain ops say.
func wantPlain(t reporter, out store.Outcome, refused bool, ops []store.Op, results ...counted) {
	t.Helper()
	if out.Refused != refused {
		t.Errorf("refused = %v, want %v", out.Refused, refused)
	}
	if len(out.Results) != len(results) {
		t.Fatalf("%d results, want %d", len(out.Results), len(results))
	}
	for i, r := range results {
		spec := ops[i].Spec
		want := limit.Status{
			Refused: r.refused, Used: r.used, Remaining: max(0, spec.Limit-r.used),
			ResetAfter: spec.Window - out.Now%spec.Window,
		}
		if out.Results[i] != want {
			t.Errorf("result %d = %+v, want %+v", i, out.Results[i], want)
		}
	}
}

// plainly applies plain ops and compares what they leave.
func plainly(t reporter, s store.Store, refused bool, ops []store.Op, results ...counted) {
	t.Helper()
	wantPlain(t, apply(t, s, ops...), refused, ops, results...)
}

// ops makes a list of ops read as one.
func ops(list ...store.Op) []store.Op { return list }

func testPlainWindow(t *testing.T, open Open) {
	clock := NewClock(noon)
	s := open(t, clock)
	three := perMinute(3)
	for _, step := range []struct {
		at      limit.Micros // since noon
		amount  int64
		refused bool
		used    int64
	}{
		{0, 1, false, 1},
		{0, 0, false, 1}, // a check counts nothing
		{1, 1, false, 2},
		{minute - 1, 1, false, 3},
		{minute - 1, 0, false, 3}, // exactly used up is not overdrawn
		{minute - 1, 1, true, 4},
		{minute - 1, 0, true, 4},
		{minute, 0, false, 0}, // windows are half-open
		{minute, 3, false, 3},
		{119 * limit.Second, 1, true, 4},
		{10 * minute, 1, false, 1},
	} {
		clock.Set(noon + step.at)
		out := apply(t, s, charge("b", three, step.amount))
		if out.Now != noon+step.at {
			t.Errorf("%d µs after noon: decided at %d", step.at, out.Now)
		}
		wantPlain(t, out, step.refused, ops(charge("b", three, 0)), counted{step.used, step.refused})
	}
}

func testPlain(t *testing.T, open Open) {
	s := open(t, NewClock(noon))
	ten := perMinute(10)
	plainly(t, s, false, ops(charge("a", ten, 8)), used(8))
	plainly(t, s, true, ops(charge("a", ten, 5)), over(13)) // refused whole, counted whole
	plainly(t, s, true, ops(charge("a", ten, 1)), over(14))
	// One limit's refusal does not keep the other from being charged.
	plainly(t, s, true, ops(charge("a", ten, 1), charge("b", ten, 4)), over(15), used(4))
	// A raised limit is in force at once; a limit of zero refuses all but a check of nothing.
	plainly(t, s, false, ops(charge("a", perMinute(20), 1)), used(16))
	plainly(t, s, false, ops(charge("c", perMinute(0), 0)), used(0))
	plainly(t, s, true, ops(charge("c", perMinute(0), 1)), over(1))
}

func testPlainGiveBack(t *testing.T, open Open) {
	clock := NewClock(noon)
	s := open(t, clock)
	ten := perMinute(10)
	plainly(t, s, false, ops(giveBack("a", ten, 3)), used(0)) // never below zero
	plainly(t, s, true, ops(charge("a", ten, 12)), over(12))
	plainly(t, s, false, ops(giveBack("a", ten, 1)), used(11)) // never refused
	plainly(t, s, false, ops(giveBack("a", ten, 4)), used(7))
	plainly(t, s, false, ops(charge("a", ten, 3)), used(10))
	plainly(t, s, false, ops(giveBack("a", ten, 100)), used(0))
	plainly(t, s, false, ops(charge("a", ten, 10)), used(10))
	clock.Advance(minute)
	plainly(t, s, false, ops(giveBack("a", ten, 5)), used(0)) // to the current window only
	clock.Advance(-1)
	plainly(t, s, false, ops(charge("a", ten, 0)), used(10))
}

func testPlainOverall(t *testing.T, open Open) {
	testOverall(t, open, limit.Plain)
}

func testPlainSameBucket(t *testing.T, open Open) {
	s := open(t, NewClock(noon))
	three := perMinute(3)
	plainly(t, s, true, ops(charge("a", three, 2), charge("a", three, 2)), used(2), over(4))
	plainly(t, s, false, ops(giveBack("a", three, 1), charge("a", three, 0), giveBack("a", three, 1)), used(3), used(3), used(2))
}

func testPlainLargest(t *testing.T, open Open) {
	s := open(t, NewClock(noon))
	most, less := perMinute(limit.MaxAmount), perMinute(limit.MaxAmount-1)
	plainly(t, s, false, ops(charge("a", most, limit.MaxAmount-1)), used(limit.MaxAmount-1))
	plainly(t, s, false, ops(charge("a", most, 1)), used(limit.MaxAmount))
	plainly(t, s, false, ops(charge("a", most, limit.MaxAmount)), used(limit.MaxAmount))
	plainly(t, s, false, ops(giveBack("a", most, limit.MaxAmount-3)), used(3))
	plainly(t, s, true, ops(charge("b", less, limit.MaxAmount)), over(limit.MaxAmount))
}

func testPlainClockBack(t *testing.T, open Open) {
	for _, window := range []limit.Micros{limit.Second, minute, day} {
		start := noon - noon%window
		clock := NewClock(start + window - 1)
		s := open(t, clock)
		spec := limit.Spec{Limit: 5, Window: window}
		plainly(t, s, false, ops(charge("a", spec, 5)), used(5))
		clock.Set(start + window)
		plainly(t, s, false, ops(charge("a", spec, 2)), used(2))
		clock.Set(start + window - min(window, minute))
		plainly(t, s, true, ops(charge("a", spec, 1)), over(6))
		clock.Set(start + window)
		plainly(t, s, false, ops(charge("a", spec, 1)), used(3))
	}
}

func testPlainNames(t *testing.T, open Open) {
	s := open(t, NewClock(noon))
	names := []string{
		"a", "a|", "a@0", "a{x}", "{s0000}a", "ä", "a b", "a\nb", "a\x00b", "%s",
		strings.Repeat("k", store.MaxBucketName),
	}
	many := perMinute(1000)
	for i, name := range names {
		plainly(t, s, false, ops(charge(name, many, int64(i+1))), used(int64(i+1)))
	}
	for i, name := range names {
		plainly(t, s, false, ops(charge(name, many, 0)), used(int64(i+1)))
	}
}

// testPlainConcurrent lets 64 callers spend at once. In every game exactly the limit is admitted.
func testPlainConcurrent(t *testing.T, open Open) {
	s := open(t, nil)
	for game := range 20 {
		bucket := fmt.Sprint("game ", game)
		admitted := spend(t, s, 5, func(int, int) *store.Step {
			return &store.Step{Ops: ops(charge(bucket, perYear(100), 1))}
		})
		if admitted != 100 {
			t.Errorf("game %d: 64 callers were admitted %d times, want 100", game, admitted)
		}
	}
}
