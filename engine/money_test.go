package engine_test

import (
	"context"
	"strings"
	"testing"

	"github.com/rationhq/ration/engine"
	"github.com/rationhq/ration/limit"
)

// money is a policy that limits what each user, and everybody, may spend. Prices are in dollars per million tokens.
const money = `
domain: shop
prices:
  book: none
  models:
    haiku: { input: "1.00", output: "5.00", cache_read: "0.0028", cache_write: "1.25" }
    tiny:  { input: "0.0000004", output: "0.0000004" }
    free:  { input: 0, output: 0 }
  unknown_model: deny
limits:
  - { name: company, meter: cost, algorithm: calendar, limit: $1/day }
descriptors:
  - key: user
    subject: true
    limits:
      - { name: spend, meter: cost, algorithm: fixed_window, limit: $0.01/hour }
`

func spending(n uint64, meter, phase, model string, more ...string) engine.Descriptor {
	return hits(n, append([]string{"user=ann", "ration.meter=" + meter, "ration.phase=" + phase, "ration.model=" + model}, more...)...)
}

// What tokens cost is counted in nano-dollars, rounded up once over all that a call says of a model.
func TestCost(t *testing.T) {
	for name, c := range map[string]struct {
		model string
		usage map[string]uint64
		nanos int64
	}{
		"input":              {"haiku", map[string]uint64{"input_tokens": 7}, 7_000},
		"four classes":       {"haiku", map[string]uint64{"input_tokens": 1, "output_tokens": 2, "cache_read": 100, "cache_write": 4}, 16_280},
		"class unknown":      {"haiku", map[string]uint64{"tokens": 3}, 15_000},
		"rounded up once":    {"tiny", map[string]uint64{"input_tokens": 1, "output_tokens": 1}, 1},
		"rounded up, beyond": {"tiny", map[string]uint64{"input_tokens": 2_500, "output_tokens": 1}, 2},
		"free":               {"free", map[string]uint64{"input_tokens": 1_000_000}, 0},
		"no price":           {"sonnet", map[string]uint64{"input_tokens": 1_000_000}, 0},
		"no model":           {"", map[string]uint64{"input_tokens": 1_000_000}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			b := newPolicyBench(t, money, engine.Options{})
			request := &engine.Request{Domain: "shop"}
			for meter, n := range c.usage {
				d := spending(n, meter, "record", c.model)
				if c.model == "" {
					d = hits(n, "user=ann", "ration.meter="+meter, "ration.phase=record")
				}
				request.Descriptors = append(request.Descriptors, d)
			}
			var d engine.Decision
			for range 2 {
				if err := b.Decide(context.Background(), request, &d); err != nil || d.Over {
					t.Fatalf("%+v, %v", d, err)
				}
			}
			for name, used := range b.spent(t) {
				if used != 2*c.nanos {
					t.Errorf("%s: %d nano-dollars are used by two calls, want %d each", name, used, c.nanos)
				}
			}
		})
	}
}

// spent is what is used of each limit of cost.
func (b bench) spent(t *testing.T) map[string]int64 {
	t.Helper()
	var d engine.Decision
	check := &engine.Request{Domain: "shop", Descriptors: []engine.Descriptor{hits(0, "user=ann")}}
	if err := b.Decide(context.Background(), check, &d); err != nil {
		t.Fatal(err)
	}
	used := map[string]int64{}
	for i := range d.Limits {
		used[d.Limits[i].Limit.Name] = d.Limits[i].Status.Used + d.Limits[i].Status.Held
	}
	if len(used) != 2 {
		t.Fatalf("%d limits of cost, want 2: %v", len(used), used)
	}
	return used
}

