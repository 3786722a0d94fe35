package loadgen

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/rationhq/ration/bench/internal/cputime"
)

// A Report is the outcome of one run. Its JSON is the machine-readable output of the load command.
type Report struct {
	Target      string  `json:"target"`
	Mode        string  `json:"mode"` // "closed" or "open"
	Callers     int     `json:"callers,omitempty"`
	OfferedRate float64 `json:"offered_per_second,omitempty"`
	Connections int     `json:"connections"`
	Descriptors int     `json:"descriptors"`
	Keys        int     `json:"keys"`
	HotKeys     int     `json:"hot_keys,omitempty"`
	HotShare    float64 `json:"hot_share,omitempty"`

	WarmupSeconds   float64 `json:"warmup_seconds"`
	MeasuredSeconds float64 `json:"measured_seconds"`
	Interrupted     bool    `json:"interrupted,omitempty"`

	// Decisions are the answers with OK or OVER_LIMIT.
	Decisions          uint64  `json:"decisions"`
	DecisionsPerSecond float64 `json:"decisions_per_second"`
	OK                 uint64  `json:"ok"`
	OverLimit          uint64  `json:"over_limit"`
	Errors             uint64  `json:"errors"`
	WarmupErrors       uint64  `json:"warmup_errors"`
	// Unsent requests were due in an open loop and never sent, since as many as permitted were in flight.
	Unsent     uint64 `json:"unsent"`
	FirstError string `json:"first_error,omitempty"`

	// Latency of answers, timed-out calls and unsent requests. In an open loop it counts from the due time.
	Latency Percentiles `json:"latency_us"`
	// Lateness is how long after its due time the generator sent a request: the part of the open loop's latency
	// that the server may not be to blame for.
	Lateness *Percentiles `json:"send_lateness_us,omitempty"`

	// CPU microseconds per decision; nil where it was not metered.
	ServerCPU    *float64 `json:"server_cpu_us_per_decision,omitempty"`
	RedisCPU     *float64 `json:"redis_cpu_us_per_decision,omitempty"`
	GeneratorCPU *float64 `json:"generator_cpu_us_per_decision,omitempty"`
	// OthersCores is how many cores were busy with anything but server, Redis and generator: the disturbance.
	// nil unless the server was metered, on this machine.
	OthersCores *float64 `json:"others_cores,omitempty"`
}

// Percentiles of a latency, in microseconds.
type Percentiles struct {
	Mean float64 `json:"mean"`
	P50  float64 `json:"p50"`
	P90  float64 `json:"p90"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p99_9"`
	Max  float64 `json:"max"`
}

func percentiles(h *hdrhistogram.Histogram) Percentiles {
	const microsecond = 1e3
	at := func(percentile float64) float64 { return float64(h.ValueAtPercentile(percentile)) / microsecond }
	return Percentiles{
		Mean: h.Mean() / microsecond, Max: float64(h.Max()) / microsecond,
		P50: at(50), P90: at(90), P99: at(99), P999: at(99.9),
	}
}

// KeptUp reports whether an open loop's rate was reached: every request was sent, and the answers took no more than a
// twentieth longer than the schedule.
func (r *Report) KeptUp() bool {
	return r.Unsent == 0 && r.DecisionsPerSecond >= 0.95*r.OfferedRate
}

func newReport(client *Client, plan Plan, total *tally, elapsed time.Duration) *Report {
	report := &Report{
		Target: client.address, Connections: len(client.connections), Mode: "closed", Callers: plan.Callers,
		Descriptors: len(plan.Descriptors), Keys: plan.Keys, HotKeys: plan.HotKeys, HotShare: plan.HotShare,
		WarmupSeconds: plan.Warmup.Seconds(),
		Decisions:     total.decisions(), OK: total.ok, OverLimit: total.overLimit,
		Errors: total.errors, Unsent: total.unsent, Latency: percentiles(total.latency),
	}
	if plan.Rate > 0 {
		report.Mode, report.OfferedRate = "open", plan.Rate
		lateness := percentiles(total.lateness)
		report.Lateness = &lateness
		// The last request is answered a little before the time that the schedule stands for has passed.
		scheduled := plan.Duration
		if plan.MaxRequests > 0 {
			scheduled = min(scheduled, schedule{perSecond: plan.Rate}.due(plan.MaxRequests))
		}
		elapsed = max(elapsed, scheduled)
	}
	if elapsed > 0 {
		report.MeasuredSeconds = elapsed.Seconds()
		report.DecisionsPerSecond = float64(report.Decisions) / elapsed.Seconds()
	}
	if total.firstError != nil {
		report.FirstError = total.firstError.Error()
	}
	return report
}

