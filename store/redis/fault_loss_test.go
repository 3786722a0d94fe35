package redis_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/rationhq/ration/store"
	"github.com/rationhq/ration/store/redis"
	"github.com/rationhq/ration/store/redis/redistest"
)

// What Redis has acknowledged and no replica has got is lost by a failover: so much more is admitted
// than the limit, and not one unit more. A master that insists on a replica (min-replicas-to-write)
// refuses to count instead, and a store that waits for one (WaitReplicas) does not admit: nothing is lost.
func TestWhatAFailoverLoses(t *testing.T) {
	const before, after = 4, scarce - 4
	for name, test := range map[string]struct {
		insists string
		wait    int
		lost    int64
	}{
		"nobody waits":            {insists: "0", lost: after},
		"min-replicas-to-write 1": {insists: "1"},
		"WaitReplicas 1":          {insists: "0", wait: 1},
	} {
		insists, lost := test.insists, test.lost
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := context.Background()
			master := redistest.Start(t)
			replica := redistest.Start(t, replicaOf(master)...)
			proxy := redistest.StartProxy(t, master.Addr)
			s := newStore(t, redis.Options{URL: proxy.URL(), Timeout: timeout, WaitReplicas: test.wait})
			c := newCrowd(t, timeout, s)
			spend := func(n int, answered bool) {
				t.Helper()
				for i := range makers {
					for range n {
						err := c.call(s, bucketID{&makers[i], "scarce", scarce})
						if answered && err != nil || !answered && !unanswered(err) {
							t.Errorf("%s: %v, want an answer: %v", makers[i].name, err, answered)
						}
					}
				}
			}
			awaitReplicas(t, master, 1)
			awaitWrites(t, s)
			spend(before, true)
			c.acknowledged(master)
			if err := master.Client(t).ConfigSet(ctx, "min-replicas-to-write", insists).Err(); err != nil {
				t.Fatal(err)
			}

			// The replica loses its master, and some time later there is no master.
			demote(t, &site{look: replica.Client(t)})
			awaitReplicas(t, master, 0)
			spend(after, lost > 0)
			master.Stop()
			promote(t, &site{look: replica.Client(t)})
			if test.wait > 0 {
				redistest.Start(t, replicaOf(replica)...)
				awaitReplicas(t, replica, 1)
			}
			proxy.To(replica.Addr)
			awaitWrites(t, s)

			spend(after+1, true)
			missing := c.verify(witness(t, replica.URL()), lost)
			if want := lost * int64(len(makers)); missing != want {
				t.Errorf("%d were lost, want %d", missing, want)
			}
			for bucket, heard := range c.tallies {
				if heard.admitted != scarce+lost || heard.refused != 1 {
					t.Errorf("%s: %+v, want %d and then 1 refused", bucket.maker.name, *heard, scarce+lost)
				}
			}
		})
	}
}

// awaitWrites waits until a step is written as the store wants it: a replica that says it is online may get
// nothing for a second.
func awaitWrites(t *testing.T, s *redis.Store) {
	t.Helper()
	var out store.Outcome
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		err := s.Apply(t.Context(), &store.Step{Ops: []store.Op{charge("first", year(1), 1)}}, &out)
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("nothing is written: %v", err)
		}
	}
}

// awaitReplicas waits until a master has n replicas that follow it.
func awaitReplicas(t *testing.T, master *redistest.Server, n int) {
	t.Helper()
	look := master.Client(t)
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		info := look.Info(context.Background(), "replication").Val()
		if strings.Count(info, "state=") == n && strings.Count(info, "state=online") == n && info != "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s has not got %d replicas:\n%s", master.Addr, n, info)
		}
	}
}
