package redis_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
	"github.com/rationhq/ration/store/redis"
	"github.com/rationhq/ration/store/redis/redistest"
	"github.com/rationhq/ration/store/storetest"
)

// BenchmarkApply measures decisions of concurrent callers, and reservations that are settled. Beside the time
// it reports Redis's own CPU per limit; a reservation and its settlement are one.
func BenchmarkApply(b *testing.B) {
	server := redistest.Start(b)
	for _, kind := range kinds {
		for _, limits := range []int{1, 3, 6} {
			for _, callers := range []int{1, 8, 64} { // per core
				b.Run(fmt.Sprintf("%s, %d limits, %d callers a core", kind.name, limits, callers), func(b *testing.B) {
					s := newStore(b, redis.Options{URL: server.URL()})
					measure(b, s, callers, limits, []*redistest.Server{server}, func(user int) []*store.Step {
						return kind.steps(user, limits, 1)
					})
				})
			}
		}
	}
}

// BenchmarkOverlappingCalls opens a lease on one token bucket, or one window, and settles the oldest of those that are
// open: so many overlap. It reports Redis's own CPU for the two.
func BenchmarkOverlappingCalls(b *testing.B) {
	server := redistest.Start(b)
	for _, a := range []limit.Algorithm{limit.TokenBucket, limit.FixedWindow} {
		for _, calls := range []int{1, 10, 60, 400} {
			b.Run(fmt.Sprintf("%v, %d at once", a, calls), func(b *testing.B) {
				s := newStore(b, redis.Options{URL: server.URL()})
				op := store.Op{
					Owner: []byte("company"), Bucket: fmt.Appendf(nil, "%v-%d-%d", a, calls, b.N), Manner: limit.Strict,
					Spec: limit.Spec{Algorithm: a, Limit: 1 << 20, Burst: 1 << 50, Window: hour}, Kind: store.Hold, Amount: 300,
				}
				if a == limit.FixedWindow {
					op.Spec.Limit, op.Spec.Burst = 1<<50, 0
				}
				var open []store.LeaseID
				var out store.Outcome
				apply := func(lease store.Lease, ops ...store.Op) {
					if err := s.Apply(b.Context(), &store.Step{Lease: &lease, Ops: ops}, &out); err != nil || out.Refused {
						b.Fatal(out, err)
					}
				}
				call := func() {
					var id store.LeaseID
					_, _ = rand.Read(id[:]) // never fails
					apply(store.Lease{ID: id, Do: store.LeaseOpen, Lasts: hour}, op)
					open = append(open, id)
				}
				for range calls - 1 {
					call()
				}
				look := server.Client(b)
				before := redisCPU(b, look)
				b.ResetTimer()
				for range b.N {
					call()
					apply(store.Lease{ID: open[0], Do: store.LeaseSettle, Actual: []int64{30}})
					open = open[1:]
				}
				b.StopTimer()
				b.ReportMetric((redisCPU(b, look)-before)*1e6/float64(b.N), "redis-µs/call")
			})
		}
	}
}

// BenchmarkApplyInACluster measures the same of three limits that lie in one shard or in three.
func BenchmarkApplyInACluster(b *testing.B) {
	nodes := redistest.StartCluster(b)
	for _, shards := range []int{1, 3} {
		for _, kind := range []kind{fixedWindow, heldWindow} {
			for _, callers := range []int{1, 8, 64} { // per core
				b.Run(fmt.Sprintf("%s, %d shards, %d callers a core", kind.name, shards, callers), func(b *testing.B) {
					s := newStore(b, redis.Options{URL: "redis-cluster://" + nodes[0].Addr})
					measure(b, s, callers, 3, nodes, func(user int) []*store.Step { return kind.steps(user, 3, shards) })
				})
			}
		}
	}
}

// BenchmarkUsage measures what it costs to report of a decision on strict limits, per step.
func BenchmarkUsage(b *testing.B) {
	server := redistest.Start(b)
	for _, limits := range []int{1, 3} {
		for _, reports := range []bool{false, true} {
			for _, callers := range []int{1, 8, 64} { // per core
				b.Run(fmt.Sprintf("%d limits, row %v, %d callers a core", limits, reports, callers), func(b *testing.B) {
					s := newStore(b, redis.Options{URL: server.URL()})
					steps := func(user int) []*store.Step {
						steps := fixedWindow.steps(user, limits, 1)
						if reports {
							steps[0].Rows = []store.Row{usageRow(steps[0].Ops[0].Owner)}
						}
						return steps
					}
					var warm sync.WaitGroup // the first one of an owner and an hour costs more
					for part := range 64 {
						warm.Go(func() {
							var out store.Outcome
							for user := part; user < benchUsers; user += 64 {
								if err := s.Apply(b.Context(), steps(user)[0], &out); err != nil {
									b.Error(err)
								}
							}
						})
					}
					warm.Wait()
					measure(b, s, callers, 1, []*redistest.Server{server}, steps)
				})
			}
		}
	}
}

