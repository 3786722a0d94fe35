package lane

import (
	"container/heap"
	"slices"

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
	lag      int64        // how far it is ahead of the class that was served least for its weight: 0 for the next one
	virtual  int64        // the time by which subjects take turns
	subjects map[ID]*subject
	heads    turnHeap     // the subjects that wait
	finished map[ID]int64 // when the last turn of a subject ends that does not wait
	held     map[ID]int   // how many tickets each subject has in the line, in any state
}

func newClass() class {
	return class{subjects: make(map[ID]*subject), finished: make(map[ID]int64), held: make(map[ID]int)}
}

// subject is one that waits.
type subject struct {
	turn
	id      ID
	ends    int64     // when its last turn ends
	tickets []*ticket // in the order in which they came
	place   int       // in class.heads
}

// turn says which subject of a class is next: the one whose turn starts first; of several, whose ticket became its
// subject's first before the others'.
type turn struct{ starts, sequence int64 }

func (a turn) before(b turn) bool {
	return a.starts < b.starts || a.starts == b.starts && a.sequence < b.sequence
}

// next returns the class whose turn it is, of those that wait and are not paused; −1 if there is none.
func (l *Line) next(spec *Spec) int {
	best := -1
	for i := len(l.classes) - 1; i >= 0; i-- {
		c := &l.classes[i]
		if c.waiting == 0 || l.pausedUntil(i) > l.at {
			continue
		}
		switch {
		case best < 0:
			best = i
		case spec.Weights != nil:
			if c.lag < l.classes[best].lag {
				best = i
			}
		case c.since+spec.Aging <= l.at:
			// The one above has its turn in any case, if it has waited for as long.
			if c.since < l.classes[best].since {
				best = i
			}
		}
	}
	return best
}

// call calls those whose turn it is. It reports whether these were all: work bounds those that are set aside on the way.
func (l *Line) call(spec *Spec, work int, out *Outcome) (all bool) {
	for len(l.called) < MaxCalled && (l.credit > 0 || len(l.called) == 0) {
		best := l.next(spec)
		if best < 0 {
			return true
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
		l.take(spec, t)
		l.credit = max(0, l.credit-1)
		out.Calls = append(out.Calls, Call{t.ID, t.waiter})
	}
	return true
}

// take calls a ticket, which is the next one.
func (l *Line) take(spec *Spec, t *ticket) {
	c := &l.classes[t.Class]
	s := c.subjects[t.Subject]
	t.since, c.since = c.since, l.at
	t.lag = t.Cost * scale
	if spec.Weights != nil && t.Class < len(spec.Weights) {
		t.lag /= spec.Weights[t.Class]
	}
	for i, least := 0, c.lag; i < len(l.classes); i++ {
		l.classes[i].lag = max(0, l.classes[i].lag-least)
	}
	c.lag = min(limit.MaxAmount, c.lag+t.lag)
	if c.virtual >= renumberFrom {
		l.renumber(c)
	}
	started, subjects := s.starts, int64(len(c.heads))
	s.ends = started + t.Cost*scale
	c.virtual = max(started, c.virtual+t.Cost*scale/subjects)
	l.unqueue(t)
	t.where, t.called = Called, l.at
	l.called = append(l.called, t)
}

// takeBack undoes what calling a ticket has done to the order: it has not had its turn. The ticket is in no queue then.
func (l *Line) takeBack(t *ticket) {
	c := &l.classes[t.Class]
	l.called = without(l.called, t)
	c.since = min(c.since, t.since)
	c.lag = max(0, c.lag-t.lag)
	if s := c.subjects[t.Subject]; s != nil {
		s.ends = min(s.ends, t.turn.starts)
	} else if ends, ok := c.finished[t.Subject]; ok {
		c.finished[t.Subject] = min(ends, t.turn.starts)
	}
}

// queue puts a ticket behind those of its subject that came before it. If it is the first, its subject's turn starts when
// its last one ends, and not before now; that of one which was first before, as it would have then.
func (l *Line) queue(t *ticket) {
	c := &l.classes[t.Class]
	if c.waiting == 0 {
		c.since = l.at
	}
	t.where = Queued
	l.waiting++
	c.waiting++
	s := c.subjects[t.Subject]
	if s == nil {
		s = &subject{id: t.Subject, ends: c.finished[t.Subject], place: -1}
		delete(c.finished, t.Subject)
		c.subjects[t.Subject] = s
	}
	at, _ := slices.BinarySearchFunc(s.tickets, t.sequence, func(other *ticket, sequence int64) int {
		return int(other.sequence - sequence)
	})
	s.tickets = slices.Insert(s.tickets, at, t)
	if at > 0 {
		return
	}
	l.sequence++
	s.turn = turn{max(c.virtual, s.ends), l.sequence}
	if t.turn.sequence > 0 { // it was first before: it does not lose by that
		s.turn = turn{min(s.starts, t.turn.starts), min(s.sequence, t.turn.sequence)}
	}
	c.place(s)
}

// unqueue takes a ticket out of the queue, and remembers whose turn it was if it was the first of its subject.
func (l *Line) unqueue(t *ticket) {
	c := &l.classes[t.Class]
	s := c.subjects[t.Subject]
	l.waiting--
	c.waiting--
	at := slices.Index(s.tickets, t)
	s.tickets = slices.Delete(s.tickets, at, at+1)
	if at > 0 {
		return
	}
	t.turn = s.turn
	switch {
	case len(s.tickets) > 0:
		l.sequence++
		s.turn = turn{max(c.virtual, s.ends), l.sequence}
		c.place(s)
		return
	case s.ends > c.virtual:
		c.finished[t.Subject] = s.ends
	}
	heap.Remove(&c.heads, s.place)
	delete(c.subjects, t.Subject)
	c.forgetFinished()
}

// place puts a subject among the heads by its turn.
func (c *class) place(s *subject) {
	if s.place < 0 {
		heap.Push(&c.heads, s)
		return
	}
	heap.Fix(&c.heads, s.place)
}

// forgetFinished forgets turns that say nothing any more: they have ended, or nobody waits.
func (c *class) forgetFinished() {
	if c.waiting == 0 {
		c.virtual = 0
		clear(c.finished)
	}
	if len(c.finished) <= 2*len(c.subjects)+64 {
		return
	}
	for id, ends := range c.finished {
		if ends <= c.virtual {
			delete(c.finished, id)
		}
	}
}

// renumber begins the virtual time of a class anew, and leaves the order as it is.
func (l *Line) renumber(c *class) {
	c.virtual = 0
	clear(c.finished)
	slices.SortFunc(c.heads, func(a, b *subject) int {
		if a.before(b.turn) {
			return -1
		}
		return 1
	})
	for i, s := range c.heads {
		l.sequence++
		s.turn, s.ends, s.place = turn{0, l.sequence}, 0, i
	}
}
