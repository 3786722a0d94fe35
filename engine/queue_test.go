package engine_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rationhq/ration/engine"
	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/store"
)

// queues lets reports wait, as many as a test has.
func queues() engine.Options {
	return engine.Options{StoreWait: storeWait, QueuedReports: 1000, QueuedBytes: 10 << 20}
}

// used reports n tokens of a request; an empty id is none.
func used(n uint64, id string) engine.Descriptor {
	pairs := []string{"job=x", "ration.phase=record", "ration.meter=tokens"}
	if id != "" {
		pairs = append(pairs, "ration.request="+id)
	}
	return hits(n, pairs...)
}

func ended(id string) engine.Descriptor {
	return hits(0, "job=x", "ration.phase=done", "ration.request="+id)
}

// metric returns the value of a metric, named as by gather.
func (b *outageBench) metric(t *testing.T, name string) float64 {
	t.Helper()
	value, ok := gather(t, b.metrics)[name]
	if !ok {
		t.Fatalf("there is no %s", name)
	}
	return value
}

// tokensOf returns what is counted of the tokens of job x.
func (b *outageBench) tokensOf(t *testing.T) int64 {
	t.Helper()
	var d engine.Decision
	if err := b.Decide(context.Background(), &engine.Request{Domain: "shop", Descriptors: []engine.Descriptor{hits(0, "job=x")}}, &d); err != nil {
		t.Fatal(err)
	}
	for i := range d.Limits {
		if d.Limits[i].Limit.Name == "tokens" {
			return d.Limits[i].Status.Used
		}
	}
	t.Fatal("the tokens have no limit")
	return 0
}

// What is reported while the store cannot take it waits, and lands when it can; whoever reports has nothing more to do.
func TestReportsWait(t *testing.T) {
	for name, c := range map[string]struct {
		err     error
		stalled bool
		timeout time.Duration // of the caller
	}{
		"it does not answer":            {stalled: true},
		"it does not answer in time":    {stalled: true, timeout: 20 * time.Millisecond},
		"it cannot be reached":          {err: store.ErrUnavailable},
		"it has no room":                {err: store.ErrFull},
		"one of the counters is broken": {err: store.ErrCorrupt},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newOutageBench(t, queues())
				b.store.set(c.err, c.stalled)
				for i := range 10 {
					ctx := t.Context()
					if c.timeout > 0 {
						var cancel context.CancelFunc
						ctx, cancel = context.WithTimeout(ctx, c.timeout)
						defer cancel()
					}
					if got := b.sayWithout(ctx, used(3, fmt.Sprint(i)), ended(fmt.Sprint(i))); got != "OK queued" {
						t.Errorf("report %d: %s, want OK queued", i, got)
					}
					if ctx.Err() != nil {
						t.Errorf("report %d is answered after its caller has stopped waiting", i)
					}
				}
				time.Sleep(10 * time.Minute)
				if got := b.metric(t, "ration_reports_queued"); got != 10 {
					t.Errorf("%v reports wait, want 10", got)
				}
				b.store.set(nil, false)
				time.Sleep(5 * time.Second)
				if got := b.tokensOf(t); got != 30 {
					t.Errorf("%d tokens have landed, want 30", got)
				}
				for metric, want := range map[string]float64{
					"ration_reports_queued": 0, "ration_reports_queued_bytes": 0, "ration_reports_landed_total": 10,
					"ration_degraded_decisions_total on_store_error=report verdict=ok": 10,
				} {
					if got := b.metric(t, metric); got != want {
						t.Errorf("%s is %v, want %v", metric, got, want)
					}
				}
			})
		})
	}
}

