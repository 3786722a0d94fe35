package main

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/rationhq/ration/bench/internal/loadgen"
)

// A suite is a set of scenarios that ask for the same kind of limits. Each contestant says which suites it can do.
type suite string

const (
	plain  suite = "plain"  // rules of envoyproxy/ratelimit, which every contestant knows
	limits suite = "limits" // `limits:` of ration's own language
	rules  suite = "rules"  // a policy of many rules, beside one of few
	memory suite = "memory" // what a million subjects take: no scenario, see footprint.go

	accounts suite = "accounts" // calls of models, reserved and settled with ration.v1
	lanes    suite = "lanes"    // the same, acquired in a lane, and what waiting takes: see turns.go
)

var allSuites = []suite{plain, limits, accounts, lanes, rules, memory}

// A scenario is one way of asking that contestants are measured with.
type scenario struct {
	Name  string `json:"name"`
	Title string `json:"title"`
	Suite suite  `json:"suite"`
	// Row and Column place the scenario in a table of many that differ in two ways; empty for one by itself.
	// Scenarios of one row stand together.
	Row    string `json:"row,omitempty"`
	Column string `json:"column,omitempty"`
	// Mix is what is asked.
	Mix loadgen.Mix `json:"mix"`
	// Limits is how many limits a decision consists of.
	Limits int `json:"limits"`
	// Callers of a closed loop; 0 is an open loop.
	Callers int `json:"callers,omitempty"`
	// Hot asks about a single key.
	Hot bool `json:"hot,omitempty"`
	// HalfOf says whose throughput in the saturation scenario of the same round is halved to get the rate of an open
	// loop: "own" or "floor".
	HalfOf string `json:"half_of,omitempty"`
	// Brief scenarios are run for half as long as others: there are many of them.
	Brief bool `json:"brief,omitempty"`
	// Quick scenarios are part of the quick mode.
	Quick bool `json:"-"`
}

func (s scenario) open() bool { return s.Callers == 0 }

// The throughput in this scenario counts as saturation: see scenario.HalfOf.
const saturation = "closed-128x1"

func allScenarios() []scenario {
	return slices.Concat(plainScenarios(), algorithmScenarios(), reservationScenarios(), accountScenarios(), laneScenarios(), rulesScenarios())
}

func plainScenarios() []scenario {
	all := []scenario{
		{Name: "closed-1x1", Callers: 1, Title: "Closed loop, 1 caller, 1 descriptor"},
		{Name: "closed-16x1", Callers: 16, Quick: true, Title: "Closed loop, 16 callers, 1 descriptor"},
		{Name: saturation, Callers: 128, Quick: true, Title: "Closed loop, 128 callers, 1 descriptor"},
		{Name: "closed-1x3", Callers: 1, Title: "Closed loop, 1 caller, 3 descriptors"},
		{Name: "closed-16x3", Callers: 16, Quick: true, Title: "Closed loop, 16 callers, 3 descriptors"},
		{Name: "closed-128x3", Callers: 128, Title: "Closed loop, 128 callers, 3 descriptors"},
		{Name: "hot-16x1", Callers: 16, Hot: true, Title: "Closed loop, 16 callers, 1 descriptor, all on one hot key"},
		{Name: "open-half-own", HalfOf: "own", Quick: true,
			Title: "Open loop at half of the contestant's own saturation, 1 descriptor"},
		{Name: "open-half-floor", HalfOf: "floor",
			Title: "Open loop at half of the floor's saturation, the same rate for all, 1 descriptor"},
	}
	for i := range all {
		all[i].Suite, all[i].Limits = plain, 1
		if strings.HasSuffix(all[i].Name, "x3") {
			all[i].Limits = 3
		}
		all[i].Mix = plainMix(all[i].Limits)
	}
	return all
}

// The algorithms, in the words of bench/policy/limits/policy.yaml.
var algorithms = []string{
	"token_bucket", "sliding_window", "sliding_log", "fixed_window", "first_use", "calendar", "concurrency",
}

