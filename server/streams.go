package server

import (
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/rationhq/ration/server/recovery"
)

// endStreams ends, once stopping is closed, the calls that would last as long as their client likes:
// those that watch the health or use reflection. Nothing is lost with them, and the graceful end of
// the server would wait for them in vain.
func endStreams(stopping <-chan struct{}, guard *recovery.Guard) grpc.StreamServerInterceptor {
	return func(service any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		done := make(chan error, 1)
		// Its stream ends with the return from here, and it ends with its stream.
		go func() { done <- guard.Stream(service, stream, handler) }()
		select {
		case err := <-done:
			return err
		case <-stopping:
			return status.Error(codes.Unavailable, "the server stops")
		}
	}
}
