package api_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"

	rationv1 "github.com/rationhq/ration/gen/ration/v1"
	"github.com/rationhq/ration/server/api"
	"github.com/rationhq/ration/server/gateway"
)

// A call that waits by Reserve is not cut off by what bounds others over HTTP: it has its answer when it has waited as long
// as it may.
func TestReserveWaitsOverHTTP(t *testing.T) {
	for wait, lasts := range map[string]time.Duration{
		`{"lane": "one"}`: 40 * time.Second, `{"lane": "one", "longest": "35s"}`: 35 * time.Second,
		`{"lane": "one", "longest": "3600s"}`: 40 * time.Second, `{"lane": "one", "longest": "300000000000s"}`: 40 * time.Second,
	} {
		synctest.Test(t, func(t *testing.T) {
			s := newService(t, &watched{})
			if _, err := s.Reserve(t.Context(), &rationv1.ReserveRequest{Caller: alice(), Wait: &rationv1.Wait{Lane: "one"}}); err != nil {
				t.Fatal(err)
			}
			g := gateway.New(gateway.Options{Waits: api.Waits})
			rationv1.RegisterAccountingServiceServer(g, s)
			r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/ration.v1.AccountingService/Reserve",
				strings.NewReader(`{"caller": {"domain": "llm", "attributes": {"user": "bob"}}, "wait": `+wait+`}`))
			r.Header.Set("Content-Type", "application/json")
			w := httptest.NewRecorder()
			began := time.Now()
			g.ServeHTTP(w, r)
			var a rationv1.ReserveResponse
			if err := protojson.Unmarshal(w.Body.Bytes(), &a); err != nil || w.Code != http.StatusOK {
				t.Fatalf("%s: %d %s %v", wait, w.Code, w.Body, err)
			}
			if waited := time.Since(began); waited != lasts || a.GetDecision().GetWaited().GetEnded() != rationv1.WaitEnd_WAIT_END_TOO_LONG {
				t.Errorf("%s: after %v, want %v: %v", wait, waited, lasts, a.GetDecision().GetWaited())
			}
		})
	}
}

// Only what asks to wait may take longer.
func TestWaits(t *testing.T) {
	for _, r := range []any{&rationv1.ReserveRequest{}, &rationv1.CheckRequest{}, &rationv1.SettleRequest{}} {
		if waits := api.Waits(r); waits != 0 {
			t.Errorf("%T: %v", r, waits)
		}
	}
}

// Who has a deadline is told before it that there was no turn.
func TestReserveByADeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService(t, &watched{})
		r := &rationv1.ReserveRequest{Caller: alice(), Wait: &rationv1.Wait{Lane: "one"}}
		if _, err := s.Reserve(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		for deadline, want := range map[time.Duration]time.Duration{
			10 * time.Second: 9950 * time.Millisecond, 100 * time.Millisecond: 90 * time.Millisecond, time.Minute: 40 * time.Second,
		} {
			ctx, cancel := context.WithTimeout(t.Context(), deadline)
			began := time.Now()
			a, err := s.Reserve(ctx, r)
			cancel()
			if waited := time.Since(began); err != nil || waited != want || a.GetDecision().GetWaited().GetEnded() != rationv1.WaitEnd_WAIT_END_TOO_LONG {
				t.Errorf("of %v it has waited %v, want %v: %v %v", deadline, waited, want, a.GetDecision().GetWaited(), err)
			}
		}
	})
}

// deaf is a stream whose client has gone when it is its turn.
type deaf struct {
	grpc.ServerStream
	ctx context.Context //nolint:containedctx // that of the call, which Context returns
}

func (d deaf) Context() context.Context { return d.ctx }

func (deaf) Send(*rationv1.AcquireResponse) error { return errors.New("it has gone") }

// A place that nobody hears of is given back; but it is kept for who has a key to ask for it.
func TestAcquireUnheard(t *testing.T) {
	for key, free := range map[string]bool{"": true, "call-1": false} {
		synctest.Test(t, func(t *testing.T) {
			s := newService(t, &watched{})
			r := &rationv1.AcquireRequest{Caller: alice(), IdempotencyKey: key, Wait: &rationv1.Wait{Lane: "one"}}
			if err := s.Acquire(r, deaf{ctx: t.Context()}); err == nil {
				t.Error("it does not say that its client has gone")
			}
			a, err := s.Reserve(t.Context(), &rationv1.ReserveRequest{Caller: alice(), Wait: &rationv1.Wait{Lane: "one"}})
			if err != nil || (a.GetReservation() != nil) != free {
				t.Errorf("with the key %q the next one hears %v, %v", key, a.GetDecision().GetVerdict(), err)
			}
		})
	}
}
