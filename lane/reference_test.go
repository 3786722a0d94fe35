package lane_test

import (
	"bytes"
	"cmp"
	"maps"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/rationhq/ration/internal/lanesim"
	"github.com/rationhq/ration/lane"
	"github.com/rationhq/ration/limit"
)

// reference is a second telling of a line: one list of tickets, in which everything is looked for each time, and no
// heaps, queues or counts.
type reference struct {
	at, pace, admitted limit.Micros
	sequence           int64
	credit             int
	freed              bool
	tickets            []*waiting
	waiters            map[lane.ID]limit.Micros
	classes            map[int]*standing
}

type waiting struct {
	lane.Ticket
	waiter       lane.ID
	where        lane.Where
	number       int64
	until, ends  limit.Micros
	called       limit.Micros
	began, place int64 // the turn of its subject when it was first last; place 0: it never was
}

type standing struct {
	paused, since limit.Micros
	lag, virtual  int64
	starts        map[lane.ID]int64 // the next turn of each subject
	place         map[lane.ID]int64 // among those that start together
}

const whole = 1 << 20 // what a cost of 1 is

func (f *reference) class(n int) *standing {
	if f.classes[n] == nil {
		f.classes[n] = &standing{starts: map[lane.ID]int64{}, place: map[lane.ID]int64{}}
	}
	return f.classes[n]
}

// those returns the tickets for which something holds, in the order in which they came.
func (f *reference) those(hold ...func(*waiting) bool) (found []*waiting) {
	for _, t := range f.tickets {
		if !slices.ContainsFunc(hold, func(holds func(*waiting) bool) bool { return !holds(t) }) {
			found = append(found, t)
		}
	}
	slices.SortFunc(found, func(a, b *waiting) int { return cmp.Compare(a.number, b.number) })
	return found
}

func is(where lane.Where) func(*waiting) bool {
	return func(t *waiting) bool { return t.where == where }
}
func in(class int) func(*waiting) bool { return func(t *waiting) bool { return t.Class == class } }
func of(subject lane.ID) func(*waiting) bool {
	return func(t *waiting) bool { return t.Subject == subject }
}

func (f *reference) calls() []*waiting {
	called := f.those(is(lane.Called))
	slices.SortStableFunc(called, func(a, b *waiting) int { return cmp.Compare(a.called, b.called) })
	return called
}

// first returns the ticket of a class whose turn it is.
func (f *reference) first(class int) (best *waiting) {
	c := f.class(class)
	for _, t := range f.those(is(lane.Queued), in(class)) {
		if best == nil || c.starts[t.Subject] < c.starts[best.Subject] ||
			c.starts[t.Subject] == c.starts[best.Subject] && c.place[t.Subject] < c.place[best.Subject] {
			best = t
		}
	}
	return best
}

// front returns where a subject's turn starts that is not behind anybody.
func (f *reference) front(class int) int64 {
	c := f.class(class)
	if t := f.first(class); t != nil {
		return min(c.virtual, c.starts[t.Subject])
	}
	return c.virtual
}

func (f *reference) paused(class int) (until limit.Micros) {
	for n, c := range f.classes {
		if n >= class {
			until = max(until, c.paused)
		}
	}
	return until
}

func (f *reference) gone(waiter lane.ID) bool {
	until, known := f.waiters[waiter]
	return !known || until < f.at
}

func worth(spec *lane.Spec, t *waiting) int64 {
	if t.Class < len(spec.Weights) {
		return t.Cost * whole / spec.Weights[t.Class]
	}
	return t.Cost * whole
}

func (f *reference) trying(spec *lane.Spec, class int) (sum int64) {
	for _, t := range f.those(is(lane.Called), in(class)) {
		sum += worth(spec, t)
	}
	return sum
}

