package storetest

import (
	"fmt"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/rationhq/ration/lane"
	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

// lineHistory draws steps in a line, and performs each in the store and in a lane.Line, which is the model: what follows,
// and all that is known then, has to be equal. It keeps to few tickets, subjects and waiters, so that they meet again.
type lineHistory struct {
	r     *rapid.T
	clock *Clock
	lines store.Lines
	model lane.Line
	spec  lane.Spec
	made  int            // tickets so far, beside the few that come again
	tally map[string]int // what has happened, for the log
}

const (
	fewTickets, fewSubjects, fewWaiters = 10, 4, 3
	crowd                               = lane.AtOnce + 30
)

func testLineModel(t *testing.T, open Open) {
	tally := map[string]int{}
	for range rounds / 2 {
		rapid.Check(t, func(r *rapid.T) {
			scope := &scope{TB: t}
			defer scope.end()
			clock := NewClock(rapid.SampledFrom([]limit.Micros{noon, noon, noon, 0}).Draw(r, "start"))
			h := &lineHistory{r: r, clock: clock, lines: linesOf(t, open(scope, clock)), tally: tally}
			h.drawSpec()
			r.Repeat(map[string]func(*rapid.T){"steps": func(*rapid.T) {
				for range 4 {
					h.next()
				}
			}})
		})
	}
	logTally(t, tally)
}

// drawSpec draws how the line orders: a policy has changed.
func (h *lineHistory) drawSpec() {
	h.spec = lane.Spec{
		Classes:       rapid.IntRange(1, 4).Draw(h.r, "classes"),
		Aging:         rapid.SampledFrom([]limit.Micros{1, sec, 10 * sec, minute, lane.MaxWait}).Draw(h.r, "aging"),
		Most:          rapid.SampledFrom([]int{3, 8, 20, 20, lane.MaxTickets}).Draw(h.r, "most"),
		MostOfSubject: rapid.SampledFrom([]int{1, 3, 8, 20, 1 << 40}).Draw(h.r, "most of a subject"),
	}
	if rapid.Bool().Draw(h.r, "weighted") {
		h.spec.Weights = rapid.SliceOfN(rapid.SampledFrom([]int64{1, 2, 3, 10, lane.MaxWeight}), h.spec.Classes, h.spec.Classes).Draw(h.r, "weights")
	}
}

// next moves the clock, and performs the next step.
func (h *lineHistory) next() {
	switch what := rapid.IntRange(0, 59).Draw(h.r, "clock"); {
	case what < 30:
		h.clock.Advance(rapid.SampledFrom([]limit.Micros{0, 1, 999, sec / 10, sec}).Draw(h.r, "a little"))
	case what < 34:
		h.clock.Advance(rapid.SampledFrom([]limit.Micros{lane.CallLasts - 1, lane.WaiterLasts, lane.WaiterLasts + 1, lane.AsideLasts, minute}).Draw(h.r, "on"))
	case what < 39:
		h.clock.Set(max(0, h.clock.Now()-rapid.SampledFrom([]limit.Micros{1, sec, limit.Tolerance}).Draw(h.r, "back")))
	case what == 39 && rapid.Bool().Draw(h.r, "really"):
		h.clock.Set(max(0, h.clock.Now()-rapid.SampledFrom([]limit.Micros{limit.Tolerance + 1, hour, day}).Draw(h.r, "far back")))
	case what == 40 && rapid.Bool().Draw(h.r, "really"):
		h.clock.Advance(rapid.SampledFrom([]limit.Micros{hour, day, 366 * day}).Draw(h.r, "far on"))
	}
	switch what := rapid.IntRange(0, 799).Draw(h.r, "what"); {
	case what < 10:
		h.drawSpec()
	case what == 10 && len(h.model.State().Tickets) < 3*crowd:
		h.drawCrowd()
	}
	h.perform(h.draw())
	if got, want := stateOf(h.r, h.lines, "line"), h.model.State(); !reflect.DeepEqual(got, want) {
		h.r.Fatalf("with %+v:\n%s", h.spec, differences(&got, &want))
	}
}

// draw draws a step.
func (h *lineHistory) draw() *lane.Step {
	step := &lane.Step{Waiter: waiterID(rapid.IntRange(1, fewWaiters).Draw(h.r, "waiter"))}
	switch what := rapid.IntRange(0, 29).Draw(h.r, "do"); {
	case what < 12:
		h.drawEnter(step)
	case what < 18:
		step.Do = lane.Admitted
		h.drawRoom(step)
	case what < 22:
		step.Do = lane.Refused
		step.Until = h.instant()
	case what < 24:
		step.Do = lane.Leave
		step.Keep = rapid.Bool().Draw(h.r, "keep")
	case what < 27:
		step.Do = lane.Free
		h.drawRoom(step)
	default:
		step.Do = lane.Beat
	}
	if step.Do == lane.Admitted || step.Do == lane.Refused || step.Do == lane.Leave {
		h.drawKnown(step)
	}
	return step
}

// drawKnown draws the ticket that a step is about; mostly one that is called, and the waiter who waits for it.
func (h *lineHistory) drawKnown(step *lane.Step) {
	var called, all []lane.TicketState
	for _, t := range h.model.State().Tickets {
		all = append(all, t)
		if t.Where == lane.Called {
			called = append(called, t)
		}
	}
	from := called
	if len(called) == 0 || rapid.IntRange(0, 4).Draw(h.r, "of all") == 4 {
		from = all
	}
	step.Ticket.ID = ticketID(rapid.IntRange(1, fewTickets).Draw(h.r, "ticket"))
	if len(from) > 0 && rapid.IntRange(0, 9).Draw(h.r, "known") > 0 {
		t := rapid.SampledFrom(from).Draw(h.r, "which")
		step.Ticket.ID = t.ID
		if rapid.IntRange(0, 4).Draw(h.r, "its waiter") > 0 {
			step.Waiter = t.Waiter
		}
	}
}

func (h *lineHistory) drawEnter(step *lane.Step) {
	step.Do = lane.Enter
	step.Ticket = lane.Ticket{
		ID:      ticketID(rapid.IntRange(1, fewTickets).Draw(h.r, "ticket")),
		Class:   rapid.IntRange(0, h.spec.Classes-1).Draw(h.r, "class"),
		Subject: subjectID(rapid.IntRange(1, fewSubjects).Draw(h.r, "subject")),
		Cost:    rapid.SampledFrom([]int64{1, 1, 1, 2, 3, 1000, lane.MaxCost}).Draw(h.r, "cost"),
	}
	step.Wait = rapid.SampledFrom([]limit.Micros{1, 5 * sec, minute, minute, lane.MaxWait}).Draw(h.r, "wait")
	if rapid.IntRange(0, 2).Draw(h.r, "tried") == 0 {
		step.Tried, step.Until = true, h.instant()
	}
}

// drawCrowd has many enter, of subjects of their own, who are due at the same time, and who say nothing more.
func (h *lineHistory) drawCrowd() {
	h.spec.Most, h.spec.MostOfSubject = lane.MaxTickets, lane.MaxTickets
	wait := rapid.SampledFrom([]limit.Micros{sec, minute}).Draw(h.r, "wait")
	class, one := rapid.IntRange(0, h.spec.Classes-1).Draw(h.r, "class"), rapid.Bool().Draw(h.r, "one subject")
	for i := range crowd {
		h.made++
		of := fewSubjects + h.made
		if one {
			of = fewSubjects
		}
		h.perform(&lane.Step{
			Do: lane.Enter, Waiter: waiterID(fewWaiters + 1), Wait: wait, Tried: i == 0, Until: h.clock.Now() + 10,
			Ticket: lane.Ticket{ID: ticketID(fewTickets + h.made), Class: class, Subject: subjectID(of), Cost: 1},
		})
	}
}

func (h *lineHistory) drawRoom(step *lane.Step) {
	step.Room = rapid.SampledFrom([]int{0, 0, 1, 1, 2, 5, lane.MaxCalled, lane.MaxCalled + 1, 1 << 40}).Draw(h.r, "room")
	if step.Room == 0 {
		step.Until = h.instant()
	}
}

// instant draws until when there is no room; 0 where nobody knows.
func (h *lineHistory) instant() limit.Micros {
	after := rapid.SampledFrom([]limit.Micros{-1, 0, 1, sec, sec, minute, day, limit.Micros(limit.MaxAmount)}).Draw(h.r, "until")
	if after < 0 {
		return 0
	}
	return min(h.clock.Now()+after, limit.Micros(limit.MaxAmount))
}

// perform performs a step in both: what follows is equal.
func (h *lineHistory) perform(step *lane.Step) {
	want := h.model.Apply(&h.spec, step, h.clock.Now())
	got := stepIn(h.r, h.lines, "line", &h.spec, step)
	if !reflect.DeepEqual(got, want) {
		h.r.Fatalf("%+v, with %+v:\n got %+v\nwant %+v", step, h.spec, got, want)
	}
	h.tally[fmt.Sprint("answered ", want.Answer)]++
	h.tally["called"] += len(want.Calls)
	if want.Due == want.Now {
		h.tally["more at once"]++
	}
}

// differences shows where two states differ.
func differences(got, want *lane.State) (all string) {
	a, b := reflect.ValueOf(*got), reflect.ValueOf(*want)
	for i := range a.NumField() {
		x, y := showAll(a.Field(i)), showAll(b.Field(i))
		if slices.Equal(x, y) {
			continue
		}
		all += a.Type().Field(i).Name + "\n"
		for _, line := range x {
			if !slices.Contains(y, line) {
				all += " got " + line + "\n"
			}
		}
		for _, line := range y {
			if !slices.Contains(x, line) {
				all += "want " + line + "\n"
			}
		}
	}
	return all
}

// showAll shows a value, or each of a list.
func showAll(v reflect.Value) (lines []string) {
	if v.Kind() != reflect.Slice {
		return []string{fmt.Sprintf("%+v", v.Interface())}
	}
	for i := range v.Len() {
		lines = append(lines, fmt.Sprintf("%+v", v.Index(i).Interface()))
	}
	return lines
}
