package engine_test

import (
	"strings"
	"testing"
	"time"

	"github.com/rationhq/ration/engine"
	"github.com/rationhq/ration/limit"
)

// Money that is held, settled, lapsed and owed is exact to the nano-dollar. The walks are over the policy of
// [money]; what they want is written as nano-dollars, used+held. (examples/policies/spend.yaml is walked over Redis too.)
func TestSpending(t *testing.T) {
	// what says how many tokens a call is about: input, output.
	what := func(phase, model, id string, input, output uint64) []engine.Descriptor {
		var more []string
		if id != "" {
			more = []string{"ration.request=" + id}
		}
		return []engine.Descriptor{
			spending(input, "input_tokens", phase, model, more...), spending(output, "output_tokens", phase, model, more...),
		}
	}
	type ask struct {
		after       limit.Micros
		want        string
		descriptors []engine.Descriptor
	}
	one := func(want string, d []engine.Descriptor) ask { return ask{0, want, d} }
	asks := func(model string) []engine.Descriptor {
		return []engine.Descriptor{entries("user=ann", "ration.model="+model)}
	}
	const minutes = 60 * limit.Second
	walks := map[string][]ask{
		"what was held and not used is room again": {
			one("OK spend:0+6000000 company:0+6000000", what("hold", "haiku", "a", 1000, 1000)),
			one("OVER spend:0+6000000! company:0+6000000", what("hold", "haiku", "b", 4001, 0)),
			one("OK spend:1400000 company:1400000", what("record", "haiku", "a", 900, 100)),
			one("OK spend:1400000 company:1400000", what("record", "haiku", "a", 900, 100)),
			one("OK spend:1400000+8600000 company:1400000+8600000", what("hold", "haiku", "b", 3600, 1000)),
			one("OVER spend:1400000+8600000! company:1400000+8600000", asks("haiku")),
		},
		"what was used and not held is debt": {
			one("OK spend:0+500000 company:0+500000", what("hold", "haiku", "a", 0, 100)),
			one("OK spend:10005000 company:10005000", what("record", "haiku", "a", 0, 2001)),
			one("OVER spend:10005000! company:10005000", asks("haiku")),
			{60 * minutes, "OK spend:0 company:10005000", asks("haiku")},
		},
		"a call is rounded up once": {
			one("OK spend:2 company:2", what("record", "tiny", "", 2500, 1)),
			one("OK spend:3 company:3", what("record", "tiny", "", 2499, 1)),
			one("OK spend:3+2 company:3+2", what("hold", "tiny", "a", 2500, 1)),
			one("OK spend:4 company:4", what("record", "tiny", "a", 1, 1)),
		},
		"what is free asks no limit of money": {
			one("OK", what("hold", "free", "a", 1_000_000, 1_000_000)),
			one("OK spend:10000000 company:10000000", what("record", "haiku", "", 10_000, 0)),
			one("OK", asks("free")),
			one("OK spend:10000000 company:10000000", what("record", "free", "a", 1_000_000, 1_000_000)),
			one("OVER spend:10000000! company:10000000", append(asks("free"), asks("haiku")...)),
		},
		"a model without a price holds nothing, and its usage lands without one": {
			one("OVER spend:0! company:0!", asks("haikoo")),
			one("OVER spend:0! company:0!", what("hold", "haikoo", "a", 10, 10)),
			one("OVER spend:0! company:0!", what("admit", "haikoo", "", 10, 10)),
			one("OVER spend:0! company:0!", append(what("hold", "haiku", "a", 10, 10), what("hold", "haikoo", "a", 10, 10)...)),
			one("OK", what("record", "haikoo", "", 10, 10)),
			one("OK spend:0 company:0", asks("haiku")),
		},
		"what nobody settles leaves the price of its input": {
			one("OK spend:0+3500000 company:0+3500000", what("hold", "haiku", "a", 1000, 500)),
			{5*minutes - 1, "OK spend:0+3500000 company:0+3500000", asks("haiku")},
			{1, "OK spend:1000000 company:1000000", asks("haiku")},
			one("OK spend:1500000 company:1500000", what("record", "haiku", "a", 1000, 100)),
			one("OK spend:1500000 company:1500000", what("record", "haiku", "a", 1000, 100)),
		},
		"what was held stays as after a hang-up where the model that served has no price, or no name": {
			one("OK spend:0+3500000 company:0+3500000", what("hold", "haiku", "a", 1000, 500)),
			one("OK", what("record", "haikoo", "a", 1000, 500)),
			one("OK spend:1000000+3500000 company:1000000+3500000", what("hold", "haiku", "b", 1000, 500)),
			one("OK", []engine.Descriptor{hits(500, "user=ann", "ration.phase=record", "ration.meter=output_tokens", "ration.request=b")}),
			one("OK spend:2000000 company:2000000", asks("haiku")),
		},
		"an id that was used reserves nothing more": {
			one("OK spend:0+1000000 company:0+1000000", what("hold", "haiku", "a", 1000, 0)),
			one("OK spend:0+1000000 company:0+1000000", what("hold", "haiku", "a", 1000, 0)),
			one("OVER spend:0+1000000 company:0+1000000", what("hold", "haiku", "a", 1001, 0)),
			one("OVER spend:0+1000000 company:0+1000000", what("hold", "tiny", "a", 1000, 0)),
			one("OK spend:1 company:1", what("record", "tiny", "a", 1000, 0)), // the model that served
		},
	}
	for title, walk := range walks {
		t.Run(title, func(t *testing.T) {
			b := newPolicyBench(t, money, engine.Options{})
			for i, a := range walk {
				b.clock.Advance(a.after)
				if got := sayLimits(b.ask(t, a.descriptors...)); got != a.want {
					t.Fatalf("step %d:\n got %s\nwant %s", i+1, got, a.want)
				}
			}
		})
	}
}

// What users read when their money is spent, from the usage that spent it.
func TestBudgetUsedUp(t *testing.T) {
	b := newPolicyBench(t, `
domain: shop
prices: { book: none, models: { haiku: { input: 1, output: 5 } } }
tiers: [ { name: free }, { name: pro } ]
descriptors:
- key: user
  subject: true
  limits:
  - { name: spend, meter: cost, tiers: { free: { limit: $1/month }, pro: { limit: $5_000/month } } }
`, engine.Options{})
	b.clock.Set(limit.At(time.Date(2026, time.November, 22, 12, 0, 0, 0, time.UTC)))
	b.ask(t, spending(200_240, "output_tokens", "record", "haiku"))
	d := b.ask(t, entries("user=ann", "ration.model=haiku"))
	if got, want := d.Message(), "Monthly budget used up: $1.0012 of $1.00. Resets on 1 December."; got != want || !d.Over {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	body := string(d.Body())
	const want = `"limit":"1.00","remaining":"0.00","name":"spend","meter":"cost","unit":"usd","tier":"free"`
	if !strings.Contains(body, want) {
		t.Errorf("the body lacks %s: %s", want, body)
	}
	if ceiling, remaining := d.Statuses[0].Counts(); ceiling != 100 || remaining != 0 {
		t.Errorf("as whole numbers %d of %d are left, want 0 of 100 cents", remaining, ceiling)
	}
}
