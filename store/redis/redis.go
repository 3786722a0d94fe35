package redis

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

// Options of a Redis store. Only URL is required.
type Options struct {
	// URL says where Redis is: see [New].
	URL string
	// KeyPrefix stands before every key. It may not contain a brace: those mark the shard.
	KeyPrefix string
	// Timeout bounds connecting, waiting for a connection, and one round trip; 0 means one second.
	Timeout time.Duration
	// TLS, where set, is used for every connection (rediss:// sets one without it).
	TLS *tls.Config
	// Clock replaces the clock of Redis. Only tests set it.
	Clock func() limit.Micros
}

// Store is the store.Store in Redis.
type Store struct {
	prefix string
	client redis.UniversalClient
	// cluster is client where that is a cluster, else nil.
	cluster *redis.ClusterClient
	make    func(*redis.Client) *batcher

	mu       sync.RWMutex
	batchers map[*redis.Client]*batcher
	single   *batcher // the only one, where there is no cluster
	closed   bool
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
	s := &Store{prefix: opts.KeyPrefix, client: client, batchers: make(map[*redis.Client]*batcher)}
	s.cluster, _ = client.(*redis.ClusterClient)
	s.make = func(node *redis.Client) *batcher {
		return newBatcher(node, opts.Timeout, s.cluster != nil, opts.Clock)
	}
	if node, ok := client.(*redis.Client); ok {
		s.single = s.make(node)
		s.batchers[node] = s.single
	}
	return s, nil
}

// Ready asks Redis whether it can be written to.
func (s *Store) Ready(ctx context.Context) error {
	ask := func(ctx context.Context, node *redis.Client) error { return node.Ping(ctx).Err() }
	var err error
	if s.cluster != nil {
		err = s.cluster.ForEachMaster(ctx, ask)
	} else {
		err = ask(ctx, s.single.client)
	}
	if err != nil {
		return explain(err)
	}
	return nil
}

// Close ends all connections.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	for _, b := range s.batchers {
		b.close()
	}
	return s.client.Close()
}

// attempts bounds how often a step that was not written is sent again: because a window ended on
// its way, or because the slot has moved to another node.
const attempts = 5

var (
	errMoved = fmt.Errorf("%w: the slot has moved to another node", store.ErrUnavailable)
	errClock = fmt.Errorf("%w: Redis's clock does not stand still", store.ErrUnavailable)
)

// Apply implements store.Store.
//
// In a Redis Cluster counters of different shards live on different machines. A step of plain
// charges, which do not depend on each other, is then decided shard by shard; a step with a strict
// charge has to live in one shard.
func (s *Store) Apply(ctx context.Context, step *store.Step, out *store.Outcome) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := step.Validate(); err != nil {
		return err
	}
	out.Results = append(out.Results[:0], make([]store.Result, len(step.Ops))...)
	parts := s.split(step)
	if len(parts) > 1 && step.HasStrict() {
		return fmt.Errorf("%w: limits of several shards of a Redis Cluster in one decision", store.ErrUnsupported)
	}
	if err := s.applyParts(ctx, step, parts, out); err != nil {
		return err
	}
	overall := limit.Tally{}
	if step.QuotaOpen {
		overall.Add(true, false)
	}
	for i := range step.Ops {
		overall.Add(step.Ops[i].Quota, out.Results[i].Refused && !step.Ops[i].Shadow)
	}
	out.Refused = overall.Refuses() && !step.Shadow
	return nil
}

// part is the ops of a step, by index, that one run of the script decides.
type part struct {
	shard uint16
	ops   []int
}

func (s *Store) split(step *store.Step) []part {
	if s.cluster == nil {
		all := make([]int, len(step.Ops))
		for i := range all {
			all[i] = i
		}
		return []part{{ops: all}}
	}
	var parts []part
	for i := range step.Ops {
		shard := shardOf(&step.Ops[i])
		at := 0
		for at < len(parts) && parts[at].shard != shard {
			at++
		}
		if at == len(parts) {
			parts = append(parts, part{shard: shard})
		}
		parts[at].ops = append(parts[at].ops, i)
	}
	return parts
}

func (s *Store) applyParts(ctx context.Context, step *store.Step, parts []part, out *store.Outcome) error {
	if len(parts) == 1 {
		now, err := s.applyPart(ctx, step, parts[0], out.Results)
		out.Now = now
		return err
	}
	var all sync.WaitGroup
	nows := make([]limit.Micros, len(parts))
	errs := make([]error, len(parts))
	for i, p := range parts {
		all.Go(func() { nows[i], errs[i] = s.applyPart(ctx, step, p, out.Results) })
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("%w, some shards of it: %w", store.ErrUnavailable, err)
	}
	out.Now = slices.Max(nows)
	return nil
}

// applyPart fills in the results of the ops of p, and returns when they were decided.
func (s *Store) applyPart(ctx context.Context, step *store.Step, p part, results []store.Result) (limit.Micros, error) {
	last := errClock
	for range attempts {
		b, err := s.batcher(ctx, p.shard)
		if err != nil {
			return 0, err
		}
		c := s.newCall(step, p, b.now())
		err = b.send(ctx, c)
		switch {
		case errors.Is(err, errMoved):
			last = err
			s.cluster.ReloadState(ctx)
			continue
		case err != nil:
			return 0, err
		case c.again:
			continue
		}
		for i, op := range p.ops {
			results[op] = c.results[i]
		}
		return c.now, nil
	}
	return 0, last
}

func (s *Store) newCall(step *store.Step, p part, now limit.Micros) *call {
	c := &call{shard: p.shard, since: time.Now(), keys: make([]string, len(p.ops)), done: make(chan struct{})}
	var few [256]byte
	key := few[:0]
	for i, at := range p.ops {
		op := &step.Ops[at]
		key = appendKey(key[:0], s.prefix, op, shardOf(op), op.Spec.Start(now))
		c.keys[i] = string(key)
	}
	c.step = appendStep(make([]byte, 0, stepBytes+opBytes*len(p.ops)), step, p.ops, now)
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
	}
	return b, nil
}
