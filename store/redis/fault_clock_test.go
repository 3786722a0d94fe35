package redis_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
	"github.com/rationhq/ration/store/redis"
	"github.com/rationhq/ration/store/redis/redistest"
)

// perMinute is a limit whose windows the tests of clocks go through.
func perMinute(most int64) limit.Spec { return limit.Spec{Limit: most, Window: 60 * limit.Second} }

// hasty calls buckets of `scarce` a minute without pause, and counts what was admitted in each minute of
// the clock that decided.
type hasty struct {
	t        *testing.T
	mu       sync.Mutex
	admitted map[string]int // by manner and minute
}

func newHasty(t *testing.T) *hasty { return &hasty{t: t, admitted: make(map[string]int)} }

// call asks for a unit of a plain limit, and of a strict one.
func (h *hasty) call(s *redis.Store) {
	h.t.Helper()
	for _, manner := range []limit.Manner{limit.Plain, limit.Strict} {
		var out store.Outcome
		op := charge(fmt.Sprint("manner ", manner), perMinute(scarce), 1)
		op.Manner = manner
		if err := s.Apply(context.Background(), &store.Step{Ops: []store.Op{op}}, &out); err != nil {
			h.t.Error(err)
			return
		}
		h.mu.Lock()
		if !out.Refused {
			h.admitted[fmt.Sprintf("manner %d, minute %d", manner, out.Now/(60*limit.Second))]++
		}
		h.mu.Unlock()
	}
}

func (h *hasty) verify() {
	h.t.Helper()
	for minute, n := range h.admitted {
		if n > scarce {
			h.t.Errorf("%s: %d were admitted, want at most %d", minute, n, scarce)
		}
	}
}

// expire lets Redis drop all that is past by its clock, which it does in its own time otherwise.
func expire(t *testing.T, look *goredis.Client) {
	t.Helper()
	for keys := look.Scan(context.Background(), 0, "*", 1000).Iterator(); keys.Next(context.Background()); {
		if keys.Err() != nil {
			t.Fatal(keys.Err())
		}
	}
}

// The clock of Redis steps back and forth under load, never to more than a minute before the newest
// instant that it showed: no minute, lived through once or twice, admits more than its limit.
func TestClockSteps(t *testing.T) {
	server, clock := redistest.StartWithClock(t)
	look := server.Client(t)
	stores := []*redis.Store{newStore(t, redis.Options{URL: server.URL()}), newStore(t, redis.Options{URL: server.URL()})}
	h := newHasty(t)
	for _, seconds := range []int{0, 30, -25, 20, 61, 5, 60, 120, 65, 100, 3600, 3550, 3605, 86_400, 86_345} {
		clock.Shift(t, time.Duration(seconds)*time.Second)
		expire(t, look)
		var callers sync.WaitGroup
		for caller := range 16 {
			callers.Go(func() { h.call(stores[caller%2]) })
		}
		callers.Wait()
	}
	h.verify()
	if len(h.admitted) < 10 {
		t.Errorf("the clock has shown %d minutes, want 5 at least, for each manner", len(h.admitted))
	}
}

// A clock that jumps by days, and back, is followed at once: every call is answered.
func TestClockJumps(t *testing.T) {
	server, clock := redistest.StartWithClock(t)
	s := newStore(t, redis.Options{URL: server.URL()})
	ctx := context.Background()
	var out store.Outcome
	for _, days := range []int{0, 1, -1, 400, -400, 0} {
		clock.Shift(t, time.Duration(days)*24*time.Hour)
		for range 3 {
			if err := s.Apply(ctx, &store.Step{Ops: []store.Op{charge("a", perMinute(plenty), 1)}}, &out); err != nil {
				t.Errorf("by %d days: %v", days, err)
			}
		}
		if off := time.Until(time.UnixMicro(int64(out.Now))) - time.Duration(days)*24*time.Hour; off.Abs() > time.Minute {
			t.Errorf("by %d days: decided %v off", days, off)
		}
	}
}

// Redis fails over to a node whose clock is behind, or ahead: what is exhausted there stays so, for
// the minute that it is and for the one that it was.
func TestFailoverToAnotherClock(t *testing.T) {
	for _, by := range []time.Duration{-50 * time.Second, 50 * time.Second} {
		t.Run(fmt.Sprint(by), func(t *testing.T) {
			master := redistest.Start(t)
			replica, clock := redistest.StartWithClock(t, replicaOf(master)...)
			clock.Shift(t, by)
			proxy := redistest.StartProxy(t, master.Addr)
			s := newStore(t, redis.Options{URL: proxy.URL()})
			h := newHasty(t)
			for range 2 * scarce {
				h.call(s)
			}
			look := master.Client(t)
			if n, err := look.Wait(context.Background(), 1, 10*time.Second).Result(); n != 1 {
				t.Fatalf("the replica does not follow: %v", err)
			}
			promoted := replica.Client(t)
			promote(t, &site{look: promoted})
			proxy.To(replica.Addr)
			waitUntilReady(t, s)
			expire(t, promoted)
			for range 2 * scarce {
				h.call(s)
			}
			// The clock catches up, or is put right.
			for _, shift := range []time.Duration{by / 2, 0} {
				clock.Shift(t, shift)
				expire(t, promoted)
				for range 2 * scarce {
					h.call(s)
				}
			}
			h.verify()
		})
	}
}
