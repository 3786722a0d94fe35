package redis_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/rationhq/ration/store/redis/redistest"
)

// acknowledged returns how many answers callers had got when all that was written until then was on
// a replica of each of the masters. What comes later is what a failover may lose.
func (c *crowd) acknowledged(masters ...*redistest.Server) int64 {
	c.t.Helper()
	n := c.answered.Load()
	for _, master := range masters {
		// WAIT is about what was written until its connection's last command.
		conn := master.Client(c.t).Conn()
		defer conn.Close()
		if err := conn.Ping(context.Background()).Err(); err != nil {
			c.t.Fatal(err)
		}
		if got, err := conn.Wait(context.Background(), 1, 10*time.Second).Result(); got != 1 {
			c.t.Fatalf("no replica follows %s: %v", master.Addr, err)
		}
	}
	return n
}

// A master behind Sentinel dies. Its replica takes over; nothing is lost but what was acknowledged
// and had not reached it.
func TestSentinelFailover(t *testing.T) {
	t.Parallel()
	g := redistest.StartSentinels(t)
	c := gather(t, makers, timeout, twoStores(t, g.URL(), timeout)...)
	c.awaitAnswers(200)
	safe := c.acknowledged(g.Master)
	c.awaitAnswers(200)
	g.Master.Stop()
	atRisk, began := c.answered.Load()-safe, time.Now()
	c.awaitUnknown()
	c.awaitAnswers(500)
	t.Logf("answered again %v after the master's death", time.Since(began).Round(time.Millisecond))
	c.verify(witness(t, g.Replica.URL()), atRisk)
}

// A master behind Sentinel stalls, is replaced, and goes on as if nothing had happened: nobody
// listens to it any more.
func TestSentinelFailoverOfAPausedMaster(t *testing.T) {
	t.Parallel()
	g := redistest.StartSentinels(t)
	c := gather(t, makers, timeout, twoStores(t, g.URL(), timeout)...)
	c.awaitAnswers(200)
	safe := c.acknowledged(g.Master)
	pause(t, &site{server: g.Master})
	atRisk, began := c.answered.Load()-safe, time.Now()
	c.awaitUnknown()
	c.awaitAnswers(500)
	t.Logf("answered again %v after the master had stalled", time.Since(began).Round(time.Millisecond))
	resume(t, &site{server: g.Master})
	c.awaitAnswers(500)
	c.verify(witness(t, g.Replica.URL()), atRisk)
}

// A master of a Cluster dies, and its replica takes over.
func TestClusterFailover(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartReplicatedCluster(t)
	url := "redis-cluster://" + cluster.Masters[1].Addr + "," + cluster.Masters[2].Addr
	c := gather(t, makers, timeout, twoStores(t, url, timeout)...)
	c.awaitAnswers(200)
	safe := c.acknowledged(cluster.Masters...)
	c.awaitAnswers(200)
	cluster.Masters[0].Stop()
	atRisk, began := c.answered.Load()-safe, time.Now()
	c.awaitUnknown()
	look := cluster.Replicas[0].Client(t)
	replication := func() string { return look.Info(context.Background(), "replication").Val() }
	for deadline := time.Now().Add(30 * time.Second); !strings.Contains(replication(), "role:master"); {
		if time.Now().After(deadline) {
			t.Fatal("the replica does not take over")
		}
		time.Sleep(5 * time.Millisecond)
	}
	promoted := time.Now()
	t.Logf("the replica took over after %v", promoted.Sub(began).Round(time.Millisecond))
	// All callers are answered, those too whose buckets are on the node that was replaced.
	c.awaitHealth()
	t.Logf("no call was left without an answer %v after that", time.Since(promoted).Round(time.Millisecond))
	c.verify(witness(t, "redis-cluster://"+cluster.Masters[1].Addr), atRisk)
}
