package engine

import (
	"fmt"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/price"
	"github.com/rationhq/ration/store"
)

// Tokens that were used and have no price: limits of tokens count them, and those of cost cannot. A request
// that asks for them may be refused; usage that was reported stands, so it has to be told of.

// unpricedCause is why tokens have no price.
type unpricedCause int

const (
	unknownModel unpricedCause = iota // the book has none for the model
	noModel                           // nobody says which model it was
	unpricedCauses
)

func (c unpricedCause) String() string { return [...]string{"unknown_model", "no_model"}[c] }

// unnamedModel stands for the model that has no price where nobody says which it is.
const unnamedModel = "(none)"

func orUnnamed(model string) string {
	if model == "" {
		return unnamedModel
	}
	return model
}

// unpricedCounters counts the requests of a domain that had such usage.
type unpricedCounters [unpricedCauses]prometheus.Counter

// countUnpriced makes the metric.
func (m *Metrics) countUnpriced() {
	m.unpriced = newCounters(m, "ration_unpriced_usage_total",
		"Requests with usage that limits of cost could not count, because it has no price.", "domain", "cause")
}

// bindUnpriced returns the counters of the domains that limit money.
func (m *Metrics) bindUnpriced(p *policy.Policy) map[*policy.Domain]*unpricedCounters {
	by := make(map[*policy.Domain]*unpricedCounters)
	for _, d := range p.Domains() {
		if !slices.ContainsFunc(d.Limits(), func(l *policy.Limit) bool { return l.Meter == policy.Cost }) {
			continue
		}
		counters := new(unpricedCounters)
		for cause := range unpricedCauses {
			counters[cause] = m.unpriced.WithLabelValues(d.Name(), cause.String())
		}
		by[d] = counters
	}
	return by
}

// costs notes which descriptors a limit of cost applies to: the one that a match is of, or all.
func (s *scratch) costs(m *policy.Match, descriptor int) {
	if m != &s.shared {
		s.asked[descriptor].costs = true
		return
	}
	for i := range s.asked {
		s.asked[i].costs = true
	}
}

// tellUnpriced counts, and logs, that usage of the request has no price, after it was decided.
func (e *Engine) tellUnpriced(now *loaded, domain *policy.Domain, s *scratch, d *Decision) {
	var seen [unpricedCauses]bool
	for i := range s.asked {
		a := &s.asked[i]
		used := a.phase == record || a.phase == admit && !d.Over
		if !a.costs || !used || a.giveBack || a.amount == 0 || tokenClasses&(1<<a.class) == 0 {
			continue
		}
		cause := noModel
		if a.model != "" {
			cause = unknownModel
			if !slices.Contains(s.unknownModels, a.model) {
				continue
			}
		}
		if !seen[cause] {
			seen[cause] = true
			now.unpriced[domain][cause].Inc()
			e.noteUnpriced(domain, a.model, s.now)
		}
	}
}

// tellUnpricedCall counts, and logs, that what a call of a model has used has no price.
func (e *Engine) tellUnpricedCall(
	now *loaded, domain *policy.Domain, model string, used price.Usage, s *scratch, out *Settlement,
) {
	costs := slices.ContainsFunc(s.asked, func(a asked) bool { return a.costs })
	if out.Unpriced == unnamedModel && !costs || used == (price.Usage{}) {
		out.Unpriced = ""
	}
	if !costs || out.Unpriced == "" || s.outcome.Lease == store.LeaseReplayed {
		return
	}
	cause := unknownModel
	if out.Unpriced == unnamedModel {
		cause = noModel
	}
	now.unpriced[domain][cause].Inc()
	e.noteUnpriced(domain, model, s.now)
}

func (e *Engine) noteUnpriced(domain *policy.Domain, model string, now time.Time) {
	if !e.unpricedNoted.allows(now) {
		return
	}
	if model == "" {
		e.opts.Log.Warn("tokens were used, and limits of cost do not count them: nobody says of which model; "+
			"this is said once a minute at most", "domain", domain.Name())
		return
	}
	e.opts.Log.Warn("tokens were used, and limits of cost do not count them: their model has no price; "+
		"this is said once a minute at most", "domain", domain.Name(), "model", fmt.Sprintf("%.100s", model),
		"nearest", domain.Prices().Nearest(model))
}
