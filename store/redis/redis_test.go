package redis_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"go.uber.org/goleak"

	"github.com/rationhq/ration/lane"
	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
	"github.com/rationhq/ration/store/redis"
	"github.com/rationhq/ration/store/redis/redistest"
	"github.com/rationhq/ration/store/storetest"
)

// TestMain also is the replicas that tests start as processes (process_test.go).
func TestMain(m *testing.M) {
	if url := os.Getenv(replicaURL); url != "" {
		serveReplica(url)
		os.Exit(0)
	}
	flag.Parse()
	// Most tests wait: for a timeout, or for a Cluster to be ready.
	parallel := flag.Lookup("test.parallel")
	if parallel.Value.String() == parallel.DefValue {
		_ = parallel.Value.Set("4")
	}
	logging.Disable() // go-redis reports every lost connection of the fault tests
	// go-redis tries to dial once more a second after a pool was closed.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/redis/go-redis/v9/internal/pool.(*ConnPool).tryDial"))
}

// open returns a function that opens stores on one server, each with a key space of its own.
func openOn(url string) storetest.Open {
	spaces := 0
	var mu sync.Mutex
	return func(t testing.TB, clock *storetest.Clock) store.Store {
		mu.Lock()
		spaces++
		opts := redis.Options{URL: url, KeyPrefix: fmt.Sprintf("test%d:", spaces), Timeout: 10 * time.Second}
		mu.Unlock()
		if clock != nil {
			opts.Clock = clock.Now
		}
		return newStore(t, opts)
	}
}

