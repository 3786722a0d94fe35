package memory_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
	"github.com/rationhq/ration/store/memory"
	"github.com/rationhq/ration/store/storetest"
)

// crossing returns a charge of a team that makes as many events as one op can.
func crossing(n int) *store.Step {
	var thresholds []int64
	for i := range int64(store.MaxThresholds) {
		thresholds = append(thresholds, i+1)
	}
	op := warning(native("team", fmt.Sprint("bucket ", n), spec(limit.FixedWindow, hour)), thresholds...)
	op.Amount = store.MaxThresholds
	return &store.Step{Ops: []store.Op{op}}
}

// The store knows how much memory its events take, and frees it when they are a week old: with a directory on disk
// too, if it is open then or is opened again later.
func TestMemoryOfEvents(t *testing.T) {
	const steps = 500
	fill := func(s *memory.Store) {
		for i := range steps {
			apply(t, s, crossing(i))
		}
	}
	clock := storetest.NewClock(noon)
	opts := memory.Options{Clock: clock.Now, SweepEvery: often}
	bare := open(t, opts)
	for i := range steps {
		step := crossing(i)
		step.Ops[0].Thresholds = nil
		apply(t, bare, step)
	}
	s := open(t, opts)
	heap := heapOf(func() { fill(s) }) - bare.Bytes()
	counted := s.Bytes() - bare.Bytes()
	const events = steps * store.MaxThresholds
	t.Logf("%d bytes per event, of which the store knows of %d", heap/events, counted/events)
	if off := counted - heap; off < -heap/4 || off > heap/4 {
		t.Errorf("the store takes %d events for %d bytes, and they have grown the heap by %d", events, counted, heap)
	}

	open, closed := t.TempDir(), t.TempDir()
	kept := openDir(t, open, opts)
	fill(kept)
	later := openDir(t, closed, opts)
	fill(later)
	if err := later.Close(); err != nil {
		t.Fatal(err)
	}
	if n := recordsIn(t, closed); n != steps+events {
		t.Errorf("%d records are on disk, want %d of buckets and %d of events", n, steps, events)
	}
	clock.Advance(store.KeptEvents)
	for _, s := range []*memory.Store{s, kept} {
		waitFor(t, "everything to be forgotten", func() bool { return s.Bytes() == 0 })
		if got := eventsOf(t, s); len(got.all) > 0 {
			t.Errorf("after a week there are %d events", len(got.all))
		}
	}
	later = openDir(t, closed, opts)
	if n := later.Bytes(); n != 0 {
		t.Errorf("opened after a week, the store has %d bytes", n)
	}
	for dir, s := range map[string]*memory.Store{open: kept, closed: later} {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if n := recordsIn(t, dir); n != 0 {
			t.Errorf("after a week %d records are on disk", n)
		}
	}
}

// Events take memory, and are written where there is no room for a new bucket too: no crossing is lost for that.
func TestEventsOfAFullStore(t *testing.T) {
	s := open(t, memory.Options{MaxBytes: 1000, Clock: storetest.NewClock(noon).Now})
	step := crossing(0)
	thresholds := step.Ops[0].Thresholds
	step.Ops[0].Thresholds = nil
	apply(t, s, step)
	step.Ops[0].Thresholds = thresholds
	apply(t, s, step)
	if n := len(eventsOf(t, s).all); n != store.MaxThresholds {
		t.Errorf("%d events, want %d", n, store.MaxThresholds)
	}
	var out store.Outcome
	if err := s.Apply(context.Background(), crossing(1), &out); !errors.Is(err, store.ErrFull) {
		t.Errorf("another bucket: %v, want %v", err, store.ErrFull)
	}
	if n := len(eventsOf(t, s).all); n != store.MaxThresholds {
		t.Errorf("the step that failed has told of something: %d events", n)
	}
}

// Many steps at once that make too many events, and those who read and deliver meanwhile, leave the newest, in
// memory and on disk.
func TestTooManyEventsAtOnce(t *testing.T) {
	if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() {
		t.Setenv("TMPDIR", "/dev/shm")
	}
	dir := t.TempDir()
	s := openDir(t, dir, memory.Options{})
	const callers, turns = 8, 200 // 25,600 events
	var all sync.WaitGroup
	for caller := range callers {
		all.Go(func() {
			var out store.Outcome
			for turn := range turns {
				step := crossing(caller*turns + turn)
				step.Ops[0].Owner = fmt.Append(nil, "team ", caller)
				if err := s.Apply(context.Background(), step, &out); err != nil {
					t.Errorf("apply: %v", err)
				}
				if turn%50 == 49 {
					list, err := s.Undelivered(context.Background())
					if err := errors.Join(err, s.Delivered(context.Background(), list)); err != nil {
						t.Errorf("deliver: %v", err)
					}
				}
			}
		})
	}
	all.Wait()
	before := eventsOf(t, s)
	if n := len(before.all); n < store.MostEvents || n >= 2*store.MostEvents {
		t.Errorf("%d events are kept, want %d and less than twice as many", n, store.MostEvents)
	}
	if n := len(before.undelivered); n >= len(before.all) {
		t.Errorf("%d of %d events are not delivered, want fewer", n, len(before.all))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	back := openDir(t, dir, memory.Options{})
	after := eventsOf(t, back)
	same := func(a, b store.Event) bool { return a.ID == b.ID }
	if !slices.EqualFunc(after.all, before.all, same) || !slices.EqualFunc(after.undelivered, before.undelivered, same) {
		t.Errorf("opened again there are %d events, of which %d are not delivered, want %d and %d",
			len(after.all), len(after.undelivered), len(before.all), len(before.undelivered))
	}
}

// That events are delivered is on disk when it was acknowledged, and is not acknowledged if it cannot get there.
func TestDeliveredIsOnDisk(t *testing.T) {
	clock := storetest.NewClock(noon)
	dir := t.TempDir()
	s := openDir(t, dir, memory.Options{Clock: clock.Now})
	apply(t, s, crossing(0))
	list := eventsOf(t, s).all
	for i := range list {
		deliver(t, s, list[i:i+1])
		copied := t.TempDir()
		data, err := os.ReadFile(filepath.Join(dir, "ration.db"))
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(copied, "ration.db"), data)
		back := openDir(t, copied, memory.Options{Clock: clock.Now})
		if n := len(eventsOf(t, back).undelivered); n != len(list)-1-i {
			t.Errorf("after a crash %d events are not delivered, want %d", n, len(list)-1-i)
		}
		if err := back.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Delivered(context.Background(), list); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("delivered when it is closed: %v, want %v", err, store.ErrUnavailable)
	}
}

// A watcher that has left is not kept.
func TestNoticesEnd(t *testing.T) {
	s := open(t, memory.Options{})
	ctx, leave := context.WithCancel(context.Background())
	notices := s.Notices(ctx)
	apply(t, s, crossing(0))
	<-notices
	leave()
	waitFor(t, "the watcher to be let go", func() bool { return s.Watchers() == 0 })
	apply(t, s, crossing(1))
	if len(notices) > 0 {
		t.Error("a notice for one who has left")
	}
}
