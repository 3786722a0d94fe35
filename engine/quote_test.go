package engine_test

import (
	"math"
	"strings"
	"testing"

	"github.com/rationhq/ration/engine"
	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/policy"
)

// Where there is room for whole numbers only, money is cents: the limit rounded up, what remains rounded down. They
// fit into 32 bits whatever a policy allows.
func TestCounts(t *testing.T) {
	p, _, err := policy.Parse([]policy.Source{{Name: "p", Data: []byte(`
domain: d
limits:
- {name: spend, meter: cost, algorithm: fixed_window, limit: $1/hour}
- {name: tokens, meter: tokens, algorithm: fixed_window, limit: 1/hour}
`)}}, policy.Options{})
	if err != nil {
		t.Fatal(err)
	}
	spend, tokens := p.Limits()[0], p.Limits()[1]
	for _, c := range []struct {
		applied            *policy.Limit
		limit, remaining   int64
		wantLimit, wantRem int64
	}{
		{spend, 1_000_000_000, 250_000_000, 100, 25},
		{spend, 5_000_000, 5_000_000, 1, 0}, // half a cent
		{spend, 0, 0, 0, 0},
		{spend, 10_000_001, 9_999_999, 2, 0},
		{spend, limit.MaxAmount, limit.MaxAmount, 900_719_926, 900_719_925},
		{tokens, limit.MaxAmount, 1, limit.MaxAmount, 1},
		{nil, 60, 59, 60, 59},
	} {
		s := engine.Status{Limited: true, Limit: engine.Limit{RequestsPerUnit: c.limit}, Remaining: c.remaining}
		if c.applied != nil {
			s.Applied = &engine.Applied{Limit: c.applied}
		}
		gotLimit, gotRem := s.Counts()
		if gotLimit != c.wantLimit || gotRem != c.wantRem {
			t.Errorf("%d of %d: %d of %d, want %d of %d", c.remaining, c.limit, gotRem, gotLimit, c.wantRem, c.wantLimit)
		}
		if c.applied == spend && gotLimit > math.MaxUint32 {
			t.Errorf("%d cents do not fit into 32 bits", gotLimit)
		}
	}
}

// While nothing refuses, statuses and headers tell of a limit that counts requests or tokens, if there is one,
// however few places and however little money are left; when those refuse, of them.
func TestPlacesAndMoneyAreQuotedLast(t *testing.T) {
	b := newPolicyBench(t, `
domain: shop
prices: { book: none, models: { haiku: { input: 1, output: 5 } } }
descriptors:
- key: user
  limits:
  - { name: spend, meter: cost, algorithm: fixed_window, limit: $0.10/hour }
  - { name: tokens, meter: tokens, algorithm: fixed_window, limit: 1M/hour }
- key: seat
  limits:
  - { name: seats, meter: concurrency, limit: 1 }
  - { name: hits, algorithm: fixed_window, limit: 100/hour }
- key: purse
  limits: [ { name: purse, meter: cost, algorithm: fixed_window, limit: $0.03/hour } ]
- key: path
  rate_limit: { unit: hour, requests_per_unit: 1000, name: path }
`, engine.Options{})
	used := func(n uint64, who string) engine.Descriptor {
		return hits(n, who, "ration.meter=output_tokens", "ration.model=haiku", "ration.phase=record")
	}
	user, purse, path := entries("user=ann"), entries("purse=a"), entries("path=/")
	for _, c := range []struct {
		asks   []engine.Descriptor
		quoted int
		names  string // of what describes each status
	}{
		{[]engine.Descriptor{user}, 0, "tokens"},
		{[]engine.Descriptor{used(19_999, "user=ann")}, 0, "tokens"}, // 0.005 cents are left
		{[]engine.Descriptor{user}, 0, "tokens"},
		{[]engine.Descriptor{purse}, 0, "purse"},
		{[]engine.Descriptor{purse, path}, 1, "purse path"},
		{[]engine.Descriptor{path, purse}, 0, "path purse"},
		{[]engine.Descriptor{used(1, "user=ann")}, 0, "tokens"},
		{[]engine.Descriptor{user}, 0, "spend"},
		{[]engine.Descriptor{path, user}, 1, "path spend"},
		{[]engine.Descriptor{entries("nobody=x"), purse}, 1, " purse"},
		{[]engine.Descriptor{entries("seat=a", "ration.request=1")}, 0, "hits"},
		{[]engine.Descriptor{entries("seat=a", "ration.request=2")}, 0, "seats"},
	} {
		d := b.ask(t, c.asks...)
		var names []string
		for i := range d.Statuses {
			names = append(names, d.Statuses[i].Limit.Name)
		}
		if got := strings.Join(names, " "); got != c.names || d.Quoted() != c.quoted {
			t.Errorf("%v: the statuses tell of %q and headers quote %d, want %q and %d", c.asks, got, d.Quoted(), c.names, c.quoted)
		}
	}
}
