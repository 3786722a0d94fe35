package engine_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/rationhq/ration/engine"
	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/price"
	"github.com/rationhq/ration/store"
	"github.com/rationhq/ration/subject"
)

const accounts = `
domain: llm
tiers:
  - { name: free, attributes: { max_output: 800 } }
  - { name: pro }
trust_tier: true
prices:
  book: none
  models:
    small: { input: "1.00", output: "2.00", cache_read: "0.50", cache_write: "1.00" }
    large: { input: "10.00", output: "20.00", cache_read: "1.00", cache_write: "10.00" }
    gift:  { input: "0", output: "0", cache_read: "0", cache_write: "0" }
limits:
  - { name: company, meter: cost, algorithm: fixed_window, limit: $1/hour }
descriptors:
  - key: user
    subject: true
    rate_limit: { unit: hour, requests_per_unit: 100, name: plain }
    limits:
      - name: requests
        meter: requests
        algorithm: fixed_window
        tiers: { free: { limit: 5/minute }, pro: { limit: 50/minute } }
      - name: tokens
        meter: tokens
        algorithm: calendar
        tiers: { free: { limit: 1_000/day, per_request: 1_000 }, pro: { limit: 10_000/day } }
      - name: in-flight
        meter: concurrency
        tiers: { free: { limit: 2 }, pro: { limit: 10 } }
    descriptors:
      - key: model
        value: large
        limits:
          - { name: large, meter: output_tokens, algorithm: sliding_log, limit: 500/hour }
upstreams:
  - name: provider
    models: [ small ]
    limits:
      - { name: itpm, meter: input_tokens, algorithm: token_bucket, rate: 6_000/minute, burst: 100_000 }
  - name: other
    models: [ large ]
    limits:
      - { name: otpm, meter: output_tokens, algorithm: fixed_window, limit: 100_000/hour }
`

func newAccounts(t testing.TB) bench { return newPolicyBench(t, accounts, engine.Options{}) }

// call makes a call of a model for alice.
func call(model string, input, output int64, more ...func(*engine.Call)) *engine.Call {
	c := &engine.Call{
		Caller: engine.Caller{Domain: "llm", Attributes: []policy.Entry{{Key: "user", Value: "alice"}}, Model: model},
		Usage:  price.Usage{Input: input, Output: output},
	}
	for _, change := range more {
		change(c)
	}
	return c
}

func key(k string) func(*engine.Call) { return func(c *engine.Call) { c.Key = k } }
func asPro(c *engine.Call)            { c.Tier = "pro" }

func (b bench) reserve(t testing.TB, c *engine.Call) *engine.Admission {
	t.Helper()
	var a engine.Admission
	if err := b.Reserve(context.Background(), c, &a); err != nil {
		t.Fatal(err)
	}
	return &a
}

func (b bench) settle(t testing.TB, a *engine.Admission, used price.Usage) *engine.Settlement {
	t.Helper()
	var s engine.Settlement
	if err := b.Settle(context.Background(), &engine.Report{ID: a.ID, Usage: used}, &s); err != nil {
		t.Fatal(err)
	}
	return &s
}

func expect(t testing.TB, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s:\n got %s\nwant %s", what, got, want)
	}
}

func TestReserveAndSettle(t *testing.T) {
	b := newAccounts(t)
	a := b.reserve(t, call("small", 100, 200))
	expect(t, "reserved", sayLimits(&a.Decision), "OK requests:0+1 tokens:0+300 in-flight:0+1 company:0+500000 itpm:0+100")
	if a.Estimate != (price.Usage{Input: 100, Output: 200}) || a.Cost != 500_000 || a.Expires != a.Now+5*60*limit.Second {
		t.Errorf("estimate %+v, cost %d, expires %v after %v", a.Estimate, a.Cost, a.Expires, a.Now)
	}
	if !a.Bounded || a.MaxOutput != 800 {
		t.Errorf("the longest output is %d, want the tier's 800", a.MaxOutput)
	}
	s := b.settle(t, a, price.Usage{Input: 90, CacheRead: 10, Output: 50})
	expect(t, "settled", sayLimits(&s.Decision), "OK requests:1 tokens:150 company:195000 itpm:90")
	if s.State != engine.StateSettled || s.Replayed || s.Cost != 195_000 {
		t.Errorf("state %d, replayed %t, cost %d", s.State, s.Replayed, s.Cost)
	}
	reserved := map[string]int64{"requests": 1, "tokens": 300, "company": 500_000, "itpm": 100}
	for i := range s.Limits {
		if l := &s.Limits[i]; l.Reserved != reserved[l.Limit.Name] {
			t.Errorf("%s had reserved %d, want %d", l.Limit.Name, l.Reserved, reserved[l.Limit.Name])
		}
	}
	expect(t, "the place is free again", sayLimits(&b.check(t, call("small", 0, 0)).Decision),
		"OK requests:1 tokens:150 in-flight:0 company:195000 itpm:90")
}

