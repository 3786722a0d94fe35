package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/term"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/rationhq/ration/client"
	rationv1 "github.com/rationhq/ration/gen/ration/v1"
)

// acquire waits for a turn in a lane, and prints the decision.
func (c *reserveCmd) acquire(to streams, estimate *rationv1.Estimate, show func(*rationv1.ReserveResponse) *answer) error {
	server, err := c.client(c.Server)
	if err != nil {
		return err
	}
	defer server.Close()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	request := &rationv1.AcquireRequest{
		Caller: c.caller(), Estimate: estimate, IdempotencyKey: cmp.Or(c.CallKey, client.NewKey()),
		Lease: durationpb.New(time.Duration(c.Lease)), Wait: &rationv1.Wait{Lane: c.Lane},
	}
	if c.Wait != nil {
		request.Wait.Longest = durationpb.New(c.wait())
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.wait()+defaultWait) // and the answer is on its way
		defer cancel()
	}
	line := standingLine{to.err, isTerminal(to.err)}
	said, err := server.AcquireMessage(ctx, request, line.show)
	line.clear()
	switch {
	case errors.Is(ctx.Err(), context.Canceled) && c.CallKey != "":
		return fmt.Errorf("the call waits no more: with --key %s it has its place in line for 15 s yet", c.CallKey)
	case errors.Is(ctx.Err(), context.Canceled):
		return errors.New("the call has left the line")
	case err != nil:
		return fmt.Errorf("%s: %s", c.Server, status.Convert(err).Message())
	}
	return c.Format.print(to.out, show(said))
}

func isTerminal(to io.Writer) bool {
	f, ok := to.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// standingLine is the line of a terminal that says how a call stands that waits.
type standingLine struct {
	to       io.Writer
	terminal bool // else it says nothing
}

// eraseLine goes back to the beginning of the line, and erases it.
const eraseLine = "\r\x1b[K"

func (l standingLine) show(s *rationv1.Standing) {
	if !l.terminal {
		return
	}
	text := fmt.Sprintf("waiting: %d of %d in line", s.GetPosition(), s.GetWaiting())
	if s.GetPosition() == 0 {
		text = "waiting"
	}
	if s.GetExpectedWait() != nil {
		text += fmt.Sprintf(", about %v", s.GetExpectedWait().AsDuration().Round(time.Second/10))
	}
	fmt.Fprint(l.to, eraseLine+text)
}

func (l standingLine) clear() {
	if l.terminal {
		fmt.Fprint(l.to, eraseLine)
	}
}
