package redis_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
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

// dies has a server apply a step at which it dies, as dieAfter has said.
func (c *spread) dies(t *testing.T, dying *redis.Store, step *store.Step) {
	t.Helper()
	var out store.Outcome
	if err := dying.Apply(context.Background(), step, &out); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("%v, want %v", err, store.ErrUnavailable)
	}
	c.live()
}

func (c *spread) live() {
	for _, p := range c.proxies {
		p.Set(nil)
	}
}

// A server dies at each point of a charge on three nodes. What it was promised counts as held, and is free
// again five seconds later; what it has written stays, as of any call without an answer.
func TestDeathWithinACharge(t *testing.T) {
	t.Parallel()
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
			c.dies(t, dying, &store.Step{Ops: c.all(store.Charge, 4)})
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

// Depletions on three nodes are written, each where its bucket is, also when a limit on another node refuses. What is
// promised of a bucket counts as used there, as what is held does.
func TestDepleteAcrossNodes(t *testing.T) {
	t.Parallel()
	c := startSpread(t)
	dying, witness := c.open(t), c.open(t)
	apply(t, dying, nil, c.all(store.Deplete, 9)...)
	c.look(t, witness, "1+0 1+0 1+0")
	ops := c.all(store.Deplete, 8)
	ops[1] = c.op(c.owners[1], store.Charge, 10)
	if out := apply(t, witness, nil, ops...); !out.Refused {
		t.Errorf("10 more of 10 are admitted: %+v", out)
	}
	c.look(t, witness, "2+0 1+0 2+0")

	c.dieAfter(0, 1)
	c.dieAfter(1, 1)
	c.dieAfter(2, 1)
	c.dies(t, dying, &store.Step{Ops: c.all(store.Charge, 4)})
	c.look(t, witness, "2+4 1+4 2+4")
	for _, r := range apply(t, witness, nil, c.all(store.Deplete, 3)...).Results {
		if r.Remaining != 3 {
			t.Errorf("%d remain beside a promise, want 3", r.Remaining)
		}
	}
	c.look(t, witness, "3+4 3+4 3+4")
	c.clock.Advance(5 * second)
	c.look(t, witness, "3+0 3+0 3+0")
	apply(t, witness, nil, c.all(store.Deplete, 3)...)
	c.look(t, witness, "7+0 7+0 7+0")
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

// reporter is somebody who reports in one column only, and has nothing else.
func reporter(column uint8) string { return fmt.Sprint("reporter ", column) }

// rows are one of each owner, and one of a reporter.
func (c *spread) rows(column uint8) (rows []store.Row) {
	for _, owner := range append([]string{reporter(column)}, c.owners...) {
		rows = append(rows, store.Row{
			Owner: []byte(owner), Group: []byte("g"), Add: []store.Addition{{Column: column, Amount: 1}}, Rank: 1 << column,
			Keep: store.Retain{OwnerHours: 600 * minute, OwnerDays: 600 * minute, GroupHours: 600 * minute, GroupDays: 600 * minute},
		})
	}
	return rows
}

// lookAtUsage checks that each of them was written once, with all columns up to one.
func (c *spread) lookAtUsage(t *testing.T, s *redis.Store, columns uint8) {
	t.Helper()
	want := map[string][]store.Addition{}
	for column := range columns {
		one := store.Addition{Column: column, Amount: 1}
		for _, owner := range c.owners {
			want[owner] = append(want[owner], one)
		}
		want[reporter(column)] = []store.Addition{one}
		want[""] = append(want[""], store.Addition{Column: column, Amount: int64(1 + len(c.owners))})
	}
	for owner, want := range want {
		rows, err := s.Rows(t.Context(), store.RowsQuery{Group: []byte("g"), Owner: []byte(owner), From: noon, To: noon + 1, Daily: true})
		if err != nil || len(rows) != 1 || !slices.Equal(rows[0].Columns, want) {
			t.Errorf("of %q there is reported %+v (%v), want %+v", owner, rows, err, want)
		}
	}
	for column := range columns {
		top, err := s.Top(t.Context(), store.TopQuery{Group: []byte("g"), Column: column, In: noon, Most: 9})
		if err != nil || len(top) != 1+len(c.owners) || top[0].Total != 1 || string(top[len(c.owners)].Owner) != reporter(column) {
			t.Errorf("who was first in column %d: %+v (%v), want all of them, once", column, top, err)
		}
	}
}

// A server dies while it opens a lease, and while it settles one, or lets it lapse. A repeat of the request finishes
// what was begun, once.
func TestDeathWithinALease(t *testing.T) {
	t.Parallel()
	c := startSpread(t)
	for n, reached := range [][3]int64{
		{1, 1, 1}, {2, 1, 2}, {1, 2, 1}, {2, 2, 1}, {3, 1, 1}, {0, 2, 2}, {1, 1, 2}, {2, 2, 2}, {3, 2, 1}, {3, 3, 1}, {2, 3, 1}, {1, 3, 2},
	} {
		for _, ends := range []store.LeaseAction{store.LeaseSettle, store.LeaseLapse} {
			c.dieWithinALease(t, 2*n+int(ends), reached, ends)
		}
	}
}

func (c *spread) dieWithinALease(t *testing.T, n int, reached [3]int64, ends store.LeaseAction) {
	t.Run(fmt.Sprint(reached, ends), func(t *testing.T) {
		for _, node := range c.nodes {
			node.Client(t).FlushAll(t.Context())
		}
		dying, witness := c.open(t), c.open(t)
		var out store.Outcome
		for i, do := range []store.LeaseAction{store.LeaseOpen, ends} {
			step := &store.Step{Lease: lease(n, do), Rows: c.rows(uint8(i))}
			if do == store.LeaseOpen {
				step.Ops = c.all(store.Hold, 4)
				for i := range step.Ops {
					step.Ops[i].Lapse = 3
				}
			} else {
				step.Lease.Actual = []int64{3}
			}
			c.look(t, dying, []string{"0+0 0+0 0+0", "0+4 0+4 0+4"}[i])
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
			c.lookAtUsage(t, witness, uint8(i+1))
		}
		c.look(t, witness, "3+0 3+0 3+0")
	})
}

// A node hears so late that a step is admitted that its promise has lapsed, and another caller has the room:
// it does not write, and the step is not admitted.
func TestLateAdmission(t *testing.T) {
	t.Parallel()
	c := startSpread(t)
	slow, quick := c.open(t), c.open(t)
	c.look(t, slow, "0+0 0+0 0+0")
	late := c.holdBack()
	answered := make(chan error)
	go func() {
		var out store.Outcome
		answered <- slow.Apply(context.Background(), &store.Step{Ops: c.all(store.Charge, 7)}, &out)
	}()
	<-late.held
	for _, owner := range []string{c.owners[0], c.owners[2]} {
		for since := time.Now(); apply(t, quick, nil, c.op(owner, store.Charge, 0)).Results[0].Used == 0; {
			if time.Since(since) > 10*time.Second {
				t.Fatalf("%s is not charged", owner)
			}
		}
	}
	c.clock.Advance(5 * second)
	if out := apply(t, quick, nil, c.op(c.owners[1], store.Charge, 7)); out.Refused {
		t.Errorf("refused when the promise has lapsed: %+v", out)
	}
	close(late.release)
	if err := <-answered; !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("%v, want %v", err, store.ErrUnavailable)
	}
	c.live()
	c.look(t, quick, "7+0 7+0 7+0")
}

// What a shard remembers of a settlement it does not forget before the lease's directory does, whatever its
// clock shows: a repeat would count once more.
func TestRetentionWithClocksApart(t *testing.T) {
	t.Parallel()
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
		// They are asked one after the other.
		if directory := left["#shards"][id]; lasts < directory-10*time.Second {
			t.Errorf("%s: the shard forgets it %v before the directory", id, directory-lasts)
		}
	}
}