func (b bench) check(t testing.TB, c *engine.Call) *engine.Admission {
	t.Helper()
	var a engine.Admission
	if err := b.Check(context.Background(), c, &a); err != nil {
		t.Fatal(err)
	}
	return &a
}

// standing says how the limits stand for alice.
func (b bench) standing(t testing.TB, c *engine.Call) string {
	t.Helper()
	_, limits, _ := strings.Cut(sayLimits(&b.check(t, c).Decision), " ")
	return limits
}

func TestOverageIsDebt(t *testing.T) {
	b := newPolicyBench(t, `
domain: llm
descriptors: [ { key: user, subject: true, limits: [ { name: tokens, meter: tokens, algorithm: fixed_window, limit: 1_000/hour } ] } ]
`, engine.Options{})
	a := b.reserve(t, call("", 900, 0))
	s := b.settle(t, a, price.Usage{Input: 900, Output: 600})
	if l := s.Limits[0].Status; l.Used != 1500 || l.Held != 0 || l.Remaining != -500 {
		t.Errorf("used %d, held %d, remaining %d; want 1500, 0, -500", l.Used, l.Held, l.Remaining)
	}
	refused := b.reserve(t, call("", 100, 0))
	if wait, ok := refused.RetryAfter(); !refused.Over || !ok || wait != 3600*limit.Second {
		t.Errorf("refused %t, to wait %v: want the rest of the hour", refused.Over, wait)
	}
	b.clock.Advance(3600*limit.Second - 1)
	if !b.reserve(t, call("", 100, 0)).Over {
		t.Error("admitted a microsecond too early")
	}
	b.clock.Advance(1)
	if b.reserve(t, call("", 100, 0)).Over {
		t.Error("refused when it had waited")
	}
}

func TestStreamThatCrossesMidnight(t *testing.T) {
	b := newAccounts(t)
	b.clock.Advance(12*3600*limit.Second - limit.Second)
	a := b.reserve(t, call("small", 100, 500))
	b.clock.Advance(3 * limit.Second)
	b.settle(t, a, price.Usage{Input: 100, Output: 100})
	if got := b.standing(t, call("", 0, 0)); !strings.Contains(got, "tokens:0 ") {
		t.Errorf("of the new day: %s, want nothing of the tokens", got)
	}
}

// Calls of many users share the token bucket of a provider. Each holds its estimate there, and however they overlap, the
// bucket is left with what they have used.
func TestOverlappingCallsOfAProvider(t *testing.T) {
	b := newPolicyBench(t, `
domain: llm
descriptors: [ { key: user, subject: true, limits: [ { name: requests, meter: requests, algorithm: fixed_window, limit: 1_000/hour } ] } ]
upstreams:
  - name: provider
    models: [ small ]
    limits: [ { name: tpm, meter: tokens, algorithm: token_bucket, rate: 600/minute, burst: 15_000 } ]
`, engine.Options{})
	const calls = 50
	open := make([]*engine.Admission, calls)
	for i := range open {
		c := call("small", 100, 200)
		c.Attributes[0].Value = fmt.Sprint("user ", i)
		if open[i] = b.reserve(t, c); open[i].Over {
			t.Fatalf("call %d is refused", i)
		}
	}
	expect(t, "reserved", b.standing(t, call("small", 1, 0)), "requests:0 tpm:0+15000!")
	for _, i := range rand.New(rand.NewPCG(1, 2)).Perm(calls) {
		b.settle(t, open[i], price.Usage{Input: 10, Output: 20})
	}
	expect(t, "settled", b.standing(t, call("small", 1, 0)), "requests:0 tpm:1500")
}

func TestRelease(t *testing.T) {
	b := newAccounts(t)
	before := b.standing(t, call("small", 0, 0))
	a := b.reserve(t, call("small", 100, 200))
	var s engine.Settlement
	for _, replayed := range []bool{false, true} {
		if err := b.Release(context.Background(), a.ID, &s); err != nil {
			t.Fatal(err)
		}
		expect(t, "after the release", b.standing(t, call("small", 0, 0)), before)
		if s.Replayed != replayed || s.State != engine.StateSettled {
			t.Errorf("replayed %t, state %d", s.Replayed, s.State)
		}
	}
	err := b.Settle(context.Background(), &engine.Report{ID: a.ID, Usage: price.Usage{Input: 1}}, &s)
	if !errors.Is(err, engine.ErrKeyReused) {
		t.Errorf("settled after it was released: %v", err)
	}
}

