package redis

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

// Options of a Redis store. Only URL is required.
type Options struct {
	// URL says where Redis is: see [Forms].
	URL string
	// KeyPrefix stands before every key. It may not contain a brace: those mark the shard.
	KeyPrefix string
	// Timeout bounds connecting, waiting for a connection, and one round trip; 0 means one second.
	Timeout time.Duration
	// TLS, where set, is used for every connection (rediss:// sets one without it).
	TLS *tls.Config
	// WaitReplicas is how many replicas have to have what a step wrote before it is answered; 0 for
	// none. Where they have not, within half of Timeout, the step is written and the answer is
	// store.ErrUnavailable.
	WaitReplicas int
	// Clock replaces the clock of Redis. Only tests set it.
	Clock func() limit.Micros
}

// Store is the store.Store in Redis.
type Store struct {
	prefix  string
	timeout time.Duration
	// replicas is Options.WaitReplicas.
	replicas int
	client   redis.UniversalClient
	// cluster is client where that is a cluster, else nil.
	cluster *redis.ClusterClient
	make    func(*redis.Client) *batcher
	clock   func() limit.Micros // Options.Clock
	// ascending holds the first few numbers: see indices.
	ascending []int

	mu       sync.RWMutex
	batchers map[*redis.Client]*batcher
	single   *batcher            // the only one, where there is no cluster
	asked    map[string]*visited // by address: see clientOf
	closed   bool
	closing  chan struct{}  // closed with it
	leaving  sync.WaitGroup // what goes on behind callers' backs
}

// New connects lazily: it fails only on options that can never work. Ask [Store.Ready] whether
// Redis answers.
func New(opts Options) (*Store, error) {
	if strings.ContainsAny(opts.KeyPrefix, "{}") {
		return nil, fmt.Errorf("the key prefix %q contains a brace: leave braces out, they mark the shard", opts.KeyPrefix)
	}
	if opts.Timeout <= 0 {
		opts.Timeout = time.Second
	}
	client, err := connect(opts)
	if err != nil {
		return nil, err
	}
	s := &Store{
		prefix: opts.KeyPrefix, timeout: opts.Timeout, replicas: opts.WaitReplicas, client: client, ascending: ascending(64),
		clock: opts.Clock, closing: make(chan struct{}), batchers: make(map[*redis.Client]*batcher), asked: make(map[string]*visited),
	}
	s.cluster, _ = client.(*redis.ClusterClient)
	s.make = func(node *redis.Client) *batcher {
		return newBatcher(node, s.cluster != nil, &opts)
	}
	if node, ok := client.(*redis.Client); ok {
		s.single = s.make(node)
		s.batchers[node] = s.single
	}
	return s, nil
}

// Ready asks Redis whether it would run the script, with no step in it: a replica, and a Redis that
// is full, refuse it as they would a decision; and whether the script would be allowed all that it does.
// A cluster is ready while any of its masters is: replicas of ration that stop together when one shard is
// without a master would help nobody.
func (s *Store) Ready(ctx context.Context) error {
	if s.cluster == nil {
		return s.ready(ctx, s.single.client)
	}
	var answers atomic.Int32
	masters, err := s.masters(ctx, func(ctx context.Context, node *redis.Client) error {
		err := s.ready(ctx, node)
		if err == nil {
			answers.Add(1)
		}
		return err
	})
	s.drop(masters, time.Now())
	if err != nil && answers.Load() == 0 {
		if errors.Is(err, store.ErrUnavailable) || errors.Is(err, store.ErrFull) {
			return err
		}
		return explain(err)
	}
	return nil
}

// Parted implements store.Parted: of a cluster a part of the nodes may be away.
func (s *Store) Parted() bool { return s.cluster != nil }

// Close ends all connections.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	close(s.closing)
	s.mu.Unlock()
	s.leaving.Wait()
	for _, b := range s.batchers {
		b.close()
	}
	for _, node := range s.asked {
		_ = node.client.Close()
	}
	return s.client.Close()
}

