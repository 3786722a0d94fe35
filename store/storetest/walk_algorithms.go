package storetest

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

const sec = limit.Second

// row is one line of a walk: at an instant after the start an amount meets a bucket, and this is what
// the caller is told.
type row struct {
	at      limit.Micros
	kind    store.Kind
	amount  int64
	verdict string // "ok", "refused", "never"
	used    int64
	left    int64        // remaining
	retry   limit.Micros // after
	reset   limit.Micros // after
}

// testAlgorithms walks through every algorithm.
func testAlgorithms(t *testing.T, open Open) {
	for _, walk := range []struct {
		name  string
		start string
		spec  limit.Spec
		rows  []row
	}{
		{
			"token_bucket: 10 per minute, burst 5", "2025-11-21T12:00:00Z",
			limit.Spec{Algorithm: limit.TokenBucket, Limit: 10, Burst: 5, Window: minute},
			[]row{
				{0, store.Charge, 5, "ok", 5, 0, 0, 30 * sec}, // the burst, at once
				{0, store.Charge, 0, "refused", 5, 0, 6 * sec, 30 * sec},
				{0, store.Charge, 3, "refused", 5, 0, 18 * sec, 30 * sec},
				{0, store.Charge, 6, "never", 5, 0, 0, 30 * sec},
				{6*sec - 1, store.Charge, 1, "refused", 5, 0, 1, 24*sec + 1},
				{6 * sec, store.Charge, 1, "ok", 5, 0, 0, 30 * sec},
				{12 * sec, store.Charge, 0, "ok", 4, 1, 0, 24 * sec}, // a check
				{15 * sec, store.Charge, 0, "ok", 4, 1, 0, 21 * sec}, // half a unit is not remaining
				{15 * sec, store.GiveBack, 2, "ok", 2, 3, 0, 9 * sec},
				{15 * sec, store.Record, 10, "ok", 12, -7, 0, 69 * sec}, // debt
				{15 * sec, store.Charge, 1, "refused", 12, -7, 45 * sec, 69 * sec},
				{60 * sec, store.Charge, 1, "ok", 5, 0, 0, 30 * sec},
				{90 * sec, store.GiveBack, 9, "ok", 0, 5, 0, 0}, // what has drained cannot come back
				{90 * sec, store.Charge, 5, "ok", 5, 0, 0, 30 * sec},
			},
		},
		{
			"sliding_window: 10 per minute", "2025-11-21T12:00:00Z",
			limit.Spec{Algorithm: limit.SlidingWindow, Limit: 10, Window: minute},
			[]row{
				{0, store.Charge, 10, "ok", 10, 0, 0, 120 * sec},
				{0, store.Charge, 1, "refused", 10, 0, 66 * sec, 120 * sec}, // beyond the end of this window
				{60 * sec, store.Charge, 0, "refused", 10, 0, 6 * sec, 60 * sec},
				{66*sec - 1, store.Charge, 1, "refused", 10, 0, 1, 54*sec + 1},
				{66 * sec, store.Charge, 1, "ok", 10, 0, 0, 114 * sec}, // nine of the ten are in sight
				{90 * sec, store.Charge, 4, "ok", 10, 0, 0, 90 * sec},  // five of them
				{90 * sec, store.Charge, 5, "refused", 10, 0, 30 * sec, 90 * sec},
				{90 * sec, store.Charge, 6, "refused", 10, 0, 42 * sec, 90 * sec},
				{90 * sec, store.GiveBack, 9, "ok", 5, 5, 0, 30 * sec}, // of this window only
				{90 * sec, store.Record, 10, "ok", 15, -5, 0, 90 * sec},
				{90 * sec, store.Charge, 1, "refused", 15, -5, 36 * sec, 90 * sec},
				{126 * sec, store.Charge, 1, "ok", 10, 0, 0, 114 * sec},
				{240 * sec, store.Charge, 0, "ok", 0, 10, 0, 0},
			},
		},
		{
			"sliding_window at its worst: 19 of 10 per minute within a minute", "2025-11-21T12:00:00Z",
			limit.Spec{Algorithm: limit.SlidingWindow, Limit: 10, Window: minute},
			[]row{
				{60*sec - 1, store.Charge, 10, "ok", 10, 0, 0, 60*sec + 1},
				{120*sec - 2, store.Charge, 9, "ok", 10, 0, 0, 60*sec + 2},
			},
		},
		{
			"sliding_log: 3 per minute", "2025-11-21T12:00:00Z",
			limit.Spec{Algorithm: limit.SlidingLog, Limit: 3, Window: minute},
			[]row{
				{0, store.Charge, 1, "ok", 1, 2, 0, 60 * sec},
				{20 * sec, store.Charge, 1, "ok", 2, 1, 0, 60 * sec},
				{40 * sec, store.Charge, 1, "ok", 3, 0, 0, 60 * sec},
				{40 * sec, store.Charge, 1, "refused", 3, 0, 20 * sec, 60 * sec},
				{40 * sec, store.Charge, 2, "refused", 3, 0, 40 * sec, 60 * sec},
				{40 * sec, store.Charge, 4, "never", 3, 0, 0, 60 * sec},
				{60*sec - 1, store.Charge, 1, "refused", 3, 0, 1, 40*sec + 1},
				{60 * sec, store.Charge, 1, "ok", 3, 0, 0, 60 * sec}, // the first has just left (t−W, t]
				{70 * sec, store.GiveBack, 2, "ok", 1, 2, 0, 10 * sec},
				{70 * sec, store.Record, 4, "ok", 5, -2, 0, 60 * sec},
				{80 * sec, store.Charge, 0, "refused", 4, -1, 50 * sec, 50 * sec},
				{130 * sec, store.Charge, 3, "ok", 3, 0, 0, 60 * sec},
			},
		},
		{
			"fixed_window: 3 per minute of the clock", "2025-11-21T12:00:00Z",
			limit.Spec{Limit: 3, Window: minute},
			[]row{
				{10 * sec, store.Charge, 2, "ok", 2, 1, 0, 50 * sec},
				{20 * sec, store.Charge, 2, "refused", 2, 1, 40 * sec, 40 * sec},
				{20 * sec, store.Charge, 1, "ok", 3, 0, 0, 40 * sec},
				{60*sec - 1, store.Charge, 1, "refused", 3, 0, 1, 1},
				{60 * sec, store.Charge, 3, "ok", 3, 0, 0, 60 * sec}, // half-open
				{61 * sec, store.GiveBack, 1, "ok", 2, 1, 0, 59 * sec},
				{62 * sec, store.Record, 4, "ok", 6, -3, 0, 58 * sec},
				{63 * sec, store.Charge, 0, "refused", 6, -3, 57 * sec, 57 * sec},
				{120 * sec, store.Charge, 0, "ok", 0, 3, 0, 0}, // debt ends with its window
			},
		},
		{
			"fixed_window: 3 per minute from the first use", "2025-11-21T12:00:00Z",
			limit.Spec{Limit: 3, Window: minute, FirstUse: true},
			[]row{
				{5 * sec, store.Charge, 0, "ok", 0, 3, 0, 0}, // a check begins no window
				{10 * sec, store.Charge, 3, "ok", 3, 0, 0, 60 * sec},
				{60 * sec, store.Charge, 1, "refused", 3, 0, 10 * sec, 10 * sec},
				{60 * sec, store.GiveBack, 3, "ok", 0, 3, 0, 0},
				{65 * sec, store.Charge, 1, "ok", 1, 2, 0, 5 * sec}, // nor ends one a give-back
				{70 * sec, store.Charge, 0, "ok", 0, 3, 0, 0},
				{75 * sec, store.Charge, 1, "ok", 1, 2, 0, 60 * sec},
			},
		},
		{
			"calendar: 2 per day in Berlin, on a day of 25 hours", "2026-10-25T00:00:00+02:00",
			limit.Spec{Algorithm: limit.CalendarWindow, Limit: 2, Calendar: calendar("day;Europe/Berlin")},
			[]row{
				{0, store.Charge, 2, "ok", 2, 0, 0, 25 * hour},
				{24 * hour, store.Charge, 1, "refused", 2, 0, hour, hour},
				{25*hour - 1, store.Charge, 1, "refused", 2, 0, 1, 1},
				{25 * hour, store.Charge, 1, "ok", 1, 1, 0, 24 * hour},
			},
		},
		{
			"calendar: 2 per month that begins on the 31st, in February", "2026-01-31T00:00:00Z",
			limit.Spec{Algorithm: limit.CalendarWindow, Limit: 2, Calendar: calendar("month;UTC;31")},
			[]row{
				{-1, store.Charge, 2, "ok", 2, 0, 0, 1}, // 30 January is of the month before
				{0, store.Charge, 2, "ok", 2, 0, 0, 28 * day},
				{28*day - 1, store.Charge, 1, "refused", 2, 0, 1, 1},
				{28 * day, store.Charge, 1, "ok", 1, 1, 0, 31 * day}, // 28 February, for want of a 31st
			},
		},
		{
			"concurrency: 2 places", "2025-11-21T12:00:00Z",
			limit.Spec{Algorithm: limit.Concurrency, Limit: 2},
			[]row{
				{0, store.Charge, 2, "ok", 0, 2, 0, 0}, // judged, but only a hold takes a place
				{0, store.Charge, 3, "never", 0, 2, 0, 0},
				{0, store.Record, 2, "ok", 0, 2, 0, 0},
				{0, store.GiveBack, 2, "ok", 0, 2, 0, 0},
			},
		},
		{
			"a limit of 0", "2025-11-21T12:00:00Z",
			limit.Spec{Algorithm: limit.TokenBucket, Burst: 5, Window: minute},
			[]row{
				{0, store.Charge, 0, "never", 0, 0, 0, 0},
				{0, store.Record, 2, "ok", 2, -2, 0, 0},
				{hour, store.Charge, 1, "never", 2, -2, 0, 0}, // what never drains is no allowance
			},
		},
		{
			"a ceiling of 60 % of 10", "2025-11-21T12:00:00Z",
			limit.Spec{Limit: 10, Headroom: 4, Window: minute},
			[]row{
				{0, store.Charge, 7, "never", 0, 6, 0, 0},
				{0, store.Charge, 6, "ok", 6, 0, 0, 60 * sec},
				{0, store.Charge, 1, "refused", 6, 0, 60 * sec, 60 * sec},
			},
		},
	} {
		t.Run(walk.name, func(t *testing.T) {
			began, err := time.Parse(time.RFC3339, walk.start)
			if err != nil {
				t.Fatal(err)
			}
			clock := NewClock(noon)
			s := open(t, clock)
			for i, r := range walk.rows {
				clock.Set(limit.At(began) + r.at)
				r.walk(t, i, s, of(r.kind, charge("b", walk.spec, r.amount)))
			}
		})
	}
}

