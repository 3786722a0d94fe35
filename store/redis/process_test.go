package redis_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/rpc"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
	"github.com/rationhq/ration/store/redis"
	"github.com/rationhq/ration/store/redis/redistest"
	"github.com/rationhq/ration/store/storetest"
)

// In the environment of a child, which is this test binary: the Redis that it keeps its counters in, and
// a comment at the end of its script.
const (
	replicaURL    = "RATION_TEST_REDIS"
	replicaScript = "RATION_TEST_SCRIPT"
)

// Replica is what a child answers to: it opens stores and applies steps to them. Package rpc wants it
// exported, with all that it takes and returns.
type Replica struct {
	url string

	mu        sync.Mutex
	opened    map[string]*opened
	calendars map[string]*limit.Calendar // by their strings: to load a zone takes long
}

// opened is a store, and the clock of the suite as its last call showed it.
type opened struct {
	store *redis.Store
	clock *storetest.Clock // nil: Redis's own counts
}

// Opening asks for a store.
type Opening struct {
	Prefix  string // of its keys; names the store from here on
	Clocked bool
}

// Order is a step on its way to a child.
type Order struct {
	Prefix                     string
	Now                        limit.Micros // what the suite's clock shows
	Ops                        []OrderedOp
	Lease                      *store.Lease
	Refused, Shadow, QuotaOpen bool
}

// OrderedOp is a store.Op. Its calendar goes by its string, since time zones do not travel.
type OrderedOp struct {
	Bucket, Owner                []byte
	Algorithm                    limit.Algorithm
	FirstUse                     bool
	Limit, Burst, Headroom       int64
	Window                       limit.Micros
	Calendar                     string
	Kind                         store.Kind
	Manner                       limit.Manner
	Amount, Lapse                int64
	Wait                         limit.Micros
	Class                        uint8
	Shadow, Quota, CountRefusals bool
	Thresholds                   []int64
	Label                        []byte
}

// Answer is an outcome, or an error, on its way back.
type Answer struct {
	Outcome store.Outcome
	Class   int // which of the classes the error is, if any
	Error   string
}

// classes are the errors that callers tell apart.
var classes = []error{
	store.ErrUnavailable, store.ErrFull, store.ErrCorrupt, store.ErrConflict, store.ErrUnsupported, store.ErrInvalid,
}

// serveReplica is the child. It ends when its standard input does, so with whoever started it.
func serveReplica(url string) {
	if comment := os.Getenv(replicaScript); comment != "" {
		redis.ChangeScript(comment)
	}
	server := rpc.NewServer()
	r := &Replica{url: url, opened: make(map[string]*opened), calendars: make(map[string]*limit.Calendar)}
	if err := server.Register(r); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	server.ServeConn(pipes{os.Stdin, os.Stdout})
}

// pipes are two ends that are used as one connection.
type pipes struct {
	io.Reader
	io.WriteCloser
}

// Open opens a store.
func (r *Replica) Open(o Opening, _ *bool) error {
	opts := redis.Options{URL: r.url, KeyPrefix: o.Prefix, Timeout: calm}
	made := &opened{}
	if o.Clocked {
		made.clock = storetest.NewClock(0)
		opts.Clock = made.clock.Now
	}
	var err error
	if made.store, err = redis.New(opts); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.opened[o.Prefix] = made
	return nil
}

// Apply applies a step, at the instant that came with it or that a call beside it has brought.
func (r *Replica) Apply(o Order, a *Answer) error {
	s := r.find(o.Prefix)
	step := &store.Step{Lease: o.Lease, Refused: o.Refused, Shadow: o.Shadow, QuotaOpen: o.QuotaOpen}
	for _, op := range o.Ops {
		calendar, err := r.calendar(op.Calendar)
		if err != nil {
			return err
		}
		step.Ops = append(step.Ops, store.Op{
			Bucket: op.Bucket, Owner: op.Owner, Kind: op.Kind, Manner: op.Manner, Amount: op.Amount, Wait: op.Wait,
			Lapse: op.Lapse, Class: op.Class, Shadow: op.Shadow, Quota: op.Quota, CountRefusals: op.CountRefusals,
			Thresholds: op.Thresholds, Label: op.Label,
			Spec: limit.Spec{
				Algorithm: op.Algorithm, FirstUse: op.FirstUse, Limit: op.Limit, Burst: op.Burst, Headroom: op.Headroom,
				Window: op.Window, Calendar: calendar,
			},
		})
	}
	if s.clock != nil {
		s.clock.Set(o.Now)
	}
	a.set(s.store.Apply(context.Background(), step, &a.Outcome))
	return nil
}

// Past asks for what a store tells of.
type Past struct {
	Prefix string
	Since  limit.Micros
}

// Told is what it tells.
type Told struct {
	Answer
	Events []store.Event
}

