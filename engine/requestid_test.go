package engine_test

import (
	"strings"
	"testing"

	"github.com/rationhq/ration/engine"
	"github.com/rationhq/ration/limit"
)

// A call about a request with an id: who, how many, and the reserved entries but the id.
func about(n uint64, who string, reserved ...string) engine.Descriptor {
	return hits(n, append([]string{who, "ration.request=r1"}, reserved...)...)
}

// Hits are given back under the id of the request that charged them, as often as a caller does so, and
// an id that has only given back is still free.
func TestGivesBackUnderAnID(t *testing.T) {
	b := newModelBench(t)
	back := func(n uint64, more ...string) engine.Descriptor {
		d := about(n, "user=ann", more...)
		d.GiveBack = true
		return d
	}
	for i, walk := range []struct {
		ask  engine.Descriptor
		want string
	}{
		{back(1), "OK requests:0"},
		{about(2, "user=ann"), "OK requests:2 tokens:0 in-flight:0+1 company:0"},
		{back(1), "OK requests:1"},
		{back(1), "OK requests:0"},
	} {
		if got := sayLimits(b.ask(t, walk.ask)); !strings.HasPrefix(got, walk.want) {
			t.Errorf("ask %d: got %s, want %s", i, got, walk.want)
		}
	}
}

// A trial run refuses nobody, whatever ids its callers send; but where something else enforces, an id
// that is used again gets nobody past it.
func TestReusedRequestIDInShadow(t *testing.T) {
	server := newModelBenchWith(t, engine.Options{Shadow: true})
	for n := range uint64(3) {
		if d := server.ask(t, about(n+1, "user=ann")); d.Over {
			t.Errorf("ask %d is refused in shadow: %s", n, d.Message())
		}
	}
	const shadow = `
domain: shop
descriptors:
  - key: user
    rate_limit: { unit: hour, requests_per_unit: 10 }
    limits:
      - { name: requests, algorithm: fixed_window, limit: 1_000/hour, shadow: true }
      - { name: tokens, meter: tokens, algorithm: fixed_window, limit: 10/hour }
`
	b := newPolicyBench(t, shadow, engine.Options{})
	for n, want := range []string{"OK requests:1 tokens:0", "OK requests:3 tokens:0", "OK requests:6 tokens:0"} {
		d := b.ask(t, about(uint64(n+1), "user=ann"))
		if got := sayLimits(d); got != want {
			t.Errorf("ask %d: %s, want %s", n, got, want)
		}
	}
	if d := b.ask(t, about(5, "user=ann")); !d.Over || d.Reused {
		t.Errorf("beyond the rule: %s", sayLimits(d))
	}
	b = newPolicyBench(t, shadow, engine.Options{})
	b.ask(t, about(1, "user=ann"))
	b.ask(t, hits(10, "user=ann", "ration.phase=record", "ration.meter=tokens"))
	if d := b.ask(t, about(2, "user=ann")); !d.Over {
		t.Errorf("while the tokens are used up: %s", sayLimits(d))
	}
}

// Rules count what a request asks for whose id is another's, as they count all that is refused.
func TestRulesCountReusedRequestIDs(t *testing.T) {
	b := newPolicyBench(t, `
domain: shop
descriptors:
  - key: user
    rate_limit: { unit: hour, requests_per_unit: 3 }
    limits:
      - { name: requests, algorithm: fixed_window, limit: 1_000/hour }
`, engine.Options{})
	b.ask(t, about(1, "user=ann"))
	if d := b.ask(t, about(2, "user=ann")); !d.Over || !d.Reused || d.Verdict() != engine.Blocked {
		t.Errorf("another request: %s", sayLimits(d))
	}
	if d := b.ask(t, hits(1, "user=ann")); !d.Over {
		t.Errorf("the fourth: %s", sayLimits(d))
	}
}

