package waiting_test

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rationhq/ration/engine"
	"github.com/rationhq/ration/lane"
	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/price"
	"github.com/rationhq/ration/store"
	"github.com/rationhq/ration/store/memory"
	"github.com/rationhq/ration/store/redis"
	"github.com/rationhq/ration/store/redis/redistest"
)

const crowded = `
domain: llm
tiers: [ { name: free }, { name: pro }, { name: premium } ]
trust_tier: true
descriptors:
  - key: user
    subject: true
    limits: [ { name: requests, meter: requests, algorithm: fixed_window, limit: 100_000/day } ]
lanes:
  - name: provider
    max_concurrent: 8
    max_wait: 10m
    max_waiting: { total: 2000, per_subject: 1000 }
    order: strict
    aging: 1s
`

const (
	atATime    = 8
	batchSize  = 501
	otherUsers = 499
	everybody  = atATime + batchSize + otherUsers
	patience   = time.Minute // for what is certain to happen
)

// lineStore is a store with lines.
type lineStore interface {
	store.Store
	store.Lines
}

// tap is what stands between an engine and its store. It takes down what is said in the line, and the engine can be cut
// off, without anything that it still wants to say.
type tap struct {
	lineStore
	crowd *crowd
	dead  atomic.Bool
	steps atomic.Int64 // of all kinds
}

func (p *tap) answer(err error) error {
	if p.dead.Load() {
		return store.ErrUnavailable
	}
	return err
}

func (p *tap) Apply(ctx context.Context, step *store.Step, out *store.Outcome) error {
	p.steps.Add(1)
	if err := p.answer(nil); err != nil {
		return err
	}
	return p.answer(p.lineStore.Apply(ctx, step, out))
}

func (p *tap) LineState(ctx context.Context, name []byte) (lane.State, error) {
	p.steps.Add(1)
	return p.lineStore.LineState(ctx, name)
}

func (p *tap) Line(ctx context.Context, name []byte, spec *lane.Spec, step *lane.Step) (lane.Outcome, error) {
	p.steps.Add(1)
	if err := p.answer(nil); err != nil {
		return lane.Outcome{}, err
	}
	if p.crowd.inOrder != nil {
		p.crowd.inOrder.Lock()
		defer p.crowd.inOrder.Unlock()
	}
	out, err := p.lineStore.Line(ctx, name, spec, step)
	if err == nil {
		p.crowd.note(step, &out)
	}
	return out, p.answer(err)
}

// replica is one of several engines on a store.
type replica struct {
	*engine.Engine
	tap     *tap
	alive   context.Context
	kill    context.CancelFunc
	callers sync.WaitGroup
}

// said is what happened in the line to a ticket.
type said struct {
	at     limit.Micros
	ticket lane.ID
	what   lane.Action // Enter, Admitted, Refused; Beat: it was called
}

// caller is one who wants a turn.
type caller struct {
	key, user, tier string
	lasts           limit.Micros
}

// served is one who had a turn, and when.
type served struct {
	caller
	id       engine.ReservationID
	replayed bool
	from, to time.Time // it certainly had a place
}

// crowd is many who wait in one lane.
type crowd struct {
	testing.TB
	policy   *policy.Policy
	lines    lineStore
	inOrder  *sync.Mutex // held for every step in the line; nil: the store's clock tells their order
	replicas []*replica

	mu      sync.Mutex
	log     []said
	tickets map[lane.ID]lane.ID // subjects
	served  []served
	lost    []caller // their replica has died
	holding int      // how many have places
	tell    func(engine.Standing)
	gate    chan struct{} // closed: those who have places give them back
}

func newCrowd(t testing.TB, text string, stores ...lineStore) *crowd {
	p, _, err := policy.Parse([]policy.Source{{Name: "llm.yaml", Data: []byte(text)}}, policy.Options{})
	if err != nil {
		t.Fatal(err)
	}
	c := &crowd{TB: t, policy: p, lines: stores[0], tickets: make(map[lane.ID]lane.ID), gate: make(chan struct{})}
	for _, s := range stores {
		r := &replica{tap: &tap{lineStore: s, crowd: c}}
		r.Engine = engine.New(r.tap, engine.Options{})
		r.SetPolicy(p)
		r.alive, r.kill = context.WithCancel(context.Background())
		c.replicas = append(c.replicas, r)
	}
	return c
}

