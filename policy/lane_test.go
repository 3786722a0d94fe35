package policy

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/rationhq/ration/limit"
)

// laned begins policies with three tiers, subjects and an upstream.
const laned = `
domain: llm
anonymous: unlimited
tiers: [{name: free}, {name: pro}, {name: premium}]
descriptors: [{key: user, subject: true}]
upstreams: [{name: up, models: m*, limits: [{name: rpm, rate: 10/minute}]}]
`

// lanesOf compiles lanes in such a policy, which has neither errors nor warnings with them.
func lanesOf(tb testing.TB, lanes string) []*Lane {
	tb.Helper()
	return mustParse(tb, laned+"lanes:\n"+lanes).Domain("llm").Lanes()
}

// inGo says a length of time as Go does.
func inGo(length limit.Micros) string { return (time.Duration(length) * time.Microsecond).String() }

func TestLaneFields(t *testing.T) {
	for entry, want := range map[string]string{
		"drain: 5/second":                             "up - drain 5 per 1s burst 1 every 200ms, places -, wait 30s 1000 20, weights [] aging 10s by requests",
		"drain: 7/minute, max_wait: 1h, aging: 1m":    "up - drain 7 per 1m0s burst 1 every 8.571429s, places -, wait 1h0m0s 1000 20, weights [] aging 1m0s by requests",
		"max_concurrent: 3":                           "up - drain -, places 3, wait 30s 1000 20, weights [] aging 10s by requests",
		"upstream: up":                                "up llm|upstreams|up drain -, places -, wait 30s 1000 20, weights [] aging 10s by requests",
		"upstream: up, max_wait: 6s":                  "up llm|upstreams|up drain -, places -, wait 6s 1000 20, weights [] aging 2s by requests",
		"upstream: up, max_wait: 1us":                 "up llm|upstreams|up drain -, places -, wait 1µs 1000 20, weights [] aging 1µs by requests",
		"upstream: up, max_waiting: {}":               "up llm|upstreams|up drain -, places -, wait 30s 1000 20, weights [] aging 10s by requests",
		"upstream: up, max_waiting: {total: 10k}":     "up llm|upstreams|up drain -, places -, wait 30s 10000 20, weights [] aging 10s by requests",
		"upstream: up, max_waiting: {total: 7}":       "up llm|upstreams|up drain -, places -, wait 30s 7 7, weights [] aging 10s by requests",
		"upstream: up, max_waiting: {per_subject: 1}": "up llm|upstreams|up drain -, places -, wait 30s 1000 1, weights [] aging 10s by requests",
		"upstream: up, order: strict, aging: 90s, max_wait: 2m, turns_by: tokens":            "up llm|upstreams|up drain -, places -, wait 2m0s 1000 20, weights [] aging 1m30s by tokens",
		"max_concurrent: 1, weighted: {premium: 1_000, free: 1, pro: 3}, turns_by: requests": "up - drain -, places 1, wait 30s 1000 20, weights [1 3 1000] aging 0s by requests",
	} {
		ln := lanesOf(t, "- {name: up, "+entry+"}")[0]
		upstream, drain, places := "-", "-", "-"
		if ln.Upstream != nil {
			upstream = string(ln.Upstream.Match().Owner)
		}
		if ln.Drain != nil {
			s := ln.Drain.For(2).Spec
			drain = fmt.Sprintf("%d per %s burst %d every %s", s.Limit, inGo(s.Window), s.Burst, inGo(ln.Interval()))
		}
		if ln.Places != nil {
			places = fmt.Sprint(ln.Places.For(2).Spec.Limit)
		}
		got := fmt.Sprintf("%s %s drain %s, places %s, wait %s %d %d, weights %v aging %s by %v", ln.Name, upstream, drain, places,
			inGo(ln.MaxWait), ln.MaxWaiting, ln.MaxWaitingPerSubject, ln.Weights, inGo(ln.Aging), ln.TurnsBy)
		if got != want {
			t.Errorf("%s\nis   %s\nwant %s", entry, got, want)
		}
	}
}

