package engine_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/rationhq/ration/engine"
	"github.com/rationhq/ration/lane"
	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/store"
	"github.com/rationhq/ration/store/memory"
)

// mute is a store whose lines never hear that room has come.
type mute struct{ *memory.Store }

func (m *mute) Line(ctx context.Context, name []byte, spec *lane.Spec, step *lane.Step) (lane.Outcome, error) {
	if step.Do == lane.Free {
		return lane.Outcome{}, errors.New("lost")
	}
	return m.Store.Line(ctx, name, spec, step)
}

// Of a place that is given back while nobody tells the line, as by a process that ends then, those who wait hear soon,
// and not only when it would have lapsed.
func TestPlaceThatNobodyTellsOf(t *testing.T) {
	s := &mute{memory.New(memory.Options{})}
	e := engine.New(s, engine.Options{})
	t.Cleanup(func() { e.Close(); s.Close() })
	p, _, err := policy.Parse([]policy.Source{{Name: "llm.yaml", Data: []byte(laned)}}, policy.Options{})
	if err != nil {
		t.Fatal(err)
	}
	e.SetPolicy(p)
	holder := now(t, e, callOf("ann", "pro", 1))
	now(t, e, callOf("bob", "pro", 1))
	waits := acquire(t, e, callOf("cem", "pro", 1))
	settle(t, e, holder, 1)
	select {
	case a := <-waits:
		if a.err != nil || a.Over {
			t.Errorf("%v %s", a.err, a.Message())
		}
	case <-time.After(15 * time.Second):
		t.Error("there is a free place, and who waits has not tried for 15 seconds")
	}
}

// Who asks again for a call that was admitted, since the answer was lost, has it at once: it holds what the others wait for.
func TestAskedAgainInALane(t *testing.T) {
	e := lanedBench(t, laned)
	call := callOf("ann", "free", 1)
	call.Key = "call"
	first := now(t, e, call)
	now(t, e, callOf("bob", "premium", 1))
	for i := range 5 { // the line is full of them
		waitsStill(t, acquire(t, e, callOf("cem", "premium", int64(i+1))))
	}
	again := now(t, e, call)
	if again.err != nil || again.Over || !again.Replayed || again.ID != first.ID {
		t.Errorf("over %v, replayed %v, %v: %s", again.Over, again.Replayed, again.err, again.Message())
	}
	another := callOf("ann", "free", 1)
	another.Key = "another"
	waitsStill(t, acquire(t, e, another))
}

// The same where the line has no place for it.
func TestAskedAgainInAFullLane(t *testing.T) {
	e := lanedBench(t, laned)
	call := callOf("ann", "premium", 1)
	call.Key = "call"
	first := now(t, e, call)
	now(t, e, callOf("bob", "premium", 1))
	for range 5 {
		waitsStill(t, acquire(t, e, callOf("ann", "premium", 1)))
	}
	if more := now(t, e, callOf("ann", "premium", 1)); more.Waiting.Ended != engine.LineFullOfSubject {
		t.Fatalf("the line is not full: %+v", more.Waiting)
	}
	again := now(t, e, call)
	if again.err != nil || again.Over || !again.Replayed || again.ID != first.ID {
		t.Errorf("over %v, replayed %v, %v: %s", again.Over, again.Replayed, again.err, again.Message())
	}
	other := callOf("ann", "premium", 2)
	other.Key = "call"
	if stolen := now(t, e, other); !errors.Is(stolen.err, engine.ErrKeyReused) {
		t.Errorf("another call under the same key: %v, over %v", stolen.err, stolen.Over)
	}
}

// Every lane that a policy may have is a line that stores keep.
const _ = uint(store.MaxLineName - policy.MaxLaneName)
