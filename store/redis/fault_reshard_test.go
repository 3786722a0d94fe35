package redis_test

import (
	"context"
	"errors"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/rationhq/ration/store"
	"github.com/rationhq/ration/store/redis"
	"github.com/rationhq/ration/store/redis/redistest"
)

// The slots of the masters of a Cluster move from one to the next, key by key, under load. Whatever
// Redis says of it (MOVED, ASK, TRYAGAIN), every caller is answered, and exactly.
func TestReshardingUnderLoad(t *testing.T) {
	t.Parallel()
	nodes := redistest.StartCluster(t)
	url := "redis-cluster://" + nodes[0].Addr
	c := gather(t, makers, calm, twoStores(t, url, calm)...)
	c.readEvents(witness(t, url))
	c.awaitAnswers(200)
	for i := range nodes {
		m := newMove(t, nodes, nodes[i].Client(t), nodes[(i+1)%3].Client(t))
		// All buckets, with what is remembered of leases beside them, and some of the leases' directories.
		slots := m.slots("*owner *")
		others := 0
		for slot := range m.slots("*#shards") {
			if others++; others > 10 {
				break
			}
			slots[slot] = 0
		}
		for slot := range slots {
			m.announce(slot)
			for moved := 0; moved < 20 && m.some(slot, 1); moved++ {
				c.awaitAnswers(2)
			}
			for m.some(slot, 1000) { // of leases there are hundreds
			}
			m.finish(slot)
		}
	}
	c.awaitAnswers(200)
	for _, kind := range []string{"MOVED", "ASK", "TRYAGAIN"} {
		said := 0
		for _, node := range nodes {
			said += errorsSaid(t, node.Client(t), kind)
		}
		t.Logf("Redis said %s %d times", kind, said)
		if said == 0 {
			t.Errorf("Redis never said %s", kind)
		}
	}
	c.verify(witness(t, url), 0)
	if n := c.unknown.Load(); n > 0 {
		t.Errorf("%d calls had no answer", n)
	}
}

// A slot stays half moved. Callers of the keys on either side are answered, though Redis refuses to
// decide about both at once.
func TestHalfMovedSlot(t *testing.T) {
	t.Parallel()
	nodes := redistest.StartCluster(t)
	url := "redis-cluster://" + nodes[0].Addr
	s := newStore(t, redis.Options{URL: url})
	c := newCrowd(t, calm, s)
	buckets := []bucketID{{&makers[0], "1", plenty}, {&makers[0], "5", plenty}} // of one owner
	for _, b := range buckets {
		if err := c.call(s, b); err != nil {
			t.Fatal(err)
		}
	}
	for i := range nodes {
		m := newMove(t, nodes, nodes[i].Client(t), nodes[(i+1)%3].Client(t))
		for slot, keys := range m.slots("*") {
			if keys != 2 {
				t.Fatalf("slot %d has %d keys, want both", slot, keys)
			}
			m.announce(slot)
			m.some(slot, 1)
		}
		if len(m.slots("*")) > 0 {
			break
		}
	}
	var callers sync.WaitGroup
	for i := range 16 {
		callers.Go(func() {
			for range 50 {
				if err := c.call(s, buckets[i%2]); err != nil {
					t.Error(err)
				}
			}
		})
	}
	callers.Wait()
	c.verify(witness(t, url), 0)
}

// A slot stays half moved, and with it buckets of steps that span shards. Redis decides nothing about these: callers
// hear so by their deadline, nothing is written, in other shards neither, and nothing stays promised. When all of the
// slot has moved, all are answered.
func TestHalfMovedSlotOfASpan(t *testing.T) {
	t.Parallel()
	c := startSpread(t)
	s := newStore(t, redis.Options{URL: c.url, Timeout: timeout, Clock: c.clock.Now})
	patient := c.open(t)
	apply(t, s, lease(1, store.LeaseOpen), c.all(store.Hold, 1)...)
	moves := make(map[int64]*move)
	for i, node := range c.nodes[:1] {
		m := newMove(t, c.nodes, node.Client(t), c.nodes[(i+1)%3].Client(t))
		for slot := range m.slots("*" + c.owners[i] + "|*") {
			m.announce(slot)
			m.some(slot, 1)
			moves[slot] = m
		}
	}
	for _, step := range []*store.Step{
		{Ops: c.all(store.Charge, 1)},
		{Ops: c.all(store.Hold, 1), Lease: lease(2, store.LeaseOpen)},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 4*timeout)
		began := time.Now()
		var out store.Outcome
		if err := s.Apply(ctx, step, &out); !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("%v, want %v", err, store.ErrUnavailable)
		}
		cancel()
		if took := time.Since(began); took > 4*timeout+generous {
			t.Errorf("it took %v", took)
		}
	}
	for slot, m := range moves {
		for m.some(slot, 1) {
		}
		m.finish(slot)
	}
	c.look(t, patient, "0+1 0+1 0+1")
	if out := apply(t, patient, lease(2, store.LeaseOpen), c.all(store.Hold, 9)...); out.Refused {
		t.Errorf("something stays promised: %+v", out)
	}
	settle := lease(1, store.LeaseSettle)
	settle.Actual = []int64{1}
	apply(t, patient, settle)
	c.look(t, patient, "1+9 1+9 1+9")
}

