package storetest

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

// perYear is a window that no test run crosses by chance.
func perYear(most int64) limit.Spec { return limit.Spec{Limit: most, Window: 365 * day} }

// turn returns the step of a caller in a round.
type turn func(caller, round int) *store.Step

// spend lets 64 callers apply steps at once, each as often as rounds says, and counts what was
// admitted. After an admission a caller applies the step that next returns, if there is one.
func spend(t *testing.T, s store.Store, rounds int, step turn, next ...turn) int64 {
	t.Helper()
	var admitted atomic.Int64
	var callers sync.WaitGroup
	for caller := range 64 {
		callers.Go(func() {
			var out store.Outcome
			for round := range rounds {
				err := s.Apply(context.Background(), step(caller, round), &out)
				if err == nil && !out.Refused {
					admitted.Add(1)
					for _, next := range next {
						err = errors.Join(err, s.Apply(context.Background(), next(caller, round), &out))
					}
				}
				if err != nil {
					t.Errorf("caller %d, round %d: %v", caller, round, err)
					return
				}
			}
		})
	}
	callers.Wait()
	return admitted.Load()
}

// testSpenders lets 64 callers spend from three buckets at once, in all orders, until the scarcest is
// used up, as many times as there are games. Never is one too many admitted, and what is used in each bucket is
// exactly what was admitted: a refused step has charged none of them.
func testSpenders(t *testing.T, open Open, games int) {
	algorithms := map[string][3]limit.Spec{
		"token bucket, sliding log, calendar": {
			{Algorithm: limit.TokenBucket, Limit: 1, Burst: 7, Window: 365 * day},
			{Algorithm: limit.SlidingLog, Limit: 9, Window: 365 * day},
			{Algorithm: limit.CalendarWindow, Limit: 50, Calendar: calendar("year;Europe/London;04-06")},
		},
		"sliding window, first use, aligned": {
			{Algorithm: limit.SlidingWindow, Limit: 7, Window: 365 * day},
			{Limit: 9, Window: 365 * day, FirstUse: true},
			perYear(50),
		},
	}
	orders := [][]int{{0, 1, 2}, {2, 1, 0}, {1, 0, 2}, {1, 2, 0}, {0, 2, 1}, {2, 0, 1}}
	for name, specs := range algorithms {
		t.Run(name, func(t *testing.T) {
			s := open(t, NewClock(noon))
			op := func(game, i int, amount int64) store.Op {
				return with(strict(fmt.Sprint("shared ", i), specs[i], amount), func(o *store.Op) {
					o.Owner = fmt.Append(nil, "game ", game)
				})
			}
			// Every caller spends once in every game, so that games meet at different stages.
			admitted := spend(t, s, games, func(caller, round int) *store.Step {
				step := &store.Step{}
				for _, i := range orders[(caller+round)%len(orders)] {
					step.Ops = append(step.Ops, op(round, i, 1))
				}
				return step
			})
			if admitted != int64(7*games) {
				t.Errorf("%d were admitted in %d games, want 7 in each", admitted, games)
			}
			for game := range games {
				used := make([]int64, 3)
				for i, r := range apply(t, s, op(game, 0, 0), op(game, 1, 0), op(game, 2, 0)).Results {
					used[i] = r.Used
				}
				if !slices.Equal(used, []int64{7, 7, 7}) {
					t.Errorf("game %d: %d were used of the three, want 7 of each", game, used)
				}
			}
		})
	}
	t.Run("places", func(t *testing.T) { testPlaces(t, open) })
}

// testPlaces lets 64 callers take one of five places and leave it again. Never are more than five
// taken, and all are free in the end.
func testPlaces(t *testing.T, open Open) {
	s := open(t, NewClock(noon))
	spec := limit.Spec{Algorithm: limit.Concurrency, Limit: 5}
	var inside, entered atomic.Int64
	spend(t, s, 100, func(caller, round int) *store.Step {
		return &store.Step{Lease: opens(caller<<16+round, 1), Ops: ops(holding("room", spec, 1, 0))}
	}, func(caller, round int) *store.Step {
		if n := inside.Add(1); n > 5 {
			t.Errorf("there are %d in a room for 5", n)
		}
		entered.Add(1)
		runtime.Gosched() // let others try
		inside.Add(-1)
		return &store.Step{Lease: settles(caller<<16+round, 1)}
	})
	if entered.Load() == 0 {
		t.Error("nobody got in")
	}
	if got := apply(t, s, strict("room", spec, 0)).Results[0]; got.Held != 0 || got.Remaining != 5 {
		t.Errorf("when all have left: %+v", got)
	}
}
