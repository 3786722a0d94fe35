package headers_test

import (
	"context"
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

const limits = `
domain: llm
prices: { book: none, models: { m: { input: "1.00", output: "1.00", cache_read: "1.00", cache_write: "1.00" } } }
limits:
  - { name: company, meter: cost, algorithm: calendar, limit: $1/month }
descriptors:
  - key: user
    limits:
      - { name: requests, meter: requests, algorithm: fixed_window, limit: 3/minute }
      - { name: bucket, meter: requests, algorithm: token_bucket, rate: 60/minute, burst: 90 }
      - { name: tokens, meter: tokens, algorithm: calendar, limit: 10_000/day, per_request: 5_000 }
      - { name: input, meter: input_tokens, algorithm: sliding_log, limit: 8_000/hour }
      - { name: output, meter: output_tokens, algorithm: sliding_window, limit: 9_000/hour }
      - { name: at-once, meter: concurrency, limit: 5 }
      - { name: watched, meter: requests, algorithm: fixed_window, limit: 1/day, shadow: true }
  - key: plain
    rate_limit: { unit: hour, requests_per_unit: 2 }
  - { key: seen, shadow_mode: true, rate_limit: { unit: hour, requests_per_unit: 2 } }
  - key: 'quo"té'
    rate_limit: { unit: hour, requests_per_unit: 0 }
  - key: warned
    limits: [ { name: requests, meter: requests, algorithm: fixed_window, limit: 2/day, warn_at: 50% } ]
  - key: one
    limits: [ { name: at-once, meter: concurrency, limit: 1 } ]
  - key: two
    limits:
      - { name: at-once, meter: concurrency, limit: 2 }
      - { name: spend, meter: cost, algorithm: fixed_window, limit: $0.000001/hour }
      - { name: requests, meter: requests, algorithm: fixed_window, limit: 60/hour }
`

const lax = `
domain: lax
limits: [ { name: requests, meter: requests, algorithm: fixed_window, limit: 5/minute, on_store_error: allow } ]
`

// noon is 2026-11-23 12:00:00.25 UTC: what is rounded is seen.
const noon = limit.Micros(1_795_435_200_250_000)

type bench struct {
	*engine.Engine
	now *limit.Micros
}

func newBench(t *testing.T) bench {
	t.Helper()
	now := noon
	s := memory.New(memory.Options{Clock: func() limit.Micros { return now }})
	return bench{engineOver(t, s), &now}
}

func engineOver(t *testing.T, s store.Store, more ...policy.Source) *engine.Engine {
	t.Helper()
	t.Cleanup(func() { _ = s.Close() })
	p, _, err := policy.Parse(append(more, policy.Source{Name: "llm", Data: []byte(limits)}, policy.Source{Name: "lax", Data: []byte(lax)}), policy.Options{})
	if err != nil {
		t.Fatal(err)
	}
	e := engine.New(s, engine.Options{})
	t.Cleanup(e.Close)
	e.SetPolicy(p)
	return e
}

func reserve(t *testing.T, e *engine.Engine, key, model string, used price.Usage) *engine.Decision {
	t.Helper()
	var a engine.Admission
	c := &engine.Call{
		Caller: engine.Caller{Domain: "llm", Attributes: []policy.Entry{{Key: key, Value: "alice"}}, Model: model}, Usage: used,
	}
	if err := e.Reserve(context.Background(), c, &a); err != nil {
		t.Fatal(err)
	}
	return &a.Decision
}

func expect(t *testing.T, what string, d *engine.Decision, want string) {
	t.Helper()
	var lines []string
	for _, f := range headers.Append(nil, d) {
		lines = append(lines, f.Name+": "+f.Value)
	}
	if got := strings.Join(lines, "\n"); got != strings.TrimSpace(want) {
		t.Errorf("%s:\n%s\n\nwant\n%s", what, got, strings.TrimSpace(want))
	}
}

// Fields without a unit tell of what callers can go by, however few places and however little money are left; but of what
// refuses.
func TestFieldsWithoutAUnit(t *testing.T) {
	b := newBench(t)
	plain := func(d *engine.Decision) (words string) {
		for _, f := range headers.Append(nil, d) {
			if strings.HasPrefix(f.Name, "x-ratelimit-") && strings.Count(f.Name, "-") == 2 {
				words += strings.TrimPrefix(f.Name, "x-ratelimit-") + " " + f.Value + " "
			}
		}
		return words
	}
	for _, c := range []struct{ what, key, want string }{
		{"requests", "two", "limit 60 remaining 59 reset 1795438800 "},
		{"requests, and no place is left", "two", "limit 60 remaining 58 reset 1795438800 "},
		{"places refuse", "two", "limit 2 remaining 0 reset 1795435501 "},
		{"there are only places", "one", "limit 1 remaining 0 "},
	} {
		if got := plain(reserve(t, b.Engine, c.key, "", price.Usage{})); got != c.want {
			t.Errorf("%s: %q, want %q", c.what, got, c.want)
		}
	}
	record(t, b.Engine, "two", "m", price.Usage{Input: 1})
	if got := plain(reserve(t, b.Engine, "two", "m", price.Usage{})); got != "" {
		t.Errorf("money refuses: %q, want nothing", got)
	}
}

func record(t *testing.T, e *engine.Engine, key, model string, used price.Usage) {
	t.Helper()
	caller := engine.Caller{Domain: "llm", Attributes: []policy.Entry{{Key: key, Value: "alice"}}, Model: model}
	if err := e.Record(context.Background(), &engine.Record{Caller: caller, Usage: used, Requests: 1}, new(engine.Settlement)); err != nil {
		t.Fatal(err)
	}
}
