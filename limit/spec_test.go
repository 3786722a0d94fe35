package limit_test

import (
	"strings"
	"testing"
	"time"

	"github.com/rationhq/ration/limit"
)

func TestAlgorithmNames(t *testing.T) {
	names := []string{"fixed_window", "token_bucket", "sliding_window", "sliding_log", "calendar", "concurrency"}
	seen := map[limit.Algorithm]bool{}
	for _, name := range names {
		a, ok := limit.ParseAlgorithm(name)
		if !ok || a.String() != name || seen[a] {
			t.Errorf("%q is algorithm %d, %v, named %q", name, a, ok, a)
		}
		seen[a] = true
	}
	for _, name := range []string{"", "Token_bucket", "gcra", "algorithm 6"} {
		if a, ok := limit.ParseAlgorithm(name); ok {
			t.Errorf("%q is %v, want none", name, a)
		}
	}
	if got := limit.Algorithm(len(names)).String(); got != "algorithm 6" {
		t.Errorf("the first unknown algorithm is %q", got)
	}
}

func TestSpecValidate(t *testing.T) {
	const most = limit.MaxAmount
	days := &limit.Calendar{Period: limit.PerDay, Zone: time.UTC}
	cases := []struct {
		name string
		spec limit.Spec
		want string // in the error; empty: none
	}{
		{"fixed window", limit.Spec{Limit: 1, Window: 1}, ""},
		{"of first use", limit.Spec{FirstUse: true, Limit: 1, Window: 1}, ""},
		{"that admits nothing", limit.Spec{Window: minute}, ""},
		{"largest", limit.Spec{Limit: most, Burst: most, Headroom: most, Window: limit.Micros(most)}, ""},
		{"token bucket", limit.Spec{Algorithm: limit.TokenBucket, Limit: most, Burst: most, Window: limit.Micros(most)}, ""},
		{"longest sliding window", limit.Spec{Algorithm: limit.SlidingWindow, Limit: most, Window: limit.Micros(most / 2)}, ""},
		{"longest sliding log", limit.Spec{Algorithm: limit.SlidingLog, Limit: 10_000, Window: limit.Micros(most)}, ""},
		{"calendar", limit.Spec{Algorithm: limit.CalendarWindow, Limit: 1, Calendar: days}, ""},
		{"concurrency", limit.Spec{Algorithm: limit.Concurrency, Limit: 3}, ""},

		{"zero", limit.Spec{}, "a window of 0 µs for fixed_window"},
		{"negative limit", limit.Spec{Limit: -1, Window: minute}, "a limit of -1"},
		{"limit too large", limit.Spec{Limit: most + 1, Window: minute}, "a limit of 9007199254740992"},
		{"negative burst", limit.Spec{Algorithm: limit.TokenBucket, Limit: 1, Burst: -1, Window: minute}, "a burst of -1"},
		{"burst too large", limit.Spec{Algorithm: limit.TokenBucket, Burst: most + 1, Window: minute}, "a burst of"},
		{"negative headroom", limit.Spec{Limit: 1, Headroom: -1, Window: minute}, "a headroom of -1"},
		{"headroom too large", limit.Spec{Limit: 1, Headroom: most + 1, Window: minute}, "a headroom of"},
		{"negative window", limit.Spec{Limit: 1, Window: -1}, "a window of -1"},
		{"window too long", limit.Spec{Limit: 1, Window: limit.Micros(most) + 1}, "a window of"},
		{"token bucket without a window", limit.Spec{Algorithm: limit.TokenBucket, Limit: 1}, "a window of 0 µs for token_bucket"},
		{"sliding window too long", limit.Spec{Algorithm: limit.SlidingWindow, Limit: 1, Window: limit.Micros(most/2) + 1}, "half of 2^53"},
		{"sliding log too long", limit.Spec{Algorithm: limit.SlidingLog, Limit: 10_001, Window: minute}, "at most 10000"},
		{"calendar without one", limit.Spec{Algorithm: limit.CalendarWindow, Limit: 1}, "a calendar belongs"},
		{"calendar with a window", limit.Spec{Algorithm: limit.CalendarWindow, Limit: 1, Window: day, Calendar: days}, "for calendar"},
		{"fixed window with a calendar", limit.Spec{Limit: 1, Window: day, Calendar: days}, "a calendar belongs"},
		{"concurrency with a window", limit.Spec{Algorithm: limit.Concurrency, Limit: 1, Window: 1}, "for concurrency"},
		{"unknown", limit.Spec{Algorithm: 6, Limit: 1, Window: 1}, "algorithm 6 is unknown"},
	}
	for _, c := range cases {
		err := c.spec.Validate()
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: %v, want an error with %q", c.name, err, c.want)
		}
	}
}

func TestCeiling(t *testing.T) {
	bucket := func(rate, burst, headroom int64) limit.Spec {
		return limit.Spec{Algorithm: limit.TokenBucket, Limit: rate, Burst: burst, Headroom: headroom, Window: minute}
	}
	cases := []struct {
		spec              limit.Spec
		capacity, ceiling int64
	}{
		{limit.Spec{Limit: 10, Window: minute}, 10, 10},
		{limit.Spec{Limit: 10, Headroom: 4, Window: minute}, 10, 6},
		{limit.Spec{Limit: 10, Headroom: 11, Window: minute}, 10, 0},
		{bucket(10, 1000, 0), 1000, 1000},
		{bucket(10, 1000, 400), 1000, 600}, // 60 %
		{bucket(0, 1000, 0), 0, 0},         // never drains: admits nothing
	}
	for _, c := range cases {
		if got := c.spec.Capacity(); got != c.capacity {
			t.Errorf("%+v: capacity %d, want %d", c.spec, got, c.capacity)
		}
		if got := c.spec.Ceiling(); got != c.ceiling {
			t.Errorf("%+v: ceiling %d, want %d", c.spec, got, c.ceiling)
		}
	}
}
