// Package floor is the lower bound that every contestant is compared with: a rate limit service on grpc-go with its
// default settings and its default codec that answers OK at once and does nothing else. What a server costs above
// it is the price of deciding; what lies below it can only be had by replacing parts of grpc-go.
//
// It must not be tuned: no stream workers, no codec of its own, no garbage collector settings.
package floor

import (
	"context"
	"net"

	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc"
)

// Serve answers ShouldRateLimit on the listener until ctx ends, then returns nil.
func Serve(ctx context.Context, listener net.Listener) error {
	server := grpc.NewServer()
	rlsv3.RegisterRateLimitServiceServer(server, service{})
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