// enqueue has a ticket wait that is in the list, and does not.
func (f *reference) enqueue(t *waiting) {
	c := f.class(t.Class)
	mates := f.those(in(t.Class), of(t.Subject), is(lane.Queued))
	if t.place == 0 && len(f.those(in(t.Class), is(lane.Queued)))+len(f.those(in(t.Class), is(lane.Called))) == 0 {
		c.since = f.at
	}
	if len(mates) == 0 {
		f.sequence++
		from, place := c.virtual, f.sequence
		if t.place > 0 || len(f.those(in(t.Class), of(t.Subject))) > 1 {
			from = f.front(t.Class)
		}
		if t.place > 0 && c.starts[t.Subject] <= t.began {
			place = t.place
		}
		c.starts[t.Subject], c.place[t.Subject] = max(from, c.starts[t.Subject]), place
	}
	t.where = lane.Queued
}

// dequeue has a ticket that waits wait no more.
func (f *reference) dequeue(t *waiting) {
	c := f.class(t.Class)
	if f.those(in(t.Class), of(t.Subject), is(lane.Queued))[0] == t {
		t.began, t.place = c.starts[t.Subject], c.place[t.Subject]
	}
	t.where = lane.Aside
}

func (f *reference) drop(t *waiting) {
	if t.where == lane.Queued {
		f.dequeue(t)
	}
	f.tickets = slices.DeleteFunc(f.tickets, func(other *waiting) bool { return other == t })
	if c := f.class(t.Class); len(f.those(in(t.Class))) == 0 {
		c.virtual = 0
		clear(c.starts)
	}
}

// charge has a subject's next turn start later.
func (f *reference) charge(t *waiting) {
	c := f.class(t.Class)
	c.starts[t.Subject] += t.Cost * whole
	if len(f.those(in(t.Class), of(t.Subject), is(lane.Queued))) > 0 {
		f.sequence++
		c.place[t.Subject] = f.sequence
	}
}

// giveBack undoes the call of a ticket.
func (f *reference) giveBack(t *waiting) {
	c := f.class(t.Class)
	t.where = lane.Aside
	front, starts := f.front(t.Class), max(0, c.starts[t.Subject]-t.Cost*whole)
	c.starts[t.Subject] = starts
	if len(f.those(in(t.Class), of(t.Subject), is(lane.Queued))) == 0 {
		return
	}
	if starts <= t.began {
		c.place[t.Subject] = min(c.place[t.Subject], t.place)
	}
	c.starts[t.Subject] = max(starts, front)
}

func (f *reference) served(spec *lane.Spec, t *waiting) {
	c := f.class(t.Class)
	c.since = f.at
	if spec.Weights != nil {
		from := c.lag
		for n, other := range f.classes {
			other.lag = max(other.lag-from, -f.trying(spec, n))
		}
		c.lag = worth(spec, t)
	}
	subjects := map[lane.ID]bool{}
	for _, other := range f.those(in(t.Class), is(lane.Queued)) {
		subjects[other.Subject] = true
	}
	if next := f.first(t.Class); next != nil {
		c.virtual = max(c.virtual, min(c.virtual+t.Cost*whole/int64(len(subjects)), c.starts[next.Subject]+next.Cost*whole))
	}
}

func (f *reference) next(spec *lane.Spec) int {
	since := func(class int) (since limit.Micros) {
		since = f.class(class).since
		for _, t := range f.those(in(class), is(lane.Called)) {
			since = max(since, t.called)
		}
		return since
	}
	var may []int
	for n := range f.classes {
		if f.first(n) != nil && f.paused(n) <= f.at {
			may = append(may, n)
		}
	}
	slices.Sort(may)
	slices.Reverse(may)
	if len(may) == 0 {
		return -1
	}
	if spec.Weights != nil {
		return slices.MinFunc(may, func(a, b int) int {
			return cmp.Compare(f.class(a).lag+f.trying(spec, a), f.class(b).lag+f.trying(spec, b))
		})
	}
	aged := slices.DeleteFunc(slices.Clone(may), func(n int) bool { return since(n)+spec.Aging > f.at })
	if len(aged) == 0 {
		return may[0]
	}
	return slices.MinFunc(aged, func(a, b int) int { return cmp.Compare(since(a), since(b)) })
}

