package backlog_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/rationhq/ration/engine/backlog"
	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
	"github.com/rationhq/ration/store/redis"
	"github.com/rationhq/ration/store/redis/redistest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	timeout  = 150 * time.Millisecond // of Redis
	patience = time.Minute            // of a test
)

// site is a Redis behind a proxy, a store that asks it, and a backlog.
type site struct {
	*backlog.Backlog
	server  *redistest.Server
	durable []string // of its configuration
	proxy   *redistest.Proxy
	store   *redis.Store
	mu      sync.Mutex
	lost    []backlog.Cause
}

func newSite(t *testing.T) *site {
	t.Helper()
	durable := []string{"--dir", t.TempDir(), "--appendonly", "yes", "--appendfsync", "always"}
	server := redistest.Start(t, durable...)
	s := &site{server: server, durable: durable, proxy: redistest.StartProxy(t, server.Addr)}
	var err error
	if s.store, err = redis.New(redis.Options{URL: s.proxy.URL(), Timeout: timeout}); err != nil {
		t.Fatal(err)
	}
	s.Backlog = backlog.New(backlog.Options{
		Most: 1000, MostBytes: 1 << 20, Wait: timeout, Apply: s.store.Apply,
		Unwritten: func(err error) bool { return errors.Is(err, store.ErrFull) || errors.Is(err, store.ErrCorrupt) },
		Lost: func(cause backlog.Cause, _ error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.lost = append(s.lost, cause)
		},
	})
	t.Cleanup(func() { s.Close(); _ = s.store.Close() })
	return s
}

var budget = limit.Spec{Algorithm: limit.FixedWindow, Window: 24 * 3600 * limit.Second, Limit: 1_000_000} //nolint:gochecknoglobals // it never changes

// settlement reports amount units of the request n.
func settlement(n int, amount int64) *store.Step {
	return &store.Step{
		Ops:   []store.Op{{Bucket: []byte("budget"), Owner: []byte("ann"), Spec: budget, Kind: store.Settle, Manner: limit.Strict, Amount: amount}},
		Lease: &store.Lease{ID: store.LeaseID{byte(n), byte(n >> 8), 1}, Do: store.LeaseSettle, Request: uint64(amount)},
	}
}

// used returns what is counted, by a store that no fault touches.
func (s *site) used(t *testing.T) int64 {
	t.Helper()
	witness, err := redis.New(redis.Options{URL: s.server.URL()})
	if err != nil {
		t.Fatal(err)
	}
	defer witness.Close()
	look := &store.Step{Ops: []store.Op{{Bucket: []byte("budget"), Owner: []byte("ann"), Spec: budget, Manner: limit.Strict}}}
	var out store.Outcome
	if err := witness.Apply(t.Context(), look, &out); err != nil {
		t.Fatal(err)
	}
	return out.Results[0].Used
}

// landed waits until all has landed.
func (s *site) landed(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	s.Flush(ctx)
	if waiting := s.Stats().Waiting; waiting > 0 {
		t.Fatalf("%d reports have not landed within %v", waiting, patience)
	}
}

// Whatever happens to Redis, or to the way there, while reports are put to it: each lands, and once.
func TestFaults(t *testing.T) {
	always := func(f redistest.Fault) func(*testing.T, *site) func() {
		return func(_ *testing.T, s *site) func() {
			s.proxy.Set(redistest.Every(2, f, "EVALSHA", "EVAL"))
			return func() { s.proxy.Set(nil) }
		}
	}
	for name, begin := range map[string]func(*testing.T, *site) (end func()){
		"cut before it ran":      always(redistest.Fault{Do: redistest.CutBefore}),
		"cut after it ran":       always(redistest.Fault{Do: redistest.CutAfter}),
		"cut within the answer":  always(redistest.Fault{Do: redistest.CutWithin}),
		"never arrived":          always(redistest.Fault{Do: redistest.SwallowCommand}),
		"never answered":         always(redistest.Fault{Do: redistest.SwallowAnswer}),
		"arrived when given up":  always(redistest.Fault{Delay: 2 * timeout}),
		"answered when given up": always(redistest.Fault{AnswerDelay: 2 * timeout}),
		"paused by SIGSTOP": func(t *testing.T, s *site) func() {
			if err := s.server.Pause(); err != nil {
				t.Fatal(err)
			}
			return func() {
				if err := s.server.Resume(); err != nil {
					t.Error(err)
				}
			}
		},
		"paused by CLIENT PAUSE": func(t *testing.T, s *site) func() {
			client := s.server.Client(t)
			if err := client.Do(t.Context(), "client", "pause", 4*timeout.Milliseconds(), "all").Err(); err != nil {
				t.Fatal(err)
			}
			return func() {} // it ends by itself
		},
		"no room": func(t *testing.T, s *site) func() {
			client := s.server.Client(t)
			if err := client.ConfigSet(t.Context(), "maxmemory", "1").Err(); err != nil {
				t.Fatal(err)
			}
			return func() {
				if err := client.ConfigSet(t.Context(), "maxmemory", "0").Err(); err != nil {
					t.Error(err)
				}
			}
		},
		"away": func(_ *testing.T, s *site) func() {
			s.proxy.To("")
			return func() { s.proxy.To(s.server.Addr) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			end := begin(t, s)
			want := int64(0)
			for n := range 40 {
				amount := int64(n + 1)
				step := settlement(n, amount)
				// The first attempt is that of whoever brings the report.
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
				if s.store.Apply(ctx, step, new(store.Outcome)) != nil && !s.Put(step, true, nil) {
					t.Errorf("report %d is not taken", n)
				}
				cancel()
				want += amount
			}
			time.Sleep(3 * timeout) // attempts fail meanwhile, for some of these faults
			end()
			s.landed(t)
			if got := s.used(t); got != want {
				t.Errorf("%d units are counted, want %d", got, want)
			}
			if len(s.lost) > 0 {
				t.Errorf("lost: %v", s.lost)
			}
		})
	}
}

// Reports that were certainly not written need no id of their caller's: they get one, and land once.
func TestReportsWithoutAnID(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.proxy.Set(redistest.Every(2, redistest.Fault{Do: redistest.CutAfter}, "EVALSHA", "EVAL"))
	for n := range 30 {
		step := settlement(n, 1)
		step.Lease, step.Ops[0].Kind = nil, store.Record
		if !s.Put(step, false, nil) {
			t.Fatalf("report %d is not taken", n)
		}
		if s.Put(step, true, nil) {
			t.Errorf("report %d is taken, though it may have been written", n)
		}
	}
	s.landed(t)
	if got := s.used(t); got != 30 {
		t.Errorf("%d units are counted, want 30", got)
	}
}

// Redis dies, with all that it has acknowledged on disk, and comes back.
func TestKilledRedis(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	const all = 100
	for n := range all {
		step := settlement(n, 1)
		if n == all/2 {
			s.server.Stop()
		}
		if s.store.Apply(t.Context(), step, new(store.Outcome)) != nil && !s.Put(step, true, nil) {
			t.Errorf("report %d is not taken", n)
		}
	}
	if waiting := s.Stats().Waiting; waiting != all/2 {
		t.Errorf("%d reports wait while Redis is dead, want %d", waiting, all/2)
	}
	redistest.StartAt(t, s.server.Addr, s.durable...)
	s.landed(t)
	if got := s.used(t); got != all {
		t.Errorf("%d units are counted, want %d", got, all)
	}
}
