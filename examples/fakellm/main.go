// Command fakellm speaks Anthropic Messages, OpenAI Chat Completions and OpenAI Responses, for tests and for
// demonstrations of what stands between a caller and a model. It has the providers' formats, rate limits, headers and
// errors, and instead of a model a script: how many tokens of each kind an answer takes, how fast, and what goes wrong.
// What it served to whom is in its ledger, token by token.
//
// It knows nothing of ration, and of Envoy no more than that requests may come through it. Read README.md first, then
// server.go, and call.go.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
)

const description = `An upstream to test with: answers as the model APIs of Anthropic and OpenAI do, as a script says.

Point the base URL of an SDK at it: http://localhost:8090 for Anthropic's, http://localhost:8090/v1 for OpenAI's. What
it served is at /fake/ledger, what requests looked like when they arrived at /fake/requests.`

// program is the command line.
type program struct {
	Addr string `default:"localhost:8090" help:"Where to listen. Port 0 takes a free one; it is printed."`

	options
}

func main() {
	var cli program
	parser := kong.Must(&cli, kong.Name("fakellm"), kong.Description(description))
	_, err := parser.Parse(os.Args[1:])
	parser.FatalIfErrorf(err)

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := cli.run(ctx, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "fakellm:", err)
		os.Exit(1)
	}
}

// run serves until ctx ends, and writes where it listens to out.
func (p *program) run(ctx context.Context, out io.Writer) error {
	handler, err := newServer(p.options)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", p.Addr)
	if err != nil {
		return err
	}
	// Proxies choose: HTTP/1.1, or HTTP/2 without TLS by prior knowledge.
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{Handler: handler, Protocols: protocols, ReadHeaderTimeout: time.Minute}

	fmt.Fprintf(out, "fakellm listens on http://%s\n", listener.Addr())
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	select {
	case err := <-done:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	}
	// A stream may be of any length, so they are not waited for.
	err = server.Close()
	if served := <-done; !errors.Is(served, http.ErrServerClosed) {
		return fmt.Errorf("serve: %w", served)
	}
	return err
}
