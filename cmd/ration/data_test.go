package main

import (
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
)

// TestDataSurvives: with --data a limit that is used up stays so when the process ends and another
// begins, and a second process beside the first is told why it cannot start.
func TestDataSurvives(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	args := []string{"--policy", policyFile(t, 2), "--data", dir}
	asks := func(p *process, want ...ratelimitv3.RateLimitResponse_Code) {
		t.Helper()
		client := limiter(t, p.addrs(t).GRPC)
		for i, code := range want {
			if got := ask(t, client, request("d", "user", "a")).GetOverallCode(); got != code {
				t.Errorf("request %d: %v, want %v", i+1, got, code)
			}
		}
	}
	first := serve(t, args...)
	asks(first, ratelimitv3.RateLimitResponse_OK, ratelimitv3.RateLimitResponse_OK)

	code, _, stderr := runs(t, nil, append([]string{"serve", "--grpc-addr=", "--metrics-addr=", "--debug-addr=", "--admin-addr=", "--http-addr=127.0.0.1:0"}, args...)...)
	if want := "ration: data directory: another process has " + dir; code != exitFailed || !strings.Contains(stderr, want) {
		t.Errorf("a second process: exit code %d\n%s\nwant %d and\n%s", code, stderr, exitFailed, want)
	}

	first.stop(t)
	second := serve(t, args...)
	asks(second, ratelimitv3.RateLimitResponse_OVER_LIMIT)
	second.signal(t, syscall.SIGKILL)
	second.exit(t)
	third := serve(t, args...)
	asks(third, ratelimitv3.RateLimitResponse_OVER_LIMIT)
	third.stop(t)
}
