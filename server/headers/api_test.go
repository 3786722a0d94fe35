package headers_test

import (
	"context"
	"testing"

	"github.com/rationhq/ration/engine"
	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/price"
	"github.com/rationhq/ration/server/headers"
	"github.com/rationhq/ration/store/memory"
)

// askAs makes one request over Envoy's protocol, by a client of the named API.
func askAs(t *testing.T, e *engine.Engine, api string, more ...policy.Entry) *engine.Decision {
	t.Helper()
	var d engine.Decision
	entries := append([]policy.Entry{{Key: "user", Value: "alice"}, {Key: "ration.api", Value: api}}, more...)
	if err := e.Decide(context.Background(), &engine.Request{Domain: "llm", Descriptors: []engine.Descriptor{{Entries: entries}}}, &d); err != nil {
		t.Fatal(err)
	}
	return &d
}

// A client of Anthropic's API is told in that dialect and the standard's, and in no other.
func TestAnthropic(t *testing.T) {
	b := newBench(t)
	expect(t, "admitted", askAs(t, b.Engine, "anthropic", policy.Entry{Key: "ration.request", Value: "id-1"}), `
ratelimit-policy: "llm.user.requests";q=3;w=60, "llm.user.at-once";q=5;qu="concurrent-requests", "llm.user.bucket";q=90;w=90, "llm.user.tokens";q=10000;qu="tokens";w=86400, "llm.user.input";q=8000;qu="input-tokens";w=3600, "llm.user.output";q=9000;qu="output-tokens";w=3600
ratelimit: "llm.user.requests";r=2;t=60, "llm.user.at-once";r=4, "llm.user.bucket";r=89;t=1, "llm.user.tokens";r=10000, "llm.user.input";r=8000, "llm.user.output";r=9000
anthropic-ratelimit-requests-limit: 3
anthropic-ratelimit-requests-remaining: 2
anthropic-ratelimit-requests-reset: 2026-11-23T12:01:00Z
anthropic-ratelimit-tokens-limit: 10000
anthropic-ratelimit-tokens-remaining: 10000
anthropic-ratelimit-tokens-reset: 2026-11-23T12:00:01Z
anthropic-ratelimit-input-tokens-limit: 8000
anthropic-ratelimit-input-tokens-remaining: 8000
anthropic-ratelimit-input-tokens-reset: 2026-11-23T12:00:01Z
anthropic-ratelimit-output-tokens-limit: 9000
anthropic-ratelimit-output-tokens-remaining: 9000
anthropic-ratelimit-output-tokens-reset: 2026-11-23T12:00:01Z`)
	for range 2 {
		askAs(t, b.Engine, "anthropic")
	}
	expect(t, "throttled", askAs(t, b.Engine, "anthropic", policy.Entry{Key: "ration.request", Value: "id-4"}), `
ratelimit-policy: "llm.user.requests";q=3;w=60, "llm.user.at-once";q=5;qu="concurrent-requests", "llm.user.bucket";q=90;w=90, "llm.user.tokens";q=10000;qu="tokens";w=86400, "llm.user.input";q=8000;qu="input-tokens";w=3600, "llm.user.output";q=9000;qu="output-tokens";w=3600
ratelimit: "llm.user.requests";r=0;t=60
anthropic-ratelimit-requests-limit: 3
anthropic-ratelimit-requests-remaining: 0
anthropic-ratelimit-requests-reset: 2026-11-23T12:01:00Z
anthropic-ratelimit-tokens-limit: 10000
anthropic-ratelimit-tokens-remaining: 10000
anthropic-ratelimit-tokens-reset: 2026-11-23T12:00:01Z
anthropic-ratelimit-input-tokens-limit: 8000
anthropic-ratelimit-input-tokens-remaining: 8000
anthropic-ratelimit-input-tokens-reset: 2026-11-23T12:00:01Z
anthropic-ratelimit-output-tokens-limit: 9000
anthropic-ratelimit-output-tokens-remaining: 9000
anthropic-ratelimit-output-tokens-reset: 2026-11-23T12:00:01Z
content-type: application/json
request-id: id-4
retry-after: 60
retry-after-ms: 59750
x-should-retry: true`)
}

func TestOpenAI(t *testing.T) {
	b := newBench(t)
	for range 3 {
		askAs(t, b.Engine, "openai")
	}
	expect(t, "throttled", askAs(t, b.Engine, "openai", policy.Entry{Key: "ration.request", Value: "id-4"}), `
ratelimit-policy: "llm.user.requests";q=3;w=60, "llm.user.bucket";q=90;w=90, "llm.user.at-once";q=5;qu="concurrent-requests", "llm.user.tokens";q=10000;qu="tokens";w=86400, "llm.user.input";q=8000;qu="input-tokens";w=3600, "llm.user.output";q=9000;qu="output-tokens";w=3600
ratelimit: "llm.user.requests";r=0;t=60
x-ratelimit-limit-requests: 3
x-ratelimit-remaining-requests: 0
x-ratelimit-reset-requests: 59.75s
x-ratelimit-limit-tokens: 10000
x-ratelimit-remaining-tokens: 10000
x-ratelimit-reset-tokens: 0s
content-type: application/json
retry-after: 60
retry-after-ms: 59750
x-should-retry: true`)
}

