package policy

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rationhq/ration/limit"
)

// FuzzParse shows that no bytes make the compiler panic or hang, and that whatever it accepts can be
// matched against and explained.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"domain: d\ndescriptors:\n- {key: k, value: 'a*b', rate_limit: {unit: day, requests_per_unit: 1}}\n",
		"domain: d\ndescriptors:\n- &a {key: k, rate_limit: {unlimited: yes, name: n, replaces: [{name: m}]}}\n- {<<: *a, key: l}\n",
		"domain: d\ndescriptors: &x\n- {key: k, descriptors: *x}\n",
		"domain: d\ndescriptors:\n- {key: '*', share_threshold: on, shadow_mode: n, quota_mode: ~, metadata: {a: [1, .5, {}]}}\n---\nb",
		"? [a]\n: {b: !!binary x}\n0x1: !!int 1\n",
		"domain: d\ntiers: [{name: f, attributes: {a: [1]}}, {name: p}]\ntrust_tier: yes\nsubjects: {a: {tier: p, time_zone: Asia/Tokyo}}\n" +
			"limits: [{name: c, limit: 5M/month, anchor: {day: 31}, ceiling: {f: 60%, p: 4}}]\n" +
			"upstreams: [{name: u, models: [a*, b], limits: [{name: r, rate: 1_000/minute, burst: 5}]}]\n" +
			"descriptors:\n- key: user\n  subject: true\n  limits:\n  - &l {name: r, meter: tokens, algorithm: sliding_window, clamp: true, " +
			"tiers: {f: {limit: 5/1h30m, per_request: 2}, p: unlimited}, on_lapse: all, counts: asked, warn_at: 80%}\n" +
			"  - {<<: *l, name: s, algorithm: fixed_window, starts: first_use, shadow: true}\n" +
			"  descriptors: [{key: m, value: 'x*', limits: [{name: q, meter: concurrency, limit: 3}]}]\n",
		"domain: d\nlimits: [{name: c, algorithm: calendar, limit: 5/week, week_start: sun, time_zone: UTC}, {name: l, algorithm: sliding_log, limit: 1.5k/250ms}]\n",
		"domain: d\nprices: {book: none, unknown_model: assume_max, models: {m: &m {input: '0.80', output: 4, cache_read: 0.08, max_output: 8k}, " +
			"n*: [*m, {<<: *m, from: 2026-01-31, cache_write: $1}]}}\nlimits: [{name: c, meter: cost, limit: $1/month, ceiling: $0.5, per_request: 5}]\n",
		"domain: d\ntiers: [{name: f, attributes: {model: m}}]\nprices: \nlimits: [{name: c, meter: cost, rate: $0.000000001/day, burst: $9007199}]\n" +
			"upstreams: [{name: u, models: [a*, m], limits: [{name: r, meter: cost, algorithm: sliding_window, limit: $5_000/hour}]}]\n",
		"domain: d\nanonymous: {by: ip}\nretry_up_to: 30s\nexhausted_status: 402\nusage: {tags: [a, b], keep: {hourly: off, domain_daily: 90d}}\n" +
			"subjects: {a: {anchor: 31, time_zone: Asia/Tokyo}}\ndescriptors:\n- key: user\n  subject: true\n  limits:\n" +
			"  - {name: m, limit: 5/month, time_zone: subject or Europe/Berlin, anchor: subject or 15, warn_at: [80%, 100%], ceiling: 3}\n" +
			"  - {name: y, meter: cost, limit: $5/year, time_zone: subject, anchor: {day: subject, month: feb}, on_store_error: local}\n",
		"domain: d\nanonymous: shared\nusage: off\ndescriptors: [{key: '*', subject: true}]\n",
		"domain: d\ntiers: [{name: f}, {name: p}]\nupstreams: [{name: u, models: m, limits: [{name: r, rate: 5/day}]}]\n" +
			"lanes: [&l {name: a, upstream: u, drain: 5/second, max_concurrent: 3, max_wait: 1m, aging: 5s, turns_by: cost}, " +
			"{<<: *l, name: b, upstream: u, aging: 1s, max_waiting: {total: 1k, per_subject: 2}, on_store_error: deny}, " +
			"{name: c, drain: 1/1h30m, weighted: {f: 1, p: 1_000}, order: strict}]\n",
		"domain: d\nlanes: [{name: a, max_concurrent: 3}]\n",
		"\xff\xfed\x00o\x00:\x00 \x00a\x00",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		// A second file adds to the domain of the first, if it has nothing that stands but once in a domain.
		checkPolicy(t, []Source{{"a.yaml", data}})
		checkPolicy(t, []Source{{"a.yaml", data}, {"b.yaml", data}})
	})
}

