package engine_test

import (
	"testing"
	"time"

	"github.com/rationhq/ration/engine"
	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/policy"
)

// What people are told when a limit of cost refuses, in dollars.
func TestMoneyInWords(t *testing.T) {
	p, _, err := policy.Parse([]policy.Source{{Name: "p", Data: []byte(`
domain: d
tiers: [{name: free}, {name: pro}]
descriptors:
- key: user
  subject: true
  limits:
  - {name: month, meter: cost, per_request: $0.25, tiers: {free: {limit: $1/month}, pro: {limit: $5000/month}}}
  - {name: pace, meter: cost, rate: $1/minute, burst: $2}
`)}}, policy.Options{})
	if err != nil {
		t.Fatal(err)
	}
	month, pace := p.Limits()[0], p.Limits()[1]
	const cent = 10_000_000 // in nano-dollars
	now := time.Date(2026, time.November, 22, 12, 0, 0, 0, time.UTC)
	nextMonth := limit.Micros(time.Date(2026, time.December, 1, 0, 0, 0, 0, time.UTC).Sub(now).Microseconds())
	for _, c := range []struct {
		want    string
		applied engine.Applied
	}{
		{"Monthly budget used up: $1.0012 of $1.00. Resets on 1 December.", engine.Applied{
			Limit: month, Status: limit.Status{Used: 1_001_200_000, Remaining: -1_200_000, RetryAfter: nextMonth},
		}},
		{"Monthly budget used up: $1.00 of $1.00. Resets on 1 December.", engine.Applied{
			Limit: month, Status: limit.Status{Used: 60 * cent, Held: 40 * cent, RetryAfter: nextMonth},
		}},
		{"Monthly budget used up: $4,999.99 of $5,000.00; $0.01 left. Resets on 1 December.", engine.Applied{
			Limit: month, Tier: 1, Status: limit.Status{Used: 499_999 * cent, Remaining: cent, RetryAfter: nextMonth},
		}},
		{"Request too large: $0.2500001, $0.25 per request on the pro plan.", engine.Applied{
			Limit: month, Tier: 1, Amount: 250_000_100, TooLarge: true,
		}},
		{"Request too large: $2.50 at once, of at most $2.00.", engine.Applied{
			Limit: pace, Amount: 250 * cent, Status: limit.Status{Never: true},
		}},
		{"Rate limit reached: $1.00 per minute. Try again in 12 s.", engine.Applied{
			Limit: pace, Status: limit.Status{RetryAfter: 12 * limit.Second},
		}},
	} {
		c.applied.Over, c.applied.Quantity = true, c.applied.Limit.For(c.applied.Tier)
		d := engine.Decision{
			Over: true, Now: limit.At(now), Statuses: []engine.Status{{Limited: true, Over: true, Applied: &c.applied}},
		}
		if got := d.Message(); got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
}