func TestLapse(t *testing.T) {
	b := newAccounts(t)
	a := b.reserve(t, call("small", 100, 200, lasts(10*limit.Second)))
	b.clock.Advance(10 * limit.Second)
	expect(t, "lapsed: its request, and the tokens that it has sent", b.standing(t, call("small", 0, 0)),
		"requests:1 tokens:100 in-flight:0 company:100000 itpm:0")
	for _, replayed := range []bool{false, true} {
		s := b.settle(t, a, price.Usage{Input: 100, Output: 60})
		if s.Replayed != replayed || !replayed && s.State != engine.StateLapsed {
			t.Errorf("replayed %t, state %d", s.Replayed, s.State)
		}
		expect(t, "corrected once", b.standing(t, call("small", 0, 0)),
			"requests:1 tokens:160 in-flight:0 company:220000 itpm:0")
	}
	released := b.reserve(t, call("small", 100, 200, lasts(10*limit.Second)))
	b.clock.Advance(10 * limit.Second)
	var s engine.Settlement
	if err := b.Release(context.Background(), released.ID, &s); err != nil {
		t.Fatal(err)
	}
	expect(t, "released when it had lapsed", b.standing(t, call("small", 0, 0)),
		"requests:1 tokens:160 in-flight:0 company:220000 itpm:0")
}

func lasts(d limit.Micros) func(*engine.Call) { return func(c *engine.Call) { c.Lasts = d } }

func TestReserveByKey(t *testing.T) {
	b := newAccounts(t)
	first := b.reserve(t, call("small", 100, 200, key("k")))
	b.clock.Advance(limit.Second)
	again := b.reserve(t, call("small", 100, 200, key("k")))
	if !again.Replayed || again.ID != first.ID || again.Over {
		t.Errorf("repeated: %+v", again)
	}
	expect(t, "held once", sayLimits(&again.Decision), "OK requests:0+1 tokens:0+300 in-flight:0+1 company:0+500000 itpm:0")

	var a engine.Admission
	for name, other := range map[string]*engine.Call{
		"other usage":     call("small", 100, 201, key("k")),
		"another model":   call("large", 100, 200, key("k")),
		"more attributes": call("small", 100, 200, key("k"), attribute("org", "acme")),
		"a longer lease":  call("small", 100, 200, key("k"), lasts(3_600*limit.Second)),
	} {
		if err := b.Reserve(context.Background(), other, &a); !errors.Is(err, engine.ErrKeyReused) {
			t.Errorf("%s under the same key: %v", name, err)
		}
	}
	if a := b.reserve(t, call("small", 100, 200, key("k"), lasts(engine.DefaultLease))); !a.Replayed {
		t.Error("who names the usual lease asks for another call than who names none")
	}
	bob := call("small", 100, 200, key("k"))
	bob.Attributes = []policy.Entry{{Key: "user", Value: "bob"}}
	if a := b.reserve(t, bob); a.Replayed || a.ID == first.ID {
		t.Error("another subject's key is the same")
	}

	b.settle(t, first, price.Usage{Input: 1})
	if again := b.reserve(t, call("small", 100, 200, key("k"))); !again.Replayed || again.ID != first.ID {
		t.Error("a call that was settled is reserved again under its key")
	}

	if a := b.reserve(t, call("small", 0, 2_000, key("large"))); !a.Over {
		t.Fatal("admitted more than the limit")
	}
	if a := b.reserve(t, call("small", 0, 2, key("large"))); a.Over || a.Replayed {
		t.Error("a refusal has used its key up")
	}
}

// A call that is asked for again hears what is held for it, whatever a policy that came since would make of it.
func TestReserveByKeyUnderAnotherPolicy(t *testing.T) {
	const text = `
domain: llm
descriptors:
  - key: user
    subject: true
    limits: [ { name: tokens, meter: tokens, algorithm: fixed_window, limit: 5_000/hour, per_request: %s, clamp: true } ]
`
	b := newPolicyBench(t, fmt.Sprintf(text, "1_000"), engine.Options{})
	first := b.reserve(t, call("", 400, 700, key("k")))
	p, _, err := policy.Parse([]policy.Source{{Name: "p", Data: fmt.Appendf(nil, text, "800")}}, policy.Options{})
	if err != nil {
		t.Fatal(err)
	}
	b.SetPolicy(p)
	again := b.reserve(t, call("", 400, 700, key("k")))
	if !again.Replayed || !again.Clamped || again.Estimate != first.Estimate || again.Cost != first.Cost {
		t.Errorf("replayed %t, clamped %t: estimate %+v, was %+v", again.Replayed, again.Clamped, again.Estimate, first.Estimate)
	}
}

func attribute(k, v string) func(*engine.Call) {
	return func(c *engine.Call) { c.Attributes = append(c.Attributes, policy.Entry{Key: k, Value: v}) }
}

