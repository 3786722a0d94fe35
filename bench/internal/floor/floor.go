// Package floor is the lower bound that every contestant is compared with: a rate limit service on grpc-go with its
// default settings and its default codec that answers OK at once and does nothing else. In the same way it reserves,
// acquires and settles. What a server costs above
// it is the price of deciding; what lies below it can only be had by replacing parts of grpc-go.
//
// It must not be tuned: no stream workers, no codec of its own, no garbage collector settings.
package floor

import (
	"context"
	"net"

	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc"

	rationv1 "github.com/rationhq/ration/gen/ration/v1"
)

// Serve answers ShouldRateLimit, Reserve, Acquire and Settle on the listener until ctx ends, then returns nil.
func Serve(ctx context.Context, listener net.Listener) error {
	server := grpc.NewServer()
	rlsv3.RegisterRateLimitServiceServer(server, service{})
	rationv1.RegisterAccountingServiceServer(server, accounting{})
	stop := context.AfterFunc(ctx, server.Stop)
	defer stop()
	return server.Serve(listener)
}

type service struct {
	rlsv3.UnimplementedRateLimitServiceServer
}

func (service) ShouldRateLimit(context.Context, *rlsv3.RateLimitRequest) (*rlsv3.RateLimitResponse, error) {
	return &rlsv3.RateLimitResponse{OverallCode: rlsv3.RateLimitResponse_OK}, nil
}

type accounting struct {
	rationv1.UnimplementedAccountingServiceServer
}

func (accounting) Reserve(context.Context, *rationv1.ReserveRequest) (*rationv1.ReserveResponse, error) {
	return admitted(), nil
}

func admitted() *rationv1.ReserveResponse {
	return &rationv1.ReserveResponse{
		Decision:    &rationv1.Decision{Verdict: rationv1.Verdict_VERDICT_ADMITTED},
		Reservation: &rationv1.Reservation{Id: "00000000000000000000000000000000"},
	}
}

func (accounting) Acquire(_ *rationv1.AcquireRequest, stream rationv1.AccountingService_AcquireServer) error {
	return stream.Send(&rationv1.AcquireResponse{Of: &rationv1.AcquireResponse_Answer{Answer: admitted()}})
}

func (accounting) Settle(context.Context, *rationv1.SettleRequest) (*rationv1.SettleResponse, error) {
	return &rationv1.SettleResponse{State: rationv1.State_STATE_SETTLED}, nil
}
