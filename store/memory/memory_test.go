package memory_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
	"github.com/rationhq/ration/store/memory"
	"github.com/rationhq/ration/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) {
	storetest.Run(t, func(t testing.TB, clock *storetest.Clock) store.Store {
		opts := memory.Options{}
		if clock != nil {
			opts.Clock = clock.Now
		}
		s := memory.New(opts)
		t.Cleanup(func() { _ = s.Close() })
		return s
	})
}

// Counters that no longer matter are dropped, and no others.
func TestSweep(t *testing.T) {
	clock := storetest.NewClock(1_763_726_400 * limit.Second)
	s := memory.New(memory.Options{Clock: clock.Now, SweepEvery: 256 * time.Millisecond})
	defer s.Close()
	charge := func(window limit.Micros, amount int64) {
		var out store.Outcome
		step := store.Step{}
		for i := range 50 {
			step.Ops = append(step.Ops, store.Op{
				Bucket: fmt.Appendf(nil, "%d of %d", i, window),
				Spec:   limit.Spec{Limit: 1, Window: window}, Amount: amount,
			})
		}
		if err := s.Apply(context.Background(), &step, &out); err != nil {
			t.Fatal(err)
		}
	}
	charge(limit.Second, 1)
	charge(3600*limit.Second, 1)
	charge(60*limit.Second, 0) // only looked at: nothing to remember
	waitForLen(t, s, 100)
	clock.Advance(2*limit.Second - 1)
	waitForLen(t, s, 100)
	clock.Advance(1) // the second's window and its grace are over
	waitForLen(t, s, 50)
	clock.Advance(3700 * limit.Second)
	waitForLen(t, s, 0)
}

func waitForLen(t *testing.T, s *memory.Store, want int) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for s.Len() != want {
		if time.Now().After(deadline) {
			t.Fatalf("the store remembers %d buckets, want %d", s.Len(), want)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// A decision on buckets that exist does not allocate.
func TestApplyDoesNotAllocate(t *testing.T) {
	s := memory.New(memory.Options{})
	defer s.Close()
	step := &store.Step{}
	for i := range 3 {
		step.Ops = append(step.Ops, store.Op{
			Bucket: fmt.Appendf(nil, "bucket %d", i),
			Spec:   limit.Spec{Limit: limit.MaxAmount, Window: 3600 * limit.Second}, Amount: 1,
		})
	}
	var out store.Outcome
	ctx := context.Background()
	allocs := testing.AllocsPerRun(1000, func() {
		if err := s.Apply(ctx, step, &out); err != nil {
			t.Fatal(err)
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations per decision, want 0", allocs)
	}
}

func BenchmarkApply(b *testing.B) {
	for _, ops := range []int{1, 3} {
		for _, buckets := range []int{1, 10_000, 1_000_000} {
			b.Run(fmt.Sprintf("%d limits of %d buckets", ops, buckets), func(b *testing.B) {
				s := memory.New(memory.Options{})
				defer s.Close()
				names := make([][]byte, buckets)
				for i := range names {
					names[i] = fmt.Appendf(nil, "bench|user=user-%d|3600s", i)
				}
				b.ReportAllocs()
				b.RunParallel(func(pb *testing.PB) {
					step := &store.Step{Ops: make([]store.Op, ops)}
					for i := range step.Ops {
						step.Ops[i] = store.Op{Spec: limit.Spec{Limit: limit.MaxAmount, Window: 3600 * limit.Second}, Amount: 1}
					}
					var out store.Outcome
					for next := 0; pb.Next(); next++ {
						for i := range step.Ops {
							step.Ops[i].Bucket = names[(next*7919+i*104_729)%buckets]
						}
						if err := s.Apply(context.Background(), step, &out); err != nil {
							b.Fatal(err)
						}
					}
				})
			})
		}
	}
}
