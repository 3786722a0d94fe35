package engine_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rationhq/ration/engine"
	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/price"
	"github.com/rationhq/ration/store"
	"github.com/rationhq/ration/store/memory"
)

const laned = `
domain: llm
tiers: [ { name: free }, { name: pro }, { name: premium } ]
trust_tier: true
descriptors:
  - key: user
    subject: true
    limits:
      - name: requests
        meter: requests
        algorithm: fixed_window
        tiers: { free: { limit: 3/365 days }, pro: { limit: 50/365 days }, premium: unlimited }
upstreams:
  - name: provider
    models: [ small ]
    limits:
      - { name: tokens, meter: output_tokens, algorithm: token_bucket, rate: 1_000/second, burst: 1_000 }
lanes:
  - name: provider
    upstream: provider
    max_concurrent: 2
    max_wait: 20s
    max_waiting: { total: 100, per_subject: 5 }
`

// lanedBench is an engine on a store by the real clock: callers wait.
func lanedBench(t testing.TB, text string) *engine.Engine {
	s := memory.New(memory.Options{})
	e := engine.New(s, engine.Options{})
	t.Cleanup(func() { e.Close(); s.Close() })
	p, _, err := policy.Parse([]policy.Source{{Name: "llm.yaml", Data: []byte(text)}}, policy.Options{})
	if err != nil {
		t.Fatal(err)
	}
	e.SetPolicy(p)
	return e
}

func callOf(user, tier string, output int64) *engine.Call {
	return &engine.Call{
		Caller: engine.Caller{Domain: "llm", Attributes: []policy.Entry{{Key: "user", Value: user}}, Model: "small", Tier: tier},
		Usage:  price.Usage{Output: output},
	}
}

// acquired is what came of waiting.
type acquired struct {
	engine.Admission
	err error
}

// acquire waits in the background. It returns when the call waits, or has its answer.
func acquire(t testing.TB, e *engine.Engine, c *engine.Call) <-chan acquired {
	t.Helper()
	done, waits := make(chan acquired, 1), make(chan struct{})
	var once sync.Once
	go func() {
		var a acquired
		a.err = e.Acquire(t.Context(), c, &engine.Place{Lane: "provider", Tell: func(engine.Standing) { once.Do(func() { close(waits) }) }}, &a.Admission)
		done <- a
		once.Do(func() { close(waits) })
	}()
	<-waits
	return done
}

// now is the answer to a call that does not wait.
func now(t testing.TB, e *engine.Engine, c *engine.Call) acquired {
	t.Helper()
	select {
	case a := <-acquire(t, e, c):
		return a
	default:
		t.Fatal("the call waits")
		return acquired{}
	}
}

func settle(t testing.TB, e *engine.Engine, a acquired, output int64) {
	t.Helper()
	if a.err != nil || a.Over {
		t.Fatal(a.err, a.Message())
	}
	var s engine.Settlement
	if err := e.Settle(context.Background(), &engine.Report{ID: a.ID, Usage: price.Usage{Output: output}}, &s); err != nil {
		t.Fatal(err)
	}
}

// waitsStill fails the test if a call has its answer.
func waitsStill(t testing.TB, done <-chan acquired) {
	t.Helper()
	select {
	case a := <-done:
		t.Fatalf("the call waits no more: %v %s", a.err, a.Message())
	case <-time.After(10 * time.Millisecond):
	}
}

// ownLimit says that the user's own limit of requests has refused a call, and not the line.
func ownLimit(a *acquired) bool {
	return a.err == nil && a.Over && a.Waiting.Ended == engine.WaitedForTurn && a.Statuses[a.Binding()].Limit.Name == "requests"
}

