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
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/rationhq/ration/client"
)

func call(user string, estimate client.Usage) client.Call {
	return client.Call{
		Caller:   client.Caller{Domain: "llm", Model: "small", Attributes: map[string]string{"user": user}},
		Estimate: estimate,
	}
}

// expect fails the test unless so many tokens of a user are used and held.
func expect(t *testing.T, c *client.Client, user string, wantUsed, wantHeld int64) {
	t.Helper()
	if gotUsed, gotHeld := used(t, c, "user", user, "llm.user.tokens"); gotUsed != wantUsed || gotHeld != wantHeld {
		t.Errorf("%s has used %d tokens and holds %d, want %d and %d", user, gotUsed, gotHeld, wantUsed, wantHeld)
	}
}

// TestACall walks through the life of one: what is held is the estimate, what is charged is the usage.
func TestACall(t *testing.T) {
	c := connect(t, serve(t).addr, client.Options{})
	lease, err := c.Reserve(t.Context(), call("alice", client.Usage{Input: 100, Output: 300}))
	if err != nil {
		t.Fatal(err)
	}
	defer lease.Close()
	if d := lease.Decision; d.Verdict != client.Admitted || d.Tier != "free" || d.MaxOutput != 800 || d.EstimatedCost != 700_000 ||
		len(d.Limits) != 2 || d.HTTP.Status != 200 || d.DecidedAt.IsZero() {
		t.Errorf("the decision is %+v", d)
	}
	if lease.Key == "" || lease.ID == "" || lease.Replayed {
		t.Errorf("the lease is %q under the key %q, replayed %t", lease.ID, lease.Key, lease.Replayed)
	}
	expect(t, c, "alice", 0, 400)
	s, err := lease.Settle(t.Context(), client.Usage{Input: 40, CacheRead: 60, Output: 100})
	if err != nil {
		t.Fatal(err)
	}
	if s.State != client.Settled || s.Cost != 270_000 || s.Journaled || len(s.Charges) != 2 || s.Charges[0].Held+s.Charges[0].Charged == 0 {
		t.Errorf("the settlement is %+v", s)
	}
	expect(t, c, "alice", 200, 0)
	if _, err := lease.Settle(t.Context(), client.Usage{}); !errors.Is(err, client.ErrEnded) {
		t.Errorf("another settlement: %v, want ErrEnded", err)
	}
	if err := lease.Close(); err != nil {
		t.Errorf("closing a settled lease: %v", err)
	}
	expect(t, c, "alice", 200, 0)
}

// TestClose: what nobody has ended is settled with what was observed, and given back where nothing was; whatever has
// become of the context.
func TestClose(t *testing.T) {
	c := connect(t, serve(t).addr, client.Options{})
	for _, k := range []struct {
		user     string
		observed []client.Usage
		want     int64
	}{
		{"nothing", nil, 0},
		{"output", []client.Usage{{Output: 20}, {Output: 50}, {Output: 30}}, 150}, // and the prompt of the estimate
		{"all", []client.Usage{{Input: 7, Output: 20}}, 27},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		lease, err := c.Reserve(ctx, call(k.user, client.Usage{Input: 100, Output: 300}))
		if err != nil {
			t.Fatal(err)
		}
		for _, u := range k.observed {
			lease.Observe(u)
		}
		cancel()
		for range 2 {
			if err := lease.Close(); err != nil {
				t.Errorf("%s: %v", k.user, err)
			}
		}
		expect(t, c, k.user, k.want, 0)
	}
	var none *client.Lease
	if err := none.Close(); err != nil {
		t.Errorf("closing no lease: %v", err)
	}
}

// TestRelease gives the request back too.
func TestRelease(t *testing.T) {
	c := connect(t, serve(t).addr, client.Options{})
	lease, err := c.Reserve(t.Context(), call("alice", client.Usage{Input: 100}))
	if err != nil {
		t.Fatal(err)
	}
	if s, err := lease.Release(t.Context()); err != nil || s.State != client.Settled {
		t.Errorf("released: %+v, %v", s, err)
	}
	expect(t, c, "alice", 0, 0)
}