// attempts bounds how often a step is sent again whose windows ended on its way. One that is to bring a calendar of which
// nobody knew is none of these.
const attempts = 5

var errClock = fmt.Errorf("%w: Redis's clock does not stand still", store.ErrUnavailable)

// Apply implements store.Store.
//
// In a Redis Cluster counters of different shards live on different machines. A step of plain ops
// only, which do not depend on each other, is then decided shard by shard; others as span.go says.
func (s *Store) Apply(ctx context.Context, step *store.Step, out *store.Outcome) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := step.Validate(); err != nil {
		return err
	}
	out.Now, out.Lease, out.Note = 0, store.LeaseNone, out.Note[:0]
	out.Results = append(out.Results[:0], make([]limit.Status, len(step.Ops))...)
	if s.cluster != nil && step.Lease != nil && step.Lease.Do == store.LeaseLook {
		return s.applyLook(ctx, step, out)
	}
	parts := s.split(step)
	var err error
	if s.cluster != nil && (step.Lease != nil || len(parts) > 1 && !independent(step)) {
		err = s.applySpan(ctx, step, parts, out)
	} else {
		err = s.applyParts(ctx, step, parts, out)
	}
	out.Refused = refuses(step, out.Results)
	return err
}

// refuses forms the overall verdict.
func refuses(step *store.Step, results []limit.Status) bool {
	overall := limit.Tally{}
	if step.QuotaOpen {
		overall.Add(true, false)
	}
	for i := range step.Ops {
		overall.Add(step.Ops[i].Quota, results[i].Refused && !step.Ops[i].Shadow)
	}
	return (step.Refused || overall.Refuses()) && !step.Shadow
}

// independent says that what the step does in one shard does not depend on another.
func independent(step *store.Step) bool {
	if len(step.Rows) > 0 {
		return false
	}
	for i := range step.Ops {
		if step.Ops[i].Manner != limit.Plain {
			return false
		}
	}
	return true
}

// split divides the ops and rows of a step by the shards of a cluster.
func (s *Store) split(step *store.Step) []part {
	idle := -1 // a row of the lease to which the step adds nothing
	if step.Lease != nil && !step.Lease.AddsRow() {
		idle = ofLease(step)
	}
	if s.cluster == nil {
		one := part{ops: s.indices(len(step.Ops)), rows: s.indices(len(step.Rows))}
		if idle >= 0 {
			one.rows = slices.DeleteFunc(ascending(len(step.Rows)), func(i int) bool { return i == idle })
		}
		return []part{one}
	}
	var parts []part
	in := func(shard uint16) *part {
		at := slices.IndexFunc(parts, func(p part) bool { return p.shard == shard })
		if at < 0 {
			at = len(parts)
			parts = append(parts, part{shard: shard})
		}
		return &parts[at]
	}
	for i := range step.Ops {
		p := in(shardOf(&step.Ops[i]))
		p.ops = append(p.ops, i)
	}
	for i := range step.Rows {
		if i == idle {
			continue
		}
		p := in(shardOfName(step.Rows[i].Owner))
		p.rows = append(p.rows, i)
	}
	if len(parts) == 0 {
		return []part{{}}
	}
	return parts
}

// indices returns 0…n−1. They are only read, so all steps share those that were made beforehand.
func (s *Store) indices(n int) []int {
	if n <= len(s.ascending) {
		return s.ascending[:n]
	}
	return ascending(n)
}

func ascending(n int) []int {
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	return all
}

func (s *Store) applyParts(ctx context.Context, step *store.Step, parts []part, out *store.Outcome) error {
	if len(parts) == 1 {
		return s.applyPart(ctx, step, parts[0], out)
	}
	var all sync.WaitGroup
	outs := make([]store.Outcome, len(parts))
	errs := make([]error, len(parts))
	for i, p := range parts {
		outs[i].Results = out.Results
		all.Go(func() { errs[i] = s.applyPart(ctx, step, p, &outs[i]) })
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		return partly(err)
	}
	for i := range outs {
		out.Now = max(out.Now, outs[i].Now)
	}
	return nil
}

