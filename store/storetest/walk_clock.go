package storetest

import (
	"testing"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

// tens returns one limit of each algorithm that time alone frees: 10 units, in a minute or at once.
func tens() map[string]limit.Spec {
	return map[string]limit.Spec{
		"token_bucket":              {Algorithm: limit.TokenBucket, Limit: 10, Burst: 10, Window: minute},
		"sliding_window":            {Algorithm: limit.SlidingWindow, Limit: 10, Window: minute},
		"sliding_log":               {Algorithm: limit.SlidingLog, Limit: 10, Window: minute},
		"fixed_window":              {Limit: 10, Window: minute},
		"fixed_window of first use": {Limit: 10, Window: minute, FirstUse: true},
		"calendar":                  {Algorithm: limit.CalendarWindow, Limit: 10, Calendar: calendar("minute;UTC")},
	}
}

// testForgottenGiveBack: what is given back to a bucket that may be forgotten leaves no trace, whether it was
// forgotten or not: when the clock steps back, nothing is there.
func testForgottenGiveBack(t *testing.T, open Open) {
	for name, ten := range tens() {
		t.Run(name, func(t *testing.T) {
			clock := NewClock(noon)
			s := open(t, clock)
			apply(t, s, strict("b", ten, 10))
			clock.Set(noon + 1000*hour)
			apply(t, s, of(store.GiveBack, strict("b", ten, 1)))
			clock.Advance(-1)
			got := apply(t, s, strict("b", ten, 1)).Results[0]
			if want := apply(t, s, strict("new", ten, 1)).Results[0]; got != want {
				t.Errorf("%+v, want that of a new bucket, %+v", got, want)
			}
		})
	}
}

// testClockBack: the clock steps back by an hour, a bucket follows it, and whoever asks first is told how
// long to wait: whatever that step was, it is admitted then.
func testClockBack(t *testing.T, open Open) {
	for name, ten := range tens() {
		for what, first := range map[string]func(store.Store) limit.Micros{
			"a charge that is refused": func(s store.Store) limit.Micros {
				return apply(t, s, strict("b", ten, 10)).Results[0].RetryAfter
			},
			"a check": func(s store.Store) limit.Micros {
				return apply(t, s, strict("b", ten, 0)).Results[0].ResetAfter
			},
			"a repeat": func(s store.Store) limit.Micros {
				return applyStep(t, s, &store.Step{Lease: opens(1, 1), Ops: ops(strict("b", ten, 10))}).Results[0].ResetAfter
			},
		} {
			t.Run(name+", "+what, func(t *testing.T) {
				clock := NewClock(noon)
				s := open(t, clock)
				applyStep(t, s, &store.Step{Lease: opens(1, 1), Ops: ops(strict("b", ten, 10))})
				clock.Advance(-hour)
				wait := first(s)
				if wait < 1 || wait > 2*minute {
					t.Fatalf("told to wait for %d µs, want no more than two minutes", wait)
				}
				clock.Advance(wait - 1)
				if out := apply(t, s, strict("b", ten, 10)); !out.Refused {
					t.Errorf("admitted a microsecond before the %d µs were over", wait)
				}
				clock.Advance(1)
				if out := apply(t, s, strict("b", ten, 10)); out.Refused {
					t.Errorf("refused after the %d µs that it was told to wait: %+v", wait, out.Results[0])
				}
			})
		}
	}
	t.Run("concurrency", func(t *testing.T) {
		clock := NewClock(noon)
		s := open(t, clock)
		place := limit.Spec{Algorithm: limit.Concurrency, Limit: 1}
		applyStep(t, s, &store.Step{Lease: opens(1, 1), Ops: ops(holding("b", place, 1, 0))})
		clock.Advance(-hour)
		if wait := apply(t, s, strict("b", place, 1)).Results[0].RetryAfter; wait != hour+minute {
			t.Errorf("told to wait for %d µs, want until the lease is due", wait)
		}
		clock.Advance(hour + minute)
		if out := apply(t, s, strict("b", place, 1)); out.Refused {
			t.Errorf("refused when the lease is due: %+v", out.Results[0])
		}
	})
}

// testNamesakes: an instant comes twice, since the clock has stepped back. What was held the first time
// gives nothing back of what was charged the second time.
func testNamesakes(t *testing.T, open Open) {
	for name, ten := range tens() {
		for between, op := range map[string]store.Op{
			"something is charged in between": strict("b", ten, 1),
			"nothing is charged in between":   of(store.GiveBack, strict("b", ten, 1)),
		} {
			t.Run(name+", "+between, func(t *testing.T) {
				clock := NewClock(noon)
				s := open(t, clock)
				lease := opens(1, 1)
				lease.Lasts = hour
				applyStep(t, s, &store.Step{Lease: lease, Ops: ops(holding("b", ten, 10, 0))})
				clock.Advance(3 * minute)
				apply(t, s, op)
				clock.Advance(-3 * minute)
				apply(t, s, strict("b", ten, 0)) // the bucket is at noon again
				clock.Advance(10 * sec)          // beside the hold, where that is of an instant
				room := apply(t, s, strict("b", ten, 0), wall()).Results[0].Remaining
				apply(t, s, strict("b", ten, room))
				applyStep(t, s, &store.Step{Lease: settles(1, 1, 0)})
				if out := apply(t, s, strict("b", ten, 1)); !out.Refused {
					t.Errorf("after 10 of 10 a settlement of others made room: %+v", out.Results[0])
				}
			})
		}
	}
}
