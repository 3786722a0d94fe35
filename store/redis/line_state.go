package redis

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"github.com/rationhq/ration/lane"
	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

// lineVersion is that of what lua/line/line.lua keeps.
const lineVersion = 1

// lineFreed is added to the credit of a line where it says [lane.State.Freed].
const lineFreed = 128

// lineState is a line as it is read from Redis. What cannot be read leaves its error in err.
type lineState struct {
	lane.State
	epochs   []int64 // of the classes
	subjects []lineSubject
	err      error
}

// lineSubject is a subject that has tickets, or whose last turn has not ended.
type lineSubject struct {
	class          int
	id             lane.ID
	held, waiting  int
	epoch          int64
	starts, number int64 // starts of one that does not wait: when its last turn ends
}

// readLineState reads the answer of lua/line/state.lua.
func readLineState(reply any) (lane.State, error) {
	parts, _ := reply.([]any)
	if len(parts) != 2 {
		return lane.State{}, errShortAnswer
	}
	fields, _ := parts[0].([]any)
	waiters, _ := parts[1].([]any)
	var s lineState
	for pair := range slices.Chunk(fields, 2) {
		field, _ := pair[0].(string)
		packed, _ := pair[1].(string)
		s.field(field, packed)
	}
	for pair := range slices.Chunk(waiters, 2) {
		id, _ := pair[0].(string)
		until, _ := pair[1].(string)
		s.waiter(id, until)
	}
	if s.err != nil {
		return lane.State{}, store.ErrCorrupt
	}
	s.finish()
	return s.State, nil
}

// field reads a field of the line's hash.
func (s *lineState) field(name, packed string) {
	of, a := answer{rest: name}, answer{rest: packed}
	switch of.byte() {
	case 's':
		s.head(&a)
	case 't':
		s.ticket(of.line(), &a)
	case 'u':
		s.subjects = append(s.subjects, lineSubject{
			class: int(of.byte()), id: of.line(), held: a.length(), waiting: a.length(), epoch: a.short(), starts: a.short(),
			number: a.short(),
		})
		a.take(shortSize + len(lane.ID{})) // which ticket is its first
	}
	s.err = cmp.Or(s.err, of.err, a.err)
}

// head reads how the line stands.
func (s *lineState) head(a *answer) {
	if a.byte() != lineVersion {
		a.err = store.ErrCorrupt
		return
	}
	s.At, s.Sequence, s.Credit = limit.Micros(a.short()), a.short(), int(a.byte())
	if s.Credit >= lineFreed {
		s.Credit, s.Freed = s.Credit-lineFreed, true
	}
	s.Pace, s.Admitted = limit.Micros(a.short()), limit.Micros(a.short())
	a.length() // how many tickets
	classes := a.byte()
	a.byte() // how many are called
	for range classes {
		a.take(6) // how many wait, tickets, and subjects that wait
		s.epochs = append(s.epochs, a.short())
		s.Classes = append(s.Classes, lane.ClassState{
			Paused: limit.Micros(a.short()), Since: limit.Micros(a.short()), Lag: a.short(), Virtual: a.short(),
		})
	}
}

func (s *lineState) ticket(id lane.ID, a *answer) {
	t := lane.TicketState{Ticket: lane.Ticket{ID: id, Class: int(a.byte())}}
	t.Where, t.Subject, t.Waiter = lane.Where(a.byte()), a.line(), a.line()
	t.Cost = int64(a.length()) | int64(a.length())<<16
	t.Sequence, t.Until, t.Due = a.short(), limit.Micros(a.short()), limit.Micros(a.short())
	t.Starts, t.TurnFirst, t.Called = a.short(), a.short(), limit.Micros(a.short())
	s.Tickets = append(s.Tickets, t)
}

func (s *lineState) waiter(id, until string) {
	at, err := strconv.ParseInt(until, 10, 64)
	a := answer{rest: id}
	s.Waiters = append(s.Waiters, lane.WaiterState{ID: a.line(), Until: limit.Micros(at)})
	s.err = cmp.Or(s.err, a.err, err)
}

// finish tells subjects apart, and sorts all as [lane.Line.State] does.
func (s *lineState) finish() {
	for _, of := range s.subjects {
		switch {
		case of.class >= len(s.Classes):
		case of.waiting > 0:
			s.Subjects = append(s.Subjects, lane.SubjectState{Class: of.class, ID: of.id, Starts: of.starts, Sequence: of.number})
		case of.epoch == s.epochs[of.class] && (of.held > 0 || of.starts > s.Classes[of.class].Virtual):
			s.Finished = append(s.Finished, lane.FinishedState{Class: of.class, ID: of.id, Ends: of.starts})
		}
	}
	compare := func(a, b lane.ID) int { return strings.Compare(string(a[:]), string(b[:])) }
	slices.SortFunc(s.Subjects, func(a, b lane.SubjectState) int { return cmp.Compare(a.Sequence, b.Sequence) })
	slices.SortFunc(s.Finished, func(a, b lane.FinishedState) int {
		return cmp.Or(cmp.Compare(a.Class, b.Class), compare(a.ID, b.ID))
	})
	slices.SortFunc(s.Tickets, func(a, b lane.TicketState) int { return cmp.Compare(a.Sequence, b.Sequence) })
	slices.SortFunc(s.Waiters, func(a, b lane.WaiterState) int { return compare(a.ID, b.ID) })
}
