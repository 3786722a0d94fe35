package storetest

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"pgregory.net/rapid"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

// testLinearizable lets callers apply random steps to few buckets and leases at once, while the clock
// runs: there is an order, true to who was answered before whom had asked, in which the model answers
// all the same.
func testLinearizable(t *testing.T, open Open) { linearizableGames(t, open, randomTurn) }

// testLinearizableWithinShards is testLinearizable with steps each of which needs one shard only.
func testLinearizableWithinShards(t *testing.T, open Open) {
	linearizableGames(t, open, turnWithinShard)
}

func linearizableGames(t *testing.T, open Open, turn func(*rapid.T) *store.Step) {
	for game := range 60 {
		clock := NewClock(noon)
		scope := &scope{TB: t}
		history := play(open(scope, clock), clock, turn, game)
		scope.end()
		if !linearizable(history) {
			t.Fatalf("game %d: no order of these steps explains their answers:\n%s", game, tell(history))
		}
	}
}

// callers is how many there are in a game, and turns how many steps each applies.
const callers, turns = 6, 12

// answer is what a caller was told.
type answer struct {
	out store.Outcome
	err error
}

// play lets callers apply their steps at once, and returns what happened.
func play(s store.Store, clock *Clock, turn func(*rapid.T) *store.Step, game int) []porcupine.Operation {
	plans := rapid.SliceOfN(rapid.SliceOfN(rapid.Custom(turn), turns, turns), callers, callers).Example(game)
	histories := make([][]porcupine.Operation, callers)
	began := time.Now()
	start := make(chan struct{})
	var wait sync.WaitGroup
	for caller := range callers {
		wait.Go(func() {
			<-start
			for _, step := range plans[caller] {
				clock.Advance(sec / 2)
				var a answer
				called := time.Since(began)
				a.err = s.Apply(context.Background(), step, &a.out)
				histories[caller] = append(histories[caller], porcupine.Operation{
					ClientId: caller, Input: step, Call: int64(called), Output: a, Return: int64(time.Since(began)),
				})
			}
		})
	}
	close(start)
	wait.Wait()
	return slices.Concat(histories...)
}

// randomTurn draws a step. All callers use the same buckets, in two groups that never meet in one step, and
// the same leases.
func randomTurn(r *rapid.T) *store.Step {
	specs := []limit.Spec{
		{Algorithm: limit.TokenBucket, Limit: 20, Burst: 5, Window: minute},
		{Algorithm: limit.Concurrency, Limit: 2},
		{Algorithm: limit.SlidingLog, Limit: 4, Window: 10 * sec},
		{Limit: 6, Window: 20 * sec, FirstUse: true},
		{Algorithm: limit.SlidingWindow, Limit: 5, Window: 10 * sec},
	}
	group := rapid.IntRange(0, 1).Draw(r, "group")
	op := func(kind store.Kind) store.Op {
		i := rapid.IntRange(0, 2).Draw(r, "bucket") + 2*group
		o := of(kind, charge(fmt.Sprintf("%d of %d", i, group), specs[i], rapid.Int64Range(0, 3).Draw(r, "amount")))
		if kind == store.Hold {
			o.Amount++
			o.Lapse = rapid.Int64Range(0, o.Amount).Draw(r, "lapse")
		}
		if kind == store.Deplete {
			o.Wait = rapid.SampledFrom([]limit.Micros{0, sec, 10 * sec}).Draw(r, "wait")
			if o.Spec.Algorithm == limit.Concurrency {
				o.Kind = store.Record
			}
		}
		return o
	}
	lease := 10*group + rapid.IntRange(0, 3).Draw(r, "lease")
	step := &store.Step{}
	var kinds []store.Kind
	switch rapid.IntRange(0, 6).Draw(r, "what") {
	case 0, 1:
		kinds = []store.Kind{store.Charge, store.Charge, store.GiveBack, store.Deplete}
	case 2, 3:
		step.Lease = opens(lease, rapid.Uint64Range(1, 2).Draw(r, "request"))
		step.Lease.Lasts = 5 * sec
		kinds = []store.Kind{store.Hold, store.Charge}
	case 4:
		step.Lease = settles(lease, rapid.Uint64Range(1, 2).Draw(r, "request"), rapid.Int64Range(0, 4).Draw(r, "actual"))
		kinds = []store.Kind{store.Settle, store.Charge}
	case 5:
		step.Lease = lapses(lease)
		kinds = []store.Kind{store.Charge, store.Record, store.Deplete}
	default:
		step.Lease = renews(lease, rapid.Int64Range(0, 6).Draw(r, "actual"))
		step.Lease.Lasts = 5 * sec
		kinds = []store.Kind{store.Charge}
	}
	for range rapid.IntRange(1, 3).Draw(r, "ops") {
		o := op(rapid.SampledFrom(kinds).Draw(r, "kind"))
		if step.Lease != nil && step.Lease.Do == store.LeaseRenew {
			o.Amount = 0
		}
		step.Ops = append(step.Ops, o)
	}
	return step
}

