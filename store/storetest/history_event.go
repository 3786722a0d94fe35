package storetest

import (
	"bytes"
	"context"
	"slices"

	"pgregory.net/rapid"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

// ids are those that a store has given to the events of the model, and which of them are delivered. The zero value is
// ready to use.
type ids struct {
	of        map[eventName]string
	delivered map[string]bool
}

// eventName is the identity of an event.
type eventName struct {
	bucket    bucketName
	start     limit.Micros
	threshold int64
}

func (e crossing) name() eventName { return eventName{e.bucket, e.Start, e.Threshold} }

// learn notes the ID of each event, and insists that it is the one that the event had before, and no other's.
func (w *twin) learn(got []store.Event) {
	w.t.Helper()
	if w.ids.of == nil {
		w.ids = ids{of: map[eventName]string{}, delivered: map[string]bool{}}
	}
	whose := map[string]eventName{}
	for name, id := range w.ids.of {
		whose[id] = name
	}
	for _, e := range got {
		i := slices.IndexFunc(w.model.events, func(c crossing) bool { return sameEvent(c.Event, e) })
		if i < 0 {
			w.t.Fatalf("at %d the store tells of %+v, and the model of\n%+v", w.clock.Now(), e, w.model.events)
		}
		name := w.model.events[i].name()
		if before, known := w.ids.of[name]; known && before != e.ID {
			w.t.Fatalf("the ID of %+v was %q before", e, before)
		}
		if other, known := whose[e.ID]; known && other != name {
			w.t.Fatalf("%+v has the ID of %+v", e, other)
		}
		w.ids.of[name], whose[e.ID] = e.ID, name
	}
}

// sameEvent says that two events are the same but for their IDs. Their labels say whose they are.
func sameEvent(a, b store.Event) bool {
	sameLabel := bytes.Equal(a.Label, b.Label)
	a.ID, b.ID, a.Label, b.Label = "", "", nil, nil
	return sameLabel && eventsEqual(a, b)
}

func eventsEqual(a, b store.Event) bool {
	return a.ID == b.ID && a.At == b.At && a.Which == b.Which && a.Threshold == b.Threshold && a.Used == b.Used &&
		a.Limit == b.Limit && a.Start == b.Start && a.End == b.End && bytes.Equal(a.Label, b.Label)
}

// events asks the store for all events, for some, and for those that are not delivered, and insists that the model
// tells of the same. What is old a store may have dropped, or not.
func (w *twin) events() {
	w.t.Helper()
	out := outboxOf(w.t, w.store)
	all, err := out.Events(context.Background(), 0)
	if err != nil {
		w.t.Fatalf("events: %v", err)
	}
	w.learn(all)
	idOf := func(e crossing) string { return w.ids.of[e.name()] }
	kept := &Model{}
	for _, e := range w.model.events {
		there := slices.ContainsFunc(all, func(o store.Event) bool { return o.ID == idOf(e) })
		if there || e.At > w.latest-store.KeptEvents {
			kept.events = append(kept.events, e)
		}
	}
	w.sameEvents("all", all, kept.since(0, idOf))
	if len(all) > 0 {
		for _, since := range []limit.Micros{all[len(all)/2].At, all[len(all)/2].At + 1} {
			some, err := out.Events(context.Background(), since)
			if err != nil {
				w.t.Fatalf("events since %d: %v", since, err)
			}
			w.sameEvents("some", some, kept.since(since, idOf))
		}
	}
	undelivered, err := out.Undelivered(context.Background())
	if err != nil {
		w.t.Fatalf("undelivered events: %v", err)
	}
	want := slices.DeleteFunc(kept.since(0, idOf), func(e store.Event) bool { return w.ids.delivered[e.ID] })
	w.sameEvents("undelivered", undelivered, want)
}

func (w *twin) sameEvents(which string, got, want []store.Event) {
	w.t.Helper()
	if !slices.EqualFunc(got, want, eventsEqual) {
		w.t.Fatalf("at %d, %s events:\n got %+v\nwant %+v", w.clock.Now(), which, got, want)
	}
}

// deliver compares the events, and says of some that they are delivered; perhaps of some again.
func (w *twin) deliver(r *rapid.T) {
	w.t.Helper()
	w.events()
	all, err := outboxOf(w.t, w.store).Events(context.Background(), 0)
	if err != nil {
		w.t.Fatalf("events: %v", err)
	}
	delivered := slices.DeleteFunc(all, func(store.Event) bool { return rapid.Bool().Draw(r, "stays") })
	if err := outboxOf(w.t, w.store).Delivered(context.Background(), delivered); err != nil {
		w.t.Fatalf("delivered: %v", err)
	}
	for _, e := range delivered {
		w.ids.delivered[e.ID] = true
	}
}

// outboxOf returns the events of a store, of which every one keeps some.
func outboxOf(t reporter, s store.Store) store.Outbox {
	t.Helper()
	out, ok := s.(store.Outbox)
	if !ok {
		t.Fatalf("%T is no store.Outbox", s)
	}
	return out
}
