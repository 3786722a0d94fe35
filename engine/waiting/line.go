package waiting

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/rationhq/ration/lane"
	"github.com/rationhq/ration/limit"
)

// beatEvery is how often a line hears that this process is there, as long as somebody waits in it here: well within
// lane.WaiterLasts.
const beatEvery = time.Second

// stall is for how long those who wait do so on while the store does not answer: it may have stalled, or another one takes
// its place, and it is not to let everybody go at once for that.
const stall = 3 * time.Second

// tellEvery is how often whoever waits hears how they stand, at most: a line may be due many times a second.
const tellEvery = 3 * beatEvery / 4

// line is one in which somebody waits here. What is not said otherwise is guarded by Room.mu.
type line struct {
	room *Room
	name string
	spec lane.Spec

	turns map[lane.ID][]*turn // by ticket: who asks for the same waits for the same
	seats int64
	ahead limit.Micros  // the line's clock, of that of this process
	due   time.Time     // when the line is to be asked again; zero: with the next beat
	as    limit.Micros  // the instant, of the store, of the answer that says so
	wake  chan struct{} // holds one: due has changed, or lost
	lost  bool          // tickets may have been set aside: they are to enter again
	since time.Time     // when the line has answered last
	new   bool          // somebody has come who wants to hear how it stands

	// It was not heard what the line has said, as perhaps that this process counted as gone: it says so once.
	unsure bool

	looking sync.Mutex // held by whoever looks, before Room.mu
	order   order
}

// order is how those in a line stood at an instant.
type order struct {
	at        time.Time
	positions map[lane.ID]int
	waiting   int
	pace      limit.Micros
}

// sitDown has a turn wait in its line. out is what the line has said when it entered.
func (t *turn) sitDown(out *lane.Outcome) {
	r := t.room
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.byName[t.party.Line]
	if l == nil {
		l = &line{room: r, name: t.party.Line, since: time.Now(), turns: make(map[lane.ID][]*turn), wake: make(chan struct{}, 1)}
		r.byName[l.name] = l
		r.listen()
		if !r.closed {
			r.behind.Go(l.run)
		}
	}
	l.spec = t.party.Spec
	l.seats++
	t.seat = l.seats
	id := t.party.Ticket.ID
	l.turns[id] = append(l.turns[id], t)
	l.new = l.new || t.party.Tell != nil
	l.schedule(out)
	if t.presence.early {
		t.presence.early = false
		l.call(id)
	}
}

// standUp has a turn wait no more.
func (t *turn) standUp() {
	r := t.room
	r.mu.Lock()
	defer r.mu.Unlock()
	l, id := r.byName[t.party.Line], t.party.Ticket.ID
	rest := slices.DeleteFunc(l.turns[id], func(other *turn) bool { return other == t })
	if l.turns[id] = rest; len(rest) > 0 {
		return
	}
	if delete(l.turns, id); len(l.turns) == 0 {
		delete(r.byName, l.name)
		l.alarm() // it ends
	}
}

// heard takes in what a line has said to this process. Room.mu is held.
func (r *Room) heard(name string, out *lane.Outcome) {
	for _, c := range out.Calls {
		if c.Waiter == r.me {
			r.hear(place{name, c.Ticket})
		}
	}
	l := r.byName[name]
	if l == nil {
		return
	}
	l.since = time.Now()
	if out.Gone {
		l.lost = true
		l.alarm()
	}
	l.schedule(out)
}

// hear takes in a call. Room.mu is held.
func (r *Room) hear(at place) {
	l, p := r.byName[at.line], r.here[at]
	switch {
	case l != nil && len(l.turns[at.ticket]) > 0:
		l.call(at.ticket)
	case p != nil:
		p.early = true
	case l != nil && !r.closed: // else the line will count this process as gone
		r.behind.Go(func() { l.giveUp(at.ticket) })
	}
}

// call tells those who wait for a ticket that it is their turn. Room.mu is held.
func (l *line) call(id lane.ID) {
	for _, t := range l.turns[id] {
		select {
		case t.called <- struct{}{}:
		default: // it knows
		}
	}
}

// schedule notes when the line is to be asked again. Room.mu is held. Answers may overtake each other: what an older one says
// was so no more when the newer one was given. Older by more than a stall is one of a clock that has been set back.
func (l *line) schedule(out *lane.Outcome) {
	if behind := l.as - out.Now; behind > 0 && behind.Duration() < stall {
		return
	}
	now := time.Now()
	l.as, l.ahead, l.due = out.Now, out.Now-limit.At(now), time.Time{}
	if out.Due > 0 {
		l.due = now.Add((out.Due - out.Now).Duration())
	}
	l.alarm()
}

// later returns when it is worth asking again for what nobody could say, by the line's clock.
func (r *Room) later(line string) limit.Micros {
	r.mu.Lock()
	defer r.mu.Unlock()
	at := limit.At(time.Now().Add(beatEvery))
	if l := r.byName[line]; l != nil {
		at += l.ahead
	}
	return at
}

