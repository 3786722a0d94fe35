package policy

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/rationhq/ration/price"
)

// What keeps prices from being used: each with its place, and with what to write instead.
func TestPriceErrors(t *testing.T) {
	for _, c := range []struct{ name, policy, want string }{
		{"keys in the wrong place or of nobody", `
domain: d
book: none
input: 1
models: {a: {input: 1, output: 1}}
prices:
  buook: none
  tiers: []
  models:
    a: { inptu: 1, input: 1, output: 1, models: 5, model: x, rate: 5 }
    b: { input: 1, input: 2, output: 1 }
descriptors:
- key: user
  prices: {}
`, expected(`
policy.yaml:2:1: config error, unknown key 'book': it belongs in ´prices´
policy.yaml:3:1: config error, unknown key 'input': it belongs in a price of ´models´
policy.yaml:4:1: config error, unknown key 'models': it belongs in an entry of ´upstreams´
policy.yaml:6:3: unknown key ´buook´ in ´prices´ (did you mean ´book´?)
policy.yaml:7:3: ´tiers´ means nothing in ´prices´: it belongs in the top of the file or an entry of ´limits´
policy.yaml:9:10: unknown key ´inptu´ in a price of ´models´ (did you mean ´input´?)
policy.yaml:9:41: ´models´ means nothing in a price of ´models´: it belongs in an entry of ´upstreams´ or ´prices´
policy.yaml:9:52: unknown key ´model´ in a price of ´models´
policy.yaml:9:62: ´rate´ means nothing in a price of ´models´: it belongs in an entry of ´limits´ or a tier of a limit
policy.yaml:10:20: ´input´ is given twice
policy.yaml:13:3: ´prices´ means nothing in a descriptor: it belongs in the top of the file
`)},
		{"no prices", `
domain: d
prices: 5
prices: [a]
prices:
  book: shipped
  unknown_model: assume-max
  models:
    a: 5
    b: "1.00"
    c: []
    e: [1, {input: 1, output: 1}]
    f: ~
    "": {input: 1, output: 1}
    g: { input: 1 }
    h: { output: "1.00" }
    i: {}
    J: { input: 1, output: 1 }
    j: { input: 1, output: 1 }
`, expected(`
policy.yaml:2:9: ´prices´ must be a mapping, not ´5´
policy.yaml:3:9: ´prices´ must be a mapping, not a list
policy.yaml:5:9: book ´shipped´ is unknown: it is builtin or none
policy.yaml:6:18: unknown_model ´assume-max´ is unknown (did you mean ´assume_max´?)
policy.yaml:8:8: the price of ´a´ must be { input: "0.80", output: "4.00" }, in dollars per million tokens, or a list of such with ´from´, not ´5´
policy.yaml:9:8: the price of ´b´ must be { input: "0.80", output: "4.00" }, in dollars per million tokens, or a list of such with ´from´, not "1.00"
policy.yaml:10:8: model ´c´ has no price: leave it out, or write it as { input: "0.80", output: "4.00" }, in dollars per million tokens
policy.yaml:11:9: ´e´ is a list of mappings, not of ´1´
policy.yaml:12:8: the price of ´f´ must be { input: "0.80", output: "4.00" }, in dollars per million tokens, or a list of such with ´from´, not ´~´
policy.yaml:13:5: a price has no model: write its name, or ´*´ for all others
policy.yaml:14:8: model ´g´ has no ´output´ price: write it in dollars per million tokens, or 0 where it is free
policy.yaml:15:8: model ´h´ has no ´input´ price: write it in dollars per million tokens, or 0 where it is free
policy.yaml:16:8: model ´i´ has no ´input´ price: write it in dollars per million tokens, or 0 where it is free
policy.yaml:16:8: model ´i´ has no ´output´ price: write it in dollars per million tokens, or 0 where it is free
policy.yaml:18:5: model ´j´ has prices at policy.yaml:17:5 already: names are compared in lower case, and prices from several days on are a list
`)},
		{"figures that are none", `
domain: d
prices:
  models:
    a: { input: -1, output: "$-1" }
    b: { input: "0.0000000001", output: 1e-6 }
    c: { input: "1,5", output: 9007199.254740992 }
    e: { input: cheap, output: }
    f: { input: [1], output: 1, max_output: 0 }
    g: { input: 1, output: 1, max_output: many, from: 2026-02-30 }
    h: [{ input: 1, output: 1, from: 2026-01-01 }, { input: 1, output: 1 }, { input: 2, output: 1, from: "2026-01-01" }, { input: 1, output: 1 }]
    i: { input: .inf, output: 0x10 }
    j: { input: ` + strings.Repeat("1", 200) + `, output: 1 }
`, expected(`
policy.yaml:4:17: ´input´: ´-1´ is negative: write 0 for what is free
policy.yaml:4:29: ´output´: ´$-1´ is negative: write 0 for what is free
policy.yaml:5:17: ´input´: "0.0000000001" is finer than a billionth of a dollar: round it up
policy.yaml:5:41: ´output´: "1e-6" is no amount in dollars: write it as 1, 1.50, 0.0028 or 5_000
policy.yaml:6:17: ´input´: "1,5" has a comma: write 5_000, and 1.50 with a point
policy.yaml:6:32: ´output´: "9007199.254740992" is more than the largest amount, $9007199.254740991
policy.yaml:7:17: ´input´: "cheap" is no amount in dollars: write it as 1, 1.50, 0.0028 or 5_000
policy.yaml:7:32: ´output´ is empty
policy.yaml:8:17: ´input´ must be text, not a list
policy.yaml:8:45: ´max_output´: a model that writes nothing has no price: leave it out where it is not known
policy.yaml:9:43: ´max_output´: ´many´ is no amount: write it as 10, 50_000, 5M, or the word unlimited
policy.yaml:9:55: ´from´: ´2026-02-30´ is no day: write it as 2026-01-31
policy.yaml:10:77: model ´h´ has a price from the same day on at policy.yaml:10:9 already: write from when this one counts, as from: 2026-01-31
policy.yaml:10:122: model ´h´ has a price from the same day on at policy.yaml:10:52 already: write from when this one counts, as from: 2026-01-31
policy.yaml:11:17: ´input´: ".inf" is no amount in dollars: write it as 1, 1.50, 0.0028 or 5_000
policy.yaml:11:31: ´output´: "0x10" is no amount in dollars: write it as 1, 1.50, 0.0028 or 5_000
policy.yaml:12:17: ´input´: ´` + strings.Repeat("1", 100) + `…´ is no amount in dollars: write it as 1, 1.50, 0.0028 or 5_000
`)},
		{"limits in money", `
domain: d
tiers: [{name: free}]
limits:
- {name: a, meter: cost, limit: 5/month}
- {name: b, meter: cost, rate: 5/minute, burst: 5, per_request: 1}
- {name: c, limit: $5/month, per_request: $1, ceiling: {free: $1}}
- {name: e, meter: tokens, rate: $0.50/hour, burst: 1, ceiling: $2}
- {name: f, meter: cost, algorithm: sliding_log, limit: $5/day}
- {name: g, meter: cost, limit: -$5/month}
- {name: h, meter: cost, limit: $-5/month}
- {name: i, meter: cost, limit: "$5,000/month"}
- {name: j, meter: cost, limit: $5k/month}
- {name: k, meter: cost, limit: 5$/month}
- {name: l, meter: cost, limit: $9007199.254740992/month}
- {name: m, meter: cost, limit: $0.0000000001/month}
- {name: n, meter: cost, limit: $5/mouth}
- {name: o, meter: cost, algorithm: calendar, limit: $5}
- {name: p, meter: cost, algorithm: calendar}
- {name: q, meter: cost, limit: $5/day}
- {name: r, meter: cost, limit: $5/month, ceiling: $5.01}
- {name: s, meter: cost, limit: $5/month, per_request: $0}
- {name: t, meter: cost, algorithm: concurrency, limit: $5}
- {name: u, meter: concurrency, limit: $5}
- {name: v, meter: cost, limit: $5/month, ceiling: {free: 3}, count_cache_read: true}
- {name: w, meter: requests, limit: 5/month, on_lapse: all, clamp: true}
- {name: x, meter: cost, limit: $/month}
- {name: y, meter: cost, limit: $1.0_0/month}
- {name: z, meter: cost, limit: $5/month, warn_at: $4}
descriptors:
- {key: user, subject: true, limits: [{name: aa, meter: cost, limit: $5/month, tiers: {free: {limit: 5/month, per_request: 1}}}]}
`, expected(`
policy.yaml:4:33: limit ´a´: cost is counted in dollars: write $5/month
policy.yaml:5:32: limit ´b´: cost is counted in dollars: write $5/minute
policy.yaml:5:49: limit ´b´: cost is counted in dollars: write $5
policy.yaml:5:65: limit ´b´: cost is counted in dollars: write $1
policy.yaml:6:20: limit ´c´: $5.00 is money, and its meter is requests: write the number alone, or ´meter: cost´
policy.yaml:6:43: limit ´c´: $1.00 is money, and its meter is requests: write the number alone, or ´meter: cost´
policy.yaml:6:63: limit ´c´: $1.00 is money, and its meter is requests: write the number alone, or ´meter: cost´
policy.yaml:7:34: limit ´e´: $0.50 is money, and its meter is tokens: write the number alone, or ´meter: cost´
policy.yaml:7:65: limit ´e´: $2.00 is money, and its meter is tokens: write the number alone, or ´meter: cost´
policy.yaml:8:37: limit ´f´: a sliding_log remembers every unit, 10000 at most, and those of money are billionths of a dollar: take sliding_window, which remembers two numbers
policy.yaml:9:33: ´limit´: ´-$5´ is negative: write $0 to refuse everything, or the word unlimited
policy.yaml:10:33: ´limit´: ´$-5´ is negative: write $0 to refuse everything, or the word unlimited
policy.yaml:11:33: ´limit´: ´$5,000´ has a comma: write $5_000, and $1.50 with a point
policy.yaml:12:33: ´limit´: ´$5k´ is no amount in dollars: write it as $5, $0.50 or $5_000
policy.yaml:13:33: ´limit´: ´5$´ is no amount in dollars: write it as $5, $0.50 or $5_000
policy.yaml:14:33: ´limit´: "$9007199.254740992" is more than the largest amount, $9007199.254740991
policy.yaml:15:33: ´limit´: "$0.0000000001" is finer than a billionth of a dollar: round it up
policy.yaml:16:33: ´limit´: ´mouth´ is no unit of time (did you mean ´month´?)
policy.yaml:17:54: limit ´o´: $5.00 in what time? Write it as $5.00/minute
policy.yaml:18:3: limit ´p´: it says no quantity: write ´limit: $1_000/month´, ´limit´ or ´rate´ by tier, or the word unlimited
policy.yaml:19:3: limit ´q´: it needs an algorithm: sliding_window (close to exact, small), fixed_window (anew with each window of the clock) or calendar (anew each hour, day or month of a time zone); a ´rate´ with a ´burst´ is a token_bucket
policy.yaml:20:52: limit ´r´: a ceiling of $5.01 is above the limit, which is $5.00
policy.yaml:21:56: limit ´s´: a ´per_request´ of 0 refuses everything: a limit of 0 says that more clearly
policy.yaml:22:37: limit ´t´: what is in flight at the same time takes both meter: concurrency and algorithm: concurrency (which is its default), not cost with concurrency
policy.yaml:23:40: limit ´u´: $5.00 is money, and its meter is concurrency: write the number alone, or ´meter: cost´
policy.yaml:24:59: limit ´v´: cost is counted in dollars: write $3
policy.yaml:24:81: limit ´v´: ´count_cache_read´ is only for the meter input_tokens: tokens count cache reads anyway
policy.yaml:25:56: limit ´w´: ´on_lapse´ is only for the meters of tokens and cost: nothing else is held until it is known
policy.yaml:25:68: limit ´w´: ´clamp´ is only for the meters output_tokens, tokens and cost: nothing else can be made smaller
policy.yaml:26:33: ´limit´: ´$´ is no amount in dollars: write it as $5, $0.50 or $5_000
policy.yaml:27:33: ´limit´: ´$1.0_0´ is no amount in dollars: write it as $5, $0.50 or $5_000
policy.yaml:28:52: ´warn_at´: ´$4´ is no percentage: write it as 85%
policy.yaml:30:102: limit ´aa´: cost is counted in dollars: write $5/month
policy.yaml:30:124: limit ´aa´: cost is counted in dollars: write $1
`)},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, failures, _ := parse(t, strings.TrimPrefix(c.policy, "\n"), Options{})
			if failures != c.want {
				t.Errorf("got\n%swant\n%s", failures, c.want)
			}
		})
	}
}

