package engine

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rationhq/ration/engine/breaker"
	"github.com/rationhq/ration/store"
)

// guard stands before a store that may stall: it bounds the wait for it, and once it has not answered
// for a while keeps callers from waiting at all.
type guard struct {
	store   store.Store
	wait    time.Duration // at most, for one call
	breaker *breaker.Breaker
	metrics *Metrics
	// parted: that one call fails says little of the next one. See [store.Parted].
	parted bool
	// changed is told of every change of the breaker's state, and by which error it came.
	changed func(c breaker.Change, why error)
	// pressed is set by calls that the breaker does not let through, or only to try.
	pressed *atomic.Bool
	endings endings

	born   time.Time
	alive  context.Context //nolint:containedctx // that of the probes, which belong to no call
	stop   context.CancelFunc
	probes sync.WaitGroup
}

func newGuard(
	s store.Store, wait time.Duration, m *Metrics, changed func(breaker.Change, error), pressed *atomic.Bool,
) *guard {
	g := &guard{
		store: s, wait: wait, breaker: breaker.New(breaker.Options{}), metrics: m, changed: changed, pressed: pressed,
		born: time.Now(),
	}
	if p, ok := s.(store.Parted); ok {
		g.parted = p.Parted()
	}
	g.alive, g.stop = context.WithCancel(context.Background())
	return g
}

// close ends the probes. It waits for them: at most as long as for any call.
func (g *guard) close() {
	g.stop()
	g.probes.Wait()
}

// errNotAsked is the answer while the breaker is open. Nothing was written.
var errNotAsked = fmt.Errorf("%w: it has not answered for a while, and is tried again several times a second", store.ErrUnavailable)

// apply asks the store to decide step. inTime says that it has to end before its caller's deadline, so
// that something else can still be answered.
func (g *guard) apply(ctx context.Context, step *store.Step, out *store.Outcome, inTime bool) error {
	started := time.Now()
	permit := g.breaker.Ask(started.Sub(g.born))
	switch {
	case permit == breaker.Refused:
		g.pressed.Store(true)
		return errNotAsked
	case permit.Tries():
		g.pressed.Store(true)
		return g.try(ctx, step, out, inTime, permit, started)
	}
	_, err := g.call(ctx, step, out, inTime, permit, started)
	return err
}

// try is call for the one that finds out whether the store is back: whatever becomes of it, the breaker
// is told, else it would wait for ever.
func (g *guard) try(
	ctx context.Context, step *store.Step, out *store.Outcome, inTime bool, permit breaker.Permit, started time.Time,
) (err error) {
	reported := false
	defer func() {
		if !reported {
			g.breaker.GaveUp(permit, 0, time.Since(g.born))
		}
	}()
	reported, err = g.call(ctx, step, out, inTime, permit, started)
	return err
}

func (g *guard) call(
	ctx context.Context, step *store.Step, out *store.Outcome, inTime bool, permit breaker.Permit, started time.Time,
) (reported bool, err error) {
	bounded, whole := ctx, true
	if inTime {
		var wait time.Duration
		wait, whole = g.patience(ctx, started)
		var cancel context.CancelFunc
		bounded, cancel = g.endings.within(ctx, wait, started, started.Sub(g.born))
		defer cancel()
	}
	err = g.store.Apply(bounded, step, out)
	took := time.Since(started)
	g.metrics.applied(took, err)
	if err == nil || !silent(err) {
		g.note(g.breaker.Answered(), nil)
		return true, err
	}
	now := started.Add(took).Sub(g.born)
	switch {
	case ctx.Err() != nil: // the caller has left, or has run out of time
		g.gaveUp(permit, took, now)
	case errors.Is(err, store.ErrUnavailable):
		g.failed(permit, now, err)
	case whole:
		err = g.noAnswer()
		g.failed(permit, now, err)
	default:
		g.gaveUp(permit, took, now)
		err = fmt.Errorf("%w: no answer in the %v that the caller left for it", store.ErrUnavailable, took.Round(time.Millisecond))
	}
	return true, err
}

// failed reports a call that was given all the time that any is.
func (g *guard) failed(permit breaker.Permit, now time.Duration, err error) {
	if g.parted {
		g.gaveUp(permit, g.wait, now) // the probe finds out whether any part is there
		return
	}
	g.note(g.breaker.Failed(permit, now), err)
}

func (g *guard) noAnswer() error {
	return fmt.Errorf("%w: no answer within %v", store.ErrUnavailable, g.wait)
}

// silent says that an error of a store is no answer. All others are: it is there, whatever it says.
func silent(err error) bool {
	return errors.Is(err, store.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

// reserve is the most that is kept of the caller's time to answer without the store.
const reserve = 5 * time.Millisecond

// patience returns how long a call may wait, and whether that is as long as any may.
func (g *guard) patience(ctx context.Context, now time.Time) (wait time.Duration, whole bool) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return g.wait, true
	}
	left := deadline.Sub(now)
	if left -= min(left/4, reserve); left < g.wait {
		return left, false
	}
	return g.wait, true
}

// gaveUp reports a call that was ended before its time, and probes the store if that is to be done: one
// probe at a time, whose time no caller cuts short.
func (g *guard) gaveUp(permit breaker.Permit, waited, now time.Duration) {
	change, probe := g.breaker.GaveUp(permit, waited, now)
	g.note(change, nil)
	if !probe {
		return
	}
	g.probes.Go(func() {
		ctx, cancel := context.WithTimeout(g.alive, g.wait)
		defer cancel()
		err := g.store.Ready(ctx)
		if g.alive.Err() != nil {
			return
		}
		answered := err == nil || !silent(err)
		if errors.Is(err, context.DeadlineExceeded) {
			err = g.noAnswer()
		}
		g.note(g.breaker.Probed(answered, time.Since(g.born)), err)
	})
}

func (g *guard) note(c breaker.Change, why error) {
	if c.From != c.To {
		g.changed(c, why)
	}
}