// What cannot wait gets the error, as ever: what asks for something, and what gives back; and everything where nothing
// waits.
func TestOnlyReportsWait(t *testing.T) {
	const full = "error: the store has no room for more counters"
	back := used(1, "r")
	back.GiveBack = true
	for name, c := range map[string]struct {
		opts engine.Options
		asks []engine.Descriptor
		want string
	}{
		"a report":                       {queues(), []engine.Descriptor{used(1, "r")}, "OK queued"},
		"the end of a request":           {queues(), []engine.Descriptor{ended("r")}, "OK queued"},
		"a report beside what asks":      {queues(), []engine.Descriptor{used(1, ""), entries("job=y")}, full},
		"what is given back":             {queues(), []engine.Descriptor{back}, full},
		"a report where none may wait":   {engine.Options{}, []engine.Descriptor{used(1, "r")}, full},
		"one that takes too much memory": {engine.Options{QueuedReports: 9, QueuedBytes: 100}, []engine.Descriptor{used(1, "r")}, full},
	} {
		b := newOutageBench(t, c.opts)
		b.store.set(store.ErrFull, false) // nothing is written for certain, so that is no reason not to wait
		if got := b.sayWithout(t.Context(), c.asks...); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

// A request that this process has admitted by itself has ended for it, too, when its report waits.
func TestWaitingReportsFreePlaces(t *testing.T) {
	b := newOutageBench(t, queues())
	b.store.set(store.ErrFull, false)
	for i, want := range []string{"OK", "OK", "OK", "OVER"} {
		if got := b.sayWithout(t.Context(), entries("job=x", fmt.Sprint("ration.request=", i))); !strings.HasPrefix(got, want) {
			t.Fatalf("request %d: %s, want %s", i, got, want)
		}
	}
	b.sayWithout(t.Context(), ended("0"))
	if got := b.sayWithout(t.Context(), entries("job=x", "ration.request=4")); !strings.HasPrefix(got, "OK") {
		t.Errorf("when one has ended: %s, want OK", got)
	}
}

// Who reports waits for a silent store once, though it may be asked twice: for what was reserved, and to take the report. And
// since the report was not put to it, there is no doubt that rules may count it.
func TestReportWaitsOnceForASilentStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newOutageBench(t, queues())
		b.store.set(nil, true)
		began := time.Now()
		if got := b.sayWithout(t.Context(), hits(4, "plain=x", "ration.phase=record", "ration.request=r")); got != "OK queued" {
			t.Errorf("%s, want OK queued", got)
		}
		if took := time.Since(began); took > storeWait {
			t.Errorf("the answer took %v, want %v at most", took, storeWait)
		}
		b.store.set(nil, false)
		time.Sleep(5 * time.Second)
		var d engine.Decision
		if err := b.Decide(t.Context(), &engine.Request{Domain: "shop", Descriptors: []engine.Descriptor{hits(0, "plain=x")}}, &d); err != nil {
			t.Fatal(err)
		}
		if left := d.Statuses[0].Remaining; left != 96 {
			t.Errorf("the rule has %d left, want 96", left)
		}
	})
}

// No more wait than may. The newest get the error: whoever sends them hears that they are lost.
func TestFullQueue(t *testing.T) {
	opts := queues()
	opts.QueuedReports = 2
	b := newOutageBench(t, opts)
	b.store.set(store.ErrFull, false)
	for i, want := range []string{"OK queued", "OK queued", "error: " + store.ErrFull.Error()} {
		if got := b.sayWithout(t.Context(), used(1, fmt.Sprint(i))); got != want {
			t.Errorf("report %d: %s, want %s", i, got, want)
		}
	}
	if got := b.metric(t, "ration_reports_lost_total cause=full"); got != 1 {
		t.Errorf("%v are lost, want 1", got)
	}
	if !strings.Contains(b.log.String(), "usage that was reported is lost") {
		t.Errorf("the log does not say so:\n%s", b.log)
	}
}

// Where there is no room behind a report that waits, the next one of its request is put to the store as others are: it is
// lost only if the store does not take it, and then once.
func TestFullQueueOfARequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opts := queues()
		opts.QueuedReports = 1
		b := newOutageBench(t, opts)
		b.store.set(store.ErrFull, false)
		for i, want := range []string{"OK queued", "error: " + store.ErrFull.Error()} {
			if got := b.sayWithout(t.Context(), used(1, "r")); got != want {
				t.Errorf("report %d: %s, want %s", i, got, want)
			}
		}
		if got := b.metric(t, "ration_reports_lost_total cause=full"); got != 1 {
			t.Errorf("%v are lost, want 1", got)
		}
		b.store.set(nil, false)
		if got := b.sayWithout(t.Context(), used(2, "r")); got != "OK tokens:2" {
			t.Errorf("as the store is back: %s, want OK, and to have landed", got)
		}
		time.Sleep(5 * time.Second)
		if got := b.tokensOf(t); got != 3 {
			t.Errorf("%d tokens have landed, want 3", got)
		}
		if got := b.metric(t, "ration_reports_lost_total cause=full"); got != 1 {
			t.Errorf("%v are lost, want 1: the last one has landed", got)
		}
	})
}

