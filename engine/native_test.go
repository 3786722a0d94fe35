package engine_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/rationhq/ration/engine"
	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/store/memory"
	"github.com/rationhq/ration/store/storetest"
)

// llm is a policy with limits of every kind and at every place.
const llm = `
domain: shop
tiers:
  - name: free
    attributes: { model: haiku }
  - name: pro
trust_tier: true
subjects:
  paula: { tier: pro }
  toni: { time_zone: Asia/Tokyo }
limits:
  - { name: company, meter: tokens, algorithm: calendar, limit: 10_000/day }
descriptors:
  - key: user
    subject: true
    rate_limit: { unit: minute, requests_per_unit: 100 }
    limits:
      - name: requests
        meter: requests
        algorithm: token_bucket
        tiers:
          free: { rate: 10/minute, burst: 3 }
          pro:  { rate: 60/minute, burst: 20 }
      - name: tokens
        meter: tokens
        algorithm: fixed_window
        tiers:
          free: { limit: 1_000/hour, per_request: 600 }
          pro:  unlimited
      - name: in-flight
        meter: concurrency
        limit: 2
    descriptors:
      - key: model
        value: opus-*
        limits:
          - { name: opus, meter: requests, algorithm: sliding_log, limit: 1/day }
  - key: org
    limits:
      - { name: org, meter: requests, algorithm: sliding_window, limit: 5/minute, per_request: 7, shadow: true }
  - key: team
    subject: true
    limits:
      - { name: team, meter: tokens, algorithm: fixed_window, limit: 10_000/hour }
  - key: login
    limits:
      - { name: tries, meter: requests, algorithm: fixed_window, limit: 3/minute, count_denied: true }
upstreams:
  - name: provider
    models: [ opus-*, haiku ]
    limits:
      - { name: otpm, meter: output_tokens, algorithm: token_bucket, rate: 6_000/minute, burst: 1_000, ceiling: { free: 60%, pro: 100% } }
`

// newModelBench is newBench with the policy above.
func newModelBench(t testing.TB) bench { return newModelBenchWith(t, engine.Options{}) }

func newModelBenchWith(t testing.TB, opts engine.Options) bench { return newPolicyBench(t, llm, opts) }

// newPolicyBench is newBench with a policy of the test's.
func newPolicyBench(t testing.TB, text string, opts engine.Options) bench {
	t.Helper()
	clock := storetest.NewClock(noon)
	s := memory.New(memory.Options{Clock: clock.Now})
	t.Cleanup(func() { _ = s.Close() })
	p, warnings, err := policy.Parse([]policy.Source{{Name: "llm.yaml", Data: []byte(text)}}, policy.Options{})
	if err != nil {
		t.Fatal(err, warnings)
	}
	e := engine.New(s, opts)
	t.Cleanup(e.Close)
	e.SetPolicy(p)
	return bench{e, clock, s}
}

// hits makes a descriptor of "key=value" pairs that brings its own amount.
func hits(n uint64, pairs ...string) engine.Descriptor {
	d := entries(pairs...)
	d.HasHits, d.Hits = true, n
	return d
}

// sayLimits writes every limit that was asked: name, used+held of limit, and ! where it refuses.
func sayLimits(d *engine.Decision) string {
	words := []string{"OK"}
	if d.Over {
		words[0] = "OVER"
	}
	for i := range d.Limits {
		a := &d.Limits[i]
		word := fmt.Sprintf("%s:%d", a.Limit.Name, a.Status.Used)
		if a.Status.Held > 0 {
			word += fmt.Sprintf("+%d", a.Status.Held)
		}
		if a.Status.Refused || a.TooLarge {
			word += "?"
		}
		if a.Over {
			word = strings.TrimSuffix(word, "?") + "!"
		}
		words = append(words, word)
	}
	return strings.Join(words, " ")
}

