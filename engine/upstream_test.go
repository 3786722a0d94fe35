package engine_test

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/rationhq/ration/engine"
	"github.com/rationhq/ration/engine/provider"
	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/store"
)

const upstreams = `
domain: llm
tiers: [ { name: free }, { name: pro } ]
trust_tier: true
descriptors: [ { key: user, subject: true } ]
upstreams:
  - name: anthropic
    models: [ claude-* ]
    limits:
      - { name: rpm, meter: requests, algorithm: token_bucket, rate: 600/minute }
      - { name: itpm, meter: input_tokens, algorithm: token_bucket, rate: 60_000/minute, ceiling: { free: 50%, pro: 100% } }
      - { name: hourly, meter: requests, algorithm: fixed_window, limit: 10_000/hour }
      - { name: daily, meter: tokens, algorithm: calendar, limit: 1M/day }
      - { name: places, meter: concurrency, limit: 50 }
  - name: openai
    models: [ gpt-5 ]
    limits:
      - { name: tpm, meter: tokens, algorithm: fixed_window, limit: 10_000/minute }
  - name: spent
    models: [ slow ]
    limits:
      - { name: daily, meter: tokens, algorithm: calendar, limit: 1M/day }
  - name: bare
    models: [ toy ]
`

// answer is what a provider has answered: a status, and headers a line each.
func answer(status int, headers ...string) provider.Answer {
	a := provider.Answer{Status: status}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		a.Headers = append(a.Headers, provider.Header{Name: name, Value: value})
	}
	return a
}

func (b bench) report(t testing.TB, r *engine.UpstreamReport) *engine.Followed {
	t.Helper()
	var out engine.Followed
	if err := b.ReportUpstream(t.Context(), r, &out); err != nil {
		t.Fatal(err)
	}
	return &out
}

// sayLeft writes what is left of the limits that follow.
func sayLeft(f *engine.Followed) string {
	var words []string
	for i := range f.Limits {
		words = append(words, fmt.Sprintf("%s:%d", f.Limits[i].Limit.Name, f.Limits[i].Status.Remaining))
	}
	return strings.Join(words, " ")
}

