package e2e

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	rls "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
)

// awaited is an Envoy whose rate limit service takes its time: what Envoy does meanwhile is what lanes rely on.
type awaited struct {
	*envoy
	service *scripted
	behind  *upstream
	answers chan struct{} // closed: calls are answered

	waiting, left atomic.Int32 // calls that have come, and those that Envoy has given up
}

func startAwaited(t testing.TB, change func(bootstrap), options ...grpc.ServerOption) *awaited {
	t.Helper()
	a := &awaited{service: startScripted(t, options...), behind: startUpstream(t), answers: make(chan struct{})}
	a.service.will(answering(ok))
	a.service.pause = func(ctx context.Context) {
		a.waiting.Add(1)
		select {
		case <-ctx.Done():
			a.left.Add(1)
		case <-a.answers:
		}
	}
	b := shipped(t, a.behind.addr, a.service.addr)
	b.filter("envoy.filters.http.ratelimit")["timeout"] = "30s"
	b.filter("envoy.filters.http.ratelimit")["failure_mode_deny"] = true
	if change != nil {
		change(b)
	}
	a.envoy = startEnvoy(t, b)
	return a
}

// begin makes a request in the background.
func (a *awaited) begin(t testing.TB) <-chan answer {
	answers := make(chan answer, 1)
	go func() {
		got, err := try(context.WithoutCancel(t.Context()), a.url, request{path: "/"})
		if err != nil {
			t.Error(err)
		}
		answers <- got
	}()
	return answers
}

// becomes waits until so many calls have come, or have been given up.
func becomes(t testing.TB, what string, count *atomic.Int32, want int32) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d %s", want, what), func() error {
		if got := count.Load(); got != want {
			return fmt.Errorf("%d %s", got, what)
		}
		return nil
	})
}

// ofRation is how Envoy speaks to ration.
func (b bootstrap) ofRation() map[string]any {
	return at(named(b, "ration", "static_resources", "clusters"), "typed_extension_protocol_options",
		"envoy.extensions.upstreams.http.v3.HttpProtocolOptions")
}

// breakers sets the circuit breakers of ration's cluster.
func (b bootstrap) breakers(t testing.TB, thresholds string) {
	named(b, "ration", "static_resources", "clusters")["circuit_breakers"] = message(t, "thresholds: [{ %s }]", thresholds)
}

