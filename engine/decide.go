package engine

import (
	"context"
	"time"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/store"
)

// scratch is what one decision works with; it is used again by later ones.
type scratch struct {
	step    store.Step
	outcome store.Outcome
	// names holds the names of the counters, one after the other; ends[i] is where that of
	// descriptor i ends.
	names []byte
	ends  []int
	// descriptors[i] is the descriptor that op i of the step decides.
	descriptors []int
}

// keepNames bounds what a scratch keeps of a request with unusually long names.
const keepNames = 64 << 10

func (e *Engine) release(s *scratch) {
	if cap(s.names) > keepNames {
		s.names = nil
	}
	e.scratch.Put(s)
}

// Decide answers request: it finds the limit of each descriptor, lets the store judge and charge all
// of them in one step, and writes the answer to d.
//
// Errors: ErrNoDomain, ErrNoDescriptors, ErrNoPolicy; an *InvalidError for a request that cannot be
// read; ErrUnavailable, or that of ctx, which leave it unknown whether the request was charged; or
// ErrCorrupt. After any other error nothing was charged.
func (e *Engine) Decide(ctx context.Context, request *Request, d *Decision) error {
	started := time.Now()
	err := e.decide(ctx, request, d)
	e.metrics.decided(time.Since(started), d, err)
	return err
}

func (e *Engine) decide(ctx context.Context, request *Request, d *Decision) error {
	*d = Decision{Statuses: d.Statuses[:0]}
	switch {
	case request.Domain == "":
		return ErrNoDomain
	case len(request.Descriptors) == 0:
		return ErrNoDescriptors
	}
	now := e.current.Load()
	if now == nil {
		return ErrNoPolicy
	}
	if err := e.opts.Bounds.check(request); err != nil {
		return err
	}
	domain := now.policy.Domain(request.Domain)
	if domain == nil {
		for range request.Descriptors {
			d.Statuses = append(d.Statuses, Status{})
		}
		e.metrics.unknownDomain.Add(float64(len(d.Statuses)))
		return nil
	}

	s := e.scratch.Get().(*scratch)
	defer e.release(s)
	if err := e.match(domain, request, d, s); err != nil {
		return err
	}
	dropReplaced(d, e.opts.Quota)
	if e.prepare(request, d, s) {
		if err := e.apply(ctx, s); err != nil {
			return err
		}
		conclude(d, s)
	}
	e.metrics.count(now.rules, request, d)
	return nil
}

// match finds the limit of each descriptor, and the name of its counter.
func (e *Engine) match(domain *policy.Domain, request *Request, d *Decision, s *scratch) error {
	s.names, s.ends = s.names[:0], s.ends[:0]
	for i := range request.Descriptors {
		asked := &request.Descriptors[i]
		status := Status{Amount: request.amount(asked), Quota: e.opts.Quota}
		before := len(s.names)
		if asked.Override != nil {
			l, err := asked.Override.applies(i)
			if err != nil {
				return err
			}
			status.Limit, status.Limited = l, true
			s.names = policy.AppendBucket(s.names, request.Domain, asked.Entries, l.Spec.Window)
		} else {
			status.Rule, s.names = domain.Match(asked.Entries, s.names)
			status.follow(status.Rule)
		}
		if err := checkName(i, s.names[before:]); err != nil {
			return err
		}
		s.ends = append(s.ends, len(s.names))
		d.Statuses = append(d.Statuses, status)
	}
	return nil
}

// follow fills in what rule, if any, says.
func (s *Status) follow(rule *policy.Rule) {
	if rule == nil {
		return
	}
	s.Quota = s.Quota || rule.Quota
	s.Unlimited = rule.Unlimited
	if !rule.Unlimited {
		s.Limited = true
		s.Limit = Limit{Name: rule.Name, RequestsPerUnit: rule.RequestsPerUnit, Unit: rule.Unit, Spec: rule.Spec}
	}
}

// dropReplaced takes the limits away that another rule of the same request replaces. A rule that is
// replaced still replaces others.
func dropReplaced(d *Decision, allQuotas bool) {
	for i := range d.Statuses {
		if d.Statuses[i].Rule == nil {
			continue
		}
		for _, name := range d.Statuses[i].Rule.Replaces {
			for j := range d.Statuses {
				if s := &d.Statuses[j]; s.Limited && s.Limit.Name == name {
					s.Limited, s.Quota = false, allQuotas
				}
			}
		}
	}
}

// prepare writes the step that decides all limits of d, and reports whether there are any.
func (e *Engine) prepare(request *Request, d *Decision, s *scratch) bool {
	s.step = store.Step{Ops: s.step.Ops[:0], Shadow: e.opts.Shadow}
	s.descriptors = s.descriptors[:0]
	from := 0
	for i := range d.Statuses {
		status, name := &d.Statuses[i], s.names[from:s.ends[i]]
		from = s.ends[i]
		if !status.Limited {
			s.step.QuotaOpen = s.step.QuotaOpen || status.opensQuota()
			continue
		}
		op := store.Op{
			Bucket: name, Spec: status.Limit.Spec, Manner: limit.Plain, Amount: status.Amount,
			Quota: status.Quota, Shadow: status.Rule != nil && status.Rule.Shadow,
		}
		if request.Descriptors[i].GiveBack {
			op.Kind = store.GiveBack
		}
		s.step.Ops = append(s.step.Ops, op)
		s.descriptors = append(s.descriptors, i)
	}
	return len(s.step.Ops) > 0
}

// opensQuota says that a descriptor to which no limit applies counts as a quota with room.
func (s *Status) opensQuota() bool { return !s.Limited && !s.Unlimited && s.Quota }

func (e *Engine) apply(ctx context.Context, s *scratch) error {
	started := time.Now()
	err := e.store.Apply(ctx, &s.step, &s.outcome)
	e.metrics.applied(time.Since(started), err)
	return err
}

// conclude writes what the store answered to the statuses.
func conclude(d *Decision, s *scratch) {
	d.Now = s.outcome.Now
	d.Over = s.outcome.Refused
	for op, i := range s.descriptors {
		status, result := &d.Statuses[i], s.outcome.Results[op]
		status.Exceeded = result.Refused
		status.Over = result.Refused && !s.step.Ops[op].Shadow
		status.Remaining = status.Limit.Spec.Remaining(result.Used)
		status.ResetAfter = status.Limit.Spec.ResetAfter(d.Now)
	}
}
