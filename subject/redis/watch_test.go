package redis_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/rationhq/ration/store/redis/redistest"
	"github.com/rationhq/ration/subject"
	"github.com/rationhq/ration/subject/redis"
	"github.com/rationhq/ration/subject/subjecttest"
)

// heard counts what Watch tells.
type heard struct {
	mu    sync.Mutex
	times map[subject.NoticeKind]int
}

func (h *heard) tell(n subject.Notice) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.times[n.Kind]++
}

func (h *heard) count(kind subject.NoticeKind) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.times[kind]
}

// watch watches until the test ends, from when it is live.
func watch(t *testing.T, d *redis.Directory) *heard {
	t.Helper()
	h := &heard{times: make(map[subject.NoticeKind]int)}
	ctx, stop := context.WithCancel(context.Background())
	var over sync.WaitGroup
	over.Go(func() { d.Watch(ctx, h.tell) })
	t.Cleanup(func() { stop(); over.Wait() })
	subjecttest.WaitFor(t, "Live", func() bool { return h.count(subject.Live) == 1 })
	return h
}

// That changes are not heard of is noticed, whatever the reason, and so is it that they are again.
func TestWatchNotices(t *testing.T) {
	swallow := func(_ *testing.T, p *redistest.Proxy, _ *redistest.Server) {
		// Connections stay open, and nothing comes over them: what a lost route looks like.
		p.Set(redistest.All(redistest.Fault{Do: redistest.SwallowAnswer}))
	}
	pass := func(_ *testing.T, p *redistest.Proxy, _ *redistest.Server) { p.Set(nil) }
	for name, c := range map[string]struct {
		begin, end func(*testing.T, *redistest.Proxy, *redistest.Server)
	}{
		"swallowed": {swallow, pass},
		"cut": {
			func(_ *testing.T, p *redistest.Proxy, _ *redistest.Server) { p.To("") },
			func(_ *testing.T, p *redistest.Proxy, s *redistest.Server) { p.To(s.Addr) },
		},
		"paused": {
			func(t *testing.T, _ *redistest.Proxy, s *redistest.Server) { fatal(t, s.Pause()) },
			func(t *testing.T, _ *redistest.Proxy, s *redistest.Server) { fatal(t, s.Resume()) },
		},
		"not permitted": {
			func(t *testing.T, _ *redistest.Proxy, s *redistest.Server) {
				fatal(t, s.Client(t).Do(t.Context(), "acl", "setuser", "default", "resetchannels").Err())
			},
			func(t *testing.T, _ *redistest.Proxy, s *redistest.Server) {
				fatal(t, s.Client(t).Do(t.Context(), "acl", "setuser", "default", "allchannels").Err())
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			server := redistest.Start(t)
			proxy := redistest.StartProxy(t, server.Addr)
			h := watch(t, newDirectory(t, impatient(t, proxy.Addr, -1), ""))
			for n := 1; n <= 2; n++ {
				c.begin(t, proxy, server)
				subjecttest.WaitFor(t, "Lost", func() bool { return h.count(subject.Lost) == n })
				c.end(t, proxy, server)
				subjecttest.WaitFor(t, "Live", func() bool { return h.count(subject.Live) == n+1 })
			}
		})
	}
}

