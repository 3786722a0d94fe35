package server

import (
	"fmt"
	"net"
	"net/http"
	"strings"

	"google.golang.org/grpc/codes"

	"github.com/rationhq/ration/server/access"
	"github.com/rationhq/ration/server/failure"
	"github.com/rationhq/ration/server/gateway"
)

// gateOn returns the gate of a listener. Where there is a file of callers, it is asked everywhere. Without one, whoever is
// on the same machine may call everything, others only what tells nothing of usage, unless the operator lets them in.
func gateOn(at net.Addr, flag string, config *Config) *access.Gate {
	return &access.Gate{
		Callers: config.Access,
		Closed:  !config.InsecureAPI && !isLocal(at),
		Cure: fmt.Sprintf("give them tokens, or name their certificates (--access FILE), listen on a loopback address (%s localhost:PORT), or let everybody "+
			"in who reaches it (--insecure-api)", flag),
	}
}

// isLocal says that only this machine can connect.
func isLocal(at net.Addr) bool {
	tcp, ok := at.(*net.TCPAddr)
	return !ok || tcp.IP.IsLoopback() // what is not TCP is a socket file
}

// notByName is for a listener that takes whoever is on this machine: a page in a browser is, too, if its name has been made
// to lead here. It would send its own name. What programs on this machine send comes by an address, or to localhost.
func notByName(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !namesThisMachine(r.Host) {
			gateway.Refuse(w, failure.New(codes.PermissionDenied, failure.NotPermitted, "the request was sent to a name: "+
				"send it to an address or to localhost, so that no page in a browser can send it here by a name of its own"))
			return
		}
		handler.ServeHTTP(w, r)
	})
}

// namesThisMachine says that a request was sent to an address, or to localhost.
func namesThisMachine(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.Trim(host, "[]")
	return host == "" || host == "localhost" || net.ParseIP(host) != nil
}