// apply is what Apply is to be.
func (f *reference) apply(spec *lane.Spec, step *lane.Step, now limit.Micros) (out lane.Outcome) {
	if later := max(f.at, now); f.idle(step, now) { // nothing is noted
		out.Now, out.Pace, out.Gone = later, f.pace, f.waiters[step.Waiter] < later
		if step.Do == lane.Enter {
			out.Answer = lane.Go
		}
		return out
	}
	for n := range spec.Classes {
		f.class(n)
	}
	if f.at-now > limit.Tolerance {
		for _, c := range f.classes {
			c.paused, c.since = 0, min(c.since, now)
		}
		for _, t := range f.calls() {
			t.called = min(t.called, now)
		}
		f.at, f.admitted = now, min(f.admitted, now)
	}
	f.at = max(f.at, now)

	work := lane.AtOnce
	due := f.those(func(t *waiting) bool { return t.ends <= f.at })
	slices.SortFunc(due, func(a, b *waiting) int {
		return cmp.Or(cmp.Compare(a.ends, b.ends), bytes.Compare(a.ID[:], b.ID[:]))
	})
	for _, t := range due[:min(work, len(due))] {
		work--
		f.leave(t)
	}
	for _, t := range f.calls() {
		if work > 0 && t.called+lane.CallLasts <= f.at {
			work--
			delete(f.waiters, t.waiter)
			f.giveBack(t)
			t.ends = min(t.until, f.at+lane.AsideLasts)
			f.credit = min(lane.MaxCalled, f.credit+1)
		}
	}
	out.Gone = f.gone(step.Waiter)
	f.waiters[step.Waiter] = f.at + lane.WaiterLasts

	var about *waiting
	for _, t := range f.tickets {
		if t.ID == step.Ticket.ID {
			about = t
		}
	}
	switch {
	case step.Do == lane.Enter:
		f.enter(spec, step, about, &out)
	case step.Do == lane.Free:
		for _, c := range f.classes {
			c.paused = 0
		}
		if f.freed = len(f.calls()) > 0; !f.freed {
			f.credit = min(lane.MaxCalled, f.credit+min(lane.MaxCalled, step.Room))
		}
	case step.Do == lane.Beat:
		for _, t := range f.calls() {
			if t.waiter == step.Waiter {
				out.Calls = append(out.Calls, lane.Call{Ticket: t.ID, Waiter: t.waiter})
			}
		}
	case about == nil:
		out.Answer = lane.Unknown
	case step.Do == lane.Leave:
		if about.waiter == step.Waiter {
			f.leave(about)
		}
	case step.Do == lane.Refused:
		if c := f.class(about.Class); !f.freed {
			c.paused = max(c.paused, step.Until)
		}
		f.credit, out.Answer = 0, lane.Waits
		if about.where == lane.Called {
			f.giveBack(about)
		}
		if about.where == lane.Aside {
			about.ends = about.until
			f.enqueue(about)
		}
	case step.Do == lane.Admitted:
		if about.where != lane.Called {
			f.charge(about)
		}
		f.drop(about)
		f.served(spec, about)
		if f.admitted > 0 {
			if between := f.at - f.admitted; f.pace == 0 {
				f.pace = max(1, between)
			} else {
				f.pace = max(1, f.pace+(between-f.pace)>>3)
			}
		}
		f.admitted = max(1, f.at)
		f.credit = max(0, min(lane.MaxCalled, step.Room)-len(f.calls()))
		if c := f.class(about.Class); step.Room == 0 {
			c.paused = max(c.paused, step.Until)
		}
	}

	all := f.call(spec, work, &out)
	maps.DeleteFunc(f.waiters, func(id lane.ID, _ limit.Micros) bool { return f.gone(id) })
	queued := f.those(is(lane.Queued))
	if len(queued) == 0 {
		f.credit = 0
		if len(f.calls()) == 0 {
			f.admitted, f.freed = 0, false
		}
	}
	out.Now, out.Waiting, out.Pace = f.at, len(queued), f.pace
	if f.admitted > 0 {
		out.Pace = max(f.pace, f.at-f.admitted)
	}
	switch {
	case !all:
		out.Due = f.at
	case len(f.calls()) > 0:
		out.Due = f.calls()[0].called + lane.CallLasts
	case len(queued) > 0:
		out.Due = f.paused(slices.MinFunc(queued, func(a, b *waiting) int { return cmp.Compare(f.paused(a.Class), f.paused(b.Class)) }).Class)
	}
	return out
}

