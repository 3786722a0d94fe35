package lane_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/rationhq/ration/internal/lanesim"
	"github.com/rationhq/ration/lane"
	"github.com/rationhq/ration/limit"
)

// walker performs steps on a line and says in a few words what follows. Tickets are numbered, and belong to the subject of
// their hundreds: 203 is the third of subject 2.
type walker struct {
	line lane.Line
	spec lane.Spec
	now  limit.Micros
}

var answers = [...]string{"", "go", "waits", "full", "full for subject", "unknown"}

func (w *walker) do(step lane.Step) string {
	out := w.line.Apply(&w.spec, &step, w.now)
	said := []string{}
	if out.Answer != lane.None {
		said = append(said, answers[out.Answer])
	}
	if out.Ahead > 0 {
		said = append(said, fmt.Sprintf("behind %d", out.Ahead))
	}
	for _, call := range out.Calls {
		said = append(said, fmt.Sprintf("calls %d", lanesim.Number(call.Ticket)))
	}
	return strings.Join(said, ", ")
}

func ticket(n, class int) lane.Ticket {
	return lane.Ticket{ID: lanesim.ID(n), Class: class, Subject: lanesim.ID(n / 100), Cost: 1}
}

func enter(n, class int) lane.Step {
	return lane.Step{Do: lane.Enter, Ticket: ticket(n, class), Wait: 60 * second}
}

func triedUntil(n, class int, at limit.Micros) lane.Step {
	return lane.Step{Do: lane.Enter, Ticket: ticket(n, class), Wait: 60 * second, Tried: true, Until: lanesim.Epoch + at}
}

// elsewhere has another process do a step.
func elsewhere(step lane.Step) lane.Step {
	step.Waiter = lanesim.ID(1)
	return step
}

func admitted(n, room int) lane.Step {
	return lane.Step{Do: lane.Admitted, Ticket: lane.Ticket{ID: lanesim.ID(n)}, Room: room}
}

func admittedUntil(n int, at limit.Micros) lane.Step {
	return lane.Step{Do: lane.Admitted, Ticket: lane.Ticket{ID: lanesim.ID(n)}, Until: lanesim.Epoch + at}
}

func refused(n int, until limit.Micros) lane.Step {
	return lane.Step{Do: lane.Refused, Ticket: lane.Ticket{ID: lanesim.ID(n)}, Until: lanesim.Epoch + until}
}

func leave(n int) lane.Step   { return lane.Step{Do: lane.Leave, Ticket: lane.Ticket{ID: lanesim.ID(n)}} }
func free(room int) lane.Step { return lane.Step{Do: lane.Free, Room: room} }

var beat = lane.Step{Do: lane.Beat}