func newStore(t testing.TB, opts redis.Options) *redis.Store {
	t.Helper()
	s, err := redis.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// fleet is replicas on one Redis, which share nothing else. Each call goes to the next one.
type fleet struct {
	replicas []store.Store
	calls    atomic.Uint64
}

func (f *fleet) next() store.Store { return f.replicas[f.calls.Add(1)%uint64(len(f.replicas))] }

func (f *fleet) Apply(ctx context.Context, step *store.Step, out *store.Outcome) error {
	return f.next().Apply(ctx, step, out)
}

func (f *fleet) Ready(ctx context.Context) error { return f.next().Ready(ctx) }

func (f *fleet) Rows(ctx context.Context, q store.RowsQuery) ([]store.Sums, error) {
	return f.next().(store.Usage).Rows(ctx, q)
}

func (f *fleet) Top(ctx context.Context, q store.TopQuery) ([]store.Ranked, error) {
	return f.next().(store.Usage).Top(ctx, q)
}

// eventReader is what also a store in another process is.
type eventReader interface {
	Events(ctx context.Context, since limit.Micros) ([]store.Event, error)
}

func (f *fleet) Events(ctx context.Context, since limit.Micros) ([]store.Event, error) {
	return f.next().(eventReader).Events(ctx, since)
}

func (f *fleet) Undelivered(ctx context.Context) ([]store.Event, error) {
	return f.next().(store.Outbox).Undelivered(ctx)
}

func (f *fleet) Delivered(ctx context.Context, events []store.Event) error {
	return f.next().(store.Outbox).Delivered(ctx, events)
}

func (f *fleet) Deliver(ctx context.Context, who [16]byte, lasts limit.Micros) (bool, error) {
	return f.next().(store.Outbox).Deliver(ctx, who, lasts)
}

func (f *fleet) Notices(ctx context.Context) <-chan struct{} {
	return f.next().(store.Outbox).Notices(ctx)
}

func (f *fleet) Close() error {
	var all error
	for _, r := range f.replicas {
		all = errors.Join(all, r.Close())
	}
	return all
}

// threeReplicas returns a function that opens three replicas on one Redis, or on the nodes of one Cluster: the same
// ones each time, with all keys gone, and another clock. To make them anew takes longer than most histories.
func threeReplicas(t *testing.T, url string, nodes ...*redistest.Server) storetest.Open {
	var looks []*goredis.Client
	for _, node := range nodes {
		looks = append(looks, node.Client(t))
	}
	var current atomic.Pointer[storetest.Clock]
	open := func(clock func() limit.Micros) *fleet {
		opts := redis.Options{URL: url, Timeout: 10 * time.Second, Clock: clock}
		return &fleet{replicas: []store.Store{newStore(t, opts), newStore(t, opts), newStore(t, opts)}}
	}
	theirs, own := open(func() limit.Micros { return current.Load().Now() }), open(nil)
	return func(t testing.TB, clock *storetest.Clock) store.Store {
		for _, look := range looks {
			if err := look.FlushAll(context.Background()).Err(); err != nil {
				t.Fatal(err)
			}
		}
		if clock == nil {
			return own
		}
		current.Store(clock)
		return theirs
	}
}

// Three replicas are as exact as one store: the whole suite, each call to the next of them. In a Cluster the buckets
// of a step, and its lease, lie on several nodes; there as well.
func TestConformance(t *testing.T) {
	t.Parallel() // with the tests of faults, which mostly wait
	t.Run("one Redis", func(t *testing.T) {
		histories(t, 30)
		server := redistest.Start(t)
		storetest.Run(t, threeReplicas(t, server.URL(), server))
	})
	t.Run("Cluster", func(t *testing.T) {
		histories(t, 8)
		nodes := redistest.StartCluster(t)
		storetest.RunAcrossShards(t, threeReplicas(t, "redis-cluster://"+nodes[0].Addr, nodes...))
	})
}

func TestConformanceBehindSentinel(t *testing.T) {
	g := redistest.StartSentinels(t)
	var hosts []string
	for _, s := range g.Watchers {
		hosts = append(hosts, s.Addr)
	}
	storetest.RunPlain(t, openOn("redis-sentinel://"+strings.Join(hosts, ",")+"/"+g.Name))
}

func year(most int64) limit.Spec { return limit.Spec{Limit: most, Window: 31_536_000 * limit.Second} }

func charge(bucket string, spec limit.Spec, amount int64) store.Op {
	return store.Op{Bucket: []byte(bucket), Spec: spec, Amount: amount}
}

// In a Cluster plain limits live on different nodes, and each is as exact as ever.
func TestCluster(t *testing.T) {
	nodes := redistest.StartCluster(t)
	url := "redis-cluster://" + nodes[0].Addr + "," + nodes[1].Addr
	stores := []*redis.Store{newStore(t, redis.Options{URL: url}), newStore(t, redis.Options{URL: url})}
	ctx := context.Background()

	var admitted [10]int64
	var mu sync.Mutex
	var callers sync.WaitGroup
	for caller := range 64 {
		callers.Go(func() {
			var out store.Outcome
			for range 5 {
				step := &store.Step{}
				for i := range admitted {
					step.Ops = append(step.Ops, charge(fmt.Sprint("bucket ", i), year(100), 1))
				}
				if err := stores[caller%2].Apply(ctx, step, &out); err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				for i, r := range out.Results {
					if !r.Refused {
						admitted[i]++
					}
				}
				mu.Unlock()
			}
		})
	}
	callers.Wait()
	for i, n := range admitted {
		if n != 100 {
			t.Errorf("bucket %d: admitted %d times, want 100", i, n)
		}
	}
	for _, node := range nodes {
		if n, err := node.Client(t).DBSize(ctx).Result(); err != nil || n == 0 {
			t.Errorf("node %s holds %d keys (%v), want some on every node", node.Addr, n, err)
		}
	}

	// A step with nothing in it has an instant too.
	var out store.Outcome
	if err := stores[0].Apply(ctx, &store.Step{}, &out); err != nil || out.Now == 0 || out.Refused {
		t.Errorf("an empty step: %+v, %v", out, err)
	}
}

// A slot that moves to another node is followed at every stage, and nothing is lost or counted twice.
func TestClusterMovesASlot(t *testing.T) {
	nodes := redistest.StartCluster(t)
	s := newStore(t, redis.Options{URL: "redis-cluster://" + nodes[0].Addr})
	ctx := context.Background()
	count := int64(0)
	two := func() *store.Step { // two keys of one slot
		step := &store.Step{Ops: []store.Op{charge("first", year(1000), 1), charge("second", year(1000), 1)}}
		for i := range step.Ops {
			step.Ops[i].Owner = []byte("alice")
		}
		return step
	}
	hit := func(stage string) {
		t.Helper()
		var out store.Outcome
		count++
		if err := s.Apply(ctx, two(), &out); err != nil {
			t.Fatalf("%s: %v", stage, err)
		}
		if out.Results[0].Used != count || out.Results[1].Used != count {
			t.Fatalf("%s: used %+v, want %d", stage, out.Results, count)
		}
	}
	hit("before")

	m := beginMove(t, nodes)
	hit("announced")
	m.move(t, m.keys[0])
	// One key here and one there: Redis says TRYAGAIN until the other one has followed.
	done := make(chan struct{})
	go func() {
		defer close(done)
		hit("in two places")
	}()
	time.Sleep(20 * time.Millisecond)
	m.move(t, m.keys[1])
	<-done
	hit("moved, not yet owned")
	m.end(t, nodes)
	hit("owned by the other")
	hit("afterwards")
}

// Keys expire with their windows, and no hit moves that instant.
func TestKeysExpire(t *testing.T) {
	server := redistest.Start(t)
	look := server.Client(t)
	s := newStore(t, redis.Options{URL: server.URL(), KeyPrefix: "team:"})
	ctx := context.Background()
	var out store.Outcome
	hit := func(window limit.Micros, kind store.Kind) (left time.Duration) {
		t.Helper()
		op := charge("b", limit.Spec{Limit: 10, Window: window}, 2)
		op.Kind = kind
		if err := s.Apply(ctx, &store.Step{Ops: []store.Op{op}}, &out); err != nil {
			t.Fatal(err)
		}
		keys, err := look.Keys(ctx, "team:ration:{s*}b@*").Result()
		if err != nil || len(keys) != 1 {
			t.Fatalf("keys %q, %v: want one", keys, err)
		}
		if left, err = look.PTTL(ctx, keys[0]).Result(); err != nil {
			t.Fatal(err)
		}
		return left
	}
	for _, w := range []limit.Micros{60 * limit.Second, 3600 * limit.Second, 31_536_000 * limit.Second} {
		look.FlushAll(ctx)
		first := hit(w, store.Charge)
		spec := limit.Spec{Window: w}
		exact := (spec.PlainStatus(out.Now, 0, false).ResetAfter + store.Grace(w)).Duration()
		if off := (first - exact).Abs(); off > time.Second {
			t.Errorf("window %v: expires in %v, want %v", w.Duration(), first, exact)
		}
		for _, kind := range []store.Kind{store.Charge, store.GiveBack, store.Charge} {
			if left := hit(w, kind); left > first {
				t.Errorf("window %v: a hit moved the expiry from %v to %v", w.Duration(), first, left)
			}
		}
	}
}

// A key that ration did not write is reported, spoils only the decisions that need it, and leaves
// nothing half-written.
func TestForeignKey(t *testing.T) {
	for _, value := range []any{"abc", "-5", "1.5", []string{"a", "list"}, "9223372036854775807", "9007199254741000", "012"} {
		t.Run(fmt.Sprint(value), func(t *testing.T) {
			server := redistest.Start(t)
			look := server.Client(t)
			s := newStore(t, redis.Options{URL: server.URL()})
			ctx := context.Background()
			var out store.Outcome
			bad := charge("bad", year(10), 1)
			if err := s.Apply(ctx, &store.Step{Ops: []store.Op{bad}}, &out); err != nil {
				t.Fatal(err)
			}
			keys := look.Keys(ctx, "*bad@*").Val()
			look.Del(ctx, keys...)
			if list, ok := value.([]string); ok {
				look.RPush(ctx, keys[0], list)
			} else {
				look.Set(ctx, keys[0], value, time.Hour)
			}

			good := charge("good", year(10), 1)
			for name, ops := range map[string][]store.Op{
				"before":  {good, bad},
				"after":   {bad, good},
				"checked": {{Bucket: bad.Bucket, Spec: bad.Spec}, good},
			} {
				if err := s.Apply(ctx, &store.Step{Ops: ops}, &out); !errors.Is(err, store.ErrCorrupt) {
					t.Errorf("%s: %v, want %v", name, err, store.ErrCorrupt)
				}
			}
			good.Amount = 0
			if err := s.Apply(ctx, &store.Step{Ops: []store.Op{good}}, &out); err != nil || out.Results[0].Used != 0 {
				t.Errorf("the good limit used %d (%v), want 0", out.Results[0].Used, err)
			}

			// In one batch, the bad decision does not harm its neighbours.
			var callers sync.WaitGroup
			for i := range 200 {
				callers.Go(func() {
					var out store.Outcome
					if i%2 == 0 {
						if err := s.Apply(ctx, &store.Step{Ops: []store.Op{bad}}, &out); !errors.Is(err, store.ErrCorrupt) {
							t.Errorf("bad: %v", err)
						}
					} else if err := s.Apply(ctx, &store.Step{Ops: []store.Op{charge("good", year(1000), 1)}}, &out); err != nil {
						t.Errorf("good: %v", err)
					}
				})
			}
			callers.Wait()
			if err := s.Apply(ctx, &store.Step{Ops: []store.Op{good}}, &out); err != nil || out.Results[0].Used != 100 {
				t.Errorf("the good limit used %d (%v), want 100", out.Results[0].Used, err)
			}
		})
	}
}

// What was pinned at 2^53-1 is taken back exactly when a later limit of the step cannot be read.
func TestForeignKeyAfterPinnedCharge(t *testing.T) {
	server := redistest.Start(t)
	look := server.Client(t)
	s := newStore(t, redis.Options{URL: server.URL()})
	ctx := context.Background()
	var out store.Outcome
	near, foreign := charge("near", year(limit.MaxAmount), limit.MaxAmount-5), charge("foreign", year(10), 1)
	if err := s.Apply(ctx, &store.Step{Ops: []store.Op{near, foreign}}, &out); err != nil {
		t.Fatal(err)
	}
	look.Set(ctx, look.Keys(ctx, "*foreign@*").Val()[0], "foo", time.Hour)
	near.Amount = 20
	if err := s.Apply(ctx, &store.Step{Ops: []store.Op{near, foreign}}, &out); !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("%v, want %v", err, store.ErrCorrupt)
	}
	near.Amount = 0
	if err := s.Apply(ctx, &store.Step{Ops: []store.Op{near}}, &out); err != nil || out.Results[0].Used != limit.MaxAmount-5 {
		t.Errorf("used %d (%v), want %d", out.Results[0].Used, err, limit.MaxAmount-5)
	}
}

