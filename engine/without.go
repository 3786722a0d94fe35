package engine

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/store"
)

// undecided says that with this error of the store the limits themselves say what happens. Other errors
// are somebody's mistake, and no answer would be right.
func undecided(err error) bool {
	return errors.Is(err, store.ErrUnavailable) || errors.Is(err, store.ErrFull) || errors.Is(err, store.ErrCorrupt)
}

// onStoreError returns what the request's limits want to happen when the store cannot decide: the
// strictest of them counts.
func (s *scratch) onStoreError(d *Decision) policy.StoreError {
	strictest := policy.StoreErrorAllow
	if len(s.plain) > 0 {
		strictest = policy.StoreErrorFail
	}
	if s.reports(d) {
		return policy.StoreErrorFail
	}
	for i := range d.Limits {
		if l := d.Limits[i].Limit; !l.Shadow && !s.step.Shadow {
			strictest = max(strictest, l.OnStoreError)
		}
	}
	return strictest
}

// inTime says that there is something to answer should the store be silent. A proxy that hears nothing does
// what it is set to, which is what none of these want, or not for all; and counts what it reports as lost, which waits
// here. But what has no id can only land now.
func (s *scratch) inTime(d *Decision) bool {
	return s.waits && s.step.Lease != nil || s.onStoreError(d) != policy.StoreErrorFail
}

// reports says that the request tells what was used, gives something back, or ends. Only the store can
// keep that: whatever the limits say, the caller has to hear that it was not kept.
func (s *scratch) reports(d *Decision) bool {
	if s.tells || s.step.Lease != nil && s.step.Lease.Do != store.LeaseOpen {
		return true
	}
	for i := range d.Limits {
		if !d.Limits[i].Asks {
			return true
		}
	}
	return false
}

// without decides a request that the store could not decide, as its limits say. It returns why, what
// the store said, where they want an error.
func (e *Engine) without(ctx context.Context, s *scratch, d *Decision, why error) error {
	answer := s.onStoreError(d)
	e.noteUnlessOut(why)
	if answer == policy.StoreErrorFail {
		e.endLocally(ctx, s)
		e.count(answer, s.reports(d), true)
		return why
	}
	now := limit.At(time.Now())
	s.refuseForGood(d, now)
	retry := Soon()
	switch answer {
	case policy.StoreErrorDeny:
		for i := range d.Limits {
			if a := &d.Limits[i]; a.without() == policy.StoreErrorDeny && !a.Over {
				a.unavailable(retry)
				a.Over = true
			}
		}
	case policy.StoreErrorLocal:
		if err := e.locally(ctx, s, d, retry); err != nil {
			e.count(policy.StoreErrorFail, false, true)
			return why
		}
	case policy.StoreErrorNone, policy.StoreErrorAllow, policy.StoreErrorFail:
	}
	d.Degraded, d.Now = answer, now
	s.bindKnown(d)
	e.count(answer, false, d.Over)
	return nil
}

// noteUnlessOut says why the store could not decide, unless the breaker will.
func (e *Engine) noteUnlessOut(why error) {
	if e.guard == nil || e.guard.parted || !errors.Is(why, store.ErrUnavailable) {
		e.noteUndecided(why)
	}
}

// without returns what the limit answers when the store cannot decide.
func (a *Applied) without() policy.StoreError {
	if a.Limit.Shadow {
		return policy.StoreErrorAllow // it never refuses
	}
	return a.Limit.OnStoreError
}

// unavailable makes a the refusal of a limit about which nothing is known.
func (a *Applied) unavailable(retry limit.Micros) {
	a.Unavailable = true
	a.Status = limit.Status{Refused: true, RetryAfter: retry, ResetAfter: retry}
}

// Soon returns how long a caller waits who gets no decision because the store cannot make one: one to three
// seconds, so that not all come back at once.
func Soon() limit.Micros {
	return limit.Second + rand.N(2*limit.Second) //nolint:gosec // it spreads callers, and hides nothing
}

