package engine_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rationhq/ration/engine"
	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/price"
	"github.com/rationhq/ration/store"
	"github.com/rationhq/ration/subject"
)

// used says what was used on the days around now, by some names.
func (b bench) used(t testing.TB, subject string, by ...string) (lines string) {
	t.Helper()
	q := engine.UsageQuery{Domain: "llm", Resolution: engine.Totals, By: by}
	now := limit.At(time.Now())
	q.From, q.To = now-24*3600*limit.Second, now+24*3600*limit.Second
	if subject != "" {
		q.Subject = policy.Entry{Key: "user", Value: subject}
	}
	rows, total, err := b.Usage(context.Background(), &q)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range append(rows, total) {
		lines += fmt.Sprintf("%v requests %d refusals %v input %d+%d+%d output %d cost %d, %d each; ",
			r.Group, r.Requests, r.Refusals, r.Usage.Input, r.Usage.CacheRead, r.Usage.CacheWrite, r.Usage.Output, r.Cost, r.TokensPerRequest)
	}
	return lines
}

func TestRowsOfUsage(t *testing.T) {
	b := newAccounts(t)
	a := b.reserve(t, call("small", 100, 200))
	const sum = "[] requests 1 refusals [0 0 0 0 0] input 100+0+0 output 0 cost 100000, 100 each; "
	expect(t, "what stays if nobody settles it", b.used(t, "alice"), sum+sum)
	b.settle(t, a, price.Usage{Input: 90, CacheRead: 10, Output: 50})
	b.settle(t, a, price.Usage{Input: 90, CacheRead: 10, Output: 50})
	b.reserve(t, call("small", 100, 2_000))
	const settled = "[] requests 1 refusals [0 0 0 0 0] input 90+10+0 output 50 cost 195000, 150 each; "
	expect(t, "settled", b.used(t, "alice"), settled+settled)
	expect(t, "of all", b.used(t, ""), settled+settled)
	expect(t, "of somebody else", b.used(t, "bob"), "[] requests 0 refusals [0 0 0 0 0] input 0+0+0 output 0 cost 0, 0 each; ")

	b.askIn(t, "llm", hits(1, "user=bob"))
	b.askIn(t, "llm", hits(30, "user=bob", "ration.phase=record", "ration.meter=output_tokens", "ration.model=large"))
	expect(t, "by model", b.used(t, "", "model"),
		"[] requests 1 refusals [0 0 0 0 0] input 0+0+0 output 0 cost 0, 0 each; "+
			"[large] requests 0 refusals [0 0 0 0 0] input 0+0+0 output 30 cost 600000, 0 each; "+
			"[small] requests 1 refusals [0 0 0 0 0] input 90+10+0 output 50 cost 195000, 150 each; "+
			"[] requests 2 refusals [0 0 0 0 0] input 90+10+0 output 80 cost 795000, 90 each; ")

	top, _, err := b.Top(context.Background(), "llm", engine.ByCost, limit.At(time.Now()), false, 10)
	if err != nil || fmt.Sprint(top) != "[{user=bob 600000} {user=alice 195000}]" {
		t.Errorf("the most was used by %v (%v)", top, err)
	}
}

