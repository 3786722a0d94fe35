package engine

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/price"
	"github.com/rationhq/ration/store"
)

// Call is a call of a model that somebody wants to make.
type Call struct {
	Caller
	// Usage is what it will use at most. Prompt, where it is set, says that nobody has counted it.
	Usage  price.Usage
	Prompt *price.Prompt
	// Key names the call, so that the same call asked for again is not another one: at most MaxKey bytes, unique
	// within the domain and the subject. Empty: it cannot be repeated safely.
	Key string
	// Lasts is how long the reservation lives if nobody settles it, at most store.MaxLease; 0: DefaultLease.
	Lasts limit.Micros
	// API is the one whose client is answered; it makes no other call.
	API API
}

const (
	// MaxKey is how long the name of a call is at most, in bytes.
	MaxKey = 200
	// DefaultLease is how long a reservation lives that says nothing of it.
	DefaultLease = leaseLasts
	// MaxLease is how long one lives at most.
	MaxLease = store.MaxLease
)

// ReservationID names a reservation.
type ReservationID = store.LeaseID

// Admission is what is said to a call.
type Admission struct {
	Decision
	// ID names the reservation, and Expires is when it lapses, by the store's clock. Both are zero where the call is
	// refused, or was only asked about.
	ID      ReservationID
	Expires limit.Micros
	// Replayed says that the call was admitted before, and nothing has changed.
	Replayed bool
	// Estimate is what was judged, Price by what, and Cost what that costs.
	Estimate price.Usage
	Price    Price
	Cost     price.Nanos
	// PolicyVersion is that of the policy that has judged.
	PolicyVersion string
	// Clamped says that a limit has cut the output of the estimate to what it ever admits: the model has to be told.
	Clamped bool
}

// Reserve admits a call and holds its estimate under every limit that applies, all or nothing.
//
// Errors: an *InvalidError; ErrNoPolicy, ErrUnknownDomain; ErrKeyReused; and those of the store as [Engine.Decide].
func (e *Engine) Reserve(ctx context.Context, call *Call, a *Admission) error {
	started := time.Now()
	err := e.reserve(ctx, call, a)
	e.metrics.decided(time.Since(started), &a.Decision, err)
	return err
}

func (e *Engine) reserve(ctx context.Context, call *Call, a *Admission) error {
	s := e.scratch.Get().(*scratch)
	defer e.release(s)
	r := newReservation(e, call, a, s)
	if err := r.prepare(ctx, ""); err != nil {
		return err
	}
	if err := r.ask(ctx); err != nil {
		return err
	}
	r.conclude()
	return nil
}

// reservation is a call on its way to being reserved.
type reservation struct {
	asking
	call      *Call
	admission *Admission
	want      demand

	lasts limit.Micros
	id    ReservationID // once it is prepared
	note  note
}

func newReservation(e *Engine, call *Call, a *Admission, s *scratch) *reservation {
	s.reservation = reservation{asking: asking{engine: e, decision: &a.Decision, s: s}, call: call, admission: a}
	return &s.reservation
}

func (r *reservation) base() *asking { return &r.asking }

func (r *reservation) wants() *demand { return &r.want }

func (r *reservation) named() bool { return r.call.Key != "" }

// prepare implements candidate.
func (r *reservation) prepare(ctx context.Context, lane string) (err error) {
	e, call, a, s := r.engine, r.call, r.admission, r.s
	if len(call.Key) > MaxKey {
		return tooMuch("idempotency_key", "bytes", len(call.Key), MaxKey)
	}
	if r.lasts, err = leaseOf(call.Lasts); err != nil {
		return err
	}
	if r.now, r.domain, err = e.begin(ctx, &call.Caller, a); err != nil {
		return err
	}
	s.in, s.apartFrom = r.domain.Lane(lane), nil
	if r.want, err = e.judge(ctx, r.now, r.domain, call, a, s, store.Hold); err != nil {
		return err
	}
	l := &s.leased
	switch {
	case call.Key != "":
		r.id = s.leaseID(call.Domain, call.Key)
	case r.id == ReservationID{}:
		_, _ = rand.Read(r.id[:]) // never fails
	}
	*l = store.Lease{ID: r.id, Do: store.LeaseOpen, Lasts: r.lasts, Request: s.fingerprintOf(call, r.lasts)}
	n := &r.note
	*n = note{
		caller: call.Caller, reserved: limit.At(s.now), tier: a.tierName(),
		estimate: a.Estimate, clamped: a.Clamped, price: a.Price, left: true,
	}
	prompt := stays(a.Estimate)
	reported := added(1, prompt, a.Price.Cost(prompt))
	s.reportCall(r.domain, n.part(call.Model), &reported, &reported)
	n.caller.Attributes, n.caller.APIKey = s.entries, "" // whose key it is will be known still
	s.note = n.append(s.note[:0])
	l.Note, s.step.Lease = s.note, l
	return nil
}

