package engine

import (
	"context"
	"sync/atomic"
	"time"
)

// endings ends calls at their time, those of about the same instant by the same timer. A deadline of its
// own costs a call a microsecond and several allocations, and a proxy's calls all have the same short one.
type endings struct {
	slots [64]atomic.Pointer[ending]
}

// ending is closed at an instant, that of its tick.
type ending struct {
	tick time.Duration
	done chan struct{}
}

// endingTick is how far calls may lie apart that end together, all with the earliest.
const endingTick = 512 * time.Microsecond

// longestShared bounds for how long a call goes on whose caller leaves before its deadline: what is shared
// does not hear of that.
const longestShared = 500 * time.Millisecond

// within returns ctx with a deadline that is wait after started, or up to a tick earlier. now is started
// as a span since an instant that is always the same.
func (e *endings) within(
	ctx context.Context, wait time.Duration, started time.Time, now time.Duration,
) (context.Context, context.CancelFunc) {
	tick := (now + wait).Truncate(endingTick)
	if wait > longestShared || tick-now < wait/2 {
		return context.WithTimeout(ctx, wait)
	}
	deadline := started.Add(tick - now)
	return &ended{Context: ctx, deadline: deadline, done: e.at(tick, deadline)}, func() {}
}

// at is closed at a tick, which is at deadline.
func (e *endings) at(tick time.Duration, deadline time.Time) <-chan struct{} {
	slot := &e.slots[tick/endingTick%time.Duration(len(e.slots))]
	found := slot.Load()
	if found != nil && found.tick == tick {
		return found.done
	}
	made := &ending{tick: tick, done: make(chan struct{})}
	time.AfterFunc(time.Until(deadline), func() { close(made.done) })
	slot.CompareAndSwap(found, made) // whoever comes too late has one for itself
	return made.done
}

// ended is a context that ends when done is closed, and not with the one that it is made from.
type ended struct {
	context.Context //nolint:containedctx // it is one
	deadline        time.Time
	done            <-chan struct{}
}

func (c *ended) Deadline() (time.Time, bool) { return c.deadline, true }

func (c *ended) Done() <-chan struct{} { return c.done }

func (c *ended) Err() error {
	select {
	case <-c.done:
		return context.DeadlineExceeded
	default:
		return nil
	}
}
