package e2e

import (
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	rls "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// TestIdleStream shows that a stream may be silent for stream_idle_timeout, and that comments are no silence. It is then
// broken off, and charged for what was seen.
func TestIdleStream(t *testing.T) {
	service, behind := startScripted(t), startModel(t)
	const idle = time.Second
	behind.at("/", func(w http.ResponseWriter, r *http.Request) {
		stream(messageStart)(w, r)
		for range 15 {
			time.Sleep(idle / 10) // that is what it is about
			stream(": ping\n\n")(w, r)
		}
		stream(messageDelta, "hold")(w, r)
	})
	b := shipped(t, behind.addr, service.addr)
	b.hcm()["stream_idle_timeout"] = idle.String()
	b.filters(t, usageFilters)
	r := modelRoute(t, "/", held, settled)
	at(r, "route")["timeout"] = "0s"
	b.virtualHost(factsHost, markerRoute(t), r)
	e := startEnvoy(t, b)
	service.will(answering(ok))
	if _, err := try(t.Context(), e.url, request{host: factsHost, path: "/"}); err == nil {
		t.Error("the answer is whole, want it broken off")
	}
	service.asks(t, e, "id=<1>", "<1> input 25; <1> output 15; <1> end")
}

// TestChargeTimeout shows that check and charge each say how long their own filter waits.
func TestChargeTimeout(t *testing.T) {
	service, behind := startScripted(t), startModel(t)
	behind.at("/", say(messageJSON))
	b := shipped(t, behind.addr, service.addr)
	b.filter("envoy.filters.http.ratelimit")["timeout"] = "600s"
	b.filter("ration.charge")["timeout"] = "300s"
	b.virtualHost(factsHost, modelRoute(t, "/", held, settled))
	e := startEnvoy(t, b)
	var mu sync.Mutex
	var waits []time.Duration
	service.will(func(r *rls.RateLimitRequest) (*rls.RateLimitResponse, error) {
		service.mu.Lock()
		wait := time.Until(service.deadline)
		service.mu.Unlock()
		mu.Lock()
		defer mu.Unlock()
		waits = append(waits, wait)
		return answering(ok)(r)
	})
	send(t, e.url, request{host: factsHost, path: "/"})
	eventually(t, "check and charge arrive", func() error {
		mu.Lock()
		defer mu.Unlock()
		if len(waits) != 2 {
			return fmt.Errorf("%d calls", len(waits))
		}
		if waits[0] <= 300*time.Second || waits[1] > 300*time.Second || waits[1] <= 0 {
			t.Errorf("Envoy waits %v, want about 600 s and 300 s", waits)
		}
		return nil
	})
}

// TestManyStreamsEnd shows that charges of streams that end at the same time all leave, unless the circuit breaker of
// ration's cluster stands against it: then they are lost.
func TestManyStreamsEnd(t *testing.T) {
	const streams = 200
	for _, f := range []struct {
		name     string
		breakers string // of ration's cluster
		want     int
	}{
		{"as shipped", "", streams},
		{"max_requests 20, while none is answered", "thresholds: [{ max_requests: 20 }]", 20},
	} {
		t.Run(f.name, func(t *testing.T) {
			service, behind := startScripted(t), startModel(t)
			b := shipped(t, behind.addr, service.addr)
			b.filter("ration.charge")["timeout"] = "60s"
			named(b, "upstream", "static_resources", "clusters")["circuit_breakers"] =
				message(t, "thresholds: [{ max_requests: 1000, max_connections: 1000, max_pending_requests: 1000 }]")
			if f.breakers != "" {
				named(b, "ration", "static_resources", "clusters")["circuit_breakers"] = message(t, "%s", f.breakers)
			}
			b.filters(t, usageFilters)
			b.virtualHost(factsHost, modelRoute(t, "/", "[]", settled))
			e := startEnvoy(t, b)

			var begun, ended sync.WaitGroup
			begun.Add(streams)
			finish, answer := make(chan struct{}), make(chan struct{})
			behind.at("/", func(w http.ResponseWriter, r *http.Request) {
				stream(messageStart)(w, r)
				begun.Done()
				<-finish
				stream(messageDelta)(w, r)
			})
			service.will(func(r *rls.RateLimitRequest) (*rls.RateLimitResponse, error) {
				<-answer
				return answering(ok)(r)
			})
			defer close(answer)
			for range streams {
				ended.Go(func() {
					if _, err := try(t.Context(), e.url, request{host: factsHost, path: "/"}); err != nil {
						t.Error(err)
					}
				})
			}
			begun.Wait()
			close(finish)
			ended.Wait()
			eventually(t, fmt.Sprintf("%d charges arrive", f.want), func() error {
				if got := len(service.asked()); got != f.want {
					return fmt.Errorf("%d", got)
				}
				return nil
			})
			for _, counter := range []string{"cluster.ration.upstream_rq_active_overflow", "cluster.ration.upstream_rq_5xx"} {
				eventually(t, "the others are counted", func() error {
					if lost := e.stat(t, counter); lost != streams-f.want {
						return fmt.Errorf("%s is %d, want %d", counter, lost, streams-f.want)
					}
					return nil
				})
			}
		})
	}
}

// TestChargeLost shows by which counter a charge is missed that nobody has taken: none of the filter's, but one of
// ration's cluster.
func TestChargeLost(t *testing.T) {
	stalls := make(chan struct{})
	t.Cleanup(func() { close(stalls) })
	service, behind := startScripted(t), startModel(t)
	service.will(func(r *rls.RateLimitRequest) (*rls.RateLimitResponse, error) {
		<-stalls
		return answering(ok)(r)
	})
	nobody := freeAddr(t)
	const counter = "cluster.ration.upstream_rq_5xx"
	for _, f := range []struct{ name, ration string }{
		{"nobody listens", nobody},
		{"no answer in time", service.addr},
	} {
		t.Run(f.name, func(t *testing.T) {
			behind.at("/", say(messageJSON))
			b := shipped(t, behind.addr, f.ration)
			b.filter("ration.charge")["timeout"] = "0.1s"
			b.filters(t, usageFilters)
			b.virtualHost(factsHost, modelRoute(t, "/", "[]", settled))
			e := startEnvoy(t, b)
			for n := range 3 {
				if got := send(t, e.url, request{host: factsHost, path: "/"}); got.code != http.StatusOK {
					t.Errorf("code %d, want 200", got.code)
				}
				eventually(t, "the loss is counted", func() error {
					if got := e.stat(t, counter); got != n+1 {
						return fmt.Errorf("%s is %d, want %d", counter, got, n+1)
					}
					return nil
				})
			}
			if errors := e.stat(t, "cluster.upstream.ratelimit.error"); errors != 0 {
				t.Errorf("ratelimit.error is %d, want 0", errors)
			}
		})
	}
}

// TestChargeRefused shows that an error which ration answers to a charge is a success to Envoy's counters.
func TestChargeRefused(t *testing.T) {
	service, behind := startScripted(t), startModel(t)
	behind.at("/", say(messageJSON))
	b := shipped(t, behind.addr, service.addr)
	b.filters(t, usageFilters)
	b.virtualHost(factsHost, modelRoute(t, "/", "[]", settled))
	e := startEnvoy(t, b)
	service.will(func(*rls.RateLimitRequest) (*rls.RateLimitResponse, error) {
		return nil, status.Error(codes.Unavailable, "no store")
	})
	send(t, e.url, request{host: factsHost, path: "/"})
	eventually(t, "the answer is counted", func() error {
		if got := e.stat(t, "cluster.ration.upstream_rq_200"); got != 1 {
			return fmt.Errorf("upstream_rq_200 is %d, want 1", got)
		}
		return nil
	})
	for _, counter := range []string{"cluster.ration.upstream_rq_5xx", "cluster.upstream.ratelimit.error"} {
		if got := e.stat(t, counter); got != 0 {
			t.Errorf("%s is %d, want 0", counter, got)
		}
	}
}
