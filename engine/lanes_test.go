package engine_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rationhq/ration/engine"
	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/price"
	"github.com/rationhq/ration/store"
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

// leaving is a store whose callers leave as soon as it has reserved what they ask for.
type leaving struct {
	*memory.Store
	leave  context.CancelFunc // nil: they stay
	silent bool               // and do not hear that it has
}

func (l *leaving) Apply(ctx context.Context, step *store.Step, out *store.Outcome) error {
	err := l.Store.Apply(ctx, step, out)
	if l.leave != nil && step.Lease != nil && step.Lease.Do == store.LeaseOpen && !out.Refused {
		l.leave()
		if l.silent {
			return ctx.Err()
		}
	}
	return err
}

// Who leaves when it is its turn leaves no place taken, whether it heard that it was its turn or not.
func TestPlaceOfOneWhoLeaves(t *testing.T) {
	for name, ask := range map[string]func(ctx context.Context, e *engine.Engine, id string) (over bool, err error){
		"Decide": func(ctx context.Context, e *engine.Engine, id string) (bool, error) {
			var d engine.Decision
			err := e.Decide(ctx, &engine.Request{Domain: "llm", Descriptors: []engine.Descriptor{{Entries: []policy.Entry{
				{Key: "user", Value: "ann"}, {Key: "ration.model", Value: "small"}, {Key: "ration.tier", Value: "pro"},
				{Key: "ration.request", Value: id}, {Key: "ration.lane", Value: "provider"},
			}}}}, &d)
			return d.Over, err
		},
		"Acquire": func(ctx context.Context, e *engine.Engine, _ string) (bool, error) {
			var a engine.Admission
			err := e.Acquire(ctx, callOf("ann", "pro", 1), &engine.Place{}, &a)
			return a.Over, err
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := &leaving{Store: memory.New(memory.Options{})}
			e := engine.New(s, engine.Options{})
			t.Cleanup(func() { e.Close(); s.Close() })
			p, _, err := policy.Parse([]policy.Source{{Name: "llm.yaml", Data: []byte(laned)}}, policy.Options{})
			if err != nil {
				t.Fatal(err)
			}
			e.SetPolicy(p)
			for i := range 5 {
				ctx, leave := context.WithCancel(t.Context())
				s.leave, s.silent = leave, i%2 == 0
				if _, err := ask(ctx, e, fmt.Sprint("left", i)); !errors.Is(err, context.Canceled) {
					t.Fatalf("who has left is told %v", err)
				}
			}
			s.leave = nil
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			for i := range 2 {
				if over, err := ask(ctx, e, fmt.Sprint("stays", i)); err != nil || over {
					t.Errorf("of both places %d are free: over %v, %v", i, over, err)
				}
			}
		})
	}
}
