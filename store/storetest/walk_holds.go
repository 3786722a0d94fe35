package storetest

import (
	"math/rand/v2"
	"testing"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

// testHolds walks through what a hold means to each algorithm: a hold belongs to where it was made,
// and settling it moves what is counted there.
func testHolds(t *testing.T, open Open) {
	type line struct {
		at     limit.Micros // since noon
		do     string
		amount int64
		stands stand
	}
	for _, walk := range []struct {
		name  string
		spec  limit.Spec
		lines []line
	}{
		{"token_bucket: what has drained does not come back", limit.Spec{Algorithm: limit.TokenBucket, Limit: 10, Burst: 10, Window: minute}, []line{
			{0, "hold", 10, stand{0, 10, 0}},
			{30 * sec, "look", 0, stand{0, 5, 5}},
			{30 * sec, "charge", 5, stand{0, 10, 0}}, // whose the units in it are is not known: holds come first
			{30 * sec, "settle", 0, stand{5, 0, 5}},
		}},
		{"token_bucket: nothing is left of it", limit.Spec{Algorithm: limit.TokenBucket, Limit: 10, Burst: 10, Window: minute}, []line{
			{0, "hold", 10, stand{0, 10, 0}},
			{60 * sec, "look", 0, stand{0, 0, 10}},
			{60 * sec, "settle", 0, stand{0, 0, 10}},
			{60 * sec, "charge", 10, stand{10, 0, 0}},
		}},
		{"token_bucket: settled above, it is debt from now on", limit.Spec{Algorithm: limit.TokenBucket, Limit: 10, Burst: 10, Window: minute}, []line{
			{0, "hold", 10, stand{0, 10, 0}},
			{60 * sec, "settle", 22, stand{12, 0, -2}},
			{78 * sec, "look", 0, stand{9, 0, 1}},
		}},
		{"token_bucket: grown, what has drained does not come back", limit.Spec{Algorithm: limit.TokenBucket, Limit: 10, Burst: 10, Window: minute}, []line{
			{0, "hold", 10, stand{0, 10, 0}},
			{30 * sec, "renew", 14, stand{0, 9, 1}}, // 5 are left, and 4 more are debt from now on
			{30 * sec, "settle", 2, stand{0, 0, 10}},
		}},
		{"token_bucket: grown when it had drained, others' units stay", limit.Spec{Algorithm: limit.TokenBucket, Limit: 10, Burst: 10, Window: minute}, []line{
			{0, "hold", 4, stand{0, 4, 6}},
			{0, "charge", 6, stand{6, 4, 0}},
			{30 * sec, "renew", 12, stand{1, 12, -3}},
			{30 * sec, "settle", 0, stand{1, 0, 9}}, // of their 6, 5 would have drained without the hold
		}},
		{"token_bucket: grown in another filling", limit.Spec{Algorithm: limit.TokenBucket, Limit: 10, Burst: 10, Window: minute}, []line{
			{0, "hold", 4, stand{0, 4, 6}},
			{60 * sec, "charge", 6, stand{2, 4, 4}},
			{60 * sec, "renew", 7, stand{2, 7, 1}},
			{72 * sec, "renew", 8, stand{0, 8, 2}},
			{72 * sec, "settle", 5, stand{5, 0, 5}}, // 4 were used before: it has grown by 1
		}},
		{"sliding_window: grown in its window, and in the next", limit.Spec{Algorithm: limit.SlidingWindow, Limit: 10, Window: minute}, []line{
			{0, "hold", 4, stand{0, 4, 6}},
			{30 * sec, "renew", 6, stand{0, 6, 4}},
			{90 * sec, "look", 0, stand{0, 3, 7}},
			{90 * sec, "renew", 10, stand{0, 5, 5}},
			{90 * sec, "settle", 8, stand{4, 0, 6}},
		}},
		{"sliding_window: grown out of sight", limit.Spec{Algorithm: limit.SlidingWindow, Limit: 10, Window: minute}, []line{
			{0, "hold", 4, stand{0, 4, 6}},
			{120 * sec, "charge", 3, stand{3, 0, 7}},
			{120 * sec, "renew", 10, stand{3, 0, 7}},
			{120 * sec, "settle", 1, stand{3, 0, 7}},
		}},
		{"sliding_log: its entry grows", limit.Spec{Algorithm: limit.SlidingLog, Limit: 10, Window: minute}, []line{
			{0, "hold", 6, stand{0, 6, 4}},
			{30 * sec, "charge", 4, stand{4, 6, 0}},
			{30 * sec, "renew", 9, stand{4, 9, -3}},
			{30 * sec, "settle", 7, stand{11, 0, -1}},
			{60 * sec, "look", 0, stand{4, 0, 6}},
		}},
		{"sliding_log: grown out of sight", limit.Spec{Algorithm: limit.SlidingLog, Limit: 10, Window: minute}, []line{
			{0, "hold", 6, stand{0, 6, 4}},
			{60 * sec, "renew", 9, stand{0, 0, 10}},
			{60 * sec, "charge", 4, stand{0, 4, 6}}, // whose the units in it are is not known: holds come first
			{60 * sec, "settle", 7, stand{4, 0, 6}},
		}},
		{"fixed_window: grown in its window", perMinute(10), []line{
			{0, "hold", 6, stand{0, 6, 4}},
			{59 * sec, "renew", 11, stand{0, 11, -1}},
			{59 * sec, "settle", 8, stand{8, 0, 2}},
		}},
		{"first use: grown when another window has begun", limit.Spec{Limit: 10, Window: minute, FirstUse: true}, []line{
			{10 * sec, "hold", 6, stand{0, 6, 4}},
			{69 * sec, "renew", 9, stand{0, 9, 1}},
			{75 * sec, "charge", 3, stand{3, 0, 7}},
			{75 * sec, "renew", 10, stand{3, 0, 7}},
			{75 * sec, "settle", 1, stand{3, 0, 7}},
		}},
		{"calendar: what is used across midnight never touches the new day", limit.Spec{Algorithm: limit.CalendarWindow, Limit: 10, Calendar: calendar("day;UTC")}, []line{
			{12*hour - 1, "hold", 6, stand{0, 6, 4}},
			{12*hour - 1, "renew", 8, stand{0, 8, 2}},
			{12 * hour, "renew", 20, stand{0, 0, 10}},
			{12 * hour, "settle", 9, stand{0, 0, 10}},
		}},
		{"concurrency: places do not grow", limit.Spec{Algorithm: limit.Concurrency, Limit: 3}, []line{
			{0, "hold", 2, stand{0, 2, 1}},
			{minute, "renew", 9, stand{0, 2, 1}},
			{minute, "settle", 9, stand{0, 0, 3}},
		}},
		{"sliding_window: it fades with its window", limit.Spec{Algorithm: limit.SlidingWindow, Limit: 10, Window: minute}, []line{
			{0, "hold", 10, stand{0, 10, 0}},
			{90 * sec, "look", 0, stand{0, 5, 5}},
			{90 * sec, "charge", 5, stand{5, 5, 0}},
			{90 * sec, "settle", 4, stand{7, 0, 3}},
			{120 * sec, "look", 0, stand{5, 0, 5}},
		}},
		{"sliding_log: its entry is rewritten", limit.Spec{Algorithm: limit.SlidingLog, Limit: 10, Window: minute}, []line{
			{0, "hold", 6, stand{0, 6, 4}},
			{30 * sec, "charge", 4, stand{4, 6, 0}},
			{30 * sec, "settle", 1, stand{5, 0, 5}},
			{60 * sec, "look", 0, stand{4, 0, 6}},
		}},
		{"sliding_log: out of sight", limit.Spec{Algorithm: limit.SlidingLog, Limit: 10, Window: minute}, []line{
			{0, "hold", 6, stand{0, 6, 4}},
			{60 * sec, "look", 0, stand{0, 0, 10}},
			{60 * sec, "settle", 9, stand{0, 0, 10}},
		}},
		{"first use: another window has begun", limit.Spec{Limit: 10, Window: minute, FirstUse: true}, []line{
			{10 * sec, "hold", 6, stand{0, 6, 4}},
			{75 * sec, "charge", 3, stand{3, 0, 7}},
			{75 * sec, "settle", 9, stand{3, 0, 7}},
		}},
		{"calendar: a stream across midnight never touches the new day", limit.Spec{Algorithm: limit.CalendarWindow, Limit: 10, Calendar: calendar("day;UTC")}, []line{
			{12*hour - 1, "hold", 6, stand{0, 6, 4}},
			{12 * hour, "look", 0, stand{0, 0, 10}},
			{12 * hour, "settle", 9, stand{0, 0, 10}},
		}},
		{"concurrency: what was used does not matter", limit.Spec{Algorithm: limit.Concurrency, Limit: 2}, []line{
			{0, "hold", 2, stand{0, 2, 0}},
			{minute, "settle", 9, stand{0, 0, 2}},
		}},
	} {
		t.Run(walk.name, func(t *testing.T) {
			clock := NewClock(noon)
			s := open(t, clock)
			for _, l := range walk.lines {
				clock.Set(noon + l.at)
				switch l.do {
				case "hold":
					lease := opens(1, 1)
					lease.Lasts = hour
					applyStep(t, s, &store.Step{Lease: lease, Ops: ops(holding("b", walk.spec, l.amount, 0))})
				case "renew":
					applyStep(t, s, &store.Step{Lease: renews(1, l.amount)})
				case "settle":
					applyStep(t, s, &store.Step{Lease: settles(1, 1, l.amount)})
				case "charge":
					apply(t, s, strict("b", walk.spec, l.amount))
				}
				now := apply(t, s, strict("b", walk.spec, 0), wall()).Results[0]
				if got := (stand{now.Used, now.Held, now.Remaining}); got != l.stands {
					t.Errorf("%d µs after noon, %s %d: the bucket stands at %+v, want %+v", l.at, l.do, l.amount, got, l.stands)
				}
			}
		})
	}
}

// testOverlappingHolds: however many calls hold a part of a token bucket at once, and in whatever order they are settled,
// it is left with what they have used.
func testOverlappingHolds(t *testing.T, open Open) {
	const calls, estimate, used = 50, 300, 30
	clock := NewClock(noon)
	s := open(t, clock)
	spec := limit.Spec{Algorithm: limit.TokenBucket, Limit: 60, Burst: calls * estimate, Window: hour}
	for i := range calls {
		lease := opens(i, 1)
		lease.Lasts = hour
		if out := applyStep(t, s, &store.Step{Lease: lease, Ops: ops(holding("b", spec, estimate, 0))}); out.Refused {
			t.Fatalf("call %d is refused", i)
		}
	}
	for _, i := range rand.New(rand.NewPCG(1, 2)).Perm(calls) { //nolint:gosec // the same each time
		applyStep(t, s, &store.Step{Lease: settles(i, 1, used)})
	}
	now := apply(t, s, strict("b", spec, 0), wall()).Results[0]
	if got, want := (stand{now.Used, now.Held, now.Remaining}), (stand{calls * used, 0, calls * (estimate - used)}); got != want {
		t.Errorf("the bucket stands at %+v, want %+v", got, want)
	}
}
