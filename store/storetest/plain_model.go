package storetest

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

// testPlainModel runs random plain steps, with a clock that moves both ways, on the model and on the
// store.
func testPlainModel(t *testing.T, open Open) {
	rapid.Check(t, func(r *rapid.T) {
		scope := &scope{TB: t}
		defer scope.end()
		clock := NewClock(noon)
		w := &twin{t: r, store: open(scope, clock), clock: clock, model: &Model{}}
		newest := noon
		for range rapid.IntRange(1, 40).Draw(r, "steps") {
			clock.Set(nextPlainInstant(r, clock.Now(), newest))
			newest = max(newest, clock.Now())
			w.must(randomPlainStep(r))
		}
	})
}

// nextPlainInstant draws the next instant: often the edge of a window, sometimes a step back, by no
// more than every store remembers.
func nextPlainInstant(r *rapid.T, now, newest limit.Micros) limit.Micros {
	switch rapid.SampledFrom([]string{"stand", "forward", "edge", "before the edge", "back", "far"}).Draw(r, "clock") {
	case "forward":
		return now + limit.Micros(rapid.Int64Range(0, 90_000_000).Draw(r, "µs"))
	case "edge":
		w := plainWindow(r)
		return now - now%w + w
	case "before the edge":
		w := plainWindow(r)
		return now - now%w + w - 1
	case "back":
		return max(now-limit.Micros(rapid.Int64Range(0, 1_000_000).Draw(r, "µs")), newest-limit.Second)
	case "far":
		return now + 400*day
	}
	return now
}

func plainWindow(r *rapid.T) limit.Micros {
	return rapid.SampledFrom([]limit.Micros{limit.Second, minute, hour, day, 7 * day, 30 * day, 365 * day}).Draw(r, "window")
}

func randomPlainStep(r *rapid.T) *store.Step {
	amounts := rapid.OneOf(rapid.Int64Range(0, 4), rapid.SampledFrom([]int64{1 << 32, limit.MaxAmount - 1, limit.MaxAmount}))
	limits := rapid.OneOf(rapid.Int64Range(0, 8), rapid.SampledFrom([]int64{1<<32 - 1, limit.MaxAmount - 1, limit.MaxAmount}))
	step := &store.Step{
		Refused:   rapid.IntRange(0, 9).Draw(r, "refused step") == 0,
		Shadow:    rapid.IntRange(0, 9).Draw(r, "shadow step") == 0,
		QuotaOpen: rapid.IntRange(0, 9).Draw(r, "quota open") == 0,
	}
	for range rapid.IntRange(0, 5).Draw(r, "ops") {
		w := plainWindow(r)
		step.Ops = append(step.Ops, store.Op{
			Bucket: fmt.Appendf(nil, "%s|%d", rapid.SampledFrom([]string{"a", "b", "c"}).Draw(r, "bucket"), w),
			Spec:   limit.Spec{Limit: limits.Draw(r, "limit"), Window: w},
			Kind:   rapid.SampledFrom([]store.Kind{store.Charge, store.Charge, store.Charge, store.GiveBack}).Draw(r, "kind"),
			Amount: amounts.Draw(r, "amount"),
			Shadow: rapid.IntRange(0, 4).Draw(r, "shadow") == 0,
			Quota:  rapid.IntRange(0, 3).Draw(r, "quota") == 0,
		})
	}
	return step
}
