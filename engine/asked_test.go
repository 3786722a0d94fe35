package engine_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rationhq/ration/engine"
	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/price"
	"github.com/rationhq/ration/store"
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

// So it does when the report has waited.
func TestCountsWhatAnotherHasServedWhileTheStoreIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newOutageBenchOf(t, strings.Replace(asking, "domain: llm", "domain: shop\nanonymous: deny", 1)+
			"- { name: fallback, models: [ claude ], limits: [ { name: other, meter: tokens, counts: asked, algorithm: fixed_window, limit: 1_000_000/day } ] }\n", queues())
		of := func(n uint64, model, phase string) engine.Descriptor {
			return about(n, "user=ann", "ration.model="+model, "ration.phase="+phase, "ration.meter=output_tokens")
		}
		b.sayWithout(t.Context(), about(1, "user=ann", "ration.model=gpt"), of(200, "gpt", "hold"))
		b.store.set(store.ErrUnavailable, false)
		b.sayWithout(t.Context(), of(50, "claude", "record"))
		b.store.set(nil, false)
		time.Sleep(5 * time.Second)
		var d engine.Decision
		ask := hits(0, "user=ann", "ration.model=claude", "ration.meter=tokens")
		if err := b.Decide(t.Context(), &engine.Request{Domain: "shop", Descriptors: []engine.Descriptor{ask}}, &d); err != nil {
			t.Fatal(err)
		}
		expect(t, "landed", sayLimits(&d), "OK used:50 own:200 other:50")
	})
}

// Who hears of a call that another process has reserved while the store is away does not know of that until it is back.
func TestCountsWhatIsAskedWhileTheStoreIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newOutageBenchOf(t, strings.Replace(asking, "domain: llm", "domain: shop\nanonymous: deny", 1), queues())
		of := func(n uint64, phase, meter string) engine.Descriptor {
			return about(n, "user=ann", "ration.model=gpt", "ration.phase="+phase, "ration.meter="+meter)
		}
		b.sayWithout(t.Context(), about(1, "user=ann", "ration.model=gpt"), of(100, "hold", "input_tokens"), of(200, "hold", "output_tokens"))
		other := engine.New(b.store, queues())
		defer other.Close()
		rules, _ := b.Policy()
		other.SetPolicy(rules)
		b.store.set(store.ErrUnavailable, false)
		var d engine.Decision
		for _, tells := range []engine.Descriptor{of(90, "record", "input_tokens"), hits(7, "user=ann", "ration.phase=record", "ration.meter=tokens", "ration.request=r2")} {
			if err := other.Decide(t.Context(), &engine.Request{Domain: "shop", Descriptors: []engine.Descriptor{tells}}, &d); err != nil || !d.Queued {
				t.Fatalf("queued %t, %v", d.Queued, err)
			}
		}
		b.store.set(nil, false)
		time.Sleep(5 * time.Second)
		if err := b.Decide(t.Context(), &engine.Request{Domain: "shop", Descriptors: []engine.Descriptor{hits(0, "user=ann", "ration.meter=tokens")}}, &d); err != nil {
			t.Fatal(err)
		}
		expect(t, "what was reserved, and what was not", sayLimits(&d), "OK used:97 own:307")
	})
}