// What loads and is probably not meant.
func TestPriceWarnings(t *testing.T) {
	const cost = "limits: [{name: spend, meter: cost, limit: $5/month}]\n"
	shipped := price.Builtin().Date()
	for _, c := range []struct {
		name, policy, now, want string
		strict                  bool
	}{
		{name: "models without a price", policy: cost + `
tiers:
- {name: free, attributes: {model: mine-11}}
- {name: pro, attributes: {model: claude-haiku-4-5-20251001}}
- {name: max, attributes: {model: 5}}
- {name: none}
trust_tier: true
upstreams:
- name: up
  models: [claude-*, anthropic/claude-*, gpt-4o, zebra, zebra-*, "*-zebra", "*", "no-*-haiku-4-5", MINE-1, "*ne-2", me-2, "zz-*", "ZZ-a*", "MINE-*"]
  limits: [{name: x, rate: 5/day}]
prices:
  models:
    mine-1: {input: 1, output: 1, cache_read: 1, cache_write: 1}
    m*-2: {from: 2026-06-01, input: 1, output: 1, cache_read: 1, cache_write: 1}
    ZZ*top: {input: 1, output: 1, cache_read: 1, cache_write: 1}
`, want: `
policy.yaml:5:3: model ´mine-11´ of tier ´free´ has no price: a call to it is refused where money is limited (did you mean ´mine-1´?)
policy.yaml:12:50: model ´zebra´ of upstream ´up´ has no price: a call to it is refused where money is limited
policy.yaml:12:57: no model like ´zebra-*´ of upstream ´up´ has a price: such a model is refused where money is limited
policy.yaml:12:82: no model like ´no-*-haiku-4-5´ of upstream ´up´ has a price: such a model is refused where money is limited
`},
		{name: "a price that is not yet there", now: "2026-05-31", policy: cost + `
prices: {book: none, unknown_model: assume_max, models: {m-2: {from: 2026-06-01, input: 1, output: 1, cache_read: 1, cache_write: 1}}}
upstreams: [{name: up, models: m-2, limits: [{name: x, rate: 5/day}]}]
`, want: `
policy.yaml:5:32: model ´m-2´ of upstream ´up´ has no price: a call to it costs as much as the dearest (did you mean ´m-2´?)
`},
		{name: "a price that is there by then", now: "2026-06-01", policy: cost + `
prices: {book: none, unknown_model: assume_max, models: {m-2: {from: 2026-06-01, input: 1, output: 1, cache_read: 1, cache_write: 1}}}
upstreams: [{name: up, models: m-2, limits: [{name: x, rate: 5/day}]}]
`},
		{name: "no price, and no limit of cost", policy: `
prices: {book: builtin}
upstreams: [{name: up, models: zebra, limits: [{name: x, rate: 5/day}]}]
`},
		{name: "no cache price", policy: `
prices:
  models:
    a: {input: 1, output: 1}
    b: {input: 1, output: 1, cache_read: 0.1}
    c: {input: 1, output: 1, cache_write: 1.25}
    e: {input: 1, output: 1, cache_read: 0, cache_write: 0}
`, want: `
policy.yaml:5:8: model ´a´ has no price of ´cache_read´ and ´cache_write´, so they are counted as input: write the input price if that is meant
policy.yaml:6:8: model ´b´ has no price of ´cache_write´, so it is counted as input: write the input price if that is meant
policy.yaml:7:8: model ´c´ has no price of ´cache_read´, so it is counted as input: write the input price if that is meant
`},
		{name: "many without a cache price", policy: `
prices:
  models:
    a: [{input: 1, output: 1}, {from: 2026-01-01, input: 1, output: 1}]
    b: {input: 1, output: 1, cache_read: 1}
    c: {input: 1, output: 1, cache_read: 1}
    e: {input: 1, output: 1, cache_read: 1}
    f: {input: 1, output: 1, cache_read: 1}
    g: {input: 1, output: 1, cache_read: 1}
`, want: `
policy.yaml:5:9: model ´a´ has no price of ´cache_read´ and ´cache_write´, so they are counted as input: write the input price if that is meant
policy.yaml:5:32: model ´a´ has no price of ´cache_read´ and ´cache_write´, so they are counted as input: write the input price if that is meant
policy.yaml:6:8: model ´b´ has no price of ´cache_write´, so it is counted as input: write the input price if that is meant
policy.yaml:7:8: model ´c´ has no price of ´cache_write´, so it is counted as input: write the input price if that is meant
policy.yaml:8:8: model ´e´ has no price of ´cache_write´, so it is counted as input: write the input price if that is meant
policy.yaml:9:8: 2 prices more from here on without a price of cache reads or writes: they are counted as input
`},
		{name: "one more without a cache price", policy: `
prices:
  models:
    a: {input: 1, output: 1, cache_read: 1}
    b: {input: 1, output: 1, cache_read: 1}
    c: {input: 1, output: 1, cache_read: 1}
    e: {input: 1, output: 1, cache_read: 1}
    f: {input: 1, output: 1, cache_read: 1}
    g: {input: 1, output: 1, cache_read: 1}
`, want: `
policy.yaml:5:8: model ´a´ has no price of ´cache_write´, so it is counted as input: write the input price if that is meant
policy.yaml:6:8: model ´b´ has no price of ´cache_write´, so it is counted as input: write the input price if that is meant
policy.yaml:7:8: model ´c´ has no price of ´cache_write´, so it is counted as input: write the input price if that is meant
policy.yaml:8:8: model ´e´ has no price of ´cache_write´, so it is counted as input: write the input price if that is meant
policy.yaml:9:8: model ´f´ has no price of ´cache_write´, so it is counted as input: write the input price if that is meant
policy.yaml:10:8: 1 price more from here on without a price of cache reads or writes: they are counted as input
`},
		{name: "calls that cost nothing", policy: cost + "prices: {unknown_model: allow}\n", want: `
policy.yaml:3:25: ´unknown_model: allow´: a call to a model without a price costs nothing, so no limit of cost holds it back, such as ´spend´ at policy.yaml:2:10
`},
		{name: "unknown models where nobody counts money", policy: "prices: {unknown_model: allow}\n"},
		{name: "no prices at all", policy: cost + "prices: {book: none}\nupstreams: [{name: up, models: [zebra, z*], limits: [{name: x, rate: 5/day}]}]\n", want: `
policy.yaml:3:9: there are no prices at all, so every call is refused where money is limited: write some, or ´book: builtin´
`},
		{name: "nothing is dearest", policy: cost + "prices: {book: none, unknown_model: assume_max}\n", want: `
policy.yaml:3:9: there are no prices at all, so every call costs nothing, and no limit of cost holds it back: write some, or ´book: builtin´
`},
		{name: "a book of 90 days", policy: cost, now: shipped.Add(oldAfter).Format(time.DateOnly)},
		{name: "a book of 91 days", policy: cost, now: shipped.AddDate(0, 0, 91).Format(time.DateOnly), want: fmt.Sprintf(`
policy.yaml:2:10: the price book that ships is of %s, 91 days ago: take a later version of ration, or write the prices of your models, with ´book: none´
`, shipped.Format(time.DateOnly))},
		{name: "an old book is no error", strict: true, policy: "prices:\n  book: builtin\n", now: shipped.AddDate(1, 0, 0).Format(time.DateOnly), want: fmt.Sprintf(`
policy.yaml:3:3: the price book that ships is of %s, 365 days ago: take a later version of ration, or write the prices of your models, with ´book: none´
`, shipped.Format(time.DateOnly))},
		{name: "an old book that nobody reads", policy: "prices: {book: none}\n", now: "2126-01-01"},
		{name: "too little for a replica", policy: "limits: [{name: x, meter: cost, limit: $0.000000005/month, on_store_error: local}]\n", want: `
policy.yaml:2:40: limit ´x´: 10% of $0.000000005 is less than 1, so nothing is admitted while the store cannot decide: write a larger ´local_share´, or ´on_store_error: deny´
`},
		{name: "a cap above the budget", policy: "limits: [{name: spend, meter: cost, limit: $5/month, warn_at: 80%, clamp: true, on_lapse: all, per_request: $6}]\n", want: `
policy.yaml:2:109: limit ´spend´: ´per_request´ of $6.00 is above the $5.00 that fit at most, and never matters
`},
	} {
		t.Run(c.name, func(t *testing.T) {
			opts := Options{Strict: c.strict}
			if c.now != "" {
				opts.Now = func() time.Time { return date(c.now) }
			}
			_, failures, warnings := parse(t, "domain: d\n"+c.policy, opts)
			if want := expected(c.want); failures != "" || warnings != want {
				t.Errorf("got errors\n%sand warnings\n%swant the warnings\n%s", failures, warnings, want)
			}
		})
	}
}

