package policy

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// The names of a limit's counters, and whom they belong to.
func TestLimitBuckets(t *testing.T) {
	p := mustParse(t, `
domain: llm
anonymous: unlimited
trust_tier: true
tiers: [{name: free}]
limits:
- {name: all, limit: 5M/month, anchor: 15, time_zone: Europe/Berlin}
descriptors:
- key: user
  subject: true
  rate_limit: {unit: minute, requests_per_unit: 5}
  limits:
  - {name: requests, rate: 10/minute}
  - {name: in-flight, meter: concurrency, limit: 3}
  descriptors:
  - key: model
    value: claude-opus-*
    limits: [{name: opus, algorithm: sliding_log, limit: 20/day}]
  - {key: path, value: "/a/*", share_threshold: true, limits: [{name: "a|b", algorithm: sliding_window, limit: 20/90s}]}
- key: org
  limits:
  - {name: weekly, algorithm: calendar, limit: 5/week, week_start: sunday}
  - {name: yearly, limit: 5/year, anchor: {month: apr, day: 6}}
  - {name: session, algorithm: fixed_window, limit: 5/500ms, starts: first_use}
  descriptors: [{key: team, limits: [{name: team, algorithm: fixed_window, limit: 5/hour}]}]
upstreams:
- {name: a=b, models: m*, limits: [{name: rpm, rate: 10/minute}]}
`)
	d := p.Domain("llm")
	named := func(m Match) (names []string) {
		for _, l := range m.Limits {
			names = append(names, string(m.Owner)+" "+string(l.AppendBucket(nil, &m)))
		}
		return names
	}
	match := func(list string) Match {
		m, _ := d.Match(entries(list), []byte("before "))
		return m
	}
	for _, c := range []struct {
		of   string
		m    Match
		want []string
	}{
		{"the root", d.Root(), []string{"llm all|calendar|month;Europe/Berlin;15"}},
		{"a subject", match("user=alice"), []string{
			"llm|user=alice requests|token_bucket|60s", "llm|user=alice in-flight|concurrency|0s",
		}},
		{"below a subject", match("user=a|b model=claude-opus-4-1"), []string{
			"llm|user=a%7Cb model=claude-opus-4-1|opus|sliding_log|86400s",
		}},
		{"shared values below a subject", match("user=alice path=/a/1"), []string{
			"llm|user=alice path=/a/*|a%7Cb|sliding_window|90s",
		}},
		{"no subject", match("org=acme"), []string{
			"llm|org=acme weekly|calendar|week;UTC;sunday", "llm|org=acme yearly|calendar|year;UTC;04-06",
			"llm|org=acme session|fixed_window:first_use|500000us",
		}},
		{"below no subject", match("org=acme team=x"), []string{"llm|org=acme|team=x team|fixed_window|3600s"}},
		{"an upstream", d.Upstream("m1").Match(), []string{"llm|upstreams|a%3Db rpm|token_bucket|60s"}},
		{"nothing", match("nobody=x"), nil},
	} {
		if got := named(c.m); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s:\ngot  %q\nwant %q", c.of, got, c.want)
		}
	}
	m := match("user=alice")
	if string(m.Bucket) != "llm|user=alice|60s" || m.Rule == nil || m.Subject != "alice" || !m.HasSubject {
		t.Errorf("the rule counts in %s for %q", m.Bucket, m.Subject)
	}
	// Who asks is known, also where nothing applies to what is asked.
	m = match("user=alice nobody=x")
	if m.Rule != nil || m.Limits != nil || m.Bucket != nil || m.Subject != "alice" || string(m.Owner) != "llm|user=alice" {
		t.Errorf("%+v of %s", m, m.Owner)
	}
}

// limitArgs is what a counter of a limit belongs to.
type limitArgs struct {
	domain, upstream, lane string
	entries                []Entry
	name                   string
}

