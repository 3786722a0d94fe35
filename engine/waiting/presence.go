package waiting

import "github.com/rationhq/ration/lane"

// place names a ticket of a line.
type place struct {
	line   string
	ticket lane.ID
}

// presence is those here who want the same ticket: from before it enters the line until it has left.
type presence struct {
	// saying holds one while the line is told that the ticket enters, has had its turn, or leaves: what one says of it does
	// not undo what another one has said since.
	saying chan struct{}

	// Guarded by Room.mu:
	parties int  // who want the ticket
	users   int  // parties, and who else says something of it
	early   bool // it was called when nobody sat
}

// use returns the presence of a ticket. It is to be given back with done.
func (r *Room) use(at place) *presence {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.here[at]
	if p == nil {
		p = &presence{saying: make(chan struct{}, 1)}
		r.here[at] = p
	}
	p.users++
	return p
}

func (r *Room) done(at place, p *presence) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p.users--; p.users == 0 {
		delete(r.here, at)
	}
}

// want counts so many more parties that want the ticket, and returns whether any does.
func (r *Room) want(p *presence, more int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	p.parties += more
	return p.parties > 0
}

// arrive comes before all that a party says.
func (t *turn) arrive() {
	t.presence = t.room.use(t.place)
	t.room.want(t.presence, 1)
}

// end comes behind all that a party says. last is what the line is told then; nil: nothing. That the ticket leaves it is
// only told where nobody else here wants it.
func (t *turn) end(last *lane.Step) {
	p := t.presence
	p.saying <- struct{}{}
	wanted := t.room.want(p, -1)
	if last != nil && (last.Do == lane.Admitted || !wanted) {
		_, _ = t.say(last) // if the line has not heard, and calls it, giveUp says so
	}
	<-p.saying
	t.room.done(t.place, p)
}

// giveUp gives a ticket back that was called for this process, and that nobody here wants. The line has not heard that they
// left, or only then that they came.
func (l *line) giveUp(id lane.ID) {
	r, at := l.room, place{l.name, id}
	p, spec := r.use(at), l.orders()
	p.saying <- struct{}{}
	if !r.want(p, 0) {
		_, _ = r.step(r.alive, l.name, &spec, &lane.Step{Do: lane.Leave, Keep: true, Ticket: lane.Ticket{ID: id}})
	}
	<-p.saying
	r.done(at, p)
}
