package limit_test

import (
	"testing"

	"github.com/rationhq/ration/limit"
)

// busy are limits under a steady load: one unit each microsecond, which every other decision finds used up.
func busy(t testing.TB) []family {
	all := families(t)
	for i := range all {
		s := &all[i].spec
		s.Limit = 1000
		switch {
		case s.Algorithm == limit.TokenBucket:
			s.Burst, s.Window = 1000, 2000
		case all[i].windows != nil:
			s.Window = 2000
		}
	}
	return all
}

// decide is what a store asks of a limit for one request.
func decide(s *limit.Spec, st *limit.State, clock limit.Micros) {
	now := s.Advance(st, clock)
	if !s.Judge(st, now, 1, 0).Refused {
		s.Charge(st, now, 1)
	}
}

// One decision: advance, judge and, if there is room, charge.
func BenchmarkDecide(b *testing.B) {
	for _, f := range busy(b) {
		b.Run(f.name, func(b *testing.B) {
			var st limit.State
			clock := day
			b.ReportAllocs()
			for b.Loop() {
				clock++
				decide(&f.spec, &st, clock)
			}
		})
	}
}

// A hold and its settlement at half of it.
func BenchmarkHoldAndSettle(b *testing.B) {
	for _, f := range busy(b) {
		b.Run(f.name, func(b *testing.B) {
			var st limit.State
			clock := day
			b.ReportAllocs()
			for b.Loop() {
				clock += 4
				now := f.spec.Advance(&st, clock)
				if !f.spec.Judge(&st, now, 4, 0).Refused {
					f.spec.Settle(&st, now, f.spec.Hold(&st, now, 4), 4, 2)
				}
			}
		})
	}
}

// The arithmetic allocates nothing, but that a log grows to its size.
func TestDecideAllocatesNothing(t *testing.T) {
	for _, f := range busy(t) {
		var st limit.State
		clock := day
		one := func() { clock++; decide(&f.spec, &st, clock) }
		for range 10_000 {
			one()
		}
		if n := testing.AllocsPerRun(10_000, one); n != 0 {
			t.Errorf("%s: %v allocations per decision", f.name, n)
		}
	}
}
