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
