package main

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"

	"github.com/rationhq/ration/server"
	"github.com/rationhq/ration/server/rls"
	"github.com/rationhq/ration/store/redis/redistest"
)

// TestServerConfig: every flag about the server reaches it.
func TestServerConfig(t *testing.T) {
	for _, c := range []struct {
		args []string
		want server.Config
	}{
		{
			args: nil,
			want: server.Config{
				GRPCAddr: ":8081", HTTPAddr: ":8080", MetricsAddr: ":9090", DebugAddr: "127.0.0.1:6070", AdminAddr: "127.0.0.1:8082",
				MaxConnectionAge: 24 * time.Hour, MaxConnectionAgeGrace: time.Hour, Keepalive: 2 * time.Hour,
				DrainDelay: 5 * time.Second, StopTimeout: 10 * time.Second,
			},
		},
		{
			args: []string{
				"--grpc-addr=:1", "--http-addr=:2", "--metrics-addr=", "--debug-addr=unix:/d", "--admin-addr=unix:/a", "--max-connection-age=1m",
				"--max-connection-age-grace=2m", "--keepalive=3m", "--drain-delay=4s", "--stop-timeout=5s",
				"--response-headers", "--response-metadata", "--response-body", "--request-headers",
			},
			want: server.Config{
				GRPCAddr: ":1", HTTPAddr: ":2", DebugAddr: "unix:/d", AdminAddr: "unix:/a",
				MaxConnectionAge: time.Minute, MaxConnectionAgeGrace: 2 * time.Minute, Keepalive: 3 * time.Minute,
				DrainDelay: 4 * time.Second, StopTimeout: 5 * time.Second,
				RLS: rls.Options{Headers: rls.DefaultHeaders, Metadata: true, Body: true, RequestHeaders: true},
			},
		},
		{
			args: []string{
				"--max-connection-age=0", "--max-connection-age-grace=0", "--keepalive=0", "--drain-delay=0", "--stop-timeout=0",
				"--response-headers", "--response-header-limit=A", "--response-header-remaining=B", "--response-header-reset=C",
			},
			want: server.Config{
				GRPCAddr: ":8081", HTTPAddr: ":8080", MetricsAddr: ":9090", DebugAddr: "127.0.0.1:6070", AdminAddr: "127.0.0.1:8082",
				MaxConnectionAge: math.MaxInt64, MaxConnectionAgeGrace: math.MaxInt64, Keepalive: math.MaxInt64,
				StopTimeout: 1, RLS: rls.Options{Headers: rls.Headers{Limit: "A", Remaining: "B", Reset: "C"}},
			},
		},
	} {
		p := read(t, nil, append([]string{"serve"}, c.args...)...)
		if p.err != nil {
			t.Fatal(p.err)
		}
		got := p.grammar.Serve.config(nil)
		got.Version = nil // that of the test binary
		if got, want := fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", c.want); got != want {
			t.Errorf("%v configures\n%s\nwant\n%s", c.args, got, want)
		}
	}
}

// TestModes: the flags about decisions reach those who decide.
func TestModes(t *testing.T) {
	over := request("d", "user", "a")
	over.HitsAddend = 6
	for _, c := range []struct {
		flags     []string
		unmatched bool // whether a descriptor without a limit stands beside
		want      ratelimitv3.RateLimitResponse_Code
	}{
		{nil, false, ratelimitv3.RateLimitResponse_OVER_LIMIT},
		{nil, true, ratelimitv3.RateLimitResponse_OVER_LIMIT},
		{[]string{"--shadow"}, false, ratelimitv3.RateLimitResponse_OK},
		{[]string{"--quota"}, false, ratelimitv3.RateLimitResponse_OVER_LIMIT},
		{[]string{"--quota"}, true, ratelimitv3.RateLimitResponse_OK},
	} {
		p := serve(t, append([]string{"--policy", policyFile(t, 5)}, c.flags...)...)
		r := &ratelimitv3.RateLimitRequest{Domain: "d", Descriptors: over.Descriptors, HitsAddend: 6}
		if c.unmatched {
			r.Descriptors = append(r.Descriptors[:1:1], request("d", "nobody", "limits this").Descriptors...)
		}
		got := ask(t, limiter(t, p.addrs(t).GRPC), r)
		if got.GetOverallCode() != c.want || got.GetStatuses()[0].GetCode() != ratelimitv3.RateLimitResponse_OVER_LIMIT {
			t.Errorf("%v (unmatched: %t): %v, want %v and the first status over its limit", c.flags, c.unmatched, got, c.want)
		}
		p.stop(t)
	}
}

// TestCacheKeyPrefix: what is counted in Redis stands under it.
func TestCacheKeyPrefix(t *testing.T) {
	redis := redistest.Start(t)
	p := serve(t, "--policy", policyFile(t, 5), "--store", redis.URL(), "--cache-key-prefix", "blue:")
	ask(t, limiter(t, p.addrs(t).GRPC), request("d", "user", "a"))
	keys, err := redis.Client(t).Keys(t.Context(), "*").Result()
	if err != nil || len(keys) != 1 || !strings.HasPrefix(keys[0], "blue:") {
		t.Errorf("Redis holds %q (%v), want one key that begins with blue:", keys, err)
	}
	p.stop(t)
}
