package redis_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
	"github.com/rationhq/ration/store/redis"
	"github.com/rationhq/ration/store/redis/redistest"
)

// BenchmarkApply measures decisions of concurrent callers. Beside the time it reports Redis's own
// CPU per limit.
func BenchmarkApply(b *testing.B) {
	server := redistest.Start(b)
	look := server.Client(b)
	for _, kind := range kinds {
		for _, limits := range []int{1, 3, 6} {
			for _, callers := range []int{1, 8, 64} { // per core
				b.Run(fmt.Sprintf("%s, %d limits, %d callers a core", kind.name, limits, callers), func(b *testing.B) {
					s := newStore(b, redis.Options{URL: server.URL()})
					b.SetParallelism(callers)
					b.ReportAllocs()
					before := redisCPU(b, look)
					b.ResetTimer()
					b.RunParallel(func(pb *testing.PB) {
						var out store.Outcome
						for next := 0; pb.Next(); next++ {
							if err := s.Apply(b.Context(), kind.step(next%10_000, limits), &out); err != nil {
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
}

// BenchmarkApplyInACluster measures decisions on three limits that lie in one shard or in three, and
// reservations that are settled, of concurrent callers.
func BenchmarkApplyInACluster(b *testing.B) {
	nodes := redistest.StartCluster(b)
	of := kinds[1]
	for _, shards := range []int{1, 3} {
		for _, leased := range []bool{false, true} {
			for _, callers := range []int{1, 8, 64} { // per core
				what := map[bool]string{false: "charges", true: "holds and settlements"}[leased]
				b.Run(fmt.Sprintf("%s, %d shards, %d callers a core", what, shards, callers), func(b *testing.B) {
					s := newStore(b, redis.Options{URL: "redis-cluster://" + nodes[0].Addr})
					cpu := func() (sum float64) {
						for _, node := range nodes {
							sum += redisCPU(b, node.Client(b))
						}
						return sum
					}
					var leases atomic.Int64
					leases.Store(time.Now().UnixNano()) // others than in the run before
					b.SetParallelism(callers)
					b.ReportAllocs()
					before := cpu()
					b.ResetTimer()
					b.RunParallel(func(pb *testing.PB) {
						for next := 0; pb.Next(); next++ {
							step := of.step(next%10_000, 3)
							for i := range step.Ops {
								step.Ops[i].Owner = fmt.Appendf(step.Ops[i].Owner, "|%d", i%shards)
							}
							steps := []*store.Step{step}
							if leased {
								n := leases.Add(1)
								step.Lease = leaseFor(store.LeaseOpen, n)
								step.Lease.Lasts = second
								for i := range step.Ops {
									step.Ops[i].Kind = store.Hold
								}
								steps = append(steps, &store.Step{Lease: leaseFor(store.LeaseSettle, n)})
							}
							var out store.Outcome
							for _, step := range steps {
								if err := s.Apply(b.Context(), step, &out); err != nil {
									b.Error(err)
									return
								}
							}
						}
					})
					b.StopTimer()
					b.ReportMetric((cpu()-before)*1e6/float64(b.N*3), "redis-µs/limit")
				})
			}
		}
	}
}

// kind is a kind of limit that is measured.
type kind struct {
	name   string
	manner limit.Manner
	spec   limit.Spec
}

var kinds = []kind{
	{"plain", limit.Plain, limit.Spec{Limit: 1 << 40, Window: hour}},
	{"fixed_window", limit.Strict, limit.Spec{Limit: 1 << 40, Window: hour}},
	{"token_bucket", limit.Strict, limit.Spec{Algorithm: limit.TokenBucket, Limit: 1 << 40, Burst: 1 << 40, Window: hour}},
	{"sliding_window", limit.Strict, limit.Spec{Algorithm: limit.SlidingWindow, Limit: 1 << 40, Window: hour}},
	{"sliding_log", limit.Strict, limit.Spec{Algorithm: limit.SlidingLog, Limit: limit.MaxLog, Window: 5 * limit.Second}},
	{"calendar", limit.Strict, limit.Spec{Algorithm: limit.CalendarWindow, Limit: 1 << 40, Calendar: &limit.Calendar{Period: limit.PerMonth}}},
}

const hour = 3600 * limit.Second

// step is one of a user, who has so many limits.
func (k *kind) step(user, limits int) *store.Step {
	step := &store.Step{Ops: make([]store.Op, limits)}
	for i := range step.Ops {
		step.Ops[i] = store.Op{
			Owner: fmt.Appendf(nil, "bench|user=user-%d", user), Bucket: fmt.Appendf(nil, "limit-%d|%s", i, k.name),
			Spec: k.spec, Manner: k.manner, Amount: 1,
		}
		if k.manner == limit.Plain { // these have no owners
			step.Ops[i].Bucket, step.Ops[i].Owner = fmt.Appendf(step.Ops[i].Owner, "|%d", i), nil
		}
	}
	return step
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
