// Package lanesim plays a lane against a clock of its own: callers come, wait in a line of package lane, try for limits of
// package limit when they are called, hold their places, and leave; processes that wait for them die. Nothing is random
// in it but what it is given, so that the same callers have the same fate each time.
//
// It is what the tests of package lane prove its bounds on, and what the pictures of docs/lanes.md are drawn from. Read
// [Lane] first, then [Lane.Play].
package lanesim

import (
	"container/heap"
	"encoding/binary"

	"github.com/rationhq/ration/lane"
	"github.com/rationhq/ration/limit"
)

// Epoch is the instant at which every simulation begins.
const Epoch = 1_000_000 * limit.Second

// Lane is a line, what is waited for in it, and who waits.
type Lane struct {
	Order lane.Spec
	// Drain, Places and Upstream are limits that all callers share, each optional: Drain and Upstream count turns, and
	// Places those that last. Upstream has one for each class, all of them on the same bucket: they differ in their headroom.
	Drain, Places *limit.Spec
	Upstream      []limit.Spec
	// TryTakes is how long a process takes to try for a ticket after it was called.
	TryTakes limit.Micros
	// Overstates has those who are admitted tell of more room than there is, where there is any.
	Overstates bool
	// Dies is when a process dies, for those that do.
	Dies map[int]limit.Micros
	// ComesBack is how long a caller takes to come again, by the next process that lives, when its own has died. 0: it does not.
	ComesBack limit.Micros
	// Then says who comes next when a caller's turn is over, if anybody: with Comes from then on.
	Then func(*Fate) (Caller, bool)
	// Watch, if set, sees every step on the line after it was performed.
	Watch func(*lane.Step, *lane.Outcome, *lane.Line)
}

// Caller is somebody who wants a turn.
type Caller struct {
	Comes   limit.Micros // since Epoch
	Class   int
	Subject int
	Cost    int64        // 0 is 1
	Wait    limit.Micros // how long it waits at most; 0 is lane.MaxWait
	Holds   limit.Micros // for how long it has its place
	Process int          // which waits for it
}

// Fate is what became of a caller. Instants are since Epoch.
type Fate struct {
	Caller
	Number int // its own, in the order in which callers came
	End    End
	// Called is when it was called last, Ended when it was admitted, was refused a place in line, or gave up.
	Called, Ended limit.Micros
	// Entered is how many calls there had been when it got its place in line, plus 1; 0 if it never did.
	Entered int
	// Calls and Turn number its calls, and its admission, among all, from 1.
	Calls []int
	Turn  int
	// Tries is how often it tried, and Admissions how often that was answered with a place of its own.
	Tries, Admissions int

	tries bool // it has been called, and does
}

// Waited returns how long the caller waited.
func (f *Fate) Waited() limit.Micros { return f.Ended - f.Comes }

// End is how a caller's waiting ended.
type End uint8

const (
	// Waiting is one that waits when the simulation ends.
	Waiting End = iota
	// Admitted is one that had its turn.
	Admitted
	// Full is one that found the line full.
	Full
	// GaveUp is one that has waited for as long as it would.
	GaveUp
	// Lost is one whose process died, and that does not come back.
	Lost
)

// play is a simulation that goes on.
type play struct {
	*Lane
	line     lane.Line
	now      limit.Micros
	events   events
	number   int
	fates    []*Fate
	calls    int
	turns    int
	drain    limit.State
	places   limit.State
	upstream limit.State
	due      limit.Micros // the earliest follow-up that is arranged
}

// Play plays from Epoch on until the instant, for callers in any order, and returns their fates in the order in which they came.
func (l *Lane) Play(callers []Caller, until limit.Micros) []*Fate {
	p := &play{Lane: l, now: Epoch}
	processes := 0
	for _, c := range callers {
		processes = max(processes, c.Process+1)
		p.comes(c)
	}
	for process := range processes + 1 { // the last one dies never: it is who others come back by
		p.beats(process)
	}
	for len(p.events) > 0 && p.events[0].at <= Epoch+until {
		e := heap.Pop(&p.events).(event)
		p.now = e.at
		e.do()
	}
	return p.fates
}