func TestSettleElsewhere(t *testing.T) {
	b := newAccounts(t)
	a := b.reserve(t, call("small", 100, 200))
	other := b.replica(t)
	s := other.settle(t, a, price.Usage{Input: 100, Output: 10})
	expect(t, "settled by another replica", sayLimits(&s.Decision), "OK requests:1 tokens:110 company:120000 itpm:100")
	if s.Limits[1].Reserved != 300 {
		t.Errorf("had reserved %d tokens", s.Limits[1].Reserved)
	}
	if again := b.settle(t, a, price.Usage{Input: 100, Output: 10}); !again.Replayed {
		t.Error("settled twice, by two replicas")
	}
}

// replica returns another engine over the same store, with the same policy.
func (b bench) replica(t testing.TB) bench {
	t.Helper()
	e := engine.New(b.store, engine.Options{})
	t.Cleanup(e.Close)
	p, _ := b.Policy()
	e.SetPolicy(p)
	return bench{e, b.clock, b.store}
}

func TestSettleUnknown(t *testing.T) {
	b := newAccounts(t)
	var s engine.Settlement
	report := engine.Report{ID: engine.ReservationID{1}, Usage: price.Usage{Input: 100}}
	if err := b.Settle(context.Background(), &report, &s); !errors.Is(err, engine.ErrUnknownReservation) {
		t.Errorf("nothing is known, and nothing is said: %v", err)
	}
	report.Caller = &call("small", 0, 0).Caller
	for _, replayed := range []bool{false, true} {
		if err := b.Settle(context.Background(), &report, &s); err != nil {
			t.Fatal(err)
		}
		if s.Replayed != replayed || !replayed && s.State != engine.StateRecorded || s.Cost != 100_000 {
			t.Errorf("replayed %t, state %d, cost %d", s.Replayed, s.State, s.Cost)
		}
		expect(t, "recorded once", sayLimits(&s.Decision), "OK requests:1 tokens:100 company:100000 itpm:100")
	}
}

func TestRecord(t *testing.T) {
	b := newAccounts(t)
	r := engine.Record{Caller: call("small", 0, 0).Caller, Usage: price.Usage{Input: 10, Output: 5_000}, Requests: 2}
	var s engine.Settlement
	for i := range 2 {
		if err := b.Record(context.Background(), &r, &s); err != nil || s.Replayed {
			t.Fatal(err, s.Replayed)
		}
		expect(t, "recorded without a key", sayLimits(&s.Decision),
			[]string{"OK requests:2 tokens:5010 company:10010000 itpm:10", "OK requests:4 tokens:10020 company:20020000 itpm:20"}[i])
	}
	r.Key = "batch"
	for _, replayed := range []bool{false, true} {
		if err := b.Record(context.Background(), &r, &s); err != nil || s.Replayed != replayed {
			t.Fatal(err, s.Replayed)
		}
		expect(t, "recorded once", sayLimits(&s.Decision), "OK requests:6 tokens:15030 company:30030000 itpm:30")
	}
	r.Requests = 3
	if err := b.Record(context.Background(), &r, &s); !errors.Is(err, engine.ErrKeyReused) {
		t.Errorf("another record under the same key: %v", err)
	}
	if a := b.reserve(t, call("", 0, 0, key("batch"), asPro)); a.Replayed {
		t.Error("the key of a record is that of a reservation")
	}
}

// What is sent again changes nothing, and is not counted again.
func TestRepeatsAreNotCounted(t *testing.T) {
	metrics := engine.NewMetrics()
	b := newPolicyBench(t, accounts, engine.Options{Metrics: metrics})
	r := engine.Record{Caller: call("small", 0, 0).Caller, Usage: price.Usage{Input: 10}, Requests: 1, Key: "k"}
	for range 3 {
		b.reserve(t, call("small", 100, 200, key("k")))
		if err := b.Record(context.Background(), &r, new(engine.Settlement)); err != nil {
			t.Fatal(err)
		}
	}
	for verdict, hits := range map[string]float64{"admitted": 300, "recorded": 10} {
		of := " domain=llm rule=llm.user.tokens verdict=" + verdict
		got := gather(t, metrics)
		if n, sum := got["ration_decisions_total"+of], got["ration_hits_total"+of]; n != 1 || sum != hits {
			t.Errorf("%s %v times, %v tokens in all, want once %v", verdict, n, sum, hits)
		}
	}
}

