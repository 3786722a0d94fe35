package memory

import (
	"context"
	"slices"
	"sync"

	"github.com/rationhq/ration/lane"
	"github.com/rationhq/ration/store"
)

// lines are those in which callers of this process wait. They live as long as it does. The zero lines is ready to use.
type lines struct {
	byName    sync.Map // *line by string
	mu        sync.RWMutex
	listeners map[lane.ID]chan store.Called
}

type line struct {
	mu sync.Mutex
	lane.Line
}

// heardAtOnce is how many calls a waiter has not heard yet, at most, before they are lost.
const heardAtOnce = 1024

func (ls *lines) line(name []byte) *line {
	if l, ok := ls.byName.Load(string(name)); ok {
		return l.(*line)
	}
	l, _ := ls.byName.LoadOrStore(string(name), new(line))
	return l.(*line)
}

// Line implements store.Lines.
func (s *Store) Line(ctx context.Context, name []byte, spec *lane.Spec, step *lane.Step) (lane.Outcome, error) {
	if err := ctx.Err(); err != nil {
		return lane.Outcome{}, err
	}
	if err := store.ValidateLine(name, spec, step); err != nil {
		return lane.Outcome{}, err
	}
	l := s.lines.line(name)
	l.mu.Lock()
	out := l.Apply(spec, step, s.clock())
	l.mu.Unlock()
	s.lines.tell(string(name), out.Calls, step.Waiter)
	return out, nil
}

// tell tells the waiters of calls, but one, who knows.
func (ls *lines) tell(name string, calls []lane.Call, knows lane.ID) {
	calls = slices.DeleteFunc(slices.Clone(calls), func(c lane.Call) bool { return c.Waiter == knows })
	if len(calls) == 0 {
		return
	}
	ls.mu.RLock()
	defer ls.mu.RUnlock()
	for _, c := range calls {
		select {
		case ls.listeners[c.Waiter] <- store.Called{Line: name, Ticket: c.Ticket}:
		default: // nobody listens, or not fast enough: it will ask
		}
	}
}

// LineState implements store.Lines.
func (s *Store) LineState(ctx context.Context, name []byte) (lane.State, error) {
	if err := ctx.Err(); err != nil {
		return lane.State{}, err
	}
	l := s.lines.line(name)
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.State(), nil
}

// Called implements store.Lines.
func (s *Store) Called(ctx context.Context, waiter lane.ID) <-chan store.Called {
	calls := make(chan store.Called, heardAtOnce)
	ls := &s.lines
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.listeners == nil {
		ls.listeners = make(map[lane.ID]chan store.Called)
	}
	ls.listeners[waiter] = calls
	context.AfterFunc(ctx, func() {
		ls.mu.Lock()
		defer ls.mu.Unlock()
		delete(ls.listeners, waiter)
	})
	return calls
}