// Events reads the events.
func (r *Replica) Events(p Past, a *Told) error {
	var err error
	a.Events, err = r.find(p.Prefix).store.Events(context.Background(), p.Since)
	a.set(err)
	return nil
}

// Ready asks a store whether it can decide.
func (r *Replica) Ready(prefix string, a *Answer) error {
	a.set(r.find(prefix).store.Ready(context.Background()))
	return nil
}

// Close closes a store.
func (r *Replica) Close(prefix string, a *Answer) error {
	a.set(r.find(prefix).store.Close())
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.opened, prefix)
	return nil
}

// Script says which script the child runs.
func (r *Replica) Script(_ string, hash *string) error {
	*hash = redis.ScriptHash()
	return nil
}

func (r *Replica) find(prefix string) *opened {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.opened[prefix]
}

func (r *Replica) calendar(name string) (*limit.Calendar, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c := r.calendars[name]; c != nil || name == "" {
		return c, nil
	}
	c, err := limit.ParseCalendar(name)
	r.calendars[name] = c
	return c, err
}

// set packs an error.
func (a *Answer) set(err error) {
	if err == nil {
		return
	}
	a.Error = err.Error()
	for a.Class = 0; a.Class < len(classes) && !errors.Is(err, classes[a.Class]); {
		a.Class++
	}
}

// err unpacks it.
func (a *Answer) err() error {
	switch {
	case a.Error == "":
		return nil
	case a.Class < len(classes):
		return fmt.Errorf("%w: %s", classes[a.Class], a.Error)
	default:
		return errors.New(a.Error)
	}
}

// child is a process with a [Replica] in it.
type child struct {
	command *exec.Cmd
	client  *rpc.Client
	killed  bool
}

// startReplica starts a process that keeps its counters in the Redis at url. With a comment its script is
// another version, which means the same. It ends with the test.
func startReplica(t *testing.T, url, comment string) *child {
	t.Helper()
	c := &child{command: exec.Command(os.Args[0])}
	// Where the race detector finds something it makes the exit code 66; it need not wait a second before.
	c.command.Env = append(os.Environ(), replicaURL+"="+url, replicaScript+"="+comment, "GORACE=atexit_sleep_ms=10")
	c.command.Stderr = os.Stderr
	in, err := c.command.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.command.Start(); err != nil {
		t.Fatal(err)
	}
	c.client = rpc.NewClient(pipes{out, in})
	t.Cleanup(func() {
		_ = c.client.Close()
		hangs := time.AfterFunc(calm, func() { _ = c.command.Process.Kill() })
		defer hangs.Stop()
		if err := c.command.Wait(); err != nil && !c.killed {
			t.Errorf("a replica ended with %v", err)
		}
	})
	return c
}

func (c *child) kill(t *testing.T) {
	t.Helper()
	c.killed = true
	if err := c.command.Process.Kill(); err != nil {
		t.Fatal(err)
	}
}

// script returns the hash of the script that the child runs.
func (c *child) script(t *testing.T) (hash string) {
	t.Helper()
	if err := c.client.Call("Replica.Script", "", &hash); err != nil {
		t.Fatal(err)
	}
	return hash
}