// TestFilterWaitsForLeavers shows that Envoy gives a call up at once when the client has left that it is for, whatever
// the client speaks.
func TestFilterWaitsForLeavers(t *testing.T) {
	gone := func(t *testing.T, a *awaited) {
		becomes(t, "given up", &a.left, 1)
		if n := a.stat(t, "cluster.ration.upstream_rq_tx_reset"); n != 1 || a.behind.requests() > 0 {
			t.Errorf("%d calls were reset, want 1, and %d requests went on", n, a.behind.requests())
		}
	}
	for name, protocols := range map[string]func(*http.Protocols){
		"HTTP/1.1": func(p *http.Protocols) { p.SetHTTP1(true) }, "HTTP/2": func(p *http.Protocols) { p.SetUnencryptedHTTP2(true) },
	} {
		t.Run(name, func(t *testing.T) {
			a := startAwaited(t, nil)
			transport := &http.Transport{Protocols: new(http.Protocols)}
			protocols(transport.Protocols)
			t.Cleanup(transport.CloseIdleConnections)
			ctx, leave := context.WithCancel(t.Context())
			defer leave()
			req, err := http.NewRequestWithContext(ctx, http.MethodPost, a.url+"/download", strings.NewReader("{}"))
			if err != nil {
				t.Fatal(err)
			}
			left := make(chan error, 1)
			go func() {
				resp, err := transport.RoundTrip(req)
				if err == nil {
					resp.Body.Close()
				}
				left <- err
			}()
			becomes(t, "waiting", &a.waiting, 1)
			leave()
			if <-left == nil {
				t.Error("there is an answer")
			}
			gone(t, a)
			if calls := a.service.asked(); len(calls) != 1 {
				t.Errorf("Envoy has asked %q: want the check alone, and no charge", calls)
			}
		})
	}
	for name, f := range map[string]struct {
		behind string // the request, on the wire
		leave  func(closer) error
	}{
		"the connection is half closed":    {"", closer.CloseWrite},
		"another request is on its way":    {"GET / HTTP/1.1\r\nHost: x\r\n\r\n", closer.Close},
		"… and the connection half closed": {"GET / HTTP/1.1\r\nHost: x\r\n\r\n", closer.CloseWrite},
	} {
		t.Run(name, func(t *testing.T) {
			a := startAwaited(t, nil)
			conn, err := dial(t, strings.TrimPrefix(a.url, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: x\r\ncontent-length: 2\r\n\r\n{}%s", f.behind)
			becomes(t, "waiting", &a.waiting, 1)
			if err := f.leave(conn.(closer)); err != nil {
				t.Fatal(err)
			}
			gone(t, a)
		})
	}
}

// closer is a connection whose ends close by themselves.
type closer interface {
	Close() error
	CloseWrite() error
}

// TestFilterWaitsWithin shows which timeouts count while the service has not answered, and what the client hears then.
func TestFilterWaitsWithin(t *testing.T) {
	const short = "0.2s"
	common := func(name string) func(bootstrap) {
		return func(b bootstrap) { b.hcm()["common_http_protocol_options"] = map[string]any{name: short} }
	}
	commonOfRation := func(name string) func(bootstrap) {
		return func(b bootstrap) { b.ofRation()["common_http_protocol_options"] = map[string]any{name: short} }
	}
	for name, f := range map[string]struct {
		change func(bootstrap)
		code   int // 200: it does not count
		log    string
	}{
		"the filter's timeout": {func(b bootstrap) { b.filter("envoy.filters.http.ratelimit")["timeout"] = short },
			503, `"details":"rate_limiter_error","flags":"RLSE"`},
		"stream_idle_timeout": {func(b bootstrap) { b.hcm()["stream_idle_timeout"] = short },
			504, `"details":"stream_idle_timeout","flags":"SI"`},
		"request_timeout": {func(b bootstrap) { b.hcm()["request_timeout"] = short },
			504, `"details":"request_overall_timeout"`},
		"max_stream_duration": {common("max_stream_duration"), 504, `"details":"max_duration_timeout"`},
		"max_stream_duration of ration's cluster": {commonOfRation("max_stream_duration"),
			503, `"details":"rate_limiter_error","flags":"RLSE"`},
		"the route's timeout": {func(b bootstrap) {
			for _, r := range b.hcm()["route_config"].(map[string]any)["virtual_hosts"].([]any)[0].(map[string]any)["routes"].([]any) {
				if to, ok := r.(map[string]any)["route"].(map[string]any); ok {
					to["timeout"] = short
				}
			}
		}, 200, ""},
		"idle_timeout of connections":                 {common("idle_timeout"), 200, ""},
		"max_connection_duration":                     {common("max_connection_duration"), 200, ""},
		"idle_timeout of ration's cluster":            {commonOfRation("idle_timeout"), 200, ""},
		"max_connection_duration of ration's cluster": {commonOfRation("max_connection_duration"), 200, ""},
	} {
		t.Run(name, func(t *testing.T) {
			a := startAwaited(t, f.change)
			answers := a.begin(t)
			becomes(t, "waiting", &a.waiting, 1)
			if f.code == http.StatusOK {
				time.Sleep(time.Second) // five times what is said not to matter
				close(a.answers)
			}
			if got := <-answers; got.code != f.code {
				t.Errorf("code %d, want %d: %s", got.code, f.code, got.body)
			}
			if f.code == http.StatusOK {
				return
			}
			becomes(t, "given up", &a.left, 1)
			eventually(t, "the access log tells", func() error {
				if !strings.Contains(a.output(), f.log) {
					return fmt.Errorf("no %s", f.log)
				}
				return nil
			})
		})
	}
	t.Run("the service asks Envoy to connect anew", func(t *testing.T) {
		a := startAwaited(t, nil, grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: 100 * time.Millisecond}))
		answers := a.begin(t)
		becomes(t, "waiting", &a.waiting, 1)
		time.Sleep(time.Second)
		close(a.answers)
		if got := <-answers; got.code != http.StatusOK || a.left.Load() > 0 {
			t.Errorf("code %d, %d calls given up: want 200 and none", got.code, a.left.Load())
		}
	})
}