func TestLimits(t *testing.T) {
	user := entries("user=ann")
	spent := func(class string, n uint64, more ...string) engine.Descriptor {
		return hits(n, append([]string{"user=ann", "ration.phase=record", "ration.meter=" + class}, more...)...)
	}
	back := func(d engine.Descriptor) engine.Descriptor { d.GiveBack = true; return d }
	type ask struct {
		after       limit.Micros
		want        string
		descriptors []engine.Descriptor
	}
	one := func(want string, d ...engine.Descriptor) ask { return ask{0, want, d} }
	walks := map[string][]ask{
		"a request is charged, and tokens and places are checked": {
			one("OK requests:1 tokens:0 in-flight:0 company:0", user),
			one("OK requests:2 tokens:0 in-flight:0 company:0", user),
			one("OK requests:3 tokens:0 in-flight:0 company:0", user),
			one("OVER requests:3! tokens:0 in-flight:0 company:0", user),
			{6 * limit.Second, "OK requests:3 tokens:0 in-flight:0 company:0", []engine.Descriptor{user}},
		},
		"recorded usage always lands, and stops the next request": {
			one("OK tokens:400 company:400", spent("output_tokens", 400)),
			one("OK tokens:1300 company:1300", spent("input_tokens", 900)),
			one("OVER requests:0 tokens:1300! in-flight:0 company:1300", user),
			one("OK tokens:1000 company:1000", back(hits(300, "user=ann", "ration.meter=tokens"))),
			one("OVER requests:0 tokens:1000! in-flight:0 company:1000", user),
			one("OK tokens:999 company:999", back(hits(1, "user=ann", "ration.meter=tokens"))),
			one("OK requests:1 tokens:999 in-flight:0 company:999", user),
		},
		"tiers: named by a trusted caller, by the policy, or the first": {
			one("OK requests:20 in-flight:0 company:0", hits(20, "user=ann", "ration.tier=pro")),
			one("OVER requests:20! tokens:0 in-flight:0 company:0", user), // moved down: usage is kept
			one("OK requests:20 in-flight:0 company:0", hits(20, "user=paula")),
			one("OVER requests:0! tokens:0 in-flight:0 company:0", hits(4, "user=bob", "ration.tier=gold")),
		},
		"a request that is too large is refused by itself": {
			one("OVER tokens:0! company:0", hits(601, "user=ann", "ration.meter=tokens")),
			one("OK tokens:600 company:600", hits(600, "user=ann", "ration.meter=tokens")),
			one("OVER tokens:600! company:600", hits(600, "user=ann", "ration.meter=tokens")),
			one("OVER tokens:600! company:600", hits(300, "user=ann", "ration.meter=input_tokens"), hits(301, "user=ann", "ration.meter=output_tokens")),
		},
		"all or nothing over the descriptors of a request": {
			one("OK opus:1 company:0", entries("user=ann", "model=opus-4")),
			one("OVER requests:0 tokens:0 in-flight:0 opus:1! company:0", user, entries("user=ann", "model=opus-4")),
			one("OK opus:1 company:0", entries("user=ann", "model=opus-5")), // each value has a counter of its own
		},
		"shadow counts and never refuses": {
			one("OK org:6? company:0", hits(6, "org=acme")),
			one("OK org:7? company:0", hits(1, "org=acme")),
			one("OK org:15? company:0", hits(8, "org=acme")), // also what is too large for one request
		},
		"count_denied counts what is refused": {
			one("OK tries:3 company:0", hits(3, "login=x")),
			one("OVER tries:4! company:0", hits(1, "login=x")),
			one("OVER requests:0! tokens:0 in-flight:0 tries:1 company:0", hits(4, "user=ann"), entries("login=y")),
		},
		"what several descriptors say of one usage counts once at the root": {
			one("OK tokens:70 company:70", spent("input_tokens", 70), hits(70, "org=acme", "ration.phase=record", "ration.meter=input_tokens")),
			one("OK tokens:100 company:100", spent("input_tokens", 10), spent("input_tokens", 20)), // duplicates add up
		},
		"the model attaches the upstream, whose ceiling keeps room for higher tiers": {
			one("OK tokens:599 company:599 otpm:599", spent("output_tokens", 599, "ration.model=opus-4")),
			one("OK requests:1 tokens:599 in-flight:0 company:599 otpm:599", entries("user=ann", "ration.model=haiku")),
			one("OK tokens:600 company:600 otpm:600", spent("output_tokens", 1, "ration.model=haiku")),
			one("OVER requests:1 tokens:600 in-flight:0 company:600 otpm:600!", entries("user=ann", "ration.model=haiku")),
			one("OK requests:1 in-flight:0 company:600 otpm:600", entries("user=paula", "ration.model=haiku")),
			one("OK requests:2 tokens:600 in-flight:0 company:600", entries("user=ann", "ration.model=gpt")),
		},
		"a request's id reserves, and its end settles": {
			one("OK requests:1 tokens:0+500 in-flight:0+1 company:0+500",
				entries("user=ann", "ration.request=r1"),
				hits(100, "user=ann", "ration.request=r1", "ration.phase=hold", "ration.meter=input_tokens"),
				hits(400, "user=ann", "ration.request=r1", "ration.phase=hold", "ration.meter=output_tokens")),
			one("OVER tokens:0+500! requests:1 in-flight:0+1 company:0+500",
				hits(501, "user=ann", "ration.request=r2", "ration.phase=hold", "ration.meter=output_tokens"),
				entries("user=ann", "ration.request=r2")),
			one("OK tokens:130 company:130", spent("input_tokens", 90, "ration.request=r1"), spent("output_tokens", 40, "ration.request=r1")),
			one("OK tokens:130 company:130", spent("input_tokens", 90, "ration.request=r1"), spent("output_tokens", 40, "ration.request=r1")),
			one("OK requests:2 tokens:130 in-flight:0+1 company:130", entries("user=ann", "ration.request=r3")),
			one("OK", hits(0, "user=ann", "ration.request=r3", "ration.phase=done")),
			one("OK requests:3 tokens:130 in-flight:0 company:130", user),
		},
		"what one request charges and what it holds is one amount": {
			one("OVER tokens:0! tokens:0! company:0 company:0",
				hits(400, "user=ann", "ration.meter=input_tokens", "ration.request=r1"),
				hits(201, "user=ann", "ration.request=r1", "ration.phase=hold", "ration.meter=output_tokens")),
			one("OK tokens:400+200 tokens:400+200 company:400+200 company:400+200",
				hits(400, "user=ann", "ration.meter=input_tokens", "ration.request=r1"),
				hits(200, "user=ann", "ration.request=r1", "ration.phase=hold", "ration.meter=output_tokens")),
		},
		"what nobody reports is charged as if the request had hung up, and what comes late lands beside": {
			one("OK tokens:0+500 company:0+500",
				hits(100, "user=ann", "ration.request=r1", "ration.phase=hold", "ration.meter=input_tokens"),
				hits(400, "user=ann", "ration.request=r1", "ration.phase=hold", "ration.meter=output_tokens")),
			one("OK requests:1", entries("user=ann", "ration.request=r1", "ration.phase=record")),
			one("OK requests:2 tokens:100 in-flight:0 company:100", user),
			one("OK tokens:450 company:450", spent("tokens", 350, "ration.request=r1")),
		},
		"each descriptor settles what it has held": {
			one("OK tokens:0+100 team:0+300 company:0+300",
				hits(100, "user=ann", "ration.request=r1", "ration.phase=hold", "ration.meter=tokens"),
				hits(300, "team=x", "ration.request=r1", "ration.phase=hold", "ration.meter=tokens")),
			one("OK tokens:90 team:290 company:290",
				spent("tokens", 90, "ration.request=r1"), hits(290, "team=x", "ration.request=r1", "ration.phase=record", "ration.meter=tokens")),
		},
		"a repeat under an id is not charged again, also where nothing is held": {
			one("OK tries:1 company:0", hits(1, "login=x", "ration.request=r1")),
			one("OK tries:1 company:0", hits(1, "login=x", "ration.request=r1")),
			one("OK tries:2 company:0", hits(1, "login=x", "ration.request=r2")),
		},
		"an id belongs to its subject, key and all": {
			one("OK requests:1 tokens:0 in-flight:0+1 company:0", entries("user=ann", "ration.request=r1")),
			one("OK", entries("team=ann", "ration.request=r1", "ration.phase=done")),
			one("OK requests:2 tokens:0 in-flight:0+1 company:0", user),
		},
		"who hangs up pays the input": {
			one("OK tokens:0+500 company:0+500",
				hits(100, "user=ann", "ration.request=r1", "ration.phase=hold", "ration.meter=input_tokens"),
				hits(400, "user=ann", "ration.request=r1", "ration.phase=hold", "ration.meter=output_tokens")),
			one("OK", entries("user=ann", "ration.request=r1", "ration.phase=done")),
			one("OK requests:1 tokens:100 in-flight:0 company:100", user),
		},
		"who is failed by the upstream pays nothing, wherever it was held": {
			one("OK requests:1 tokens:0+500 in-flight:0+1 team:0+500 company:0+1000",
				entries("user=ann", "ration.request=r1"),
				hits(100, "user=ann", "ration.request=r1", "ration.phase=hold", "ration.meter=input_tokens"),
				hits(400, "user=ann", "ration.request=r1", "ration.phase=hold", "ration.meter=output_tokens"),
				hits(500, "team=x", "ration.request=r1", "ration.phase=hold", "ration.meter=tokens")),
			one("OK", entries("user=ann", "ration.request=r1", "ration.phase=failed"), entries("team=x", "ration.request=r1", "ration.phase=failed")),
			one("OK", entries("user=ann", "ration.request=r1", "ration.phase=failed"), entries("team=x", "ration.request=r1", "ration.phase=failed")),
			one("OK requests:2 tokens:0 in-flight:0 company:0", user),
			one("OK team:0 company:0", hits(0, "team=x", "ration.meter=tokens")),
		},
		"also late, when the input has been charged": {
			one("OK tokens:0+500 company:0+500",
				hits(100, "user=ann", "ration.request=r1", "ration.phase=hold", "ration.meter=input_tokens"),
				hits(400, "user=ann", "ration.request=r1", "ration.phase=hold", "ration.meter=output_tokens")),
			{301 * limit.Second, "OK requests:1 tokens:100 in-flight:0 company:100", []engine.Descriptor{user}},
			one("OK", entries("user=ann", "ration.request=r1", "ration.phase=failed")),
			one("OK requests:2 tokens:0 in-flight:0 company:0", user),
		},
		"a failure that tells what was used is charged for that": {
			one("OK tokens:0+500 company:0+500",
				hits(100, "user=ann", "ration.request=r1", "ration.phase=hold", "ration.meter=input_tokens"),
				hits(400, "user=ann", "ration.request=r1", "ration.phase=hold", "ration.meter=output_tokens")),
			one("OK tokens:70 company:70", spent("input_tokens", 70, "ration.request=r1"), entries("user=ann", "ration.request=r1", "ration.phase=failed")),
			one("OK requests:1 tokens:70 in-flight:0 company:70", user),
		},
		"a caller that crashes pays the input when its lease lapses": {
			one("OK tokens:0+500 company:0+500",
				hits(100, "user=ann", "ration.request=r1", "ration.phase=hold", "ration.meter=input_tokens"),
				hits(400, "user=ann", "ration.request=r1", "ration.phase=hold", "ration.meter=output_tokens")),
			{300*limit.Second - 1, "OK requests:1 tokens:0+500 in-flight:0 company:0+500", []engine.Descriptor{user}},
			{1, "OK requests:2 tokens:100 in-flight:0 company:100", []engine.Descriptor{user}},
			one("OK tokens:350 company:350", spent("tokens", 350, "ration.request=r1")), // late, and corrected
		},
		"plain rules stand beside, and count also what is refused": { // the plain one allows 100
			one("OVER requests:0! tokens:0 in-flight:0 company:0", hits(99, "user=ann")),
			one("OK requests:1 tokens:0 in-flight:0 company:0", user),
			one("OVER requests:1 tokens:0 in-flight:0 company:0", user), // by the plain one: nothing else is charged
		},
	}
	for name, walk := range walks {
		t.Run(name, func(t *testing.T) {
			b := newModelBench(t)
			for i, a := range walk {
				b.clock.Advance(a.after)
				if got := sayLimits(b.ask(t, a.descriptors...)); got != a.want {
					t.Errorf("ask %d:\n got %s\nwant %s", i, got, a.want)
				}
			}
		})
	}
}

