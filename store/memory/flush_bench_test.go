package memory

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

// BenchmarkFlush says how long it takes to bring changed counters onto disk, of 200,000 that are there.
//
//	go test -run xxx -bench Flush -benchtime 20x ./store/memory
func BenchmarkFlush(b *testing.B) {
	const buckets = 200_000
	s, err := Open(b.TempDir(), Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	var out store.Outcome
	next := 0
	change := func(n int) {
		for range n {
			op := store.Op{
				Owner: fmt.Append(nil, "user ", next), Bucket: []byte("tokens"), Manner: limit.Strict, Amount: 1,
				Spec: limit.Spec{Algorithm: limit.SlidingWindow, Limit: 1 << 40, Window: 86_400 * limit.Second},
			}
			if err := s.Apply(context.Background(), &store.Step{Ops: []store.Op{op}}, &out); err != nil {
				b.Fatal(err)
			}
			next = (next + 7919) % buckets
		}
	}
	// From here on the benchmark is the flusher.
	close(s.flusher.stop)
	s.flusher.stopped.Wait()
	s.flusher.stop = make(chan struct{})
	change(buckets)
	if err := s.flusher.flush(); err != nil {
		b.Fatal(err)
	}
	for _, n := range []int{100, 1000, 5000, 10_000, 20_000} {
		b.Run(fmt.Sprintf("%d changed", n), func(b *testing.B) {
			for range b.N {
				b.StopTimer()
				change(n)
				b.StartTimer()
				if err := s.flusher.flush(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "counters/s")
		})
	}
}

// BenchmarkReserve reserves and settles over three buckets, on disk before the answer, from as many
// callers at once as the name says.
//
//	go test -run xxx -bench Reserve ./store/memory
func BenchmarkReserve(b *testing.B) {
	for _, callers := range []int{1, 16, 128} {
		b.Run(fmt.Sprintf("%d callers", callers), func(b *testing.B) {
			s, err := Open(b.TempDir(), Options{})
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			var ids atomic.Uint64
			b.SetParallelism(max(1, callers/2))
			b.RunParallel(func(pb *testing.PB) {
				var out store.Outcome
				step := &store.Step{Lease: &store.Lease{Lasts: store.MaxLease, Actual: []int64{1}}}
				for i := range 3 {
					step.Ops = append(step.Ops, store.Op{
						Bucket: fmt.Append(nil, i), Manner: limit.Strict, Kind: store.Hold, Amount: 2,
						Spec: limit.Spec{Limit: 1 << 40, Window: 86_400 * limit.Second},
					})
				}
				ops := step.Ops
				for pb.Next() {
					n := ids.Add(1)
					copy(step.Lease.ID[:], fmt.Sprintf("%016d", n))
					owner := fmt.Append(nil, "user ", n%10_000)
					for i := range ops {
						ops[i].Owner = owner
					}
					for do, ops := range [][]store.Op{ops, nil} {
						step.Lease.Do, step.Ops = store.LeaseAction(do), ops
						if err := s.Apply(context.Background(), step, &out); err != nil {
							b.Fatal(err)
						}
					}
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "pairs/s")
		})
	}
}
