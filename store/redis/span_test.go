package redis_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
	"github.com/rationhq/ration/store/redis"
	"github.com/rationhq/ration/store/redis/redistest"
	"github.com/rationhq/ration/store/storetest"
)

// spread is a Cluster behind proxies, with an owner of buckets on each node.
type spread struct {
	url     string
	nodes   []*redistest.Server
	proxies []*redistest.Proxy
	owners  []string // by node
	clock   *storetest.Clock
}

func startSpread(t *testing.T) *spread {
	t.Helper()
	nodes, proxies := redistest.StartProxiedCluster(t)
	c := &spread{
		url: "redis-cluster://" + proxies[0].Addr, nodes: nodes, proxies: proxies,
		owners: make([]string, len(nodes)), clock: storetest.NewClock(noon),
	}
	s := c.open(t)
	for n, found := 0, 0; found < len(nodes); n++ {
		owner := fmt.Sprint("owner ", n)
		apply(t, s, nil, c.op(owner, store.Charge, 1))
		for i, node := range nodes {
			keys := node.Client(t).Keys(t.Context(), "*"+owner+"|*").Val()
			if len(keys) > 0 && c.owners[i] == "" {
				c.owners[i] = owner
				found++
			}
		}
	}
	for _, node := range nodes {
		node.Client(t).FlushAll(t.Context())
	}
	return c
}

func (c *spread) open(t *testing.T) *redis.Store {
	return newStore(t, redis.Options{URL: c.url, Timeout: 2 * time.Second, Clock: c.clock.Now})
}

func (c *spread) op(owner string, kind store.Kind, amount int64) store.Op {
	op := strict("b", limit.Spec{Limit: 10, Window: 600 * minute}, amount)
	op.Owner, op.Kind = []byte(owner), kind
	return op
}

// all is an op on the bucket of each node.
func (c *spread) all(kind store.Kind, amount int64) (ops []store.Op) {
	for _, owner := range c.owners {
		ops = append(ops, c.op(owner, kind, amount))
	}
	return ops
}

// dieAfter lets the messages of the next step that many times reach a node, and nothing after them: as if
// the server that sends them had died there.
func (c *spread) dieAfter(node int, messages int64) {
	var seen atomic.Int64
	c.proxies[node].Set(func(name string) redistest.Fault {
		if !strings.HasPrefix(name, "EVAL") || seen.Add(1) <= messages {
			return redistest.Fault{}
		}
		return redistest.Fault{Do: redistest.CutBefore}
	})
}

func (c *spread) live() {
	for _, p := range c.proxies {
		p.Set(nil)
	}
}

// A server dies at each point of a charge on three nodes. What it was promised counts as held, and is free
// again five seconds later; what it has written stays, as of any call without an answer.
func TestDeathWithinACharge(t *testing.T) {
	c := startSpread(t)
	for name, died := range map[string]struct {
		reached  [3]int64 // messages to each node
		at, then string   // how the buckets stand at once, and when promises have lapsed
	}{
		"one node has not heard of it": {[3]int64{0, 1, 1}, "0+0 0+4 0+4", "0+0 0+0 0+0"},
		"all have promised":            {[3]int64{1, 1, 1}, "0+4 0+4 0+4", "0+0 0+0 0+0"},
		"one has written":              {[3]int64{2, 1, 1}, "4+0 0+4 0+4", "4+0 0+0 0+0"},
		"two have written":             {[3]int64{2, 1, 2}, "4+0 0+4 4+0", "4+0 0+0 4+0"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, node := range c.nodes {
				node.Client(t).FlushAll(t.Context())
			}
			dying, witness := c.open(t), c.open(t)
			c.look(t, dying, "0+0 0+0 0+0")
			for i, n := range died.reached {
				c.dieAfter(i, n)
			}
			var out store.Outcome
			err := dying.Apply(context.Background(), &store.Step{Ops: c.all(store.Charge, 4)}, &out)
			if !errors.Is(err, store.ErrUnavailable) {
				t.Errorf("%v, want %v", err, store.ErrUnavailable)
			}
			c.live()
			c.look(t, witness, died.at)
			c.clock.Advance(5*second - 1)
			c.look(t, witness, died.at)
			c.clock.Advance(1)
			c.look(t, witness, died.then)
			if out := apply(t, witness, nil, c.all(store.Charge, 6)...); out.Refused {
				t.Errorf("refused when all promises have lapsed: %+v", out)
			}
		})
	}
}

// look checks how the buckets stand, each asked for itself.
func (c *spread) look(t *testing.T, s store.Store, want string) {
	t.Helper()
	got := ""
	for _, owner := range c.owners {
		r := apply(t, s, nil, c.op(owner, store.Charge, 0)).Results[0]
		got += fmt.Sprintf("%d+%d ", r.Used, r.Held)
	}
	if got = strings.TrimSpace(got); got != want {
		t.Errorf("the buckets stand at %s, want %s", got, want)
	}
}

