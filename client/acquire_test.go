package client_test

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/stats"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/rationhq/ration/client"
	rationv1 "github.com/rationhq/ration/gen/ration/v1"
)

// waiting acquires for a user in the background. It returns when the call waits, and sends what comes of it.
func waiting(t *testing.T, c *client.Client, user string, turn client.Turn) <-chan result {
	t.Helper()
	done, waits, tell := make(chan result, 1), make(chan client.Standing, 1), turn.Tell
	turn.Lane, turn.Tell = "one", func(s client.Standing) {
		if tell != nil {
			tell(s)
		}
		select {
		case waits <- s:
		default:
		}
	}
	go func() {
		lease, err := c.Acquire(t.Context(), call(user, client.Usage{Input: 10}), turn)
		done <- result{lease, err}
	}()
	select {
	case <-waits:
	case r := <-done:
		t.Fatalf("%s did not wait: %+v", user, r)
	}
	return done
}

type result struct {
	lease *client.Lease
	err   error
}

// end settles what came of waiting.
func (r result) end(t *testing.T) {
	t.Helper()
	if r.err != nil {
		t.Fatal(r.err)
	}
	if _, err := r.lease.Settle(t.Context(), client.Usage{Input: 10}); err != nil {
		t.Fatal(err)
	}
}

// TestAcquire: where nobody waits it is one's turn at once, else when the one before has ended.
func TestAcquire(t *testing.T) {
	c := connect(t, serve(t).addr, client.Options{})
	first, err := c.Acquire(t.Context(), call("alice", client.Usage{Input: 10}), client.Turn{Lane: "one"})
	if err != nil {
		t.Fatal(err)
	}
	if w := first.Decision.Waited; w.Lane != "one" || w.Ended != "turn" || first.Decision.Verdict != client.Admitted {
		t.Errorf("alone it has waited so: %+v", w)
	}
	bob := waiting(t, c, "bob", client.Turn{})
	carol := waiting(t, c, "carol", client.Turn{})
	result{lease: first}.end(t)
	second := <-bob
	if second.err != nil || second.lease.Decision.Waited.For <= 0 {
		t.Fatalf("bob: %+v", second)
	}
	select {
	case r := <-carol:
		t.Fatalf("carol has had her turn beside bob: %+v", r)
	case <-time.After(20 * time.Millisecond):
	}
	second.end(t)
	(<-carol).end(t)
	expect(t, c, "bob", 10, 0)
}

