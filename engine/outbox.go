package engine

import (
	"context"

	"github.com/rationhq/ration/engine/events"
	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

// Outbox has the events of thresholds, as the store keeps them: also for those who deliver each at least once.
type Outbox struct{ store store.Outbox }

// Undelivered is an event that nobody has delivered yet.
type Undelivered struct {
	events.Event
	kept store.Event
}

// Outbox returns the events of thresholds; nil where the store keeps none.
func (e *Engine) Outbox() *Outbox {
	if s, ok := e.store.(store.Outbox); ok {
		return &Outbox{s}
	}
	return nil
}

// Events implements events.Source.
func (o *Outbox) Events(ctx context.Context, since limit.Micros) ([]events.Event, error) {
	kept, err := o.store.Events(ctx, since)
	if err != nil {
		return nil, err
	}
	all := make([]events.Event, 0, len(kept))
	for i := range kept {
		all = append(all, thresholdEvent(&kept[i]))
	}
	return all, nil
}

// Notices implements events.Source.
func (o *Outbox) Notices(ctx context.Context) <-chan struct{} { return o.store.Notices(ctx) }

// Undelivered returns the events of which nobody has said that they are delivered, the oldest first.
func (o *Outbox) Undelivered(ctx context.Context) ([]Undelivered, error) {
	kept, err := o.store.Undelivered(ctx)
	if err != nil {
		return nil, err
	}
	all := make([]Undelivered, 0, len(kept))
	for i := range kept {
		all = append(all, Undelivered{thresholdEvent(&kept[i]), kept[i]})
	}
	return all, nil
}

// Delivered says that events are delivered.
func (o *Outbox) Delivered(ctx context.Context, delivered ...Undelivered) error {
	all := make([]store.Event, 0, len(delivered))
	for i := range delivered {
		all = append(all, delivered[i].kept)
	}
	return o.store.Delivered(ctx, all)
}

// Deliver says whether the process that calls itself who is the one to deliver, for so long: store.Outbox.Deliver.
func (o *Outbox) Deliver(ctx context.Context, who [16]byte, lasts limit.Micros) (bool, error) {
	return o.store.Deliver(ctx, who, lasts)
}
