package server

import (
	"context"
	"fmt"
	"net"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	rationv1 "github.com/rationhq/ration/gen/ration/v1"
	"github.com/rationhq/ration/server/failure"
)

// access says who may call what on one listener.
type access struct {
	// open says that whoever reaches the listener may call everything.
	open bool
	// cure says how to open it.
	cure string
}

// accessOn returns the access on a listener: whoever is on the same machine may call everything, others only what is not
// closed, unless the operator lets them in.
func accessOn(at net.Addr, flag string, insecure bool) access {
	return access{
		open: insecure || isLocal(at),
		cure: fmt.Sprintf("listen on a loopback address (%s localhost:PORT), or let everybody in who reaches it (--insecure-api)", flag),
	}
}

// isLocal says that only this machine can connect.
func isLocal(at net.Addr) bool {
	tcp, ok := at.(*net.TCPAddr)
	return !ok || tcp.IP.IsLoopback() // what is not TCP is a socket file
}

// restricted says that a method changes what somebody may spend, or tells what they have.
func restricted(method string) bool {
	return strings.HasPrefix(method, "/"+rationv1.AccountingService_ServiceDesc.ServiceName+"/") ||
		strings.HasPrefix(method, "/"+rationv1.UsageService_ServiceDesc.ServiceName+"/")
}

// Unary answers calls that are not allowed. It is a grpc.UnaryServerInterceptor.
func (a access) Unary(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if !a.open && restricted(info.FullMethod) {
		return nil, failure.New(codes.PermissionDenied, failure.NotPermitted,
			"this address is not only for callers on the same machine, and nobody can say who they are: "+a.cure)
	}
	return handler(ctx, request)
}