// after arranges for something to happen.
func (p *play) after(wait limit.Micros, do func()) {
	p.number++
	heap.Push(&p.events, event{p.now + wait, p.number, do})
}

func (p *play) lives(process int) bool {
	dies, mortal := p.Dies[process]
	return !mortal || p.now < Epoch+dies
}

// living returns the first process that lives, from one on.
func (p *play) living(process int) int {
	for !p.lives(process) {
		process++
	}
	return process
}

func (p *play) comes(c Caller) {
	c.Cost = max(1, c.Cost)
	if c.Wait == 0 {
		c.Wait = lane.MaxWait
	}
	p.after(Epoch+c.Comes-p.now, func() {
		f := &Fate{Caller: c, Number: len(p.fates)}
		p.fates = append(p.fates, f)
		f.Process = p.living(c.Process)
		p.after(c.Wait, func() { p.giveUp(f) })
		p.enters(f, lane.Step{})
	})
}

// beats has a process say every second that it lives.
func (p *play) beats(process int) {
	if !p.lives(process) {
		p.dead(process)
		return
	}
	if out := p.step(process, lane.Step{Do: lane.Beat}); out.Gone {
		for _, f := range p.fates {
			if f.Process == process && f.End == Waiting {
				p.enters(f, lane.Step{})
			}
		}
	}
	wait := limit.Second
	if dies, mortal := p.Dies[process]; mortal {
		wait = min(wait, Epoch+dies-p.now)
	}
	p.after(wait, func() { p.beats(process) })
}

// dead has the callers of a process come back by the one after it.
func (p *play) dead(process int) {
	for _, f := range p.fates {
		if f.Process != process || f.End != Waiting {
			continue
		}
		if p.ComesBack == 0 {
			p.ends(f, Lost)
			continue
		}
		f.Process, f.tries = p.living(process), false
		p.after(p.ComesBack, func() {
			if f.End == Waiting {
				p.enters(f, lane.Step{})
			}
		})
	}
}

// enters has a caller ask for its turn. step has what is known of a try before that.
func (p *play) enters(f *Fate, step lane.Step) {
	if !p.lives(f.Process) {
		return
	}
	step.Do, step.Ticket = lane.Enter, f.ticket()
	step.Wait = max(1, Epoch+f.Comes+f.Wait-p.now)
	before := p.calls
	switch out := p.step(f.Process, step); out.Answer {
	case lane.Waits:
		if f.Entered == 0 {
			f.Entered = before + 1
		}
	case lane.Go:
		p.after(p.TryTakes, func() { p.tries(f, false) })
	case lane.Full, lane.FullForSubject:
		p.ends(f, Full)
	case lane.None, lane.Unknown: // not of one that enters
	}
}

func (p *play) giveUp(f *Fate) {
	if f.End != Waiting {
		return
	}
	p.ends(f, GaveUp)
	if p.lives(f.Process) {
		p.step(f.Process, lane.Step{Do: lane.Leave, Ticket: f.ticket()})
	}
}

func (p *play) ends(f *Fate, end End) {
	f.End, f.Ended = end, p.now-Epoch
	if end != Admitted && p.Then != nil {
		p.next(f)
	}
}

func (p *play) next(f *Fate) {
	if c, ok := p.Then(f); ok {
		c.Comes = max(c.Comes, p.now-Epoch)
		p.comes(c)
	}
}

// step performs a step of a process, and has those try who are called by it.
func (p *play) step(process int, step lane.Step) lane.Outcome {
	step.Waiter = ID(process)
	out := p.line.Apply(&p.Order, &step, p.now)
	if p.Watch != nil {
		p.Watch(&step, &out, &p.line)
	}
	for _, call := range out.Calls {
		f := p.fates[Number(call.Ticket)]
		if f.End == Waiting && call.Waiter == ID(f.Process) && p.lives(f.Process) && !f.tries {
			p.calls++
			f.Called, f.Calls, f.tries = p.now-Epoch, append(f.Calls, p.calls), true
			p.after(p.TryTakes, func() { p.tries(f, true) })
		}
	}
	if out.Due > 0 && (p.due <= p.now || out.Due < p.due) && p.lives(process) {
		p.due = max(out.Due, p.now+1)
		at := p.due
		p.after(at-p.now, func() {
			if p.due == at {
				p.due = 0
			}
			if p.lives(process) {
				p.step(process, lane.Step{Do: lane.Beat})
			}
		})
	}
	return out
}

