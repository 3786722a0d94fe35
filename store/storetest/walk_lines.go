package storetest

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rationhq/ration/lane"
	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

// twoClasses is a line of two classes: who pays, 1, goes before who does not, 0.
func twoClasses() lane.Spec {
	return lane.Spec{Classes: 2, Aging: 10 * sec, Most: 4, MostOfSubject: 2}
}

// lineWalk takes steps in one line, one after the other.
type lineWalk struct {
	t     *testing.T
	lines store.Lines
	clock *Clock
	spec  lane.Spec
}

func newLineWalk(t *testing.T, open Open, spec lane.Spec) *lineWalk {
	clock := NewClock(noon)
	return &lineWalk{t, linesOf(t, open(t, clock)), clock, spec}
}

// does performs what a waiter does with a ticket.
func (w *lineWalk) does(do lane.Action, waiter, ticket int, more ...func(*lane.Step)) lane.Outcome {
	w.t.Helper()
	step := &lane.Step{Do: do, Waiter: waiterID(waiter), Ticket: lane.Ticket{ID: ticketID(ticket)}}
	for _, change := range more {
		change(step)
	}
	return stepIn(w.t, w.lines, "walk", &w.spec, step)
}

// enters has a ticket of a subject enter, for a minute at most.
func (w *lineWalk) enters(waiter, ticket, class, subject int, more ...func(*lane.Step)) lane.Outcome {
	w.t.Helper()
	of := func(s *lane.Step) {
		s.Ticket.Class, s.Ticket.Subject, s.Ticket.Cost, s.Wait = class, subjectID(subject), 1, minute
	}
	return w.does(lane.Enter, waiter, ticket, append([]func(*lane.Step){of}, more...)...)
}

// says checks what became of a step's ticket, and which tickets are called.
func (w *lineWalk) says(out lane.Outcome, answer lane.Answer, calls ...int) {
	w.t.Helper()
	var called []lane.ID
	for _, c := range out.Calls {
		called = append(called, c.Ticket)
	}
	var want []lane.ID
	for _, n := range calls {
		want = append(want, ticketID(n))
	}
	if out.Answer != answer || !slices.Equal(called, want) {
		w.t.Errorf("answered %d, and called %v; want %d and %v", out.Answer, called, answer, want)
	}
}

func tried(until limit.Micros) func(*lane.Step) {
	return func(s *lane.Step) { s.Tried, s.Until = true, until }
}

func until(at limit.Micros) func(*lane.Step) { return func(s *lane.Step) { s.Until = at } }
func keeping(s *lane.Step)                   { s.Keep = true }
func roomFor(n int) func(*lane.Step)         { return func(s *lane.Step) { s.Room = n } }

