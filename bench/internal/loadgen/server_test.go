package loadgen

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"time"

	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/test/bufconn"
)

// greetingDomain is what Connect asks about.
const greetingDomain = "bench.greeting"

// A service is a rate limit service on grpc-go that does what a test wants.
type service struct {
	rlsv3.UnimplementedRateLimitServiceServer
	// answer is called with the number of the request, from 1. Greetings are not among them, and answered OK.
	answer func(ctx context.Context, number int64) (rlsv3.RateLimitResponse_Code, error)
	calls  atomic.Int64
	// seen, if there is one, is called with every request that is no greeting.
	seen func(*rlsv3.RateLimitRequest)
}

func (s *service) ShouldRateLimit(ctx context.Context, request *rlsv3.RateLimitRequest) (*rlsv3.RateLimitResponse, error) {
	if request.Domain == greetingDomain {
		return &rlsv3.RateLimitResponse{OverallCode: rlsv3.RateLimitResponse_OK}, nil
	}
	if s.seen != nil {
		s.seen(request)
	}
	code, err := s.answer(ctx, s.calls.Add(1))
	if err != nil {
		return nil, err
	}
	return &rlsv3.RateLimitResponse{OverallCode: code}, nil
}

func alwaysOK(context.Context, int64) (rlsv3.RateLimitResponse_Code, error) {
	return rlsv3.RateLimitResponse_OK, nil
}

// serve runs the service on a port of its own until the test ends.
func serve(t *testing.T, service *service, options ...grpc.ServerOption) (address string, server *grpc.Server) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server = grpc.NewServer(options...)
	rlsv3.RegisterRateLimitServiceServer(server, service)
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return listener.Addr().String(), server
}

// connect returns a client of the service at address until the test ends.
func connect(t *testing.T, address string, connections int) *Client {
	t.Helper()
	client, err := Connect(t.Context(), address, connections, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := client.Close(); err != nil {
			t.Error(err)
		}
	})
	return client
}

// plainSleep stands in for preciseSleep, which does not know the clock of a synctest bubble.
func plainSleep(f func(sleep func(time.Duration))) { f(time.Sleep) }

// connectInMemory returns a client of the service over connections in memory, for tests on the clock of a synctest
// bubble. The caller ends both with the returned function.
func connectInMemory(t *testing.T, service *service, connections int, timeout time.Duration) (*Client, func()) {
	t.Helper()
	listener := bufconn.Listen(1 << 20)
	server := grpc.NewServer(grpc.WaitForHandlers(true))
	rlsv3.RegisterRateLimitServiceServer(server, service)
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()

	var conns []net.Conn
	for range connections {
		conn, err := listener.DialContext(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, conn)
	}
	client, err := newClient(t.Context(), "memory", conns, timeout, plainSleep)
	if err != nil {
		t.Fatal(err)
	}
	return client, func() {
		if err := client.Close(); err != nil {
			t.Error(err)
		}
		server.Stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}