// A request's id that another request has used lets nobody through.
func TestReusedRequestID(t *testing.T) {
	b := newModelBench(t)
	reserve := func(n uint64) *engine.Decision {
		return b.ask(t, entries("user=ann", "ration.request=r1"),
			hits(n, "user=ann", "ration.request=r1", "ration.phase=hold", "ration.meter=output_tokens"))
	}
	if d := reserve(100); d.Over {
		t.Fatalf("refused: %s", d.Message())
	}
	if d := reserve(100); d.Over {
		t.Errorf("the same request again is refused: %s", d.Message())
	}
	d := reserve(1)
	if !d.Over || !d.Reused || d.Verdict() != engine.Blocked {
		t.Errorf("another request under the same id: %s", sayLimits(d))
	}
	if got := sayLimits(b.ask(t, entries("user=ann"))); got != "OK requests:2 tokens:0+100 in-flight:0+1 company:0+100" {
		t.Errorf("then %s", got)
	}
	// The id belongs to the subject: another one's is another lease.
	if d := b.ask(t, entries("user=bob", "ration.request=r1")); d.Over {
		t.Errorf("another subject's request of the same id is refused: %s", d.Message())
	}
}

func TestReservedEntriesThatCannotBeRead(t *testing.T) {
	b := newModelBench(t)
	cases := map[string]struct {
		descriptors []engine.Descriptor
		says        string
	}{
		"meter":           {[]engine.Descriptor{entries("user=ann", "ration.meter=money")}, "descriptors[0].entries[1]: ration.meter \"money\" is unknown: use requests, "},
		"phase":           {[]engine.Descriptor{{}, entries("ration.phase=start")}, "descriptors[1].entries[0]: ration.phase \"start\" is unknown: use admit, "},
		"empty":           {[]engine.Descriptor{entries("ration.request=")}, "descriptors[0].entries[0]: ration.request is empty"},
		"no such entry":   {[]engine.Descriptor{entries("ration.line=x")}, "descriptors[0].entries[0]: \"ration.line\" is no reserved entry"},
		"hold without id": {[]engine.Descriptor{entries("user=ann", "ration.phase=hold", "ration.meter=tokens")}, "descriptors[0].entries: ration.phase hold reserves tokens for a request: it needs ration.request"},
		"done without id": {[]engine.Descriptor{entries("user=ann", "ration.phase=done")}, "ration.phase done, or failed, ends a request: it needs ration.request"},
		"hold requests":   {[]engine.Descriptor{entries("user=ann", "ration.phase=hold", "ration.request=r")}, "a ration.meter other than requests"},
		"API":             {[]engine.Descriptor{entries("user=ann", "ration.api=gemini")}, "descriptors[0].entries[1]: ration.api \"gemini\" is unknown: use anthropic or openai"},
		"two APIs":        {[]engine.Descriptor{entries("user=ann", "ration.api=openai"), {}, entries("ration.api=anthropic")}, "descriptors[2].entries: ration.api differs"},
		"two ids":         {[]engine.Descriptor{entries("user=ann", "ration.request=r"), entries("user=ann", "ration.request=s")}, "descriptors[1].entries: ration.request differs"},
		"begins and ends": {[]engine.Descriptor{entries("user=ann", "ration.request=r"), entries("user=ann", "ration.request=r", "ration.phase=done")}, "descriptors[1].entries: ration.phase: a request is either admitted"},
	}
	for name, c := range cases {
		var d engine.Decision
		err := b.Decide(context.Background(), &engine.Request{Domain: "shop", Descriptors: c.descriptors}, &d)
		var invalid *engine.InvalidError
		if !errors.As(err, &invalid) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", name, err, c.says)
		}
	}
}

