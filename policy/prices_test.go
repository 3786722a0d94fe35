package policy

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/price"
)

// date returns a day's beginning, for prices and for what is found old.
func date(text string) time.Time {
	d, err := time.Parse(time.DateOnly, text)
	if err != nil {
		panic(err)
	}
	return d
}

// says describes what a book says of a model: its entry, its prices per million tokens, and its longest answer.
func says(d *Domain, model, at string) string {
	q, ok := d.Prices().Find(model, date(at))
	if !ok {
		return "nothing"
	}
	return fmt.Sprintf("%s: %v in, %v read, %v written, %v out, at most %d", q.Model, q.Input, q.CacheRead, q.CacheWrite, q.Output, q.MaxOutput)
}

// What stands in the policy is the price, exactly as it is written; what is not there is in the book that ships.
func TestPrices(t *testing.T) {
	p, failures, _ := parse(t, `
domain: llm
prices:
  models:
    claude-haiku-4-5*: { input: "0.80", output: "4.00", cache_read: "0.08", cache_write: "1.00", max_output: 64_000 }
    Mine:    { input: 3, output: 0.000000001 }
    plain:   { input: 9007199.254740991, output: 1_000.10, cache_write: 0, max_output: 8k }
    dollars: { input: $0.1, output: "$3" }
    dated:
    - { from: 2026-03-01, input: "2.00", output: "8.00", cache_read: "0.50" }
    - { input: "10.00", output: "40.00" }
    - { from: "2026-06-01", input: "1.00", output: "4.00" }
    later: { from: 2027-01-01, input: 1, output: 1 }
    gpt-4o: &same { input: 7, output: 7 }
    gpt-4o-mini: { <<: *same, output: 9 }
`[1:], Options{})
	if failures != "" {
		t.Fatal(failures)
	}
	d := p.Domain("llm")
	for _, c := range []struct{ model, at, want string }{
		{"claude-haiku-4-5-20251001", "2026-11-22", "claude-haiku-4-5*: 0.80 in, 0.08 read, 1.00 written, 4.00 out, at most 64000"},
		{"mine", "2026-11-22", "Mine: 3.00 in, 3.00 read, 3.00 written, 0.000000001 out, at most 0"},
		{"plain", "2026-11-22", "plain: 9007199.254740991 in, 9007199.254740991 read, 0.00 written, 1000.10 out, at most 8000"},
		{"dollars", "2026-11-22", "dollars: 0.10 in, 0.10 read, 0.10 written, 3.00 out, at most 0"},
		{"dated", "2026-02-28", "dated: 10.00 in, 10.00 read, 10.00 written, 40.00 out, at most 0"},
		{"dated", "2026-03-01", "dated: 2.00 in, 0.50 read, 2.00 written, 8.00 out, at most 0"},
		{"dated", "2026-06-01", "dated: 1.00 in, 1.00 read, 1.00 written, 4.00 out, at most 0"},
		{"later", "2026-12-31", "nothing"},
		{"later", "2027-01-01", "later: 1.00 in, 1.00 read, 1.00 written, 1.00 out, at most 0"},
		{"gpt-4o-mini", "2026-11-22", "gpt-4o-mini: 7.00 in, 7.00 read, 7.00 written, 9.00 out, at most 16384"},
		{"zebra", "2026-11-22", "nothing"},
	} {
		if got := says(d, c.model, c.at); got != c.want {
			t.Errorf("%s on %s is\n%s, want\n%s", c.model, c.at, got, c.want)
		}
	}
	shipped := price.Builtin()
	want, _ := shipped.Find("gpt-4.1", date("2026-11-22"))
	if got, ok := d.Prices().Find("gpt-4.1", date("2026-11-22")); !ok || got.Rates != want.Rates || want.Input == 0 {
		t.Errorf("gpt-4.1 costs %v, want what the book says that ships: %v", got.Rates, want.Rates)
	}
}