// TestARefusal: it is an error that can be handed on to a person, and no outage.
func TestARefusal(t *testing.T) {
	c := connect(t, serve(t).addr, client.Options{})
	if _, err := c.Record(t.Context(), client.Record{Caller: call("bob", client.Usage{}).Caller, Usage: client.Usage{Input: 990}}); err != nil {
		t.Fatal(err)
	}
	lease, err := c.Reserve(t.Context(), call("bob", client.Usage{Input: 100}))
	var refusal *client.Refusal
	if !errors.As(err, &refusal) || lease != nil {
		t.Fatalf("Reserve: %v, %v, want a refusal", lease, err)
	}
	if refusal.Verdict != client.Exhausted || !strings.HasPrefix(refusal.Error(), "Monthly quota used up") || refusal.RetryAfter <= 0 {
		t.Errorf("the refusal is %+v", refusal)
	}
	w := httptest.NewRecorder()
	refusal.WriteResponse(w)
	if w.Code != 429 || w.Header().Get("Content-Type") != "application/problem+json" || w.Header().Get("X-Should-Retry") != "false" ||
		!strings.Contains(w.Body.String(), `"error":"quota_exhausted"`) {
		t.Errorf("the response is %d %v\n%s", w.Code, w.Header(), w.Body)
	}
	asked := call("bob", client.Usage{Input: 100})
	asked.AnswerAs = client.OpenAIAPI
	if d, err := c.Check(t.Context(), asked); err != nil || !strings.Contains(d.HTTP.Body, `"code":"insufficient_quota"`) {
		t.Errorf("Check, for a client of OpenAI's API: %+v, %v", d.HTTP, err)
	}
	if _, err := c.Reserve(t.Context(), asked); !errors.As(err, &refusal) || !strings.Contains(refusal.HTTP.Body, `"code":"insufficient_quota"`) {
		t.Errorf("Reserve, likewise: %v", err)
	}
	if d, err := c.Check(t.Context(), call("bob", client.Usage{Input: 100})); err != nil || d.Verdict != client.Exhausted {
		t.Errorf("Check: %+v, %v, want the same verdict, and no error", d, err)
	}
	expect(t, c, "bob", 990, 0)
}

// TestMisuse is neither a refusal nor repeated: the status says what is wrong.
func TestMisuse(t *testing.T) {
	c := connect(t, serve(t).addr, client.Options{Journal: t.TempDir()})
	_, err := c.Reserve(t.Context(), client.Call{})
	if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "domain") {
		t.Errorf("a call without a domain: %v, want INVALID_ARGUMENT that names it", err)
	}
	// Nor is it journaled.
	if s, err := c.Record(t.Context(), client.Record{Caller: call("eve", client.Usage{}).Caller, Usage: client.Usage{Input: -1}}); err == nil || s.Journaled {
		t.Errorf("less than no tokens: %+v, %v", s, err)
	}
}

// TestRepeats: what is sent again because its answer was lost counts once, and an outage that is over is not seen.
func TestRepeats(t *testing.T) {
	s := serve(t)
	direct := connect(t, s.addr, client.Options{})
	c := connect(t, s.Addr(), client.Options{Retry: client.Retry{
		First: time.Millisecond, Most: 10 * time.Millisecond, Attempt: 100 * time.Millisecond, Patience: patience,
	}})
	// The connection is there before its answers are lost.
	if _, err := c.Check(t.Context(), call("alice", client.Usage{})); err != nil {
		t.Fatal(err)
	}
	s.set(false, true)
	restored := make(chan struct{})
	go func() {
		defer close(restored)
		eventually(t, "the reservation arrives", func() error {
			if _, held := used(t, direct, "user", "alice", "llm.user.tokens"); held == 0 {
				return errors.New("nothing is held")
			}
			return nil
		})
		s.set(true, false)
		s.set(false, false)
	}()
	lease, err := c.Reserve(t.Context(), call("alice", client.Usage{Input: 100}))
	<-restored
	if err != nil {
		t.Fatal(err)
	}
	if !lease.Replayed {
		t.Error("the reservation that is answered is the first one that was sent, want a repeat")
	}
	expect(t, direct, "alice", 0, 100)
	if err := lease.Close(); err != nil {
		t.Fatal(err)
	}
	expect(t, direct, "alice", 0, 0)
}

