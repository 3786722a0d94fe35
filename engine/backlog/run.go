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
	// mostInVain is how many reports that need a damaged counter are tried between two pauses: others may wait behind them.
	mostInVain = 256
)

// run puts reports to the store until none waits. It begins with one, after a pause, since the store has just failed; as
// long as all land, or need counters that are damaged, twice as many follow at a time.
func (b *Backlog) run(ended chan struct{}) {
	defer close(ended)
	width, pause, inVain := 1, shortest, 0
	b.pause(pause)
	for {
		chains := b.take(width)
		if len(chains) == 0 {
			return
		}
		switch landed, damaged := b.attempt(chains); {
		case landed == len(chains):
			width, pause, inVain = min(2*width, widest), shortest, 0
		case landed > 0: // the store answers some of them
			width, pause, inVain = max(1, width/2), shortest, 0
		case damaged == len(chains) && inVain+damaged < min(b.requests(), mostInVain):
			width, inVain = min(2*width, widest), inVain+damaged
		default:
			b.pause(pause)
			width, pause, inVain = 1, min(2*pause, longest), 0
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

// requests returns of how many requests reports wait.
func (b *Backlog) requests() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.chains)
}

// attempt puts the first report of each request to the store, all at the same time, and returns how many are done with, and
// how many need a counter that is damaged. Those that are not done with come behind all that wait.
func (b *Backlog) attempt(chains []*chain) (landed, damaged int) {
	var all sync.WaitGroup
	var done, corrupt atomic.Int64
	for _, c := range chains {
		all.Go(func() {
			b.mu.Lock()
			r := c.reports[0] // only this goroutine takes from the front
			b.mu.Unlock()
			ended, err := b.put(r)
			switch {
			case ended:
				done.Add(1)
			case errors.Is(err, store.ErrCorrupt):
				corrupt.Add(1)
			}
			b.back(c, r, ended)
		})
	}
	all.Wait()
	return int(done.Load()), int(corrupt.Load())
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

// put puts a report to the store. done says that it is not to be tried again; else err says why.
func (b *Backlog) put(r *report) (done bool, err error) {
	var out store.Outcome
	err = b.apply(r, &out)
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
		return true, nil
	case !again(err):
		b.opts.Lost(Rejected, err)
		return true, nil
	case !b.opts.Unwritten(err) && !r.leaveOutPlain():
		b.opts.Lost(Unknown, err)
		return true, nil
	}
	return false, err
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
