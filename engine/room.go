package engine

import (
	"fmt"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/price"
)

// How much output fits.

// estimate returns what the call will use at most.
func (c *Call) estimate(a *Admission) (price.Usage, error) {
	if c.Prompt == nil {
		return c.Usage, checkUsage("estimate.usage", c.Usage)
	}
	if c.Prompt.Tokens < 0 || c.Prompt.Characters < 0 {
		return price.Usage{}, &InvalidError{Field: "estimate.prompt", Reason: "a prompt is not shorter than nothing: say 0 or more tokens or characters"}
	}
	most := a.Price.MaxOutput
	if most == 0 {
		if quote, known := price.Builtin().Find(c.Model, limit.Micros(0).Time()); known {
			most = quote.MaxOutput
		}
	}
	if capped, ok := tierCap(a.Tier); ok && (most == 0 || capped < most) {
		most = capped
	}
	u, ok := c.Prompt.Estimate(most)
	if !ok {
		return u, &InvalidError{
			Field: "estimate.prompt.output_caps",
			Reason: fmt.Sprintf("the longest answer of the model %.100q is not known: name the cap of the output that the "+
				"request to the model has, or give the tier an attribute max_output", c.Model),
		}
	}
	return u, nil
}

// tierCap returns the longest output that callers of a tier are meant to ask for: its attribute max_output.
func tierCap(t *policy.Tier) (tokens int64, ok bool) {
	if t == nil {
		return 0, false
	}
	n, ok := t.Attributes["max_output"].(float64)
	return int64(n), ok && n >= 0 && n <= float64(limit.MaxAmount)
}

// bound notes that a limit has so much room for a call, whose tokens beside its output are those of u.
func (d *Decision) bound(of measure, room int64, u price.Usage, p *Price) {
	fits, counts := outputWithin(of, room, u, p)
	if counts && (!d.Bounded || fits < d.MaxOutput) {
		d.MaxOutput, d.Bounded = max(0, fits), true
	}
}

// outputWithin returns how much output fits into an amount of what a limit counts, beside the rest of a call, and
// false where the limit does not count output. It is negative where not even the rest fits.
func outputWithin(of measure, amount int64, beside price.Usage, p *Price) (tokens int64, counts bool) {
	switch of {
	case ofOutput:
		return amount, true
	case ofTokens:
		return amount - limit.Add(limit.Add(beside.Input, beside.CacheRead), beside.CacheWrite), true
	case ofCost:
		if p.Known && p.Output > 0 {
			return p.OutputWithin(price.Nanos(amount), beside), true
		}
	default:
	}
	return 0, false
}

// clamp cuts the output of the estimate to what is ever admitted by those limits that say so.
func (e *Engine) clamp(a *Admission, s *scratch) {
	for i := range s.matches {
		for _, l := range s.matches[i].Limits {
			if !l.Clamp || l.Shadow {
				continue
			}
			_, q := e.allows(l, &s.payers[i], limit.At(s.now))
			if q == nil {
				continue
			}
			most := q.Spec.Ceiling()
			if q.PerRequest > 0 {
				most = min(most, q.PerRequest)
			}
			fits, counts := outputWithin(measureOf(l), most, a.Estimate, &a.Price)
			if counts && fits > 0 && fits < a.Estimate.Output {
				a.Estimate.Output, a.Clamped = fits, true
			}
		}
	}
}

// roomFor finds the longest output that fits, of a call whose other tokens are those of u. What the call holds itself
// is room for it.
func (a *Admission) roomFor(u price.Usage) {
	a.MaxOutput, a.Bounded = tierCap(a.Tier)
	for i := range a.Limits {
		l := &a.Limits[i]
		if l.Limit.Shadow || l.Unavailable || !l.Asks {
			continue
		}
		room := max(0, l.Status.Remaining)
		if !a.Over && l.held {
			room = limit.Add(room, l.Amount)
		}
		if l.Quantity.PerRequest > 0 {
			room = min(room, l.Quantity.PerRequest)
		}
		a.bound(measureOf(l.Limit), room, u, &a.Price)
	}
	if a.Clamped && a.MaxOutput > u.Output {
		a.MaxOutput = u.Output
	}
}
