package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"

	rls "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// failureModes runs a test with a filter that lets requests pass when ration does not answer, and with one that refuses
// them.
func failureModes(t *testing.T, test func(t *testing.T, deny bool, code int)) {
	t.Run("open", func(t *testing.T) { test(t, false, http.StatusOK) })
	t.Run("closed", func(t *testing.T) { test(t, true, http.StatusServiceUnavailable) })
}

// TestRationStopsAndReturns stops ration under a running Envoy, and starts it again.
func TestRationStopsAndReturns(t *testing.T) {
	onBothStores(t, func(t *testing.T, store func(testing.TB) string) {
		failureModes(t, func(t *testing.T, deny bool, code int) {
			server, behind := startRation(t, store(t), policyFile(t, limitOf(1))), startUpstream(t)
			b := shipped(t, behind.addr, server.grpc)
			b.filter("envoy.filters.http.ratelimit")["failure_mode_deny"] = deny
			b.virtualHost("limited.test", limitedRoute(t, "/hit", `[{ `+kv+` }]`))
			limited := limited{envoy: startEnvoy(t, b), server: server}
			withinOneMinute()

			limited.hits(t, 1)
			if got := limited.get(t, "/hit"); got.code != http.StatusTooManyRequests {
				t.Fatalf("code %d, want 429", got.code)
			}

			server.signal(syscall.SIGTERM)
			if err := server.wait(t); err != nil {
				t.Fatalf("ration ended with %v", err)
			}
			for range 3 {
				if got := limited.get(t, "/hit"); got.code != code || got.header.Get("RateLimit-Limit") != "" {
					t.Errorf("without ration: code %d with headers %v, want %d and none of ours", got.code, got.header, code)
				}
			}
			if n := limited.stat(t, "cluster.upstream.ratelimit.error"); n != 3 {
				t.Errorf("Envoy counted %d errors, want 3", n)
			}

			server.start(t)
			// The first answer that is ration's again: Redis has kept the count, memory has not.
			want := http.StatusTooManyRequests
			if server.store == memory {
				want = http.StatusOK
			}
			eventually(t, "ration is asked again", func() error {
				got := limited.get(t, "/hit")
				if got.header.Get("RateLimit-Limit") == "" {
					return fmt.Errorf("code %d without our headers", got.code)
				}
				if got.code != want {
					t.Fatalf("first answer after the restart: code %d, want %d", got.code, want)
				}
				return nil
			})
			if got := limited.get(t, "/hit"); got.code != http.StatusTooManyRequests {
				t.Errorf("after the restart: code %d, want 429", got.code)
			}
		})
	})
}

// withoutStore is what comes of requests while Redis does not decide them.
type withoutStore struct {
	name string
	// policy limits (k, v) of the domain http to two.
	policy string
	// passes says what Envoy makes of them where its filter lets requests pass that ration does not decide, and where
	// it refuses those.
	passes map[bool]int
	// grpc and json are what ration answers itself.
	grpc codes.Code
	over bool
	json int
	// degraded is the header that tells of it.
	degraded string
	// slice is how many requests ration admits by itself before it answers so.
	slice int
}

// answers lists what a policy may want.
func answers() []withoutStore {
	undecided := map[bool]int{false: http.StatusOK, true: http.StatusServiceUnavailable}
	always := func(code int) map[bool]int { return map[bool]int{false: code, true: code} }
	wants := func(onStoreError string) string {
		return fmt.Sprintf("domain: http\ndescriptors:\n"+
			"- { key: k, value: v, limits: [ { name: two, algorithm: fixed_window, limit: 2/day, on_store_error: %s } ] }\n", onStoreError)
	}
	return []withoutStore{
		{"rate_limit", limitOf(2), undecided, codes.Unavailable, false, http.StatusServiceUnavailable, "", 0},
		{"allow", wants("allow"), always(http.StatusOK), codes.OK, false, http.StatusOK, "allow", 0},
		{
			"local", wants("local, local_share: 50%"), always(http.StatusTooManyRequests), codes.OK, true,
			http.StatusTooManyRequests, "local", 1,
		},
		{"error", wants("error"), undecided, codes.Unavailable, false, http.StatusServiceUnavailable, "", 0},
		{"deny", wants("deny"), always(http.StatusTooManyRequests), codes.OK, true, http.StatusTooManyRequests, "deny", 0},
	}
}