// The limits that count the same, and recover in the time that the provider says, come down to what it has left.
func TestLimitsFollowWhatIsLeft(t *testing.T) {
	for name, c := range map[string]struct {
		upstream, want string
		headers        []string
		ignored        []string // parts of what is said of each
	}{
		"requests of a minute": {"anthropic", "rpm:20", []string{"anthropic-ratelimit-requests-remaining: 20", "anthropic-ratelimit-requests-reset: 58"},
			[]string{"llm.upstreams.anthropic.hourly: it says that all is there again in 58s, and the limit needs 1h0m0s"}},
		"half a minute is enough":        {"anthropic", "rpm:300", []string{"x-ratelimit-remaining-requests: 300", "x-ratelimit-reset-requests: 30s"}, []string{"hourly"}},
		"less is not":                    {"anthropic", "", []string{"x-ratelimit-remaining-requests: 300", "x-ratelimit-reset-requests: 29.9s"}, []string{"rpm", "hourly"}},
		"nobody says how long: a minute": {"anthropic", "rpm:7", []string{"x-ratelimit-remaining-requests: 7"}, []string{"hourly"}},
		"requests of a day, all limits":  {"anthropic", "rpm:9 hourly:9", []string{"x-ratelimit-remaining-requests: 9", "x-ratelimit-reset-requests: 6h0m0s"}, nil},
		"the scarcest of several": {"anthropic", "rpm:3 hourly:9000", []string{
			"x-ratelimit-remaining-requests-day: 9000", "x-ratelimit-reset-requests-day: 20000",
			"x-ratelimit-remaining-requests-minute: 3", "x-ratelimit-reset-requests-minute: 50",
		}, []string{"hourly"}},
		"the scarcest, whichever is said first": {"anthropic", "rpm:3", []string{
			"x-ratelimit-remaining-requests: 3", "x-ratelimit-remaining-requests-minute: 90",
		}, []string{"hourly", "hourly"}},
		"what nobody has to leave to others":    {"anthropic", "itpm:40000", []string{"anthropic-ratelimit-input-tokens-remaining: 40000", "anthropic-ratelimit-input-tokens-reset: 40"}, nil},
		"tokens of a minute do not empty a day": {"anthropic", "", []string{"x-ratelimit-remaining-tokens: 0", "x-ratelimit-reset-tokens: 60s"}, []string{"daily"}},
		"tokens of a window":                    {"openai", "tpm:4321", []string{"x-ratelimit-remaining-tokens: 4321", "x-ratelimit-reset-tokens: 45s"}, nil},
		"more than there is":                    {"openai", "", []string{"x-ratelimit-remaining-tokens: 10000", "x-ratelimit-reset-tokens: 45s"}, nil},
		"nothing counts the same":               {"openai", "", []string{"x-ratelimit-remaining-requests: 1"}, []string{"the upstream has no limit of requests"}},
		"what cannot be read":                   {"openai", "tpm:5", []string{"x-ratelimit-remaining-tokens: 5", "x-ratelimit-reset-tokens: soon"}, []string{`x-ratelimit-reset-tokens : "soon" is no time`}},
		"no limits":                             {"bare", "", []string{"x-ratelimit-remaining-tokens: 5"}, []string{"no limit of tokens"}},
		"nothing is said":                       {"anthropic", "", nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			b := newPolicyBench(t, upstreams, engine.Options{})
			r := &engine.UpstreamReport{Domain: "llm", Upstream: c.upstream, Answer: answer(200, c.headers...)}
			for range 2 { // what is said twice is no more
				out := b.report(t, r)
				expect(t, "left", sayLeft(out), c.want)
				if len(out.Ignored) != len(c.ignored) {
					t.Fatalf("ignored: %+v, want %d", out.Ignored, len(c.ignored))
				}
				for i, part := range c.ignored {
					if got := fmt.Sprintf("%s %s: %s", out.Ignored[i].Header, out.Ignored[i].Limit, out.Ignored[i].Why); !strings.Contains(got, part) {
						t.Errorf("ignored: %s, want something of %s", got, part)
					}
				}
			}
		})
	}
}

// After a refusal nobody is sent to the provider before it is time, by whichever replica; then they are again, at the rate
// of the limit.
func TestProviderRefuses(t *testing.T) {
	b := newPolicyBench(t, upstreams, engine.Options{})
	other := engine.New(b.store, engine.Options{})
	t.Cleanup(other.Close)
	p, _ := b.Policy()
	other.SetPolicy(p)
	out := b.report(t, &engine.UpstreamReport{Domain: "llm", Model: "claude-opus-4-1", Answer: answer(429, "retry-after: 20")})
	if out.Upstream.Name != "anthropic" || !out.Refused || out.Wait != 20*limit.Second || len(out.Ignored) > 0 {
		t.Errorf("%+v", out)
	}
	if sayLimits(&out.Decision) != "OK rpm:799" { // of 600: ten a second for twenty, and one
		t.Errorf("they follow: %s", sayLimits(&out.Decision))
	}
	ask := func() (wait limit.Micros, refused bool) {
		var a engine.Admission
		if err := other.Reserve(t.Context(), call("claude-sonnet-4", 10, 10), &a); err != nil {
			t.Fatal(err)
		}
		wait, _ = a.RetryAfter()
		return wait, a.Over
	}
	if wait, refused := ask(); !refused || wait != 20*limit.Second {
		t.Errorf("another replica: refused %t, for %d", refused, wait)
	}
	b.clock.Advance(20*limit.Second - 1)
	if wait, refused := ask(); !refused || wait != 1 {
		t.Errorf("just before: refused %t, for %d", refused, wait)
	}
	b.clock.Advance(1)
	if _, refused := ask(); refused {
		t.Error("it is time, and the next is refused")
	}
	if wait, refused := ask(); !refused || wait != limit.Second/10 {
		t.Errorf("and the one after that: refused %t, for %d", refused, wait)
	}
}