// refuseForGood finds the limits that would refuse the request whatever was counted: no store is needed
// to know that a limit is zero, or an amount too large.
func (s *scratch) refuseForGood(d *Decision, now limit.Micros) {
	for i := range d.Limits {
		a := &d.Limits[i]
		spec := &a.Quantity.Spec
		var nothing limit.State
		at := spec.Advance(&nothing, now)
		a.Status = spec.Judge(&nothing, at, max(1, s.askedOf(d, i)), 0)
		a.Over = (a.Status.Refused || a.refuses()) && !a.Limit.Shadow
	}
}

// bindKnown leaves only those limits in the decision of which something is known, and describes the
// statuses by them.
func (s *scratch) bindKnown(d *Decision) {
	for i := range d.Statuses {
		st := &d.Statuses[i]
		*st = Status{Rule: st.Rule, Unlimited: st.Unlimited, Quota: st.Quota, Amount: st.Amount}
	}
	known, over := 0, false
	for i := range d.Limits {
		a, at := &d.Limits[i], -1
		if a.Over || d.Degraded == policy.StoreErrorLocal && a.without() == policy.StoreErrorLocal {
			at, over = known, over || a.Over
			d.Limits[known] = *a
			known++
		}
		for j := range s.links {
			if s.links[j].op == i {
				s.links[j].op = at // no later i: those before are done
			}
		}
	}
	d.Limits = d.Limits[:known]
	for _, l := range s.links {
		if l.op >= 0 {
			d.Statuses[l.descriptor].bind(&d.Limits[l.op])
		}
	}
	d.Over = (over || d.Reused || d.Bar != BarNone) && !s.step.Shadow
}

// locally lets this process decide by itself the limits that say so, each within its local share.
func (e *Engine) locally(ctx context.Context, s *scratch, d *Decision, retry limit.Micros) error {
	counters := e.locals.open()
	if counters == nil {
		return errNoLocal
	}
	s.local = store.Step{Ops: s.local.Ops[:0], Shadow: s.step.Shadow}
	s.localOf = s.localOf[:0]
	takes := false
	for i := range d.Limits {
		a := &d.Limits[i]
		s.local.Refused = s.local.Refused || a.Over
		if a.without() != policy.StoreErrorLocal {
			continue
		}
		op := s.step.Ops[s.firstNative+i]
		op.Spec = a.Quantity.Local
		op.Thresholds, op.Label = nil, nil // nobody would hear of them, and they are not those of a share
		s.local.Ops = append(s.local.Ops, op)
		s.localOf = append(s.localOf, i)
		takes = takes || op.Amount > 0
	}
	if takes {
		s.local.Lease = s.step.Lease
	}
	err := counters.Apply(ctx, &s.local, &s.localOutcome)
	if errors.Is(err, store.ErrConflict) {
		d.Reused = withoutLease(&s.local)
		err = counters.Apply(ctx, &s.local, &s.localOutcome)
	}
	if err != nil {
		return err
	}
	for n, i := range s.localOf {
		a, status := &d.Limits[i], s.localOutcome.Results[n]
		if a.Over {
			continue // for good, which says more
		}
		a.Status, a.Over = status, status.Refused
		// What this process has no room for the store may have: only a short wait is worth naming.
		if status.Never || status.RetryAfter > retryUpTo {
			a.unavailable(retry)
		}
	}
	return nil
}

var errNoLocal = errors.New("this process keeps no counters of its own")

// endLocally ends what a request has reserved in this process's own counters, when its end could not be
// told to the store: its place is free, and what it held is what it used.
func (e *Engine) endLocally(ctx context.Context, s *scratch) {
	lease := s.step.Lease
	if lease == nil || lease.Do == store.LeaseOpen {
		return
	}
	if counters := e.locals.opened(); counters != nil {
		// Without ops nothing is recorded of a request that is unknown here. That this process could not
		// note it changes nothing for the caller, who is told already that nobody has.
		s.local = store.Step{Ops: s.local.Ops[:0], Lease: lease}
		_ = counters.Apply(ctx, &s.local, &s.localOutcome)
	}
}
