package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

// warns returns op with thresholds. What is told of it has the bucket's name for a label.
func warns(op store.Op, thresholds ...int64) store.Op {
	return with(op, func(o *store.Op) { o.Thresholds, o.Label = thresholds, o.Bucket })
}

// upTo returns so many thresholds.
func upTo(n int64) (list []int64) {
	for i := range n {
		list = append(list, i+1)
	}
	return list
}

// toldBy returns what a store tells of a label, without IDs; each of which it has only once.
func toldBy(t *testing.T, s store.Store, label string) []store.Event {
	t.Helper()
	all, err := outboxOf(t, s).Events(context.Background(), 0)
	if err != nil {
		t.Fatalf("events: %v", err)
	}
	seen := map[string]bool{}
	var list []store.Event
	for _, e := range all {
		if e.ID == "" || e.ID != strings.ToLower(e.ID) || strings.Trim(e.ID, "0123456789abcdef") != "" || seen[e.ID] {
			t.Errorf("the ID of %+v is not in hex, or is there twice", e)
		}
		seen[e.ID] = true
		if string(e.Label) == label {
			e.ID = ""
			list = append(list, e)
		}
	}
	return list
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
	clock.Set(noon + 10*sec) // in what is a new minute to them
	apply(t, s, all...)
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

// events returns all events of a store.
func events(t *testing.T, s store.Store) []store.Event {
	t.Helper()
	list, err := outboxOf(t, s).Events(context.Background(), 0)
	if err != nil {
		t.Fatalf("events: %v", err)
	}
	ids := map[string]bool{}
	for _, e := range list {
		ids[e.ID] = true
	}
	if len(ids) < len(list) {
		t.Errorf("two events have one ID: %+v", list)
	}
	return list
}

func undelivered(t *testing.T, s store.Store) []store.Event {
	t.Helper()
	list, err := outboxOf(t, s).Undelivered(context.Background())
	if err != nil {
		t.Fatalf("undelivered events: %v", err)
	}
	return list
}

func deliver(t *testing.T, s store.Store, list []store.Event) {
	t.Helper()
	if err := outboxOf(t, s).Delivered(context.Background(), list); err != nil {
		t.Fatalf("delivered: %v", err)
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

// testDelivered: what was delivered is told of to those who ask for all, and is not to be delivered again.
func testDelivered(t *testing.T, open Open) {
	clock := NewClock(noon)
	s := open(t, clock)
	if got := undelivered(t, s); len(got) != 0 {
		t.Errorf("nothing has happened, and it tells of %+v", got)
	}
	for i := range 3 {
		clock.Advance(1)
		apply(t, s, warns(strict(fmt.Sprint("b", i), perMinute(10), 10), 5))
	}
	all := events(t, s)
	if got := undelivered(t, s); len(all) != 3 || !slices.EqualFunc(got, all, eventsEqual) {
		t.Fatalf("not delivered are %+v, want %+v", got, all)
	}
	deliver(t, s, all[1:2])
	deliver(t, s, nil)
	deliver(t, s, []store.Event{all[1], {ID: "unknown"}, {}, {ID: strings.Repeat("0", len(all[0].ID))}})
	if got, want := undelivered(t, s), []store.Event{all[0], all[2]}; !slices.EqualFunc(got, want, eventsEqual) {
		t.Errorf("not delivered are %+v, want %+v", got, want)
	}
	deliver(t, s, []store.Event{{ID: all[2].ID}, {ID: all[0].ID}}) // the ID is enough
	if got := undelivered(t, s); len(got) != 0 {
		t.Errorf("all are delivered but %+v", got)
	}
	if got := events(t, s); !slices.EqualFunc(got, all, eventsEqual) {
		t.Errorf("when all are delivered:\n got %+v\nwant %+v", got, all)
	}
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	_, ofAll := outboxOf(t, s).Events(cancelled, 0)
	_, ofUndelivered := outboxOf(t, s).Undelivered(cancelled)
	for name, err := range map[string]error{
		"events": ofAll, "undelivered": ofUndelivered, "delivered": outboxOf(t, s).Delivered(cancelled, all),
	} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s with a cancelled context: %v, want %v", name, err, context.Canceled)
		}
	}
}

// testDeliver: one of many delivers, until it leaves that to others, or is not heard of any more.
func testDeliver(t *testing.T, open Open) {
	clock := NewClock(noon)
	s := outboxOf(t, open(t, clock))
	anna, bert := [16]byte{1}, [16]byte{0, 1}
	for i, line := range []struct {
		after limit.Micros // the line before
		who   [16]byte
		lasts limit.Micros
		is    bool
	}{
		{0, anna, 10 * sec, true},
		{0, bert, 10 * sec, false},
		{9 * sec, anna, 10 * sec, true}, // and 10 s from now
		{9 * sec, bert, 10 * sec, false},
		{1 * sec, bert, 10 * sec, true}, // nothing was heard of anna
		{0, anna, 10 * sec, false},
		{1 * sec, bert, 5 * sec, true}, // less than before
		{5 * sec, anna, 10 * sec, true},
	} {
		clock.Advance(line.after)
		if is, err := s.Deliver(context.Background(), line.who, line.lasts); err != nil || is != line.is {
			t.Fatalf("line %d: %v is the one: %v, %v, want %v", i, line.who, is, err, line.is)
		}
	}
	leave := func(who [16]byte) {
		t.Helper()
		if _, err := s.Deliver(context.Background(), who, 0); err != nil {
			t.Fatal(err)
		}
	}
	asks := func(who [16]byte, want bool) {
		t.Helper()
		if is, err := s.Deliver(context.Background(), who, minute); err != nil || is != want {
			t.Fatalf("%v is the one: %v, %v, want %v", who, is, err, want)
		}
	}
	leave(bert) // who is not the one
	asks(bert, false)
	leave(anna)
	asks(bert, true)
	asks(anna, false)
	leave(bert)
	leave(bert)
	asks(anna, true)
}

// testNotices: whoever waits for events is told that there may be some.
func testNotices(t *testing.T, open Open) {
	s := open(t, NewClock(noon))
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	gone, leave := context.WithCancel(ctx)
	first, second := outboxOf(t, s).Notices(ctx), outboxOf(t, s).Notices(ctx)
	left := outboxOf(t, s).Notices(gone)
	leave()
	// A notice may be lost, so there is an event for each try.
	for n, notices := range []<-chan struct{}{first, second} {
		patience := time.NewTimer(20 * time.Second)
		defer patience.Stop()
		again := time.NewTicker(10 * time.Millisecond)
		defer again.Stop()
		tries := 0
		for noticed := false; !noticed; {
			apply(t, s, warns(strict(fmt.Sprint("b", n, " ", tries), perMinute(10), 10), 5))
			tries++
			select {
			case _, noticed = <-notices:
				if !noticed {
					t.Fatal("the channel is closed")
				}
			case <-again.C:
			case <-patience.C:
				t.Fatalf("no notice of %d events", tries)
			}
		}
	}
	select {
	case _, open := <-left:
		if !open {
			t.Error("the channel of one who has left is closed")
		}
	default:
	}
}

// testKeptEvents: events are kept for a while, and of many the newest.
func testKeptEvents(t *testing.T, open Open) {
	t.Run("for a week", func(t *testing.T) {
		clock := NewClock(noon)
		s := open(t, clock)
		op := warns(strict("b", perMinute(10), 10), 5)
		apply(t, s, op)
		clock.Advance(store.KeptEvents - sec)
		apply(t, s, op)
		if got := events(t, s); len(got) != 2 {
			t.Errorf("within a week: %+v, want two", got)
		}
		clock.Advance(2 * sec)
		apply(t, s, op)
		if got := events(t, s); len(got) != 2 || got[0].At == noon {
			t.Errorf("after a week: %+v, want the last two", got)
		}
		if got := undelivered(t, s); len(got) != 2 || got[0].At == noon {
			t.Errorf("not delivered after a week: %+v, want the last two", got)
		}
	})
	t.Run("the newest", func(t *testing.T) {
		clock := NewClock(noon)
		s := open(t, clock)
		var steps []limit.Micros
		for len(steps) <= 2*store.MostEvents/store.MaxThresholds {
			clock.Advance(sec)
			op := warns(strict(fmt.Sprint("b", len(steps)), perMinute(100), 50), upTo(store.MaxThresholds)...)
			op.Owner = []byte("team")
			steps = append(steps, apply(t, s, op).Now)
		}
		got := events(t, s)
		if n := len(got); n < store.MostEvents || n >= 2*store.MostEvents {
			t.Fatalf("%d events are kept, want %d and less than twice as many", n, store.MostEvents)
		}
		newest := got[len(got)-store.MostEvents:]
		for i, e := range newest {
			want := steps[len(steps)-1-(store.MostEvents-1-i)/store.MaxThresholds]
			if e.At != want {
				t.Fatalf("of the newest, event %d is of %d, want %d", i, e.At, want)
			}
		}
		if got := undelivered(t, s); len(got) < store.MostEvents || len(got) >= 2*store.MostEvents {
			t.Errorf("%d events are not delivered", len(got))
		}
	})
}