// The limits of a lane are limits of the domain like any other, and all of its callers have the same counters.
func TestLimitsOfLanes(t *testing.T) {
	p := mustParse(t, laned+`lanes:
- {name: fast, drain: 5/second, max_concurrent: 3, upstream: up}
- name: slow
  max_concurrent: 2
  on_store_error: deny
- {name: "a|b=c", drain: 1/second, on_store_error: error}
`)
	d := p.Domain("llm")
	var got []string
	for i, l := range p.Limits() {
		if l.Index != i {
			t.Errorf("limit %s has index %d at %d", l.Path, l.Index, i)
		}
		if l.OfLane() == l.OfUpstream() {
			t.Errorf("limit %s is of a lane: %t, and of an upstream: %[2]t", l.Path, l.OfLane())
		}
		got = append(got, fmt.Sprintln(l.Path, l.Name, l.Meter, l.OnStoreError, l.Line, l.Column))
	}
	want := []string{
		"llm.upstreams.up.rpm rpm requests allow 6 45\n",
		"llm.lanes.fast.drain drain requests allow 8 23\n",
		"llm.lanes.fast.places places concurrency allow 8 49\n",
		"llm.lanes.slow.places places concurrency deny 10 19\n",
		"llm.lanes.a|b=c.drain drain requests error 12 26\n",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%swant\n%s", strings.Join(got, ""), strings.Join(want, ""))
	}
	got = nil
	for _, ln := range d.Lanes() {
		m := ln.Match()
		if string(m.Owner) != string(ln.Owner()) || m.HasSubject || m.Rule != nil || len(m.Path()) > 0 || len(ReadOwner(ln.Owner())) > 0 {
			t.Errorf("the match of lane %s is %+v", ln.Name, m)
		}
		if !reflect.DeepEqual(m.Limits, ln.Limits()) {
			t.Errorf("lane %s is matched by %d limits, and has %d", ln.Name, len(m.Limits), len(ln.Limits()))
		}
		for _, l := range m.Limits {
			got = append(got, string(m.Owner)+" "+string(l.AppendBucket(nil, &m)))
		}
	}
	want = []string{
		"llm|lanes|fast drain|token_bucket|1s", "llm|lanes|fast places|concurrency|0s", "llm|lanes|slow places|concurrency|0s",
		"llm|lanes|a%7Cb%3Dc drain|token_bucket|1s",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	fast := d.Lanes()[0]
	if fast.Limits()[0] != fast.Drain || fast.Limits()[1] != fast.Places || fast.Path != "llm.lanes.fast" || fast.Line != 8 || fast.Column != 3 {
		t.Errorf("the lane is %+v", fast)
	}
}

func TestLanesByNameAndUpstream(t *testing.T) {
	d := mustParse(t, laned+`lanes:
- {name: own, drain: 5/second}
- {name: first, upstream: up}
- {name: second, upstream: up}
`).Domain("llm")
	for name, want := range map[string]string{"own": "own", "second": "second", "Own": "", "": "", "up": ""} {
		got := ""
		if ln := d.Lane(name); ln != nil {
			got = ln.Name
		}
		if got != want {
			t.Errorf("lane %q is %q", name, got)
		}
	}
	if ln := d.LaneOf(d.Upstream("m1")); ln == nil || ln.Name != "first" {
		t.Errorf("the lane of the upstream is %+v", ln)
	}
	if ln := d.LaneOf(nil); ln != nil {
		t.Errorf("the lane of no upstream is %s", ln.Name)
	}
	if ln := mustParse(t, "domain: d").Domain("d").Lane("own"); ln != nil {
		t.Errorf("without lanes there is %s", ln.Name)
	}
}

// Where no request has a subject all callers are one, and there are no tiers to put in order.
func TestLanesWithoutSubjects(t *testing.T) {
	ln := mustParse(t, "domain: d\nlanes: [{name: a, drain: 5/second}]").Domain("d").Lanes()[0]
	if ln.MaxWaiting != 1000 || ln.MaxWaitingPerSubject != 1000 || ln.Weights != nil {
		t.Errorf("the lane is %+v", ln)
	}
}

// Several files of a domain may each have lanes, bound to upstreams of any of them.
func TestMergeLanes(t *testing.T) {
	const files = `
=== a.yaml
domain: d
lanes: [{name: a, upstream: up}, {name: w, drain: 5/s, weighted: {free: 1, pro: 2}}]
=== b.yaml
domain: d
anonymous: unlimited
tiers: [{name: free}, {name: pro}]
upstreams: [{name: up, models: m, limits: [{name: x, rate: 5/day}]}]
descriptors: [{key: user, subject: true}]
lanes: [{name: b, max_concurrent: 5}]
`
	p, failures, warnings := parse(t, files, Options{MergeDomains: true})
	if failures+warnings != "" {
		t.Fatal(failures + warnings)
	}
	var got []string
	for _, ln := range p.Domain("d").Lanes() {
		got = append(got, ln.File+" "+ln.Path)
	}
	if want := []string{"a.yaml d.lanes.a", "a.yaml d.lanes.w", "b.yaml d.lanes.b"}; !reflect.DeepEqual(got, want) {
		t.Errorf("the lanes are %q, want %q", got, want)
	}
	_, failures, _ = parse(t, files+"=== c.yaml\ndomain: d\nlanes: [{name: a, drain: 1/s}]\n", Options{MergeDomains: true})
	if want := expected("c.yaml:2:16: there is a lane ´a´ at a.yaml:2:9 already\n"); failures != want {
		t.Errorf("got %swant %s", failures, want)
	}
}

// A lane in which subjects take turns by what they spend needs prices, as a limit of cost does.
func TestTurnsByCostNeedPrices(t *testing.T) {
	for _, by := range []Meter{Requests, Tokens, Cost} {
		d := mustParse(t, fmt.Sprintf("%slanes: [{name: a, drain: 5/second, turns_by: %v}]", laned, by)).Domain("llm")
		if got := d.Lanes()[0].TurnsBy; got != by {
			t.Errorf("turns by %v are by %v", by, got)
		}
		if has := d.Prices() != nil; has != (by == Cost) {
			t.Errorf("with turns by %v there are prices: %t", by, has)
		}
	}
}

func TestExplainLanes(t *testing.T) {
	for entry, want := range map[string]string{
		"drain: 5/second": "calls wait while the lane has no room, for 30 seconds at most, 1,000 of them, 20 of one subject; premium before pro before free, but a tier that has waited for a turn for 10 seconds is next; in a tier subjects take turns",
		"upstream: up, drain: 5/second, turns_by: cost":                                                        "calls wait while upstream up or the lane has no room, for 30 seconds at most, 1,000 of them, 20 of one subject; premium before pro before free, but a tier that has waited for a turn for 10 seconds is next; in a tier subjects take turns by cost",
		"upstream: up, max_wait: 1m30s, max_waiting: {total: 10}, weighted: {free: 1, pro: 30, premium: 1000}": "calls wait while upstream up has no room, for 1 minute 30 seconds at most, 10 of them; tiers have shares, premium 1,000 : pro 30 : free 1; in a tier subjects take turns",
	} {
		p := mustParse(t, laned+"lanes: [{name: the lane, "+entry+"}]")
		if want = `lane "the lane": ` + want; p.Domain("llm").Lanes()[0].Explain() != want {
			t.Errorf("got  %s\nwant %s", p.Domain("llm").Lanes()[0].Explain(), want)
		}
		if all := strings.Join(p.Explain(), "\n"); !strings.Contains(all, "  "+want) {
			t.Errorf("%s\nis not in\n%s", want, all)
		}
	}
	p := mustParse(t, "domain: d\nlanes: [{name: a, max_concurrent: 2, drain: 5/second, on_store_error: error}]")
	want := expected(`
domain d: 2 limits
  lane a: calls wait while the lane has no room, for 30 seconds at most, 1,000 of them; subjects take turns
  all calls in lane a together (limit d.lanes.a.drain): 5 requests per second, flowing steadily, up to 1 at once; an error while the store cannot decide
  all calls in lane a together (limit d.lanes.a.places): 2 requests at the same time; an error while the store cannot decide; over Envoy a place is taken only where ´ration.request´ names the request, else just looked for
`)
	if got := strings.Join(p.Explain(), "\n") + "\n"; got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// drawLane draws an entry of `lanes` whose fields have values that mostly make sense.
func drawLane(t *rapid.T, name string) map[string]any {
	entry := map[string]any{"name": name}
	some := func(often int, field string, values ...any) {
		if rapid.IntRange(0, 7).Draw(t, field+"?") < often {
			entry[field] = rapid.SampledFrom(values).Draw(t, field)
		}
	}
	if rapid.IntRange(0, 3).Draw(t, "bound") > 0 {
		entry["upstream"] = "u"
	}
	some(1, "upstream", "v", "u", "u")
	some(4, "drain", "5/second", "7/minute", "1/1h30m", "1000000/second", "1/104_249d", "0/second")
	some(4, "max_concurrent", 1, 3, 500, "9007199254740991", 0)
	some(3, "max_wait", "1us", "30s", "20m", "1h", "61m")
	some(2, "max_waiting", map[string]any{"total": 1}, map[string]any{"per_subject": 1000}, map[string]any{"total": 20, "per_subject": 20},
		map[string]any{"total": 10_000}, map[string]any{"total": 10_001})
	some(2, "turns_by", "requests", "tokens", "cost", "output_tokens")
	some(1, "on_store_error", "allow", "error", "deny", "local")
	switch rapid.IntRange(0, 4).Draw(t, "order") {
	case 0:
		some(8, "weighted", map[string]any{"free": 1, "pro": 1000}, map[string]any{"free": 1000, "pro": 1}, map[string]any{"free": 1})
		some(1, "order", "strict")
	case 1:
		some(8, "order", "strict", "strict", "weighted")
		some(4, "aging", "1us", "10s", "1h", "104_249d")
	}
	return entry
}

// Whatever is combined is refused with words, or waits within its bounds for limits that can be used.
func TestLanesAreUsableOrRefused(t *testing.T) {
	used, refused := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		file := map[string]any{
			"domain":    "d",
			"tiers":     []any{map[string]any{"name": "free"}, map[string]any{"name": "pro"}},
			"upstreams": []any{map[string]any{"name": "u", "models": "m", "limits": []any{map[string]any{"name": "x", "rate": "5/day"}}}},
		}
		lanes := []any{drawLane(t, "a")}
		if rapid.Bool().Draw(t, "two") {
			lanes = append(lanes, drawLane(t, rapid.SampledFrom([]string{"b", "b", "b", "a"}).Draw(t, "second")))
		}
		file["lanes"] = lanes
		if rapid.Bool().Draw(t, "subjects") {
			file["descriptors"] = []any{map[string]any{"key": "user", "subject": true}}
		}
		yaml, err := json.Marshal(file)
		if err != nil {
			t.Fatal(err)
		}
		p, _, err := Parse([]Source{{"policy.yaml", yaml}}, Options{})
		if err != nil {
			refused++
			return
		}
		used++
		checkLanes(t, p)
	})
	if all := used + refused; used < all/10 || refused < all/10 {
		t.Errorf("%d policies could be used, and %d not: too few to say anything", used, refused)
	}
}

