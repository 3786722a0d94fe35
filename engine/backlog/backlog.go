// Package backlog keeps reports of usage that the store could not take, and puts them to it again until they land: each
// exactly once, those of one request in their order, and no more of them than a bound says.
//
// It knows the storage contract, and nothing of policies, decisions or transports. What it keeps is lost with the process.
//
// Read [Backlog.Put] first, then run.go.
package backlog

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rationhq/ration/store"
)

// Options of a backlog.
type Options struct {
	// Most is how many reports are kept, and MostBytes how much memory they may take.
	Most      int
	MostBytes int64
	// Apply puts a step to the store.
	Apply func(ctx context.Context, step *store.Step, out *store.Outcome) error
	// Unwritten says of an error of Apply that it leaves no doubt: nothing was written.
	Unwritten func(error) bool
	// Wait bounds one attempt; 0 means 10 s.
	Wait time.Duration
	// Lost is told of each report that was taken and will not land, and why; nil: nobody is.
	Lost func(cause Cause, why error)
}

// Cause is why a report is lost.
type Cause uint8

// The causes.
const (
	// Full: there was no room for it, or it came when the process ended. It was not taken.
	Full Cause = iota
	// Unknown: it may have been written, and has no id by which a repeat would be known.
	Unknown
	// Rejected: the store can never take it.
	Rejected
	// Stopped: the process ended before it landed.
	Stopped
	// Causes is how many there are.
	Causes
)

// String returns the cause's name, for metrics: "full".
func (c Cause) String() string { return [Causes]string{"full", "unknown", "rejected", "stopped"}[c] }

// Backlog keeps reports. It is safe for concurrent use. Close ends it.
type Backlog struct {
	opts  Options
	alive context.Context //nolint:containedctx // that of the attempts, which belong to no call
	stop  context.CancelFunc
	hurry chan struct{} // closed when what waits is to land soon or never
	some  atomic.Bool   // something waits

	mu      sync.Mutex
	chains  map[store.LeaseID]*chain
	queue   []*chain      // those that are not being put to the store
	running chan struct{} // closed when what runs ends; nil while nothing does
	stats   Stats
	hurried bool
	closed  bool
}

// Stats is what a backlog has to do, and has done.
type Stats struct {
	Waiting int   // reports
	Bytes   int64 // that they take
	Landed  int64 // reports, since the start
}

// chain is the reports of one request that wait, in order.
type chain struct {
	id      store.LeaseID
	reports []*report
}

// report is a step that waits.
type report struct {
	step   store.Step
	bytes  int64
	ownID  bool // its lease was made here
	landed func(*store.Outcome)
}

// New returns an empty backlog.
func New(opts Options) *Backlog {
	if opts.Wait <= 0 {
		opts.Wait = 10 * time.Second
	}
	if opts.Lost == nil {
		opts.Lost = func(Cause, error) {}
	}
	b := &Backlog{opts: opts, hurry: make(chan struct{}), chains: make(map[store.LeaseID]*chain)}
	b.alive, b.stop = context.WithCancel(context.Background())
	return b
}

// Put keeps a copy of step, which reports usage, until the store has it; landed, if not nil, is told then. It takes no
// report for which there is no room: whoever brings it is to be told that it is not kept.
//
// doubtful says that the step may have been written already. Then it has a lease, by which a repeat is known; and what a
// repeat would do again all the same (charges of the plain manner) is left out. A step without a lease gets one.
//
// What Put takes belongs to the windows in which it lands, or to those of the holds that it settles.
func (b *Backlog) Put(step *store.Step, doubtful bool, landed func(*store.Outcome)) bool {
	r := newReport(step, landed)
	if doubtful && (r.ownID || !r.leaveOutPlain()) {
		b.opts.Lost(Unknown, nil)
		return false
	}
	if !b.enqueue(r) {
		b.opts.Lost(Full, nil)
		return false
	}
	return true
}

// Behind keeps a copy of step, as Put does, if reports of its request wait: so that it comes behind them. Where none do, or
// there is no room, it returns false, and nothing is lost: the step is to be put to the store.
func (b *Backlog) Behind(step *store.Step, landed func(*store.Outcome)) bool {
	return step.Lease != nil && b.waits(step.Lease.ID) && b.enqueue(newReport(step, landed))
}

func (b *Backlog) enqueue(r *report) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed || b.stats.Waiting >= b.opts.Most || b.stats.Bytes+r.bytes > b.opts.MostBytes {
		return false
	}
	id := r.step.Lease.ID
	c := b.chains[id]
	if c == nil {
		c = &chain{id: id}
		b.chains[id] = c
		b.queue = append(b.queue, c)
	}
	c.reports = append(c.reports, r)
	b.count(1, r.bytes)
	if b.running == nil {
		b.running = make(chan struct{})
		go b.run(b.running)
	}
	return true
}

// count counts what waits. Its caller has locked mu.
func (b *Backlog) count(reports int, size int64) {
	b.stats.Waiting += reports
	b.stats.Bytes += size
	b.some.Store(b.stats.Waiting > 0)
}

// waits reports whether reports of that request wait.
func (b *Backlog) waits(id store.LeaseID) bool {
	if !b.some.Load() {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.chains[id] != nil
}

// Stats returns what there is to do, and was done.
func (b *Backlog) Stats() Stats {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.stats
}

// Flush waits until nothing waits any more, or ctx ends. From then on no pause between attempts is long.
func (b *Backlog) Flush(ctx context.Context) {
	b.mu.Lock()
	if !b.hurried {
		b.hurried = true
		close(b.hurry)
	}
	running := b.running
	b.mu.Unlock()
	if running == nil {
		return
	}
	select {
	case <-running:
	case <-ctx.Done():
	}
}

// Close ends the backlog, and returns how many reports are lost by it. It waits for attempts under way.
func (b *Backlog) Close() (lost int) {
	b.mu.Lock()
	b.closed = true
	running := b.running
	b.mu.Unlock()
	b.stop()
	if running != nil {
		<-running
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	lost = b.stats.Waiting
	for range lost {
		b.opts.Lost(Stopped, nil)
	}
	b.count(-lost, -b.stats.Bytes)
	b.queue = nil
	clear(b.chains)
	return lost
}
