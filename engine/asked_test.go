package engine_test

import (
	"context"
	"testing"

	"github.com/rationhq/ration/engine"
	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/price"
)

// asking has limits that count what calls ask for, as a provider does that gives nothing back, beside one that counts what
// they use.
const asking = `
domain: llm
usage: off
descriptors:
- key: user
  subject: true
  limits:
  - { name: used, meter: tokens, algorithm: fixed_window, limit: 100_000/day }
  - { name: own, meter: tokens, counts: asked, algorithm: fixed_window, limit: 100_000/day }
upstreams:
- { name: provider, models: [ gpt ], limits: [ { name: tpm, meter: tokens, counts: asked, algorithm: token_bucket, rate: 1_000_000/day } ] }
`

// What a call has asked for stays charged where that counts, however the call ends, and whoever hears of it. What was
// not reserved counts by what it has used.
func TestCountsWhatIsAsked(t *testing.T) {
	request := about(1, "user=ann", "ration.model=gpt")
	of := func(n uint64, phase, meter string) engine.Descriptor {
		return about(n, "user=ann", "ration.model=gpt", "ration.phase="+phase, "ration.meter="+meter)
	}
	used := []engine.Descriptor{of(90, "record", "input_tokens"), of(50, "record", "output_tokens")}
	for name, c := range map[string]struct {
		unreserved bool
		waits      limit.Micros
		ends       []engine.Descriptor
		want       string
	}{
		"under way":               {false, 0, nil, "OK used:0+300 own:0+300 tpm:0+300"},
		"told of":                 {false, 0, used, "OK used:140 own:300 tpm:300"},
		"told of late":            {false, 301 * limit.Second, used, "OK used:140 own:300 tpm:300"},
		"ends without a word":     {false, 0, []engine.Descriptor{of(1, "done", "requests")}, "OK used:100 own:300 tpm:300"},
		"nobody ends it":          {false, 301 * limit.Second, nil, "OK used:100 own:300 tpm:300"},
		"the upstream has failed": {false, 0, []engine.Descriptor{of(1, "failed", "requests")}, "OK used:0 own:300 tpm:300"},
		"not reserved":            {true, 0, used, "OK used:140 own:140 tpm:140"},
	} {
		for _, elsewhere := range []bool{false, true} {
			b := newPolicyBench(t, asking, engine.Options{})
			if !c.unreserved {
				b.askIn(t, "llm", request, of(100, "hold", "input_tokens"), of(200, "hold", "output_tokens"))
			}
			b.clock.Advance(c.waits)
			teller := b
			if elsewhere {
				teller = b.replica(t)
			}
			for range 2 {
				if c.ends != nil {
					teller.askIn(t, "llm", c.ends...)
				}
			}
			got := sayLimits(b.askIn(t, "llm", hits(0, "user=ann", "ration.model=gpt", "ration.meter=tokens")))
			if c.waits > 0 { // the bucket of the provider has drained meanwhile
				got, c.want = got[:len("OK used:100 own:300")], c.want[:len("OK used:100 own:300")]
			}
			expect(t, name, got, c.want)
		}
	}
}

// So it is with calls that are told of as a whole. One that is released was not made.
func TestCountsWhatIsAskedOfReservations(t *testing.T) {
	b := newPolicyBench(t, asking, engine.Options{})
	stands := func() string { return sayLimits(b.askIn(t, "llm", hits(0, "user=alice", "ration.meter=tokens"))) }
	b.settle(t, b.reserve(t, call("gpt", 100, 200)), price.Usage{Input: 90, Output: 50})
	expect(t, "settled", stands(), "OK used:140 own:300")
	b.settle(t, b.reserve(t, call("gpt", 100, 200)), price.Usage{Input: 90, Output: 400})
	expect(t, "settled by more", stands(), "OK used:630 own:600")
	released := b.reserve(t, call("gpt", 100, 200))
	var s engine.Settlement
	if err := b.Release(context.Background(), released.ID, &s); err != nil {
		t.Fatal(err)
	}
	expect(t, "released", stands(), "OK used:630 own:600")
}

// Where another provider has served than the one that was asked, that one counts what was used: nobody has asked it for
// anything before.
func TestCountsWhatAnotherHasServed(t *testing.T) {
	const text = asking + "- { name: fallback, models: [ claude ], limits: [ { name: other, meter: tokens, counts: asked, algorithm: token_bucket, rate: 1_000_000/day } ] }\n"
	of := func(n uint64, model, phase, meter string) engine.Descriptor {
		return about(n, "user=ann", "ration.model="+model, "ration.phase="+phase, "ration.meter="+meter)
	}
	for name, end := range map[string]func(b bench){
		"over Envoy's protocol": func(b bench) {
			b.askIn(t, "llm", about(1, "user=ann", "ration.model=gpt"), of(100, "gpt", "hold", "input_tokens"), of(200, "gpt", "hold", "output_tokens"))
			b.askIn(t, "llm", of(90, "claude", "record", "input_tokens"), of(50, "claude", "record", "output_tokens"))
		},
		"as a whole": func(b bench) {
			c := call("gpt", 100, 200)
			c.Attributes = []policy.Entry{{Key: "user", Value: "ann"}}
			var s engine.Settlement
			report := engine.Report{ID: b.reserve(t, c).ID, Usage: price.Usage{Input: 90, Output: 50}, Model: "claude"}
			if err := b.Settle(t.Context(), &report, &s); err != nil {
				t.Fatal(err)
			}
		},
	} {
		b := newPolicyBench(t, text, engine.Options{})
		end(b)
		for model, want := range map[string]string{"gpt": "OK used:140 own:300 tpm:300", "claude": "OK used:140 own:300 other:140"} {
			expect(t, name+", "+model, sayLimits(b.askIn(t, "llm", hits(0, "user=ann", "ration.model="+model, "ration.meter=tokens"))), want)
		}
	}
}
