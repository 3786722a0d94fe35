package main

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

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
	p.waitForLog(t, "the store answers again", 1)
	p.stop(t)
	if n := len(p.logged("the store does not answer")); n != 1 {
		t.Errorf("the log says %d times that the store does not answer, want once", n)
	}
}

// TestRedisLost loses Redis under a server, and gives it back.
func TestRedisLost(t *testing.T) {
	server := redistest.Start(t)
	p := serve(t, "--policy", policyFile(t, 5), "--store", server.URL())
	conn := connect(t, p.addrs(t).GRPC, insecure.NewCredentials())
	waitForHealth(t, conn, healthv1.HealthCheckResponse_SERVING)
	server.Stop()
	waitForHealth(t, conn, healthv1.HealthCheckResponse_NOT_SERVING)
	p.waitForLog(t, "the store does not answer", 1)
	redistest.StartAt(t, server.Addr)
	waitForHealth(t, conn, healthv1.HealthCheckResponse_SERVING)
	p.waitForLog(t, "the store answers again", 1)
	if got := limitNow(t, ratelimitv3.NewRateLimitServiceClient(conn), request("d", "user", "a")); got != 5 {
		t.Errorf("the limit is %d, want 5", got)
	}
	p.stop(t)
	for _, text := range []string{"the store does not answer", "the store answers again"} {
		if n := len(p.logged(text)); n != 1 {
			t.Errorf("the log says %d times %q, want once", n, text)
		}
	}
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
			} else if lost := p.waitForLog(t, "the store does not answer", 1)[0]; !strings.Contains(lost.Error, c.fails) {
				t.Errorf("the log says %q, want it to hold %q", lost.Error, c.fails)
			}
			p.stop(t)
		})
	}
}
