package api

import (
	"context"
	"time"

	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/rationhq/ration/engine"
	rationv1 "github.com/rationhq/ration/gen/ration/v1"
	"github.com/rationhq/ration/policy"
)

// Acquire implements rationv1.AccountingServiceServer.
func (s *Service) Acquire(r *rationv1.AcquireRequest, stream rationv1.AccountingService_AcquireServer) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	call := callOf(r.GetCaller(), r.GetEstimate())
	call.Key, call.Lasts, call.API = r.GetIdempotencyKey(), leaseOf(r.GetLease()), apiOf(r.GetAnswerAs())
	place := placeOf(r.GetWait())
	place.Tell = func(standing engine.Standing) {
		told := &rationv1.AcquireResponse{Of: &rationv1.AcquireResponse_Standing{Standing: standingMessage(standing)}}
		if stream.Send(told) != nil {
			cancel() // it hears nothing any more, and has left
		}
	}
	answer, err := s.acquire(ctx, call, &place)
	if err != nil {
		return err
	}
	err = stream.Send(&rationv1.AcquireResponse{Of: &rationv1.AcquireResponse_Answer{Answer: answer}})
	if id, missing := idOf(answer.GetReservation().GetId()); err != nil && missing == nil && call.Key == "" {
		// Nobody knows of the place, nor can ask for it again.
		_ = s.engine.Release(context.WithoutCancel(ctx), id, new(engine.Settlement)) // else it lapses
	}
	return err
}

// acquire reserves a call when it is its turn.
func (s *Service) acquire(ctx context.Context, call *engine.Call, place *engine.Place) (*rationv1.ReserveResponse, error) {
	var a engine.Admission
	err := s.engine.Acquire(ctx, call, place, &a)
	if err != nil && ctx.Err() != nil {
		return nil, status.FromContextError(ctx.Err()).Err() // who waits has left, which is no failure of the store
	}
	if err := decided(&a, err); err != nil {
		return nil, err
	}
	return reserved(&a), nil
}

// reserved is the answer to a call.
func reserved(a *engine.Admission) *rationv1.ReserveResponse {
	return &rationv1.ReserveResponse{Decision: decisionOf(a), Reservation: reservationOf(a), Replayed: a.Replayed}
}

// Waits returns how long a request asks to wait at most, beside what any call takes.
func Waits(request any) time.Duration {
	r, ok := request.(*rationv1.ReserveRequest)
	if !ok || r.GetWait() == nil {
		return 0
	}
	lane := policy.MaxLaneWait.Duration() // the engine knows how long it really is
	if longest := longestOf(r.GetWait().GetLongest()); longest > 0 {
		return min(longest, lane)
	}
	return lane
}

func placeOf(w *rationv1.Wait) engine.Place {
	return engine.Place{Lane: w.GetLane(), Longest: longestOf(w.GetLongest())}
}

// longestOf returns how long to wait; 0 where nobody says, and what the engine refuses where that cannot be.
func longestOf(d *durationpb.Duration) time.Duration {
	if d == nil {
		return 0
	}
	if longest := d.AsDuration(); d.IsValid() && longest > 0 {
		return longest
	}
	return -1
}

func standingMessage(s engine.Standing) *rationv1.Standing {
	out := &rationv1.Standing{Position: int32(s.Position), Waiting: int32(s.Waiting)}
	if s.Expected > 0 {
		out.ExpectedWait = durationpb.New(s.Expected)
	}
	return out
}

// waitedOf says how a call has waited; nil where it was in no lane.
func waitedOf(w *engine.Waiting) *rationv1.Waited {
	if w.Lane == nil {
		return nil
	}
	out := &rationv1.Waited{Lane: w.Lane.Name, Waited: durationpb.New(w.For), Ended: endOf(w.Ended)}
	if out.Ended != rationv1.WaitEnd_WAIT_END_TURN {
		out.Standing = standingMessage(w.Standing)
	}
	return out
}

func endOf(e engine.WaitEnd) rationv1.WaitEnd {
	switch e {
	case engine.WaitedForTurn:
		return rationv1.WaitEnd_WAIT_END_TURN
	case engine.WaitedTooLong:
		return rationv1.WaitEnd_WAIT_END_TOO_LONG
	case engine.LineFull:
		return rationv1.WaitEnd_WAIT_END_FULL
	case engine.LineFullOfSubject:
		return rationv1.WaitEnd_WAIT_END_FULL_FOR_SUBJECT
	default:
		return rationv1.WaitEnd_WAIT_END_UNSPECIFIED
	}
}
