package policy

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/rationhq/ration/limit"
)

// overridden is a policy with a limit of each kind. For the tier "max" they are unlimited.
const overridden = `
domain: d
anonymous: deny
tiers: [{name: free}, {name: max}]
descriptors:
- key: user
  subject: true
  limits:
  - {name: burst, tiers: {free: {rate: 10/minute, burst: 5, message: Slow down.}, max: unlimited}}
  - {name: rate, rate: 10/minute, tiers: {max: unlimited}}
  - {name: log, algorithm: sliding_log, limit: 5/day, per_request: 2, tiers: {max: unlimited}}
  - {name: window, meter: tokens, algorithm: sliding_window, limit: 5k/90m, on_store_error: local, local_share: 20%, tiers: {max: unlimited}}
  - {name: first, algorithm: fixed_window, starts: first_use, limit: 10/hour, ceiling: 50%, warn_at: [80%, 100%], tiers: {max: unlimited}}
  - {name: amount, algorithm: fixed_window, limit: 10/hour, ceiling: 4, tiers: {max: unlimited}}
  - {name: spend, meter: cost, limit: $5/month, time_zone: subject, warn_at: 80%, tiers: {max: unlimited}}
  - {name: daily, algorithm: calendar, limit: 5/day, tiers: {max: unlimited}}
  - {name: places, meter: concurrency, limit: 3, tiers: {max: unlimited}}
  - {name: closed, algorithm: fixed_window, limit: 0/hour, ceiling: 0, tiers: {max: unlimited}}
  - {name: nothing, algorithm: fixed_window, limit: unlimited}
`

func overriddenLimits(t *testing.T) *Policy {
	t.Helper()
	p, failures, _ := parse(t, strings.TrimPrefix(overridden, "\n"), Options{})
	if failures != "" {
		t.Fatal(failures)
	}
	return p
}

// limitNamed returns a limit of the policy.
func limitNamed(p *Policy, name string) *Limit {
	for _, l := range p.Limits() {
		if l.Name == name {
			return l
		}
	}
	return nil
}

// allowed describes a quantity in full.
func allowed(q *Quantity) string {
	if q == nil {
		return "unlimited"
	}
	says := compiled(&Limit{Periods: Periods{quantities: []*Quantity{q}}}, 1)
	if q.Local != (limit.Spec{}) {
		says += fmt.Sprintf(", local %d leaving %d", max(q.Local.Limit, q.Local.Burst), q.Local.Headroom)
	}
	if len(q.Warnings()) > 0 {
		says += fmt.Sprintf(", warnings %d", q.Warnings())
	}
	if q.Message != "" {
		says += ", " + q.Message
	}
	return says
}

