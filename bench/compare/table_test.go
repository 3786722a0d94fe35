package main

import (
	"strings"
	"testing"
	"time"

	"github.com/rationhq/ration/bench/internal/loadgen"
)

func TestTablesHoldFiguresAndRatios(t *testing.T) {
	scenarios, err := choice{names: []string{"closed-128x1", "open-half-own"}}.scenarios()
	if err != nil {
		t.Fatal(err)
	}
	scenarios[0].Limits = 2
	open := func(offered, achieved, p99, cpu float64) *loadgen.Report {
		report := measured(achieved, p99, cpu)
		report.Mode, report.OfferedRate, report.Lateness = "open", offered, &loadgen.Percentiles{P99: 40}
		return report
	}
	redisCPU := 3.0
	mine := measured(20_000, 4000, 25)
	mine.RedisCPU = &redisCPU
	document := document{
		machine:     machine{Time: time.Date(2026, 11, 21, 23, 0, 0, 0, time.UTC), CPU: "abacus", Cores: 2},
		contestants: []contestant{{Name: "floor", About: "nothing"}, {Name: "mine", About: "something"}},
		scenarios:   scenarios,
		pace:        pace{Rounds: 1, Warmup: time.Second, Duration: 3 * time.Second, Keys: 10_000},
		starts:      []start{{1, "floor", 12 * time.Millisecond}, {1, "mine", 345 * time.Millisecond}},
		results: results{
			{1, "closed-128x1", "floor", measured(1_234_567, 1000, 10)},
			{1, "closed-128x1", "mine", mine},
			{1, "open-half-own", "floor", open(20_000, 20_000, 200, 20)},
			{1, "open-half-own", "mine", open(10_000, 6000, 500_000, 50)},
		},
		against: []string{"floor", "mine"},
	}
	var out strings.Builder
	if err := document.write(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"Measured 2026-11-21 23:00 UTC on 2 cores (abacus)",
		"| mine | something | 345 |",
		// against the floor, and against mine
		"### Server CPU per decision, × floor\n\n| scenario | mine |\n| --- | ---: |\n| closed-128x1 | 2.50 |\n| open-half-own | 2.50 |",
		"### Server CPU per decision, × mine\n\n| scenario | floor |\n| --- | ---: |\n| closed-128x1 | 0.40 |",
		"### p99, × floor\n\n| scenario | mine |\n| --- | ---: |\n| open-half-own | 2500.00 |",
		// the details: decisions/s, p50, p99, p99.9, CPU of server, Redis, Redis per limit, generator, ratios
		"| floor | 1,234,567 | 100 | 1,000 | 2,000 | 10.0 | – | – | 4.2 | 1.00 | 1.00 | 1.00 |",
		"| mine | 20,000 | 400 | 4,000 | 8,000 | 25.0 | 3.00 | 1.50 | 4.2 | 0.02 | 4.00 | 2.50 |",
		// an open loop whose rate was not reached says so
		"| mine † | 6,000 |", "| 10,000 | 40 |", "† did not keep up",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no\n%s\nin\n%s", want, &out)
		}
	}
	if strings.Contains(out.String(), "floor †") || strings.Contains(out.String(), "not quiet") {
		t.Errorf("a reproach without a reason in\n%s", &out)
	}
	if strings.Contains(out.String(), "Redis CPU per decision, ×") {
		t.Errorf("a ratio to a contestant without a Redis in\n%s", &out)
	}
}

func TestReaderIsWarnedOfABusyMachine(t *testing.T) {
	quiet, busy := measured(1, 1, 1), measured(1, 1, 1)
	cores := 0.3
	busy.OthersCores = &cores
	document := document{
		machine: machine{Cores: 2},
		results: results{{1, "a", "floor", quiet}, {1, "a", "mine", busy}, {2, "a", "floor", quiet}},
	}
	var out strings.Builder
	if err := document.write(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"0.05 cores were busy during a run (median; largest: 0.30)", "not quiet: in 1 of 3 runs"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, &out)
		}
	}
}

func TestRatiosOfSeveralRoundsShowTheirSpread(t *testing.T) {
	if got, want := times(spread{Median: 1.234, Min: 0.9, Max: 2, N: 3}), "1.23 (0.90–2.00)"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got := times(spread{}); got != "–" {
		t.Errorf("nothing measured: got %s", got)
	}
}