// BenchmarkThresholds measures what it costs to look for two thresholds of a strict limit, with a label of 100 bytes: none
// is reached, or one is by each step, which is told of then; and what an event takes.
func BenchmarkThresholds(b *testing.B) {
	server := redistest.Start(b)
	var fresh atomic.Int64
	for _, c := range []struct {
		name       string
		thresholds []int64
		fresh      bool // a bucket for each step
	}{
		{"no thresholds", nil, false}, {"not reached", []int64{1 << 38, 1 << 39}, false},
		{"no thresholds, first of its bucket", nil, true}, {"reached, first of its bucket", []int64{1, 1 << 39}, true},
	} {
		for _, callers := range []int{1, 64} { // per core
			b.Run(fmt.Sprintf("%s, %d callers a core", c.name, callers), func(b *testing.B) {
				s := newStore(b, redis.Options{URL: server.URL()})
				measure(b, s, callers, 1, []*redistest.Server{server}, func(user int) []*store.Step {
					if c.fresh {
						user = int(fresh.Add(1))
					}
					steps := fixedWindow.steps(user, 1, 1)
					if op := &steps[0].Ops[0]; c.thresholds != nil {
						op.Thresholds, op.Label = c.thresholds, make([]byte, 100)
					}
					return steps
				})
				look, taken := server.Client(b), int64(0)
				for _, suffix := range []string{"#events", "#events-by-time", "#undelivered"} {
					taken += look.MemoryUsage(b.Context(), "ration:{s0000}"+suffix, 0).Val()
				}
				if n := look.HLen(b.Context(), "ration:{s0000}#events").Val(); n > 0 {
					b.ReportMetric(float64(taken)/float64(n), "B/event")
				}
			})
		}
	}
}

// BenchmarkUsageOfManySubjects says what 100,000 subjects take who report in each of three hours of a day, and how long
// it takes to ask for the hours of that day, and for the first hundred.
//
//	go test -run xxx -bench UsageOfManySubjects -benchtime 1x ./store/redis
func BenchmarkUsageOfManySubjects(b *testing.B) {
	const subjects = 100_000
	for range b.N {
		server := redistest.Start(b)
		s := newStore(b, redis.Options{URL: server.URL()})
		memory := func() (n float64) {
			info := server.Client(b).Info(b.Context(), "memory").Val()
			_, rest, _ := strings.Cut(info, "used_memory:")
			if _, err := fmt.Sscan(rest, &n); err != nil {
				b.Fatal(err)
			}
			return n
		}
		start := store.Day.Start(limit.At(time.Now()))
		report := func(hours ...int) {
			var all sync.WaitGroup
			for part := range 64 {
				all.Go(func() {
					for i := part; i < subjects; i += 64 {
						for _, h := range hours {
							row := usageRow(fmt.Appendf(nil, "app|user=user-%08d", i))
							row.At = start + limit.Micros(h)*hour + 1
							row.Add[1].Amount = int64(i)
							if err := s.Apply(b.Context(), &store.Step{Rows: []store.Row{row}}, &store.Outcome{}); err != nil {
								b.Error(err)
							}
						}
					}
				})
			}
			all.Wait()
		}
		before := memory()
		report(1)
		first := memory()
		report(2, 3)
		b.ReportMetric((first-before)/subjects, "B/subject")
		b.ReportMetric((memory()-first)/subjects/2, "B/row")
		began := time.Now()
		if _, err := s.Rows(b.Context(), store.RowsQuery{Group: []byte("bench"), From: start, To: start + 24*hour}); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(time.Since(began).Milliseconds()), "ms/day")
		began = time.Now()
		top, err := s.Top(b.Context(), store.TopQuery{Group: []byte("bench"), In: start, Most: 100})
		if err != nil || len(top) != 100 {
			b.Fatal(top, err)
		}
		b.ReportMetric(float64(time.Since(began).Milliseconds()), "ms/top")
	}
}

