package policy

import (
	"maps"
	"slices"
)

// upstreams warns of models that another upstream serves, and of upstreams that no model reaches.
func (l *linter) upstreams(d *Domain) {
	for _, u := range d.upstreams {
		reached := false
		for _, m := range u.models {
			first := d.models.exact[m.value]
			if isPattern(m.value) {
				if !l.spend(d.models.patterns.cost([]byte(m.value))) {
					return
				}
				first = d.models.upstreams[d.models.patterns.first([]byte(m.value))]
			}
			if first == u {
				reached = true
				continue
			}
			l.rep.warn(m.at, "upstream `%s` at %s serves `%s` already, and comes first", clip(first.Name), first.place, clip(m.value))
		}
		if !reached {
			l.rep.warn(u.place, "no model reaches upstream `%s`", clip(u.Name))
		}
	}
}

// subjects warns of what is said about subjects where no request has one.
func (l *linter) subjects(d *Domain) {
	if len(d.root.payers(nil)) > 0 {
		return
	}
	const cure = "no descriptor has `subject: true`"
	if len(d.tiers) > 0 && !d.trustsTier {
		l.rep.warn(d.tiers[0].place, "everybody is in tier `%s`: %s", clip(d.tiers[0].Name), cure)
	}
	for _, name := range slices.Sorted(maps.Keys(d.subjects)) {
		l.rep.warn(d.subjects[name].place, "subject `%s` never asks: %s", clip(name), cure)
	}
}

// idle warns of a limit that limits nobody.
func (l *linter) idle(lim *Limit) {
	for _, q := range lim.quantities {
		if q != nil {
			return
		}
	}
	l.rep.warn(lim.place(), "limit `%s` has no effect: it is unlimited for everybody", clip(lim.Name))
}