// Steps whose outcome nobody knows, again and again: what has an id lands once, and of the rest nothing lands twice.
func TestNothingLandsTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opts := queues()
		opts.StoreWait = 0 // always asked, also by those who would be kept from it
		b := newOutageBench(t, opts)
		dice := rand.New(rand.NewPCG(1, 2))
		var throwing sync.Mutex
		b.store.unsure = func() (bool, error) {
			throwing.Lock()
			defer throwing.Unlock()
			switch dice.IntN(4) {
			case 0:
				return true, store.ErrUnavailable
			case 1:
				return false, store.ErrUnavailable
			case 2:
				return true, context.DeadlineExceeded
			}
			return true, nil
		}
		const each = 200
		withoutID := 0
		for i := range each {
			if got := b.sayWithout(t.Context(), used(1, fmt.Sprint(i))); !strings.HasPrefix(got, "OK") {
				t.Fatalf("report %d: %s, want OK", i, got)
			}
			if got := b.sayWithout(t.Context(), used(1000, "")); strings.HasPrefix(got, "OK") {
				withoutID++
			}
		}
		time.Sleep(time.Minute)
		b.store.set(nil, false)
		time.Sleep(time.Minute)
		got := b.tokensOf(t)
		if got%1000 != each {
			t.Errorf("%d tokens of requests with an id, want %d", got%1000, each)
		}
		if got/1000 < int64(withoutID) || got/1000 > each {
			t.Errorf("%d reports without an id are counted, of %d that were and %d that may have been", got/1000, withoutID, each-withoutID)
		}
		if lost := b.metric(t, "ration_reports_lost_total cause=unknown"); lost != float64(each-withoutID) {
			t.Errorf("%v are told to be lost, want %d", lost, each-withoutID)
		}
	})
}

// A plain rule counts no report twice either: it is left out where the first attempt may have counted it.
func TestRulesCountNoReportTwice(t *testing.T) {
	for name, c := range map[string]struct {
		written bool
		err     error
		want    int64
	}{
		"certain":           {false, store.ErrFull, 4},
		"doubtful, written": {true, store.ErrUnavailable, 4},
		"doubtful, lost":    {false, store.ErrUnavailable, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := newOutageBench(t, queues())
			asked := 0
			b.store.unsure = func() (bool, error) {
				if asked++; asked == 1 {
					return true, nil // what was reserved
				}
				return c.written, c.err
			}
			report := hits(4, "plain=x", "ration.phase=record", "ration.request=r")
			if got := b.sayWithout(t.Context(), report); got != "OK queued" {
				t.Errorf("%s: %s, want OK queued", name, got)
			}
			b.store.set(nil, false)
			time.Sleep(5 * time.Second)
			var d engine.Decision
			if err := b.Decide(t.Context(), &engine.Request{Domain: "shop", Descriptors: []engine.Descriptor{hits(0, "plain=x")}}, &d); err != nil {
				t.Fatal(err)
			}
			if left := d.Statuses[0].Remaining; left != 100-c.want {
				t.Errorf("%s: the rule has %d left, want %d", name, left, 100-c.want)
			}
		})
	}
}

// The order of a request's reports is kept: what follows one that waits comes behind it, also when the store is back.
func TestReportsOfARequestInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newOutageBench(t, queues())
		b.sayWithout(t.Context(), entries("job=x", "ration.request=r"), hits(50, "job=x", "ration.request=r", "ration.phase=hold", "ration.meter=tokens"))
		b.store.set(store.ErrUnavailable, false)
		b.sayWithout(t.Context(), used(7, "r"))
		b.store.set(nil, false)
		if got := b.sayWithout(t.Context(), used(2, "r")); got != "OK queued" {
			t.Errorf("the second report: %s, want OK queued", got)
		}
		time.Sleep(5 * time.Second)
		if got := b.tokensOf(t); got != 9 {
			t.Errorf("%d tokens, want 7 that settle the request and 2 beside", got)
		}
	})
}

