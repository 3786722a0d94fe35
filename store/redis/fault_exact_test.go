package redis_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/rationhq/ration/store"
	"github.com/rationhq/ration/store/redis/redistest"
)

// single is the bucket of the tests that count calls one by one.
func single(m *maker) bucketID { return bucketID{m, "one", plenty} }

// What Redis has run when a call ends without an answer: exactly that is counted, and nothing is sent
// a second time.
func TestOneFaultyCall(t *testing.T) {
	for name, c := range map[string]struct {
		fault   redistest.Fault
		ran     int64
		timeout time.Duration
	}{
		"cut before it ran":      {redistest.Fault{Do: redistest.CutBefore}, 0, calm},
		"cut after it ran":       {redistest.Fault{Do: redistest.CutAfter}, 1, calm},
		"cut within the answer":  {redistest.Fault{Do: redistest.CutWithin}, 1, calm},
		"never arrived":          {redistest.Fault{Do: redistest.SwallowCommand}, 0, timeout},
		"never answered":         {redistest.Fault{Do: redistest.SwallowAnswer}, 1, timeout},
		"arrived when given up":  {redistest.Fault{Delay: 2 * timeout}, 1, timeout},
		"answered when given up": {redistest.Fault{AnswerDelay: 2 * timeout}, 1, timeout},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, c.timeout)
			crowd := newCrowd(t, c.timeout, s.stores...)
			for i := range makers {
				if makers[i].again {
					continue // they send again, on purpose
				}
				before := s.proxy.Seen("EVALSHA", "EVAL")
				s.proxy.Set(redistest.Nth(1, c.fault, "EVALSHA"))
				if err := crowd.call(s.stores[0], single(&makers[i])); !errors.Is(err, store.ErrUnavailable) {
					t.Errorf("%v, want %v", err, store.ErrUnavailable)
				}
				crowd.awaitCounted(s.witness(t), single(&makers[i]), c.ran)
				if n := s.proxy.Seen("EVALSHA", "EVAL") - before; n != 1 {
					t.Errorf("%d commands were sent, want 1", n)
				}
			}
		})
	}
}

// A batch that is cut off fails as a whole, for all who were in it, and is sent once.
func TestFaultyBatch(t *testing.T) {
	t.Parallel()
	for action, share := range map[redistest.Action]int64{redistest.CutBefore: 0, redistest.CutAfter: 1} {
		for i := range makers {
			if makers[i].again {
				continue
			}
			s := newSite(t, calm)
			crowd := newCrowd(t, calm, s.stores...)
			s.proxy.Set(redistest.All(redistest.Fault{Do: action}, "EVALSHA"))
			const callers = 50
			var running sync.WaitGroup
			for range callers {
				running.Go(func() {
					if err := crowd.call(s.stores[0], single(&makers[i])); !errors.Is(err, store.ErrUnavailable) {
						t.Errorf("%v, want %v", err, store.ErrUnavailable)
					}
				})
			}
			running.Wait()
			crowd.awaitCounted(s.witness(t), single(&makers[i]), share*callers)
		}
	}
}

// A script that Redis does not know any more is sent whole, and that is as safe as the rest.
func TestCutAfterTheWholeScript(t *testing.T) {
	t.Parallel()
	for i := range makers {
		if makers[i].again {
			continue
		}
		s := newSite(t, calm)
		crowd := newCrowd(t, calm, s.stores...)
		if err := crowd.call(s.stores[0], single(&makers[i])); err != nil {
			t.Fatal(err)
		}
		flushScripts(t, s)
		s.proxy.Set(redistest.Nth(1, redistest.Fault{Do: redistest.CutAfter}, "EVAL"))
		if err := crowd.call(s.stores[0], single(&makers[i])); !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("%v, want %v", err, store.ErrUnavailable)
		}
		if n := s.proxy.Seen("EVAL"); n != 1 {
			t.Errorf("the script was sent %d times, want once", n)
		}
		crowd.awaitCounted(s.witness(t), single(&makers[i]), 2)
	}
}

// Callers that give up do not take those with them whose calls travel in the same batch.
func TestImpatientNeighbours(t *testing.T) {
	t.Parallel()
	for i := range makers {
		s := newSite(t, calm)
		s.proxy.Set(redistest.All(redistest.Fault{Delay: 100 * time.Millisecond}, "EVALSHA"))
		var running sync.WaitGroup
		for caller := range 40 {
			running.Go(func() {
				wait, want := time.Minute, error(nil)
				if caller%2 == 0 {
					wait, want = 20*time.Millisecond, context.DeadlineExceeded
				}
				ctx, cancel := context.WithTimeout(context.Background(), wait)
				defer cancel()
				var out store.Outcome
				step := makers[i].steps(makers[i].ops("one", plenty, 1), int64(caller))[0]
				if err := s.stores[0].Apply(ctx, step, &out); !errors.Is(err, want) {
					t.Errorf("caller %d: %v, want %v", caller, err, want)
				}
			})
		}
		running.Wait()
		// Of those who gave up, some were on their way already.
		crowd := newCrowd(t, calm, s.stores...)
		if least, most := crowd.counted(s.witness(t), single(&makers[i])); least < 20 || most > 40 {
			t.Errorf("%d…%d are counted, want those of 20 to 40 callers", least, most)
		}
	}
}

// A bucket that becomes unreadable in mid-load is nobody's trouble but its own callers'.
func TestCorruptKeyUnderLoad(t *testing.T) {
	t.Parallel()
	s := newSite(t, calm)
	ctx := context.Background()
	crowd := gather(t, makers, calm, s.stores...)
	for i := range makers {
		m := &makers[i]
		step := func() *store.Step { return m.steps(m.ops("victim", plenty, 1), crowd.calls.Add(1))[0] }
		var out store.Outcome
		if err := s.stores[0].Apply(ctx, step(), &out); err != nil {
			t.Fatal(err)
		}
		keys := s.look.Keys(ctx, "*"+m.name+"*victim*").Val()
		if len(keys) == 0 {
			t.Fatalf("%s: the bucket has no key", m.name)
		}
		for _, key := range keys {
			s.look.Set(ctx, key, "not a counter", time.Hour)
		}
		for n := range 50 {
			if err := s.stores[n%2].Apply(ctx, step(), &out); !errors.Is(err, store.ErrCorrupt) {
				t.Errorf("%s: %v, want %v", m.name, err, store.ErrCorrupt)
			}
		}
	}
	crowd.awaitAnswers(100)
	crowd.verify(s.witness(t), 0)
	if n := crowd.unknown.Load(); n > 0 {
		t.Errorf("%d calls on other buckets had no answer", n)
	}
	s.look.Del(ctx, s.look.Keys(ctx, "*victim*").Val()...)
	for i := range makers {
		var out store.Outcome
		step := makers[i].steps(makers[i].ops("victim", plenty, 1), crowd.calls.Add(1))[0]
		if err := s.stores[0].Apply(ctx, step, &out); err != nil {
			t.Errorf("%s, deleted: %v", makers[i].name, err)
		}
	}
}
