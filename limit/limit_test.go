package limit_test

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/rationhq/ration/limit"
)

const (
	minute = 60 * limit.Second
	day    = 24 * 60 * minute
)

// Where windows begin: aligned to the epoch, half-open.
func TestWindows(t *testing.T) {
	at := func(s string) limit.Micros {
		instant, err := time.Parse(time.RFC3339Nano, s)
		if err != nil {
			t.Fatal(err)
		}
		return limit.At(instant)
	}
	cases := []struct {
		window     limit.Micros
		now, start string
		resetAfter limit.Micros
	}{
		{limit.Second, "2026-11-21T12:34:56.999999Z", "2026-11-21T12:34:56Z", 1},
		{minute, "2026-11-21T12:34:00Z", "2026-11-21T12:34:00Z", minute},
		{minute, "2026-11-21T12:34:59.999999Z", "2026-11-21T12:34:00Z", 1},
		{60 * minute, "2026-11-21T12:34:56Z", "2026-11-21T12:00:00Z", 25*minute + 4*limit.Second},
		{day, "2026-11-21T00:00:00Z", "2026-11-21T00:00:00Z", day},
		{7 * day, "2026-11-21T12:00:00Z", "2026-11-19T00:00:00Z", 4*day + 12*60*minute},   // a Thursday
		{30 * day, "2026-11-21T12:00:00Z", "2026-11-03T00:00:00Z", 11*day + 12*60*minute}, // day 20,760,
		{365 * day, "2026-11-21T12:00:00Z", "2025-12-18T00:00:00Z", 26*day + 12*60*minute},
	}
	for _, c := range cases {
		s := limit.Spec{Limit: 1, Window: c.window}
		resetAfter := s.PlainStatus(at(c.now), 0, false).ResetAfter
		if got := s.Start(at(c.now)); got != at(c.start) {
			t.Errorf("the window of %v at %s begins at %v, want %s", c.window.Duration(), c.now, got.Time(), c.start)
		}
		if resetAfter != c.resetAfter {
			t.Errorf("the window of %v at %s ends in %v, want %v", c.window.Duration(), c.now, resetAfter.Duration(), c.resetAfter.Duration())
		}
	}
}

// Every instant lies in exactly one window, which has the length of the window and is aligned.
func TestWindowsTile(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		s := limit.Spec{Window: limit.Micros(rapid.Int64Range(1, int64(400*day)).Draw(r, "window"))}
		now := limit.Micros(rapid.Int64Range(0, limit.MaxAmount).Draw(r, "now"))
		start, end := s.Start(now), now+s.PlainStatus(now, 0, false).ResetAfter
		if start > now || now >= end || end-start != s.Window || start%s.Window != 0 {
			r.Fatalf("%d lies in [%d, %d)", now, start, end)
		}
		if s.Start(end) != end || s.Start(end-1) != start {
			r.Fatalf("the window after [%d, %d) begins at %d", start, end, s.Start(end))
		}
	})
}

func TestExceeds(t *testing.T) {
	cases := []struct {
		limit, used, amount int64
		exceeds             bool
	}{
		{10, 0, 1, false},
		{10, 9, 1, false}, // inclusive
		{10, 10, 1, true},
		{10, 8, 5, true},   // whole
		{10, 10, 0, false}, // used up is not overdrawn
		{10, 11, 0, true},
		{0, 0, 0, false},
		{0, 0, 1, true},
		{limit.MaxAmount, limit.MaxAmount, 0, false},
		{limit.MaxAmount, limit.MaxAmount, 1, false}, // pinned, not wrapped
		{limit.MaxAmount - 1, 1, limit.MaxAmount, true},
	}
	for _, c := range cases {
		s := limit.Spec{Limit: c.limit, Window: minute}
		if got := s.Exceeds(c.used, c.amount); got != c.exceeds {
			t.Errorf("%d of %d used, %d more: exceeds %v, want %v", c.used, c.limit, c.amount, got, c.exceeds)
		}
	}
}

func TestAmounts(t *testing.T) {
	amounts := rapid.OneOf(rapid.Int64Range(0, limit.MaxAmount), rapid.Int64Range(limit.MaxAmount-3, limit.MaxAmount), rapid.Int64Range(0, 3))
	rapid.Check(t, func(r *rapid.T) {
		a, b := amounts.Draw(r, "a"), amounts.Draw(r, "b")
		if got := limit.Add(a, b); got != min(a+b, limit.MaxAmount) { // a+b < 2^54 fits int64
			r.Fatalf("Add(%d, %d) = %d", a, b, got)
		}
		if got := limit.Less(a, b); got != max(a-b, 0) {
			r.Fatalf("Less(%d, %d) = %d", a, b, got)
		}
		s := limit.Spec{Limit: a, Window: minute}
		if got := s.PlainStatus(0, b, false).Remaining; got != max(a-b, 0) {
			r.Fatalf("%d of %d used: %d remain", b, a, got)
		}
	})
}

