package engine_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/rationhq/ration/engine"
	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/store"
	"github.com/rationhq/ration/store/memory"
)

// faulty is a store that can be made to fail. Where it does not, it decides as the one behind it, after
// its latency.
type faulty struct {
	store.Store
	mu      sync.Mutex
	err     error // what it answers at once
	stalled bool  // it answers nothing, like a process that is stopped
	latency time.Duration
	unsure  func() (written bool, err error) // of each step: whether it is decided, and what is answered if that is an error
	asked   atomic.Int64
}

func (f *faulty) set(err error, stalled bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err, f.stalled, f.unsure = err, stalled, nil
}

// storeWait is how long a stalled store is waited for.
const storeWait = time.Second

func (f *faulty) answer(ctx context.Context) error {
	f.asked.Add(1)
	f.mu.Lock()
	err, latency := f.err, f.latency
	if f.stalled {
		err, latency = store.ErrUnavailable, storeWait // its own time-out
	}
	f.mu.Unlock()
	if latency > 0 {
		select {
		case <-time.After(latency):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return err
}

func (f *faulty) Apply(ctx context.Context, step *store.Step, out *store.Outcome) error {
	if err := f.answer(ctx); err != nil {
		return err
	}
	f.mu.Lock()
	unsure := f.unsure
	f.mu.Unlock()
	if unsure != nil {
		if written, err := unsure(); !written || err != nil {
			if written {
				_ = f.Store.Apply(context.WithoutCancel(ctx), step, new(store.Outcome))
			}
			return err
		}
	}
	return f.Store.Apply(ctx, step, out)
}

func (f *faulty) Ready(ctx context.Context) error { return f.answer(ctx) }

// withoutStore has a limit for each thing that can be wanted of one, and some that want several.
const withoutStore = `
domain: shop
anonymous: unlimited
tiers: [ { name: free } ]
limits: []
descriptors:
- key: silent
  limits: [ { name: silent, algorithm: fixed_window, limit: 100/day } ]
- key: allow
  limits: [ { name: allow, algorithm: fixed_window, limit: 100/day, per_request: 50, on_store_error: allow } ]
- key: deny
  limits: [ { name: deny, algorithm: fixed_window, limit: 100/day, on_store_error: deny, message: Buy more!, upgrade_url: "https://x" } ]
- key: error
  limits: [ { name: error, algorithm: fixed_window, limit: 100/day, on_store_error: error } ]
- key: local
  limits: [ { name: local, algorithm: fixed_window, limit: 100/day, on_store_error: local, local_share: 3% } ]
- key: plain
  rate_limit: { unit: day, requests_per_unit: 100 }
- key: both
  rate_limit: { unit: day, requests_per_unit: 100 }
  limits: [ { name: both, algorithm: fixed_window, limit: 100/day, on_store_error: allow } ]
- key: bothdeny
  rate_limit: { unit: day, requests_per_unit: 100 }
  limits: [ { name: bothdeny, algorithm: fixed_window, limit: 100/day, on_store_error: deny } ]
- key: shadow
  limits: [ { name: shadow, algorithm: fixed_window, limit: 100/day, on_store_error: deny, shadow: true } ]
- key: zero
  limits: [ { name: zero, algorithm: fixed_window, limit: 0/day } ]
- key: job
  subject: true
  limits:
  - { name: places, meter: concurrency, limit: 3, on_store_error: local, local_share: 100% }
  - { name: tokens, meter: tokens, algorithm: fixed_window, limit: 100/day, on_store_error: local, local_share: 100% }
`

// outageBench is an engine over a store that can fail. In a bubble of synctest all its clocks are
// those of the bubble.
type outageBench struct {
	*engine.Engine
	store   *faulty
	log     *strings.Builder
	metrics *engine.Metrics
	locals  *atomic.Int64 // how many local stores were made
}

func newOutageBench(t testing.TB, opts engine.Options) *outageBench {
	t.Helper()
	return newOutageBenchOf(t, withoutStore, opts)
}

// newOutageBenchOf is newOutageBench with a policy of the test's.
func newOutageBenchOf(t testing.TB, text string, opts engine.Options) *outageBench {
	t.Helper()
	p, _, err := policy.Parse([]policy.Source{{Name: "outage.yaml", Data: []byte(text)}}, policy.Options{Strict: true})
	if err != nil {
		t.Fatal(err)
	}
	behind := memory.New(memory.Options{})
	b := &outageBench{store: &faulty{Store: behind}, log: &strings.Builder{}, metrics: engine.NewMetrics(), locals: new(atomic.Int64)}
	opts.Log, opts.Metrics = slog.New(slog.NewTextHandler(b.log, nil)), b.metrics
	opts.Local = func() store.Store {
		b.locals.Add(1)
		return memory.New(memory.Options{})
	}
	b.Engine = engine.New(b.store, opts)
	b.SetPolicy(p)
	t.Cleanup(func() { b.Close(); _ = behind.Close() })
	return b
}

// sayWithout asks, and says in words what came of it: who refuses or was counted, and how degraded it is.
func (b *outageBench) sayWithout(ctx context.Context, descriptors ...engine.Descriptor) string {
	var d engine.Decision
	if err := b.Decide(ctx, &engine.Request{Domain: "shop", Descriptors: descriptors}, &d); err != nil {
		for _, known := range []error{
			store.ErrUnavailable, store.ErrFull, store.ErrCorrupt, store.ErrInvalid, store.ErrUnsupported,
			context.DeadlineExceeded, context.Canceled,
		} {
			if errors.Is(err, known) {
				return "error: " + known.Error()
			}
		}
		return "error: " + err.Error()
	}
	words := []string{"OK"}
	if d.Over {
		words[0] = "OVER " + d.Verdict().Reason()
	}
	if d.Queued {
		words = append(words, "queued")
	}
	if d.Degraded != policy.StoreErrorNone {
		words = append(words, "without the store:", d.Degraded.String())
	}
	for i := range d.Limits {
		a := &d.Limits[i]
		word := a.Limit.Name
		if !a.Unavailable {
			word += fmt.Sprintf(":%d", a.Status.Used)
		}
		if a.Over {
			word += "!"
		}
		words = append(words, word)
	}
	return strings.Join(words, " ")
}

// What a request gets while the store cannot decide it: the strictest of what its limits want.
func TestOnStoreError(t *testing.T) {
	report := func(pairs ...string) engine.Descriptor {
		return hits(3, append(pairs, "ration.phase=record", "ration.meter=tokens")...)
	}
	back := func(d engine.Descriptor) engine.Descriptor { d.GiveBack = true; return d }
	const down = "error: the store is unavailable"
	for name, c := range map[string]struct {
		want string
		asks []engine.Descriptor
	}{
		"nothing is limited":                  {"OK", []engine.Descriptor{entries("open=x")}},
		"the default of requests":             {"OK without the store: allow", []engine.Descriptor{entries("silent=x")}},
		"allow":                               {"OK without the store: allow", []engine.Descriptor{entries("allow=x")}},
		"deny":                                {"OVER store_unavailable without the store: deny deny!", []engine.Descriptor{entries("deny=x")}},
		"error":                               {down, []engine.Descriptor{entries("error=x")}},
		"local":                               {"OK without the store: local local:1", []engine.Descriptor{entries("local=x")}},
		"rate_limit":                          {down, []engine.Descriptor{entries("plain=x")}},
		"rate_limit is stricter than allow":   {down, []engine.Descriptor{entries("both=x")}},
		"deny is stricter than rate_limit":    {"OVER store_unavailable without the store: deny bothdeny!", []engine.Descriptor{entries("bothdeny=x")}},
		"local is stricter than allow":        {"OK without the store: local local:1", []engine.Descriptor{entries("allow=x"), entries("local=x")}},
		"error is stricter than local":        {down, []engine.Descriptor{entries("error=x"), entries("local=x"), entries("allow=x")}},
		"deny is stricter than error":         {"OVER store_unavailable without the store: deny deny!", []engine.Descriptor{entries("error=x"), entries("deny=x"), entries("local=x")}},
		"shadow never refuses":                {"OK without the store: allow", []engine.Descriptor{entries("shadow=x")}},
		"a limit of zero stays one":           {"OVER blocked without the store: allow zero:0!", []engine.Descriptor{entries("zero=x"), entries("allow=x")}},
		"what never fits is refused":          {"OVER request_too_large without the store: allow silent:0!", []engine.Descriptor{hits(101, "silent=x")}},
		"so is what is above per_request":     {"OVER request_too_large without the store: allow allow:0!", []engine.Descriptor{hits(51, "allow=x")}},
		"nothing is taken beside it":          {"OVER blocked without the store: local zero:0! local:0", []engine.Descriptor{entries("zero=x"), entries("local=x")}},
		"more than the slice":                 {"OVER store_unavailable without the store: local local!", []engine.Descriptor{hits(4, "local=x")}},
		"usage that is not recorded":          {down, []engine.Descriptor{report("job=x")}},
		"what is given back and is not":       {down, []engine.Descriptor{back(hits(3, "allow=x"))}},
		"a request that ends":                 {down, []engine.Descriptor{hits(0, "job=x", "ration.request=r", "ration.phase=done")}},
		"a request that is settled":           {down, []engine.Descriptor{report("job=x", "ration.request=r")}},
		"a report beside a limit that denies": {down, []engine.Descriptor{report("job=x"), entries("deny=x")}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newOutageBench(t, engine.Options{})
			b.store.set(store.ErrUnavailable, false)
			if got := b.sayWithout(t.Context(), c.asks...); got != c.want {
				t.Errorf("\n got %s\nwant %s", got, c.want)
			}
			b.store.set(nil, false)
			if got := b.sayWithout(t.Context(), entries("local=x")); got != "OK local:1" {
				t.Errorf("then, with the store: %s", got)
			}
		})
	}
}

// Errors that are no outage: what every limit makes of them, and what the caller hears.
func TestOtherStoreErrors(t *testing.T) {
	allow, deny, fails, local, plain := entries("allow=x"), entries("deny=x"), entries("error=x"), entries("local=x"), entries("plain=x")
	for _, c := range []struct {
		err  error
		want [5]string // of a limit that wants allow, deny, error, local; of a rate_limit
	}{
		{store.ErrFull, [5]string{
			"OK without the store: allow", "OVER store_unavailable without the store: deny deny!",
			"error: " + store.ErrFull.Error(), "OK without the store: local local:1", "error: " + store.ErrFull.Error(),
		}},
		{store.ErrCorrupt, [5]string{
			"OK without the store: allow", "OVER store_unavailable without the store: deny deny!",
			"error: " + store.ErrCorrupt.Error(), "OK without the store: local local:1", "error: " + store.ErrCorrupt.Error(),
		}},
		{store.ErrInvalid, [5]string{
			"error: " + store.ErrInvalid.Error(), "error: " + store.ErrInvalid.Error(), "error: " + store.ErrInvalid.Error(),
			"error: " + store.ErrInvalid.Error(), "error: " + store.ErrInvalid.Error(),
		}},
		{store.ErrUnsupported, [5]string{
			"error: " + store.ErrUnsupported.Error(), "error: " + store.ErrUnsupported.Error(), "error: " + store.ErrUnsupported.Error(),
			"error: " + store.ErrUnsupported.Error(), "error: " + store.ErrUnsupported.Error(),
		}},
	} {
		t.Run(c.err.Error(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newOutageBench(t, engine.Options{StoreWait: storeWait})
				b.store.set(fmt.Errorf("counter 7: %w", c.err), false)
				for i, d := range []engine.Descriptor{allow, deny, fails, local, plain} {
					if got := b.sayWithout(t.Context(), d); got != c.want[i] {
						t.Errorf("%v:\n got %s\nwant %s", d.Entries, got, c.want[i])
					}
				}
				for range 100 { // it answers, so it is asked, however often and for how long
					b.sayWithout(t.Context(), allow)
					time.Sleep(10 * time.Millisecond)
				}
				if n := b.store.asked.Load(); n != 105 {
					t.Errorf("the store was asked %d times of 105", n)
				}
				lines := strings.Count(b.log.String(), "counter 7")
				if want := map[bool]int{true: 1, false: 0}[errors.Is(c.err, store.ErrFull) || errors.Is(c.err, store.ErrCorrupt)]; lines != want {
					t.Errorf("the log tells of it %d times, want %d:\n%s", lines, want, b.log)
				}
			})
		})
	}
}

