package redis_test

import (
	"testing"

	"github.com/rationhq/ration/store/redis/redistest"
)

// One node of a Cluster suffers. Callers of the others are answered meanwhile, and all are afterwards.
func TestClusterFaults(t *testing.T) {
	t.Parallel()
	nodes, proxies := redistest.StartProxiedCluster(t)
	url := "redis-cluster://" + proxies[0].Addr + "," + proxies[1].Addr
	for name, f := range faults {
		if f.alone {
			continue
		}
		t.Run(name, func(t *testing.T) {
			s := &site{server: nodes[2], proxy: proxies[2], look: nodes[2].Client(t)}
			for _, node := range nodes {
				node.Client(t).FlushAll(t.Context())
			}
			c := gather(t, makers, f.timeout(), twoStores(t, url, f.timeout())...)
			c.awaitAnswers(100)
			f.begin(t, s)
			if !f.harmless {
				c.awaitUnknown()
				c.awaitError(f.says)
			}
			c.awaitAnswers(100)
			f.end(t, s)
			c.awaitHealth()
			c.verify(witness(t, url), 0)
			if n := c.unknown.Load(); f.harmless && n > 0 {
				t.Errorf("%d calls had no answer", n)
			}
		})
	}
}
