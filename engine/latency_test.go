package engine

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

func TestLatencyColumns(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		took := limit.Micros(rapid.Int64Range(0, 3200*int64(limit.Second)).Draw(rt, "took"))
		upTo := latencyUpTo(latencyColumn(took))
		if upTo+1 < took || took > shortestLatency && float64(upTo) > 1.3*float64(took) {
			rt.Errorf("a call of %d µs is counted with those of up to %d", took, upTo)
		}
	})
	if column := latencyColumn(limit.Micros(limit.MaxAmount)); column != store.MaxColumns-1 {
		t.Errorf("the longest are counted in column %d", column)
	}
}

func TestQuantiles(t *testing.T) {
	var a addition
	for range 90 {
		a[latencyColumn(100*limit.Second/1000)]++
	}
	for range 10 {
		a[latencyColumn(10*limit.Second)]++
	}
	row := a.row()
	if l := row.Latency; l.Count != 100 || l.P50 < 100_000 || l.P50 > 130_000 || l.P95 < 10_000_000 || l.P95 > 13_000_000 {
		t.Errorf("%+v", l)
	}
}
