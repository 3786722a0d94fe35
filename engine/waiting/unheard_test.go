package waiting_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rationhq/ration/engine/waiting"
	"github.com/rationhq/ration/lane"
	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
	"github.com/rationhq/ration/store/memory"
)

// becomes says what becomes of a step that can be performed.
type becomes func(step *lane.Step, perform func() (lane.Outcome, error)) (lane.Outcome, error)

// between stands between rooms and their lines, and decides what becomes of a step.
type between struct {
	store.Lines
	step  atomic.Pointer[becomes]
	state func(context.Context) error // before a line is looked at
}

func (b *between) Line(ctx context.Context, name []byte, spec *lane.Spec, step *lane.Step) (lane.Outcome, error) {
	perform := func() (lane.Outcome, error) { return b.Lines.Line(ctx, name, spec, step) }
	if does := b.step.Load(); does != nil {
		return (*does)(step, perform)
	}
	return perform()
}

func (b *between) becomes(does becomes) { b.step.Store(&does) }

func (b *between) LineState(ctx context.Context, name []byte) (lane.State, error) {
	if b.state != nil {
		if err := b.state(ctx); err != nil {
			return lane.State{}, err
		}
	}
	return b.Lines.LineState(ctx, name)
}

var errNoAnswer = errors.New("no answer")

// newBetween returns lines in memory, by the clock of the test's bubble.
func newBetween(t *testing.T) *between {
	s := memory.New(memory.Options{Clock: func() limit.Micros { return limit.At(time.Now()) }})
	t.Cleanup(func() { s.Close() })
	return &between{Lines: s}
}

// gate is what is waited for: room for all, or none.
type gate struct{ open atomic.Bool }

func (g *gate) party(name string) *waiting.Party {
	return &waiting.Party{
		Line: "line", Spec: spec, Ticket: lane.Ticket{ID: id("%s", name), Subject: id("%s", name), Cost: 1}, Wait: time.Minute, Keep: true,
		Try: func(context.Context, time.Duration) (waiting.Attempt, error) {
			if !g.open.Load() {
				return waiting.Attempt{Verdict: waiting.Busy, Until: limit.At(time.Now()) + 3600*limit.Second}, nil
			}
			return waiting.Attempt{}, nil
		},
	}
}

// waits has a party wait; it returns when that does. had is told how long it took.
func waits(ctx context.Context, room *waiting.Room, p *waiting.Party) (had <-chan time.Duration) {
	ended, began := make(chan time.Duration, 1), time.Now()
	go func() {
		result, err := room.Wait(ctx, p)
		if err != nil || result.End != waiting.Tried {
			ended <- -1
			return
		}
		ended <- time.Since(began)
	}()
	synctest.Wait()
	return ended
}

// Tickets of parties that have left, of which the line has not heard, keep nobody waiting: a Redis that hung performs what
// it was sent when nobody waits for the answer any more.
func TestTicketsOfNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lines := newBetween(t)
		room := waiting.New(lines, time.Second)
		defer room.Close()
		var g gate
		first := waits(t.Context(), room, g.party("first"))
		lines.becomes(func(step *lane.Step, perform func() (lane.Outcome, error)) (lane.Outcome, error) {
			if step.Do == lane.Enter {
				_, _ = perform()
			}
			return lane.Outcome{}, errNoAnswer
		})
		for i := range 5 {
			if result, err := room.Wait(t.Context(), g.party(string(rune('a'+i)))); err != nil || result.End != waiting.Tried {
				t.Fatalf("%+v, %v", result, err)
			}
		}
		lines.step.Store(nil)
		last := waits(t.Context(), room, g.party("last"))
		g.open.Store(true)
		room.Free("line", &spec, 1)
		if one, other := <-first, <-last; one != 0 || other != 0 {
			t.Errorf("beside tickets of nobody others have waited %v and %v, want 0", one, other)
		}
		state, err := lines.LineState(t.Context(), []byte("line"))
		if err != nil {
			t.Fatal(err)
		}
		for _, left := range state.Tickets { // kept for whoever comes for them
			if left.Where != lane.Aside {
				t.Errorf("in the line is still %v", left)
			}
		}
	})
}