// look implements candidate.
func (r *reservation) look(ctx context.Context, lane string) (err error) {
	e, a, s := r.engine, r.admission, r.s
	if r.now, r.domain, err = e.begin(ctx, &r.call.Caller, a); err != nil {
		return err
	}
	s.in, s.apartFrom = nil, r.domain.Lane(lane)
	if _, err := e.judge(ctx, r.now, r.domain, r.call, a, s, store.Charge); err != nil {
		return err
	}
	s.onlyLook(e.opts.Shadow)
	return e.askWhole(ctx, s, &a.Decision)
}

// ask implements candidate.
func (r *reservation) ask(ctx context.Context) error {
	a, s := r.admission, r.s
	if err := r.engine.askWhole(ctx, s, &a.Decision); err != nil {
		return err
	}
	if s.outcome.Lease == store.LeaseReplayed && a.Degraded == policy.StoreErrorNone && s.step.Refused {
		s.admitAgain(&a.Decision)
	}
	return nil
}

// abandon implements candidate.
func (r *reservation) abandon(ctx context.Context) {
	_ = r.engine.Release(ctx, r.id, new(Settlement)) // else it lapses
}

// conclude implements candidate.
func (r *reservation) conclude() {
	e, a, s := r.engine, r.admission, r.s
	if a.Degraded == policy.StoreErrorNone {
		e.reportRefusal(r.domain, r.call.Model, s, &a.Decision)
		e.metrics.count(r.now, s, &a.Decision)
	}
	a.roomFor(a.Estimate)
	if a.Over || s.looks {
		return
	}
	a.ID, a.Expires = r.id, a.Now+r.lasts
	switch {
	case a.Degraded != policy.StoreErrorNone:
		r.note.left = false
		s.note = r.note.append(s.note[:0])
	case s.outcome.Lease == store.LeaseReplayed:
		a.Replayed = true
		first, err := readNote(s.outcome.Note)
		if err != nil {
			return // another version has left it, and will settle it
		}
		a.Expires, a.Price, a.Estimate, a.Clamped = first.reserved+r.lasts, first.price, first.estimate, first.clamped
		a.Cost = a.Price.Cost(a.Estimate)
		a.roomFor(a.Estimate)
		s.note = append(s.note[:0], s.outcome.Note...)
	}
	e.notes.Add(r.id, string(s.note))
}

// admitAgain lets a call pass that was admitted before: what has refused it since, by a policy or a directory of now, is too
// late. Its plain rules count it again, and may refuse.
func (s *scratch) admitAgain(d *Decision) {
	d.Bar, s.step.Refused = BarNone, false
	for i := range d.Limits {
		d.Limits[i].TooLarge, d.Limits[i].Unpriced = false, ""
	}
	for i := range d.Statuses {
		if st := &d.Statuses[i]; st.Applied != nil {
			*st = Status{Rule: st.Rule, Unlimited: st.Unlimited, Quota: st.Quota, Amount: st.Amount}
		}
	}
	s.outcome.Refused = s.limitsRefuse() && !s.step.Shadow
	s.conclude(d)
}

// leaseOf returns how long a reservation lives that was asked for with lasts.
func leaseOf(lasts limit.Micros) (limit.Micros, error) {
	switch {
	case lasts == 0:
		return DefaultLease, nil
	case lasts < limit.Second/1000 || lasts > MaxLease:
		return 0, &InvalidError{Field: "lease", Reason: "a reservation lives for a millisecond to an hour"}
	}
	return lasts, nil
}

// Check says what Reserve would say now, and changes nothing.
func (e *Engine) Check(ctx context.Context, call *Call, a *Admission) error {
	s := e.scratch.Get().(*scratch)
	defer e.release(s)
	return e.check(ctx, call, a, s)
}

func (e *Engine) check(ctx context.Context, call *Call, a *Admission, s *scratch) error {
	now, domain, err := e.begin(ctx, &call.Caller, a)
	if err != nil {
		return err
	}
	if _, err := e.judge(ctx, now, domain, call, a, s, store.Charge); err != nil {
		return err
	}
	s.onlyLook(e.opts.Shadow)
	if err := e.askWhole(ctx, s, &a.Decision); err != nil {
		return err
	}
	a.roomFor(a.Estimate)
	return nil
}

// begin makes a the empty answer to a caller, and finds the policy that judges the call.
func (e *Engine) begin(ctx context.Context, c *Caller, a *Admission) (*loaded, *policy.Domain, error) {
	*a = Admission{Decision: Decision{Statuses: a.Statuses[:0], Limits: a.Limits[:0]}}
	return e.domainOf(ctx, c)
}

