package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/rationhq/ration/cmd/ration/certs/certstest"
	"github.com/rationhq/ration/store/redis/redistest"
)

// TestRedisDownAtStart starts a server before its Redis: it serves, says that it cannot decide, and
// can as soon as Redis is there.
func TestRedisDownAtStart(t *testing.T) {
	addr := fmt.Sprintf("127.0.0.1:%d", redistest.FreePort(t))
	p := serve(t, "--policy", policyFile(t, 5), "--store", "redis://"+addr)
	at := p.addrs(t)
	conn := connect(t, at.GRPC, insecure.NewCredentials())
	if got := healthOf(t, conn); got != healthv1.HealthCheckResponse_NOT_SERVING {
		t.Errorf("the health without Redis is %v, want NOT_SERVING", got)
	}
	if code, _ := get(t, "http://"+at.HTTP+"/healthcheck"); code != 500 {
		t.Errorf("/healthcheck without Redis answers %d, want 500", code)
	}
	client := ratelimitv3.NewRateLimitServiceClient(conn)
	if _, err := client.ShouldRateLimit(t.Context(), request("d", "user", "a")); status.Code(err) != codes.Unavailable {
		t.Errorf("a limited request without Redis gets %v, want UNAVAILABLE", err)
	}
	ask(t, client, request("d", "not limited", "a"))

	redistest.StartAt(t, addr)
	waitForHealth(t, conn, healthv1.HealthCheckResponse_SERVING)
	if code, body := get(t, "http://"+at.HTTP+"/healthcheck"); code != 200 || body != "OK" {
		t.Errorf("/healthcheck answers %d %q, want 200 OK", code, body)
	}
	if got := limitNow(t, client, request("d", "user", "a")); got != 5 {
		t.Errorf("the limit is %d, want 5", got)
	}
	p.waitForLog(t, "deciding with the store again", 1)
	p.stop(t)
	p.toldOfOneOutage(t)
}

// toldOfOneOutage checks that the log says once that the store is away and why, and once that it is back,
// and warns of nothing else but Redis's settings.
func (p *process) toldOfOneOutage(t testing.TB) {
	t.Helper()
	var told []string
	for _, l := range p.log() {
		if l.Level == "WARN" && l.Msg != "the store" {
			told = append(told, l.Msg+" "+l.Error)
		}
	}
	if len(told) != 2 || !strings.HasPrefix(told[0], "deciding without the store") || !strings.Contains(told[0], "connect") ||
		!strings.HasPrefix(told[1], "deciding with the store again") {
		t.Errorf("the log warns %q, want of one outage and its end", told)
	}
}

