package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"time"

	"github.com/rationhq/ration/bench/internal/loadgen"
)

// A run is one scenario against one contestant in one round.
type run struct {
	Round      int             `json:"round"`
	Scenario   string          `json:"scenario"`
	Contestant string          `json:"contestant"`
	Report     *loadgen.Report `json:"report"`
}

// A start is one start of a contestant.
type start struct {
	Round       int           `json:"round"` // 0 for the measurement of memory
	Contestant  string        `json:"contestant"`
	FirstAnswer time.Duration `json:"first_answer_ns"`
}

// A comparison runs every scenario against every contestant, round by round.
type comparison struct {
	launcher    launcher
	contestants []contestant
	scenarios   []scenario
	pace        pace
	// progress gets a line per run.
	progress io.Writer

	runs       []run
	starts     []start
	footprints []footprint
	wakings    []waking
	crowds     []crowd
}

// play plays all rounds. The first thing that goes wrong ends it: a table with a contestant missing, or measured
// while it answered wrongly, would be worse than none.
func (c *comparison) play(ctx context.Context) error {
	for round := 1; round <= c.pace.Rounds; round++ {
		for _, group := range sittings(c.scenarios) {
			if err := c.playSitting(ctx, round, group); err != nil {
				return fmt.Errorf("round %d: %w", round, err)
			}
		}
	}
	if err := c.measureTurns(ctx); err != nil {
		return err
	}
	return c.measureFootprints(ctx)
}

// sittings divides the scenarios into those that are asked of the same servers: the rows of a table
// have servers of their own, since the counters of one algorithm would cost the next one memory.
func sittings(scenarios []scenario) [][]scenario {
	var all [][]scenario
	for _, s := range scenarios {
		last := len(all) - 1
		if last < 0 || all[last][0].Suite != s.Suite || all[last][0].Row != s.Row {
			all = append(all, nil)
			last++
		}
		all[last] = append(all[last], s)
	}
	return all
}

// playSitting starts all contestants, and goes through the scenarios. Within a scenario the contestants take turns, so
// that what is compared lies seconds apart. The others are idle meanwhile. Every second round goes through the
// contestants backwards, lest one always profits from its place.
func (c *comparison) playSitting(ctx context.Context, round int, scenarios []scenario) error {
	var instances []*instance
	defer func() {
		for _, instance := range instances {
			instance.stop()
		}
	}()
	for _, contestant := range c.contestants {
		asked := c.playedBy(contestant, scenarios)
		if len(asked) == 0 {
			continue
		}
		started, err := c.launcher.start(ctx, contestant, asked)
		if err != nil {
			return err
		}
		instances = append(instances, started)
		c.starts = append(c.starts, start{round, contestant.Name, started.firstAnswer})
	}
	for _, instance := range instances {
		if err := c.prime(ctx, instance, scenarios); err != nil {
			return fmt.Errorf("contestant %s: %w", instance.Name, err)
		}
	}
	if round%2 == 0 {
		slices.Reverse(instances)
	}
	for _, scenario := range scenarios {
		for _, instance := range instances {
			if !c.plays(instance.contestant, scenario) {
				continue
			}
			report, err := c.measure(ctx, round, scenario, instance)
			if err != nil {
				return fmt.Errorf("scenario %s, contestant %s: %w", scenario.Name, instance.Name, err)
			}
			c.runs = append(c.runs, run{round, scenario.Name, instance.Name, report})
			fmt.Fprintf(c.progress, "round %d/%d  %-20s  %-16s  %6.0f/s  p99 %6.0f µs  server CPU %5.1f µs  others %.2f cores\n",
				round, c.pace.Rounds, scenario.Name, instance.Name,
				report.DecisionsPerSecond, report.Latency.P99, *report.ServerCPU, *report.OthersCores)
		}
	}
	return nil
}

// plays reports whether the contestant takes part in the scenario. The floor does so wherever anybody else does.
func (c *comparison) plays(who contestant, in scenario) bool {
	return who.plays(in.Suite) && slices.ContainsFunc(c.contestants, func(other contestant) bool {
		return other.plays(in.Suite) && (other.Name != floorName || len(c.contestants) == 1)
	})
}

func (c *comparison) playedBy(who contestant, scenarios []scenario) []scenario {
	return slices.DeleteFunc(slices.Clone(scenarios), func(s scenario) bool { return !c.plays(who, s) })
}

// prime has every counter of the scenarios created before anything is measured.
func (c *comparison) prime(ctx context.Context, instance *instance, scenarios []scenario) error {
	if !instance.counts() {
		return nil
	}
	for _, mix := range mixes(c.playedBy(instance.contestant, scenarios)) {
		mix.Keys = c.pace.Keys
		if err := instance.client.Prime(ctx, mix); err != nil {
			return err
		}
	}
	return nil
}

// mixes returns what the scenarios ask, each once.
func mixes(scenarios []scenario) []loadgen.Mix {
	var all []loadgen.Mix
	for _, s := range scenarios {
		if !slices.ContainsFunc(all, func(m loadgen.Mix) bool { return reflect.DeepEqual(m, s.Mix) }) {
			all = append(all, s.Mix)
		}
	}
	return all
}

func (c *comparison) measure(
	ctx context.Context, round int, scenario scenario, instance *instance,
) (*loadgen.Report, error) {
	var rate float64
	if scenario.open() {
		of := instance.Name
		if scenario.HalfOf == "floor" {
			of = floorName
		}
		saturated := find(c.runs, round, saturation, of)
		if saturated == nil {
			return nil, fmt.Errorf("the saturation of %s is not known", of)
		}
		rate = saturated.DecisionsPerSecond / 2
	}
	plan := scenario.plan(c.pace, rate, uint64(round))
	report, err := instance.client.Run(ctx, plan, instance.meters())
	switch {
	case instance.server.alive() != nil:
		return nil, fmt.Errorf("%w\n%s", instance.server.alive(), instance.server.lastWords())
	case err != nil:
		return nil, err
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	}
	return report, checkReport(report)
}

// checkReport makes sure that only right answers have been measured: the policy's limits cannot be reached, so every
// call must have been answered with OK.
func checkReport(report *loadgen.Report) error {
	switch {
	case report.Errors+report.WarmupErrors > 0:
		return fmt.Errorf("%d calls failed, and %d during warm-up; first error: %s",
			report.Errors, report.WarmupErrors, report.FirstError)
	case report.OverLimit > 0:
		return fmt.Errorf("%d of %d answers were OVER_LIMIT where only OK is right", report.OverLimit, report.Decisions)
	case report.Decisions == 0:
		return errors.New("nothing was answered")
	case report.ServerCPU == nil || report.OthersCores == nil:
		return errors.New("its CPU time was not metered")
	}
	return nil
}

// find returns the report of one run, or nil.
func find(runs []run, round int, scenario, contestant string) *loadgen.Report {
	for _, r := range runs {
		if r.Round == round && r.Scenario == scenario && r.Contestant == contestant {
			return r.Report
		}
	}
	return nil
}
