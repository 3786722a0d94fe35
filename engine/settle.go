package engine

import (
	"context"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/price"
	"github.com/rationhq/ration/store"
)

// Settlement is what is said to somebody who reports usage. It holds no verdict: usage always lands.
type Settlement struct {
	Decision
	// State is what was known of the reservation.
	State ReservationState
	// Replayed says that the same was reported before, and nothing has changed.
	Replayed bool
	// Price is by what the usage was charged, and Cost what it costs.
	Price Price
	Cost  price.Nanos
	// Unpriced is the model that has served, where it has no price although money is limited: the price of the one that
	// was reserved was charged instead, or, without one, none.
	Unpriced string
}

// ReservationState is what is known of a reservation.
type ReservationState uint8

// The states of a reservation.
const (
	StateNone     ReservationState = iota
	StateOpen                      // it lives
	StateSettled                   // it was settled, or released
	StateLapsed                    // it has lapsed; where it was settled then, what that had left charged was corrected
	StateRecorded                  // nothing was known of it, and the usage was recorded
)

// Report says what a reserved call has used in the end.
type Report struct {
	ID    ReservationID
	Usage price.Usage
	// Model has served the call; empty: the one that was reserved.
	Model string
	// Caller has made the call; nil: nobody says so. It counts only where nothing is known of the reservation.
	Caller *Caller
}

// Settle replaces what a reservation holds by what was really used. It always lands, once.
//
// Errors: an *InvalidError; ErrUnknownReservation; ErrKeyReused where the reservation was settled otherwise;
// ErrNoPolicy, ErrUnknownDomain; and those of the store as [Engine.Decide], after which it is to be sent again.
func (e *Engine) Settle(ctx context.Context, report *Report, out *Settlement) error {
	if err := checkUsage("usage", report.Usage); err != nil {
		return err
	}
	text := appendText(appendUsage([]byte("settle"), report.Usage), report.Model)
	return e.end(ctx, report, 1, xxhash.Sum64(text), out)
}

// Release gives everything back that a reservation holds, its request too. Its errors are those of Settle.
func (e *Engine) Release(ctx context.Context, id ReservationID, out *Settlement) error {
	return e.end(ctx, &Report{ID: id}, 0, xxhash.Sum64String("release"), out)
}

// end ends a reservation.
func (e *Engine) end(ctx context.Context, report *Report, requestCount int64, fingerprint uint64, out *Settlement) error {
	*out = Settlement{Decision: Decision{Statuses: out.Statuses[:0], Limits: out.Limits[:0]}}
	n, err := e.noteOf(ctx, report.ID, report.Caller)
	if err != nil {
		return err
	}
	now, domain, err := e.domainOf(ctx, &n.caller)
	if err != nil {
		return err
	}
	s := e.scratch.Get().(*scratch)
	defer e.release(s)
	served := n.caller.Model
	if report.Model != "" {
		served = report.Model
	}
	if err := e.findPlaces(ctx, domain, &n.caller, &out.Decision, s, served, n.caller.Model); err != nil {
		return err
	}
	out.Bar, s.now = BarNone, n.reserved.Time() // whatever is barred by now, what was used was used
	out.price(domain, &n, served, s.now)
	out.Cost = out.Price.Cost(report.Usage)
	used := usageOf(report.Usage, requestCount, &out.Price)
	held := usageOf(n.estimate, 1, &n.price)
	s.settleWhole(report.ID, fingerprint, &used)
	elsewhere := usageOf(price.Usage{}, requestCount, &Price{Known: true})
	askedFor, by, last := domain.Upstream(n.caller.Model), domain.Upstream(served), len(s.matches)-1
	for i := range s.matches {
		want := demand{record: used, reserved: n.left && requestCount > 0} // what is released was not asked for
		switch {
		case askedFor == by:
		case askedFor != nil && i == last:
			want.record = elsewhere
		case askedFor != nil && i == last-1, askedFor == nil && i == last:
			want.reserved = want.reserved && by == nil // else it is the place of the one that has served
		}
		e.expand(&s.matches[i], &want, &s.payers[i], i, &out.Decision, s)
	}
	s.reportEnd(domain, &n, report, served, requestCount, out)
	s.leaveCharged(n, &out.Price)
	if err := e.askWhole(ctx, s, &out.Decision); err != nil {
		return err
	}
	out.chargeAsFirst(s, report.Usage)
	e.metrics.count(now, s, &out.Decision)
	e.tellUnpricedCall(now, domain, served, report.Usage, s, out)
	out.conclude(s, &held)
	e.freeLanes(domain, requestCount > 0)
	e.notes.Remove(report.ID)
	return nil
}

