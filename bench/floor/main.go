// Command floor serves the floor of the benchmark, for measuring it by hand with the load command beside it.
// The compare command needs no separate floor: it starts its own. See ../internal/floor for what it is.
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"

	"github.com/rationhq/ration/bench/internal/floor"
)

func main() {
	addr := flag.String("grpc-addr", "127.0.0.1:0", "`address` to listen on; port 0 picks a free one")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "Serves envoy.service.ratelimit.v3.RateLimitService on a bare grpc-go server\n"+
			"that answers OK at once: the lower bound of the benchmark.")
		flag.PrintDefaults()
	}
	flag.Parse()
	if err := run(*addr); err != nil {
		fmt.Fprintln(os.Stderr, "floor:", err)
		os.Exit(1)
	}
}

func run(addr string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	fmt.Printf("serving on %s, pid %d\n", listener.Addr(), os.Getpid())
	return floor.Serve(ctx, listener)
}
