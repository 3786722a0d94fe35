package storetest

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

// toldBy returns what a store tells of a label, without IDs.
func toldBy(t *testing.T, s store.Store, label string) []store.Event {
	t.Helper()
	all := slices.DeleteFunc(events(t, s), func(e store.Event) bool { return string(e.Label) != label })
	for i := range all {
		all[i].ID = ""
	}
	return all
}

// thresholdsOf returns the thresholds that events are of.
func thresholdsOf(events []store.Event) (list []int64) {
	for _, e := range events {
		list = append(list, e.Threshold)
	}
	return list
}

// testThresholds walks through what is told of one bucket, behind each step.
func testThresholds(t *testing.T, open Open) {
	type line struct {
		after limit.Micros // the line before
		do    string
		step  *store.Step
		tells []int64 // what is new
	}
	ten := perMinute(10)
	at := func(op store.Op) store.Op { return warns(op, 5, 8, 10) }
	step := func(ops ...store.Op) *store.Step { return &store.Step{Ops: ops} }
	leased := func(l *store.Lease, ops ...store.Op) *store.Step { return &store.Step{Lease: l, Ops: ops} }
	b := strict("b", ten, 1)
	amount := func(n int64) store.Op { return with(b, func(o *store.Op) { o.Amount = n }) }
	check := at(amount(0))
	shortly := opens(1, 1)
	shortly.Lasts = 30 * sec
	for _, walk := range []struct {
		name  string
		lines []line
	}{
		{"each that is reached, once", []line{
			{sec, "charge 4 of 10", step(at(amount(4))), nil},
			{sec, "one more", step(at(amount(1))), []int64{5}},
			{sec, "look", step(check), nil},
			{sec, "charge the rest", step(at(amount(5))), []int64{8, 10}},
			{sec, "look", step(check), nil},
		}},
		{"in a minute, and in the next", []line{
			{sec, "charge 8", step(at(amount(8))), []int64{5, 8}},
			{minute, "look", step(check), nil},
			{sec, "charge 8", step(at(amount(8))), []int64{5, 8}},
		}},
		{"not again when something was given back", []line{
			{sec, "charge 8", step(at(amount(8))), []int64{5, 8}},
			{sec, "give back 6", step(at(of(store.GiveBack, amount(6)))), nil},
			{sec, "charge 6", step(at(amount(6))), nil},
			{sec, "charge 2", step(at(amount(2))), []int64{10}},
		}},
		{"what is held is not used", []line{
			{sec, "hold 9", leased(opens(1, 1), at(holding("b", ten, 9, 0))), nil},
			{sec, "settle 5 of them", leased(settles(1, 1), at(of(store.Settle, amount(5)))), []int64{5}},
		}},
		{"beyond the limit", []line{
			{sec, "record 25", step(at(of(store.Record, amount(25)))), []int64{5, 8, 10}},
		}},
		{"behind a lapse, when somebody looks", []line{
			{0, "hold 9, of which 8 stay", leased(shortly, at(holding("b", ten, 9, 8))), nil},
			{30*sec - 1, "look", step(check), nil},
			{1, "look", step(check), []int64{5, 8}},
		}},
		{"behind a lapse that the step makes", []line{
			{sec, "hold 9, of which 8 stay", leased(opens(1, 1), at(holding("b", ten, 9, 8))), nil},
			{sec, "lapse", leased(lapses(1), check), []int64{5, 8}},
		}},
		{"behind what others did", []line{
			{sec, "charge 8, of no thresholds", step(amount(8)), nil},
			{sec, "look", step(check), []int64{5, 8}},
			{sec, "look at 6 and 7, which are passed", step(warns(amount(0), 6, 7)), nil}, // that is known from the look before
		}},
		{"also when the step is refused", []line{
			{sec, "charge 8, of no thresholds", step(amount(8)), nil},
			{sec, "charge 3", step(at(amount(3))), []int64{5, 8}},
			{sec, "charge 3, and count it", step(countsRefusals(at(amount(3)))), []int64{10}},
		}},
		{"also when the caller has refused", []line{
			{sec, "charge 8, of no thresholds", step(amount(8)), nil},
			{sec, "look", &store.Step{Refused: true, Ops: ops(check)}, []int64{5, 8}},
		}},
		{"also when the step is a repeat", []line{
			{sec, "hold 3", leased(opens(1, 1), holding("b", ten, 3, 0)), nil},
			{sec, "settle 5 of them", leased(settles(1, 1, 5)), nil}, // says nothing of the bucket
			{sec, "again", leased(settles(1, 1, 5), at(of(store.Settle, amount(0)))), []int64{5}},
			{sec, "again", leased(settles(1, 1, 5), at(of(store.Settle, amount(0)))), nil},
		}},
		{"also when a lease is only looked at", []line{
			{sec, "charge 8, of no thresholds", step(amount(8)), nil},
			{sec, "look", leased(&store.Lease{ID: id(1), Do: store.LeaseLook}, check), []int64{5, 8}},
		}},
		{"and when one is renewed", []line{
			{sec, "hold 1", leased(opens(1, 1), at(holding("b", ten, 1, 0))), nil},
			{sec, "charge 8, of no thresholds", step(amount(8)), nil},
			{sec, "renew", leased(renews(1, 6), check), []int64{5, 8}},
			{sec, "settle 6", leased(settles(1, 1, 6), check), []int64{10}},
		}},
		{"behind all ops", []line{
			{sec, "look, and charge 8", step(check, amount(8)), []int64{5, 8}},
			{sec, "charge 2, and give them back", step(at(amount(2)), of(store.GiveBack, amount(2))), nil},
		}},
		{"a limit that was raised", []line{
			{sec, "charge 9", step(at(amount(9))), []int64{5, 8}},
			{sec, "look: it is 20 now", step(warns(strict("b", perMinute(20), 0), 10, 16, 20)), nil},
			{sec, "charge 7", step(warns(strict("b", perMinute(20), 7), 10, 16, 20)), []int64{10, 16}},
			{sec, "charge 1: it is 10 again", step(at(of(store.Record, amount(1)))), nil},
		}},
		{"of a tier whose thresholds are others", []line{
			{sec, "charge 8", step(at(amount(8))), []int64{5, 8}},
			{sec, "look at 6 and 7, which are passed", step(warns(amount(0), 6, 7, 9)), nil},
			{sec, "charge 1", step(warns(amount(1), 6, 7, 9)), []int64{9}},
		}},
		{"of two tiers at once", []line{
			{sec, "charge 8, and look", step(warns(amount(8), 3, 7), warns(amount(0), 2, 7, 8)), []int64{3, 7, 8}},
		}},
		{"the first, and the highest there may be", []line{
			{sec, "charge 1", step(warns(amount(1), 1, limit.MaxAmount-1)), []int64{1}},
			{sec, "record the most", step(warns(of(store.Record, amount(limit.MaxAmount)), 1, limit.MaxAmount-1)), []int64{limit.MaxAmount - 1}},
			{sec, "once more", step(warns(of(store.Record, amount(limit.MaxAmount)), 1, limit.MaxAmount-1)), nil},
		}},
	} {
		t.Run(walk.name, func(t *testing.T) {
			clock := NewClock(noon)
			s := open(t, clock)
			var before []int64
			for _, l := range walk.lines {
				clock.Advance(l.after)
				applyStep(t, s, l.step)
				now := thresholdsOf(toldBy(t, s, "b"))
				added := slices.Clone(now[min(len(before), len(now)):])
				slices.Sort(added)
				if !slices.Equal(added, l.tells) {
					t.Fatalf("%s: it tells of %d, want %d", l.do, added, l.tells)
				}
				before = now
			}
		})
	}
}

