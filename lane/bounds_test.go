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

// What two classes have had for their weights, while both wait, differs by one largest turn of each.
func TestWeightsWithinOneTurn(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		weights := rapid.SliceOfN(rapid.Int64Range(1, 20), 2, 5).Draw(r, "weights")
		l := &lanesim.Lane{Order: weighted(weights...), Drain: perSecond(20), TryTakes: 1}
		var callers []lanesim.Caller
		largest := make([]int64, len(weights))
		for class := range weights {
			for _, cost := range rapid.SliceOfN(rapid.Int64Range(1, 20), 5, 5).Draw(r, "costs") {
				largest[class] = max(largest[class], cost)
				callers = append(callers, batch(120, lanesim.Caller{Class: class, Subject: int(cost), Cost: cost})...)
			}
		}
		fates := l.Play(callers, 20*second) // 400 turns, and each class has 600
		from := limit.Micros(rapid.Int64Range(2_000_000, 15_000_000).Draw(r, "from"))
		for until := from + second; until < 20*second; until += second {
			got := had(fates, from, until, classOf)
			for a := range weights {
				for b := range a {
					// By products, to stay with whole numbers.
					apart := got[a]*weights[b] - got[b]*weights[a]
					if bound := largest[a]*weights[b] + largest[b]*weights[a]; max(apart, -apart) > bound {
						r.Fatalf("class %d of weight %d has had %d, and class %d of weight %d %d", a, weights[a], got[a], b, weights[b], got[b])
					}
				}
			}
		}
	})
}

// Of subjects that wait all the time each has as much, by cost, as any other, within one largest ticket of each.
func TestSharesByCost(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		l := &lanesim.Lane{Order: strict(1, second), Drain: perSecond(20), TryTakes: 1}
		costs := rapid.SliceOfN(rapid.Int64Range(1, 50), 2, 6).Draw(r, "largest costs")
		var callers []lanesim.Caller
		for subject, largest := range costs {
			for _, cost := range rapid.SliceOfN(rapid.Int64Range(1, largest), 7, 7).Draw(r, "costs") {
				callers = append(callers, batch(80, lanesim.Caller{Subject: subject, Cost: cost})...)
			}
		}
		// Others that come and go.
		for range rapid.IntRange(0, 30).Draw(r, "others") {
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

// Whatever happens: nobody is called that has had its turn, places are never more than there are, and no turn is left
// unused while somebody waits who may have it.
func TestWhateverHappens(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		l := anyLane(r)
		l.Dies, l.ComesBack = map[int]limit.Micros{}, rapid.SampledFrom([]limit.Micros{0, second, 10 * second, 20 * second}).Draw(r, "comes back")
		for process := range rapid.IntRange(0, 2).Draw(r, "die") {
			l.Dies[process] = limit.Micros(rapid.Int64Range(0, 30).Draw(r, "dies")) * second
		}
		admitted := map[lane.ID]bool{}
		l.Watch = func(step *lane.Step, out *lane.Outcome, line *lane.Line) {
			for _, call := range out.Calls {
				if admitted[call.Ticket] {
					r.Fatalf("%v is called again at %d", call, out.Now)
				}
			}
			if step.Do == lane.Admitted {
				admitted[step.Ticket.ID] = true
			}
			if who := idle(line.State(), out); who != nil {
				r.Fatalf("after %+v at %d nobody is called, and %+v waits", *step, out.Now, *who)
			}
		}
		callers := rapid.SliceOfN(somebody(l.Order.Classes, rapid.IntRange(1, 12).Draw(r, "subjects")), 1, 150).Draw(r, "callers")
		fates := l.Play(callers, 600*second)
		for _, f := range fates {
			if f.Admissions > 1 {
				r.Fatalf("%+v was admitted %d times", *f, f.Admissions)
			}
			if f.End == lanesim.Waiting {
				r.Fatalf("%+v waits for ever", *f)
			}
			if n := holding(fates, f.Ended); l.Places != nil && n > int(l.Places.Limit) {
				r.Fatalf("%d have a place at %d", n, f.Ended)
			}
		}
	})
}

// idle returns a ticket that waits, and could be called, while none is.
func idle(s lane.State, out *lane.Outcome) *lane.TicketState {
	if out.Due == out.Now { // more will follow at once
		return nil
	}
	paused := make([]limit.Micros, len(s.Classes)+1)
	for i := len(s.Classes) - 1; i >= 0; i-- {
		paused[i] = max(paused[i+1], s.Classes[i].Paused)
	}
	alive := map[lane.ID]bool{}
	for _, w := range s.Waiters {
		alive[w.ID] = w.Until >= s.At
	}
	var found *lane.TicketState
	for i, ticket := range s.Tickets {
		switch {
		case ticket.Where == lane.Called:
			return nil
		case ticket.Where == lane.Queued && paused[ticket.Class] <= s.At && alive[ticket.Waiter]:
			found = &s.Tickets[i]
		}
	}
	return found
}