// What is reported again is told what it was charged, whatever the prices are by then.
func TestReportedAgainAfterPricesChanged(t *testing.T) {
	b := newAccounts(t)
	ctx := context.Background()
	used := price.Usage{Input: 100, Output: 10}
	r := engine.Record{Caller: call("small", 0, 0).Caller, Usage: used, Requests: 1, Key: "k"}
	a := b.reserve(t, call("small", 100, 200, asPro))
	c := call("small", 0, 0).Caller
	reports := map[string]func(*engine.Settlement) error{
		"a record": func(s *engine.Settlement) error { return b.Record(ctx, &r, s) },
		"a reservation that nobody knows": func(s *engine.Settlement) error {
			return b.Settle(ctx, &engine.Report{ID: engine.ReservationID{1}, Usage: used, Caller: &c}, s)
		},
		"a reservation that another model served": func(s *engine.Settlement) error {
			return b.Settle(ctx, &engine.Report{ID: a.ID, Usage: used, Model: "large"}, s)
		},
	}
	first := make(map[string]engine.Settlement)
	for name, report := range reports {
		var s engine.Settlement
		if err := report(&s); err != nil || s.Replayed {
			t.Fatal(name, err, s.Replayed)
		}
		first[name] = s
	}
	dearer := strings.NewReplacer(`input: "1`, `input: "7`).Replace(accounts)
	p, _, err := policy.Parse([]policy.Source{{Name: "llm.yaml", Data: []byte(dearer)}}, policy.Options{})
	if err != nil {
		t.Fatal(err)
	}
	b.SetPolicy(p)
	for name, report := range reports {
		for range 2 {
			var s engine.Settlement
			if err := report(&s); err != nil || !s.Replayed {
				t.Fatal(name, err, s.Replayed)
			}
			if f := first[name]; s.Cost != f.Cost || s.Price != f.Price {
				t.Errorf("%s: charged %d by %+v, and told %d by %+v when it was repeated", name, f.Cost, f.Price, s.Cost, s.Price)
			}
			for _, l := range s.Limits {
				if l.Limit.Meter == policy.Cost && l.Amount != int64(s.Cost) {
					t.Errorf("%s: limit %s says %d, of %d", name, l.Limit.Name, l.Amount, s.Cost)
				}
			}
		}
	}
}

func TestServedByAnotherModel(t *testing.T) {
	b := newAccounts(t)
	a := b.reserve(t, call("large", 100, 200))
	expect(t, "reserved", sayLimits(&a.Decision),
		"OK requests:0+1 tokens:0+300 in-flight:0+1 large:0+200 company:0+5000000 otpm:0+200")
	var s engine.Settlement
	err := b.Settle(context.Background(), &engine.Report{ID: a.ID, Usage: price.Usage{Input: 100, Output: 10}, Model: "small"}, &s)
	if err != nil {
		t.Fatal(err)
	}
	expect(t, "settled at the price of the small one, and at its provider", sayLimits(&s.Decision),
		"OK requests:1 tokens:110 large:10 company:120000 itpm:100 otpm:0")
	metrics := engine.NewMetrics()
	b = newPolicyBench(t, accounts, engine.Options{Metrics: metrics})
	a = b.reserve(t, call("large", 100, 200))
	err = b.Settle(context.Background(), &engine.Report{ID: a.ID, Usage: price.Usage{Input: 100, Output: 10}, Model: "unheard"}, &s)
	if err != nil {
		t.Fatal(err)
	}
	if n := gather(t, metrics)["ration_unpriced_usage_total cause=unknown_model domain=llm"]; n != 1 {
		t.Errorf("counted %v times without a price", n)
	}
	if s.Unpriced != "unheard" || s.Cost != 1_200_000 {
		t.Errorf("unpriced %q, cost %d: want the price that was reserved", s.Unpriced, s.Cost)
	}
}

func TestModelWithoutPrice(t *testing.T) {
	b := newAccounts(t)
	a := b.reserve(t, call("smal", 1, 1))
	if a.Verdict() != engine.Blocked || !strings.Contains(a.Message(), "Did you mean small?") {
		t.Errorf("%v: %s", a.Verdict(), a.Message())
	}
	if got := b.standing(t, call("small", 0, 0)); got != "requests:0 tokens:0 in-flight:0 company:0 itpm:0" {
		t.Errorf("a call that was refused has charged %s", got)
	}
	a = b.reserve(t, call("gift", 100, 100))
	expect(t, "a model that costs nothing", sayLimits(&a.Decision), "OK requests:0+1 tokens:0+200 in-flight:0+1")
}

func TestTooLarge(t *testing.T) {
	b := newAccounts(t)
	a := b.reserve(t, call("small", 400, 700))
	if a.Verdict() != engine.Impossible || a.MaxOutput != 600 {
		t.Errorf("%v, at most %d: want 600 beside 400 of 1,000", a.Verdict(), a.MaxOutput)
	}
	expect(t, "its words", a.Message(),
		"Request too large: 1,100 tokens, 1,000 per request on the free plan. At most 600 output tokens would fit.")
	b.reserve(t, call("small", 400, 300))
	a = b.reserve(t, call("small", 100, 300))
	if a.Verdict() != engine.Throttled || a.MaxOutput != 200 { // it would fit without what is held
		t.Errorf("%v, at most %d: want 200 beside 100 of the 300 that are left", a.Verdict(), a.MaxOutput)
	}
	a = b.reserve(t, call("small", 100, 200))
	if a.Verdict() != engine.Admitted || a.MaxOutput != 200 {
		t.Errorf("%v, at most %d: what it holds is room for it", a.Verdict(), a.MaxOutput)
	}
}

