package main

import (
	"strings"
	"testing"
	"time"
)

func TestCommandsOfRedis(t *testing.T) {
	scripts, commands, err := parseCommands("# Commandstats\r\n" +
		"cmdstat_info:calls=7,usec=70,usec_per_call=10.00,rejected_calls=0,failed_calls=0\r\n" +
		"cmdstat_evalsha:calls=30,usec=300,usec_per_call=10.00,rejected_calls=0,failed_calls=0\r\n" +
		"cmdstat_eval:calls=2,usec=300,usec_per_call=150.00,rejected_calls=0,failed_calls=0\r\n" +
		"cmdstat_client|setinfo:calls=4,usec=3,usec_per_call=0.75,rejected_calls=0,failed_calls=0\r\n" +
		"cmdstat_zadd:calls=100,usec=100,usec_per_call=1.00,rejected_calls=0,failed_calls=0\r\n")
	if scripts != 32 || commands != 136 || err != nil {
		t.Errorf("%d scripts and %d commands (%v), want 32 and 136", scripts, commands, err)
	}
	if _, _, err := parseCommands("cmdstat_zadd:calls=many,usec=1"); err == nil {
		t.Error("a figure that is none is no error")
	}
}

func TestPercentiles(t *testing.T) {
	var times []time.Duration
	for i := 100; i > 0; i-- {
		times = append(times, time.Duration(i)*time.Millisecond)
	}
	if got, want := percentilesOf(times), (percentiles{P50: 51_000, P99: 100_000}); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
	if got, want := percentilesOf(times[:1]), (percentiles{P50: 100_000, P99: 100_000}); got != want {
		t.Errorf("of one: got %v, want %v", got, want)
	}
}

// What is told of lanes: columns of what has no Redis are empty.
func TestTablesOfLanes(t *testing.T) {
	d := document{
		wakings: []waking{{"mine", 2, 500, percentiles{1200, 2500}, percentiles{800, 1900}}},
		crowds: []crowd{
			{Contestant: "mine", Lane: singleLane, Waiters: 1000, ServerCores: 0.015},
			{Contestant: "other", Lane: drainedLane, Waiters: 1000, Turns: 99.5, Scripts: 900, Commands: 9000, ServerCores: 0.3, RedisCores: 0.2},
		},
	}
	var out strings.Builder
	d.lanes(&out)
	for _, want := range []string{
		"| mine | 2 | 500 | 800 | 1,900 | 1,200 | 2,500 |",
		"| mine | single | 1,000 | 0.0 | – | – | – | 1.5 | – |",
		"| other | drained | 1,000 | 99.5 | 900 | 9,000 | 9.000 | 30.0 | 20.0 |",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}
