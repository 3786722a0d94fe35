package limit_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/rationhq/ration/limit"
)

// However calls overlap, and in whatever order they end: a token bucket is left with what they have used.
func TestTokenBucketOverlappingCalls(t *testing.T) {
	s := limit.Spec{Algorithm: limit.TokenBucket, Limit: 60, Burst: 100_000, Window: 60 * minute}
	rng := rand.New(rand.NewPCG(1, 2))
	for _, calls := range []int{2, 3, 10, 50, limit.MaxFloors} {
		for range 20 {
			var st limit.State
			now := s.Advance(&st, day)
			marks := make([]limit.Mark, calls)
			for i := range marks {
				marks[i] = s.Hold(&st, now, 300)
			}
			for _, i := range rng.Perm(calls) {
				s.Settle(&st, now, marks[i], 300, 10)
			}
			if got, want := s.Describe(&st, now).Used, 10*int64(calls); got != want {
				t.Errorf("%d calls have used 10 each, and %d are used, want %d", calls, got, want)
			}
			if st.Log != nil {
				t.Errorf("all calls have ended, and %+v is left of them", st.Log)
			}
		}
	}
}

// A hold that has grown has a floor of its own, below those of others before it. Where that is not kept apart, it
// gives back no more all the same.
func TestTokenBucketGrownBeyondTheFloors(t *testing.T) {
	s := limit.Spec{Algorithm: limit.TokenBucket, Limit: 60, Burst: 100_000, Window: 60 * minute} // one a minute
	var st limit.State
	now := s.Advance(&st, day)
	s.Hold(&st, now, 1)
	mark := s.Hold(&st, now, 9)
	now = s.Advance(&st, day+5*minute)
	s.Hold(&st, now, 95)
	mark = s.Grow(&st, now, mark, 1) // 5 are left of it, and of what is below it
	for range limit.MaxFloors - 2 {  // one more than there are floors left
		s.Hold(&st, now, 1000)
	}
	if len(st.Log.Floors) != limit.MaxFloors {
		t.Fatalf("%d floors, want %d", len(st.Log.Floors), limit.MaxFloors)
	}
	before := s.Describe(&st, now).Remaining
	s.Settle(&st, now, mark, 10, 0)
	if got := s.Describe(&st, now).Remaining - before; got != 6 {
		t.Errorf("%d come back, want 6", got)
	}
}

// Holds between which nothing can be told apart any more have one floor.
func TestTokenBucketFloorsJoin(t *testing.T) {
	s := limit.Spec{Algorithm: limit.TokenBucket, Limit: 60, Burst: 100, Window: 60 * minute} // one a minute
	hold := func(st *limit.State, now limit.Micros, units ...int64) (last limit.Mark) {
		for _, n := range units {
			last = s.Hold(st, now, n)
		}
		return last
	}
	for _, c := range []struct {
		name   string
		do     func(st *limit.State, now limit.Micros)
		floors []limit.Floor
	}{
		{"two holds", func(st *limit.State, now limit.Micros) { hold(st, now, 10, 2) },
			[]limit.Floor{{Entered: 10, Count: 10, Holds: 1}, {Entered: 12, Count: 12, Holds: 1}}},
		{"of nothing", func(st *limit.State, now limit.Micros) { hold(st, now, 10, 0, 0) },
			[]limit.Floor{{Entered: 10, Count: 10, Holds: 3}}},
		{"drained below both", func(st *limit.State, now limit.Micros) {
			hold(st, now, 10, 2)
			hold(st, s.Advance(st, now+4*minute), 1)
		}, []limit.Floor{{Entered: 10, Count: 8, Holds: 2}, {Entered: 13, Count: 9, Holds: 1}}},
		{"what was below both is given back", func(st *limit.State, now limit.Micros) {
			mark := hold(st, now, 10, 2, 9)
			s.Settle(st, s.Advance(st, now+7*minute), mark, 9, 0)
		}, []limit.Floor{{Entered: 10, Count: 5, Holds: 2}}},
	} {
		var st limit.State
		c.do(&st, s.Advance(&st, day))
		if got := st.Log.Floors; !slices.Equal(got, c.floors) {
			t.Errorf("%s: the floors are %+v, want %+v", c.name, got, c.floors)
		}
	}
}

// traffic is a token bucket before which calls come and go at random: each holds 300 and uses 30 to 300 of them. past
// is all that flowed in, and out as a negative amount, since it was last empty, in units of 1/Window.
type traffic struct {
	s     limit.Spec
	st    limit.State
	rng   *rand.Rand
	now   limit.Micros
	live  []call
	past  []int64
	given [2]int64 // by the bucket, and what it could have given, in units of 1/Window
	most  int      // calls at once
}