// An override says of one subject what policies say of a tier; what it does not say stays.
func TestOverrides(t *testing.T) {
	p := overriddenLimits(t)
	for _, c := range []struct{ limit, text, free, unlimited string }{
		{"burst", "200/minute", "token_bucket 200 burst 5 per 1m0s, Slow down.", "token_bucket 200 burst 200 per 1m0s"},
		{"burst", " 200 per 60s ", "token_bucket 200 burst 5 per 1m0s, Slow down.", "token_bucket 200 burst 200 per 1m0s"},
		{"burst", "{ rate: 100/minute, burst: 20 }", "token_bucket 100 burst 20 per 1m0s, Slow down.", "token_bucket 100 burst 20 per 1m0s"},
		{"burst", "burst: 20\nper_request: 7", "token_bucket 10 burst 20 per 1m0s at most 7, Slow down.", ""},
		{"burst", "0/minute", "token_bucket 0 burst 5 per 1m0s, Slow down.", "token_bucket 0 burst 0 per 1m0s"},
		{"rate", "200/minute", "token_bucket 200 burst 200 per 1m0s", "token_bucket 200 burst 200 per 1m0s"},
		{"rate", "{burst: 20}", "token_bucket 10 burst 20 per 1m0s", ""},
		{"log", "100/24h", "sliding_log 100 per 24h0m0s at most 2", "sliding_log 100 per 24h0m0s"},
		{"log", "{limit: 100/day, per_request: 50}", "sliding_log 100 per 24h0m0s at most 50", "sliding_log 100 per 24h0m0s at most 50"},
		{"window", "10k/1h30m", "sliding_window 10000 per 1h30m0s, local 2000 leaving 0", "sliding_window 10000 per 1h30m0s, local 2000 leaving 0"},
		{"first", "21/hour", "fixed_window 21 per 1h0m0s from first use leaving 11, warnings [8 10]", "fixed_window 21 per 1h0m0s from first use, warnings [17 21]"},
		{"amount", "21/hour", "fixed_window 21 per 1h0m0s leaving 13", "fixed_window 21 per 1h0m0s"},
		{"spend", "$50/month", "calendar 50000000000 per month, warnings [40000000000]", "calendar 50000000000 per month, warnings [40000000000]"},
		{"spend", "$0/month", "calendar 0 per month", "calendar 0 per month"},
		{"daily", "7/day", "calendar 7 per day", "calendar 7 per day"},
		{"places", "7", "concurrency 7", "concurrency 7"},
		{"places", "{limit: 7}", "concurrency 7", "concurrency 7"},
		{"places", "unlimited", "unlimited", "unlimited"},
		{"burst", "{rate: unlimited}", "unlimited", "unlimited"},
		{"nothing", "unlimited", "unlimited", "unlimited"},
	} {
		l := limitNamed(p, c.limit)
		for tier, want := range []string{c.free, c.unlimited} {
			if want == "" {
				continue
			}
			before := allowed(l.For(tier))
			q, err := l.Override(c.text, l.For(tier))
			if err != nil {
				t.Errorf("%s by %q: %v", c.limit, c.text, err)
				continue
			}
			if got := allowed(q); got != want {
				t.Errorf("%s by %q\nis   %s\nwant %s", c.limit, c.text, got, want)
			}
			if allowed(l.For(tier)) != before {
				t.Errorf("%s by %q has changed what all others are allowed", c.limit, c.text)
			}
		}
	}
}

// What cannot be an override says what it has to be.
func TestOverrideErrors(t *testing.T) {
	p := overriddenLimits(t)
	for _, c := range []struct{ limit, text, want string }{
		{"burst", "200/hour", "limit ´burst´: it counts per minute, and so must an override, so that what was used is kept: write 200/minute, not per hour"},
		{"window", "10k/hour", "limit ´window´: it counts per 1 hour 30 minutes, and so must an override, so that what was used is kept: write 10000/1hour30minutes, not per hour"},
		{"spend", "$50/year", "limit ´spend´: it counts per month, and so must an override, so that what was used is kept: write $50.00/month, not per year"},
		{"daily", "50/month", "limit ´daily´: it counts per day, and so must an override, so that what was used is kept: write 50/day, not per month"},
		{"daily", "50/36h", "limit ´daily´: a calendar has periods of one minute, hour, day, week, month or year, not of ´36h´"},
		{"spend", "50/month", "limit ´spend´: cost is counted in dollars: write $50/month"},
		{"rate", "$50/minute", "limit ´rate´: $50.00 is money, and its meter is requests: write the number alone, or ´meter: cost´"},
		{"rate", "50", "limit ´rate´: 50 in what time? Write it as 50/minute"},
		{"places", "5/minute", "limit ´places´: concurrency counts what is in flight at the same time, in no window: write the number alone"},
		{"rate", "{limit: 5/minute}", "limit ´rate´: a token_bucket has a rate: write ´rate: 10/minute´, and ´burst´ for what may come at once"},
		{"daily", "{rate: 5/day}", "limit ´daily´: a ´rate´ is only for token_bucket: a calendar has a ´limit´"},
		{"daily", "{limit: 5/day, burst: 5}", "limit ´daily´: a ´burst´ is only for token_bucket"},
		{"places", "{limit: 5, per_request: 1}", "limit ´places´: a request takes one place, so there is no ´per_request´"},
		{"log", "10_001/day", "limit ´log´: a sliding_log remembers every unit, 10000 at most: take sliding_window, which remembers two numbers"},
		{"rate", "{rate: 5/minute, burst: 0}", "limit ´rate´: a burst of 0 admits nothing, whatever the rate: write at least 1"},
		{"log", "{limit: 5/day, per_request: 0}", "limit ´log´: a ´per_request´ of 0 refuses everything: a limit of 0 says that more clearly"},
		{"log", "{limit: unlimited, per_request: 5}", "limit ´log´: nothing stands beside unlimited: give a large limit if single requests are to be capped"},
		{"rate", "{rate: 5/minute, brust: 5}", "unknown key ´brust´ in an override: it has limit, or rate and burst, and per_request (did you mean ´burst´?)"},
		{"rate", "{rate: 5/minute, tiers: {}}", "unknown key ´tiers´ in an override: it has limit, or rate and burst, and per_request"},
		{"rate", "{rate: x, burst: y}", "´rate´: ´x´ is no amount: write it as 10, 50_000, 5M, or the word unlimited; ´burst´: ´y´ is no amount: write it as 10, 50_000, 5M, or the word unlimited"},
		{"rate", "rate 100/minute burst 20", "´rate´: ´rate 100´ is no amount: write it as 10, 50_000, 5M, or the word unlimited"},
		{"rate", "Unlimited", "´rate´: ´Unlimited´ is written unlimited"},
		{"rate", "[5/minute]", "´rate´ must be text, not a list"},
		{"rate", "{rate: 5/minute", "yaml: line 1: did not find expected ',' or '}'"},
		{"rate", "5/minute\n---\n7/minute", "a second document in the file is ignored: write one domain per file"},
		{"rate", "", "limit ´rate´: an override is missing: write it as 200/minute"},
		{"rate", strings.Repeat(" ", 1001), "limit ´rate´: an override has at most 1000 bytes"},
		{"nothing", "5/hour", "limit ´nothing´: it is unlimited for everybody, so that nothing says in which window an override counts"},
	} {
		l := limitNamed(p, c.limit)
		q, err := l.Override(c.text, l.For(0))
		if q != nil || err == nil || err.Error() != expected(c.want) {
			t.Errorf("%s by %q is %s, and\n%v\nwant\n%s", c.limit, c.text, allowed(q), err, expected(c.want))
		}
	}
	l := limitNamed(p, "rate")
	const want = "limit `rate`: it is unlimited for the tier, so an override says how much: write it as 200/minute"
	if q, err := l.Override("{burst: 5}", nil); q != nil || err == nil || err.Error() != want {
		t.Errorf("a burst alone is %s, and %v, want %s", allowed(q), err, want)
	}
}