// addWarmup notes the errors of the warm-up; its answers count for nothing.
func (r *Report) addWarmup(warmup *tally) {
	r.WarmupErrors = warmup.errors
	if warmup.firstError != nil {
		r.FirstError = "during warm-up: " + warmup.firstError.Error()
	}
}

// reading is the CPU time used by everything metered up to one instant.
type reading struct {
	at                                time.Time
	server, redis, generator, machine *time.Duration
}

func (m Meters) read(ctx context.Context) (reading, error) {
	now := reading{at: time.Now()}
	meters := []struct {
		meter cputime.Meter
		into  **time.Duration
	}{
		{m.Server, &now.server}, {m.Redis, &now.redis}, {cputime.Self(), &now.generator},
	}
	if m.Server != nil { // elsewhere than on Linux and for distant servers the machine says nothing
		meters = append(meters, struct {
			meter cputime.Meter
			into  **time.Duration
		}{cputime.Machine(), &now.machine})
	}
	for _, each := range meters {
		if each.meter == nil {
			continue
		}
		// An interrupted run still wants its figures.
		used, err := each.meter(context.WithoutCancel(ctx))
		if err != nil {
			return reading{}, err
		}
		*each.into = &used
	}
	return now, nil
}

func (r *Report) addCPU(before, after reading) {
	perDecision := func(from, to *time.Duration) *float64 {
		if from == nil || to == nil || r.Decisions == 0 {
			return nil
		}
		microseconds := float64((*to - *from).Nanoseconds()) / 1e3 / float64(r.Decisions)
		return &microseconds
	}
	r.ServerCPU = perDecision(before.server, after.server)
	r.RedisCPU = perDecision(before.redis, after.redis)
	r.GeneratorCPU = perDecision(before.generator, after.generator)

	if before.machine == nil || after.machine == nil {
		return
	}
	others := *after.machine - *before.machine
	for _, ours := range [][2]*time.Duration{
		{before.server, after.server}, {before.redis, after.redis}, {before.generator, after.generator},
	} {
		if ours[0] != nil && ours[1] != nil {
			others -= *ours[1] - *ours[0]
		}
	}
	cores := max(0, others.Seconds()/after.at.Sub(before.at).Seconds())
	r.OthersCores = &cores
}

// WriteText writes the report for people.
func (r *Report) WriteText(w io.Writer) error {
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(name, format string, values ...any) {
		fmt.Fprintf(out, "%s\t%s\n", name, fmt.Sprintf(format, values...))
	}
	line("target", "%s, connections: %d", r.Target, r.Connections)
	if r.Mode == "open" {
		line("load", "open loop, %.0f requests/s on a fixed schedule", r.OfferedRate)
	} else {
		line("load", "closed loop, callers: %d", r.Callers)
	}
	spread := "evenly"
	if r.HotKeys > 0 {
		spread = fmt.Sprintf("unevenly: %.4g %% of the requests for %d of them", r.HotShare*100, r.HotKeys)
	}
	line("requests", "descriptors: %d each; keys: %d, asked for %s", r.Descriptors, r.Keys, spread)
	line("measured", "%.2f s after %.2f s of warm-up%s", r.MeasuredSeconds, r.WarmupSeconds,
		map[bool]string{true: "; INTERRUPTED"}[r.Interrupted])
	line("decisions", "%d: %d OK, %d OVER_LIMIT", r.Decisions, r.OK, r.OverLimit)
	line("throughput", "%.0f decisions/s", r.DecisionsPerSecond)
	line("latency", "%v", r.Latency)
	if r.Mode == "open" {
		line("sent late by", "%v", *r.Lateness)
		line("unsent", "%d", r.Unsent)
	}
	line("CPU per decision", "server %s, Redis %s, generator %s",
		microseconds(r.ServerCPU), microseconds(r.RedisCPU), microseconds(r.GeneratorCPU))
	if r.OthersCores != nil {
		line("disturbance", "%.2f cores busy with something else", *r.OthersCores)
	}
	line("errors", "%d (and %d during warm-up)", r.Errors, r.WarmupErrors)
	if r.FirstError != "" {
		line("first error", "%s", r.FirstError)
	}
	return out.Flush()
}

func (p Percentiles) String() string {
	return fmt.Sprintf("p50 %.0f µs, p90 %.0f µs, p99 %.0f µs, p99.9 %.0f µs, max %.0f µs", p.P50, p.P90, p.P99, p.P999, p.Max)
}

func microseconds(value *float64) string {
	if value == nil {
		return "not metered"
	}
	return fmt.Sprintf("%.2f µs", *value)
}
