package client_test

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/rationhq/ration/client"
	"github.com/rationhq/ration/engine"
	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/server"
	"github.com/rationhq/ration/server/health"
	"github.com/rationhq/ration/store/memory"
	"github.com/rationhq/ration/subject"
)

func TestMain(m *testing.M) {
	if target := os.Getenv(dyingTarget); target != "" {
		if journal := os.Getenv(dyingJournal); journal != "" {
			reportUntilKilled(target, journal)
		}
		reserveUntilKilled(target)
	}
	goleak.VerifyTestMain(m)
}

// accounts gives each user a thousand tokens a month, and has a lane in which one call is under way at a time.
const accounts = `
domain: llm
anonymous: unlimited
tiers:
  - { name: free, attributes: { max_output: 800 } }
prices:
  book: none
  models:
    small: { input: "1.00", output: "2.00", cache_read: "0.50", cache_write: "1.25" }
    shared: { input: "1.00", output: "2.00", cache_read: "0.50", cache_write: "1.25" }
descriptors:
  - key: user
    subject: true
    limits:
      - { name: tokens, meter: tokens, algorithm: calendar, limit: 1_000/month }
      - { name: spend, meter: cost, algorithm: calendar, limit: $1/month }
  - key: job
    limits:
      - { name: requests, meter: requests, algorithm: calendar, limit: 1_000_000/month }
      - { name: tokens, meter: tokens, algorithm: calendar, limit: 1_000_000/month }
lanes:
  - { name: one, max_concurrent: 1, max_wait: 20s, max_waiting: { total: 3, per_subject: 2 } }
  - { name: brief, max_concurrent: 1, max_wait: 800ms }
  - { name: crowd, max_concurrent: 1, max_wait: 20s, max_waiting: { total: 1_000, per_subject: 900 } }
upstreams:
  - name: key
    models: [ shared ]
    limits:
      - { name: requests, meter: requests, algorithm: token_bucket, rate: 600/minute }
`

// aliceKey is an API key of alice's.
const aliceKey = "sk-0123456789abcdef"

// keyring knows it, and nothing else.
type keyring struct{}

func (keyring) Get(context.Context, subject.Ref) (subject.Answer, error) {
	return subject.Answer{}, nil
}

func (keyring) GetByKey(_ context.Context, hash subject.KeyHash) (subject.Answer, error) {
	if hash != subject.HashKey(aliceKey) {
		return subject.Answer{}, nil
	}
	return subject.Answer{Subject: &subject.Subject{Domain: "llm", Key: "user", Name: "alice"}}, nil
}

// site is a ration that counts in memory, and a way to it that can be cut.
type site struct {
	*road
	addr string // without the road
}

// start starts a ration, and returns where, and how to stop it.
func start() (addr string, stop func() error, err error) {
	p, _, err := policy.Parse([]policy.Source{{Name: "p", Data: []byte(accounts)}}, policy.Options{Strict: true})
	if err != nil {
		return "", nil, err
	}
	counters := memory.New(memory.Options{})
	e := engine.New(counters, engine.Options{Subjects: keyring{}})
	e.SetPolicy(p)
	s, err := server.New(server.Config{GRPCAddr: "127.0.0.1:0"}, e, &health.State{}, prometheus.NewRegistry())
	if err != nil {
		return "", nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx) }()
	return s.Addr("gRPC"), func() error {
		cancel()
		err := <-ended
		e.Close()
		return errors.Join(err, counters.Close())
	}, nil
}

// serve starts a ration for a test.
func serve(t testing.TB) *site {
	t.Helper()
	addr, stop, err := start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	return &site{road: newRoad(t, addr), addr: addr}
}

// connect returns a client of the ration at an address; it is closed with the test.
func connect(t testing.TB, addr string, options client.Options) *client.Client {
	t.Helper()
	c, err := client.New(addr, options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// impatient gives up soon.
func impatient() client.Retry {
	return client.Retry{
		First: 5 * time.Millisecond, Most: 20 * time.Millisecond, Attempt: 200 * time.Millisecond, Patience: 300 * time.Millisecond,
	}
}

// road is a proxy on the way to a server, which can be cut.
type road struct {
	listener net.Listener
	to       string

	mu    sync.Mutex
	turn  *sync.Cond // of cut and mute
	cut   bool
	mute  bool // lets requests through, and holds answers back
	conns map[net.Conn]bool
	ends  sync.WaitGroup
}

func newRoad(t testing.TB, to string) *road {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &road{listener: listener, to: to, conns: map[net.Conn]bool{}}
	r.turn = sync.NewCond(&r.mu)
	r.ends.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			r.ends.Go(func() { r.carry(conn) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		r.set(true, false)
		r.ends.Wait()
	})
	return r
}

func (r *road) Addr() string { return r.listener.Addr().String() }

// set cuts the road, or opens it. Where it is mute, requests arrive, and answers only when it no longer is.
func (r *road) set(cut, mute bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cut, r.mute = cut, mute
	r.turn.Broadcast()
	if cut {
		for conn := range r.conns {
			_ = conn.Close()
		}
	}
}

func (r *road) carry(from net.Conn) {
	defer from.Close()
	to, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", r.to)
	if err != nil {
		return
	}
	defer to.Close()
	r.mu.Lock()
	if r.cut {
		r.mu.Unlock()
		return
	}
	r.conns[from], r.conns[to] = true, true
	r.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { r.copy(to, from, false) })
	both.Go(func() { r.copy(from, to, true) })
	both.Wait()
	r.mu.Lock()
	delete(r.conns, from)
	delete(r.conns, to)
	r.mu.Unlock()
}

// copy carries one direction until it ends, and ends the other then.
func (r *road) copy(to, from net.Conn, answers bool) {
	defer to.Close()
	defer from.Close()
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if err != nil {
			return
		}
		r.mu.Lock()
		for answers && r.mute && !r.cut {
			r.turn.Wait()
		}
		r.mu.Unlock()
		if _, err := to.Write(buffer[:n]); err != nil {
			return
		}
	}
}

const patience = 20 * time.Second

// eventually waits until ok returns nil.
func eventually(t testing.TB, what string, ok func() error) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		err := ok()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v: %v", what, patience, err)
		}
	}
}

// used returns what was used, and is held, of a limit.
func used(t testing.TB, c *client.Client, key, value, path string) (spent, held int64) {
	t.Helper()
	d, err := c.Check(t.Context(), client.Call{Caller: client.Caller{
		Domain: "llm", Model: "small", Attributes: map[string]string{key: value},
	}})
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range d.Limits {
		if l.Path == path {
			return l.Used, l.Held
		}
	}
	t.Fatalf("no limit %s among %+v", path, d.Limits)
	return 0, 0
}
