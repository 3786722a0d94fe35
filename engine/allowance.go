package engine

import (
	"fmt"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/subject"
)

// Allowance is what a limit allows to a subject by the policy in force: what overrides stand in place of, and grants are
// added to.
type Allowance struct {
	Limit   *policy.Limit
	Periods *policy.Periods
	// Quantity is what the subject's tier has; nil: it is unlimited.
	Quantity *policy.Quantity
}

// AllowanceOf returns what the limit of that path allows to a subject, of whom nothing but what s says is looked at.
//
// Errors: ErrNoPolicy, ErrUnknownDomain, and an *InvalidError of the field "limit" where no limit of a subject has the
// path.
func (e *Engine) AllowanceOf(s *subject.Subject, path string) (Allowance, error) {
	domain, err := e.Domain(s.Domain)
	if err != nil {
		return Allowance{}, err
	}
	l, err := limitNamed(domain, path)
	if err != nil {
		return Allowance{}, err
	}
	if !l.OfSubject() {
		return Allowance{}, &InvalidError{Field: "limit", Reason: fmt.Sprintf(
			"%.200q belongs to no subject: nothing of it can be set for one", path)}
	}
	who := payerByPolicy(domain, s.Name)
	e.learn(&who, domain, s)
	periods := l.PeriodsFor(who.zone, who.anchor)
	return Allowance{l, periods, periods.For(who.tier)}, nil
}

// Override reports why a text cannot be an override of the limit, if it cannot.
func (a *Allowance) Override(text string) error {
	_, err := a.Periods.Override(text, a.Quantity)
	return err
}

// PeriodEnd returns when the limit's period ends in which now lies, if it has periods that are the same for everybody
// who is in its time zone: those of a calendar, and fixed windows that do not begin with the first use.
func (a *Allowance) PeriodEnd(now limit.Micros) (end limit.Micros, ok bool) {
	if a.Quantity == nil {
		return 0, false
	}
	spec := &a.Quantity.Spec
	switch {
	case spec.Calendar != nil:
		_, end = spec.Calendar.Bounds(now)
		return end, true
	case spec.Algorithm == limit.FixedWindow && !spec.FirstUse:
		return spec.Start(now) + spec.Window, true
	}
	return 0, false
}

// Domain returns a domain of the policy in force, or ErrNoPolicy or ErrUnknownDomain.
func (e *Engine) Domain(name string) (*policy.Domain, error) {
	now := e.current.Load()
	if now == nil {
		return nil, ErrNoPolicy
	}
	if domain := now.policy.Domain(name); domain != nil {
		return domain, nil
	}
	return nil, fmt.Errorf("%w: %.100q", ErrUnknownDomain, name)
}

func limitNamed(domain *policy.Domain, path string) (*policy.Limit, error) {
	l, near := domain.LimitNamed(path)
	if l != nil {
		return l, nil
	}
	why := fmt.Sprintf("no limit of the domain %.100q has the path %.200q", domain.Name(), path)
	if path == "" {
		why = "it is empty: name the path of a limit"
	}
	if near != "" {
		why += fmt.Sprintf(": did you mean %q?", near)
	}
	return nil, &InvalidError{Field: "limit", Reason: why}
}
