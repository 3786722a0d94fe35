package policy

import (
	"fmt"
	"time"
)

// lintBudget bounds the search for wildcards that never apply, and for models without a price, in bytes
// compared: it is quadratic in the wildcards that begin alike.
const lintBudget = 50 << 20

// lint reports what loads and is probably not meant. whole says that every file could be read, so
// that a name that nothing has is missing indeed; now may be nil.
func (p *Policy) lint(rep *report, whole bool, now func() time.Time) {
	l := linter{rep: rep, budget: lintBudget, paths: map[string]place{}}
	if now != nil {
		l.now = now()
	}
	for _, d := range p.sorted {
		l.reach(&d.root)
		l.names(d, whole)
		l.upstreams(d)
		l.lanes(d, whole)
		l.prices(d)
		if whole {
			l.subjects(d)
			l.anonymous(d)
			l.priced(d)
		}
	}
	for _, r := range p.rules {
		l.path("rule", r.Path, r.node.place)
	}
	for _, lim := range p.limits {
		l.path("limit", lim.Path, lim.place())
		l.idle(lim)
	}
}

type linter struct {
	rep    *report
	budget int
	paths  map[string]place // where what has this path stands
	now    time.Time        // zero where nobody has said

	suggested int // how many models without a price came with a suggestion
}

// reach warns of children that no request can reach because a wildcard of the same level is tried
// before and matches all that they match.
func (l *linter) reach(n *node) {
	for _, c := range n.ordered {
		if len(n.wildcards.declared) > 0 {
			l.hidden(n, c)
		}
		l.reach(c)
	}
}

func (l *linter) hidden(parent, c *node) {
	// A pattern matches all that another matches if it matches the other's text, in which a star
	// can be matched by nothing but a star.
	text, what := c.composite, "wildcard"
	switch {
	case isPattern(text):
	case c.value == "":
		text, what = c.key+"_*", "default"
	default:
		return // an exact key is looked up first
	}
	if !l.spend(parent.wildcards.cost([]byte(text))) {
		return
	}
	if first := parent.wildcard([]byte(text)); first != nil && first != c {
		l.rep.warn(c.place, "the %s `%s` never applies: the wildcard `%s` at %s comes first and matches whatever it matches",
			what, clip(c.composite), clip(first.composite), first.place)
	}
}

// spend reports whether there is still budget for cost.
func (l *linter) spend(cost int) bool {
	if l.budget >= 0 {
		if l.budget -= cost; l.budget < 0 {
			l.rep.add(place{}, Problem{
				Message: "there are too many wildcards to find all that is wrong with them",
				Warning: true,
			})
		}
	}
	return l.budget >= 0
}

// names warns of names that several rules of a domain have, and of names in replaces that none has.
func (l *linter) names(d *Domain, whole bool) {
	named := map[string]*Rule{}
	var list []string
	for _, r := range d.rules {
		if r.Name == "" {
			continue
		}
		if first := named[r.Name]; first != nil {
			l.rep.warn(r.node.place, "the name '%s' is that of the rule at %s too: whatever replaces one replaces both",
				clip(r.Name), first.node.place)
			continue
		}
		named[r.Name] = r
		list = append(list, r.Name)
	}
	const most = 200 // names among which a suggestion is sought
	list = list[:min(len(list), most)]
	for _, r := range d.rules {
		for _, name := range r.Replaces {
			switch target := named[name]; {
			case target == nil && whole && !l.rep.full():
				l.rep.add(r.node.place, Problem{
					Message:    fmt.Sprintf("replaces '%s', but no rule of the domain has that name", clip(name)),
					Suggestion: nearest(name, list),
					Warning:    !l.rep.strict,
				})
			case target != nil && target.Unlimited:
				l.rep.warn(r.node.place, "replaces '%s', which is unlimited: unlimited rules cannot be replaced", clip(name))
			}
		}
	}
}

// path warns of rules and limits that metrics and listings cannot tell apart.
func (l *linter) path(what, path string, at place) {
	if first, taken := l.paths[path]; taken {
		l.rep.warn(at, "the %s is called '%s' in metrics and listings, as is what stands at %s", what, clip(path), first)
		return
	}
	l.paths[path] = at
}