// Which limits a refusal closes: those of which the provider has nothing left, else those of requests, else all that recover
// soon.
func TestWhatARefusalCloses(t *testing.T) {
	for name, c := range map[string]struct {
		model, closed string
		answer        provider.Answer
		ignored       string
	}{
		"requests":                {"claude", "rpm", answer(429, "retry-after: 20"), ""},
		"nobody says how long":    {"claude", "rpm", answer(429), ""},
		"input":                   {"claude", "itpm", answer(429, "retry-after: 20", "anthropic-ratelimit-input-tokens-remaining: 0", "anthropic-ratelimit-input-tokens-reset: 3"), "needs 1m0s"},
		"both":                    {"claude", "rpm itpm", answer(429, "retry-after: 20", "anthropic-ratelimit-input-tokens-remaining: 0", "anthropic-ratelimit-requests-remaining: 0"), "hourly"},
		"input, and not requests": {"claude", "itpm", answer(429, "retry-after: 20", "x-ratelimit-remaining-input-tokens: 0", "x-ratelimit-remaining-requests: 12"), "hourly"},
		"what has no limit":       {"claude", "rpm", answer(429, "retry-after: 20", "anthropic-ratelimit-output-tokens-remaining: 0"), "no limit of output_tokens"},
		"for half an hour":        {"claude", "rpm hourly", answer(429, "retry-after: 1800"), ""},
		"no limit of requests":    {"gpt-5", "tpm", answer(429, "retry-after: 20"), ""},
		"nothing recovers soon":   {"slow", "", answer(429, "retry-after: 20"), "give it one of requests per minute"},
		"overloaded":              {"claude", "rpm", answer(529, "retry-after: 20"), ""},
		"no refusal":              {"claude", "", answer(503), ""},
	} {
		t.Run(name, func(t *testing.T) {
			b := newPolicyBench(t, upstreams, engine.Options{})
			out := b.report(t, &engine.UpstreamReport{Domain: "llm", Model: c.model + map[string]string{"claude": "-x"}[c.model], Answer: c.answer})
			var closed []string
			for i := range out.Limits {
				if a := &out.Limits[i]; a.Status.Remaining <= 0 {
					closed = append(closed, a.Limit.Name)
				}
			}
			expect(t, "closed", strings.Join(closed, " "), c.closed)
			if (len(out.Ignored) > 0) != (c.ignored != "") || c.ignored != "" && !strings.Contains(fmt.Sprint(out.Ignored), c.ignored) {
				t.Errorf("ignored: %+v, want %q", out.Ignored, c.ignored)
			}
		})
	}
}

// What is old is corrected by its age, or does not count.
func TestOldAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newPolicyBench(t, upstreams, engine.Options{})
		report := func(ago time.Duration, a provider.Answer) *engine.Followed {
			return b.report(t, &engine.UpstreamReport{Domain: "llm", Upstream: "anthropic", Answer: a, At: time.Now().Add(-ago)})
		}
		left := []string{"x-ratelimit-remaining-requests: 5", "x-ratelimit-reset-requests: 35"}
		if out := report(11*time.Second, answer(200, left...)); len(out.Limits) > 0 || !strings.Contains(out.Ignored[0].Why, "11 seconds old") {
			t.Errorf("what was left eleven seconds ago: %+v", out)
		}
		if out := report(10*time.Second, answer(200, left...)); len(out.Limits) > 0 || !strings.Contains(out.Ignored[0].Why, "25s") {
			t.Errorf("with the reset as it is by now: %+v", out)
		}
		if out := report(5*time.Second, answer(200, left...)); sayLeft(out) != "rpm:5" {
			t.Errorf("five seconds ago: %+v", out)
		}
		if out := report(12*time.Second, answer(429, "retry-after: 20")); out.Wait != 8*limit.Second || len(out.Limits) != 1 {
			t.Errorf("a wait of which a part is over: %+v", out)
		}
		if out := report(21*time.Second, answer(429, "retry-after: 20")); len(out.Limits) > 0 || !strings.Contains(out.Ignored[0].Why, "is over") {
			t.Errorf("a wait that is over: %+v", out)
		}
		if out := report(-time.Hour, answer(429, "retry-after: 20")); out.Wait != 20*limit.Second {
			t.Errorf("by a clock that is ahead: %+v", out)
		}
	})
}