func TestClamp(t *testing.T) {
	b := newPolicyBench(t, `
domain: llm
descriptors:
  - key: user
    subject: true
    limits: [ { name: tokens, meter: tokens, algorithm: fixed_window, limit: 5_000/hour, per_request: 1_000, clamp: true } ]
`, engine.Options{})
	a := b.reserve(t, call("", 400, 700))
	expect(t, "clamped", sayLimits(&a.Decision), "OK tokens:0+1000")
	if !a.Clamped || a.MaxOutput != 600 || a.Estimate.Output != 600 {
		t.Errorf("clamped %t, at most %d, estimate %+v", a.Clamped, a.MaxOutput, a.Estimate)
	}
	if a := b.reserve(t, call("", 1_000, 1)); a.Verdict() != engine.Impossible || a.Clamped {
		t.Errorf("%v, clamped %t: no output fits beside the prompt", a.Verdict(), a.Clamped)
	}
	if a := b.reserve(t, call("", 400, 600)); a.Over || a.Clamped {
		t.Errorf("clamped %t what fits", a.Clamped)
	}
}

func TestEstimateOfAPrompt(t *testing.T) {
	b := newAccounts(t)
	prompt := func(model string, p price.Prompt, more ...func(*engine.Call)) *engine.Call {
		return call(model, 0, 0, append(more, func(c *engine.Call) { c.Prompt = &p })...)
	}
	for _, tc := range []struct {
		name string
		call *engine.Call
		want price.Usage
	}{
		{"the largest cap", prompt("small", price.Prompt{Characters: 401, OutputCaps: []int64{1, 50}}), price.Usage{Input: 101, Output: 50}},
		{"answers", prompt("small", price.Prompt{Tokens: 10, OutputCaps: []int64{50}, Choices: []int64{3}}), price.Usage{Input: 10, Output: 150}},
		{"the cap of the tier", prompt("gpt-4o", price.Prompt{Tokens: 10}), price.Usage{Input: 10, Output: 800}},
		{"the model's own", prompt("gpt-4o", price.Prompt{Tokens: 10}, asPro), price.Usage{Input: 10, Output: 16_384}},
	} {
		if a := b.check(t, tc.call); a.Estimate != tc.want {
			t.Errorf("%s: %+v, want %+v", tc.name, a.Estimate, tc.want)
		}
	}
	var a engine.Admission
	err := b.Check(context.Background(), prompt("unheard", price.Prompt{Tokens: 10}, asPro), &a)
	var invalid *engine.InvalidError
	if !errors.As(err, &invalid) || invalid.Field != "estimate.prompt.output_caps" {
		t.Errorf("nobody knows how long it may be: %v", err)
	}
}

func TestPlainRulesCountCalls(t *testing.T) {
	b := newPolicyBench(t, `
domain: llm
descriptors:
  - key: user
    subject: true
    rate_limit: { unit: hour, requests_per_unit: 2 }
    limits: [ { name: tokens, meter: tokens, algorithm: fixed_window, limit: 1_000/hour } ]
`, engine.Options{})
	for i, over := range []bool{false, false, true} {
		if a := b.check(t, call("", 1, 1)); a.Over != over {
			t.Errorf("check %d: refused %t", i, a.Over)
		}
		if a := b.reserve(t, call("", 1, 1)); a.Over != over {
			t.Errorf("call %d: refused %t", i, a.Over)
		} else if listing := a.Listing(); len(listing) != 2 || listing[0].Status == nil {
			t.Errorf("call %d: %+v are listed, want the rule first, of which less is left", i, listing)
		}
	}
}

func TestWhatEnvoyEnds(t *testing.T) {
	b := newAccounts(t)
	a := b.reserve(t, call("small", 100, 200, key("req-1")))
	d := b.askIn(t, "llm", hits(90, "user=alice", "ration.meter=input_tokens", "ration.phase=record", "ration.request=req-1", "ration.model=small"),
		hits(40, "user=alice", "ration.meter=output_tokens", "ration.phase=record", "ration.request=req-1", "ration.model=small"))
	if d.Over {
		t.Fatal("a report is refused")
	}
	expect(t, "settled through Envoy", b.standing(t, call("small", 0, 0)), "requests:1 tokens:130 in-flight:0 company:170000 itpm:90")
	var s engine.Settlement
	err := b.Settle(context.Background(), &engine.Report{ID: a.ID, Usage: price.Usage{Input: 90, Output: 40}}, &s)
	if !errors.Is(err, engine.ErrKeyReused) {
		t.Errorf("settled a second time: %v", err)
	}
}