// The price counts that was in force when the usage was reported, and rows have it in the hour of the report.
func TestWaitingReportsKeepTheirPrice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newOutageBenchOf(t, spendingWithoutStore, queues())
		b.store.set(store.ErrUnavailable, false)
		began := time.Now()
		got := b.sayWithout(t.Context(), hits(1000, "silent=x", "ration.phase=record", "ration.meter=output_tokens", "ration.model=haiku", "ration.request=r"))
		if got != "OK queued" {
			t.Fatalf("the report: %s, want OK queued", got)
		}
		dearer, _, err := policy.Parse([]policy.Source{{
			Name: "outage.yaml", Data: []byte(strings.Replace(spendingWithoutStore, "output: 5", "output: 500", 1)),
		}}, policy.Options{})
		if err != nil {
			t.Fatal(err)
		}
		b.SetPolicy(dearer)
		time.Sleep(2 * time.Hour)
		b.store.set(nil, false)
		time.Sleep(5 * time.Second)
		var d engine.Decision
		if err := b.Decide(t.Context(), &engine.Request{Domain: "shop", Descriptors: []engine.Descriptor{entries("silent=x", "ration.model=haiku")}}, &d); err != nil {
			t.Fatal(err)
		}
		if got := d.Limits[0].Status.Used; got != 5_000_000 {
			t.Errorf("%d nano-dollars are charged, want 5000000: $5 per million tokens", got)
		}
		rows, err := b.store.Store.(store.Usage).Rows(t.Context(), store.RowsQuery{
			Group: []byte("shop"), From: limit.At(began), To: limit.At(began.Add(time.Minute)),
		})
		cost := store.Addition{Column: 5, Amount: 5_000_000}
		if err != nil || len(rows) != 1 || !slices.Contains(rows[0].Columns, cost) {
			t.Errorf("the rows of the hour of the report are %+v (%v), want one with %+v", rows, err, cost)
		}
	})
}

// A process that ends puts what waits to the store, and says what it loses.
func TestEndOfTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newOutageBench(t, queues())
		b.store.set(store.ErrUnavailable, false)
		for i := range 3 {
			b.sayWithout(t.Context(), used(1, fmt.Sprint(i)))
		}
		time.Sleep(time.Minute)
		went := time.AfterFunc(5*time.Second, func() { b.store.set(nil, false) })
		defer went.Stop()
		within, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		b.Flush(within)
		if got := b.tokensOf(t); got != 3 {
			t.Errorf("%d tokens have landed before the end, want 3", got)
		}
		b.store.set(store.ErrFull, false)
		for i := range 2 {
			b.sayWithout(t.Context(), used(1, fmt.Sprint(i, "more")))
		}
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		b.Flush(short)
		b.GiveUpReports()
		if !strings.Contains(b.log.String(), "reports=2") {
			t.Errorf("the log does not tell of 2 lost reports:\n%s", b.log)
		}
		if got := b.metric(t, "ration_reports_lost_total cause=stopped"); got != 2 {
			t.Errorf("%v are lost, want 2", got)
		}
		if got := b.sayWithout(t.Context(), used(1, "late")); got != "error: "+store.ErrFull.Error() {
			t.Errorf("after the end: %s, want the error", got)
		}
	})
}

// Another report under an id that was settled is usage too, also where the store says so and then nothing more.
func TestSecondReportWaits(t *testing.T) {
	for name, written := range map[string]bool{"it was written": true, "it was not": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newOutageBench(t, queues())
				if got := b.sayWithout(t.Context(), used(3, "r")); got != "OK tokens:3" {
					t.Fatalf("the first report: %s", got)
				}
				synctest.Wait() // what the engine writes beside it
				second := &conflictThenSilence{Store: b.store.Store, written: written}
				b.store.Store = second
				if got := b.sayWithout(t.Context(), used(4, "r")); got != "OK queued" {
					t.Errorf("the second report: %s, want OK queued", got)
				}
				time.Sleep(time.Minute)
				if !second.silent.Load() {
					t.Error("the store has answered whenever it was asked")
				}
				if got := b.tokensOf(t); got != 7 {
					t.Errorf("%d tokens have landed, want 7", got)
				}
				if lost := b.metric(t, "ration_reports_lost_total cause=unknown"); lost != 0 {
					t.Errorf("%v reports are lost", lost)
				}
			})
		})
	}
}

// conflictThenSilence is a store of which nothing is heard once, when it is asked next after a conflict.
type conflictThenSilence struct {
	store.Store
	written bool // what it is asked then

	conflict, silent atomic.Bool
}

func (c *conflictThenSilence) Apply(ctx context.Context, step *store.Step, out *store.Outcome) error {
	silent := c.conflict.Load() && c.silent.CompareAndSwap(false, true)
	if silent && !c.written {
		return store.ErrUnavailable
	}
	err := c.Store.Apply(ctx, step, out)
	if errors.Is(err, store.ErrConflict) {
		c.conflict.Store(true)
	}
	if silent {
		return store.ErrUnavailable
	}
	return err
}
