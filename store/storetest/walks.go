package storetest

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

func testWindow(t *testing.T, open Open) {
	clock := NewClock(noon)
	s := open(t, clock)
	three := minute(3)
	steps := []struct {
		at      limit.Micros // since noon
		amount  int64
		refused bool
		used    int64
	}{
		{0, 1, false, 1},
		{0, 0, false, 1}, // a check counts nothing
		{1, 1, false, 2},
		{59*limit.Second + 999_999, 1, false, 3},
		{59*limit.Second + 999_999, 0, false, 3}, // exactly used up is not overdrawn
		{59*limit.Second + 999_999, 1, true, 4},
		{59*limit.Second + 999_999, 0, true, 4},
		{60 * limit.Second, 0, false, 0}, // windows are half-open
		{60 * limit.Second, 3, false, 3},
		{119 * limit.Second, 1, true, 4},
		{10 * 60 * limit.Second, 1, false, 1},
	}
	for i, step := range steps {
		clock.Set(noon + step.at)
		out := apply(t, s, charge("b", three, step.amount))
		if out.Now != noon+step.at {
			t.Errorf("step %d: decided at %d, want %d", i, out.Now, noon+step.at)
		}
		if got := out.Results[0]; got != (store.Result{Used: step.used, Refused: step.refused}) {
			t.Errorf("step %d: %+v, want used %d, refused %v", i, got, step.used, step.refused)
		}
	}
}

func testPlain(t *testing.T, open Open) {
	s := open(t, NewClock(noon))
	ten := minute(10)
	want(t, apply(t, s, charge("a", ten, 8)), false, used(8))
	want(t, apply(t, s, charge("a", ten, 5)), true, over(13)) // refused whole, counted whole
	want(t, apply(t, s, charge("a", ten, 1)), true, over(14))
	// One limit's refusal does not keep the other from being charged.
	want(t, apply(t, s, charge("a", ten, 1), charge("b", ten, 4)), true, over(15), used(4))
	// A raised limit is in force at once; a limit of zero refuses all but a check of nothing.
	want(t, apply(t, s, charge("a", minute(20), 1)), false, used(16))
	want(t, apply(t, s, charge("c", minute(0), 0)), false, used(0))
	want(t, apply(t, s, charge("c", minute(0), 1)), true, over(1))
}

func testStrict(t *testing.T, open Open) {
	s := open(t, NewClock(noon))
	want(t, apply(t, s, strict("a", minute(10), 8), strict("b", minute(5), 5)), false, used(8), used(5))
	// b has no room: nothing is charged anywhere.
	want(t, apply(t, s, strict("a", minute(10), 2), strict("b", minute(5), 1)), true, used(8), over(5))
	want(t, apply(t, s, strict("a", minute(10), 2)), false, used(10))
	// A strict check asks for room for one more.
	want(t, apply(t, s, strict("a", minute(10), 0)), true, over(10))
	want(t, apply(t, s, strict("c", minute(1), 0)), false, used(0))
	// Beside a strict refusal, plain charges and give-backs land all the same.
	want(t, apply(t, s, strict("a", minute(10), 1), charge("p", minute(5), 2), giveBack("b", minute(5), 1)),
		true, over(10), used(2), used(4))
	// A plain refusal keeps strict charges from being written.
	want(t, apply(t, s, charge("p", minute(3), 2), strict("b", minute(5), 1)), true, over(4), used(4))
	want(t, apply(t, s, strict("b", minute(5), 1)), false, used(5))
}

func testGiveBack(t *testing.T, open Open) {
	clock := NewClock(noon)
	s := open(t, clock)
	ten := minute(10)
	want(t, apply(t, s, giveBack("a", ten, 3)), false, used(0)) // never below zero
	want(t, apply(t, s, charge("a", ten, 12)), true, over(12))
	want(t, apply(t, s, giveBack("a", ten, 1)), false, used(11)) // never refused
	want(t, apply(t, s, giveBack("a", ten, 4)), false, used(7))
	want(t, apply(t, s, charge("a", ten, 3)), false, used(10))
	want(t, apply(t, s, giveBack("a", ten, 100)), false, used(0))
	want(t, apply(t, s, charge("a", ten, 10)), false, used(10))
	clock.Advance(60 * limit.Second)
	want(t, apply(t, s, giveBack("a", ten, 5)), false, used(0)) // to the current window only
	clock.Advance(-1)
	want(t, apply(t, s, charge("a", ten, 0)), false, used(10))
}