func TestRowsOfCallsThatEndOtherwise(t *testing.T) {
	b := newAccounts(t)
	nothing := b.used(t, "alice")
	var s engine.Settlement
	if err := b.Release(context.Background(), b.reserve(t, call("small", 100, 200)).ID, &s); err != nil {
		t.Fatal(err)
	}
	const none = "[] requests 0 refusals [0 0 0 0 0] input 0+0+0 output 0 cost 0, 0 each; "
	expect(t, "nothing was used", nothing, none)
	expect(t, "released", b.used(t, "alice"), none)

	a := b.reserve(t, call("large", 100, 200))
	report := engine.Report{ID: a.ID, Usage: price.Usage{Input: 100, Output: 10}, Model: "small"}
	if err := b.Settle(context.Background(), &report, &s); err != nil {
		t.Fatal(err)
	}
	expect(t, "served by another model", b.used(t, "alice", "model"),
		"[small] requests 1 refusals [0 0 0 0 0] input 100+0+0 output 10 cost 120000, 110 each; "+
			"[] requests 1 refusals [0 0 0 0 0] input 100+0+0 output 10 cost 120000, 110 each; ")

	report = engine.Report{ID: engine.ReservationID{1}, Usage: price.Usage{Input: 5}, Caller: &call("", 0, 0, named("bob")).Caller}
	if err := b.Settle(context.Background(), &report, &s); err != nil {
		t.Fatal(err)
	}
	const bob = "[] requests 1 refusals [0 0 0 0 0] input 5+0+0 output 0 cost 0, 5 each; "
	expect(t, "of a reservation that nobody knows", b.used(t, "bob"), bob+bob)
}

func TestUsageThatCannotBeAsked(t *testing.T) {
	b := newAccounts(t)
	var invalid *engine.InvalidError
	_, _, err := b.Usage(context.Background(), &engine.UsageQuery{Domain: "llm", To: 1, By: []string{"modell"}})
	if !errors.As(err, &invalid) || invalid.Field != "group_by[0]" {
		t.Errorf("%v", err)
	}
	if _, _, err = b.Usage(context.Background(), &engine.UsageQuery{Domain: "llm"}); !errors.As(err, &invalid) || invalid.Field != "to" {
		t.Errorf("%v", err)
	}
	if _, _, err = b.Usage(context.Background(), &engine.UsageQuery{Domain: "shop"}); !errors.Is(err, engine.ErrUnknownDomain) {
		t.Errorf("%v", err)
	}
	if _, _, err = b.Top(context.Background(), "llm", engine.ByCost, 0, false, 0); !errors.As(err, &invalid) || invalid.Field != "limit" {
		t.Errorf("%v", err)
	}
}

// Rows that the policy does not keep are no answer: nothing found would be taken for nothing used.
func TestRowsThatAreNotKept(t *testing.T) {
	for _, c := range []struct {
		usage, of  string
		resolution engine.Resolution
		want       string
	}{
		{"off", "", engine.ByDays, "`usage: off`"},
		{"off", "ann", engine.ByHours, "`usage: off`"},
		{"{ keep: { hourly: off } }", "ann", engine.ByHours, "hourly: off"},
		{"{ keep: { daily: off } }", "ann", engine.Totals, "daily: off"},
		{"{ keep: { domain_hourly: off } }", "", engine.ByHours, "domain_hourly: off"},
		{"{ keep: { domain_daily: off } }", "", engine.ByDays, "domain_daily: off"},
		{"{ keep: { domain_daily: off } }", "ann", engine.ByDays, ""},
		{"{ keep: { daily: off } }", "", engine.ByDays, ""},
	} {
		b := newPolicyBench(t, "domain: llm\nusage: "+c.usage+"\n", engine.Options{})
		q := engine.UsageQuery{Domain: "llm", To: limit.At(time.Now()), Resolution: c.resolution}
		q.From = q.To - limit.Second
		if c.of != "" {
			q.Subject = policy.Entry{Key: "user", Value: c.of}
		}
		_, _, err := b.Usage(context.Background(), &q)
		var invalid *engine.InvalidError
		if (c.want == "") != (err == nil) || c.want != "" && (!errors.As(err, &invalid) || !strings.Contains(invalid.Reason, c.want)) {
			t.Errorf("usage: %s, of %q: %v, want %q", c.usage, c.of, err, c.want)
		}
		_, _, err = b.Top(context.Background(), "llm", engine.ByCost, q.To, false, 10)
		if off := c.usage == "off" || strings.Contains(c.usage, " daily"); off != errors.As(err, &invalid) {
			t.Errorf("usage: %s, top: %v", c.usage, err)
		}
	}
}