// A limit of one's own refuses when one comes, and when it is one's turn; it never waits.
func TestOwnLimitsRefuseInALane(t *testing.T) {
	e := lanedBench(t, laned)
	first, second := now(t, e, callOf("a", "free", 1)), now(t, e, callOf("a", "free", 1))
	third := acquire(t, e, callOf("a", "free", 1))  // the third of three
	fourth := acquire(t, e, callOf("a", "free", 1)) // there is room for one more yet
	settle(t, e, first, 1)
	settle(t, e, <-third, 1)
	if a := <-fourth; !ownLimit(&a) || a.Waiting.For <= 0 {
		t.Errorf("when it was its turn: %v %s, %+v", a.err, a.Message(), a.Waiting)
	}
	fill := now(t, e, callOf("b", "pro", 1)) // all places are taken again
	if a := now(t, e, callOf("a", "free", 1)); !ownLimit(&a) {
		t.Errorf("when it came: %v %s, %+v", a.err, a.Message(), a.Waiting)
	}
	settle(t, e, fill, 1)
	settle(t, e, second, 1)
}

// Premium before pro before free, whoever came first.
func TestTiersInALane(t *testing.T) {
	e := lanedBench(t, laned)
	places := []acquired{now(t, e, callOf("x", "pro", 1)), now(t, e, callOf("y", "pro", 1))}
	var order []string
	waits := map[string]<-chan acquired{}
	for _, tier := range []string{"free", "pro", "premium"} {
		waits[tier] = acquire(t, e, callOf(tier, tier, 1))
	}
	for range waits {
		settle(t, e, places[0], 1)
		select {
		case places[0] = <-waits["free"]:
			order = append(order, "free")
		case places[0] = <-waits["pro"]:
			order = append(order, "pro")
		case places[0] = <-waits["premium"]:
			order = append(order, "premium")
		}
	}
	expect(t, "the order", fmt.Sprint(order), "[premium pro free]")
	settle(t, e, places[0], 1)
	settle(t, e, places[1], 1)
}

// One user's burst does not delay the others of a tier: they take turns.
func TestTurnsInALane(t *testing.T) {
	e := lanedBench(t, laned)
	places := []acquired{now(t, e, callOf("x", "pro", 1)), now(t, e, callOf("y", "pro", 1))}
	served := make(chan string, 8)
	follow := func(user string) {
		done := acquire(t, e, callOf(user, "pro", 1))
		go func() {
			a := <-done
			served <- user
			settle(t, e, a, 1)
		}()
	}
	for range 5 {
		follow("batch")
	}
	follow("bob")
	follow("carol")
	settle(t, e, places[0], 1)
	var order []string
	for range 7 {
		order = append(order, <-served)
	}
	expect(t, "the order", fmt.Sprint(order), "[batch bob carol batch batch batch batch]")
	settle(t, e, places[1], 1)
}

// Whose wait ends before there is room stays to its end, and hears how it stood: those who are called shortly before must not
// be told that the next one fits soon, all of them.
func TestEndOfWaitInALane(t *testing.T) {
	e := lanedBench(t, `
domain: llm
descriptors: []
lanes:
  - { name: provider, drain: 5/second, max_wait: 1100ms }
`)
	var served atomic.Int64
	var calls sync.WaitGroup
	for range 12 {
		calls.Go(func() {
			var a acquired
			a.err = e.Acquire(t.Context(), callOf("a", "", 1), &engine.Place{Lane: "provider"}, &a.Admission)
			switch {
			case a.err != nil:
				t.Error(a.err)
			case !a.Over:
				served.Add(1)
				settle(t, e, a, 1) // the line hears that there may be room
			case a.Waiting.Ended != engine.WaitedTooLong || a.Waiting.Position == 0:
				t.Errorf("%s %+v", a.Message(), a.Waiting)
			}
		})
	}
	calls.Wait()
	if n := served.Load(); n == 0 || n == 12 {
		t.Errorf("%d were served", n)
	}
}

// The upstream's limits are waited for; what a settlement gives back is room at once.
func TestUpstreamOfALane(t *testing.T) {
	e := lanedBench(t, strings.Replace(laned, "1_000/second, burst: 1_000", "10/hour, burst: 1_000", 1))
	first := now(t, e, callOf("a", "pro", 900))
	second := acquire(t, e, callOf("b", "pro", 500))
	waitsStill(t, second)
	settle(t, e, first, 100)
	settle(t, e, <-second, 500)
	if a := now(t, e, callOf("c", "pro", 2000)); a.Verdict() != engine.Impossible {
		t.Errorf("a call that never fits: %s", a.Message())
	}
	if a := now(t, e, callOf("c", "pro", 1000)); a.Verdict() != engine.Exhausted || a.Waiting.Ended != engine.WaitedForTurn {
		t.Errorf("a call that does not fit in time: %s %+v", a.Message(), a.Waiting)
	}
}