// applyPart completes out by what concerns the ops of p.
func (s *Store) applyPart(ctx context.Context, step *store.Step, p part, out *store.Outcome) error {
	e := &encoding{step: step, part: p, lease: step.Lease, inCluster: s.cluster != nil}
	c, err := s.decide(ctx, e)
	if err != nil {
		return err
	}
	out.Now, out.Note = c.now, append(out.Note, c.note...)
	out.Lease = e.read(answer{rest: c.answer}, c.now, out.Results)
	return nil
}

// decide sends a part until the script decides it.
func (s *Store) decide(ctx context.Context, e *encoding) (*call, error) {
	for tried := 0; tried < attempts; {
		c, err := s.sendPart(ctx, e)
		if err != nil || !c.again {
			return c, err
		}
		learned := false
		for _, name := range c.need {
			if slices.ContainsFunc(e.need, func(known namedCalendar) bool { return known.name == name }) {
				continue
			}
			calendar, err := limit.ParseCalendar(name)
			if err != nil {
				return nil, fmt.Errorf("%w: %w", store.ErrCorrupt, err)
			}
			e.need, learned = append(e.need, namedCalendar{name, calendar}), true
		}
		if !c.more && !learned {
			tried++
		}
	}
	return nil, errClock
}

// longestPause is for how long a step may wait, that a cluster cannot decide while it moves the shard, when the
// shard has moved.
const longestPause = 50 * time.Millisecond