// idle says that a step finds nothing to do.
func (f *reference) idle(step *lane.Step, now limit.Micros) bool {
	later, free := max(f.at, now), step.Do == lane.Free
	if f.at-now > limit.Tolerance || !free && (step.Do != lane.Enter || step.Tried) {
		return false
	}
	for _, t := range f.tickets {
		if t.where != lane.Aside || t.ends <= later || !free && t.ID == step.Ticket.ID {
			return false
		}
	}
	class := step.Ticket.Class
	if free {
		class = 0
	}
	return f.paused(class) <= later
}

func (f *reference) leave(t *waiting) {
	if t.where == lane.Called {
		f.giveBack(t)
		f.credit = min(lane.MaxCalled, f.credit+1)
	}
	f.drop(t)
}

func (f *reference) enter(spec *lane.Spec, step *lane.Step, about *waiting, out *lane.Outcome) {
	of := step.Ticket
	if c := f.class(of.Class); step.Tried {
		c.paused, f.credit = max(c.paused, step.Until), 0
	}
	queued := f.those(is(lane.Queued))
	if about != nil {
		about.waiter, out.Answer = step.Waiter, lane.Waits
		if about.where == lane.Called {
			about.called = f.at
			out.Calls = append(out.Calls, lane.Call{Ticket: about.ID, Waiter: about.waiter})
		}
		if about.where == lane.Aside {
			about.ends = about.until
			f.enqueue(about)
		}
		return
	}
	if !step.Tried && len(queued)+len(f.calls()) == 0 && f.paused(of.Class) <= f.at {
		out.Answer = lane.Go
		return
	}
	ofSubject := func(t *waiting) bool { return t.Subject == of.Subject }
	if len(f.tickets) >= spec.Most {
		out.Answer = lane.Full
	} else if len(f.those(in(of.Class), ofSubject)) >= spec.MostOfSubject {
		out.Answer = lane.FullForSubject
	}
	if out.Answer != lane.None {
		for _, t := range queued {
			if spec.Weights != nil || t.Class >= of.Class {
				out.Ahead++
			}
		}
		return
	}
	out.Answer = lane.Waits
	f.sequence++
	t := &waiting{Ticket: of, waiter: step.Waiter, where: lane.Aside, number: f.sequence, until: f.at + step.Wait, ends: f.at + step.Wait}
	f.tickets = append(f.tickets, t)
	f.enqueue(t)
}

func (f *reference) call(spec *lane.Spec, work int, out *lane.Outcome) (all bool) {
	for n := len(f.calls()); n < lane.MaxCalled && (f.credit > 0 || n == 0); n = len(f.calls()) {
		class := f.next(spec)
		if class < 0 {
			break
		}
		t, c := f.first(class), f.class(class)
		if f.gone(t.waiter) {
			if work == 0 {
				return false
			}
			work--
			f.dequeue(t)
			t.ends = min(t.until, f.at+lane.AsideLasts)
			continue
		}
		c.virtual = max(c.virtual, c.starts[t.Subject])
		f.dequeue(t)
		f.charge(t)
		f.freed = f.freed && n > 0
		t.where, t.called = lane.Called, f.at
		f.credit = max(0, f.credit-1)
		out.Calls = append(out.Calls, lane.Call{Ticket: t.ID, Waiter: t.waiter})
	}
	return work > 0
}

