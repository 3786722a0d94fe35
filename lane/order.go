package lane

import (
	"container/heap"
	"slices"

	"github.com/rationhq/ration/internal/indexed"
	"github.com/rationhq/ration/limit"
)

// scale is what a cost of 1 is in virtual time.
const scale = 1 << 20

// renumberFrom is the virtual time from which on that of a class begins anew.
const renumberFrom = 1 << 52

// class is what is known of those who wait in one class.
type class struct {
	waiting  int
	paused   limit.Micros // until then it is not called
	since    limit.Micros // when it had its last turn, or began to wait
	lag      int64        // how much more it has had, for its weight, than the one that was served last had before
	virtual  int64        // the time by which subjects take turns
	subjects map[ID]*subject
	heads    indexed.Heap[*subject] // the subjects that wait, the one whose turn it is at the top
	finished map[ID]int64           // when the last turn ends of one that has no ticket in the queue, as long as that says something
	forgetAt int                    // of how many finished ones those are forgotten that say nothing
	held     map[ID]int             // how many tickets each subject has in the line, in any state
}

func newClass() class {
	return class{subjects: make(map[ID]*subject), finished: make(map[ID]int64), held: make(map[ID]int)}
}

// subject is one that waits.
type subject struct {
	turn
	id      ID
	tickets []*ticket // in the order in which they came
	place   int       // in class.heads
}

// Before implements indexed.Item.
func (s *subject) Before(other *subject) bool { return s.before(other.turn) }

// Moved implements indexed.Item.
func (s *subject) Moved(place int) { s.place = place }

// turn says which subject of a class is next: the one whose turn starts first; of several, the one that has been there
// for longer since its last one.
type turn struct{ starts, sequence int64 }

func (a turn) before(b turn) bool {
	return a.starts < b.starts || a.starts == b.starts && a.sequence < b.sequence
}

// next returns the class whose turn it is, of those that wait and are not paused; −1 if there is none.
func (l *Line) next(spec *Spec) int {
	best := -1
	for i := len(l.classes) - 1; i >= 0; i-- {
		if l.classes[i].waiting == 0 || l.pausedUntil(i) > l.at {
			continue
		}
		switch {
		case best < 0:
			best = i
		case spec.Weights != nil:
			if l.classes[i].lag+l.tried(spec, i) < l.classes[best].lag+l.tried(spec, best) {
				best = i
			}
		case l.since(i)+spec.Aging <= l.at:
			// The one above has its turn in any case, if it has waited for as long.
			if l.since(i) < l.since(best) {
				best = i
			}
		}
	}
	return best
}

// since returns when a class had its last turn, or began to wait. That of one which tries counts, until it is refused.
func (l *Line) since(class int) limit.Micros {
	since := l.classes[class].since
	for _, t := range l.called {
		if t.Class == class {
			since = max(since, t.called)
		}
	}
	return since
}

// tried returns what the turns of a class are worth that it tries to have now.
func (l *Line) tried(spec *Spec, class int) (worth int64) {
	for _, t := range l.called {
		if t.Class == class {
			worth += spec.worth(t)
		}
	}
	return worth
}

// worth returns how much of its class's share a turn takes.
func (s *Spec) worth(t *ticket) int64 {
	if t.Class < len(s.Weights) {
		return t.Cost * scale / s.Weights[t.Class]
	}
	return t.Cost * scale
}

// call calls those whose turn it is. It reports whether these were all: work bounds those that are set aside on the way, and
// where it is used up more may be due.
func (l *Line) call(spec *Spec, work int, out *Outcome) (all bool) {
	for len(l.called) < MaxCalled && (l.credit > 0 || len(l.called) == 0) {
		best := l.next(spec)
		if best < 0 {
			break
		}
		c := &l.classes[best]
		t := c.heads[0].tickets[0]
		if l.isGone(t.waiter) {
			if work == 0 {
				return false
			}
			work--
			l.unqueue(t)
			l.setAside(t)
			continue
		}
		l.take(t)
		l.credit = max(0, l.credit-1)
		out.Calls = append(out.Calls, Call{t.ID, t.waiter})
	}
	return work > 0
}

// take calls a ticket, which is the next one.
func (l *Line) take(t *ticket) {
	c := &l.classes[t.Class]
	if c.virtual >= renumberFrom {
		c.renumber()
	}
	c.virtual = max(c.virtual, c.heads[0].starts)
	l.unqueue(t)
	l.charge(t)
	t.where, t.called = Called, l.at
	l.freed = l.freed && len(l.called) > 0
	l.called = append(l.called, t)
	slices.SortFunc(l.called, byCall)
}

// charge puts a subject's next turn off by what this one costs. The ticket is not in the queue any more.
func (l *Line) charge(t *ticket) {
	c := &l.classes[t.Class]
	s := c.subjects[t.Subject]
	if s == nil {
		c.finished[t.Subject] += t.Cost * scale
		return
	}
	l.sequence++
	s.turn = turn{s.starts + t.Cost*scale, l.sequence}
	heap.Fix(&c.heads, s.place)
}

