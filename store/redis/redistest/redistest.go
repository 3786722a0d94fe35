// Package redistest runs real Redis servers for tests, alone, behind Sentinel or as a Cluster: private
// ones on free loopback ports, that keep nothing on disk and end with the test. Servers can be
// stopped, paused and started again; a [Proxy] makes the faults of networks; a [Clock] makes those of
// clocks.
//
// It needs redis-server and redis-cli on the PATH (`make test` installs them) and knows nothing of
// the project. Read [Start] first, then [Fault].
package redistest

import (
	"bytes"
	"context"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
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
	return start(t, FreePort(t), nil, more...)
}

// StartAt is Start on a port of the caller's choice: a server that comes back where one was. Given the
// --dir of that one, it comes back with what was saved there; it may be loading that still.
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
	return start(t, n, nil, more...)
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

func start(t testing.TB, port int, environment []string, more ...string) *Server {
	t.Helper()
	args := append([]string{
		"--port", strconv.Itoa(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", t.TempDir(),
		"--repl-diskless-sync-delay", "0", // a replica begins at once, not after 5 s in which more might come
	}, more...)
	s := &Server{Addr: net.JoinHostPort("127.0.0.1", strconv.Itoa(port))}
	s.run(t, environment, args)
	s.waitFor(t, func(c *redis.Client) bool {
		err := c.Ping(context.Background()).Err()
		return err == nil || redis.HasErrorPrefix(err, "NOAUTH") || redis.IsLoadingError(err)
	})
	return s
}

func (s *Server) run(t testing.TB, environment, args []string) {
	t.Helper()
	var output bytes.Buffer
	s.command = exec.Command("redis-server", args...)
	s.command.Stdout, s.command.Stderr = &output, &output
	s.command.Env = append(os.Environ(), environment...)
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

// Save ends the server in good order: it saves its data to its --dir before.
func (s *Server) Save(t testing.TB) {
	t.Helper()
	c := redis.NewClient(&redis.Options{Addr: s.Addr, ReadTimeout: time.Minute, MaxRetries: -1})
	defer c.Close()
	if err := c.ShutdownSave(context.Background()).Err(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-s.exited:
	case <-time.After(time.Minute):
		t.Fatalf("redis-server %s does not end", s.Addr)
	}
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
