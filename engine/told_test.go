package engine_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/rationhq/ration/engine"
	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

// toldPolicy is one for requests over Envoy's protocol.
var toldPolicy = strings.Replace(upstreams, "domain: llm", "domain: shop", 1)

// end is the descriptor that ends call 1, with what is told of the provider's answer.
func end(phase string, answer ...string) engine.Descriptor {
	pairs := []string{"user=ann", "ration.request=1", "ration.model=claude-x", "ration.phase=" + phase}
	for _, t := range answer {
		pairs = append(pairs, "ration.provider."+t)
	}
	return entries(pairs...)
}

// One request ends a call and tells what the provider has answered to it: the next call is refused with the provider's wait,
// and goes through after it.
func TestAProxyTellsOfTheProvider(t *testing.T) {
	b := newPolicyBench(t, toldPolicy, engine.Options{})
	begin := func(id string) *engine.Decision {
		return b.ask(t, entries("user=ann", "ration.request="+id, "ration.model=claude-x"))
	}
	expect(t, "the first", sayLimits(begin("1")), "OK rpm:1 itpm:0 hourly:1 daily:0 places:0+1")
	b.ask(t, end("failed", "status=429", "retry-after=20", "x-ratelimit-remaining-requests="))
	d := begin("2")
	if wait, _ := d.RetryAfter(); !d.Over || wait != 20*limit.Second {
		t.Errorf("the next: %s, to wait %d", sayLimits(d), wait)
	}
	b.clock.Advance(20 * limit.Second)
	if d := begin("3"); d.Over {
		t.Errorf("when it is time: %s", sayLimits(d))
	}
}

// Whatever is wrong with what is told, the call ends by it.
func TestWhatIsToldNeverFailsTheEnd(t *testing.T) {
	for name, answer := range map[string][]string{
		"nothing":               {"status=", "retry-after="},
		"no status":             {"status=many"},
		"no header that counts": {"=x", "a=b", "ratelimit=%%;;\""},
		"long":                  {"retry-after=" + strings.Repeat("9", 10_000)},
	} {
		t.Run(name, func(t *testing.T) {
			metrics := engine.NewMetrics()
			b := newPolicyBench(t, toldPolicy, engine.Options{Metrics: metrics})
			b.ask(t, entries("user=ann", "ration.request=1", "ration.model=claude-x"))
			b.ask(t, end("done", answer...))
			expect(t, "it has ended", sayLimits(b.ask(t, entries("user=ann", "ration.request=2", "ration.model=claude-x"))),
				"OK rpm:2 itpm:0 hourly:2 daily:0 places:0+1")
			unreadable := gather(t, metrics)["ration_upstream_unreadable_total domain=shop upstream=anthropic"]
			if want := map[string]float64{"no status": 1, "no header that counts": 1, "long": 1}[name]; unreadable != want {
				t.Errorf("unreadable is counted %v times, want %v", unreadable, want)
			}
		})
	}
}

// A repeat that tells something else, or nothing, is a repeat.
func TestWhatIsToldMakesNoOtherRequest(t *testing.T) {
	b := newPolicyBench(t, toldPolicy, engine.Options{})
	used := func(answer ...string) *engine.Decision {
		d := end("record", answer...)
		d.Entries = append(d.Entries, entries("ration.meter=input_tokens").Entries...)
		d.Hits, d.HasHits = 10, true
		return b.ask(t, d)
	}
	used("x-ratelimit-remaining-requests=100")
	expect(t, "again", sayLimits(used()), "OK itpm:10 daily:10")
}

// That the store cannot take what is told is counted, and the end of the call, which it has taken, stands.
func TestStoreAwayForWhatIsTold(t *testing.T) {
	metrics := engine.NewMetrics()
	clean := newPolicyBench(t, toldPolicy, engine.Options{})
	f := &faulty{Store: clean.store}
	e := engine.New(f, engine.Options{Metrics: metrics})
	t.Cleanup(e.Close)
	p, _ := clean.Policy()
	e.SetPolicy(p)
	steps := 0 // it looks for what was reserved, ends that, and follows
	f.unsure = func() (bool, error) {
		if steps++; steps > 2 {
			return false, store.ErrUnavailable
		}
		return true, nil
	}
	var d engine.Decision
	err := e.Decide(t.Context(), &engine.Request{Domain: "shop", Descriptors: []engine.Descriptor{end("failed", "status=429")}}, &d)
	if err != nil || steps != 3 {
		t.Errorf("%v, after %d steps", err, steps)
	}
	if got := gather(t, metrics)["ration_upstream_reports_total domain=shop kind=failed upstream=anthropic"]; got != 1 {
		t.Errorf("failed is counted %v times", got)
	}
}

// A limit that is as low already is not asked again.
func TestWhatIsKnownIsNotToldTwice(t *testing.T) {
	b := newPolicyBench(t, toldPolicy, engine.Options{})
	counting := &faulty{Store: b.store}
	e := engine.New(counting, engine.Options{})
	t.Cleanup(e.Close)
	p, _ := b.Policy()
	e.SetPolicy(p)
	record := func(answer ...string) int64 {
		d := hits(10, "user=ann", "ration.model=claude-x", "ration.phase=record", "ration.meter=requests")
		for _, t := range answer {
			d.Entries = append(d.Entries, entries("ration.provider."+t).Entries...)
		}
		before := counting.asked.Load()
		if err := e.Decide(t.Context(), &engine.Request{Domain: "shop", Descriptors: []engine.Descriptor{d}}, &engine.Decision{}); err != nil {
			t.Fatal(err)
		}
		return counting.asked.Load() - before
	}
	for _, c := range []struct {
		told string
		want int64
	}{
		{"x-ratelimit-remaining-requests=590", 1}, // ten of 600 were used
		{"x-ratelimit-remaining-requests=579", 2}, // twenty, and one more
		{"x-ratelimit-remaining-requests=569", 1},
	} {
		if got := record(c.told); got != c.want {
			t.Errorf("%s takes %d steps, want %d", c.told, got, c.want)
		}
	}
}

// What came of a call is not told when it begins.
func TestNothingIsToldAtTheBeginning(t *testing.T) {
	b := newPolicyBench(t, toldPolicy, engine.Options{})
	var d engine.Decision
	err := b.Decide(t.Context(), &engine.Request{Domain: "shop", Descriptors: []engine.Descriptor{entries("user=ann", "ration.provider.status=429")}}, &d)
	var invalid *engine.InvalidError
	if !errors.As(err, &invalid) || invalid.Field != "descriptors[0].entries" || !strings.Contains(invalid.Reason, "ration.provider.") {
		t.Errorf("%v", err)
	}
}