// A place whose holder has crashed is free when the lease lapses, without anybody saying so.
func TestLapseInALane(t *testing.T) {
	e := lanedBench(t, laned)
	for range 2 {
		c := callOf("crashed", "pro", 1)
		c.Lasts = 200 * limit.Second / 1000
		now(t, e, c)
	}
	began := time.Now()
	settle(t, e, <-acquire(t, e, callOf("b", "pro", 1)), 1)
	if waited := time.Since(began); waited > 10*time.Second {
		t.Errorf("it has waited %v", waited)
	}
}

// Calls that come over Envoy's protocol wait in the same line, and free their place at the stream's end.
func TestLaneOverEnvoy(t *testing.T) {
	e := lanedBench(t, laned)
	ask := func(ctx context.Context, id string, pairs ...string) (d engine.Decision, err error) {
		err = e.Decide(ctx, &engine.Request{Domain: "llm", Descriptors: []engine.Descriptor{
			entries(append([]string{"user=" + id, "ration.tier=pro", "ration.request=" + id, "ration.model=small"}, pairs...)...),
		}}, &d)
		return d, err
	}
	for _, id := range []string{"a", "b"} {
		if d, err := ask(t.Context(), id, "ration.lane=provider"); err != nil || d.Over {
			t.Fatal(err, d.Message())
		}
	}
	c := make(chan engine.Decision, 1)
	go func() {
		d, err := ask(t.Context(), "c", "ration.lane=provider")
		if err != nil {
			t.Error(err)
		}
		c <- d
	}()
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if d, err := ask(short, "d", "ration.lane=provider"); err != nil || !d.Over || d.Verdict() != engine.Throttled || d.Waiting.Ended != engine.WaitedTooLong {
		t.Errorf("who has no time: %v %s %+v", err, d.Message(), d.Waiting)
	}
	if d, err := ask(t.Context(), "a", "ration.phase=done"); err != nil || d.Over {
		t.Error(err, d.Message())
	}
	if d := <-c; d.Over || d.Waiting.For <= 0 {
		t.Errorf("when a place is free: %s %+v", d.Message(), d.Waiting)
	}
	_, err := ask(t.Context(), "e", "ration.lane=providr")
	if err == nil || err.Error() != `descriptors[0].entries: ration.lane: the policy of the domain has no lane "providr": did you mean provider?` {
		t.Error(err)
	}
}

