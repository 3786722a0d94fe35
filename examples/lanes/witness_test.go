package main

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	rationv1 "github.com/rationhq/ration/gen/ration/v1"
)

// witness stands where the example thinks that ration is: it hands on what the one asks and the other answers, and notes it.
type witness struct {
	rationv1.UnimplementedAccountingServiceServer

	t  *testing.T
	to rationv1.AccountingServiceClient
	// breaks has each stream break when it has told for the first time how a call stands, and the first answer to each end of
	// a call get lost.
	breaks bool

	mu       sync.Mutex
	streams  map[string]int        // by key: how often it was asked for
	admitted map[string]*admission // by reservation
	refused  []*rationv1.Decision
}

func newWitness(t *testing.T, to rationv1.AccountingServiceClient, breaks bool) *witness {
	return &witness{t: t, to: to, breaks: breaks, streams: map[string]int{}, admitted: map[string]*admission{}}
}

// admission is a call that ration has let through.
type admission struct {
	user, tier string
	at         time.Time     // by the store's clock
	waited     time.Duration // as ration says
	settled    *rationv1.Usage
	released   bool
	ends       int // how often its end was told
}

// Acquire implements rationv1.AccountingServiceServer.
func (w *witness) Acquire(r *rationv1.AcquireRequest, to rationv1.AccountingService_AcquireServer) error {
	from, err := w.to.Acquire(to.Context(), r)
	if err != nil {
		return err
	}
	w.mu.Lock()
	w.streams[r.GetIdempotencyKey()]++
	first := w.streams[r.GetIdempotencyKey()] == 1
	w.mu.Unlock()
	for {
		message, err := from.Recv()
		if err != nil {
			return err
		}
		if err := to.Send(message); err != nil {
			return err
		}
		if answer := message.GetAnswer(); answer != nil {
			w.noteAnswer(r.GetCaller(), answer)
			return nil
		}
		if w.breaks && first {
			return status.Error(codes.Unavailable, "the connection breaks")
		}
	}
}

func (w *witness) noteAnswer(caller *rationv1.Caller, answer *rationv1.ReserveResponse) {
	w.mu.Lock()
	defer w.mu.Unlock()
	d := answer.GetDecision()
	if answer.GetReservation() == nil {
		w.refused = append(w.refused, d)
		return
	}
	id := answer.GetReservation().GetId()
	if w.admitted[id] != nil {
		w.t.Errorf("a call of %v was admitted twice", caller)
	}
	w.admitted[id] = &admission{
		user: caller.GetAttributes()["user"], tier: d.GetTier(), at: d.GetDecidedAt().AsTime(), waited: d.GetWaited().GetWaited().AsDuration(),
	}
}

// Settle implements rationv1.AccountingServiceServer.
func (w *witness) Settle(ctx context.Context, r *rationv1.SettleRequest) (*rationv1.SettleResponse, error) {
	answer, err := w.to.Settle(ctx, r)
	if err == nil {
		err = w.noteEnd(r.GetReservationId(), func(a *admission) { a.settled = r.GetUsage() })
	}
	return answer, err
}

// Release implements rationv1.AccountingServiceServer.
func (w *witness) Release(ctx context.Context, r *rationv1.ReleaseRequest) (*rationv1.ReleaseResponse, error) {
	answer, err := w.to.Release(ctx, r)
	if err == nil {
		err = w.noteEnd(r.GetReservationId(), func(a *admission) { a.released = true })
	}
	return answer, err
}

func (w *witness) noteEnd(reservation string, note func(*admission)) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	a := w.admitted[reservation]
	if a == nil {
		w.t.Errorf("the end of a call was told that was not admitted")
		return nil
	}
	note(a)
	if a.ends++; w.breaks && a.ends == 1 {
		return status.Error(codes.Unavailable, "the connection breaks")
	}
	return nil
}

// inOrder returns the calls that were let through, the first one first.
func (w *witness) inOrder() []*admission {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.SortedFunc(maps.Values(w.admitted), func(a, b *admission) int { return cmp.Compare(a.at.UnixNano(), b.at.UnixNano()) })
}
