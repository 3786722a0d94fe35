package memory_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
	"github.com/rationhq/ration/store/memory"
	"github.com/rationhq/ration/store/storetest"
)

// openDir opens a store in a directory.
func openDir(t testing.TB, dir string, opts memory.Options) *memory.Store {
	t.Helper()
	s, err := memory.Open(dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// The conformance suite is about what is counted, not about disks: it runs where they are fast.
func TestConformanceWithDirectory(t *testing.T) {
	if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() {
		t.Setenv("TMPDIR", "/dev/shm")
	}
	storetest.RunDurable(t, func(t testing.TB, clock *storetest.Clock, dir string) store.Store {
		opts := memory.Options{}
		if clock != nil {
			opts.Clock = clock.Now
		}
		return openDir(t, dir, opts)
	})
}

// A store that is closed and opened again and again answers every step as one that never is.
func TestReopenedAnswersTheSame(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		clock := storetest.NewClock(noon)
		opts := memory.Options{Clock: clock.Now}
		dir := t.TempDir()
		kept, reopened := memory.New(opts), openDir(t, dir, opts)
		defer func() {
			if err := errors.Join(kept.Close(), reopened.Close()); err != nil {
				r.Fatal(err)
			}
		}()
		for range rapid.IntRange(1, 60).Draw(r, "steps") {
			switch rapid.IntRange(0, 9).Draw(r, "do") {
			case 0:
				if err := reopened.Close(); err != nil {
					r.Fatal(err)
				}
				reopened = openDir(t, dir, opts)
				if a, b := kept.Len(), reopened.Len(); b > a {
					r.Fatalf("%d buckets after opening, and %d before", b, a)
				}
				if a, b := usageOf(r, kept), usageOf(r, reopened); !reflect.DeepEqual(a, b) {
					r.Fatalf("usage:\n    kept %+v\nreopened %+v", a, b)
				}
				if a, b := eventsOf(r, kept), eventsOf(r, reopened); !reflect.DeepEqual(a, b) {
					r.Fatalf("events:\n    kept %+v\nreopened %+v", a, b)
				}
			case 1:
				deliverSome(r, kept, reopened)
			case 2, 3:
				clock.Advance(limit.Micros(rapid.Int64Range(0, 900_000_000).Draw(r, "µs")))
			default:
				step := randomStep(r)
				var a, b store.Outcome
				errA := kept.Apply(context.Background(), step, &a)
				errB := reopened.Apply(context.Background(), step, &b)
				if !reflect.DeepEqual(a, b) || fmt.Sprint(errA) != fmt.Sprint(errB) {
					r.Fatalf("step %+v:\n     kept %+v %v\n reopened %+v %v", step, a, errA, b, errB)
				}
			}
		}
	})
}

