package storetest

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

// ofLease returns the row of "u" that a lease adds to, which says how much that is in all.
func ofLease(add ...store.Addition) store.Row {
	r := at(noon, reported("u", "d", add...))
	r.Rank, r.OfLease = 1<<1|1<<2, true
	return r
}

// testLeaseRows walks through what a lease adds to its row. If reopen is not nil, the store is closed and made anew
// behind each line.
func testLeaseRows(t *testing.T, open, reopen Open) {
	tokens := limit.Spec{Limit: 100, Window: hour}
	beside := at(noon, reported("v", "", add(3, 1))) // told does not show it, and would miss it in the group
	step := func(l *store.Lease, rows ...store.Row) *store.Step { return &store.Step{Lease: l, Rows: rows} }
	refused := func(s *store.Step) *store.Step { s.Refused = true; return s }
	look := &store.Lease{ID: id(1), Do: store.LeaseLook}
	reserve := func() *store.Step {
		s := step(opens(1, 7), beside, ofLease(add(0, 1), add(1, 5)))
		s.Ops = ops(holding("tokens", tokens, 40, 5))
		return s
	}
	type line struct {
		what  string
		later limit.Micros
		step  *store.Step
		state store.LeaseState
		was   string
	}
	for name, lines := range map[string][]line{
		"through its life": {
			{"opened", 0, reserve(), store.LeaseOpened, "12: d 0+1 1+5; u 5"},
			{"opened again", sec, reserve(), store.LeaseReplayed, "12: d 0+1 1+5; u 5"},
			{"renewed", sec, step(renews(1, 20), ofLease(add(0, 1), add(1, 20), add(2, 3))), store.LeaseRenewed, "12: d 0+1 1+20 2+3; u 20"},
			{"renewed again", 0, step(renews(1, 20), ofLease(add(0, 1), add(1, 20), add(2, 3))), store.LeaseRenewed, "12: d 0+1 1+20 2+3; u 20"},
			{"renewed by an older report", sec, step(renews(1, 8), ofLease(add(1, 8))), store.LeaseRenewed, "12: d 0+1 1+20 2+3; u 20"},
			{"higher in one column, lower in another", 0, step(renews(1, 8), ofLease(add(1, 8), add(2, 1000))), store.LeaseRenewed, "12: d 0+1 1+20 2+1000; u 20"},
			{"without a row", sec, step(renews(1, 30)), store.LeaseRenewed, "12: d 0+1 1+20 2+1000; u 20"},
			{"looked at", sec, step(look, ofLease(add(1, 90))), store.LeaseOpened, "12: d 0+1 1+20 2+1000; u 20"},
			{"renewed when it has lapsed", 2 * minute, step(renews(1, 50), ofLease(add(1, 50))), store.LeaseLapsed, "12: d 0+1 1+20 2+1000; u 20"},
			{"settled late, for less and for more", 0, step(settles(1, 1, 12), ofLease(add(0, 2), add(1, 12))), store.LeaseCorrected, "12: d 0+2 1+12; u 12"},
			{"settled again", 0, step(settles(1, 1, 12), ofLease(add(0, 2), add(1, 12))), store.LeaseReplayed, "12: d 0+2 1+12; u 12"},
			{"renewed when it is settled", 0, step(renews(1, 50), ofLease(add(1, 50))), store.LeaseSettled, "12: d 0+2 1+12; u 12"},
			{"let go when it is settled", 0, step(lapses(1), ofLease(add(1, 50))), store.LeaseReplayed, "12: d 0+2 1+12; u 12"},
		},
		"of an unknown lease": {
			{"renewed", 0, step(renews(1), ofLease(add(1, 7))), store.LeaseUnknown, ";"},
			{"let go", 0, step(lapses(1), ofLease(add(1, 7))), store.LeaseUnknown, ";"},
			{"looked at", 0, step(look, ofLease(add(1, 7))), store.LeaseUnknown, ";"},
			{"settled", 0, step(settles(1, 1), ofLease(add(1, 7))), store.LeaseUnknown, "12: d 1+7; u 7"},
			{"settled again", 0, step(settles(1, 1), ofLease(add(1, 7))), store.LeaseReplayed, "12: d 1+7; u 7"},
		},
		"let go": {
			{"opened", 0, reserve(), store.LeaseOpened, "12: d 0+1 1+5; u 5"},
			{"let go", sec, step(lapses(1), ofLease(add(1, 50))), store.LeaseLapsed, "12: d 0+1 1+5; u 5"},
			{"settled", sec, step(settles(1, 1, 7), ofLease(add(0, 1), add(1, 7))), store.LeaseCorrected, "12: d 0+1 1+7; u 7"},
		},
		"settled in time, to nothing": {
			{"opened", 0, reserve(), store.LeaseOpened, "12: d 0+1 1+5; u 5"},
			{"settled", sec, step(settles(1, 1), ofLease()), store.LeaseSettled, ";"},
		},
		"that tells of it late": {
			{"opened", 0, step(opens(1, 1)), store.LeaseOpened, ";"},
			{"renewed", 0, step(renews(1), ofLease(add(1, 3))), store.LeaseRenewed, "12: d 1+3; u 3"},
			{"renewed once more", 0, step(renews(1), ofLease(add(1, 4))), store.LeaseRenewed, "12: d 1+4; u 4"},
			{"opened again", 0, step(opens(1, 1)), store.LeaseReplayed, "12: d 1+4; u 4"},
			{"settled", 0, step(settles(1, 1), ofLease(add(1, 1))), store.LeaseSettled, "12: d 1+1; u 1"},
		},
		"whatever the verdict": {
			{"a refusal opens none", 0, refused(reserve()), store.LeaseNone, ";"},
			{"opened", 0, reserve(), store.LeaseOpened, "12: d 0+1 1+5; u 5"},
			{"renewed", 0, refused(step(renews(1), at(noon, reported("u", "d", add(5, 1))), ofLease(add(1, 6)))), store.LeaseRenewed, "12: d 0+1 1+6; u 6"},
			{"renewed, and admitted", 0, step(renews(1), at(noon, reported("u", "d", add(5, 1))), ofLease(add(1, 7))), store.LeaseRenewed, "12: d 0+1 1+7 5+1; u 7"},
			{"settled", 0, refused(step(settles(1, 1), at(noon, reported("u", "d", add(5, 1))), ofLease(add(1, 8)))), store.LeaseSettled, "12: d 1+8 5+1; u 8"},
		},
		"below nothing": {
			{"opened", 0, step(opens(1, 1), ofLease(add(1, -3), add(2, 4))), store.LeaseOpened, "12: d 1-3 2+4;"},
			{"renewed", 0, step(renews(1), ofLease(add(1, -2), add(2, -1))), store.LeaseRenewed, "12: d 1-2 2+4;"},
			{"settled", 0, step(settles(1, 1), ofLease(add(2, -128))), store.LeaseSettled, "12: d 2-128;"},
		},
		"of as much as there is": {
			{"opened", 0, step(opens(1, 1), ofLease(add(1, limit.MaxAmount), add(1, 1), add(63, -limit.MaxAmount))), store.LeaseOpened,
				fmt.Sprintf("12: d 1+%d 63-%[1]d; u %[1]d", limit.MaxAmount)},
			{"settled", 0, step(settles(1, 1), ofLease(add(1, limit.MaxAmount-1), add(63, 1-limit.MaxAmount))), store.LeaseSettled,
				fmt.Sprintf("12: d 1+%d 63-%[1]d; u %[1]d", limit.MaxAmount-1)},
		},
	} {
		t.Run(name, func(t *testing.T) {
			clock := NewClock(noon)
			s := open(t, clock)
			for _, l := range lines {
				clock.Advance(l.later)
				if out := applyStep(t, s, l.step); out.Lease != l.state {
					t.Errorf("%s: lease state %d, want %d", l.what, out.Lease, l.state)
				}
				if reopen != nil {
					if err := s.Close(); err != nil {
						t.Fatal(err)
					}
					s = reopen(t, clock)
				}
				if got := told(t, s); got != l.was {
					t.Errorf("%s: %s, want %s", l.what, got, l.was)
				}
			}
		})
	}
}

