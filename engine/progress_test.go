package engine_test

import (
	"context"
	"errors"
	"testing"

	"github.com/rationhq/ration/engine"
	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/price"
)

func (b bench) progress(t testing.TB, a *engine.Admission, used price.Usage) *engine.Going {
	t.Helper()
	var g engine.Going
	if err := b.Progress(context.Background(), &engine.Progress{ID: a.ID, Usage: used, Lasts: 10 * limit.Second}, &g); err != nil {
		t.Fatal(err)
	}
	return &g
}

func TestProgress(t *testing.T) {
	b := newAccounts(t)
	a := b.reserve(t, call("small", 100, 200, lasts(10*limit.Second)))
	for range 3 {
		b.clock.Advance(9 * limit.Second)
		g := b.progress(t, a, price.Usage{Output: 50})
		expect(t, "what is held stays held", sayLimits(&g.Decision),
			"OK requests:0+1 tokens:0+300 in-flight:0+1 company:0+500000 itpm:0")
		if g.Advice != engine.Continue || g.State != engine.StateOpen || g.Expires != g.Now+10*limit.Second {
			t.Errorf("advice %d, state %d, expires %v after %v", g.Advice, g.State, g.Expires, g.Now)
		}
	}
	b.progress(t, a, price.Usage{Output: 20})
	b.clock.Advance(10 * limit.Second)
	expect(t, "what was told of stays charged, with the prompt", b.standing(t, call("small", 0, 0)),
		"requests:1 tokens:150 in-flight:0 company:200000 itpm:0")
	if g := b.progress(t, a, price.Usage{Output: 60}); g.Advice != engine.Stop || g.State != engine.StateLapsed {
		t.Errorf("after it has lapsed: advice %d, state %d", g.Advice, g.State)
	}
	b.settle(t, a, price.Usage{Input: 100, Output: 60})
	if g := b.progress(t, a, price.Usage{Output: 60}); g.Advice != engine.Stop || g.State != engine.StateSettled {
		t.Errorf("after it was settled: advice %d, state %d", g.Advice, g.State)
	}
	var g engine.Going
	if err := b.Progress(context.Background(), &engine.Progress{ID: engine.ReservationID{1}}, &g); !errors.Is(err, engine.ErrUnknownReservation) {
		t.Errorf("of a reservation that nobody has made: %v", err)
	}
}

// What nothing was expected of is debt too as soon as it is told, and not only when it is settled.
func TestProgressBeyondAnEstimateOfNothing(t *testing.T) {
	b := newPolicyBench(t, `
domain: llm
descriptors: [ { key: user, subject: true, limits: [ { name: output, meter: output_tokens, algorithm: fixed_window, limit: 1_000/hour } ] } ]
`, engine.Options{})
	a := b.reserve(t, call("", 100, 0))
	expect(t, "nothing is held", sayLimits(&a.Decision), "OK output:0")
	if b.reserve(t, call("", 0, 1000)).Over {
		t.Error("a hold of nothing is in the way")
	}
	expect(t, "debt", sayLimits(&b.progress(t, a, price.Usage{Output: 50}).Decision), "OK output:0+1050!")
	if !b.reserve(t, call("", 100, 0)).Over {
		t.Error("an estimate of nothing was admitted without room for 1")
	}
	expect(t, "settled", sayLimits(&b.settle(t, a, price.Usage{Output: 60}).Decision), "OK output:60+1000")
}

func TestProgressBeyondTheEstimate(t *testing.T) {
	b := newPolicyBench(t, `
domain: llm
descriptors: [ { key: user, subject: true, limits: [ { name: tokens, meter: tokens, algorithm: fixed_window, limit: 1_000/hour } ] } ]
`, engine.Options{})
	a := b.reserve(t, call("", 100, 300))
	for _, tc := range []struct {
		output    int64
		advice    engine.Advice
		most      int64
		remaining int64
	}{
		{100, engine.Continue, 900, 600},
		{300, engine.Continue, 900, 600},
		{500, engine.Continue, 900, 400},
		{900, engine.Stop, 900, 0},
		{950, engine.Stop, 900, -50},
	} {
		g := b.progress(t, a, price.Usage{Input: 100, Output: tc.output})
		if g.Advice != tc.advice || g.MaxOutput != tc.most || g.Limits[0].Status.Remaining != tc.remaining {
			t.Errorf("%d written: advice %d, at most %d, %d remain; want %d, %d, %d",
				tc.output, g.Advice, g.MaxOutput, g.Limits[0].Status.Remaining, tc.advice, tc.most, tc.remaining)
		}
	}
}

// A limit that others have overdrawn meanwhile leaves less than the estimate.
func TestWrapUp(t *testing.T) {
	b := newAccounts(t)
	a := b.reserve(t, call("small", 100, 300))
	other := b.reserve(t, call("small", 100, 500))
	b.settle(t, other, price.Usage{Input: 100, Output: 650})
	g := b.progress(t, a, price.Usage{Input: 100, Output: 10})
	if g.Advice != engine.WrapUp || g.MaxOutput != 150 {
		t.Errorf("advice %d, at most %d; want 150, which is what is left of the 1,000 for both", g.Advice, g.MaxOutput)
	}
	if g := b.progress(t, a, price.Usage{Input: 100, Output: 150}); g.Advice != engine.Stop {
		t.Errorf("advice %d where nothing more fits", g.Advice)
	}
}