// randomStep draws a step on a few buckets, each of which has one limit.
func randomStep(r *rapid.T) *store.Step {
	step := &store.Step{}
	switch rapid.IntRange(0, 5).Draw(r, "lease") {
	case 0, 1:
		step.Lease = &store.Lease{Do: store.LeaseOpen, Lasts: limit.Micros(rapid.Int64Range(1, 600_000_000).Draw(r, "lasts"))}
	case 2:
		step.Lease = &store.Lease{Do: store.LeaseSettle, Actual: []int64{rapid.Int64Range(0, 9).Draw(r, "actual")}}
	case 3:
		step.Lease = &store.Lease{Do: store.LeaseLapse}
	case 4:
		step.Lease = &store.Lease{Do: store.LeaseRenew, Lasts: 300 * limit.Second, Actual: []int64{rapid.Int64Range(0, 9).Draw(r, "actual")}}
	}
	if step.Lease != nil {
		step.Lease.ID = id(rapid.IntRange(0, 9).Draw(r, "lease id"))
		step.Lease.Request = uint64(rapid.IntRange(0, 1).Draw(r, "request"))
	}
	kinds := []store.Kind{store.Charge, store.Charge, store.GiveBack, store.Record}
	if step.Lease != nil && step.Lease.Do == store.LeaseOpen {
		kinds = append(kinds, store.Hold, store.Hold, store.Hold)
	}
	if step.Lease != nil && step.Lease.Do == store.LeaseSettle {
		kinds = append(kinds, store.Settle)
	}
	renews := step.Lease != nil && step.Lease.Do == store.LeaseRenew
	for range rapid.IntRange(0, 4).Draw(r, "ops") {
		a := limit.Algorithm(rapid.IntRange(0, int(limit.Concurrency)).Draw(r, "algorithm"))
		op := native(rapid.SampledFrom([]string{"", "anna", "bert"}).Draw(r, "owner"), a.String(), spec(a, 1800*limit.Second))
		op.Kind = rapid.SampledFrom(kinds).Draw(r, "kind")
		op.Amount = rapid.Int64Range(1, 5).Draw(r, "amount")
		op.Lapse = rapid.Int64Range(0, op.Amount).Draw(r, "lapse")
		op.Spec.Limit, op.Spec.Burst = 20, 20
		if a == limit.FixedWindow || a == limit.CalendarWindow {
			op = warning(op, rapid.SampledFrom([][]int64{nil, {1, 3, 8}, {2, 16, 20}}).Draw(r, "thresholds")...)
		}
		if a == limit.FixedWindow && rapid.Bool().Draw(r, "plain") && op.Kind <= store.GiveBack {
			op.Manner, op.Bucket, op.Thresholds = limit.Plain, []byte("plain"), nil
		}
		switch {
		case renews:
			op.Kind, op.Amount, op.Lapse = store.Charge, 0, 0
		case op.Kind != store.Hold:
			op.Lapse = 0
		case rapid.IntRange(0, 4).Draw(r, "nothing") == 0:
			op.Amount, op.Lapse = 0, 0
		}
		if a == limit.SlidingLog {
			// A log that counts nothing is forgotten, with the entry in which a late settlement would land: then that
			// lands at its own instant. When it is forgotten is for each store to say.
			switch op.Kind {
			case store.GiveBack:
				op.Kind = store.Charge
			case store.Hold:
				op.Amount, op.Lapse = max(1, op.Amount), max(1, op.Lapse)
			default:
			}
		}
		step.Ops = append(step.Ops, op)
	}
	for i := range rapid.IntRange(0, 2).Draw(r, "rows") {
		step.Rows = append(step.Rows, store.Row{
			Owner: []byte(rapid.SampledFrom([]string{"anna", "bert"}).Draw(r, "who")), Group: []byte("g"),
			OfLease:    i == 0 && step.Lease != nil && rapid.Bool().Draw(r, "of lease"),
			Dimensions: []byte(rapid.SampledFrom([]string{"", "d"}).Draw(r, "dimensions")),
			Add: []store.Addition{
				{Column: uint8(rapid.IntRange(0, 2).Draw(r, "column")), Amount: rapid.Int64Range(-3, 9).Draw(r, "units")},
			},
			Rank: 1, Keep: store.Retain{OwnerHours: year, OwnerDays: year, GroupHours: year, GroupDays: year},
		})
	}
	return step
}

// deliverSome says of some events of two stores that they are delivered.
func deliverSome(r *rapid.T, a, b *memory.Store) {
	all := eventsOf(r, a).all
	all = all[:rapid.IntRange(0, len(all)).Draw(r, "delivered")]
	deliver(r, a, all)
	deliver(r, b, all)
}