func TestRowsOfRefusals(t *testing.T) {
	b := newAccounts(t)
	b.reserve(t, call("small", 0, 2_000)) // too large
	b.reserve(t, call("smal", 0, 1))      // without a price
	b.settle(t, b.reserve(t, call("small", 0, 1_000)), price.Usage{Output: 1_000})
	b.reserve(t, call("small", 0, 1)) // used up for today
	for range 4 {
		b.askIn(t, "llm", hits(1, "user=bob"))
	}
	b.askIn(t, "llm", hits(2, "user=bob")) // too many in a minute
	b.Close()                              // and what waits is written
	expect(t, "alice's", b.used(t, "alice"), "[] requests 1 refusals [0 0 1 1 1] input 0+0+0 output 1000 cost 2000000, 1000 each; "+
		"[] requests 1 refusals [0 0 1 1 1] input 0+0+0 output 1000 cost 2000000, 1000 each; ")
	expect(t, "bob's", b.used(t, "bob"), "[] requests 4 refusals [0 1 0 0 0] input 0+0+0 output 0 cost 0, 0 each; "+
		"[] requests 4 refusals [0 1 0 0 0] input 0+0+0 output 0 cost 0, 0 each; ")
	top, _, err := b.Top(context.Background(), "llm", engine.ByRefusals, limit.At(time.Now()), true, 1)
	if err != nil || fmt.Sprint(top) != "[{user=alice 3}]" {
		t.Errorf("refused most often: %v (%v)", top, err)
	}
}