// A server dies while it opens a lease, and while it settles one. A repeat of the request finishes what was
// begun, once.
func TestDeathWithinALease(t *testing.T) {
	c := startSpread(t)
	for n, reached := range [][3]int64{{1, 1, 1}, {2, 1, 2}, {1, 2, 1}, {2, 2, 1}, {3, 1, 1}, {0, 2, 2}} {
		t.Run(fmt.Sprint(reached), func(t *testing.T) {
			for _, node := range c.nodes {
				node.Client(t).FlushAll(t.Context())
			}
			dying, witness := c.open(t), c.open(t)
			var out store.Outcome
			for _, do := range []store.LeaseAction{store.LeaseOpen, store.LeaseSettle} {
				step := &store.Step{Lease: lease(n, do)}
				if do == store.LeaseOpen {
					step.Ops = c.all(store.Hold, 4)
				} else {
					step.Lease.Actual = []int64{3}
				}
				c.look(t, dying, map[store.LeaseAction]string{
					store.LeaseOpen: "0+0 0+0 0+0", store.LeaseSettle: "0+4 0+4 0+4",
				}[do])
				for i, n := range reached {
					c.dieAfter(i, n)
				}
				first := dying.Apply(context.Background(), step, &out)
				c.live()
				if err := witness.Apply(context.Background(), step, &out); err != nil || out.Refused {
					t.Fatalf("action %d, again after %v: %+v, %v", do, first, out, err)
				}
				if first == nil && out.Lease != store.LeaseReplayed {
					t.Errorf("action %d, again after an answer: state %d", do, out.Lease)
				}
				c.clock.Advance(6 * second) // what the first was promised beside has lapsed
			}
			c.look(t, witness, "3+0 3+0 3+0")
		})
	}
}

// A node hears so late that a step is admitted that its promise has lapsed, and another caller has the room:
// it does not write, and the step is not admitted.
func TestLateAdmission(t *testing.T) {
	c := startSpread(t)
	slow, quick := c.open(t), c.open(t)
	c.look(t, slow, "0+0 0+0 0+0")
	var seen atomic.Int64
	late := make(chan struct{})
	c.proxies[1].Set(func(name string) redistest.Fault {
		if strings.HasPrefix(name, "EVAL") && seen.Add(1) == 2 {
			close(late)
			return redistest.Fault{Delay: 500 * time.Millisecond}
		}
		return redistest.Fault{}
	})
	answered := make(chan error)
	go func() {
		var out store.Outcome
		answered <- slow.Apply(context.Background(), &store.Step{Ops: c.all(store.Charge, 7)}, &out)
	}()
	<-late
	c.clock.Advance(5 * second)
	if out := apply(t, quick, nil, c.op(c.owners[1], store.Charge, 7)); out.Refused {
		t.Errorf("refused when the promise has lapsed: %+v", out)
	}
	if err := <-answered; !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("%v, want %v", err, store.ErrUnavailable)
	}
	c.live()
	c.look(t, quick, "7+0 7+0 7+0")
}

// What a shard remembers of a settlement it does not forget before the lease's directory does, whatever its
// clock shows: a repeat would count once more.
func TestRetentionWithClocksApart(t *testing.T) {
	nodes, _ := redistest.StartClusterWithClocks(t, 0, -70*time.Second, 70*time.Second)
	s := newStore(t, redis.Options{URL: "redis-cluster://" + nodes[0].Addr})
	used := strict("b", limit.Spec{Limit: 1000, Window: 600 * minute}, 1)
	used.Kind = store.Settle
	for n := range 40 {
		step := &store.Step{Lease: lease(n, store.LeaseSettle), Ops: []store.Op{used}}
		step.Ops[0].Owner = fmt.Append(nil, "owner ", n)
		var out store.Outcome
		for range 2 {
			if err := s.Apply(t.Context(), step, &out); err != nil {
				t.Fatal(err)
			}
		}
	}
	left := map[string]map[string]time.Duration{"#shards": {}, "#lease": {}}
	for _, node := range nodes {
		look := node.Client(t)
		for end, of := range left {
			for _, key := range look.Keys(t.Context(), "*"+end).Val() {
				_, id, _ := strings.Cut(strings.TrimSuffix(key, end), "}")
				of[id] = look.PTTL(t.Context(), key).Val()
			}
		}
	}
	if len(left["#lease"]) != 40 {
		t.Errorf("%d shards remember something of 40 settlements", len(left["#lease"]))
	}
	for id, lasts := range left["#lease"] {
		if directory := left["#shards"][id]; lasts < directory-10*time.Millisecond {
			t.Errorf("%s: the shard forgets it %v before the directory", id, directory-lasts)
		}
	}
}
