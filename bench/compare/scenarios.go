package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/rationhq/ration/bench/internal/loadgen"
)

// A scenario is one way of asking that all contestants are measured with.
type scenario struct {
	Name  string `json:"name"`
	Title string `json:"title"`
	// Descriptors per request.
	Descriptors int `json:"descriptors"`
	// Callers of a closed loop; 0 is an open loop.
	Callers int `json:"callers,omitempty"`
	// Hot asks about a single key.
	Hot bool `json:"hot,omitempty"`
	// HalfOf says whose throughput in the saturation scenario of the same round is halved to get the rate of an open
	// loop: "own" or "floor".
	HalfOf string `json:"half_of,omitempty"`
	// Quick scenarios are part of the quick mode.
	Quick bool `json:"-"`
}

func (s scenario) open() bool { return s.Callers == 0 }

// The throughput in this scenario counts as saturation: see scenario.HalfOf.
const saturation = "closed-128x1"

func allScenarios() []scenario {
	return []scenario{
		{Name: "closed-1x1", Callers: 1, Descriptors: 1, Title: "Closed loop, 1 caller, 1 descriptor"},
		{Name: "closed-16x1", Callers: 16, Descriptors: 1, Quick: true, Title: "Closed loop, 16 callers, 1 descriptor"},
		{Name: saturation, Callers: 128, Descriptors: 1, Quick: true, Title: "Closed loop, 128 callers, 1 descriptor"},
		{Name: "closed-1x3", Callers: 1, Descriptors: 3, Title: "Closed loop, 1 caller, 3 descriptors"},
		{Name: "closed-16x3", Callers: 16, Descriptors: 3, Quick: true, Title: "Closed loop, 16 callers, 3 descriptors"},
		{Name: "closed-128x3", Callers: 128, Descriptors: 3, Title: "Closed loop, 128 callers, 3 descriptors"},
		{Name: "hot-16x1", Callers: 16, Descriptors: 1, Hot: true,
			Title: "Closed loop, 16 callers, 1 descriptor, all on one hot key"},
		{Name: "open-half-own", Descriptors: 1, HalfOf: "own", Quick: true,
			Title: "Open loop at half of the contestant's own saturation, 1 descriptor"},
		{Name: "open-half-floor", Descriptors: 1, HalfOf: "floor",
			Title: "Open loop at half of the floor's saturation, the same rate for all, 1 descriptor"},
	}
}

// chooseScenarios returns the scenarios with these names, or the quick ones, or all. An open loop brings along the
// scenario that its rate is taken from.
func chooseScenarios(names []string, quick bool) ([]scenario, error) {
	all := allScenarios()
	if len(names) == 0 {
		if quick {
			return slices.DeleteFunc(all, func(s scenario) bool { return !s.Quick }), nil
		}
		return all, nil
	}
	wanted := make(map[string]bool)
	for _, name := range names {
		i := slices.IndexFunc(all, func(s scenario) bool { return s.Name == name })
		if i < 0 {
			known := make([]string, len(all))
			for i, s := range all {
				known[i] = s.Name
			}
			return nil, fmt.Errorf("no scenario is named %q; there are %s", name, strings.Join(known, ", "))
		}
		wanted[name] = true
		wanted[saturation] = wanted[saturation] || all[i].open()
	}
	return slices.DeleteFunc(all, func(s scenario) bool { return !wanted[s.Name] }), nil
}

// mix returns what the scenario asks.
func (s scenario) mix(keys int) (loadgen.Mix, error) {
	descriptors, err := loadgen.DefaultDescriptors(s.Descriptors)
	mix := loadgen.Mix{Domain: policyDomain, Descriptors: descriptors, Keys: keys}
	if s.Hot {
		mix.HotKeys, mix.HotShare = 1, 1
	}
	return mix, err
}

// plan returns how the scenario is run; rate is for open loops.
func (s scenario) plan(pace pace, rate float64, seed uint64) (loadgen.Plan, error) {
	mix, err := s.mix(pace.Keys)
	plan := loadgen.Plan{Mix: mix, Warmup: pace.Warmup, Duration: pace.Duration, Seed: seed}
	if s.open() {
		plan.Rate, plan.MaxInFlight, plan.Tick = rate, 512, 250*time.Microsecond
	} else {
		plan.Callers = s.Callers
	}
	return plan, err
}

// A pace says how much is run of each scenario.
type pace struct {
	Rounds   int
	Warmup   time.Duration
	Duration time.Duration
	// Keys is how many different keys there are.
	Keys int
}

// estimate is about how long the whole comparison takes, starting and stopping aside.
func (p pace) estimate(scenarios, contestants int) time.Duration {
	return time.Duration(p.Rounds*scenarios*contestants) * (p.Warmup + p.Duration)
}