// What could end a field, or begin another, is left out.
func TestRequestIDThatIsNoField(t *testing.T) {
	b := newBench(t)
	for range 3 {
		askAs(t, b.Engine, "anthropic")
	}
	for _, f := range headers.Append(nil, askAs(t, b.Engine, "anthropic", policy.Entry{Key: "ration.request", Value: "a\r\nset-cookie: b"})) {
		if f.Name == "request-id" {
			t.Errorf("request-id: %q", f.Value)
		}
	}
}

// Warnings are a list of Strings in ASCII.
func TestWarnings(t *testing.T) {
	e := engineOver(t, memory.New(memory.Options{}), policy.Source{Name: "warned", Data: []byte(`
domain: warned
prices: { book: none, models: { m: { input: "1.00", output: "1.00" } } }
limits:
  - { name: tokens, meter: tokens, algorithm: calendar, limit: 100/month, warn_at: [50%] }
  - { name: spend, meter: cost, algorithm: calendar, limit: $0.0001/month, warn_at: [50%] }
`)})
	var a engine.Admission
	call := engine.Call{Caller: engine.Caller{Domain: "warned", Model: "m"}, Usage: price.Usage{Input: 1}}
	tell := func() string {
		t.Helper()
		if err := e.Check(context.Background(), &call, &a); err != nil {
			t.Fatal(err)
		}
		told := ""
		for _, f := range headers.Append(nil, &a.Decision) {
			if f.Name == headers.Warning {
				told += f.Value
			}
		}
		return told
	}
	if got := tell(); got != "" {
		t.Errorf("nothing is used: %s", got)
	}
	used := engine.Record{Caller: call.Caller, Usage: price.Usage{Input: 83}, Requests: 1}
	if err := e.Record(context.Background(), &used, new(engine.Settlement)); err != nil {
		t.Fatal(err)
	}
	want := `"You have used 83 % of your monthly quota.", "You have used 83 % of your monthly budget."`
	if got := tell(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// What is left of what all share at an upstream is told of to nobody, until it refuses.
func TestUpstreamsAreNotTold(t *testing.T) {
	e := engineOver(t, memory.New(memory.Options{}), policy.Source{Name: "shared", Data: []byte(`
domain: shared
prices: { book: none, models: { m: { input: "1.00", output: "1.00" } } }
limits: [ { name: all, meter: requests, algorithm: fixed_window, limit: 100/hour } ]
upstreams: [ { name: provider, models: [ m ], limits: [ { name: rpm, meter: requests, algorithm: fixed_window, limit: 1/hour } ] } ]
`)})
	remaining := func() (told string) {
		t.Helper()
		var a engine.Admission
		call := engine.Call{Caller: engine.Caller{Domain: "shared", Model: "m"}}
		if err := e.Reserve(context.Background(), &call, &a); err != nil {
			t.Fatal(err)
		}
		for _, f := range headers.Append(nil, &a.Decision) {
			if f.Name == "x-ratelimit-limit-requests" || f.Name == "x-ratelimit-remaining-requests" {
				told += f.Value + " "
			}
		}
		return told
	}
	if got := remaining(); got != "100 99 " {
		t.Errorf("admitted: %s", got)
	}
	if got := remaining(); got != "1 0 " {
		t.Errorf("refused by the upstream's limit: %s", got)
	}
}

// Nor is that of a lane: its drain has room for one call at a time, so that nothing is left whenever one was admitted.
func TestLanesAreNotTold(t *testing.T) {
	p, _, err := policy.Parse([]policy.Source{{Name: "shared", Data: []byte(`
domain: shared
limits: [ { name: all, meter: requests, algorithm: fixed_window, limit: 100/hour } ]
lanes: [ { name: provider, drain: 5/second } ]
`)}}, policy.Options{})
	if err != nil {
		t.Fatal(err)
	}
	d := engine.Decision{Now: noon}
	for i, remaining := range []int64{99, 0} {
		l := p.Limits()[i]
		d.Limits = append(d.Limits, engine.Applied{
			Limit: l, Quantity: l.For(0), Asks: true, Amount: 1, Status: limit.Status{Remaining: remaining, RetryAfter: limit.Second / 5},
		})
	}
	remaining := func() (told string) {
		for _, f := range headers.Append(nil, &d) {
			if f.Name == "x-ratelimit-limit-requests" || f.Name == "x-ratelimit-remaining-requests" {
				told += f.Value + " "
			}
		}
		return told
	}
	if got := remaining(); got != "100 99 " {
		t.Errorf("admitted: %s", got)
	}
	d.Over, d.Limits[1].Over = true, true
	if got := remaining(); got != "1 0 " {
		t.Errorf("refused by the lane's drain: %s", got)
	}
}