func holding(fates []*lanesim.Fate, at limit.Micros) (n int) {
	for _, f := range fates {
		if f.End == lanesim.Admitted && f.Ended <= at && at < f.Ended+f.Holds {
			n++
		}
	}
	return n
}

// One at a time tries, and what is told of room is right: then turns are admissions.
func TestSubjectsAreAdmittedInTurn(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		l := anyLane(r)
		l.Places, l.Drain, l.Overstates, l.TryTakes = nil, perSecond(rapid.Int64Range(1, 30).Draw(r, "drain")), false, 1
		callers := rapid.SliceOfN(somebody(l.Order.Classes, rapid.IntRange(1, 12).Draw(r, "subjects")), 1, 200).Draw(r, "callers")
		fates := l.Play(callers, 300*second)
		if f, first, again := passedTwice(fates, turns(fates, false)); f != nil {
			r.Fatalf("%+v waits while subject %d is admitted twice:\n%+v\n%+v", *f, first.Subject, *first, *again)
		}
	})
}

// longest returns the longest time between two turns.
func longest(fates []*lanesim.Fate) (gap limit.Micros) {
	var at []limit.Micros
	for _, f := range fates {
		if f.End == lanesim.Admitted {
			at = append(at, f.Ended)
		}
	}
	slices.Sort(at)
	for i := 1; i < len(at); i++ {
		gap = max(gap, at[i]-at[i-1])
	}
	return gap
}

// The lowest class under a flood of those above it: with k turns of its class ahead it waits (k+1)·(aging + turns) at
// most, where there are as many turns as classes: the one that is under way when it has waited for long enough, one of each
// class that waits for longer, and its own. All classes together try in less time than there is from one turn to the next.
func TestAgingBoundsWaiting(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		classes := rapid.IntRange(2, 5).Draw(r, "classes")
		l := &lanesim.Lane{
			Order:    strict(classes, limit.Micros(rapid.Int64Range(1, 30).Draw(r, "aging"))*second/10),
			Drain:    perSecond(rapid.Int64Range(2, 20).Draw(r, "drain")),
			TryTakes: rapid.SampledFrom([]limit.Micros{1, 2000}).Draw(r, "try takes"),
		}
		var callers []lanesim.Caller
		for class := 1; class < classes; class++ {
			for subject := range 5 {
				callers = append(callers, batch(100, lanesim.Caller{Class: class, Subject: subject})...)
			}
		}
		low := rapid.IntRange(1, 8).Draw(r, "of the lowest class")
		for subject := range low {
			callers = append(callers, lanesim.Caller{Comes: second + limit.Micros(subject), Subject: 100 + subject})
		}
		fates := l.Play(callers, 21*second) // the classes above have more than enough
		turn := longest(fates)
		for _, f := range fates {
			k := limit.Micros(f.Subject - 100)
			if k < 0 {
				continue
			}
			bound := (k + 1) * (l.Order.Aging + limit.Micros(classes)*turn)
			if bound < 20*second && (f.End != lanesim.Admitted || f.Waited() > bound) {
				r.Fatalf("%d ahead: waited %d, and the bound is %d (a turn in %d)\n%+v", k, f.Waited(), bound, turn, *f)
			}
		}
	})
}

// Those who keep coming, each another subject, do not keep a batch's next ticket waiting: between two of its turns there are
// at most twice as many as subjects wait.
func TestNewcomersForEver(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		l := &lanesim.Lane{Order: strict(1, second), Drain: perSecond(20), TryTakes: 1}
		callers := batch(300, lanesim.Caller{Subject: -1}) // they have the first numbers
		rate := rapid.Int64Range(10, 60).Draw(r, "come in a second")
		for i := range 30 * rate {
			callers = append(callers, lanesim.Caller{
				Comes: limit.Micros(i) * second / limit.Micros(rate), Subject: int(i),
				Wait: limit.Micros(rapid.SampledFrom([]int64{1, 5, 3600}).Draw(r, "wait")) * second,
			})
		}
		waiting, calls, ofBatch := map[int]int{}, 0, 300 // how many subjects wait at a call
		l.Watch = func(_ *lane.Step, out *lane.Outcome, _ *lane.Line) {
			for _, call := range out.Calls {
				if calls++; lanesim.Number(call.Ticket) < 300 {
					ofBatch--
				}
				waiting[calls] = out.Waiting - ofBatch + 2
			}
		}
		fates := l.Play(callers, 30*second)
		last := 0
		for _, turn := range turns(fates, false) {
			if turn.Subject != -1 {
				continue
			}
			most := 0
			for call := last; call <= turn.call; call++ {
				most = max(most, waiting[call])
			}
			if between := turn.call - last - 1; last > 0 && between > 2*most {
				r.Fatalf("%d turns between two of the batch, and %d subjects wait at most", between, most)
			}
			last = turn.call
		}
	})
}

