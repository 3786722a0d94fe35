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
	amount := rapid.Int64Range(0, most).Draw(r, "held")
	actual := rapid.Int64Range(1, most).Draw(r, "actual")
	if w.s.Describe(&w.st, w.now).Used > most {
		return // a pinned count does not know what it has left out
	}

	charged, reserved, settled := w.st.Clone(), w.st.Clone(), w.st.Clone()
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

// A hold that has grown is as good as one that was made so large, whatever was charged and held in between, and
// leaves the same when it is settled; while its window has not moved on, and nothing has drained to the bottom.
func TestGrownHoldIsALargerOne(t *testing.T) {
	for _, f := range families(t) {
		if f.spec.Algorithm == limit.Concurrency {
			continue // places do not grow
		}
		t.Run(f.name, func(t *testing.T) {
			compared := 0
			rapid.Check(t, func(r *rapid.T) {
				if f.grownHoldIsALargerOne(r) {
					compared++
				}
			})
			if compared < 20 {
				t.Errorf("only %d histories were compared", compared)
			}
		})
	}
}

func (f family) grownHoldIsALargerOne(r *rapid.T) (compared bool) {
	w := &walk{family: f, s: f.spec, ref: f.reference()}
	if f.windows != nil {
		w.s.Window = rapid.SampledFrom(f.windows).Draw(r, "window")
	}
	w.tune(r)
	w.clock = w.start(r)
	units := rapid.Int64Range(1, 30)
	w.arrive(r)
	w.s.Charge(&w.st, w.now, units.Draw(r, "before"))

	grown, larger := w.st.Clone(), w.st.Clone()
	first, more := units.Draw(r, "held"), units.Draw(r, "more")
	mark := w.s.Hold(&grown, w.now, first)
	larger0 := w.s.Hold(&larger, w.now, first+more)
	both := func(do func(st *limit.State)) {
		do(&grown)
		do(&larger)
	}
	now := w.now
	pass := func(what string) {
		now = min(last, now+limit.Micros(rapid.Int64Range(0, int64(w.span()/2)).Draw(r, what)))
		both(func(st *limit.State) { w.s.Advance(st, now) })
	}
	charge := func(n int64) { both(func(st *limit.State) { w.s.Charge(st, now, n) }) }
	charge(units.Draw(r, "between"))
	pass("µs before it grows")
	if !w.s.Frees(&grown, now, mark, first, 0) {
		return false // it has moved on
	}
	mark = w.s.Grow(&grown, now, mark, more)
	same := func(when string) {
		if got, want := w.s.Judge(&grown, now, 1, 0), w.s.Judge(&larger, now, 1, 0); got != want {
			r.Fatalf("%s: %d grown by %d is %+v; made so large %+v", when, first, more, got, want)
		}
	}
	same("grown")
	charge(units.Draw(r, "after"))
	pass("µs before it is settled")
	same("later")
	actual := rapid.Int64Range(0, first+more+5).Draw(r, "actual")
	w.s.Settle(&grown, now, mark, first+more, actual)
	w.s.Settle(&larger, now, larger0, first+more, actual)
	same("settled")
	return true
}

// Where the window of a hold has passed out of sight, what it grows by is not counted in another one.
func TestGrowthStaysInItsWindow(t *testing.T) {
	for _, s := range spanned() {
		for _, later := range []limit.Micros{60 * minute, 2 * 60 * minute} {
			var st limit.State
			mark := s.Hold(&st, s.Advance(&st, day), 4)
			now := s.Advance(&st, day+later)
			fades := s.Algorithm == limit.SlidingWindow && later == 60*minute // it is in the window before
			want := limit.Status{Remaining: 10}
			if fades {
				want = limit.Status{Held: 9, Remaining: 1, ResetAfter: 60 * minute}
			}
			mark = s.Grow(&st, now, mark, 5)
			if got := s.Describe(&st, now); got != want {
				t.Errorf("%v, %d µs later: 4 grown by 5 are %+v, want %+v", s.Algorithm, later, got, want)
			}
			s.Settle(&st, now, mark, 9, 0)
			if got := s.Describe(&st, now); got != (limit.Status{Remaining: 10}) {
				t.Errorf("%v, %d µs later: nothing was used, and the answer is %+v", s.Algorithm, later, got)
			}
		}
	}
}

