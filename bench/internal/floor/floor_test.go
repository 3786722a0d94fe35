package floor

import (
	"context"
	"net"
	"testing"

	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	rationv1 "github.com/rationhq/ration/gen/ration/v1"
)

func TestFloorSaysOKToEverything(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Serve(ctx, listener) }()

	connection, err := grpc.NewClient("passthrough:///"+listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	answer, err := rlsv3.NewRateLimitServiceClient(connection).ShouldRateLimit(t.Context(), &rlsv3.RateLimitRequest{})
	if err != nil || answer.OverallCode != rlsv3.RateLimitResponse_OK || len(answer.Statuses) != 0 {
		t.Errorf("want OK and nothing else, got %v, %v", answer, err)
	}
	accounting := rationv1.NewAccountingServiceClient(connection)
	reserved, err := accounting.Reserve(t.Context(), &rationv1.ReserveRequest{})
	if err != nil || reserved.GetDecision().GetVerdict() != rationv1.Verdict_VERDICT_ADMITTED || len(reserved.GetReservation().GetId()) != 32 {
		t.Errorf("reserved: %v, %v", reserved, err)
	}
	settled, err := accounting.Settle(t.Context(), &rationv1.SettleRequest{})
	if err != nil || settled.GetState() != rationv1.State_STATE_SETTLED {
		t.Errorf("settled: %v, %v", settled, err)
	}
	if err := connection.Close(); err != nil {
		t.Error(err)
	}
	stop()
	if err := <-ended; err != nil {
		t.Errorf("stopped with %v", err)
	}
}
