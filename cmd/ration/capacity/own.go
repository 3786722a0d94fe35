package capacity

import (
	"fmt"
	"math/big"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/policy"
)

// allowance is what a limit of their own lets one user of a group do.
type allowance struct {
	limit string // its path
	spec  *limit.Spec
	each  int64 // of one call; above 0
	never bool  // no call fits
}

// own returns what limits the users of a group each by themselves.
func (p *Plan) own(g *Group) ([]allowance, error) {
	key := p.Domain.SubjectKey()
	if key == "" {
		return nil, nil
	}
	// Somebody of whom only the tier is known.
	asks := []policy.Entry{{Key: key, Value: "any user"}, {Key: "model", Value: g.Model}}
	if key == "model" {
		asks = asks[:1]
	}
	matches, _, err := p.Domain.MatchSet(asks, nil, nil)
	if err != nil {
		return nil, fmt.Errorf("the limits of %s: %w", key, err)
	}
	var all []allowance
	for i := range matches {
		m := &matches[i]
		if !m.HasSubject {
			continue
		}
		if r := m.Rule; r != nil && !r.Unlimited && !r.Shadow {
			all = append(all, allowance{limit: r.Path, spec: &r.Spec, each: 1})
		}
		for _, l := range m.Limits {
			q := l.For(g.Tier)
			if q == nil || l.Shadow {
				continue
			}
			used, asked, priced := p.amounts(l.Meter, g)
			a := allowance{limit: l.Path, spec: &q.Spec, each: used, never: !priced || tooLarge(l, q, asked)}
			if l.CountAsked {
				a.each = asked
			}
			if a.each > 0 || a.never {
				all = append(all, a)
			}
		}
	}
	return all, nil
}

// tooLarge says that one call asks for more than there ever is.
func tooLarge(l *policy.Limit, q *policy.Quantity, asked int64) bool {
	return !l.Clamp && (asked > q.Spec.Ceiling() || q.PerRequest > 0 && asked > q.PerRequest)
}

// calls returns how many calls fit in a time, of who begins with nothing used.
func (p *Plan) calls(a *allowance, span limit.Micros) *big.Rat {
	if a.never {
		return whole(0)
	}
	units := whole(a.spec.Ceiling())
	switch a.spec.Algorithm {
	case limit.TokenBucket:
		units = plus(units, times(whole(a.spec.Limit), ratio(span, a.spec.Window)))
	case limit.Concurrency:
		units = times(units, whole(Up(ratio(span, p.Duration))))
	default:
		units = times(units, whole(Up(ratio(span, windowOf(a.spec)))))
	}
	return whole(Down(over(units, whole(a.each))))
}

// most returns how many calls their own limits let all users of a group together make in a time; nil: any number.
func (p *Plan) most(g *Group, own []allowance, span limit.Micros) *big.Rat {
	var fewest *big.Rat
	for i := range own {
		if n := p.calls(&own[i], span); fewest == nil || n.Cmp(fewest) < 0 {
			fewest = n
		}
	}
	if fewest == nil {
		return nil
	}
	return times(whole(g.Users), fewest)
}

// Held is a limit of a user's own that holds them back from what is planned.
type Held struct {
	Group *Group
	Limit string // its path
	// Allows and Plans are calls of one user in a time of the length Span: an hour, a day or a month.
	Allows, Plans *big.Rat
	Span          limit.Micros
}

// held returns the limit that holds a user back most; nil if none does.
func (p *Plan) held(g *Group, own []allowance) *Held {
	var worst *Held
	for i := range own {
		for _, span := range []limit.Micros{Hour, Day, Month} {
			h := &Held{
				Group: g, Limit: own[i].limit, Span: span,
				Allows: p.calls(&own[i], span), Plans: over(p.Calls(g, span), whole(g.Users)),
			}
			if h.Allows.Cmp(h.Plans) < 0 && (worst == nil || over(h.Allows, h.Plans).Cmp(over(worst.Allows, worst.Plans)) < 0) {
				worst = h
			}
		}
	}
	return worst
}
