package api_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/rationhq/ration/engine"
	rationv1 "github.com/rationhq/ration/gen/ration/v1"
	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/server/api"
	"github.com/rationhq/ration/server/failure"
	"github.com/rationhq/ration/server/recovery"
	"github.com/rationhq/ration/store"
	"github.com/rationhq/ration/store/memory"
)

// watched is a store in memory that counts how many callers it has at once, and may keep them waiting.
type watched struct {
	*memory.Store
	now, most atomic.Int64
	takes     time.Duration
	panics    func(*store.Step) bool
}

func (w *watched) Apply(ctx context.Context, step *store.Step, out *store.Outcome) error {
	n := w.now.Add(1)
	defer w.now.Add(-1)
	for most := w.most.Load(); n > most && !w.most.CompareAndSwap(most, n); most = w.most.Load() {
	}
	if w.panics != nil && w.panics(step) {
		panic("a mistake")
	}
	if w.takes > 0 {
		select {
		case <-time.After(w.takes):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return w.Store.Apply(ctx, step, out)
}

func newService(t *testing.T, w *watched) *api.Service {
	t.Helper()
	w.Store = memory.New(memory.Options{})
	p, _, err := policy.Parse([]policy.Source{{Name: "p", Data: []byte(`
domain: llm
descriptors: [ { key: user, limits: [ { name: tokens, meter: tokens, algorithm: calendar, limit: 1_000_000/year } ] } ]
lanes: [ { name: one, max_concurrent: 1, max_wait: 40s } ]
`)}}, policy.Options{})
	if err != nil {
		t.Fatal(err)
	}
	e := engine.New(w, engine.Options{})
	e.SetPolicy(p)
	t.Cleanup(func() {
		e.Close()
		_ = w.Close()
	})
	return api.New(e, recovery.New(nil))
}

func alice() *rationv1.Caller {
	return &rationv1.Caller{Domain: "llm", Attributes: map[string]string{"user": "alice"}}
}

func record(tokens int64, key string) *rationv1.BatchItem {
	return &rationv1.BatchItem{Report: &rationv1.BatchItem_Record{Record: &rationv1.RecordRequest{
		Caller: alice(), Usage: &rationv1.Usage{InputTokens: tokens}, IdempotencyKey: key,
	}}}
}

// summary says in a word what became of an item.
func summary(r *rationv1.BatchResult) string {
	switch o := r.GetOutcome().(type) {
	case *rationv1.BatchResult_Settled:
		return "settled " + o.Settled.GetState().String()
	case *rationv1.BatchResult_Recorded:
		return fmt.Sprintf("recorded %d", o.Recorded.GetLimits()[0].GetAmount())
	case *rationv1.BatchResult_Released:
		return "released " + o.Released.GetState().String()
	case *rationv1.BatchResult_Error:
		return fmt.Sprintf("%v %s", codes.Code(o.Error.GetCode()), o.Error.GetReason())
	}
	return "nothing"
}

// Each item is carried out by itself, and its result stands where it stood.
func TestBatchSettle(t *testing.T) {
	s := newService(t, &watched{})
	var ids []string
	for range 2 {
		r, err := s.Reserve(t.Context(), &rationv1.ReserveRequest{Caller: alice()})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, r.GetReservation().GetId())
	}
	settle := func(r *rationv1.SettleRequest) *rationv1.BatchItem {
		return &rationv1.BatchItem{Report: &rationv1.BatchItem_Settle{Settle: r}}
	}
	items := []*rationv1.BatchItem{
		settle(&rationv1.SettleRequest{ReservationId: ids[0]}),
		{Report: &rationv1.BatchItem_Release{Release: &rationv1.ReleaseRequest{ReservationId: ids[1]}}},
		{},
		settle(&rationv1.SettleRequest{ReservationId: "x"}),
		settle(&rationv1.SettleRequest{ReservationId: "00000000000000000000000000000001"}),
		settle(&rationv1.SettleRequest{ReservationId: "00000000000000000000000000000002", Caller: alice()}),
	}
	want := []string{
		"settled STATE_SETTLED", "released STATE_SETTLED", "InvalidArgument INVALID_FIELD", "InvalidArgument INVALID_FIELD",
		"NotFound UNKNOWN_RESERVATION", "settled STATE_RECORDED",
	}
	for i := range int64(1000 - len(items)) {
		items, want = append(items, record(i+1, fmt.Sprint("key ", i))), append(want, fmt.Sprintf("recorded %d", i+1))
	}
	out, err := s.BatchSettle(t.Context(), &rationv1.BatchSettleRequest{Items: items})
	if err != nil {
		t.Fatal(err)
	}
	if len(out.GetResults()) != len(want) {
		t.Fatalf("%d results of %d items", len(out.GetResults()), len(want))
	}
	for i, r := range out.GetResults() {
		if got := summary(r); got != want[i] {
			t.Errorf("item %d: %s, want %s", i, got, want[i])
		}
	}
	if message := out.GetResults()[2].GetError().GetMessage(); message != "items[2]: it reports nothing: say settle, record or release" {
		t.Errorf("of an item that says nothing: %s", message)
	}
}

func TestEmptyBatch(t *testing.T) {
	out, err := newService(t, &watched{}).BatchSettle(t.Context(), &rationv1.BatchSettleRequest{})
	if err != nil || len(out.GetResults()) != 0 {
		t.Errorf("got %v, %v", out, err)
	}
}

// A batch has sixteen of its items under way at once. What its deadline cuts off says so, and what it leaves is not
// begun.
func TestBatchUntilItsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &watched{takes: time.Second}
		s := newService(t, w)
		var items []*rationv1.BatchItem
		for i := range 100 {
			items = append(items, record(1, fmt.Sprint(i)))
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2500*time.Millisecond)
		defer cancel()
		out, err := s.BatchSettle(ctx, &rationv1.BatchSettleRequest{Items: items})
		if err != nil {
			t.Fatal(err)
		}
		if w.most.Load() != 16 {
			t.Errorf("%d items at once, want 16", w.most.Load())
		}
		for i, r := range out.GetResults() {
			want := "DeadlineExceeded DEADLINE_PASSED"
			if i < 32 {
				want = "recorded 1"
			}
			if got := summary(r); got != want {
				t.Errorf("item %d: %s, want %s", i, got, want)
			}
			begun := r.GetError().GetMessage() != "the call ended before this report was begun: send it again"
			if begun != (i < 48) {
				t.Errorf("item %d: begun %t", i, begun)
			}
		}
	})
}

