package redis_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
	"github.com/rationhq/ration/store/redis"
	"github.com/rationhq/ration/store/redis/redistest"
)

// tornLease has a caller open a lease, whose message to node 1 that it is admitted is held back: the other nodes have
// opened it. Node 1 has forgotten its promise by now, and given its room to another. What the caller will be told
// comes through answer.
func (c *spread) tornLease(t *testing.T, s *redis.Store) (opening *store.Lease, late point, answer chan answered) {
	t.Helper()
	opening = c.leaseAt(t, s, 0)
	late = c.holdBack(1, 2)
	answer = c.request(t, opening)
	<-late.held
	c.awaitOpened(t)
	c.look(t, s, "0+4 0+4 0+4")
	c.clock.Advance(5 * second)
	c.look(t, s, "0+4 0+0 0+4")
	apply(t, s, nil, c.op(c.owners[1], store.Charge, 7))
	return opening, late, answer
}

// answered is what a caller is told.
type answered struct {
	store.Outcome
	err error
}

// request has a server of its own open a lease with 4 units on each node.
func (c *spread) request(t *testing.T, opening *store.Lease) chan answered {
	t.Helper()
	s, answer := c.open(t), make(chan answered, 1)
	go func() {
		var a answered
		a.err = s.Apply(context.Background(), &store.Step{Lease: opening, Ops: c.all(store.Hold, 4)}, &a.Outcome)
		answer <- a
	}()
	return answer
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

// A lease that some nodes have opened, and for which another has no room any more, is refused when the request comes
// again. Nothing is left of it, and the id is free. The first caller, who hears of it late, writes nothing.
func TestRefusedWhenTorn(t *testing.T) {
	t.Parallel()
	c := startSpread(t)
	s := c.open(t)
	opening, late, answer := c.tornLease(t, s)
	if out := apply(t, s, opening, c.all(store.Hold, 4)...); !out.Refused || out.Lease != store.LeaseNone || !out.Results[1].Refused {
		t.Errorf("again: %+v, want it refused by node 1", out)
	}
	c.look(t, s, "0+0 7+0 0+0")
	close(late.release)
	if first := <-answer; !errors.Is(first.err, store.ErrUnavailable) {
		t.Errorf("the first caller: %+v, want %v", first, store.ErrUnavailable)
	}
	c.look(t, s, "0+0 7+0 0+0")
	another := *opening
	another.Request++
	if out := apply(t, s, &another, c.all(store.Hold, 3)...); out.Refused || out.Lease != store.LeaseOpened {
		t.Errorf("another request under the id: %+v, want it opened", out)
	}
	c.look(t, s, "0+3 7+3 0+3")
	for _, node := range c.nodes {
		look := node.Client(t)
		for _, key := range look.Keys(t.Context(), "*#pending").Val() {
			t.Errorf("left: %s", key)
		}
	}
}

// The same, and node 1 has room again when the request comes for the third time: it is opened anew, and the first caller
// changes nothing of that.
func TestOpenedAnewWhenTorn(t *testing.T) {
	t.Parallel()
	c := startSpread(t)
	s := c.open(t)
	opening, late, answer := c.tornLease(t, s)
	if out := apply(t, s, opening, c.all(store.Hold, 4)...); !out.Refused {
		t.Errorf("again: %+v, want it refused", out)
	}
	apply(t, s, nil, c.op(c.owners[1], store.GiveBack, 7))
	if out := apply(t, s, opening, c.all(store.Hold, 4)...); out.Refused || out.Lease != store.LeaseOpened {
		t.Errorf("with room: %+v, want it opened", out)
	}
	close(late.release)
	if first := <-answer; !errors.Is(first.err, store.ErrUnavailable) {
		t.Errorf("the first caller: %+v, want %v", first, store.ErrUnavailable)
	}
	c.look(t, s, "0+4 0+4 0+4")
	if out := apply(t, s, opening, c.all(store.Hold, 4)...); out.Refused || out.Lease != store.LeaseReplayed {
		t.Errorf("again: %+v, want a repeat", out)
	}
	settle := *opening
	settle.Do, settle.Actual = store.LeaseSettle, []int64{1}
	if out := apply(t, s, &settle); out.Lease != store.LeaseSettled {
		t.Errorf("settled: %+v", out)
	}
	c.look(t, s, "1+0 1+0 1+0")
}

// The same, but while the second caller is about to say that it is refused, a third one finds room and opens it
// everywhere: then the second is admitted too.
func TestOpenedByATwinWhenTorn(t *testing.T) {
	t.Parallel()
	c := startSpread(t)
	s := c.open(t)
	opening, late, answer := c.tornLease(t, s)
	refusal := c.holdBack(1, 2)
	second := c.request(t, opening)
	<-refusal.held
	apply(t, s, nil, c.op(c.owners[1], store.GiveBack, 7))
	if out := apply(t, s, opening, c.all(store.Hold, 4)...); out.Refused || out.Lease != store.LeaseOpened {
		t.Errorf("the third caller: %+v, want it opened", out)
	}
	close(refusal.release)
	if out := <-second; out.err != nil || out.Refused || out.Lease != store.LeaseReplayed {
		t.Errorf("the second caller: %+v, want a repeat", out)
	}
	close(late.release)
	if first := <-answer; first.err != nil || first.Refused {
		t.Errorf("the first caller: %+v, want it admitted", first)
	}
	c.look(t, s, "0+4 0+4 0+4")
}

// A caller who gives up takes nothing away from one who has sent the same request.
func TestTwinGivesUp(t *testing.T) {
	t.Parallel()
	c := startSpread(t)
	s := c.open(t)
	opening := c.leaseAt(t, s, 0)
	c.look(t, s, "0+0 0+0 0+0")
	on := c.holdBack(1, 2)
	first := c.request(t, opening)
	<-on.held
	c.awaitOpened(t)
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

// Callers send one request again and again, and at once, while messages are lost, promises lapse, and others take the
// room and give it back. Whatever the last of them is told, is so on all nodes.
func TestTornAtRandom(t *testing.T) {
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
		want := int64(4)
		if out.Refused {
			want = 0
		}
		seen[fmt.Sprintf("refused: %v", out.Refused)]++
		c.clock.Advance(5 * second) // what was promised to those without an answer
		for i, r := range apply(t, servers[0], nil, c.owned(game, store.Charge, 0)...).Results {
			if r.Held != want || r.Used+r.Held > 10 {
				t.Errorf("game %d, node %d: %d used and %d held, want %d held, of 10 in all, after %+v", game, i, r.Used, r.Held, want, out)
			}
		}
	}
	t.Log(seen)
	for _, refused := range []string{"refused: true", "refused: false"} {
		if seen[refused] < 10 {
			t.Errorf("%s only %d times", refused, seen[refused])
		}
	}
}