// Another request under the same id is refused by this process's own counters as by the store.
func TestReusedRequestIDWithoutStore(t *testing.T) {
	b := newOutageBench(t, engine.Options{})
	b.store.set(store.ErrUnavailable, false)
	reserve := func(n uint64) string {
		return b.sayWithout(t.Context(), entries("job=x", "ration.request=r"),
			hits(n, "job=x", "ration.request=r", "ration.phase=hold", "ration.meter=tokens"))
	}
	if got := reserve(30); got != "OK without the store: local places:0 tokens:0" {
		t.Errorf("a request: %s", got)
	}
	if got := reserve(30); !strings.HasPrefix(got, "OK") {
		t.Errorf("the same again: %s", got)
	}
	if got := reserve(31); !strings.HasPrefix(got, "OVER blocked without the store: local") {
		t.Errorf("another request: %s", got)
	}
}

// What a refused caller reads.
func TestWordsWithoutStore(t *testing.T) {
	b := newOutageBench(t, engine.Options{})
	b.store.set(store.ErrUnavailable, false)
	waits := map[limit.Micros]bool{}
	for range 20 {
		var d engine.Decision
		if err := b.Decide(t.Context(), &engine.Request{Domain: "shop", Descriptors: []engine.Descriptor{entries("deny=x")}}, &d); err != nil {
			t.Fatal(err)
		}
		wait, ok := d.RetryAfter()
		if !ok || wait < limit.Second || wait >= 3*limit.Second || !d.Verdict().ShouldRetry() {
			t.Fatalf("retry after %v %v, want 1 to 3 s", wait, ok)
		}
		waits[wait] = true
		seconds := fmt.Sprint(wait.Seconds())
		body := string(d.Body())
		for _, want := range []string{
			`"title":"Service Unavailable","status":503`, `"error":"store_unavailable"`, `"degraded":"deny"`, `"retry_after":` + seconds,
			`"message":"Limits cannot be checked at the moment. Try again in ` + seconds + ` s."`, `"limit":100,"remaining":0,"name":"deny"`,
		} {
			if !strings.Contains(body, want) {
				t.Fatalf("the body lacks %s: %s", want, body)
			}
		}
		if strings.Contains(body, "https://x") {
			t.Fatalf("it is told to pay for an outage: %s", body)
		}
		if s := d.Statuses[0]; !s.Over || s.Remaining != 0 || s.ResetAfter != wait {
			t.Fatalf("its status: %+v", s)
		}
	}
	if len(waits) < 10 {
		t.Errorf("20 callers come back at %d instants", len(waits))
	}
}

