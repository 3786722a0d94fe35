// Package redistest runs real Redis servers for tests: private ones on free loopback ports, that
// keep nothing on disk and end with the test.
//
// It needs redis-server and redis-cli on the PATH (`make test` installs them) and knows nothing of
// the project.
package redistest

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// Server is one running redis-server.
type Server struct {
	Addr string // host:port
	PID  int

	command *exec.Cmd
	exited  chan struct{}
}

// URL is the server as ration's --store takes it.
func (s *Server) URL() string { return "redis://" + s.Addr }

// Client returns a client of its own for looking at the server; it is closed with the test.
func (s *Server) Client(t testing.TB) *redis.Client {
	c := redis.NewClient(&redis.Options{Addr: s.Addr})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// Start runs a server until the test ends. More configuration may be given as on the command line.
func Start(t testing.TB, more ...string) *Server {
	t.Helper()
	return start(t, FreePort(t), more...)
}

// StartAt is Start on a port of the caller's choice: a server that comes back where one was.
func StartAt(t testing.TB, addr string, more ...string) *Server {
	t.Helper()
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatalf("the address %q: %v", addr, err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatalf("the address %q: %v", addr, err)
	}
	return start(t, n, more...)
}

// FreePort returns a loopback port that nobody listens on just now. It is below those that the
// system gives to outgoing connections, so that none of them takes it before it is used.
func FreePort(t testing.TB) int {
	t.Helper()
	const lowest, count = 12_000, 18_000
	for range 100 {
		port := lowest + rand.IntN(count) //nolint:gosec // any port will do
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			_ = l.Close()
			return port
		}
	}
	t.Fatalf("no free port between %d and %d", lowest, lowest+count)
	return 0
}

func start(t testing.TB, port int, more ...string) *Server {
	t.Helper()
	args := append([]string{
		"--port", strconv.Itoa(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", t.TempDir(),
	}, more...)
	s := &Server{Addr: net.JoinHostPort("127.0.0.1", strconv.Itoa(port))}
	s.run(t, args)
	s.waitFor(t, func(c *redis.Client) bool {
		err := c.Ping(context.Background()).Err()
		return err == nil || redis.HasErrorPrefix(err, "NOAUTH")
	})
	return s
}

func (s *Server) run(t testing.TB, args []string) {
	t.Helper()
	var output bytes.Buffer
	s.command = exec.Command("redis-server", args...)
	s.command.Stdout, s.command.Stderr = &output, &output
	if err := s.command.Start(); err != nil {
		t.Fatalf("start redis-server: %v (`make test` installs it)", err)
	}
	s.PID = s.command.Process.Pid
	s.exited = make(chan struct{})
	go func() {
		_ = s.command.Wait()
		close(s.exited)
	}()
	t.Cleanup(func() {
		s.Stop()
		if t.Failed() {
			t.Logf("redis-server %s said:\n%s", s.Addr, output.String())
		}
	})
}

// Stop ends the server at once and waits until it is gone.
func (s *Server) Stop() {
	_ = s.command.Process.Signal(syscall.SIGCONT)
	_ = s.command.Process.Kill()
	<-s.exited
}

// Pause stops the server's process where it is; Resume lets it go on.
func (s *Server) Pause() error { return s.command.Process.Signal(syscall.SIGSTOP) }

// Resume lets a paused server go on.
func (s *Server) Resume() error { return s.command.Process.Signal(syscall.SIGCONT) }

func (s *Server) waitFor(t testing.TB, ready func(*redis.Client) bool) {
	t.Helper()
	c := redis.NewClient(&redis.Options{Addr: s.Addr})
	defer c.Close()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if ready(c) {
			return
		}
		select {
		case <-s.exited:
			t.Fatalf("redis-server %s ended instead of serving", s.Addr)
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("redis-server %s did not get ready", s.Addr)
		}
	}
}

// StartCluster runs a Redis Cluster of three masters.
func StartCluster(t testing.TB) []*Server {
	t.Helper()
	var nodes []*Server
	create := []string{"--cluster", "create"}
	for range 3 {
		node := start(t, FreePort(t), "--cluster-enabled", "yes", "--cluster-node-timeout", "2000",
			"--cluster-port", strconv.Itoa(FreePort(t)))
		nodes = append(nodes, node)
		create = append(create, node.Addr)
	}
	if out, err := exec.Command("redis-cli", append(create, "--cluster-yes")...).CombinedOutput(); err != nil {
		t.Fatalf("create the cluster: %v\n%s", err, out)
	}
	for _, node := range nodes {
		node.waitFor(t, func(c *redis.Client) bool {
			info, err := c.ClusterInfo(context.Background()).Result()
			return err == nil && bytes.Contains([]byte(info), []byte("cluster_state:ok")) &&
				bytes.Contains([]byte(info), []byte("cluster_known_nodes:3"))
		})
	}
	return nodes
}

// Sentinels is a master with a replica, watched by three sentinels.
type Sentinels struct {
	Master, Replica *Server
	Watchers        []*Server
	Name            string // of the master
}

// StartSentinels runs a master, a replica and three sentinels.
func StartSentinels(t testing.TB) *Sentinels {
	t.Helper()
	g := &Sentinels{Master: Start(t), Name: "counters"}
	host, port, _ := net.SplitHostPort(g.Master.Addr)
	g.Replica = Start(t, "--replicaof", host+" "+port)
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
		s.run(t, []string{config, "--sentinel"})
		g.Watchers = append(g.Watchers, s)
	}
	for _, s := range g.Watchers {
		s.waitFor(t, func(c *redis.Client) bool {
			state, err := c.Do(context.Background(), "SENTINEL", "CKQUORUM", g.Name).Text()
			return err == nil && len(state) > 2 && state[:2] == "OK"
		})
	}
	return g
}
