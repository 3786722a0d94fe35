package memory_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
	"github.com/rationhq/ration/store/memory"
	"github.com/rationhq/ration/store/storetest"
)

// kinds are the ways of limiting that are measured.
func kinds() []struct {
	name   string
	manner limit.Manner
	spec   limit.Spec
} {
	const hour = 3600 * limit.Second
	type kind = struct {
		name   string
		manner limit.Manner
		spec   limit.Spec
	}
	all := []kind{{"plain", limit.Plain, limit.Spec{Limit: limit.MaxAmount, Window: hour}}}
	for a := limit.FixedWindow; a < limit.Concurrency; a++ {
		all = append(all, kind{a.String(), limit.Strict, spec(a, hour)})
	}
	return all
}

// BenchmarkApply decides on plain counters that belong to nobody.
func BenchmarkApply(b *testing.B) {
	for _, ops := range []int{1, 3} {
		for _, buckets := range []int{1, 10_000, 1_000_000} {
			b.Run(fmt.Sprintf("%d limits of %d buckets", ops, buckets), func(b *testing.B) {
				s := open(b, memory.Options{})
				names := make([][]byte, buckets)
				for i := range names {
					names[i] = fmt.Appendf(nil, "bench|user=user-%d|3600s", i)
				}
				step := func() *store.Step {
					step := &store.Step{Ops: make([]store.Op, ops)}
					for i := range step.Ops {
						step.Ops[i] = store.Op{Spec: limit.Spec{Limit: limit.MaxAmount, Window: 3600 * limit.Second}, Amount: 1}
					}
					return step
				}
				benchmark(b, s, buckets, step, func(step *store.Step, next int) {
					for i := range step.Ops {
						step.Ops[i].Bucket = names[(next*7919+i*104_729)%buckets]
					}
				})
			})
		}
	}
}

// BenchmarkOwner decides on limits of one owner of 10,000, by each algorithm.
func BenchmarkOwner(b *testing.B) {
	const owners = 10_000
	names := make([][]byte, owners)
	for i := range names {
		names[i] = fmt.Appendf(nil, "bench|user=user-%d", i)
	}
	buckets := [][]byte{[]byte("a|x"), []byte("b|x"), []byte("c|x"), []byte("d|x"), []byte("e|x"), []byte("f|x")}
	for _, kind := range kinds() {
		for _, ops := range []int{1, 3, 6} {
			b.Run(fmt.Sprintf("%s/%d limits", kind.name, ops), func(b *testing.B) {
				s := open(b, memory.Options{})
				step := func() *store.Step {
					step := &store.Step{Ops: make([]store.Op, ops)}
					for i := range step.Ops {
						step.Ops[i] = store.Op{Bucket: buckets[i], Spec: kind.spec, Manner: kind.manner, Amount: 1}
					}
					return step
				}
				benchmark(b, s, owners, step, func(step *store.Step, next int) {
					for i := range step.Ops {
						step.Ops[i].Owner = names[next*7919%owners]
					}
				})
			})
		}
	}
}

// BenchmarkOverlappingCalls opens a lease on a token bucket, or on a window, and settles the oldest of those that are open: so
// many overlap.
func BenchmarkOverlappingCalls(b *testing.B) {
	for _, a := range []limit.Algorithm{limit.TokenBucket, limit.FixedWindow} {
		for _, calls := range []int{1, 10, 60, 400} {
			b.Run(fmt.Sprintf("%v, %d at once", a, calls), func(b *testing.B) {
				s := open(b, memory.Options{})
				op := native("company", "b", limit.Spec{Algorithm: a, Limit: 1 << 50, Window: hour})
				if a == limit.TokenBucket {
					op.Spec.Limit, op.Spec.Burst = 1<<20, 1<<50
				}
				op.Kind, op.Amount = store.Hold, 300
				ctx, out := context.Background(), store.Outcome{}
				lease := store.Lease{Lasts: store.MaxLease, Actual: []int64{30}}
				step := &store.Step{Lease: &lease, Ops: []store.Op{op}}
				apply := func(n int, do store.LeaseAction) {
					lease.ID, lease.Do = id(n), do
					if step.Ops = step.Ops[:1]; do == store.LeaseSettle {
						step.Ops = step.Ops[:0]
					}
					if err := s.Apply(ctx, step, &out); err != nil || out.Refused {
						b.Fatal(out, err)
					}
				}
				for n := range calls - 1 {
					apply(n, store.LeaseOpen)
				}
				b.ReportAllocs()
				for n := calls - 1; b.Loop(); n++ {
					apply(n, store.LeaseOpen)
					apply(n-calls+1, store.LeaseSettle)
				}
			})
		}
	}
}

// BenchmarkRefusal refuses on a bucket all of which is held, by leases whose lapse frees nothing.
func BenchmarkRefusal(b *testing.B) {
	for _, holds := range []int64{1, 64, 10_000} {
		b.Run(fmt.Sprintf("%d holds", holds), func(b *testing.B) {
			s := open(b, memory.Options{})
			op := native("company", "b", spec(limit.CalendarWindow, 0))
			op.Spec.Limit = holds
			held := op
			held.Kind, held.Lapse = store.Hold, 1
			ctx, out := context.Background(), store.Outcome{}
			for n := range int(holds) {
				lease := &store.Lease{ID: id(n), Lasts: store.MaxLease}
				if err := s.Apply(ctx, &store.Step{Lease: lease, Ops: []store.Op{held}}, &out); err != nil || out.Refused {
					b.Fatal(out, err)
				}
			}
			step := &store.Step{Ops: []store.Op{op}}
			b.ReportAllocs()
			for b.Loop() {
				if err := s.Apply(ctx, step, &out); err != nil || !out.Refused {
					b.Fatal(out, err)
				}
			}
		})
	}
}

// benchmark applies steps that fill has made ready. Their buckets exist when time begins to count.
func benchmark(b *testing.B, s *memory.Store, names int, step func() *store.Step, fill func(step *store.Step, next int)) {
	ctx, first, out := context.Background(), step(), store.Outcome{}
	for next := range names {
		fill(first, next)
		if err := s.Apply(ctx, first, &out); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		step, out := step(), store.Outcome{}
		for next := 0; pb.Next(); next++ {
			fill(step, next)
			if err := s.Apply(ctx, step, &out); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkLine measures steps in a line.
func BenchmarkLine(b *testing.B) {
	storetest.BenchmarkLine(b, open(b, memory.Options{}), func(_ *testing.B, run func()) { run() })
}
