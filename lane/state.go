package lane

import (
	"bytes"
	"cmp"
	"container/heap"
	"slices"

	"github.com/rationhq/ration/limit"
)

// State is all that a [Line] knows, for stores that keep it elsewhere. Every list has one order, so that what is the same
// looks the same.
type State struct {
	At       limit.Micros
	Sequence int64
	Credit   int
	Freed    bool
	Pace     limit.Micros
	Admitted limit.Micros
	Classes  []ClassState
	Subjects []SubjectState
	Finished []FinishedState
	Tickets  []TicketState
	Waiters  []WaiterState
}

// ClassState is what is known of a class.
type ClassState struct {
	Paused, Since limit.Micros
	Lag, Virtual  int64
}

// SubjectState is a subject that waits.
type SubjectState struct {
	Class            int
	ID               ID
	Starts, Sequence int64
}

// FinishedState is a subject that has no ticket in the queue, and whose last turn has not ended, or that has tickets
// elsewhere.
type FinishedState struct {
	Class int
	ID    ID
	Ends  int64
}

// TicketState is a ticket. Of one that is in the queue, what is said from Starts on may be left over from a call before.
type TicketState struct {
	Ticket
	Waiter            ID
	Where             Where
	Sequence          int64
	Until, Due        limit.Micros
	Starts, TurnFirst int64
	Called            limit.Micros
}

// WaiterState is a waiter, and until when it counts as there if it says nothing.
type WaiterState struct {
	ID    ID
	Until limit.Micros
}

// State returns all that the line knows.
func (l *Line) State() State {
	s := State{At: l.at, Sequence: l.sequence, Credit: l.credit, Freed: l.freed, Pace: l.pace, Admitted: l.admitted}
	for i := range l.classes {
		c := &l.classes[i]
		s.Classes = append(s.Classes, ClassState{c.paused, c.since, c.lag, c.virtual})
		for _, of := range c.heads {
			s.Subjects = append(s.Subjects, SubjectState{i, of.id, of.starts, of.sequence})
		}
		for id, ends := range c.finished {
			if c.remembers(id) {
				s.Finished = append(s.Finished, FinishedState{i, id, ends})
			}
		}
	}
	for _, t := range l.tickets {
		s.Tickets = append(s.Tickets, TicketState{
			t.Ticket, t.waiter, t.where, t.sequence, t.until, t.due, t.turn.starts, t.turn.sequence, t.called,
		})
	}
	for id, until := range l.waiters {
		s.Waiters = append(s.Waiters, WaiterState{id, until})
	}
	slices.SortFunc(s.Subjects, func(a, b SubjectState) int { return cmp.Compare(a.Sequence, b.Sequence) })
	slices.SortFunc(s.Finished, func(a, b FinishedState) int {
		return cmp.Or(cmp.Compare(a.Class, b.Class), bytes.Compare(a.ID[:], b.ID[:]))
	})
	slices.SortFunc(s.Tickets, func(a, b TicketState) int { return cmp.Compare(a.Sequence, b.Sequence) })
	slices.SortFunc(s.Waiters, func(a, b WaiterState) int { return bytes.Compare(a.ID[:], b.ID[:]) })
	return s
}

// Line returns the line that knows what s says, which is what [Line.State] has returned, or as consistent.
func (s *State) Line() *Line {
	l := &Line{at: s.At, sequence: s.Sequence, credit: s.Credit, freed: s.Freed, pace: s.Pace, admitted: s.Admitted}
	l.tickets, l.waiters = make(map[ID]*ticket, len(s.Tickets)), make(map[ID]limit.Micros, len(s.Waiters))
	for _, from := range s.Classes {
		c := newClass()
		c.paused, c.since, c.lag, c.virtual = from.Paused, from.Since, from.Lag, from.Virtual
		l.classes = append(l.classes, c)
	}
	for _, from := range s.Finished {
		l.classes[from.Class].finished[from.ID] = from.Ends
	}
	for _, from := range s.Subjects {
		c := &l.classes[from.Class]
		of := &subject{turn: turn{from.Starts, from.Sequence}, id: from.ID}
		c.subjects[from.ID] = of
		heap.Push(&c.heads, of)
	}
	for i := range s.Tickets {
		from := &s.Tickets[i]
		t := &ticket{
			Ticket: from.Ticket, waiter: from.Waiter, where: from.Where, sequence: from.Sequence, until: from.Until, due: from.Due,
			turn: turn{from.Starts, from.TurnFirst}, called: from.Called,
		}
		c := &l.classes[t.Class]
		l.tickets[t.ID] = t
		heap.Push(&l.due, t)
		c.held[t.Subject]++
		switch t.where {
		case Queued:
			l.waiting++
			c.waiting++
			of := c.subjects[t.Subject]
			of.tickets = append(of.tickets, t)
		case Called:
			l.called = append(l.called, t)
		case Aside:
		}
	}
	slices.SortFunc(l.called, byCall)
	for _, from := range s.Waiters {
		l.waiters[from.ID] = from.Until
	}
	return l
}

// Order returns the tickets in the order in which they will have their turn if nobody comes or goes, those that are called
// first: as far as that can be foreseen where classes age. Those that nobody waits for are not among them.
func (l *Line) Order(spec *Spec) []ID {
	state := l.State()
	future := state.Line()
	order := make([]ID, 0, len(future.called)+future.waiting)
	for i := range future.classes {
		future.classes[i].paused = 0
	}
	for {
		for _, t := range slices.Clone(future.called) {
			order = append(order, t.ID)
			future.remove(t)
			future.served(spec, t)
			future.at += future.pace
		}
		class := future.next(spec)
		if class < 0 {
			return order
		}
		t := future.classes[class].heads[0].tickets[0]
		if l.isGone(t.waiter) {
			future.unqueue(t)
			continue
		}
		future.take(t)
	}
}
