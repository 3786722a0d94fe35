// Package cputime reads how much CPU time a process has used so far: a local one from /proc, a Redis from its INFO.
// Two readings around a run, divided by the decisions made in between, are the benchmark's "CPU per decision".
//
// It knows nothing of load or of rate limits. Only Linux has /proc; elsewhere the readings fail with an error that
// names the file.
package cputime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A Meter returns the CPU time, user and system together, that something has used since it started.
type Meter func(ctx context.Context) (time.Duration, error)

// Process meters the process with this id over all its threads, those that have ended included. Waited-for children
// are not part of it. The kernel reports in ticks of 10 ms.
func Process(pid int) Meter {
	path := fmt.Sprintf("/proc/%d/stat", pid)
	return func(context.Context) (time.Duration, error) {
		stat, err := os.ReadFile(path)
		if err != nil {
			return 0, fmt.Errorf("CPU time of process %d: %w", pid, err)
		}
		used, err := parseStat(string(stat))
		if err != nil {
			return 0, fmt.Errorf("CPU time of process %d: %s: %w", pid, path, err)
		}
		return used, nil
	}
}

// Self meters the calling process, to the microsecond.
func Self() Meter {
	return func(context.Context) (time.Duration, error) {
		var usage syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
			return 0, fmt.Errorf("own CPU time: %w", err)
		}
		return time.Duration(usage.Utime.Nano() + usage.Stime.Nano()), nil
	}
}

// Machine meters everything that runs on this machine, interrupts included, idle time and time stolen by a
// hypervisor excluded.
func Machine() Meter {
	return func(context.Context) (time.Duration, error) {
		stat, err := os.ReadFile("/proc/stat")
		if err != nil {
			return 0, fmt.Errorf("CPU time of the machine: %w", err)
		}
		used, err := parseMachineStat(string(stat))
		if err != nil {
			return 0, fmt.Errorf("CPU time of the machine: /proc/stat: %w", err)
		}
		return used, nil
	}
}

// tick is the unit of /proc: USER_HZ, which Linux fixes at 100 per second in its interface to programs on every
// architecture that Go supports, whatever the kernel's own timer does (man 5 proc, man 7 time).
const tick = 10 * time.Millisecond

// parseStat reads utime and stime, fields 14 and 15 of /proc/PID/stat. The second field is the program's name in
// parentheses and may itself hold spaces and parentheses, so fields are counted from the last closing one.
func parseStat(stat string) (time.Duration, error) {
	end := strings.LastIndexByte(stat, ')')
	if end < 0 {
		return 0, errors.New("no program name in parentheses")
	}
	fields := strings.Fields(stat[end+1:]) // fields[0] is field 3, the state
	const utime, stime = 14 - 3, 15 - 3
	if len(fields) <= stime {
		return 0, fmt.Errorf("%d fields after the program name, want more than %d", len(fields), stime)
	}
	return sumTicks(fields[utime], fields[stime])
}

// parseMachineStat reads the first line of /proc/stat: cpu user nice system idle iowait irq softirq steal guest
// guest_nice. Guest times are contained in user and nice.
func parseMachineStat(stat string) (time.Duration, error) {
	line, _, _ := strings.Cut(stat, "\n")
	fields := strings.Fields(line)
	if len(fields) < 8 || fields[0] != "cpu" {
		return 0, fmt.Errorf("first line %q is not the sum over all CPUs", line)
	}
	const user, nice, system, irq, softirq = 1, 2, 3, 6, 7
	return sumTicks(fields[user], fields[nice], fields[system], fields[irq], fields[softirq])
}

func sumTicks(fields ...string) (time.Duration, error) {
	var sum int64
	for _, field := range fields {
		ticks, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("clock ticks: %w", err)
		}
		sum += ticks
	}
	return time.Duration(sum) * tick, nil
}
