package policy

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/rationhq/ration/limit"
)

// compiled describes a limit by what becomes of it for each tier.
func compiled(l *Limit, tiers int) string {
	var b strings.Builder
	for tier := range max(1, tiers) {
		if tier > 0 {
			b.WriteString(" / ")
		}
		q := l.For(tier)
		if q == nil {
			b.WriteString("unlimited")
			continue
		}
		s := q.Spec
		fmt.Fprintf(&b, "%v %d", s.Algorithm, s.Limit)
		if s.Algorithm == limit.TokenBucket {
			fmt.Fprintf(&b, " burst %d", s.Burst)
		}
		if s.Window > 0 {
			fmt.Fprintf(&b, " per %v", s.Window.Duration())
		}
		if s.FirstUse {
			b.WriteString(" from first use")
		}
		if c := s.Calendar; c != nil {
			fmt.Fprintf(&b, " per %s", periodNames[c.Period])
			if c.Zone != nil {
				fmt.Fprintf(&b, " in %s", c.Zone)
			}
			if c.WeekStart != time.Monday || c.Anchor+int(c.AnchorMonth) > 0 {
				fmt.Fprintf(&b, " from %v %d.%d.", c.WeekStart, c.Anchor, c.AnchorMonth)
			}
		}
		if s.Headroom > 0 {
			fmt.Fprintf(&b, " leaving %d", s.Headroom)
		}
		if q.PerRequest > 0 {
			fmt.Fprintf(&b, " at most %d", q.PerRequest)
		}
	}
	return b.String()
}

// What a limit at the root of a domain without tiers becomes.
func TestLimitsWithoutTiers(t *testing.T) {
	for entry, want := range map[string]string{
		"rate: 10/minute":                                                         "token_bucket 10 burst 10 per 1m0s",
		"rate: 10/minute, burst: 5":                                               "token_bucket 10 burst 5 per 1m0s",
		"algorithm: token_bucket, rate: 5/10m, ceiling: 3":                        "token_bucket 5 burst 5 per 10m0s leaving 2",
		"rate: 10/minute, burst: 1_000, ceiling: 60%":                             "token_bucket 10 burst 1000 per 1m0s leaving 400",
		"rate: 0/minute":                                                          "token_bucket 0 burst 0 per 1m0s",
		"algorithm: sliding_window, limit: 50_000/hour":                           "sliding_window 50000 per 1h0m0s",
		"algorithm: sliding_log, limit: 20/day":                                   "sliding_log 20 per 24h0m0s",
		"algorithm: sliding_log, limit: 10k/1h30m":                                "sliding_log 10000 per 1h30m0s",
		"algorithm: sliding_log, limit: 3/day, ceiling: 50%":                      "sliding_log 3 per 24h0m0s leaving 2",
		"algorithm: fixed_window, limit: 20/hour":                                 "fixed_window 20 per 1h0m0s",
		"algorithm: fixed_window, limit: 20/h, starts: epoch":                     "fixed_window 20 per 1h0m0s",
		"algorithm: fixed_window, limit: 9/m, starts: first_use":                  "fixed_window 9 per 1m0s from first use",
		"limit: 20/month":                                                         "calendar 20 per month",
		"limit: 20/year, time_zone: UTC":                                          "calendar 20 per year",
		"algorithm: calendar, limit: 20/1 day, time_zone: America/New_York":       "calendar 20 per day in America/New_York",
		"algorithm: calendar, limit: 20/week":                                     "calendar 20 per week",
		"algorithm: calendar, limit: 20/week, week_start: Sun":                    "calendar 20 per week from Sunday 0.0.",
		"limit: 20/month, anchor: 31":                                             "calendar 20 per month from Monday 31.0.",
		"limit: 20/year, anchor: {month: april, day: 6}":                          "calendar 20 per year from Monday 6.4.",
		"limit: 20/year, anchor: {month: 10}":                                     "calendar 20 per year from Monday 0.10.",
		"meter: concurrency, limit: 3":                                            "concurrency 3",
		"meter: cost, limit: $1/month":                                            "calendar 1000000000 per month",
		"meter: cost, algorithm: calendar, limit: $0.50/hour, per_request: $0.25": "calendar 500000000 per hour at most 250000000",
		"meter: cost, limit: $5000/month, ceiling: $4_000":                        "calendar 5000000000000 per month leaving 1000000000000",
		"meter: cost, limit: $1/month, ceiling: 60%":                              "calendar 1000000000 per month leaving 400000000",
		"meter: cost, rate: $1/minute, burst: $5":                                 "token_bucket 1000000000 burst 5000000000 per 1m0s",
		"meter: cost, rate: $0.000000001/minute":                                  "token_bucket 1 burst 1 per 1m0s",
		"meter: cost, algorithm: sliding_window, limit: $9007199.254740991/day":   "sliding_window 9007199254740991 per 24h0m0s",
		"meter: cost, algorithm: fixed_window, limit: $0/day":                     "fixed_window 0 per 24h0m0s",
		"meter: concurrency, limit: 4, ceiling: 75%":                              "concurrency 4 leaving 1",
		"algorithm: sliding_log, limit: 0/day":                                    "sliding_log 0 per 24h0m0s",
		"meter: tokens, algorithm: sliding_window, limit: 5M/d, per_request: 10k": "sliding_window 5000000 per 24h0m0s at most 10000",
	} {
		p, failures, warnings := parse(t, "domain: d\nlimits: [{name: x, "+entry+"}]", Options{})
		if failures+warnings != "" {
			t.Errorf("%s: %s%s", entry, failures, warnings)
			continue
		}
		l := p.Limits()[0]
		if got := compiled(l, 0); got != want {
			t.Errorf("%s\nis   %s\nwant %s", entry, got, want)
		}
		if err := l.For(0).Spec.Validate(); err != nil {
			t.Errorf("%s: %v", entry, err)
		}
	}
}

