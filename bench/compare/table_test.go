package main

import (
	"strings"
	"testing"
	"time"

	"github.com/rationhq/ration/bench/internal/loadgen"
)

func TestTablesHoldFiguresAndRatios(t *testing.T) {
	scenarios, err := chooseScenarios([]string{"closed-128x1", "open-half-own"}, false)
	if err != nil {
		t.Fatal(err)
	}
	open := func(offered, achieved, p99, cpu float64) *loadgen.Report {
		report := measured(achieved, p99, cpu)
		report.Mode, report.OfferedRate, report.Lateness = "open", offered, &loadgen.Percentiles{P99: 40}
		return report
	}
	redisCPU := 3.0
	mine := measured(20_000, 4000, 25)
	mine.RedisCPU, mine.Descriptors = &redisCPU, 2
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
		if got := count(number); got != want {
			t.Errorf("%v: got %s, want %s", number, got, want)
		}
	}
}

func TestScenariosAreChosenByName(t *testing.T) {
	tests := []struct {
		names []string
		quick bool
		want  string
	}{
		{nil, true, "closed-16x1 closed-128x1 closed-16x3 open-half-own"},
		{[]string{"hot-16x1", "closed-1x1"}, false, "closed-1x1 hot-16x1"},
		{[]string{"open-half-floor"}, false, "closed-128x1 open-half-floor"}, // whose rate comes from the other
	}
	for _, test := range tests {
		scenarios, err := chooseScenarios(test.names, test.quick)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, s := range scenarios {
			got = append(got, s.Name)
		}
		if strings.Join(got, " ") != test.want {
			t.Errorf("%v: got %v, want %s", test.names, got, test.want)
		}
	}
	if _, err := chooseScenarios([]string{"closed"}, false); err == nil || !strings.Contains(err.Error(), "there are closed-1x1,") {
		t.Errorf("a scenario that does not exist: got %v", err)
	}
	if all, err := chooseScenarios(nil, false); err != nil || len(all) != 9 {
		t.Errorf("want all 9 scenarios, got %d, %v", len(all), err)
	}
}
