package engine

import (
	"context"
	"time"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/price"
	"github.com/rationhq/ration/store"
)

// Progress is what a reserved call has used so far.
type Progress struct {
	ID ReservationID
	// Usage is all that it has used since it began. Where it says nothing of the prompt, that of the estimate counts.
	Usage price.Usage
	// Lasts is how long the reservation lives from now on: as [Call.Lasts].
	Lasts limit.Micros
}

// Advice says whether a call under way may go on.
type Advice uint8

// What a call under way hears.
const (
	Continue Advice = iota // the whole estimate fits
	WrapUp                 // it has to end at MaxOutput
	Stop                   // nothing more fits, or the reservation has ended
)

// Going is what is said to a call under way. Its Decision tells how the limits stand, and MaxOutput is of the whole
// output: what was written so far, and what is still to come.
type Going struct {
	Decision
	Advice Advice
	// State is StateOpen, or what has become of the reservation.
	State ReservationState
	// Expires is until when the reservation lives at least, by the store's clock.
	Expires limit.Micros
}

// Progress notes what a call has used, renews its reservation, and says whether it may go on. Its errors are those of
// Settle; after those of the store it may be sent again as it is.
func (e *Engine) Progress(ctx context.Context, p *Progress, out *Going) error {
	*out = Going{Decision: Decision{Statuses: out.Statuses[:0], Limits: out.Limits[:0]}}
	if err := checkUsage("usage", p.Usage); err != nil {
		return err
	}
	lasts, err := leaseOf(p.Lasts)
	if err != nil {
		return err
	}
	n, err := e.noteOf(ctx, p.ID, nil)
	if err != nil {
		return err
	}
	_, domain, err := e.domainOf(ctx, &n.caller)
	if err != nil {
		return err
	}
	s := e.scratch.Get().(*scratch)
	defer e.release(s)
	if err := e.findPlaces(ctx, domain, &n.caller, &out.Decision, s, n.caller.Model); err != nil {
		return err
	}
	s.now = time.Now()
	var want demand
	want.charge.add(requests, 0)
	for i := range s.matches {
		e.expand(&s.matches[i], &want, &s.payers[i], i, &out.Decision, s)
	}
	sofar := p.Usage
	if sofar.Input == 0 && sofar.CacheRead == 0 && sofar.CacheWrite == 0 {
		sofar.Input, sofar.CacheRead, sofar.CacheWrite = n.estimate.Input, n.estimate.CacheRead, n.estimate.CacheWrite
	}
	used := usageOf(sofar, 1, &n.price)
	l := &s.leased
	s.actual = used.settled()
	s.actual[ofPlaces] = store.Unknown
	*l = store.Lease{ID: p.ID, Do: store.LeaseRenew, Lasts: lasts, Actual: s.actual[:]}
	s.step.Lease = l
	inAll := added(1, sofar, n.price.Cost(sofar))
	s.reportCall(domain, n.part(n.caller.Model), &inAll, &addition{})
	if err := e.askWhole(ctx, s, &out.Decision); err != nil {
		return err
	}
	out.Over = false // what was asked is only how the limits stand
	out.Expires = out.Now + lasts
	switch s.outcome.Lease {
	case store.LeaseRenewed:
		out.State = StateOpen
	case store.LeaseSettled:
		out.State = StateSettled
	case store.LeaseLapsed:
		out.State = StateLapsed
	default:
		return ErrUnknownReservation
	}
	estimate := usageOf(n.estimate, 1, &n.price)
	estimate.atLeast(&used)
	out.roomUnder(&estimate, sofar, &n.price)
	switch {
	case out.State != StateOpen, out.Bar != BarNone, out.Bounded && out.MaxOutput <= sofar.Output:
		out.Advice = Stop
	case out.Bounded && out.MaxOutput < n.estimate.Output:
		out.Advice = WrapUp
	}
	return nil
}

// roomUnder finds the longest output in all that fits, of a call that holds so much, and has used so much so far.
func (g *Going) roomUnder(held *usage, sofar price.Usage, p *Price) {
	g.MaxOutput, g.Bounded = tierCap(g.Tier)
	for i := range g.Limits {
		l := &g.Limits[i]
		if l.Limit.Shadow {
			continue
		}
		of := measureOf(l.Limit)
		own, _ := held.of(of)
		room := own + l.Status.Remaining // of which less than nothing may be left
		if l.Quantity.PerRequest > 0 {
			room = min(room, l.Quantity.PerRequest)
		}
		g.bound(of, room, sofar, p)
	}
}