// TestRedisStopsAndReturns takes the store away, in the two ways that it may go: it stalls, and it is gone. What then
// comes of a request is what its policy wants, and where that is an error, Envoy's failure mode decides.
func TestRedisStopsAndReturns(t *testing.T) {
	for _, want := range answers() {
		t.Run(want.name, func(t *testing.T) {
			failureModes(t, func(t *testing.T, deny bool, _ int) { stopAndReturn(t, want, deny) })
		})
	}
}

func stopAndReturn(t *testing.T, want withoutStore, deny bool) {
	store, behind := startRedis(t), startUpstream(t)
	server := startRation(t, store.url(), policyFile(t, want.policy), "--redis-timeout", "250ms")
	b := shipped(t, behind.addr, server.grpc)
	b.filter("envoy.filters.http.ratelimit")["failure_mode_deny"] = deny
	b.virtualHost("limited.test", limitedRoute(t, "/hit", `[{ `+kv+` }]`))
	limited := limited{envoy: startEnvoy(t, b), server: server}
	withinOneMinute()
	limited.hits(t, 1)

	undecided := func(what string) {
		t.Helper()
		got := limited.get(t, "/hit")
		if got.code != want.passes[deny] || got.header.Get("ration-degraded") != want.degraded {
			t.Errorf("%s: code %d with headers %v, want %d and %q", what, got.code, got.header, want.passes[deny], want.degraded)
		}
		if want.degraded == "" && got.header.Get("RateLimit-Limit") != "" {
			t.Errorf("%s: headers %v, want none of ours", what, got.header)
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		said, err := server.client.ShouldRateLimit(ctx, parseCall("http: k=v", ""))
		if status.Code(err) != want.grpc || (said.GetOverallCode() == rls.RateLimitResponse_OVER_LIMIT) != want.over {
			t.Errorf("%s: over gRPC %v %v, want %v, over limit %v", what, said, err, want.grpc, want.over)
		}
		call := request{method: http.MethodPost, path: "/json",
			body: `{"domain":"http","descriptors":[{"entries":[{"key":"k","value":"v"}]}]}`}
		if got := send(t, "http://"+server.http, call); got.code != want.json {
			t.Errorf("%s: over /json %d, want %d", what, got.code, want.json)
		}
	}
	decided := func(what string) {
		t.Helper()
		eventually(t, what, func() error {
			got := limited.get(t, "/hit")
			if got.header.Get("RateLimit-Limit") != "2" || got.header.Get("ration-degraded") != "" {
				return fmt.Errorf("code %d with headers %v", got.code, got.header)
			}
			return nil
		})
		for range 2 { // it may have been the first to be counted
			limited.get(t, "/hit")
		}
		if got := limited.get(t, "/hit"); got.code != http.StatusTooManyRequests {
			t.Errorf("%s: code %d, want 429", what, got.code)
		}
	}
	// told waits until the log says for the nth time that ration decides alone, or no longer; requests go on meanwhile.
	told := func(line string, n int) {
		t.Helper()
		eventually(t, fmt.Sprintf("%q is in the log %d times", line, n), func() error {
			limited.get(t, "/hit")
			if got := strings.Count(server.output(), line); got != n {
				return fmt.Errorf("%d times", got)
			}
			return nil
		})
	}

	store.signal(syscall.SIGSTOP) // it is there, and does not answer
	for range want.slice {
		if got := limited.get(t, "/hit"); got.code != http.StatusOK || got.header.Get("ration-degraded") != want.degraded {
			t.Errorf("within the slice: code %d with headers %v, want 200 and %q", got.code, got.header, want.degraded)
		}
	}
	undecided("Redis stalls")
	told("deciding without the store", 1)
	undecided("Redis is no longer asked")
	store.signal(syscall.SIGCONT)
	decided("Redis answers again")
	told("deciding with the store again", 1)

	store.signal(syscall.SIGTERM)
	if err := store.wait(t); err != nil {
		t.Fatalf("Redis ended with %v", err)
	}
	undecided("Redis is gone")
	told("deciding without the store", 2)
	undecided("Redis is no longer asked")
	if err := server.alive(); err != nil {
		t.Fatal(err)
	}
	store.start(t)
	decided("Redis is back")
	told("deciding with the store again", 2)
}

// TestDrain ends one of two replicas under load: no call to ration fails.
func TestDrain(t *testing.T) {
	store, policy := startRedis(t), policyFile(t, limitOf(1_000_000))
	// Envoy must see the replica leave before it has left: two failed health checks, a second apart.
	leaving := startRation(t, store.url(), policy, "--drain-delay", "4s")
	staying := startRation(t, store.url(), policy)
	e := flawless(t, []*ration{leaving, staying}, func(passed func(int)) {
		passed(200)
		leaving.signal(syscall.SIGTERM)
		if err := leaving.wait(t); err != nil {
			t.Errorf("the leaving replica ended with %v", err)
		}
		passed(200)
	})
	if n := e.stat(t, "cluster.ration.membership_healthy"); n != 1 {
		t.Errorf("Envoy sees %d healthy replicas, want 1", n)
	}
}

// TestReconnect lets ration send its clients away again and again, as it does to spread them over new replicas: no call
// fails.
func TestReconnect(t *testing.T) {
	server := startRation(t, memory, policyFile(t, limitOf(1_000_000)), "--max-connection-age", "50ms")
	e := flawless(t, []*ration{server}, func(passed func(int)) { passed(2000) })
	if n := e.stat(t, "cluster.ration.upstream_cx_total"); n < 3 {
		t.Errorf("Envoy has made %d connections, want more", n)
	}
}

// flawless sends requests through Envoy, by eight callers, while run runs. All must be decided by ration, and pass. The
// function that run gets waits until some more have passed.
func flawless(t *testing.T, replicas []*ration, run func(passed func(more int))) *envoy {
	t.Helper()
	behind := startUpstream(t)
	var addrs []string
	for _, r := range replicas {
		addrs = append(addrs, r.grpc)
	}
	b := shipped(t, behind.addr, addrs...)
	b.filter("envoy.filters.http.ratelimit")["failure_mode_deny"] = true
	b.virtualHost("limited.test", limitedRoute(t, "/hit", `[{ `+kv+` }]`))
	e := startEnvoy(t, b)

	ctx, stop := context.WithCancel(t.Context())
	var callers sync.WaitGroup
	defer callers.Wait()
	defer stop()
	for range 8 {
		callers.Go(func() {
			for ctx.Err() == nil && !t.Failed() {
				got, err := try(ctx, e.url, request{host: "limited.test", path: "/hit"})
				switch {
				case errors.Is(err, context.Canceled):
				case err != nil:
					t.Error(err)
				case got.code != http.StatusOK || got.header.Get("RateLimit-Limit") == "":
					t.Errorf("code %d with headers %v, want 200 with ours", got.code, got.header)
				}
			}
		})
	}
	run(func(more int) {
		goal := behind.requests() + more
		eventually(t, fmt.Sprintf("%d more requests have passed", more), func() error {
			if t.Failed() {
				t.FailNow()
			}
			if n := behind.requests(); n < goal {
				return fmt.Errorf("%d are missing", goal-n)
			}
			return nil
		})
	})
	if n := e.stat(t, "cluster.upstream.ratelimit.error"); n != 0 {
		t.Errorf("%d calls to ration failed, want none", n)
	}
	return e
}

// TestExact lets 64 callers spend a limit of 100 at once: 100 of their requests pass, through one replica and through
// two.
func TestExact(t *testing.T) {
	exactly := func(t *testing.T, replicas ...*ration) {
		behind := startUpstream(t)
		var addrs []string
		for _, r := range replicas {
			addrs = append(addrs, r.grpc)
		}
		b := shipped(t, behind.addr, addrs...)
		b.filter("envoy.filters.http.ratelimit")["failure_mode_deny"] = true
		b.virtualHost("limited.test", limitedRoute(t, "/hit", `[{ `+kv+` }]`))
		e := startEnvoy(t, b)
		withinOneMinute()

		var mu sync.Mutex
		codes := map[int]int{}
		var callers sync.WaitGroup
		for range 64 {
			callers.Go(func() {
				for range 5 {
					got, err := try(t.Context(), e.url, request{host: "limited.test", path: "/hit"})
					if err != nil {
						t.Error(err)
					}
					mu.Lock()
					codes[got.code]++
					mu.Unlock()
				}
			})
		}
		callers.Wait()
		if codes[http.StatusOK] != 100 || codes[http.StatusTooManyRequests] != 220 {
			t.Errorf("codes %v, want 100 times 200 and 220 times 429", codes)
		}
		if n := behind.requests(); n != 100 {
			t.Errorf("%d requests reached the upstream, want 100", n)
		}
	}
	onBothStores(t, func(t *testing.T, store func(testing.TB) string) {
		exactly(t, startRation(t, store(t), policyFile(t, limitOf(100))))
	})
	t.Run("two replicas on one redis", func(t *testing.T) {
		store, policy := startRedis(t), policyFile(t, limitOf(100))
		exactly(t, startRation(t, store.url(), policy), startRation(t, store.url(), policy))
	})
}
