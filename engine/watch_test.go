package engine_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/rationhq/ration/engine"
	"github.com/rationhq/ration/engine/events"
	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/price"
)

const warned = `
domain: llm
prices: { book: none, models: { small: { input: "1.00", output: "2.00" } } }
limits:
  - { name: company, meter: tokens, algorithm: calendar, limit: 1M/day, warn_at: 50% }
descriptors:
  - key: user
    subject: true
    limits:
      - { name: tokens, meter: tokens, algorithm: calendar, limit: 1_000/day, warn_at: [ 80%, 100% ] }
      - { name: shadow, meter: tokens, algorithm: calendar, limit: 1_000/day, warn_at: 50%, shadow: true }
      - { name: none, meter: tokens, algorithm: calendar, limit: 0/day, warn_at: 50%, shadow: true }
      - { name: least, meter: requests, algorithm: fixed_window, limit: 1_000/hour, warn_at: 0.01% }
`

// patience bounds every wait for something that is certain to happen.
const patience = 20 * time.Second

func (b bench) watch(ctx context.Context, t testing.TB, q engine.EventQuery) *events.Watcher {
	t.Helper()
	w, err := b.Watch(ctx, &q)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

// told returns the next n events: KIND SUBJECT LIMIT PERCENT.
func told(t testing.TB, w *events.Watcher, n int) (all []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for range n {
		e, err := w.Next(ctx)
		if err != nil {
			t.Fatalf("after %q: %v", all, err)
		}
		all = append(all, fmt.Sprintf("%s %s %s %d", e.Kind, e.Subject(), e.Limit, e.Percent))
	}
	return all
}

// Whatever way usage comes, what crosses a threshold is told, once in a period; limits in shadow warn nobody.
func TestThresholds(t *testing.T) {
	used := func(n int64) price.Usage { return price.Usage{Output: n} }
	for name, use := range map[string]func(t *testing.T, b bench){
		"settle": func(t *testing.T, b bench) {
			b.settle(t, b.reserve(t, call("small", 0, 900)), used(850))
		},
		"record": func(t *testing.T, b bench) {
			var out engine.Settlement
			if err := b.Record(t.Context(), &engine.Record{Caller: call("small", 0, 0).Caller, Usage: used(850), Requests: 1}, &out); err != nil {
				t.Fatal(err)
			}
		},
		"progress of a call that lapses": func(t *testing.T, b bench) {
			a := b.reserve(t, call("small", 850, 50))
			b.clock.Set(a.Expires + 1)
			var d engine.Decision
			caller := call("small", 0, 0).Caller
			if err := b.Standing(t.Context(), &caller, &d); err != nil {
				t.Fatal(err)
			}
		},
		"over Envoy's protocol": func(t *testing.T, b bench) {
			b.askIn(t, "llm", entries("user=alice"), hits(850, "user=alice", "ration.phase=record", "ration.meter=output_tokens"))
		},
		"correction": func(t *testing.T, b bench) {
			b.reserve(t, call("small", 0, 1))
			var d engine.Decision
			if err := b.Adjust(t.Context(), &engine.Correction{Caller: call("small", 0, 0).Caller, Limit: "llm.user.tokens", Amount: 850}, &d); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newPolicyBench(t, warned, engine.Options{})
			w := b.watch(t.Context(), t, engine.EventQuery{Subject: policy.Entry{Key: "user", Value: "alice"}})
			use(t, b)
			seen := map[string]bool{}
			for !seen["threshold user=alice llm.user.tokens 80"] || name == "settle" && !seen["threshold user=alice llm.user.least 0"] {
				for _, e := range told(t, w, 1) {
					if seen[e] || e != "threshold user=alice llm.user.tokens 80" && e != "threshold user=alice llm.user.least 0" {
						t.Fatalf("told %q", e)
					}
					seen[e] = true
				}
			}
		})
	}
}

// Under a thousand settlements at once each threshold is told once.
func TestThresholdsUnderLoad(t *testing.T) {
	b := newPolicyBench(t, warned, engine.Options{})
	w := b.watch(t.Context(), t, engine.EventQuery{})
	var settling sync.WaitGroup
	for range 8 {
		settling.Go(func() {
			for range 125 {
				b.settle(t, b.reserve(t, call("small", 0, 0)), price.Usage{Output: 1})
			}
		})
	}
	settling.Wait()
	got := map[string]int{}
	for _, e := range told(t, w, 3) {
		got[e]++
	}
	if got["threshold user=alice llm.user.tokens 80"] != 1 || got["threshold user=alice llm.user.tokens 100"] != 1 || got["threshold user=alice llm.user.least 0"] != 1 {
		t.Errorf("told %v", got)
	}
	b.clock.Set(noon + 24*3600*1_000_000)
	b.settle(t, b.reserve(t, call("small", 0, 0)), price.Usage{Output: 1_200})
	again := map[string]int{}
	for _, e := range told(t, w, 3) {
		again[e]++
	}
	if again["threshold user=alice llm.user.tokens 80"] != 1 || again["threshold user=alice llm.user.tokens 100"] != 1 {
		t.Errorf("the next day %v", again)
	}
}

