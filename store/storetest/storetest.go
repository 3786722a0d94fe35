// Package storetest is the conformance suite of the storage contract: any store.Store must pass it.
//
// It knows the contract and the arithmetic only. [Run] is all that a store's test has to call; the
// model that the random tests compare with stands in model.go and is the contract in plain code.
package storetest

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

// Clock is a clock that tests set. It is safe for concurrent use.
type Clock struct{ now atomic.Int64 }

// NewClock returns a clock that stands at start.
func NewClock(start limit.Micros) *Clock {
	c := &Clock{}
	c.Set(start)
	return c
}

// Now returns what the clock shows.
func (c *Clock) Now() limit.Micros { return limit.Micros(c.now.Load()) }

// Set moves the clock to an instant.
func (c *Clock) Set(t limit.Micros) { c.now.Store(int64(t)) }

// Advance moves the clock by d, which may be negative.
func (c *Clock) Advance(d limit.Micros) { c.now.Add(int64(d)) }

// Open makes a store with nothing in it, on the given clock; nil means the store's own. It is
// called once per test and cleans up after itself.
type Open func(t testing.TB, clock *Clock) store.Store

// Run runs the whole suite.
func Run(t *testing.T, open Open) {
	t.Run("walks through a window", func(t *testing.T) { testWindow(t, open) })
	t.Run("plain charges count what they refuse", func(t *testing.T) { testPlain(t, open) })
	t.Run("strict charges are all or nothing", func(t *testing.T) { testStrict(t, open) })
	t.Run("gives back", func(t *testing.T) { testGiveBack(t, open) })
	t.Run("forms the overall verdict", func(t *testing.T) { testOverall(t, open) })
	t.Run("counts one bucket twice in a step", func(t *testing.T) { testSameBucket(t, open) })
	t.Run("pins counts at 2^53-1", func(t *testing.T) { testLargest(t, open) })
	t.Run("finds counters when the clock steps back", func(t *testing.T) { testClockBack(t, open) })
	t.Run("keeps names apart", func(t *testing.T) { testNames(t, open) })
	t.Run("refuses what breaks the contract", func(t *testing.T) { testInvalid(t, open) })
	t.Run("honours the caller's deadline", func(t *testing.T) { testDeadline(t, open) })
	t.Run("agrees with the model", func(t *testing.T) { testModel(t, open) })
	t.Run("admits exactly the limit to many at once", func(t *testing.T) { testConcurrent(t, open) })
	t.Run("never charges a refused step under concurrency", func(t *testing.T) { testConcurrentStrict(t, open) })
}

// noon is where most walks begin: the start of every window up to a day, at 12:00.
const noon limit.Micros = 1_763_726_400 * limit.Second // 2025-11-21T12:00:00Z

func minute(most int64) limit.Spec { return limit.Spec{Limit: most, Window: 60 * limit.Second} }

func charge(bucket string, spec limit.Spec, amount int64) store.Op {
	return store.Op{Bucket: []byte(bucket), Spec: spec, Kind: store.Charge, Amount: amount}
}

func strict(bucket string, spec limit.Spec, amount int64) store.Op {
	op := charge(bucket, spec, amount)
	op.Manner = limit.Strict
	return op
}

func giveBack(bucket string, spec limit.Spec, amount int64) store.Op {
	op := charge(bucket, spec, amount)
	op.Kind = store.GiveBack
	return op
}

func apply(t testing.TB, s store.Store, ops ...store.Op) store.Outcome {
	t.Helper()
	return applyStep(t, s, &store.Step{Ops: ops})
}

func applyStep(t testing.TB, s store.Store, step *store.Step) store.Outcome {
	t.Helper()
	var out store.Outcome
	if err := s.Apply(context.Background(), step, &out); err != nil {
		t.Fatalf("apply: %v", err)
	}
	return out
}

// want compares what was used after each op, and which ops were refused.
func want(t testing.TB, out store.Outcome, refused bool, results ...store.Result) {
	t.Helper()
	if out.Refused != refused {
		t.Errorf("refused = %v, want %v", out.Refused, refused)
	}
	if len(out.Results) != len(results) {
		t.Fatalf("%d results, want %d", len(out.Results), len(results))
	}
	for i := range results {
		if out.Results[i] != results[i] {
			t.Errorf("result %d = %+v, want %+v", i, out.Results[i], results[i])
		}
	}
}

func used(n int64) store.Result { return store.Result{Used: n} }
func over(n int64) store.Result { return store.Result{Used: n, Refused: true} }
