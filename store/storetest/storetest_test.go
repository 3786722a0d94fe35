package storetest

import (
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// modelStore is the model behind a lock: the simplest store that keeps the contract.
type modelStore struct {
	now   func() limit.Micros
	mu    sync.Mutex
	model *Model
	// events
	delivered map[string]bool
	deliverer [16]byte
	until     limit.Micros
	watchers  []chan struct{}
}

func openModel(_ testing.TB, clock *Clock) store.Store {
	s := &modelStore{model: &Model{}, now: func() limit.Micros { return limit.At(time.Now()) }}
	if clock != nil {
		s.now = clock.Now
	}
	return s
}

func (s *modelStore) Apply(ctx context.Context, step *store.Step, out *store.Outcome) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	next, answer, err := s.model.Apply(s.now(), step)
	if err == nil {
		if len(next.events) > len(s.model.events) {
			for _, c := range s.watchers {
				select {
				case c <- struct{}{}:
				default: // it is told already
				}
			}
		}
		s.model = next
		*out = answer
	}
	return err
}

func (s *modelStore) Rows(ctx context.Context, q store.RowsQuery) ([]store.Sums, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.model.Rows(q)
}

func (s *modelStore) Top(_ context.Context, q store.TopQuery) ([]store.Ranked, error) {
	if err := q.Validate(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.model.Top(q), nil
}

// eventID is as plain as can be.
func eventID(e crossing) string { return hex.EncodeToString(fmt.Append(nil, e.name())) }

func (s *modelStore) Events(ctx context.Context, since limit.Micros) ([]store.Event, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.model.since(since, eventID), ctx.Err()
}

func (s *modelStore) Undelivered(ctx context.Context) ([]store.Event, error) {
	all, err := s.Events(ctx, 0)
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(all, func(e store.Event) bool { return s.delivered[e.ID] }), err
}

func (s *modelStore) Delivered(ctx context.Context, events []store.Event) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.delivered == nil {
		s.delivered = map[string]bool{}
	}
	for _, e := range events {
		s.delivered[e.ID] = true
	}
	return ctx.Err()
}

func (s *modelStore) Deliver(_ context.Context, who [16]byte, lasts limit.Micros) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.now() < s.until && s.deliverer != who {
		return false, nil
	}
	s.deliverer, s.until = who, s.now()+lasts
	return true, nil
}

func (s *modelStore) Notices(context.Context) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watchers = append(s.watchers, make(chan struct{}, 1))
	return s.watchers[len(s.watchers)-1]
}

func (*modelStore) Ready(context.Context) error { return nil }
func (*modelStore) Close() error                { return nil }

// The model passes what it is asked beside itself: the tables, the bounds, the waits.
func TestModel(t *testing.T) {
	run(t, openModel, walks())
	run(t, openModel, []test{
		{"plain verdicts", testPlainOverall},
		{"many cross a threshold at once", testManyCross},
		{"keeps to its bounds", testEnvelope},
		{"is linearizable", testLinearizable},
	})
}

// A broken store is found out.
func TestLinearizableFindsBrokenStores(t *testing.T) {
	type apply = func(s store.Store, step *store.Step, out *store.Outcome) error
	for name, do := range map[string]func() apply{
		"charges twice now and then": func() apply {
			var steps atomic.Int64
			return func(s store.Store, step *store.Step, out *store.Outcome) error {
				if steps.Add(1)%20 == 0 {
					_ = s.Apply(context.Background(), step, &store.Outcome{})
				}
				return s.Apply(context.Background(), step, out)
			}
		},
		"forgets to write now and then": func() apply {
			var steps atomic.Int64
			return func(s store.Store, step *store.Step, out *store.Outcome) error {
				if steps.Add(1)%20 != 0 {
					return s.Apply(context.Background(), step, out)
				}
				m := s.(*modelStore)
				m.mu.Lock()
				defer m.mu.Unlock()
				_, answer, err := m.model.Apply(m.now(), step)
				*out = answer
				return err
			}
		},
		"reads what was true one step ago": func() apply {
			var mu sync.Mutex
			before := &Model{}
			return func(s store.Store, step *store.Step, out *store.Outcome) error {
				mu.Lock()
				defer mu.Unlock()
				m := s.(*modelStore)
				stale := before
				before = m.model
				if err := s.Apply(context.Background(), step, out); err != nil {
					return err
				}
				if _, answer, err := stale.Apply(out.Now, step); err == nil {
					*out = answer
				}
				return nil
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			found := false
			for game := 0; game < 20 && !found; game++ {
				clock := NewClock(noon)
				found = !linearizable(play(brokenStore{openModel(t, clock), do()}, clock, randomTurn, game))
			}
			if !found {
				t.Error("20 games were explained, want some order to be missing")
			}
		})
	}
}

// brokenStore does something else than the store in it.
type brokenStore struct {
	store.Store
	apply func(store.Store, *store.Step, *store.Outcome) error
}

func (s brokenStore) Apply(_ context.Context, step *store.Step, out *store.Outcome) error {
	return s.apply(s.Store, step, out)
}
