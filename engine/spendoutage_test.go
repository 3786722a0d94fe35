package engine_test

import (
	"strings"
	"testing"

	"github.com/rationhq/ration/engine"
	"github.com/rationhq/ration/store"
)

// spendingWithoutStore limits money in each way that there is of doing without the store.
const spendingWithoutStore = `
domain: shop
prices:
  book: none
  models: { haiku: { input: 1, output: 5, cache_read: 1, cache_write: 1 }, free: { input: 0, output: 0, cache_read: 0, cache_write: 0 } }
descriptors:
- key: silent
  limits: [ { name: silent, meter: cost, algorithm: fixed_window, limit: $0.01/day } ]
- key: allow
  limits: [ { name: allow, meter: cost, algorithm: fixed_window, limit: $0.01/day, per_request: $0.005, on_store_error: allow } ]
- key: local
  limits: [ { name: local, meter: cost, algorithm: fixed_window, limit: $0.01/day, on_store_error: local } ]
- key: both
  limits:
  - { name: spend, meter: cost, algorithm: fixed_window, limit: $0.01/day }
  - { name: tokens, meter: tokens, algorithm: fixed_window, limit: 1M/day }
`

// Without the store money is not spent unseen, unless the policy says so; and then within a share that is exact to the
// nano-dollar, of limits that have one.
func TestSpendingWithoutStore(t *testing.T) {
	const (
		denied = "OVER store_unavailable without the store: deny "
		down   = "error: the store is unavailable"
	)
	about := func(n uint64, phase, who, model, id string) engine.Descriptor {
		return hits(n, who, "ration.phase="+phase, "ration.meter=output_tokens", "ration.model="+model, "ration.request="+id)
	}
	type ask struct {
		d    engine.Descriptor
		want string
	}
	for name, asks := range map[string][]ask{
		"the default is to deny": {
			{entries("silent=x", "ration.model=haiku"), denied + "silent!"},
			{about(1, "hold", "silent=x", "haiku", "a"), denied + "silent!"},
			{entries("both=x", "ration.model=haiku"), denied + "spend!"},
			{about(1, "record", "silent=x", "haiku", "a"), down},
		},
		"what is free asks no limit of money, so none denies it": {
			{entries("silent=x", "ration.model=free"), "OK"},
			{entries("both=x", "ration.model=free"), "OK without the store: allow"},
		},
		"allow": {
			{entries("allow=x", "ration.model=haiku"), "OK without the store: allow"},
			{about(1000, "hold", "allow=x", "haiku", "a"), "OK without the store: allow"},
			{about(1001, "hold", "allow=x", "haiku", "b"), "OVER request_too_large without the store: allow allow:0!"},
			{about(2001, "hold", "allow=x", "haiku", "c"), "OVER request_too_large without the store: allow allow:0!"},
			{entries("allow=x", "ration.model=sonnet"), "OVER blocked without the store: allow allow:0!"},
			{about(1000, "record", "allow=x", "haiku", "a"), down},
		},
		"a share of ten per cent of a cent is a tenth of it": {
			{about(150, "hold", "local=x", "haiku", "a"), "OK without the store: local local:0"},
			{about(150, "hold", "local=x", "haiku", "a"), "OK without the store: local local:0"}, // the same again
			{about(51, "hold", "local=x", "haiku", "b"), "OVER store_unavailable without the store: local local!"},
			{about(1, "hold", "local=x", "haiku", "a"), "OVER blocked without the store: local local:0"}, // another one, with its id
			{about(50, "hold", "local=x", "haiku", "c"), "OK without the store: local local:0"},
			{hits(1, "local=x", "ration.meter=output_tokens", "ration.model=haiku"), "OVER store_unavailable without the store: local local!"},
			{about(2001, "hold", "local=x", "haiku", "d"), "OVER request_too_large without the store: local local:0!"},
			{about(40, "record", "local=x", "haiku", "c"), down}, // and yet it has ended, as by a hang-up
			{about(50, "hold", "local=x", "haiku", "e"), "OK without the store: local local:0"},
			{about(1, "hold", "local=x", "haiku", "f"), "OVER store_unavailable without the store: local local!"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newOutageBenchOf(t, spendingWithoutStore, engine.Options{})
			b.store.set(store.ErrUnavailable, false)
			for i, a := range asks {
				if got := b.sayWithout(t.Context(), a.d); got != a.want {
					t.Errorf("step %d:\n got %s\nwant %s", i+1, got, a.want)
				}
			}
		})
	}
}

// The body of a refusal for want of the store says the limit in dollars.
func TestSpendingWithoutStoreInWords(t *testing.T) {
	b := newOutageBenchOf(t, spendingWithoutStore, engine.Options{})
	b.store.set(store.ErrUnavailable, false)
	var d engine.Decision
	request := &engine.Request{Domain: "shop", Descriptors: []engine.Descriptor{entries("silent=x", "ration.model=haiku")}}
	if err := b.Decide(t.Context(), request, &d); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"status":503`, `"limit":"0.01","remaining":"0.00","name":"silent","meter":"cost","unit":"usd"`} {
		if body := string(d.Body()); !strings.Contains(body, want) {
			t.Errorf("the body lacks %s: %s", want, body)
		}
	}
}
