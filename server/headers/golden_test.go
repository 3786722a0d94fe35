package headers_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/rationhq/ration/engine"
	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/price"
	"github.com/rationhq/ration/server/headers"
	"github.com/rationhq/ration/store"
	"github.com/rationhq/ration/store/memory"
)

// An admitted call tells of all limits, the scarcest first. Of each meter the dialects of the model APIs tell of the one
// that binds. Money and limits in shadow are not told of.
func TestAdmitted(t *testing.T) {
	b := newBench(t)
	expect(t, "admitted", reserve(t, b.Engine, "user", "m", price.Usage{Input: 4_000, Output: 500}), `
ratelimit-policy: "llm.user.input";q=8000;qu="input-tokens";w=3600, "llm.user.tokens";q=10000;qu="tokens";w=86400, "llm.user.requests";q=3;w=60, "llm.user.at-once";q=5;qu="concurrent-requests", "llm.user.output";q=9000;qu="output-tokens";w=3600, "llm.user.bucket";q=90;w=90
ratelimit: "llm.user.input";r=4000;t=3600, "llm.user.tokens";r=5500;t=43200, "llm.user.requests";r=2;t=60, "llm.user.at-once";r=4, "llm.user.output";r=8500;t=7200, "llm.user.bucket";r=89;t=1
x-ratelimit-limit: 8000
x-ratelimit-remaining: 4000
x-ratelimit-reset: 1795438801
x-ratelimit-limit-requests: 3
x-ratelimit-remaining-requests: 2
x-ratelimit-reset-requests: 59.75s
anthropic-ratelimit-requests-limit: 3
anthropic-ratelimit-requests-remaining: 2
anthropic-ratelimit-requests-reset: 2026-11-23T12:01:00Z
x-ratelimit-limit-tokens: 10000
x-ratelimit-remaining-tokens: 5500
x-ratelimit-reset-tokens: 11h59m59.75s
anthropic-ratelimit-tokens-limit: 10000
anthropic-ratelimit-tokens-remaining: 5500
anthropic-ratelimit-tokens-reset: 2026-11-24T00:00:00Z
anthropic-ratelimit-input-tokens-limit: 8000
anthropic-ratelimit-input-tokens-remaining: 4000
anthropic-ratelimit-input-tokens-reset: 2026-11-23T13:00:01Z
anthropic-ratelimit-output-tokens-limit: 9000
anthropic-ratelimit-output-tokens-remaining: 8500
anthropic-ratelimit-output-tokens-reset: 2026-11-23T14:00:00Z`)
}

// A refused call tells in RateLimit only of the limits that refuse, and how long to wait.
func TestThrottled(t *testing.T) {
	b := newBench(t)
	for range 3 {
		reserve(t, b.Engine, "user", "", price.Usage{})
	}
	expect(t, "throttled", reserve(t, b.Engine, "user", "", price.Usage{}), `
ratelimit-policy: "llm.user.requests";q=3;w=60, "llm.user.at-once";q=5;qu="concurrent-requests", "llm.user.bucket";q=90;w=90, "llm.user.tokens";q=10000;qu="tokens";w=86400, "llm.user.input";q=8000;qu="input-tokens";w=3600, "llm.user.output";q=9000;qu="output-tokens";w=3600
ratelimit: "llm.user.requests";r=0;t=60
x-ratelimit-limit: 3
x-ratelimit-remaining: 0
x-ratelimit-reset: 1795435260
x-ratelimit-limit-requests: 3
x-ratelimit-remaining-requests: 0
x-ratelimit-reset-requests: 59.75s
anthropic-ratelimit-requests-limit: 3
anthropic-ratelimit-requests-remaining: 0
anthropic-ratelimit-requests-reset: 2026-11-23T12:01:00Z
x-ratelimit-limit-tokens: 10000
x-ratelimit-remaining-tokens: 10000
x-ratelimit-reset-tokens: 0s
anthropic-ratelimit-tokens-limit: 10000
anthropic-ratelimit-tokens-remaining: 10000
anthropic-ratelimit-tokens-reset: 2026-11-23T12:00:01Z
anthropic-ratelimit-input-tokens-limit: 8000
anthropic-ratelimit-input-tokens-remaining: 8000
anthropic-ratelimit-input-tokens-reset: 2026-11-23T12:00:01Z
anthropic-ratelimit-output-tokens-limit: 9000
anthropic-ratelimit-output-tokens-remaining: 9000
anthropic-ratelimit-output-tokens-reset: 2026-11-23T12:00:01Z
content-type: application/problem+json
retry-after: 60
retry-after-ms: 59750
x-should-retry: true`)
}