// The search for models without a price gives up in time, and so does the search for names like theirs.
func TestLintOfPricesIsBounded(t *testing.T) {
	var b strings.Builder
	b.WriteString("domain: d\nlimits: [{name: x, meter: cost, limit: $1/month}]\nprices: {book: none, models: {")
	for i := range maxPrices {
		fmt.Fprintf(&b, "'k*%d': {input: 1, output: 1, cache_read: 1, cache_write: 1},", i)
	}
	b.WriteString("}}\nupstreams:\n- name: u\n  limits: [{name: x, rate: 5/s}]\n  models: [")
	for i := range 5_000 {
		fmt.Fprintf(&b, "k%d0,", i)
	}
	b.WriteString("]\n")
	_, failures, warnings := parse(t, b.String(), Options{})
	if failures != "" || !strings.HasPrefix(warnings, "there are too many wildcards to find all that is wrong with them\n") {
		t.Errorf("got errors\n%.300sand warnings\n%.300s", failures, warnings)
	}

	_, failures, _ = parse(t, strings.Replace(b.String(), "{'k*0'", "{z: {input: 1, output: 1}, 'k*0'", 1), Options{})
	if want := "policy.yaml: there are more than 10000 prices: `ration prices import` takes the names of those that are wanted\n"; failures != want {
		t.Errorf("got errors\n%.300swant\n%s", failures, want)
	}
}