func testLineWalk(t *testing.T, open Open) {
	const anna, bert, carl = 1, 2, 3
	t.Run("a line that nobody waits in", func(t *testing.T) {
		w := newLineWalk(t, open, twoClasses())
		w.says(w.enters(anna, 1, 0, 1), lane.Go)
		w.says(w.does(lane.Free, anna, 0, roomFor(1)), lane.None)
		w.says(w.does(lane.Admitted, anna, 1), lane.Unknown) // which nobody needs to say
		empty := w.does(lane.Beat, anna, 0)
		if want := (lane.Outcome{Now: noon}); !reflect.DeepEqual(empty, want) {
			t.Errorf("an empty line: %+v, want %+v", empty, want)
		}
	})
	t.Run("nothing is noted of who goes at once", func(t *testing.T) {
		w := newLineWalk(t, open, twoClasses())
		w.says(w.enters(anna, 1, 0, 1), lane.Go)
		w.does(lane.Free, anna, 0, roomFor(1))
		if got := stateOf(t, w.lines, "walk"); !reflect.DeepEqual(got, lane.State{}) {
			t.Errorf("the line knows %+v", got)
		}
	})
	t.Run("turns", func(t *testing.T) {
		w := newLineWalk(t, open, twoClasses())
		out := w.enters(anna, 1, 0, 1, tried(noon+sec))
		w.says(out, lane.Waits)
		if !out.Gone || out.Waiting != 1 || out.Due != noon+sec {
			t.Errorf("the first one: %+v, want that its waiter is new, and to be asked when there may be room", out)
		}
		w.says(w.enters(bert, 2, 1, 2), lane.Waits, 2) // what keeps others waiting may have room for a higher class
		w.says(w.does(lane.Refused, bert, 2, until(noon+sec)), lane.Waits)
		w.says(w.enters(bert, 3, 0, 2), lane.Waits)
		w.says(w.enters(anna, 4, 0, 1), lane.Waits)
		out = w.enters(carl, 5, 0, 3)
		w.says(out, lane.Full)
		if above := w.enters(carl, 5, 1, 3); out.Ahead != 4 || above.Ahead != 1 {
			t.Errorf("%d and %d would go before them, want 4 and 1", out.Ahead, above.Ahead)
		}
		w.clock.Advance(sec)
		w.says(w.does(lane.Beat, anna, 0), lane.None, 2) // the higher class
		w.says(w.does(lane.Beat, anna, 0), lane.None)
		w.says(w.does(lane.Beat, bert, 0), lane.None, 2)
		w.says(w.does(lane.Admitted, bert, 2), lane.None, 1) // who came first
		w.clock.Advance(sec)
		w.says(w.does(lane.Admitted, anna, 1, roomFor(2)), lane.None, 3, 4) // one of the other subject, and then the next
		w.clock.Advance(sec / 2)
		w.says(w.does(lane.Admitted, anna, 4), lane.None)
		out = w.does(lane.Admitted, bert, 3)
		w.says(out, lane.None)
		if want := sec - (sec/2)>>3 - (sec-(sec/2)>>3)>>3; out.Pace != want && out.Pace != want-1 {
			t.Errorf("a turn takes %d µs, want about %d", out.Pace, want)
		}
		w.says(w.does(lane.Admitted, bert, 3), lane.Unknown)
		w.says(w.enters(carl, 5, 0, 3), lane.Go)
	})
	t.Run("a subject's places", func(t *testing.T) {
		w := newLineWalk(t, open, twoClasses())
		w.says(w.enters(anna, 1, 0, 1, tried(noon+sec)), lane.Waits)
		w.says(w.enters(anna, 2, 0, 1), lane.Waits)
		w.says(w.enters(anna, 3, 0, 1), lane.FullForSubject)
		w.says(w.enters(anna, 2, 0, 1), lane.Waits) // it is there
		w.says(w.does(lane.Leave, anna, 1), lane.None)
		w.says(w.enters(anna, 3, 0, 1), lane.Waits)
	})
	t.Run("a waiter goes", func(t *testing.T) {
		w := newLineWalk(t, open, twoClasses())
		w.says(w.enters(anna, 1, 0, 1, tried(noon+4*sec)), lane.Waits)
		w.says(w.enters(anna, 2, 0, 2), lane.Waits)
		w.says(w.enters(bert, 3, 0, 3), lane.Waits)
		w.clock.Advance(2 * sec)
		w.says(w.does(lane.Beat, bert, 0), lane.None)
		w.clock.Advance(2 * sec)
		out := w.does(lane.Beat, bert, 0) // nothing was heard of anna for more than three seconds
		w.says(out, lane.None, 3)
		if out.Gone || out.Waiting != 0 {
			t.Errorf("bert is gone, or somebody waits: %+v", out)
		}
		back := w.enters(carl, 2, 0, 2) // whose caller has come back by another process
		w.says(back, lane.Waits)
		w.says(w.does(lane.Leave, anna, 2), lane.None) // it is not anna's any more
		w.says(w.does(lane.Admitted, bert, 3), lane.None, 2)
		w.clock.Advance(lane.AsideLasts)
		w.says(w.does(lane.Refused, anna, 1), lane.Unknown)
	})
	t.Run("a place is kept", func(t *testing.T) {
		w := newLineWalk(t, open, twoClasses())
		w.says(w.enters(anna, 1, 0, 1, tried(noon)), lane.Waits, 1)
		w.says(w.enters(bert, 2, 0, 2), lane.Waits)
		w.says(w.does(lane.Leave, anna, 1, keeping), lane.None, 2) // the caller's connection broke
		w.says(w.does(lane.Leave, anna, 1, keeping), lane.None)
		w.says(w.enters(carl, 1, 0, 1), lane.Waits)
		w.says(w.does(lane.Leave, anna, 1, keeping), lane.None) // it is carl's
		w.says(w.does(lane.Refused, bert, 2), lane.Waits, 1)    // and before bert's, as it was
		w.says(w.does(lane.Leave, carl, 1, keeping), lane.None, 2)
		w.clock.Advance(lane.AsideLasts)
		w.says(w.does(lane.Refused, carl, 1), lane.Unknown)
	})
	t.Run("a call lapses", func(t *testing.T) {
		w := newLineWalk(t, open, twoClasses())
		w.says(w.enters(anna, 1, 0, 1, tried(noon)), lane.Waits, 1)
		w.says(w.enters(bert, 2, 0, 2), lane.Waits)
		w.clock.Advance(lane.CallLasts)
		w.says(w.does(lane.Beat, bert, 0), lane.None, 2)
		if back := w.does(lane.Beat, anna, 0); !back.Gone {
			t.Error("anna did not say what came of a call, and is not gone")
		}
		w.says(w.enters(anna, 1, 0, 1), lane.Waits)
		w.says(w.does(lane.Admitted, bert, 2), lane.None, 1)
	})
	t.Run("done twice", func(t *testing.T) {
		w := newLineWalk(t, open, twoClasses())
		w.says(w.enters(anna, 1, 0, 1, tried(noon)), lane.Waits, 1)
		w.says(w.enters(anna, 1, 0, 1, tried(noon)), lane.Waits, 1) // one place, one call, said again
		w.says(w.does(lane.Refused, anna, 1, until(noon+sec)), lane.Waits)
		w.says(w.does(lane.Refused, anna, 1, until(noon+sec)), lane.Waits)
		w.says(w.does(lane.Leave, anna, 1), lane.None)
		w.says(w.does(lane.Leave, anna, 1), lane.Unknown)
		if got := stateOf(t, w.lines, "walk"); len(got.Tickets) != 0 {
			t.Errorf("there are tickets: %+v", got)
		}
	})
}