// TestAcquireInVain: who has waited for too long, or finds no place in line, is told so.
func TestAcquireInVain(t *testing.T) {
	c := connect(t, serve(t).addr, client.Options{})
	first, err := c.Acquire(t.Context(), call("alice", client.Usage{Input: 10}), client.Turn{Lane: "one"})
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	var refusal *client.Refusal
	_, err = c.Acquire(t.Context(), call("bob", client.Usage{Input: 10}), client.Turn{Lane: "one", Longest: 30 * time.Millisecond})
	if !errors.As(err, &refusal) {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	refusal.WriteResponse(w)
	if d := refusal.Decision; d.Verdict != client.Throttled || d.Waited.Ended != "too_long" || d.Waited.Position != 1 ||
		!strings.Contains(d.Message, "first in line") || w.Code != 429 || w.Header().Get("Retry-After") == "" {
		t.Errorf("%+v\n%d %v", d, w.Code, w.Header())
	}
	for range 2 {
		waiting(t, c, "bob", client.Turn{})
	}
	_, err = c.Acquire(t.Context(), call("bob", client.Usage{Input: 10}), client.Turn{Lane: "one"})
	if !errors.As(err, &refusal) || refusal.Waited.Ended != "full_for_subject" {
		t.Errorf("a third call of bob's: %v", err)
	}
	waiting(t, c, "carol", client.Turn{})
	_, err = c.Acquire(t.Context(), call("dora", client.Usage{Input: 10}), client.Turn{Lane: "one"})
	if !errors.As(err, &refusal) || refusal.Waited.Ended != "full" || refusal.Waited.Waiting != 3 {
		t.Errorf("a fourth that waits: %v", err)
	}
	if _, err := c.Acquire(t.Context(), call("dora", client.Usage{}), client.Turn{Lane: "ones"}); err == nil || !strings.Contains(err.Error(), "did you mean one?") {
		t.Errorf("a lane that is not there: %v", err)
	}
}

// TestAcquireKeepsItsPlace: when the connection breaks, the call has the same place by another one.
func TestAcquireKeepsItsPlace(t *testing.T) {
	s := serve(t)
	c := connect(t, s.addr, client.Options{})
	first, err := c.Acquire(t.Context(), call("alice", client.Usage{Input: 10}), client.Turn{Lane: "one"})
	if err != nil {
		t.Fatal(err)
	}
	away := connect(t, s.Addr(), client.Options{Retry: client.Retry{First: time.Millisecond, Most: 5 * time.Millisecond}})
	told := make(chan client.Standing)
	var listens atomic.Bool
	bob := waiting(t, away, "bob", client.Turn{Tell: func(s client.Standing) {
		if listens.Load() {
			told <- s
		}
	}})
	s.set(true, false)
	carol := waiting(t, c, "carol", client.Turn{})
	listens.Store(true)
	s.set(false, false)
	if s := <-told; s.Position != 1 {
		t.Errorf("after all bob stands so: %+v", s)
	}
	listens.Store(false)
	result{lease: first}.end(t)
	(<-bob).end(t)
	(<-carol).end(t)
}

// opened counts the connections that are open.
type opened struct{ now, most atomic.Int64 }

func (o *opened) HandleConn(_ context.Context, s stats.ConnStats) {
	switch s.(type) {
	case *stats.ConnBegin:
		n := o.now.Add(1)
		for most := o.most.Load(); n > most && !o.most.CompareAndSwap(most, n); most = o.most.Load() {
		}
	case *stats.ConnEnd:
		o.now.Add(-1)
	}
}

func (*opened) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (*opened) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (*opened) HandleRPC(context.Context, stats.RPCStats)                         {}

// TestManyWait: more calls wait than a server takes over one connection. All of them are in line, and other calls go on. Of
// the connections one is left in the end.
func TestManyWait(t *testing.T) {
	var open opened
	c := connect(t, serve(t).addr, client.Options{Dial: []grpc.DialOption{grpc.WithStatsHandler(&open)}})
	first, err := c.Acquire(t.Context(), call("alice", client.Usage{}), client.Turn{Lane: "crowd"})
	if err != nil {
		t.Fatal(err)
	}
	const many = 600
	var all sync.WaitGroup
	inLine := make(chan struct{}, many)
	for range many {
		all.Go(func() {
			turn := client.Turn{Lane: "crowd", Tell: func(s client.Standing) {
				if s.Waiting == many {
					inLine <- struct{}{}
				}
			}}
			lease, err := c.Acquire(t.Context(), call("bob", client.Usage{}), turn)
			if err == nil {
				_, err = lease.Release(t.Context())
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	select {
	case <-inLine:
	case <-time.After(patience):
		t.Error("not all are in line")
	}
	result{lease: first}.end(t)
	all.Wait()
	eventually(t, "one connection is left", func() error {
		if now, most := open.now.Load(), open.most.Load(); now != 1 || most < 4 || most > 20 {
			return fmt.Errorf("%d are open, there were %d", now, most)
		}
		return nil
	})
}

// TestReserveWaits: who asks by the connection of a client to wait is not asked again meanwhile, as who is silent is.
func TestReserveWaits(t *testing.T) {
	c := connect(t, serve(t).addr, client.Options{Retry: impatient()})
	first, err := c.Acquire(t.Context(), call("alice", client.Usage{Input: 10}), client.Turn{Lane: "one"})
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	for wait, want := range map[*rationv1.Wait]time.Duration{
		{Lane: "brief"}: 800 * time.Millisecond, {Lane: "one", Longest: durationpb.New(700 * time.Millisecond)}: 700 * time.Millisecond,
	} {
		held, err := c.Acquire(t.Context(), call("carol", client.Usage{}), client.Turn{Lane: "brief", Longest: time.Millisecond})
		if err == nil {
			defer held.Close()
		}
		a, err := rationv1.NewAccountingServiceClient(c.Conn()).Reserve(t.Context(), &rationv1.ReserveRequest{
			Caller:         &rationv1.Caller{Domain: "llm", Model: "small", Attributes: map[string]string{"user": "bob"}},
			IdempotencyKey: client.NewKey(), Wait: wait,
		})
		if w := a.GetDecision().GetWaited(); err != nil || w.GetEnded() != rationv1.WaitEnd_WAIT_END_TOO_LONG || w.GetWaited().AsDuration() < want {
			t.Errorf("%v: %v %v", wait, w, err)
		}
	}
}