// What a line does, step by step.
func TestWalks(t *testing.T) {
	type step struct {
		at   limit.Micros
		step lane.Step
		want string
	}
	minute := 60 * second
	for _, c := range []struct {
		name  string
		spec  lane.Spec
		steps []step
	}{
		{"who comes to an empty line goes at once, and nothing is kept of it", strict(1, minute), []step{
			{0, enter(100, 0), "go"}, {0, enter(200, 0), "go"}, {0, admitted(100, 0), "unknown"},
		}},
		{"who was refused waits until then, and all that come after it", strict(1, minute), []step{
			{0, triedUntil(100, 0, second), "waits"}, {0, enter(200, 0), "waits"}, {second - 1, beat, ""}, {second, beat, "calls 100"},
			{second, admittedUntil(100, 2*second), ""}, {2 * second, beat, "calls 200"}, {2 * second, admitted(200, 0), ""},
			{2 * second, enter(300, 0), "go"},
		}},
		{"one is called at a time, unless there is room for more", strict(1, minute), []step{
			{0, triedUntil(100, 0, second), "waits"}, {0, enter(200, 0), "waits"}, {0, enter(300, 0), "waits"}, {0, enter(400, 0), "waits"},
			{second, beat, "calls 100"}, {second, admitted(100, 2), "calls 200, calls 300"}, {second, admitted(200, 1), ""},
			{second, admitted(300, 1), "calls 400"},
		}},
		{"room that comes lets so many be called", strict(1, minute), []step{
			{0, triedUntil(100, 0, 9*second), "waits"}, {0, enter(200, 0), "waits"}, {0, enter(300, 0), "waits"},
			{1, free(2), "calls 100, calls 200"}, {2, refused(100, 9*second), "waits"}, {3, refused(200, 9*second), "waits"},
			{4, free(0), "calls 100"},
		}},
		{"a refused ticket is the next one again", strict(1, minute), []step{
			{0, triedUntil(100, 0, second), "waits"}, {0, enter(200, 0), "waits"}, {second, beat, "calls 100"},
			{second, refused(100, 2*second), "waits"}, {2 * second, beat, "calls 100"}, {2 * second, admitted(100, 1), "calls 200"},
		}},
		{"a class that is refused pauses itself and those below, not those above", strict(3, minute), []step{
			{0, triedUntil(100, 1, 9*second), "waits"}, {0, enter(200, 0), "waits"}, {0, enter(300, 1), "waits"}, {0, enter(400, 2), "waits, calls 400"},
			{0, refused(400, second), "waits"}, {second, beat, "calls 400"}, {second, admittedUntil(400, 2*second), ""},
			{9*second - 1, beat, ""}, {9 * second, beat, "calls 100"},
		}},
		{"who comes above a class that is refused goes at once", strict(2, minute), []step{
			{0, triedUntil(100, 0, 9*second), "waits"}, {0, leave(100), ""}, {0, enter(200, 0), "waits"}, {0, leave(200), ""}, {0, enter(300, 1), "go"},
		}},
		{"the highest class goes first, and one that has waited for long before it", strict(3, 10*second), []step{
			{0, triedUntil(100, 2, 4*second), "waits"}, {0, enter(200, 0), "waits"}, {0, enter(300, 2), "waits"}, {second, enter(400, 1), "waits"},
			{4 * second, beat, "calls 100"}, {9 * second, admitted(100, 1), "calls 300"}, {11 * second, admitted(300, 1), "calls 200"},
		}},
		{"subjects take turns, and their own tickets come in their order", strict(1, minute), []step{
			{0, triedUntil(100, 0, second), "waits"}, {0, enter(101, 0), "waits"}, {0, enter(102, 0), "waits"}, {0, enter(200, 0), "waits"}, {0, enter(201, 0), "waits"},
			{second, beat, "calls 100"}, {second, admitted(100, 1), "calls 200"}, {second, enter(300, 0), "waits"}, {second, admitted(200, 1), "calls 300"},
			{second, admitted(300, 1), "calls 101"}, {second, admitted(101, 1), "calls 201"}, {second, admitted(201, 1), "calls 102"},
		}},
		{"who leaves gives its place to the next of its subject", strict(1, minute), []step{
			{0, triedUntil(100, 0, second), "waits"}, {0, enter(200, 0), "waits"}, {0, enter(101, 0), "waits"}, {0, leave(100), ""},
			{second, beat, "calls 101"},
		}},
		{"who leaves when it is called has not used its turn", strict(1, minute), []step{
			{0, triedUntil(100, 0, second), "waits"}, {0, enter(200, 0), "waits"}, {0, enter(101, 0), "waits"}, {second, beat, "calls 100"},
			{second, leave(100), "calls 101"},
		}},
		{"who leaves when nobody waits for it any more", strict(1, minute), []step{
			{0, triedUntil(100, 0, second), "waits"}, {4 * second, elsewhere(beat), ""}, {4 * second, elsewhere(leave(100)), ""}, {4 * second, leave(100), ""},
			{4 * second, leave(100), "unknown"},
		}},
		{"only who waits for a ticket can leave it", strict(1, minute), []step{
			{0, triedUntil(100, 0, second), "waits"}, {0, elsewhere(enter(100, 0)), "waits"}, {0, leave(100), ""}, {second, elsewhere(beat), "calls 100"},
		}},
		{"who comes again for a ticket that is called hears so", strict(1, minute), []step{
			{0, triedUntil(100, 0, second), "waits"}, {second, beat, "calls 100"}, {second, beat, "calls 100"}, {2 * second, elsewhere(enter(100, 0)), "waits, calls 100"},
			{2 * second, beat, ""}, {2 * second, elsewhere(admitted(100, 0)), ""},
		}},
		{"a call that nobody answers is over, and the next one is called", strict(1, minute), []step{
			{0, triedUntil(100, 0, second), "waits"}, {0, elsewhere(enter(200, 0)), "waits"}, {second, elsewhere(beat), "calls 100"},
			{4*second - 1, elsewhere(beat), ""}, {4 * second, elsewhere(beat), "calls 200"},
		}},
		{"whose waiter is gone is passed over, and finds its place when it comes back", strict(1, minute), []step{
			{0, triedUntil(100, 0, 5*second), "waits"}, {0, elsewhere(enter(200, 0)), "waits"}, {0, elsewhere(enter(300, 0)), "waits"},
			{3 * second, elsewhere(beat), ""}, {5 * second, elsewhere(beat), "calls 200"}, {6 * second, elsewhere(enter(100, 0)), "waits"},
			{6 * second, elsewhere(admitted(200, 1)), "calls 100"},
		}},
		{"who does not come back in time has lost its place", strict(1, minute), []step{
			{0, triedUntil(100, 0, 5*second), "waits"}, {5 * second, elsewhere(beat), ""}, {5*second + lane.AsideLasts - 1, refused(100, 0), "waits, calls 100"},
			{25 * second, elsewhere(beat), ""}, {25*second + lane.AsideLasts, elsewhere(admitted(100, 0)), "unknown"},
		}},
		{"a ticket that is admitted late has had its turn", strict(1, minute), []step{
			{0, triedUntil(100, 0, 0), "waits, calls 100"}, {0, elsewhere(enter(101, 0)), "waits"}, {3 * second, elsewhere(enter(200, 0)), "waits, calls 101"},
			{3 * second, elsewhere(admitted(100, 0)), ""}, {3 * second, elsewhere(refused(101, 0)), "waits, calls 200"},
		}},
		{"a ticket waits for so long and no longer", strict(1, minute), []step{
			{0, triedUntil(100, 0, 90*second), "waits"}, {minute - 1, enter(101, 0), "waits"}, {minute, refused(100, 0), "unknown"},
		}},
		{"a line has so many places, and a subject in a class so many of them", lane.Spec{Classes: 2, Aging: minute, Most: 4, MostOfSubject: 2}, []step{
			{0, triedUntil(100, 0, second), "waits"}, {0, enter(101, 0), "waits"}, {0, enter(102, 0), "full for subject, behind 2"},
			{0, triedUntil(103, 1, second), "waits"}, {0, enter(200, 1), "waits"}, {0, enter(300, 1), "full, behind 2"}, {0, enter(301, 0), "full, behind 4"},
			{0, enter(100, 0), "waits"}, {0, leave(100), ""}, {0, enter(301, 0), "waits"},
		}},
		{"a class of twice the weight has twice the turns", weighted(1, 2), []step{
			{0, triedUntil(200, 1, second), "waits"}, {0, enter(100, 0), "waits"}, {0, enter(101, 0), "waits"}, {0, enter(201, 1), "waits"}, {0, enter(202, 1), "waits"},
			{second, beat, "calls 200"}, {second, admitted(200, 1), "calls 100"}, {second, admitted(100, 1), "calls 201"}, {second, admitted(201, 1), "calls 202"},
			{second, admitted(202, 1), "calls 101"},
		}},
		{"what a class has tried in vain does not count", weighted(1, 1), []step{
			{0, triedUntil(200, 1, second), "waits"}, {0, enter(100, 0), "waits"}, {0, enter(201, 1), "waits"}, {second, beat, "calls 200"},
			{second, admitted(200, 1), "calls 100"}, {second, refused(100, 2*second), "waits, calls 201"}, {second, refused(201, 2*second), "waits"},
			{2 * second, beat, "calls 100"},
		}},
		{"where the clock steps back by a little time stands still", strict(1, minute), []step{
			{0, triedUntil(100, 0, second), "waits"}, {0, enter(200, 0), "waits"}, {second - limit.Tolerance, beat, ""}, {second, beat, "calls 100"},
		}},
		{"where the clock steps back by more nothing is paused", strict(1, minute), []step{
			{2 * minute, triedUntil(100, 0, 3*minute), "waits"}, {minute, beat, ""}, {minute - 1, beat, "calls 100"}, {minute + 3*second - 1, elsewhere(beat), ""},
			{minute + 3*second, elsewhere(enter(100, 0)), "waits, calls 100"},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := &walker{spec: c.spec}
			for i, s := range c.steps {
				w.now = lanesim.Epoch + s.at
				if got := w.do(s.step); got != s.want {
					t.Fatalf("step %d at %d: %q, want %q", i+1, s.at, got, s.want)
				}
			}
		})
	}
}

