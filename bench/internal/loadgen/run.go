package loadgen

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/rationhq/ration/bench/internal/cputime"
)

// A Plan says how a service is asked. Either Callers (closed loop) or Rate (open loop) is set.
type Plan struct {
	Mix
	// Callers of the closed loop.
	Callers int
	// Rate of the open loop in requests per second.
	Rate float64
	// MaxInFlight bounds the callers of the open loop.
	MaxInFlight int
	// Tick is the grid of the open loop's due times; 0 gives each request an instant of its own.
	Tick time.Duration
	// Warmup is how long the same load runs before the measurement.
	Warmup time.Duration
	// Duration of the measurement.
	Duration time.Duration
	// MaxRequests bounds the number of requests of the measurement; 0 is no bound. Calls that follow are not counted.
	MaxRequests uint64
	// Seed of the choice of keys.
	Seed uint64
}

func (p Plan) validate() error {
	switch {
	case (p.Callers > 0) == (p.Rate > 0):
		return errors.New("either a number of callers (closed loop) or a rate (open loop) is needed, and both must be positive")
	case p.Rate > 0 && (math.IsInf(p.Rate, 0) || p.MaxInFlight < 1):
		return fmt.Errorf("open loop: rate %v with %d requests in flight at most", p.Rate, p.MaxInFlight)
	case p.Rate > 0 && p.follows():
		return errors.New("open loop: a second call can follow the first in a closed loop only")
	case p.Tick < 0 || p.Warmup < 0 || p.Duration <= 0:
		return fmt.Errorf("tick %v, warm-up %v, duration %v: must not be negative, and the duration not zero",
			p.Tick, p.Warmup, p.Duration)
	}
	return nil
}

// Meters name what to meter besides the generator and the machine; a nil one is not measured.
type Meters struct {
	Server, Redis cputime.Meter
}

// Run warms up, then measures. Between the two everything is answered, and so it is at the end: the CPU time read at
// these two quiet instants belongs to the measured requests, all of them and no others.
//
// When ctx ends early, Run reports what it has measured by then, with Interrupted set.
func (c *Client) Run(ctx context.Context, plan Plan, meters Meters) (*Report, error) {
	if err := plan.validate(); err != nil {
		return nil, err
	}
	all, err := plan.encode()
	if err != nil {
		return nil, err
	}
	for i, connection := range c.connections {
		if callers, most := c.share(plan.Callers, i), connection.maxStreams(); uint64(callers) > uint64(most) {
			return nil, fmt.Errorf("%d callers on %d connections: the server allows %d calls at a time on each; use more connections",
				plan.Callers, len(c.connections), most)
		}
	}

	warmup := c.load(ctx, all, plan, bounds{duration: plan.Warmup})
	before, err := meters.read(ctx)
	if err != nil {
		return nil, err
	}
	total := c.load(ctx, all, plan, bounds{duration: plan.Duration, requests: plan.MaxRequests})
	after, err := meters.read(ctx)
	if err != nil {
		return nil, err
	}

	report := newReport(c, plan, total, total.lastAnswer.Sub(before.at))
	report.addWarmup(warmup)
	report.addCPU(before, after)
	report.Interrupted = ctx.Err() != nil
	return report, nil
}

func (c *Client) load(ctx context.Context, all *requests, plan Plan, within bounds) *tally {
	if within.duration == 0 {
		return newTally()
	}
	if plan.Callers > 0 {
		return c.closed(ctx, all, plan.Seed, plan.Callers, within)
	}
	schedule := schedule{perSecond: plan.Rate, tick: plan.Tick}
	return c.open(ctx, all, plan.Seed, plan.MaxInFlight, schedule, within)
}
