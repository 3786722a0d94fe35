package lane_test

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/rationhq/ration/internal/lanesim"
	"github.com/rationhq/ration/lane"
	"github.com/rationhq/ration/limit"
)

const second = limit.Second

// perSecond is a drain: so many turns in a second, one at a time.
func perSecond(n int64) *limit.Spec {
	return &limit.Spec{Algorithm: limit.TokenBucket, Limit: n, Burst: 1, Window: second}
}

func places(n int64) *limit.Spec { return &limit.Spec{Algorithm: limit.Concurrency, Limit: n} }

func strict(classes int, aging limit.Micros) lane.Spec {
	return lane.Spec{Classes: classes, Aging: aging, Most: lane.MaxTickets, MostOfSubject: lane.MaxTickets}
}

func weighted(weights ...int64) lane.Spec {
	return lane.Spec{Classes: len(weights), Weights: weights, Most: lane.MaxTickets, MostOfSubject: lane.MaxTickets}
}

// turn is one that is offered to a caller.
type turn struct {
	call int
	*lanesim.Fate
}

// turns returns the calls that were made: all, or those that have led to an admission, in their order.
func turns(fates []*lanesim.Fate, all bool) (made []turn) {
	for _, f := range fates {
		for i, call := range f.Calls {
			if all || f.End == lanesim.Admitted && i == len(f.Calls)-1 {
				made = append(made, turn{call, f})
			}
		}
	}
	slices.SortFunc(made, func(a, b turn) int { return a.call - b.call })
	return made
}

// passedTwice returns one that waits in line, and another subject of its class that is admitted twice meanwhile. offers
// are turns of the one's own subject after which it counts anew.
func passedTwice(fates []*lanesim.Fate, offers []turn) (passed, first, second *lanesim.Fate) {
	admitted := turns(fates, false)
	for _, f := range fates {
		if len(f.Calls) == 0 && f.End != lanesim.Waiting {
			continue // it has not waited in line, or has left it
		}
		before, own := map[int]*lanesim.Fate{}, 0
		for _, other := range admitted {
			for ; own < len(offers) && offers[own].call <= other.call; own++ {
				if offers[own].Class == f.Class && offers[own].Subject == f.Subject {
					clear(before)
				}
			}
			if f.End == lanesim.Admitted && other.call >= f.Calls[len(f.Calls)-1] {
				break
			}
			if other.Class != f.Class || other.Subject == f.Subject || f.Entered == 0 || other.call < f.Entered {
				continue
			}
			if first := before[other.Subject]; first != nil {
				return f, first, other.Fate
			}
			before[other.Subject] = other.Fate
		}
	}
	return nil, nil, nil
}

// somebody draws a caller.
func somebody(classes, subjects int) *rapid.Generator[lanesim.Caller] {
	return rapid.Custom(func(r *rapid.T) lanesim.Caller {
		return lanesim.Caller{
			Comes:   limit.Micros(rapid.Int64Range(0, 3000).Draw(r, "comes")) * second / 100,
			Class:   rapid.IntRange(0, classes-1).Draw(r, "class"),
			Subject: rapid.IntRange(0, subjects-1).Draw(r, "subject"),
			Holds:   limit.Micros(rapid.Int64Range(1, 300).Draw(r, "holds")) * second / 100,
			Process: rapid.IntRange(0, 2).Draw(r, "process"),
		}
	})
}

// anyLane draws what a lane may be.
func anyLane(r *rapid.T) *lanesim.Lane {
	classes := rapid.IntRange(1, 3).Draw(r, "classes")
	l := &lanesim.Lane{
		Order:      strict(classes, rapid.SampledFrom([]limit.Micros{1, second, 10 * second}).Draw(r, "aging")),
		TryTakes:   rapid.SampledFrom([]limit.Micros{1, 5000, 100_000}).Draw(r, "try takes"),
		Overstates: rapid.Bool().Draw(r, "overstates"),
	}
	if rapid.Bool().Draw(r, "weighted") {
		l.Order = weighted(rapid.SliceOfN(rapid.Int64Range(1, 10), classes, classes).Draw(r, "weights")...)
	}
	kind := rapid.IntRange(0, 3).Draw(r, "limits")
	if kind&1 == 0 {
		l.Drain = perSecond(rapid.Int64Range(1, 30).Draw(r, "drain"))
	}
	if kind > 0 {
		l.Places = places(rapid.Int64Range(1, 20).Draw(r, "places"))
	}
	return l
}