// A process decides alone exactly within its slice, for each algorithm, however many ask at once.
func TestLocalIsExact(t *testing.T) {
	for name, l := range map[string]string{
		"fixed_window":   "algorithm: fixed_window, limit: 1_000/day",
		"sliding_window": "algorithm: sliding_window, limit: 1_000/day",
		"sliding_log":    "algorithm: sliding_log, limit: 1_000/day",
		"calendar":       "algorithm: calendar, limit: 1_000/month",
		"token_bucket":   "algorithm: token_bucket, rate: 1_000/day, burst: 1_000",
		"ceiling":        "algorithm: fixed_window, limit: 2_000/day, ceiling: 50%",
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newOutageBench(t, engine.Options{StoreWait: storeWait})
				p, _, err := policy.Parse([]policy.Source{{Name: "local.yaml", Data: []byte(`
domain: shop
descriptors:
- { key: user, limits: [ { name: l, ` + l + `, on_store_error: local, local_share: 12.5% } ] }
`)}}, policy.Options{Strict: true})
				if err != nil {
					t.Fatal(err)
				}
				b.SetPolicy(p)
				b.store.set(store.ErrUnavailable, false)
				var admitted atomic.Int64
				var callers sync.WaitGroup
				for range 64 {
					callers.Go(func() {
						for range 4 {
							if strings.HasPrefix(b.sayWithout(t.Context(), entries("user=x")), "OK") {
								admitted.Add(1)
							}
						}
					})
				}
				callers.Wait()
				if n := admitted.Load(); n != 125 {
					t.Errorf("%d of 256 were admitted, want 125", n)
				}
			})
		})
	}
}

