package redis_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/rationhq/ration/store/redis"
	"github.com/rationhq/ration/store/redis/redistest"
)

// awaitNotice waits for a notice.
func awaitNotice(t *testing.T, notices <-chan struct{}, of string) {
	t.Helper()
	select {
	case _, open := <-notices:
		if !open {
			t.Fatal("the channel is closed")
		}
	case <-time.After(30 * time.Second):
		t.Fatalf("no notice of %s", of)
	}
}

// listeners returns how many hear of events at a Redis.
func listeners(t *testing.T, look *goredis.Client) int64 {
	t.Helper()
	n, err := look.PubSubNumSub(context.Background(), "ration:events").Result()
	if err != nil {
		t.Fatal(err)
	}
	return n["ration:events"]
}

func awaitListeners(t *testing.T, look *goredis.Client, want int64) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); listeners(t, look) != want; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d hear of events, want %d", listeners(t, look), want)
		}
	}
}

// Who waits for notices has one of each event, and one whenever there may have been one that was missed: when it begins
// to hear, and when its connection is there again.
func TestNotices(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	look := server.Client(t)
	s, other := newStore(t, redis.Options{URL: server.URL()}), newStore(t, redis.Options{URL: server.URL()})
	notices := s.Notices(t.Context())
	awaitNotice(t, notices, "the beginning")
	for n := range 3 {
		apply(t, other, nil, warning(strict(fmt.Sprint("b", n), year(10), 9), 5, 8))
		awaitNotice(t, notices, "an event")
	}
	if err := look.ClientKillByFilter(t.Context(), "TYPE", "pubsub").Err(); err != nil {
		t.Fatal(err)
	}
	awaitNotice(t, notices, "what may have been missed")
	apply(t, other, nil, warning(strict("b3", year(10), 9), 5, 8))
	awaitNotice(t, notices, "an event, over another connection")
}

// Nobody listens for those who have left, or for a store that is closed, or in one.
func TestNoticesEnd(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	look := server.Client(t)
	s := newStore(t, redis.Options{URL: server.URL()})
	ctx, leave := context.WithCancel(t.Context())
	_, left := s.Notices(t.Context()), s.Notices(ctx)
	awaitListeners(t, look, 2)
	leave()
	awaitListeners(t, look, 1)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	awaitListeners(t, look, 0)
	closed := s.Notices(t.Context())
	for _, notices := range []<-chan struct{}{left, closed} {
		for len(notices) > 0 {
			<-notices
		}
		select {
		case _, open := <-notices:
			t.Errorf("there is a notice, or the channel is not open: %v", open)
		default:
		}
	}
}

// In a Cluster an event on any node is noticed on every one.
func TestNoticesInACluster(t *testing.T) {
	nodes := redistest.StartCluster(t)
	for i := range nodes {
		s := newStore(t, redis.Options{URL: "redis-cluster://" + nodes[i].Addr})
		notices := s.Notices(t.Context())
		awaitNotice(t, notices, "the beginning")
		for n := range 10 { // owners on all nodes
			op := warning(strict(fmt.Sprint("b", i), year(10), 9), 5, 8)
			op.Owner = fmt.Append(nil, "owner ", n)
			apply(t, s, nil, op)
			awaitNotice(t, notices, "an event")
		}
	}
}
