package main

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// How much garbage may lie about before it is collected. What lives long is small at first (a policy,
// few counters), and a collector that waits saves much of its work for some megabytes; with a million
// counters the same share of them would be a gigabyte.
const (
	garbageBytes       = 128 << 20
	mostGarbagePercent = 400 // of what is live
	leastGarbage       = 25
)

// collectRarely lets the garbage collector wait as long as the memory is worth it, until ctx ends,
// unless the environment says how long (GOGC).
func collectRarely(ctx context.Context) {
	if os.Getenv("GOGC") != "" {
		return
	}
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	percent := mostGarbagePercent
	debug.SetGCPercent(percent)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		metrics.Read(live)
		// Setting it stops the world for a moment, so a little more or less is not worth it.
		if wanted := garbagePercent(live[0].Value.Uint64()); max(wanted, percent) > min(wanted, percent)*11/10 {
			percent = wanted
			debug.SetGCPercent(percent)
		}
	}
}

// garbagePercent returns how much garbage may lie about beside so many bytes that are live, in
// percent of them.
func garbagePercent(live uint64) int {
	percent := garbageBytes * 100 / max(1, live)
	return int(min(mostGarbagePercent, max(leastGarbage, percent)))
}