// A place that was taken while the store was out is freed by the request's end, though the caller hears
// that the store was not told.
func TestLocalPlaces(t *testing.T) {
	b := newOutageBench(t, engine.Options{})
	b.store.set(store.ErrUnavailable, false)
	ask := func(id string) string { return b.sayWithout(t.Context(), entries("job=x", "ration.request="+id)) }
	for _, id := range []string{"a", "b", "c", "c"} {
		if got := ask(id); got != "OK without the store: local places:0 tokens:0" {
			t.Fatalf("%s: %s", id, got)
		}
	}
	if got := ask("d"); got != "OVER store_unavailable without the store: local places! tokens:0" {
		t.Errorf("a fourth: %s", got)
	}
	for _, id := range []string{"a", "unknown"} {
		if got := b.sayWithout(t.Context(), hits(0, "job=x", "ration.request="+id, "ration.phase=done")); got != "error: the store is unavailable" {
			t.Errorf("the end of %s: %s", id, got)
		}
	}
	if got := ask("d"); !strings.HasPrefix(got, "OK") {
		t.Errorf("a place is free: %s", got)
	}
	if got := b.sayWithout(t.Context(), hits(80, "job=x", "ration.request=b", "ration.phase=record", "ration.meter=tokens")); got != "error: the store is unavailable" {
		t.Errorf("the end of b: %s", got)
	}
	if got := ask("e"); !strings.HasPrefix(got, "OK") {
		t.Errorf("the place of b is free: %s", got)
	}
}

