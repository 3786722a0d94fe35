package store

import (
	"context"
	"fmt"

	"github.com/rationhq/ration/limit"
)

// Event says that what is used of a bucket has reached one of the thresholds of an op ([Op.Thresholds]).
//
// It is looked for behind every step that names the bucket with thresholds, whatever the step does and whatever the
// verdict, also when it is a repeat: what a hold has left charged when it lapsed is told of then. Used is what counts, not
// what is held. The ops of a step are looked at in their order, all behind the last. A step that ends in an error tells
// of nothing.
//
// The event is written in the same instant as the step, and there is one for each bucket, period and threshold: not again
// when something was given back and is used again; again in the next period; and when a limit was raised, whose
// thresholds are others then ([limit.Spec.Crossed]). Where a clock that has stepped back brings a period again, the
// event that is kept of it already stays as it is, delivered or not, and there is no other.
type Event struct {
	// ID is the same however often the event is read, and no other event has it: a hash of the bucket and its owner,
	// of Start and of Threshold, in hex.
	ID string
	// At is when the step was decided ([Outcome.Now]).
	At limit.Micros
	// Which of [Op.Thresholds] it is, and how much that is.
	Which     int
	Threshold int64
	// Used is how much was used directly after the step ([limit.Status]), at least Threshold, and Limit is the Limit of
	// the op's Spec.
	Used, Limit int64
	// Start and End are those of the period, or window.
	Start, End limit.Micros
	// Label is [Op.Label].
	Label []byte
}

const (
	// MaxThresholds is how many thresholds an op has at most.
	MaxThresholds = 16
	// MaxLabel is the longest label of an op, in bytes.
	MaxLabel = 4 << 10
	// KeptEvents is how long events are kept, delivered or not, unless there are more than [MostEvents]: then the oldest
	// are dropped before. One that is older is gone at the latest when its bucket has another.
	KeptEvents = 7 * day
	// MostEvents is how many of the newest events are kept at least: in a Redis Cluster in each shard, else in all.
	// There are never twice as many.
	MostEvents = 10_000
)

// Outbox is a [Store] that keeps the events of its steps, so that they can be read again, and each can be delivered at
// least once: also after the process has died that was about to.
type Outbox interface {
	// Events returns those that are kept and whose At is since or later, in the order of At and then of ID.
	Events(ctx context.Context, since limit.Micros) ([]Event, error)

	// Undelivered returns those that are kept and of which nobody has said that they are delivered, in the same order.
	Undelivered(ctx context.Context) ([]Event, error)

	// Delivered says that events are delivered, of which it reads the IDs only. Those that are unknown, or were
	// delivered before, are passed over. When it has returned, that is kept as well as the events are.
	Delivered(ctx context.Context, events []Event) error

	// Deliver says whether the process that calls itself who is the one to deliver, for so long from now on: it is if
	// nobody else is, or if it is already. So that of many processes with one store one does. To be the one for 0 is
	// to leave it to others; whoever is not the one changes nothing by that. Nobody is the one when the store is
	// opened from a directory.
	Deliver(ctx context.Context, who [16]byte, lasts limit.Micros) (bool, error)

	// Notices returns a channel on which something comes, soon after, when there may be new events; for each such
	// caller a channel of its own, until ctx is done. It is a hint: a notice may be lost, or come for nothing, and
	// many events may have one. The channel is never closed.
	Notices(ctx context.Context) <-chan struct{}
}

func (o *Op) validateThresholds() error {
	period := o.Spec.Algorithm == limit.FixedWindow || o.Spec.Algorithm == limit.CalendarWindow
	switch {
	case len(o.Thresholds) > MaxThresholds:
		return fmt.Errorf("%w: %d thresholds, want at most %d", ErrInvalid, len(o.Thresholds), MaxThresholds)
	case len(o.Label) > MaxLabel:
		return fmt.Errorf("%w: a label of %d bytes, want at most %d", ErrInvalid, len(o.Label), MaxLabel)
	case !period || o.Manner == limit.Plain:
		return fmt.Errorf("%w: thresholds are for fixed windows and calendars, in the strict manner", ErrInvalid)
	}
	before := int64(0)
	for _, t := range o.Thresholds {
		if t <= before || t >= limit.MaxAmount {
			return fmt.Errorf("%w: a threshold of %d behind %d, want them to ascend in 1…2^53−2", ErrInvalid, t, before)
		}
		before = t
	}
	return nil
}
