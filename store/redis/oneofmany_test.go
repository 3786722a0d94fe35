package redis_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
	"github.com/rationhq/ration/store/redis"
	"github.com/rationhq/ration/store/redis/redistest"
)

// A node of a Cluster has a part of the shards. A store that is told of it as of a single Redis says so, and how to mend it,
// whatever it is asked: also what is asked behind the back of all callers, where nobody would catch a panic.
func TestANodeOfAClusterIsNoSingleRedis(t *testing.T) {
	t.Parallel()
	for _, node := range redistest.StartCluster(t) {
		s, err := redis.New(redis.Options{URL: node.URL()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		refused := 0
		says := func(what string, err error) {
			t.Helper()
			if !errors.Is(err, store.ErrUnavailable) || !strings.Contains(err.Error(), "redis-cluster://") {
				t.Errorf("%s: %v, want ErrUnavailable with the cure", what, err)
			}
			refused++
		}
		ctx := t.Context()
		says("ready", s.Ready(ctx))
		op := func(owner string) store.Op {
			return store.Op{
				Owner: []byte(owner), Bucket: []byte("requests"), Amount: 1, Manner: limit.Strict,
				Spec: limit.Spec{Limit: 5, Window: limit.Second},
			}
		}
		var out store.Outcome
		says("two owners", s.Apply(ctx, &store.Step{Ops: []store.Op{op("alice"), op("bob")}}, &out))
		for _, owner := range []string{"a", "b", "c", "d", "e", "f", "g", "h"} {
			if err := s.Apply(ctx, &store.Step{Ops: []store.Op{op(owner)}}, &out); err != nil {
				says("an owner elsewhere", err)
			}
			if _, err := s.Rows(ctx, store.RowsQuery{Group: []byte("llm"), Owner: []byte(owner), To: limit.Second}); err != nil {
				says("rows of an owner elsewhere", err)
			}
		}
		if refused < 4 {
			t.Errorf("%s has all that was asked for", node.Addr)
		}
		if _, err := s.Top(ctx, store.TopQuery{Group: []byte("llm"), Most: 1}); err == nil {
			t.Error("it has all rankings")
		} else {
			says("top", err)
		}
		for what, ask := range map[string]func() error{
			"undelivered": func() error { _, err := s.Undelivered(ctx); return err },
			"delivered":   func() error { return s.Delivered(ctx, []store.Event{{ID: "0000" + strings.Repeat("0", 40)}}) },
			"deliver":     func() error { _, err := s.Deliver(ctx, [16]byte{1}, limit.Second); return err },
		} {
			if err := ask(); err != nil { // the outbox may be on this node
				says(what, err)
			}
		}
	}
}