// A paused Redis costs a bounded wait: the caller's deadline, or the store's own. A call that never
// left is not written; one that did is written once, however the caller saw it end.
func TestPausedRedis(t *testing.T) {
	server := redistest.Start(t)
	s := newStore(t, redis.Options{URL: server.URL(), Timeout: 300 * time.Millisecond})
	var out store.Outcome
	one := &store.Step{Ops: []store.Op{charge("a", year(1000), 1)}}
	if err := s.Apply(context.Background(), one, &out); err != nil {
		t.Fatal(err)
	}
	if err := server.Pause(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if err := s.Apply(ctx, one, &out); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("with a deadline: %v, want %v", err, context.DeadlineExceeded)
	}
	if err := s.Apply(context.Background(), one, &out); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("without one: %v, want %v", err, store.ErrUnavailable)
	}
	if err := s.Ready(context.Background()); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("ready: %v, want %v", err, store.ErrUnavailable)
	}
	// Many who wait do not wait for each other: all have an answer after two time-outs at most.
	var callers sync.WaitGroup
	began := time.Now()
	for range 1000 {
		callers.Go(func() {
			var out store.Outcome
			if err := s.Apply(context.Background(), &store.Step{Ops: []store.Op{charge("crowd", year(1000), 1)}}, &out); !errors.Is(err, store.ErrUnavailable) {
				t.Errorf("in a crowd: %v, want %v", err, store.ErrUnavailable)
			}
		})
	}
	callers.Wait()
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("a crowd waited %v", took)
	}
	if err := server.Resume(); err != nil {
		t.Fatal(err)
	}
	waitUntilReady(t, s)
	if err := s.Apply(context.Background(), one, &out); err != nil {
		t.Fatal(err)
	}
	if n := out.Results[0].Used; n < 2 || n > 4 {
		t.Errorf("used %d after 2 answered and 2 unanswered charges, want 2…4", n)
	}
}

