package storetest

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

// testSpendersAcrossShards lets 64 callers charge, or hold and settle, three buckets of different owners at
// once, in all orders. Some may be refused by what others are promised and then do not take. Never is one too
// many admitted, what is used in each bucket is exactly what was admitted, and nothing stays promised: who
// comes alone afterwards gets all that is left.
func testSpendersAcrossShards(t *testing.T, open Open) {
	specs := [3]limit.Spec{
		{Algorithm: limit.TokenBucket, Limit: 1, Burst: 7, Window: 365 * day},
		{Algorithm: limit.SlidingLog, Limit: 9, Window: 365 * day},
		perYear(50),
	}
	const games = 100
	orders := [][]int{{0, 1, 2}, {2, 1, 0}, {1, 0, 2}, {1, 2, 0}, {0, 2, 1}, {2, 0, 1}}
	ops := func(of func(string, limit.Spec) store.Op, order, game int) (list []store.Op) {
		for _, i := range orders[order%len(orders)] {
			list = append(list, with(of("spent", specs[i]), func(o *store.Op) {
				o.Owner = fmt.Appendf(nil, "owner %d of game %d", i, game)
			}))
		}
		return list
	}
	check := func(name string, spec limit.Spec) store.Op { return strict(name, spec, 0) }
	t.Run("charges", func(t *testing.T) {
		s := open(t, NewClock(noon))
		one := func(name string, spec limit.Spec) store.Op { return strict(name, spec, 1) }
		var admitted [games]atomic.Int64
		spend(t, s, games, func(caller, game int) *store.Step {
			return &store.Step{Ops: ops(one, caller+game, game)}
		}, func(_, game int) *store.Step {
			admitted[game].Add(1)
			return &store.Step{}
		})
		for game := range games {
			counts(t, s, ops(check, 0, game), admitted[game].Load())
			for left := 7 - admitted[game].Load(); left > 0; left-- {
				if apply(t, s, ops(one, 1, game)...).Refused {
					t.Fatalf("game %d: refused while there is room for %d", game, left)
				}
			}
			if !apply(t, s, ops(one, 1, game)...).Refused {
				t.Errorf("game %d: more than 7 were admitted", game)
			}
			counts(t, s, ops(check, 0, game), 7)
		}
	})
	t.Run("holds", func(t *testing.T) {
		s := open(t, NewClock(noon))
		one := func(name string, spec limit.Spec) store.Op { return holding(name, spec, 1, 0) }
		var admitted [games]atomic.Int64
		spend(t, s, games, func(caller, game int) *store.Step {
			return &store.Step{Lease: opens(caller<<16+game, 1), Ops: ops(one, caller+game, game)}
		}, func(caller, game int) *store.Step {
			admitted[game].Add(1)
			return &store.Step{Lease: settles(caller<<16+game, 1, 1)}
		})
		for game := range games {
			if n := admitted[game].Load(); n > 7 {
				t.Errorf("game %d: %d were admitted of 7", game, n)
			}
			counts(t, s, ops(check, 0, game), admitted[game].Load())
		}
	})
}

// counts checks that all of these buckets have used so much, and hold nothing.
func counts(t *testing.T, s store.Store, checks []store.Op, want int64) {
	t.Helper()
	for i, r := range apply(t, s, checks...).Results {
		if r.Used != want || r.Held != 0 {
			t.Errorf("%s: %d used and %d held, want %d and nothing", showOp(&checks[i]), r.Used, r.Held, want)
		}
	}
}