// TestFilterWaitsAtOnce shows how many calls may wait at a time.
func TestFilterWaitsAtOnce(t *testing.T) {
	begin := func(t *testing.T, a *awaited, calls int) (answers []<-chan answer) {
		for range calls {
			answers = append(answers, a.begin(t))
		}
		return answers
	}
	const calls = 6
	// ask begins all calls, at a service that takes two over a connection.
	ask := func(t *testing.T, change func(bootstrap)) (*awaited, []<-chan answer) {
		a := startAwaited(t, change, grpc.MaxConcurrentStreams(2))
		return a, begin(t, a, calls)
	}
	t.Run("a burst at the file that is shipped", func(t *testing.T) {
		const streams, calls = 256, 300 // streams is what ration takes over a connection
		a := startAwaited(t, nil, grpc.MaxConcurrentStreams(streams))
		answers := begin(t, a, calls)
		becomes(t, "waiting", &a.waiting, calls)
		close(a.answers)
		for _, got := range answers {
			if got := <-got; got.code != http.StatusOK {
				t.Errorf("code %d, want 200", got.code)
			}
		}
	})
	t.Run("a burst at a new connection: what the service refuses is an error", func(t *testing.T) {
		a, answers := ask(t, nil)
		eventually(t, "some are refused", func() error {
			if a.stat(t, "cluster.ration.upstream_rq_5xx") == 0 {
				return fmt.Errorf("none is")
			}
			return nil
		})
		close(a.answers)
		codes := map[int]int{}
		for _, got := range answers {
			codes[(<-got).code]++
		}
		if codes[503] == 0 || codes[503]+codes[200] != calls {
			t.Errorf("codes %v, want some 503", codes)
		}
	})
	t.Run("max_concurrent_streams: as many connections as it takes", func(t *testing.T) {
		a, answers := ask(t, func(b bootstrap) {
			at(b.ofRation(), "explicit_http_config", "http2_protocol_options")["max_concurrent_streams"] = 2
		})
		becomes(t, "waiting", &a.waiting, calls)
		if n := a.stat(t, "cluster.ration.upstream_cx_active"); n != calls/2 {
			t.Errorf("%d connections, want %d", n, calls/2)
		}
		close(a.answers)
		for _, got := range answers {
			if got := <-got; got.code != 200 {
				t.Errorf("code %d, want 200", got.code)
			}
		}
	})
	t.Run("max_connections: the rest waits in Envoy, where the timeout counts too", func(t *testing.T) {
		a, answers := ask(t, func(b bootstrap) {
			at(b.ofRation(), "explicit_http_config", "http2_protocol_options")["max_concurrent_streams"] = 2
			b.breakers(t, "max_connections: 1, max_requests: 100, max_pending_requests: 100")
			b.filter("envoy.filters.http.ratelimit")["timeout"] = "1s"
		})
		for _, got := range answers {
			if got := <-got; got.code != 503 {
				t.Errorf("code %d, want 503", got.code)
			}
		}
		if n := a.stat(t, "cluster.ration.upstream_cx_overflow"); n == 0 {
			t.Error("Envoy did not want to open another connection")
		}
	})
}

