package capacity

import (
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/policy"
)

// domain compiles a policy with one upstream that has one limit.
func domain(t interface{ Fatal(...any) }, shared string) *policy.Domain {
	text := `
domain: d
tiers: [ { name: free }, { name: pro } ]
anonymous: deny
prices: { book: none, models: { m: { input: 1, output: 2, cache_read: 1, cache_write: 1 } } }
descriptors:
- key: user
  subject: true
  limits:
  - { name: own, algorithm: fixed_window, limit: 30/hour }
upstreams:
- name: u
  models: [ m ]
  limits:
  - ` + shared + "\n"
	p, _, err := policy.Parse([]policy.Source{{Name: "test", Data: []byte(text)}}, policy.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return p.Domain("d")
}

// group is users of a tier who make 10 calls in the busy hour, each of 300 and 100 tokens.
func group(tier int, users int64) Group {
	return Group{Tier: tier, Users: users, Calls: whole(10), Model: "m", Input: 300, Output: 100, MaxOutput: 100}
}

func planOf(d *policy.Domain, groups ...Group) *Plan {
	return &Plan{
		Domain: d, Groups: groups, Peak: whole(3), Hours: whole(8), Duration: 20 * limit.Second,
		Now: time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC),
	}
}

func judge(t interface{ Fatal(...any) }, p *Plan) *Report {
	r, err := p.Judge()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestCalls: how many calls 60 users make, of whom each makes 10 in the busy hour.
func TestCalls(t *testing.T) {
	g := group(0, 60)
	p := planOf(nil, g)
	for _, c := range []struct {
		span limit.Micros
		want string
	}{
		{limit.Second, "1/2"}, // the busiest minute, steadily
		{Minute, "30"},        // 600 an hour are 10 a minute
		{20 * Minute, "600"},  // at that pace all of the hour's
		{Hour, "600"},         // and no more
		{2 * Hour, "1200"},    // the next hour may be as busy
		{8 * Hour, "4800"},    // that was the day
		{Day, "4800"},
		{7 * Day, "33600"}, // each day is as busy
		{Month, "148800"},
		{36 * Hour, "7200"}, // a day and the share of another
		{1, "1/2000000"},
		{90 * limit.Second, "45"},
		{50 * Minute, "600"},
		{3 * Hour / 2, "900"},
		{366 * Day, "1756800"},
		{12 * Hour, "4800"},
		{Minute + 1, "60000001/2000000"},
	} {
		if got := p.Calls(&g, c.span).RatString(); got != c.want {
			t.Errorf("in %v: %s calls, want %s", c.span.Duration(), got, c.want)
		}
	}
}

// TestCallsAddUp: a longer time has no fewer calls, and no more than its parts, on which the bounds rely.
func TestCallsAddUp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := group(0, rapid.Int64Range(1, 1000).Draw(t, "users"))
		p := planOf(nil, g)
		p.Peak = big.NewRat(rapid.Int64Range(10, 600).Draw(t, "peak"), 10)
		p.Hours = big.NewRat(rapid.Int64Range(10, 240).Draw(t, "hours"), 10)
		span := rapid.OneOf(rapid.Int64Range(1, int64(2*Hour)), rapid.Int64Range(1, int64(3*Month)))
		a, b := limit.Micros(span.Draw(t, "a")), limit.Micros(span.Draw(t, "b"))
		both := p.Calls(&g, a+b)
		if both.Cmp(p.Calls(&g, a)) < 0 || both.Cmp(plus(p.Calls(&g, a), p.Calls(&g, b))) > 0 {
			t.Fatalf("%v, %v in %v, %v in %v", both, p.Calls(&g, a), a, p.Calls(&g, b), b)
		}
	})
}