// note takes down what was said in the line.
func (c *crowd) note(step *lane.Step, out *lane.Outcome) {
	c.mu.Lock()
	defer c.mu.Unlock()
	id := step.Ticket.ID
	switch step.Do {
	case lane.Enter:
		c.tickets[id] = step.Ticket.Subject
		c.log = append(c.log, said{out.Now, id, lane.Enter})
	case lane.Admitted, lane.Refused:
		c.log = append(c.log, said{out.Now, id, step.Do})
	default:
	}
	for _, call := range out.Calls {
		c.log = append(c.log, said{out.Now, call.Ticket, lane.Beat})
	}
}

// come has somebody wait for a turn by a replica, and hold the place for a few milliseconds, and until the gate is open.
func (c *crowd) come(r *replica, who caller) {
	r.callers.Go(func() {
		call := &engine.Call{
			Caller: engine.Caller{Domain: "llm", Attributes: []policy.Entry{{Key: "user", Value: who.user}}, Tier: who.tier},
			Usage:  price.Usage{Output: 1}, Key: who.key, Lasts: who.lasts,
		}
		var a engine.Admission
		err := r.Acquire(r.alive, call, &engine.Place{Lane: "provider", Tell: c.tell}, &a)
		from := time.Now()
		switch {
		case err != nil && r.tap.dead.Load():
			c.mu.Lock()
			defer c.mu.Unlock()
			c.lost = append(c.lost, who)
			return
		case err != nil || a.Over:
			c.Errorf("%s: %v %s", who.key, err, a.Message())
			return
		}
		c.mu.Lock()
		c.holding++
		gate := c.gate
		c.mu.Unlock()
		select {
		case <-gate:
			time.Sleep(2 * time.Millisecond)
		case <-r.alive.Done():
		}
		to, dead := time.Now(), r.tap.dead.Load()
		if dead {
			to = a.Expires.Time() // it lapses
		}
		err = r.Settle(r.alive, &engine.Report{ID: a.ID, Usage: price.Usage{Output: 1}}, new(engine.Settlement))
		if err != nil && !r.tap.dead.Load() {
			c.Errorf("%s: settle: %v", who.key, err)
		}
		if lapsed := a.Expires.Time(); lapsed.Before(to) {
			to = lapsed
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.holding--
		c.served = append(c.served, served{who, a.ID, a.Replayed, from, to})
	})
}

// open lets those who have places give them back; shut has them keep those that they get from now on.
func (c *crowd) open() { c.mu.Lock(); defer c.mu.Unlock(); close(c.gate) }
func (c *crowd) shut() { c.mu.Lock(); defer c.mu.Unlock(); c.gate = make(chan struct{}) }

// count returns what n counts.
func (c *crowd) count(n func() int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return n()
}

// untilServed waits until so many had a turn.
func (c *crowd) untilServed(n int) {
	c.Helper()
	c.until(fmt.Sprintf("%d had a turn", n), func(*lane.State) bool { return c.count(func() int { return len(c.served) }) >= n })
}

// until waits until the line is as it should.
func (c *crowd) until(what string, ok func(*lane.State) bool) {
	c.Helper()
	name := c.policy.Domain("llm").Lane("provider").Owner()
	for began := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		state, err := c.lines.LineState(context.Background(), name)
		if err == nil && ok(&state) {
			return
		}
		if time.Since(began) > patience {
			c.Fatalf("it is never so that %s: %v, %d wait in line, %d are called, %d set aside; %d have places, %d had a turn", what, err,
				where(&state, lane.Queued), where(&state, lane.Called), where(&state, lane.Aside), c.count(func() int { return c.holding }), len(c.served))
		}
	}
}

// where counts tickets.
func where(state *lane.State, is lane.Where) (n int) {
	for i := range state.Tickets {
		if state.Tickets[i].Where == is {
			n++
		}
	}
	return n
}

// tiersOf are those of the other users, in turn; the batch is a pro's.
var tiersOf = []string{"free", "pro", "premium"}

// gather takes all places, and has everybody come. It returns when all are in line.
func (c *crowd) gather(lasts func(at int) limit.Micros) {
	for i := range atATime {
		c.come(c.replicas[0], caller{fmt.Sprint("first ", i), fmt.Sprint("first ", i), "premium", lasts(0)})
	}
	c.until("all places are taken", func(*lane.State) bool { return c.count(func() int { return c.holding }) == atATime })
	for i := range max(batchSize, otherUsers) {
		if i < batchSize {
			at := i % len(c.replicas)
			c.come(c.replicas[at], caller{fmt.Sprint("batch ", i), "batch", "pro", lasts(at)})
		}
		if i < otherUsers {
			at := (i + 1) % len(c.replicas)
			c.come(c.replicas[at], caller{fmt.Sprint("other ", i), fmt.Sprint("other ", i), tiersOf[i%7%3], lasts(at)})
		}
	}
	c.until("all are in line", func(state *lane.State) bool { return where(state, lane.Queued) == batchSize+otherUsers })
}