// TestASilentServer is asked again, with the same key: what it has done counts once, whatever is answered in the end.
func TestASilentServer(t *testing.T) {
	s := serve(t)
	var attempts atomic.Int64
	c := connect(t, s.Addr(), client.Options{
		Retry: client.Retry{First: time.Millisecond, Most: 10 * time.Millisecond, Attempt: 100 * time.Millisecond, Patience: patience},
		Dial: []grpc.DialOption{grpc.WithChainUnaryInterceptor(func(
			ctx context.Context, method string, request, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption,
		) error {
			attempts.Add(1)
			return invoke(ctx, method, request, reply, conn, options...)
		})},
	})
	expect(t, c, "alice", 0, 0) // so that the connection is there
	silently := func(do func() (replayed bool, err error)) {
		t.Helper()
		attempts.Store(0)
		s.set(false, true)
		var answered sync.WaitGroup
		answered.Go(func() {
			eventually(t, "it is asked again", func() error {
				if n := attempts.Load(); n < 3 {
					return fmt.Errorf("%d attempts", n)
				}
				return nil
			})
			s.set(false, false)
		})
		replayed, err := do()
		answered.Wait()
		if err != nil || !replayed {
			t.Errorf("replayed %t, %v, want the answer to a repeat", replayed, err)
		}
	}
	silently(func() (bool, error) {
		lease, err := c.Reserve(t.Context(), call("alice", client.Usage{Input: 100}))
		return err == nil && lease.Replayed, err
	})
	silently(func() (bool, error) {
		got, err := c.Record(t.Context(), client.Record{Caller: call("alice", client.Usage{}).Caller, Usage: client.Usage{Input: 7}})
		return got.Replayed, err
	})
	expect(t, c, "alice", 7, 100)
}

// TestKeys: a call, or usage, under a key that was there before is that one.
func TestKeys(t *testing.T) {
	c := connect(t, serve(t).addr, client.Options{})
	again := call("alice", client.Usage{Input: 100})
	again.Key = "the call"
	first, err := c.Reserve(t.Context(), again)
	if err != nil {
		t.Fatal(err)
	}
	second, err := c.Reserve(t.Context(), again)
	if err != nil {
		t.Fatal(err)
	}
	if first.Replayed || !second.Replayed || second.ID != first.ID || second.Key != "the call" {
		t.Errorf("the first is %s, the second %s, replayed %t and %t", first.ID, second.ID, first.Replayed, second.Replayed)
	}
	other := again
	other.Estimate.Input = 50
	if _, err := c.Reserve(t.Context(), other); status.Code(err) != codes.AlreadyExists {
		t.Errorf("another call under the key: %v, want ALREADY_EXISTS", err)
	}
	record := client.Record{Caller: again.Caller, Usage: client.Usage{Input: 7}, Requests: 3, Key: "the usage"}
	for i := range 2 {
		if got, err := c.Record(t.Context(), record); err != nil || got.Replayed != (i == 1) {
			t.Errorf("recorded for the time %d: %+v, %v", i+1, got, err)
		}
	}
	expect(t, c, "alice", 7, 100)
}

// TestAnOutage: without a journal it is an error, no later than the context or the patience ends; and Close makes up for it.
func TestAnOutage(t *testing.T) {
	s := serve(t)
	c := connect(t, s.Addr(), client.Options{Retry: impatient(), CloseTimeout: patience})
	lease, err := c.Reserve(t.Context(), call("alice", client.Usage{Input: 100}))
	if err != nil {
		t.Fatal(err)
	}
	s.set(true, false)
	if _, err := c.Reserve(t.Context(), call("alice", client.Usage{Input: 100})); !isOutage(err) {
		t.Errorf("Reserve without a server: %v, want an outage", err)
	}
	if _, err := lease.Settle(t.Context(), client.Usage{Input: 70}); !isOutage(err) {
		t.Errorf("Settle without a server: %v, want an outage", err)
	}
	s.set(false, false)
	if err := lease.Close(); err != nil {
		t.Fatal(err)
	}
	expect(t, c, "alice", 70, 0)
}

