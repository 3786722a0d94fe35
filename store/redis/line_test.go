package redis_test

import (
	"testing"

	"github.com/rationhq/ration/store/redis/redistest"
	"github.com/rationhq/ration/store/storetest"
)

// Lines that three replicas share.
func TestLines(t *testing.T) {
	t.Parallel()
	t.Run("one Redis", func(t *testing.T) {
		histories(t, 40)
		server := redistest.Start(t)
		storetest.RunLines(t, threeReplicas(t, server.URL(), server))
	})
	t.Run("Cluster", func(t *testing.T) {
		histories(t, 10)
		nodes := redistest.StartCluster(t)
		storetest.RunLines(t, threeReplicas(t, "redis-cluster://"+nodes[0].Addr, nodes...))
	})
}