// TestAlgorithms walks through what 60 users of free and 40 of pro, 1,000 calls in the busy hour and 50 in its busiest
// minute, take of each algorithm: for each row the tiers that count, what comes and what there is room for, and what own
// limits let all users do.
func TestAlgorithms(t *testing.T) {
	for _, c := range []struct {
		limit string
		want  []string
	}{
		{"{ name: l, rate: 100/minute }", []string{"2: 50 of 100, at most 3000: fits"}},
		{"{ name: l, rate: 99/minute }", []string{"2: 50 of 99, at most 3000: tight"}},
		{"{ name: l, rate: 50/minute }", []string{"2: 50 of 50, at most 3000: tight"}},
		{"{ name: l, rate: 49/minute }", []string{"2: 50 of 49, at most 3000: does not fit"}},
		// The unit of time does not matter, but that a bucket of an hour evens the hour out, and one of less does not.
		{"{ name: l, rate: 1/second, burst: 60 }", []string{"2: 5/6 of 1, at most 50: tight"}},
		{"{ name: l, rate: 2_000/hour, burst: 1 }", []string{"2: 3000 of 2000, at most 180000: does not fit"}},
		{"{ name: l, rate: 2_000/hour }", []string{"2: 1000 of 2000, at most 3000: fits"}},
		{"{ name: l, meter: input_tokens, rate: 20_000/minute }", []string{"2: 15000 of 20000, at most 900000: tight"}},
		{"{ name: l, meter: output_tokens, rate: 20_000/minute }", []string{"2: 5000 of 20000, at most 300000: fits"}},
		{"{ name: l, meter: tokens, algorithm: fixed_window, limit: 20_000/minute }", []string{"2: 20000 of 20000, at most 1200000: tight"}},
		{"{ name: l, algorithm: sliding_window, limit: 1_500/hour }", []string{"2: 1000 of 1500, at most 3000: tight"}},
		{"{ name: l, algorithm: sliding_log, limit: 5/second }", []string{"2: 5/6 of 5, at most 50: fits"}},
		{"{ name: l, algorithm: calendar, limit: 8_000/day }", []string{"2: 8000 of 8000, at most 72000: tight"}},
		{"{ name: l, algorithm: calendar, limit: 1M/month }", []string{"2: 248000 of 1000000, at most 2232000: fits"}},
		{"{ name: l, meter: cost, limit: $100/month }", []string{"2: 124000000000 of 100000000000, at most 1116000000000: does not fit"}},
		{"{ name: l, meter: concurrency, limit: 20 }", []string{"2: 50/3 of 20, at most 3000: tight"}},
		// Tiers with a lower ceiling leave room. Of a bucket the rate is for all, of a window its part.
		{"{ name: l, rate: 60/minute, ceiling: { free: 50%, pro: 100% } }", []string{
			"1: 20 of 60, at most 1200: fits", "2: 50 of 60, at most 3000: tight",
		}},
		{"{ name: l, algorithm: sliding_log, limit: 80/minute, ceiling: { free: 50%, pro: 100% } }", []string{
			"1: 50 of 80, at most 1240: tight", "2: 50 of 40, at most 3000: does not fit",
		}},
		{"{ name: l, algorithm: sliding_log, limit: 80/minute, ceiling: { free: 10%, pro: 100% } }", []string{
			"1: 28 of 80, at most 1208: fits", "2: 50 of 8, at most 3000: does not fit",
		}},
		{"{ name: l, meter: concurrency, limit: 40, ceiling: { free: 50%, pro: 100% } }", []string{
			"1: 50/3 of 40, at most 1220: fits", "2: 50/3 of 20, at most 3000: tight",
		}},
		// Above what is kept for them those of pro have 100, which drain in 6 minutes: together with free it is enough sooner.
		{"{ name: l, rate: 1_000/hour, ceiling: { free: 90%, pro: 100% } }", []string{
			"1: 10000/9 of 1000, at most 10000/3: does not fit", "2: 10000/9 of 1000, at most 10000/3: does not fit",
		}},
		{"{ name: l, rate: 1_000/hour, ceiling: { free: 10%, pro: 100% } }", []string{
			"1: 4000/9 of 1000, at most 4000/3: fits", "2: 3000 of 1000, at most 30000: does not fit",
		}},
		// One call has to fit.
		{"{ name: l, meter: tokens, rate: 40_000/minute, burst: 399 }", []string{"2: 20000 of 40000, at most 1200000, a call of 400: does not fit"}},
		{"{ name: l, meter: tokens, rate: 40_000/minute, per_request: 399 }", []string{"2: 20000 of 40000, at most 1200000, a call of 400: does not fit"}},
		{"{ name: l, meter: tokens, rate: 40_000/minute, per_request: 399, clamp: true }", []string{"2: 20000 of 40000, at most 1200000: fits"}},
		{"{ name: l, rate: 0/minute }", []string{"2: 50 of 0, at most 3000, a call of 1: does not fit"}},
	} {
		t.Run(c.limit, func(t *testing.T) {
			r := judge(t, planOf(domain(t, c.limit), group(0, 60), group(1, 40)))
			var got []string
			for _, row := range r.Rows {
				asked := ""
				if row.Asked > 0 {
					asked = fmt.Sprintf(", a call of %d", row.Asked)
				}
				got = append(got, fmt.Sprintf("%d: %s of %s, at most %s%s: %s", len(row.Groups), row.Peak.RatString(), row.Room.RatString(),
					row.Most.RatString(), asked, []string{"fits", "tight", "does not fit"}[row.Verdict]))
			}
			if strings.Join(got, "\n") != strings.Join(c.want, "\n") {
				t.Errorf("%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
			}
		})
	}
}

// TestHolds: calls hold the output that they ask for, and a limit that counts what was asked for keeps it.
func TestHolds(t *testing.T) {
	for _, c := range []struct {
		limit string
		want  string
	}{
		// 50 calls a minute use 100 each, and the 50/3 under way hold 900 more.
		{"{ name: l, meter: output_tokens, algorithm: fixed_window, limit: 40_000/minute }", "20000"},
		{"{ name: l, meter: output_tokens, algorithm: fixed_window, limit: 60_000/minute, counts: asked }", "50000"},
		// What drains in a minute is enough, and so is the room for 50/3 calls of 1,000 beside what drains in their 20 s.
		{"{ name: l, meter: output_tokens, rate: 30_000/minute, burst: 30_000 }", "12500"},
		{"{ name: l, meter: output_tokens, rate: 30_000/minute, burst: 1_000_000 }", "5000"},
		{"{ name: l, meter: output_tokens, rate: 30_000/minute, burst: 2_000 }", "125000/3"},
	} {
		g := group(0, 100)
		g.MaxOutput = 1000
		r := judge(t, planOf(domain(t, c.limit), g))
		if got := r.Rows[0].Peak.RatString(); got != c.want {
			t.Errorf("%s: %s, want %s", c.limit, got, c.want)
		}
	}
}

// anyLimit draws a limit of the upstream with ceilings.
func anyLimit(t *rapid.T) string {
	n := rapid.Int64Range(2, 9_000).Draw(t, "n")
	ceiling := fmt.Sprintf("ceiling: { free: %d%%, pro: 100%% }", rapid.IntRange(1, 100).Draw(t, "ceiling"))
	window := rapid.SampledFrom([]string{"second", "minute", "7m", "hour", "5h", "day"}).Draw(t, "window")
	switch a := rapid.SampledFrom([]string{"token_bucket", "sliding_window", "sliding_log", "fixed_window", "calendar", "concurrency"}).Draw(t, "algorithm"); a {
	case "token_bucket":
		return fmt.Sprintf("{ name: l, rate: %d/%s, burst: %d, %s }", n, window, rapid.Int64Range(200, 20_000).Draw(t, "burst"), ceiling)
	case "calendar":
		return fmt.Sprintf("{ name: l, algorithm: calendar, limit: %d/month, %s }", n*10_000, ceiling)
	case "concurrency":
		return fmt.Sprintf("{ name: l, meter: concurrency, limit: %d, %s }", n, ceiling)
	default:
		return fmt.Sprintf("{ name: l, algorithm: %s, limit: %d/%s, %s }", a, n, window, ceiling)
	}
}

// TestUsersThatFit: as many users as are said to fit do, and one more does not.
func TestUsersThatFit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := planOf(domain(t, anyLimit(t)), group(0, rapid.Int64Range(1, 10_000).Draw(t, "users")))
		p.Groups[0].Calls = big.NewRat(rapid.Int64Range(1, 500).Draw(t, "calls"), 10)
		r := judge(t, p)
		if r.Binds == nil || !r.Binds.Possible() {
			t.Skip("a single call does not fit")
		}
		verdict := func(users int64) Verdict {
			more := *p
			more.Groups = []Group{p.Groups[0]}
			more.Groups[0].Users = users
			return judge(t, &more).Verdict
		}
		if r.Users > 0 && verdict(r.Users) == DoesNotFit {
			t.Fatalf("%d users do not fit", r.Users)
		}
		if verdict(r.Users+1) != DoesNotFit {
			t.Fatalf("%d users fit too", r.Users+1)
		}
		if half := r.Users / 2; half > 0 && verdict(half) != Fits || verdict(half+1) == Fits && 2*(half+1) > r.Users {
			t.Fatalf("half of %d users is not where the warning begins", r.Users)
		}
	})
}