// testLineBounds: a step ends so many tickets at once, and so many are called at the same time.
func testLineBounds(t *testing.T, open Open) {
	spec := twoClasses()
	spec.Most, spec.MostOfSubject = lane.MaxTickets, lane.MaxTickets
	w := newLineWalk(t, open, spec)
	const many = lane.AtOnce + 36
	for n := range many {
		w.enters(1, n, n%2, n%7, tried(noon+10*sec), func(s *lane.Step) { s.Wait = sec })
	}
	w.clock.Advance(sec)
	for _, want := range []int{many - lane.AtOnce, 0} {
		out := w.does(lane.Beat, 1, 0)
		if out.Waiting != want || (out.Due == out.Now) != (want > 0) {
			t.Errorf("%d are left, and more is due at %d of %d; want %d", out.Waiting, out.Due, out.Now, want)
		}
	}
	for n := range many {
		w.enters(1, n, n%2, n%7)
	}
	if out := w.does(lane.Free, 1, 0, roomFor(1000)); len(out.Calls) != lane.MaxCalled {
		t.Errorf("%d are called, want %d", len(out.Calls), lane.MaxCalled)
	}
}

// testLineRenumbers: the time by which subjects take turns begins anew before it is too large to be exact, and the order
// stays.
func testLineRenumbers(t *testing.T, open Open) {
	spec := lane.Spec{Classes: 1, Aging: hour, Most: 100, MostOfSubject: 100}
	w := newLineWalk(t, open, spec)
	var model lane.Line
	perform := func(do lane.Action, ticket, subject int, cost int64, more ...func(*lane.Step)) {
		t.Helper()
		step := lane.Step{
			Do: do, Waiter: waiterID(1), Wait: lane.MaxWait,
			Ticket: lane.Ticket{ID: ticketID(ticket), Subject: subjectID(subject), Cost: cost},
		}
		for _, change := range more {
			change(&step)
		}
		want := model.Apply(&spec, &step, w.clock.Now())
		if got := stepIn(t, w.lines, "walk", &spec, &step); !reflect.DeepEqual(got, want) {
			t.Fatalf("%+v:\n got %+v\nwant %+v", step, got, want)
		}
	}
	const turns, others = 1 << 12, 1 << 20 // a turn of the largest cost is 2^40
	perform(lane.Enter, 0, 0, lane.MaxCost, tried(noon))
	largest, began := int64(0), false
	for n := range turns + 20 {
		if n == turns-10 { // some wait, one is gone, one has had a turn
			for i := range 5 {
				perform(lane.Enter, others+i, 1+i, lane.MaxCost)
			}
			perform(lane.Enter, others+5, 6, 1, func(s *lane.Step) { s.Waiter = waiterID(2) })
			w.clock.Advance(lane.WaiterLasts + 1)
			perform(lane.Enter, n, 0, lane.MaxCost)
		}
		perform(lane.Enter, n+1, 0, lane.MaxCost)
		// Whoever is called is admitted.
		called := slices.DeleteFunc(model.State().Tickets, func(of lane.TicketState) bool { return of.Where != lane.Called })
		for _, of := range called {
			perform(lane.Admitted, 0, 0, 1, func(s *lane.Step) { s.Ticket.ID = of.ID })
		}
		state := model.State()
		if n > turns-12 {
			if got := stateOf(t, w.lines, "walk"); !reflect.DeepEqual(got, state) {
				t.Fatalf("turn %d:\n%s", n, differences(&got, &state))
			}
		}
		began = began || state.Classes[0].Virtual < largest
		largest = max(largest, state.Classes[0].Virtual)
	}
	if !began || largest < 1<<52-1<<42 || largest > limit.MaxAmount {
		t.Errorf("it began anew: %v; it came to %d, want about 2^52", began, largest)
	}
}

