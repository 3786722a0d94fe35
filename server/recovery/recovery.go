// Package recovery is the last resort against a panic in a call: it ends the call with an error
// instead of the process, counts it, and logs where it came from.
package recovery

import (
	"context"
	"log/slog"
	"runtime/debug"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Guard catches panics. The zero Guard is not ready: see [New].
type Guard struct {
	log    *slog.Logger
	caught atomic.Int64
}

// New returns a guard that reports to log; nil discards.
func New(log *slog.Logger) *Guard {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Guard{log: log}
}

// Caught returns how many panics were caught.
func (g *Guard) Caught() int64 { return g.caught.Load() }

// Catch turns a panic into an error of gRPC. It has to be deferred itself: defer g.Catch(&err).
func (g *Guard) Catch(err *error) {
	if p := recover(); p != nil {
		g.caught.Add(1)
		g.log.Error("a call panicked: please report this", "panic", p, "stack", string(debug.Stack()))
		*err = status.Error(codes.Internal, "internal error: see the server's log")
	}
}

// Unary guards calls with one answer. It is a grpc.UnaryServerInterceptor.
func (g *Guard) Unary(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (_ any, err error) {
	defer g.Catch(&err)
	return handler(ctx, request)
}

// Stream runs the handler of a stream.
func (g *Guard) Stream(service any, stream grpc.ServerStream, handler grpc.StreamHandler) (err error) {
	defer g.Catch(&err)
	return handler(service, stream)
}