// TestMoreUsers: with more users of a tier no limit is emptier, for no tier.
func TestMoreUsers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := domain(t, anyLimit(t))
		users := rapid.Int64Range(1, 5_000)
		free, pro := users.Draw(t, "free"), users.Draw(t, "pro")
		fewer := judge(t, planOf(d, group(0, free), group(1, pro)))
		more := judge(t, planOf(d, group(0, free+users.Draw(t, "more")), group(1, pro)))
		for i := range fewer.Rows {
			a, b := fewer.Rows[i], more.Rows[i]
			if b.Peak.Cmp(a.Peak) < 0 || b.Verdict < a.Verdict || b.Most.Cmp(a.Most) < 0 {
				t.Fatalf("row %d: %v %v, with more users %v %v", i, a.Peak, a.Verdict, b.Peak, b.Verdict)
			}
		}
	})
}

// TestNobodyIsRefused lets the arithmetic of limits count calls that come steadily at the pace of the busiest minute, until
// those of the busy hour have come, of both tiers. Who is said to fit is admitted.
func TestNobodyIsRefused(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := domain(t, fmt.Sprintf("{ name: l, algorithm: %s, %s: %d/%s%s, ceiling: { free: %d%%, pro: 100%% } }", anyShared(t)...))
		p := planOf(d, group(0, rapid.Int64Range(1, 60).Draw(t, "free")), group(1, rapid.Int64Range(1, 60).Draw(t, "pro")))
		r := judge(t, p)
		rows := r.Rows
		fits := map[int]bool{} // by tier
		for i := range rows {
			for _, g := range rows[i].Groups {
				if _, said := fits[g.Tier]; !said {
					fits[g.Tier] = rows[i].Verdict != DoesNotFit
				}
			}
		}
		l := rows[0].Limit
		var state limit.State
		pace := plus(p.Calls(&p.Groups[0], Minute), p.Calls(&p.Groups[1], Minute)) // a minute
		every := limit.Micros(Up(over(whole(int64(Minute)), pace)))
		total := Down(plus(p.Calls(&p.Groups[0], Hour), p.Calls(&p.Groups[1], Hour)))
		share := over(p.Calls(&p.Groups[0], Hour), whole(total))
		begin := limit.At(p.Now)
		sent := whole(0) // calls of free, by now
		for n := range total {
			tier := 1
			if times(share, whole(n+1)).Cmp(plus(sent, big.NewRat(1, 2))) >= 0 {
				tier, sent = 0, plus(sent, whole(1))
			}
			spec := l.For(tier).Spec
			now := spec.Advance(&state, begin+every*limit.Micros(n))
			if !spec.Judge(&state, now, 1, 0).Refused {
				spec.Charge(&state, now, 1)
			} else if fits[tier] {
				t.Fatalf("call %d, of tier %d, is refused; rows %v %v", n, tier, rows[0].Peak, rows[len(rows)-1].Peak)
			}
		}
	})
}