func fatal(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// In a Cluster it is noticed as well if any one master is cut off, not only the one that the subscription is at: that is
// where a change may be made that nobody here hears of.
func TestWatchNoticesInACluster(t *testing.T) {
	nodes := redistest.StartCluster(t)
	client := goredis.NewClusterClient(&goredis.ClusterOptions{
		Addrs: []string{nodes[0].Addr, nodes[1].Addr, nodes[2].Addr}, ReadTimeout: impatient(t, "", -1).Options().ReadTimeout,
	})
	t.Cleanup(func() { _ = client.Close() })
	h := watch(t, newDirectory(t, client, ""))
	for n, node := range nodes {
		lost, live := h.count(subject.Lost), h.count(subject.Live)
		fatal(t, node.Pause())
		subjecttest.WaitFor(t, "Lost", func() bool { return h.count(subject.Lost) > lost })
		if n == 0 && h.count(subject.Live) != live {
			t.Error("it calls itself live without a master")
		}
		fatal(t, node.Resume())
		subjecttest.WaitFor(t, "Live", func() bool { return h.count(subject.Live) > live })
	}
}

// What a newer ration says there, and this one does not understand, may be a change.
func TestWatchOfOthers(t *testing.T) {
	server := redistest.Start(t)
	h := watch(t, newDirectory(t, single(t, server.Addr), ""))
	for n, message := range []string{"", "x", "\x00\x05hello", "\x00\x08" + "3:llm" + "bob" + "not a hash"} {
		if err := server.Client(t).Publish(t.Context(), "ration:subjects", message).Err(); err != nil {
			t.Fatal(err)
		}
		subjecttest.WaitFor(t, "Lost and Live", func() bool {
			return h.count(subject.Lost) == n+1 && h.count(subject.Live) == n+2
		})
	}
	if h.count(subject.Changed) != 0 {
		t.Error("it took one for a change")
	}
}

// A subscription that was cut is another one afterwards, and in between the cache does without.
func TestCacheWhenTheSubscriptionIsCut(t *testing.T) {
	server := redistest.Start(t)
	admin := newDirectory(t, single(t, server.Addr), "")
	c := subject.NewCache(newDirectory(t, single(t, server.Addr), ""), subject.CacheOptions{})
	t.Cleanup(c.Close)
	subjecttest.WaitFor(t, "the cache to be live", func() bool { return c.Stats().Live })
	for _, tier := range []string{"free", "pro", "premium"} {
		if err := server.Client(t).Do(t.Context(), "client", "kill", "type", "pubsub").Err(); err != nil {
			t.Fatal(err)
		}
		if _, err := admin.Change(t.Context(), alice, by, setsTier(tier)); err != nil {
			t.Fatal(err)
		}
		subjecttest.WaitFor(t, tier, func() bool {
			a, err := c.Get(t.Context(), alice)
			return err == nil && a.Subject != nil && a.Subject.Tier == tier
		})
		subjecttest.WaitFor(t, "the cache to be live", func() bool { return c.Stats().Live })
	}
}

// After a failover changes are made at the new master, and heard of.
func TestFailover(t *testing.T) {
	group := redistest.StartSentinels(t)
	var sentinels []string
	for _, s := range group.Watchers {
		sentinels = append(sentinels, s.Addr)
	}
	connect := func() *redis.Directory {
		c := goredis.NewFailoverClient(&goredis.FailoverOptions{MasterName: group.Name, SentinelAddrs: sentinels})
		t.Cleanup(func() { _ = c.Close() })
		return newDirectory(t, c, "")
	}
	admin := connect()
	c := subject.NewCache(connect(), subject.CacheOptions{})
	t.Cleanup(c.Close)
	sees := func(tier string) func() bool {
		return func() bool {
			a, err := c.Get(t.Context(), alice)
			return err == nil && a.Subject != nil && a.Subject.Tier == tier && !a.Stale
		}
	}
	live := func() bool { return c.Stats().Live }
	subjecttest.WaitFor(t, "the cache to be live", live)
	if _, err := admin.Change(t.Context(), alice, by, setsTier("before")); err != nil {
		t.Fatal(err)
	}
	subjecttest.WaitFor(t, "the change before", sees("before"))
	if n, err := group.Master.Client(t).Wait(t.Context(), 1, time.Minute).Result(); err != nil || n != 1 {
		t.Fatal(n, err)
	}
	group.Master.Stop()
	subjecttest.WaitFor(t, "the cache to notice", func() bool { return !live() })
	subjecttest.WaitFor(t, "a change at the new master", func() bool {
		_, err := admin.Change(t.Context(), alice, by, setsTier("after"))
		return err == nil
	})
	subjecttest.WaitFor(t, "the change after", sees("after"))
	subjecttest.WaitFor(t, "the cache to be live", live)
	if _, err := admin.Change(t.Context(), alice, by, setsTier("long after")); err != nil {
		t.Fatal(err)
	}
	subjecttest.WaitFor(t, "the change long after", sees("long after"))
}

// A suspension is not forgotten while Redis is away.
func TestSuspendedWhileRedisIsAway(t *testing.T) {
	server := redistest.Start(t)
	d := newDirectory(t, impatient(t, server.Addr, -1), "")
	c := subject.NewCache(d, subject.CacheOptions{})
	t.Cleanup(c.Close)
	subjecttest.WaitFor(t, "the cache to be live", func() bool { return c.Stats().Live })
	if _, err := d.Change(t.Context(), alice, by, func(s *subject.Subject) error { s.Suspended = true; return nil }); err != nil {
		t.Fatal(err)
	}
	if a, err := c.Get(t.Context(), alice); err != nil || a.Stale || !a.Subject.Suspended {
		t.Fatalf("she is %+v, %v", a, err)
	}
	server.Stop()
	subjecttest.WaitFor(t, "the cache to notice", func() bool {
		a, err := c.Get(t.Context(), alice)
		if err != nil || a.Subject == nil || !a.Subject.Suspended {
			t.Fatalf("she is %+v, %v", a, err)
		}
		return a.Stale
	})
	if _, err := c.Get(t.Context(), bob); !errors.Is(err, subject.ErrUnavailable) {
		t.Errorf("of one of whom nothing is known: %v, want ErrUnavailable", err)
	}
}