// Who waits in a class that the policy has no more waits on, as one of weight 1.
func TestClassesOfAnotherSpec(t *testing.T) {
	w := &walker{spec: strict(3, second), now: lanesim.Epoch}
	for n, class := range []int{0, 1, 2} {
		w.do(triedUntil(100*(n+1), class, second))
	}
	w.spec, w.now = weighted(5), w.now+second
	if got, want := w.do(beat), "calls 300"; got != want {
		t.Errorf("a class that the spec has no more: %q, want %q", got, want)
	}
	if got, want := w.do(admitted(300, 3)), "calls 200, calls 100"; got != want {
		t.Errorf("after that: %q, want %q", got, want)
	}
}

// The virtual time of a class begins anew before it is too large to be exact, and the order stays as it was.
func TestVirtualTimeBeginsAnew(t *testing.T) {
	w := &walker{spec: strict(1, second), now: lanesim.Epoch}
	costly := func(n int) lane.Step {
		s := enter(n, 0)
		s.Ticket.Cost = lane.MaxCost - int64(n%7)
		return s
	}
	first := costly(100)
	first.Tried, first.Until = true, w.now+second
	w.do(first)
	had := map[int]int64{}
	next, largest := 500, int64(0)
	for n := range 4 {
		w.do(costly(100*n + 101))
	}
	w.now += second
	said := w.do(beat)
	for range 60_000 {
		var called int
		if _, err := fmt.Sscanf(said, "calls %d", &called); err != nil {
			t.Fatalf("%q", said)
		}
		subject := called / 100 % 4
		had[subject] += lane.MaxCost - int64(called%7)
		next++
		s := costly(next)
		s.Ticket.Subject = lanesim.ID(subject)
		s.Ticket.ID = lanesim.ID(next*400 + subject*100)
		s.Ticket.Cost = lane.MaxCost - int64(lanesim.Number(s.Ticket.ID)%7)
		w.do(s)
		said = w.do(admitted(called, 1))
		state := w.line.State()
		for _, of := range state.Subjects {
			largest = max(largest, of.Starts)
		}
	}
	if largest < 1<<51 || largest > 1<<52+3*lane.MaxCost<<20 {
		t.Errorf("turns start at %d at most", largest)
	}
	for a := range 4 {
		for b := range a {
			if apart := had[a] - had[b]; max(apart, -apart) > 2*lane.MaxCost {
				t.Errorf("subject %d has had %d, and %d %d", a, had[a], b, had[b])
			}
		}
	}
}

