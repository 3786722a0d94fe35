package loadgen

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/rationhq/ration/bench/internal/cputime"
)

func TestEveryAnswerIsCountedOnce(t *testing.T) {
	service := &service{answer: func(_ context.Context, number int64) (rlsv3.RateLimitResponse_Code, error) {
		switch number % 5 {
		case 1:
			return rlsv3.RateLimitResponse_OVER_LIMIT, nil
		case 2:
			return 0, status.Error(codes.Unavailable, "the store is down: 100 % of it")
		case 3:
			return rlsv3.RateLimitResponse_UNKNOWN, nil
		}
		return rlsv3.RateLimitResponse_OK, nil
	}}
	address, _ := serve(t, service)
	for _, pace := range []Plan{{Callers: 16}, {Rate: 50_000, MaxInFlight: 64}} {
		service.calls.Store(0)
		client := connect(t, address, 2)
		plan := pace
		plan.Mix, plan.Duration, plan.MaxRequests = oneDescriptor(t, 100), time.Minute, 1000
		report, err := client.Run(t.Context(), plan, Meters{})
		if err != nil {
			t.Fatal(err)
		}
		if calls := service.calls.Load(); calls != 1000 {
			t.Errorf("%s loop: the server was asked %d times, want 1000", report.Mode, calls)
		}
		if report.OK != 400 || report.OverLimit != 200 || report.Errors != 400 || report.Decisions != 600 || report.Unsent != 0 {
			t.Errorf("%s loop: want 400 OK, 200 OVER_LIMIT, 400 errors, 600 decisions; got %+v", report.Mode, report)
		}
		if !strings.Contains(report.FirstError, "100 % of it") && !strings.Contains(report.FirstError, "overall_code 0") {
			t.Errorf("%s loop: first error %q", report.Mode, report.FirstError)
		}
	}
}

func TestWarmupIsNotMeasured(t *testing.T) {
	service := &service{answer: func(_ context.Context, number int64) (rlsv3.RateLimitResponse_Code, error) {
		if number == 1 {
			return 0, errors.New("still asleep")
		}
		return rlsv3.RateLimitResponse_OK, nil
	}}
	address, _ := serve(t, service)
	client := connect(t, address, 1)
	report, err := client.Run(t.Context(), Plan{
		Mix: oneDescriptor(t, 10), Callers: 4, Warmup: 50 * time.Millisecond, Duration: time.Minute, MaxRequests: 100,
	}, Meters{Server: cputime.Self()})
	if err != nil {
		t.Fatal(err)
	}
	if report.Decisions != 100 || report.Errors != 0 {
		t.Errorf("want the 100 decisions after the warm-up, got %+v", report)
	}
	if report.WarmupErrors != 1 || !strings.Contains(report.FirstError, "during warm-up") {
		t.Errorf("the error of the warm-up is not told: %d, %q", report.WarmupErrors, report.FirstError)
	}
}

func TestPrimeAsksForEveryKeyOnce(t *testing.T) {
	var lock sync.Mutex
	asked := make(map[string]int)
	intercept := func(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		if message := request.(*rlsv3.RateLimitRequest); message.Domain != greetingDomain {
			lock.Lock()
			asked[message.Descriptors[0].Entries[0].Value]++
			lock.Unlock()
		}
		return handler(ctx, request)
	}
	address, _ := serve(t, &service{answer: alwaysOK}, grpc.UnaryInterceptor(intercept))
	client := connect(t, address, 3)
	// More than fits into a connection's first flow control window, so windows must be kept account of.
	const keys = 5000
	if err := client.Prime(t.Context(), oneDescriptor(t, keys)); err != nil {
		t.Fatal(err)
	}
	lock.Lock()
	defer lock.Unlock()
	if len(asked) != keys {
		t.Errorf("%d keys were asked for, want %d", len(asked), keys)
	}
	for key, times := range asked {
		if times != 1 {
			t.Errorf("key %s was asked for %d times", key, times)
		}
	}
}

func TestServersMayBeNarrow(t *testing.T) {
	options := map[string]grpc.ServerOption{
		"few streams":              grpc.MaxConcurrentStreams(2),
		"no header table":          grpc.HeaderTableSize(0),
		"the smallest windows":     grpc.StaticConnWindowSize(64 << 10),
		"a pool of stream workers": grpc.NumStreamWorkers(2),
	}
	for name, option := range options {
		t.Run(name, func(t *testing.T) {
			address, _ := serve(t, &service{answer: alwaysOK}, option)
			client := connect(t, address, 1)
			for _, plan := range []Plan{{Callers: 2}, {Rate: 1e6, MaxInFlight: 64}} {
				plan.Mix, plan.Duration, plan.MaxRequests = oneDescriptor(t, 100), time.Minute, 1000
				report, err := client.Run(t.Context(), plan, Meters{})
				if err != nil {
					t.Fatal(err)
				}
				if report.OK+report.Unsent != 1000 || report.OK == 0 || report.Errors != 0 {
					t.Errorf("want 1000 OK or, in the open loop, unsent; got %+v", report)
				}
			}
		})
	}
}

func TestMoreCallersThanTheServerAllowsIsAnError(t *testing.T) {
	address, _ := serve(t, &service{answer: alwaysOK}, grpc.MaxConcurrentStreams(2))
	client := connect(t, address, 2)
	_, err := client.Run(t.Context(), Plan{Mix: oneDescriptor(t, 10), Callers: 5, Duration: time.Second}, Meters{})
	if err == nil || !strings.Contains(err.Error(), "use more connections") {
		t.Errorf("got %v", err)
	}
}