// The clock of a node is set back, or another node with a clock that is behind takes its place: a promise that
// nobody takes holds nothing for longer than five seconds of the new time.
func TestPromisesOfAnotherClock(t *testing.T) {
	t.Parallel()
	c := startSpread(t)
	dying, witness := c.open(t), c.open(t)
	c.look(t, dying, "0+0 0+0 0+0")
	for i := range c.proxies {
		c.dieAfter(i, 1)
	}
	c.dies(t, dying, &store.Step{Ops: c.all(store.Charge, 4)})
	c.clock.Advance(-70 * second)
	c.look(t, witness, "0+4 0+4 0+4")
	c.clock.Advance(5*second - 1)
	c.look(t, witness, "0+4 0+4 0+4")
	c.clock.Advance(1)
	c.look(t, witness, "0+0 0+0 0+0")
}

// A node loses, between the rounds, what it has promised: its master has died, and no replica had it yet. It
// hears of an admission that it knows nothing of, and writes nothing.
func TestPromiseLostByAFailover(t *testing.T) {
	t.Parallel()
	c := startSpread(t)
	s, witness := c.open(t), c.open(t)
	c.look(t, s, "0+0 0+0 0+0")
	for _, l := range []*store.Lease{nil, c.leaseAt(t, s, 0)} {
		kind := store.Charge
		if l != nil {
			kind = store.Hold
		}
		on := c.holdBack()
		answered := make(chan error)
		go func() {
			var out store.Outcome
			answered <- s.Apply(context.Background(), &store.Step{Lease: l, Ops: c.all(kind, 4)}, &out)
		}()
		<-on.held
		c.nodes[1].Client(t).FlushAll(t.Context())
		close(on.release)
		if err := <-answered; !errors.Is(err, store.ErrUnavailable) || !strings.Contains(err.Error(), "did not hear in time") {
			t.Errorf("%v, want %v", err, store.ErrUnavailable)
		}
		c.live()
		if l == nil {
			c.look(t, witness, "4+0 0+0 4+0")
			continue
		}
		c.look(t, witness, "4+4 0+0 4+4")
		if out := apply(t, witness, l, c.all(kind, 4)...); out.Refused || out.Lease != store.LeaseOpened {
			t.Errorf("again: %+v, want it opened", out)
		}
		c.look(t, witness, "4+4 0+4 4+4")
	}
}

