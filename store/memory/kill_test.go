package memory_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
	"github.com/rationhq/ration/store/memory"
)

const (
	killDirectory = "RATION_TEST_DIRECTORY" // in the environment of a child: where its store is
	killRound     = "RATION_TEST_ROUND"

	kills    = 100
	spenders = 8
)

// year is a window that no test run crosses by chance.
const year = 31_536_000 * limit.Second

// spender does the same things again and again, each when the one before was acknowledged:
//
//	three plain charges; a reservation over four buckets, the last of which all spenders share; and
//	every second time its settlement
//
// In every fourth round all steps are plain charges, so that nothing but time brings them onto disk.
//
// So the number of its acknowledged steps says all that it has done, but for at most one step more.
type spender struct{ round, number int }

// step returns the n-th step, and what it adds to what is counted.
func (p spender) step(n int) (*store.Step, counts) {
	turn, part := n/5, n%5
	lease := &store.Lease{ID: id(p.round*1_000_000 + p.number*100_000 + turn), Lasts: store.MaxLease, Request: 7}
	amount, actual := int64(1+turn%5), int64(turn%7)
	switch {
	case p.charges(n):
		op := store.Op{Bucket: fmt.Append(nil, "plain ", p.number), Spec: limit.Spec{Limit: 1 << 40, Window: year}, Amount: 1}
		return &store.Step{Ops: []store.Op{op}}, counts{charges: 1}
	case part == 3:
		step := &store.Step{Lease: lease}
		for _, bucket := range p.buckets() {
			bucket.Kind, bucket.Amount = store.Hold, amount
			step.Ops = append(step.Ops, bucket)
		}
		step.Rows = p.report(amount, 0)
		return step, counts{held: amount}
	case turn%2 == 0:
		lease.Do, lease.Actual = store.LeaseSettle, []int64{actual}
		return &store.Step{Lease: lease, Rows: p.report(0, actual)}, counts{used: actual, held: -amount}
	}
	return &store.Step{}, counts{}
}

// report returns the row of a step, by which its lease holds and has used so much.
func (p spender) report(held, used int64) []store.Row {
	return []store.Row{{
		Owner: fmt.Append(nil, "user ", p.number), Group: []byte("g"), At: noon, OfLease: true,
		Add:  []store.Addition{{Column: 0, Amount: held}, {Column: 1, Amount: used}},
		Keep: store.Retain{OwnerHours: store.MaxRetain, GroupHours: store.MaxRetain},
	}}
}

// charges says that the n-th step is a plain charge.
func (p spender) charges(n int) bool { return n%5 < 3 || p.round%4 == 3 }

// buckets returns checks of the buckets that the spender reserves from.
func (p spender) buckets() []store.Op {
	forever := limit.Spec{Algorithm: limit.FixedWindow, FirstUse: true, Limit: 1 << 40, Window: year}
	level := limit.Spec{Algorithm: limit.TokenBucket, Limit: 1, Burst: 1 << 40, Window: year}
	ops := []store.Op{
		native(fmt.Sprint("user ", p.number), "tokens", forever),
		native(fmt.Sprint("team ", p.number), "tokens", forever),
		native(fmt.Sprint("team ", p.number), "level", level),
		native("everybody", "tokens", forever),
	}
	for i := range ops {
		ops[i].Amount = 0
		if ops[i].Spec.Algorithm == limit.FixedWindow {
			ops[i] = warning(ops[i], doubled...)
		}
	}
	return ops
}

// doubled are the thresholds of the spenders' buckets.
var doubled = []int64{1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768}

// counts are what is counted of a spender.
type counts struct{ charges, used, held int64 }

func (c counts) plus(d counts) counts {
	return counts{c.charges + d.charges, c.used + d.used, c.held + d.held}
}

// spendUntilKilled is the child: it opens the directory, and writes a line for each step that was
// acknowledged: which spender, and the time.
func spendUntilKilled(dir string, round int) {
	s, err := memory.Open(dir, memory.Options{})
	if err != nil {
		fmt.Println("open:", err)
		os.Exit(1)
	}
	var all sync.WaitGroup
	for i := range spenders {
		all.Go(func() {
			var out store.Outcome
			for n := 0; ; n++ {
				step, _ := spender{round, i}.step(n)
				if err := s.Apply(context.Background(), step, &out); err != nil || out.Refused {
					fmt.Println("apply:", err)
					os.Exit(1)
				}
				fmt.Printf("%d %d\n", i, time.Now().UnixMicro())
			}
		})
	}
	all.Wait()
}

