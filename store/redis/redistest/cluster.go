package redistest

import (
	"context"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// StartCluster runs a Redis Cluster of three masters.
func StartCluster(t testing.TB) []*Server {
	t.Helper()
	return startCluster(t, 0, nil)
}

// StartProxiedCluster runs a Redis Cluster of three masters that announce a [Proxy] each as their
// address: whatever clients ask them, they ask through these.
func StartProxiedCluster(t testing.TB) ([]*Server, []*Proxy) {
	t.Helper()
	var proxies []*Proxy
	nodes := startCluster(t, 0, func(node int) (environment, config []string) {
		proxies = append(proxies, StartProxy(t, ""))
		_, port, _ := net.SplitHostPort(proxies[node].Addr)
		return nil, []string{"--cluster-announce-ip", "127.0.0.1", "--cluster-announce-port", port}
	})
	for i, node := range nodes {
		proxies[i].To(node.Addr)
	}
	return nodes, proxies
}

// Cluster is a Redis Cluster whose masters have a replica each.
type Cluster struct {
	Masters  []*Server
	Replicas []*Server // Replicas[i] is that of Masters[i]
}

// StartReplicatedCluster runs a Redis Cluster of three masters, with a replica each that has caught
// up and takes over within a few seconds.
func StartReplicatedCluster(t testing.TB) *Cluster {
	t.Helper()
	nodes := make(map[string]*Server)
	for _, node := range startCluster(t, 1, nil) {
		nodes[node.Addr] = node
	}
	c := &Cluster{}
	for _, node := range nodes {
		if master := masterOf(t, node); master != "" {
			c.Masters = append(c.Masters, nodes[master])
			c.Replicas = append(c.Replicas, node)
		}
	}
	if len(c.Masters) != 3 {
		t.Fatalf("the cluster has %d masters with a replica, want 3", len(c.Masters))
	}
	for _, master := range c.Masters {
		master.waitForReplica(t)
	}
	return c
}

func startCluster(t testing.TB, replicas int, more func(node int) (environment, config []string)) []*Server {
	t.Helper()
	var nodes []*Server
	create := []string{"--cluster", "create"}
	for i := range 3 * (1 + replicas) {
		config := []string{"--cluster-enabled", "yes", "--cluster-node-timeout", "2000",
			"--cluster-port", strconv.Itoa(FreePort(t))}
		var environment []string
		if more != nil {
			var own []string
			environment, own = more(i)
			config = append(config, own...)
		}
		node := start(t, FreePort(t), environment, config...)
		nodes = append(nodes, node)
		create = append(create, node.Addr)
	}
	create = append(create, "--cluster-replicas", strconv.Itoa(replicas), "--cluster-yes")
	if out, err := exec.Command("redis-cli", create...).CombinedOutput(); err != nil {
		t.Fatalf("create the cluster: %v\n%s", err, out)
	}
	for _, node := range nodes {
		node.waitFor(t, func(c *redis.Client) bool {
			info, err := c.ClusterInfo(context.Background()).Result()
			return err == nil && strings.Contains(info, "cluster_state:ok") &&
				strings.Contains(info, "cluster_known_nodes:"+strconv.Itoa(len(nodes))+"\r\n")
		})
	}
	return nodes
}

// masterOf returns the address of the master of node, or "" if it is one itself.
func masterOf(t testing.TB, node *Server) string {
	t.Helper()
	c := redis.NewClient(&redis.Options{Addr: node.Addr})
	defer c.Close()
	info, err := c.Info(context.Background(), "replication").Result()
	if err != nil {
		t.Fatal(err)
	}
	host, port := "", ""
	for _, line := range strings.Split(info, "\r\n") {
		switch name, value, _ := strings.Cut(line, ":"); name {
		case "master_host":
			host = value
		case "master_port":
			port = value
		}
	}
	if host == "" {
		return ""
	}
	return host + ":" + port
}

// waitForReplica waits until a replica of s follows it. INFO calls one online as soon as it was sent the
// data, up to a second before it is sent what is written from then on; WAIT knows.
func (s *Server) waitForReplica(t testing.TB) {
	t.Helper()
	s.waitFor(t, func(c *redis.Client) bool {
		conn := c.Conn()
		defer conn.Close()
		if conn.Ping(context.Background()).Err() != nil {
			return false
		}
		n, err := conn.Wait(context.Background(), 1, time.Second).Result()
		return err == nil && n == 1
	})
}