// A request of a model without a price is refused where money is limited, unless the policy says otherwise.
func TestUnknownModel(t *testing.T) {
	for _, c := range []struct {
		rule, model string
		over        bool
		message     string
		asked       int // limits
	}{
		{"deny", "haiku", false, "", 2},
		{"deny", "haikoo", true, "This request is not allowed: the model haikoo has no price here. Did you mean haiku?", 2},
		{"deny", "free", false, "", 0},
		{"allow", "haikoo", false, "", 0},
		{"assume_max", "haikoo", false, "", 2},
	} {
		b := newPolicyBench(t, strings.Replace(money, "unknown_model: deny", "unknown_model: "+c.rule, 1), engine.Options{})
		var d engine.Decision
		request := &engine.Request{Domain: "shop", Descriptors: []engine.Descriptor{entries("user=ann", "ration.model="+c.model)}}
		if err := b.Decide(context.Background(), request, &d); err != nil {
			t.Fatal(err)
		}
		if d.Over != c.over || d.Message() != c.message || len(d.Limits) != c.asked || c.over && d.Verdict() != engine.Blocked {
			t.Errorf("%s, %s: over %v, %v, %q, %d limits asked; want %+v", c.rule, c.model, d.Over, d.Verdict(), d.Message(), len(d.Limits), c)
		}
		if _, wait := d.RetryAfter(); c.over && wait {
			t.Errorf("%s, %s: told to wait", c.rule, c.model)
		}
	}
	b := newPolicyBench(t, strings.Replace(money, "unknown_model: deny", "unknown_model: assume_max", 1), engine.Options{})
	var d engine.Decision
	record := &engine.Request{Domain: "shop", Descriptors: []engine.Descriptor{spending(1, "cache_read", "record", "sonnet")}}
	if err := b.Decide(context.Background(), record, &d); err != nil {
		t.Fatal(err)
	}
	if used := b.spent(t)["spend"]; used != 3 {
		t.Errorf("%d nano-dollars for a token read from the cache of an unknown model, want those of the dearest model, 3", used)
	}
}

// A reservation holds what its tokens may cost; what stays when it lapses is what its input costs.
func TestReservedCost(t *testing.T) {
	b := newPolicyBench(t, money, engine.Options{})
	reserve := &engine.Request{Domain: "shop", Descriptors: []engine.Descriptor{
		spending(1000, "input_tokens", "hold", "haiku", "ration.request=r"), spending(1000, "output_tokens", "hold", "haiku", "ration.request=r"),
	}}
	var d engine.Decision
	if err := b.Decide(context.Background(), reserve, &d); err != nil || d.Over {
		t.Fatalf("%+v, %v", d, err)
	}
	for name, used := range b.spent(t) {
		if used != 6_000_000 {
			t.Errorf("%s: %d nano-dollars are held, want 6,000,000", name, used)
		}
	}
	another := &engine.Request{Domain: "shop", Descriptors: []engine.Descriptor{spending(1000, "output_tokens", "hold", "haiku", "ration.request=s")}}
	if err := b.Decide(context.Background(), another, &d); err != nil || !d.Over {
		t.Errorf("a second one over the limit: %+v, %v", d, err)
	}
	settle := &engine.Request{Domain: "shop", Descriptors: []engine.Descriptor{
		spending(900, "input_tokens", "record", "haiku", "ration.request=r"), spending(100, "output_tokens", "record", "haiku", "ration.request=r"),
	}}
	for range 2 {
		if err := b.Decide(context.Background(), settle, &d); err != nil {
			t.Fatal(err)
		}
	}
	for name, used := range b.spent(t) {
		if used != 1_400_000 {
			t.Errorf("%s: %d nano-dollars are used, want 1,400,000", name, used)
		}
	}
	if err := b.Decide(context.Background(), &engine.Request{Domain: "shop", Descriptors: []engine.Descriptor{
		spending(1000, "input_tokens", "hold", "haiku", "ration.request=u"), spending(500, "output_tokens", "hold", "haiku", "ration.request=u"),
	}}, &d); err != nil || d.Over {
		t.Fatalf("%+v, %v", d, err)
	}
	b.clock.Advance(5 * 60 * limit.Second)
	for name, used := range b.spent(t) {
		if used != 2_400_000 {
			t.Errorf("%s: %d nano-dollars stay when it has lapsed, want 1,000,000 more", name, used)
		}
	}
}