// Local counters outlive a store that comes and goes, and are dropped once it has been back for a minute.
func TestLocalCountersAreDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newOutageBench(t, engine.Options{StoreWait: storeWait})
		local := func(want string) {
			t.Helper()
			if got := b.sayWithout(t.Context(), entries("local=x")); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		}
		b.store.set(store.ErrUnavailable, false)
		local("OK without the store: local local:1")
		b.store.set(nil, false)
		local("OK local:1")
		b.store.set(store.ErrUnavailable, false)
		local("OK without the store: local local:2") // the slice is one, though the store was back meanwhile
		for range 20 {
			time.Sleep(10 * time.Millisecond)
			b.sayWithout(t.Context(), entries("allow=x"))
		}
		if _, out := b.Outage(); !out {
			t.Fatal("it is still asked")
		}
		time.Sleep(10 * time.Minute) // nobody asks, and the store is still out
		local("OK without the store: local local:3")
		b.store.set(nil, false)
		time.Sleep(time.Second)
		local("OK local:2")
		time.Sleep(2 * time.Minute)
		b.store.set(store.ErrUnavailable, false)
		local("OK without the store: local local:1")
		if n := b.locals.Load(); n != 2 {
			t.Errorf("%d local stores were made, want 2", n)
		}
	})
	synctest.Test(t, func(t *testing.T) { // a store that is full is no outage
		b := newOutageBench(t, engine.Options{StoreWait: storeWait})
		b.store.set(store.ErrFull, false)
		for _, want := range []string{"local:1", "local:2", "local:3"} {
			if got := b.sayWithout(t.Context(), entries("local=x")); got != "OK without the store: local "+want {
				t.Errorf("got %s, want %s", got, want)
			}
			time.Sleep(50 * time.Second)
		}
	})
}

// A stalled store: the first calls wait, within their deadlines, then nobody does, until it answers.
func TestStalledStore(t *testing.T) {
	for name, c := range map[string]struct {
		deadline time.Duration // of every caller; 0: none
		opens    time.Duration // by when nobody waits any more
	}{
		"callers with 20 ms": {20 * time.Millisecond, 1500 * time.Millisecond},
		"callers with 5 s":   {5 * time.Second, 2 * time.Second},
		"no deadline":        {0, 2 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newOutageBench(t, engine.Options{StoreWait: storeWait})
				ask := func(key string) (got string, took time.Duration) {
					ctx, cancel := t.Context(), context.CancelFunc(func() {})
					if c.deadline > 0 {
						ctx, cancel = context.WithTimeout(ctx, c.deadline)
					}
					defer cancel()
					began := time.Now()
					got = b.sayWithout(ctx, entries(key+"=x"))
					return got, time.Since(began)
				}
				var callers sync.WaitGroup
				many := func(until time.Duration, check func(key, got string, took time.Duration)) {
					end := time.Now().Add(until)
					for _, key := range []string{"allow", "deny", "local", "error", "plain"} {
						for range 4 {
							callers.Go(func() {
								for time.Now().Before(end) {
									got, took := ask(key)
									check(key, got, took)
									time.Sleep(7 * time.Millisecond)
								}
							})
						}
					}
					callers.Wait()
				}
				degraded := map[string]string{
					"allow": "OK without the store: allow", "deny": "OVER store_unavailable without the store: deny deny!",
					"error": "error: the store is unavailable", "plain": "error: the store is unavailable",
				}
				began := time.Now()
				right := func(key, got string, took time.Duration) {
					switch {
					case key == "local" && strings.Contains(got, "without the store: local"):
					case got == degraded[key]:
					case (key == "error" || key == "plain") && got == "error: context deadline exceeded" && took == c.deadline:
					default:
						t.Errorf("%s: %s after %v", key, got, took)
					}
				}

				b.store.set(nil, true)
				many(c.opens, func(key, got string, took time.Duration) {
					right(key, got, took)
					if c.deadline > 0 && c.deadline < storeWait && took >= c.deadline && degraded[key] != degraded["error"] {
						t.Errorf("%s: after %v, and the caller has left: %s", key, took, got)
					}
					if took > storeWait {
						t.Errorf("%s: %v of waiting", key, took)
					}
				})
				since, out := b.Outage()
				if !out || since.Before(began) || since.After(began.Add(c.opens)) {
					t.Fatalf("an outage since %v: %v", since, out)
				}
				asked, waited := b.store.asked.Load(), 0
				var mu sync.Mutex
				many(10*time.Second, func(key, got string, took time.Duration) {
					right(key, got, took)
					mu.Lock()
					defer mu.Unlock()
					if took > 0 {
						waited++
					}
				})
				if tries := b.store.asked.Load() - asked; tries < 5 || tries > 90 || int64(waited) > tries {
					t.Errorf("in 10 s the store was tried %d times, and %d calls waited", tries, waited)
				}

				b.store.set(nil, false)
				// At the latest the next call that may try finds it back.
				time.Sleep(2 * time.Second)
				got, _ := ask("error")
				if !strings.HasPrefix(got, "OK error:") {
					t.Errorf("after it is back: %s", got)
				}
				if _, out := b.Outage(); out {
					t.Error("the outage has no end")
				}
				log := b.log.String()
				if strings.Count(log, "deciding without the store") != 1 || strings.Count(log, "deciding with the store again") != 1 ||
					strings.Count(log, "\n") != 2 {
					t.Errorf("the log should say once that it begins, and once that it ends:\n%s", log)
				}
				for _, figure := range []string{"allow=", "deny=", "local=", "errors="} {
					if strings.Contains(log, figure+"0") || !strings.Contains(log, figure) {
						t.Errorf("the log does not say how many decisions: %s", log)
					}
				}
			})
		})
	}
}