func TestNumbersAreGrouped(t *testing.T) {
	for number, want := range map[float64]string{0: "0", 999.4: "999", 1000: "1,000", 1234567: "1,234,567"} {
		if got := grouped(number); got != want {
			t.Errorf("%v: got %s, want %s", number, got, want)
		}
	}
}

// grid is a comparison in scenarios that differ in two ways.
func grid(t *testing.T) document {
	t.Helper()
	scenarios, err := choice{names: []string{"token_bucket-16x[13]", "reserve-16x6", "rules-16x*"}}.scenarios()
	if err != nil {
		t.Fatal(err)
	}
	document := document{
		contestants: []contestant{{Name: "floor"}, {Name: "mine"}, {Name: "many"}, {Name: "absent"}},
		scenarios:   scenarios, against: []string{"floor"},
	}
	for scenario, cpu := range map[string][2]float64{
		"token_bucket-16x1": {10, 11}, "token_bucket-16x3": {10, 12}, "reserve-16x6": {10, 15},
	} {
		document.results = append(document.results,
			run{1, scenario, "floor", measured(1000, 10, cpu[0])}, run{1, scenario, "mine", measured(1000, 10, cpu[1])})
	}
	for scenario, cpu := range map[string][2]float64{"rules-16x10": {10, 20}, "rules-16x10000": {10, 23}} {
		document.results = append(document.results,
			run{1, scenario, "floor", measured(1000, 10, cpu[0])}, run{1, scenario, "many", measured(1000, 10, cpu[1])})
	}
	return document
}

func TestScenariosOfOneKindShareATable(t *testing.T) {
	var out strings.Builder
	if err := grid(t).write(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"### Server CPU per decision, mine × floor\n\n| algorithm | 16 callers, 1 limit | 16 callers, 3 limits | 16 callers, 6 limits |\n" +
			"| --- | ---: | ---: | ---: |\n| token_bucket | 1.10 | 1.20 | – |\n| hold and settle | – | – | 1.50 |\n",
		"### Server CPU per decision, many × floor\n\n| rules | 16 callers, 10 rules | 16 callers, 10,000 rules |\n" +
			"| --- | ---: | ---: |\n| wildcards on one level | 2.00 | 2.30 |\n",
		"### Server CPU per decision with 10,000 rules, × with 10\n\n| contestant | 16 callers |\n| --- | ---: |\n" +
			"| floor | 1.00 |\n| many | 1.15 |\n",
		"(`token_bucket-16x1`…)\n\n| load | contestant | decisions/s |",
		"| 16 callers, 1 limit | mine | 1,000 | 1 | 10 | 20 | 11.0 | 4.2 | 1.00 | 1.00 | 1.10 |\n| 16 callers, 3 limits | floor |",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no\n%s\nin\n%s", want, &out)
		}
	}
	for _, unwanted := range []string{"absent", "Redis CPU", "### Server CPU per decision, × floor"} {
		if strings.Contains(out.String(), unwanted) {
			t.Errorf("%q, of which nothing was measured, in\n%s", unwanted, &out)
		}
	}
}

func TestMemoryIsShownPerSubject(t *testing.T) {
	document := document{footprints: []footprint{
		{
			Contestant: "mine", Subjects: 2_000_000, Took: 40 * time.Second,
			Before: usage{Resident: 20e6, Peak: 20e6, LiveHeap: 3e6}, After: usage{Resident: 900e6, Peak: 1000e6, LiveHeap: 603e6},
		},
		{Contestant: "other", Subjects: 1000, Took: time.Second, After: usage{Resident: 5e6, Peak: 6e6}},
	}}
	var out strings.Builder
	if err := document.write(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| mine | 2,000,000 | 900 | 1,000 | 603 | 300 | 20 | 50,000 |", "| other | 1,000 | 5 | 6 | – | – | 0 | 1,000 |",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no\n%s\nin\n%s", want, &out)
		}
	}
	if strings.Contains(out.String(), "Rounds") {
		t.Errorf("rounds without any run in\n%s", &out)
	}
}