// anyStep draws what somebody does.
func anyStep(r *rapid.T, spec *lane.Spec, line *lane.Line, at limit.Micros) lane.Step {
	step := lane.Step{
		Do:     rapid.SampledFrom([]lane.Action{lane.Enter, lane.Enter, lane.Enter, lane.Admitted, lane.Admitted, lane.Refused, lane.Leave, lane.Free, lane.Beat}).Draw(r, "do"),
		Waiter: lanesim.ID(rapid.IntRange(0, 2).Draw(r, "waiter")),
		Room:   rapid.SampledFrom([]int{0, 0, 1, 3, 20}).Draw(r, "room"),
		Tried:  rapid.IntRange(0, 3).Draw(r, "tried") == 0,
		Wait:   limit.Micros(rapid.SampledFrom([]int64{1, 4, 30, 3600}).Draw(r, "wait")) * second,
		Until:  at + limit.Micros(rapid.SampledFrom([]int64{-1, 0, 1, 2_000_000}).Draw(r, "until")),
	}
	step.Ticket = lane.Ticket{
		ID:      lanesim.ID(rapid.IntRange(0, 40).Draw(r, "ticket")),
		Class:   rapid.IntRange(0, spec.Classes-1).Draw(r, "class"),
		Subject: lanesim.ID(rapid.IntRange(0, 5).Draw(r, "subject")),
		Cost:    rapid.SampledFrom([]int64{1, 1, 2, 7, lane.MaxCost}).Draw(r, "cost"),
	}
	if step.Do == lane.Admitted || step.Do == lane.Refused {
		// Mostly what a call asks for.
		for _, t := range line.State().Tickets {
			if t.Where == lane.Called && rapid.IntRange(0, 3).Draw(r, "this") > 0 {
				step.Ticket.ID = t.ID
			}
		}
	}
	return step
}

func anySpec(r *rapid.T) *lane.Spec {
	spec := strict(rapid.IntRange(1, 4).Draw(r, "classes"), rapid.SampledFrom([]limit.Micros{1, second, 10 * second}).Draw(r, "aging"))
	if rapid.Bool().Draw(r, "weighted") {
		spec = weighted(rapid.SliceOfN(rapid.Int64Range(1, 9), spec.Classes, spec.Classes).Draw(r, "weights")...)
	}
	spec.Most, spec.MostOfSubject = rapid.IntRange(1, 40).Draw(r, "most"), rapid.IntRange(1, 10).Draw(r, "most of a subject")
	return &spec
}

// Random histories: every outcome is that of the reference, and a line that was stored and read goes on as it would have.
func TestHistories(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		line := new(lane.Line)
		ref := &reference{waiters: map[lane.ID]limit.Micros{}, classes: map[int]*standing{}}
		spec, now := anySpec(r), lanesim.Epoch
		for range rapid.IntRange(1, 150).Draw(r, "steps") {
			if rapid.IntRange(0, 30).Draw(r, "other spec") == 0 {
				spec = anySpec(r)
			}
			now += limit.Micros(rapid.SampledFrom([]int64{0, 0, 1, 300_000, 1_000_000, 3_000_000, 16_000_000, -1_000_000, -60_000_001}).Draw(r, "later"))
			step := anyStep(r, spec, line, now)
			if err := step.Validate(spec); err != nil {
				r.Fatal(err)
			}
			got, want := line.Apply(spec, &step, now), ref.apply(spec, &step, now)
			if !reflect.DeepEqual(got, want) {
				r.Fatalf("%+v at %d\n     is %+v\nwant %+v", step, now, got, want)
			}
			if rapid.IntRange(0, 5).Draw(r, "stored") == 0 {
				state := line.State()
				line = state.Line()
				if again := line.State(); !reflect.DeepEqual(again, state) {
					r.Fatalf("stored and read it is\n%+v\nwant\n%+v", again, state)
				}
			}
		}
	})
}
