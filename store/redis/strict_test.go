package redis_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"pgregory.net/rapid"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
	"github.com/rationhq/ration/store/redis"
	"github.com/rationhq/ration/store/redis/redistest"
	"github.com/rationhq/ration/store/storetest"
)

const (
	second = limit.Second
	minute = 60 * second
)

// noon is 2025-11-21T12:00:00Z.
const noon limit.Micros = 1_763_726_400 * second

func strict(bucket string, spec limit.Spec, amount int64) store.Op {
	op := charge(bucket, spec, amount)
	op.Manner, op.Owner = limit.Strict, []byte("alice")
	return op
}

func hold(bucket string, spec limit.Spec, amount, lapse int64) store.Op {
	op := strict(bucket, spec, amount)
	op.Kind, op.Lapse = store.Hold, lapse
	return op
}

func lease(n int, do store.LeaseAction) *store.Lease {
	l := &store.Lease{Do: do, Lasts: minute, Request: uint64(n)}
	copy(l.ID[:], fmt.Sprintf("lease %d", n))
	return l
}

func apply(t testing.TB, s store.Store, l *store.Lease, ops ...store.Op) store.Outcome {
	t.Helper()
	var out store.Outcome
	if err := s.Apply(context.Background(), &store.Step{Lease: l, Ops: ops}, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// A bucket's key lives until nothing of it counts any more, and the tolerance for clocks longer; a
// refusal does not move that.
func TestBucketsExpire(t *testing.T) {
	for _, c := range []struct {
		spec  limit.Spec
		lasts limit.Micros // of 10 units
	}{
		{limit.Spec{Algorithm: limit.TokenBucket, Limit: 60, Burst: 10, Window: minute}, 10 * second},
		{limit.Spec{Algorithm: limit.SlidingWindow, Limit: 10, Window: 1440 * minute}, 2160 * minute},
		{limit.Spec{Algorithm: limit.SlidingLog, Limit: 10, Window: 90 * second}, 90 * second},
		{limit.Spec{Limit: 10, Window: 1440 * minute}, 720 * minute},
		{limit.Spec{Limit: 10, Window: minute, FirstUse: true}, minute},
		{limit.Spec{Algorithm: limit.CalendarWindow, Limit: 10, Calendar: &limit.Calendar{Period: limit.PerDay}}, 720 * minute},
	} {
		t.Run(fmt.Sprint(c.spec.Algorithm, c.spec.FirstUse), func(t *testing.T) {
			server := redistest.Start(t)
			look := server.Client(t)
			clock := storetest.NewClock(noon)
			s := newStore(t, redis.Options{URL: server.URL(), Clock: clock.Now})
			const standing = time.Hour // that a test's clock adds
			left := func() time.Duration {
				t.Helper()
				keys, err := look.Keys(t.Context(), "ration:{s*}alice|b:5").Result()
				if err != nil || len(keys) != 1 {
					t.Fatalf("keys %q, %v: want one", keys, err)
				}
				return look.PTTL(t.Context(), keys[0]).Val()
			}
			apply(t, s, nil, strict("b", c.spec, 10))
			want := (c.lasts + limit.Tolerance).Duration()
			before := left() - standing
			if before < want-10*time.Second || before > want+max(want/8, 10*time.Second)+2*time.Second {
				t.Errorf("it expires in %v, want %v or a little more", before, want)
			}
			clock.Advance(5 * second)
			if out := apply(t, s, nil, strict("b", c.spec, 10)); !out.Refused {
				t.Fatal("admitted, want a refusal")
			}
			if got := left() - standing; got > before {
				t.Errorf("a refusal has moved the expiry to %v", got)
			}
		})
	}
}

// Whoever forgets a hold leaves nothing behind: bucket, holds and lease all go.
func TestLeasesExpire(t *testing.T) {
	server := redistest.Start(t)
	look := server.Client(t)
	s := newStore(t, redis.Options{URL: server.URL()})
	spec := limit.Spec{Algorithm: limit.Concurrency, Limit: 3}
	apply(t, s, lease(1, store.LeaseOpen), hold("b", spec, 1, 1))
	want := map[string]time.Duration{
		"b:5": 135 * time.Second, "b:5#holds": 135 * time.Second, "#lease": 24*time.Hour + time.Minute,
	}
	keys := look.Keys(t.Context(), "ration:*").Val()
	if len(keys) != len(want) {
		t.Errorf("keys %q, want %d", keys, len(want))
	}
	for end, lasts := range want {
		found := false
		for _, key := range keys {
			if strings.HasSuffix(key, end) {
				found = true
				if got := look.PTTL(t.Context(), key).Val(); (got - lasts).Abs() > 10*time.Second {
					t.Errorf("%s expires in %v, want %v", key, got, lasts)
				}
			}
		}
		if !found {
			t.Errorf("no key ends with %q: %q", end, keys)
		}
	}
}

// More holds are due than a step ends at once: it is sent again until none is left.
func TestManyLapses(t *testing.T) {
	clock := storetest.NewClock(noon)
	s := newStore(t, redis.Options{URL: redistest.Start(t).URL(), Clock: clock.Now})
	spec := limit.Spec{Limit: 1000, Window: 1000 * minute}
	for i := range 1000 {
		apply(t, s, lease(i, store.LeaseOpen), hold("b", spec, 1, int64(i%2)))
	}
	if out := apply(t, s, nil, strict("b", spec, 1)); !out.Refused {
		t.Error("admitted while everything is held")
	}
	clock.Advance(minute)
	if r := apply(t, s, nil, strict("b", spec, 1)).Results[0]; r.Used != 501 || r.Held != 0 {
		t.Errorf("after the lapse: %+v, want 501 used, nothing held", r)
	}
}

// A settlement that names no bucket finds the periods of the lease's calendars, also when the clock was
// put back into an earlier one.
func TestSettleAcrossCalendars(t *testing.T) {
	clock := storetest.NewClock(noon)
	s := newStore(t, redis.Options{URL: redistest.Start(t).URL(), Clock: clock.Now})
	berlin, err := limit.ParseCalendar("day;Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	spec := limit.Spec{Algorithm: limit.CalendarWindow, Limit: 100, Calendar: berlin}
	settle := func(n int) *store.Lease {
		l := lease(n, store.LeaseSettle)
		l.Actual = []int64{10}
		return l
	}
	apply(t, s, lease(1, store.LeaseOpen), hold("b", spec, 50, 0))
	apply(t, s, settle(1))
	if r := apply(t, s, nil, strict("b", spec, 0)).Results[0]; r.Used != 10 || r.Held != 0 {
		t.Errorf("settled in its day: %+v, want 10 used", r)
	}
	apply(t, s, lease(2, store.LeaseOpen), hold("b", spec, 50, 0))
	clock.Advance(-3 * 24 * 60 * minute)
	apply(t, s, settle(2))
	if r := apply(t, s, nil, strict("b", spec, 0)).Results[0]; r.Used != 60 || r.Held != 0 {
		t.Errorf("the clock has gone back, the count with it: %+v, want 60 used", r)
	}
}

// Long logs are not read and written whole. They answer as the model does all the same.
func TestLongLogs(t *testing.T) {
	server := redistest.Start(t)
	spaces := 0
	rapid.Check(t, func(r *rapid.T) {
		clock := storetest.NewClock(noon)
		spaces++
		s, err := redis.New(redis.Options{URL: server.URL(), KeyPrefix: fmt.Sprint(spaces), Clock: clock.Now})
		if err != nil {
			r.Fatal(err)
		}
		defer func() { _ = s.Close() }()
		model := &storetest.Model{}
		spec := limit.Spec{Algorithm: limit.SlidingLog, Limit: 300, Window: minute}
		leases := 0
		for range rapid.IntRange(100, 400).Draw(r, "steps") {
			clock.Advance(limit.Micros(rapid.SampledFrom([]int64{0, 1, 100_000, 300_000, 300_000, -50_000, 20_000_000, -70_000_000}).
				Draw(r, "µs")))
			step := &store.Step{}
			amount := rapid.Int64Range(1, 3).Draw(r, "amount")
			switch rapid.IntRange(0, 9).Draw(r, "what") {
			case 0:
				op := strict("b", spec, amount)
				op.Kind = store.GiveBack
				step.Ops = []store.Op{op}
			case 1, 2:
				leases++
				step.Lease, step.Ops = lease(leases, store.LeaseOpen), []store.Op{hold("b", spec, amount, 1)}
			case 3:
				step.Lease = lease(rapid.IntRange(0, leases).Draw(r, "lease"), store.LeaseSettle)
				step.Lease.Actual = []int64{rapid.Int64Range(0, 5).Draw(r, "actual")}
				step.Ops = []store.Op{strict("b", spec, 0)}
			default:
				step.Ops = []store.Op{strict("b", spec, amount)}
			}
			next, want, wantErr := model.Apply(clock.Now(), step)
			var got store.Outcome
			err := s.Apply(context.Background(), step, &got)
			if fmt.Sprint(got.Results, got.Lease) != fmt.Sprint(want.Results, want.Lease) && wantErr == nil || (err == nil) != (wantErr == nil) {
				r.Fatalf("got %+v, %v\nwant %+v, %v", got, err, want, wantErr)
			}
			model = next
		}
	})
}

// What ration did not write is reported, wherever it lies, and nothing of the step is written; others in
// the same batch are none the wiser.
func TestForeignStrictKeys(t *testing.T) {
	spec := limit.Spec{Limit: 10, Window: minute}
	logs := limit.Spec{Algorithm: limit.SlidingLog, Limit: 10, Window: minute}
	for name, spoil := range map[string]struct {
		spec limit.Spec
		do   func(ctx context.Context, c *goredis.Client, bucket, lease string) error
	}{
		"a list for a bucket": {spec, func(ctx context.Context, c *goredis.Client, bucket, _ string) error {
			return c.RPush(ctx, bucket, "x").Err()
		}},
		"a word for a bucket": {spec, func(ctx context.Context, c *goredis.Client, bucket, _ string) error {
			return c.Set(ctx, bucket, "hello", 0).Err()
		}},
		"another version of a bucket": {spec, func(ctx context.Context, c *goredis.Client, bucket, _ string) error {
			return c.Set(ctx, bucket, "\x09"+strings.Repeat("\x00", 49), 0).Err()
		}},
		"a list for a log": {logs, func(ctx context.Context, c *goredis.Client, bucket, _ string) error {
			return c.RPush(ctx, bucket, "x").Err()
		}},
		"a log without its end": {logs, func(ctx context.Context, c *goredis.Client, bucket, _ string) error {
			entered := "\x01\x00\x00\x00\x00\x00\x00"
			return c.Set(ctx, bucket, "\x01"+strings.Repeat("\x00", 4*7)+entered+strings.Repeat("\x00", 6*7), 0).Err()
		}},
		"a word for a lease": {spec, func(ctx context.Context, c *goredis.Client, _, lease string) error {
			return c.Set(ctx, lease, "hello", 0).Err()
		}},
		"a hash for a lease": {spec, func(ctx context.Context, c *goredis.Client, _, lease string) error {
			return c.HSet(ctx, lease, "a", "b").Err()
		}},
	} {
		t.Run(name, func(t *testing.T) {
			server := redistest.Start(t)
			look := server.Client(t)
			s := newStore(t, redis.Options{URL: server.URL()})
			open := lease(1, store.LeaseOpen)
			step := &store.Step{Lease: open, Ops: []store.Op{hold("a", spec, 1, 1), hold("b", spoil.spec, 1, 1)}}
			var out store.Outcome
			if err := s.Apply(t.Context(), step, &out); err != nil {
				t.Fatal(err)
			}
			var bucket, leased string
			for _, key := range look.Keys(t.Context(), "*").Val() {
				switch {
				case strings.HasSuffix(key, "b:5"):
					bucket = key
				case strings.HasSuffix(key, "#lease"):
					leased = key
				}
			}
			look.FlushAll(t.Context())
			if err := spoil.do(t.Context(), look, bucket, leased); err != nil {
				t.Fatal(err)
			}
			before := look.DBSize(t.Context()).Val()
			if err := s.Apply(t.Context(), step, &out); !errors.Is(err, store.ErrCorrupt) {
				t.Errorf("%v, want %v", err, store.ErrCorrupt)
			}
			if after := look.DBSize(t.Context()).Val(); after != before {
				t.Errorf("%d keys, want %d as before", after, before)
			}
			apply(t, s, lease(2, store.LeaseOpen), hold("a", spec, 1, 1))
		})
	}
}

// Somebody has deleted the holds of a bucket by hand: it goes on without them.
func TestDeletedHolds(t *testing.T) {
	server := redistest.Start(t)
	look := server.Client(t)
	clock := storetest.NewClock(noon)
	s := newStore(t, redis.Options{URL: server.URL(), Clock: clock.Now})
	spec := limit.Spec{Algorithm: limit.Concurrency, Limit: 2}
	apply(t, s, lease(1, store.LeaseOpen), hold("b", spec, 2, 2))
	look.Del(t.Context(), look.Keys(t.Context(), "*#holds").Val()...)
	clock.Advance(minute)
	if r := apply(t, s, nil, strict("b", spec, 0)).Results[0]; r.Held != 0 || r.Refused {
		t.Errorf("%+v, want no holds", r)
	}
}

// Somebody has deleted a bucket by hand and forgotten its holds: they have no part in the new one.
func TestDeletedBucket(t *testing.T) {
	server := redistest.Start(t)
	look := server.Client(t)
	clock := storetest.NewClock(noon)
	s := newStore(t, redis.Options{URL: server.URL(), Clock: clock.Now})
	spec := limit.Spec{Algorithm: limit.Concurrency, Limit: 1}
	apply(t, s, lease(1, store.LeaseOpen), hold("b", spec, 1, 1))
	look.Del(t.Context(), look.Keys(t.Context(), "*b:5").Val()...)
	if out := apply(t, s, lease(2, store.LeaseOpen), hold("b", spec, 1, 1)); out.Refused {
		t.Error("refused for a place of the bucket that is gone")
	}
	apply(t, s, lease(1, store.LeaseSettle))
	if out := apply(t, s, nil, strict("b", spec, 0)); !out.Refused {
		t.Error("the end of the first hold has freed the place of the second")
	}
	clock.Advance(minute)
	if out := apply(t, s, nil, strict("b", spec, 0)); out.Refused {
		t.Error("the second hold does not lapse")
	}
}

// Settings of Redis that lose counters are told.
func TestWarnings(t *testing.T) {
	const drops, forgets = "drops counters", "keeps nothing on disk"
	for settings, want := range map[string][]string{
		"--maxmemory 100mb --maxmemory-policy noeviction --appendonly yes":  nil,
		"--maxmemory 100mb --maxmemory-policy allkeys-lru --appendonly yes": {drops},
		"--maxmemory 100mb --maxmemory-policy volatile-ttl":                 {drops, forgets},
		"--maxmemory-policy allkeys-lru --appendonly yes":                   nil, // without a maxmemory
		"":                 {forgets},
		"--save 3600\x001": nil,
	} {
		var args []string
		for _, arg := range strings.Fields(settings) {
			args = append(args, strings.ReplaceAll(arg, "\x00", " "))
		}
		got := newStore(t, redis.Options{URL: redistest.Start(t, args...).URL()}).Warnings(t.Context())
		if !slices.EqualFunc(got, want, strings.Contains) {
			t.Errorf("%s: %q, want %q", settings, got, want)
		}
	}
}

// A step may be as large as the contract lets it: names of the greatest length in a lease, and more
// calendars and amounts than a byte can number.
func TestLargeSteps(t *testing.T) {
	s := newStore(t, redis.Options{URL: redistest.Start(t).URL()})
	long := strings.Repeat("x", store.MaxBucketName-len("alice"))
	spec := limit.Spec{Limit: 10, Window: 1000 * minute}
	apply(t, s, lease(1, store.LeaseOpen), hold(long, spec, 5, 5))
	settle := lease(1, store.LeaseSettle)
	settle.Actual = make([]int64, 300)
	apply(t, s, settle)
	if r := apply(t, s, nil, strict(long, spec, 0)).Results[0]; r.Used != 0 || r.Held != 0 {
		t.Errorf("settled to nothing: %+v", r)
	}
	var ops []store.Op
	for i := range 300 {
		month := &limit.Calendar{Period: limit.PerMonth, Anchor: 1 + i%28}
		ops = append(ops, strict(fmt.Sprint("month ", i), limit.Spec{Algorithm: limit.CalendarWindow, Limit: 10, Calendar: month}, 1))
	}
	for i, r := range apply(t, s, nil, ops...).Results {
		if r.Used != 1 {
			t.Errorf("calendar %d: %+v, want 1 used", i, r)
		}
	}
}

// A bucket is deleted while something is held of it, and its holds are not. What is held of it then is held as
// of any other.
func TestDeletedBucketWithHolds(t *testing.T) {
	for _, spec := range []limit.Spec{
		{Algorithm: limit.SlidingLog, Limit: 5, Window: 3600 * second},
		{Limit: 5, Window: 3600 * second},
		{Algorithm: limit.Concurrency, Limit: 5},
	} {
		t.Run(spec.Algorithm.String(), func(t *testing.T) {
			server := redistest.Start(t)
			look := server.Client(t)
			clock := storetest.NewClock(noon)
			s := newStore(t, redis.Options{URL: server.URL(), Clock: clock.Now})
			apply(t, s, lease(1, store.LeaseOpen), hold("b", spec, 3, 0))
			look.Del(t.Context(), look.Keys(t.Context(), "*b:5").Val()...)
			apply(t, s, lease(1, store.LeaseSettle))
			apply(t, s, lease(2, store.LeaseOpen), hold("b", spec, 5, 0))
			clock.Advance(2 * minute)
			if out := apply(t, s, nil, strict("b", spec, 1)); out.Refused || out.Results[0].Held != 0 {
				t.Errorf("the hold was due a minute ago, and lapses to nothing: %+v", out.Results)
			}
		})
	}
}