// A name like that of a model without a price is looked for only so often, since it takes time.
func TestSuggestionsAreBounded(t *testing.T) {
	unknown := strings.Repeat("gpt-4oo, ", 30)
	_, failures, warnings := parse(t, "domain: d\nlimits: [{name: x, meter: cost, limit: $1/month}]\n"+
		"upstreams: [{name: u, limits: [{name: x, rate: 5/s}], models: ["+unknown+"]}]\n", Options{})
	if got := strings.Count(warnings, "did you mean `gpt-4o`?"); failures != "" || got != 20 || strings.Count(warnings, "has no price") != 30 {
		t.Errorf("%d suggestions, errors\n%sand warnings\n%s", got, failures, warnings)
	}
}

// Two patterns overlap if some name is for both.
func TestOverlap(t *testing.T) {
	for pattern, names := range map[string]string{
		"claude-*":   "claude-* claude-haiku-4-5* c* * *-batch claude-x claude-*-b",
		"*-batch":    "claude-* x-batch *batch *-* *",
		"a*b":        "ab axb a*b a*c*b a*b*b *",
		"a*b*c":      "abc axbxc a*c",
		"claude-o-*": "claude-* claude-o-1",
	} {
		for _, name := range strings.Fields(names) {
			if !overlap(pattern, name) {
				t.Errorf("%s and %s do not overlap", pattern, name)
			}
		}
	}
	for pattern, names := range map[string]string{
		"claude-*": "claude gpt-* claud claude",
		"*-batch":  "*-batc x-batc *-batches",
		"a*b":      "a b a*c b*b acd ba",
		"a*b*c":    "ac acb",
	} {
		for _, name := range strings.Fields(names) {
			if overlap(pattern, name) {
				t.Errorf("%s and %s overlap", pattern, name)
			}
		}
	}
}