// A tier that the policy does not have is counted each time, and logged once.
func TestUnknownTier(t *testing.T) {
	var log strings.Builder
	b := newModelBenchWith(t, engine.Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	for range 3 {
		b.ask(t, entries("user=ann", "ration.tier=gold"))
	}
	if got := strings.Count(log.String(), "tier=gold"); got != 1 {
		t.Errorf("the log names it %d times, want once:\n%s", got, log.String())
	}
}

// What Envoy is told of a descriptor with several limits: the one that binds.
func TestBinding(t *testing.T) {
	b := newModelBench(t)
	d := b.ask(t, entries("user=ann"))
	if s := d.Statuses[0]; s.Limit.Name != "requests" || s.Limit.RequestsPerUnit != 3 || s.Remaining != 2 || s.Limit.Unit != policy.Minute {
		t.Errorf("the scarcest of those charged: %+v", s)
	}
	if d.Tier == nil || d.Tier.Name != "free" || d.Tier.Attributes["model"] != "haiku" {
		t.Errorf("tier %+v", d.Tier)
	}
	b.ask(t, hits(2, "user=ann"))
	b.ask(t, hits(1_000, "user=ann", "ration.meter=tokens", "ration.phase=record"))
	d = b.ask(t, entries("user=ann"))
	if s := d.Statuses[0]; s.Limit.Name != "tokens" || s.ResetAfter != 3600*limit.Second || s.Remaining != 0 || !s.Over {
		t.Errorf("the one that refuses for longest: %+v", s)
	}
	if d.Verdict() != engine.Exhausted {
		t.Errorf("verdict %v", d.Verdict().Reason())
	}
}

// The words for people, by verdict.
func TestWordsOfLimits(t *testing.T) {
	cases := []struct {
		name    string
		before  []engine.Descriptor // one request each
		asks    engine.Descriptor
		verdict engine.Verdict
		says    string
	}{
		{
			"throttled", []engine.Descriptor{hits(3, "user=ann")}, entries("user=ann"), engine.Throttled,
			"Rate limit reached: 10 requests per minute on the free plan. Try again in 6 s.",
		},
		{
			"exhausted", []engine.Descriptor{hits(990, "user=ann", "ration.meter=tokens", "ration.phase=record")},
			hits(20, "user=ann", "ration.meter=tokens"), engine.Exhausted,
			"Hourly quota used up: 990 of 1,000 tokens; 10 left. Resets at 13:00 (UTC).",
		},
		{
			"too large", nil, hits(601, "user=ann", "ration.meter=tokens"), engine.Impossible,
			"Request too large: 601 tokens, 600 per request on the free plan.",
		},
		{
			"never fits", nil, hits(21, "user=paula"), engine.Impossible,
			"Request too large: 21 requests at once, of at most 20 on the pro plan.",
		},
		{
			"places", []engine.Descriptor{entries("user=ann", "ration.request=a"), entries("user=ann", "ration.request=b")},
			entries("user=ann", "ration.request=c"), engine.Throttled,
			"Too many requests at once: at most 2. Try again when one of them has ended.",
		},
		{
			"only holds in the way", []engine.Descriptor{hits(600, "user=ann", "ration.request=a", "ration.phase=hold", "ration.meter=tokens")},
			hits(500, "user=ann", "ration.meter=tokens"), engine.Throttled,
			"Rate limit reached: 1,000 tokens per hour on the free plan. Try again in 60 min.", // it lapses to nothing less
		},
		{
			"only holds in the way", []engine.Descriptor{hits(600, "user=ann", "ration.request=a", "ration.phase=hold", "ration.meter=output_tokens")},
			hits(500, "user=ann", "ration.meter=tokens"), engine.Throttled,
			"Rate limit reached: 1,000 tokens per hour on the free plan. Try again in 5 min.",
		},
		{
			"the subject's clock", []engine.Descriptor{hits(990, "user=toni", "ration.meter=tokens", "ration.phase=record")},
			hits(20, "user=toni", "ration.meter=tokens"), engine.Exhausted,
			"Hourly quota used up: 990 of 1,000 tokens; 10 left. Resets at 22:00 (Asia/Tokyo).",
		},
	}
	for _, c := range cases {
		b := newModelBench(t)
		for _, d := range c.before {
			b.ask(t, d)
		}
		d := b.ask(t, c.asks)
		if got := d.Message(); got != c.says || d.Verdict() != c.verdict {
			t.Errorf("%s: %q (%s), want %q", c.name, got, d.Verdict().Reason(), c.says)
		}
	}
}
