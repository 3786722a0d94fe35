package redis_test

import (
	"testing"
	"time"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
	"github.com/rationhq/ration/store/redis"
	"github.com/rationhq/ration/store/redis/redistest"
)

// The nodes of a Cluster have clocks that are apart. Each bucket lives by that of its own: steps that span them are
// as exact as ever, what is held on three lapses on each when its time is over, and not before, and what is settled
// later corrects it once.
func TestClocksApart(t *testing.T) {
	t.Parallel()
	for _, apart := range []time.Duration{time.Second, 10 * time.Second, 70 * time.Second} {
		t.Run(apart.String(), func(t *testing.T) {
			nodes, _ := redistest.StartClusterWithClocks(t, 0, -apart, apart)
			url := "redis-cluster://" + nodes[0].Addr
			c := gather(t, makers, calm, twoStores(t, url, calm)...)
			c.awaitAnswers(1000)
			c.verify(witness(t, url), 0)
			if n := c.unknown.Load(); n > 0 {
				t.Errorf("%d calls had no answer", n)
			}

			s := newStore(t, redis.Options{URL: url})
			threes := func(kind store.Kind, amount int64) []store.Op {
				three := maker{name: "lapsing", spec: year, manner: limit.Strict, three: true}
				ops := three.ops("1", plenty, amount)
				for i := range ops {
					ops[i].Kind = kind
					if kind == store.Hold {
						ops[i].Lapse = 2
					}
				}
				return ops
			}
			const lasts = 2 * second
			for n := range 10 { // their directories lie on all nodes
				open := lease(n, store.LeaseOpen)
				open.Lasts = second
				apply(t, s, open, threes(store.Hold, 5)...)
				renewal := renewing(open, 3)
				renewal.Lasts = lasts
				apply(t, s, renewal)
			}
			opened := time.Now()
			for left := int64(1); left > 0; time.Sleep(10 * time.Millisecond) {
				left = 0
				asked := time.Now()
				for _, r := range apply(t, s, nil, threes(store.Charge, 0)...).Results {
					left += r.Held
				}
				if left == 0 && time.Since(opened) < lasts.Duration()/2 {
					t.Fatalf("all have lapsed %v after the last was opened", time.Since(opened))
				}
				if left > 0 && asked.Sub(opened) > lasts.Duration() {
					t.Fatalf("%d are held %v after the last was opened", left, asked.Sub(opened))
				}
			}
			for range 2 {
				for n := range 10 {
					settle := lease(n, store.LeaseSettle)
					settle.Actual = []int64{3}
					apply(t, s, settle)
				}
				for i, r := range apply(t, s, nil, threes(store.Charge, 0)...).Results {
					if r.Used != 30 || r.Held != 0 {
						t.Errorf("bucket %d: %d used and %d held, want 30 and nothing", i, r.Used, r.Held)
					}
				}
			}
		})
	}
}
