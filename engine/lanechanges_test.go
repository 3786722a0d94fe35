package engine_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rationhq/ration/engine"
	"github.com/rationhq/ration/lane"
	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/store"
	"github.com/rationhq/ration/store/memory"
)

// reload makes text the policy.
func reload(t testing.TB, e *engine.Engine, text string) {
	t.Helper()
	p, _, err := policy.Parse([]policy.Source{{Name: "llm.yaml", Data: []byte(text)}}, policy.Options{})
	if err != nil {
		t.Fatal(err)
	}
	e.SetPolicy(p)
}

// Who waits when the policy changes is judged by the new one, at once: whatever it was kept waiting by may be gone.
func TestReloadWhileSomeWait(t *testing.T) {
	replaced := func(pairs ...string) string {
		text := laned
		for i := 0; i < len(pairs); i += 2 {
			if !strings.Contains(text, pairs[i]) {
				t.Fatalf("the policy has no %s", pairs[i])
			}
			text = strings.Replace(text, pairs[i], pairs[i+1], 1)
		}
		return text
	}
	lanesAt := strings.Index(laned, "lanes:")
	for name, c := range map[string]struct {
		text string
		want string // what a free user and a pro hear
	}{
		"more places":          {replaced("max_concurrent: 2", "max_concurrent: 3"), "free waits, pro has it"},
		"places for all":       {replaced("max_concurrent: 2", "max_concurrent: 30"), "free has it, pro has it"},
		"no places any more":   {replaced("max_concurrent: 2", "drain: 5/second"), "free has it, pro has it"},
		"another order":        {replaced("max_concurrent: 2", "max_concurrent: 3\n    weighted: { free: 1000, pro: 1, premium: 1 }"), "free waits, pro has it"},
		"fewer tiers":          {replaced(", { name: premium }", "", ", premium: unlimited", "", "max_concurrent: 2", "max_concurrent: 4"), "free has it, pro has it"},
		"no lane any more":     {laned[:lanesAt], "free has it, pro has it"},
		"a limit of one's own": {replaced("max_concurrent: 2", "max_concurrent: 3", "limit: 50/", "limit: 0/"), "free has it, pro is refused"},
		"no domain any more":   {"domain: other\ndescriptors: [ { key: user } ]\n", "free unknown, pro unknown"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := memory.New(memory.Options{})
				defer s.Close()
				e := engine.New(s, engine.Options{})
				defer e.Close()
				reload(t, e, laned)
				for _, user := range []string{"x", "y"} {
					now(t, e, callOf(user, "premium", 1))
				}
				ctx, leave := context.WithCancel(t.Context())
				heard := map[string]*acquired{}
				for _, tier := range []string{"free", "pro"} {
					a := &acquired{}
					heard[tier] = a
					go func() {
						place := &engine.Place{Lane: "provider"}
						var got engine.Admission
						err := e.Acquire(ctx, callOf(tier, tier, 1), place, &got)
						*a = acquired{got, err}
					}()
				}
				synctest.Wait()
				reload(t, e, c.text)
				time.Sleep(500 * time.Millisecond) // as long as a drain takes, and no beat
				synctest.Wait()
				var words []string
				for _, tier := range []string{"free", "pro"} {
					word := " has it"
					switch a := heard[tier]; {
					case errors.Is(a.err, engine.ErrUnknownDomain):
						word = " unknown"
					case a.err != nil:
						word = a.err.Error()
					case a.Over:
						word = " is refused"
					case a.ID == engine.ReservationID{}:
						word = " waits"
					}
					words = append(words, tier+word)
				}
				expect(t, "they hear", strings.Join(words, ", "), c.want)
				leave()
				synctest.Wait()
			})
		})
	}
}

// away is a store that does not answer for a while.
type away struct {
	*memory.Store
	is atomic.Bool
}

func (a *away) answer() error {
	if a.is.Load() {
		return fmt.Errorf("%w: it is away", store.ErrUnavailable)
	}
	return nil
}

func (a *away) Apply(ctx context.Context, step *store.Step, out *store.Outcome) error {
	if err := a.answer(); err != nil {
		return err
	}
	return a.Store.Apply(ctx, step, out)
}

func (a *away) Line(ctx context.Context, name []byte, spec *lane.Spec, step *lane.Step) (lane.Outcome, error) {
	if err := a.answer(); err != nil {
		return lane.Outcome{}, err
	}
	return a.Store.Line(ctx, name, spec, step)
}

