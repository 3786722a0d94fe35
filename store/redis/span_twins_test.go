package redis_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
	"github.com/rationhq/ration/store/redis"
	"github.com/rationhq/ration/store/redis/redistest"
)

// answered is what a caller is told.
type answered struct {
	store.Outcome
	err error
}

// request has a server of its own open a lease with 4 units on each node.
func (c *spread) request(ctx context.Context, t *testing.T, opening *store.Lease) chan answered {
	t.Helper()
	return c.requestBy(ctx, c.open(t), opening)
}

func (c *spread) requestBy(ctx context.Context, s *redis.Store, opening *store.Lease) chan answered {
	answer := make(chan answered, 1)
	go func() {
		var a answered
		a.err = s.Apply(ctx, &store.Step{Lease: opening, Ops: c.all(store.Hold, 4)}, &a.Outcome)
		answer <- a
	}()
	return answer
}

// begun has a caller open a lease, and holds back what tells node 1 that it is admitted. The other nodes have opened it.
func (c *spread) begun(ctx context.Context, t *testing.T, s *redis.Store) (opening *store.Lease, on point, answer chan answered) {
	t.Helper()
	opening = c.leaseAt(t, s, 0)
	c.look(t, s, "0+0 0+0 0+0")
	on = c.holdBack()
	answer = c.request(ctx, t, opening)
	<-on.held
	c.awaitOpened(t)
	return opening, on, answer
}

// awaitOpened waits until all nodes but one have opened the lease.
func (c *spread) awaitOpened(t *testing.T) {
	t.Helper()
	for since := time.Now(); ; time.Sleep(time.Millisecond) {
		opened := 0
		for _, node := range c.nodes {
			opened += len(node.Client(t).Keys(t.Context(), "*#lease").Val())
		}
		if opened == 2 {
			return
		}
		if time.Since(since) > 10*time.Second {
			t.Fatalf("%d nodes have opened the lease, want 2", opened)
		}
	}
}

// awaitTwins waits until so many callers share the only promise on node 1.
func (c *spread) awaitTwins(t *testing.T, twins int) {
	t.Helper()
	look := c.nodes[1].Client(t)
	for since := time.Now(); ; time.Sleep(time.Millisecond) {
		for _, key := range look.Keys(t.Context(), "*#pending").Val() {
			for id, promise := range look.HGetAll(t.Context(), key).Val() {
				if len(id) == 16 && len(promise) == 16+16*twins {
					return
				}
			}
		}
		if time.Since(since) > 10*time.Second {
			t.Fatalf("no promise is shared by %d", twins)
		}
	}
}

// A caller who gives up takes nothing away from one who has sent the same request.
func TestTwinGivesUp(t *testing.T) {
	t.Parallel()
	c := startSpread(t)
	s := c.open(t)
	opening, on, first := c.begun(t.Context(), t, s)
	c.dieAfter(2, 0) // the second has no answer of node 2, and takes back what it was promised
	var out store.Outcome
	if err := s.Apply(context.Background(), &store.Step{Lease: opening, Ops: c.all(store.Hold, 4)}, &out); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("the second caller: %v, want %v", err, store.ErrUnavailable)
	}
	close(on.release)
	if out := <-first; out.err != nil || out.Refused || out.Lease != store.LeaseOpened {
		t.Errorf("the first caller: %+v, want it opened", out)
	}
	c.live()
	c.look(t, s, "0+4 0+4 0+4")
}

// One who has given up writes nothing any more, though the twin's promise is still there.
func TestWithdrawn(t *testing.T) {
	t.Parallel()
	c := startSpread(t)
	s := c.open(t)
	ctx, giveUp := context.WithCancel(t.Context())
	opening, late, first := c.begun(ctx, t, s)
	admission := c.holdBack()
	// It has longer than the first, which waits for its timeout before it says that it has given up.
	again := c.requestBy(t.Context(), newStore(t, redis.Options{URL: c.url, Timeout: calm, Clock: c.clock.Now}), opening)
	<-admission.held
	giveUp()
	if a := <-first; !errors.Is(a.err, store.ErrUnavailable) {
		t.Errorf("the first caller: %+v, want %v", a, store.ErrUnavailable)
	}
	c.awaitTwins(t, 1)
	close(late.release)
	c.look(t, s, "0+4 0+4 0+4")
	close(admission.release)
	if a := <-again; a.err != nil || a.Refused || a.Lease != store.LeaseOpened {
		t.Errorf("the second caller: %+v, want it opened", a)
	}
	c.look(t, s, "0+4 0+4 0+4")
}