// wait waits until all callers have their answers.
func (c *crowd) wait() {
	for _, r := range c.replicas {
		r.callers.Wait()
	}
}

// end ends all engines.
func (c *crowd) end() {
	for _, r := range c.replicas {
		r.kill()
		r.Close()
	}
}

// atOnce proves that no more had places at the same time than there are.
func (c *crowd) atOnce() {
	type change struct {
		at   time.Time
		more int
	}
	var all []change
	for i := range c.served {
		if s := &c.served[i]; s.from.Before(s.to) {
			all = append(all, change{s.from, 1}, change{s.to, -1})
		}
	}
	slices.SortFunc(all, func(a, b change) int { return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.more, b.more)) })
	taken := 0
	for _, a := range all {
		if taken += a.more; taken > atATime {
			c.Fatalf("%d have places at a time", taken)
		}
	}
}

// once proves that everybody was admitted, and nobody twice: as they were told, and as their own limits count. A call whose
// replica died before it heard may have been admitted by that, and hears of it when it comes again.
func (c *crowd) once(all int, lost map[string]bool) {
	admitted, ids := make(map[string]int), make(map[engine.ReservationID]string)
	calls := make(map[string]int64)
	for i := range c.served {
		s := &c.served[i]
		calls[s.user]++
		if other, ok := ids[s.id]; ok {
			c.Errorf("%s has the reservation of %s", s.key, other)
		}
		ids[s.id] = s.key
		if admitted[s.key]++; admitted[s.key] > 1 || s.replayed && !lost[s.key] {
			c.Errorf("%s was admitted twice", s.key)
		}
	}
	if len(c.served) != all {
		c.Errorf("%d calls were admitted, want %d", len(c.served), all)
	}
	for user, want := range calls {
		var a engine.Admission
		call := &engine.Call{Caller: engine.Caller{Domain: "llm", Attributes: []policy.Entry{{Key: "user", Value: user}}, Tier: "pro"}}
		if err := c.replicas[0].Check(context.Background(), call, &a); err != nil {
			c.Fatal(err)
		}
		if used := a.Limits[0].Status.Used + a.Limits[0].Status.Held; used != want {
			c.Errorf("%s: %d calls are counted, and it made %d", user, used, want)
		}
	}
}

// mostTurns is how many turns of the batch one of its tier waits for: one; and one more where a replica did not hear, before
// it died, whom it had called.
const mostTurns = 2

// inTurn proves that no other pro waited for more than that, from when it came, or came back because its replica had died,
// until it was its turn: as the line has called them.
func (c *crowd) inTurn(lost map[string]bool) {
	slices.SortStableFunc(c.log, func(a, b said) int { return cmp.Compare(a.at, b.at) })
	came, called, turns := make(map[lane.ID]int), make(map[lane.ID]int), make(map[lane.ID]int)
	again := make(map[lane.ID]bool)
	for i := range c.served {
		again[lane.ID(c.served[i].id)] = lost[c.served[i].key]
	}
	for i, s := range c.log {
		_, isThere := came[s.ticket]
		_, isCalled := called[s.ticket]
		switch {
		case s.what == lane.Enter && (!isThere || again[s.ticket]):
			came[s.ticket] = i
		case s.what == lane.Beat && !isCalled:
			called[s.ticket] = i
		case s.what == lane.Refused:
			delete(called, s.ticket)
		case s.what == lane.Admitted && isCalled:
			turns[s.ticket] = called[s.ticket]
		}
	}
	batch := make([]int, len(c.log)+1) // how many turns it had before
	for i := range c.served {
		if at, ok := turns[lane.ID(c.served[i].id)]; ok && c.served[i].user == "batch" {
			batch[at+1]++
		}
	}
	for i := range c.log {
		batch[i+1] += batch[i]
	}
	most, of := 0, 0
	for i := range c.served {
		s := &c.served[i]
		at, ok := turns[lane.ID(s.id)]
		if !ok || s.tier != "pro" || s.user == "batch" {
			continue
		}
		of++
		waited := batch[at] - batch[came[lane.ID(s.id)]]
		if most = max(most, waited); waited > mostTurns {
			c.Errorf("%s waited for %d turns of the batch", s.key, waited)
		}
	}
	c.Logf("%d others waited for %d turns of the batch at most", of, most)
	if of < otherUsers/4 {
		c.Errorf("only of %d others it is known how long they waited", of)
	}
}