// That this process counted as gone, and its tickets were set aside, a line says once. Where that is not heard nobody is lost.
func TestGoneAndNotHeard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lines := newBetween(t)
		room := waiting.New(lines, 0)
		defer room.Close()
		var g gate
		had := waits(t.Context(), room, g.party("one"))
		frozen := time.Now().Add(6 * time.Second)
		lines.becomes(func(step *lane.Step, perform func() (lane.Outcome, error)) (lane.Outcome, error) {
			if step.Do == lane.Free {
				_, _ = perform()
				return lane.Outcome{}, errNoAnswer
			}
			time.Sleep(time.Until(frozen))
			return perform()
		})
		time.Sleep(5 * time.Second)
		// Another process is heard first, and whose turn it is, is not there.
		enters := &lane.Step{Waiter: id("another"), Ticket: lane.Ticket{ID: id("its"), Cost: 1}, Wait: 3600 * limit.Second, Tried: true}
		for _, step := range []*lane.Step{{Do: lane.Free, Waiter: id("another"), Room: 1}, enters} {
			if _, err := lines.Lines.Line(t.Context(), []byte("line"), &spec, step); err != nil {
				t.Fatal(err)
			}
		}
		room.Free("line", &spec, 1)
		time.Sleep(2 * time.Second)
		lines.step.Store(nil)
		g.open.Store(true)
		room.Free("line", &spec, 2)
		time.Sleep(10 * time.Second)
		select {
		case took := <-had:
			if took < 0 {
				t.Error("it was refused")
			}
		default:
			t.Error("a ticket was set aside, and nobody has entered with it again")
		}
	})
}

// Who comes with the ticket of one that is just leaving enters after that, however steps overtake each other.
func TestComesWhileItLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lines := newBetween(t)
		room := waiting.New(lines, 0)
		defer room.Close()
		var g gate
		ahead := waits(t.Context(), room, g.party("ahead"))
		ctx, cancel := context.WithCancel(t.Context())
		waits(ctx, room, g.party("one"))
		slow := make(chan struct{})
		lines.becomes(func(step *lane.Step, perform func() (lane.Outcome, error)) (lane.Outcome, error) {
			if step.Do == lane.Leave {
				<-slow
			}
			return perform()
		})
		cancel()
		synctest.Wait()
		again := waits(t.Context(), room, g.party("one"))
		close(slow)
		synctest.Wait()
		lines.step.Store(nil)
		g.open.Store(true)
		room.Free("line", &spec, 2)
		time.Sleep(time.Second)
		for _, had := range []<-chan time.Duration{ahead, again} {
			select {
			case <-had:
			default:
				t.Error("who has come again is not called")
			}
		}
	})
}

// Of several that wait for the same and leave at the same time the last one takes the ticket with it.
func TestAllLeaveAtOnce(t *testing.T) {
	for range 50 {
		synctest.Test(t, func(t *testing.T) {
			lines := newBetween(t)
			room := waiting.New(lines, 0)
			defer room.Close()
			var g gate
			p := g.party("same")
			p.Keep = false
			ctx, cancel := context.WithCancel(t.Context())
			for range 4 {
				waits(ctx, room, p)
			}
			cancel()
			synctest.Wait()
			if state, err := lines.LineState(t.Context(), []byte("line")); err != nil || len(state.Tickets) > 0 {
				t.Fatalf("%d tickets are left, %v", len(state.Tickets), err)
			}
		})
	}
}

// Those who have waited in vain do not wait for one another to hear how they stand, when the store does not say it.
func TestStandingOfManyInTheEnd(t *testing.T) {
	const patience = 20 * time.Millisecond
	inMemory := memory.New(memory.Options{})
	defer inMemory.Close()
	var looks atomic.Int64
	lines := &between{
		Lines: inMemory,
		state: func(ctx context.Context) error {
			looks.Add(1)
			<-ctx.Done()
			return ctx.Err()
		},
	}
	room := waiting.New(lines, patience)
	defer room.Close()
	var g gate
	var all sync.WaitGroup
	began := time.Now()
	for i := range 100 {
		p := g.party(string(rune('A' + i)))
		p.Wait = 100 * time.Millisecond
		all.Go(func() { _, _ = room.Wait(t.Context(), p) })
	}
	all.Wait()
	if most := 2 + int64(time.Since(began)/(100*time.Millisecond)); looks.Load() > most {
		t.Errorf("a line that does not answer was looked at %d times, one after the other, want %d at most", looks.Load(), most)
	}
}

// A process that stops says so to the line: others do not wait for it to be missed.
func TestStopKeepsNobodyWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lines := newBetween(t)
		stops, stays := waiting.New(lines, time.Second), waiting.New(lines, time.Second)
		defer stops.Close()
		defer stays.Close()
		var g gate
		waits(t.Context(), stops, g.party("first"))
		had := waits(t.Context(), stays, g.party("last"))
		stops.Stop()
		synctest.Wait()
		g.open.Store(true)
		stays.Free("line", &spec, 1)
		if took := <-had; took != 0 {
			t.Errorf("behind one whose process has stopped it took %v, want 0", took)
		}
	})
}