func testOverall(t *testing.T, open Open) {
	full, room := minute(0), minute(100)
	with := func(op store.Op, change func(*store.Op)) store.Op { change(&op); return op }
	quota := func(op store.Op) store.Op { return with(op, func(o *store.Op) { o.Quota = true }) }
	shadow := func(op store.Op) store.Op { return with(op, func(o *store.Op) { o.Shadow = true }) }
	cases := []struct {
		name    string
		step    store.Step
		refused bool
	}{
		{"nothing to judge", store.Step{}, false},
		{"one refuses", store.Step{Ops: []store.Op{charge("a", room, 1), charge("b", full, 1)}}, true},
		{"a shadow refuses", store.Step{Ops: []store.Op{charge("a", room, 1), shadow(charge("b", full, 1))}}, false},
		{"the whole step is in shadow", store.Step{Shadow: true, Ops: []store.Op{charge("b", full, 1)}}, false},
		{"one quota of two is spent", store.Step{Ops: []store.Op{quota(charge("a", room, 1)), quota(charge("b", full, 1))}}, false},
		{"all quotas are spent", store.Step{Ops: []store.Op{quota(charge("a", full, 1)), quota(charge("b", full, 1))}}, true},
		{"one quota alone is spent", store.Step{Ops: []store.Op{quota(charge("a", full, 1))}}, true},
		{"all quotas are spent, another is open", store.Step{QuotaOpen: true, Ops: []store.Op{quota(charge("a", full, 1))}}, false},
		{"a limit refuses beside an open quota", store.Step{Ops: []store.Op{quota(charge("a", room, 1)), charge("b", full, 1)}}, true},
		{"the only quota is spent beside a limit with room", store.Step{Ops: []store.Op{quota(charge("a", full, 1)), charge("b", room, 1)}}, true},
		{"a spent quota in shadow counts as open", store.Step{Ops: []store.Op{quota(charge("a", full, 1)), shadow(quota(charge("b", full, 1)))}}, false},
		{"a give-back to a quota counts as open", store.Step{Ops: []store.Op{quota(charge("a", full, 1)), quota(giveBack("b", full, 1))}}, false},
	}
	for _, manner := range []limit.Manner{limit.Plain, limit.Strict} {
		for _, c := range cases {
			s := open(t, NewClock(noon))
			step := c.step
			step.Ops = append([]store.Op(nil), c.step.Ops...)
			for i := range step.Ops {
				step.Ops[i].Manner = manner
			}
			out := applyStep(t, s, &step)
			if out.Refused != c.refused {
				t.Errorf("%s (manner %d): refused = %v, want %v", c.name, manner, out.Refused, c.refused)
			}
			for i, r := range out.Results {
				counted := manner == limit.Plain || !c.refused
				if wantUsed := step.Ops[i].Amount; step.Ops[i].Kind == store.Charge && counted != (r.Used == wantUsed) {
					t.Errorf("%s (manner %d): op %d used %d", c.name, manner, i, r.Used)
				}
			}
		}
	}
}

func testSameBucket(t *testing.T, open Open) {
	s := open(t, NewClock(noon))
	want(t, apply(t, s, charge("a", minute(3), 2), charge("a", minute(3), 2)), true, used(2), over(4))
	want(t, apply(t, s, strict("b", minute(3), 2), strict("b", minute(3), 2)), true, used(0), over(0))
	want(t, apply(t, s, strict("b", minute(3), 2), giveBack("b", minute(3), 1), strict("b", minute(3), 2)),
		false, used(2), used(1), used(3))
}

func testLargest(t *testing.T, open Open) {
	s := open(t, NewClock(noon))
	most := minute(limit.MaxAmount)
	want(t, apply(t, s, charge("a", most, limit.MaxAmount-1)), false, used(limit.MaxAmount-1))
	want(t, apply(t, s, charge("a", most, 1)), false, used(limit.MaxAmount))
	want(t, apply(t, s, charge("a", most, limit.MaxAmount)), false, used(limit.MaxAmount))
	want(t, apply(t, s, giveBack("a", most, limit.MaxAmount-3)), false, used(3))
	want(t, apply(t, s, charge("b", minute(limit.MaxAmount-1), limit.MaxAmount)), true, over(limit.MaxAmount))
	want(t, apply(t, s, strict("c", minute(limit.MaxAmount-1), limit.MaxAmount)), true, over(0))
	want(t, apply(t, s, strict("c", most, limit.MaxAmount)), false, used(limit.MaxAmount))
}