// Who has heard that a slot has moved does not go on to ask the old node first.
func TestMovedSlot(t *testing.T) {
	t.Parallel()
	nodes := redistest.StartCluster(t)
	s := newStore(t, redis.Options{URL: "redis-cluster://" + nodes[0].Addr})
	apply(t, s, nil, strict("b", year(plenty), 1))
	from, to := nodes[0].Client(t), nodes[1].Client(t)
	for i, node := range nodes {
		if node.Client(t).DBSize(t.Context()).Val() > 0 {
			from, to = node.Client(t), nodes[(i+1)%3].Client(t)
		}
	}
	m := newMove(t, nodes, from, to)
	for slot := range m.slots("*") {
		m.announce(slot)
		m.some(slot, 1000)
		m.finish(slot)
	}
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		before := errorsSaid(t, from, "MOVED")
		apply(t, s, nil, strict("b", year(plenty), 1))
		switch now := errorsSaid(t, from, "MOVED"); {
		case now == 0:
			t.Fatal("the slot has not moved")
		case now == before:
			return
		case time.Now().After(deadline):
			t.Fatalf("the old node was asked %d times", now)
		}
	}
}

// errorsSaid returns how often a node has answered by errors of a kind.
func errorsSaid(t *testing.T, node *goredis.Client, kind string) int {
	t.Helper()
	_, rest, _ := strings.Cut(node.Info(t.Context(), "errorstats").Val(), "errorstat_"+kind+":count=")
	count, _, _ := strings.Cut(rest, "\r\n")
	n, _ := strconv.Atoi(count)
	return n
}

// move is the moving of slots from one node of a Cluster to another.
type move struct {
	t            *testing.T
	nodes        []*redistest.Server
	from, to     *goredis.Client
	fromID, toID string
}

func newMove(t *testing.T, nodes []*redistest.Server, from, to *goredis.Client) *move {
	m := &move{t: t, nodes: nodes, from: from, to: to}
	m.fromID, m.toID = m.do(from, "cluster", "myid"), m.do(to, "cluster", "myid")
	return m
}

func (m *move) do(node *goredis.Client, command ...any) string {
	m.t.Helper()
	text, err := node.Do(context.Background(), command...).Text()
	if err != nil {
		m.t.Fatalf("%v: %v", command, err)
	}
	return text
}

// slots returns those that hold keys of this pattern, and how many.
func (m *move) slots(pattern string) map[int64]int {
	tags := make(map[string]int) // there may be thousands of keys, of few shards
	for _, key := range m.from.Keys(context.Background(), pattern).Val() {
		_, rest, _ := strings.Cut(key, "{")
		tag, _, _ := strings.Cut(rest, "}")
		tags[tag]++
	}
	slots := make(map[int64]int)
	for tag, keys := range tags {
		slots[m.from.ClusterKeySlot(context.Background(), tag).Val()] += keys
	}
	return slots
}

func (m *move) announce(slot int64) {
	m.t.Helper()
	m.do(m.to, "cluster", "setslot", slot, "importing", m.fromID)
	m.do(m.from, "cluster", "setslot", slot, "migrating", m.toID)
}

// some moves keys of the slot, so many at most. It returns false if there is none.
func (m *move) some(slot int64, most int) bool {
	m.t.Helper()
	keys, err := m.from.ClusterGetKeysInSlot(context.Background(), int(slot), most).Result()
	if err != nil {
		m.t.Fatal(err)
	}
	if len(keys) == 0 {
		return false
	}
	host, port, _ := net.SplitHostPort(m.to.Options().Addr)
	command := []any{"migrate", host, port, "", 0, 5000, "keys"}
	for _, key := range keys {
		command = append(command, key)
	}
	m.do(m.from, command...)
	return true
}

func (m *move) finish(slot int64) {
	m.t.Helper()
	m.do(m.to, "cluster", "setslot", slot, "node", m.toID)
	m.do(m.from, "cluster", "setslot", slot, "node", m.toID)
	for _, node := range m.nodes {
		m.do(node.Client(m.t), "cluster", "setslot", slot, "node", m.toID)
	}
}

// The nodes do not agree on who has a slot, each names another one. Who reads hears by the store's own deadline that it
// is not available.
func TestSlotOfNobody(t *testing.T) {
	nodes := redistest.StartCluster(t)
	s := newStore(t, redis.Options{URL: "redis-cluster://" + nodes[0].Addr, Timeout: timeout})
	for i, node := range nodes {
		m := newMove(t, nodes, node.Client(t), nodes[(i+1)%3].Client(t))
		m.do(m.from, "cluster", "setslot", m.from.ClusterKeySlot(t.Context(), "{s0000}").Val(), "node", m.toID)
	}
	if _, err := s.Events(t.Context(), 0); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("%v, want %v", err, store.ErrUnavailable)
	}
}
