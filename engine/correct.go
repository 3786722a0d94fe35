package engine

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/store"
	"github.com/rationhq/ration/subject"
)

// Correction changes by hand what counts as used of limits.
type Correction struct {
	// Caller says by its attributes whose limits.
	Caller Caller
	// Limit is the path of the limit; empty: all that apply and belong to a subject. Only of Reset.
	Limit string
	// Amount is what Adjust adds, in units of the limit's meter; below 0: what it takes away.
	Amount int64
	// Before is told, once for each limit, what is about to be done; an error of it ends the correction. It is for
	// writing down who did it: nothing is changed that is not written down.
	Before func(ctx context.Context, what *Corrected) error
}

// Corrected is what is done to one limit.
type Corrected struct {
	Subject subject.Ref
	Limit   *policy.Limit
	Amount  int64
}

// Adjust adds to what counts as used of a limit now, or takes away from it: down to nothing, and of limits with windows
// from the current one only, as every give-back ([limit.Spec.GiveBack]). What is held stays held. It is never refused.
// Statuses of d are none; its Limits have the one limit, as it stands then.
//
// Errors: an *InvalidError; ErrNoPolicy, ErrUnknownDomain; and those of the store as [Engine.Decide], after which it is
// unknown whether it was done.
func (e *Engine) Adjust(ctx context.Context, c *Correction, d *Decision) error {
	switch {
	case c.Limit == "":
		return &InvalidError{Field: "limit", Reason: "it is empty: name the path of a limit"}
	case c.Amount < -limit.MaxAmount || c.Amount > limit.MaxAmount:
		return &InvalidError{Field: "amount", Reason: "say −(2^53−1) to 2^53−1 units"}
	}
	return e.correct(ctx, c, d, func(*Applied) int64 { return c.Amount })
}

// Reset takes away all that counts as used of one limit, or of all that apply and belong to a subject: it looks, and
// takes away what it has seen. What others use in between stays, what is held stays held, and so does what a sliding
// window still counts of the window before. Errors are those of Adjust.
func (e *Engine) Reset(ctx context.Context, c *Correction, d *Decision) error {
	return e.correct(ctx, c, d, func(a *Applied) int64 { return -max(0, a.Status.Used) })
}

// correct looks how the limits stand, and lets amount say of each what is added.
func (e *Engine) correct(ctx context.Context, c *Correction, d *Decision, amount func(*Applied) int64) error {
	*d = Decision{Statuses: d.Statuses[:0], Limits: d.Limits[:0]}
	_, domain, err := e.domainOf(ctx, &c.Caller)
	if err != nil {
		return err
	}
	if c.Limit != "" {
		if _, err := limitNamed(domain, c.Limit); err != nil {
			return err
		}
	}
	s := e.scratch.Get().(*scratch)
	defer e.release(s)
	if err := e.findPlaces(ctx, domain, &c.Caller, d, s, c.Caller.Model); err != nil {
		return err
	}
	d.Bar, s.now = BarNone, time.Now()
	places, err := e.placesOf(c, d, s)
	if err != nil {
		return err
	}
	if err := e.apply(ctx, s, d); err != nil {
		return err
	}
	s.conclude(d)
	changes := false
	for i := range places {
		what, op := &places[i], &s.step.Ops[i]
		if what.Amount = amount(&d.Limits[i]); what.Amount == 0 {
			continue
		}
		if c.Before != nil {
			if err := c.Before(ctx, what); err != nil {
				return err
			}
		}
		if op.Kind, op.Amount = store.Record, what.Amount; what.Amount < 0 {
			op.Kind, op.Amount = store.GiveBack, -what.Amount
		}
		d.Limits[i].Amount, d.Limits[i].Asks, changes = op.Amount, false, true
	}
	if changes {
		if err := e.apply(ctx, s, d); err != nil {
			return err
		}
		s.conclude(d)
	}
	d.Statuses = d.Statuses[:0]
	return nil
}

// placesOf makes the step one that looks at the limits that are to be corrected, an op for each.
func (e *Engine) placesOf(c *Correction, d *Decision, s *scratch) (places []Corrected, err error) {
	var elsewhere []string
	for i := range s.matches {
		m := &s.matches[i]
		for _, l := range m.Limits {
			if c.Limit != "" && l.Path != c.Limit {
				elsewhere = append(elsewhere, l.Path)
				continue
			}
			periods, q := e.allows(l, &s.payers[i], limit.At(s.now))
			switch why := notCorrected(m, l, q); {
			case why == "":
				o := opening{limit: l, periods: periods, quantity: q, match: m, descriptor: i, tier: s.payers[i].tier, zone: s.payers[i].zone}
				if s.open(d, o, store.Charge, 0, 0) == len(places) {
					s.step.Ops[len(places)].Shadow = true // it is only looked at, and refuses nothing
					places = append(places, Corrected{Subject: subject.Ref{Domain: c.Caller.Domain, Name: m.Subject}, Limit: l})
				}
			case c.Limit != "":
				return nil, &InvalidError{Field: "limit", Reason: why}
			}
		}
	}
	switch {
	case len(places) > 0:
		return places, nil
	case c.Limit == "":
		return nil, &InvalidError{Field: "caller.attributes", Reason: "no limit of a subject applies to the caller"}
	case len(elsewhere) == 0:
		return nil, &InvalidError{Field: "limit", Reason: fmt.Sprintf("%.200q does not apply to the caller, nor does another", c.Limit)}
	}
	const most = 10
	if len(elsewhere) > most {
		elsewhere = append(elsewhere[:most], "…")
	}
	return nil, &InvalidError{Field: "limit", Reason: fmt.Sprintf(
		"%.200q does not apply to the caller; these do: %s", c.Limit, strings.Join(elsewhere, ", "))}
}

// notCorrected says why a limit is not corrected by hand; empty where it is.
func notCorrected(m *policy.Match, l *policy.Limit, q *policy.Quantity) string {
	switch {
	case !m.HasSubject:
		return fmt.Sprintf("%.200q belongs to no subject, in whose record it would stand who has corrected it", l.Path)
	case q == nil:
		return fmt.Sprintf("%.200q is unlimited for the caller: nothing is counted", l.Path)
	case l.Meter == policy.InFlight:
		return fmt.Sprintf("%.200q counts calls under way: settle or release them", l.Path)
	}
	return ""
}
