package storetest

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/rationhq/ration/lane"
	"github.com/rationhq/ration/store"
)

// testLineConcurrent: many wait in a line for a few places. Each is admitted once; nobody is called again who has not said
// what came of it, and no more are called at the same time than may be.
//
// The clock stands still: so no call lapses, and nobody is gone.
func testLineConcurrent(t *testing.T, open Open) {
	const processes, callers, places = 4, 150, 5
	lines := linesOf(t, open(t, NewClock(noon)))
	g := &lineGame{
		t: t, lines: lines, free: places, called: map[lane.ID]chan struct{}{}, trying: map[lane.ID]bool{},
		spec: lane.Spec{Classes: 3, Aging: minute, Most: lane.MaxTickets, MostOfSubject: lane.MaxTickets},
	}
	for n := range callers {
		g.called[ticketID(n)] = make(chan struct{}, callers)
	}
	ctx, stop := context.WithCancel(context.Background())
	var behind, all sync.WaitGroup
	for p := range processes {
		behind.Go(func() { g.listen(ctx, waiterID(p)) })
	}
	behind.Go(func() { g.watch(ctx) })
	for n := range callers {
		all.Go(func() { g.play(n, waiterID(n%processes)) })
	}
	all.Wait()
	stop()
	behind.Wait()
	if left := stateOf(t, lines, "game"); len(left.Tickets) != 0 || g.free != places {
		t.Errorf("%d places are free, and %d tickets left", g.free, len(left.Tickets))
	}
}

// lineGame is a line, and the places that callers wait for.
type lineGame struct {
	t     *testing.T
	lines store.Lines
	spec  lane.Spec

	mu     sync.Mutex
	free   int
	called map[lane.ID]chan struct{} // tells a ticket's caller that it is called
	trying map[lane.ID]bool          // tickets that are called
}

// step performs a step, and hands on its calls.
func (g *lineGame) step(step *lane.Step) lane.Outcome {
	if step.Do == lane.Admitted || step.Do == lane.Refused {
		g.mu.Lock()
		delete(g.trying, step.Ticket.ID) // from here on it may be called again
		g.mu.Unlock()
	}
	out, err := g.lines.Line(context.Background(), []byte("game"), &g.spec, step)
	if err != nil {
		g.t.Errorf("%+v: %v", step, err)
		return out
	}
	for _, c := range out.Calls {
		g.mu.Lock()
		if step.Do != lane.Beat { // which says again what was said
			if g.trying[c.Ticket] {
				g.t.Errorf("%v is called, and has been", c.Ticket)
			}
			g.trying[c.Ticket] = true
		}
		g.mu.Unlock()
		if c.Waiter == step.Waiter {
			g.tell(c.Ticket)
		}
	}
	return out
}

func (g *lineGame) tell(ticket lane.ID) {
	select {
	case g.called[ticket] <- struct{}{}:
	default: // it knows
	}
}

// listen hands on what a process hears, and asks now and then.
func (g *lineGame) listen(ctx context.Context, me lane.ID) {
	calls := g.lines.Called(ctx, me)
	beat := time.NewTicker(20 * time.Millisecond)
	defer beat.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case c := <-calls:
			g.tell(c.Ticket)
		case <-beat.C:
			g.step(&lane.Step{Do: lane.Beat, Waiter: me})
		}
	}
}

// watch looks at the line: so many are called at most.
func (g *lineGame) watch(ctx context.Context) {
	for ctx.Err() == nil {
		called := 0
		for _, ticket := range stateOf(g.t, g.lines, "game").Tickets {
			if ticket.Where == lane.Called {
				called++
			}
		}
		if called > lane.MaxCalled {
			g.t.Errorf("%d are called at the same time, want at most %d", called, lane.MaxCalled)
		}
		time.Sleep(time.Millisecond)
	}
}

// take takes a place, if one is free, and says how many more are.
func (g *lineGame) take() (got bool, room int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.free == 0 {
		return false, 0
	}
	g.free--
	return true, g.free
}

// play has one caller wait for a place, and give it back.
func (g *lineGame) play(n int, me lane.ID) {
	of := lane.Ticket{ID: ticketID(n), Class: n % 3, Subject: subjectID(n % 10), Cost: int64(1 + n%4)}
	enter := &lane.Step{Do: lane.Enter, Waiter: me, Ticket: of, Wait: minute}
	out := g.step(enter)
	got := false
	if out.Answer == lane.Go {
		if got, _ = g.take(); !got {
			enter.Tried, enter.Until = true, noon
			out = g.step(enter)
		}
	}
	for !got && out.Answer == lane.Waits {
		select {
		case <-g.called[of.ID]:
		case <-time.After(30 * time.Second):
			g.t.Errorf("ticket %d is not called", n)
			return
		}
		var room int
		g.mu.Lock()
		isCalled := g.trying[of.ID]
		g.mu.Unlock()
		if !isCalled {
			continue // it was told of a call that it has answered
		}
		if got, room = g.take(); got {
			g.step(&lane.Step{Do: lane.Admitted, Waiter: me, Ticket: lane.Ticket{ID: of.ID}, Room: room})
			break
		}
		// Where somebody gives a place back meanwhile the pause is over.
		g.step(&lane.Step{Do: lane.Refused, Waiter: me, Ticket: lane.Ticket{ID: of.ID}, Until: noon})
	}
	if !got {
		g.t.Errorf("ticket %d: answered %d", n, out.Answer)
		return
	}
	time.Sleep(time.Millisecond)
	g.mu.Lock()
	g.free++
	g.mu.Unlock()
	g.step(&lane.Step{Do: lane.Free, Waiter: me, Room: 1})
}
