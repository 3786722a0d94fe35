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

// A trial run refuses nobody, whatever ids its callers send.
func TestReusedRequestIDInShadow(t *testing.T) {
	b := newModelBenchWith(t, engine.Options{Shadow: true})
	for n := range uint64(2) {
		if d := b.ask(t, about(n+1, "user=ann")); d.Over || d.Reused != (n == 1) {
			t.Errorf("ask %d: over %v, reused %v", n, d.Over, d.Reused)
		}
	}
}

// Calls about one request may name its subjects in any order.
func TestSubjectsInAnyOrder(t *testing.T) {
	b := newModelBench(t)
	tokens := func(n uint64, who, phase string) engine.Descriptor {
		return about(n, who, "ration.phase="+phase, "ration.meter=output_tokens")
	}
	b.ask(t, entries("user=ann", "ration.request=r1"), tokens(100, "user=ann", "hold"), tokens(300, "user=bob", "hold"))
	b.ask(t, tokens(290, "user=bob", "record"), tokens(90, "user=ann", "record"))
	b.clock.Advance(10 * 60 * limit.Second)
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
