package storetest

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

// year is a window that no test run crosses by chance.
func year(most int64) limit.Spec { return limit.Spec{Limit: most, Window: 31_536_000 * limit.Second} }

// spend lets 64 callers apply steps at once, each as often as rounds says, and counts what was
// admitted.
func spend(t *testing.T, s store.Store, rounds int, step func(caller, round int) *store.Step) int64 {
	t.Helper()
	var admitted atomic.Int64
	var callers sync.WaitGroup
	for caller := range 64 {
		callers.Go(func() {
			var out store.Outcome
			for round := range rounds {
				if err := s.Apply(context.Background(), step(caller, round), &out); err != nil {
					t.Errorf("caller %d, round %d: %v", caller, round, err)
					return
				}
				if !out.Refused {
					admitted.Add(1)
				}
			}
		})
	}
	callers.Wait()
	return admitted.Load()
}

func testConcurrent(t *testing.T, open Open) {
	for _, manner := range []limit.Manner{limit.Plain, limit.Strict} {
		s := open(t, nil)
		for game := range 20 {
			bucket := fmt.Appendf(nil, "game %d", game)
			admitted := spend(t, s, 5, func(int, int) *store.Step {
				return &store.Step{Ops: []store.Op{{Bucket: bucket, Spec: year(100), Manner: manner, Amount: 1}}}
			})
			if admitted != 100 {
				t.Errorf("manner %d, game %d: 64 callers were admitted %d times, want 100", manner, game, admitted)
			}
		}
	}
}

// testConcurrentStrict lets callers spend from three buckets at once, in all orders, of which the
// scarcest decides. What is used in each must be exactly what was admitted.
func testConcurrentStrict(t *testing.T, open Open) {
	s := open(t, nil)
	limits := []int64{70, 90, 500}
	orders := [][]int{{0, 1, 2}, {2, 1, 0}, {1, 0, 2}, {1, 2, 0}, {0, 2, 1}, {2, 0, 1}}
	admitted := spend(t, s, 20, func(caller, round int) *store.Step {
		step := &store.Step{}
		for _, i := range orders[(caller+round)%len(orders)] {
			step.Ops = append(step.Ops, strict(fmt.Sprint("shared ", i), year(limits[i]), 1))
		}
		return step
	})
	if admitted != 70 {
		t.Errorf("admitted %d times, want 70", admitted)
	}
	for i := range limits {
		if out := apply(t, s, charge(fmt.Sprint("shared ", i), year(limits[i]), 0)); out.Results[0].Used != 70 {
			t.Errorf("bucket %d: used %d, want 70: refused steps were charged", i, out.Results[0].Used)
		}
	}
}
