package memory_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
	"github.com/rationhq/ration/store/memory"
	"github.com/rationhq/ration/store/storetest"
)

// often lets a shard be swept each millisecond.
const often = 256 * time.Millisecond

// Counters that no longer matter are dropped, and no others.
func TestSweep(t *testing.T) {
	clock := storetest.NewClock(noon)
	s := open(t, memory.Options{Clock: clock.Now, SweepEvery: often})
	charge := func(window limit.Micros, amount int64) {
		step := store.Step{}
		for i := range 50 {
			step.Ops = append(step.Ops, store.Op{
				Bucket: fmt.Appendf(nil, "%d of %d", i, window),
				Spec:   limit.Spec{Limit: 1, Window: window}, Amount: amount,
			})
		}
		apply(t, s, &step)
	}
	remembers := func(n int) {
		t.Helper()
		waitFor(t, fmt.Sprint("to remember ", n), func() bool { return s.Len() == n })
	}
	charge(limit.Second, 1)
	charge(3600*limit.Second, 1)
	charge(60*limit.Second, 0) // only looked at: nothing to remember
	remembers(100)
	clock.Advance(2*limit.Second - 1)
	remembers(100)
	clock.Advance(1) // the second's window and its grace are over
	remembers(50)
	clock.Advance(3700 * limit.Second)
	remembers(0)
	waitFor(t, "all memory to be free", func() bool { return s.Bytes() == 0 })
}

// Whatever was done, nothing is left of it in the books when its time is over.
func TestMemoryIsGivenBack(t *testing.T) {
	for _, dir := range []bool{false, true} {
		clock := storetest.NewClock(noon)
		opts := memory.Options{Clock: clock.Now, SweepEvery: often}
		var s *memory.Store
		path := t.TempDir()
		if dir {
			s = openDir(t, path, opts)
		} else {
			s = open(t, opts)
		}
		var out store.Outcome
		for n := range 400 {
			step := &store.Step{Lease: &store.Lease{ID: id(n % 40), Lasts: 300 * limit.Second, Do: store.LeaseAction(n % 3)}}
			for a := limit.FixedWindow; a <= limit.Concurrency; a++ {
				op := native(fmt.Sprint("owner ", n%7), fmt.Sprint(a, n%23), spec(a, 3600*limit.Second))
				op.Amount = int64(1 + n%3)
				switch {
				case n%3 == 0:
					op.Kind = store.Hold
				case a == limit.FixedWindow:
					op.Manner = limit.Plain
					op.Bucket = []byte("plain")
				case n%3 == 1:
					op.Kind = store.Settle
				}
				if n%2 == 0 {
					op.Owner = nil
				}
				step.Ops = append(step.Ops, op)
			}
			clock.Advance(limit.Second)
			if err := s.Apply(context.Background(), step, &out); err != nil && !errors.Is(err, store.ErrConflict) {
				t.Fatal(err)
			}
		}
		if s.Bytes() == 0 || s.Len() == 0 {
			t.Fatal("nothing was remembered")
		}
		clock.Advance(40 * 86_400 * limit.Second)
		waitFor(t, "everything to be forgotten", func() bool { return s.Len() == 0 && s.Bytes() == 0 })
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if n := recordsIn(t, path); dir && n != 0 {
			t.Errorf("%d records are left on disk", n)
		}
	}
}

