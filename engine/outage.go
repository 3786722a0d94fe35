package engine

import (
	"sync/atomic"
	"time"

	"github.com/rationhq/ration/engine/breaker"
	"github.com/rationhq/ration/policy"
)

// outage is what is told of the time in which the store does not decide.
type outage struct {
	// decided counts decisions by what limits wanted, since the store was last well.
	decided [policy.StoreErrorDeny + 1]atomic.Int64
	began   atomic.Int64 // nanoseconds since the epoch
	noted   atomic.Int64 // when something was last said that is said once a minute at most
}

// count counts a decision that was made without the store.
func (e *Engine) count(answer policy.StoreError, reports, over bool) {
	e.outage.decided[answer].Add(1)
	e.metrics.withoutStore(answer, reports, over)
}

// storeChanged says once that the store is out, and once that it is back.
func (e *Engine) storeChanged(c breaker.Change) {
	since := e.guard.born.Add(c.Since)
	decided := &e.outage.decided
	switch {
	case c.Doubted():
		for i := range decided {
			decided[i].Store(0)
		}
		e.outage.began.Store(since.UnixNano())
	case c.Opened():
		e.metrics.outages.Inc()
		e.opts.Log.Warn("deciding without the store: it is not asked while it does not answer, "+
			"limits do what their on_store_error says, rate_limit rules answer with an error", "since", since)
	case c.Recovered():
		e.opts.Log.Warn("deciding with the store again", "after", time.Since(since).Round(time.Millisecond),
			"allow", decided[policy.StoreErrorAllow].Swap(0), "deny", decided[policy.StoreErrorDeny].Swap(0),
			"local", decided[policy.StoreErrorLocal].Swap(0), "error", decided[policy.StoreErrorFail].Swap(0))
	}
}

// noteUndecided says why the store could not decide, where no outage tells of it: a store that is full,
// a counter that is damaged. Once a minute at most.
func (e *Engine) noteUndecided(why error) {
	now, last := time.Now().UnixNano(), e.outage.noted.Load()
	if now-last >= int64(time.Minute) && e.outage.noted.CompareAndSwap(last, now) {
		e.opts.Log.Warn("the store cannot decide a request, so its limits do what their on_store_error says; "+
			"this is said once a minute at most", "error", why)
	}
}

// Outage reports since when decisions are made without the store; ok is false while it is asked.
func (e *Engine) Outage() (since time.Time, ok bool) {
	if e.guard == nil || e.guard.breaker.State() < breaker.Open {
		return time.Time{}, false
	}
	return time.Unix(0, e.outage.began.Load()), true
}
