package server

import (
	"fmt"
	"net"
	"net/http"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/reflection"

	rationv1 "github.com/rationhq/ration/gen/ration/v1"
	"github.com/rationhq/ration/server/access"
	"github.com/rationhq/ration/server/failure"
	"github.com/rationhq/ration/server/gateway"
	"github.com/rationhq/ration/server/recovery"
)

// mayAdminister reports why AdminService may not listen at an address: where nobody is asked who calls, whoever reaches it
// may change everything, so only those may who are on the same machine.
func mayAdminister(at net.Addr, callers *access.Callers) error {
	if isLocal(at) || callers != nil {
		return nil
	}
	return fmt.Errorf("listen for admin on %s: others than this machine reach it, and nobody could say who they are: "+
		"give them tokens, or name their certificates (--access FILE), listen on a loopback address (--admin-addr 127.0.0.1:8082), or not at all "+
		"(--admin-addr '')", at)
}

// newAdminGRPC serves AdminService over gRPC.
func newAdminGRPC(service rationv1.AdminServiceServer, guard *recovery.Guard, gate *access.Gate, stopping <-chan struct{}) *grpc.Server {
	const receive = 2 << 20 // a policy of 1 MiB with room to spare
	s := grpc.NewServer(
		grpc.MaxRecvMsgSize(receive),
		grpc.ChainUnaryInterceptor(failure.Unary, guard.Unary, gate.Unary),
		grpc.ChainStreamInterceptor(failure.Stream, gate.Stream, endStreams(stopping, guard)),
	)
	rationv1.RegisterAdminServiceServer(s, service)
	reflection.Register(s)
	return s
}

// adminHandler serves gRPC and JSON on one port: what is called as gRPC is, over HTTP/2, and all else is JSON.
func adminHandler(overGRPC http.Handler, service rationv1.AdminServiceServer, guard *recovery.Guard, gate *access.Gate) http.Handler {
	json := gateway.New(gateway.Options{Unary: gate.Unary, Guard: guard})
	rationv1.RegisterAdminServiceServer(json, service)
	var others http.Handler = json
	if gate.Callers == nil {
		others = notByName(json)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor == 2 && strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
			overGRPC.ServeHTTP(w, r)
			return
		}
		others.ServeHTTP(w, r)
	})
}

// gRPCToo are the protocols of an address that serves gRPC and JSON.
func gRPCToo(overTLS bool) *http.Protocols {
	p := new(http.Protocols)
	p.SetHTTP1(true)
	p.SetHTTP2(overTLS)
	p.SetUnencryptedHTTP2(!overTLS)
	return p
}
