package memory_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
	"github.com/rationhq/ration/store/memory"
	"github.com/rationhq/ration/store/storetest"
)

// TestMain also is the process that tests kill, or starve of disk (kill_test.go, full_test.go).
func TestMain(m *testing.M) {
	if dir := os.Getenv(killDirectory); dir != "" {
		round, _ := strconv.Atoi(os.Getenv(killRound))
		spendUntilKilled(dir, round)
	}
	goleak.VerifyTestMain(m)
}

// noon is 2025-11-21 12:00:00 UTC.
const noon limit.Micros = 1_763_726_400 * limit.Second

func TestConformance(t *testing.T) {
	storetest.Run(t, func(t testing.TB, clock *storetest.Clock) store.Store {
		opts := memory.Options{}
		if clock != nil {
			opts.Clock = clock.Now
		}
		return open(t, opts)
	})
}

// open opens a store that is closed at the end of the test.
func open(t testing.TB, opts memory.Options) *memory.Store {
	t.Helper()
	s := memory.New(opts)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func apply(t testing.TB, s store.Store, step *store.Step) store.Outcome {
	t.Helper()
	var out store.Outcome
	if err := s.Apply(context.Background(), step, &out); err != nil {
		t.Fatalf("apply: %v", err)
	}
	return out
}

// spec returns a limit of the algorithm that admits about as much as can be, over the window.
func spec(a limit.Algorithm, window limit.Micros) limit.Spec {
	s := limit.Spec{Algorithm: a, Limit: 1 << 40, Window: window}
	switch a {
	case limit.TokenBucket:
		s.Burst = 1 << 40
	case limit.SlidingLog:
		s.Limit = limit.MaxLog
	case limit.CalendarWindow:
		s.Window, s.Calendar = 0, &limit.Calendar{Period: limit.PerMonth}
	case limit.Concurrency:
		s.Window = 0
	case limit.FixedWindow, limit.SlidingWindow:
	}
	return s
}

// native returns a charge of one unit on the bucket of an owner.
func native(owner, bucket string, s limit.Spec) store.Op {
	return store.Op{Owner: []byte(owner), Bucket: []byte(bucket), Spec: s, Manner: limit.Strict, Amount: 1}
}

// warning returns op with thresholds, by which its bucket is told of.
func warning(op store.Op, thresholds ...int64) store.Op {
	op.Thresholds, op.Label = thresholds, slices.Concat(op.Owner, []byte("/"), op.Bucket)
	return op
}

// told is what a store says of events.
type told struct{ all, undelivered []store.Event }

func eventsOf(t rapid.TB, s store.Outbox) (e told) {
	t.Helper()
	var err, also error
	e.all, err = s.Events(context.Background(), 0)
	e.undelivered, also = s.Undelivered(context.Background())
	if err := errors.Join(err, also); err != nil {
		t.Fatal(err)
	}
	return e
}

func deliver(t rapid.TB, s store.Outbox, list []store.Event) {
	t.Helper()
	if err := s.Delivered(context.Background(), list); err != nil {
		t.Fatal(err)
	}
}

// waitFor waits until done, and fails if that takes too long.
func waitFor(t testing.TB, what string, done func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !done() {
		if time.Now().After(deadline) {
			t.Fatal("waited in vain: ", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func id(n int) (l store.LeaseID) {
	copy(l[:], fmt.Sprintf("%016d", n))
	return l
}