// Whatever a provider says, limits only ever come down, by what one of them says that they follow; one that needs more than
// twice as long to recover as the provider, or two minutes, is left alone.
func TestLimitsOnlyComeDown(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		b := newPolicyBench(t, upstreams, engine.Options{})
		var d engine.Decision
		standing := func() map[string]limit.Status {
			all := map[string]limit.Status{}
			if err := b.Standing(t.Context(), &call("claude-x", 0, 0, asPro).Caller, &d); err != nil {
				r.Fatal(err)
			}
			for i := range d.Limits {
				all[d.Limits[i].Limit.Name] = d.Limits[i].Status
			}
			return all
		}
		for range rapid.IntRange(1, 5).Draw(r, "answers") {
			before := standing()
			seconds, least := rapid.Int64Range(0, 4000).Draw(r, "reset"), limit.MaxAmount
			var headers []string
			for _, meter := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"requests", "tokens", "input-tokens"}), 0, 3, rapid.ID).Draw(r, "meters") {
				left := rapid.Int64Range(0, 70_000).Draw(r, "left")
				least = min(least, left)
				headers = append(headers, fmt.Sprintf("x-ratelimit-remaining-%s: %d", meter, left), fmt.Sprintf("x-ratelimit-reset-%s: %d", meter, seconds))
			}
			status := rapid.SampledFrom([]int{0, 200, 429, 529}).Draw(r, "status")
			if status != 200 {
				headers = append(headers, fmt.Sprintf("retry-after: %d", seconds))
			}
			out := b.report(t, &engine.UpstreamReport{Domain: "llm", Upstream: "anthropic", Answer: answer(status, headers...)})
			after := standing()
			for name, was := range before {
				is := after[name]
				switch {
				case is.Remaining > was.Remaining:
					r.Errorf("%s has gone up from %d to %d", name, was.Remaining, is.Remaining)
				case is.Remaining == was.Remaining:
				case !out.Refused && is.Remaining < least:
					r.Errorf("%s has come down to %d, and the provider has %d", name, is.Remaining, least)
				case name == "places" || name == "daily", name == "hourly" && 2*seconds < 3600:
					r.Errorf("%s follows %v", name, headers)
				}
			}
			b.clock.Advance(limit.Micros(rapid.Int64Range(0, 30).Draw(r, "later")) * limit.Second)
		}
	})
}

func TestInvalidUpstreamReports(t *testing.T) {
	b := newPolicyBench(t, upstreams, engine.Options{})
	many := make([]string, engine.MaxHeaders+1)
	for i := range many {
		many[i] = "a: b"
	}
	for name, c := range map[string]struct {
		report engine.UpstreamReport
		want   string
	}{
		"no domain":     {engine.UpstreamReport{Upstream: "openai"}, "domain: it is empty"},
		"no upstream":   {engine.UpstreamReport{Domain: "llm"}, "upstream: name the upstream, or the model"},
		"a near name":   {engine.UpstreamReport{Domain: "llm", Upstream: "antropic"}, `did you mean "anthropic"?`},
		"no near name":  {engine.UpstreamReport{Domain: "llm", Upstream: "vertex"}, `upstream: the domain "llm" has no upstream "vertex"`},
		"a model":       {engine.UpstreamReport{Domain: "llm", Model: "gpt-6"}, `model: no upstream of the domain "llm" serves "gpt-6"`},
		"no status":     {engine.UpstreamReport{Domain: "llm", Upstream: "openai", Answer: answer(42)}, "status: 42 is no status"},
		"many headers":  {engine.UpstreamReport{Domain: "llm", Upstream: "openai", Answer: answer(200, many...)}, "headers: 257 headers, at most 256"},
		"large headers": {engine.UpstreamReport{Domain: "llm", Upstream: "openai", Answer: answer(200, "a: "+strings.Repeat("b", 70_000))}, "headers: 70001 bytes in all, at most 65536"},
	} {
		t.Run(name, func(t *testing.T) {
			err := b.ReportUpstream(t.Context(), &c.report, &engine.Followed{})
			var invalid *engine.InvalidError
			if !errors.As(err, &invalid) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %s", err, c.want)
			}
		})
	}
	if err := b.ReportUpstream(t.Context(), &engine.UpstreamReport{Domain: "shop", Upstream: "openai"}, &engine.Followed{}); !errors.Is(err, engine.ErrUnknownDomain) {
		t.Errorf("another domain: %v", err)
	}
}