func (r row) walk(t *testing.T, i int, s store.Store, op store.Op) {
	t.Helper()
	out := apply(t, s, op)
	want := limit.Status{
		Refused: r.verdict != "ok", Never: r.verdict == "never",
		Used: r.used, Remaining: r.left, RetryAfter: r.retry, ResetAfter: r.reset,
	}
	if got := out.Results[0]; got != want || out.Refused != want.Refused {
		t.Errorf("row %d, %d µs after the start: %s:\n got %+v, step refused: %v\nwant %+v",
			i, r.at, showOp(&op), got, out.Refused, want)
	}
}

// calendar returns the calendar of that name: these stand in the suite and are right.
func calendar(name string) *limit.Calendar {
	c, err := limit.ParseCalendar(name)
	if err != nil {
		panic(err)
	}
	return c
}

// testLongLogs lets a sliding log of some dozen entries grow and shrink, in steps of all lengths.
func testLongLogs(t *testing.T, open Open) {
	clock := NewClock(noon)
	s, model := open(t, clock), &Model{}
	spec := limit.Spec{Algorithm: limit.SlidingLog, Limit: 300, Window: 30 * sec}
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // the same each time
	for n := range 1500 {
		pause := limit.Micros(random.Int64N(int64(sec)))
		if n%25 == 0 {
			pause = limit.Micros(random.Int64N(int64(32 * sec)))
		}
		clock.Advance(pause)
		step := &store.Step{Ops: []store.Op{strict("b", spec, int64(random.IntN(3)))}}
		next, want, err := model.Apply(clock.Now(), step)
		if err != nil {
			t.Fatal(err)
		}
		model = next
		var got store.Outcome
		if err := s.Apply(t.Context(), step, &got); err != nil {
			t.Fatal(err)
		}
		if !same(got, want) {
			t.Fatalf("step %d:\n got %+v\nwant %+v", n, got, want)
		}
	}
}