// checkLanes finds the lanes of a policy that was accepted within their bounds, and each with a line of its own.
func checkLanes(t failer, p *Policy) {
	buckets, owners := map[string]*Limit{}, map[string]*Lane{}
	for _, l := range p.Limits() {
		checkLimit(t, p, l, buckets)
	}
	for _, d := range p.Domains() {
		for _, ln := range d.Lanes() {
			if twin := owners[string(ln.Owner())]; twin != nil || d.Lane(ln.Name) != ln {
				t.Fatalf("lane %s has the line of %v", ln.Path, twin)
			}
			owners[string(ln.Owner())] = ln
			switch waiting := ln.MaxWaiting; {
			case ln.MaxWait < 1 || ln.MaxWait > MaxLaneWait || waiting < 1 || waiting > MaxLaneWaiting,
				ln.MaxWaitingPerSubject < 1 || ln.MaxWaitingPerSubject > waiting:
				t.Fatalf("in lane %s wait %d, %d of a subject, for %d µs", ln.Path, waiting, ln.MaxWaitingPerSubject, ln.MaxWait)
			case ln.Weights == nil && (ln.Aging < 1 || ln.Aging > MaxLaneWait), ln.Weights != nil && (ln.Aging != 0 || len(ln.Weights) != len(d.Tiers())):
				t.Fatalf("lane %s has weights %v and an aging of %d µs", ln.Path, ln.Weights, ln.Aging)
			case ln.Upstream == nil && len(ln.Limits()) == 0:
				t.Fatalf("nobody waits in lane %s", ln.Path)
			case ln.TurnsBy == Cost && d.Prices() == nil:
				t.Fatalf("there are no prices for lane %s", ln.Path)
			case ln.Drain != nil && (ln.Interval() < 1 || ln.Drain.For(0).Spec.Ceiling() != 1):
				t.Fatalf("lane %s drains %s every %d µs", ln.Path, ln.Drain.Allows(0), ln.Interval())
			case ln.Places != nil && ln.Places.For(0).Spec.Ceiling() < 1:
				t.Fatalf("lane %s has %s", ln.Path, ln.Places.Allows(0))
			case ln.Explain() == "":
				t.Fatalf("lane %s is not explained", ln.Path)
			}
			for _, w := range ln.Weights {
				if w < 1 || w > MaxLaneWeight {
					t.Fatalf("lane %s has weights %d", ln.Path, ln.Weights)
				}
			}
		}
	}
}
