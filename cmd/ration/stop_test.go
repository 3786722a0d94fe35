package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/rationhq/ration/store/redis/redistest"
)

// TestSIGTERMLosesNoCall ends a server under load whose callers turn away when the health says so:
// every call is answered, and what was charged is what was answered.
func TestSIGTERMLosesNoCall(t *testing.T) {
	server := redistest.Start(t)
	p := serve(t, "--policy", policyFile(t, 1_000_000), "--store", server.URL(), "--drain-delay", "1s")
	addr := p.addrs(t).GRPC
	health := connect(t, addr, insecure.NewCredentials())
	var turnAway atomic.Bool
	var answered atomic.Int64
	var callers sync.WaitGroup
	for range 8 {
		client := limiter(t, addr)
		callers.Go(func() {
			for !turnAway.Load() {
				if _, err := client.ShouldRateLimit(t.Context(), request("d", "user", "a")); err != nil {
					t.Errorf("a call was lost: %v", err)
					return
				}
				answered.Add(1)
			}
		})
	}
	eventually(t, "the load is on", func() error {
		if n := answered.Load(); n < 200 {
			return fmt.Errorf("%d calls", n)
		}
		return nil
	})
	p.signal(t, syscall.SIGTERM)
	waitForHealth(t, health, healthv1.HealthCheckResponse_NOT_SERVING)
	atNews := answered.Load()
	eventually(t, "calls are answered while it drains", func() error {
		if answered.Load() == atNews {
			return errors.New("none yet")
		}
		return nil
	})
	turnAway.Store(true)
	callers.Wait()
	if code := p.exit(t); code != exitOK {
		t.Errorf("exit code %d, want 0", code)
	}
	if charged := counted(t, server); charged != answered.Load() {
		t.Errorf("%d calls were charged and %d answered, want the same", charged, answered.Load())
	}
}

// TestSIGTERMUnderCallersWhoDoNotCare: they are cut off between two calls, never in one.
func TestSIGTERMUnderCallersWhoDoNotCare(t *testing.T) {
	server := redistest.Start(t)
	p := serve(t, "--policy", policyFile(t, 1_000_000), "--store", server.URL())
	addr := p.addrs(t).GRPC
	var answered atomic.Int64
	var callers sync.WaitGroup
	for range 8 {
		client := limiter(t, addr)
		callers.Go(func() {
			for {
				_, err := client.ShouldRateLimit(t.Context(), request("d", "user", "a"))
				if err != nil {
					if status.Code(err) != codes.Unavailable {
						t.Errorf("the last call ended with %v, want UNAVAILABLE", err)
					}
					return
				}
				answered.Add(1)
			}
		})
	}
	eventually(t, "the load is on", func() error {
		if n := answered.Load(); n < 200 {
			return fmt.Errorf("%d calls", n)
		}
		return nil
	})
	p.stop(t)
	callers.Wait()
	if charged := counted(t, server); charged != answered.Load() {
		t.Errorf("%d calls were charged and %d answered, want the same", charged, answered.Load())
	}
}