// usageRow is a row of five columns, two of them ranked.
func usageRow(owner []byte) store.Row {
	return store.Row{
		Owner: owner, Group: []byte("bench"), Dimensions: []byte("free\x00gpt-5-mini"),
		Add: []store.Addition{
			{Column: 0, Amount: 1}, {Column: 1, Amount: 420}, {Column: 2, Amount: 1200}, {Column: 3, Amount: 98_000}, {Column: 12, Amount: 1},
		},
		Rank: 1<<0 | 1<<3,
		Keep: store.Retain{OwnerHours: 48 * hour, OwnerDays: 31 * 24 * hour, GroupHours: 31 * 24 * hour, GroupDays: 366 * 24 * hour},
	}
}

// measure applies what steps returns for one user after the other, in so many callers for each core.
func measure(b *testing.B, s store.Store, callers, limits int, nodes []*redistest.Server, steps func(user int) []*store.Step) {
	b.Helper()
	cpu := func() (sum float64) {
		for _, node := range nodes {
			sum += redisCPU(b, node.Client(b))
		}
		return sum
	}
	b.SetParallelism(callers)
	b.ReportAllocs()
	before := cpu()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		var out store.Outcome
		for next := 0; pb.Next(); next++ {
			for _, step := range steps(next % benchUsers) {
				if err := s.Apply(b.Context(), step, &out); err != nil {
					b.Error(err)
					return
				}
			}
		}
	})
	b.StopTimer()
	b.ReportMetric((cpu()-before)*1e6/float64(b.N*limits), "redis-µs/limit")
}

// benchUsers is how many users take turns.
const benchUsers = 10_000

// kind is a kind of limit that is measured.
type kind struct {
	name   string
	manner limit.Manner
	spec   limit.Spec
	held   bool // and settled then
}

const hour = 3600 * limit.Second

var (
	fixedWindow = kind{name: "fixed_window", manner: limit.Strict, spec: limit.Spec{Limit: 1 << 40, Window: hour}}
	heldWindow  = kind{name: "hold and settle", manner: limit.Strict, spec: fixedWindow.spec, held: true}

	kinds = []kind{
		{name: "plain", manner: limit.Plain, spec: fixedWindow.spec},
		fixedWindow,
		strictKind("token_bucket", limit.Spec{Algorithm: limit.TokenBucket, Limit: 1 << 40, Burst: 1 << 40, Window: hour}),
		strictKind("sliding_window", limit.Spec{Algorithm: limit.SlidingWindow, Limit: 1 << 40, Window: hour}),
		strictKind("sliding_log", limit.Spec{Algorithm: limit.SlidingLog, Limit: limit.MaxLog, Window: 5 * limit.Second}),
		strictKind("calendar", limit.Spec{
			Algorithm: limit.CalendarWindow, Limit: 1 << 40, Calendar: &limit.Calendar{Period: limit.PerMonth},
		}),
		heldWindow,
	}
)

func strictKind(name string, spec limit.Spec) kind {
	return kind{name: name, manner: limit.Strict, spec: spec}
}

// steps are those of one request of a user who has so many limits, in so many shards.
func (k *kind) steps(user, limits, shards int) []*store.Step {
	step := &store.Step{Ops: make([]store.Op, limits)}
	for i := range step.Ops {
		step.Ops[i] = store.Op{
			Owner: fmt.Appendf(nil, "bench|user=user-%d|%d", user, i%shards), Bucket: fmt.Appendf(nil, "limit-%d|%s", i, k.name),
			Spec: k.spec, Manner: k.manner, Amount: 1,
		}
		if k.manner == limit.Plain { // these have no owners
			step.Ops[i].Bucket, step.Ops[i].Owner = fmt.Appendf(step.Ops[i].Owner, "|%d", i), nil
		}
	}
	if !k.held {
		return []*store.Step{step}
	}
	step.Lease = &store.Lease{Do: store.LeaseOpen, Lasts: second}
	_, _ = rand.Read(step.Lease.ID[:]) // never fails
	for i := range step.Ops {
		step.Ops[i].Kind = store.Hold
	}
	return []*store.Step{step, {Lease: &store.Lease{ID: step.Lease.ID, Do: store.LeaseSettle, Actual: []int64{1}}}}
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

// BenchmarkLine measures steps in a line: in one that nobody waits in, and where a thousand do. Beside the time it reports
// Redis's own CPU.
func BenchmarkLine(b *testing.B) {
	server := redistest.Start(b)
	look := server.Client(b)
	storetest.BenchmarkLine(b, newStore(b, redis.Options{URL: server.URL()}), func(b *testing.B, run func()) {
		before := redisCPU(b, look)
		run()
		b.ReportMetric((redisCPU(b, look)-before)*1e6/float64(b.N), "redis-µs/op")
	})
}