// testLeaseRowsInvalid: a row of a lease needs one, and there are no two.
func testLeaseRowsInvalid(t *testing.T, open Open) {
	s := open(t, NewClock(noon))
	for name, step := range map[string]*store.Step{
		"without a lease": {Rows: []store.Row{ofLease(add(1, 1))}},
		"twice":           {Lease: opens(1, 1), Rows: []store.Row{ofLease(add(1, 1)), ofLease(add(1, 1))}},
	} {
		if err := s.Apply(t.Context(), step, &store.Outcome{}); !errors.Is(err, store.ErrInvalid) {
			t.Errorf("%s: %v, want %v", name, err, store.ErrInvalid)
		}
	}
	if got := told(t, s); got != ";" {
		t.Errorf("steps that break the contract have left %q", got)
	}
}

// testRenewedAtOnce lets many tell at once how far a call is, each twice: what was said at most is added, once. And
// what is settled meanwhile stays.
func testRenewedAtOnce(t *testing.T, open Open) {
	const callers, leases = 16, 8
	clock := NewClock(noon)
	s := open(t, clock)
	tell := func(n int, amount int64) *store.Step {
		return &store.Step{Lease: renews(n, amount), Rows: []store.Row{ofLease(add(1, amount))}}
	}
	want := int64(0)
	for n := range leases {
		applyStep(t, s, &store.Step{Lease: opens(n, 1), Ops: ops(holding("tokens", perYear(1000), 0, 0)), Rows: []store.Row{ofLease(add(0, 1), add(1, 1))}})
		var all sync.WaitGroup
		for caller := range callers {
			all.Go(func() {
				for range 2 {
					if err := s.Apply(t.Context(), tell(n, int64(caller+1)), &store.Outcome{}); err != nil {
						t.Error(err)
					}
				}
			})
		}
		settled := n%2 == 1
		if settled {
			all.Go(func() {
				step := &store.Step{Lease: settles(n, 1, 5), Rows: []store.Row{ofLease(add(0, 1), add(1, 5))}}
				if err := s.Apply(t.Context(), step, &store.Outcome{}); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if want += callers; settled {
			want += 5 - callers
		}
		if got, sums := told(t, s), fmt.Sprintf("12: d 0%+d 1%+d; u %d", n+1, want, want); got != sums {
			t.Fatalf("after %d leases, of which the last is settled %v: %s, want %s", n+1, settled, got, sums)
		}
		check := apply(t, s, strict("tokens", perYear(1000), 0)).Results[0]
		if check.Used+check.Held != want {
			t.Fatalf("after %d leases the bucket says %+v, want %d", n+1, check, want)
		}
	}
}

// testHoldsOfNothing: a hold of 0 asks whether there is room for 1 and takes none; and it belongs to its lease, which
// lets it grow. Its lapse makes no room.
func testHoldsOfNothing(t *testing.T, open Open) {
	specs := slices.DeleteFunc(shapes(), func(s limit.Spec) bool { return s.Algorithm == limit.Concurrency || s.Window == 7 })
	for i, spec := range specs {
		spec.Limit, spec.Burst = 10, 10
		name := fmt.Sprint(i, " ", spec.Algorithm)
		clock := NewClock(noon)
		s := open(t, clock)
		stands := func(when string, want stand) {
			t.Helper()
			if r := apply(t, s, strict("b", spec, 0), wall()).Results[0]; (stand{r.Used, r.Held, r.Remaining}) != want {
				t.Errorf("%s: %s it stands at %+v, want %+v", name, when, r, want)
			}
		}
		empty := func(n int) *store.Step {
			return &store.Step{Lease: opens(n, 1), Ops: ops(holding("b", spec, 0, 0))}
		}
		applyStep(t, s, empty(1))
		applyStep(t, s, empty(2))
		applyStep(t, s, empty(3))
		stands("held", stand{0, 0, 10})
		applyStep(t, s, &store.Step{Lease: renews(1, 3)})
		stands("grown", stand{0, 3, 7})
		applyStep(t, s, &store.Step{Lease: settles(2, 1, 4)})
		stands("settled", stand{4, 3, 3})
		applyStep(t, s, &store.Step{Lease: renews(1, 7)})
		stands("grown to the limit", stand{4, 7, -1})
		if out := applyStep(t, s, empty(4)); !out.Refused || out.Lease != store.LeaseNone || out.Results[0].Estimated {
			t.Errorf("%s: without room it is %+v, want a refusal that no lapse ends", name, out)
		}
		applyStep(t, s, &store.Step{Lease: settles(1, 1, 2)})
		stands("all settled but one", stand{6, 0, 4})
		clock.Advance(minute)
		applyStep(t, s, &store.Step{Lease: settles(3, 1, 5)}) // it has lapsed, and is corrected
		if r := apply(t, s, strict("b", spec, 0)).Results[0]; spec.Algorithm == limit.CalendarWindow && spec.Calendar.String() != "minute;UTC" && r.Used != 11 {
			t.Errorf("%s: settled late it stands at %+v, want 11 used", name, r)
		}
	}
	places := limit.Spec{Algorithm: limit.Concurrency, Limit: 1}
	s := open(t, NewClock(noon))
	applyStep(t, s, &store.Step{Lease: opens(1, 1), Ops: ops(holding("b", places, 0, 0))})
	applyStep(t, s, &store.Step{Lease: renews(1, 1)})
	lasting := opens(2, 1)
	lasting.Lasts = 2 * minute
	applyStep(t, s, &store.Step{Lease: lasting, Ops: ops(holding("b", places, 1, 0))})
	if r := apply(t, s, strict("b", places, 1)).Results[0]; !r.Refused || r.Held != 1 || r.RetryAfter != 2*minute {
		t.Errorf("one place is taken, and none by a hold of none: %+v, want it free in two minutes", r)
	}
}
