package storetest

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

// model is the contract in plain code: a count for every window of every bucket, for ever.
type model struct {
	counts map[place]int64
}

type place struct {
	bucket string
	start  limit.Micros
}

func (m *model) apply(now limit.Micros, step *store.Step) store.Outcome {
	at := func(op *store.Op) place { return place{string(op.Bucket), op.Spec.Start(now)} }
	count := func(counts map[place]int64, op *store.Op) {
		if op.Kind == store.GiveBack {
			counts[at(op)] = limit.GiveBack(counts[at(op)], op.Amount)
		} else {
			counts[at(op)] = limit.Add(counts[at(op)], op.Amount)
		}
	}
	out := store.Outcome{Now: now}
	var overall limit.Tally
	if step.QuotaOpen {
		overall.Add(true, false)
	}

	tried := copyOf(m.counts)
	for i := range step.Ops {
		op := &step.Ops[i]
		refused := op.Kind == store.Charge && op.Spec.Judge(tried[at(op)], op.Amount, op.Manner)
		overall.Add(op.Quota, refused && !op.Shadow)
		count(tried, op)
		out.Results = append(out.Results, store.Result{Used: tried[at(op)], Refused: refused})
	}
	out.Refused = overall.Refuses() && !step.Shadow
	if !out.Refused {
		m.counts = tried
		return out
	}
	for i := range step.Ops {
		op := &step.Ops[i]
		if op.Kind == store.GiveBack || op.Manner == limit.Plain {
			count(m.counts, op)
		}
		out.Results[i].Used = m.counts[at(op)]
	}
	return out
}

func copyOf(counts map[place]int64) map[place]int64 {
	c := make(map[place]int64, len(counts))
	for k, v := range counts {
		c[k] = v
	}
	return c
}

// testModel runs random steps, with a clock that moves both ways, on the model and on the store.
func testModel(t *testing.T, open Open) {
	rapid.Check(t, func(r *rapid.T) {
		clock := NewClock(noon)
		s := open(t, clock)
		m := &model{counts: map[place]int64{}}
		newest := noon
		for range rapid.IntRange(1, 40).Draw(r, "steps") {
			now := nextInstant(r, clock.Now(), newest)
			newest = max(newest, now)
			clock.Set(now)
			step := randomStep(r)
			expected, got := m.apply(now, step), applyStep(t, s, step)
			if fmt.Sprint(expected) != fmt.Sprint(got) {
				r.Fatalf("at %d, step %+v:\n got %+v\nwant %+v", now, step, got, expected)
			}
		}
	})
}

// nextInstant draws the next instant: often the edge of a window, sometimes a step back, by no more
// than every store remembers.
func nextInstant(r *rapid.T, now, newest limit.Micros) limit.Micros {
	switch rapid.SampledFrom([]string{"stand", "forward", "edge", "before the edge", "back", "far"}).Draw(r, "clock") {
	case "forward":
		return now + limit.Micros(rapid.Int64Range(0, 90_000_000).Draw(r, "µs"))
	case "edge":
		w := window(r)
		return now - now%w + w
	case "before the edge":
		w := window(r)
		return now - now%w + w - 1
	case "back":
		return max(now-limit.Micros(rapid.Int64Range(0, 1_000_000).Draw(r, "µs")), newest-limit.Second)
	case "far":
		return now + 400*86_400*limit.Second
	}
	return now
}

func window(r *rapid.T) limit.Micros {
	return limit.Second * rapid.SampledFrom([]limit.Micros{1, 60, 3600, 86_400, 604_800, 2_592_000, 31_536_000}).Draw(r, "window")
}

func randomStep(r *rapid.T) *store.Step {
	amounts := rapid.OneOf(rapid.Int64Range(0, 4), rapid.SampledFrom([]int64{1 << 32, limit.MaxAmount - 1, limit.MaxAmount}))
	limits := rapid.OneOf(rapid.Int64Range(0, 8), rapid.SampledFrom([]int64{1<<32 - 1, limit.MaxAmount - 1, limit.MaxAmount}))
	step := &store.Step{
		Shadow:    rapid.IntRange(0, 9).Draw(r, "shadow step") == 0,
		QuotaOpen: rapid.IntRange(0, 9).Draw(r, "quota open") == 0,
	}
	for range rapid.IntRange(0, 5).Draw(r, "ops") {
		w := window(r)
		step.Ops = append(step.Ops, store.Op{
			Bucket: fmt.Appendf(nil, "%s|%d", rapid.SampledFrom([]string{"a", "b", "c"}).Draw(r, "bucket"), w),
			Spec:   limit.Spec{Limit: limits.Draw(r, "limit"), Window: w},
			Kind:   rapid.SampledFrom([]store.Kind{store.Charge, store.Charge, store.Charge, store.GiveBack}).Draw(r, "kind"),
			Manner: rapid.SampledFrom([]limit.Manner{limit.Plain, limit.Plain, limit.Strict}).Draw(r, "manner"),
			Amount: amounts.Draw(r, "amount"),
			Shadow: rapid.IntRange(0, 4).Draw(r, "shadow") == 0,
			Quota:  rapid.IntRange(0, 3).Draw(r, "quota") == 0,
		})
	}
	return step
}
