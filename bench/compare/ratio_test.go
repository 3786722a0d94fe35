package main

import (
	"math"
	"testing"

	"github.com/rationhq/ration/bench/internal/loadgen"
)

// measured is a report with the figures that tables show.
func measured(throughput, p99, serverCPU float64) *loadgen.Report {
	others := 0.05
	generator := 4.2
	return &loadgen.Report{
		Decisions: 1000, OK: 1000, Descriptors: 1,
		DecisionsPerSecond: throughput, Latency: loadgen.Percentiles{P50: p99 / 10, P99: p99, P999: p99 * 2},
		ServerCPU: &serverCPU, GeneratorCPU: &generator, OthersCores: &others,
	}
}

func TestSpreadIsMedianAndExtremes(t *testing.T) {
	tests := []struct {
		values []float64
		want   spread
	}{
		{nil, spread{}},
		{[]float64{3}, spread{3, 3, 3, 1}},
		{[]float64{9, 1, 2}, spread{2, 1, 9, 3}},
		{[]float64{4, 1, 2, 9}, spread{3, 1, 9, 4}},
	}
	for _, test := range tests {
		if got := spreadOf(test.values); got != test.want {
			t.Errorf("%v: got %+v, want %+v", test.values, got, test.want)
		}
	}
}

func TestRatiosAreTakenWithinARound(t *testing.T) {
	// The machine is three times as slow in round 2, and the contestant always needs twice what the floor needs,
	// except for a hiccup in round 3.
	runs := results{
		{1, "closed-16x1", "floor", measured(30_000, 100, 10)},
		{1, "closed-16x1", "mine", measured(15_000, 200, 20)},
		{2, "closed-16x1", "floor", measured(10_000, 300, 30)},
		{2, "closed-16x1", "mine", measured(5_000, 600, 60)},
		{3, "closed-16x1", "floor", measured(30_000, 100, 10)},
		{3, "closed-16x1", "mine", measured(10_000, 900, 50)},
		{3, "closed-128x1", "mine", measured(1, 1, 1)}, // the floor is missing
	}
	if got, want := runs.ratio("closed-16x1", "mine", "floor", serverCPU), (spread{2, 2, 5, 3}); got != want {
		t.Errorf("CPU: got %+v, want %+v", got, want)
	}
	if got := runs.ratio("closed-16x1", "mine", "floor", throughput); got.Median != 0.5 || math.Abs(got.Min-1.0/3) > 1e-9 {
		t.Errorf("throughput: got %+v, want median 0.5, smallest 0.33", got)
	}
	if got := runs.ratio("closed-16x1", "mine", "floor", p99); got.Max != 9 {
		t.Errorf("p99: got %+v, want largest 9", got)
	}
	if got := runs.ratio("closed-16x1", "floor", "floor", serverCPU); got != (spread{1, 1, 1, 3}) {
		t.Errorf("the floor to itself: got %+v", got)
	}
	if got := runs.ratio("closed-128x1", "mine", "floor", serverCPU); got.N != 0 {
		t.Errorf("without a floor in the round: got %+v", got)
	}
	if got := runs.ratio("closed-16x1", "mine", "floor", redisCPU); got.N != 0 {
		t.Errorf("a figure that nobody has: got %+v", got)
	}
	if got := runs.over("closed-16x1", "mine", serverCPU); got != (spread{50, 20, 60, 3}) {
		t.Errorf("the figure itself: got %+v", got)
	}
}

func TestWrongAnswersAreNotMeasured(t *testing.T) {
	good := measured(1, 1, 1)
	if err := checkReport(good); err != nil {
		t.Errorf("all answers right: %v", err)
	}
	spoil := map[string]func(*loadgen.Report){
		"an error":                   func(r *loadgen.Report) { r.Errors = 1 },
		"an error during warm-up":    func(r *loadgen.Report) { r.WarmupErrors = 1 },
		"OVER_LIMIT":                 func(r *loadgen.Report) { r.OverLimit = 1 },
		"no answer":                  func(r *loadgen.Report) { r.Decisions = 0 },
		"CPU time that is not known": func(r *loadgen.Report) { r.ServerCPU = nil },
	}
	for name, spoil := range spoil {
		report := *good
		spoil(&report)
		if checkReport(&report) == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
