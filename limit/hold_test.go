package limit_test

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/rationhq/ration/limit"
)

// A hold that is settled at once leaves what a charge of what was used would have left, whatever was
// held; and until it is settled it counts as a charge of what is held.
func TestHoldIsACharge(t *testing.T) {
	for _, f := range families(t) {
		if f.spec.Algorithm == limit.Concurrency {
			continue // a place is taken by holds alone
		}
		t.Run(f.name, func(t *testing.T) { rapid.Check(t, f.holdIsACharge) })
	}
}

func (f family) holdIsACharge(r *rapid.T) {
	w := &walk{family: f, s: f.spec, ref: f.reference()}
	if f.windows != nil {
		w.s.Window = rapid.SampledFrom(f.windows).Draw(r, "window")
	}
	w.tune(r)
	w.clock = w.start(r)
	for range rapid.IntRange(0, 5).Draw(r, "steps before") {
		w.wait(r)
		w.chargeRegardless(r)
	}
	w.wait(r)
	most := int64(1) << 51
	if w.s.Algorithm == limit.SlidingLog {
		most = mostOfAnInstant / 2
	}
	amount := rapid.Int64Range(1, most).Draw(r, "held")
	actual := rapid.Int64Range(1, most).Draw(r, "actual")
	if w.s.Describe(&w.st, w.now).Used > most {
		return // a pinned count does not know what it has left out
	}

	charged, reserved, settled := clone(w.st), clone(w.st), clone(w.st)
	w.s.Charge(&charged, w.now, actual)
	w.s.Hold(&reserved, w.now, actual)
	w.s.Settle(&settled, w.now, w.s.Hold(&settled, w.now, amount), amount, actual)
	t := w.now
	for range 3 {
		w.s.Advance(&charged, t)
		w.s.Advance(&reserved, t)
		w.s.Advance(&settled, t)
		want := w.s.Judge(&charged, t, 1, 0)
		if got := w.s.Judge(&settled, t, 1, 0); got != want {
			r.Fatalf("%d held and settled at %d: %d µs later the bucket says %+v; if %d had been charged, %+v", amount, actual, t-w.now, got, actual, want)
		}
		got := w.s.Judge(&reserved, t, 1, 0)
		if got.Used+got.Held != want.Used || got.Remaining != want.Remaining || got.Refused != want.Refused ||
			got.RetryAfter != want.RetryAfter || got.ResetAfter != want.ResetAfter {
			r.Fatalf("%d held: %d µs later the bucket says %+v; if it had been charged, %+v", actual, t-w.now, got, want)
		}
		t = min(last, t+w.step(r))
	}
}

// A hold that is released at once leaves nothing, but that a window of first use has begun.
func TestReleasedAtOnce(t *testing.T) {
	for _, f := range families(t) {
		s := f.spec
		if s.Limit = 5; f.windows != nil {
			s.Window = minute
		}
		if s.Algorithm == limit.TokenBucket {
			s.Burst = 5
		}
		var st limit.State
		now := s.Advance(&st, 1000*day)
		s.Settle(&st, now, s.Hold(&st, now, 3), 3, 0)
		if got := s.Describe(&st, now); got != (limit.Status{Remaining: 5}) {
			t.Errorf("%s: after a hold was released, the bucket is described as %+v", f.name, got)
		}
	}
}

// What stands in the way decides what a refused caller is told: where it is only holds, the first that
// lapses may make room before time does.
func TestEstimated(t *testing.T) {
	s := limit.Spec{Limit: 10, Window: minute}
	cases := []struct {
		name         string
		spent, held  int64
		amount       int64
		lapses       limit.Micros // of the first hold, from now on
		retry        limit.Micros
		estimated    bool
		withoutHolds bool
	}{
		{"only spent", 10, 0, 1, 0, minute, false, false},
		{"only held, a lease shorter than the window", 0, 10, 1, 20 * limit.Second, 20 * limit.Second, true, true},
		{"only held, a lease longer than the window", 0, 10, 1, 2 * minute, minute, false, true},
		{"only held, a lease as long as the window", 0, 10, 1, minute, minute, false, true},
		{"held and spent, either would do", 4, 6, 6, 20 * limit.Second, 20 * limit.Second, true, true},
		{"held and spent, holds alone would not do", 4, 6, 7, 20 * limit.Second, minute, true, false},
	}
	for _, c := range cases {
		var st limit.State
		now := s.Advance(&st, 1000*day)
		s.Charge(&st, now, c.spent)
		earliest := limit.Micros(0)
		if c.held > 0 {
			s.Hold(&st, now, c.held)
			earliest = now + c.lapses
		}
		want := limit.Status{
			Refused: true, FitsWithoutHolds: c.withoutHolds, Estimated: c.estimated,
			Used: c.spent, Held: c.held, Remaining: 10 - c.spent - c.held, RetryAfter: c.retry, ResetAfter: minute,
		}
		if got := s.Judge(&st, now, c.amount, earliest); got != want {
			t.Errorf("%s: %+v\nwant %+v", c.name, got, want)
		}
	}
}