// What twins share lasts for five seconds from when the last of them was promised it.
func TestTwinRenewsAPromise(t *testing.T) {
	t.Parallel()
	c := startSpread(t)
	s := c.open(t)
	opening, on, first := c.begun(t.Context(), t, s)
	c.clock.Advance(4 * second)
	admission := c.holdBack()
	again := c.request(t.Context(), t, opening)
	<-admission.held
	c.clock.Advance(5*second - 1)
	c.look(t, s, "0+4 0+4 0+4")
	c.clock.Advance(1)
	c.look(t, s, "0+4 0+0 0+4")
	for _, held := range []point{on, admission} {
		close(held.release)
	}
	for _, answer := range []chan answered{first, again} {
		if a := <-answer; !errors.Is(a.err, store.ErrUnavailable) {
			t.Errorf("%+v, want %v", a, store.ErrUnavailable)
		}
	}
}

// A twin asks for another amount, since a policy has changed between the two: it cannot share the promise, and takes
// nothing away from the first.
func TestTwinWithAnotherAmount(t *testing.T) {
	t.Parallel()
	c := startSpread(t)
	s := c.open(t)
	opening, on, first := c.begun(t.Context(), t, s)
	var out store.Outcome
	again := &store.Step{Lease: opening, Ops: c.all(store.Hold, 6)}
	if err := s.Apply(t.Context(), again, &out); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("the second caller: %+v, %v, want %v", out, err, store.ErrUnavailable)
	}
	close(on.release)
	if a := <-first; a.err != nil || a.Refused || a.Lease != store.LeaseOpened {
		t.Errorf("the first caller: %+v, want it opened", a)
	}
	c.look(t, s, "0+4 0+4 0+4")
	if out := apply(t, s, opening, again.Ops...); out.Refused || out.Lease != store.LeaseReplayed {
		t.Errorf("again: %+v, want a repeat", out)
	}
}

// A server dies while it opens a lease; its request comes again under another policy, which asks for something on
// other nodes. What was begun cannot be finished, and is not admitted: the step is as good as another one.
func TestBegunUnderAnotherPolicy(t *testing.T) {
	t.Parallel()
	c := startSpread(t)
	dying, s := c.open(t), c.open(t)
	opening := c.leaseAt(t, s, 0)
	c.look(t, dying, "0+0 0+0 0+0")
	c.dieAfter(0, 1)
	c.dieAfter(1, 0)
	c.dies(t, dying, &store.Step{Lease: opening, Ops: c.all(store.Hold, 4)[1:2]})
	var out store.Outcome
	again := &store.Step{Lease: opening, Ops: c.all(store.Hold, 4)[2:]}
	if err := s.Apply(t.Context(), again, &out); !errors.Is(err, store.ErrConflict) {
		t.Errorf("under another policy: %v, want %v", err, store.ErrConflict)
	}
	c.look(t, s, "0+0 0+0 0+0")
	if out := apply(t, s, opening, c.all(store.Hold, 4)[1:2]...); out.Refused || out.Lease != store.LeaseOpened {
		t.Errorf("under the first one: %+v, want it opened", out)
	}
	c.look(t, s, "0+0 0+4 0+0")
	if out := apply(t, s, opening, c.all(store.Hold, 4)[1:]...); out.Refused || out.Lease != store.LeaseReplayed {
		t.Errorf("opened, and again under the other policy: %+v, want a repeat", out)
	}
	c.look(t, s, "0+0 0+4 0+0")
}