// takeBack undoes what calling a ticket has done to the order: it has not had its turn. The ticket is in no queue then.
func (l *Line) takeBack(t *ticket) {
	c := &l.classes[t.Class]
	l.called = without(l.called, t)
	s := c.subjects[t.Subject]
	if s == nil {
		c.finished[t.Subject] = max(0, c.finished[t.Subject]-t.Cost*scale)
		return
	}
	starts := max(0, s.starts-t.Cost*scale)
	if starts <= t.turn.starts {
		s.sequence = min(s.sequence, t.turn.sequence)
	}
	s.starts = max(starts, c.front())
	heap.Fix(&c.heads, s.place)
}

// served notes that a ticket has had its turn, which is out of the line now.
func (l *Line) served(spec *Spec, t *ticket) {
	c := &l.classes[t.Class]
	c.since = l.at
	if spec.Weights != nil {
		// Whoever has had less by now has not waited, or could not have had more: it begins here.
		for i, from := 0, c.lag; i < len(l.classes); i++ {
			l.classes[i].lag = max(l.classes[i].lag-from, -l.tried(spec, i))
		}
		c.lag = spec.worth(t)
	}
	if len(c.heads) == 0 {
		return
	}
	// As fast as if all that wait were served at the same time, and never so far that those who come would be behind the
	// second turn of one that waits.
	first := c.heads[0]
	shared := c.virtual + t.Cost*scale/int64(len(c.heads))
	c.virtual = max(c.virtual, min(shared, first.starts+first.tickets[0].Cost*scale))
}

// queue puts a ticket behind those of its subject that came before it. If there are none, the subject's turn starts when
// its last one ends, and not before now; that of one which was there already, not before that of others.
func (l *Line) queue(t *ticket) {
	c := &l.classes[t.Class]
	wasFirst := t.turn.sequence > 0
	if c.waiting == 0 && !wasFirst && !l.tries(t.Class) {
		c.since = l.at
	}
	t.where = Queued
	l.waiting++
	c.waiting++
	if s := c.subjects[t.Subject]; s != nil {
		at, _ := slices.BinarySearchFunc(s.tickets, t.sequence, func(other *ticket, sequence int64) int {
			return int(other.sequence - sequence)
		})
		s.tickets = slices.Insert(s.tickets, at, t)
		return
	}
	l.sequence++
	ends, begins := c.finished[t.Subject], turn{c.virtual, l.sequence}
	if wasFirst || c.held[t.Subject] > 1 {
		begins.starts = c.front()
	}
	if wasFirst && ends <= t.turn.starts {
		begins.sequence = t.turn.sequence
	}
	begins.starts = max(begins.starts, ends)
	delete(c.finished, t.Subject)
	s := &subject{turn: begins, id: t.Subject, tickets: []*ticket{t}}
	c.subjects[t.Subject] = s
	heap.Push(&c.heads, s)
}

// tries reports whether a ticket of the class is called.
func (l *Line) tries(class int) bool {
	return slices.ContainsFunc(l.called, func(t *ticket) bool { return t.Class == class })
}

// unqueue takes a ticket out of the queue, and remembers whose turn it was if it was the first of its subject: the turn is
// that of the next one then.
func (l *Line) unqueue(t *ticket) {
	c := &l.classes[t.Class]
	s := c.subjects[t.Subject]
	l.waiting--
	c.waiting--
	at := slices.Index(s.tickets, t)
	s.tickets = slices.Delete(s.tickets, at, at+1)
	if at == 0 {
		t.turn = s.turn
	}
	if len(s.tickets) == 0 {
		heap.Remove(&c.heads, s.place)
		delete(c.subjects, t.Subject)
		c.finished[t.Subject] = s.starts
	}
}

// front returns when the turn starts of one that is not behind anybody.
func (c *class) front() int64 {
	if len(c.heads) == 0 {
		return c.virtual
	}
	return min(c.virtual, c.heads[0].starts)
}

// letGo forgets that a subject has one of its tickets, and what says nothing any more: turns that have ended of subjects
// that have no ticket, and all if there is none.
func (c *class) letGo(of ID) {
	if c.held[of]--; c.held[of] == 0 {
		delete(c.held, of)
	}
	if len(c.held) == 0 {
		c.virtual = 0
		clear(c.finished)
	}
	if len(c.finished) < c.forgetAt {
		return
	}
	for id := range c.finished {
		if !c.remembers(id) {
			delete(c.finished, id)
		}
	}
	c.forgetAt = 2*len(c.finished) + 64
}

// remembers reports whether the end of a finished subject's turn says something.
func (c *class) remembers(of ID) bool { return c.finished[of] > c.virtual || c.held[of] > 0 }

// renumber takes away from the virtual time of a class, and from all that is measured by it, what all have in common.
func (c *class) renumber() {
	common := c.front()
	c.virtual -= common
	for _, s := range c.heads {
		s.starts -= common
	}
	for id, ends := range c.finished {
		c.finished[id] = max(0, ends-common)
	}
}