// Owner and bucket together can be read back, and therefore no two counters have the same ones.
func TestLimitBucketsAreInjective(t *testing.T) {
	text := rapid.StringMatching(`[a|=%{}7C3D_.s]{1,5}`)
	rapid.Check(t, func(t *rapid.T) {
		want := limitArgs{domain: text.Draw(t, "domain"), name: text.Draw(t, "name")}
		entry := map[string]any{"name": want.name, "algorithm": "sliding_log", "limit": "5/minute"}
		limits := []any{entry}
		file := map[string]any{"domain": want.domain}
		depth := rapid.IntRange(-2, 3).Draw(t, "depth")
		payer := rapid.IntRange(0, 3).Draw(t, "payer")
		switch depth {
		case -2:
			want.lane, want.name = text.Draw(t, "lane"), "drain"
			file["lanes"] = []any{map[string]any{"name": want.lane, "drain": "5/minute"}}
		case -1:
			want.upstream = text.Draw(t, "upstream")
			file["upstreams"] = []any{map[string]any{"name": want.upstream, "models": "m", "limits": limits}}
		case 0:
			file["limits"] = limits
		default:
			at := file
			for i := range depth {
				want.entries = append(want.entries, Entry{text.Draw(t, "key"), text.Draw(t, "value")})
				next := map[string]any{"key": want.entries[i].Key, "subject": i == payer}
				at["descriptors"] = []any{next}
				at = next
			}
			at["limits"] = limits
		}
		yaml, err := json.Marshal(file)
		if err != nil {
			t.Fatal(err)
		}
		p, _, err := Parse([]Source{{"policy.yaml", yaml}}, Options{})
		if err != nil {
			t.Fatalf("%s: %v", yaml, err)
		}
		d := p.Domain(want.domain)
		m := d.Root()
		switch {
		case depth == -2:
			m = d.Lanes()[0].Match()
		case depth == -1:
			m = d.Upstream("m").Match()
		case depth > 0:
			m, _ = d.Match(want.entries, nil)
		}
		if len(m.Limits) != 1 {
			t.Fatalf("%s: %q has %d limits", yaml, want.entries, len(m.Limits))
		}
		bucket := string(m.Limits[0].AppendBucket(nil, &m))
		if got := readLimitBucket(t, string(m.Owner), bucket); !reflect.DeepEqual(got, want) {
			t.Fatalf("%q of %q belongs to %+v, but reads as %+v", bucket, m.Owner, want, got)
		}
	})
}

// readLimitBucket reads names by the rule that the comment of Limit.AppendBucket gives.
func readLimitBucket(t *rapid.T, owner, bucket string) (args limitArgs) {
	parts := strings.Split(bucket, "|")
	last := len(parts) - 3
	args.name = unescapeBucket(t, parts[last])
	whole := strings.Split(owner, "|")
	args.domain = unescapeBucket(t, whole[0])
	wantKind, alone := "sliding_log|60s", len(whole) == 3
	switch {
	case alone && whole[1] == "upstreams":
		args.upstream, whole = unescapeBucket(t, whole[2]), whole[:1]
	case alone && whole[1] == "lanes":
		args.lane, whole, wantKind = unescapeBucket(t, whole[2]), whole[:1], "token_bucket|60s"
	}
	if kind := strings.Join(parts[last+1:], "|"); kind != wantKind {
		t.Fatalf("%q ends in %q", bucket, kind)
	}
	for _, part := range append(whole[1:], parts[:last]...) {
		key, value, ok := strings.Cut(part, "=")
		if !ok {
			t.Fatalf("no = in %q", part)
		}
		args.entries = append(args.entries, Entry{unescapeBucket(t, key), unescapeBucket(t, value)})
	}
	return args
}

// Two limits that count in the same place would need the same name, and that is refused; what is
// written differently in a calendar counts anew.
func TestCalendarsHaveCountersOfTheirOwn(t *testing.T) {
	seen := map[string]string{}
	for _, entry := range []string{
		"limit: 5/month", "limit: 5/year", "algorithm: calendar, limit: 5/week", "limit: 5/month, anchor: 2", "limit: 5/year, anchor: 2",
		"limit: 5/year, anchor: {month: 2}", "limit: 5/month, time_zone: Europe/Berlin", "limit: 5/month, time_zone: Europe/Paris",
		"algorithm: calendar, limit: 5/week, week_start: sunday", "algorithm: calendar, limit: 5/week, week_start: tuesday",
		"algorithm: fixed_window, limit: 5/week", "algorithm: fixed_window, limit: 5/week, starts: first_use",
	} {
		d := mustParse(t, fmt.Sprintf("domain: d\nlimits: [{name: x, %s}]", entry)).Domain("d")
		m := d.Root()
		bucket := string(m.Limits[0].AppendBucket(nil, &m))
		if first, taken := seen[bucket]; taken {
			t.Errorf("%s counts in %s, as does %s", entry, bucket, first)
		}
		seen[bucket] = entry
	}
	for _, same := range [][2]string{
		{"limit: 5/month", "limit: 7/1 month, anchor: 1, time_zone: UTC"},
		{"limit: 5/year", "limit: 5/y, anchor: {day: 1, month: january}"},
		{"algorithm: calendar, limit: 5/week", "algorithm: calendar, limit: 5/1w, week_start: Mon"},
	} {
		var buckets [2]string
		for i, entry := range same {
			m := mustParse(t, fmt.Sprintf("domain: d\nlimits: [{name: x, %s}]", entry)).Domain("d").Root()
			buckets[i] = string(m.Limits[0].AppendBucket(nil, &m))
		}
		if buckets[0] != buckets[1] {
			t.Errorf("%s counts in %s, and %s in %s", same[0], buckets[0], same[1], buckets[1])
		}
	}
}