func TestCallsThatCannotBeRead(t *testing.T) {
	b := newAccounts(t)
	for _, tc := range []struct {
		call  *engine.Call
		field string
	}{
		{call("", 1, 1, func(c *engine.Call) { c.Domain = "" }), "caller.domain"},
		{call("", 1, 1, attribute("", "x")), "caller.attributes"},
		{call("", 1, 1, attribute("ration.tier", "pro")), `caller.attributes["ration.tier"]`},
		{call("", 1, 1, attribute("note", strings.Repeat("x", engine.MaxAttributes))), "caller"},
		{call("", -1, 1), "estimate.usage.input_tokens"},
		{call("", 1, limit.MaxAmount+1), "estimate.usage.output_tokens"},
		{call("", 1, 1, key(strings.Repeat("x", engine.MaxKey+1))), "idempotency_key"},
		{call("", 1, 1, lasts(engine.MaxLease+1)), "lease"},
		{call("", 1, 1, lasts(1)), "lease"},
		{call("", 1, 1, func(c *engine.Call) { c.Prompt = &price.Prompt{Tokens: -1} }), "estimate.prompt"},
	} {
		var a engine.Admission
		err := b.Reserve(context.Background(), tc.call, &a)
		var invalid *engine.InvalidError
		if !errors.As(err, &invalid) || invalid.Field != tc.field {
			t.Errorf("want an error that names %s, got %v", tc.field, err)
		}
	}
	many := call("", 1, 1)
	for i := range 64 {
		many.Attributes = append(many.Attributes, policy.Entry{Key: strings.Repeat("k", i+1)})
	}
	var a engine.Admission
	var invalid *engine.InvalidError
	if err := b.Reserve(context.Background(), many, &a); !errors.As(err, &invalid) || invalid.Field != "caller.attributes" {
		t.Errorf("65 attributes: %v", err)
	}
	if err := b.Reserve(context.Background(), call("", 1, 1, func(c *engine.Call) { c.Domain = "shop" }), &a); !errors.Is(err, engine.ErrUnknownDomain) {
		t.Errorf("a domain without a policy: %v", err)
	}
	expect(t, "nothing was charged", b.standing(t, call("small", 0, 0)), "requests:0 tokens:0 in-flight:0 company:0 itpm:0")
}

func TestParallelReserves(t *testing.T) {
	b := newPolicyBench(t, `
domain: llm
descriptors: [ { key: user, subject: true, limits: [ { name: budget, meter: tokens, algorithm: fixed_window, limit: 500/day } ] } ]
`, engine.Options{})
	var admitted atomic.Int64
	var callers sync.WaitGroup
	for range 1000 {
		callers.Go(func() {
			var a engine.Admission
			if err := b.Reserve(context.Background(), call("", 75, 0), &a); err != nil {
				t.Error(err)
			} else if !a.Over {
				admitted.Add(1)
			}
		})
	}
	callers.Wait()
	if n := admitted.Load(); n != 6 {
		t.Errorf("%d of 1,000 calls of 75 tokens were admitted to a budget of 500, want 6", n)
	}
}

func TestNothingEstimatedNeedsRoomToo(t *testing.T) {
	b := newAccounts(t)
	b.settle(t, b.reserve(t, call("small", 0, 1_000)), price.Usage{Output: 1_000})
	if a := b.reserve(t, call("small", 0, 0)); a.Verdict() != engine.Exhausted {
		t.Errorf("%v, although no token is left", a.Verdict())
	}
}

func TestAccountsWithoutStore(t *testing.T) {
	b := newAccounts(t)
	broken := &faulty{Store: b.store}
	e := engine.New(broken, engine.Options{})
	p, _ := b.Policy()
	e.SetPolicy(p)
	out := bench{e, b.clock, broken}
	before := out.reserve(t, call("small", 100, 100, asPro))

	broken.set(store.ErrUnavailable, false)
	var a engine.Admission
	if err := out.Reserve(context.Background(), call("small", 100, 100), &a); err != nil || a.Verdict() != engine.Unavailable {
		t.Errorf("%v, %v: money is not spent unseen", a.Verdict(), err)
	}
	var s engine.Settlement
	report := engine.Report{ID: before.ID, Usage: price.Usage{Input: 100}}
	if err := out.Settle(context.Background(), &report, &s); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("a settlement that nobody has kept: %v", err)
	}
	broken.set(nil, false)
	if s := out.settle(t, before, price.Usage{Input: 100}); s.State != engine.StateSettled || s.Replayed {
		t.Errorf("sent again: state %d, replayed %t", s.State, s.Replayed)
	}
}