// Whoever may act for a domain may tell of its providers; who may for some subjects alone may not, since all are concerned.
func TestScopeOfUpstreamReports(t *testing.T) {
	b := newPolicyBench(t, upstreams, engine.Options{})
	report := &engine.UpstreamReport{Domain: "llm", Upstream: "openai", Answer: answer(429)}
	for name, c := range map[string]struct {
		scope engine.Scope
		ok    bool
	}{
		"this domain":     {engine.Scope{Domains: []string{"llm"}}, true},
		"another domain":  {engine.Scope{Domains: []string{"shop"}}, false},
		"some subjects":   {engine.Scope{Subjects: []engine.SubjectPattern{{Key: "user", Name: "alice"}}}, false},
		"subjects, of it": {engine.Scope{Domains: []string{"llm"}, Subjects: []engine.SubjectPattern{{Key: "user", Prefix: true}}}, false},
	} {
		err := b.ReportUpstream(engine.WithScope(t.Context(), &c.scope), report, &engine.Followed{})
		if (err == nil) != c.ok || err != nil && !errors.Is(err, engine.ErrOutOfScope) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Every answer is counted by what became of it, and a refusal is logged once a minute.
func TestUpstreamReportsAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		metrics := engine.NewMetrics()
		f := &faulty{Store: newPolicyBench(t, upstreams, engine.Options{}).store}
		e := engine.New(f, engine.Options{Metrics: metrics, Log: slog.New(slog.NewTextHandler(&log, nil))})
		t.Cleanup(e.Close)
		p, _, err := policy.Parse([]policy.Source{{Name: "llm.yaml", Data: []byte(upstreams)}}, policy.Options{})
		if err != nil {
			t.Fatal(err)
		}
		e.SetPolicy(p)
		report := func(a provider.Answer) error {
			return e.ReportUpstream(t.Context(), &engine.UpstreamReport{Domain: "llm", Upstream: "openai", Answer: a}, &engine.Followed{})
		}
		for _, a := range []provider.Answer{
			answer(429), answer(200, "x-ratelimit-remaining-tokens: 4"), answer(200), answer(200, "x-ratelimit-remaining-tokens: many"), answer(429, "retry-after: 9"),
		} {
			if err := report(a); err != nil {
				t.Fatal(err)
			}
		}
		f.set(store.ErrUnavailable, false)
		if err := report(answer(429)); !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("without the store: %v", err)
		}
		f.set(nil, false)
		counted := gather(t, metrics)
		for kind, want := range map[string]float64{"refused": 2, "followed": 1, "ignored": 2, "failed": 1} {
			if got := counted["ration_upstream_reports_total domain=llm kind="+kind+" upstream=openai"]; got != want {
				t.Errorf("%s is counted %v times, want %v", kind, got, want)
			}
		}
		if got := counted["ration_upstream_unreadable_total domain=llm upstream=openai"]; got != 1 {
			t.Errorf("unreadable is counted %v times", got)
		}
		const said = "a provider has refused"
		if got := log.String(); strings.Count(got, said) != 1 || !strings.Contains(got, "domain=llm upstream=openai wait=1s limits=1") {
			t.Errorf("in the first minute:\n%s", got)
		}
		time.Sleep(time.Minute)
		if err := report(answer(429)); err != nil || strings.Count(log.String(), said) != 2 {
			t.Errorf("a minute later (%v):\n%s", err, log.String())
		}
	})
}