// Prices are there where they are asked for, or where money is limited; the book that ships unless it is unwanted.
func TestWhereThereArePrices(t *testing.T) {
	const cost = "limits: [{name: x, meter: cost, limit: $1/month}]\n"
	for _, c := range []struct{ policy, gpt, mine, unknown string }{
		{"", "no book", "no book", "deny"},
		{"limits: [{name: x, meter: tokens, limit: 1/month}]\n", "no book", "no book", "deny"},
		{cost, "yes", "no", "deny"},
		{"prices:\n", "yes", "no", "deny"},
		{"prices: {models: }\n", "yes", "no", "deny"},
		{"prices: {book: builtin}\n", "yes", "no", "deny"},
		{"prices: {book: none}\n", "no", "no", "deny"},
		{cost + "prices: {book: none}\n", "no", "no", "deny"},
		{"prices: {models: {mine: {input: 1, output: 1}}}\n", "yes", "yes", "deny"},
		{cost + "prices: {book: none, models: {mine: {input: 1, output: 1}}, unknown_model: assume_max}\n", "no", "yes", "assume_max"},
		{cost + "prices: {unknown_model: allow}\n", "yes", "no", "allow"},
		{cost + "prices: {unknown_model: deny}\n", "yes", "no", "deny"},
	} {
		p, failures, _ := parse(t, "domain: d\n"+c.policy, Options{})
		if failures != "" {
			t.Errorf("%s%s", c.policy, failures)
			continue
		}
		d := p.Domain("d")
		has := func(model string) string {
			if d.Prices() == nil {
				return "no book"
			}
			if _, ok := d.Prices().Find(model, date("2026-11-22")); ok {
				return "yes"
			}
			return "no"
		}
		if got := [3]string{has("gpt-4o"), has("mine"), d.UnknownModel().String()}; got != [3]string{c.gpt, c.mine, c.unknown} {
			t.Errorf("%s: gpt-4o, mine, unknown models: %q, want %q, %q, %q", c.policy, got, c.gpt, c.mine, c.unknown)
		}
	}
}

// Files add prices to a domain. What is said once for it is not said differently.
func TestPricesInSeveralFiles(t *testing.T) {
	p, failures, warnings := parse(t, `
=== a.yaml
domain: d
prices: {book: none, models: {a: {input: 1, output: 1, cache_read: 1, cache_write: 1}}}
=== b.yaml
domain: d
=== c.yaml
domain: d
prices: {unknown_model: allow, book: none, models: {b: {input: 2, output: 2, cache_read: 2, cache_write: 2}}}
`, Options{MergeDomains: true})
	if failures+warnings != "" {
		t.Fatal(failures + warnings)
	}
	d := p.Domain("d")
	if got := len(d.Prices().Models()); got != 2 || d.UnknownModel() != UnknownModelAllow {
		t.Errorf("there are %d prices, and unknown models are %v", got, d.UnknownModel())
	}
	_, failures, _ = parse(t, `
=== a.yaml
domain: d
prices: {book: none, unknown_model: deny, models: {a: {input: 1, output: 1}}}
=== b.yaml
domain: d
prices: {book: builtin, unknown_model: allow, models: {A: {input: 1, output: 1}}}
`, Options{MergeDomains: true})
	want := expected(`
b.yaml:2:16: ´book´ is none at a.yaml:2:16: it is said once for the domain
b.yaml:2:40: ´unknown_model´ is deny at a.yaml:2:37: it is said once for the domain
b.yaml:2:56: model ´A´ has prices at a.yaml:2:52 already: names are compared in lower case, and prices from several days on are a list
`)
	if failures != want {
		t.Errorf("got\n%swant\n%s", failures, want)
	}
}