// reportEnd puts right what the rows say of a call since it was reserved.
func (s *scratch) reportEnd(
	domain *policy.Domain, n *note, report *Report, served string, requestCount int64, out *Settlement,
) {
	if !n.left {
		n.tier = out.tierName()
	}
	inAll := added(requestCount, report.Usage, out.Cost)
	var before, more addition
	if n.left {
		if requestCount > 0 {
			inAll[latencyColumn(limit.At(time.Now())-n.reserved)]++
		}
		prompt := stays(n.estimate)
		before = added(1, prompt, n.price.Cost(prompt))
	}
	if served == n.caller.Model {
		for column := range more {
			more[column] = inAll[column] - before[column]
		}
		s.reportCall(domain, n.part(served), &inAll, &more)
		return
	}
	for column := range more {
		more[column] = -before[column]
	}
	s.reportCall(domain, n.part(n.caller.Model), &addition{}, &more)
	s.report(domain, n.part(served), &inAll)
}

// noteOf finds what is known of a reservation: here, in the store, or by what is said of its caller, if anything.
func (e *Engine) noteOf(ctx context.Context, id ReservationID, caller *Caller) (n note, err error) {
	if b, ok := e.notes.Get(id); ok {
		return readNote([]byte(b))
	}
	s := e.scratch.Get().(*scratch)
	defer e.release(s)
	if err := e.askFor(ctx, s, id); err != nil {
		return note{}, err
	}
	if _, ofDescriptors := readPart(s.outcome.Note); len(s.outcome.Note) > 0 && !ofDescriptors {
		return readNote(s.outcome.Note)
	}
	if s.outcome.Lease == store.LeaseOpened || s.outcome.Lease == store.LeaseLapsed {
		// Nobody knows for whom it was made: over Envoy's protocol it is named by what requests say, which others may know.
		if err := scopeOf(ctx).takesUnknown(); err != nil {
			return note{}, err
		}
	}
	if caller == nil {
		return note{}, ErrUnknownReservation
	}
	return note{caller: *caller, reserved: limit.At(time.Now())}, nil
}

// askFor asks how a lease stands. The answer is the outcome of s.
func (e *Engine) askFor(ctx context.Context, s *scratch, id store.LeaseID) error {
	s.leased = store.Lease{ID: id, Do: store.LeaseLook}
	s.beginStep()
	s.step.Lease = &s.leased
	return e.apply(ctx, s, &Decision{})
}

// knows says that there certainly is a lease, or was one.
func (e *Engine) knows(ctx context.Context, id store.LeaseID) bool {
	s := e.scratch.Get().(*scratch)
	defer e.release(s)
	return e.askFor(ctx, s, id) == nil && s.outcome.Lease != store.LeaseUnknown
}

// price finds the price of the model that has served: that of the reservation, or of the same instant.
func (o *Settlement) price(domain *policy.Domain, n *note, served string, at time.Time) {
	o.Price = n.price
	if served == n.caller.Model && n.price.Known {
		return
	}
	p, unknown := priceOf(domain, served, at)
	if unknown {
		o.Unpriced = orUnnamed(served)
	}
	if p.Known {
		o.Price = p
	}
}

// leaveCharged has the step leave by what price the usage is charged, with what is known of the call: whoever reports it
// again is told the same, whatever the prices are by then.
func (s *scratch) leaveCharged(n note, by *Price) {
	if n.caller.Domain != "" {
		n.caller.Attributes, n.caller.APIKey = s.entries, "" // whose key it is will be known still
	}
	n.charged, n.settled = true, *by
	s.note = n.append(s.note[:0])
	s.leased.Note = s.note
}