// TestRedisLost loses Redis under a server, and gives it back. A server whose limits say what happens then
// stays in service; only the health of its store shows it.
func TestRedisLost(t *testing.T) {
	const serving, notServing = healthv1.HealthCheckResponse_SERVING, healthv1.HealthCheckResponse_NOT_SERVING
	native := func(onStoreError string) string {
		return "domain: d\ndescriptors:\n- { key: user, limits: [ { name: l, algorithm: fixed_window, limit: 5/day, " +
			"on_store_error: " + onStoreError + " } ] }\n"
	}
	for name, c := range map[string]struct {
		policy  string
		without healthv1.HealthCheckResponse_ServingStatus
		code    int
	}{
		"rate_limit": {"domain: d\ndescriptors:\n- { key: user, rate_limit: { unit: year, requests_per_unit: 5 } }\n", notServing, 500},
		"error":      {native("error"), notServing, 500},
		"deny":       {native("deny"), serving, 200},
		"allow":      {native("allow"), serving, 200},
		"local":      {native("local, local_share: 40%"), serving, 200},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			file := filepath.Join(t.TempDir(), "policy.yaml")
			if err := os.WriteFile(file, []byte(c.policy), 0o600); err != nil {
				t.Fatal(err)
			}
			p := serve(t, "--policy", file, "--store", server.URL(), "--redis-timeout", "250ms")
			at := p.addrs(t)
			conn := connect(t, at.GRPC, insecure.NewCredentials())
			client := ratelimitv3.NewRateLimitServiceClient(conn)
			store := func(want healthv1.HealthCheckResponse_ServingStatus) {
				t.Helper()
				eventually(t, "the store is "+want.String(), func() error {
					if got := healthOfService(t, conn, "ration.store"); got != want {
						return errors.New(got.String())
					}
					return nil
				})
			}
			store(serving)
			server.Stop()
			store(notServing)
			for range 20 { // decisions find it gone, too
				_, _ = client.ShouldRateLimit(t.Context(), request("d", "user", "a"))
				time.Sleep(10 * time.Millisecond)
			}
			if got := healthOf(t, conn); got != c.without {
				t.Errorf("without Redis the health is %v, want %v", got, c.without)
			}
			if got := healthOfService(t, conn, ""); got != serving {
				t.Errorf("without Redis the process is %v, want alive", got)
			}
			if code, _ := get(t, "http://"+at.HTTP+"/healthcheck"); code != c.code {
				t.Errorf("without Redis /healthcheck answers %d, want %d", code, c.code)
			}
			if _, body := get(t, "http://"+at.Metrics+"/metrics"); !strings.Contains(body, "\nration_store_ready 0\n") {
				t.Error("the metrics do not say that the store is not ready")
			}
			redistest.StartAt(t, server.Addr)
			store(serving)
			p.waitForLog(t, "deciding with the store again", 1) // nobody asks meanwhile
			if _, body := get(t, "http://"+at.Metrics+"/metrics"); !strings.Contains(body, "\nration_store_ready 1\n") {
				t.Error("the metrics do not say that the store is ready")
			}
			if got := limitNow(t, client, request("d", "user", "a")); got != 5 {
				t.Errorf("the limit is %d, want 5", got)
			}
			p.stop(t)
			p.toldOfOneOutage(t)
		})
	}
}

// TestStoreNeverReached starts a server that has the wrong address of its store: whatever its limits say, it
// is not put in service, so that a rolling update stops and leaves those that work.
func TestStoreNeverReached(t *testing.T) {
	file := filepath.Join(t.TempDir(), "policy.yaml")
	const policy = "domain: d\ndescriptors:\n- { key: user, limits: [ { name: l, algorithm: fixed_window, limit: 5/day } ] }\n"
	if err := os.WriteFile(file, []byte(policy), 0o600); err != nil {
		t.Fatal(err)
	}
	p := serve(t, "--policy", file, "--store", fmt.Sprintf("redis://127.0.0.1:%d", redistest.FreePort(t)))
	conn := connect(t, p.addrs(t).GRPC, insecure.NewCredentials())
	p.waitForLog(t, "deciding without the store", 1)
	if got := healthOf(t, conn); got != healthv1.HealthCheckResponse_NOT_SERVING {
		t.Errorf("the health is %v, want NOT_SERVING", got)
	}
	p.stop(t)
}

// TestTwoReplicasOneLimit: 64 callers at two processes on one Redis get exactly what the limit allows.
func TestTwoReplicasOneLimit(t *testing.T) {
	server := redistest.Start(t)
	policy := policyFile(t, 100)
	// The names of the established environment, as a deployment of today has them.
	replica := func() *process {
		return serveWith(t, map[string]string{"REDIS_URL": server.Addr, "REDIS_SOCKET_TYPE": "tcp", "REDIS_TYPE": "SINGLE"}, "--policy", policy)
	}
	replicas := []*process{replica(), replica()}
	var admitted, refused atomic.Int64
	var callers sync.WaitGroup
	ready := make(chan struct{})
	for i := range 64 {
		client := limiter(t, replicas[i%2].addrs(t).GRPC)
		callers.Go(func() {
			<-ready
			for range 5 {
				response, err := client.ShouldRateLimit(context.WithoutCancel(t.Context()), request("d", "user", "a"))
				switch {
				case err != nil:
					t.Errorf("a call failed: %v", err)
				case response.GetOverallCode() == ratelimitv3.RateLimitResponse_OK:
					admitted.Add(1)
				default:
					refused.Add(1)
				}
			}
		})
	}
	close(ready)
	callers.Wait()
	if admitted.Load() != 100 || refused.Load() != 220 {
		t.Errorf("%d of 320 calls were admitted and %d refused, want 100 and 220", admitted.Load(), refused.Load())
	}
	for _, p := range replicas {
		p.stop(t)
	}
}

