package backlog

import (
	"context"
	"crypto/rand"
	"errors"
	mathrand "math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rationhq/ration/store"
)

const (
	// shortest and longest are the pauses after attempts that failed; each is twice the one before.
	shortest = 50 * time.Millisecond
	longest  = time.Second
	// widest is how many reports are put to the store at the same time.
	widest = 16
)

// run puts reports to the store until none waits. It begins with one, after a pause, since the store has just failed; as
// long as all land, twice as many follow at a time.
func (b *Backlog) run(ended chan struct{}) {
	defer close(ended)
	width, pause := 1, shortest
	b.pause(pause)
	for {
		chains := b.take(width)
		if len(chains) == 0 {
			return
		}
		switch landed := b.attempt(chains); {
		case landed == len(chains):
			width, pause = min(2*width, widest), shortest
		case landed > 0: // the store answers some of them
			width, pause = max(1, width/2), shortest
		default:
			b.pause(pause)
			width, pause = 1, min(2*pause, longest)
		}
	}
}

// pause waits, more or less for so long: not all processes shall come back at once.
func (b *Backlog) pause(d time.Duration) {
	hurry := b.hurry
	select {
	case <-hurry:
		d, hurry = min(d, shortest), nil
	default:
	}
	timer := time.NewTimer(d/2 + mathrand.N(d)) //nolint:gosec // it spreads callers, and hides nothing
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-hurry:
	case <-b.alive.Done():
	}
}

// take returns the next requests whose reports are to be put to the store. There are none when nothing waits or the
// backlog is closed; then the run has ended.
func (b *Backlog) take(most int) []*chain {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := min(most, len(b.queue))
	if b.alive.Err() != nil {
		n = 0
	}
	if n == 0 {
		b.running = nil
		return nil
	}
	chains := b.queue[:n:n]
	b.queue = b.queue[n:]
	return chains
}

// attempt puts the first report of each request to the store, all at the same time, and returns how many are done with.
// Others come behind all that wait.
func (b *Backlog) attempt(chains []*chain) int {
	var all sync.WaitGroup
	var count atomic.Int64
	for _, c := range chains {
		all.Go(func() {
			b.mu.Lock()
			r := c.reports[0] // only this goroutine takes from the front
			b.mu.Unlock()
			done := b.put(r)
			if done {
				count.Add(1)
			}
			b.back(c, r, done)
		})
	}
	all.Wait()
	return int(count.Load())
}

// back returns a request to those that wait, if there is more of it.
func (b *Backlog) back(c *chain, r *report, done bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if done {
		c.reports = c.reports[1:]
		b.count(-1, -r.bytes)
	}
	if len(c.reports) == 0 {
		delete(b.chains, c.id)
		return
	}
	b.queue = append(b.queue, c)
}

// put puts a report to the store. done says that it is not to be tried again.
func (b *Backlog) put(r *report) (done bool) {
	var out store.Outcome
	err := b.apply(r, &out)
	if errors.Is(err, store.ErrConflict) {
		// Another report has settled the request. This one is usage too: it lands beside, by an id of its own.
		r.step.Lease.ID, r.ownID = NewID(), true
		err = b.apply(r, &out)
	}
	switch {
	case err == nil:
		b.mu.Lock()
		b.stats.Landed++
		b.mu.Unlock()
		if r.landed != nil {
			r.landed(&out)
		}
		return true
	case !again(err):
		b.opts.Lost(Rejected, err)
		return true
	case !b.opts.Unwritten(err) && !r.leaveOutPlain():
		b.opts.Lost(Unknown, err)
		return true
	}
	return false
}

func (b *Backlog) apply(r *report, out *store.Outcome) error {
	ctx, cancel := context.WithTimeout(b.alive, b.opts.Wait)
	defer cancel()
	return b.opts.Apply(ctx, &r.step, out)
}

// again says that after this error of the store the same step may land later.
func again(err error) bool {
	for _, passing := range [...]error{
		store.ErrUnavailable, store.ErrFull, store.ErrCorrupt, context.DeadlineExceeded, context.Canceled,
	} {
		if errors.Is(err, passing) {
			return true
		}
	}
	return false
}

// NewID returns an id for a report that has none, or whose own is that of another: by it the store knows a repeat.
func NewID() (id store.LeaseID) {
	_, _ = rand.Read(id[:]) // it never fails
	return id
}