func (l *line) alarm() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// run asks the line whenever that is due, as long as anybody waits.
func (l *line) run() {
	beat := time.Now()
	for {
		l.room.mu.Lock()
		over, lost, next := len(l.turns) == 0, l.lost, beat
		if l.new {
			next = beat.Add(-beatEvery / 2)
		}
		if !l.due.IsZero() && l.due.Before(next) {
			next = l.due
		}
		l.lost = false
		l.room.mu.Unlock()
		switch {
		case over || l.room.alive.Err() != nil:
			return
		case lost:
			l.enterAgain()
			continue
		}
		timer := time.NewTimer(time.Until(next))
		select {
		case <-timer.C:
			l.beat()
			beat = time.Now().Add(beatEvery)
		case <-l.wake:
		case <-l.room.alive.Done():
		}
		timer.Stop()
	}
}

// beat says that this process is there, and to those who wait how they stand.
func (l *line) beat() {
	r := l.room
	spec := l.orders()
	if _, err := r.step(r.alive, l.name, &spec, &lane.Step{Do: lane.Beat}); err != nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		l.due = time.Time{}
		if time.Since(l.since) < stall {
			return
		}
		// Nobody says whose turn it is. What they wait for has limits of its own.
		for id := range l.turns {
			l.call(id)
		}
		return
	}
	r.mu.Lock()
	l.new = false
	if l.unsure {
		l.unsure, l.lost = false, true
	}
	var listeners []*turn
	for _, turns := range l.turns {
		for _, t := range turns {
			if t.party.Tell != nil && time.Since(t.told) >= tellEvery {
				listeners = append(listeners, t)
			}
		}
	}
	r.mu.Unlock()
	if len(listeners) == 0 {
		return
	}
	now := l.look(r.alive)
	for _, t := range listeners {
		if now.positions[t.party.Ticket.ID] == 0 {
			continue // it has come since
		}
		t.told = time.Now()
		select {
		case <-t.stands: // an older one
		default:
		}
		select {
		case t.stands <- now.standing(t):
		default:
		}
	}
}

// orders returns how the line orders.
func (l *line) orders() lane.Spec {
	l.room.mu.Lock()
	defer l.room.mu.Unlock()
	return l.spec
}

// enterAgain has all who wait here enter the line again, in the order in which they came: it may have lost them.
func (l *line) enterAgain() {
	r := l.room
	r.mu.Lock()
	var turns []*turn
	for _, same := range l.turns {
		turns = append(turns, same[0])
	}
	r.mu.Unlock()
	slices.SortFunc(turns, func(a, b *turn) int { return cmp.Compare(a.seat, b.seat) })
	for _, t := range turns {
		t.enterAgain()
	}
}

// enterAgain enters the line again, if anybody here wants the ticket still.
func (t *turn) enterAgain() {
	r := t.room
	p := r.use(t.place)
	defer r.done(t.place, p)
	p.saying <- struct{}{}
	defer func() { <-p.saying }()
	if !r.want(p, 0) {
		return
	}
	out, err := r.step(r.alive, t.party.Line, &t.party.Spec, &lane.Step{Do: lane.Enter, Ticket: t.party.Ticket, Wait: t.left()})
	if err != nil || out.Answer != lane.Waits {
		r.mu.Lock()
		defer r.mu.Unlock()
		if l := r.byName[t.party.Line]; l != nil {
			l.call(t.party.Ticket.ID) // it tries, and sees
		}
	}
}

// longestLook is how old an order may be that is told, for each who waits: to look costs as much as there are.
const longestLook = time.Millisecond

// look returns how those in the line stand, as they do or did a moment ago.
func (l *line) look(ctx context.Context) order {
	l.looking.Lock()
	defer l.looking.Unlock()
	if age := time.Since(l.order.at); age < max(beatEvery/2, time.Duration(l.order.waiting)*longestLook) {
		return l.order
	}
	ctx, cancel := l.room.bounded(ctx)
	defer cancel()
	state, err := l.room.lines.LineState(ctx, []byte(l.name))
	if err != nil {
		l.order = order{at: time.Now()} // who asks next does not wait for as long
		return l.order
	}
	spec := l.orders()
	line := state.Line()
	ids := line.Order(&spec)
	now := order{at: time.Now(), positions: make(map[lane.ID]int, len(ids)), waiting: len(ids), pace: line.Pace()}
	for i, id := range ids {
		now.positions[id] = i + 1
	}
	l.order = now
	return now
}

// standing returns how a turn stands.
func (o *order) standing(t *turn) Standing {
	position := o.positions[t.party.Ticket.ID]
	return Standing{Position: position, Waiting: o.waiting, Expected: t.expected(position, o.pace)}
}

// standing returns how a turn stands.
func (r *Room) standing(ctx context.Context, t *turn) Standing {
	r.mu.Lock()
	l := r.byName[t.party.Line]
	r.mu.Unlock()
	now := l.look(ctx)
	return now.standing(t)
}
