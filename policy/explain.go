package policy

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// Explain says what the policy means: for each domain a line, and below it, indented, a line per
// rule, limit, lane and descriptor that exempts from them, in the order of the files; a limit that differs
// by tier has a further line for each.
func (p *Policy) Explain() []string {
	var lines []string
	for _, d := range p.sorted {
		has := []string{count(uint64(len(d.rules)), "rule")}
		if len(d.limits) > 0 {
			has = append(has, count(uint64(len(d.limits)), "limit"))
			if len(d.rules) == 0 {
				has = has[1:]
			}
		}
		lines = append(lines, fmt.Sprintf("domain %s: %s", word(d.name), strings.Join(has, ", ")))
		lines = d.explainTiers(lines)
		lines = d.explainAnonymous(lines)
		lines = d.explainPrices(lines)
		lines = d.explainUsage(lines)
		lines = d.explainAnswers(lines)
		lines = d.explainFailure(lines)
		lines = indented(lines, d.root.limits)
		lines = d.root.explain(lines)
		for _, u := range d.upstreams {
			lines = indented(lines, u.limits)
		}
		for _, ln := range d.lanes {
			lines = indented(append(lines, "  "+ln.Explain()), ln.limits)
		}
	}
	return lines
}

func (n *node) explain(lines []string) []string {
	for _, c := range n.ordered {
		switch {
		case c.rule != nil:
			lines = append(lines, "  "+c.rule.Explain())
		case len(c.limits) > 0:
		case len(c.children) == 0:
			lines = append(lines, fmt.Sprintf("  %s: no limit", c.whom()))
		case c.hidesRule():
			lines = append(lines, fmt.Sprintf("  %s, with no further entry: no limit", c.whom()))
		}
		lines = indented(lines, c.limits)
		lines = c.explain(lines)
	}
	return lines
}

// indented adds the explanations of limits.
func indented(lines []string, limits []*Limit) []string {
	for _, l := range limits {
		for _, line := range l.Explain() {
			lines = append(lines, "  "+line)
		}
	}
	return lines
}

// hidesRule reports whether a rule or a limit of the same level would apply if n were not there.
func (n *node) hidesRule() bool {
	if !isPattern(n.composite) {
		if w := n.parent.wildcard([]byte(n.composite)); w != nil {
			return w.limiting()
		}
	}
	other := n.parent.children[n.key]
	return other != nil && other != n && other.limiting()
}

// limiting reports whether anything applies to a request that ends at n.
func (n *node) limiting() bool { return n.rule != nil || len(n.limits) > 0 }

// Explain says in one plain sentence what the rule means.
func (r *Rule) Explain() string {
	named := ""
	if r.Name != "" {
		named = ", named " + word(r.Name)
	}
	says := []string{r.Allows()}
	if r.Shadow && !r.Unlimited {
		says = append(says, "in shadow, so counted and reported but never refused")
	}
	if r.Quota && !r.Unlimited {
		says = append(says, "a quota, so refused only if every quota of the request is used up")
	}
	if len(r.Replaces) > 0 {
		names := make([]string, len(r.Replaces))
		for i, name := range r.Replaces {
			names[i] = word(name)
		}
		says = append(says, "replaces "+enumerate(names)+" in the same request")
	}
	return fmt.Sprintf("%s (rule %s%s): %s", r.node.whom(), r.Path, named, strings.Join(says, "; "))
}

// whom says which requests the node is for, the innermost entry first.
func (n *node) whom() string {
	var levels []string
	for ; n.parent != nil; n = n.parent {
		levels = append(levels, n.which())
	}
	return strings.Join(levels, " under ")
}

// which says which entries lead to the node, and which of them share a counter.
func (n *node) which() string {
	switch {
	case isPattern(n.key) && n.shared:
		return fmt.Sprintf("each key of the entries matching %s, all their values taken together", word(n.composite))
	case isPattern(n.key):
		return fmt.Sprintf("each entry matching %s", word(n.composite))
	case isPattern(n.value) && n.shared:
		return fmt.Sprintf("all values of %s matching %s taken together", word(n.key), word(n.value))
	case isPattern(n.value):
		return fmt.Sprintf("each value of %s matching %s", word(n.key), word(n.value))
	case n.value != "":
		return word(n.key) + "=" + word(n.value)
	case n.besides:
		return fmt.Sprintf("each other value of %s", word(n.key))
	}
	return fmt.Sprintf("each value of %s", word(n.key))
}

// Allows says in words how much the rule admits: "10 requests per minute, aligned to the clock's minutes
// (UTC)".
func (r *Rule) Allows() string {
	if r.Unlimited {
		return "unlimited and not counted"
	}
	if r.RequestsPerUnit == 0 {
		return fmt.Sprintf("no request at all (0 per %s)", r.Unit)
	}
	return fmt.Sprintf("%s per %s, %s", count(uint64(r.RequestsPerUnit), "request"), r.Unit, r.Unit.aligned())
}

// aligned says where the windows of the unit begin.
func (u Unit) aligned() string {
	switch u {
	case Week:
		return "in weeks that begin on Thursday at 00:00 UTC"
	case Month:
		return "in periods of 30 days from 1970-01-01 UTC on, not calendar months"
	case Year:
		return "in periods of 365 days from 1970-01-01 UTC on, not calendar years"
	default:
		return fmt.Sprintf("aligned to the clock's %ss (UTC)", u)
	}
}

func count(n uint64, noun string) string {
	switch n {
	case 0:
		return "no " + noun + "s"
	case 1:
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// enumerate joins words: "a, b and c".
func enumerate(words []string) string { return join(words, " and ") }

// alternatives joins words: "a, b or c".
func alternatives(words []string) string { return join(words, " or ") }

func join(words []string, before string) string {
	last := len(words) - 1
	if last <= 0 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:last], ", ") + before + words[last]
}

// word returns s, in quotes where it would not be read as one word.
func word(s string) string {
	odd := func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) || r == '"' }
	if s == "" || slices.ContainsFunc([]rune(s), odd) {
		return strconv.Quote(s)
	}
	return s
}
