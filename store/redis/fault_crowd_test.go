package redis_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
	"github.com/rationhq/ration/store/redis"
)

// maker makes the steps by which a caller spends one unit of a bucket: one way of spending.
type maker struct {
	name   string
	spec   func(most int64) limit.Spec
	manner limit.Manner
	// three: a unit of each of three buckets of that name, whose owners differ. In a Cluster that takes rounds (span.go).
	three bool
	// steps are applied one after the other while they are admitted. n is different for each call.
	steps func(ops []store.Op, n int64) []*store.Step
	// again: a step whose outcome is unknown is sent again until it is known. Only who has a lease
	// may do so.
	again bool
}

// makers are the ways of spending that the store must keep exact through every fault.
var makers = []maker{
	{name: "plain", spec: year, steps: justCharge},
	{name: "window", spec: year, manner: limit.Strict, steps: justCharge},
	{name: "token bucket", spec: tokenBucket, manner: limit.Strict, steps: justCharge},
	{name: "log", spec: slidingLog, manner: limit.Strict, steps: justCharge},
	{name: "reserve and settle", spec: year, manner: limit.Strict, steps: reserveAndSettle},
	{name: "place", spec: places, manner: limit.Strict, steps: justReserve},
	{
		name: "reserve, settle, insist", spec: tokenBucket, manner: limit.Strict, steps: reserveAndSettle,
		again: true,
	},
	{name: "three", spec: year, manner: limit.Strict, three: true, steps: justCharge},
	{name: "reserve and settle three", spec: slidingLog, manner: limit.Strict, three: true, steps: reserveAndSettle},
	{
		name: "reserve, settle three, insist", spec: year, manner: limit.Strict, three: true, steps: reserveAndSettle,
		again: true,
	},
}

func tokenBucket(most int64) limit.Spec {
	return limit.Spec{Algorithm: limit.TokenBucket, Limit: 1, Burst: most, Window: 31_536_000 * limit.Second}
}

func slidingLog(most int64) limit.Spec {
	return limit.Spec{Algorithm: limit.SlidingLog, Limit: most, Window: 31_536_000 * limit.Second}
}

func places(most int64) limit.Spec { return limit.Spec{Algorithm: limit.Concurrency, Limit: most} }

func justCharge(ops []store.Op, _ int64) []*store.Step { return []*store.Step{{Ops: ops}} }

// justReserve holds a unit for longer than any test lasts.
func justReserve(ops []store.Op, n int64) []*store.Step {
	for i := range ops {
		ops[i].Kind = store.Hold
	}
	return []*store.Step{{Ops: ops, Lease: leaseFor(store.LeaseOpen, n)}}
}

// reserveAndSettle holds a unit and says that it was used.
func reserveAndSettle(ops []store.Op, n int64) []*store.Step {
	used := leaseFor(store.LeaseSettle, n)
	used.Actual = []int64{1}
	return append(justReserve(ops, n), &store.Step{Lease: used})
}

func leaseFor(do store.LeaseAction, n int64) *store.Lease {
	l := &store.Lease{Do: do}
	binary.LittleEndian.PutUint64(l.ID[:], uint64(n))
	if do == store.LeaseOpen {
		l.Lasts = store.MaxLease
	}
	return l
}

// ops are charges of one unit each, or checks for amount 0.
func (m *maker) ops(bucket string, most, amount int64) (ops []store.Op) {
	for i := range 3 {
		op := charge(m.name+" "+bucket, m.spec(most), amount)
		// A handful of owners, so that buckets share a shard, and shards are on every node.
		op.Owner = fmt.Append(nil, "owner ", len(bucket)+int(bucket[len(bucket)-1]%4)+i)
		op.Manner = m.manner
		if m.warns() {
			op.Thresholds, op.Label = []int64{1, 3, scarce, 30}, fmt.Appendf(nil, "%s|%s", op.Owner, op.Bucket)
		}
		ops = append(ops, op)
		if !m.three {
			break
		}
	}
	return ops
}

// warns says that the buckets have thresholds.
func (m *maker) warns() bool {
	return m.manner == limit.Strict && m.spec(1).Algorithm == limit.FixedWindow
}

// reporting returns the steps of a call for these ops. Whatever they charge, they report in the same step, for the
// owner of the first.
func (m *maker) reporting(ops []store.Op, n int64) []*store.Step {
	const day = 24 * 3600 * limit.Second
	owner, bucket := ops[0].Owner, ops[0].Bucket
	steps := m.steps(ops, n)
	for i, step := range steps {
		if m.manner == limit.Strict {
			step.Rows = []store.Row{{
				Owner: owner, Group: []byte("crowd"), Dimensions: bucket, Add: []store.Addition{{Column: uint8(i), Amount: 1}}, Rank: 1,
				Keep: store.Retain{OwnerHours: day, OwnerDays: day, GroupHours: day, GroupDays: day},
			}}
		}
	}
	return steps
}

