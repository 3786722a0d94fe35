package engine_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/rationhq/ration/engine"
	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/price"
	"github.com/rationhq/ration/store"
	"github.com/rationhq/ration/subject"
)

const corrected = `
domain: d
anonymous: deny
descriptors:
- key: user
  subject: true
  limits:
  - { name: bucket, rate: 1/hour, burst: 100 }
  - { name: window, algorithm: fixed_window, limit: 100/hour }
  - { name: log, algorithm: sliding_log, limit: 100/hour }
  - { name: sliding, algorithm: sliding_window, limit: 100/hour }
  - { name: month, algorithm: calendar, limit: 100/month, shadow: true }
`

// correction is about the limits of alice.
func correction(path string, amount int64) *engine.Correction {
	return &engine.Correction{
		Caller: engine.Caller{Domain: "d", Attributes: []policy.Entry{{Key: "user", Value: "alice"}}}, Limit: path, Amount: amount,
	}
}

// Whatever the algorithm: what is added counts, also beyond the limit, and what is taken away does no more.
func TestAdjust(t *testing.T) {
	b := newPolicyBench(t, corrected, engine.Options{})
	for _, name := range []string{"bucket", "window", "log", "sliding", "month"} {
		for _, step := range []struct{ amount, used int64 }{{30, 30}, {-10, 20}, {0, 20}, {100, 120}, {-1000, 0}} {
			if name == "log" && step.amount == 100 {
				step.amount, step.used = 80, 100 // a log keeps no more than its limit
			}
			var d engine.Decision
			if err := b.Adjust(context.Background(), correction("d.user."+name, step.amount), &d); err != nil {
				t.Fatal(err)
			}
			if len(d.Limits) != 1 || d.Limits[0].Status.Used != step.used || d.Limits[0].Over {
				t.Errorf("%s by %d: %+v, want %d used", name, step.amount, d.Limits, step.used)
			}
		}
	}
}

// A reset is written down, limit by limit, before it is made; where that fails nothing is changed.
func TestResetIsWrittenDownBefore(t *testing.T) {
	b := newPolicyBench(t, corrected, engine.Options{})
	who := correction("", 0)
	if err := b.Record(context.Background(), &engine.Record{Caller: who.Caller, Requests: 7, Usage: price.Usage{}}, new(engine.Settlement)); err != nil {
		t.Fatal(err)
	}
	var told []string
	var refuse error
	who.Before = func(_ context.Context, what *engine.Corrected) error {
		told = append(told, fmt.Sprint(what.Limit.Name, what.Amount))
		if what.Subject != (subject.Ref{Domain: "d", Name: "alice"}) {
			t.Errorf("the subject is %v", what.Subject)
		}
		return refuse
	}
	used := func() string {
		t.Helper()
		var d engine.Decision
		if err := b.Standing(context.Background(), &who.Caller, &d); err != nil {
			t.Fatal(err)
		}
		var all []string
		for i := range d.Limits {
			all = append(all, fmt.Sprint(d.Limits[i].Status.Used))
		}
		return strings.Join(all, " ")
	}
	refuse = errors.New("no ink")
	var d engine.Decision
	if err := b.Reset(context.Background(), who, &d); !errors.Is(err, refuse) || len(told) != 1 || used() != "7 7 7 7 7" {
		t.Errorf("%v, told %v, and then %s is used", err, told, used())
	}
	refuse, told = nil, nil
	if err := b.Reset(context.Background(), who, &d); err != nil || strings.Join(told, " ") != "bucket-7 window-7 log-7 sliding-7 month-7" {
		t.Errorf("%v, told %v", err, told)
	}
	if used() != "0 0 0 0 0" {
		t.Errorf("reset, %s is used", used())
	}
	told = nil
	if err := b.Reset(context.Background(), who, &d); err != nil || len(told) != 0 || len(d.Limits) != 5 {
		t.Errorf("where nothing is used: %v, told %v, limits %d", err, told, len(d.Limits))
	}
}

// Without the store a correction is an error, whatever its limits say.
func TestCorrectionWithoutTheStore(t *testing.T) {
	e := engine.New(broken{store.ErrUnavailable}, engine.Options{})
	p, _, err := policy.Parse([]policy.Source{{Name: "p", Data: []byte(corrected)}}, policy.Options{})
	if err != nil {
		t.Fatal(err)
	}
	e.SetPolicy(p)
	if err := e.Adjust(context.Background(), correction("d.user.window", 5), new(engine.Decision)); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("%v", err)
	}
}

// A grant without an end ends with the period that it is granted in, in the time zone of the subject.
func TestPeriodEnd(t *testing.T) {
	b := newPolicyBench(t, `
domain: d
anonymous: deny
descriptors:
- key: user
  subject: true
  limits:
  - { name: window, algorithm: fixed_window, limit: 100/hour }
  - { name: first, algorithm: fixed_window, starts: first_use, limit: 100/hour }
  - { name: bucket, rate: 1/hour, burst: 100 }
  - { name: month, algorithm: calendar, limit: 100/month, time_zone: subject, anchor: subject }
`, engine.Options{})
	const now = limit.Micros(1_795_435_200_000_000 + 90*60*1_000_000) // 2026-11-23 13:30 UTC
	for path, want := range map[string]string{
		"d.user.window": "2026-11-23T14:00:00Z", "d.user.first": "", "d.user.bucket": "", "d.user.month": "2026-12-09T23:00:00Z",
	} {
		a, err := b.AllowanceOf(&subject.Subject{Domain: "d", Name: "alice", Zone: "Europe/Berlin", Anchor: 10}, path)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if end, ok := a.PeriodEnd(now); ok {
			got = end.Time().UTC().Format("2006-01-02T15:04:05Z")
		}
		if got != want {
			t.Errorf("%s ends at %s, want %s", path, got, want)
		}
	}
}