func TestExhausted(t *testing.T) {
	b := newBench(t)
	record(t, b.Engine, "user", "m", price.Usage{Output: 8_000})
	expect(t, "exhausted", reserve(t, b.Engine, "user", "m", price.Usage{Output: 4_000}), `
ratelimit-policy: "llm.user.tokens";q=10000;qu="tokens";w=86400, "llm.user.output";q=9000;qu="output-tokens";w=3600, "llm.user.requests";q=3;w=60, "llm.user.bucket";q=90;w=90, "llm.user.at-once";q=5;qu="concurrent-requests", "llm.user.input";q=8000;qu="input-tokens";w=3600
ratelimit: "llm.user.tokens";r=2000;t=43200, "llm.user.output";r=1000;t=4950
x-ratelimit-limit: 10000
x-ratelimit-remaining: 2000
x-ratelimit-reset: 1795478400
x-ratelimit-limit-requests: 3
x-ratelimit-remaining-requests: 2
x-ratelimit-reset-requests: 59.75s
anthropic-ratelimit-requests-limit: 3
anthropic-ratelimit-requests-remaining: 2
anthropic-ratelimit-requests-reset: 2026-11-23T12:01:00Z
x-ratelimit-limit-tokens: 10000
x-ratelimit-remaining-tokens: 2000
x-ratelimit-reset-tokens: 11h59m59.75s
anthropic-ratelimit-tokens-limit: 10000
anthropic-ratelimit-tokens-remaining: 2000
anthropic-ratelimit-tokens-reset: 2026-11-24T00:00:00Z
anthropic-ratelimit-input-tokens-limit: 8000
anthropic-ratelimit-input-tokens-remaining: 8000
anthropic-ratelimit-input-tokens-reset: 2026-11-23T12:00:01Z
anthropic-ratelimit-output-tokens-limit: 9000
anthropic-ratelimit-output-tokens-remaining: 1000
anthropic-ratelimit-output-tokens-reset: 2026-11-23T13:22:30Z
content-type: application/problem+json
retry-after: 43200
retry-after-ms: 43199750
x-should-retry: false`)
}

// Waiting never helps: nothing says for how long to.
func TestImpossible(t *testing.T) {
	expect(t, "impossible", reserve(t, newBench(t).Engine, "user", "m", price.Usage{Input: 6_000}), `
ratelimit-policy: "llm.user.tokens";q=10000;qu="tokens";w=86400, "llm.user.requests";q=3;w=60, "llm.user.bucket";q=90;w=90, "llm.user.input";q=8000;qu="input-tokens";w=3600, "llm.user.at-once";q=5;qu="concurrent-requests", "llm.user.output";q=9000;qu="output-tokens";w=3600
ratelimit: "llm.user.tokens";r=10000
x-ratelimit-limit: 10000
x-ratelimit-remaining: 10000
x-ratelimit-limit-requests: 3
x-ratelimit-remaining-requests: 3
x-ratelimit-reset-requests: 0s
anthropic-ratelimit-requests-limit: 3
anthropic-ratelimit-requests-remaining: 3
anthropic-ratelimit-requests-reset: 2026-11-23T12:00:01Z
x-ratelimit-limit-tokens: 10000
x-ratelimit-remaining-tokens: 10000
anthropic-ratelimit-tokens-limit: 10000
anthropic-ratelimit-tokens-remaining: 10000
anthropic-ratelimit-input-tokens-limit: 8000
anthropic-ratelimit-input-tokens-remaining: 8000
anthropic-ratelimit-input-tokens-reset: 2026-11-23T12:00:01Z
anthropic-ratelimit-output-tokens-limit: 9000
anthropic-ratelimit-output-tokens-remaining: 9000
anthropic-ratelimit-output-tokens-reset: 2026-11-23T12:00:01Z
content-type: application/problem+json
x-should-retry: false`)
}