// While nobody can say whether there is room who waits waits on, if its limits want an error then; and hears of that when it
// has waited long enough.
func TestStoreIsAwayWhileSomeWait(t *testing.T) {
	for _, c := range []struct {
		onError string
		back    time.Duration
		want    string
	}{
		{"error", 5 * time.Second, "has it after 5s"},
		{"error", time.Hour, "the store is unavailable: it is away after 20s"},
		{"allow", time.Hour, "has it after 3s"},
		{"deny", time.Hour, "is refused after 3s"},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := &away{Store: memory.New(memory.Options{})}
			defer s.Close()
			e := engine.New(s, engine.Options{})
			defer e.Close()
			reload(t, e, strings.Replace(laned, "max_concurrent: 2", "max_concurrent: 2\n    on_store_error: "+c.onError, 1))
			first := now(t, e, callOf("x", "pro", 1))
			now(t, e, callOf("y", "pro", 1))
			began, done := time.Now(), make(chan acquired)
			go func() {
				var a acquired
				a.err = e.Acquire(t.Context(), callOf("z", "pro", 1), &engine.Place{Lane: "provider"}, &a.Admission)
				done <- a
			}()
			synctest.Wait()
			s.is.Store(true)
			time.AfterFunc(c.back, func() {
				s.is.Store(false)
				if err := e.Settle(context.Background(), &engine.Report{ID: first.ID}, new(engine.Settlement)); err != nil {
					t.Error(err)
				}
			})
			heard := "has it"
			switch a := <-done; {
			case a.err != nil:
				heard = a.err.Error()
			case a.Over:
				heard = "is refused"
			}
			expect(t, c.onError, fmt.Sprint(heard, " after ", time.Since(began).Round(time.Second)), c.want)
		})
	}
}

// Who waits when the server stops is told so, and has its old place by another one; and whoever holds a place keeps it.
func TestStopWhileSomeWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.New(memory.Options{})
		defer s.Close()
		one, other := engine.New(s, engine.Options{}), engine.New(s, engine.Options{})
		defer other.Close()
		for _, e := range []*engine.Engine{one, other} {
			reload(t, e, laned)
		}
		first, second := now(t, one, callOf("x", "pro", 1)), now(t, one, callOf("y", "pro", 1))
		keyed := callOf("a", "pro", 1)
		keyed.Key = "a's call"
		stopped, without := acquire(t, one, keyed), acquire(t, one, callOf("b", "pro", 1))
		behind := acquire(t, other, callOf("c", "pro", 1))
		one.StopWaiting()
		for _, done := range []<-chan acquired{stopped, without} {
			if a := <-done; !errors.Is(a.err, engine.ErrStopping) {
				t.Errorf("%v %s", a.err, a.Message())
			}
		}
		one.Close()
		again := acquire(t, other, keyed)
		settle(t, other, first, 1)
		a := <-again
		waitsStill(t, behind)
		settle(t, other, second, 1)
		settle(t, other, <-behind, 1)
		settle(t, other, a, 1)
	})
}

// Who waits by two processes under one key has one turn, by the one to which it came last; the other one tells what came of it
// when it would have given up.
func TestWaitsByTwoProcesses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.New(memory.Options{})
		defer s.Close()
		one, other := engine.New(s, engine.Options{}), engine.New(s, engine.Options{})
		defer one.Close()
		defer other.Close()
		for _, e := range []*engine.Engine{one, other} {
			reload(t, e, laned)
		}
		first := now(t, one, callOf("x", "pro", 1))
		now(t, one, callOf("y", "pro", 1))
		keyed := callOf("a", "pro", 1)
		keyed.Key = "a's call"
		here, there := acquire(t, one, keyed), acquire(t, other, keyed)
		settle(t, one, first, 1)
		a := <-there
		settle(t, other, a, 1)
		if b := <-here; b.err != nil || b.Over || !b.Replayed || b.ID != a.ID || b.Waiting.For != 20*time.Second {
			t.Errorf("%v %s, replayed %v, %+v", b.err, b.Message(), b.Replayed, b.Waiting)
		}
		if n := sayLimits(bench{one, nil, s}.askIn(t, "llm", hits(0, "user=a", "ration.tier=pro"))); n != "OK requests:1" {
			t.Errorf("it is counted as %s", n)
		}
	})
}