// usageOf returns what is known of the rows of randomStep in some days from noon on.
func usageOf(t rapid.TB, s *memory.Store) (all []any) {
	t.Helper()
	const day = 24 * 3600 * limit.Second
	for _, owner := range []string{"", "anna", "bert"} {
		for _, daily := range []bool{false, true} {
			q := store.RowsQuery{Group: []byte("g"), Owner: []byte(owner), From: noon - day, To: noon + 3*day, Daily: daily}
			rows, err := s.Rows(context.Background(), q)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, rows)
		}
	}
	for _, monthly := range []bool{false, true} {
		top, err := s.Top(context.Background(), store.TopQuery{Group: []byte("g"), In: noon, Monthly: monthly, Most: 9})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, top)
	}
	return all
}

// A store that is closed in good order keeps what counts for a short time only, too.
func TestCloseKeepsEverything(t *testing.T) {
	clock := storetest.NewClock(noon)
	dir := t.TempDir()
	s := openDir(t, dir, memory.Options{Clock: clock.Now})
	plain := store.Op{Bucket: []byte("plain"), Spec: limit.Spec{Limit: 50, Window: limit.Second}, Amount: 3}
	step := &store.Step{Ops: []store.Op{plain, native("owner", "b", spec(limit.SlidingLog, limit.Second))}}
	apply(t, s, step)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openDir(t, dir, memory.Options{Clock: clock.Now})
	out := apply(t, s, step)
	if a, b := out.Results[0].Used, out.Results[1].Used; a != 6 || b != 2 {
		t.Errorf("used %d and %d after a second time, want 6 and 2", a, b)
	}
}

// A hold that has ended because its bucket had no meaning any more does not come back with the next
// bucket of that name.
func TestHoldsOfForgottenBuckets(t *testing.T) {
	for _, swept := range []bool{true, false} {
		clock := storetest.NewClock(noon)
		opts := memory.Options{Clock: clock.Now, SweepEvery: often}
		if !swept {
			opts.SweepEvery = time.Hour
		}
		dir := t.TempDir()
		s := openDir(t, dir, opts)
		reopen := func() {
			t.Helper()
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = openDir(t, dir, opts)
		}
		op := native("owner", "bucket", spec(limit.TokenBucket, 10*limit.Second))
		op.Spec.Limit, op.Spec.Burst = 10, 10
		held := op
		held.Kind, held.Amount = store.Hold, 5 // and nothing stays charged if it lapses
		apply(t, s, &store.Step{Lease: &store.Lease{ID: id(1), Lasts: limit.Second}, Ops: []store.Op{held}})
		clock.Advance(100 * limit.Second)
		if swept {
			waitFor(t, "the bucket to be swept", func() bool { return s.Len() == 0 })
		} else {
			reopen()
		}
		op.Amount = 7
		apply(t, s, &store.Step{Ops: []store.Op{op}})
		reopen()
		op.Amount = 0
		got := apply(t, s, &store.Step{Ops: []store.Op{op}}).Results[0]
		if got.Used != 7 || got.Held != 0 {
			t.Errorf("swept %v: used %d, held %d, want 7 and 0", swept, got.Used, got.Held)
		}
	}
}

// Calls that overlap leave a token bucket with what they have used, also when the store is opened anew among them.
func TestOverlappingHoldsSurvive(t *testing.T) {
	dir := t.TempDir()
	opts := memory.Options{Clock: storetest.NewClock(noon).Now}
	s := openDir(t, dir, opts)
	op := native("owner", "bucket", limit.Spec{Algorithm: limit.TokenBucket, Limit: 60, Burst: 10_000, Window: 3600 * limit.Second})
	held := op
	held.Kind, held.Amount = store.Hold, 100
	const calls = 20
	for n := range calls {
		apply(t, s, &store.Step{Lease: &store.Lease{ID: id(n), Lasts: limit.Second}, Ops: []store.Op{held}})
	}
	for n := range calls {
		if n%7 == 0 {
			before := s.Bytes()
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = openDir(t, dir, opts)
			if after := s.Bytes(); after > before || after < before/2 {
				t.Errorf("%d bytes, and %d when it was closed", after, before)
			}
		}
		i := (n*7 + 3) % calls
		apply(t, s, &store.Step{Lease: &store.Lease{ID: id(i), Do: store.LeaseSettle, Actual: []int64{3}}})
	}
	op.Amount = 0
	if got := apply(t, s, &store.Step{Ops: []store.Op{op}}).Results[0]; got.Used != 3*calls || got.Held != 0 {
		t.Errorf("%d are used, and %d held, want %d and 0", got.Used, got.Held, 3*calls)
	}
}