// Callers that leave, or have little time, never keep others from the store: not even where it is so
// slow that none of them ever sees an answer.
func TestImpatientCallersAreNoOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newOutageBench(t, engine.Options{StoreWait: storeWait})
		b.store.latency = 30 * time.Millisecond
		end := time.Now().Add(20 * time.Second)
		var callers sync.WaitGroup
		var impatient atomic.Int64
		for i := range 32 {
			callers.Go(func() {
				for time.Now().Before(end) {
					ctx, cancel := context.WithTimeout(t.Context(), time.Duration(8+i/2)*time.Millisecond)
					if i%4 == 0 {
						time.AfterFunc(10*time.Millisecond, cancel) // the client leaves
					}
					got := b.sayWithout(ctx, entries([]string{"error=x", "plain=x", "allow=x"}[i%3]))
					if strings.HasPrefix(got, "OK allow") || strings.HasPrefix(got, "OK error") || got == "OK" {
						t.Errorf("answered in time: %s", got)
					}
					cancel()
					impatient.Add(1)
				}
			})
		}
		callers.Go(func() { // rarely somebody with time, who is always decided by the store
			for n := 1; time.Now().Before(end); n++ {
				time.Sleep(3 * time.Second)
				if got := b.sayWithout(t.Context(), entries("deny=x")); got != fmt.Sprintf("OK deny:%d", n) {
					t.Errorf("a patient caller: %s", got)
				}
			}
		})
		callers.Wait()
		if impatient.Load() < 1000 {
			t.Errorf("only %d impatient calls", impatient.Load())
		}
		if strings.Contains(b.log.String(), "without the store") {
			t.Errorf("an outage that is none:\n%s", b.log)
		}
	})
}

// The log counts the decisions of the outage that it tells of, and not those of failures before it.
func TestOutageLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newOutageBench(t, engine.Options{StoreWait: storeWait})
		ask := func(n int) {
			for range n {
				b.sayWithout(t.Context(), entries("allow=x"))
				time.Sleep(10 * time.Millisecond)
			}
		}
		b.store.set(store.ErrUnavailable, false)
		ask(3)
		b.store.set(nil, false)
		ask(1)
		if b.log.Len() > 0 {
			t.Errorf("three calls that fail are no outage:\n%s", b.log)
		}
		b.store.set(store.ErrUnavailable, false)
		ask(150)
		b.store.set(nil, false)
		time.Sleep(500 * time.Millisecond)
		ask(1)
		if _, end, _ := strings.Cut(b.log.String(), "again"); !strings.HasPrefix(end, `" after=2s allow=150 deny=0 local=0 errors=0`) {
			t.Errorf("an outage of 2 s, with 150 decisions:\n%s", b.log)
		}
	})
}

// Decisions and checks find the same outage, the one sooner than the other; the log tells of it once, with
// all that was decided meanwhile.
func TestOneOutageIsToldOnce(t *testing.T) {
	for name, c := range map[string]struct {
		run  func(ask func(n int), check func(error), set func(error))
		want string
	}{
		"decisions find it first": {func(ask func(int), check func(error), set func(error)) {
			set(store.ErrUnavailable)
			ask(20)
			check(store.ErrUnavailable)
			ask(20)
			set(nil)
			check(nil)
			time.Sleep(time.Second)
			ask(1)
		}, `allow=40`},
		"the check finds it first": {func(ask func(int), check func(error), set func(error)) {
			set(store.ErrUnavailable)
			check(store.ErrUnavailable)
			ask(20)
			time.Sleep(time.Second)
			set(nil)
			ask(1)
			check(nil)
		}, `allow=20`},
		"nobody asks when it is back": {func(ask func(int), check func(error), set func(error)) {
			set(store.ErrUnavailable)
			ask(20)
			check(nil)
			check(nil)
		}, `allow=20`},
		"it answers, and refuses": {func(ask func(int), check func(error), set func(error)) {
			set(store.ErrFull)
			check(store.ErrFull)
			ask(300)
			check(store.ErrFull)
			set(nil)
			ask(1)
			check(nil)
		}, `allow=300`},
		"a single failure before": {func(ask func(int), check func(error), set func(error)) {
			set(store.ErrUnavailable)
			ask(1)
			set(nil)
			ask(1)
			check(nil)
			check(store.ErrUnavailable)
			check(nil)
		}, `allow=0`},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newOutageBench(t, engine.Options{StoreWait: storeWait})
				ask := func(n int) {
					for range n {
						b.sayWithout(t.Context(), entries("allow=x"))
						time.Sleep(10 * time.Millisecond)
					}
				}
				c.run(ask, b.NoteReady, func(err error) { b.store.set(err, false) })
				log := strings.Split(strings.TrimSpace(b.log.String()), "\n")
				if len(log) != 2 || !strings.Contains(log[0], "deciding without the store") || !strings.Contains(log[0], "error=\"the store ") ||
					!strings.Contains(log[1], "deciding with the store again") || !strings.Contains(log[1], c.want) {
					t.Errorf("want one outage, with %s, not\n%s", c.want, strings.Join(log, "\n"))
				}
				if _, out := b.Outage(); out {
					t.Error("the outage has no end")
				}
			})
		})
	}
}

