package server

import (
	"google.golang.org/grpc"

	"github.com/rationhq/ration/engine"
	"github.com/rationhq/ration/server/failure"
	"github.com/rationhq/ration/server/recovery"
)

// endStreams ends, once stopping is closed, the calls that would last as long as their client likes:
// those that watch events or the health, or use reflection. Nothing is lost with them, and the graceful end of
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
			return failure.Unavailable(failure.Stopping, "the server stops", engine.Soon().Duration())
		}
	}
}

// chain runs inner within outer, as a gRPC server does.
func chain(outer, inner grpc.StreamServerInterceptor) grpc.StreamServerInterceptor {
	return func(service any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		return outer(service, stream, info, func(service any, stream grpc.ServerStream) error {
			return inner(service, stream, info, handler)
		})
	}
}