// checkPolicy compiles sources, and finds what it accepts usable.
func checkPolicy(t *testing.T, sources []Source) {
	t.Helper()
	p, _, err := Parse(sources, Options{MergeDomains: true})
	if err != nil {
		if strings.TrimSpace(err.Error()) == "" {
			t.Fatal("an error without words")
		}
		return
	}
	for _, r := range p.Rules() {
		descriptor, exact := pathOf(r.node)
		if !exact {
			continue // what leads to it may lead elsewhere first
		}
		if got, _ := p.Domain(r.Domain).Match(descriptor, nil); got.Rule != r {
			t.Fatalf("%q leads to %v, not to rule %s", descriptor, got.Rule, r.Path)
		}
	}
	checkLanes(t, p)
	if len(p.Explain()) < len(p.Rules())+len(p.Limits()) {
		t.Fatal("a rule or a limit is not explained")
	}
}

// failer is a test of any kind.
type failer interface {
	Fatalf(format string, args ...any)
}

// checkLimit finds a limit that was accepted usable for every tier, and counting where no other does.
func checkLimit(t failer, p *Policy, l *Limit, buckets map[string]*Limit) {
	d := p.Domain(l.Domain)
	if l.Meter == Cost && d.Prices() == nil {
		t.Fatalf("there are no prices for limit %s", l.Path)
	}
	for tier := range max(1, len(d.Tiers())) {
		q := l.For(tier)
		if q == nil {
			continue
		}
		if err := q.Spec.Validate(); err != nil {
			t.Fatalf("limit %s: %v", l.Path, err)
		}
		for _, w := range q.Warnings() {
			if w < 1 || w > q.Spec.Ceiling() {
				t.Fatalf("limit %s warns at %d of %d", l.Path, q.Warnings(), q.Spec.Ceiling())
			}
		}
		if err := q.Raised(1).Spec.Validate(); err != nil {
			t.Fatalf("limit %s, raised: %v", l.Path, err)
		}
		if l.Allows(tier) == "" || q.PerRequest < 0 || q.PerRequest > limit.MaxAmount {
			t.Fatalf("limit %s allows %q, at most %d", l.Path, l.Allows(tier), q.PerRequest)
		}
		if dollars := strings.HasPrefix(q.Rate(l.Meter), "$"); dollars != (l.Meter == Cost) {
			t.Fatalf("limit %s with meter %v is %s", l.Path, l.Meter, q.Rate(l.Meter))
		}
	}
	m := d.Root()
	switch {
	case l.upstream != nil:
		m = l.upstream.Match()
	case l.lane != nil:
		m = l.lane.Match()
	case l.node.parent != nil:
		descriptor, exact := pathOf(l.node)
		if !exact {
			return
		}
		m, _ = d.Match(descriptor, nil)
	}
	if !slices.Contains(m.Limits, l) {
		t.Fatalf("its own place does not lead to limit %s", l.Path)
	}
	bucket := string(m.Owner) + " " + string(l.AppendBucket(nil, &m))
	tokyo := time.FixedZone("Asia/Tokyo", 9*60*60)
	moved := l.PeriodsFor(tokyo, 31)
	if same := string(m.Owner)+" "+string(moved.AppendBucket(nil, &m)) == bucket; same != (moved == &l.Periods) {
		t.Fatalf("limit %s of another subject counts in %s: %v", l.Path, bucket, same)
	}
	if twin := buckets[bucket]; twin != nil {
		t.Fatalf("the limits %s and %s both count in %s", l.Path, twin.Path, bucket)
	}
	buckets[bucket] = l
}

// pathOf returns the descriptor whose keys and values are those on the way to n; exact says that all
// of them have a value.
func pathOf(n *node) (descriptor []Entry, exact bool) {
	exact = true
	for ; n.parent != nil; n = n.parent {
		descriptor = append(descriptor, Entry{n.key, n.value})
		exact = exact && n.value != ""
	}
	slices.Reverse(descriptor)
	return descriptor, exact
}

// FuzzOverride shows that no text of an override makes it panic or hang, and that whatever is accepted can be used.
func FuzzOverride(f *testing.F) {
	for _, seed := range []string{
		"5/minute", "{ rate: 100/minute, burst: 20 }", "$5/month", "unlimited", "{limit: 5/day, per_request: 2}", "&a [*a]", "7", "a: b\n---\nc", "",
	} {
		f.Add(seed)
	}
	p, _, err := Parse([]Source{{"policy.yaml", []byte(overridden)}}, Options{})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, l := range p.Limits() {
			for tier := range 2 {
				q, err := l.Override(text, l.For(tier))
				switch {
				case err != nil && (q != nil || strings.TrimSpace(err.Error()) == ""):
					t.Fatalf("%s by %q: %v", l.Name, text, err)
				case q == nil:
				case q.Spec.Validate() != nil:
					t.Fatalf("%s by %q: %v", l.Name, text, q.Spec.Validate())
				case q.PerRequest < 0 || !strings.HasSuffix(nameOf(&l.Periods), string(kind(l.Name, &q.Spec))):
					t.Fatalf("%s by %q counts in %s, at most %d", l.Name, text, kind(l.Name, &q.Spec), q.PerRequest)
				}
			}
		}
	})
}