// turnWithinShard draws a step without a lease on buckets of one owner.
func turnWithinShard(r *rapid.T) *store.Step {
	step := randomTurn(r)
	step.Lease = nil
	for i := range step.Ops {
		op := &step.Ops[i]
		op.Owner = op.Bucket[len(op.Bucket)-1:] // its group
		switch op.Kind {
		case store.Hold:
			op.Kind, op.Lapse = store.Charge, 0
		case store.Settle:
			op.Kind = store.Record
		case store.Charge, store.GiveBack, store.Record, store.Deplete:
		}
	}
	return step
}

// linearizable says whether some order of the operations explains their answers.
func linearizable(history []porcupine.Operation) bool {
	return porcupine.CheckOperations(porcupine.Model{
		Partition: partition,
		Init:      func() any { return &Model{} },
		Step: func(state, input, output any) (bool, any) {
			a := output.(answer)
			now := a.out.Now
			if a.err != nil {
				now = noon // an error says no instant; a conflict depends on none, as nothing is forgotten here
			}
			next, want, err := state.(*Model).Apply(now, input.(*store.Step))
			return alike(err, a.err) && (err != nil || same(a.out, want)), next
		},
		Equal: reflect.DeepEqual,
	}, history)
}

// partition splits a history into parts that have neither buckets nor leases in common.
func partition(history []porcupine.Operation) [][]porcupine.Operation {
	group := map[string]string{} // a forest: the way from each name to that of its part
	find := func(name string) string {
		for group[name] != "" {
			name = group[name]
		}
		return name
	}
	names := func(o porcupine.Operation) (list []string) {
		step := o.Input.(*store.Step)
		if step.Lease != nil {
			list = append(list, fmt.Sprintf("lease %x", step.Lease.ID))
		}
		for i := range step.Ops {
			list = append(list, fmt.Sprintf("bucket %q", nameOf(&step.Ops[i])))
		}
		return list
	}
	for _, o := range history {
		list := names(o)
		for _, name := range list[1:] {
			if a, b := find(list[0]), find(name); a != b {
				group[a] = b
			}
		}
	}
	parts := map[string][]porcupine.Operation{}
	for _, o := range history {
		part := find(names(o)[0])
		parts[part] = append(parts[part], o)
	}
	var list [][]porcupine.Operation
	for _, part := range parts {
		list = append(list, part)
	}
	return list
}

// tell writes a history in the order of its calls.
func tell(history []porcupine.Operation) string {
	slices.SortFunc(history, func(a, b porcupine.Operation) int { return int(a.Call - b.Call) })
	text := ""
	for _, o := range history {
		a := o.Output.(answer)
		step := shown{o.Input.(*store.Step)}
		text += fmt.Sprintf("%d…%d caller %d: %v\n %+v %v\n", o.Call, o.Return, o.ClientId, step, a.out, a.err)
	}
	return text
}