// Nobody is let through who has left: a store that fails because its caller does is not out.
func TestCallerHasLeft(t *testing.T) {
	for _, opts := range []engine.Options{{}, {StoreWait: storeWait}} {
		b := newOutageBench(t, opts)
		ctx, leave := context.WithCancel(t.Context())
		leave()
		b.store.set(store.ErrUnavailable, false)
		if got := b.sayWithout(ctx, entries("allow=x")); got != "error: the store is unavailable" {
			t.Errorf("got %s", got)
		}
	}
}

// A call that panics while it tries does not keep the store out for ever.
func TestPanicWhileTrying(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newOutageBench(t, engine.Options{StoreWait: storeWait})
		b.store.set(store.ErrUnavailable, false)
		for range 20 {
			b.sayWithout(t.Context(), entries("allow=x"))
			time.Sleep(10 * time.Millisecond)
		}
		if _, out := b.Outage(); !out {
			t.Fatal("it is still asked")
		}
		time.Sleep(time.Second)
		behind := b.store.Store
		b.store.Store = nil
		b.store.set(nil, false)
		func() {
			defer func() {
				if recover() == nil {
					t.Error("it did not panic")
				}
			}()
			b.sayWithout(t.Context(), entries("allow=x"))
		}()
		b.store.Store = behind
		time.Sleep(time.Second)
		if got := b.sayWithout(t.Context(), entries("allow=x")); got != "OK allow:1" {
			t.Errorf("then %s", got)
		}
	})
}

// What the metrics say of an outage.
func TestOutageMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newOutageBench(t, engine.Options{StoreWait: storeWait})
		b.store.set(store.ErrUnavailable, false)
		report := hits(3, "job=x", "ration.phase=record", "ration.meter=tokens")
		for range 10 {
			for _, d := range []engine.Descriptor{
				entries("allow=x"), entries("zero=x"), entries("deny=x"), entries("local=x"), entries("error=x"), report,
			} {
				b.sayWithout(t.Context(), d)
			}
			time.Sleep(20 * time.Millisecond)
		}
		got := gather(t, b.metrics)
		for name, want := range map[string]float64{
			"ration_degraded_decisions_total on_store_error=allow verdict=ok":         10,
			"ration_degraded_decisions_total on_store_error=allow verdict=over_limit": 10,
			"ration_degraded_decisions_total on_store_error=deny verdict=over_limit":  10,
			"ration_degraded_decisions_total on_store_error=local verdict=ok":         3,
			"ration_degraded_decisions_total on_store_error=local verdict=over_limit": 7,
			"ration_degraded_decisions_total on_store_error=error verdict=error":      10,
			"ration_degraded_decisions_total on_store_error=report verdict=error":     10,
			"ration_requests_total verdict=ok":                                        13,
			"ration_requests_total verdict=over_limit":                                27,
			"ration_requests_total verdict=error":                                     20,
			"ration_store_outages_total":                                              1,
			"ration_store_breaker state=closed":                                       0,
			"ration_store_breaker state=doubtful":                                     0,
			"ration_store_breaker state=open":                                         1,
			"ration_store_breaker state=trying":                                       0,
		} {
			if value, ok := got[name]; !ok || value != want {
				t.Errorf("%s is %v (%v), want %v", name, value, ok, want)
			}
		}
		b.store.set(nil, false)
		time.Sleep(time.Second)
		b.sayWithout(t.Context(), entries("allow=x"))
		if got := gather(t, b.metrics); got["ration_store_breaker state=closed"] != 1 || got["ration_store_outages_total"] != 1 {
			t.Errorf("afterwards: %v", got)
		}
	})
	// A store in this process has no breaker to tell of.
	if _, ok := gather(t, newOutageBench(t, engine.Options{}).metrics)["ration_store_breaker state=closed"]; ok {
		t.Error("a breaker without a guard")
	}
}

// gather returns every counter and gauge, by its name and labels.
func gather(t *testing.T, m *engine.Metrics) map[string]float64 {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(m)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name += " " + l.GetName() + "=" + l.GetValue()
			}
			values[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return values
}