func TestBlocked(t *testing.T) {
	expect(t, "a limit of zero, and its name as a String", reserve(t, newBench(t).Engine, `quo"té`, "", price.Usage{}), `
ratelimit-policy: "llm.quo\"t%c3%a9";q=0;w=3600
ratelimit: "llm.quo\"t%c3%a9";r=0
x-ratelimit-limit: 0
x-ratelimit-remaining: 0
x-ratelimit-limit-requests: 0
x-ratelimit-remaining-requests: 0
anthropic-ratelimit-requests-limit: 0
anthropic-ratelimit-requests-remaining: 0
content-type: application/problem+json
x-should-retry: false`)
}

// What money there is left is nobody's business but the application's.
func TestMoneyIsNotTold(t *testing.T) {
	b := newBench(t)
	record(t, b.Engine, "plain", "m", price.Usage{Input: 900_000})
	expect(t, "no money left", reserve(t, b.Engine, "other", "m", price.Usage{Input: 200_000}), `
content-type: application/problem+json
retry-after: 648000
retry-after-ms: 647999750
x-should-retry: false`)
}

func TestPlainRule(t *testing.T) {
	b := newBench(t)
	expect(t, "a plain rule", reserve(t, b.Engine, "plain", "", price.Usage{}), `
ratelimit-policy: "llm.plain";q=2;w=3600
ratelimit: "llm.plain";r=1;t=3600
x-ratelimit-limit: 2
x-ratelimit-remaining: 1
x-ratelimit-reset: 1795438800
x-ratelimit-limit-requests: 2
x-ratelimit-remaining-requests: 1
x-ratelimit-reset-requests: 59m59.75s
anthropic-ratelimit-requests-limit: 2
anthropic-ratelimit-requests-remaining: 1
anthropic-ratelimit-requests-reset: 2026-11-23T13:00:00Z`)
	reserve(t, b.Engine, "plain", "", price.Usage{})
	expect(t, "is over", reserve(t, b.Engine, "plain", "", price.Usage{}), `
ratelimit-policy: "llm.plain";q=2;w=3600
ratelimit: "llm.plain";r=0;t=3600
x-ratelimit-limit: 2
x-ratelimit-remaining: 0
x-ratelimit-reset: 1795438800
x-ratelimit-limit-requests: 2
x-ratelimit-remaining-requests: 0
x-ratelimit-reset-requests: 59m59.75s
anthropic-ratelimit-requests-limit: 2
anthropic-ratelimit-requests-remaining: 0
anthropic-ratelimit-requests-reset: 2026-11-23T13:00:00Z
content-type: application/problem+json
retry-after: 3600
retry-after-ms: 3599750
x-should-retry: false`)
}

func TestShadowRule(t *testing.T) {
	expect(t, "a rule in shadow", reserve(t, newBench(t).Engine, "seen", "", price.Usage{}), "")
}

func TestConcurrency(t *testing.T) {
	b := newBench(t)
	expect(t, "a place is taken: no time gives it back", reserve(t, b.Engine, "one", "", price.Usage{}), `
ratelimit-policy: "llm.one.at-once";q=1;qu="concurrent-requests"
ratelimit: "llm.one.at-once";r=0
x-ratelimit-limit: 1
x-ratelimit-remaining: 0`)
	*b.now += 10 * limit.Second
	expect(t, "until the lease ends", reserve(t, b.Engine, "one", "", price.Usage{}), `
ratelimit-policy: "llm.one.at-once";q=1;qu="concurrent-requests"
ratelimit: "llm.one.at-once";r=0;t=290
x-ratelimit-limit: 1
x-ratelimit-remaining: 0
x-ratelimit-reset: 1795435501
content-type: application/problem+json
retry-after: 60
retry-after-ms: 60000
x-should-retry: true`)
}

// gone is a store that is not there.
type gone struct{}

