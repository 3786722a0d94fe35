package engine_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/rationhq/ration/engine"
	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/store"
	"github.com/rationhq/ration/store/memory"
	"github.com/rationhq/ration/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const rules = `
domain: shop
descriptors:
  - key: user
    rate_limit: { unit: minute, requests_per_unit: 3, name: per-user }
  - key: plan
    value: gold
    rate_limit: { unit: minute, requests_per_unit: 10, name: gold, replaces: [ { name: per-user } ] }
  - key: plan
    value: house
    rate_limit: { unlimited: true, replaces: [ { name: per-user } ] }
  - key: trial
    shadow_mode: true
    rate_limit: { unit: hour, requests_per_unit: 1 }
  - key: tenant
    quota_mode: true
    rate_limit: { unit: day, requests_per_unit: 1 }
  - key: region
    quota_mode: true
    rate_limit: { unit: hour, requests_per_unit: 2 }
  - key: closed
    rate_limit: { unit: hour, requests_per_unit: 0 }
  - key: open
`

// noon is the start of a minute, an hour, and half a day.
const noon limit.Micros = 1_763_726_400 * limit.Second

type bench struct {
	*engine.Engine
	clock *storetest.Clock
	store store.Store
}

func newBench(t testing.TB, opts engine.Options) bench {
	t.Helper()
	clock := storetest.NewClock(noon)
	s := memory.New(memory.Options{Clock: clock.Now})
	t.Cleanup(func() { _ = s.Close() })
	p, _, err := policy.Parse([]policy.Source{{Name: "rules.yaml", Data: []byte(rules)}}, policy.Options{})
	if err != nil {
		t.Fatal(err)
	}
	e := engine.New(s, opts)
	t.Cleanup(e.Close)
	e.SetPolicy(p)
	return bench{e, clock, s}
}

// entries makes a descriptor of "key=value" pairs.
func entries(pairs ...string) engine.Descriptor {
	var d engine.Descriptor
	for _, pair := range pairs {
		key, value, _ := strings.Cut(pair, "=")
		d.Entries = append(d.Entries, policy.Entry{Key: key, Value: value})
	}
	return d
}

func (b bench) ask(t testing.TB, descriptors ...engine.Descriptor) *engine.Decision {
	t.Helper()
	return b.askIn(t, "shop", descriptors...)
}

func (b bench) askIn(t testing.TB, domain string, descriptors ...engine.Descriptor) *engine.Decision {
	t.Helper()
	var d engine.Decision
	if err := b.Decide(context.Background(), &engine.Request{Domain: domain, Descriptors: descriptors}, &d); err != nil {
		t.Fatal(err)
	}
	return &d
}

// say writes a decision in a line: OK or OVER, and per descriptor its verdict and what remains.
func say(d *engine.Decision) string {
	line := "OK"
	if d.Over {
		line = "OVER"
	}
	for _, s := range d.Statuses {
		switch {
		case s.Unlimited:
			line += " unlimited"
		case !s.Limited:
			line += " none"
		case s.Over:
			line += fmt.Sprintf(" over:%d", s.Remaining)
		default:
			line += fmt.Sprintf(" ok:%d", s.Remaining)
		}
	}
	return line
}

func TestDecide(t *testing.T) {
	hits := func(n uint64, d engine.Descriptor) engine.Descriptor { d.HasHits, d.Hits = true, n; return d }
	back := func(d engine.Descriptor) engine.Descriptor { d.GiveBack = true; return d }
	override := func(n uint32, unit int32, multiplier uint32, d engine.Descriptor) engine.Descriptor {
		d.Override = &engine.Override{RequestsPerUnit: n, Unit: unit, Multiplier: multiplier, HasMultiplier: multiplier > 0}
		return d
	}
	user := entries("user=alice")
	type ask struct {
		descriptors []engine.Descriptor
		want        string
	}
	one := func(want string, d ...engine.Descriptor) ask { return ask{d, want} }
	walks := map[string]struct {
		opts engine.Options
		asks []ask
	}{
		"counts to the limit": {asks: []ask{
			one("OK ok:2", user), one("OK ok:1", user), one("OK ok:0", user), one("OVER over:0", user), one("OK ok:2", entries("user=bob")),
		}},
		"charges what was asked for": {asks: []ask{
			one("OK ok:1", hits(2, user)), one("OK ok:1", hits(0, user)), one("OVER over:0", hits(5, user)), one("OVER over:0", hits(0, user)),
		}},
		"gives back": {asks: []ask{
			one("OVER over:0", hits(5, user)), one("OK ok:0", back(hits(1, user))), one("OK ok:2", back(hits(3, user))),
			one("OK ok:3", back(hits(100, user))), one("OK ok:2", user),
		}},
		"records without refusing": {asks: []ask{
			one("OK ok:0", hits(5, entries("user=alice", "ration.phase=record"))), one("OVER over:0", user),
		}},
		"charges the others of a refused request": {asks: []ask{
			one("OVER over:0 ok:9", hits(4, user), override(10, 3, 0, entries("other=x"))),
			one("OVER over:0 ok:8", user, override(10, 3, 0, entries("other=x"))),
		}},
		"replaces": {asks: []ask{
			one("OK none ok:9", user, entries("plan=gold")), one("OK ok:8 none", entries("plan=gold"), user),
			one("OK unlimited none", entries("plan=house"), user), one("OK ok:2", user),
		}},
		"shadow": {asks: []ask{
			one("OK ok:0", entries("trial=x")), one("OK ok:0", entries("trial=x")),
		}},
		"quotas refuse together": {asks: []ask{
			one("OK ok:0 ok:1", entries("tenant=a"), entries("region=eu")),
			one("OK over:0 ok:0", entries("tenant=a"), entries("region=eu")),
			one("OVER over:0 over:0", entries("tenant=a"), entries("region=eu")),
			one("OVER over:0 none", entries("tenant=a"), entries("nobody=x")),
		}},
		"all are quotas": {opts: engine.Options{Quota: true}, asks: []ask{
			one("OVER over:0", hits(4, user)), one("OK over:0 none", user, entries("nobody=x")),
			one("OK over:0 none", user, entries("open=x")), one("OVER over:0 unlimited", hits(2, entries("tenant=x")), entries("plan=house")),
		}},
		"all in shadow": {opts: engine.Options{Shadow: true}, asks: []ask{
			one("OK over:0", hits(4, user)), one("OK over:0", entries("closed=x")),
		}},
		"no limit": {asks: []ask{
			one("OK none none", entries("open=x"), entries("nobody=x")), one("OK none", entries("user=alice", "deeper=x")), one("OK none", engine.Descriptor{}),
		}},
		"overrides": {asks: []ask{
			one("OK ok:4", override(5, 2, 0, user)),                    // MINUTE: the rule's own counter
			one("OK ok:1", user),                                       // which that was charged on
			one("OVER over:0", override(2, 2, 0, user)),                // judged by the limit that is brought
			one("OK ok:6", override(7, 3, 0, user)),                    // HOUR: another counter
			one("OK ok:0", override(1, 7, 0, engine.Descriptor{})),     // WEEK; no entries at all
			one("OK ok:0", override(1, 2, 5, entries("nobody=x"))),     // 5 minutes
			one("OVER over:0", override(1, 2, 5, entries("nobody=x"))), //
			one("OVER over:0", override(0, 1, 0, entries("nobody=x"))), // zero refuses all
		}},
	}
	for name, walk := range walks {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, walk.opts)
			for i, a := range walk.asks {
				if got := say(b.ask(t, a.descriptors...)); got != a.want {
					t.Errorf("ask %d: %s, want %s", i, got, a.want)
				}
			}
		})
	}
}

func TestWindows(t *testing.T) {
	b := newBench(t, engine.Options{})
	b.clock.Advance(12_345_678)
	d := b.ask(t, entries("user=alice"), entries("trial=x"), entries("tenant=x"))
	for i, want := range []int64{48, 3600 - 12, 43_200 - 12} {
		if got := d.Statuses[i].ResetAfter.Seconds(); got != want {
			t.Errorf("descriptor %d resets in %d s, want %d", i, got, want)
		}
	}
	d = b.ask(t, engine.Descriptor{Override: &engine.Override{RequestsPerUnit: 1, Unit: 2, Multiplier: 7, HasMultiplier: true}})
	if got := d.Statuses[0].ResetAfter; got > 7*60*limit.Second || got < 60*limit.Second {
		t.Errorf("7 minutes reset in %v", got.Duration())
	}
}

func TestUnknownDomain(t *testing.T) {
	b := newBench(t, engine.Options{})
	var d engine.Decision
	bad := engine.Descriptor{Override: &engine.Override{Unit: 99}} // not looked at
	if err := b.Decide(context.Background(), &engine.Request{Domain: "Shop", Descriptors: []engine.Descriptor{bad, {}}}, &d); err != nil {
		t.Fatal(err)
	}
	if got := say(&d); got != "OK none none" {
		t.Errorf("%s, want OK none none", got)
	}
}

func TestRefusedRequests(t *testing.T) {
	b := newBench(t, engine.Options{})
	user := entries("user=alice")
	override := func(o engine.Override) engine.Descriptor { return engine.Descriptor{Override: &o} }
	long := func(n int) string { return strings.Repeat("x", n) }
	cases := map[string]struct {
		request engine.Request
		says    string
	}{
		"no domain":           {engine.Request{}, "rate limit domain must not be empty"},
		"no descriptors":      {engine.Request{Domain: "shop"}, "rate limit descriptor list must not be empty"},
		"unit 0":              {engine.Request{Domain: "shop", Descriptors: []engine.Descriptor{user, override(engine.Override{})}}, "descriptors[1].limit.unit: the unit 0 is unknown"},
		"unit 8":              {engine.Request{Domain: "shop", Descriptors: []engine.Descriptor{user, override(engine.Override{Unit: 8})}}, "descriptors[1].limit.unit"},
		"unit 258":            {engine.Request{Domain: "shop", Descriptors: []engine.Descriptor{override(engine.Override{Unit: 258})}}, "descriptors[0].limit.unit"},
		"unit -1":             {engine.Request{Domain: "shop", Descriptors: []engine.Descriptor{override(engine.Override{Unit: -1})}}, "descriptors[0].limit.unit"},
		"multiplier 0":        {engine.Request{Domain: "shop", Descriptors: []engine.Descriptor{override(engine.Override{Unit: 1, HasMultiplier: true})}}, "unit_multiplier"},
		"multiplier too long": {engine.Request{Domain: "shop", Descriptors: []engine.Descriptor{override(engine.Override{Unit: 6, Multiplier: 286, HasMultiplier: true})}}, "unit_multiplier"},
		"hits of 2^53":        {engine.Request{Domain: "shop", Descriptors: []engine.Descriptor{{HasHits: true, Hits: 1 << 53}}}, "descriptors[0].hits_addend"},
		"hits of 2^64-1":      {engine.Request{Domain: "shop", Descriptors: []engine.Descriptor{{HasHits: true, Hits: 1<<64 - 1}}}, "descriptors[0].hits_addend"},
		"long domain":         {engine.Request{Domain: long(2000), Descriptors: []engine.Descriptor{user}}, "domain: 2000 bytes, at most 1024"},
		"long key":            {engine.Request{Domain: "shop", Descriptors: []engine.Descriptor{user, entries("a=b", long(2000)+"=v")}}, "descriptors[1].entries[1].key: 2000 bytes"},
		"long value":          {engine.Request{Domain: "shop", Descriptors: []engine.Descriptor{entries("user=" + long(20_000))}}, "descriptors[0].entries[0].value"},
		"many entries":        {engine.Request{Domain: "shop", Descriptors: []engine.Descriptor{{Entries: make([]policy.Entry, 65)}}}, "descriptors[0].entries: 65 entries"},
		"many descriptors":    {engine.Request{Domain: "shop", Descriptors: make([]engine.Descriptor, 257)}, "descriptors: 257 descriptors"},
		"long in all":         {engine.Request{Domain: "shop", Descriptors: []engine.Descriptor{user, longOverride(long(16 << 10))}}, "descriptors[1].entries"},
	}
	for name, c := range cases {
		var d engine.Decision
		err := b.Decide(context.Background(), &c.request, &d)
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want an error that says %q", name, err, c.says)
		}
	}
	if got := say(b.ask(t, entries("user=alice"))); got != "OK ok:2" {
		t.Errorf("afterwards %s: a refused request was charged", got)
	}
	var none engine.Decision
	if err := engine.New(nil, engine.Options{}).Decide(context.Background(), &engine.Request{Domain: "d", Descriptors: []engine.Descriptor{user}}, &none); !errors.Is(err, engine.ErrNoPolicy) {
		t.Errorf("without a policy: %v, want %v", err, engine.ErrNoPolicy)
	}
}

// A window that is too long is refused, however it would wrap, and any other is as long as asked.
func TestMultipliers(t *testing.T) {
	b := newBench(t, engine.Options{})
	multipliers := rapid.OneOf(rapid.Uint32Min(1), rapid.Uint32Range(1, 1000), rapid.SampledFrom([]uint32{213_503_983, 7_116_800, 584_943, 1<<32 - 1}))
	rapid.Check(t, func(r *rapid.T) {
		unit := policy.Unit(rapid.IntRange(1, 7).Draw(r, "unit"))
		n := multipliers.Draw(r, "multiplier")
		var d engine.Decision
		override := &engine.Override{RequestsPerUnit: 1, Unit: int32(unit), Multiplier: n, HasMultiplier: true}
		err := b.Decide(context.Background(), &engine.Request{Domain: "shop", Descriptors: []engine.Descriptor{{Override: override}}}, &d)
		seconds := float64(unit.Window()/limit.Second) * float64(n)
		if tooLong := seconds > float64(limit.MaxAmount)/1e6; tooLong {
			var invalid *engine.InvalidError
			if !errors.As(err, &invalid) || invalid.Field != "descriptors[0].limit.unit_multiplier" {
				r.Fatalf("%d %ss: %v", n, unit, err)
			}
		} else if err != nil || float64(d.Statuses[0].Limit.Spec.Window/limit.Second) != seconds {
			r.Fatalf("%d %ss: a window of %v, %v", n, unit, d.Statuses[0].Limit.Spec.Window.Duration(), err)
		}
	})
}

// longOverride has entries that are each allowed, but too long together.
func longOverride(value string) engine.Descriptor {
	d := engine.Descriptor{Override: &engine.Override{RequestsPerUnit: 1, Unit: 1}}
	for range 5 {
		d.Entries = append(d.Entries, policy.Entry{Key: "k", Value: value})
	}
	return d
}

func TestWords(t *testing.T) {
	user, closed, open := entries("user=alice"), entries("closed=x"), entries("open=x")
	four := user
	four.HasHits, four.Hits = true, 4
	cases := []struct {
		descriptors []engine.Descriptor
		times       int
		message     string
		retryAfter  int64
	}{
		{[]engine.Descriptor{open}, 1, "", 0},
		{[]engine.Descriptor{user}, 3, "", 0},
		{[]engine.Descriptor{user, open}, 4, "Rate limit reached: 3 requests per minute. Try again in 48 s.", 48},
		{[]engine.Descriptor{four}, 1, "Request too large: 4 at once, of at most 3 requests per minute.", 0},
		{[]engine.Descriptor{closed}, 1, "This request is not allowed: its limit is zero.", 0},
		{[]engine.Descriptor{entries("tenant=x")}, 2, "Rate limit reached: 1 request per day. Try again in 12 h.", 43_188},
		{[]engine.Descriptor{entries("region=x")}, 3, "Rate limit reached: 2 requests per hour. Try again in 60 min.", 3588},
		{[]engine.Descriptor{user, entries("tenant=x")}, 4, "Rate limit reached: 1 request per day. Try again in 12 h.", 43_188},
	}
	for _, c := range cases {
		b := newBench(t, engine.Options{})
		b.clock.Advance(12_345_678)
		var d *engine.Decision
		for range c.times {
			d = b.ask(t, c.descriptors...)
		}
		if got := d.Message(); got != c.message {
			t.Errorf("message %q, want %q", got, c.message)
		}
		if got, ok := d.RetryAfter(); got.Seconds() != c.retryAfter || ok != (c.retryAfter > 0) {
			t.Errorf("%s: retry after %d µs (%v), want %d s", c.message, got, ok, c.retryAfter)
		}
		if body := string(d.Body()); (body != "") != (c.message != "") || !strings.Contains(body, c.message) {
			t.Errorf("%s: body %s", c.message, body)
		}
	}
}

func TestBody(t *testing.T) {
	b := newBench(t, engine.Options{})
	b.clock.Advance(12_345_678)
	var d *engine.Decision
	for range 4 {
		d = b.ask(t, entries("user=alice"))
	}
	want := `{"type":"about:blank","title":"Too Many Requests","status":429,` +
		`"detail":"Rate limit reached: 3 requests per minute. Try again in 48 s.","error":"rate_limited",` +
		`"message":"Rate limit reached: 3 requests per minute. Try again in 48 s.","retry_after":48,` +
		`"reset_at":"2025-11-21T12:01:00Z","limit":3,"remaining":0,"name":"per-user"}`
	if got := string(d.Body()); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// Which descriptor the response headers quote, by the established contract.
func TestQuoted(t *testing.T) {
	s := func(limited, over, quota bool, remaining int64) engine.Status {
		return engine.Status{Limited: limited, Over: over, Quota: quota, Remaining: remaining}
	}
	cases := []struct {
		name     string
		statuses []engine.Status
		want     int
	}{
		{"no limit", []engine.Status{s(false, false, false, 0)}, -1},
		{"as much as can be written remains", []engine.Status{s(true, false, false, 1<<32-1)}, -1},
		{"the smallest remaining", []engine.Status{s(true, false, false, 5), s(true, false, false, 3), s(false, false, false, 0)}, 1},
		{"the first of equals", []engine.Status{s(true, false, false, 3), s(true, false, false, 3)}, 0},
		{"the last that refused", []engine.Status{s(true, true, false, 0), s(true, false, false, 0), s(true, true, false, 0)}, 2},
		{"a quota that refused is as any other", []engine.Status{s(true, false, false, 0), s(true, true, true, 0)}, 0},
	}
	for _, c := range cases {
		d := engine.Decision{Statuses: c.statuses}
		if got := d.Quoted(); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}

// broken is a store that fails, to see that its errors come through.
type broken struct{ err error }

func (b broken) Apply(context.Context, *store.Step, *store.Outcome) error { return b.err }
func (b broken) Ready(context.Context) error                              { return b.err }
func (b broken) Close() error                                             { return nil }

func TestBrokenStore(t *testing.T) {
	p, _, err := policy.Parse([]policy.Source{{Name: "rules.yaml", Data: []byte(rules)}}, policy.Options{})
	if err != nil {
		t.Fatal(err)
	}
	e := engine.New(broken{store.ErrUnavailable}, engine.Options{})
	e.SetPolicy(p)
	var d engine.Decision
	err = e.Decide(context.Background(), &engine.Request{Domain: "shop", Descriptors: []engine.Descriptor{entries("open=x"), entries("user=x")}}, &d)
	if !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("%v, want %v", err, store.ErrUnavailable)
	}
	// A request to which no limit applies does not need the store.
	err = e.Decide(context.Background(), &engine.Request{Domain: "shop", Descriptors: []engine.Descriptor{entries("open=x")}}, &d)
	if err != nil || say(&d) != "OK none" {
		t.Errorf("%s, %v, want OK none", say(&d), err)
	}
}

func BenchmarkDecide(b *testing.B) {
	for _, kind := range []struct {
		name        string
		bench       bench
		descriptors []engine.Descriptor
	}{
		{"rules", newBench(b, engine.Options{}), []engine.Descriptor{entries("user=alice"), entries("region=eu"), entries("tenant=a")}},
		{"limits", newModelBench(b), []engine.Descriptor{entries("user=paula"), entries("org=acme"), entries("login=x")}},
		{
			"rules, guarded,", newBench(b, engine.Options{StoreWait: time.Second}),
			[]engine.Descriptor{entries("user=alice"), entries("region=eu"), entries("tenant=a")},
		},
		{
			"limits, guarded,", newModelBenchWith(b, engine.Options{StoreWait: time.Second}),
			[]engine.Descriptor{entries("user=paula"), entries("org=acme"), entries("login=x")},
		},
	} {
		for _, n := range []int{1, 3} {
			b.Run(fmt.Sprintf("%s of %d descriptors", kind.name, n), func(b *testing.B) {
				request := &engine.Request{Domain: "shop", Descriptors: kind.descriptors[:n]}
				var d engine.Decision
				b.ReportAllocs()
				for b.Loop() {
					if err := kind.bench.Decide(context.Background(), request, &d); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