// A policy with other prices is another policy, be it by the book that ships.
func TestVersionTellsPrices(t *testing.T) {
	const text = "domain: d\nprices: {models: {a: {input: 1, output: 1}}}\n"
	sources := []Source{{"p.yaml", []byte(text)}}
	with, without := version(sources, true), version(sources, false)
	if with == without || with == version([]Source{{"p.yaml", []byte(strings.Replace(text, "1", "2", 1))}}, true) {
		t.Error("the version does not tell prices")
	}
	p, _, _ := parse(t, text, Options{})
	none, _, _ := parse(t, strings.Replace(text, "{models", "{book: none, models", 1), Options{})
	if p.Version() != with || none.Version() != version([]Source{{"p.yaml", []byte(strings.Replace(text, "{models", "{book: none, models", 1))}}, false) {
		t.Errorf("the versions are %s and %s", p.Version(), none.Version())
	}
}

// Whatever prices are written, as text or as plain numbers, the book has these and no others.
func TestPricesAreExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rate := rapid.Custom(func(t *rapid.T) price.Rate {
			return price.Rate(rapid.Int64Range(0, limit.MaxAmount).Draw(t, "rate"))
		})
		var models []price.Model
		written := map[string]any{}
		for _, name := range rapid.SliceOfNDistinct(rapid.StringMatching(`[a-c*-]{1,4}`), 0, 4, rapid.ID).Draw(t, "names") {
			var entries []any
			for _, day := range rapid.SliceOfNDistinct(rapid.IntRange(0, 9), 1, 3, rapid.ID).Draw(t, "days") {
				m := price.Model{
					Name: name, Rates: price.Rates{Input: rate.Draw(t, "input"), Output: rate.Draw(t, "output")},
					HasCacheRead: rapid.Bool().Draw(t, "read?"), HasCacheWrite: rapid.Bool().Draw(t, "write?"),
				}
				entry := map[string]any{}
				number := func(key string, r price.Rate) {
					entry[key] = r.String()
					if rapid.Bool().Draw(t, "plain") {
						entry[key] = json.Number(r.String())
					}
				}
				number("input", m.Input)
				number("output", m.Output)
				if m.HasCacheRead {
					m.CacheRead = rate.Draw(t, "read")
					number("cache_read", m.CacheRead)
				}
				if m.HasCacheWrite {
					m.CacheWrite = rate.Draw(t, "write")
					number("cache_write", m.CacheWrite)
				}
				if day > 0 {
					m.From = date(fmt.Sprintf("2026-01-%02d", day))
					entry["from"] = m.From.Format(time.DateOnly)
				}
				if rapid.Bool().Draw(t, "max_output?") {
					m.MaxOutput = rapid.Int64Range(1, limit.MaxAmount).Draw(t, "max_output")
					entry["max_output"] = m.MaxOutput
				}
				models, entries = append(models, m), append(entries, entry)
			}
			if written[name] = any(entries); len(entries) == 1 && rapid.Bool().Draw(t, "alone") {
				written[name] = entries[0]
			}
		}
		want, err := price.NewBook(models, nil)
		if err != nil {
			t.Fatal(err)
		}
		yaml, err := json.Marshal(map[string]any{"domain": "d", "prices": map[string]any{"book": "none", "models": written}})
		if err != nil {
			t.Fatal(err)
		}
		p, _, err := Parse([]Source{{"policy.yaml", yaml}}, Options{})
		if err != nil {
			t.Fatalf("%s: %v", yaml, err)
		}
		if got := p.Domain("d").Prices(); got.Version() != want.Version() {
			t.Fatalf("%s\nhas the prices %+v\nwant             %+v", yaml, got.Models(), want.Models())
		}
	})
}

