package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// printTable prints how long those who were served have waited: by user, and in the last line by tier.
func printTable(w io.Writer, calls []*call) {
	fmt.Fprintf(w, "\n%-8s %-5s %6s %7s %11s %8s %8s\n", "tier", "user", "calls", "served", "first wait", "median", "longest")
	var longest []string
	for _, v := range burst() {
		waits := waitsOf(calls, func(c *call) bool { return c.user == v.user })
		fmt.Fprintf(w, "%-8s %-5s %6d %7d", v.tier, v.name, v.calls, len(waits))
		if n := len(waits); n > 0 {
			fmt.Fprintf(w, " %9.1f s %6.1f s %6.1f s", waits[0], waits[(n-1)/2], waits[n-1])
		}
		fmt.Fprintln(w)
	}
	for _, tier := range []string{"premium", "pro", "free"} {
		if waits := waitsOf(calls, func(c *call) bool { return c.tier == tier }); len(waits) > 0 {
			longest = append(longest, fmt.Sprintf("%s %.1f s", tier, waits[len(waits)-1]))
		}
	}
	fmt.Fprintf(w, "\n%d of %d calls were served.", count(calls, served), len(calls))
	if longest != nil {
		fmt.Fprintf(w, " The longest wait: %s.", strings.Join(longest, ", "))
	}
	fmt.Fprintln(w)
}

// waitsOf returns how long those of the calls have waited that were served: seconds, the shortest first.
func waitsOf(calls []*call, of func(*call) bool) (waits []float64) {
	for _, c := range calls {
		if c.end == served && of(c) {
			waits = append(waits, c.waited.Seconds())
		}
	}
	slices.Sort(waits)
	return waits
}

func count(calls []*call, how end) (n int) {
	for _, c := range calls {
		if c.end == how {
			n++
		}
	}
	return n
}