// With equal costs nobody has two turns while another of the class waits for one, whatever else happens.
func TestSubjectsTakeTurns(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		l := anyLane(r)
		callers := rapid.SliceOfN(somebody(l.Order.Classes, rapid.IntRange(1, 12).Draw(r, "subjects")), 1, 150).Draw(r, "callers")
		fates := l.Play(callers, 300*second)
		if f, first, again := passedTwice(fates, turns(fates, true)); f != nil {
			r.Fatalf("%+v waits while subject %d has two turns:\n%+v\n%+v", *f, first.Subject, *first, *again)
		}
	})
}

// share of what has been had by those who waited all the time.
func had(fates []*lanesim.Fate, from, until limit.Micros, by func(*lanesim.Fate) int) map[int]int64 {
	sum := map[int]int64{}
	for _, f := range fates {
		if f.End == lanesim.Admitted && f.Ended >= from && f.Ended < until {
			sum[by(f)] += f.Cost
		}
	}
	return sum
}

func classOf(f *lanesim.Fate) int   { return f.Class }
func subjectOf(f *lanesim.Fate) int { return f.Subject }

// batch returns n callers that come at once.
func batch(n int, c lanesim.Caller) []lanesim.Caller { return slices.Repeat([]lanesim.Caller{c}, n) }

// Weights come out within 5 % over a minute, whatever the turns cost.
func TestWeights(t *testing.T) {
	for _, c := range []struct {
		name  string
		costs [3]int64
		over  bool
	}{
		{"equal", [3]int64{1, 1, 1}, false},
		{"unequal", [3]int64{3, 1, 2}, false},
		{"unequal, more room told of than there is", [3]int64{1, 2, 5}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, l := range []*lanesim.Lane{
				{Drain: perSecond(10)}, {Places: places(10)}, {Places: places(3), Drain: perSecond(10)},
			} {
				l.Order, l.TryTakes, l.Overstates = weighted(1, 3, 6), 2000, c.over
				var callers []lanesim.Caller
				for class := range 3 {
					for subject := range 10 {
						callers = append(callers, batch(200, lanesim.Caller{
							Class: class, Subject: subject, Cost: c.costs[class], Holds: limit.Micros(300+20*subject) * second / 1000, Process: class,
						})...)
					}
				}
				fates := l.Play(callers, 61*second)
				got := had(fates, second, 61*second, classOf)
				all := got[0] + got[1] + got[2]
				for class, weight := range l.Order.Weights {
					if want := float64(all) * float64(weight) / 10; float64(got[class]) < .95*want || float64(got[class]) > 1.05*want {
						t.Errorf("class %d of weight %d has %d of %d, want %.0f within 5 %%", class, weight, got[class], all, want)
					}
				}
			}
		})
	}
}

// Of subjects that wait all the time each has as much, by cost, as any other, within one largest ticket of each.
func TestSharesByCost(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		l := &lanesim.Lane{Order: strict(1, second), Drain: perSecond(20), TryTakes: 1}
		costs := rapid.SliceOfN(rapid.Int64Range(1, 50), 2, 6).Draw(r, "largest costs")
		var callers []lanesim.Caller
		for subject, largest := range costs {
			for range 600 {
				callers = append(callers, lanesim.Caller{Subject: subject, Cost: rapid.Int64Range(1, largest).Draw(r, "cost")})
			}
		}
		// Others that come and go.
		for range rapid.IntRange(0, 60).Draw(r, "others") {
			callers = append(callers, lanesim.Caller{
				Comes: limit.Micros(rapid.Int64Range(0, 25_000_000).Draw(r, "comes")), Subject: rapid.IntRange(10, 30).Draw(r, "subject"),
				Cost: rapid.Int64Range(1, 50).Draw(r, "cost"),
			})
		}
		fates := l.Play(callers, 28*second)
		begin := limit.Micros(rapid.Int64Range(2_000_000, 20_000_000).Draw(r, "from"))
		for until := begin + second; until < 28*second; until += second {
			got := had(fates, begin, until, subjectOf)
			for a, largest := range costs {
				for b := range a {
					if apart := got[a] - got[b]; max(apart, -apart) > largest+costs[b] {
						r.Fatalf("from %d to %d subject %d has %d and %d has %d, largest %d and %d", begin, until, a, got[a], b, got[b], largest, costs[b])
					}
				}
			}
		}
	})
}