// testEvent walks through what an event says.
func testEvent(t *testing.T, open Open) {
	utc := limit.Spec{Algorithm: limit.CalendarWindow, Limit: 10, Calendar: calendar("day;UTC")}
	berlin := limit.Spec{Algorithm: limit.CalendarWindow, Limit: 10, Calendar: calendar("day;Europe/Berlin")}
	for _, c := range []struct {
		name       string
		spec       limit.Spec
		start, end limit.Micros // since noon
	}{
		{"fixed_window", limit.Spec{Limit: 10, Window: minute}, 0, minute},
		{"fixed_window of first use", limit.Spec{Limit: 10, Window: minute, FirstUse: true}, 10 * sec, 70 * sec},
		{"calendar", utc, -12 * hour, 12 * hour},
		{"calendar of a zone", berlin, -13 * hour, 11 * hour},
	} {
		t.Run(c.name, func(t *testing.T) {
			clock := NewClock(noon + 10*sec)
			s := open(t, clock)
			apply(t, s, warns(strict("b", c.spec, 3), 5, 8))
			clock.Advance(10 * sec)
			lease := opens(1, 1)
			applyStep(t, s, &store.Step{Lease: lease, Ops: ops(warns(holding("b", c.spec, 2, 0), 5, 8))})
			clock.Advance(10 * sec)
			headroom := warns(of(store.Record, strict("b", c.spec, 4)), 6, 7)
			headroom.Spec.Headroom, headroom.Label = 3, []byte("\x00\xff any bytes \n")
			out := apply(t, s, headroom)
			want := store.Event{
				At: out.Now, Which: 0, Threshold: 6, Used: 7, Limit: 10, Start: noon + c.start, End: noon + c.end, Label: headroom.Label,
			}
			also := want
			also.Which, also.Threshold = 1, 7
			got := toldBy(t, s, string(headroom.Label))
			slices.SortFunc(got, func(a, b store.Event) int { return a.Which - b.Which })
			if out.Now != noon+30*sec || !slices.EqualFunc(got, []store.Event{want, also}, eventsEqual) {
				t.Errorf("at %d:\n got %+v\nwant %+v\n and %+v", out.Now, got, want, also)
			}
		})
	}
}