// counted returns the value of the only counter in Redis.
func counted(t testing.TB, server *redistest.Server) int64 {
	t.Helper()
	client := server.Client(t)
	keys, err := client.Keys(t.Context(), "*").Result()
	if err != nil || len(keys) != 1 {
		t.Fatalf("Redis holds the keys %v (%v), want one", keys, err)
	}
	n, err := client.Get(t.Context(), keys[0]).Int64()
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestWatchersDoNotHoldUpTheEnd: somebody who watches the health would stay for ever.
func TestWatchersDoNotHoldUpTheEnd(t *testing.T) {
	p := serve(t, "--policy", policyFile(t, 1), "--stop-timeout", "1h")
	conn := connect(t, p.addrs(t).GRPC, insecure.NewCredentials())
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	watch, err := healthv1.NewHealthClient(conn).Watch(ctx, &healthv1.HealthCheckRequest{Service: "ratelimit"})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := watch.Recv(); err != nil || got.GetStatus() != healthv1.HealthCheckResponse_SERVING {
		t.Fatalf("the watcher sees %v (%v), want SERVING", got.GetStatus(), err)
	}
	p.signal(t, syscall.SIGTERM)
	for err == nil {
		_, err = watch.Recv()
	}
	if status.Code(err) != codes.Unavailable {
		t.Errorf("the watch ended with %v, want UNAVAILABLE", err)
	}
	if code := p.exit(t); code != exitOK {
		t.Errorf("exit code %d, want 0", code)
	}
}

// TestCallsThatDoNotEnd: a store that hangs must not keep the process; that calls were cut off shows
// in the exit code.
func TestCallsThatDoNotEnd(t *testing.T) {
	server := redistest.Start(t)
	p := serve(t, "--policy", policyFile(t, 10), "--store", server.URL(), "--redis-timeout", "1h", "--stop-timeout", "50ms")
	client := limiter(t, p.addrs(t).GRPC)
	ask(t, client, request("d", "user", "a"))
	if err := server.Pause(); err != nil {
		t.Fatal(err)
	}
	asked := make(chan error, 1)
	go func() {
		_, err := client.ShouldRateLimit(context.WithoutCancel(t.Context()), request("d", "user", "a"))
		asked <- err
	}()
	eventually(t, "the call is under way", func() error {
		_, page := get(t, "http://"+p.addrs(t).Debug+"/debug/pprof/goroutine?debug=1")
		if !strings.Contains(page, "store/redis.(*batcher)") {
			return errors.New("no call waits for Redis")
		}
		return nil
	})
	p.signal(t, syscall.SIGTERM)
	if code := p.exit(t); code != exitFailed {
		t.Errorf("exit code %d, want 1", code)
	}
	if !strings.HasSuffix(p.said(), "ration: calls were still under way after 50ms: ended") {
		t.Errorf("its last words are not about the calls:\n%s", p.said())
	}
	if err := <-asked; status.Code(err) != codes.Unavailable {
		t.Errorf("the call ended with %v, want UNAVAILABLE", err)
	}
}

// TestSecondSignal: whoever presses Ctrl-C twice does not want to wait.
func TestSecondSignal(t *testing.T) {
	p := serve(t, "--policy", policyFile(t, 1), "--drain-delay", "1h")
	p.addrs(t)
	p.signal(t, syscall.SIGINT)
	p.waitForLog(t, "draining", 1)
	for deadline := time.Now().Add(time.Minute); !p.hasExited() && time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		// The first of these may still be taken for the one before, and the last may come too late.
		_ = p.cmd.Process.Signal(syscall.SIGINT)
	}
	if code := p.exit(t); code != exitFailed {
		t.Errorf("exit code %d, want 1", code)
	}
	if !strings.HasSuffix(p.said(), "ration: ended at once by a second signal: calls under way were cut off") {
		t.Errorf("its last words are not about the second signal:\n%s", p.said())
	}
}

// TestSignalledTwiceAtOnce: who signals a process and its group means it once.
func TestSignalledTwiceAtOnce(t *testing.T) {
	p := serve(t, "--policy", policyFile(t, 1), "--drain-delay", "1s")
	p.addrs(t)
	p.signal(t, syscall.SIGTERM)
	p.signal(t, syscall.SIGTERM)
	if code := p.exit(t); code != 0 {
		t.Errorf("exit code %d, want 0:\n%s", code, p.said())
	}
}

// TestNothingOutlivesServe runs a server in this process: when it has ended, so has everything that
// it began.
func TestNothingOutlivesServe(t *testing.T) {
	ignore := goleak.IgnoreCurrent()
	server := redistest.Start(t)
	const free = "127.0.0.1:0"
	p := read(t, nil, "serve", "--policy", policyFile(t, 1), "--store", server.URL(), "--grpc-addr", free, "--http-addr", free,
		"--metrics-addr", free, "--debug-addr", free, "--admin-addr", "", "--drain-delay", "0s", "--log-level", "info")
	if p.err != nil {
		t.Fatal(p.err)
	}
	log, said := io.Pipe()
	signals := make(chan os.Signal)
	ended := make(chan error, 1)
	go func() {
		ended <- p.grammar.Serve.serve(streams{io.Discard, said}, p.env, p.model, signals)
		_ = said.Close()
	}()
	go func() { _, _ = io.Copy(io.Discard, log) }()
	signals <- syscall.SIGHUP
	signals <- syscall.SIGTERM
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("it ended with %v, want nil", err)
		}
	case <-time.After(patience):
		t.Fatal("it does not end")
	}
	server.Stop()
	goleak.VerifyNone(t, ignore)
}
