package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/rationhq/ration/policy"
)

// question is a request that ration check shows the limits of.
type question struct {
	domain  *policy.Domain
	text    string // as it was asked
	matches []policy.Match
	model   string       // for upstreams; empty: none is named
	lane    *policy.Lane // that it waits in; nil: none
	tier    string       // that the request claims; empty: none
}

// question reads what the flags ask about.
func (c *checkCmd) question(p *policy.Policy) (*question, error) {
	q := &question{}
	var err error
	if q.domain, err = domainOf(p, c.Domain); err != nil {
		return nil, err
	}
	flag, text := "--descriptor", c.Descriptor
	if c.Attributes != "" {
		flag, text = "--attributes", c.Attributes
	}
	q.text = strings.TrimPrefix(flag, "--") + " " + text
	entries, err := q.entries(flag, text)
	if err != nil {
		return nil, err
	}
	if flag == "--descriptor" {
		m, _ := q.domain.Match(entries, nil)
		q.matches = []policy.Match{m}
		return q, nil
	}
	for i, e := range entries {
		if slices.ContainsFunc(entries[:i], func(f policy.Entry) bool { return f.Key == e.Key }) {
			return nil, misused("%s: %q is given twice: an attribute has one value", flag, e.Key)
		}
		if e.Key == "model" && q.model == "" {
			q.model = e.Value
		}
	}
	if q.matches, _, err = q.domain.MatchSet(entries, nil, nil); err != nil {
		return nil, misused("%s: %w", flag, err)
	}
	return q, nil
}

// domainOf returns the domain that is asked about: that of the name, or the only one.
func domainOf(p *policy.Policy, name string) (*policy.Domain, error) {
	if name == "" && len(p.Domains()) == 1 {
		return p.Domains()[0], nil
	}
	if d := p.Domain(name); d != nil {
		return d, nil
	}
	names := make([]string, len(p.Domains()))
	for i, d := range p.Domains() {
		names[i] = d.Name()
	}
	if name == "" {
		return nil, misused("--domain is missing: the policy has the domains %s", strings.Join(names, ", "))
	}
	return nil, misused("--domain: there is no %q, only %s", name, strings.Join(names, ", "))
}

// entries reads KEY=VALUE,KEY=VALUE. Reserved entries are taken out, as they are from a request.
func (q *question) entries(flag, text string) (entries []policy.Entry, err error) {
	for _, field := range kong.SplitEscaped(text, ',') {
		key, value, ok := strings.Cut(field, "=")
		switch {
		case !ok || key == "":
			return nil, misused("%s: %q is no KEY=VALUE", flag, field)
		case key == "ration.model":
			q.model = value
		case key == "ration.tier":
			q.tier = value
		case key == "ration.lane":
			if q.lane = q.domain.Lane(value); q.lane == nil {
				return nil, misused("%s: there is no lane %q, %s", flag, value, lanesOf(q.domain))
			}
		case strings.HasPrefix(key, "ration."):
			return nil, misused("%s: %q changes nothing about which limits apply: only ration.model, ration.tier and ration.lane do", flag, key)
		default:
			entries = append(entries, policy.Entry{Key: key, Value: value})
		}
	}
	return entries, nil
}

// lanesOf says which lanes a domain has.
func lanesOf(d *policy.Domain) string {
	if len(d.Lanes()) == 0 {
		return "nor any other"
	}
	names := make([]string, len(d.Lanes()))
	for i, l := range d.Lanes() {
		names[i] = l.Name
	}
	return "only " + strings.Join(names, ", ")
}

// answer says which limits apply and in which counters they count.
func (q *question) answer() []string {
	d := q.domain
	lines := []string{fmt.Sprintf("domain %s, %s", d.Name(), q.text)}
	caller := policy.Match{} // whose tier counts for what all share
	for _, m := range q.matches {
		if m.HasSubject {
			caller = m
			break
		}
	}
	lines = append(lines, q.who(&caller)...)
	header := len(lines)
	root := d.Root()
	lines = q.add(lines, &root, q.tierOf(&caller))
	for i := range q.matches {
		m := &q.matches[i]
		payer := m
		if !m.HasSubject {
			payer = &caller
		}
		lines = q.add(lines, m, q.tierOf(payer))
	}
	if u := d.Upstream(q.model); q.model != "" && u != nil {
		m := u.Match()
		lines = q.add(lines, &m, q.tierOf(&caller))
	}
	if q.lane != nil {
		m := q.lane.Match()
		lines = q.add(append(lines, "  "+q.lane.Explain()), &m, q.tierOf(&caller))
	}
	if len(lines) == header {
		lines = append(lines, "  nothing limits it")
	}
	return lines
}

// who says who pays, and of which tier they are.
func (q *question) who(caller *policy.Match) []string {
	var lines []string
	if caller.HasSubject {
		lines = append(lines, fmt.Sprintf("  the subject is %q", caller.Subject))
	}
	if tiers := q.domain.Tiers(); len(tiers) > 0 {
		tier, why := q.resolve(caller)
		lines = append(lines, fmt.Sprintf("  the tier is %s: %s", tiers[tier].Name, why))
	}
	return lines
}

func (q *question) tierOf(m *policy.Match) int {
	tier, _ := q.resolve(m)
	return tier
}

// resolve returns the tier of a match's subject, and why it is that.
func (q *question) resolve(m *policy.Match) (tier int, why string) {
	claim := ""
	if q.tier != "" {
		named, known := q.domain.TierNamed(q.tier)
		switch {
		case !q.domain.TrustsTier():
			claim = fmt.Sprintf(", and without trust_tier the request's %q means nothing", q.tier)
		case known:
			return named, "the request says so"
		default:
			return 0, fmt.Sprintf("the first, since there is no %q", q.tier)
		}
	}
	if m.HasSubject {
		if tier, known := q.domain.TierOf(m.Subject); known {
			return tier, "`subjects` say so" + claim
		}
	}
	return 0, "the first" + claim
}

// add says what applies by a match.
func (q *question) add(lines []string, m *policy.Match, tier int) []string {
	if m.Rule != nil {
		lines = append(lines, fmt.Sprintf("  rule %s: %s", m.Rule.Path, m.Rule.Allows()))
		if len(m.Bucket) > 0 {
			lines = append(lines, fmt.Sprintf("    counter %s", m.Bucket))
		}
	}
	for _, l := range m.Limits {
		lines = append(lines, fmt.Sprintf("  limit %s: %s", l.Path, l.Allows(tier)))
		if l.For(tier) != nil {
			lines = append(lines, fmt.Sprintf("    counter %s of %s", l.AppendBucket(nil, m), m.Owner))
		}
	}
	return lines
}
