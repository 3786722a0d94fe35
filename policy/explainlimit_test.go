package policy

import (
	"strings"
	"testing"
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