// anyShared draws the parts of a limit that is neither too large to be met nor as small as single calls.
func anyShared(t *rapid.T) []any {
	n := rapid.Int64Range(60, 3_000).Draw(t, "n")
	window := rapid.SampledFrom([]string{"minute", "7m", "hour"}).Draw(t, "window")
	ceiling := rapid.IntRange(20, 100).Draw(t, "ceiling")
	if rapid.Bool().Draw(t, "bucket") {
		burst := fmt.Sprintf(", burst: %d", rapid.Int64Range(30, 3_000).Draw(t, "burst"))
		return []any{"token_bucket", "rate", n, window, burst, ceiling}
	}
	a := rapid.SampledFrom([]string{"fixed_window", "sliding_log"}).Draw(t, "algorithm")
	return []any{a, "limit", n, window, "", ceiling}
}

// TestBinds: of several limits the fullest, but for those in shadow; and before all others one that lets no call through.
func TestBinds(t *testing.T) {
	for _, c := range []struct{ limits, want string }{
		{"{ name: a, rate: 200/minute }\n  - { name: b, rate: 100/minute }\n  - { name: c, rate: 300/minute }", "d.upstreams.u.b"},
		{"{ name: a, rate: 200/minute }\n  - { name: b, rate: 10/minute, shadow: true }", "d.upstreams.u.a"},
		{"{ name: a, rate: 10/minute }\n  - { name: b, meter: tokens, rate: 1M/minute, burst: 10 }", "d.upstreams.u.b"},
		{"{ name: a, meter: tokens, rate: 1M/minute, burst: 10 }\n  - { name: b, rate: 10/minute }", "d.upstreams.u.a"},
	} {
		if r := judge(t, planOf(domain(t, c.limits), group(0, 100))); r.Binds == nil || r.Binds.Limit.Path != c.want {
			t.Errorf("%s: %v", c.limits, r.Binds)
		}
	}
	g := group(0, 100)
	g.Calls = whole(0)
	if r := judge(t, planOf(domain(t, "{ name: a, rate: 10/minute }"), g)); r.Binds != nil || r.Verdict != Fits {
		t.Errorf("no calls: %+v", r)
	}
}