// A whole policy for a service of language models: tiers, prices, limits of requests, tokens, money and places on every
// level, and the shared keys of providers.
func TestWholeLanguage(t *testing.T) {
	p, failures, warnings := parse(t, `
domain: llm
tiers:
- {name: free, attributes: {model: claude-haiku-4-5-20251001, max_output: 1024}}
- {name: pro, attributes: {model: claude-haiku-4-5-20251001, max_output: 4096}}
- {name: premium, attributes: {model: claude-sonnet-4-6, max_output: 8192}}
anonymous: { by: remote_address }
prices:
  book: builtin
  unknown_model: deny
  models:
    claude-haiku-4-5*: { input: "0.80", output: "4.00", cache_read: "0.08", cache_write: "1.00" }
    claude-sonnet-4-6: { input: "3.00", output: "15.00" }
    claude-opus-4-*:   { input: "15.00", output: "75.00" }
limits:
- { name: company-spend, meter: cost, algorithm: calendar, limit: $5000/month }
descriptors:
- key: user
  subject: true
  limits:
  - name: requests
    meter: requests
    algorithm: token_bucket
    tiers:
      free:    { rate: 10/minute,  burst: 5 }
      pro:     { rate: 60/minute,  burst: 20 }
      premium: { rate: 300/minute, burst: 100 }
  - name: tokens
    meter: tokens
    algorithm: sliding_window
    clamp: true
    tiers:
      free:    { limit: 50_000/hour,    per_request: 2_000 }
      pro:     { limit: 500_000/hour,   per_request: 10_000 }
      premium: { limit: 5_000_000/hour, per_request: 50_000 }
  - name: spend
    meter: cost
    algorithm: calendar
    warn_at: [ 80%, 100% ]
    on_store_error: deny
    tiers:
      free:    { limit: $1/month }
      pro:     { limit: $20/month }
      premium: { limit: $200/month }
  - name: in-flight
    meter: concurrency
    tiers: { free: { limit: 2 }, pro: { limit: 10 }, premium: { limit: 50 } }
  descriptors:
  - key: model
    value: claude-opus-*
    limits:
    - { name: opus, meter: requests, algorithm: sliding_log, limit: 20/day }
- key: org
  limits:
  - { name: org-spend, meter: cost, algorithm: calendar, limit: $500/month }
upstreams:
- name: anthropic
  models: [ claude-* ]
  limits:
  - { name: rpm,  meter: requests,      algorithm: token_bucket, rate: 1_000/minute,     ceiling: { free: 60%, pro: 85%, premium: 100% } }
  - { name: itpm, meter: input_tokens,  algorithm: token_bucket, rate: 2_000_000/minute, ceiling: { free: 60%, pro: 85%, premium: 100% } }
  - { name: otpm, meter: output_tokens, algorithm: token_bucket, rate: 400_000/minute,   ceiling: { free: 60%, pro: 85%, premium: 100% } }
subjects:
  alice: { tier: premium, time_zone: Europe/Berlin }
  bob:   { tier: pro }
`[1:], Options{})
	want := expected(`
policy.yaml:12:24: model ´claude-sonnet-4-6´ has no price of ´cache_read´ and ´cache_write´, so they are counted as input: write the input price if that is meant
policy.yaml:13:24: model ´claude-opus-4-*´ has no price of ´cache_read´ and ´cache_write´, so they are counted as input: write the input price if that is meant
`)
	if failures != "" || warnings != want {
		t.Fatalf("got errors\n%sand warnings\n%swant the warnings\n%s", failures, warnings, want)
	}
	var got []string
	for _, l := range p.Limits() {
		if l.Meter == Cost {
			got = append(got, l.Path+" "+compiled(l, 3)+" "+l.OnStoreError.String())
		}
	}
	wantLimits := []string{
		"llm.company-spend calendar 5000000000000 per month / calendar 5000000000000 per month / calendar 5000000000000 per month deny",
		"llm.user.spend calendar 1000000000 per month / calendar 20000000000 per month / calendar 200000000000 per month deny",
		"llm.org.org-spend calendar 500000000000 per month / calendar 500000000000 per month / calendar 500000000000 per month deny",
	}
	if !slices.Equal(got, wantLimits) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(wantLimits, "\n"))
	}
	if got := says(p.Domain("llm"), "claude-opus-4-1-20250805", "2026-11-22"); !strings.HasPrefix(got, "claude-opus-4-*: 15.00 in, ") {
		t.Errorf("opus is %s", got)
	}
}
