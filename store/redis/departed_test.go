package redis

import (
	"testing"
	"time"

	"github.com/rationhq/ration/store/redis/redistest"
)

// A client of a node that nobody is sent to any more, because it has departed, say, is ended after a while.
func TestVisitedNodesAreDropped(t *testing.T) {
	nodes := redistest.StartCluster(t)
	s, err := New(Options{URL: "redis-cluster://" + nodes[0].Addr})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	b, err := s.batcher(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	departed, near := s.clientOf(nodes[1].Addr, b.client), s.clientOf(nodes[2].Addr, b.client)
	s.mu.Lock()
	s.asked[nodes[1].Addr].last = time.Now().Add(-2 * keepVisited)
	s.mu.Unlock()
	if err := s.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := departed.Ping(t.Context()).Err(); err == nil {
		t.Error("the client of a node that nobody asks is open")
	}
	if err := near.Ping(t.Context()).Err(); err != nil {
		t.Errorf("the client of a node that was just asked: %v", err)
	}
	if again := s.clientOf(nodes[1].Addr, b.client); again == departed || again.Ping(t.Context()).Err() != nil {
		t.Error("the node cannot be asked again")
	}
	if got, err := s.batcher(t.Context(), 0); got != b || err != nil {
		t.Errorf("the batcher of a master has gone: %v", err)
	}
}