// testEventIDs: different buckets, periods and thresholds have events of different IDs, and a period that comes
// again when the clock has stepped back has those that it had.
func testEventIDs(t *testing.T, open Open) {
	clock := NewClock(noon)
	s := open(t, clock)
	owned := func(owner, bucket string) store.Op {
		return warns(with(strict(bucket, perMinute(10), 10), func(o *store.Op) { o.Owner = []byte(owner) }), 5, 8)
	}
	// The names of owner and bucket together are the same.
	all := []store.Op{owned("", "abc"), owned("a", "bc"), owned("ab", "c"), owned("b", "c"), owned("", "c"), owned("\x01", "abc")}
	apply(t, s, all...)
	if got := events(t, s); len(got) != 2*len(all) {
		t.Errorf("%d IDs of %d buckets with two thresholds: %+v", len(got), len(all), got)
	}

	before := events(t, s)
	deliver(t, s, before[:5])
	clock.Set(noon - 2*hour) // the buckets go along, and what was told of them is
	apply(t, s, all...)
	clock.Set(noon + 10*sec) // in what is a new minute to them, one after the other
	for i := range all {
		apply(t, s, all[i], all[(i+1)%len(all)])
	}
	if got := events(t, s); !slices.EqualFunc(got, before, eventsEqual) {
		t.Errorf("in the same minute again:\n got %+v\nwant %+v", got, before)
	}
	if got := undelivered(t, s); len(got) != len(before)-5 {
		t.Errorf("%d of %d are not delivered, want all but 5", len(got), len(before))
	}

	clock.Advance(minute)
	apply(t, s, all...)
	if got := events(t, s); len(got) != 4*len(all) || !slices.EqualFunc(got[:len(before)], before, eventsEqual) {
		t.Errorf("in the next minute:\n got %+v\nwant %d, and first\n%+v", got, 4*len(all), before)
	}
}

// testUntold: a step that ends in an error tells of nothing.
func testUntold(t *testing.T, open Open) {
	s := open(t, NewClock(noon))
	op := strict("b", perMinute(10), 8)
	applyStep(t, s, &store.Step{Lease: opens(1, 1), Ops: ops(op)})
	var out store.Outcome
	op.Amount = 0
	err := s.Apply(context.Background(), &store.Step{Lease: opens(1, 2), Ops: ops(warns(op, 5))}, &out)
	if !errors.Is(err, store.ErrConflict) {
		t.Errorf("the lease of another request: %v, want %v", err, store.ErrConflict)
	}
	if got := events(t, s); len(got) > 0 {
		t.Errorf("a conflict tells of %+v", got)
	}
	apply(t, s, warns(op, 5))
	if got := thresholdsOf(events(t, s)); !slices.Equal(got, []int64{5}) {
		t.Errorf("the next step tells of %d, want 5", got)
	}
}

// testManyCross lets 1,000 callers use a budget at once: what they cross together is told of once.
func testManyCross(t *testing.T, open Open) {
	const callers = 1000
	budget := limit.Spec{Algorithm: limit.CalendarWindow, Limit: 5 * callers, Calendar: calendar("month;Europe/Berlin;1")}
	op := func(bucket string, amount int64) store.Op {
		return with(warns(strict(bucket, budget, amount), 4*callers, 5*callers), func(o *store.Op) { o.Owner = []byte("team") })
	}
	for name, use := range map[string]func(s store.Store, n int) error{
		"settles": func(s store.Store, n int) error {
			var out store.Outcome
			held := with(op("settles", 3), func(o *store.Op) { o.Kind = store.Hold })
			err := s.Apply(context.Background(), &store.Step{Lease: opens(n, 1), Ops: ops(held)}, &out)
			settled := of(store.Settle, op("settles", 5))
			return errors.Join(err, s.Apply(context.Background(), &store.Step{Lease: settles(n, 1), Ops: ops(settled)}, &out))
		},
		"charges": func(s store.Store, _ int) error {
			var out store.Outcome
			return s.Apply(context.Background(), &store.Step{Ops: ops(op("charges", 5))}, &out)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, NewClock(noon))
			var all sync.WaitGroup
			for n := range callers {
				all.Go(func() {
					if err := use(s, n); err != nil {
						t.Errorf("caller %d: %v", n, err)
					}
				})
			}
			all.Wait()
			got := events(t, s)
			slices.SortFunc(got, func(a, b store.Event) int { return a.Which - b.Which })
			if at := thresholdsOf(got); !slices.Equal(at, []int64{4 * callers, 5 * callers}) {
				t.Fatalf("%d settle 5 each: it tells of %+v, want 80 %% and 100 %%, each once", callers, got)
			}
			for i, used := range []int64{4 * callers, 5 * callers} {
				if got[i].Used != used {
					t.Errorf("at %d: %d were used, want %d", got[i].Threshold, got[i].Used, used)
				}
			}
		})
	}
}
