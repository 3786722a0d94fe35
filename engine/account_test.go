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
	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/price"
)

const accounts = `
domain: llm
tiers:
  - { name: free, attributes: { max_output: 800 } }
  - { name: pro }
trust_tier: true
prices:
  book: none
  models:
    small: { input: "1.00", output: "2.00", cache_read: "0.50", cache_write: "1.00" }
    large: { input: "10.00", output: "20.00", cache_read: "1.00", cache_write: "10.00" }
    gift:  { input: "0", output: "0", cache_read: "0", cache_write: "0" }
limits:
  - { name: company, meter: cost, algorithm: fixed_window, limit: $1/hour }
descriptors:
  - key: user
    subject: true
    rate_limit: { unit: hour, requests_per_unit: 100, name: plain }
    limits:
      - name: requests
        meter: requests
        algorithm: fixed_window
        tiers: { free: { limit: 5/minute }, pro: { limit: 50/minute } }
      - name: tokens
        meter: tokens
        algorithm: calendar
        tiers: { free: { limit: 1_000/day, per_request: 1_000 }, pro: { limit: 10_000/day } }
      - name: in-flight
        meter: concurrency
        tiers: { free: { limit: 2 }, pro: { limit: 10 } }
    descriptors:
      - key: model
        value: large
        limits:
          - { name: large, meter: output_tokens, algorithm: sliding_log, limit: 500/hour }
upstreams:
  - name: provider
    models: [ small ]
    limits:
      - { name: itpm, meter: input_tokens, algorithm: token_bucket, rate: 6_000/minute, burst: 100_000 }
  - name: other
    models: [ large ]
    limits:
      - { name: otpm, meter: output_tokens, algorithm: fixed_window, limit: 100_000/hour }
`

func newAccounts(t testing.TB) bench { return newPolicyBench(t, accounts, engine.Options{}) }

// call makes a call of a model for alice.
func call(model string, input, output int64, more ...func(*engine.Call)) *engine.Call {
	c := &engine.Call{
		Caller: engine.Caller{Domain: "llm", Attributes: []policy.Entry{{Key: "user", Value: "alice"}}, Model: model},
		Usage:  price.Usage{Input: input, Output: output},
	}
	for _, change := range more {
		change(c)
	}
	return c
}

func key(k string) func(*engine.Call)  { return func(c *engine.Call) { c.Key = k } }
func tier(t string) func(*engine.Call) { return func(c *engine.Call) { c.Tier = t } }

func (b bench) reserve(t testing.TB, c *engine.Call) *engine.Admission {
	t.Helper()
	var a engine.Admission
	if err := b.Reserve(context.Background(), c, &a); err != nil {
		t.Fatal(err)
	}
	return &a
}

func (b bench) settle(t testing.TB, a *engine.Admission, used price.Usage) *engine.Settlement {
	t.Helper()
	var s engine.Settlement
	if err := b.Settle(context.Background(), &engine.Report{ID: a.ID, Usage: used}, &s); err != nil {
		t.Fatal(err)
	}
	return &s
}

func expect(t testing.TB, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s:\n got %s\nwant %s", what, got, want)
	}
}

func TestReserveAndSettle(t *testing.T) {
	b := newAccounts(t)
	a := b.reserve(t, call("small", 100, 200))
	expect(t, "reserved", sayLimits(&a.Decision), "OK company:0+500000 requests:0+1 tokens:0+300 in-flight:0+1 itpm:0+100")
	s := b.settle(t, a, price.Usage{Input: 90, CacheRead: 10, Output: 50})
	expect(t, "settled", sayLimits(&s.Decision), "")
}

func TestParallelReserves(t *testing.T) {
	b := newPolicyBench(t, `
domain: llm
descriptors:
  - key: user
    subject: true
    limits: [ { name: budget, meter: tokens, algorithm: fixed_window, limit: 500/day } ]
`, engine.Options{})
	var admitted atomic.Int64
	var callers sync.WaitGroup
	for range 1000 {
		callers.Go(func() {
			if a := b.reserve(t, call("", 75, 0)); !a.Over {
				admitted.Add(1)
			}
		})
	}
	callers.Wait()
	if n := admitted.Load(); n != 6 {
		t.Errorf("%d of 1,000 calls of 75 tokens were admitted to a budget of 500, want 6", n)
	}
}

var _ = errors.Is
var _ = fmt.Sprint
var _ = time.Now
var _ limit.Micros
