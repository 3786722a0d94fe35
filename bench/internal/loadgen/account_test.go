package loadgen

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	rationv1 "github.com/rationhq/ration/gen/ration/v1"
)

// accounts is AccountingService: it reserves and settles, and remembers it. It refuses every tenth call, if it is told so.
type accounts struct {
	rationv1.UnimplementedAccountingServiceServer
	refuses bool

	mu    sync.Mutex
	calls int
	open  map[string]*rationv1.ReserveRequest
	wrong []string
	keys  map[string]bool
	ended int
}

func (l *accounts) Reserve(_ context.Context, request *rationv1.ReserveRequest) (*rationv1.ReserveResponse, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls++
	if l.keys[request.GetIdempotencyKey()] {
		l.wrong = append(l.wrong, "used again: "+request.GetIdempotencyKey())
	}
	l.keys[request.GetIdempotencyKey()] = true
	decision := &rationv1.Decision{Message: strings.Repeat("…", 100)}
	if l.refuses && l.calls%10 == 0 {
		return &rationv1.ReserveResponse{Decision: decision}, nil
	}
	id := fmt.Sprintf("%032d", l.calls)
	l.open[id] = request
	return &rationv1.ReserveResponse{Decision: decision, Reservation: &rationv1.Reservation{Id: id}}, nil
}

func (l *accounts) Settle(_ context.Context, request *rationv1.SettleRequest) (*rationv1.SettleResponse, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	reserved := l.open[request.GetReservationId()]
	if reserved == nil {
		return nil, status.Error(codes.NotFound, "no such reservation")
	}
	delete(l.open, request.GetReservationId())
	l.ended++
	caller := &rationv1.Caller{Domain: "d", Model: "m", Attributes: map[string]string{"user": reserved.GetCaller().GetAttributes()["user"], "n": "1"}}
	if !proto.Equal(reserved.GetCaller(), caller) || reserved.GetEstimate().GetUsage().GetInputTokens() != 400 ||
		reserved.GetEstimate().GetUsage().GetOutputTokens() != 1_000 || len(reserved.GetIdempotencyKey()) != IDLength ||
		request.GetUsage().GetInputTokens() != 380 || request.GetUsage().GetOutputTokens() != 250 {
		l.wrong = append(l.wrong, fmt.Sprint(reserved, " ", request))
	}
	return &rationv1.SettleResponse{State: rationv1.State_STATE_SETTLED, Cost: 1}, nil
}

// book serves the accounts beside RateLimitService, as ration does, until the test ends.
func book(t *testing.T, l *accounts) (addr string) {
	t.Helper()
	l.open, l.keys = map[string]*rationv1.ReserveRequest{}, map[string]bool{}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	rationv1.RegisterAccountingServiceServer(server, l)
	rlsv3.RegisterRateLimitServiceServer(server, &service{answer: alwaysOK})
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return listener.Addr().String()
}

func accountMix() Mix {
	return Mix{Domain: "d", Keys: 7, Account: &Account{
		Attributes: []string{"user={key}", "n=1"}, Model: "m", Estimate: Tokens{400, 1_000}, Used: Tokens{380, 250},
	}}
}

func TestCallsAreReservedAndSettled(t *testing.T) {
	for _, refuses := range []bool{false, true} {
		l := &accounts{refuses: refuses}
		client := connect(t, book(t, l), 2)
		mix := accountMix()
		report, err := client.Run(t.Context(), Plan{Mix: mix, Callers: 8, Duration: time.Minute, MaxRequests: 500}, Meters{})
		if err != nil {
			t.Fatal(err)
		}
		if report.Errors > 0 {
			t.Fatalf("%d errors, first: %s", report.Errors, report.FirstError)
		}
		refused := 0
		if refuses {
			refused = 50
		}
		if l.calls != 500 || l.ended != 500-refused || len(l.open) > 0 {
			t.Errorf("%d calls were reserved and %d settled, %d are open", l.calls, l.ended, len(l.open))
		}
		if report.OverLimit != uint64(refused) || report.Decisions != uint64(500+500-refused) {
			t.Errorf("%d decisions, %d of them refused", report.Decisions, report.OverLimit)
		}
		if len(l.wrong) > 0 {
			t.Errorf("%d wrong requests, first: %s", len(l.wrong), l.wrong[0])
		}
	}
}

func TestAnswersOfAccounting(t *testing.T) {
	encode := func(m proto.Message) []byte {
		encoded, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return encoded
	}
	id := strings.Repeat("f", reservationLength)
	reserved := encode(&rationv1.ReserveResponse{
		Decision: &rationv1.Decision{Verdict: rationv1.Verdict_VERDICT_ADMITTED}, Reservation: &rationv1.Reservation{Id: id}, Replayed: true,
	})
	acquired := encode(&rationv1.AcquireResponse{Of: &rationv1.AcquireResponse_Answer{Answer: &rationv1.ReserveResponse{
		Reservation: &rationv1.Reservation{Id: id},
	}}})
	for _, test := range []struct {
		method method
		answer []byte
		code   overallCode
		id     string
		wrong  string
	}{
		{methodReserve, reserved, codeOK, id, ""},
		{methodReserve, encode(&rationv1.ReserveResponse{Decision: &rationv1.Decision{Message: "no"}}), codeOverLimit, "", ""},
		{methodReserve, encode(&rationv1.ReserveResponse{Reservation: &rationv1.Reservation{Id: "f"}}), codeOK, "f", "want 32 characters"},
		{methodReserve, reserved[:len(reserved)-5], codeOverLimit, "", "malformed"},
		{methodAcquire, acquired, codeOK, id, ""},
		{methodAcquire, encode(&rationv1.AcquireResponse{Of: &rationv1.AcquireResponse_Standing{}}), codeOverLimit, "", ""},
		{methodAcquire, acquired[:len(acquired)-5], 0, "", "malformed"},
		{methodSettle, encode(&rationv1.SettleResponse{State: rationv1.State_STATE_SETTLED, Cost: 7}), codeOK, "", ""},
		{methodSettle, encode(&rationv1.SettleResponse{State: rationv1.State_STATE_LAPSED}), codeOK, "", "STATE_LAPSED"},
		{methodSettle, nil, codeOK, "", "STATE_UNSPECIFIED"},
	} {
		code, id, err := test.method.outcome(test.answer)
		if test.wrong == "" && (err != nil || code != test.code || id != test.id) ||
			test.wrong != "" && (err == nil || !strings.Contains(err.Error(), test.wrong)) {
			t.Errorf("%d, %x: %v, %q, %v; want %v, %q, %q", test.method, test.answer, code, id, err, test.code, test.id, test.wrong)
		}
	}
}

func TestAccountsThatCannotBeAsked(t *testing.T) {
	for _, attribute := range []string{"user", "=x", "user={key%0}"} {
		mix := accountMix()
		mix.Account.Attributes = []string{attribute}
		if _, err := mix.encode(); err == nil || !strings.Contains(err.Error(), attribute) {
			t.Errorf("attribute %q: %v", attribute, err)
		}
	}
	if err := (Plan{Mix: accountMix(), Rate: 5, MaxInFlight: 1, Duration: time.Second}).validate(); err == nil {
		t.Error("an open loop of calls that follow others")
	}
}