// An override counts where the subject's own periods do.
func TestOverrideInPeriods(t *testing.T) {
	l := limitNamed(overriddenLimits(t), "spend")
	tokyo, err := time.LoadLocation("Asia/Tokyo")
	if err != nil {
		t.Fatal(err)
	}
	periods := l.PeriodsFor(tokyo, 0)
	for tier := range 2 {
		q, err := periods.Override("$7/month", periods.For(tier))
		if err != nil {
			t.Fatal(err)
		}
		if got := q.Spec.Calendar.String(); got != "month;Asia/Tokyo;1" {
			t.Errorf("tier %d: the override counts from %s", tier, got)
		}
	}
}

// A grant is added to what the tier, or an override, allows.
func TestRaised(t *testing.T) {
	p := overriddenLimits(t)
	for _, c := range []struct {
		limit string
		by    int64
		want  string
	}{
		{"burst", 100, "token_bucket 10 burst 105 per 1m0s, Slow down."},
		{"burst", limit.MaxAmount, "token_bucket 10 burst 9007199254740991 per 1m0s, Slow down."},
		{"log", 100, "sliding_log 105 per 24h0m0s at most 2"},
		{"log", limit.MaxAmount, "sliding_log 10000 per 24h0m0s at most 2"},
		{"window", 5_000, "sliding_window 10000 per 1h30m0s, local 2000 leaving 0"},
		{"first", 11, "fixed_window 21 per 1h0m0s from first use leaving 11, warnings [8 10]"},
		{"amount", 5, "fixed_window 15 per 1h0m0s leaving 9"},
		{"spend", 5_000_000_000, "calendar 10000000000 per month, warnings [8000000000]"},
		{"daily", limit.MaxAmount, "calendar 9007199254740991 per day"},
		{"places", 2, "concurrency 5"},
		{"places", 0, "concurrency 3"},
		{"places", -1, "concurrency 3"},
		{"closed", 5, "fixed_window 5 per 1h0m0s leaving 5"},
		{"nothing", 5, "unlimited"},
	} {
		q := limitNamed(p, c.limit).For(0)
		before := allowed(q)
		if got := allowed(q.Raised(c.by)); got != c.want {
			t.Errorf("%s raised by %d\nis   %s\nwant %s", c.limit, c.by, got, c.want)
		}
		if allowed(q) != before {
			t.Errorf("%s has changed what all others are allowed", c.limit)
		}
	}
}