// point is where a message is held back.
type point struct{ held, release chan struct{} }

// holdBack holds back the second message from now on to node 1, which comes when it has promised; those of other
// connections pass it.
func (c *spread) holdBack() point {
	on := point{make(chan struct{}), make(chan struct{})}
	var seen atomic.Int64
	c.proxies[1].Set(func(name string) redistest.Fault {
		if !strings.HasPrefix(name, "EVAL") || seen.Add(1) != 2 {
			return redistest.Fault{}
		}
		close(on.held)
		return redistest.Fault{Until: on.release}
	})
	return on
}

// Something is wrong with one node when a step is to be written: others have written already. The error says
// that it is unknown what was written, and not, as that node does by itself, that nothing was.
func TestOneNodeFails(t *testing.T) {
	t.Parallel()
	c := startSpread(t)
	s := c.open(t)
	look := c.nodes[1].Client(t)
	for name, test := range map[string]struct {
		spoil, mend func()
		alone       error
	}{
		"it is full": {
			func() { look.ConfigSet(t.Context(), "maxmemory", "1") },
			func() { look.ConfigSet(t.Context(), "maxmemory", "0") }, store.ErrFull,
		},
		"its bucket is not readable": {
			func() {
				for _, key := range look.Keys(t.Context(), "*b:*").Val() {
					if !strings.Contains(key, "#") {
						look.Set(t.Context(), key, "not a counter", 0)
					}
				}
			},
			func() { look.FlushAll(t.Context()) }, store.ErrCorrupt,
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, node := range c.nodes {
				node.Client(t).FlushAll(t.Context())
			}
			apply(t, s, nil, c.all(store.Charge, 1)...)
			on := c.holdBack()
			var out store.Outcome
			step := &store.Step{Ops: c.all(store.Charge, 4)}
			answered := make(chan error)
			go func() { answered <- s.Apply(context.Background(), step, &out) }()
			<-on.held
			test.spoil()
			close(on.release)
			err := <-answered
			if !errors.Is(err, store.ErrUnavailable) || errors.Is(err, test.alone) {
				t.Errorf("half written: %v, want %v and not %v", err, store.ErrUnavailable, test.alone)
			}
			c.live()
			for _, l := range []*store.Lease{nil, lease(1, store.LeaseOpen)} {
				if err := s.Apply(t.Context(), &store.Step{Lease: l, Ops: c.all(store.Charge, 1)}, &out); !errors.Is(err, test.alone) {
					t.Errorf("before anything is written: %v, want %v", err, test.alone)
				}
			}
			test.mend()
			c.clock.Advance(5 * second)
			for i, want := range []int64{5, 1, 5} {
				r := apply(t, s, nil, c.op(c.owners[i], store.Charge, 0)).Results[0]
				if i == 1 && errors.Is(test.alone, store.ErrCorrupt) {
					want = 0 // the key is gone
				}
				if r.Used != want || r.Held != 0 {
					t.Errorf("node %d: %d used and %d held, want %d and nothing", i, r.Used, r.Held, want)
				}
			}
			if out := apply(t, s, func() *store.Lease { l := lease(1, store.LeaseOpen); l.Request++; return l }()); out.Lease != store.LeaseOpened {
				t.Errorf("the id of a step of which nothing was written is taken: %+v", out)
			}
		})
	}
}