// Redis goes and comes back, empty: ration notices by itself.
func TestRestartedRedis(t *testing.T) {
	server := redistest.Start(t)
	s := newStore(t, redis.Options{URL: server.URL(), Timeout: time.Second})
	one := &store.Step{Ops: []store.Op{charge("a", year(1000), 1)}}
	var out store.Outcome
	if err := s.Apply(context.Background(), one, &out); err != nil {
		t.Fatal(err)
	}
	server.Stop()
	if err := s.Apply(context.Background(), one, &out); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("while it is gone: %v, want %v", err, store.ErrUnavailable)
	}
	redistest.StartAt(t, server.Addr)
	waitUntilReady(t, s)
	if err := s.Apply(context.Background(), one, &out); err != nil || out.Results[0].Used != 1 {
		t.Errorf("after its return: used %d, %v", out.Results[0].Used, err)
	}
}

func waitUntilReady(t *testing.T, s *redis.Store) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); s.Ready(context.Background()) != nil; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("Redis did not come back")
		}
	}
}

// A full Redis refuses before anything is written, and is not ready; nor is a replica.
func TestFullRedis(t *testing.T) {
	server := redistest.Start(t, "--maxmemory-policy", "noeviction")
	look := server.Client(t)
	s := newStore(t, redis.Options{URL: server.URL()})
	ctx := context.Background()
	var out store.Outcome
	two := &store.Step{Ops: []store.Op{charge("a", year(10), 1), charge("b", year(10), 1)}}
	if err := s.Apply(ctx, two, &out); err != nil {
		t.Fatal(err)
	}
	look.ConfigSet(ctx, "maxmemory", "1")
	if err := s.Apply(ctx, two, &out); !errors.Is(err, store.ErrFull) || !strings.Contains(err.Error(), "OOM") {
		t.Errorf("when full: %v, want %v naming OOM", err, store.ErrFull)
	}
	if err := s.Ready(ctx); !errors.Is(err, store.ErrFull) {
		t.Errorf("when full, ready: %v, want %v", err, store.ErrFull)
	}
	look.ConfigSet(ctx, "maxmemory", "0")
	if err := s.Apply(ctx, two, &out); err != nil || out.Results[0].Used != 2 || out.Results[1].Used != 2 {
		t.Errorf("afterwards: %+v, %v, want 2 used of each", out.Results, err)
	}
}