// A panic is that of one item.
func TestBatchPanic(t *testing.T) {
	w := &watched{panics: func(step *store.Step) bool { return step.Ops[0].Amount == 7 }}
	out, err := newService(t, w).BatchSettle(t.Context(), &rationv1.BatchSettleRequest{
		Items: []*rationv1.BatchItem{record(6, "a"), record(7, "b"), record(8, "c")},
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"recorded 6", "Internal INTERNAL", "recorded 8"} {
		if got := summary(out.GetResults()[i]); got != want {
			t.Errorf("item %d: %s, want %s", i, got, want)
		}
	}
}

// Whoever runs out of time, or leaves, is told that nobody knows what became of the call.
func TestUnknownOutcome(t *testing.T) {
	for _, c := range []struct {
		err    error
		code   codes.Code
		reason failure.Reason
	}{
		{context.DeadlineExceeded, codes.DeadlineExceeded, failure.DeadlinePassed},
		{context.Canceled, codes.Canceled, failure.CallerLeft},
	} {
		s := newService(t, &watched{takes: time.Hour})
		ctx, cancel := context.WithCancelCause(t.Context())
		stop := func() {}
		if errors.Is(c.err, context.DeadlineExceeded) {
			ctx, stop = context.WithDeadline(ctx, time.Now())
		} else {
			cancel(c.err)
		}
		_, err := s.Record(ctx, record(1, "").GetRecord())
		if status.Code(err) != c.code || failure.ReasonOf(err) != c.reason {
			t.Errorf("got %v with %s, want %v", err, failure.ReasonOf(err), c.code)
		}
		stop()
		cancel(nil)
	}
}
