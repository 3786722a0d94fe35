package lane

import (
	"bytes"
	"cmp"
	"container/heap"
	"slices"

	"github.com/rationhq/ration/internal/indexed"
	"github.com/rationhq/ration/limit"
)

// Line is a line of tickets. The zero Line is empty, and ready to use. It is not safe for concurrent use.
type Line struct {
	at       limit.Micros
	sequence int64 // of what comes first: tickets, and subjects whose turn is to come
	credit   int   // how many tickets may be called beside those that have been
	freed    bool  // room has come since the first of those was called: who is refused may have tried before that
	pace     limit.Micros
	admitted limit.Micros // when a ticket had its turn last; 0 since nobody waits
	waiting  int          // of all classes
	classes  []class
	tickets  map[ID]*ticket
	called   []*ticket             // by byCall
	due      indexed.Heap[*ticket] // all tickets, the one that is due first at the top
	waiters  map[ID]limit.Micros
}

// ticket is one that is in the line.
type ticket struct {
	Ticket
	waiter   ID
	where    Where
	sequence int64
	until    limit.Micros // it waits no longer
	due      limit.Micros // it is removed: until, or before that if it is aside
	place    int          // in Line.due

	// Of one that has been first of its subject, and is not in the queue now:
	turn   turn         // its subject's, as it was
	called limit.Micros // when it was
}

// Before implements indexed.Item.
func (t *ticket) Before(other *ticket) bool {
	if t.due != other.due {
		return t.due < other.due
	}
	return bytes.Compare(t.ID[:], other.ID[:]) < 0
}

// Moved implements indexed.Item.
func (t *ticket) Moved(place int) { t.place = place }

// Where a ticket is.
type Where uint8

const (
	// Queued is one that waits.
	Queued Where = iota
	// Called is one whose waiter tries.
	Called
	// Aside is one whose waiter is gone: it is not called.
	Aside
)

// Apply performs a step at an instant, which is never before the one of the step before: where the clock has stepped
// back, the line's time stands still, unless it was by more than [limit.Tolerance]. spec and step are valid; spec may differ
// from the one before.
func (l *Line) Apply(spec *Spec, step *Step, now limit.Micros) Outcome {
	if l.isIdleFor(step, now) {
		return l.pass(step, now)
	}
	l.begin(spec, now)
	work := l.endDue()
	out := Outcome{Gone: l.isGone(step.Waiter)}
	l.waiters[step.Waiter] = l.at + WaiterLasts
	switch step.Do {
	case Enter:
		l.enter(spec, step, &out)
	case Admitted, Refused, Leave:
		l.conclude(spec, step, &out)
	case Free:
		l.free(step.Room)
	case Beat:
		l.repeatCalls(step.Waiter, &out)
	case actions:
	}
	all := l.call(spec, work, &out)
	l.forgetWaiters()
	l.finish(all, &out)
	return out
}

// isIdleFor says that a step finds nothing to do: it asks for a turn that it has at once, or tells of room that nobody
// waits for.
func (l *Line) isIdleFor(step *Step, now limit.Micros) bool {
	at := max(l.at, now)
	if l.waiting > 0 || len(l.called) > 0 || l.at-now > limit.Tolerance || len(l.due) > 0 && l.due[0].due <= at {
		return false
	}
	switch step.Do {
	case Enter:
		return !step.Tried && l.tickets[step.Ticket.ID] == nil && l.pausedUntil(step.Ticket.Class) <= at
	case Free:
		return l.pausedUntil(0) <= at
	default:
		return false
	}
}

// pass answers a step for which the line is idle. It notes nothing, not even that the waiter is there: so a line that
// nobody waits in is only read, wherever it is kept.
func (l *Line) pass(step *Step, now limit.Micros) Outcome {
	out := Outcome{Now: max(l.at, now), Pace: l.pace}
	if step.Do == Enter {
		out.Answer = Go
	}
	until, known := l.waiters[step.Waiter]
	out.Gone = !known || until < out.Now
	return out
}

