//go:build !race

package memory_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
	"github.com/rationhq/ration/store/memory"
)

// A decision on buckets that exist does not allocate, whatever it says. (Under the race detector pools
// forget on purpose.)
func TestApplyDoesNotAllocate(t *testing.T) {
	for _, kind := range kinds() {
		for _, owner := range []string{"", "owner"} {
			for _, most := range []int64{kind.spec.Limit, 5} {
				s := open(t, memory.Options{})
				step := &store.Step{}
				for i := range 3 {
					op := native(owner, fmt.Sprint("bucket ", i), kind.spec)
					op.Manner = kind.manner
					op.Spec.Limit = most
					step.Ops = append(step.Ops, op)
				}
				if kind.spec.Algorithm == limit.SlidingLog && most > 5 {
					continue // a log grows by what it remembers
				}
				var out store.Outcome
				ctx := context.Background()
				allocs := testing.AllocsPerRun(1000, func() {
					if err := s.Apply(ctx, step, &out); err != nil {
						t.Fatal(err)
					}
				})
				if allocs != 0 {
					t.Errorf("%s of %d, owner %q: %v allocations per decision, want 0", kind.name, most, owner, allocs)
				}
			}
		}
	}
}

// Nor does one with thresholds that are not reached, or were told of.
func TestThresholdsDoNotAllocate(t *testing.T) {
	s := open(t, memory.Options{})
	step := &store.Step{Ops: []store.Op{warning(native("owner", "b", spec(limit.FixedWindow, hour)), 1, 1<<39)}}
	var out store.Outcome
	allocs := testing.AllocsPerRun(1000, func() {
		if err := s.Apply(t.Context(), step, &out); err != nil {
			t.Fatal(err)
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations per step, want 0", allocs)
	}
	if n := len(eventsOf(t, s).all); n != 1 {
		t.Errorf("%d events, want that of the first threshold", n)
	}
}

// Nor does a step that reports where there is something reported already.
func TestReportDoesNotAllocate(t *testing.T) {
	s := open(t, memory.Options{})
	step := &store.Step{Ops: []store.Op{native("owner", "b", spec(limit.FixedWindow, hour))}, Rows: []store.Row{usageRow("owner")}}
	var out store.Outcome
	allocs := testing.AllocsPerRun(1000, func() {
		if err := s.Apply(t.Context(), step, &out); err != nil {
			t.Fatal(err)
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations per step, want 0", allocs)
	}
}
