package policy

import (
	"strings"
	"testing"
	"time"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/price"
)

func TestExplainLimits(t *testing.T) {
	p, failures, _ := parse(t, `
domain: llm
trust_tier: true
tiers: [{name: free}, {name: big spender}]
limits:
- {name: all, limit: 5M/month, anchor: 15, time_zone: Europe/Berlin, ceiling: {free: 60%, big spender: 100%}}
descriptors:
- key: user
  subject: true
  rate_limit: {unit: minute, requests_per_unit: 5}
  limits:
  - {name: requests, tiers: {free: {rate: 10/minute, burst: 5}, big spender: unlimited}}
  - {name: tokens, meter: tokens, algorithm: sliding_window, limit: 50_000/hour, per_request: 2_000, clamp: true, on_lapse: all}
  - {name: places, meter: concurrency, limit: 1}
  descriptors:
  - {key: model, value: opus-*, limits: [{name: opus, algorithm: sliding_log, limit: 20/1h30m}]}
- {key: user, value: internal}
- key: org
  subject: true
  limits:
  - {name: aligned, algorithm: fixed_window, limit: 1/week}
  - {name: odd, algorithm: fixed_window, limit: 2/10m, shadow: true, count_denied: true}
  - {name: first, algorithm: fixed_window, limit: 2/10m, starts: first_use}
  - {name: week, algorithm: calendar, limit: 2/week, week_start: sunday}
  - {name: year, meter: input_tokens, limit: 2/year, anchor: {month: 4}, count_cache_read: true, on_lapse: nothing}
  - {name: none, meter: output_tokens, algorithm: calendar, limit: 0/day}
- {key: dept, limits: [{name: any, rate: 1/day}]}
- {key: dept, value: x, descriptors: [{key: team}]}
- {key: dept, value: "y*", limits: [{name: y, rate: 1/day}]}
- {key: dept, value: yx, descriptors: [{key: team}]}
upstreams:
- {name: anthropic, models: [claude-*, opus], limits: [{name: rpm, rate: 1_000/minute, ceiling: 90%}]}
`, Options{})
	if failures != "" {
		t.Fatal(failures)
	}
	want := expected(`
domain llm: 1 rule, 14 limits
  tiers: free and "big spender"; the subject is each other value of user or each value of org; who is unknown is in free; a request may name its tier
  all requests of the domain together (limit llm.all), by tier
    free: 5,000,000 requests per calendar month (Europe/Berlin), from day 15 on, of which these callers may use 3,000,000
    "big spender": 5,000,000 requests per calendar month (Europe/Berlin), from day 15 on
  each other value of user (rule llm.user): 5 requests per minute, aligned to the clock's minutes (UTC)
  each other value of user (limit llm.user.requests), by tier
    free: 10 requests per minute, flowing steadily, up to 5 at once
    "big spender": unlimited and not counted
  each other value of user (limit llm.user.tokens): 50,000 tokens per sliding hour, estimated from two windows, at most 2,000 in one request; a request that is too large is admitted with less output; a hold that nobody settles stays charged
  each other value of user (limit llm.user.places): 1 request at the same time; over Envoy a place is taken only where ´ration.request´ names the request, else just looked for
  each value of model matching opus-* under each other value of user (limit llm.user.model_opus-*.opus): 20 requests in any 1 hour 30 minutes, exactly
  user=internal: no limit
  each value of org (limit llm.org.aligned): 1 request per week, in weeks that begin on Thursday at 00:00 UTC
  each value of org (limit llm.org.odd): 2 requests per 10 minutes, in windows counted from 1970-01-01 UTC on; in shadow, so counted and reported but never refused; refused requests count too
  each value of org (limit llm.org.first): 2 requests per 10 minutes, which begins with the first use
  each value of org (limit llm.org.week): 2 requests per calendar week (UTC), from Sunday on
  each value of org (limit llm.org.year): 2 input tokens per calendar year (UTC), from April 1 on; cache reads count as input; a hold that nobody settles is given back
  each value of org (limit llm.org.none): no output token at all
  each other value of dept (limit llm.dept.any): 1 request per day, flowing steadily, up to 1 at once
  dept=x, with no further entry: no limit
  each value of team under dept=x: no limit
  each value of dept matching y* (limit llm.dept_y*.y): 1 request per day, flowing steadily, up to 1 at once
  dept=yx, with no further entry: no limit
  each value of team under dept=yx: no limit
  all requests together to upstream anthropic, which serves claude-* and opus (limit llm.upstreams.anthropic.rpm): 1,000 requests per minute, flowing steadily, up to 1,000 at once, of which these callers may use 900
`)
	if got := strings.Join(p.Explain(), "\n") + "\n"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if l := p.Limits()[1]; l.Allows(0) != "10 requests per minute, flowing steadily, up to 5 at once" || l.Allows(1) != "unlimited and not counted" {
		t.Errorf("limit %s allows %q and %q", l.Path, l.Allows(0), l.Allows(1))
	}
}