// open opens a store in the child; clock travels with each call to it.
func (c *child) open(t testing.TB, prefix string, clock *storetest.Clock) *remote {
	t.Helper()
	if err := c.client.Call("Replica.Open", Opening{prefix, clock != nil}, nil); err != nil {
		t.Fatal(err)
	}
	r := &remote{client: c.client, prefix: prefix, clock: clock}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

// remote is a store in another process.
type remote struct {
	client *rpc.Client
	prefix string
	clock  *storetest.Clock
}

func (r *remote) Apply(ctx context.Context, step *store.Step, out *store.Outcome) error {
	order := Order{
		Prefix: r.prefix, Lease: step.Lease, Refused: step.Refused, Shadow: step.Shadow, QuotaOpen: step.QuotaOpen,
	}
	for i := range step.Ops {
		op := &step.Ops[i]
		order.Ops = append(order.Ops, OrderedOp{
			Bucket: op.Bucket, Owner: op.Owner, Kind: op.Kind, Manner: op.Manner, Amount: op.Amount, Wait: op.Wait,
			Lapse: op.Lapse, Class: op.Class, Shadow: op.Shadow, Quota: op.Quota, CountRefusals: op.CountRefusals,
			Thresholds: op.Thresholds, Label: op.Label,
			Algorithm: op.Spec.Algorithm, FirstUse: op.Spec.FirstUse, Limit: op.Spec.Limit, Burst: op.Spec.Burst,
			Headroom: op.Spec.Headroom, Window: op.Spec.Window,
		})
		if c := op.Spec.Calendar; c != nil {
			order.Ops[i].Calendar = c.String()
		}
	}
	if r.clock != nil {
		order.Now = r.clock.Now()
	}
	var a Answer
	if err := r.call(ctx, "Replica.Apply", order, &a); err != nil {
		return err
	}
	*out = a.Outcome
	return nil
}

func (r *remote) Events(ctx context.Context, since limit.Micros) ([]store.Event, error) {
	var a Told
	if err := r.call(ctx, "Replica.Events", Past{r.prefix, since}, &a); err != nil {
		return nil, err
	}
	return a.Events, nil
}

func (r *remote) Ready(ctx context.Context) error {
	return r.call(ctx, "Replica.Ready", r.prefix, &Answer{})
}

func (r *remote) Close() error {
	return r.call(context.Background(), "Replica.Close", r.prefix, &Answer{})
}

// call asks the process; its answer, which may hold an error, comes into a.
func (r *remote) call(ctx context.Context, method string, args any, a interface{ err() error }) error {
	call := r.client.Go(method, args, a, make(chan *rpc.Call, 1))
	select {
	case <-call.Done:
	case <-ctx.Done():
		return ctx.Err()
	}
	if call.Error != nil {
		return fmt.Errorf("%w: its process: %w", store.ErrUnavailable, call.Error)
	}
	return a.err()
}

// Processes that share one Redis and nothing else are as exact as one, and there is an order of what they
// have decided that explains all their answers; also while a new version is rolled out, whose script is
// another one.
func TestProcesses(t *testing.T) {
	server := redistest.Start(t)
	replicas := []*child{
		startReplica(t, server.URL(), ""), startReplica(t, server.URL(), ""),
		startReplica(t, server.URL(), "the next version"),
	}
	spaces := 0
	storetest.RunConcurrent(t, func(t testing.TB, clock *storetest.Clock) store.Store {
		spaces++
		all := &fleet{}
		for _, r := range replicas {
			all.replicas = append(all.replicas, r.open(t, fmt.Sprintf("test%d:", spaces), clock))
		}
		return all
	})

	old, same, other := replicas[0].script(t), replicas[1].script(t), replicas[2].script(t)
	if old != same || old == other {
		t.Errorf("the scripts are %s, %s and %s, want the last one to differ", old, same, other)
	}
	ran, err := server.Client(t).ScriptExists(t.Context(), old, other).Result()
	if err != nil || !ran[0] || !ran[1] {
		t.Errorf("%v of the two scripts have run (%v), want both", ran, err)
	}
}

// What callers of a killed process hold is free again when the lease is over, and not before; what they
// have used stays used.
func TestKilledProcess(t *testing.T) {
	server := redistest.Start(t)
	doomed := startReplica(t, server.URL(), "")
	held := doomed.open(t, "", nil)
	left := startReplica(t, server.URL(), "").open(t, "", nil)
	const most, lasts = 5, second
	room, tokens := strict("room", places(most), 1), strict("tokens", tokenBucket(most), 1)
	room.Kind, room.Lapse = store.Hold, 0
	tokens.Kind, tokens.Lapse = store.Hold, 1 // whatever was sent to a model is paid for
	open := func(n int) *store.Lease {
		l := lease(n, store.LeaseOpen)
		l.Lasts = lasts
		return l
	}

	var first, last limit.Micros
	for n := range most {
		out := apply(t, held, open(n), room, tokens)
		if out.Refused {
			t.Fatalf("place %d of %d: %+v, want it admitted", n, most, out.Results)
		}
		if n == 0 {
			first = out.Now
		}
		last = out.Now
	}
	doomed.kill(t)
	if err := held.Apply(t.Context(), &store.Step{}, &store.Outcome{}); !errors.Is(err, store.ErrUnavailable) {
		t.Fatalf("killed, it answers %v, want %v", err, store.ErrUnavailable)
	}

	admitted := 0
	for deadline := time.Now().Add(calm); admitted < most; {
		out := apply(t, left, open(most+admitted), room)
		switch {
		case out.Refused && out.Now >= last+lasts:
			t.Fatalf("refused %v after the last lease was made: %+v", (out.Now - last).Duration(), out.Results)
		case !out.Refused && out.Now < first+lasts:
			t.Fatalf("admitted %v after the first lease was made, too early", (out.Now - first).Duration())
		case !out.Refused:
			admitted++
		case time.Now().After(deadline):
			t.Fatalf("%d of %d places are free after %v", admitted, most, calm)
		default:
			time.Sleep(5 * time.Millisecond)
		}
	}
	tokens.Kind, tokens.Amount, tokens.Lapse = store.Charge, 0, 0
	if r := apply(t, left, nil, tokens).Results[0]; r.Used != most || r.Held != 0 {
		t.Errorf("%+v, want %d tokens used, and none held", r, most)
	}
}