// A thousand wait by one engine, on the embedded store.
func TestCrowd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.New(memory.Options{})
		defer s.Close()
		c := newCrowd(t, crowded, s)
		defer c.end()
		c.inOrder = new(sync.Mutex)
		c.gather(func(int) limit.Micros { return engine.DefaultLease })
		c.open()
		c.wait()
		c.atOnce()
		c.once(everybody, nil)
		c.inTurn(nil)
	})
}

// While nothing moves an engine asks the store once a second in each line in which anybody waits by it, however many do; and
// once more if any of them wants to hear how it stands; beside that only whoever is next tries, every three seconds.
func TestStepsOfACrowd(t *testing.T) {
	for most, tell := range map[int64]func(engine.Standing){1: nil, 2: func(engine.Standing) {}} {
		synctest.Test(t, func(t *testing.T) {
			s := memory.New(memory.Options{})
			defer s.Close()
			c := newCrowd(t, crowded, s, s)
			defer c.end()
			c.tell = tell
			c.gather(func(int) limit.Micros { return engine.DefaultLease })
			time.Sleep(5 * time.Second)
			const long = 20
			for i, r := range c.replicas {
				before := r.tap.steps.Load()
				time.Sleep(long * time.Second)
				if n := r.tap.steps.Load() - before; n > long*(most+2) || n < long-1 {
					t.Errorf("engine %d takes %d steps in %d seconds, want %d a second", i, n, long, most)
				}
			}
			c.open()
			c.wait()
		})
	}
}

// A thousand wait by three engines, on one Redis. One of the engines dies with some of them. Those come back by the others.
func TestCrowdWhoseReplicaDies(t *testing.T) {
	server := redistest.Start(t)
	var stores []lineStore
	for range 3 {
		s, err := redis.New(redis.Options{URL: server.URL(), Timeout: patience})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		stores = append(stores, s)
	}
	c := newCrowd(t, crowded, stores...)
	defer c.end()
	dies := c.replicas[2]
	lasts := func(at int) limit.Micros {
		if c.replicas[at] == dies {
			return 5 * limit.Second // what it holds lapses soon
		}
		return engine.DefaultLease
	}
	c.gather(lasts)
	c.open()
	c.untilServed(300)
	dies.tap.dead.Store(true)
	dies.kill()
	dies.callers.Wait()
	c.until("others are no longer kept waiting", func(state *lane.State) bool { return where(state, lane.Aside) > 0 })
	c.untilServed(c.count(func() int { return len(c.served) }) + 50)

	c.shut()
	c.until("all places are taken", func(state *lane.State) bool {
		return where(state, lane.Called) == 0 && c.count(func() int { return c.holding }) == atATime
	})
	lost := make(map[string]bool)
	for i, who := range c.lost {
		lost[who.key] = true
		c.come(c.replicas[i%2], who)
	}
	t.Logf("%d were lost with their replica", len(lost))
	c.until("they are back", func(state *lane.State) bool {
		return where(state, lane.Aside) == 0 && c.count(func() int { return len(c.served) + c.holding })+len(state.Tickets) == everybody
	})
	c.open()
	c.wait()
	c.atOnce()
	c.once(everybody, lost)
	c.inTurn(lost)
}

// Redis goes away while many wait, and comes back with nothing. They wait on, enter again in the order in which they came, and
// have one turn each.
func TestRedisComesBackEmpty(t *testing.T) {
	server := redistest.Start(t)
	var stores []lineStore
	for range 2 {
		s, err := redis.New(redis.Options{URL: server.URL()})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		stores = append(stores, s)
	}
	c := newCrowd(t, strings.Replace(crowded, "max_wait:", "on_store_error: error\n    max_wait:", 1), stores...)
	defer c.end()
	for i := range atATime {
		c.come(c.replicas[0], caller{fmt.Sprint("first ", i), fmt.Sprint("first ", i), "pro", engine.DefaultLease})
	}
	c.until("all places are taken", func(*lane.State) bool { return c.count(func() int { return c.holding }) == atATime })
	const many = 50
	for i := range many {
		c.come(c.replicas[i%2], caller{fmt.Sprint("other ", i), fmt.Sprint("other ", i), "pro", engine.DefaultLease})
		c.until("it waits", func(state *lane.State) bool { return len(state.Tickets) == i+1 })
	}
	server.Stop()
	time.Sleep(4 * time.Second) // longer than it may stall
	redistest.StartAt(t, server.Addr)
	c.until("as many as there are places for have new ones, and the others wait", func(state *lane.State) bool {
		return where(state, lane.Queued) == many-atATime && c.count(func() int { return c.holding }) == 2*atATime
	})
	c.open()
	c.wait()
	c.once(atATime+many, nil)
}