// What a token bucket's hold has grown by, when a part of what was in it had drained, is debt from then on; settling
// gives back all that would not be there without the hold, and nothing of what others have in the bucket.
func TestTokenBucketGrowthAfterDraining(t *testing.T) {
	s := limit.Spec{Algorithm: limit.TokenBucket, Limit: 60, Burst: 10, Window: 60 * minute} // one a minute
	for _, others := range []int64{0, 6, 9} {
		var st limit.State
		now := s.Advance(&st, day)
		mark := s.Hold(&st, now, 5)
		s.Charge(&st, now, others)
		now = s.Advance(&st, day+7*minute)
		s.Charge(&st, now, 2)
		level := max(0, 5+others-7) + 2
		mark = s.Grow(&st, now, mark, 30)
		if got := s.Describe(&st, now).Remaining; got != 10-level-30 {
			t.Errorf("%d of others: %d remain, want %d", others, got, 10-level-30)
		}
		s.Settle(&st, now, mark, 35, 0)
		if got, want := s.Describe(&st, now), 10-max(0, others-7)-2; got.Remaining != want || got.Held != 0 {
			t.Errorf("%d of others, settled to nothing: %+v, want %d to remain", others, got, want)
		}
	}
}

// A hold that grows where the count of what came in begins anew gives back its own, and those that were made before
// give back nothing: what is theirs is not known any more.
func TestTokenBucketGrowthBeyondTheCount(t *testing.T) {
	s := limit.Spec{Algorithm: limit.TokenBucket, Limit: 1, Burst: 10, Window: day}
	var st limit.State
	now := s.Advance(&st, day)
	mark := s.Hold(&st, now, 4)
	s.Charge(&st, now, limit.MaxAmount-10)
	s.GiveBack(&st, now, limit.MaxAmount-10)
	s.Charge(&st, now, 3)
	other := s.Hold(&st, now, 1)
	mark = s.Grow(&st, now, mark, 4)
	if mark.Entered < 0 {
		t.Errorf("it lies at %+v, want counts in 0…2^53−1", mark)
	}
	s.Settle(&st, now, mark, 8, 0)
	s.Settle(&st, now, other, 1, 0)
	if got, want := s.Describe(&st, now), (limit.Status{Used: 4, Remaining: 6, ResetAfter: 4 * day}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if st.Log != nil {
		t.Errorf("nothing is held, and %+v is left of holds", st.Log)
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

	for name, settle := range map[string]func(st *limit.State){
		"settled":           func(st *limit.State) { s.Settle(st, now, mark, 6, 0) },
		"grown and settled": func(st *limit.State) { s.Settle(st, now, s.Grow(st, now, mark, 3), 9, 0) },
	} {
		st := restored
		settle(&st)
		if got := s.Describe(&st, now).Remaining; got != 8 {
			t.Errorf("%s: %d are left after 2 of 10 were charged, want 8", name, got)
		}
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

// spanned returns one limit of each algorithm that has windows or a log of an hour: 10 units.
func spanned() []limit.Spec {
	return []limit.Spec{
		{Limit: 10, Window: 60 * minute},
		{Limit: 10, Window: 60 * minute, FirstUse: true},
		{Limit: 10, Algorithm: limit.CalendarWindow, Calendar: &limit.Calendar{Period: limit.PerHour}},
		{Limit: 10, Window: 60 * minute, Algorithm: limit.SlidingWindow},
		{Limit: 10, Window: 60 * minute, Algorithm: limit.SlidingLog},
	}
}

// An instant comes twice: after a step back of the clock, or because a bucket that was forgotten begins
// anew at an instant that is over. What was held the first time gives nothing back the second time.
func TestNamesakes(t *testing.T) {
	for _, s := range spanned() {
		for _, c := range []struct {
			name  string
			then  func(st *limit.State)
			again limit.Micros
		}{
			{"something is counted in between", func(st *limit.State) { s.Charge(st, s.Advance(st, day+3*60*minute), 1) }, day},
			{"nothing is counted in between", func(st *limit.State) { s.Advance(st, day+3*60*minute) }, day},
			{"another bucket", func(st *limit.State) { *st = limit.State{} }, day + 1},
		} {
			var st limit.State
			mark := s.Hold(&st, s.Advance(&st, day), 10)
			if !s.Frees(&st, day, mark, 10, 0) {
				t.Errorf("%v: a hold of all there is frees nothing", s.Algorithm)
			}
			c.then(&st)
			now := s.Advance(&st, c.again)
			s.Charge(&st, now, s.Describe(&st, now).Remaining)
			if s.Frees(&st, now, mark, 10, 0) {
				t.Errorf("%v, %s: what was held the first time frees something", s.Algorithm, c.name)
			}
			s.Settle(&st, now, mark, 10, 0)
			if got := s.Describe(&st, now).Remaining; got != 0 {
				t.Errorf("%v, %s: %d are left after 10 of 10 were charged, want none", s.Algorithm, c.name, got)
			}
		}
	}
}

// A window that has followed the clock back knows of no holds: what they have counted is spent.
func TestStepBackLeavesNoHolds(t *testing.T) {
	for _, s := range spanned()[:4] {
		var st limit.State
		s.Hold(&st, s.Advance(&st, day), 6)
		now := s.Advance(&st, day-150*minute)
		if got := s.Describe(&st, now); got.Used != 6 || got.Held != 0 {
			t.Errorf("%v: %+v, want 6 used and nothing held", s.Algorithm, got)
		}
	}
}

// What a log cannot settle where it was held, since the clock has stepped back, counts from now on as
// far as it is beyond the hold.
func TestLogDebtAfterAStepBack(t *testing.T) {
	s := spanned()[4]
	var st limit.State
	mark := s.Hold(&st, s.Advance(&st, day), 4)
	s.Advance(&st, day-30*minute)
	now := s.Advance(&st, day-20*minute)
	s.Settle(&st, now, mark, 4, 6)
	if got := s.Describe(&st, now); got.Used != 6 || got.ResetAfter != 60*minute {
		t.Errorf("6 were used, and the answer is %+v", got)
	}
}

// A lapse frees something only where something of its hold is still counted.
func TestFrees(t *testing.T) {
	bucket := limit.Spec{Algorithm: limit.TokenBucket, Limit: 60, Burst: 10, Window: 60 * minute} // one a minute
	window, firstUse, hours, sliding, log := spanned()[0], spanned()[1], spanned()[2], spanned()[3], spanned()[4]
	giveBack := func(n int64) func(*limit.Spec, *limit.State, limit.Micros) {
		return func(s *limit.Spec, st *limit.State, now limit.Micros) { s.GiveBack(st, now, n) }
	}
	for _, c := range []struct {
		name  string
		spec  limit.Spec
		then  func(*limit.Spec, *limit.State, limit.Micros)
		after limit.Micros
		lapse int64
		frees bool
	}{
		{"at once", bucket, nil, 0, 0, true},
		{"all of it stays", bucket, nil, 0, 5, false},
		{"a part has drained", bucket, nil, 5*minute - 1, 0, true},
		{"all has drained", bucket, nil, 5 * minute, 0, false},
		{"what is left is given back, and less than a unit is of the hold", bucket, giveBack(4), 30 * limit.Second, 0, true},
		{"all is given back", bucket, giveBack(5), 0, 0, false},
		{"in its window", window, nil, 60*minute - 1, 0, true},
		{"in the next", window, nil, 60 * minute, 0, false},
		{"held is not given back", window, giveBack(5), 0, 0, true},
		{"in its window", firstUse, nil, 60*minute - 1, 0, true},
		{"in the next", firstUse, nil, 60 * minute, 0, false},
		{"in its window", hours, nil, 60*minute - 1, 0, true},
		{"in the next", hours, nil, 60 * minute, 0, false},
		{"in the next", sliding, nil, 2*60*minute - 1, 0, true},
		{"in the one after", sliding, nil, 2 * 60 * minute, 0, false},
		{"in sight", log, nil, 60*minute - 1, 0, true},
		{"out of sight", log, nil, 60 * minute, 0, false},
		{"some is given back", log, giveBack(4), 0, 0, true},
		{"all is given back", log, giveBack(5), 0, 0, false},
		{"a place", limit.Spec{Algorithm: limit.Concurrency, Limit: 9}, nil, day, 5, true},
	} {
		var st limit.State
		now := c.spec.Advance(&st, day)
		mark := c.spec.Hold(&st, now, 5)
		if c.then != nil {
			c.then(&c.spec, &st, now)
		}
		now = c.spec.Advance(&st, day+c.after)
		if c.after > 0 {
			c.spec.Charge(&st, now, 1) // of somebody else
		}
		if got := c.spec.Frees(&st, now, mark, 5, c.lapse); got != c.frees {
			t.Errorf("%v, %s: frees %v, want %v", c.spec.Algorithm, c.name, got, c.frees)
		}
	}
}

// A correction in the window before takes nothing of what is still held there.
func TestCorrectionSparesHoldsOfTheWindowBefore(t *testing.T) {
	s := spanned()[3]
	var st limit.State
	now := s.Advance(&st, day)
	lapsed, live := s.Hold(&st, now, 5), s.Hold(&st, now, 5)
	s.Settle(&st, now, lapsed, 5, 5)
	s.GiveBack(&st, now, 5)
	now = s.Advance(&st, day+60*minute)
	s.Correct(&st, now, lapsed, 5, 0) // a second time, as it were
	if got := s.Describe(&st, now); got.Held != 5 || got.Remaining != 5 {
		t.Errorf("5 are held, and the answer is %+v", got)
	}
	s.Settle(&st, now, live, 5, 0)
	if got := s.Describe(&st, now); got != (limit.Status{Remaining: 10}) {
		t.Errorf("nothing was used, and the answer is %+v", got)
	}
}

// When buckets are idle: nothing that was counted in them matters then, nor what was held.
func TestIdle(t *testing.T) {
	bucket := limit.Spec{Algorithm: limit.TokenBucket, Limit: 60, Burst: 10, Window: 60 * minute}
	places := limit.Spec{Algorithm: limit.Concurrency, Limit: 9}
	window, firstUse, hours, sliding, log := spanned()[0], spanned()[1], spanned()[2], spanned()[3], spanned()[4]
	const at = day + 15*minute
	for _, c := range []struct {
		spec                     limit.Spec
		looked, charged, settled limit.Micros // the bucket is idle after it was just that: settled to nothing
	}{
		{bucket, at, at + 5*minute, at},
		{window, day, day + 60*minute, day + 60*minute},
		{firstUse, at, at + 60*minute, at + 60*minute},
		{hours, day, day + 60*minute, day + 60*minute},
		{sliding, day + 120*minute, day + 120*minute, day + 120*minute},
		{log, at, at + 60*minute, at},
		{places, at, at, at},
	} {
		var looked limit.State
		now := c.spec.Advance(&looked, at)
		charged, settled := looked, looked
		c.spec.Charge(&charged, now, 5)
		c.spec.Settle(&settled, now, c.spec.Hold(&settled, now, 5), 5, 0)
		for _, of := range []struct {
			name string
			st   *limit.State
			want limit.Micros
		}{{"looked at", &looked, c.looked}, {"charged", &charged, c.charged}, {"settled", &settled, c.settled}} {
			if got := c.spec.Idle(of.st); got != of.want {
				t.Errorf("%v, %s: idle at %d, want %d", c.spec.Algorithm, of.name, got, of.want)
			}
		}
	}
}