// Warnings are due from parts of what may be used, rounded up so that none is due before anything is.
func TestWarningsAreDueFrom(t *testing.T) {
	for entry, want := range map[string]string{
		"limit: 10/month, warn_at: [100%, 80%]":                           "[8 10]",
		"limit: 3/month, warn_at: [0.01%, 50%, 66.67%, 99.99%]":           "[1 2 3]",
		"limit: 1/month, warn_at: [1%, 100%]":                             "[1]",
		"limit: 10/month, ceiling: 50%, warn_at: [50%, 100%]":             "[3 5]",
		"limit: 0/month, warn_at: 80%":                                    "[]",
		"limit: 10/month":                                                 "[]",
		"limit: 9007199254740991/month, warn_at: [99.99%, 100%]":          "[9006298534815517 9007199254740991]",
		"limit: $1/month, meter: cost, warn_at: 33.33%":                   "[333300000]",
		"algorithm: fixed_window, limit: 10/hour, warn_at: 85%":           "[9]",
		"algorithm: sliding_window, limit: 10/hour, warn_at: [80%, 100%]": "[]",
	} {
		p, failures, _ := parse(t, "domain: d\nlimits: [{name: x, "+entry+"}]", Options{})
		if failures != "" {
			t.Fatal(failures)
		}
		if got := fmt.Sprint(p.Limits()[0].For(0).Warnings()); got != want {
			t.Errorf("%s: warnings at %s, want %s", entry, got, want)
		}
	}
}

// Whatever is given to one subject can be used, counts where the limit does, and is worth what was given.
func TestGrantsAndOverridesAreUsable(t *testing.T) {
	p := overriddenLimits(t)
	used := 0
	rapid.Check(t, func(t *rapid.T) {
		l := rapid.SampledFrom(p.Limits()).Draw(t, "limit")
		base := l.For(rapid.IntRange(0, 1).Draw(t, "tier"))
		text := rapid.SampledFrom([]string{
			"0/minute", "7/minute", "7/day", "9007199254740991/day", "$9/month", "$0.000000001/month", "7/90m", "7/hour", "7", "unlimited",
			"{rate: 7/minute, burst: 3}", "{limit: 7/day, per_request: 3}", "{per_request: 9007199254740991}", "{burst: 9007199254740991}", "~", "x",
		}).Draw(t, "text")
		q, err := l.Override(text, base)
		if err != nil {
			if q != nil || strings.TrimSpace(err.Error()) == "" {
				t.Fatalf("%q: %v", text, err)
			}
			q = base
		}
		by := rapid.Int64Range(1, limit.MaxAmount).Draw(t, "by")
		raised := q.Raised(by)
		if q == nil {
			if raised != nil {
				t.Fatal("more than unlimited is limited")
			}
			return
		}
		used++
		for _, q := range []*Quantity{q, raised} {
			if err := q.Spec.Validate(); err != nil {
				t.Fatalf("%s: %v", l.Name, err)
			}
			if !strings.HasSuffix(nameOf(&l.Periods), string(kind(l.Name, &q.Spec))) {
				t.Fatalf("%s counts in %s", l.Name, kind(l.Name, &q.Spec))
			}
			if q.localShare > 0 && q.Local.Validate() != nil {
				t.Fatalf("%s: %v", l.Name, q.Local.Validate())
			}
			last := int64(0)
			for _, w := range q.Warnings() {
				if w <= last || w > q.Spec.Ceiling() {
					t.Fatalf("%s warns at %d of %d", l.Name, q.Warnings(), q.Spec.Ceiling())
				}
				last = w
			}
		}
		most := limit.MaxAmount
		if q.Spec.Algorithm == limit.SlidingLog {
			most = limit.MaxLog
		}
		if q.Spec.Capacity() > 0 && raised.Spec.Capacity() != min(limit.Add(q.Spec.Capacity(), by), most) {
			t.Fatalf("%s: %d and %d more are %d", l.Name, q.Spec.Capacity(), by, raised.Spec.Capacity())
		}
		if raised.Spec.Ceiling() < q.Spec.Ceiling() {
			t.Fatalf("%s: %d more lower the ceiling from %d to %d", l.Name, by, q.Spec.Ceiling(), raised.Spec.Ceiling())
		}
	})
	if used == 0 {
		t.Error("nothing was allowed")
	}
}