// One user's 1,000 tickets and 499 users with one each: no user waits for more than one of the batch.
func TestBatchBesideOthers(t *testing.T) {
	for name, comes := range map[string]func(i int) limit.Micros{
		"at once":           func(int) limit.Micros { return second },
		"one after another": func(i int) limit.Micros { return second + limit.Micros(i)*230_000 },
	} {
		t.Run(name, func(t *testing.T) {
			l := &lanesim.Lane{Order: strict(1, second), Drain: perSecond(5), TryTakes: 2000}
			users := make([]lanesim.Caller, 499)
			for i := range users {
				users[i] = lanesim.Caller{Comes: comes(i), Subject: i + 1}
			}
			fates := l.Play(append(batch(1000, lanesim.Caller{}), users...), 400*second)
			admitted := turns(fates, false)
			for _, f := range fates {
				if f.Subject == 0 {
					continue
				}
				if f.End != lanesim.Admitted {
					t.Fatalf("%+v has had no turn", *f)
				}
				ahead := 0
				for _, turn := range admitted {
					if turn.Subject == 0 && f.Entered <= turn.call && turn.call < f.Calls[len(f.Calls)-1] {
						ahead++
					}
				}
				if ahead > 1 {
					t.Errorf("user %d has waited for %d of the batch", f.Subject, ahead)
				}
			}
		})
	}
}

// A class that nobody waits in leaves its share to the others.
func TestIdleSharesAreUsed(t *testing.T) {
	for _, order := range []lane.Spec{weighted(1, 3, 96), strict(3, 10*second)} {
		l := &lanesim.Lane{Order: order, Drain: perSecond(10), TryTakes: 1}
		fates := l.Play(batch(1000, lanesim.Caller{}), 60*second)
		if got := had(fates, 0, 60*second, classOf)[0]; got < 599 {
			t.Errorf("%d of 600 turns were used by the only class that waits", got)
		}
	}
}

// A class whose share was idle does not catch up when it comes.
func TestIdleSharesAreNotSaved(t *testing.T) {
	l := &lanesim.Lane{Order: weighted(1, 1), Drain: perSecond(10), TryTakes: 1}
	fates := l.Play(append(batch(1000, lanesim.Caller{}), batch(400, lanesim.Caller{Class: 1, Comes: 30 * second})...), 60*second)
	got := had(fates, 30*second, 50*second, classOf)
	if apart := got[0] - got[1]; max(apart, -apart) > 2 {
		t.Errorf("in 20 s after it came it has %d turns, beside %d", got[1], got[0])
	}
}

// A process dies. Its callers come back by another with the ids of their tickets, and have their turn before all who came
// after them.
func TestProcessDies(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		l := &lanesim.Lane{
			Order: strict(1, second), Drain: perSecond(2), TryTakes: 1000,
			Dies:      map[int]limit.Micros{0: limit.Micros(rapid.Int64Range(1, 10_000_000).Draw(r, "dies"))},
			ComesBack: limit.Micros(rapid.Int64Range(1, int64(lane.AsideLasts)).Draw(r, "comes back")),
		}
		var callers []lanesim.Caller
		for i := range 100 {
			callers = append(callers, lanesim.Caller{
				Comes: limit.Micros(i) * 50_000, Subject: i, Process: rapid.IntRange(0, 2).Draw(r, "process"),
			})
		}
		fates := l.Play(callers, 120*second)
		back := l.Dies[0] + l.ComesBack
		var after []int
		for _, turn := range turns(fates, false) {
			if turn.Called > back+second {
				after = append(after, turn.Number)
			}
		}
		if !slices.IsSorted(after) {
			r.Errorf("after they have come back turns are had in the order %v", after)
		}
		for _, f := range fates {
			if f.End != lanesim.Admitted {
				r.Errorf("%+v has had no turn", *f)
			}
		}
	})
}
