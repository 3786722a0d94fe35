package limit_test

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/rationhq/ration/limit"
)

// How much is missing of a token bucket of 10 per minute with a burst of 5, of which 2½ are used: a unit drains in 6 s.
func TestMissing(t *testing.T) {
	s := limit.Spec{Algorithm: limit.TokenBucket, Limit: 10, Burst: 5, Window: minute}
	var st limit.State
	now := s.Advance(&st, 1000*day)
	s.Charge(&st, now, 3)
	now = s.Advance(&st, now+3*limit.Second)
	for _, c := range []struct {
		name  string
		leave int64
		wait  limit.Micros
		want  int64
	}{
		{"all of it may remain", 5, 0, 0},
		{"as much as is left", 2, 0, 0},
		{"one less", 1, 0, 1},
		{"nothing", 0, 0, 2},
		{"far more than there ever is", limit.MaxAmount, 0, 0},
		{"a wait: half a unit has to drain, which takes 3 s", 5, 1, 2},
		{"as long as that", 5, 3 * limit.Second, 2},
		{"longer: debt", 5, 3*limit.Second + 1, 3},
		{"as long as it takes two", 5, 15 * limit.Second, 4},
		{"the larger of both", 0, 15 * limit.Second, 4},
		{"an hour", 0, 60 * minute, 602},
		{"no more than an hour's", 0, 60*minute + 1, 602},
		{"a year", 0, 365 * day, 602},
		{"until an instant that is past", 5, -1, 0},
	} {
		if got := s.Missing(&st, now, c.leave, now+c.wait); got != c.want {
			t.Errorf("%s: %d are missing, want %d", c.name, got, c.want)
		}
	}
	never := limit.Spec{Algorithm: limit.TokenBucket, Burst: 5, Window: minute}
	if got := never.Missing(&st, now, 0, now+minute); got != 0 {
		t.Errorf("of a limit of 0, %d are missing", got)
	}
	window := limit.Spec{Algorithm: limit.FixedWindow, Limit: 5, Window: minute}
	if got := window.Missing(&limit.State{}, now, 5, now+minute); got != 0 {
		t.Errorf("a wait, of a window: %d are missing, want 0: its end is its own", got)
	}
}

// What is missing is just as much as it takes: with it no more remains than may, and the next unit has to wait; and
// with one unit less it is not so.
func TestMissingIsExact(t *testing.T) {
	for _, f := range families(t) {
		if f.spec.Algorithm != limit.Concurrency {
			t.Run(f.name, func(t *testing.T) { rapid.Check(t, f.missing) })
		}
	}
}

func (f family) missing(r *rapid.T) {
	s, now, st := f.usedBucket(r)
	amounts := rapid.OneOf(rapid.Int64Range(0, 20), rapid.Int64Range(0, limit.MaxAmount))
	leave := amounts.Draw(r, "leave")
	wait := limit.Micros(rapid.OneOf(
		rapid.Just(int64(0)), rapid.Int64Range(1, 50), rapid.Int64Range(1, int64(2*limit.LongestWait)), amounts,
	).Draw(r, "wait"))
	before := s.Describe(&st, now)
	missing := s.Missing(&st, now, leave, now+wait)

	// asks is what is asked for, of a bucket to which so much is charged.
	asks := func(charged int64) bool {
		after := st.Clone()
		s.Charge(&after, now, charged)
		unit := s.Judge(&after, now, 1, 0)
		waits := s.Algorithm != limit.TokenBucket || unit.Never || wait == 0 || unit.RetryAfter >= min(wait, limit.LongestWait)
		return unit.Remaining <= leave && waits
	}
	switch {
	case missing < 0:
		r.Fatalf("%+v: %d are missing", before, missing)
	case missing == limit.MaxAmount-st.Count: // it cannot be more
	case !asks(missing):
		r.Fatalf("%+v: %d are missing, and that is too little to leave %d and to wait %d µs", before, missing, leave, wait)
	case missing > 0 && asks(missing-1):
		r.Fatalf("%+v: %d are missing, and one less leaves %d and waits %d µs", before, missing, leave, wait)
	}
}

// usedBucket draws a limit and a bucket of it that is used, or in debt, or empty.
func (f family) usedBucket(r *rapid.T) (limit.Spec, limit.Micros, limit.State) {
	s := f.spec
	quantities := rapid.OneOf(rapid.Int64Range(0, 30), rapid.Int64Range(0, f.most), rapid.Int64Range(f.most-3, f.most))
	s.Limit = quantities.Draw(r, "limit")
	if f.windows != nil {
		s.Window = rapid.SampledFrom(f.windows).Draw(r, "window")
	}
	if s.Algorithm == limit.TokenBucket {
		s.Burst = quantities.Draw(r, "burst")
	}
	if rapid.Bool().Draw(r, "ceiling") {
		s.Headroom = rapid.Int64Range(0, s.Capacity()/2+1).Draw(r, "headroom")
	}
	var st limit.State
	now := s.Advance(&st, limit.Micros(1_763_726_400)*limit.Second+limit.Micros(rapid.Int64Range(0, 1000).Draw(r, "start")))
	for range rapid.IntRange(0, 4).Draw(r, "charges") {
		s.Charge(&st, now, rapid.OneOf(rapid.Int64Range(0, 20), rapid.Int64Range(0, max(1, s.Capacity()))).Draw(r, "charge"))
		pause := rapid.OneOf(rapid.Int64Range(0, 100), rapid.Int64Range(0, int64(minute))).Draw(r, "pause")
		now = s.Advance(&st, now+limit.Micros(pause))
	}
	return s, now, st
}