func TestReplicaIsNotReady(t *testing.T) {
	master := redistest.Start(t)
	host, port, _ := net.SplitHostPort(master.Addr)
	replica := redistest.Start(t, "--replicaof", host+" "+port)
	s := newStore(t, redis.Options{URL: replica.URL()})
	if err := s.Ready(context.Background()); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("ready: %v, want %v", err, store.ErrUnavailable)
	}
}

func TestURLs(t *testing.T) {
	server := redistest.Start(t, "--requirepass", "secret")
	good := newStore(t, redis.Options{URL: "redis://:secret@" + server.Addr + "/3?pool_size=4"})
	if err := good.Ready(context.Background()); err != nil {
		t.Errorf("with the password: %v", err)
	}
	bad := newStore(t, redis.Options{URL: "redis://:wrong@" + server.Addr})
	if err := bad.Ready(context.Background()); err == nil || strings.Contains(err.Error(), "wrong@") {
		t.Errorf("with a wrong password: %v, want an error without the URL", err)
	}
	for url, says := range map[string]string{
		"localhost:6379":             "no URL",
		"memcached://localhost":      "unknown scheme",
		"redis://":                   "lacks a host",
		"redis://a:1,b:2":            "one host",
		"redis://:hunter2@host:port": "not valid",
		"redis://h/notanumber":       "not valid",
		"redis://h?max_retries=3":    "unknown parameter",
		"redis-sentinel://a:1,b:2":   "names the master",
		"redis-cluster://a:1,b:2/0":  "no path",
		"redis-cluster://a:1,,b:2":   "lacks a host",
		"redis-cluster://a:1?%zz":    "query",
		"redis://:a?hunter2@host":    "%3F",
		"redis://:a?hunter2%zz@host": "%3F",
		"redis://a:99999":            "65535",
		"redis://a/-1":               "numbered from 0",
		"redis://a?tls=maybe":        "true or false",
	} {
		_, err := redis.New(redis.Options{URL: url})
		if err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v, want an error that says %q and no password", url, err, says)
		}
	}
	for _, url := range []string{"redis://h", "redis://[::1]", "redis-cluster://a,b:7", "redis-sentinel://a/m?tls=false"} {
		newStore(t, redis.Options{URL: url})
	}
	if _, err := redis.New(redis.Options{URL: "redis://h", KeyPrefix: "{x}"}); err == nil {
		t.Error("a prefix with braces was taken")
	}
}

