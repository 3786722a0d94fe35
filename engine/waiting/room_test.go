package waiting_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rationhq/ration/engine/waiting"
	"github.com/rationhq/ration/lane"
	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
	"github.com/rationhq/ration/store/memory"
)

var spec = lane.Spec{Classes: 2, Aging: 10 * limit.Second, Most: 1000, MostOfSubject: 1000}

func id(format string, args ...any) (id lane.ID) {
	copy(id[:], fmt.Sprintf(format, args...))
	return id
}

// places are what is waited for: so many may be taken at a time.
type places struct {
	mu               sync.Mutex
	most, taken, max int
	room             *waiting.Room
}

func (p *places) try(context.Context, time.Duration) (waiting.Attempt, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.taken == p.most {
		return waiting.Attempt{Verdict: waiting.Busy, Until: limit.At(time.Now()) + 3600*limit.Second}, nil
	}
	p.taken++
	p.max = max(p.max, p.taken)
	return waiting.Attempt{Room: p.most - p.taken}, nil
}

func (p *places) free() {
	p.mu.Lock()
	p.taken--
	p.mu.Unlock()
	p.room.Free("line", &spec, 1)
}

func newRoom(t *testing.T) (*waiting.Room, store.Lines) {
	s := memory.New(memory.Options{})
	r := waiting.New(s, time.Second)
	t.Cleanup(func() { r.Close(); s.Close() })
	return r, s
}

func (p *places) party(ticket lane.Ticket, wait time.Duration) *waiting.Party {
	return &waiting.Party{Line: "line", Spec: spec, Ticket: ticket, Wait: wait, Try: p.try}
}

// Everybody has a turn, never more than there are places for at a time.
func TestEverybodyHasATurn(t *testing.T) {
	room, _ := newRoom(t)
	p := &places{most: 3, room: room}
	var all sync.WaitGroup
	var got atomic.Int64
	for i := range 300 {
		all.Go(func() {
			result, err := room.Wait(t.Context(), p.party(lane.Ticket{ID: id("%d", i), Class: i % 2, Subject: id("s%d", i%7), Cost: 1}, time.Minute))
			if err != nil || result.End != waiting.Tried {
				t.Errorf("%+v, %v", result, err)
				return
			}
			got.Add(1)
			p.free()
		})
	}
	all.Wait()
	if got.Load() != 300 || p.max > 3 {
		t.Fatalf("%d had a turn, %d at a time", got.Load(), p.max)
	}
}

// Who has waited in vain is told how it stood then: its ticket does not end before it does, whatever others do in the line.
func TestStandingInTheEnd(t *testing.T) {
	room, lines := newRoom(t)
	p := &places{most: 0, room: room}
	var others sync.WaitGroup
	defer others.Wait()
	over := make(chan struct{})
	defer close(over)
	others.Go(func() {
		for {
			select {
			case <-over:
				return
			default:
				_, _ = lines.Line(t.Context(), []byte("line"), &spec, &lane.Step{Do: lane.Beat, Waiter: id("another")})
			}
		}
	})
	for i := range 200 {
		result, err := room.Wait(t.Context(), p.party(lane.Ticket{ID: id("%d", i), Subject: id("ann"), Cost: 1}, 3*time.Millisecond))
		if err != nil || result.End != waiting.TimedOut || result.Position != 1 {
			t.Fatalf("%+v, %v", result, err)
		}
	}
}

// Who waits hears how they stand about once a second, however often the line is due meanwhile.
func TestTellingOnceASecond(t *testing.T) {
	room, _ := newRoom(t)
	var told atomic.Int64
	ctx, cancel := context.WithCancel(t.Context())
	party := &waiting.Party{
		Line: "line", Spec: spec, Ticket: lane.Ticket{ID: id("a"), Subject: id("ann"), Cost: 1}, Wait: time.Minute,
		Try: func(context.Context, time.Duration) (waiting.Attempt, error) {
			return waiting.Attempt{Verdict: waiting.Busy, Until: limit.At(time.Now()) + 5_000}, nil
		},
		Tell: func(s waiting.Standing) {
			if s.Position != 1 || s.Waiting != 1 {
				t.Errorf("it is told %+v", s)
			}
			if told.Add(1) == 3 {
				cancel()
			}
		},
	}
	began := time.Now()
	if _, err := room.Wait(ctx, party); !errors.Is(err, context.Canceled) {
		t.Fatalf("%v after it was told %d times", err, told.Load())
	}
	if took := time.Since(began); took < 1500*time.Millisecond {
		t.Errorf("it was told three times in %v", took)
	}
}