// tries has a caller try for what it waits for. Nobody has more than one place, however often it tries.
func (p *play) tries(f *Fate, called bool) {
	if !p.lives(f.Process) || f.End != Waiting {
		return
	}
	f.Tries++
	f.tries = false
	room, until := p.room(f)
	if room == 0 {
		if called {
			p.step(f.Process, lane.Step{Do: lane.Refused, Ticket: f.ticket(), Until: until})
		} else {
			p.enters(f, lane.Step{Tried: true, Until: until})
		}
		return
	}
	f.Admissions++
	p.turns++
	f.Turn = p.turns
	p.take(f)
	p.ends(f, Admitted)
	p.after(f.Holds, func() { p.leaves(f) })
	if !called {
		return
	}
	step := lane.Step{Do: lane.Admitted, Ticket: f.ticket()}
	if step.Room, step.Until = p.room(f); step.Room > 0 && p.Overstates {
		step.Room = lane.MaxCalled
	}
	p.step(f.Process, step)
}

// room returns for how many like it there is room, or until when there is none.
func (p *play) room(f *Fate) (room int, until limit.Micros) {
	room = lane.MaxCalled
	ask := func(s *limit.Spec, st *limit.State, lapse limit.Micros) {
		s.Advance(st, p.now)
		status := s.Judge(st, p.now, 1, lapse)
		if status.Refused {
			room, until = 0, max(until, p.now+status.RetryAfter)
		}
		for room > 0 && s.Judge(st, p.now, int64(room), lapse).Refused {
			room--
		}
	}
	if p.Drain != nil {
		ask(p.Drain, &p.drain, 0)
	}
	if p.Upstream != nil {
		ask(&p.Upstream[f.Class], &p.upstream, 0)
	}
	if p.Places != nil {
		ask(p.Places, &p.places, p.now+5*60*limit.Second)
	}
	return room, until
}

func (p *play) take(f *Fate) {
	if p.Drain != nil {
		p.Drain.Charge(&p.drain, p.now, 1)
	}
	if p.Upstream != nil {
		p.Upstream[f.Class].Charge(&p.upstream, p.now, 1)
	}
	if p.Places != nil {
		p.Places.Hold(&p.places, p.now, 1)
	}
}

// leaves gives a place back.
func (p *play) leaves(f *Fate) {
	if p.Places != nil {
		p.Places.Settle(&p.places, p.now, limit.Mark{}, 1, 0)
		p.step(f.Process, lane.Step{Do: lane.Free, Room: 1})
	}
	if p.Then != nil {
		p.next(f)
	}
}

func (f *Fate) ticket() lane.Ticket {
	return lane.Ticket{ID: ID(f.Number), Class: f.Class, Subject: ID(f.Subject), Cost: f.Cost}
}

// ID names what has a number.
func ID(number int) (id lane.ID) {
	binary.BigEndian.PutUint64(id[8:], uint64(number))
	return id
}

// Number returns the number that an ID names.
func Number(id lane.ID) int { return int(binary.BigEndian.Uint64(id[8:])) }

// events is a heap.Interface of what is to happen, first what is first.
type events []event

type event struct {
	at     limit.Micros
	number int // of events at the same instant, those arranged first happen first
	do     func()
}

func (h events) Len() int { return len(h) }

func (h events) Less(i, j int) bool {
	return h[i].at < h[j].at || h[i].at == h[j].at && h[i].number < h[j].number
}

func (h events) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *events) Push(x any)   { *h = append(*h, x.(event)) }

func (h *events) Pop() any {
	last := len(*h) - 1
	e := (*h)[last]
	*h = (*h)[:last]
	return e
}