// sendPart sends the step to the node that has its shard, following the shard while a cluster moves it.
func (s *Store) sendPart(ctx context.Context, e *encoding) (*call, error) {
	began := time.Now()
	for pause := time.Millisecond; ; pause = min(2*pause, longestPause) {
		b, err := s.batcher(ctx, e.part.shard)
		if err != nil {
			return nil, err
		}
		c := s.newCall(e, b.now())
		err = b.send(ctx, c)
		var elsewhere *redirection
		if s.cluster == nil && errors.As(err, &elsewhere) {
			return nil, errOneOfMany
		}
		moved := false
		if errors.As(err, &elsewhere) && elsewhere.addr != "" {
			moved = !elsewhere.ask
			e.asked = elsewhere.ask
			c = s.newCall(e, b.now())
			err = s.follow(ctx, elsewhere, b, c)
			e.asked = false
		}
		if s.cluster != nil && (moved || errors.Is(err, store.ErrUnavailable)) {
			s.cluster.ReloadState(ctx) // the shard may have another node by now: the client looks in the background
		}
		if !errors.As(err, &elsewhere) || time.Since(began)+pause > s.timeout {
			return c, err
		}
		select {
		case <-time.After(pause): // the script did not run
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// follow sends one call to the node that another one has named: it has the call's shard, or has taken in
// its keys and not yet the slot.
func (s *Store) follow(ctx context.Context, to *redirection, from *batcher, c *call) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	from.decide(ctx, s.clientOf(to.addr, from.client), to.ask, [][]*call{{c}})
	return c.err
}

// visited is a client of a node to which another one has sent us.
type visited struct {
	client *redis.Client
	last   time.Time // used for the last time; each use ends within Options.Timeout
}

// keepVisited is how long a client of such a node is kept that is not used. The cluster's own client knows
// the node by then, or it has departed.
const keepVisited = time.Minute

// clientOf returns a client of the node at addr, set up as another one is. The cluster's own client
// may not know the node yet.
func (s *Store) clientOf(addr string, other *redis.Client) *redis.Client {
	s.mu.Lock()
	defer s.mu.Unlock()
	node := s.asked[addr]
	if node == nil {
		opts := *other.Options()
		opts.Addr = addr
		node = &visited{client: redis.NewClient(&opts)}
		s.asked[addr] = node
	}
	node.last = time.Now()
	return node.client
}

// newCall makes a call of the step, as it is to be decided about now.
func (s *Store) newCall(e *encoding, now limit.Micros) *call {
	c := &call{shard: e.part.shard, since: time.Now(), done: make(chan struct{})}
	var few [512]byte
	all := few[:0]
	var ends [16]int
	until := append(ends[:0], 0)
	for i := range e.part.ops {
		all = appendKey(all, s.prefix, e.op(i), now)
		until = append(until, len(all))
	}
	if e.lease != nil {
		all = e.appendLeaseKey(all, s.prefix)
		until = append(until, len(all))
	}
	e.sums = e.sums[:0]
	for _, i := range e.part.rows {
		e.sums = appendSums(e.sums, &e.step.Rows[i], now)
	}
	for i := range e.sums {
		all = e.sums[i].appendKey(all, s.prefix, s.cluster != nil)
		until = append(until, len(all))
	}
	named := len(until) - 1
	if s.cluster != nil {
		tells := false
		for i := range e.part.ops {
			if e.op(i).Manner == limit.Strict {
				for _, suffix := range [...]string{"#holds", "#pending"} {
					all = append(append(all, all[until[i]:until[i+1]]...), suffix...)
					until = append(until, len(all))
				}
			}
			tells = tells || e.tells(e.op(i))
		}
		if tells {
			for _, suffix := range outboxSuffixes {
				all = appendOutboxKey(all, s.prefix, e.part.shard, suffix)
				until = append(until, len(all))
			}
		}
	}
	// One string for all keys is one allocation.
	keys := make([]string, len(until)-1)
	names := string(all)
	for i := range keys {
		keys[i] = names[until[i]:until[i+1]]
	}
	c.keys, c.beside = keys[:named:named], keys[named:]
	c.weight = named - len(e.sums) + rowWeight*len(e.part.rows)
	e.keys, e.now = c.keys, now
	c.step = e.append(make([]byte, 0, stepBytes+opBytes*(len(e.part.ops)+len(e.sums))))
	c.size, c.noted = e.size(), e.lease != nil && e.phase < claim
	return c
}

// batcher returns the one of the node that has the shard.
func (s *Store) batcher(ctx context.Context, shard uint16) (*batcher, error) {
	if s.single != nil {
		return s.single, nil
	}
	node, err := s.cluster.MasterForKey(ctx, string(appendTag(nil, shard)))
	if err != nil {
		return nil, explain(err)
	}
	s.mu.RLock()
	b := s.batchers[node]
	s.mu.RUnlock()
	if b != nil {
		return b, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, fmt.Errorf("%w: it is closed", store.ErrUnavailable)
	}
	if b = s.batchers[node]; b == nil {
		b = s.make(node)
		s.batchers[node] = b
		s.leaving.Go(s.dropDeparted)
	}
	return b, nil
}

// dropDeparted ends the batchers of nodes that are masters of the cluster no more, and the clients that
// nobody uses any more.
func (s *Store) dropDeparted() {
	ctx, cancel := context.WithTimeout(context.Background(), s.timeout)
	defer cancel()
	masters, err := s.masters(ctx, func(context.Context, *redis.Client) error { return nil })
	if err == nil {
		s.drop(masters, time.Now())
	}
}

// masters calls ask for each master of the cluster, and returns them; none where the cluster is not known.
func (s *Store) masters(
	ctx context.Context, ask func(context.Context, *redis.Client) error,
) (masters map[*redis.Client]bool, err error) {
	var mu sync.Mutex
	masters = make(map[*redis.Client]bool)
	err = s.cluster.ForEachMaster(ctx, func(ctx context.Context, node *redis.Client) error {
		mu.Lock()
		masters[node] = true
		mu.Unlock()
		own, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.timeout) // another one may have used up ctx
		defer cancel()
		return ask(own, node)
	})
	return masters, err
}

func (s *Store) drop(masters map[*redis.Client]bool, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || len(masters) == 0 {
		return
	}
	for node, b := range s.batchers {
		if !masters[node] {
			delete(s.batchers, node)
			s.leaving.Go(b.close) // which waits for what is on its way
		}
	}
	for addr, node := range s.asked {
		if now.Sub(node.last) > max(keepVisited, 2*s.timeout) {
			delete(s.asked, addr)
			_ = node.client.Close()
		}
	}
}