// limitCounts are how many limits one descriptor has in that policy.
var limitCounts = []int{1, 3, 6}

// algorithmScenarios ask about one descriptor with several limits of one algorithm.
func algorithmScenarios() []scenario {
	var all []scenario
	for _, algorithm := range algorithms {
		for _, callers := range []int{16, 128} {
			for _, count := range limitCounts {
				all = append(all, scenario{
					Name:  fmt.Sprintf("%s-%dx%d", algorithm, callers, count),
					Title: "One descriptor with limits of the algorithm " + algorithm,
					Suite: limits, Row: algorithm, Column: fmt.Sprintf("%d callers, %s", callers, counted(count, "limit")),
					Mix: algorithmMix(algorithm, count), Limits: count, Callers: callers, Brief: true, Quick: callers == 128 && count == 3,
				})
			}
		}
	}
	return all
}

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// reservationScenarios reserve under 6 limits, and settle.
func reservationScenarios() []scenario {
	var all []scenario
	for _, callers := range []int{16, 128} {
		all = append(all, scenario{
			Name:  fmt.Sprintf("reserve-%dx6", callers),
			Title: "Reservations over 6 limits: a call that holds, and one that settles; each counts as a decision",
			Suite: limits, Row: "hold and settle", Column: fmt.Sprintf("%d callers, 6 limits", callers),
			Mix: reservationMix(), Limits: 6, Callers: callers, Brief: true, Quick: callers == 128,
		})
	}
	return all
}

// accountScenarios reserve and settle calls of models, with and without rows of usage.
func accountScenarios() []scenario {
	var all []scenario
	for _, kind := range []struct{ name, row, domain string }{
		{"account", "no rows of usage", accountsDomain}, {"account-rows", "rows of usage", rowsDomain},
	} {
		for _, callers := range []int{16, 128} {
			for _, count := range []int{1, 3} {
				all = append(all, scenario{
					Name:  fmt.Sprintf("%s-%dx%d", kind.name, callers, count),
					Title: "Calls of a model, each reserved and settled; both count as decisions",
					Suite: accounts, Row: kind.row, Column: fmt.Sprintf("%d callers, %s", callers, counted(count, "limit")),
					Mix: accountMix(kind.domain, count), Limits: count, Callers: callers, Brief: true, Quick: callers == 128,
				})
			}
		}
	}
	return all
}

// laneScenarios reserve and settle calls of models, and acquire and settle them in a lane in which nobody waits.
func laneScenarios() []scenario {
	var all []scenario
	for _, callers := range []int{1, 64} {
		for _, lane := range []string{"", idleLane} {
			all = append(all, scenario{
				Name:  laneName(lane, callers),
				Title: "Calls of a model, each reserved, or acquired in a lane that nobody waits in, and settled; both count as decisions",
				Suite: lanes, Row: "calls", Column: fmt.Sprintf("%s, %s", counted(callers, "caller"), verbOf(lane)),
				Mix: laneMix(lane), Limits: 1, Callers: callers, Brief: true, Quick: callers == 64,
			})
		}
	}
	return all
}

func laneName(lane string, callers int) string {
	return fmt.Sprintf("lane-%s-%d", verbOf(lane), callers)
}

// verbOf says how a call asks that waits in a lane, or in none.
func verbOf(lane string) string {
	if lane == "" {
		return "reserve"
	}
	return "acquire"
}

// rulesScenarios ask about one of few rules, and one of many.
func rulesScenarios() []scenario {
	var all []scenario
	for _, callers := range []int{16, 128} {
		for _, count := range []int{fewRules, manyRules} {
			all = append(all, scenario{
				Name: rulesName(callers, count), Title: "A policy with many rules on one level",
				Suite: rules, Row: "wildcards on one level", Column: fmt.Sprintf("%d callers, %s rules", callers, grouped(float64(count))),
				Mix: rulesMix(count), Limits: 1, Callers: callers, Brief: true,
			})
		}
	}
	return all
}

