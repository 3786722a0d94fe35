package engine_test

import (
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rationhq/ration/engine"
)

// unpricedUsage limits the money of each user, and the tokens of each job.
const unpricedUsage = `
domain: shop
prices:
  book: none
  models: { haiku: { input: 1, output: 5 }, free: { input: 0, output: 0 } }
  unknown_model: deny
descriptors:
- { key: user, limits: [ { name: spend, meter: cost, algorithm: fixed_window, limit: $1/hour } ] }
- { key: job, limits: [ { name: job, meter: tokens, algorithm: fixed_window, limit: 1M/hour } ] }
`

// Usage that limits of cost cannot count is told of: a request once, by the reason why.
func TestUnpricedUsage(t *testing.T) {
	used := func(n uint64, phase, meter, model string) engine.Descriptor {
		pairs := []string{"user=ann", "ration.phase=" + phase, "ration.meter=" + meter}
		if model != "" {
			pairs = append(pairs, "ration.model="+model)
		}
		return hits(n, pairs...)
	}
	back := used(5, "admit", "tokens", "haikoo")
	back.GiveBack = true
	held := used(5, "hold", "tokens", "haikoo")
	held.Entries = append(held.Entries, entries("ration.request=r").Entries...)
	const unknown, none, allow, assume = "unknown_model", "no_model", "allow", "assume_max"
	for name, c := range map[string]struct {
		rule string // unknown_model; deny where it is empty
		asks []engine.Descriptor
		want string // the reasons that count one more
	}{
		"recorded, of a known model":           {"", []engine.Descriptor{used(5, "record", "tokens", "haiku")}, ""},
		"recorded, of a free one":              {"", []engine.Descriptor{used(5, "record", "tokens", "free")}, ""},
		"recorded, of an unknown one":          {"", []engine.Descriptor{used(5, "record", "tokens", "haikoo")}, unknown},
		"recorded, of nobody knows which":      {"", []engine.Descriptor{used(5, "record", "tokens", "")}, none},
		"twice in a request":                   {"", []engine.Descriptor{used(5, "record", "input_tokens", "haikoo"), used(5, "record", "output_tokens", "haikoo")}, unknown},
		"both in a request":                    {"", []engine.Descriptor{used(5, "record", "input_tokens", "haikoo"), used(5, "record", "output_tokens", "")}, unknown + none},
		"beside a known one":                   {"", []engine.Descriptor{used(5, "record", "input_tokens", "haikoo"), used(5, "record", "input_tokens", "haiku")}, unknown},
		"of two classes, both of a known one":  {"", []engine.Descriptor{used(5, "record", "input_tokens", "haiku"), used(5, "record", "output_tokens", "haiku")}, ""},
		"nothing was used":                     {"", []engine.Descriptor{used(0, "record", "tokens", "haikoo")}, ""},
		"requests":                             {"", []engine.Descriptor{used(5, "record", "requests", "haikoo")}, ""},
		"given back":                           {"", []engine.Descriptor{back}, ""},
		"refused":                              {"", []engine.Descriptor{used(5, "admit", "tokens", "haikoo")}, ""},
		"refused as a hold":                    {"", []engine.Descriptor{held}, ""},
		"charged, where it costs nothing":      {allow, []engine.Descriptor{used(5, "admit", "tokens", "haikoo")}, unknown},
		"held, where it costs nothing":         {allow, []engine.Descriptor{held}, ""},
		"recorded, where it costs nothing":     {allow, []engine.Descriptor{used(5, "record", "tokens", "haikoo")}, unknown},
		"recorded, where it costs the most":    {assume, []engine.Descriptor{used(5, "record", "tokens", "haikoo")}, ""},
		"recorded where no limit is of cost":   {"", []engine.Descriptor{hits(5, "job=x", "ration.phase=record", "ration.meter=tokens")}, ""},
		"charged, with a limit of cost beside": {"", []engine.Descriptor{hits(5, "job=x", "ration.phase=record", "ration.meter=tokens"), entries("user=ann")}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			metrics := engine.NewMetrics()
			text := unpricedUsage
			if c.rule != "" {
				text = strings.Replace(text, "unknown_model: deny", "unknown_model: "+c.rule, 1)
			}
			b := newPolicyBench(t, text, engine.Options{Metrics: metrics})
			b.ask(t, c.asks...)
			for _, cause := range []string{unknown, none} {
				counted, known := gather(t, metrics)["ration_unpriced_usage_total cause="+cause+" domain=shop"]
				want := 0.0
				if strings.Contains(c.want, cause) {
					want = 1
				}
				if counted != want || !known {
					t.Errorf("%s is counted %v times, want %v", cause, counted, want)
				}
			}
		})
	}
}

// The log names a model without a price once a minute at most, and no more of it than is needed.
func TestUnpricedUsageLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		b := newPolicyBench(t, money, engine.Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
		use := func(model string) { b.ask(t, spending(5, "tokens", "record", model)) }
		use("haikoo")
		use("sonnet")
		time.Sleep(59 * time.Second)
		use("sonnet")
		if got := log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "model=haikoo nearest=haiku") || !strings.Contains(got, "domain=shop") {
			t.Errorf("in the first minute:\n%s", got)
		}
		time.Sleep(time.Second)
		use(strings.Repeat("x", 500))
		if got := log.String(); strings.Count(got, "\n") != 2 || strings.Count(got, "x") > 120 || !strings.Contains(got, strings.Repeat("x", 100)) {
			t.Errorf("a minute later:\n%s", got)
		}
		time.Sleep(time.Minute)
		b.ask(t, hits(5, "user=ann", "ration.phase=record", "ration.meter=tokens"))
		if got := log.String(); strings.Count(got, "\n") != 3 || !strings.Contains(got, "nobody says of which model") {
			t.Errorf("another minute later:\n%s", got)
		}
	})
}

// Of several models that one upstream serves the one without a price is refused by the upstream's limit of money, also
// where another has asked that limit before; and it is counted as a refusal.
func TestUnpricedBesidePriced(t *testing.T) {
	metrics := engine.NewMetrics()
	b := newPolicyBench(t, `
domain: shop
prices: { book: none, models: { haiku: { input: 1, output: 5 } } }
descriptors: [ { key: user }, { key: org } ]
upstreams:
- name: provider
  models: [ haiku, haikoo ]
  limits:
  - { name: spend, meter: cost, algorithm: fixed_window, limit: $1/hour }
  - { name: rpm, algorithm: fixed_window, limit: 100/minute }
`, engine.Options{Metrics: metrics})
	d := b.ask(t, entries("user=ann", "ration.model=haiku"), entries("org=acme", "ration.model=haikoo"))
	if got := sayLimits(d); got != "OVER spend:0! rpm:0" || d.Limits[0].Unpriced != "haikoo" {
		t.Errorf("%s, without a price: %q", got, d.Limits[0].Unpriced)
	}
	counted := gather(t, metrics)
	const limits = "ration_decisions_total domain=shop rule=shop.upstreams.provider."
	if counted[limits+"spend verdict=over_limit"] != 1 || counted[limits+"rpm verdict=admitted"] != 1 {
		t.Errorf("counted as %v", counted)
	}
}
