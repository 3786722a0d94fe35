package engine

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/rationhq/ration/engine/breaker"
	"github.com/rationhq/ration/policy"
)

// outage is what is told of the time in which the store does not decide. Two find that out: the breaker,
// by decisions, and whoever asks the store from time to time whether it is ready. It begins with the
// first that does, ends when both find it well, and is told of once.
type outage struct {
	// decided counts decisions by what limits wanted, since the store was last well.
	decided [policy.StoreErrorDeny + 1]atomic.Int64
	noted   rarely
	// pressed says that a decision has met the breaker open since the store was last found ready.
	pressed atomic.Bool

	mu            sync.Mutex
	open, unready bool      // what the breaker and the last check found
	began         time.Time // of the row of failures; counts only while open or unready
}

// count counts a decision that was made without the store.
func (e *Engine) count(answer policy.StoreError, reports, over bool) {
	e.outage.decided[answer].Add(1)
	e.metrics.withoutStore(answer, reports, over)
}

// storeChanged hears of every change of the breaker, and with which error it came.
func (e *Engine) storeChanged(c breaker.Change, why error) {
	o := &e.outage
	o.mu.Lock()
	defer o.mu.Unlock()
	if c.Doubted() && !o.out() {
		o.forget()
	}
	if c.Opened() {
		e.metrics.outages.Inc()
	}
	// Changes may be told of in another order than they came in: what the breaker says now is right.
	switch open := e.guard.breaker.State() >= breaker.Open; {
	case open && !o.open:
		o.begin(e, e.guard.born.Add(c.Since), why)
		o.open = true
	case !open && o.open:
		o.open = false
		o.end(e)
	}
}

// NoteReady is told what the store says each time it is asked whether it is ready: nil, or why not. It
// sees what the breaker does not: a store that answers, and refuses; and one that nobody asks.
func (e *Engine) NoteReady(err error) {
	e.metrics.noteReady(err == nil)
	o := &e.outage
	if err == nil && e.guard != nil && !o.pressed.Swap(false) && e.guard.breaker.State() >= breaker.Open {
		e.guard.note(e.guard.breaker.Answered(), nil) // no decision comes that would find it back
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case err != nil:
		o.begin(e, time.Now(), err)
		o.unready = true
	case o.unready:
		o.unready = false
		o.end(e)
	case !o.open:
		o.forget()
	}
}

func (o *outage) out() bool { return o.open || o.unready }

func (o *outage) begin(e *Engine, since time.Time, why error) {
	if o.out() {
		return
	}
	o.began = since
	e.opts.Log.Warn("deciding without the store: limits do what their on_store_error says, rate_limit rules answer with "+
		"an error", "error", why, "since", since)
	e.tellOutage()
}

func (o *outage) end(e *Engine) {
	if o.out() {
		return
	}
	decided := &o.decided
	e.opts.Log.Warn("deciding with the store again", "after", time.Since(o.began).Round(time.Millisecond),
		"allow", decided[policy.StoreErrorAllow].Swap(0), "deny", decided[policy.StoreErrorDeny].Swap(0),
		"local", decided[policy.StoreErrorLocal].Swap(0), "errors", decided[policy.StoreErrorFail].Swap(0))
	e.tellEndOfOutage(time.Since(o.began))
}

func (o *outage) forget() {
	for i := range o.decided {
		o.decided[i].Store(0)
	}
}

// noteUndecided says why the store could not decide, where no outage tells of it: a store that is full,
// a counter that is damaged. Once a minute at most.
func (e *Engine) noteUndecided(why error) {
	if _, out := e.Outage(); out {
		return
	}
	if e.outage.noted.allows(time.Now()) {
		e.opts.Log.Warn("the store cannot decide a request, so its limits do what their on_store_error says; "+
			"this is said once a minute at most", "error", why)
	}
}

// Outage reports since when decisions are made without the store; ok is false while it is well.
func (e *Engine) Outage() (since time.Time, ok bool) {
	e.outage.mu.Lock()
	defer e.outage.mu.Unlock()
	return e.outage.began, e.outage.out()
}