// Whatever the instant at which a process is killed: the directory opens, what was acknowledged of
// reservations is there, whole and once, and of other charges at least what was acknowledged before
// the last acknowledged reservation began.
func TestKilledAHundredTimes(t *testing.T) {
	dir := t.TempDir()
	var before [spenders]counts
	steps, lost, worst := 0, 0, int64(0)
	var events told
	for round := range kills {
		acks := spendAndKill(t, dir, round)
		s := openDir(t, dir, memory.Options{})
		found := eventsOf(t, s)
		for i := range before {
			p := spender{round, i}
			now := p.read(t, s)
			agreed, want := p.expect(acks[i], before[i], now)
			if !agreed {
				t.Fatalf("round %d, spender %d: %d steps were acknowledged, and %+v is counted, want %+v",
					round, i, len(acks[i]), now, want)
			}
			p.probe(t, s, len(acks[i]))
			if gone := before[i].charges + p.sum(len(acks[i])).charges - now.charges; gone > 0 {
				lost += int(gone)
				worst = max(worst, p.age(acks[i], gone))
			}
			steps += len(acks[i])
			before[i] = p.read(t, s)
		}
		checkShared(t, s, before[:])
		checkUsage(t, s, before[:])
		events = checkEvents(t, s, before[:], events, found)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d steps were acknowledged; %d charges without a lease were lost, the oldest of them %.1f ms old",
		steps, lost, float64(worst)/1000)
	t.Logf("%d events were told", len(events.all))
	if len(events.all) < 10*spenders {
		t.Errorf("only %d events: too few to prove anything", len(events.all))
	}
	if steps < 10*kills*spenders {
		t.Errorf("only %d steps in %d rounds: the kills come too early to prove anything", steps, kills)
	}
}

// acks are the instants of a spender's acknowledgements.
type acks []int64

// age returns how long before the last step the last but gone charges was acknowledged.
func (p spender) age(a acks, gone int64) int64 {
	for n := len(a) - 1; n >= 0; n-- {
		if p.charges(n) {
			if gone--; gone == 0 {
				return a[len(a)-1] - a[n]
			}
		}
	}
	return 0
}

// spendAndKill lets a child spend for a random time and returns what it acknowledged.
func spendAndKill(t *testing.T, dir string, round int) (all [spenders]acks) {
	t.Helper()
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), killDirectory+"="+dir, fmt.Sprint(killRound, "=", round))
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	// The first is killed while it creates the directory, or soon after.
	life := time.Duration(rand.IntN(20)) * time.Millisecond
	if round > 10 {
		life = time.Duration(20+rand.IntN(180)) * time.Millisecond
	}
	timer := time.AfterFunc(life, func() { _ = child.Process.Kill() })
	defer timer.Stop()
	for lines := bufio.NewScanner(out); lines.Scan(); {
		var number int
		var at int64
		if _, err := fmt.Sscan(lines.Text(), &number, &at); err != nil {
			if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
				break // cut off
			}
			t.Errorf("round %d: the child says %q", round, lines.Text())
			break
		}
		all[number] = append(all[number], at)
	}
	_ = child.Process.Kill()
	_ = child.Wait()
	return all
}

// sum returns what the first n steps add.
func (p spender) sum(n int) (c counts) {
	for i := range n {
		_, d := p.step(i)
		c = c.plus(d)
	}
	return c
}

// expect says whether now can be what is counted after the acknowledged steps, and perhaps the next.
func (p spender) expect(acknowledged acks, before, now counts) (bool, [2]counts) {
	n := len(acknowledged)
	want := [2]counts{before.plus(p.sum(n)), before.plus(p.sum(n + 1))}
	// Charges behind the last reservation or settlement may be lost.
	durable := n
	for durable > 0 && p.charges(durable-1) {
		durable--
	}
	if durable > 0 && durable%5 == 0 && (durable/5-1)%2 == 1 {
		durable-- // its last step was none
	}
	least := before.plus(p.sum(durable)).charges
	for i := range want {
		if now.used == want[i].used && now.held == want[i].held && now.charges >= least && now.charges <= want[1].charges {
			return true, want
		}
	}
	return false, want
}

