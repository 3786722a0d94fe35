package waiting_test

import (
	"context"
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

// counted counts what lines are told.
type counted struct {
	store.Lines
	freed atomic.Int64
}

func (c *counted) Line(ctx context.Context, name []byte, spec *lane.Spec, step *lane.Step) (lane.Outcome, error) {
	if step.Do == lane.Free {
		c.freed.Add(1)
	}
	return c.Lines.Line(ctx, name, spec, step)
}

// A line in which nobody waits is told of room now and then, however often some comes; one in which somebody waits here, at
// once.
func TestLinesAreToldOfRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inMemory := memory.New(memory.Options{Clock: func() limit.Micros { return limit.At(time.Now()) }})
		defer inMemory.Close()
		shared := &counted{Lines: inMemory}
		here, there := waiting.New(shared, 0), waiting.New(shared, 0)
		defer here.Close()
		defer there.Close()
		ends := func(calls int) (tellings int64) {
			before := shared.freed.Load()
			for range calls {
				here.Free("line", &spec, 1)
				time.Sleep(10 * time.Microsecond)
			}
			return shared.freed.Load() - before
		}
		if n := ends(10_000); n > 25 {
			t.Errorf("in 100 ms, while nobody waited, the line was told %d times, want 20", n)
		}

		for _, waiter := range []struct {
			name string
			room *waiting.Room
			most time.Duration
		}{{"here", here, 0}, {"in another process", there, 5 * time.Millisecond}} {
			var hasRoom atomic.Bool
			had := make(chan time.Time, 1)
			party := &waiting.Party{
				Line: "line", Spec: spec, Ticket: lane.Ticket{ID: id("%s", waiter.name), Cost: 1}, Wait: time.Minute,
				Try: func(context.Context, time.Duration) (waiting.Attempt, error) {
					if !hasRoom.Load() {
						return waiting.Attempt{Verdict: waiting.Busy, Until: limit.At(time.Now()) + 3600*limit.Second}, nil
					}
					had <- time.Now()
					return waiting.Attempt{}, nil
				},
			}
			here.Free("line", &spec, 1) // nobody waits yet
			synctest.Wait()
			go func() { _, _ = waiter.room.Wait(t.Context(), party) }()
			synctest.Wait()
			hasRoom.Store(true)
			began := time.Now()
			here.Free("line", &spec, 1)
			if took := (<-had).Sub(began); took > waiter.most {
				t.Errorf("who waits %s is called %v after room has come, want %v at most", waiter.name, took, waiter.most)
			}
			time.Sleep(50 * time.Millisecond)
		}
	})
}