// testLineCalls: who is called by a step of somebody else hears of it.
func testLineCalls(t *testing.T, open Open) {
	const anna, bert = 1001, 1002 // others may be told still of calls in a test before
	w := newLineWalk(t, open, twoClasses())
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	hers, his := w.lines.Called(ctx, waiterID(anna)), w.lines.Called(ctx, waiterID(bert))
	hears := func(calls <-chan store.Called) {
		t.Helper()
		patience := time.NewTimer(20 * time.Second)
		defer patience.Stop()
		again := time.NewTicker(10 * time.Millisecond)
		defer again.Stop()
		for { // a call may be lost, so there is another one for each try
			w.does(lane.Refused, bert, 1, until(w.clock.Now()+sec))
			w.says(w.does(lane.Free, anna, 0, roomFor(1)), lane.None, 1)
			select {
			case got := <-calls:
				if want := (store.Called{Line: "walk", Ticket: ticketID(1)}); got != want {
					t.Errorf("he hears of %+v, want %+v", got, want)
				}
				return
			case <-again.C:
			case <-patience.C:
				t.Fatal("he does not hear of his call")
			}
		}
	}
	w.enters(bert, 1, 0, 1, tried(noon+sec))
	hears(his)
	select {
	case got := <-hers:
		t.Errorf("she hears of %+v, which is his", got)
	default:
	}
	// What her own step calls she knows.
	w.does(lane.Leave, bert, 1)
	w.says(w.enters(anna, 2, 0, 1, tried(noon)), lane.Waits, 2)
	w.enters(bert, 1, 1, 2)
	w.does(lane.Refused, anna, 2, until(noon+sec))
	hears(his)
	select {
	case got := <-hers:
		t.Errorf("she hears of %+v, which her own step has called", got)
	default:
	}
}