// A bucket that was forgotten, and begins anew where the clock has stepped back to, is none of its
// forerunner: what was held there gives nothing back of what is charged now.
func TestNamesakesOfForgottenBuckets(t *testing.T) {
	for _, a := range []limit.Algorithm{limit.FixedWindow, limit.SlidingWindow, limit.SlidingLog, limit.TokenBucket} {
		for _, swept := range []bool{true, false} {
			clock := storetest.NewClock(noon)
			opts := memory.Options{Clock: clock.Now, SweepEvery: often}
			if !swept {
				opts.SweepEvery = time.Hour
			}
			dir := t.TempDir()
			s := openDir(t, dir, opts)
			op := native("owner", "bucket", spec(a, 60*limit.Second))
			op.Spec.Limit, op.Spec.Burst, op.Amount = 10, 10, 10
			held := op
			held.Kind, held.Lapse = store.Hold, 10
			apply(t, s, &store.Step{Lease: &store.Lease{ID: id(1), Lasts: 300 * limit.Second}, Ops: []store.Op{held}})
			clock.Advance(500 * limit.Second)
			if swept {
				waitFor(t, "the bucket to be swept", func() bool { return s.Len() == 0 })
			} else {
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				s = openDir(t, dir, opts)
			}
			clock.Advance(-490 * limit.Second)
			if out := apply(t, s, &store.Step{Ops: []store.Op{op}}); out.Refused {
				t.Errorf("%v, swept %v: the bucket was to be forgotten, and is %+v", a, swept, out.Results[0])
			}
			apply(t, s, &store.Step{Lease: &store.Lease{ID: id(1), Do: store.LeaseSettle, Actual: []int64{0}}})
			if out := apply(t, s, &store.Step{Ops: []store.Op{op}}); !out.Refused {
				t.Errorf("%v, swept %v: 20 of 10 were admitted", a, swept)
			}
		}
	}
}

// A lease whose time is over is forgotten, and what it holds lapses then, though nobody has come to see the
// bucket: after a restart no lease would say that it has to. Also of a lease that has seen a restart.
func TestForgottenLeasesLeaveNoHolds(t *testing.T) {
	for _, before := range []bool{false, true} {
		clock := storetest.NewClock(noon)
		opts := memory.Options{Clock: clock.Now, SweepEvery: often}
		dir := t.TempDir()
		s := openDir(t, dir, opts)
		restart := func() {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = openDir(t, dir, opts)
		}
		op := native("owner", "bucket", spec(limit.CalendarWindow, 0))
		op.Spec.Calendar = &limit.Calendar{Period: limit.PerYear}
		op.Spec.Limit = 10
		held := op
		held.Kind, held.Amount, held.Lapse = store.Hold, 6, 1
		apply(t, s, &store.Step{Lease: &store.Lease{ID: id(1), Lasts: limit.Second}, Ops: []store.Op{held}})
		if before {
			restart()
		}
		remembered := s.Bytes()
		clock.Advance(limit.Second + store.Retention)
		waitFor(t, "the lease to be forgotten", func() bool { return s.Bytes() < remembered })
		restart()
		op.Amount = 0
		if got := apply(t, s, &store.Step{Ops: []store.Op{op}}).Results[0]; got.Used != 1 || got.Held != 0 {
			t.Errorf("restarted before that %v: %+v, want 1 used and nothing held", before, got)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if n := recordsIn(t, dir); n != 1 {
			t.Errorf("restarted before that %v: %d records are on disk, want that of the bucket", before, n)
		}
	}
}