func TestServerThatGoesAwayEndsTheRun(t *testing.T) {
	var server *grpc.Server
	service := &service{}
	service.answer = func(_ context.Context, number int64) (rlsv3.RateLimitResponse_Code, error) {
		if number == 1000 {
			go server.Stop()
		}
		return rlsv3.RateLimitResponse_OK, nil
	}
	address, started := serve(t, service)
	server = started
	client := connect(t, address, 2)
	report, err := client.Run(t.Context(), Plan{Mix: oneDescriptor(t, 10), Callers: 8, Duration: time.Minute}, Meters{})
	if err != nil {
		t.Fatal(err)
	}
	// Each of the two connections was lost with the calls on it, or at least noticed as lost.
	if report.Errors < 2 || !strings.Contains(report.FirstError, "connection lost") {
		t.Errorf("want errors that tell of a lost connection, got %d, %q", report.Errors, report.FirstError)
	}
	report, err = client.Run(t.Context(), Plan{Mix: oneDescriptor(t, 10), Callers: 8, Duration: time.Minute}, Meters{})
	if err != nil {
		t.Fatal(err)
	}
	if report.Errors == 0 || report.Decisions != 0 {
		t.Errorf("a run over lost connections: want errors only, got %+v", report)
	}
}

func TestInterruptedRunReportsWhatItHas(t *testing.T) {
	ctx, interrupt := context.WithCancel(t.Context())
	service := &service{answer: func(_ context.Context, number int64) (rlsv3.RateLimitResponse_Code, error) {
		if number == 500 {
			interrupt()
		}
		return rlsv3.RateLimitResponse_OK, nil
	}}
	address, _ := serve(t, service)
	client := connect(t, address, 2)
	report, err := client.Run(ctx, Plan{Mix: oneDescriptor(t, 10), Callers: 8, Duration: time.Hour}, Meters{})
	if err != nil {
		t.Fatal(err)
	}
	if !report.Interrupted || report.Decisions < 500 || report.Errors != 0 {
		t.Errorf("want to be told of the interruption, and what was measured before; got %+v", report)
	}
}

func TestConnectTellsWhenThereIsNoRateLimitService(t *testing.T) {
	empty := grpc.NewServer()
	t.Run("a gRPC server without it", func(t *testing.T) {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go func() { _ = empty.Serve(listener) }()
		defer empty.Stop()
		expectNoService(t, listener.Addr().String(), "unknown service")
	})
	t.Run("an HTTP/1.1 server", func(t *testing.T) {
		server := httptest.NewServer(http.NotFoundHandler())
		defer server.Close()
		expectNoService(t, server.Listener.Addr().String(), "connection lost")
	})
	t.Run("nobody", func(t *testing.T) {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		if err := listener.Close(); err != nil {
			t.Fatal(err)
		}
		expectNoService(t, listener.Addr().String(), "connection refused")
	})
	t.Run("a service that refuses the greeting is one", func(t *testing.T) {
		refuse := func(context.Context, any, *grpc.UnaryServerInfo, grpc.UnaryHandler) (any, error) {
			return nil, errors.New("no such domain")
		}
		address, _ := serve(t, &service{}, grpc.UnaryInterceptor(refuse))
		connect(t, address, 1)
	})
}

func expectNoService(t *testing.T, address, want string) {
	t.Helper()
	client, err := Connect(t.Context(), address, 1, time.Minute)
	if err == nil {
		err = errors.Join(errors.New("connected"), client.Close())
	}
	if !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want an error with %q", err, want)
	}
}

func TestPlansThatMeanNothingAreRefused(t *testing.T) {
	address, _ := serve(t, &service{answer: alwaysOK})
	client := connect(t, address, 1)
	good := Plan{Mix: oneDescriptor(t, 10), Callers: 1, Duration: time.Second}
	tests := map[string]func(*Plan){
		"both loops":        func(p *Plan) { p.Rate, p.MaxInFlight = 10, 1 },
		"no loop":           func(p *Plan) { p.Callers = 0 },
		"negative callers":  func(p *Plan) { p.Callers = -1 },
		"nothing in flight": func(p *Plan) { p.Callers, p.Rate = 0, 10 },
		"no time":           func(p *Plan) { p.Duration = 0 },
		"negative warm-up":  func(p *Plan) { p.Warmup = -1 },
		"no keys":           func(p *Plan) { p.Keys = 0 },
	}
	for name, change := range tests {
		plan := good
		change(&plan)
		if report, err := client.Run(t.Context(), plan, Meters{}); err == nil {
			t.Errorf("%s: no error, but %+v", name, report)
		}
	}
}

func TestReportIsReadableByPeopleAndPrograms(t *testing.T) {
	address, _ := serve(t, &service{answer: alwaysOK})
	client := connect(t, address, 2)
	report, err := client.Run(t.Context(), Plan{
		Mix: oneDescriptor(t, 10), Rate: 100_000, MaxInFlight: 8, Duration: time.Minute, MaxRequests: 50,
	}, Meters{Server: cputime.Self()})
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	if err := report.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"50 OK, 0 OVER_LIMIT", "open loop", "p99.9", "Redis not metered", "0 (and 0 during warm-up)"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("no %q in\n%s", want, &text)
		}
	}
	encoded, err := json.Marshal(report)
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]any
	if err := json.Unmarshal(encoded, &fields); err != nil {
		t.Fatal(err)
	}
	if fields["ok"] != 50.0 || fields["server_cpu_us_per_decision"] == nil || fields["redis_cpu_us_per_decision"] != nil {
		t.Errorf("got %s", encoded)
	}
}