// chargeAsFirst says of a repeat what the first report was charged.
func (o *Settlement) chargeAsFirst(s *scratch, reported price.Usage) {
	if s.outcome.Lease != store.LeaseReplayed {
		return
	}
	first, err := readNote(s.outcome.Note)
	if err != nil || !first.charged {
		return // the reservation was ended otherwise than by a report, or another version has ended it
	}
	now := o.Cost
	o.Price, o.Cost = first.settled, first.settled.Cost(reported)
	for i := range o.Limits {
		if a := &o.Limits[i]; a.Limit.Meter == policy.Cost && a.Amount == int64(now) {
			a.Amount = int64(o.Cost)
		}
	}
}

// conclude says what has become of the reservation.
func (o *Settlement) conclude(s *scratch, held *usage) {
	switch s.outcome.Lease {
	case store.LeaseCorrected:
		o.State = StateLapsed
	case store.LeaseUnknown:
		o.State = StateRecorded
	case store.LeaseReplayed:
		o.State, o.Replayed = StateSettled, true
	default:
		o.State = StateSettled
	}
	if o.State == StateRecorded {
		return
	}
	for i := range o.Limits {
		a := &o.Limits[i]
		a.Reserved, _ = held.of(measureOf(a.Limit))
	}
}

// Record is usage that was not reserved.
type Record struct {
	Caller
	Usage price.Usage
	// Requests is how many calls it was.
	Requests int64
	// Key names the usage, so that it counts once however often it is told of: as [Call.Key].
	Key string
}

// Record counts usage that was not reserved. It always lands. Its errors are those of Settle.
func (e *Engine) Record(ctx context.Context, r *Record, out *Settlement) error {
	*out = Settlement{Decision: Decision{Statuses: out.Statuses[:0], Limits: out.Limits[:0]}}
	switch {
	case len(r.Key) > MaxKey:
		return tooMuch("idempotency_key", "bytes", len(r.Key), MaxKey)
	case r.Requests < 0 || r.Requests > limit.MaxAmount:
		return &InvalidError{Field: "requests", Reason: "say 0 to 2^53-1 requests"}
	}
	if err := checkUsage("usage", r.Usage); err != nil {
		return err
	}
	now, domain, err := e.domainOf(ctx, &r.Caller)
	if err != nil {
		return err
	}
	s := e.scratch.Get().(*scratch)
	defer e.release(s)
	if err := e.findPlaces(ctx, domain, &r.Caller, &out.Decision, s, r.Model); err != nil {
		return err
	}
	out.Bar, s.now, s.tells = BarNone, time.Now(), true
	out.price(domain, &note{caller: r.Caller}, r.Model, s.now)
	out.Cost = out.Price.Cost(r.Usage)
	used := usageOf(r.Usage, r.Requests, &out.Price)
	if r.Key != "" {
		// Its names are apart from those of reservations: the NUL is in no key of theirs.
		id := s.leaseID(r.Domain, "record\x00"+r.Key)
		text := appendText(appendUsage([]byte("record"), r.Usage), r.Model)
		s.settleWhole(id, xxhash.Sum64(appendUsage(text, price.Usage{Input: r.Requests})), &used)
	}
	want := demand{record: used}
	for i := range s.matches {
		e.expand(&s.matches[i], &want, &s.payers[i], i, &out.Decision, s)
	}
	if r.Key != "" {
		s.leaveCharged(note{}, &out.Price)
	}
	reported := added(r.Requests, r.Usage, out.Cost)
	s.report(domain, part{limit.At(s.now), out.tierName(), r.Model}, &reported)
	if err := e.askWhole(ctx, s, &out.Decision); err != nil {
		return err
	}
	out.chargeAsFirst(s, r.Usage)
	e.metrics.count(now, s, &out.Decision)
	e.tellUnpricedCall(now, domain, r.Model, r.Usage, s, out)
	out.State, out.Replayed = StateRecorded, r.Key != "" && s.outcome.Lease == store.LeaseReplayed
	return nil
}