// read returns what is counted of a spender, which must be the same in all its own buckets.
func (p spender) read(t *testing.T, s store.Store) (c counts) {
	t.Helper()
	plain, _ := p.step(0)
	plain.Ops[0].Amount = 0
	step := &store.Step{Ops: append(plain.Ops, p.buckets()...)}
	out := apply(t, s, step)
	c = counts{charges: out.Results[0].Used, used: out.Results[1].Used, held: out.Results[1].Held}
	for i, r := range out.Results[1:] {
		own := i < 3
		if own && (r.Used != c.used || r.Held != c.held) {
			t.Fatalf("spender %d: bucket %d has %+v, and bucket 0 %+v: a step is there in part", p.number, i, r, c)
		}
		if ceiling := step.Ops[i+1].Spec.Ceiling(); r.Used+r.Held+r.Remaining != ceiling {
			t.Fatalf("spender %d: bucket %d has %+v, which is not %d together", p.number, i, r, ceiling)
		}
	}
	return c
}

// checkUsage holds the rows to the buckets: those of each spender, and of all of them.
func checkUsage(t *testing.T, s *memory.Store, each []counts) {
	t.Helper()
	var sum counts
	check := func(who string, want counts) {
		rows, err := s.Rows(context.Background(), store.RowsQuery{Group: []byte("g"), Owner: []byte(who), From: noon, To: noon + 1})
		if err != nil {
			t.Fatal(err)
		}
		var got counts
		for _, r := range rows {
			for _, a := range r.Columns {
				if a.Column == 0 {
					got.held += a.Amount
				} else {
					got.used += a.Amount
				}
			}
		}
		if got.held != want.held || got.used != want.used {
			t.Fatalf("the rows of %q say %+v, and the buckets %+v", who, got, want)
		}
	}
	for i, c := range each {
		check(fmt.Sprint("user ", i), c)
		sum = sum.plus(c)
	}
	check("", sum)
}

// checkEvents holds the events to the buckets, which were just looked at: of each it is told of all that it has
// reached, once. Of those that were found before that, none is of what no bucket has reached; and those that were there
// before the kill are there still, and delivered if they were. Then it delivers some more.
func checkEvents(t *testing.T, s *memory.Store, each []counts, before, found told) told {
	t.Helper()
	used := map[string]int64{}
	for i, c := range each {
		for _, bucket := range (spender{number: i}).buckets() {
			if len(bucket.Thresholds) > 0 {
				used[string(bucket.Label)] += c.used
			}
		}
	}
	now := eventsOf(t, s)
	reached := map[string][]int64{}
	for _, e := range now.all {
		reached[string(e.Label)] = append(reached[string(e.Label)], e.Threshold)
	}
	for label, used := range used {
		want := slices.DeleteFunc(slices.Clone(doubled), func(d int64) bool { return d > used })
		if slices.Sort(reached[label]); !slices.Equal(reached[label], want) {
			t.Fatalf("%d were used of %s, and it was told of %d, want %d", used, label, reached[label], want)
		}
	}
	for _, e := range found.all {
		if e.Used < e.Threshold || e.Used > used[string(e.Label)] {
			t.Fatalf("after the kill %+v was found, and %d are used", e, used[string(e.Label)])
		}
	}
	for _, e := range before.all {
		if !slices.ContainsFunc(found.all, func(f store.Event) bool { return reflect.DeepEqual(e, f) }) {
			t.Fatalf("%+v was there before the kill, and is not after it", e)
		}
	}
	if left := len(found.undelivered) - (len(found.all) - len(before.all)); left != len(before.undelivered) {
		t.Fatalf("%d events were not delivered before the kill, and %d of them after it", len(before.undelivered), left)
	}
	deliver(t, s, now.undelivered[len(now.undelivered)/2:])
	return eventsOf(t, s)
}

// probe repeats the acknowledged reservations and settlements: all are known.
func (p spender) probe(t *testing.T, s store.Store, acknowledged int) {
	t.Helper()
	for n := range acknowledged {
		step, _ := p.step(n)
		if step.Lease == nil {
			continue
		}
		if out := apply(t, s, step); out.Lease != store.LeaseReplayed {
			t.Fatalf("spender %d: step %d was acknowledged, and its repeat finds %d", p.number, n, out.Lease)
		}
	}
}

// checkShared holds the bucket that all reserve from to the sum of what they have reserved.
func checkShared(t *testing.T, s store.Store, each []counts) {
	t.Helper()
	var sum counts
	for _, c := range each {
		sum = sum.plus(c)
	}
	ops := spender{}.buckets()
	out := apply(t, s, &store.Step{Ops: ops[len(ops)-1:]})
	if r := out.Results[0]; r.Used != sum.used || r.Held != sum.held {
		t.Fatalf("the shared bucket has %+v, want used %d and held %d", r, sum.used, sum.held)
	}
}
