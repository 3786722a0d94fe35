package redis_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rationhq/ration/store"
	"github.com/rationhq/ration/store/redis"
	"github.com/rationhq/ration/store/redis/redistest"
)

// jitter holds each message back for a random while, so that those of several callers meet in all orders.
func (c *spread) jitter(most time.Duration) {
	for _, p := range c.proxies {
		p.Set(func(name string) redistest.Fault {
			if !strings.HasPrefix(name, "EVAL") {
				return redistest.Fault{}
			}
			return redistest.Fault{Delay: rand.N(most)}
		})
	}
}

// hedge applies a step by several servers at once, the nth time so much later, and returns what each caller was
// answered.
func hedge(t *testing.T, servers []*redis.Store, later time.Duration, step func() *store.Step) []store.Outcome {
	t.Helper()
	outs := make([]store.Outcome, len(servers))
	var callers sync.WaitGroup
	for i, s := range servers {
		callers.Go(func() {
			time.Sleep(time.Duration(i) * later)
			if err := s.Apply(context.Background(), step(), &outs[i]); err != nil {
				t.Errorf("caller %d: %v", i, err)
			}
		})
	}
	callers.Wait()
	return outs
}

// owned is an op on a bucket of its own for each game, on each node.
func (c *spread) owned(game int, kind store.Kind, amount int64) (ops []store.Op) {
	ops = c.all(kind, amount)
	for i := range ops {
		ops[i].Bucket = fmt.Append(nil, "game ", game)
	}
	return ops
}

// Several callers send the same request under the same id at once, with room for one of them: it is admitted to all,
// reserved once, and settled once. Where there is room for none, on one of the nodes, it is refused to all, nothing is
// left of it, and the id is free for another request.
func TestHedges(t *testing.T) {
	t.Parallel()
	c := startSpread(t)
	servers := []*redis.Store{c.open(t), c.open(t), c.open(t)}
	c.jitter(2 * time.Millisecond)
	for game := range 150 {
		held := c.owned(game, store.Hold, 4)
		apply(t, servers[0], nil, c.owned(game, store.Charge, 3)...)
		full := game%4 - 1 // the node without room; −1 for none
		if full >= 0 {
			apply(t, servers[0], nil, c.owned(game, store.Charge, 4)[full])
		}
		open := func() *store.Step { return &store.Step{Lease: lease(game, store.LeaseOpen), Ops: held} }
		outs := hedge(t, servers[:2+game%2], rand.N(3*time.Millisecond), open)
		admitted, opened := 0, 0
		for _, out := range outs {
			if !out.Refused {
				admitted++
			}
			if out.Lease == store.LeaseOpened {
				opened++
			}
		}
		if full < 0 && (admitted < len(outs) || opened == 0) || full >= 0 && admitted+opened > 0 {
			t.Errorf("game %d: admitted to %d of %d callers, opened for %d, with node %d full: %+v",
				game, admitted, len(outs), opened, full, outs)
		}
		other := lease(game, store.LeaseOpen)
		other.Request++
		var out store.Outcome
		if full < 0 {
			if err := servers[1].Apply(t.Context(), &store.Step{Lease: other, Ops: held}, &out); !errors.Is(err, store.ErrConflict) {
				t.Errorf("game %d: another request under the id: %v, want %v", game, err, store.ErrConflict)
			}
			if out := apply(t, servers[2], lease(game, store.LeaseOpen), held...); out.Refused || out.Lease != store.LeaseReplayed {
				t.Errorf("game %d, again: %+v, want a repeat", game, out)
			}
		} else {
			apply(t, servers[1], nil, c.owned(game, store.GiveBack, 4)[full])
			if out := apply(t, servers[1], other, held...); out.Refused || out.Lease != store.LeaseOpened {
				t.Errorf("game %d: another request under an id that was refused: %+v", game, out)
			}
		}
		for i, r := range apply(t, servers[0], nil, c.owned(game, store.Charge, 0)...).Results {
			if r.Used != 3 || r.Held != 4 {
				t.Errorf("game %d, node %d: %d used and %d held, want 3 and 4", game, i, r.Used, r.Held)
			}
		}

		outs = hedge(t, servers[:2], rand.N(3*time.Millisecond), func() *store.Step {
			settle := lease(game, store.LeaseSettle)
			settle.Actual = []int64{1}
			return &store.Step{Lease: settle, Ops: c.owned(game, store.Record, 1)}
		})
		for i, r := range apply(t, servers[0], nil, c.owned(game, store.Charge, 0)...).Results {
			if r.Used != 5 || r.Held != 0 {
				t.Errorf("game %d, node %d, settled: %d used and %d held, want 5 and 0: %+v", game, i, r.Used, r.Held, outs)
			}
		}
	}
}

// More callers than a directory notes have claimed a lease. That all who are noted were refused does not say that
// it was admitted to nobody.
func TestManyClaims(t *testing.T) {
	t.Parallel()
	c := startSpread(t)
	s := c.open(t)
	l := c.leaseAt(t, s, 0)
	release := make(chan struct{})
	answered := make(chan error, 16)
	for range cap(answered) {
		other := c.open(t)
		on := point{make(chan struct{}), release}
		var seen atomic.Int64
		c.proxies[0].Set(func(name string) redistest.Fault {
			if !strings.HasPrefix(name, "EVAL") || seen.Add(1) != 2 { // the first one claims
				return redistest.Fault{}
			}
			close(on.held)
			return redistest.Fault{Until: on.release}
		})
		go func() {
			var out store.Outcome
			answered <- other.Apply(context.Background(), &store.Step{Lease: l, Refused: true}, &out)
		}()
		<-on.held
	}
	c.live()
	if out := apply(t, s, l); out.Refused {
		t.Errorf("the last one: %+v, want it admitted", out)
	}
	close(release)
	for range cap(answered) {
		if err := <-answered; err != nil {
			t.Error(err)
		}
	}
	another := *l
	another.Request++
	var out store.Outcome
	if err := s.Apply(t.Context(), &store.Step{Lease: &another}, &out); !errors.Is(err, store.ErrConflict) {
		t.Errorf("another request under its id: %v, want %v", err, store.ErrConflict)
	}
}