func rulesName(callers, count int) string { return fmt.Sprintf("rules-%dx%d", callers, count) }

// A choice says which scenarios to run.
type choice struct {
	// names are names or patterns as of path.Match; none are all.
	names []string
	// suites are what to choose from; none are all.
	suites []suite
	// quick chooses a subset, unless there are names.
	quick bool
}

func (c choice) includes(s suite) bool { return len(c.suites) == 0 || slices.Contains(c.suites, s) }

// memory reports whether the memory of many subjects is to be measured too.
func (c choice) memory() bool { return len(c.names) == 0 && c.includes(memory) }

// lanes reports whether it is to be measured too what waiting in lanes takes.
func (c choice) lanes() bool { return len(c.names) == 0 && c.includes(lanes) }

// scenarios returns the chosen ones. An open loop brings along the scenario that its rate is taken from.
func (c choice) scenarios() ([]scenario, error) {
	for _, s := range c.suites {
		if !slices.Contains(allSuites, s) {
			return nil, fmt.Errorf("no suite is named %q; there are %v", s, allSuites)
		}
	}
	all := slices.DeleteFunc(allScenarios(), func(s scenario) bool { return !c.includes(s.Suite) })
	if len(c.names) == 0 {
		return slices.DeleteFunc(all, func(s scenario) bool { return c.quick && !s.Quick }), nil
	}
	wanted := make(map[string]bool)
	for _, pattern := range c.names {
		found := false
		for _, s := range all {
			matches, err := path.Match(pattern, s.Name)
			if err != nil {
				return nil, fmt.Errorf("scenario %q: %w", pattern, err)
			}
			if matches {
				found, wanted[s.Name] = true, true
				wanted[saturation] = wanted[saturation] || s.open()
			}
		}
		if !found {
			known := make([]string, len(all))
			for i, s := range all {
				known[i] = s.Name
			}
			return nil, fmt.Errorf("no scenario is named %q; there are %s", pattern, strings.Join(known, ", "))
		}
	}
	return slices.DeleteFunc(all, func(s scenario) bool { return !wanted[s.Name] }), nil
}

// mix returns what the scenario asks, about so many keys.
func (s scenario) mix(keys int) loadgen.Mix {
	mix := s.Mix
	mix.Keys = keys
	if s.Hot {
		mix.HotKeys, mix.HotShare = 1, 1
	}
	return mix
}

// plan returns how the scenario is run; rate is for open loops.
func (s scenario) plan(pace pace, rate float64, seed uint64) loadgen.Plan {
	plan := loadgen.Plan{Mix: s.mix(pace.Keys), Warmup: pace.Warmup, Duration: pace.Duration, Seed: seed}
	if s.Brief {
		plan.Warmup, plan.Duration = plan.Warmup/2, plan.Duration/2
	}
	if s.open() {
		plan.Rate, plan.MaxInFlight, plan.Tick = rate, 512, 250*time.Microsecond
	} else {
		plan.Callers = s.Callers
	}
	return plan
}

// A pace says how much is run of each scenario.
type pace struct {
	Rounds   int
	Warmup   time.Duration
	Duration time.Duration
	// Keys is how many different keys there are.
	Keys int
	// Subjects is how many subjects the memory is measured with.
	Subjects int
	// Waiters is how many wait in a lane at the same time, when that is measured.
	Waiters int
}

// estimate is about how long the whole comparison takes, starting and stopping aside.
func (p pace) estimate(scenarios []scenario, contestants []contestant) time.Duration {
	var once time.Duration
	for _, s := range scenarios {
		for _, c := range contestants {
			if c.plays(s.Suite) {
				plan := s.plan(p, 1, 0)
				once += plan.Warmup + plan.Duration
			}
		}
	}
	return time.Duration(p.Rounds) * once
}
