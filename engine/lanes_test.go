package engine_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rationhq/ration/engine"
	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/price"
	"github.com/rationhq/ration/store/memory"
)

const laned = `
domain: llm
tiers: [ { name: free }, { name: pro }, { name: premium } ]
trust_tier: true
descriptors:
  - key: user
    subject: true
    limits:
      - name: requests
        meter: requests
        algorithm: fixed_window
        tiers: { free: { limit: 3/hour }, pro: { limit: 50/hour }, premium: unlimited }
upstreams:
  - name: provider
    models: [ small ]
    limits:
      - { name: tokens, meter: output_tokens, algorithm: token_bucket, rate: 1_000/second, burst: 1_000 }
lanes:
  - name: provider
    upstream: provider
    max_concurrent: 2
    max_wait: 20s
    max_waiting: { total: 100, per_subject: 5 }
`

// lanedBench is an engine on a store by the real clock: callers wait.
func lanedBench(t testing.TB, text string) *engine.Engine {
	s := memory.New(memory.Options{})
	e := engine.New(s, engine.Options{})
	t.Cleanup(func() { e.Close(); s.Close() })
	p, _, err := policy.Parse([]policy.Source{{Name: "llm.yaml", Data: []byte(text)}}, policy.Options{})
	if err != nil {
		t.Fatal(err)
	}
	e.SetPolicy(p)
	return e
}

func callOf(user, tier string, output int64) *engine.Call {
	return &engine.Call{
		Caller: engine.Caller{Domain: "llm", Attributes: []policy.Entry{{Key: "user", Value: user}}, Model: "small", Tier: tier},
		Usage:  price.Usage{Output: output},
	}
}

// Never more are under way than the lane has places, and everybody has a turn.
func TestPlacesOfALane(t *testing.T) {
	e := lanedBench(t, laned)
	var all sync.WaitGroup
	var under, most, done atomic.Int64
	for i := range 60 {
		all.Go(func() {
			var a engine.Admission
			err := e.Acquire(t.Context(), callOf(fmt.Sprintf("u%d", i%30), "pro", 1), &engine.Place{}, &a)
			if err != nil || a.Over {
				t.Errorf("%v %s", err, a.Message())
				return
			}
			n := under.Add(1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			time.Sleep(2 * time.Millisecond)
			under.Add(-1)
			done.Add(1)
			var s engine.Settlement
			if err := e.Settle(context.Background(), &engine.Report{ID: a.ID, Usage: price.Usage{Output: 1}}, &s); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if most.Load() > 2 || done.Load() != 60 {
		t.Fatalf("%d at a time, %d in all", most.Load(), done.Load())
	}
}
