package redis

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/rationhq/ration/store"
)

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