func testLineInvalid(t *testing.T, open Open) {
	lines := linesOf(t, open(t, NewClock(noon)))
	for name, spoil := range map[string]func(name *string, spec *lane.Spec, step *lane.Step){
		"no name":             func(name *string, _ *lane.Spec, _ *lane.Step) { *name = "" },
		"too long a name":     func(name *string, _ *lane.Spec, _ *lane.Step) { *name = strings.Repeat("n", store.MaxLineName+1) },
		"no classes":          func(_ *string, spec *lane.Spec, _ *lane.Step) { spec.Classes = 0 },
		"too few weights":     func(_ *string, spec *lane.Spec, _ *lane.Step) { spec.Weights = []int64{1} },
		"too many tickets":    func(_ *string, spec *lane.Spec, _ *lane.Step) { spec.Most = lane.MaxTickets + 1 },
		"an unknown action":   func(_ *string, _ *lane.Spec, step *lane.Step) { step.Do = 100 },
		"an unknown class":    func(_ *string, _ *lane.Spec, step *lane.Step) { step.Ticket.Class = 2 },
		"no cost":             func(_ *string, _ *lane.Spec, step *lane.Step) { step.Ticket.Cost = 0 },
		"no wait":             func(_ *string, _ *lane.Spec, step *lane.Step) { step.Wait = 0 },
		"an instant of 2^53":  func(_ *string, _ *lane.Spec, step *lane.Step) { step.Until = limit.Micros(limit.MaxAmount) + 1 },
		"less room than none": func(_ *string, _ *lane.Spec, step *lane.Step) { step.Room = -1 },
	} {
		line, spec := "line", twoClasses()
		step := lane.Step{Waiter: waiterID(1), Ticket: lane.Ticket{ID: ticketID(1), Cost: 1}, Wait: sec, Tried: true}
		spoil(&line, &spec, &step)
		if _, err := lines.Line(context.Background(), []byte(line), &spec, &step); !errors.Is(err, store.ErrInvalid) {
			t.Errorf("%s: %v, want %v", name, err, store.ErrInvalid)
		}
	}
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	spec := twoClasses()
	_, err := lines.Line(cancelled, []byte("line"), &spec, &lane.Step{Do: lane.Beat})
	if _, ofState := lines.LineState(cancelled, []byte("line")); !errors.Is(err, context.Canceled) || !errors.Is(ofState, context.Canceled) {
		t.Errorf("with a cancelled context: %v and %v, want %v", err, ofState, context.Canceled)
	}
	if got := stateOf(t, lines, "line"); !reflect.DeepEqual(got, lane.State{}) {
		t.Errorf("the line knows %+v of steps that break the contract", got)
	}
}

// testLinesApart: lines of different names have nothing in common, whatever bytes these are.
func testLinesApart(t *testing.T, open Open) {
	lines := linesOf(t, open(t, NewClock(noon)))
	names := []string{"a", "b", "a ", "a#line", "{a}", "}{", "\x00", "a\x00", "a\r\n", "\xff", strings.Repeat("n", store.MaxLineName)}
	spec := twoClasses()
	for i, name := range names {
		stepIn(t, lines, name, &spec, &lane.Step{
			Waiter: waiterID(1), Wait: sec, Tried: true, Until: noon + 1, Ticket: lane.Ticket{ID: ticketID(i), Cost: 1},
		})
	}
	for i, name := range names {
		if got := stateOf(t, lines, name).Tickets; len(got) != 1 || got[0].ID != ticketID(i) {
			t.Errorf("the tickets of %.20q are %+v, want its own", name, got)
		}
	}
}
