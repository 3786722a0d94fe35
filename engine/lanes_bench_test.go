package engine_test

import (
	"strings"
	"testing"

	"github.com/rationhq/ration/engine"
	"github.com/rationhq/ration/price"
)

// BenchmarkUncontended measures a call that is reserved, or acquired in a lane that nobody waits in, and settled: in a domain
// without lanes, and in one that has some.
func BenchmarkUncontended(b *testing.B) {
	text := strings.Replace(laned, "rate: 1_000/second, burst: 1_000", "rate: 1_000/second, burst: 1_000_000_000", 1)
	without, _, _ := strings.Cut(text, "lanes:")
	for _, bench := range []struct {
		name, text string
		ask        func(e *engine.Engine, c *engine.Call, a *engine.Admission) error
	}{
		{"reserve, no lanes", without, func(e *engine.Engine, c *engine.Call, a *engine.Admission) error {
			return e.Reserve(b.Context(), c, a)
		}},
		{"reserve", text, func(e *engine.Engine, c *engine.Call, a *engine.Admission) error {
			return e.Reserve(b.Context(), c, a)
		}},
		{"acquire", text, func(e *engine.Engine, c *engine.Call, a *engine.Admission) error {
			return e.Acquire(b.Context(), c, &engine.Place{}, a)
		}},
	} {
		b.Run(bench.name, func(b *testing.B) {
			e := lanedBench(b, bench.text)
			call := callOf("ann", "premium", 10)
			var settled engine.Settlement
			b.ReportAllocs()
			for b.Loop() {
				var a engine.Admission
				if err := bench.ask(e, call, &a); err != nil || a.Over {
					b.Fatal(err, a.Decision)
				}
				if err := e.Settle(b.Context(), &engine.Report{ID: a.ID, Usage: price.Usage{Output: 5}}, &settled); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
