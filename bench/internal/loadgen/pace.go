package loadgen

import (
	"math"
	"sync/atomic"
	"time"
)

// A pacer says when the next request of one connection is due.
type pacer interface {
	// next returns when the next request is due, and moves on to the one after it, if that instant is not after now.
	next(now time.Time) (due time.Time, isDue bool)
	// finished is asked after all that could be sent has been sent, and reports that nothing more will be due.
	finished(now time.Time) bool
}

// bounds end a run: after a time or after a number of requests, whichever comes first.
type bounds struct {
	duration time.Duration
	// requests is 0 for no bound.
	requests uint64
}

// A closedPacer always has a request due, for whichever caller is free, until the run is over.
type closedPacer struct {
	end time.Time
	// left is how many requests all connections together may still send; nil for no bound.
	left *atomic.Int64
	over bool
}

func (p *closedPacer) next(now time.Time) (time.Time, bool) {
	if p.over || !now.Before(p.end) {
		return time.Time{}, false
	}
	if p.left != nil && p.left.Add(-1) < 0 {
		p.over = true
		return time.Time{}, false
	}
	return now, true
}

func (p *closedPacer) finished(now time.Time) bool { return p.over || !now.Before(p.end) }

// A schedule says when each request of an open loop is due, counted from the start of the run.
type schedule struct {
	// perSecond is the rate, above 0.
	perSecond float64
	// tick is the grid of due times: all requests of one tick are due at its beginning, so that the generator need
	// not wake up for each of them. 0 gives each request an instant of its own.
	tick time.Duration
}

// due returns when request i is due. The schedule is a function of i alone: no delay of the server or the generator
// ever moves it.
func (s schedule) due(i uint64) time.Duration {
	at := time.Duration(math.Round(float64(i) / s.perSecond * float64(time.Second)))
	if s.tick > 0 {
		at = at.Truncate(s.tick)
	}
	return at
}

// An openPacer follows a schedule. Of n connections each takes every n-th request of it.
type openPacer struct {
	schedule
	start  time.Time
	within bounds
	// index of the next request, and the step to the one after it.
	index, step uint64
	over        bool
}

func (p *openPacer) next(now time.Time) (time.Time, bool) {
	due := p.start.Add(p.due(p.index))
	if p.over || p.exhausted() || due.After(now) {
		return time.Time{}, false
	}
	p.index += p.step
	return due, true
}

// finished is true from the end of the run on: what is due by then and has found no free caller is left unsent.
func (p *openPacer) finished(now time.Time) bool {
	p.over = p.over || p.exhausted() || now.Sub(p.start) >= p.within.duration
	return p.over
}

func (p *openPacer) exhausted() bool {
	return p.due(p.index) >= p.within.duration || p.within.requests > 0 && p.index >= p.within.requests
}

// giveUp counts the requests that were due and have not been sent, as unsent, and their latency with the time that they
// had waited at the end: percentiles without them would be better than the truth.
func (p *openPacer) giveUp(into *tally) {
	for ; !p.exhausted(); p.index += p.step {
		into.unsent++
		record(into.latency, p.within.duration-p.due(p.index))
	}
}

// A walk has each of its requests due once, at once. It is its own picker.
type walk struct {
	requests []*request
}

func (w *walk) next(now time.Time) (time.Time, bool) { return now, len(w.requests) > 0 }

func (w *walk) finished(time.Time) bool { return len(w.requests) == 0 }

func (w *walk) pick() *request {
	next := w.requests[0]
	w.requests = w.requests[1:]
	return next
}