// What happens to the server is told: policies, an outage and its end; refusals to those who ask for them.
func TestEventsOfTheServer(t *testing.T) {
	b := newPolicyBench(t, warned, engine.Options{})
	w := b.watch(t.Context(), t, engine.EventQuery{})
	all := b.watch(t.Context(), t, engine.EventQuery{Kinds: []string{"refusal"}, Domain: "llm"})
	p, _ := b.Policy()
	b.SetPolicy(p)
	b.TellPolicyRefused([]string{"p.yaml:1:1: nonsense", "p.yaml:2:1: more"})
	b.NoteReady(errors.New("dial tcp 10.0.0.7:6379"))
	b.NoteReady(nil)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for _, want := range []string{
		"policy The policy of version " + p.Version() + " is in force.",
		"policy A new policy cannot be used, and the one before stays in force: p.yaml:1:1: nonsense (and 1 more)",
		"degraded The store does not decide: limits do what their on_store_error says.",
		"degraded The store decides again, after 0s.",
	} {
		e, err := w.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(e.Kind) + " " + e.Message; got != want && e.Message[:10] != "The store " || e.Domain != "" {
			t.Errorf("told %q, want %q", got, want)
		}
	}
	for range 3 {
		b.reserve(t, call("small", 5_000, 0))
	}
	e, err := all.Next(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if want := "Request too large: 5,000 tokens at once, of at most 1,000. (3 times in 1s)"; e.Kind != events.Refusal || e.Domain != "llm" ||
		e.Subject() != "user=alice" || e.Limit != "llm.user.tokens" || e.Message != want {
		t.Errorf("told %+v, want it to say %q", e, want)
	}
}

// Who is bound hears of nothing else, and cannot ask for it.
func TestWatchInScope(t *testing.T) {
	b := newPolicyBench(t, warned, engine.Options{})
	scoped := func(s engine.Scope) context.Context { return engine.WithScope(t.Context(), &s) }
	team := scoped(engine.Scope{Subjects: []engine.SubjectPattern{{Key: "user", Name: "team-", Prefix: true}}})
	elsewhere := scoped(engine.Scope{Domains: []string{"other"}})
	here := scoped(engine.Scope{Domains: []string{"llm"}})
	of, not, domain := b.watch(team, t, engine.EventQuery{}), b.watch(elsewhere, t, engine.EventQuery{}), b.watch(here, t, engine.EventQuery{})
	for _, who := range []string{"alice", "team-7"} {
		c := call("small", 0, 0)
		c.Attributes[0].Value = who
		b.settle(t, b.reserve(t, c), price.Usage{Output: 850})
	}
	b.settle(t, b.reserve(t, call("small", 0, 0, func(c *engine.Call) { c.Attributes[0].Value = "bob" })), price.Usage{Output: 600_000})
	got := told(t, of, 2)
	slices.Sort(got) // both came at once
	expect(t, "the team hears", fmt.Sprint(got), "[threshold user=team-7 llm.user.least 0 threshold user=team-7 llm.user.tokens 80]")
	heard := map[string]bool{}
	for _, e := range told(t, domain, 8) {
		heard[e] = true
	}
	if !heard["threshold  llm.company 50"] || !heard["threshold user=alice llm.user.tokens 80"] {
		t.Errorf("the domain hears %v", heard)
	}
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	for _, w := range []*events.Watcher{of, not} {
		if e, err := w.Next(short); err == nil {
			t.Errorf("somebody else hears %+v", e)
		}
	}
	for _, c := range []struct {
		ctx  context.Context
		q    engine.EventQuery
		want error
	}{
		{team, engine.EventQuery{Kinds: []string{"policy"}}, engine.ErrOutOfScope},
		{here, engine.EventQuery{Kinds: []string{"threshold", "degraded"}}, engine.ErrOutOfScope},
		{elsewhere, engine.EventQuery{Domain: "llm"}, engine.ErrOutOfScope},
		{team, engine.EventQuery{Subject: policy.Entry{Key: "user", Value: "alice"}}, engine.ErrOutOfScope},
		{t.Context(), engine.EventQuery{Domain: "unheard-of"}, engine.ErrUnknownDomain},
	} {
		if _, err := b.Watch(c.ctx, &c.q); !errors.Is(err, c.want) {
			t.Errorf("%+v: %v, want %v", c.q, err, c.want)
		}
	}
	for field, q := range map[string]engine.EventQuery{"kinds[1]": {Kinds: []string{"policy", "weather"}}, "after": {After: "x"}} {
		var invalid *engine.InvalidError
		if _, err := b.Watch(t.Context(), &q); !errors.As(err, &invalid) || invalid.Field != field {
			t.Errorf("%+v: %v", q, err)
		}
	}
}