// tally is what callers heard of one bucket.
type tally struct {
	admitted, refused, unknown int64
	// torn are those refused after an attempt without an answer, where a step spans shards: what that attempt wrote
	// in some of them stays until it lapses (store.Store).
	torn int64
}

// bucketID says which bucket of a crowd, and by which maker it is spent from.
type bucketID struct {
	maker *maker
	name  string
	most  int64
}

const (
	// timeout is the store's own where faults are waited for, and calm where none may be seen. The
	// deadline of a crowd's calls is a multiple of it.
	timeout, calm = 250 * time.Millisecond, 10 * time.Second
	patience      = 4
	// generous is by how much a call may miss its deadline on a machine that does much else.
	generous = 10 * time.Second
	// promisesLapse is how long, in a Cluster, a decision without an outcome may seem to hold something.
	promisesLapse = 6 * time.Second
	// plenty is a limit that no crowd reaches, scarce one that each does.
	plenty, scarce = 10_000, 7
)

// crowd is callers who spend without pause, half of them from buckets with plenty in them, half from
// scarce ones that are exhausted one after the other. Several buckets have one owner.
type crowd struct {
	t        *testing.T
	stores   []*redis.Store
	deadline time.Duration // of each call
	running  sync.WaitGroup
	stop     chan struct{}

	calls, answered, unknown atomic.Int64

	mu      sync.Mutex
	longest time.Duration // that a call took
	tallies map[bucketID]*tally
	errors  map[string]int // texts of the errors behind unknown outcomes
}

// newCrowd returns a crowd in which nobody calls but the test itself.
func newCrowd(t *testing.T, timeout time.Duration, stores ...*redis.Store) *crowd {
	return &crowd{
		t: t, stores: stores, deadline: patience * timeout, stop: make(chan struct{}),
		tallies: make(map[bucketID]*tally), errors: make(map[string]int),
	}
}

// ports are what makes errors of one kind differ.
var ports = regexp.MustCompile(`127\.0\.0\.1:\d+(->127\.0\.0\.1:\d+)?`)

// gather sets callers to work on the stores, which have this timeout, in all of these ways, until they
// are dismissed.
func gather(t *testing.T, ways []maker, timeout time.Duration, stores ...*redis.Store) *crowd {
	c := newCrowd(t, timeout, stores...)
	for i := range ways {
		for caller := range 8 {
			c.running.Go(func() { c.spend(&ways[i], caller, c.stores[caller%len(c.stores)]) })
		}
	}
	t.Cleanup(c.dismiss)
	return c
}

func (c *crowd) dismiss() {
	select {
	case <-c.stop:
	default:
		close(c.stop)
	}
	c.running.Wait()
}

func (c *crowd) spend(m *maker, caller int, s *redis.Store) {
	for n := 0; ; n++ {
		select {
		case <-c.stop:
			return
		default:
		}
		// What a fault has held back from Redis may arrive in the next test of the same servers.
		bucket := bucketID{m, fmt.Sprint(c.t.Name(), " plenty ", n%20), plenty}
		if caller < 4 {
			bucket = bucketID{m, fmt.Sprint(c.t.Name(), " scarce ", n/10), scarce} // 40 calls for 7 units
		}
		switch err := c.call(s, bucket); {
		case unanswered(err):
			time.Sleep(2 * time.Millisecond) // where all fails at once, leave the machine to others
		case err != nil:
			return
		}
	}
}

// unanswered says that err leaves open what was written, or that Redis has no room.
func unanswered(err error) bool {
	return errors.Is(err, store.ErrUnavailable) || errors.Is(err, store.ErrFull) || errors.Is(err, context.DeadlineExceeded)
}

