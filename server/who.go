package server

import (
	"fmt"
	"net"

	"github.com/rationhq/ration/server/access"
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
