package storetest

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

// reporter is a test that fails: a testing.TB or a rapid.T.
type reporter interface {
	Helper()
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Logf(format string, args ...any)
}

func apply(t reporter, s store.Store, ops ...store.Op) store.Outcome {
	t.Helper()
	return applyStep(t, s, &store.Step{Ops: ops})
}

func applyStep(t reporter, s store.Store, step *store.Step) store.Outcome {
	t.Helper()
	var out store.Outcome
	if err := s.Apply(context.Background(), step, &out); err != nil {
		t.Fatalf("apply: %v", err)
	}
	return out
}

// scope is a testing.TB whose cleanups run when it ends: a random test opens hundreds of stores, and
// one is enough at a time.
type scope struct {
	testing.TB
	cleanups []func()
}

func (s *scope) Cleanup(f func()) { s.cleanups = append(s.cleanups, f) }

func (s *scope) end() {
	for _, f := range slices.Backward(s.cleanups) {
		f()
	}
}

// alike says whether two errors are of one class of the contract, or both nil.
func alike(a, b error) bool {
	for _, class := range []error{store.ErrInvalid, store.ErrUnsupported, store.ErrConflict} {
		if errors.Is(a, class) != errors.Is(b, class) {
			return false
		}
	}
	return (a == nil) == (b == nil)
}

// twin applies every step to a store and to the model, and insists that they agree.
type twin struct {
	t      reporter
	store  store.Store
	clock  *Clock
	model  *Model
	out    store.Outcome // used again, as callers do
	latest limit.Micros  // that the clock has shown
	ids    ids           // of the events
}

// step applies step to both and returns what they agree on. The results are the model's.
func (w *twin) step(step *store.Step) (store.Outcome, error) {
	w.t.Helper()
	w.latest = max(w.latest, w.clock.Now())
	err := w.store.Apply(context.Background(), step, &w.out)
	next, want, wantErr := w.model.Apply(w.clock.Now(), step)
	if !alike(err, wantErr) {
		w.t.Fatalf("at %d, %s: the error %v, want %v", w.clock.Now(), shown{step}, err, wantErr)
	}
	if wantErr == nil && !same(w.out, want) {
		w.t.Fatalf("at %d, %s:\n got %+v\nwant %+v", w.clock.Now(), shown{step}, w.out, want)
	}
	w.t.Logf("at %d, %s:\n%+v %v", w.clock.Now(), shown{step}, want, wantErr)
	w.model = next
	return want, wantErr
}

// must is step for a step without error.
func (w *twin) must(step *store.Step) store.Outcome {
	w.t.Helper()
	out, err := w.step(step)
	if err != nil {
		w.t.Fatalf("at %d, %s: %v", w.clock.Now(), shown{step}, err)
	}
	return out
}

func same(a, b store.Outcome) bool {
	return a.Now == b.Now && a.Refused == b.Refused && a.Lease == b.Lease && slices.Equal(a.Results, b.Results) &&
		bytes.Equal(a.Note, b.Note)
}

// wall is a strict op that refuses: a step with it asks what would be, and writes nothing.
func wall() store.Op {
	return strict("wall", limit.Spec{Window: minute}, 1)
}
