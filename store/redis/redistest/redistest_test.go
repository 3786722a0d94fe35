package redistest_test

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/rationhq/ration/store/redis/redistest"
)

// A server's clock steps while it runs, for TIME and for what expires.
func TestClock(t *testing.T) {
	server, clock := redistest.StartWithClock(t)
	look, ctx := server.Client(t), context.Background()
	for _, by := range []time.Duration{0, time.Hour, -time.Hour, 0} {
		clock.Shift(t, by)
		now, err := look.Time(ctx).Result()
		if err != nil || (time.Since(now)+by).Abs() > 10*time.Second {
			t.Errorf("shifted by %v: it is off by %v (%v)", by, -time.Since(now), err)
		}
	}
	look.Set(ctx, "key", "value", time.Minute)
	clock.Shift(t, 2*time.Minute)
	if n := look.Exists(ctx, "key").Val(); n != 0 {
		t.Error("two minutes later a key of one minute is still there")
	}
}

// A server comes back with what it had saved, and without what it had not.
func TestRestart(t *testing.T) {
	dir := t.TempDir()
	server := redistest.Start(t, "--dir", dir)
	ctx := context.Background()
	server.Client(t).Set(ctx, "key", "value", 0)
	server.Save(t)
	server = redistest.StartAt(t, server.Addr, "--dir", dir)
	if got := server.Client(t).Get(ctx, "key").Val(); got != "value" {
		t.Errorf("saved, it came back with %q", got)
	}
	server.Stop()
	server = redistest.StartAt(t, server.Addr)
	if got := server.Client(t).Get(ctx, "key").Val(); got != "" {
		t.Errorf("elsewhere, it came back with %q", got)
	}
}

// Each master of a replicated cluster has a replica of its own, which has what it has.
func TestReplicatedCluster(t *testing.T) {
	cluster := redistest.StartReplicatedCluster(t)
	ctx := context.Background()
	for i, replica := range cluster.Replicas {
		_, port, _ := net.SplitHostPort(cluster.Masters[i].Addr)
		info := replica.Client(t).Info(ctx, "replication").Val()
		if !strings.Contains(info, "master_port:"+port+"\r\n") || !strings.Contains(info, "master_link_status:up") {
			t.Errorf("%s is no replica of %s:\n%s", replica.Addr, cluster.Masters[i].Addr, info)
		}
	}
}

// Whoever asks one node of a proxied cluster where the others are is told of their proxies.
func TestProxiedCluster(t *testing.T) {
	nodes, proxies := redistest.StartProxiedCluster(t)
	ctx := context.Background()
	c := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{nodes[0].Addr}})
	defer c.Close()
	if err := c.ForEachMaster(ctx, func(ctx context.Context, node *redis.Client) error {
		return node.Echo(ctx, "hello").Err()
	}); err != nil {
		t.Fatal(err)
	}
	for i, p := range proxies {
		if n := p.Seen("ECHO"); n != 1 {
			t.Errorf("the proxy of node %d has seen %d commands, want 1", i, n)
		}
	}
}