// A server dies while it opens a lease; the caller reports what was used, and only then asks again for what it
// wanted to open. The lease is over: that is a repeat, in the shards too that never heard of it.
func TestOpenedAgainWhenSettled(t *testing.T) {
	t.Parallel()
	c := startSpread(t)
	dying, s := c.open(t), c.open(t)
	opening := c.leaseAt(t, s, 2)
	c.look(t, dying, "0+0 0+0 0+0")
	c.dieAfter(0, 1)
	c.dieAfter(1, 1)
	open := &store.Step{Lease: opening, Ops: c.all(store.Hold, 4)}
	c.dies(t, dying, open)
	settle := *opening
	settle.Do = store.LeaseSettle
	if out := apply(t, s, &settle, c.all(store.Settle, 3)...); out.Lease != store.LeaseSettled {
		t.Errorf("settled: %+v", out)
	}
	c.clock.Advance(5 * second)
	c.look(t, s, "3+0 3+0 3+0")
	if out := apply(t, s, opening, open.Ops...); out.Refused || out.Lease != store.LeaseReplayed {
		t.Errorf("opened again: %+v, want a repeat", out)
	}
	c.look(t, s, "3+0 3+0 3+0")
}

// A server dies when it has only claimed a settlement, which names a bucket too of which the lease held nothing.
// Its repeat says what became of the lease.
func TestResumedSettlement(t *testing.T) {
	t.Parallel()
	c := startSpread(t)
	dying, s := c.open(t), c.open(t)
	for id, held := range [][]int{{0}, {1}, {2}, {0, 1}, {1, 2}, {0, 2}} {
		c.live()
		var holds []store.Op
		for _, i := range held {
			holds = append(holds, c.op(c.owners[i], store.Hold, 1))
		}
		apply(t, s, lease(id, store.LeaseOpen), holds...)
		apply(t, dying, nil, c.all(store.Charge, 0)...)
		settle := &store.Step{Lease: lease(id, store.LeaseSettle), Ops: c.all(store.Settle, 1)}
		home := c.homeOf(t, settle.Lease)
		for i := range c.proxies {
			c.dieAfter(i, 0)
		}
		c.dieAfter(home, 1)
		c.dies(t, dying, settle)
		if out := apply(t, s, settle.Lease, settle.Ops...); out.Lease != store.LeaseSettled {
			t.Errorf("of holds on %v: state %d, want it settled", held, out.Lease)
		}
		if out := apply(t, s, settle.Lease, settle.Ops...); out.Lease != store.LeaseReplayed {
			t.Errorf("of holds on %v, again: state %d, want a repeat", held, out.Lease)
		}
	}
	c.look(t, s, "6+0 6+0 6+0")
}

// leaseAt returns the opening of a lease whose directory lies on a node. Nothing is counted afterwards.
func (c *spread) leaseAt(t *testing.T, s store.Store, home int) *store.Lease {
	t.Helper()
	defer func() {
		for _, node := range c.nodes {
			node.Client(t).FlushAll(t.Context())
		}
	}()
	for n := 0; ; n++ {
		l := lease(n, store.LeaseOpen)
		if apply(t, s, l); c.homeOf(t, l) == home {
			return l
		}
	}
}

// homeOf returns the node that has the directory of a lease.
func (c *spread) homeOf(t *testing.T, l *store.Lease) int {
	t.Helper()
	for i, node := range c.nodes {
		if len(node.Client(t).Keys(t.Context(), fmt.Sprintf("*}%x#shards", l.ID)).Val()) > 0 {
			return i
		}
	}
	t.Fatal("the lease has no directory")
	return 0
}
