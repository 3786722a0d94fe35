package e2e

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	rls "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// scripted is a rate limit service that answers what a test tells it to and keeps what Envoy asked. It shows what Envoy
// does, with no ration in the way.
type scripted struct {
	rls.UnimplementedRateLimitServiceServer
	addr string

	mu       sync.Mutex
	calls    []*rls.RateLimitRequest
	deadline time.Time // of the newest call
	answer   func(*rls.RateLimitRequest) (*rls.RateLimitResponse, error)
	pause    func(context.Context) // before it is given; nil: none

	health *health.Server
}

// startScripted runs one until the test ends.
func startScripted(t testing.TB, options ...grpc.ServerOption) *scripted {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &scripted{addr: l.Addr().String()}
	server := grpc.NewServer(options...)
	rls.RegisterRateLimitServiceServer(server, s)
	s.health = health.NewServer()
	s.health.SetServingStatus("ration.store", healthpb.HealthCheckResponse_SERVING)
	healthpb.RegisterHealthServer(server, s.health)
	go func() { _ = server.Serve(l) }()
	t.Cleanup(server.Stop)
	return s
}

func (s *scripted) ShouldRateLimit(ctx context.Context, r *rls.RateLimitRequest) (*rls.RateLimitResponse, error) {
	s.mu.Lock()
	s.calls = append(s.calls, r)
	s.deadline, _ = ctx.Deadline()
	answer, pause := s.answer, s.pause
	s.mu.Unlock()
	if pause != nil {
		pause(ctx)
	}
	if err := ctx.Err(); err != nil {
		return nil, status.FromContextError(err).Err()
	}
	return answer(r)
}

// will sets the answer to all calls from now on, and forgets the calls so far.
func (s *scripted) will(answer func(*rls.RateLimitRequest) (*rls.RateLimitResponse, error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls, s.answer = nil, answer
}

// asked returns the calls since will, in the notation of notation_test.go.
func (s *scripted) asked() (calls []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.calls {
		calls = append(calls, call(r))
	}
	return calls
}

// settled returns the calls since will, when all that are to come have come: it sends one more request, to the route
// that markerRoute makes, and waits for the call at its end.
func (s *scripted) settled(t testing.TB, e *envoy) (calls []string) {
	t.Helper()
	send(t, e.url, request{host: factsHost, path: "/marker"})
	eventually(t, "the marker's charge arrives", func() error {
		calls = s.asked()
		if !slices.Contains(calls, "http: marker=done") {
			return fmt.Errorf("Envoy asked %q", calls)
		}
		return nil
	})
	return slices.DeleteFunc(calls, func(call string) bool { return strings.HasPrefix(call, "http: marker=") })
}

// factsHost is the virtual host of the tests that use a scripted service.
const factsHost = "facts.test"

// markerRoute is a route of factsHost whose requests make a call at the end.
func markerRoute(t testing.TB) map[string]any {
	return limitedRoute(t, "/marker", `[{ actions: [{ generic_key: { descriptor_key: marker, descriptor_value: check } }] },
		{ actions: [{ generic_key: { descriptor_key: marker, descriptor_value: done } }], apply_on_stream_done: true }]`)
}
