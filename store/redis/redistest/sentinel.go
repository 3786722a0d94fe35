package redistest

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
)

// Sentinels is a master with a replica, watched by three sentinels.
type Sentinels struct {
	Master, Replica *Server
	Watchers        []*Server
	Name            string // of the master
}

// StartSentinels runs a master, a replica that has caught up, and three sentinels that know of both and
// fail over within a few seconds.
func StartSentinels(t testing.TB) *Sentinels {
	t.Helper()
	g := &Sentinels{Master: Start(t), Name: "counters"}
	host, port, _ := net.SplitHostPort(g.Master.Addr)
	g.Replica = Start(t, "--replicaof", host+" "+port)
	g.Master.waitForReplica(t) // before the sentinels ask who is there: they ask every 10 s only
	for range 3 {
		n := FreePort(t)
		config := filepath.Join(t.TempDir(), "sentinel.conf")
		text := fmt.Sprintf("port %d\nbind 127.0.0.1\ndir %s\nsentinel monitor %s %s %s 2\n"+
			"sentinel down-after-milliseconds %s 1000\nsentinel failover-timeout %s 5000\n",
			n, filepath.Dir(config), g.Name, host, port, g.Name, g.Name)
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		s := &Server{Addr: net.JoinHostPort("127.0.0.1", strconv.Itoa(n))}
		s.run(t, nil, []string{config, "--sentinel"})
		g.Watchers = append(g.Watchers, s)
	}
	for _, s := range g.Watchers {
		s.waitFor(t, func(c *redis.Client) bool {
			state, err := c.Do(context.Background(), "SENTINEL", "CKQUORUM", g.Name).Text()
			if err != nil || !strings.HasPrefix(state, "OK") {
				return false
			}
			replicas, err := c.Do(context.Background(), "SENTINEL", "REPLICAS", g.Name).Slice()
			return err == nil && len(replicas) == 1
		})
	}
	return g
}

// URL is the group as ration's --store takes it.
func (g *Sentinels) URL() string {
	hosts := make([]string, len(g.Watchers))
	for i, s := range g.Watchers {
		hosts[i] = s.Addr
	}
	return "redis-sentinel://" + strings.Join(hosts, ",") + "/" + g.Name
}