// Who is refused cannot make the rows of the domain as many as it likes, by naming models that there are not: all refusals
// are in them, and reports of the others stay readable.
func TestRowsOfManyRefusals(t *testing.T) {
	const named, refused = 1_000, 3_000
	b := newAccounts(t)
	b.settle(t, b.reserve(t, call("small", 0, 1_000)), price.Usage{Output: 1_000}) // used up for today
	for i := range refused {
		b.reserve(t, call(fmt.Sprint("model-", i), 0, 1))
	}
	b.Close()
	now := limit.At(time.Now())
	rows, total, err := b.Usage(context.Background(), &engine.UsageQuery{
		Domain: "llm", Resolution: engine.Totals, By: []string{"model"}, From: now - 24*3600*limit.Second, To: now + 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	of := make(map[string]int64)
	for _, r := range append(rows, total) {
		for _, n := range r.Refusals {
			of[strings.Join(r.Group, " ")] += n
		}
	}
	// A day may end meanwhile: then more are named.
	if of[""] != refused || len(rows) > 2*named+2 || of["(others)"] != refused-int64(len(rows)-2) {
		t.Errorf("%d refusals in %d rows, %d of them of no named model", of[""], len(rows), of["(others)"])
	}
	if of["model-0"] != 1 {
		t.Errorf("model-0 was refused %d times", of["model-0"])
	}
}

// What nothing limits is used too.
func TestRowsOfWhatNothingLimits(t *testing.T) {
	const policy = `
domain: llm
tiers: [ { name: free }, { name: staff } ]
trust_tier: true
descriptors:
  - key: user
    subject: true
    limits: [ { name: tokens, meter: tokens, algorithm: fixed_window, tiers: { free: { limit: 10/day }, staff: unlimited } } ]
`
	b := newPolicyBench(t, policy, engine.Options{})
	record := engine.Record{Caller: call("small", 0, 0, named("bob")).Caller, Requests: 1, Usage: price.Usage{Input: 7}}
	record.Tier = "staff"
	var s engine.Settlement
	if err := b.Record(context.Background(), &record, &s); err != nil {
		t.Fatal(err)
	}
	b.askIn(t, "llm", hits(1, "user=bob", "ration.tier=staff"))
	b.askIn(t, "llm", hits(30, "user=bob", "ration.tier=staff", "ration.phase=record", "ration.meter=output_tokens"))
	const bob = "[] requests 2 refusals [0 0 0 0 0] input 7+0+0 output 30 cost 0, 19 each; "
	expect(t, "bob's", b.used(t, "bob"), bob+bob)

	broken := &faulty{Store: b.store}
	broken.set(store.ErrUnavailable, false)
	e := engine.New(broken, engine.Options{})
	t.Cleanup(e.Close)
	p, _ := b.Policy()
	e.SetPolicy(p)
	out := bench{e, b.clock, broken}
	if d := out.askIn(t, "llm", hits(1, "user=bob", "ration.tier=staff")); d.Over || d.Degraded.String() != "" {
		t.Errorf("without the store, what nothing limits: over %t, degraded %q", d.Over, d.Degraded)
	}
	if err := out.Record(context.Background(), &record, &s); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("usage that the store did not take: %v", err)
	}
}

// A call's rows are those of the tier in which it was admitted.
func TestRowsOfACallWhoseTierChanges(t *testing.T) {
	b, people := knowing(t, "", subject.Subject{Name: "alice"})
	a := b.reserve(t, call("small", 100, 200))
	people.known["alice"].Tier = "pro"
	b.progress(t, a, price.Usage{Input: 100, Output: 50})
	b.settle(t, a, price.Usage{Input: 90, Output: 60})
	expect(t, "in the tier that it began in", b.used(t, "alice", "tier"),
		"[free] requests 1 refusals [0 0 0 0 0] input 90+0+0 output 60 cost 210000, 150 each; "+
			"[] requests 1 refusals [0 0 0 0 0] input 90+0+0 output 60 cost 210000, 150 each; ")
}

// What is reserved again under its key is settled as it was reserved first.
func TestRowsOfACallThatIsReservedAgain(t *testing.T) {
	b := newAccounts(t)
	a := b.reserve(t, call("small", 100, 200, key("k")))
	dearer, warnings, err := policy.Parse([]policy.Source{{
		Name: "llm.yaml", Data: []byte(strings.ReplaceAll(accounts, `small: { input: "1.00"`, `small: { input: "3.00"`)),
	}}, policy.Options{})
	if err != nil {
		t.Fatal(err, warnings)
	}
	b.SetPolicy(dearer)
	again := b.reserve(t, call("small", 100, 200, key("k")))
	if !again.Replayed || again.Cost != a.Cost || again.Price != a.Price {
		t.Errorf("replayed %t at %+v, want %+v", again.Replayed, again.Price, a.Price)
	}
	if s := b.settle(t, a, price.Usage{Input: 100, Output: 10}); s.Cost != 120_000 {
		t.Errorf("settled for %d, and it was reserved when that cost 120000", s.Cost)
	}
	const sum = "[] requests 1 refusals [0 0 0 0 0] input 100+0+0 output 10 cost 120000, 110 each; "
	expect(t, "rows", b.used(t, "alice"), sum+sum)
}

// A reservation that the store never had has left no row either.
func TestRowsOfACallWithoutStore(t *testing.T) {
	b := newPolicyBench(t, `
domain: llm
limits: [ { name: all, meter: tokens, algorithm: fixed_window, limit: 1_000/day, on_store_error: allow } ]
descriptors: [ { key: user, subject: true }, { key: org, subject: true } ]
`, engine.Options{})
	broken := &faulty{Store: b.store}
	broken.set(store.ErrUnavailable, false)
	e := engine.New(broken, engine.Options{})
	t.Cleanup(e.Close)
	p, _ := b.Policy()
	e.SetPolicy(p)
	a := bench{e, b.clock, broken}.reserve(t, call("", 100, 100, attribute("org", "acme")))
	broken.set(nil, false)
	bench{e, b.clock, broken}.settle(t, a, price.Usage{Input: 50})
	now := limit.At(time.Now())
	for _, who := range []policy.Entry{{Key: "user", Value: "alice"}, {Key: "org", Value: "acme"}} {
		_, sum, err := b.Usage(context.Background(), &engine.UsageQuery{
			Domain: "llm", Subject: who, From: now - 3600*limit.Second, To: now + 3600*limit.Second, Resolution: engine.Totals,
		})
		if err != nil || sum.Requests != 1 || sum.Usage.Input != 50 {
			t.Errorf("%v: %d requests, %d tokens (%v)", who, sum.Requests, sum.Usage.Input, err)
		}
	}
}

// Names that are longer than a row can have are counted for the domain, and nothing else is lost by them.
func TestRowsOfLongNames(t *testing.T) {
	b := newAccounts(t)
	long := strings.Repeat("a", store.MaxRowName)
	if d := b.askIn(t, "llm", hits(1, "user="+long)); d.Over {
		t.Fatal("refused")
	}
	b.settle(t, b.reserve(t, call("small", 100, 200, named(long))), price.Usage{Input: 10})
	const all = "[] requests 2 refusals [0 0 0 0 0] input 10+0+0 output 0 cost 10000, 5 each; "
	expect(t, "of all", b.used(t, ""), all+all)
}

// What callers write in a tag comes back, as far as it fits.
func TestRowsOfStrangeTags(t *testing.T) {
	b := newPolicyBench(t, accounts+"usage: { tags: [ feature, team ] }\n", engine.Options{})
	for _, tags := range [][2]string{{"a\x00", "b"}, {"a", "\x00b"}, {"", "a\x00b"}, {strings.Repeat("x", 127) + "é", ""}} {
		a := b.reserve(t, call("small", 1, 0, attribute("feature", tags[0]), attribute("team", tags[1])))
		b.settle(t, a, price.Usage{Input: 1})
	}
	now := limit.At(time.Now())
	rows, _, err := b.Usage(context.Background(), &engine.UsageQuery{
		Domain: "llm", From: now - 3600*limit.Second, To: now + 3600*limit.Second, Resolution: engine.Totals, By: []string{"feature", "team"},
	})
	if err != nil {
		t.Fatal(err)
	}
	var got [][]string
	for _, r := range rows {
		got = append(got, r.Group)
	}
	want := [][]string{{"", "a\x00b"}, {"a", "\x00b"}, {"a\x00", "b"}, {strings.Repeat("x", 127), ""}}
	if !slices.EqualFunc(got, want, slices.Equal) {
		t.Errorf("groups %q, want %q", got, want)
	}
}

// By subject there is a row for each, with what others have used left out, and the total is of all.
func TestRowsBySubject(t *testing.T) {
	b := newAccounts(t)
	b.settle(t, b.reserve(t, call("small", 100, 200)), price.Usage{Input: 90, Output: 60})
	b.settle(t, b.reserve(t, call("large", 10, 20, named("bob"))), price.Usage{Input: 10, Output: 5})
	b.settle(t, b.reserve(t, call("small", 10, 20, named("bob"))), price.Usage{Input: 10, Output: 5})
	unnamed := call("small", 1, 0)
	unnamed.Attributes = nil
	b.reserve(t, unnamed)
	const alice, bob, total = "requests 1 refusals [0 0 0 0 0] input 90+0+0 output 60 cost 210000, 150 each; ",
		"requests 2 refusals [0 0 0 0 0] input 20+0+0 output 10 cost 220000, 15 each; ",
		"[] requests 4 refusals [0 0 0 0 0] input 111+0+0 output 70 cost 431000, 45 each; "
	expect(t, "by subject", b.used(t, "", "subject"), "[user=alice] "+alice+"[user=bob] "+bob+total)
	expect(t, "of one, who is named", b.used(t, "alice", "subject", "model"), "[user=alice small] "+alice+"[] "+alice)
	now := limit.At(time.Now())
	var invalid *engine.InvalidError
	if _, _, err := b.Usage(context.Background(), &engine.UsageQuery{
		Domain: "llm", From: now - 900*24*3600*limit.Second, To: now, Resolution: engine.Totals, By: []string{"subject"},
	}); !errors.As(err, &invalid) || invalid.Field != "from" {
		t.Errorf("two years: %v", err)
	}
}