func TestReservationsMadeWithoutStore(t *testing.T) {
	for answer, want := range map[string]engine.Verdict{"allow": engine.Admitted, "deny": engine.Unavailable} {
		t.Run(answer, func(t *testing.T) {
			b := newPolicyBench(t, `
domain: llm
descriptors:
  - key: user
    subject: true
    limits: [ { name: tokens, meter: tokens, algorithm: fixed_window, limit: 1_000/day, on_store_error: `+answer+` } ]
`, engine.Options{})
			broken := &faulty{Store: b.store}
			broken.set(store.ErrUnavailable, false)
			e := engine.New(broken, engine.Options{})
			p, _ := b.Policy()
			e.SetPolicy(p)
			out := bench{e, b.clock, broken}
			a := out.reserve(t, call("", 100, 100))
			if a.Verdict() != want || a.Degraded.String() != answer {
				t.Fatalf("%v, %s", a.Verdict(), a.Degraded)
			}
			if a.Over {
				return
			}
			broken.set(nil, false)
			if s := out.settle(t, a, price.Usage{Input: 50}); s.State != engine.StateRecorded || s.Limits[0].Status.Used != 50 {
				t.Errorf("state %d, used %d: what the store did not hold is recorded", s.State, s.Limits[0].Status.Used)
			}
		})
	}
}

// A call that was admitted stays so when it is asked for again, whatever would refuse it by now.
func TestReserveByKeyOfWhatIsRefusedSince(t *testing.T) {
	for name, change := range map[string]func(bench, *people){
		"too large by now": func(b bench, _ *people) {
			b.SetPolicy(parsed(t, strings.Replace(accounts, "per_request: 1_000", "per_request: 100", 1)))
		},
		"without a price": func(b bench, _ *people) { b.SetPolicy(parsed(t, strings.Replace(accounts, "small:", "other:", 1))) },
		"suspended":       func(_ bench, p *people) { p.known["alice"].Suspended = true },
	} {
		t.Run(name, func(t *testing.T) {
			b, people := knowing(t, "", subject.Subject{Name: "alice"})
			first := b.reserve(t, call("small", 100, 200, key("k")))
			change(b, people)
			again := b.reserve(t, call("small", 100, 200, key("k")))
			if again.Over || !again.Replayed || again.ID != first.ID || again.Verdict() != engine.Admitted {
				t.Errorf("over %t (%v: %s), replayed %t", again.Over, again.Verdict(), again.Message(), again.Replayed)
			}
			for i := range again.Limits {
				if l := &again.Limits[i]; l.Over || l.TooLarge || l.Unpriced != "" {
					t.Errorf("%s refuses", l.Limit.Path)
				}
			}
			if other := b.reserve(t, call("small", 100, 201)); !other.Over {
				t.Error("another call is admitted, so that nothing was tested")
			}
		})
	}
}

// Nobody gets around limits of money by leaving the model out.
func TestCallsOfNoModel(t *testing.T) {
	without := func(unknown string) bench {
		return newPolicyBench(t, strings.Replace(accounts, "prices:\n", "prices:\n  unknown_model: "+unknown+"\n", 1), engine.Options{})
	}
	b := without("deny")
	a := b.reserve(t, call("", 100, 100))
	if a.Verdict() != engine.Blocked || !strings.Contains(a.Message(), "which model") {
		t.Errorf("%v: %s", a.Verdict(), a.Message())
	}
	if a := b.reserve(t, call("", 0, 0)); a.Over {
		t.Errorf("nothing is to be paid: %s", a.Message())
	}
	var s engine.Settlement
	if err := b.Record(context.Background(), &engine.Record{Caller: call("", 0, 0).Caller, Usage: price.Usage{Input: 5}, Requests: 1}, &s); err != nil {
		t.Fatal(err)
	}
	if warnings := strings.Join(s.Warnings(), " "); s.Cost != 0 || !strings.Contains(warnings, "no money was charged") {
		t.Errorf("recorded for %d, and told %q", s.Cost, warnings)
	}
	if a := without("assume_max").reserve(t, call("", 100, 100)); a.Over || a.Cost != 3_000_000 {
		t.Errorf("over %t, cost %d: want that of the dearest", a.Over, a.Cost)
	}
	if a := without("allow").reserve(t, call("", 100, 100)); a.Over || a.Cost != 0 {
		t.Errorf("over %t, cost %d: want it for nothing", a.Over, a.Cost)
	}
}

func parsed(t testing.TB, text string) *policy.Policy {
	t.Helper()
	p, warnings, err := policy.Parse([]policy.Source{{Name: "llm.yaml", Data: []byte(text)}}, policy.Options{})
	if err != nil {
		t.Fatal(err, warnings)
	}
	return p
}