type call struct {
	mark limit.Mark
	ends limit.Micros
	// place is that in past; -1 if the bucket has been empty since.
	place int
}

const estimate = 300

// flow runs calls that come every so often on average, and last for so long, and looks at what comes back of each.
func (f *traffic) flow(t *testing.T, calls int, every, lasts float64) {
	t.Helper()
	f.now = day
	comes := f.now
	for range 2 * calls {
		next := -1
		for i := range f.live {
			if f.live[i].ends < comes && (next < 0 || f.live[i].ends < f.live[next].ends) {
				next = i
			}
		}
		if next >= 0 {
			f.wait(f.live[next].ends)
			f.end(t, next)
			continue
		}
		f.wait(comes)
		comes += limit.Micros(f.rng.ExpFloat64() * every)
		if f.s.Judge(&f.st, f.now, estimate, 0).Refused {
			continue
		}
		mark := f.s.Hold(&f.st, f.now, estimate)
		f.live = append(f.live, call{mark, f.now + limit.Micros(f.rng.ExpFloat64()*lasts), len(f.past)})
		f.past = append(f.past, estimate*int64(f.s.Window))
		f.most = max(f.most, len(f.live))
	}
}

func (f *traffic) wait(until limit.Micros) {
	f.past = append(f.past, -int64(until-f.now)*f.s.Limit)
	if f.replay() == 0 && until > f.now {
		f.past = f.past[:0]
		for i := range f.live {
			f.live[i].place = -1
		}
	}
	f.now = f.s.Advance(&f.st, until)
}

// replay returns the level that all of the past leads to.
func (f *traffic) replay() (level int64) {
	for _, amount := range f.past {
		level = max(0, level+amount)
	}
	return level
}

func (f *traffic) level() int64 { return f.st.Count*int64(f.s.Window) + f.st.Rest }

func (f *traffic) end(t *testing.T, i int) {
	t.Helper()
	c := f.live[i]
	f.live = slices.Delete(f.live, i, i+1)
	before, actual := f.level(), 30+f.rng.Int64N(estimate-29)
	f.s.Settle(&f.st, f.now, c.mark, estimate, actual)
	given, could := before-f.level(), int64(0)
	if c.place >= 0 {
		f.past[c.place] = actual * int64(f.s.Window)
		could = before - f.replay()
		// What it does not give back it goes on with as used.
		f.past[c.place] = estimate*int64(f.s.Window) - given
	}
	if given > could || f.replay() != f.level() && c.place >= 0 {
		t.Fatalf("%d of 1/%d are given back of a hold, want at most %d", given, f.s.Window, could)
	}
	f.given[0] += given
	f.given[1] += could
}

// Calls that come and go give back exactly what would not be in the bucket if they had held no more than they used, as
// long as no more overlap than the bucket tells apart; and never more.
func TestTokenBucketTraffic(t *testing.T) {
	for _, c := range []struct {
		name   string
		burst  int64
		lasts  float64 // for so many times the pause between two calls
		load   float64 // used, of what drains
		losing bool
	}{
		{"few at once", 3000, 10, 0.9, false},
		{"more than there is room for", 3000, 50, 1.5, false},
		{"many at once", 20_000, 40, 0.8, false},
		{"far more than are told apart", 60_000, 400, 0.9, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			for seed := range uint64(20) {
				f := &traffic{
					s:   limit.Spec{Algorithm: limit.TokenBucket, Limit: 1000, Burst: c.burst, Window: limit.Second},
					rng: rand.New(rand.NewPCG(seed, 7)),
				}
				pause := 165.0 / 1000 * float64(limit.Second) / c.load
				f.flow(t, 800, pause, c.lasts*pause)
				if told := f.most <= limit.MaxFloors; told == c.losing || told && f.given[0] != f.given[1] {
					t.Errorf("at most %d calls at once: %d of 1/%d were given back, want %d",
						f.most, f.given[0], f.s.Window, f.given[1])
				}
				if share := float64(f.given[0]) / float64(f.given[1]); share < 0.93 {
					t.Errorf("at most %d calls at once: %.2f of what could be was given back", f.most, share)
				} else if seed == 0 {
					t.Logf("at most %d calls at once: %.4f of what could be was given back", f.most, share)
				}
			}
		})
	}
}
