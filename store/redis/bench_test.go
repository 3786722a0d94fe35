package redis_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"

	goredis "github.com/redis/go-redis/v9"

	"github.com/rationhq/ration/store"
	"github.com/rationhq/ration/store/redis"
	"github.com/rationhq/ration/store/redis/redistest"
)

// BenchmarkApply measures decisions of concurrent callers. Beside the time it reports Redis's own
// CPU per limit.
func BenchmarkApply(b *testing.B) {
	server := redistest.Start(b)
	look := server.Client(b)
	for _, limits := range []int{1, 3} {
		for _, callers := range []int{1, 8, 64} { // per core
			b.Run(fmt.Sprintf("%d limits, %d callers a core", limits, callers), func(b *testing.B) {
				s := newStore(b, redis.Options{URL: server.URL()})
				names := make([][]byte, 10_000)
				for i := range names {
					names[i] = fmt.Appendf(nil, "bench|user=user-%d|3600s", i)
				}
				b.SetParallelism(callers)
				b.ReportAllocs()
				before := redisCPU(b, look)
				b.ResetTimer()
				b.RunParallel(func(pb *testing.PB) {
					var out store.Outcome
					step := &store.Step{Ops: make([]store.Op, limits)}
					for next := 0; pb.Next(); next++ {
						for i := range step.Ops {
							step.Ops[i] = store.Op{Bucket: names[(next*7919+i*104_729)%len(names)], Spec: year(1 << 40), Amount: 1}
						}
						if err := s.Apply(context.Background(), step, &out); err != nil {
							b.Error(err)
							return
						}
					}
				})
				b.StopTimer()
				b.ReportMetric((redisCPU(b, look)-before)*1e6/float64(b.N*limits), "redis-µs/limit")
			})
		}
	}
}

// redisCPU returns the CPU seconds that Redis has used.
func redisCPU(b *testing.B, c *goredis.Client) (seconds float64) {
	b.Helper()
	info, err := c.Info(context.Background(), "cpu").Result()
	if err != nil {
		b.Fatal(err)
	}
	for _, line := range strings.Fields(info) {
		name, value, _ := strings.Cut(line, ":")
		if name == "used_cpu_user" || name == "used_cpu_sys" {
			n, err := strconv.ParseFloat(value, 64)
			if err != nil {
				b.Fatal(err)
			}
			seconds += n
		}
	}
	return seconds
}