// A server in shadow mode lets every request pass that no rate_limit rule makes an error.
func TestShadowWithoutStore(t *testing.T) {
	b := newOutageBench(t, engine.Options{Shadow: true})
	b.store.set(store.ErrUnavailable, false)
	for key, want := range map[string]string{
		"deny": "OK without the store: allow", "error": "OK without the store: allow", "local": "OK without the store: allow",
		"zero": "OK without the store: allow zero:0!", "plain": "error: the store is unavailable",
	} {
		if got := b.sayWithout(t.Context(), entries(key+"=x")); got != want {
			t.Errorf("%s: got %s, want %s", key, got, want)
		}
	}
}

// proxied is the context of a call that has just come in from a proxy, which gives it 20 ms.
type proxied struct{ context.Context } //nolint:containedctx // it is one

func (proxied) Deadline() (time.Time, bool) { return time.Now().Add(20 * time.Millisecond), true }

// What the guard costs a decision: a look at the breaker; where a limit answers without the store, a deadline
// of its own, which calls with little time share.
func BenchmarkGuard(b *testing.B) {
	for _, c := range []struct {
		name, key string
		opts      engine.Options
		proxied   bool
	}{
		{"none", "silent", engine.Options{}, false},
		{"limit with error", "error", engine.Options{StoreWait: storeWait}, false},
		{"limit with allow", "silent", engine.Options{StoreWait: storeWait}, false},
		{"none, 20 ms", "silent", engine.Options{}, true},
		{"limit with error, 20 ms", "error", engine.Options{StoreWait: storeWait}, true},
		{"limit with allow, 20 ms", "silent", engine.Options{StoreWait: storeWait}, true},
	} {
		b.Run(c.name, func(b *testing.B) {
			bench := newOutageBench(b, c.opts)
			ctx, cancel := context.WithTimeout(b.Context(), time.Hour)
			defer cancel()
			if c.proxied {
				ctx = proxied{ctx}
			}
			request := &engine.Request{Domain: "shop", Descriptors: []engine.Descriptor{hits(0, c.key+"=x")}}
			var d engine.Decision
			b.ReportAllocs()
			for b.Loop() {
				if err := bench.Decide(ctx, request, &d); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// Calls that end together end together, each by its time, however many there are.
func TestSharedDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newOutageBench(t, engine.Options{StoreWait: storeWait})
		b.store.latency = 200 * time.Millisecond // more than anybody has
		var callers sync.WaitGroup
		for i := range 400 {
			callers.Go(func() {
				time.Sleep(time.Duration(i) * 137 * time.Microsecond)
				given := time.Duration(1+i%100) * time.Millisecond
				ctx, cancel := context.WithTimeout(t.Context(), given)
				defer cancel()
				if i%7 == 0 { // who leaves is not let through; nobody waits longer for that than for the others
					time.AfterFunc(given/2, cancel)
				}
				began := time.Now()
				got := b.sayWithout(ctx, entries([]string{"allow=x", "deny=x"}[i%2]))
				took := time.Since(began)
				reserve := min(given/4, 5*time.Millisecond)
				switch {
				case took >= given || i%7 != 0 && took < given-reserve-time.Millisecond:
					t.Errorf("a caller with %v was answered after %v", given, took)
				case i%7 == 0 && !strings.HasPrefix(got, "error: context"):
					t.Errorf("a caller that left got %s", got)
				case i%7 != 0 && !strings.Contains(got, "without the store"):
					t.Errorf("a caller with %v got %s", given, got)
				}
			})
		}
		callers.Wait()
	})
}

// parted is a store of several machines, of which one fails.
type parted struct{ *faulty }

func (parted) Parted() bool { return true }

func (p parted) Ready(ctx context.Context) error { return p.Store.Ready(ctx) }

// Where one machine of several fails, those of the others go on asking: what the calls on it met is told once a minute.
func TestOnePartFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newOutageBench(t, engine.Options{StoreWait: storeWait})
		asked := &faulty{Store: memory.New(memory.Options{})}
		t.Cleanup(func() { _ = asked.Store.(*memory.Store).Close() })
		e := engine.New(parted{asked}, engine.Options{StoreWait: storeWait, Log: slog.New(slog.NewTextHandler(b.log, nil))})
		t.Cleanup(e.Close)
		p, _ := b.Policy()
		e.SetPolicy(p)
		b.Engine = e
		for n := range 50 {
			asked.set(store.ErrUnavailable, false)
			for range 8 {
				if got := b.sayWithout(t.Context(), entries("allow=away")); !strings.Contains(got, "without the store") {
					t.Errorf("call %d: %s", n, got)
				}
				time.Sleep(20 * time.Millisecond)
			}
			asked.set(nil, false)
			if got := b.sayWithout(t.Context(), entries("allow=there")); strings.Contains(got, "without the store") {
				t.Errorf("call %d: %s, want it decided", n, got)
			}
		}
		if n := strings.Count(b.log.String(), "level=WARN"); n != 1 {
			t.Errorf("%d warnings, want one:\n%s", n, b.log)
		}
	})
}