// begin makes the line ready for a step at now.
func (l *Line) begin(spec *Spec, now limit.Micros) {
	if l.tickets == nil {
		l.tickets, l.waiters = make(map[ID]*ticket), make(map[ID]limit.Micros)
	}
	for len(l.classes) < spec.Classes {
		l.classes = append(l.classes, newClass())
	}
	if l.at-now > limit.Tolerance {
		for i := range l.classes {
			l.classes[i].paused, l.classes[i].since = 0, min(l.classes[i].since, now)
		}
		for _, t := range l.called {
			t.called = min(t.called, now)
		}
		slices.SortFunc(l.called, byCall)
		l.at, l.admitted = now, min(l.admitted, now)
	}
	l.at = max(l.at, now)
}

// endDue ends what is due, and returns how much more work the step may do for others.
func (l *Line) endDue() (work int) {
	work = AtOnce
	for ; work > 0 && len(l.due) > 0 && l.due[0].due <= l.at; work-- {
		l.leave(l.due[0])
	}
	for ; work > 0 && len(l.called) > 0 && l.called[0].called+CallLasts <= l.at; work-- {
		t := l.called[0]
		delete(l.waiters, t.waiter)
		l.takeBack(t)
		l.setAside(t)
		l.credit = min(MaxCalled, l.credit+1)
	}
	return work
}

// enter gives a ticket its place.
func (l *Line) enter(spec *Spec, step *Step, out *Outcome) {
	of := &step.Ticket
	c := &l.classes[of.Class]
	if step.Tried {
		c.paused, l.credit = max(c.paused, step.Until), 0
	}
	if t := l.tickets[of.ID]; t != nil {
		l.comeFor(t, step.Waiter, out)
		return
	}
	switch {
	case !step.Tried && l.waiting == 0 && len(l.called) == 0 && l.pausedUntil(of.Class) <= l.at:
		out.Answer = Go
		return
	case len(l.tickets) >= spec.Most:
		out.Answer = Full
	case c.held[of.Subject] >= spec.MostOfSubject:
		out.Answer = FullForSubject
	}
	if out.Answer != None {
		out.Ahead = l.ahead(spec, of.Class)
		return
	}
	out.Answer = Waits
	l.sequence++
	t := &ticket{Ticket: *of, waiter: step.Waiter, sequence: l.sequence, until: l.at + step.Wait, due: l.at + step.Wait}
	l.tickets[of.ID] = t
	heap.Push(&l.due, t)
	c.held[of.Subject]++
	l.queue(t)
}

// comeFor has a waiter wait for a ticket that is in the line.
func (l *Line) comeFor(t *ticket, waiter ID, out *Outcome) {
	t.waiter, out.Answer = waiter, Waits
	switch t.where {
	case Queued:
	case Called:
		t.called = l.at
		slices.SortFunc(l.called, byCall)
		out.Calls = append(out.Calls, Call{t.ID, waiter})
	case Aside:
		t.due = t.until
		heap.Fix(&l.due, t.place)
		l.queue(t)
	}
}

// conclude says what came of a ticket.
func (l *Line) conclude(spec *Spec, step *Step, out *Outcome) {
	t := l.tickets[step.Ticket.ID]
	if t == nil {
		out.Answer = Unknown
		return
	}
	switch step.Do {
	case Admitted:
		if t.where != Called { // it says so late
			l.charge(t)
		}
		l.remove(t)
		l.served(spec, t)
		l.note()
		l.credit = max(0, min(MaxCalled, step.Room)-len(l.called))
		if step.Room == 0 {
			c := &l.classes[t.Class]
			c.paused = max(c.paused, step.Until)
		}
	case Refused:
		out.Answer = Waits
		if c := &l.classes[t.Class]; !l.freed {
			c.paused = max(c.paused, step.Until)
		}
		l.credit = 0
		if t.where == Called {
			l.takeBack(t)
		}
		if t.where != Queued {
			t.due = t.until
			heap.Fix(&l.due, t.place)
			l.queue(t)
		}
	default:
		switch {
		case t.waiter != step.Waiter: // it is waited for
		case step.Keep:
			l.keep(t)
		default:
			l.leave(t)
		}
	}
}

// leave takes a ticket out of the line that has not had its turn.
func (l *Line) leave(t *ticket) {
	if t.where == Called {
		l.takeBack(t)
		l.credit = min(MaxCalled, l.credit+1)
	}
	l.remove(t)
}

// keep sets a ticket aside that has not had its turn, wherever it is.
func (l *Line) keep(t *ticket) {
	switch t.where {
	case Queued:
		l.unqueue(t)
	case Called:
		l.takeBack(t)
		l.credit = min(MaxCalled, l.credit+1)
	case Aside:
		return
	}
	l.setAside(t)
}

