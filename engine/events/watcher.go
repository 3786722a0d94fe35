package events

import (
	"context"
	"errors"
)

// The ends of a watcher.
var (
	// ErrTooSlow ends a watcher that does not take its events as fast as they come. Those before were all told.
	ErrTooSlow = errors.New("events come faster than they are taken: watch again, after the last that was seen")
	// ErrClosed ends all watchers when the process does.
	ErrClosed = errors.New("nothing more is told: the process ends")
	// ErrCrowded says that there are as many watchers as there may be.
	ErrCrowded = errors.New("too many are watching already: try again later")
)

// Want is what a watcher wants to hear of.
type Want struct {
	// Kinds that are wanted.
	Kinds []Kind
	// Takes says whether an event is wanted; nil: all are. It is called by others, and must not block.
	Takes func(*Event) bool
	// After is the ID of an event: those that are kept from then on come first. Empty: only new ones come.
	After string
}

// Watcher hears events. It is for one goroutine, which has to Close it.
type Watcher struct {
	hub   *Hub
	want  Want
	kinds map[Kind]bool
	kept  []Event
	told  map[string]bool // of kept: they may come once more
	next  chan *Event
	why   error // why next was closed: set before
	from  position
}

// Position returns the ID from which on a watcher hears what this one has not heard, if it hears nothing at all.
func (w *Watcher) Position() string { return w.from.String() }

// Next returns the next event, as soon as there is one; or why there will be none: ErrTooSlow, ErrClosed, or that of ctx.
func (w *Watcher) Next(ctx context.Context) (*Event, error) {
	if len(w.kept) > 0 {
		e := &w.kept[0]
		w.kept = w.kept[1:]
		return e, nil
	}
	for {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case e, ok := <-w.next:
			switch {
			case !ok:
				return nil, w.why
			case w.told[e.ID]:
			default:
				return e, nil
			}
		}
	}
}

// Close ends the watcher.
func (w *Watcher) Close() {
	w.hub.mu.Lock()
	defer w.hub.mu.Unlock()
	w.hub.remove(w, ErrClosed)
}

func (w *Watcher) takes(e *Event) bool {
	return w.kinds[e.Kind] && (w.want.Takes == nil || w.want.Takes(e))
}