// oneAtATime holds back random tests while others have their number of histories.
var oneAtATime sync.Mutex

// histories makes each random test, until t ends, one of so many histories, for those that rapid would play: a store in
// memory plays them all, and here each step is a round trip or two.
func histories(t *testing.T, many int) {
	oneAtATime.Lock()
	t.Cleanup(oneAtATime.Unlock)
	checks := flag.Lookup("rapid.checks")
	if checks.Value.String() != checks.DefValue {
		return // somebody has asked for so many
	}
	set := func(text string) {
		if err := checks.Value.Set(text); err != nil {
			t.Fatal(err)
		}
	}
	set(strconv.Itoa(many))
	t.Cleanup(func() { set(checks.DefValue) })
}

// The commonest mistake of all is named.
func TestReadyNamesTheMissingPassword(t *testing.T) {
	server := redistest.Start(t)
	url := server.URL()
	server.Client(t).ConfigSet(t.Context(), "requirepass", "secret")
	s := newStore(t, redis.Options{URL: url})
	if err := s.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "NOAUTH") {
		t.Errorf("%v, want NOAUTH", err)
	}
}

// A Redis whose replicas cannot have what is written is not ready.
func TestReadyCountsReplicas(t *testing.T) {
	s := newStore(t, redis.Options{URL: redistest.Start(t).URL(), WaitReplicas: 1, Timeout: 2 * time.Second})
	err := s.Ready(t.Context())
	if !errors.Is(err, store.ErrUnavailable) || !strings.Contains(err.Error(), "on 1 replicas") {
		t.Errorf("%v, want that there are too few replicas", err)
	}
}

// While one node of a Cluster hangs, the store is ready, and only that node is named.
func TestReadyWhileANodeHangs(t *testing.T) {
	nodes := redistest.StartCluster(t)
	s := newStore(t, redis.Options{URL: "redis-cluster://" + nodes[0].Addr, Timeout: 300 * time.Millisecond})
	if err := s.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := nodes[1].Pause(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = nodes[1].Resume() }()
	for range 5 {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		if err := s.Ready(ctx); err != nil {
			t.Errorf("%v, want it ready: two nodes are", err)
		}
		all := slices.DeleteFunc(s.Warnings(ctx), func(w string) bool { return !strings.Contains(w, "decides nothing") })
		cancel()
		if len(all) != 1 || !strings.Contains(all[0], nodes[1].Addr) {
			t.Errorf("warned of %q, want of %s alone", all, nodes[1].Addr)
		}
	}
}

func (f *fleet) Line(ctx context.Context, name []byte, spec *lane.Spec, step *lane.Step) (lane.Outcome, error) {
	return f.next().(store.Lines).Line(ctx, name, spec, step)
}

func (f *fleet) LineState(ctx context.Context, name []byte) (lane.State, error) {
	return f.next().(store.Lines).LineState(ctx, name)
}

func (f *fleet) Called(ctx context.Context, waiter lane.ID) <-chan store.Called {
	return f.next().(store.Lines).Called(ctx, waiter)
}
