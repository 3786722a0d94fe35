package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

// events returns all events of a store, whose IDs are in hex and different.
func events(t *testing.T, s store.Store) []store.Event {
	t.Helper()
	list, err := outboxOf(t, s).Events(context.Background(), 0)
	if err != nil {
		t.Fatalf("events: %v", err)
	}
	seen := map[string]bool{}
	for _, e := range list {
		if e.ID == "" || strings.Trim(e.ID, "0123456789abcdef") != "" || seen[e.ID] {
			t.Errorf("the ID of %+v is not in hex, or is there twice", e)
		}
		seen[e.ID] = true
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
