package main

import (
	"slices"

	"github.com/rationhq/ration/bench/internal/loadgen"
)

// A metric picks one figure out of a report; ok is false where it was not measured.
type metric func(*loadgen.Report) (value float64, ok bool)

func throughput(r *loadgen.Report) (float64, bool) { return r.DecisionsPerSecond, true }
func offered(r *loadgen.Report) (float64, bool)    { return r.OfferedRate, true }
func p50(r *loadgen.Report) (float64, bool)        { return r.Latency.P50, true }
func p99(r *loadgen.Report) (float64, bool)        { return r.Latency.P99, true }
func p999(r *loadgen.Report) (float64, bool)       { return r.Latency.P999, true }
func serverCPU(r *loadgen.Report) (float64, bool)  { return deref(r.ServerCPU) }
func redisCPU(r *loadgen.Report) (float64, bool)   { return deref(r.RedisCPU) }
func generatorCPU(r *loadgen.Report) (float64, bool) {
	return deref(r.GeneratorCPU)
}

// redisCPUPerLimit is what Redis needs for one of the limits that a decision in s consists of.
func redisCPUPerLimit(s scenario) metric {
	return func(r *loadgen.Report) (float64, bool) {
		cpu, ok := deref(r.RedisCPU)
		return cpu / float64(s.Limits), ok
	}
}

func lateness(r *loadgen.Report) (float64, bool) {
	if r.Lateness == nil {
		return 0, false
	}
	return r.Lateness.P99, true
}

func deref(value *float64) (float64, bool) {
	if value == nil {
		return 0, false
	}
	return *value, true
}

// A spread is the median of a figure over the rounds, and its extremes.
type spread struct {
	Median, Min, Max float64
	// N is the number of rounds that have the figure; 0 means that there is none.
	N int
}

func spreadOf(values []float64) spread {
	if len(values) == 0 {
		return spread{}
	}
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	median := sorted[middle]
	if len(sorted)%2 == 0 {
		median = (sorted[middle-1] + sorted[middle]) / 2
	}
	return spread{Median: median, Min: sorted[0], Max: sorted[len(sorted)-1], N: len(sorted)}
}

// results answers questions about the runs of a comparison.
type results []run

// over returns a figure of one contestant in one scenario over all rounds.
func (rs results) over(scenario, contestant string, metric metric) spread {
	var values []float64
	for _, r := range rs {
		if r.Scenario == scenario && r.Contestant == contestant {
			if value, ok := metric(r.Report); ok {
				values = append(values, value)
			}
		}
	}
	return spreadOf(values)
}

// ratio returns a figure of one contestant divided by that of another in the same round, over all rounds. Dividing
// within the round, and only then taking the median, keeps the machine's drift from round to round out of it.
func (rs results) ratio(scenario, contestant, base string, metric metric) spread {
	var values []float64
	for _, r := range rs {
		if r.Scenario != scenario || r.Contestant != contestant {
			continue
		}
		other := find(rs, r.Round, scenario, base)
		if other == nil {
			continue
		}
		value, ok := metric(r.Report)
		baseValue, baseOK := metric(other)
		if ok && baseOK && baseValue > 0 {
			values = append(values, value/baseValue)
		}
	}
	return spreadOf(values)
}

// growth returns a figure of one contestant in one scenario divided by that in another of the same round.
func (rs results) growth(scenario, base, contestant string, metric metric) spread {
	var values []float64
	for _, r := range rs {
		if r.Scenario != scenario || r.Contestant != contestant {
			continue
		}
		other := find(rs, r.Round, base, contestant)
		if other == nil {
			continue
		}
		value, ok := metric(r.Report)
		baseValue, baseOK := metric(other)
		if ok && baseOK && baseValue > 0 {
			values = append(values, value/baseValue)
		}
	}
	return spreadOf(values)
}

// keptUp reports whether the contestant reached the rate of the open loop in every round.
func (rs results) keptUp(scenario, contestant string) bool {
	for _, r := range rs {
		if r.Scenario == scenario && r.Contestant == contestant && !r.Report.KeptUp() {
			return false
		}
	}
	return true
}