// What tiers say is put over what the limit says itself, field by field.
func TestLimitsByTier(t *testing.T) {
	const tiers = "tiers: [{name: free}, {name: pro}, {name: max}]\n"
	for entry, want := range map[string]string{
		"tiers: {free: {rate: 10/minute, burst: 5}, pro: {rate: 60/minute}, max: unlimited}":                                          "token_bucket 10 burst 5 per 1m0s / token_bucket 60 burst 60 per 1m0s / unlimited",
		"rate: 10/minute, burst: 5, tiers: {pro: {rate: 60/minute}, max: {burst: 50}}":                                                "token_bucket 10 burst 5 per 1m0s / token_bucket 60 burst 5 per 1m0s / token_bucket 10 burst 50 per 1m0s",
		"limit: 5/month, tiers: {max: {limit: unlimited}}":                                                                            "calendar 5 per month / calendar 5 per month / unlimited",
		"algorithm: calendar, limit: unlimited, tiers: {free: {limit: 5/month}}":                                                      "calendar 5 per month / unlimited / unlimited",
		"meter: cost, algorithm: calendar, limit: unlimited, tiers: {free: {limit: $1/month}, pro: {limit: unlimited}}":               "calendar 1000000000 per month / unlimited / unlimited",
		"meter: cost, per_request: $0.10, tiers: {free: {limit: $1/month}, pro: {limit: $20/month, per_request: $2}, max: unlimited}": "calendar 1000000000 per month at most 100000000 / calendar 20000000000 per month at most 2000000000 / unlimited",
		"meter: concurrency, tiers: {free: {limit: 1}, pro: {limit: 2}, max: {limit: 3}}":                                             "concurrency 1 / concurrency 2 / concurrency 3",
		"algorithm: sliding_log, limit: 9/day, tiers: {free: {limit: 3/24h, per_request: 2}, pro: {ceiling: 50%}}":                    "sliding_log 3 per 24h0m0s at most 2 / sliding_log 9 per 24h0m0s leaving 5 / sliding_log 9 per 24h0m0s",
		"algorithm: sliding_log, limit: 9/day, ceiling: 5, tiers: {pro: {limit: 7/day}, max: {limit: 8/day, ceiling: 8}}":             "sliding_log 9 per 24h0m0s leaving 4 / sliding_log 7 per 24h0m0s leaving 2 / sliding_log 8 per 24h0m0s",
		"algorithm: sliding_log, limit: 9/day":                                                                                        "sliding_log 9 per 24h0m0s / sliding_log 9 per 24h0m0s / sliding_log 9 per 24h0m0s",
	} {
		p := mustParse(t, "domain: d\nanonymous: unlimited\n"+tiers+"descriptors: [{key: user, subject: true, limits: [{name: x, "+entry+"}]}]")
		if got := compiled(p.Limits()[0], 3); got != want {
			t.Errorf("%s\nis   %s\nwant %s", entry, got, want)
		}
	}
	p := mustParse(t, "domain: d\ntrust_tier: true\n"+tiers+
		"limits: [{name: x, rate: 10/minute, burst: 1000, ceiling: {free: 60%, pro: 85%, max: 100%}}]")
	want := "token_bucket 10 burst 1000 per 1m0s leaving 400 / token_bucket 10 burst 1000 per 1m0s leaving 150 / token_bucket 10 burst 1000 per 1m0s"
	if got := compiled(p.Limits()[0], 3); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

func TestLimitFields(t *testing.T) {
	p, failures, _ := parse(t, `
domain: llm
tiers: [{name: free}, {name: pro}]
limits:
- {name: all, algorithm: sliding_log, limit: 5/day}
descriptors:
- key: user
  subject: true
  rate_limit: {unit: day, requests_per_unit: 1}
  limits:
  - {name: plain, algorithm: sliding_log, limit: 5/day}
  - name: full
    meter: tokens
    algorithm: calendar
    shadow: true
    clamp: true
    count_denied: true
    on_lapse: nothing
    on_store_error: deny
    warn_at: [100%, 80%, 80%]
    message: for all
    limit: 5/month
    tiers: {pro: {message: for pro, upgrade_url: https://example.com/up}}
  - {name: input, meter: input_tokens, count_cache_read: true, on_lapse: all, rate: 5/day}
upstreams:
- {name: up, models: m, limits: [{name: rpm, rate: 5/day}]}
`[1:], Options{})
	if failures != "" {
		t.Fatal(failures)
	}
	var got []string
	for i, l := range p.Limits() {
		if l.Index != i {
			t.Errorf("limit %s has index %d at %d", l.Path, l.Index, i)
		}
		got = append(got, fmt.Sprintln(l.Domain, l.Path, l.Name, l.Meter, l.Shadow, l.Clamp, l.CountDenied, l.CountCacheRead,
			l.OnLapse, l.OnStoreError, l.LocalShare, l.WarnAt, l.File, l.Line, l.Column))
	}
	want := []string{
		"llm llm.all all requests false false false false input allow 0% [] policy.yaml 4 3\n",
		"llm llm.user.plain plain requests false false false false input allow 0% [] policy.yaml 10 5\n",
		"llm llm.user.full full tokens true true true false nothing deny 0% [80% 100%] policy.yaml 11 5\n",
		"llm llm.user.input input input_tokens false false false true all allow 0% [] policy.yaml 23 5\n",
		"llm llm.upstreams.up.rpm rpm requests false false false false input allow 0% [] policy.yaml 25 34\n",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%swant\n%s", strings.Join(got, ""), strings.Join(want, ""))
	}
	full := p.Limits()[2]
	if free, pro := full.For(0), full.For(1); free.Message != "for all" || free.UpgradeURL != "" ||
		pro.Message != "for pro" || pro.UpgradeURL != "https://example.com/up" {
		t.Errorf("free is told %q %q, pro %q %q", free.Message, free.UpgradeURL, pro.Message, pro.UpgradeURL)
	}
	if d := p.Domain("llm"); !reflect.DeepEqual(d.Limits(), p.Limits()) || len(d.Rules()) != 1 {
		t.Errorf("the domain has %d limits and %d rules", len(d.Limits()), len(d.Rules()))
	}
}

// A key that is written goes before one that is merged, wherever the merge key stands.
func TestLimitsFromAliases(t *testing.T) {
	p := mustParse(t, `
domain: d
descriptors:
- key: a
  limits: &limits
  - &x {name: x, algorithm: sliding_log, limit: 5/day}
  - {limit: 7/day, name: y, <<: *x}
  - {<<: [{name: z}, *x]}
- {key: b, limits: *limits}
`)
	var got []string
	for _, l := range p.Limits() {
		got = append(got, fmt.Sprintf("%s %d", l.Path, l.For(0).Spec.Limit))
	}
	if want := []string{"d.a.x 5", "d.a.y 7", "d.a.z 5", "d.b.x 5", "d.b.y 7", "d.b.z 5"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestWrittenTiersReplaceMergedOnes(t *testing.T) {
	p, failures, warnings := parse(t, `
domain: d
tiers: [{name: free}, {name: pro}]
descriptors:
- key: a
  subject: true
  limits:
  - &x {name: x, rate: 5/day, tiers: {free: {burst: 1}, pro: {burst: 9}}}
  - {tiers: {free: {burst: 2}}, name: y, <<: *x}
anonymous: unlimited
`, Options{})
	if failures+warnings != "" {
		t.Fatal(failures + warnings)
	}
	want := "token_bucket 5 burst 2 per 24h0m0s / token_bucket 5 burst 5 per 24h0m0s"
	if got := compiled(p.Limits()[1], 2); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

func TestTiersAndSubjects(t *testing.T) {
	d := mustParse(t, `
domain: d
anonymous: unlimited
trust_tier: yes
tiers:
- {name: free, attributes: {model: small, max_output: 1_024, list: [1, a], nothing: ~}}
- {name: pro}
descriptors: [{key: user, subject: true}]
subjects:
  alice: {tier: pro, time_zone: Europe/Berlin}
  bob: {}
  123: {tier: pro}
`).Domain("d")
	if !d.TrustsTier() {
		t.Error("callers are not trusted")
	}
	want := map[string]any{"model": "small", "max_output": 1024.0, "list": []any{1.0, "a"}, "nothing": nil}
	if tiers := d.Tiers(); len(tiers) != 2 || tiers[0].Name != "free" || tiers[1].Name != "pro" ||
		!reflect.DeepEqual(tiers[0].Attributes, want) || tiers[1].Attributes != nil {
		t.Errorf("the tiers are %+v", tiers)
	}
	for name, want := range map[string]string{"free": "0 true", "pro": "1 true", "Pro": "0 false", "": "0 false"} {
		if tier, ok := d.TierNamed(name); fmt.Sprint(tier, ok) != want {
			t.Errorf("tier %q is %d, %t, want %s", name, tier, ok, want)
		}
	}
	for subject, want := range map[string]string{"alice": "1 true", "bob": "0 true", "123": "1 true", "eve": "0 false", "": "0 false"} {
		if tier, known := d.TierOf(subject); fmt.Sprint(tier, known) != want {
			t.Errorf("%q is in tier %d, %t, want %s", subject, tier, known, want)
		}
	}
	if s, ok := d.SubjectNamed("alice"); !ok || s.Zone == nil || s.Zone.String() != "Europe/Berlin" {
		t.Errorf("alice is %+v, %t", s, ok)
	}
	if s, ok := d.SubjectNamed("bob"); !ok || s.Zone != nil {
		t.Errorf("bob is %+v, %t", s, ok)
	}
	if mustParse(t, "domain: d").Domain("d").TrustsTier() {
		t.Error("callers are trusted where the policy does not say so")
	}
}

// An exact model goes before a pattern, and of two patterns the first.
func TestUpstreams(t *testing.T) {
	d := mustParse(t, `
domain: d
upstreams:
- {name: openai, models: [gpt-*, o3], limits: [{name: rpm, rate: 5/day}]}
- {name: anthropic, models: [claude-*], limits: [{name: rpm, rate: 5/day}, {name: tpm, meter: tokens, rate: 5/day}]}
- {name: batch, models: ["*-batch", gpt-5], limits: [{name: rpm, rate: 5/day}]}
`).Domain("d")
	for model, want := range map[string]string{
		"gpt-4": "openai", "o3": "openai", "claude-opus-4-1": "anthropic", "claude-x-batch": "anthropic", "x-batch": "batch",
		"gpt-5": "batch", "gpt": "none", "O3": "none", "": "none", "o3-mini": "none", strings.Repeat("x", 1000): "none",
	} {
		got := "none"
		if u := d.Upstream(model); u != nil {
			got = u.Name
		}
		if got != want {
			t.Errorf("%q is served by %s, want %s", model, got, want)
		}
	}
	m := d.Upstream("claude-3").Match()
	if len(m.Limits) != 2 || string(m.Owner) != "d|upstreams|anthropic" || m.HasSubject || m.Rule != nil {
		t.Errorf("the match is %+v", m)
	}
	if got := string(m.Limits[1].AppendBucket([]byte("before "), &m)); got != "before tpm|token_bucket|86400s" {
		t.Errorf("the bucket is %s", got)
	}
	if u := mustParse(t, "domain: d").Domain("d").Upstream("x"); u != nil {
		t.Errorf("without upstreams there is %v", u)
	}
}

// Several files of one domain make one policy, and say each thing once.
func TestMergeDomainsWithLimits(t *testing.T) {
	const files = `
=== a.yaml
domain: d
descriptors:
- {key: user, subject: true, limits: [{name: x, algorithm: sliding_log, tiers: {free: {limit: 5/day}, pro: {limit: 9/day}}}]}
limits: [{name: a, rate: 5/day}]
upstreams: [{name: a, models: a*, limits: [{name: x, rate: 5/day}]}]
subjects: {alice: {tier: pro}}
=== b.yaml
domain: d
tiers: [{name: free}, {name: pro}]
trust_tier: false
anonymous: unlimited
limits: [{name: b, rate: 5/day}]
upstreams: [{name: b, models: "*b", limits: [{name: x, rate: 5/day}]}]
subjects: {bob: {tier: free}}
`
	p, failures, warnings := parse(t, files, Options{MergeDomains: true})
	if failures+warnings != "" {
		t.Fatal(failures + warnings)
	}
	d := p.Domain("d")
	var got []string
	for _, l := range d.Limits() {
		got = append(got, l.Path)
	}
	if want := "d.a d.user.x d.b d.upstreams.a.x d.upstreams.b.x"; strings.Join(got, " ") != want {
		t.Errorf("the limits are %q, want %s", got, want)
	}
	if len(d.Root().Limits) != 2 || len(d.Upstreams()) != 2 || d.Upstream("ab").Name != "a" {
		t.Errorf("%d limits at the root, %d upstreams", len(d.Root().Limits), len(d.Upstreams()))
	}

	_, failures, _ = parse(t, files+`=== c.yaml
domain: d
tiers: [{name: free}]
trust_tier: true
limits: [{name: a, rate: 5/day}]
upstreams: [{name: a, models: c, limits: [{name: x, rate: 5/day}]}]
subjects: {alice: {tier: pro}}
`, Options{MergeDomains: true})
	want := expected(`
c.yaml:2:8: the tiers of the domain stand at b.yaml:2:8 already: their order matters, so one file declares all of them
c.yaml:3:13: ´trust_tier´ is false at b.yaml:3:13: whether callers may name their tier is said once for the domain
c.yaml:4:17: there is a limit ´a´ here at a.yaml:4:10 already: limits of one place have names of their own
c.yaml:5:20: there is an upstream ´a´ at a.yaml:5:13 already
c.yaml:6:12: subject ´alice´ stands at a.yaml:6:12 already
`)
	if failures != want {
		t.Errorf("got\n%swant\n%s", failures, want)
	}
}
