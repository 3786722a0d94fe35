package storetest

import (
	"context"
	"strings"
	"testing"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

// stand is how a bucket stands: what is used, held and remaining.
type stand struct{ used, held, left int64 }

// testLeases walks through the lives of leases that hold tokens of an hour and a place.
func testLeases(t *testing.T, open Open) {
	tokens := limit.Spec{Limit: 100, Window: hour}
	places := limit.Spec{Algorithm: limit.Concurrency, Limit: 2}
	// reserve holds so many tokens, of which lapse stay if nobody settles them, and a place.
	reserve := func(amount, lapse int64) []store.Op {
		place := with(holding("places", places, 1, 0), func(o *store.Op) { o.Class = 1 })
		return ops(holding("tokens", tokens, amount, lapse), place)
	}
	used := func(amount int64) []store.Op { return ops(of(store.Settle, charge("tokens", tokens, amount))) }

	type outcome struct {
		lease   store.LeaseState
		refused bool
		err     error
	}
	var (
		none, refused, conflict = outcome{}, outcome{refused: true}, outcome{err: store.ErrConflict}
		opened, settled, lapsed = outcome{lease: store.LeaseOpened}, outcome{lease: store.LeaseSettled}, outcome{lease: store.LeaseLapsed}
		replayed, corrected     = outcome{lease: store.LeaseReplayed}, outcome{lease: store.LeaseCorrected}
		unknown, renewed        = outcome{lease: store.LeaseUnknown}, outcome{lease: store.LeaseRenewed}
	)
	for1µs := renews(1)
	for1µs.Lasts = 1
	type line struct {
		what           string
		at             limit.Micros // since noon
		lease          *store.Lease
		ops            []store.Op
		became         outcome
		tokens, places stand // afterwards
	}
	for name, lines := range map[string][]line{
		"settled": {
			{"open", 0, opens(1, 7), reserve(40, 10), opened, stand{0, 40, 60}, stand{0, 1, 1}},
			{"replay", sec, opens(1, 7), reserve(40, 10), replayed, stand{0, 40, 60}, stand{0, 1, 1}},
			{"another request under its id", sec, opens(1, 8), reserve(40, 10), conflict, stand{0, 40, 60}, stand{0, 1, 1}},
			{"too much", sec, opens(2, 7), reserve(61, 0), refused, stand{0, 40, 60}, stand{0, 1, 1}},
			{"a refusal is not stored", sec, opens(2, 8), reserve(60, 0), opened, stand{0, 100, 0}, stand{0, 2, 0}},
			{"settle below", 2 * sec, settles(1, 1, 25), nil, settled, stand{25, 60, 15}, stand{0, 1, 1}},
			{"settle twice", 3 * sec, settles(1, 1, 25), nil, replayed, stand{25, 60, 15}, stand{0, 1, 1}},
			{"settle otherwise", 3 * sec, settles(1, 2, 26), nil, conflict, stand{25, 60, 15}, stand{0, 1, 1}},
			{"open once more", 3 * sec, opens(1, 7), reserve(40, 10), replayed, stand{25, 60, 15}, stand{0, 1, 1}},
			{"lapse what is settled", 3 * sec, lapses(1), nil, replayed, stand{25, 60, 15}, stand{0, 1, 1}},
			{"settle above", 4 * sec, settles(2, 1, 90), nil, settled, stand{115, 0, -15}, stand{0, 0, 2}},
			{"remembered for a day", minute + sec + store.Retention - 1, settles(2, 1, 90), nil, replayed, stand{0, 0, 100}, stand{0, 0, 2}},
			{"and no longer", minute + sec + store.Retention, settles(2, 1, 90), nil, unknown, stand{0, 0, 100}, stand{0, 0, 2}},
		},
		"lapsed": {
			{"open", 0, opens(1, 7), reserve(40, 10), opened, stand{0, 40, 60}, stand{0, 1, 1}},
			{"nearly due", minute - 1, nil, nil, none, stand{0, 40, 60}, stand{0, 1, 1}},
			{"due", minute, nil, nil, none, stand{10, 0, 90}, stand{0, 0, 2}},
			{"replay", minute, opens(1, 7), reserve(40, 10), replayed, stand{10, 0, 90}, stand{0, 0, 2}},
			{"late settle", 2 * minute, settles(1, 1, 30), nil, corrected, stand{30, 0, 70}, stand{0, 0, 2}},
			{"once", 2 * minute, settles(1, 1, 30), nil, replayed, stand{30, 0, 70}, stand{0, 0, 2}},
		},
		"let go": {
			{"open", 0, opens(1, 7), reserve(40, 10), opened, stand{0, 40, 60}, stand{0, 1, 1}},
			{"the holder is gone", sec, lapses(1), nil, lapsed, stand{10, 0, 90}, stand{0, 0, 2}},
			{"twice", sec, lapses(1), nil, replayed, stand{10, 0, 90}, stand{0, 0, 2}},
			{"it was not", 2 * sec, settles(1, 1, 3), nil, corrected, stand{3, 0, 97}, stand{0, 0, 2}},
			{"nobody's", 2 * sec, lapses(3), nil, unknown, stand{3, 0, 97}, stand{0, 0, 2}},
			{"which leaves no trace", 2 * sec, opens(3, 7), reserve(1, 0), opened, stand{3, 1, 96}, stand{0, 1, 1}},
		},
		"unknown": {
			{"settle", 0, settles(1, 1), used(30), unknown, stand{30, 0, 70}, stand{0, 0, 2}},
			{"twice", sec, settles(1, 1), used(30), replayed, stand{30, 0, 70}, stand{0, 0, 2}},
			{"otherwise", sec, settles(1, 2), used(31), conflict, stand{30, 0, 70}, stand{0, 0, 2}},
			{"too late to open", sec, opens(1, 1), reserve(1, 0), conflict, stand{30, 0, 70}, stand{0, 0, 2}},
			{"known, with a hold", 2 * sec, opens(2, 1), reserve(10, 2), opened, stand{30, 10, 60}, stand{0, 1, 1}},
			{"the settle op comes before the class", 2 * sec, settles(2, 1, 5), used(9), settled, stand{39, 0, 61}, stand{0, 0, 2}},
			{"known, with nothing held", 2 * sec, opens(3, 1), nil, opened, stand{39, 0, 61}, stand{0, 0, 2}},
			{"then the settle op is charged", 2 * sec, settles(3, 1), used(9), settled, stand{48, 0, 52}, stand{0, 0, 2}},
			{"held again", 2 * sec, opens(4, 1), reserve(10, 2), opened, stand{48, 10, 42}, stand{0, 1, 1}},
			{"what nobody knows is as after a lapse", 2 * sec, settles(4, 1, store.Unknown), nil, settled, stand{50, 0, 50}, stand{0, 0, 2}},
		},
		"across windows": {
			{"open", hour - sec, opens(1, 7), reserve(40, 10), opened, stand{0, 40, 60}, stand{0, 1, 1}},
			{"the hold stays in its window, the place is taken", hour, nil, nil, none, stand{0, 0, 100}, stand{0, 1, 1}},
			{"usage of the old window never touches the new", hour, settles(1, 1, 90), nil, settled, stand{0, 0, 100}, stand{0, 0, 2}},
		},
		"renewed": {
			{"open", 0, opens(1, 7), reserve(40, 10), opened, stand{0, 40, 60}, stand{0, 1, 1}},
			{"renew", 50 * sec, renews(1, 5, 9), nil, renewed, stand{0, 40, 60}, stand{0, 1, 1}},
			{"outlives its first due", minute, nil, nil, none, stand{0, 40, 60}, stand{0, 1, 1}},
			{"more was used", 70 * sec, renews(1, 25), nil, renewed, stand{0, 40, 60}, stand{0, 1, 1}},
			{"less changes nothing", 80 * sec, renews(1, 24), nil, renewed, stand{0, 40, 60}, stand{0, 1, 1}},
			{"nor does what nobody knows", 80 * sec, renews(1, store.Unknown, store.Unknown), nil, renewed, stand{0, 40, 60}, stand{0, 1, 1}},
			{"no time is taken from it", 80 * sec, for1µs, nil, renewed, stand{0, 40, 60}, stand{0, 1, 1}},
			{"nearly due", 140*sec - 1, nil, nil, none, stand{0, 40, 60}, stand{0, 1, 1}},
			{"due: what was used stays", 140 * sec, nil, nil, none, stand{25, 0, 75}, stand{0, 0, 2}},
			{"renew what has lapsed", 140 * sec, renews(1, 90), nil, lapsed, stand{25, 0, 75}, stand{0, 0, 2}},
			{"late settle", 150 * sec, settles(1, 1, 30), nil, corrected, stand{30, 0, 70}, stand{0, 0, 2}},
			{"renew what is settled", 150 * sec, renews(1, 90), nil, settled, stand{30, 0, 70}, stand{0, 0, 2}},
			{"remembered from the last due on", 140*sec + store.Retention - 1, settles(1, 1, 30), nil, replayed, stand{0, 0, 100}, stand{0, 0, 2}},
			{"and no longer", 140*sec + store.Retention, renews(1), nil, unknown, stand{0, 0, 100}, stand{0, 0, 2}},
			{"which leaves no trace", 140*sec + store.Retention, opens(1, 8), reserve(1, 0), opened, stand{0, 1, 99}, stand{0, 1, 1}},
		},
		"renewed beyond what it holds": {
			{"open", 0, opens(1, 7), reserve(40, 10), opened, stand{0, 40, 60}, stand{0, 1, 1}},
			{"somebody else", 0, nil, ops(strict("tokens", tokens, 50)), none, stand{50, 40, 10}, stand{0, 1, 1}},
			{"debt at once", sec, renews(1, 70, 70), nil, renewed, stand{50, 70, -20}, stand{0, 1, 1}},
			{"the same again", sec, renews(1, 70, 70), nil, renewed, stand{50, 70, -20}, stand{0, 1, 1}},
			{"less changes nothing", 2 * sec, renews(1, 30), nil, renewed, stand{50, 70, -20}, stand{0, 1, 1}},
			{"and more", 3 * sec, renews(1, 71), nil, renewed, stand{50, 71, -21}, stand{0, 1, 1}},
			{"settled", 4 * sec, settles(1, 1, 45), nil, settled, stand{95, 0, 5}, stand{0, 0, 2}},
			{"open, class by class", 5 * sec, opens(2, 7), reserve(1, 0), opened, stand{95, 1, 4}, stand{0, 1, 1}},
			{"beyond the end of the classes", 5 * sec, renews(2), nil, renewed, stand{95, 1, 4}, stand{0, 1, 1}},
			{"3 were used", 5 * sec, renews(2, 3), nil, renewed, stand{95, 3, 2}, stand{0, 1, 1}},
			{"the holder is gone", 6 * sec, lapses(2), nil, lapsed, stand{98, 0, 2}, stand{0, 0, 2}},
			{"renew what was let go", 6 * sec, renews(2, 4), nil, lapsed, stand{98, 0, 2}, stand{0, 0, 2}},
			{"open", 7 * sec, opens(3, 7), reserve(2, 1), opened, stand{98, 2, 0}, stand{0, 1, 1}},
			{"4 were used", 7 * sec, renews(3, 4), nil, renewed, stand{98, 4, -2}, stand{0, 1, 1}},
			{"what nobody knows is what is known", 8 * sec, settles(3, 1), nil, settled, stand{102, 0, -2}, stand{0, 0, 2}},
			{"nobody's", 8 * sec, renews(4, 1), nil, unknown, stand{102, 0, -2}, stand{0, 0, 2}},
		},
		"renewed beside another": {
			{"open", 0, opens(1, 7), reserve(1, 0), opened, stand{0, 1, 99}, stand{0, 1, 1}},
			{"and another", 0, opens(2, 7), reserve(1, 0), opened, stand{0, 2, 98}, stand{0, 2, 0}},
			{"a place is a place", sec, renews(1, 1, 9), nil, renewed, stand{0, 2, 98}, stand{0, 2, 0}},
			{"and gives one back", 2 * sec, settles(1, 1, 1, 9), nil, settled, stand{1, 1, 98}, stand{0, 1, 1}},
			{"the other is due as ever", minute, nil, nil, none, stand{1, 0, 99}, stand{0, 0, 2}},
		},
		"renewed across windows": {
			{"open", hour - sec, opens(1, 7), reserve(40, 10), opened, stand{0, 40, 60}, stand{0, 1, 1}},
			{"the new window is not touched", hour, renews(1, 60), nil, renewed, stand{0, 0, 100}, stand{0, 1, 1}},
			{"the place lives on", hour + minute - 1, nil, nil, none, stand{0, 0, 100}, stand{0, 1, 1}},
			{"and is free", hour + minute, nil, nil, none, stand{0, 0, 100}, stand{0, 0, 2}},
		},
		"renewed when the clock was ahead": {
			{"open", 0, opens(1, 7), reserve(40, 10), opened, stand{0, 40, 60}, stand{0, 1, 1}},
			{"the holds lapse", minute, nil, nil, none, stand{10, 0, 90}, stand{0, 0, 2}},
			{"and stay so, with what was used", 30 * sec, renews(1, 25), nil, renewed, stand{25, 0, 75}, stand{0, 0, 2}},
			{"less changes nothing", 30 * sec, renews(1, 24), nil, renewed, stand{25, 0, 75}, stand{0, 0, 2}},
			{"the lease lives on", minute, renews(1, 26), nil, renewed, stand{26, 0, 74}, stand{0, 0, 2}},
			{"settled", 80 * sec, settles(1, 1, 3), nil, settled, stand{3, 0, 97}, stand{0, 0, 2}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			clock := NewClock(noon)
			s := open(t, clock)
			for _, l := range lines {
				clock.Set(noon + l.at)
				var out store.Outcome
				err := s.Apply(context.Background(), &store.Step{Ops: l.ops, Lease: l.lease}, &out)
				if got := (outcome{out.Lease, out.Refused, err}); !alike(err, l.became.err) ||
					err == nil && (got.lease != l.became.lease || got.refused != l.became.refused) {
					t.Fatalf("%s: %+v, want %+v", l.what, got, l.became)
				}
				now := apply(t, s, strict("tokens", tokens, 0), strict("places", places, 0), wall()).Results
				for i, want := range []stand{l.tokens, l.places} {
					if got := (stand{now[i].Used, now[i].Held, now[i].Remaining}); got != want {
						t.Errorf("%s: bucket %d stands at %+v, want %+v", l.what, i, got, want)
					}
				}
			}
		})
	}
	t.Run("who waits for a hold", func(t *testing.T) { testEstimate(t, open) })
	t.Run("who waits for one that is renewed", func(t *testing.T) { testRenewedEstimate(t, open) })
	t.Run("a renewal tells how buckets stand", func(t *testing.T) { testRenewedChecks(t, open) })
}

// testNotes walks through what is noted under a lease, and found there.
func testNotes(t *testing.T, open Open) {
	clock := NewClock(noon)
	s := open(t, clock)
	tokens := limit.Spec{Limit: 100, Window: hour}
	looks := &store.Lease{ID: id(1), Do: store.LeaseLook}
	noting := func(l *store.Lease, note string) *store.Lease {
		l.Note = []byte(note)
		return l
	}
	long := strings.Repeat("note\x00\xff", store.MaxNote/6)
	for i, line := range []struct {
		later  limit.Micros
		lease  *store.Lease
		became store.LeaseState
		note   string
	}{
		{0, looks, store.LeaseUnknown, ""},
		{0, noting(opens(1, 7), "a"), store.LeaseOpened, ""},
		{0, looks, store.LeaseOpened, "a"},
		{0, noting(opens(1, 7), "b"), store.LeaseReplayed, "a"},
		{0, noting(opens(2, 7), long), store.LeaseOpened, ""},
		{minute - 1, looks, store.LeaseOpened, "a"},
		{1, looks, store.LeaseLapsed, "a"},
		{0, settles(1, 1, 5), store.LeaseCorrected, "a"},
		{0, looks, store.LeaseSettled, "a"},
		{0, noting(settles(2, 1, 5), "c"), store.LeaseCorrected, long},
		{0, noting(settles(2, 1, 5), "d"), store.LeaseReplayed, "c"},
		{0, opens(2, 7), store.LeaseReplayed, "c"},
		{0, noting(opens(3, 7), "e"), store.LeaseOpened, ""},
		{0, settles(3, 1), store.LeaseSettled, "e"},
		{0, settles(3, 1), store.LeaseReplayed, "e"},
		{0, opens(4, 7), store.LeaseOpened, ""},
		{0, lapses(4), store.LeaseLapsed, ""},
		{0, noting(settles(5, 1), "f"), store.LeaseUnknown, ""},
		{0, settles(5, 1), store.LeaseReplayed, "f"},
		{0, noting(opens(6, 7), "g"), store.LeaseOpened, ""},
		{0, renews(6), store.LeaseRenewed, "g"},
		{0, noting(renews(6), long), store.LeaseRenewed, "g"},
		{0, noting(renews(6), "h"), store.LeaseRenewed, long},
		{minute, noting(renews(6), "i"), store.LeaseLapsed, "h"},
		{0, settles(6, 1), store.LeaseCorrected, "h"},
		{0, noting(renews(6), "i"), store.LeaseSettled, "h"},
		{0, noting(renews(7), "i"), store.LeaseUnknown, ""},
		{0, noting(renews(7), "i"), store.LeaseUnknown, ""},
		{store.Retention - minute - 1, looks, store.LeaseSettled, "a"},
		{1, looks, store.LeaseUnknown, ""},
	} {
		clock.Advance(line.later)
		step := &store.Step{Lease: line.lease}
		if line.lease.Do == store.LeaseOpen {
			step.Ops = ops(holding("tokens", tokens, 1, 0))
		}
		out := applyStep(t, s, step)
		if out.Lease != line.became || string(out.Note) != line.note {
			t.Errorf("line %d: state %d and note %.20q, want %d and %.20q", i, out.Lease, out.Note, line.became, line.note)
		}
	}
}

// testEstimate: where only holds are in the way, the wait is until the first of them lapses, and is
// said to be an estimate.
func testEstimate(t *testing.T, open Open) {
	clock := NewClock(noon)
	s := open(t, clock)
	places := limit.Spec{Algorithm: limit.Concurrency, Limit: 2}
	tokens := limit.Spec{Limit: 100, Window: hour}
	applyStep(t, s, &store.Step{Lease: opens(1, 1), Ops: ops(holding("places", places, 1, 0), holding("tokens", tokens, 30, 0), holding("kept", tokens, 100, 100))})
	clock.Advance(10 * sec)
	applyStep(t, s, &store.Step{Lease: opens(2, 1), Ops: ops(holding("places", places, 1, 0), strict("tokens", tokens, 60))})
	out := apply(t, s, strict("places", places, 1), strict("tokens", tokens, 11), strict("other", tokens, 1), strict("kept", tokens, 1))
	for i, want := range []limit.Status{
		{Refused: true, FitsWithoutHolds: true, Estimated: true, Held: 2, RetryAfter: 50 * sec},
		{Refused: true, FitsWithoutHolds: true, Estimated: true, Used: 60, Held: 30, Remaining: 10,
			RetryAfter: 50 * sec, ResetAfter: hour - 10*sec},
		{Remaining: 100},
		{Refused: true, FitsWithoutHolds: true, Held: 100, RetryAfter: hour - 10*sec, ResetAfter: hour - 10*sec}, // it lapses to all
	} {
		if out.Results[i] != want {
			t.Errorf("result %d:\n got %+v\nwant %+v", i, out.Results[i], want)
		}
	}
	// 41 more do not fit, holds or not: they wait for the window, lapses or not.
	got := apply(t, s, strict("tokens", tokens, 41)).Results[0]
	if want := (limit.Status{Refused: true, Estimated: true, Used: 60, Held: 30, Remaining: 10,
		RetryAfter: hour - 10*sec, ResetAfter: hour - 10*sec}); got != want {
		t.Errorf("41 more:\n got %+v\nwant %+v", got, want)
	}
	clock.Advance(50 * sec)
	if out := apply(t, s, strict("places", places, 1)); out.Refused || out.Results[0].Held != 1 {
		t.Errorf("when the first hold is due: %+v", out)
	}
}

// testRenewedEstimate: of two holds the first to lapse is renewed, so that the other one is.
func testRenewedEstimate(t *testing.T, open Open) {
	clock := NewClock(noon)
	s := open(t, clock)
	places := limit.Spec{Algorithm: limit.Concurrency, Limit: 2}
	for n := range 2 {
		applyStep(t, s, &store.Step{Lease: opens(n, 1), Ops: ops(holding("places", places, 1, 0))})
		clock.Advance(10 * sec)
	}
	waits := func(want limit.Micros) {
		t.Helper()
		if r := apply(t, s, strict("places", places, 1)).Results[0]; r.RetryAfter != want || !r.Estimated {
			t.Errorf("%+v, want an estimate of %d µs", r, want)
		}
	}
	waits(40 * sec)
	applyStep(t, s, &store.Step{Lease: renews(0)})
	waits(50 * sec)
	applyStep(t, s, &store.Step{Lease: renews(1)}) // both are due at once
	waits(60 * sec)
	clock.Advance(minute)
	if r := apply(t, s, strict("places", places, 1)).Results[0]; r.Refused || r.Held != 0 {
		t.Errorf("when both are due: %+v", r)
	}
}

// testRenewedChecks: the checks of a renewing step are judged when the lease is renewed, in both manners, and it is
// renewed whatever they say.
func testRenewedChecks(t *testing.T, open Open) {
	s := open(t, NewClock(noon))
	tokens := limit.Spec{Limit: 100, Window: hour}
	applyStep(t, s, &store.Step{Lease: opens(1, 1), Ops: ops(holding("tokens", tokens, 40, 10), strict("others", tokens, 7))})
	apply(t, s, charge("plain", perMinute(5), 5))
	for _, c := range []struct {
		actual, left int64
		refused      bool
	}{{40, 60, false}, {99, 1, false}, {100, 0, true}, {130, -30, true}, {5, -30, true}} {
		out := applyStep(t, s, &store.Step{Lease: renews(1, c.actual), Ops: ops(
			strict("tokens", tokens, 0), strict("others", tokens, 0), charge("plain", perMinute(5), 0),
		)})
		if out.Lease != store.LeaseRenewed || out.Refused != c.refused {
			t.Errorf("%d used: lease state %d, refused %v, want it renewed, refused %v", c.actual, out.Lease, out.Refused, c.refused)
		}
		first, second, plain := out.Results[0], out.Results[1], out.Results[2]
		if first.Held != 100-c.left || first.Remaining != c.left || first.Refused != c.refused || second.Used != 7 || plain.Used != 5 {
			t.Errorf("%d used: %+v, %+v and %+v, want %d to remain", c.actual, first, second, plain, c.left)
		}
	}
}

// testRenewedOnDisk: the store is closed and made anew after a renewal. The lease is due as renewed, and leaves charged
// what was used by then.
func testRenewedOnDisk(t *testing.T, open, reopen Open) {
	clock := NewClock(noon)
	s := open(t, clock)
	bucket := limit.Spec{Algorithm: limit.TokenBucket, Limit: 60, Burst: 100, Window: hour} // one a minute
	tokens := limit.Spec{Limit: 100, Window: hour}
	again := func() {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = reopen(t, clock)
	}
	stands := func(want ...stand) {
		t.Helper()
		for i, r := range apply(t, s, strict("tokens", tokens, 0), strict("bucket", bucket, 0)).Results {
			if got := (stand{r.Used, r.Held, r.Remaining}); got != want[i] {
				t.Errorf("bucket %d stands at %+v, want %+v", i, got, want[i])
			}
		}
	}
	for n, end := range []func(){
		func() { clock.Advance(minute) },
		func() { applyStep(t, s, &store.Step{Lease: settles(1, 1, 50)}) },
	} {
		clock.Set(noon + limit.Micros(n)*10*hour)
		applyStep(t, s, &store.Step{Lease: opens(n, 1), Ops: ops(holding("tokens", tokens, 40, 10), holding("bucket", bucket, 20, 0))})
		apply(t, s, strict("bucket", bucket, 30))
		again()
		clock.Advance(30 * sec)
		applyStep(t, s, &store.Step{Lease: renews(n, 50)})
		again()
		clock.Advance(30 * sec)
		stands(stand{0, 50, 50}, stand{29, 50, 21})
		again()
		end()
		if n == 0 {
			clock.Advance(-minute / 2)
		}
		stands(stand{50, 0, 50}, stand{79, 0, 21})
	}
}

// testForeseen: a refusal is an estimate only where a hold whose lapse gives something back is due before
// time makes room, and is among those that are foreseen.
func testForeseen(t *testing.T, open Open) {
	bucket := limit.Spec{Algorithm: limit.TokenBucket, Limit: 10, Burst: 10, Window: minute}
	log := limit.Spec{Algorithm: limit.SlidingLog, Limit: 10, Window: minute}
	sliding := limit.Spec{Algorithm: limit.SlidingWindow, Limit: 10, Window: minute}
	for _, c := range []struct {
		name      string
		spec      limit.Spec
		lasts     limit.Micros // the hold of 5
		giveBack  int64        // directly after it
		later     limit.Micros // all the rest is charged, and one more asked for
		estimated bool
	}{
		{"token_bucket: some of it is left", bucket, 30 * sec, 0, 29 * sec, true},
		{"token_bucket: all of it has drained", bucket, 31 * sec, 0, 30 * sec, false},
		{"token_bucket: it was given back", bucket, 10 * sec, 5, 9 * sec, false},
		{"sliding_log: it is in sight", log, 59 * sec, 0, 58 * sec, true},
		{"sliding_log: it is out of sight", log, 61 * sec, 0, 60 * sec, false},
		{"sliding_log: it was given back", log, 10 * sec, 5, 9 * sec, false},
		{"sliding_window: in the window before", sliding, 101 * sec, 0, 100 * sec, true},
		{"sliding_window: out of sight", sliding, 121 * sec, 0, 120 * sec, false},
		{"fixed_window: in its window", perMinute(10), 59 * sec, 0, 58 * sec, true},
		{"fixed_window: in the one before", perMinute(10), 61 * sec, 0, 60 * sec, false},
	} {
		clock := NewClock(noon)
		s := open(t, clock)
		lease := opens(1, 1)
		lease.Lasts = c.lasts
		applyStep(t, s, &store.Step{Lease: lease, Ops: ops(holding("b", c.spec, 5, 0))})
		apply(t, s, of(store.GiveBack, strict("b", c.spec, c.giveBack)))
		clock.Advance(c.later)
		room := apply(t, s, strict("b", c.spec, 0)).Results[0].Remaining
		apply(t, s, strict("b", c.spec, room))
		if r := apply(t, s, strict("b", c.spec, 5)).Results[0]; !r.Refused || r.Estimated != c.estimated {
			t.Errorf("%s: %+v, want estimated %v", c.name, r, c.estimated)
		}
	}
	tokens := limit.Spec{Limit: 1000, Window: hour}
	for _, kept := range []int{store.Foreseen - 1, store.Foreseen} {
		clock := NewClock(noon)
		s := open(t, clock)
		// In the end all but the last lapse to what they hold, and are due sooner, or as soon and made sooner.
		for n := range kept {
			lease := opens(n, 1)
			lease.Lasts -= limit.Micros(n % 2)
			applyStep(t, s, &store.Step{Lease: lease, Ops: ops(holding("b", tokens, 1, 1))})
		}
		applyStep(t, s, &store.Step{Lease: opens(kept, 1), Ops: ops(holding("b", tokens, 1000-int64(kept), 0))})
		want := limit.Status{Refused: true, FitsWithoutHolds: true, Estimated: true, Held: 1000, RetryAfter: minute, ResetAfter: hour}
		if kept == store.Foreseen {
			want.Estimated, want.RetryAfter = false, hour
		}
		if got := apply(t, s, strict("b", tokens, 1)).Results[0]; got != want {
			t.Errorf("%d holds are due before the one that makes room:\n got %+v\nwant %+v", kept, got, want)
		}
	}
}

// testForgotten: a hold lapses also when nobody has looked at its bucket for so long that its lease
// is forgotten. If reopen is not nil, the store is closed and made anew in between.
func testForgotten(t *testing.T, open, reopen Open) {
	clock := NewClock(noon)
	s := open(t, clock)
	yearly := limit.Spec{Algorithm: limit.CalendarWindow, Limit: 10, Calendar: calendar("year;UTC;01-01")}
	applyStep(t, s, &store.Step{Lease: opens(1, 1), Ops: ops(holding("b", yearly, 6, 1))})
	clock.Advance(minute + store.Retention)
	if reopen != nil {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = reopen(t, clock)
	}
	r := apply(t, s, strict("b", yearly, 0)).Results[0]
	if got, want := (stand{r.Used, r.Held, r.Remaining}), (stand{1, 0, 9}); got != want {
		t.Errorf("the bucket stands at %+v, want %+v", got, want)
	}
}

// testManyCalendars: a lease is settled a day late, whose holds lie in periods of many calendars that are over by then, and
// that the step does not name: its holder is in another time zone by now.
func testManyCalendars(t *testing.T, open Open) {
	clock := NewClock(noon)
	s := open(t, clock)
	var held, looked []store.Op
	for _, name := range []string{
		"minute;UTC", "hour;UTC", "day;UTC", "day;Europe/Berlin", "day;Asia/Tokyo", "hour;Asia/Kolkata", "day;America/New_York", "year;UTC;01-01",
	} {
		spec := limit.Spec{Algorithm: limit.CalendarWindow, Limit: 10, Calendar: calendar(name)}
		held, looked = append(held, holding(name, spec, 6, 1)), append(looked, strict(name, spec, 0))
	}
	applyStep(t, s, &store.Step{Lease: opens(1, 1), Ops: held})
	clock.Advance(24 * hour)
	if got := applyStep(t, s, &store.Step{Lease: settles(1, 1, 3)}).Lease; got != store.LeaseCorrected {
		t.Errorf("the lease became %d, want it corrected", got)
	}
	last := len(looked) - 1 // whose period goes on
	for i, r := range applyStep(t, s, &store.Step{Ops: looked}).Results {
		want := stand{0, 0, 10}
		if i == last {
			want = stand{3, 0, 7}
		}
		if got := (stand{r.Used, r.Held, r.Remaining}); got != want {
			t.Errorf("%s: it stands at %+v, want %+v", looked[i].Bucket, got, want)
		}
	}
}
