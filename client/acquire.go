package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	rationv1 "github.com/rationhq/ration/gen/ration/v1"
)

// Turn asks for a turn in a lane.
type Turn struct {
	// Lane is its name; empty: the lane that is bound to the upstream which serves the model.
	Lane string
	// Longest is how long to wait at most; 0, and in any case: as long as the lane lets calls wait, and a little shorter
	// than the deadline of the context.
	Longest time.Duration
	// Tell is told how the call stands, about once a second, while Acquire waits; nil: nobody is. It must not take long.
	Tell func(Standing)
}

// Standing is how a call stands that waits.
type Standing struct {
	// Position is its place in line, 1 for the next one; 0 where nobody knows. Waiting is how many wait.
	Position, Waiting int
	// Expected is how long it will take, as calls were let through of late; 0: nobody knows.
	Expected time.Duration
}

// Waited is how a call has waited in a lane.
type Waited struct {
	Lane string
	// Ended is "turn" where the call had its turn, or was refused by a limit of its own; else why it had none: "too_long",
	// "full" or "full_for_subject".
	Ended string
	For   time.Duration
	// Standing is how it stood when it was refused, and not by a limit of its own.
	Standing
}

func waitedOf(w *rationv1.Waited) Waited {
	if w == nil {
		return Waited{}
	}
	return Waited{
		Lane: w.GetLane(), Ended: word("WAIT_END_", w.GetEnded()), For: w.GetWaited().AsDuration(), Standing: standingOf(w.GetStanding()),
	}
}

func standingOf(s *rationv1.Standing) Standing {
	return Standing{Position: int(s.GetPosition()), Waiting: int(s.GetWaiting()), Expected: s.GetExpectedWait().AsDuration()}
}

// errSilent says that a server has said nothing for long, although it tells who waits how they stand.
var errSilent = status.Error(codes.Unavailable, "the server has said nothing for a while")

// Acquire is Reserve when it is the call's turn in a lane. It waits, without limit where neither the context nor the lane
// has one. Where the connection breaks it asks again with the same key, so that the call keeps its place in line; for as long
// as [Retry] is patient.
//
// Its errors are those of Reserve: a call that has waited in vain is a *Refusal, whose Waited says how.
func (c *Client) Acquire(ctx context.Context, call Call, turn Turn) (*Lease, error) {
	if call.Key == "" {
		call.Key = NewKey()
	}
	answer, err := c.AcquireMessage(ctx, call.acquireRequest(&turn), func(s *rationv1.Standing) {
		if turn.Tell != nil {
			turn.Tell(standingOf(s))
		}
	})
	if err != nil {
		return nil, fmt.Errorf("acquire: %w", err)
	}
	return c.lease(&call, answer)
}

// AcquireMessage is Acquire in the words of the API, for who uses generated stubs: over [Client.Conn] nobody would ask again
// where the connection breaks. The request is to have a key. A refusal is an answer here, and no error. tell must not take
// long.
func (c *Client) AcquireMessage(
	ctx context.Context, request *rationv1.AcquireRequest, tell func(*rationv1.Standing),
) (*rationv1.ReserveResponse, error) {
	retry := c.options.Retry
	heard := time.Now() // when a server did answer
	for pause := retry.First; ; pause = min(2*pause, retry.Most) {
		began := time.Now()
		answer, err := c.acquire(ctx, request, func(s *rationv1.Standing) {
			heard = time.Now()
			tell(s)
		})
		if err == nil {
			return answer, nil
		}
		if heard.After(began) {
			pause = retry.First
		}
		if status.Code(err) != codes.Unavailable || ctx.Err() != nil || time.Since(heard) > retry.Patience || !rest(ctx, pause, err) {
			return nil, err
		}
	}
}

func (c *Call) acquireRequest(turn *Turn) *rationv1.AcquireRequest {
	r := c.request()
	wait := &rationv1.Wait{Lane: turn.Lane}
	if turn.Longest != 0 {
		wait.Longest = durationpb.New(turn.Longest)
	}
	return &rationv1.AcquireRequest{
		Caller: r.Caller, Estimate: r.Estimate, IdempotencyKey: r.IdempotencyKey, Lease: r.Lease, AnswerAs: r.AnswerAs, Wait: wait,
	}
}

// acquire waits on one stream for the answer.
func (c *Client) acquire(
	ctx context.Context, request *rationv1.AcquireRequest, tell func(*rationv1.Standing),
) (*rationv1.ReserveResponse, error) {
	conn, leave, err := c.waiting.take()
	if err != nil {
		return nil, err
	}
	defer leave()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// Who waits hears once a second. A server that is silent for long is not there any more.
	silence := 3 * c.options.Retry.Attempt
	watch := time.AfterFunc(silence, func() { cancel(errSilent) })
	defer watch.Stop()
	stream, err := rationv1.NewAccountingServiceClient(conn).Acquire(ctx, request)
	for err == nil {
		var message *rationv1.AcquireResponse
		if message, err = stream.Recv(); err != nil {
			break
		}
		watch.Reset(silence)
		if answer := message.GetAnswer(); answer != nil {
			return answer, nil
		}
		tell(message.GetStanding())
	}
	switch {
	case errors.Is(context.Cause(ctx), errSilent):
		return nil, errSilent
	case errors.Is(err, io.EOF):
		return nil, status.Error(codes.Unavailable, "the server has ended the stream without an answer")
	}
	return nil, err
}
