package engine

import (
	"fmt"
	"slices"

	"github.com/rationhq/ration/engine/provider"
	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/policy"
)

// depletion is what a provider's answer does to one limit: no more than so much is left of it, and nothing before a while
// has passed.
type depletion struct {
	limit    *policy.Limit
	quantity *policy.Quantity
	left     int64
	wait     limit.Micros
}

// usualReset is how long providers count that do not say it.
const usualReset = 60 * limit.Second

// planOf returns what the limits of out.Upstream do, and notes in out what does not count.
//
// Which limit follows which header is decided by how long the limit needs to recover. A header tells of some limit of the
// provider that is whole again after its reset; a limit of the policy follows it if it counts the same and recovers, from
// nothing, in twice that time at most ([lasts]). So one that the provider counts by the minute never empties a budget of a
// day. After a refusal those follow of which nothing is left there, else those of requests, else all others of tokens;
// among them those that recover in twice the time that is to be waited, or in two minutes.
func planOf(domain *policy.Domain, facts *provider.Facts, now, age limit.Micros, out *Followed) []depletion {
	p := planner{out: out}
	for _, l := range out.Upstream.Limits() {
		if q := wholeOf(domain, l); q != nil && l.Meter != policy.Cost && l.Meter != policy.InFlight {
			p.limits = append(p.limits, depletion{limit: l, quantity: q, left: limit.MaxAmount})
			p.lasts = append(p.lasts, lasts(&q.Spec, now))
		}
	}
	for _, n := range facts.Notes {
		p.ignore(n.Header, nil, n.Why)
	}
	for i := range facts.Left {
		p.left(&facts.Left[i], age)
	}
	if out.Refused = facts.Refused; facts.Refused {
		p.refused(facts, age)
	}
	return slices.DeleteFunc(p.limits, func(d depletion) bool { return d.left >= d.quantity.Spec.Capacity() && d.wait == 0 })
}

// planner makes a plan.
type planner struct {
	out    *Followed
	limits []depletion
	lasts  []limit.Micros // of each, how long it needs to recover
}

func (p *planner) ignore(header string, of *policy.Limit, why string) {
	i := Ignored{Header: header, Why: why}
	if of != nil {
		i.Limit = of.Path
	}
	p.out.Ignored = append(p.out.Ignored, i)
}

// left lets limits follow what is left of one of the provider's.
func (p *planner) left(l *provider.Left, age limit.Micros) {
	if age > FreshFor {
		p.ignore(l.Header, nil, fmt.Sprintf("the answer is %d seconds old: what was left then is not what is left now", age.Seconds()))
		return
	}
	reset := usualReset
	if l.HasReset {
		reset = max(0, l.Reset-age)
	}
	counted := false
	for i := range p.limits {
		d := &p.limits[i]
		if d.limit.Meter != l.Meter {
			continue
		}
		counted = true
		if p.lasts[i] > 2*reset {
			p.ignore(l.Header, d.limit, fmt.Sprintf("it says that all is there again in %v, and the limit needs %v",
				reset.Duration(), p.lasts[i].Duration()))
			continue
		}
		d.left = min(d.left, l.Amount)
	}
	if !counted {
		p.ignore(l.Header, nil, fmt.Sprintf("the upstream has no limit of %s", l.Meter))
	}
}

// refused lets nothing through before it is time.
func (p *planner) refused(facts *provider.Facts, age limit.Micros) {
	p.out.Wait = max(0, facts.Wait-age)
	if age > FreshFor && p.out.Wait == 0 {
		p.ignore("", nil, fmt.Sprintf("the answer is %d seconds old, and what it wants to be waited for is over", age.Seconds()))
		return
	}
	empty := func(m policy.Meter) bool {
		return slices.ContainsFunc(facts.Left, func(l provider.Left) bool { return l.Meter == m && l.Amount == 0 })
	}
	ofRequests := func(m policy.Meter) bool { return m == policy.Requests }
	all := func(policy.Meter) bool { return true }
	for _, of := range [...]func(policy.Meter) bool{empty, ofRequests, all} {
		closed := false
		for i := range p.limits {
			if d := &p.limits[i]; of(d.limit.Meter) && p.lasts[i] <= 2*max(facts.Wait, usualReset) {
				d.left, d.wait, closed = 0, p.out.Wait, true
			}
		}
		if closed {
			return
		}
	}
	p.ignore("", nil, "the upstream has no limit that would recover soon enough: give it one of requests per minute")
}

// wholeOf returns all that a limit allows to whom it allows most; nil where it is unlimited. What some have to leave to
// others the provider knows nothing of.
func wholeOf(domain *policy.Domain, l *policy.Limit) *policy.Quantity {
	var most *policy.Quantity
	for tier := range max(1, len(domain.Tiers())) {
		if q := l.For(tier); q != nil && (most == nil || q.Spec.Capacity() > most.Spec.Capacity()) {
			most = q
		}
	}
	if most == nil {
		return nil
	}
	whole := *most
	whole.Spec.Headroom = 0
	return &whole
}

// lasts returns how long a limit of which nothing is left needs at most until all of it is there again.
func lasts(s *limit.Spec, now limit.Micros) limit.Micros {
	var st limit.State
	switch at := s.Advance(&st, now); {
	case s.Calendar != nil:
		start, end := s.Calendar.Bounds(at)
		return end - start
	case s.Algorithm != limit.TokenBucket:
		return s.Window
	case s.Limit == 0:
		return provider.MaxReset // it never does
	default:
		s.Charge(&st, at, s.Capacity())
		return s.Describe(&st, at).ResetAfter
	}
}

// needed leaves out of a plan what is so already.
func needed(plan []depletion, known *Decision) []depletion {
	if known == nil {
		return plan
	}
	return slices.DeleteFunc(plan, func(d depletion) bool {
		return d.wait == 0 && slices.ContainsFunc(known.Limits, func(a Applied) bool {
			return a.Limit == d.limit && d.quantity.Spec.Capacity()-a.Status.Used-a.Status.Held <= d.left
		})
	})
}
