package memory_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
	"github.com/rationhq/ration/store/memory"
	"github.com/rationhq/ration/store/storetest"
)

// A store that crashes after it has answered comes back as one that never did: at any moment between
// reservations, settlements, lapses and give-backs on limits of every algorithm, through steps of the clock
// in both directions, what its file says is what was answered, then and later. The crash is a copy of the
// file, which nobody closes.
func TestCrashedAnswersTheSame(t *testing.T) {
	if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() {
		t.Setenv("TMPDIR", "/dev/shm")
	}
	rapid.Check(t, func(r *rapid.T) {
		clock := storetest.NewClock(noon)
		// Nothing is swept: what one store has forgotten, and another has not, a clock may bring back.
		opts := memory.Options{Clock: clock.Now, SweepEvery: 24 * time.Hour}
		dir := t.TempDir()
		kept, crashing := memory.New(opts), openDir(t, dir, opts)
		defer kept.Close()
		for range rapid.IntRange(1, 30).Draw(r, "steps") {
			clock.Advance(limit.Micros(rapid.SampledFrom([]int64{0, 0, 1, 30, 400, 2000, -30, -400, -4000}).Draw(r, "s")) * limit.Second)
			step := randomStep(r)
			if step.Lease == nil { // which need not be on disk yet
				step.Lease = &store.Lease{ID: id(rapid.IntRange(0, 9).Draw(r, "lease id")), Do: store.LeaseLapse}
			}
			var a, b store.Outcome
			errA := kept.Apply(context.Background(), step, &a)
			errB := crashing.Apply(context.Background(), step, &b)
			if !reflect.DeepEqual(a, b) || fmt.Sprint(errA) != fmt.Sprint(errB) {
				r.Fatalf("step %+v:\n     kept %+v %v\n crashing %+v %v", step, a, errA, b, errB)
			}
			if rapid.IntRange(0, 3).Draw(r, "deliver") == 0 {
				deliverSome(r, kept, crashing)
			}
		}
		// What is on disk is whole steps up to the last; a copy while a flush of nothing but lapses is
		// under way may be torn, which opening it would say.
		copied := t.TempDir()
		data, err := os.ReadFile(filepath.Join(dir, "ration.db"))
		if err != nil {
			r.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(copied, "ration.db"), data, 0o600); err != nil {
			r.Fatal(err)
		}
		back := openDir(t, copied, opts)
		if a, b := usageOf(r, kept), usageOf(r, back); !reflect.DeepEqual(a, b) {
			r.Fatalf("usage:\n       kept %+v\nafter crash %+v", a, b)
		}
		sameEvents := func() {
			if a, b := eventsOf(r, kept), eventsOf(r, back); !reflect.DeepEqual(a, b) {
				r.Fatalf("events:\n       kept %+v\nafter crash %+v", a, b)
			}
		}
		sameEvents()
		for range 3 {
			var a, b store.Outcome
			survey := surveyStep()
			if err := kept.Apply(context.Background(), survey, &a); err != nil {
				r.Fatal(err)
			}
			if err := back.Apply(context.Background(), survey, &b); err != nil {
				r.Fatal(err)
			}
			for i := range a.Results {
				if a.Results[i] != b.Results[i] {
					r.Fatalf("%s of %q:\n        kept %+v\n after crash %+v", survey.Ops[i].Bucket, survey.Ops[i].Owner, a.Results[i], b.Results[i])
				}
			}
			sameEvents()                      // those of the survey, too
			clock.Advance(200 * limit.Second) // leases are due in between
		}
		if err := back.Close(); err != nil {
			r.Fatal(err)
		}
		if err := crashing.Close(); err != nil {
			r.Fatal(err)
		}
	})
}

// surveyStep looks at every bucket that randomStep names.
func surveyStep() *store.Step {
	step := &store.Step{}
	for a := limit.FixedWindow; a <= limit.Concurrency; a++ {
		for _, owner := range []string{"", "anna", "bert"} {
			op := native(owner, a.String(), spec(a, 1800*limit.Second))
			op.Spec.Limit, op.Spec.Burst, op.Amount = 20, 20, 0
			if a == limit.FixedWindow || a == limit.CalendarWindow {
				op = warning(op, 1, 3, 8, 20)
			}
			step.Ops = append(step.Ops, op)
		}
	}
	return step
}