// Who was admitted, and has not heard, hears when it comes again, at once: whoever waits, however full the line is, and
// although its own limits have no more room.
func TestComesAgainInALane(t *testing.T) {
	again := func(t *testing.T, text string) {
		e := lanedBench(t, text)
		first := callOf("a", "free", 1)
		first.Key = "first"
		heard := now(t, e, first)
		overEnvoy := &engine.Request{Domain: "llm", Descriptors: []engine.Descriptor{
			entries("user=a", "ration.tier=free", "ration.request=second", "ration.model=small", "ration.lane=provider"),
		}}
		var d engine.Decision
		if err := e.Decide(t.Context(), overEnvoy, &d); err != nil || d.Over {
			t.Fatal(err, d.Message())
		}
		if err := e.Reserve(t.Context(), callOf("a", "free", 1), new(engine.Admission)); err != nil {
			t.Fatal(err)
		}
		waits := acquire(t, e, callOf("b", "pro", 1))
		for range 2 {
			if a := now(t, e, first); a.err != nil || a.Over || !a.Replayed || a.ID != heard.ID {
				t.Errorf("the first one again: %v %s, replayed %v", a.err, a.Message(), a.Replayed)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			if err := e.Decide(ctx, overEnvoy, &d); err != nil || d.Over {
				t.Errorf("the second one again: %v %s, %+v", err, d.Message(), d.Waiting)
			}
		}
		other := callOf("a", "free", 2)
		other.Key = "first"
		if a := now(t, e, other); !errors.Is(a.err, engine.ErrKeyReused) {
			t.Errorf("another one under its key: %v %s", a.err, a.Message())
		}
		waitsStill(t, waits)
		settle(t, e, heard, 1)
		settle(t, e, <-waits, 1)
	}
	t.Run("where others wait", func(t *testing.T) { again(t, laned) })
	t.Run("where the line is full", func(t *testing.T) {
		again(t, strings.Replace(laned, "total: 100, per_subject: 5", "total: 1, per_subject: 1", 1))
	})
}

// Never more are under way than the lane has places, and everybody has a turn.
func TestPlacesOfALane(t *testing.T) {
	e := lanedBench(t, laned)
	var all sync.WaitGroup
	var under, most, done atomic.Int64
	for i := range 60 {
		all.Go(func() {
			var a engine.Admission
			err := e.Acquire(t.Context(), callOf(fmt.Sprintf("u%d", i%30), "pro", 1), &engine.Place{}, &a)
			if err != nil || a.Over {
				t.Errorf("%v %s", err, a.Message())
				return
			}
			n := under.Add(1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			time.Sleep(2 * time.Millisecond)
			under.Add(-1)
			done.Add(1)
			var s engine.Settlement
			if err := e.Settle(context.Background(), &engine.Report{ID: a.ID, Usage: price.Usage{Output: 1}}, &s); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if most.Load() > 2 || done.Load() != 60 {
		t.Fatalf("%d at a time, %d in all", most.Load(), done.Load())
	}
}

// leaving is a store whose callers leave as soon as it has reserved what they ask for.
type leaving struct {
	*memory.Store
	leave  context.CancelFunc // nil: they stay
	silent bool               // and do not hear that it has
}

func (l *leaving) Apply(ctx context.Context, step *store.Step, out *store.Outcome) error {
	err := l.Store.Apply(ctx, step, out)
	if l.leave != nil && step.Lease != nil && step.Lease.Do == store.LeaseOpen && !out.Refused {
		l.leave()
		if l.silent {
			return ctx.Err()
		}
	}
	return err
}

// Who leaves when it is its turn leaves no place taken, whether it heard that it was its turn or not.
func TestPlaceOfOneWhoLeaves(t *testing.T) {
	for name, ask := range map[string]func(ctx context.Context, e *engine.Engine, id string) (over bool, err error){
		"Decide": func(ctx context.Context, e *engine.Engine, id string) (bool, error) {
			var d engine.Decision
			err := e.Decide(ctx, &engine.Request{Domain: "llm", Descriptors: []engine.Descriptor{{Entries: []policy.Entry{
				{Key: "user", Value: "ann"}, {Key: "ration.model", Value: "small"}, {Key: "ration.tier", Value: "pro"},
				{Key: "ration.request", Value: id}, {Key: "ration.lane", Value: "provider"},
			}}}}, &d)
			return d.Over, err
		},
		"Acquire": func(ctx context.Context, e *engine.Engine, _ string) (bool, error) {
			var a engine.Admission
			err := e.Acquire(ctx, callOf("ann", "pro", 1), &engine.Place{}, &a)
			return a.Over, err
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := &leaving{Store: memory.New(memory.Options{})}
			e := engine.New(s, engine.Options{})
			t.Cleanup(func() { e.Close(); s.Close() })
			p, _, err := policy.Parse([]policy.Source{{Name: "llm.yaml", Data: []byte(laned)}}, policy.Options{})
			if err != nil {
				t.Fatal(err)
			}
			e.SetPolicy(p)
			for i := range 5 {
				ctx, leave := context.WithCancel(t.Context())
				s.leave, s.silent = leave, i%2 == 0
				if _, err := ask(ctx, e, fmt.Sprint("left", i)); !errors.Is(err, context.Canceled) {
					t.Fatalf("who has left is told %v", err)
				}
			}
			s.leave = nil
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			for i := range 2 {
				if over, err := ask(ctx, e, fmt.Sprint("stays", i)); err != nil || over {
					t.Errorf("of both places %d are free: over %v, %v", i, over, err)
				}
			}
		})
	}
}