// A clock that has stepped back by less than the tolerance finds time standing still, and everything
// later by the step; also a lapse, which is by the clock.
func TestAfterAStepBack(t *testing.T) {
	s := limit.Spec{Algorithm: limit.FixedWindow, Limit: 10, Window: minute}
	var st limit.State
	clock := 1000 * day
	now := s.Advance(&st, clock)
	s.Hold(&st, now, 10)
	clock -= 5 * limit.Second
	if now = s.Advance(&st, clock); now != 1000*day {
		t.Fatalf("the bucket stands at %d, want where it was", now)
	}
	for earliest, want := range map[limit.Micros]limit.Micros{0: 65 * limit.Second, clock + 2*limit.Second: 2 * limit.Second} {
		got := s.Judge(&st, now, 1, earliest).After(now - clock)
		if got.RetryAfter != want || got.ResetAfter != 65*limit.Second {
			t.Errorf("retry after %d µs, reset after %d µs, want %d and 65 s", got.RetryAfter, got.ResetAfter, want)
		}
	}
	if got := s.Describe(&st, now).After(now - clock); got.RetryAfter != 0 {
		t.Errorf("nothing was refused, and the wait is %d µs", got.RetryAfter)
	}
}

// A hold in a filling of the bucket that is over gives nothing back to another, also where a clock that
// was wrong shows the instant of the first again.
func TestTokenBucketFillings(t *testing.T) {
	s := limit.Spec{Algorithm: limit.TokenBucket, Limit: 10, Burst: 10, Window: minute}
	var st limit.State
	const first = 100 * minute
	now := s.Advance(&st, first)
	mark := s.Hold(&st, now, 8)

	now = s.Advance(&st, first+3*minute) // drained
	s.Charge(&st, now, 3)
	s.Advance(&st, first-minute) // the clock is put right: nothing drains
	now = s.Advance(&st, first)  // empty again, at the very instant of the hold
	s.Charge(&st, now, 10)
	s.Settle(&st, now, mark, 8, 0)
	if got := s.Describe(&st, now).Remaining; got != 0 {
		t.Errorf("%d are left after 10 of 10 were charged, want none", got)
	}
}

// A bucket that was restored from before its hold gives back no more than is in it.
func TestTokenBucketForgotten(t *testing.T) {
	s := limit.Spec{Algorithm: limit.TokenBucket, Limit: 10, Burst: 10, Window: minute}
	var st limit.State
	now := s.Advance(&st, 100*minute)
	s.Charge(&st, now, 2)
	restored := st
	s.Charge(&st, now, 2)
	mark := s.Hold(&st, now, 6)

	s.Settle(&restored, now, mark, 6, 0)
	if got := s.Describe(&restored, now).Remaining; got != 8 {
		t.Errorf("%d are left after 2 of 10 were charged, want 8", got)
	}
}

// A bucket that no longer drains is never idle, however little is in it.
func TestTokenBucketWithoutRate(t *testing.T) {
	s := limit.Spec{Algorithm: limit.TokenBucket, Limit: 10, Burst: 10, Window: minute}
	var st limit.State
	s.Charge(&st, s.Advance(&st, day), 1)
	now := s.Advance(&st, day+3*limit.Second)
	s.Limit = 0 // half a unit is left
	if got := s.Idle(&st); got != limit.Micros(limit.MaxAmount) {
		t.Errorf("idle at %d, now is %d, with %+v", got, now, s.Describe(&st, now))
	}
	s.Limit = 10 // another tier
	if got := s.Idle(&st); got != now+3*limit.Second {
		t.Errorf("idle %d µs from now, want 3 s", got-now)
	}
}

// What is settled above its hold counts, also where the clock has brought back a window in which
// nothing else has.
func TestDebtOfAWindowThatCameBack(t *testing.T) {
	s := limit.Spec{Limit: 10, Window: 60 * minute}
	var st limit.State
	mark := s.Hold(&st, s.Advance(&st, day), 1)
	s.Advance(&st, day+60*minute)
	now := s.Advance(&st, day+30*minute)
	s.Settle(&st, now, mark, 1, 4)
	now = s.Advance(&st, now+1)
	if got := s.Describe(&st, now); got.Used != 3 || s.Idle(&st) != day+60*minute {
		t.Errorf("3 are debt, and the answer is %+v, idle at %d", got, s.Idle(&st))
	}
}
