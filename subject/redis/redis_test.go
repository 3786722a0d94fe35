package redis_test

import (
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	goredis "github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"go.uber.org/goleak"

	"github.com/rationhq/ration/store/redis/redistest"
	"github.com/rationhq/ration/subject"
	"github.com/rationhq/ration/subject/redis"
	"github.com/rationhq/ration/subject/subjecttest"
)

// TestMain also is the process that tests start beside themselves (process_test.go).
func TestMain(m *testing.M) {
	if addr := os.Getenv(processAddr); addr != "" {
		printChanges(addr)
		os.Exit(0)
	}
	logging.Disable() // go-redis reports every lost connection of the fault tests
	// go-redis tries to dial once more a second after a pool was closed.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/redis/go-redis/v9/internal/pool.(*ConnPool).tryDial"))
}

// servers returns a function that opens a new directory each time, as two servers have it.
func servers(connect func(t testing.TB) goredis.UniversalClient) subjecttest.Open {
	var spaces atomic.Int32
	return func(t testing.TB) []subject.Directory {
		prefix := fmt.Sprintf("test%d:", spaces.Add(1))
		return []subject.Directory{newDirectory(t, connect(t), prefix), newDirectory(t, connect(t), prefix)}
	}
}

func newDirectory(t testing.TB, client goredis.UniversalClient, prefix string) *redis.Directory {
	t.Helper()
	d, err := redis.New(client, redis.Options{KeyPrefix: prefix})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func single(t testing.TB, addr string) goredis.UniversalClient {
	c := goredis.NewClient(&goredis.Options{Addr: addr})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestConformance(t *testing.T) {
	server := redistest.Start(t)
	subjecttest.Run(t, servers(func(t testing.TB) goredis.UniversalClient { return single(t, server.Addr) }))
}

func TestConformanceInACluster(t *testing.T) {
	nodes := redistest.StartCluster(t)
	subjecttest.Run(t, servers(func(t testing.TB) goredis.UniversalClient { return cluster(t, nodes[0].Addr) }))
}

func cluster(t testing.TB, addr string) goredis.UniversalClient {
	c := goredis.NewClusterClient(&goredis.ClusterOptions{Addrs: []string{addr}})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestPrefixWithABrace(t *testing.T) {
	if _, err := redis.New(nil, redis.Options{KeyPrefix: "{eu}"}); err == nil || !strings.Contains(err.Error(), "leave braces out") {
		t.Errorf("the error is %v", err)
	}
}