// Giving back has no part in an id: it settles nothing, and is not a repeat.
func TestGivesBackBesideAReservation(t *testing.T) {
	b := newModelBench(t)
	back := about(1, "user=ann", "ration.phase=record")
	back.GiveBack = true
	b.ask(t, about(2, "user=ann"), about(100, "user=ann", "ration.phase=hold", "ration.meter=input_tokens"))
	for range 2 {
		b.ask(t, back)
	}
	if got := sayLimits(b.ask(t, hits(0, "user=ann"))); got != "OK requests:0 tokens:0+100 in-flight:0+1 company:0+100" {
		t.Errorf("given back twice: %s", got)
	}
	again := about(90, "user=ann", "ration.phase=record", "ration.meter=input_tokens")
	if got := sayLimits(b.ask(t, again, back)); !strings.HasPrefix(got, "OK") {
		t.Errorf("reported: %s", got)
	}
	if got := sayLimits(b.ask(t, hits(0, "user=ann"))); got != "OK requests:0 tokens:90 in-flight:0 company:90" {
		t.Errorf("reported: %s", got)
	}
}

// Usage lands also where it is reported without the id, beside the end of a request that has lapsed.
func TestRecordsBesideDone(t *testing.T) {
	for name, wait := range map[string]limit.Micros{"in time": 0, "late": 400 * limit.Second} {
		b := newModelBench(t)
		b.ask(t, about(1, "user=ann"))
		b.clock.Advance(wait)
		b.ask(t, hits(50, "user=ann", "ration.phase=record", "ration.meter=tokens"), about(1, "user=ann", "ration.phase=done"))
		if got := sayLimits(b.ask(t, hits(0, "user=ann"))); !strings.Contains(got, " tokens:50 in-flight:0 ") {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// Where the policy wants it, a call that the upstream has failed is charged as one that hung up.
func TestFailureLapses(t *testing.T) {
	b := newPolicyBench(t, "on_failure: lapse"+llm, engine.Options{})
	b.ask(t, about(100, "user=ann", "ration.phase=hold", "ration.meter=input_tokens"))
	b.ask(t, about(1, "user=ann", "ration.phase=failed"))
	if got := sayLimits(b.ask(t, hits(0, "user=ann"))); got != "OK requests:0 tokens:100 in-flight:0 company:100" {
		t.Errorf("it leaves %s", got)
	}
}

// Calls about one request may name its subjects in any order.
func TestSubjectsInAnyOrder(t *testing.T) {
	b := newModelBench(t)
	ann, bob := entries("user=ann", "ration.request=r1"), entries("user=bob", "ration.request=r1")
	tokens := func(n uint64, who, phase string) engine.Descriptor {
		return about(n, who, "ration.phase="+phase, "ration.meter=input_tokens")
	}
	b.ask(t, ann, bob, tokens(100, "user=ann", "hold"), tokens(300, "user=bob", "hold"))
	if d := b.ask(t, tokens(300, "user=bob", "hold"), tokens(100, "user=ann", "hold"), bob, ann); d.Over {
		t.Errorf("the same in another order is refused: %s", d.Message())
	}
	for range 2 {
		b.ask(t, tokens(290, "user=bob", "record"), tokens(90, "user=ann", "record"))
		b.ask(t, tokens(90, "user=ann", "record"), tokens(290, "user=bob", "record"))
	}
	for who, want := range map[string]string{"user=ann": "tokens:90", "user=bob": "tokens:290"} {
		if got := sayLimits(b.ask(t, hits(0, who))); !strings.Contains(got, " "+want+" ") {
			t.Errorf("%s: %s, want %s", who, got, want)
		}
	}
}

// What one subject has held is not settled by what another reports.
func TestSubjectsReportTheirOwn(t *testing.T) {
	b := newModelBench(t)
	tokens := func(n uint64, who, phase string) engine.Descriptor {
		return about(n, who, "ration.phase="+phase, "ration.meter=input_tokens")
	}
	b.ask(t, entries("user=ann", "ration.request=r1"), tokens(100, "user=ann", "hold"), tokens(300, "user=bob", "hold"))
	b.ask(t, tokens(90, "user=ann", "record"))
	for who, want := range map[string]string{"user=ann": "tokens:90", "user=bob": "tokens:300"} {
		if got := sayLimits(b.ask(t, hits(0, who))); !strings.Contains(got, " "+want+" ") {
			t.Errorf("%s: %s, want %s", who, got, want)
		}
	}
}

// The largest amount of one request is its own, not that of its subjects together.
func TestPerRequestIsPerSubject(t *testing.T) {
	b := newModelBench(t)
	tokens := func(who string) engine.Descriptor {
		return about(500, who, "ration.phase=hold", "ration.meter=input_tokens")
	}
	if d := b.ask(t, tokens("user=ann"), tokens("user=bob")); d.Over {
		t.Errorf("refused: %s", d.Message())
	}
}