// call spends one unit of the bucket and takes down what came of it.
func (c *crowd) call(s *redis.Store, bucket bucketID) error {
	ctx, cancel := context.WithTimeout(context.Background(), c.deadline)
	defer cancel()
	var out store.Outcome
	began := time.Now()
	steps := bucket.maker.reporting(bucket.maker.ops(bucket.name, bucket.most, 1), c.calls.Add(1))
	var err error
	torn := false
	for i := 0; i < len(steps) && err == nil && (i == 0 || !out.Refused); i++ {
		err = s.Apply(ctx, steps[i], &out)
		for unanswered(err) && bucket.maker.again && ctx.Err() == nil {
			time.Sleep(2 * time.Millisecond)
			err = s.Apply(ctx, steps[i], &out)
			torn = len(steps[0].Ops) > 1
		}
	}
	took := time.Since(began)
	if took > c.deadline+generous {
		c.t.Errorf("%v: a call with a deadline of %v ended after %v", bucket.maker.name, c.deadline, took)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.longest = max(c.longest, took)
	sum := c.tallies[bucket]
	if sum == nil {
		sum = &tally{}
		c.tallies[bucket] = sum
	}
	switch {
	case err == nil && out.Refused:
		sum.refused++
		if torn {
			sum.torn++
		}
		c.answered.Add(1)
	case err == nil:
		sum.admitted++
		c.answered.Add(1)
	case unanswered(err):
		sum.unknown++
		c.unknown.Add(1)
		c.errors[ports.ReplaceAllString(err.Error(), "…")]++
	default:
		c.t.Errorf("%v: %v, want an answer or %v", bucket.maker.name, err, store.ErrUnavailable)
	}
	return err
}

// awaitAnswers waits until callers have got n more answers.
func (c *crowd) awaitAnswers(n int64) { c.await(&c.answered, c.answered.Load()+n, "answers") }

// awaitUnknown waits until a good many calls have ended without an answer.
func (c *crowd) awaitUnknown() { c.await(&c.unknown, 20, "calls without an answer") }

// awaitHealth waits until callers get one answer after another, and nothing else.
func (c *crowd) awaitHealth() {
	c.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; {
		before := c.unknown.Load()
		c.awaitAnswers(500)
		if c.unknown.Load() == before {
			return
		}
		if time.Now().After(deadline) {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.t.Fatalf("calls still end without an answer; errors: %v", c.errors)
		}
	}
}

// awaitError waits until an error has named text.
func (c *crowd) awaitError(text string) {
	c.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		c.mu.Lock()
		for said := range c.errors {
			if strings.Contains(said, text) {
				c.mu.Unlock()
				return
			}
		}
		if time.Now().After(deadline) {
			defer c.mu.Unlock()
			c.t.Fatalf("no error names %q within 30 s, but: %v", text, c.errors)
		}
		c.mu.Unlock()
	}
}

func (c *crowd) await(count *atomic.Int64, n int64, what string) {
	c.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); count.Load() < n; {
		if time.Now().After(deadline) {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.t.Fatalf("%d %s after 30 s, want %d; errors so far: %v", count.Load(), what, n, c.errors)
		}
		time.Sleep(time.Millisecond)
	}
}

// verify dismisses the crowd and holds what it heard against what is counted. lost is how many
// writes Redis may have acknowledged and lost, of each bucket. It returns how many it did.
func (c *crowd) verify(witness store.Store, lost int64) (missing int64) {
	c.t.Helper()
	c.dismiss()
	var sum tally
	for bucket, heard := range c.tallies {
		sum.admitted, sum.refused, sum.unknown =
			sum.admitted+heard.admitted, sum.refused+heard.refused, sum.unknown+heard.unknown
		sure := heard.admitted
		if bucket.maker.manner == limit.Plain {
			sure += heard.refused
		}
		least, most := c.counted(witness, bucket)
		for since := time.Now(); most > sure+heard.unknown+heard.torn && time.Since(since) < promisesLapse; {
			time.Sleep(100 * time.Millisecond)
			least, most = c.counted(witness, bucket)
		}
		if least < sure-lost || most > sure+heard.unknown+heard.torn {
			c.t.Errorf("%s %q: %d…%d counted, want %d…%d: %+v was heard",
				bucket.maker.name, bucket.name, least, most, sure-lost, sure+heard.unknown+heard.torn, *heard)
		}
		if heard.admitted > bucket.most+lost {
			c.t.Errorf("%s %q: %d were admitted of %d", bucket.maker.name, bucket.name, heard.admitted, bucket.most)
		}
		if bucket.maker.manner == limit.Strict && most > bucket.most {
			c.t.Errorf("%s %q: %d are counted of %d", bucket.maker.name, bucket.name, most, bucket.most)
		}
		missing += max(0, sure-least)
		c.checkUsage(witness, bucket)
	}
	c.checkEvents(witness)
	c.t.Logf("%d admitted, %d refused, %d without an answer; the longest call took %v; lost %d; errors: %v",
		sum.admitted, sum.refused, sum.unknown, c.longest.Round(time.Millisecond), missing, c.errors)
	return missing
}