// repeatCalls says again which of a waiter's tickets are called: it may not have heard.
func (l *Line) repeatCalls(waiter ID, out *Outcome) {
	for _, t := range l.called {
		if t.waiter == waiter {
			out.Calls = append(out.Calls, Call{t.ID, waiter})
		}
	}
}

// free lets so many be called who have been kept waiting. Those who try already go before them: the room is theirs.
func (l *Line) free(room int) {
	for i := range l.classes {
		l.classes[i].paused = 0
	}
	if l.freed = len(l.called) > 0; !l.freed {
		l.credit = min(MaxCalled, l.credit+min(MaxCalled, room))
	}
}

// note notes that a ticket has had its turn now.
func (l *Line) note() {
	if l.admitted > 0 {
		between := l.at - l.admitted
		if l.pace == 0 {
			l.pace = max(1, between)
		} else {
			l.pace = max(1, l.pace+(between-l.pace)>>3) // rounded down, also below 0
		}
	}
	l.admitted = max(1, l.at)
}

// Pace is how long it takes from one turn to the next: on the average of the last ones, or longer where the last one has been
// that long ago; 0: nobody knows.
func (l *Line) Pace() limit.Micros {
	if l.admitted == 0 {
		return l.pace
	}
	return max(l.pace, l.at-l.admitted)
}

// remove takes a ticket out of the line. One that was called has used its turn.
func (l *Line) remove(t *ticket) {
	c := &l.classes[t.Class]
	switch t.where {
	case Queued:
		l.unqueue(t)
	case Called:
		l.called = without(l.called, t)
	case Aside:
	}
	delete(l.tickets, t.ID)
	heap.Remove(&l.due, t.place)
	c.letGo(t.Subject)
}

// setAside keeps a ticket, which is not in the queue, for somebody else to come for it.
func (l *Line) setAside(t *ticket) {
	t.where, t.due = Aside, min(t.until, l.at+AsideLasts)
	heap.Fix(&l.due, t.place)
}

// isGone says that a waiter has said nothing for too long.
func (l *Line) isGone(waiter ID) bool {
	until, known := l.waiters[waiter]
	return !known || until < l.at
}

// forgetWaiters forgets those that are gone.
func (l *Line) forgetWaiters() {
	for id := range l.waiters {
		if l.isGone(id) {
			delete(l.waiters, id)
		}
	}
}

// finish says how the line is. all says that nothing is left to be done at once.
func (l *Line) finish(all bool, out *Outcome) {
	if l.waiting == 0 {
		l.credit = 0
		if len(l.called) == 0 {
			l.admitted, l.freed = 0, false
		}
	}
	out.Now, out.Waiting, out.Pace = l.at, l.waiting, l.Pace()
	switch {
	case !all:
		out.Due = l.at
	case len(l.called) > 0:
		out.Due = l.called[0].called + CallLasts
	case l.waiting > 0:
		out.Due = l.resumes()
	}
}

// resumes returns when the first class of those that wait is no longer paused.
func (l *Line) resumes() (at limit.Micros) {
	for i := range l.classes {
		if until := l.pausedUntil(i); l.classes[i].waiting > 0 && (at == 0 || until < at) {
			at = until
		}
	}
	return at
}

// pausedUntil returns until when a class is paused: as long as one of those above it, or itself.
func (l *Line) pausedUntil(class int) (until limit.Micros) {
	for i := class; i < len(l.classes); i++ {
		until = max(until, l.classes[i].paused)
	}
	return until
}

// ahead returns how many would have their turn before a class's last one.
func (l *Line) ahead(spec *Spec, class int) (n int) {
	for i := range l.classes {
		if spec.Weights != nil || i >= class {
			n += l.classes[i].waiting
		}
	}
	return n
}

// byCall orders tickets by when they were called, and those of one instant by when they came.
func byCall(a, b *ticket) int {
	return cmp.Or(cmp.Compare(a.called, b.called), cmp.Compare(a.sequence, b.sequence))
}

func without(list []*ticket, t *ticket) []*ticket {
	kept := list[:0]
	for _, other := range list {
		if other != t {
			kept = append(kept, other)
		}
	}
	return kept
}