// Money is said in dollars, and where its prices are from.
func TestExplainMoney(t *testing.T) {
	p, failures, _ := parse(t, `
=== a.yaml
domain: a
tiers: [{name: free}, {name: pro}]
prices: {unknown_model: assume_max, models: {x: {input: 1, output: 1}, "y*": {input: 1, output: 1}}}
limits:
- {name: company, meter: cost, limit: $5_000/month, time_zone: Europe/Berlin, ceiling: {free: 60%, pro: 100%}}
- {name: pace, meter: cost, rate: $1/minute, burst: $5, per_request: $0.25}
- {name: none, meter: cost, limit: $0/month}
descriptors:
- key: user
  subject: true
  limits:
  - {name: spend, meter: cost, tiers: {free: {limit: $1/month}, pro: {limit: $1234.5678/month}}, on_store_error: local}
- {key: org, limits: [{name: day, meter: cost, algorithm: sliding_window, limit: $20/day, on_lapse: all}]}
=== b.yaml
domain: b
prices: {book: none, unknown_model: allow, models: {x: {input: 1, output: 1}}}
=== c.yaml
domain: c
prices: {book: none}
=== d.yaml
domain: d
limits: [{name: spend, meter: cost, limit: $1/year}]
`, Options{})
	if failures != "" {
		t.Fatal(failures)
	}
	want := strings.ReplaceAll(expected(`
domain a: 5 limits
  tiers: free and pro; the subject is each value of user; who is unknown is in free
  prices: those of 2 models here, then the book of DATE; a model without one costs as much as the dearest
  all requests of the domain together (limit a.company), by tier; refused while the store cannot decide
    free: $5,000.00 per calendar month (Europe/Berlin), of which these callers may use $3,000.00
    pro: $5,000.00 per calendar month (Europe/Berlin)
  all requests of the domain together (limit a.pace): $1.00 per minute, flowing steadily, up to $5.00 at once, at most $0.25 in one request; refused while the store cannot decide
  all requests of the domain together (limit a.none): no money at all; refused while the store cannot decide
  each value of user (limit a.user.spend), by tier; while the store cannot decide, each replica admits 10% of it by itself
    free: $1.00 per calendar month (UTC)
    pro: $1,234.5678 per calendar month (UTC)
  each value of org (limit a.org.day): $20.00 per sliding day, estimated from two windows; a hold that nobody settles stays charged; refused while the store cannot decide
domain b: no rules
  prices: those of 1 model here; a model without one costs nothing
domain c: no rules
  prices: none; a model without one is refused where money is limited
domain d: 1 limit
  prices: the book of DATE; a model without one is refused where money is limited
  all requests of the domain together (limit d.spend): $1.00 per calendar year (UTC); refused while the store cannot decide
`), "DATE", price.Builtin().Date().Format(time.DateOnly))
	if got := strings.Join(p.Explain(), "\n") + "\n"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// What callers are told of a quantity.
func TestQuantitiesInWords(t *testing.T) {
	for entry, want := range map[string]string{
		"meter: cost, limit: $1/month":                            "Monthly budget, $1.00 per month, $1.00 per month",
		"meter: cost, algorithm: calendar, limit: $0.5/year":      "Yearly budget, $0.50 per year, $0.50 per year",
		"meter: cost, algorithm: calendar, limit: $1_000_000/w":   "Weekly budget, $1,000,000.00 per week, $1,000,000.00 per week",
		"meter: cost, algorithm: sliding_window, limit: $100/day": "Daily budget, $100.00 per day, $100.00 per day",
		"meter: cost, algorithm: fixed_window, limit: $1/h":       "Hourly budget, $1.00 per hour, $1.00 per hour",
		"meter: cost, rate: $1000/minute":                         "Budget, $1,000.00 per minute, $1,000.00 at once ($1,000.00 per minute)",
		"meter: tokens, limit: 1000/month":                        "Monthly quota, 1,000 tokens per month, 1,000 tokens per month",
		"rate: 1/5m":                                              "Quota, 1 request per 5 minutes, 1 request at once (1 request per 5 minutes)",
		"rate: 300/minute, burst: 100":                            "Quota, 300 requests per minute, 100 requests at once (300 requests per minute)",
	} {
		p, failures, _ := parse(t, "domain: d\nlimits: [{name: x, "+entry+"}]", Options{})
		if failures != "" {
			t.Errorf("%s: %s", entry, failures)
			continue
		}
		l := p.Limits()[0]
		if got := l.For(0).Quota(l.Meter) + ", " + l.For(0).Rate(l.Meter) + ", " + l.For(0).Room(l.Meter); got != want {
			t.Errorf("%s is %q, want %q", entry, got, want)
		}
	}
	for n, want := range map[int64]string{
		0: "$0.00", 1: "$0.000000001", 1_001_200_000: "$1.0012", 999_990_000_000: "$999.99", 1_000_000_000_000: "$1,000.00",
		-1_500_000_000: "-$1.50", -1_500_000_000_000: "-$1,500.00", limit.MaxAmount: "$9,007,199.254740991",
	} {
		if got := Cost.Amount(n); got != want || Cost.Number(n) != want {
			t.Errorf("%d is %q and %q, want %q", n, got, Cost.Number(n), want)
		}
	}
	for n, want := range map[int64]string{0: "0 tokens, 0", 1: "1 token, 1", 1000: "1,000 tokens, 1,000"} {
		if got := Tokens.Amount(n) + ", " + Tokens.Number(n); got != want {
			t.Errorf("%d is %q, want %q", n, got, want)
		}
	}
}