// isOutage says that an error is one of those that are to be sent again.
func isOutage(err error) bool {
	return status.Code(err) == codes.Unavailable || status.Code(err) == codes.DeadlineExceeded
}

// TestObserve: the server hears of progress now and then, renews the reservation, and says when it is time to end.
func TestObserve(t *testing.T) {
	c := connect(t, serve(t).addr, client.Options{ProgressEvery: 10 * time.Millisecond})
	lease, err := c.Reserve(t.Context(), call("alice", client.Usage{Input: 100, Output: 300}))
	if err != nil {
		t.Fatal(err)
	}
	defer lease.Close()
	if advice := lease.Observe(client.Usage{Input: 100, Output: 10}); advice != client.Continue {
		t.Errorf("the first advice is %s", advice)
	}
	// Others use what is left, and more: the call can go on until 300 tokens still, and no further.
	if _, err := c.Record(t.Context(), client.Record{Caller: call("alice", client.Usage{}).Caller, Usage: client.Usage{Input: 700}}); err != nil {
		t.Fatal(err)
	}
	for n := int64(20); lease.Observe(client.Usage{Output: n}) != client.WrapUp; n += 10 {
		n = min(n, 150)
		select {
		case advice := <-lease.Advised():
			if advice != client.WrapUp {
				t.Fatalf("the advice is %s, want wrap_up", advice)
			}
		case <-time.After(20 * time.Millisecond):
		case <-t.Context().Done():
			t.Fatal("no advice")
		}
	}
	if advice, most := lease.Advice(); advice != client.WrapUp || most != 200 {
		t.Errorf("the advice is %s at %d tokens, want wrap_up at 200", advice, most)
	}
	lease.Observe(client.Usage{Output: 310})
	select {
	case advice := <-lease.Advised():
		if advice != client.Stop {
			t.Errorf("the advice is %s, want stop", advice)
		}
	case <-time.After(patience):
		t.Fatal("nobody says stop")
	}
}

// TestOneEnd: however many end a lease at once, it ends once.
func TestOneEnd(t *testing.T) {
	c := connect(t, serve(t).addr, client.Options{})
	lease, err := c.Reserve(t.Context(), call("alice", client.Usage{Input: 100}))
	if err != nil {
		t.Fatal(err)
	}
	var ends sync.WaitGroup
	var mu sync.Mutex
	settled := 0
	for i := range 8 {
		ends.Go(func() {
			_, err := lease.Settle(t.Context(), client.Usage{Input: int64(10 * (i + 1))})
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				settled++
			} else if !errors.Is(err, client.ErrEnded) {
				t.Error(err)
			}
		})
	}
	ends.Wait()
	if settled != 1 {
		t.Errorf("%d settlements, want one", settled)
	}
}

// TestManyAtOnce: two hundred callers spend exactly what there is.
func TestManyAtOnce(t *testing.T) {
	c := connect(t, serve(t).addr, client.Options{})
	var all sync.WaitGroup
	var mu sync.Mutex
	admitted := 0
	for range 200 {
		all.Go(func() {
			lease, err := c.Reserve(t.Context(), call("crowd", client.Usage{Input: 75}))
			if err != nil {
				if !errors.As(err, new(*client.Refusal)) {
					t.Error(err)
				}
				return
			}
			mu.Lock()
			admitted++
			mu.Unlock()
			if _, err := lease.Settle(t.Context(), client.Usage{Input: 75}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if admitted != 13 {
		t.Errorf("%d calls of 75 of 1,000 were admitted, want 13", admitted)
	}
	expect(t, c, "crowd", 975, 0)
}

func TestNewKeys(t *testing.T) {
	if a, b := client.NewKey(), client.NewKey(); a == b || len(a) != 32 {
		t.Errorf("keys are %s and %s", a, b)
	}
}