func TestValidate(t *testing.T) {
	good := strict(2, second)
	for name, change := range map[string]func(*lane.Spec){
		"no classes":           func(s *lane.Spec) { s.Classes = 0 },
		"too many classes":     func(s *lane.Spec) { s.Classes = lane.MaxClasses + 1 },
		"weights of others":    func(s *lane.Spec) { s.Weights = []int64{1} },
		"no weight":            func(s *lane.Spec) { s.Weights = []int64{1, 0} },
		"too large a weight":   func(s *lane.Spec) { s.Weights = []int64{1, lane.MaxWeight + 1} },
		"no aging":             func(s *lane.Spec) { s.Aging = 0 },
		"too long an aging":    func(s *lane.Spec) { s.Aging = lane.MaxWait + 1 },
		"no places":            func(s *lane.Spec) { s.Most = 0 },
		"too many places":      func(s *lane.Spec) { s.Most = lane.MaxTickets + 1 },
		"no place of subjects": func(s *lane.Spec) { s.MostOfSubject = 0 },
	} {
		s := good
		change(&s)
		if err := s.Validate(); !errors.Is(err, lane.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, change := range map[string]func(*lane.Step){
		"no action":         func(s *lane.Step) { s.Do = lane.Beat + 1 },
		"a class too high":  func(s *lane.Step) { s.Ticket.Class = 2 },
		"a class below":     func(s *lane.Step) { s.Ticket.Class = -1 },
		"no cost":           func(s *lane.Step) { s.Ticket.Cost = 0 },
		"too large a cost":  func(s *lane.Step) { s.Ticket.Cost = lane.MaxCost + 1 },
		"no wait":           func(s *lane.Step) { s.Wait = 0 },
		"too long a wait":   func(s *lane.Step) { s.Wait = lane.MaxWait + 1 },
		"an instant below":  func(s *lane.Step) { s.Until = -1 },
		"an instant beyond": func(s *lane.Step) { s.Until = limit.Micros(limit.MaxAmount) + 1 },
		"room below":        func(s *lane.Step) { s.Room = -1 },
	} {
		s := enter(100, 1)
		change(&s)
		if err := s.Validate(&good); !errors.Is(err, lane.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	step := enter(100, 1)
	if err := errors.Join(good.Validate(), step.Validate(&good)); err != nil {
		t.Error(err)
	}
}

// A line whose order was asked for calls in that order, if nobody comes or goes.
func TestOrderForesees(t *testing.T) {
	for _, spec := range []lane.Spec{strict(3, lane.MaxWait), weighted(1, 2, 5)} {
		w := &walker{spec: spec, now: lanesim.Epoch}
		w.do(triedUntil(100, 0, second))
		for i := range 200 {
			step := enter(100*(i%7+1)+i/7+1, i*5%3)
			step.Ticket.Cost = int64(1 + i%4)
			w.do(step)
		}
		w.do(elsewhere(enter(2000, 1))) // nobody waits for it when it would be called
		w.now += 4 * second
		w.do(beat)
		w.do(admitted(lanesim.Number(w.line.Order(&spec)[0]), 3))
		foreseen := w.line.Order(&spec)
		var called []lane.ID
		for _, ticket := range w.line.State().Tickets {
			if ticket.Where == lane.Called {
				called = append(called, ticket.ID)
			}
		}
		slices.SortFunc(called, func(a, b lane.ID) int { return slices.Index(foreseen, a) - slices.Index(foreseen, b) })
		if !slices.Equal(called, foreseen[:len(called)]) {
			t.Fatalf("%v are called, and first are %v", called, foreseen[:len(called)])
		}
		happens := slices.Clone(called)
		for i := 0; i < len(happens); i++ {
			step := admitted(lanesim.Number(happens[i]), 0)
			out := w.line.Apply(&spec, &step, w.now)
			for _, call := range out.Calls {
				happens = append(happens, call.Ticket)
			}
		}
		if !slices.Equal(happens, foreseen) {
			t.Errorf("%v\nis foreseen as\n%v", happens, foreseen)
		}
	}
}

func TestPace(t *testing.T) {
	w := &walker{spec: strict(1, second), now: lanesim.Epoch}
	w.do(triedUntil(100, 0, 0))
	for n := range 51 {
		w.do(enter(101+n, 0))
	}
	for n := range 50 {
		w.now += 200_000
		w.do(admitted(100+n, 1))
	}
	for _, after := range []limit.Micros{0, 9 * second} {
		want := max(200_000, after)
		step := beat
		if got := w.line.Apply(&w.spec, &step, w.now+after).Pace; got != want {
			t.Errorf("%v after the last turn: one in %d µs, want %d", after.Duration(), got, want)
		}
	}
}