// checkUsage holds what is reported to what is counted: the bucket of the first op, with which rows lie.
func (c *crowd) checkUsage(witness store.Store, bucket bucketID) {
	c.t.Helper()
	if bucket.maker.manner != limit.Strict {
		return
	}
	op := bucket.maker.ops(bucket.name, bucket.most, 0)[0]
	for since := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		var out store.Outcome
		if err := witness.Apply(context.Background(), &store.Step{Ops: []store.Op{op}}, &out); err != nil {
			c.t.Fatal(err)
		}
		const day = 24 * 3600 * limit.Second
		days, err := witness.(store.Usage).Rows(context.Background(), store.RowsQuery{
			Group: []byte("crowd"), Owner: op.Owner, From: out.Now - day, To: out.Now + 1, Daily: true,
		})
		if err != nil {
			c.t.Fatal(err)
		}
		reported := int64(0)
		for _, r := range days {
			if bytes.Equal(r.Dimensions, op.Bucket) && r.Columns[0].Column == 0 {
				reported += r.Columns[0].Amount
			}
		}
		counted := out.Results[0].Used + out.Results[0].Held
		if reported == counted {
			return
		}
		if time.Since(since) > promisesLapse { // of what was still on its way, one may have been seen and the other not
			c.t.Errorf("%s %q: %d are counted, and %d reported", bucket.maker.name, bucket.name, counted, reported)
			return
		}
	}
}

// counted is what is used and held of a bucket, as witness sees it; of three the least and the most.
func (c *crowd) counted(witness store.Store, bucket bucketID) (least, most int64) {
	c.t.Helper()
	least = limit.MaxAmount
	for _, op := range bucket.maker.ops(bucket.name, bucket.most, 0) {
		var out store.Outcome
		if err := witness.Apply(context.Background(), &store.Step{Ops: []store.Op{op}}, &out); err != nil {
			c.t.Fatal(err)
		}
		n := out.Results[0].Used + out.Results[0].Held
		least, most = min(least, n), max(most, n)
	}
	return least, most
}

// awaitCounted waits until exactly want is counted of a bucket, or of three each.
func (c *crowd) awaitCounted(witness store.Store, bucket bucketID, want int64) {
	c.t.Helper()
	for since := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		least, most := c.counted(witness, bucket)
		if least == want && most == want {
			return
		}
		if time.Since(since) > 10*time.Second {
			c.t.Fatalf("%s: %d…%d are counted, want %d", bucket.maker.name, least, most, want)
		}
	}
}

// checkEvents holds what is told of to what is used: of each threshold that is reached there is one event, and no other.
func (c *crowd) checkEvents(witness store.Store) {
	c.t.Helper()
	var open []store.Op
	for bucket := range c.tallies {
		if bucket.maker.warns() {
			open = append(open, bucket.maker.ops(bucket.name, bucket.most, 0)...)
		}
	}
	for since := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		used := make([]int64, len(open))
		for i, op := range open {
			var out store.Outcome
			if err := witness.Apply(context.Background(), &store.Step{Ops: []store.Op{op}}, &out); err != nil {
				c.t.Fatal(err)
			}
			used[i] = out.Results[0].Used
		}
		told := make(map[string][]int64)
		events, err := witness.(store.Outbox).Undelivered(context.Background())
		if err != nil {
			c.t.Fatal(err)
		}
		for _, e := range events {
			told[string(e.Label)] = append(told[string(e.Label)], e.Threshold)
		}
		wrong, still := "", []store.Op(nil)
		for i, op := range open {
			reached := slices.DeleteFunc(slices.Clone(op.Thresholds), func(n int64) bool { return n > used[i] })
			got := told[string(op.Label)]
			slices.Sort(got)
			if !slices.Equal(got, reached) {
				still = append(still, op)
				wrong = fmt.Sprintf("%s: %d are used, and it is told of %d, want %d", op.Label, used[i], got, reached)
			}
		}
		if open = still; len(open) == 0 {
			return
		}
		if time.Since(since) > promisesLapse { // of what was still on its way, one may have been seen and the other not
			c.t.Errorf("of %d buckets: %s", len(open), wrong)
			return
		}
	}
}

// readEvents reads the events again and again until the crowd is dismissed. None that was there is missing later.
func (c *crowd) readEvents(s store.Outbox) {
	c.running.Go(func() {
		seen := make(map[string]bool)
		for {
			select {
			case <-c.stop:
				c.t.Logf("%d events were there to the end", len(seen))
				return
			case <-time.After(2 * time.Millisecond):
			}
			events, err := s.Events(context.Background(), 0)
			if err != nil {
				c.t.Errorf("events: %v", err)
				return
			}
			there := make(map[string]bool, len(events))
			for _, e := range events {
				there[e.ID] = true
			}
			for id := range seen {
				if !there[id] {
					c.t.Errorf("the event %s is missing", id)
					return
				}
			}
			seen = there
		}
	})
}