// recordsIn returns how many records the file in a directory has; 0 if there is none.
func recordsIn(t *testing.T, dir string) (n int) {
	t.Helper()
	db, err := bbolt.Open(filepath.Join(dir, "ration.db"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	err = db.View(func(tx *bbolt.Tx) error {
		if b := tx.Bucket([]byte("records")); b != nil {
			n = b.Stats().KeyN
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// A flood of new names is refused when the store is full, costs the known ones nothing, and passes.
func TestFlood(t *testing.T) {
	clock := storetest.NewClock(noon)
	// Nothing is swept in time: room is made by those who need it.
	s := open(t, memory.Options{Clock: clock.Now, SweepEvery: time.Hour, MaxBytes: 1 << 20})
	minute := spec(limit.FixedWindow, 60*limit.Second)
	name := func(n int) store.Op { return native(fmt.Sprint("name ", n), "b", minute) }
	try := func(op store.Op) error {
		var out store.Outcome
		return s.Apply(context.Background(), &store.Step{Ops: []store.Op{op}}, &out)
	}
	known := name(0)
	known.Spec.Limit = 100
	admitted := int64(0)
	spend := func() {
		if out := apply(t, s, &store.Step{Ops: []store.Op{known}}); !out.Refused {
			admitted++
		}
	}
	full := 0
	for n := 1; n < 20_000; n++ {
		switch err := try(name(n)); {
		case errors.Is(err, store.ErrFull):
			full++
		case err != nil:
			t.Fatal(err)
		}
		if n%100 == 0 {
			spend()
		}
	}
	if full < 10_000 || s.Bytes() > 1<<20 {
		t.Errorf("of 20,000 names %d were refused, and %d bytes are taken: want most refused, and at most 1 MiB", full, s.Bytes())
	}
	if admitted != 100 {
		t.Errorf("the known name was admitted %d times, want 100", admitted)
	}
	remembered := s.Len()
	if err := try(name(1_000_000)); !errors.Is(err, store.ErrFull) || s.Len() != remembered {
		t.Errorf("a new name: %v, and %d buckets, want ErrFull, and %d as before", err, s.Len(), remembered)
	}
	for left, want := range map[int64]error{minute.Limit: nil, minute.Limit - 1: store.ErrFull} {
		depletion := name(1_000_000)
		depletion.Kind, depletion.Amount = store.Deplete, left
		if err := try(depletion); !errors.Is(err, want) || s.Len() != remembered {
			t.Errorf("a new name that %d of %d are left of: %v, and %d buckets, want %v, and %d as before",
				left, minute.Limit, err, s.Len(), want, remembered)
		}
	}
	clock.Advance(121 * limit.Second) // the minute and the tolerance are over
	for n := range 1000 {
		if err := try(name(2_000_000 + n)); err != nil {
			t.Fatalf("new name %d when all others are idle: %v", n, err)
		}
	}
}

// Of reservations, those that were settled long ago are forgotten first where there is no room, and
// none that is live.
func TestSettledLeasesMakeRoom(t *testing.T) {
	clock := storetest.NewClock(noon)
	s := open(t, memory.Options{Clock: clock.Now, SweepEvery: time.Hour, MaxBytes: 1 << 20})
	do := func(n int, action store.LeaseAction, lasts limit.Micros) (store.LeaseState, error) {
		hold := native("owner", "bucket", spec(limit.FixedWindow, 86_400*limit.Second))
		hold.Kind = store.Hold
		step := &store.Step{Lease: &store.Lease{ID: id(n), Do: action, Lasts: lasts}}
		if action == store.LeaseOpen {
			step.Ops = []store.Op{hold}
		}
		var out store.Outcome
		err := s.Apply(context.Background(), step, &out)
		return out.Lease, err
	}
	const live = 100
	for n := range live {
		if _, err := do(n, store.LeaseOpen, store.MaxLease); err != nil {
			t.Fatal(err)
		}
	}
	const late = 10_000_000 // these have lapsed, and are settled late
	for n := range live {
		if _, err := do(late+n, store.LeaseOpen, limit.Second); err != nil {
			t.Fatal(err)
		}
	}
	n, full := live, 0
	for ; full == 0; n++ { // each lasts a second, and is settled at once
		if _, err := do(n, store.LeaseOpen, limit.Second); errors.Is(err, store.ErrFull) {
			full = n
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if _, err := do(n, store.LeaseSettle, 0); err != nil {
			t.Fatalf("settlement %d: %v", n, err)
		}
		clock.Advance(1000)
	}
	if state, err := do(live, store.LeaseSettle, 0); state != store.LeaseReplayed || err != nil {
		t.Errorf("the oldest settled lease: %v %v, want it remembered while somebody may repeat it", state, err)
	}
	clock.Advance(700 * limit.Second)
	for n := full; n < full+100; n++ {
		if _, err := do(n, store.LeaseOpen, limit.Second); err != nil {
			t.Fatalf("reservation %d when old ones can go: %v", n, err)
		}
	}
	for n := range live {
		if state, err := do(n, store.LeaseSettle, 0); state != store.LeaseSettled || err != nil {
			t.Fatalf("live lease %d: %v %v, want it settled now", n, state, err)
		}
		if state, err := do(late+n, store.LeaseSettle, 0); state != store.LeaseCorrected || err != nil {
			t.Fatalf("lapsed lease %d: %v %v, want it corrected now", n, state, err)
		}
	}
	if state, _ := do(full-1, store.LeaseSettle, 0); state != store.LeaseReplayed {
		t.Errorf("the newest settled lease is forgotten before all older ones: %v", state)
	}
}

// A reservation whose holder said that it is done goes as a settled one does, and remembers nothing of a
// place: whoever limits only how many run at a time does not fill the store.
func TestEndedPlacesMakeRoom(t *testing.T) {
	clock := storetest.NewClock(noon)
	s := open(t, memory.Options{Clock: clock.Now, SweepEvery: time.Hour, MaxBytes: 1 << 20})
	place := native("owner", "bucket", limit.Spec{Algorithm: limit.Concurrency, Limit: 1})
	place.Kind = store.Hold
	do := func(n int, action store.LeaseAction, ops ...store.Op) error {
		var out store.Outcome
		lease := &store.Lease{ID: id(n), Do: action, Lasts: 300 * limit.Second}
		err := s.Apply(context.Background(), &store.Step{Lease: lease, Ops: ops}, &out)
		if err == nil && out.Refused {
			t.Fatalf("request %d found no place", n)
		}
		return err
	}
	var one int64
	for n := range 20_000 { // one after the other, three a second
		if err := do(n, store.LeaseOpen, place); err != nil {
			t.Fatalf("request %d begins: %v", n, err)
		}
		if err := do(n, store.LeaseLapse); err != nil {
			t.Fatalf("request %d ends: %v", n, err)
		}
		if n == 0 {
			one = s.Bytes()
		}
		clock.Advance(limit.Second / 3)
	}
	if one > 520 {
		t.Errorf("an ended request takes %d bytes, its bucket included, want no more than 520", one)
	}
}

// Reservations that nobody ends make room too, once they have been due for a while.
func TestAbandonedLeasesMakeRoom(t *testing.T) {
	clock := storetest.NewClock(noon)
	s := open(t, memory.Options{Clock: clock.Now, SweepEvery: time.Hour, MaxBytes: 1 << 20})
	for n := range 20_000 { // three a second
		place := native(fmt.Sprint("owner ", n%50), "bucket", limit.Spec{Algorithm: limit.Concurrency, Limit: 1000})
		place.Kind = store.Hold
		lease := &store.Lease{ID: id(n), Do: store.LeaseOpen, Lasts: 60 * limit.Second}
		var out store.Outcome
		if err := s.Apply(context.Background(), &store.Step{Lease: lease, Ops: []store.Op{place}}, &out); err != nil || out.Refused {
			t.Fatalf("request %d: refused %v, %v", n, out.Refused, err)
		}
		clock.Advance(limit.Second / 3)
	}
}

// Logs that grow are memory too.
func TestLogsAreBounded(t *testing.T) {
	clock := storetest.NewClock(noon)
	s := open(t, memory.Options{Clock: clock.Now, SweepEvery: time.Hour, MaxBytes: 1 << 20})
	full := 0
	for n := range 400_000 {
		op := native(fmt.Sprint("owner ", n%400), "log", limit.Spec{Algorithm: limit.SlidingLog, Limit: limit.MaxLog, Window: 86_400 * limit.Second})
		op.Amount = 1
		var out store.Outcome
		switch err := s.Apply(context.Background(), &store.Step{Ops: []store.Op{op}}, &out); {
		case errors.Is(err, store.ErrFull):
			full++
		case err != nil:
			t.Fatal(err)
		}
		clock.Advance(1000)
	}
	if full == 0 || s.Bytes() > 1<<20 {
		t.Errorf("%d charges were refused, and %d bytes are taken: want some, and at most 1 MiB", full, s.Bytes())
	}
}

// A full store decides on a known log what needs no more memory: give-backs, more units of the newest
// instant, and charges for which there is room, or will be once what is out of sight makes it.
func TestLogsThatNeedNotGrow(t *testing.T) {
	clock := storetest.NewClock(noon)
	s := open(t, memory.Options{Clock: clock.Now, SweepEvery: time.Hour, MaxBytes: 1 << 20})
	op := native("owner", "log", limit.Spec{Algorithm: limit.SlidingLog, Limit: 100, Window: 60 * limit.Second})
	charge := func() error {
		var out store.Outcome
		return s.Apply(context.Background(), &store.Step{Ops: []store.Op{op}}, &out)
	}
	for range 64 { // as many as the log has room for by now
		apply(t, s, &store.Step{Ops: []store.Op{op}})
		clock.Advance(limit.Second / 2)
	}
	clock.Advance(-limit.Second / 2)
	for n := 0; ; n++ {
		var out store.Outcome
		err := s.Apply(context.Background(), &store.Step{Ops: []store.Op{
			native(fmt.Sprint("name ", n), "b", limit.Spec{Limit: 10, Window: 86_400 * limit.Second}),
		}}, &out)
		if errors.Is(err, store.ErrFull) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	full := s.Bytes()
	if err := charge(); err != nil {
		t.Errorf("one more of the newest instant: %v", err)
	}
	clock.Advance(limit.Second)
	if err := charge(); !errors.Is(err, store.ErrFull) {
		t.Errorf("a charge for which the log has to grow: %v, want that the store is full", err)
	}
	back := op
	back.Kind = store.GiveBack
	if out := apply(t, s, &store.Step{Ops: []store.Op{back}}); out.Results[0].Used != 64 {
		t.Errorf("one of 65 was given back: %+v", out.Results[0])
	}
	clock.Advance(37 * limit.Second) // 18 entries are out of sight, more than a quarter
	if err := charge(); err != nil {
		t.Errorf("a charge for which what is out of sight makes room: %v", err)
	}
	if got := s.Bytes(); got != full {
		t.Errorf("%d bytes are taken, and %d were", got, full)
	}
}