// TestFilterAsksAgain shows what `retry_policy` of the filter's grpc_service does.
func TestFilterAsksAgain(t *testing.T) {
	policy := func(text string) func(bootstrap) {
		return func(b bootstrap) {
			at(b.filter("envoy.filters.http.ratelimit"), "rate_limit_service", "grpc_service")["retry_policy"] = message(t, "%s", text)
		}
	}
	unavailable := func(*rls.RateLimitRequest) (*rls.RateLimitResponse, error) {
		return nil, status.Error(codes.Unavailable, "this one stops")
	}
	t.Run("what is unavailable is asked again, with all of the timeout", func(t *testing.T) {
		a := startAwaited(t, policy(`{ retry_on: unavailable, num_retries: 3, retry_back_off: { base_interval: 0.05s, max_interval: 60s } }`))
		var asked, late atomic.Int32
		a.service.will(func(r *rls.RateLimitRequest) (*rls.RateLimitResponse, error) {
			if asked.Add(1) < 3 {
				return unavailable(r)
			}
			return answering(over)(r)
		})
		a.service.pause = func(ctx context.Context) {
			if deadline, ok := ctx.Deadline(); !ok || time.Until(deadline) < 29*time.Second {
				late.Add(1)
			}
		}
		if got := <-a.begin(t); got.code != http.StatusTooManyRequests || asked.Load() != 3 || late.Load() > 0 {
			t.Errorf("code %d after %d calls, %d of them with less than 30 s", got.code, asked.Load(), late.Load())
		}
	})
	for name, f := range map[string]struct {
		policy string
		tries  int32
	}{
		"max_interval ends each try":                  {`retry_on: unavailable, num_retries: 1, retry_back_off: { base_interval: 0.05s, max_interval: 0.2s }`, 1},
		"… which reset repeats":                       {`retry_on: "unavailable,reset", num_retries: 1, retry_back_off: { base_interval: 0.05s, max_interval: 0.2s }`, 2},
		"… and is ten times base_interval if not set": {`retry_on: unavailable, num_retries: 1, retry_back_off: { base_interval: 0.02s }`, 1},
	} {
		t.Run(name, func(t *testing.T) {
			a := startAwaited(t, policy("{ "+f.policy+" }"))
			if got := <-a.begin(t); got.code != http.StatusServiceUnavailable {
				t.Errorf("code %d, want 503, long before the filter's timeout", got.code)
			}
			becomes(t, "given up", &a.left, f.tries)
			if n := a.stat(t, "cluster.ration.upstream_rq_per_try_timeout"); n != int(f.tries) {
				t.Errorf("%d tries took too long, want %d", n, f.tries)
			}
		})
	}
	t.Run("beside the cluster's name it does nothing", func(t *testing.T) {
		a := startAwaited(t, func(b bootstrap) {
			at(b.filter("envoy.filters.http.ratelimit"), "rate_limit_service", "grpc_service", "envoy_grpc")["retry_policy"] =
				message(t, `{ retry_on: unavailable, num_retries: 3 }`)
		})
		a.service.pause = nil
		a.service.will(unavailable)
		if got := <-a.begin(t); got.code != http.StatusServiceUnavailable || len(a.service.asked()) != 1 {
			t.Errorf("code %d after %d calls, want 503 after one", got.code, len(a.service.asked()))
		}
	})
	t.Run("the filter's timeout ends them all", func(t *testing.T) {
		a := startAwaited(t, func(b bootstrap) {
			policy(`{ retry_on: unavailable, num_retries: 1000, retry_back_off: { base_interval: 0.05s, max_interval: 0.1s } }`)(b)
			b.filter("envoy.filters.http.ratelimit")["timeout"] = "0.5s"
		})
		a.service.pause = nil
		a.service.will(unavailable)
		if got := <-a.begin(t); got.code != http.StatusServiceUnavailable || len(a.service.asked()) >= 100 {
			t.Errorf("code %d after %d calls, want 503 after some", got.code, len(a.service.asked()))
		}
	})
	t.Run("no more than max_retries at a time", func(t *testing.T) {
		a := startAwaited(t, func(b bootstrap) {
			policy(`{ retry_on: unavailable, num_retries: 1, retry_back_off: { base_interval: 5s, max_interval: 60s } }`)(b)
			b.breakers(t, "max_retries: 0")
		})
		a.service.pause = nil
		a.service.will(unavailable)
		if got := <-a.begin(t); got.code != http.StatusServiceUnavailable || a.stat(t, "cluster.ration.upstream_rq_retry_overflow") != 1 {
			t.Errorf("code %d, want 503 and one retry too many", got.code)
		}
	})
}