func (gone) Apply(context.Context, *store.Step, *store.Outcome) error { return store.ErrUnavailable }
func (gone) Ready(context.Context) error                              { return store.ErrUnavailable }
func (gone) Close() error                                             { return nil }

func TestWithoutTheStore(t *testing.T) {
	e := engineOver(t, gone{})
	var a engine.Admission
	if err := e.Reserve(context.Background(), &engine.Call{Caller: engine.Caller{Domain: "lax"}}, &a); err != nil {
		t.Fatal(err)
	}
	expect(t, "admitted, as on_store_error says: of the limit nothing is known", &a.Decision, `
ration-degraded: allow`)
	for _, f := range headers.Append(nil, reserve(t, e, "user", "", price.Usage{})) {
		switch f.Name {
		case headers.Degraded, "content-type", "retry-after", "retry-after-ms", "x-should-retry":
		default:
			t.Errorf("refused by limits of which nothing is known: %s: %s", f.Name, f.Value)
		}
	}
}

// A policy may have more limits than a field has room for: those are told of that bind first.
func TestManyLimits(t *testing.T) {
	text := "domain: many\nlimits:\n"
	for i := range 40 {
		text += fmt.Sprintf("  - { name: limit-%d, meter: requests, algorithm: fixed_window, limit: %d/hour }\n", i, 1000-i)
	}
	e := engineOver(t, memory.New(memory.Options{}), policy.Source{Name: "many", Data: []byte(text)})
	var a engine.Admission
	if err := e.Reserve(context.Background(), &engine.Call{Caller: engine.Caller{Domain: "many"}}, &a); err != nil {
		t.Fatal(err)
	}
	for _, f := range headers.Append(nil, &a.Decision)[:2] {
		items := strings.Split(f.Value, ", ")
		if len(items) != 16 || !strings.HasPrefix(items[0], `"many.limit-39"`) {
			t.Errorf("%s has %d items, the first %s; want 16 from the scarcest", f.Name, len(items), items[0])
		}
	}
}

// Of debt there is nothing left, and of a bucket that never fills there is no window.
func TestDebtAndEndlessBucket(t *testing.T) {
	e := engineOver(t, memory.New(memory.Options{}), policy.Source{Name: "slow", Data: []byte(
		"domain: slow\nlimits: [ { name: all, meter: tokens, algorithm: token_bucket, rate: 1/day, burst: 9_007_199_254_740_991 } ]\n")})
	var a engine.Admission
	if err := e.Reserve(context.Background(), &engine.Call{Caller: engine.Caller{Domain: "slow"}}, &a); err != nil {
		t.Fatal(err)
	}
	if got, want := headers.Append(nil, &a.Decision)[0].Value, `"slow.all";q=999999999999999;qu="tokens"`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	b := newBench(t)
	record(t, b.Engine, "user", "", price.Usage{Output: 20_000})
	for _, f := range headers.Append(nil, reserve(t, b.Engine, "user", "", price.Usage{Output: 1})) {
		if strings.Contains(f.Name, "remaining-tokens") && f.Value != "0" {
			t.Errorf("%s: %s", f.Name, f.Value)
		}
		if f.Name == "ratelimit" && strings.Contains(f.Value, "r=-") {
			t.Errorf("%s: %s", f.Name, f.Value)
		}
	}
}

// Numbers stay within what a structured field can hold.
func TestLargestNumber(t *testing.T) {
	e := engineOver(t, memory.New(memory.Options{}), policy.Source{Name: "vast", Data: []byte(
		"domain: vast\nlimits: [ { name: all, meter: tokens, algorithm: token_bucket, rate: 9_007_199_254_740_991/day } ]\n")})
	var a engine.Admission
	if err := e.Reserve(context.Background(), &engine.Call{Caller: engine.Caller{Domain: "vast"}}, &a); err != nil {
		t.Fatal(err)
	}
	got := headers.Append(nil, &a.Decision)
	if want := `"vast.all";q=999999999999999;qu="tokens";w=86400`; got[0].Value != want {
		t.Errorf("%s, want %s", got[0].Value, want)
	}
	if want := `"vast.all";r=999999999999999`; got[1].Value != want {
		t.Errorf("%s, want %s", got[1].Value, want)
	}
}