// TestRedisOverTLS connects to a Redis that wants certificates of its clients, by each way to say so.
func TestRedisOverTLS(t *testing.T) {
	authority := certstest.NewAuthority(t)
	other := certstest.NewAuthority(t)
	own, client := authority.Issue(t, "localhost"), authority.Issue(t, "ration")
	port := redistest.FreePort(t)
	redistest.Start(t, "--tls-port", strconv.Itoa(port), "--tls-cert-file", own.Cert, "--tls-key-file", own.Key,
		"--tls-ca-cert-file", authority.File, "--tls-auth-clients", "yes", "--bind", "127.0.0.1", "127.0.0.2")
	addr, unnamed := net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), net.JoinHostPort("127.0.0.2", strconv.Itoa(port))
	shows := []string{"--redis-tls-cert", client.Cert, "--redis-tls-key", client.Key}
	for _, c := range []struct {
		name  string
		env   map[string]string
		args  []string
		fails string
	}{
		{name: "rediss", args: append(shows, "--store", "rediss://"+addr, "--redis-tls-ca", authority.File)},
		{name: "flag", args: append(shows, "--store", "redis://"+addr, "--redis-tls", "--redis-tls-ca", authority.File)},
		{name: "established", env: map[string]string{
			"REDIS_URL": addr, "REDIS_TYPE": "SINGLE", "REDIS_SOCKET_TYPE": "tcp", "REDIS_TLS": "true",
			"REDIS_TLS_CACERT": authority.File, "REDIS_TLS_CLIENT_CERT": client.Cert, "REDIS_TLS_CLIENT_KEY": client.Key,
		}},
		{
			name: "another authority", args: append(shows, "--store", "rediss://"+addr, "--redis-tls-ca", other.File),
			fails: "certificate signed by unknown authority",
		},
		{
			name: "another name", args: append(shows, "--store", "rediss://"+unnamed, "--redis-tls-ca", authority.File),
			fails: "certificate is valid for 127.0.0.1, not 127.0.0.2",
		},
		{
			name: "another name, skipped",
			args: append(shows, "--store", "rediss://"+unnamed, "--redis-tls-ca", authority.File, "--redis-tls-skip-hostname-verification"),
		},
		{
			name:  "another authority, the name skipped",
			args:  append(shows, "--store", "rediss://"+unnamed, "--redis-tls-ca", other.File, "--redis-tls-skip-hostname-verification"),
			fails: "certificate signed by unknown authority",
		},
		{
			name: "no certificate shown", args: []string{"--store", "rediss://" + addr, "--redis-tls-ca", authority.File},
			fails: "certificate required",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := serveWith(t, c.env, append([]string{"--policy", policyFile(t, 5)}, c.args...)...)
			client := limiter(t, p.addrs(t).GRPC)
			if c.fails == "" {
				if got := limitNow(t, client, request("d", "user", "a")); got != 5 {
					t.Errorf("the limit is %d, want 5", got)
				}
			} else if lost := p.waitForLog(t, "deciding without the store", 1)[0]; !strings.Contains(lost.Error, c.fails) {
				t.Errorf("the log says %q, want it to hold %q", lost.Error, c.fails)
			}
			p.stop(t)
		})
	}
}
