package storetest

import (
	"testing"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

// testDeplete walks through buckets of a key that others use too, whose provider says how much remains, or how long
// to wait.
func testDeplete(t *testing.T, open Open) {
	const nothing = -1
	type line struct {
		at      limit.Micros // since noon
		leave   int64        // how much remains, as the provider says; nothing is said where a charge meets the bucket
		wait    limit.Micros // how long to wait
		charge  int64
		refused limit.Micros // retry after; 0: it is admitted
		left    int64        // then
	}
	for _, walk := range []struct {
		name  string
		spec  limit.Spec
		lines []line
	}{
		{"token_bucket: 60 per minute, burst 10", limit.Spec{Algorithm: limit.TokenBucket, Limit: 60, Burst: 10, Window: minute}, []line{
			{0, nothing, 0, 2, 0, 8},
			{0, 3, 0, 0, 0, 3}, // others have used 5
			{0, 3, 0, 0, 0, 3}, // another replica has heard the same
			{0, 7, 0, 0, 0, 3}, // an older answer gives nothing back
			{0, nothing, 0, 4, sec, 3},
			{sec, nothing, 0, 4, 0, 0},                          // it recovers by itself
			{sec, 0, 7 * sec, 0, 0, -6},                         // 429, Retry-After: 7
			{sec, nothing, 0, 1, 7 * sec, -6},                   // and so it is
			{sec, 0, 7 * sec, 0, 0, -6},                         // heard twice
			{3 * sec, 0, 5*sec - 1, 0, 0, -4},                   // the same instant, nearly: no more than there is
			{3*sec + sec/4, nothing, 0, 1, 4*sec + 3*sec/4, -4}, // drained a quarter
			{3*sec + sec/4, 0, 5 * sec, 0, 0, -5},               // a quarter of a second longer: one unit more
			{3*sec + sec/4, nothing, 0, 1, 5*sec + 3*sec/4, -5},
			{9 * sec, nothing, 0, 1, 0, 0},
			{60 * sec, 4, 5 * sec, 0, 0, -4}, // what is longer counts
			{61 * sec, nothing, 0, 1, 4 * sec, -3},
			{65 * sec, nothing, 0, 1, 0, 0},
			{65 * sec, 0, 365 * day, 0, 0, 1 - 3600}, // beside itself
			{65 * sec, nothing, 0, 1, hour, 1 - 3600},
			{65*sec + hour, nothing, 0, 1, 0, 0},
		}},
		{"token_bucket: 1 per hour", limit.Spec{Algorithm: limit.TokenBucket, Limit: 1, Burst: 1, Window: hour}, []line{
			{0, 1, 0, 0, 0, 1},   // nothing is said
			{0, 1, sec, 0, 0, 0}, // no less than a unit
			{0, nothing, 0, 1, hour, 0},
		}},
		{"fixed_window: 10 per minute of the clock", perMinute(10), []line{
			{20 * sec, 3, 0, 0, 0, 3},
			{20 * sec, 0, hour, 0, 0, 0}, // a wait says nothing: the window ends when it ends
			{20 * sec, nothing, 0, 1, 40 * sec, 0},
			{60 * sec, nothing, 0, 1, 0, 9},
		}},
		{"first use: it begins the window", limit.Spec{Limit: 10, Window: minute, FirstUse: true}, []line{
			{20 * sec, 10, 0, 0, 0, 10}, // but what changes nothing does not
			{30 * sec, 4, 0, 0, 0, 4},
			{30 * sec, nothing, 0, 5, 60 * sec, 4},
		}},
		{"sliding_window: 10 per minute", limit.Spec{Algorithm: limit.SlidingWindow, Limit: 10, Window: minute}, []line{
			{0, nothing, 0, 6, 0, 4},
			{90 * sec, 2, 0, 0, 0, 2}, // 3 of the 6 are in sight: 5 are missing
			{90 * sec, nothing, 0, 2, 0, 0},
		}},
		{"sliding_log: 10 per minute", limit.Spec{Algorithm: limit.SlidingLog, Limit: 10, Window: minute}, []line{
			{0, nothing, 0, 6, 0, 4},
			{30 * sec, 1, 0, 0, 0, 1},
			{60 * sec, 0, 0, 0, 0, 0}, // the 6 are out of sight
			{60 * sec, nothing, 0, 1, 30 * sec, 0},
		}},
		{"calendar: 10 per day", limit.Spec{Algorithm: limit.CalendarWindow, Limit: 10, Calendar: calendar("day;UTC")}, []line{
			{0, 0, 20 * sec, 0, 0, 0},
			{0, nothing, 0, 1, 12 * hour, 0},
			{12 * hour, nothing, 0, 1, 0, 9},
		}},
		{"a limit of 0", limit.Spec{Algorithm: limit.TokenBucket, Burst: 5, Window: minute}, []line{
			{0, 0, sec, 0, 0, 0}, // there is nothing that could be less
		}},
		{"by a ceiling of 6 of 10", limit.Spec{Limit: 10, Headroom: 4, Window: minute}, []line{
			{0, 2, 0, 0, 0, 2}, // of its 6
		}},
	} {
		t.Run(walk.name, func(t *testing.T) {
			clock := NewClock(noon)
			s := open(t, clock)
			for i, l := range walk.lines {
				clock.Set(noon + l.at)
				op := strict("b", walk.spec, l.charge)
				if l.leave != nothing {
					op = depleted(walk.spec, l.leave, l.wait)
				}
				got := apply(t, s, op).Results[0]
				if got.Refused != (l.refused > 0) || got.RetryAfter != l.refused || got.Remaining != l.left {
					t.Errorf("line %d, %s:\n got %+v\nwant refused for %d µs, and %d left", i, showOp(&op), got, l.refused, l.left)
				}
			}
		})
	}
}

// testDepleteInOrder: a depletion is written whatever the verdict is, and sees what the ops before it have left, and
// what the lease still holds by then. A repeat depletes nothing.
func testDepleteInOrder(t *testing.T, open Open) {
	clock := NewClock(noon)
	s := open(t, clock)
	spec := limit.Spec{Algorithm: limit.TokenBucket, Limit: 60, Burst: 100, Window: minute}
	stands := func(when string, want stand) {
		t.Helper()
		now := apply(t, s, strict("b", spec, 0)).Results[0]
		if got := (stand{now.Used, now.Held, now.Remaining}); got != want {
			t.Errorf("%s: the bucket stands at %+v, want %+v", when, got, want)
		}
	}
	lease := opens(1, 1)
	lease.Lasts = hour
	applyStep(t, s, &store.Step{Lease: lease, Ops: ops(holding("b", spec, 40, 0))})
	applyStep(t, s, &store.Step{Ops: ops(depleted(spec, 50, 0), wall())})
	stands("refused beside it", stand{10, 40, 50})

	settle := &store.Step{
		Lease: settles(1, 2),
		Ops:   ops(of(store.Settle, strict("b", spec, 30)), depleted(spec, 55, 0), depleted(spec, 54, 0)),
	}
	if out := applyStep(t, s, settle); out.Lease != store.LeaseSettled {
		t.Errorf("settled: state %d", out.Lease)
	}
	stands("settled first: 60 would remain", stand{46, 0, 54})
	clock.Advance(10 * sec)
	if out := applyStep(t, s, settle); out.Lease != store.LeaseReplayed {
		t.Errorf("repeated: state %d", out.Lease)
	}
	stands("repeated when 10 more have drained", stand{36, 0, 64})

	applyStep(t, s, &store.Step{Ops: ops(depleted(spec, 20, 0), of(store.Record, strict("b", spec, 5)))})
	stands("recorded behind it", stand{85, 0, 15})
	applyStep(t, s, &store.Step{Ops: ops(of(store.Record, strict("b", spec, 5)), depleted(spec, 10, 0))})
	stands("recorded before it", stand{90, 0, 10})
	applyStep(t, s, &store.Step{Ops: ops(strict("b", spec, 11), depleted(spec, 8, 0))})
	stands("a charge before it is refused", stand{92, 0, 8})

	clock.Advance(-30 * sec) // for a while time stands still, and a wait is one of whoever asks
	apply(t, s, depleted(spec, limit.MaxAmount, 40*sec))
	if got := apply(t, s, strict("b", spec, 1)).Results[0]; got.Remaining != -9 || got.RetryAfter != 40*sec {
		t.Errorf("30 s behind: %d remain, and there is to wait %d µs, want −9 and 40 s", got.Remaining, got.RetryAfter)
	}
}

// depleted is a depletion of bucket b that leaves so much, for so long.
func depleted(spec limit.Spec, leave int64, wait limit.Micros) store.Op {
	return with(of(store.Deplete, strict("b", spec, leave)), func(o *store.Op) { o.Wait = wait })
}
