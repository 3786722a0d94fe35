package waiting_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rationhq/ration/engine/waiting"
	"github.com/rationhq/ration/lane"
	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
	"github.com/rationhq/ration/store/memory"
)

// slow keeps what a line has answered to Free until it is let go.
type slow struct {
	store.Lines
	letGo chan struct{}
}

func (s *slow) Line(ctx context.Context, name []byte, spec *lane.Spec, step *lane.Step) (lane.Outcome, error) {
	out, err := s.Lines.Line(ctx, name, spec, step)
	if step.Do == lane.Free {
		<-s.letGo
	}
	return out, err
}

// An answer that was overtaken by a newer one does not put off what is due by that.
func TestAnswersOvertakeEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inMemory := memory.New(memory.Options{Clock: func() limit.Micros { return limit.At(time.Now()) }})
		defer inMemory.Close()
		lines := &slow{Lines: inMemory, letGo: make(chan struct{})}
		room := waiting.New(lines, 0)
		defer room.Close()
		began := time.Now()
		hasRoom := began.Add(100 * time.Millisecond)
		had := make(chan time.Duration, 1)
		party := func(ticket string, wait time.Duration) *waiting.Party {
			return &waiting.Party{
				Line: "line", Spec: spec, Ticket: lane.Ticket{ID: id("%s", ticket), Cost: 1}, Wait: wait,
				Try: func(context.Context, time.Duration) (waiting.Attempt, error) {
					if time.Now().Before(hasRoom) {
						return waiting.Attempt{Verdict: waiting.Busy, Until: limit.At(hasRoom)}, nil
					}
					had <- time.Since(began)
					return waiting.Attempt{}, nil
				},
			}
		}
		_, _ = room.Wait(t.Context(), party("makes this process known", time.Millisecond))
		room.Free("line", &spec, 1) // nobody waits, so that nothing is due
		time.Sleep(time.Millisecond)
		go func() { _, _ = room.Wait(t.Context(), party("one", time.Minute)) }()
		synctest.Wait()
		close(lines.letGo)
		if took := <-had; took != 100*time.Millisecond {
			t.Errorf("it had its turn after %v, want 100ms", took)
		}
		synctest.Wait()
	})
}

// Those who wait hear how they stand about once a second, also in a line that is asked a hundred times a second.
func TestStandingIsToldNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inMemory := memory.New(memory.Options{Clock: func() limit.Micros { return limit.At(time.Now()) }})
		defer inMemory.Close()
		room := waiting.New(inMemory, 0)
		defer room.Close()
		tries, told := 0, 0
		_, err := room.Wait(t.Context(), &waiting.Party{
			Line: "line", Spec: spec, Ticket: lane.Ticket{ID: id("one"), Cost: 1}, Wait: 10 * time.Second,
			Try: func(context.Context, time.Duration) (waiting.Attempt, error) {
				tries++
				return waiting.Attempt{Verdict: waiting.Busy, Until: limit.At(time.Now()) + 10_000}, nil
			},
			Tell: func(waiting.Standing) { told++ },
		})
		if err != nil || tries < 500 || told < 7 || told > 21 {
			t.Errorf("it tried %d times and was told %d times in 10 s (%v), want some 1,000 and 10 to 20", tries, told, err)
		}
	})
}