// TestWaits: how long the last one waits, and where waiting helps nobody.
func TestWaits(t *testing.T) {
	for _, c := range []struct {
		limit string
		want  time.Duration
		next  bool
	}{
		{"{ name: l, rate: 100/minute }", 0, false},
		{"{ name: l, rate: 40/minute }", 15 * time.Second, false},               // 50 calls, at 40 a minute
		{"{ name: l, rate: 10/minute }", 40 * time.Minute, false},               // 1,000 calls in the hour
		{"{ name: l, meter: concurrency, limit: 10 }", 40 * time.Second, false}, // 30 calls a minute
		{"{ name: l, algorithm: sliding_log, limit: 500/hour }", time.Hour, false},
		{"{ name: l, algorithm: calendar, limit: 500/day }", 0, true},
		{"{ name: l, rate: 24_000/day, burst: 10 }", 2 * time.Minute, false},
		{"{ name: l, meter: tokens, rate: 10_000/minute, per_request: 100 }", 0, false},        // no call ever fits
		{"{ name: l, meter: tokens, rate: 10_000/minute, burst: 10_000 }", time.Minute, false}, // 20,000 a minute
	} {
		r := judge(t, planOf(domain(t, c.limit), group(0, 100)))
		if r.Waits != c.want || r.NextPeriod != c.next {
			t.Errorf("%s: %v, %v, want %v, %v", c.limit, r.Waits, r.NextPeriod, c.want, c.next)
		}
	}
}

// TestBills: what it costs, to the nano-dollar: 300 and 100 tokens at $1 and $2 per million are $0.0005.
func TestBills(t *testing.T) {
	g := group(0, 3)
	g.Calls = big.NewRat(1, 2)
	b := judge(t, planOf(domain(t, "{ name: l, rate: 100/minute }"), g)).Bills[0]
	if b.Hour.RatString() != "750000" || b.Day.RatString() != "6000000" || b.Month.RatString() != "186000000" {
		t.Errorf("%v, %v, %v", b.Hour, b.Day, b.Month)
	}
	g.Model = "other"
	r := judge(t, planOf(domain(t, "{ name: l, rate: 100/minute }"), g))
	if r.Bills[0].Hour != nil || len(r.Rows) != 0 || len(r.Without) != 1 {
		t.Errorf("a model without price or upstream: %+v", r)
	}
}

// TestHeld: 40 calls in the busy hour are more than the 30 that a user has.
func TestHeld(t *testing.T) {
	g := group(1, 5)
	if r := judge(t, planOf(domain(t, "{ name: l, rate: 100/minute }"), g)); len(r.Held) != 0 {
		t.Errorf("%+v", r.Held)
	}
	g.Calls = whole(40)
	r := judge(t, planOf(domain(t, "{ name: l, rate: 100/minute }"), g))
	if len(r.Held) != 1 || r.Held[0].Limit != "d.user.own" || r.Held[0].Span != Hour || r.Held[0].Allows.RatString() != "30" ||
		r.Held[0].Plans.RatString() != "40" {
		t.Errorf("%+v", r.Held)
	}
}

// TestPinned: figures beyond all limits stay at the largest amount.
func TestPinned(t *testing.T) {
	g := group(0, 1_000_000_000)
	g.Calls, g.Input = whole(999_999_999), 1_000_000_000
	r := judge(t, planOf(domain(t, "{ name: l, meter: input_tokens, rate: 2B/minute }"), g))
	if Up(r.Rows[0].Peak) != limit.MaxAmount || r.Verdict != DoesNotFit || r.Users != 0 {
		t.Errorf("%d, %v, %d users", Up(r.Rows[0].Peak), r.Verdict, r.Users)
	}
}
