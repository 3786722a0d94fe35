package engine_test

import (
	"strings"
	"testing"
	"time"

	"github.com/rationhq/ration/engine"
	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/store"
)

// metered has a limit for each verdict that is found in a store.
const metered = `
domain: shop
tiers: [ { name: free }, { name: pro } ]
descriptors:
- key: user
  subject: true
  limits:
  - { name: pace, meter: requests, algorithm: fixed_window, limit: 2/minute }
  - { name: tokens, meter: tokens, algorithm: fixed_window, per_request: 500, upgrade_url: "https://x.test/plans", tiers: { free: { limit: 1_000/day }, pro: unlimited } }
- { key: closed, limits: [ { name: none, meter: requests, algorithm: fixed_window, limit: 0/day } ] }
`

// A refusal in the form of the API whose client asked. What RFC 9457's form says to programs is in its details.
func TestBodiesOfAPIs(t *testing.T) {
	b := newPolicyBench(t, metered, engine.Options{})
	b.clock.Set(limit.At(time.Date(2026, time.November, 22, 12, 0, 48, 0, time.UTC)))
	b.ask(t, hits(2, "user=throttled"))
	b.ask(t, hits(900, "user=exhausted", "ration.phase=record", "ration.meter=tokens"))
	tokens := func(n uint64, user string) engine.Descriptor {
		return hits(n, user, "ration.meter=tokens", "ration.phase=hold", "ration.request=r-1")
	}
	const (
		pace      = `"Rate limit reached: 2 requests per minute. Try again in 12 s."`
		used      = `"Daily quota used up: 900 of 1,000 tokens; 100 left. Resets at 00:00 (UTC)."`
		large     = `"Request too large: 501 tokens, 500 per request on the free plan."`
		zero      = `"This request is not allowed: its limit is zero."`
		throttled = `"details":{"error_code":"rate_limited","retry_after":12,"reset_at":"2026-11-22T12:01:00Z","limit":2,"remaining":0,"name":"pace","meter":"requests"}`
		exhausted = `"details":{"error_code":"quota_exhausted","retry_after":43152,"reset_at":"2026-11-23T00:00:00Z","limit":1000,"remaining":100,"name":"tokens","meter":"tokens","tier":"free","upgrade_url":"https://x.test/plans"}`
		toolarge  = `"details":{"error_code":"request_too_large","limit":1000,"remaining":1000,"name":"tokens","meter":"tokens","tier":"free","upgrade_url":"https://x.test/plans"}`
		blocked   = `"details":{"error_code":"blocked","limit":0,"remaining":0,"name":"none","meter":"requests"}`
	)
	for _, c := range []struct {
		verdict           engine.Verdict
		ask               engine.Descriptor
		anthropic, openAI string
	}{
		{
			engine.Throttled, entries("user=throttled", "ration.request=r-1"),
			`{"type":"error","error":{"type":"rate_limit_error","message":` + pace + `,` + throttled + `},"request_id":"r-1"}`,
			`{"error":{"message":` + pace + `,"type":"requests","param":null,"code":"rate_limit_exceeded",` + throttled + `}}`,
		},
		{
			engine.Exhausted, tokens(200, "user=exhausted"),
			`{"type":"error","error":{"type":"rate_limit_error","message":` + used + `,` + exhausted + `},"request_id":"r-1"}`,
			`{"error":{"message":` + used + `,"type":"insufficient_quota","param":null,"code":"insufficient_quota",` + exhausted + `}}`,
		},
		{
			engine.Impossible, tokens(501, "user=large"),
			`{"type":"error","error":{"type":"invalid_request_error","message":` + large + `,` + toolarge + `},"request_id":"r-1"}`,
			`{"error":{"message":` + large + `,"type":"invalid_request_error","param":null,"code":"request_too_large",` + toolarge + `}}`,
		},
		{
			engine.Blocked, entries("closed=x"),
			`{"type":"error","error":{"type":"permission_error","message":` + zero + `,` + blocked + `}}`,
			`{"error":{"message":` + zero + `,"type":"invalid_request_error","param":null,"code":"blocked",` + blocked + `}}`,
		},
	} {
		for api, want := range map[string]string{"anthropic": c.anthropic, "openai": c.openAI} {
			ask := c.ask
			ask.Entries = append([]policy.Entry{{Key: "ration.api", Value: api}}, ask.Entries...)
			d := b.ask(t, ask)
			if got := string(d.Body()); got != want || d.Verdict() != c.verdict || d.ContentType() != "application/json" {
				t.Errorf("%s, %v, %s:\ngot  %s\nwant %s", api, d.Verdict(), d.ContentType(), got, want)
			}
		}
	}
	if d := b.ask(t, entries("user=ann", "ration.api=openai")); d.Over || d.Body() != nil {
		t.Errorf("admitted, with the body %s", d.Body())
	}
}

// What counts tokens is told of as OpenAI's API does, and that the store is gone as an error of the server.
func TestTypesOfOpenAI(t *testing.T) {
	b := newPolicyBench(t, `
domain: shop
descriptors:
- { key: user, limits: [ { name: tpm, meter: input_tokens, algorithm: fixed_window, limit: 10/minute } ] }
`, engine.Options{})
	b.clock.Set(30 * limit.Second)
	ask := hits(6, "user=ann", "ration.meter=input_tokens", "ration.api=openai")
	b.ask(t, ask)
	if body := string(b.ask(t, ask).Body()); !strings.Contains(body, `"type":"tokens","param":null,"code":"rate_limit_exceeded"`) {
		t.Errorf("of tokens: %s", body)
	}
	gone := newOutageBench(t, engine.Options{})
	gone.store.set(store.ErrUnavailable, false)
	for api, want := range map[string]string{
		"openai":    `"type":"server_error","param":null,"code":"store_unavailable","details":{"error_code":"store_unavailable",`,
		"anthropic": `"error":{"type":"api_error",`,
	} {
		var d engine.Decision
		request := &engine.Request{Domain: "shop", Descriptors: []engine.Descriptor{entries("deny=x", "ration.api="+api)}}
		if err := gone.Decide(t.Context(), request, &d); err != nil {
			t.Fatal(err)
		}
		body := string(d.Body())
		if !strings.Contains(body, want) || !strings.Contains(body, `"degraded":"deny"`) {
			t.Errorf("without the store: %s, want %s", body, want)
		}
	}
}

// Who is answered makes no other request, no other counter, and no other rule.
func TestAPIIsNoPartOfTheRequest(t *testing.T) {
	b := newPolicyBench(t, metered, engine.Options{})
	for _, more := range [][]string{nil, {"ration.api=openai"}, {"ration.api=anthropic"}} {
		d := b.ask(t, entries(append(more, "user=ann", "ration.request=r")...))
		if got := sayLimits(d); d.Reused || !strings.HasPrefix(got, "OK pace:1 ") {
			t.Errorf("with %v: %s, reused %v; want the same request", more, got, d.Reused)
		}
	}
	// One descriptor may say it for all of a call.
	d := b.ask(t, entries("user=ann", "ration.api=openai"), entries("closed=x"))
	if d.API != engine.APIOpenAI || !d.Over {
		t.Errorf("API %v, over %v", d.API, d.Over)
	}
}