func TestSpans(t *testing.T) {
	for span, want := range map[limit.Micros]int64{0: 0, 1: 1, 999_999: 1, 1_000_000: 1, 1_000_001: 2, minute: 60} {
		if got := span.Seconds(); got != want {
			t.Errorf("%d µs are %d s, want %d: rounded up", span, got, want)
		}
	}
	if got := limit.Micros(limit.MaxAmount).Duration(); got <= 0 {
		t.Errorf("285 years are %v", got)
	}
	if got := limit.Micros(1<<63 - 1).Duration(); got != 1<<63-1 {
		t.Errorf("the longest span is %v, want it to saturate", got)
	}
	now := time.Now().Truncate(time.Microsecond)
	if got := limit.At(now).Time(); !got.Equal(now) {
		t.Errorf("%v became %v", now, got)
	}
}

// A window's state remembers its count and that of the window before, through steps of the clock.
func TestWindowState(t *testing.T) {
	s := limit.Spec{Limit: 10, Window: minute}
	at := func(n limit.Micros) limit.Micros { return 29_395_440*minute + n*minute }
	var w limit.State
	if got := s.Counted(&w, at(0)); got != 0 {
		t.Errorf("the zero window has used %d", got)
	}
	steps := []struct {
		name          string
		window        limit.Micros
		used          int64
		before, after int64 // used of the windows beside it, then
	}{
		{"first", 0, 4, 0, 0},
		{"again", 0, 5, 0, 0},
		{"the next", 1, 2, 5, 0},
		{"back in the one before", 0, 6, 0, 2},
		{"forth again", 1, 3, 6, 0},
		{"two on: nothing is left", 3, 1, 0, 0},
		{"the next", 4, 9, 1, 0},
		{"far back: the clock was wrong before", 1, 1, 0, 0},
	}
	for _, step := range steps {
		s.SetCounted(&w, at(step.window), step.used)
		for window, want := range map[limit.Micros]int64{step.window: step.used, step.window - 1: step.before, step.window + 1: step.after} {
			if got := s.Counted(&w, at(window)); got != want {
				t.Errorf("%s: window %d has used %d, want %d", step.name, window, got, want)
			}
		}
	}
}

func TestTally(t *testing.T) {
	type add struct{ quota, refused bool }
	limitOK, limitOver, quotaOK, quotaOver := add{}, add{refused: true}, add{quota: true}, add{true, true}
	cases := []struct {
		name    string
		adds    []add
		refuses bool
	}{
		{"nothing", nil, false},
		{"a limit with room", []add{limitOK}, false},
		{"one of two limits", []add{limitOK, limitOver}, true},
		{"one quota", []add{quotaOver}, true},
		{"one of two quotas", []add{quotaOver, quotaOK}, false},
		{"both quotas", []add{quotaOver, quotaOver}, true},
		{"all quotas beside a limit with room", []add{quotaOver, limitOK, quotaOver}, true},
		{"a limit beside a quota with room", []add{quotaOK, limitOver}, true},
	}
	for _, c := range cases {
		var tally limit.Tally
		for _, a := range c.adds {
			tally.Add(a.quota, a.refused)
		}
		if got := tally.Refuses(); got != c.refuses {
			t.Errorf("%s: refuses %v, want %v", c.name, got, c.refuses)
		}
	}
}

// A threshold is reached once in a window.
func TestCrossed(t *testing.T) {
	s := limit.Spec{Algorithm: limit.FixedWindow, Limit: 100, Window: limit.Second}
	thresholds := []int64{50, 80, 100}
	var st limit.State
	now := s.Advance(&st, 5*limit.Second)
	crossed := func(want ...int64) {
		t.Helper()
		from, to := s.Crossed(&st, thresholds)
		if got := thresholds[from:to]; !slices.Equal(got, want) {
			t.Fatalf("with %+v crossed %v, want %v", st, got, want)
		}
	}
	crossed()
	s.Charge(&st, now, 49)
	crossed()
	mark := s.Hold(&st, now, 51)
	crossed() // what is held is not used
	s.Settle(&st, now, mark, 51, 1)
	crossed(50)
	crossed()
	s.GiveBack(&st, now, 50)
	s.Charge(&st, now, 99)
	crossed(80) // 50 was reached before
	s.Charge(&st, now, 1000)
	crossed(100)
	thresholds = []int64{160, 200, 2000} // the limit was raised
	crossed(160, 200)
	thresholds = []int64{10, 20} // and lowered
	crossed()
	now = s.Advance(&st, 6*limit.Second)
	crossed() // nothing is used in the new window
	s.Charge(&st, now, 15)
	crossed(10)
}
