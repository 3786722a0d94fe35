package redis_test

import (
	"context"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"

	goredis "github.com/redis/go-redis/v9"

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
			for moved := 0; m.key(slot); moved++ {
				if moved < 20 { // of leases there are hundreds
					c.awaitAnswers(2)
				}
			}
			m.finish(slot)
		}
	}
	c.awaitAnswers(200)
	for _, kind := range []string{"MOVED", "ASK", "TRYAGAIN"} {
		said := 0
		for _, node := range nodes {
			_, rest, _ := strings.Cut(node.Client(t).Info(context.Background(), "errorstats").Val(), "errorstat_"+kind+":count=")
			count, _, _ := strings.Cut(rest, "\r\n")
			n, _ := strconv.Atoi(count)
			said += n
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
			m.key(slot)
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
	slots := make(map[int64]int)
	for _, key := range m.from.Keys(context.Background(), pattern).Val() {
		slots[m.from.ClusterKeySlot(context.Background(), key).Val()]++
	}
	return slots
}

func (m *move) announce(slot int64) {
	m.t.Helper()
	m.do(m.to, "cluster", "setslot", slot, "importing", m.fromID)
	m.do(m.from, "cluster", "setslot", slot, "migrating", m.toID)
}

// key moves a key of the slot. It returns false if there is none.
func (m *move) key(slot int64) bool {
	m.t.Helper()
	keys, err := m.from.ClusterGetKeysInSlot(context.Background(), int(slot), 1).Result()
	if err != nil {
		m.t.Fatal(err)
	}
	if len(keys) == 0 {
		return false
	}
	host, port, _ := net.SplitHostPort(m.to.Options().Addr)
	m.do(m.from, "migrate", host, port, keys[0], 0, 5000)
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