func testClockBack(t *testing.T, open Open) {
	for _, window := range []limit.Micros{limit.Second, 60 * limit.Second, 86_400 * limit.Second} {
		start := noon - noon%window
		clock := NewClock(start + window - 1)
		s := open(t, clock)
		spec := limit.Spec{Limit: 5, Window: window}
		want(t, apply(t, s, charge("a", spec, 5)), false, used(5))
		clock.Set(start + window)
		want(t, apply(t, s, charge("a", spec, 2)), false, used(2))
		clock.Set(start + window - min(window, 60*limit.Second))
		want(t, apply(t, s, charge("a", spec, 1)), true, over(6))
		clock.Set(start + window)
		want(t, apply(t, s, charge("a", spec, 1)), false, used(3))
	}
}

func testNames(t *testing.T, open Open) {
	s := open(t, NewClock(noon))
	names := []string{"a", "a|", "a@0", "a{x}", "{s0000}a", "ä", "a b", "a\nb", "a\x00b", "%s", strings.Repeat("k", store.MaxBucketName)}
	for i, name := range names {
		want(t, apply(t, s, charge(name, minute(1000), int64(i+1))), false, used(int64(i+1)))
	}
	for i, name := range names {
		want(t, apply(t, s, charge(name, minute(1000), 0)), false, used(int64(i+1)))
	}
}

func testInvalid(t *testing.T, open Open) {
	s := open(t, NewClock(noon))
	good := charge("good", minute(5), 1)
	cases := map[string]struct {
		bad   store.Op
		cause error
	}{
		"no name":          {charge("", minute(5), 1), store.ErrInvalid},
		"too long a name":  {charge(strings.Repeat("k", store.MaxBucketName+1), minute(5), 1), store.ErrInvalid},
		"no window":        {charge("a", limit.Spec{Limit: 1}, 1), store.ErrInvalid},
		"negative window":  {charge("a", limit.Spec{Limit: 1, Window: -1}, 1), store.ErrInvalid},
		"negative limit":   {charge("a", minute(-1), 1), store.ErrInvalid},
		"limit of 2^53":    {charge("a", minute(limit.MaxAmount+1), 1), store.ErrInvalid},
		"negative amount":  {charge("a", minute(5), -1), store.ErrInvalid},
		"amount of 2^53":   {charge("a", minute(5), limit.MaxAmount+1), store.ErrInvalid},
		"a hold":           {store.Op{Bucket: []byte("a"), Spec: minute(5), Kind: store.Hold, Amount: 1}, store.ErrUnsupported},
		"a settlement":     {store.Op{Bucket: []byte("a"), Spec: minute(5), Kind: store.Settle, Amount: 1}, store.ErrUnsupported},
		"an unknown thing": {store.Op{Bucket: []byte("a"), Spec: minute(5), Kind: 200, Amount: 1}, store.ErrUnsupported},
	}
	for name, c := range cases {
		var out store.Outcome
		err := s.Apply(context.Background(), &store.Step{Ops: []store.Op{good, c.bad}}, &out)
		if !errors.Is(err, c.cause) {
			t.Errorf("%s: error %v, want %v", name, err, c.cause)
		}
	}
	want(t, apply(t, s, charge("good", minute(5), 0)), false, used(0)) // nothing was written
}

func testDeadline(t *testing.T, open Open) {
	s := open(t, nil)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	var out store.Outcome
	if err := s.Apply(ctx, &store.Step{Ops: []store.Op{charge("a", minute(5), 1)}}, &out); !errors.Is(err, context.Canceled) {
		t.Errorf("with a cancelled context: %v, want %v", err, context.Canceled)
	}
	want(t, apply(t, s, charge("a", minute(5), 0)), false, used(0))
	if off := time.Until(apply(t, s, charge("a", minute(5), 0)).Now.Time()).Abs(); off > time.Minute {
		t.Errorf("the store's own clock is off by %v", off)
	}
}