// A server dies while it opens a lease, and the caller lets the lease lapse. Opened again, it is over: nothing is held
// where it had not been opened.
func TestOpenedAgainWhenLapsed(t *testing.T) {
	t.Parallel()
	c := startSpread(t)
	dying, s := c.open(t), c.open(t)
	opening := c.leaseAt(t, s, 0)
	c.look(t, dying, "0+0 0+0 0+0")
	c.dieAfter(1, 1)
	open := &store.Step{Lease: opening, Ops: c.all(store.Hold, 4)}
	c.dies(t, dying, open)
	c.clock.Advance(5 * second)
	c.look(t, s, "0+4 0+0 0+4")
	lapse := *opening
	lapse.Do = store.LeaseLapse
	if out := apply(t, s, &lapse); out.Lease != store.LeaseLapsed {
		t.Errorf("lapsed: %+v", out)
	}
	for range 2 {
		if out := apply(t, s, opening, open.Ops...); out.Refused || out.Lease != store.LeaseReplayed {
			t.Errorf("opened again: %+v, want a repeat", out)
		}
		c.look(t, s, "0+0 0+0 0+0")
	}
}

// Callers send one request again and again, and at once, while messages are lost, promises lapse, and others take the
// room. Where the last of them is told that it is admitted, it is held once on all nodes; where it is refused, at most
// once on some, and no longer than the lease lasts.
func TestTwinsAtRandom(t *testing.T) {
	t.Parallel()
	c := startSpread(t)
	servers := []*redis.Store{c.open(t), c.open(t), c.open(t)}
	seen := map[string]int{}
	for game := range 150 {
		request := func() *store.Step {
			return &store.Step{Lease: lease(game, store.LeaseOpen), Ops: c.owned(game, store.Hold, 4)}
		}
		for _, p := range c.proxies {
			p.Set(func(name string) redistest.Fault {
				f := redistest.Fault{Delay: rand.N(2 * time.Millisecond)}
				if strings.HasPrefix(name, "EVAL") && rand.N(12) == 0 {
					f.Do = []redistest.Action{redistest.CutBefore, redistest.CutAfter}[rand.N(2)]
				}
				return f
			})
		}
		var callers sync.WaitGroup
		for _, s := range servers {
			callers.Go(func() {
				for range 3 {
					var out store.Outcome
					if err := s.Apply(context.Background(), request(), &out); err != nil && !errors.Is(err, store.ErrUnavailable) {
						t.Errorf("game %d: %v", game, err)
					}
				}
			})
		}
		for range rand.N(3) {
			time.Sleep(rand.N(6 * time.Millisecond))
			c.clock.Advance(limit.Micros(rand.N(2)) * 5 * second)
			others := c.owned(game, store.Charge, 7)[rand.N(3):]
			var out store.Outcome
			_ = servers[0].Apply(context.Background(), &store.Step{Ops: others[:1]}, &out) // it may have no answer
		}
		callers.Wait()
		c.live()
		var out store.Outcome
		var err error
		for range 20 {
			if err = servers[game%3].Apply(t.Context(), request(), &out); err == nil {
				break
			}
		}
		if err != nil {
			t.Fatalf("game %d: %v", game, err)
		}
		seen[fmt.Sprintf("refused: %v", out.Refused)]++
		check := func(held ...int64) {
			for i, r := range apply(t, servers[0], nil, c.owned(game, store.Charge, 0)...).Results {
				if !slices.Contains(held, r.Held) || r.Used+r.Held > 10 {
					t.Errorf("game %d, node %d: %d used and %d held, want one of %d held, of 10 in all, after %+v",
						game, i, r.Used, r.Held, held, out)
				}
			}
		}
		c.clock.Advance(5 * second) // what was promised to those without an answer
		if out.Refused {
			check(0, 4)
		} else {
			check(4)
		}
		c.clock.Advance(store.MaxLease)
		check(0)
	}
	t.Log(seen)
	for _, refused := range []string{"refused: true", "refused: false"} {
		if seen[refused] < 10 {
			t.Errorf("%s only %d times", refused, seen[refused])
		}
	}
}
