package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"

	rationv1 "github.com/rationhq/ration/gen/ration/v1"
	"github.com/rationhq/ration/server/usage"
)

// watchCmd is ration watch.
type watchCmd struct {
	Domain  string   `env:"-" placeholder:"NAME" help:"Only what happens in this domain."`
	Subject string   `env:"-" placeholder:"KEY=VALUE" help:"Only what happens to this subject, as user=alice."`
	Kind    []string `env:"-" enum:"threshold,refusal,degraded,policy" placeholder:"KIND,…" help:"Only threshold, refusal, degraded or policy. All but refusal."`
	After   string   `env:"-" placeholder:"ID" help:"Begin behind the event with this id. None: with what happens from now on."`
	Format  string   `env:"-" short:"o" enum:"text,json" default:"text" placeholder:"FORMAT" help:"text, or json: all that the server says, an event a line. Default text."`
	Server  string   `default:"localhost:8081" placeholder:"ADDR" help:"The server's gRPC address. Default localhost:8081."`
	reachFlags
}

// Run implements the command. It ends by a signal, or where the server says that watching again would not help.
func (c *watchCmd) Run(to streams) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	server, err := c.client(c.Server)
	if err != nil {
		return err
	}
	defer server.Close()
	w := watching{stub: rationv1.NewUsageServiceClient(server.Conn()), command: c, to: to, after: c.After}
	return w.run(ctx)
}

// watching is a stream of events that goes on where it was interrupted.
type watching struct {
	stub    rationv1.UsageServiceClient
	command *watchCmd
	to      streams
	after   string // what to go on with
	begun   bool   // the server was reached once
	seen    []string
}

const (
	// mostSeen is how many events are remembered, so that none is shown twice.
	mostSeen = 10_000
	// longestWait is the longest pause between two tries to reach the server.
	longestWait = 30 * time.Second
)

func (w *watching) run(ctx context.Context) error {
	firstTry, tries := time.Now(), 0
	for {
		reached, err := w.once(ctx)
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // it was told to end
		case errors.As(err, new(printError)):
			return err
		case !passing(status.Code(err)) || !w.begun && time.Since(firstTry) > w.command.wait():
			return fmt.Errorf("%s: %s", w.command.Server, status.Convert(err).Message())
		}
		if tries++; reached {
			tries = 1
			fmt.Fprintf(w.to.err, "ration: %s: %s: watching again\n", w.command.Server, status.Convert(err).Message())
		}
		pause := min(longestWait, 100*time.Millisecond<<min(tries, 10))
		if !w.begun {
			pause = 100 * time.Millisecond
		}
		wake := time.NewTimer(pause/2 + rand.N(pause)) //nolint:gosec // it spreads clients, and hides nothing
		select {
		case <-ctx.Done():
			wake.Stop()
			return nil
		case <-wake.C:
		}
	}
}

// passing says that watching again may help.
func passing(c codes.Code) bool {
	return slices.Contains([]codes.Code{codes.OK, codes.Unavailable, codes.Aborted, codes.Internal, codes.Unknown, codes.ResourceExhausted,
		codes.DeadlineExceeded, codes.Canceled}, c)
}

// printError is why an event could not be printed.
type printError struct{ error }

// once watches until the stream ends, which reached the server or did not.
func (w *watching) once(ctx context.Context) (reached bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c := w.command
	stream, err := w.stub.WatchEvents(ctx, &rationv1.WatchEventsRequest{Domain: c.Domain, Subject: c.Subject, Kinds: c.Kind, After: w.after})
	if err != nil {
		return false, err
	}
	header, err := stream.Header()
	if err != nil {
		return false, err
	}
	if from := header.Get(usage.AfterHeader); len(from) > 0 {
		if reached, w.begun = true, true; w.after == "" {
			w.after = from[0]
		}
	}
	for {
		e, err := stream.Recv()
		if err != nil {
			return reached, err
		}
		if w.after = e.GetId(); slices.Contains(w.seen, e.GetId()) {
			continue
		}
		if w.seen = append(w.seen, e.GetId()); len(w.seen) > mostSeen {
			w.seen = slices.Delete(w.seen, 0, mostSeen/2)
		}
		if err := w.print(w.to.out, e); err != nil {
			return reached, printError{err}
		}
	}
}

// print prints an event on a line.
func (w *watching) print(to io.Writer, e *rationv1.WatchEventsResponse) error {
	if w.command.Format == "json" {
		text, err := protojson.Marshal(e)
		if err != nil {
			return err
		}
		var line bytes.Buffer
		if err := json.Compact(&line, text); err != nil {
			return err
		}
		_, err = fmt.Fprintf(to, "%s\n", line.Bytes())
		return err
	}
	parts := []string{when(e.GetTime()), e.GetKind()}
	if percent := e.GetThresholdPercent(); percent > 0 {
		parts = append(parts, fmt.Sprintf("%d%%", percent))
	}
	for _, part := range []string{e.GetDomain(), e.GetSubject(), e.GetLimit()} {
		if part != "" {
			parts = append(parts, visible(part))
		}
	}
	_, err := fmt.Fprintf(to, "%s: %s\n", strings.Join(parts, " "), visible(e.GetMessage()))
	return err
}