// domainOf returns the domain of a caller, if whoever asks may act for it.
func (e *Engine) domainOf(ctx context.Context, c *Caller) (*loaded, *policy.Domain, error) {
	if err := c.check(); err != nil {
		return nil, nil, err
	}
	if err := scopeOf(ctx).takesDomain(c.Domain); err != nil {
		return nil, nil, err
	}
	now := e.current.Load()
	if now == nil {
		return nil, nil, ErrNoPolicy
	}
	domain := now.policy.Domain(c.Domain)
	if domain == nil {
		e.metrics.unknownDomain.Inc()
		return nil, nil, fmt.Errorf("%w: %.100q", ErrUnknownDomain, c.Domain)
	}
	return now, domain, nil
}

// judge writes the step that asks every limit for room for a call, by ops of a kind: holds, or charges. It returns what it asks
// for.
func (e *Engine) judge(
	ctx context.Context, now *loaded, domain *policy.Domain, call *Call, a *Admission, s *scratch, by store.Kind,
) (want demand, err error) {
	d := &a.Decision
	d.API, a.PolicyVersion = call.API, now.policy.Version()
	if err := e.findPlaces(ctx, domain, &call.Caller, d, s, call.Model); err != nil {
		return want, err
	}
	s.now = time.Now()
	var unknown bool
	a.Price, unknown = priceOf(domain, call.Model, s.now)
	if a.Estimate, err = call.estimate(a); err != nil {
		return want, err
	}
	e.clamp(a, s)
	if call.Model == "" && a.Estimate == (price.Usage{}) {
		a.Price, unknown = Price{}, false // there is nothing to be paid
	}
	a.Cost = a.Price.Cost(a.Estimate)

	want.free = a.Price.Known && a.Price.Rates == price.Rates{}
	if unknown && !a.Price.Known {
		want.unpriced, want.book = orUnnamed(call.Model), domain.Prices()
	}
	if by == store.Hold {
		want.hold = usageOf(a.Estimate, 1, &a.Price)
	} else {
		want.charge = usageOf(a.Estimate, 1, &a.Price)
	}
	e.askPlaces(&want, d, s)
	s.judgeSizes(d)
	s.bar(d)
	return want, nil
}

// askWhole lets the store decide an account, or the limits where it cannot.
func (e *Engine) askWhole(ctx context.Context, s *scratch, d *Decision) error {
	if s.isEmpty() {
		d.Over = d.Bar != BarNone && !e.opts.Shadow
		return nil
	}
	s.step.Rows, s.newKinds = e.kinds.bound(s.step.Rows)
	err := e.apply(ctx, s, d)
	switch {
	case err == nil:
		s.conclude(d)
		return nil
	case errors.Is(err, store.ErrConflict):
		return ErrKeyReused
	case ctx.Err() == nil && undecided(err):
		return e.without(ctx, s, d, err)
	}
	return err
}

// onlyLook makes the step one that judges all that it asks for, and writes nothing.
func (s *scratch) onlyLook(shadow bool) {
	s.looks, s.refused = true, s.step.Refused
	s.step.Refused, s.step.Shadow = true, false // what is refused already charges nothing
	for i := range s.step.Ops {
		op := &s.step.Ops[i]
		op.CountRefusals, op.Shadow = false, op.Shadow || shadow
		if op.Manner == limit.Plain {
			op.Amount = 0 // it would be written even so
		}
	}
}

// wouldRefuse judges a call that the store was only asked about, as the store would have.
func (s *scratch) wouldRefuse() bool {
	for i := range s.step.Ops {
		if result := &s.outcome.Results[i]; s.step.Ops[i].Manner == limit.Plain {
			result.Refused = result.Remaining < 1
		}
	}
	return s.refused || s.limitsRefuse()
}

// limitsRefuse is the verdict of the limits alone, whatever else there is to be said of the call.
func (s *scratch) limitsRefuse() bool {
	var tally limit.Tally
	for i := range s.step.Ops {
		tally.Add(s.step.Ops[i].Quota, s.outcome.Results[i].Refused && !s.step.Ops[i].Shadow)
	}
	if s.step.QuotaOpen {
		tally.Add(true, false)
	}
	return tally.Refuses()
}

// fingerprintOf tells a call that is asked for again from another one under its key.
func (s *scratch) fingerprintOf(c *Call, lasts limit.Micros) uint64 {
	text := appendText(s.text[:0], "reserve")
	for _, e := range s.entries {
		text = appendText(appendText(text, e.Key), e.Value)
	}
	text = appendText(appendText(text, c.Model), c.Tier)
	text = binary.AppendVarint(appendUsage(text, c.Usage), int64(lasts))
	if p := c.Prompt; p != nil {
		text = binary.AppendVarint(binary.AppendVarint(text, p.Tokens), p.Characters)
		for _, list := range [][]int64{p.OutputCaps, p.Choices} {
			text = binary.AppendUvarint(text, uint64(len(list)))
			for _, n := range list {
				text = binary.AppendVarint(text, n)
			}
		}
	}
	s.text = text
	return xxhash.Sum64(text)
}
