package policy

import (
	"slices"
	"time"
	_ "time/tzdata" // time zones, also where the machine has none
)

// draft is the part of a domain that is compiled when all of its files are read: limits need the
// tiers, and those may stand in a later file.
type draft struct {
	domain    *Domain
	file      string // that began the domain
	tiers     []*tierEntry
	tiersAt   place
	trustTier field[bool]
	subjects  []*subjectEntry
	upstreams []*upstreamEntry
	lanes     []*laneEntry
	scopes    []scope
	prices    *pricesEntry // nil: no file has any
	anonymous *anonymousEntry
	usage     *usageEntry
	answers   answersEntry
	onFailure field[string]
}

// scope is a place with a list of limits.
type scope struct {
	path     string    // that names its limits in metrics
	node     *node     // the root's, or that of a descriptor; nil for upstreams and lanes
	upstream *Upstream // nil for all others
	lane     *Lane     // nil for all others
	entries  []*limitEntry
}

// list returns where the limits of the scope go.
func (s *scope) list() *[]*Limit {
	switch {
	case s.upstream != nil:
		return &s.upstream.limits
	case s.lane != nil:
		return &s.lane.limits
	}
	return &s.node.limits
}

// maxTiers bounds the tiers of a domain: every limit may have a quantity for each.
const maxTiers = 64

// sections collects what a file says beside its descriptors.
func (c *compiler) sections(dr *draft, doc *document) {
	switch {
	case len(doc.tiers) == 0:
	case len(dr.tiers) > 0:
		c.rep.error(doc.tiersAt, "the tiers of the domain stand at %s already: their order matters, "+
			"so one file declares all of them", dr.tiersAt)
	case len(doc.tiers) > maxTiers:
		c.rep.error(doc.tiersAt, "there are more than %d tiers", maxTiers)
	default:
		dr.tiers, dr.tiersAt = doc.tiers, doc.tiersAt
	}
	switch {
	case !doc.trustTier.given:
	case dr.trustTier.given && dr.trustTier.value != doc.trustTier.value:
		c.rep.error(doc.trustTier.at, "`trust_tier` is %t at %s: whether callers may name their tier is said once for the domain",
			dr.trustTier.value, dr.trustTier.at)
	default:
		dr.trustTier = doc.trustTier
	}
	c.addPrices(dr, doc.prices)
	c.addAnonymous(dr, doc.anonymous)
	c.addUsage(dr, doc.usage)
	once(c, &dr.answers.retryUpTo, doc.answers.retryUpTo, "retry_up_to")
	once(c, &dr.answers.exhaustedStatus, doc.answers.exhaustedStatus, "exhausted_status")
	once(c, &dr.onFailure, doc.onFailure, "on_failure")
	dr.subjects = append(dr.subjects, doc.subjects...)
	dr.upstreams = append(dr.upstreams, doc.upstreams...)
	dr.lanes = append(dr.lanes, doc.lanes...)
	dr.scope(scope{path: dr.domain.name, node: &dr.domain.root, entries: doc.limits})
}

func (dr *draft) scope(s scope) {
	if len(s.entries) > 0 {
		dr.scopes = append(dr.scopes, s)
	}
}

// finish compiles what has been collected of a domain.
func (c *compiler) finish(dr *draft) {
	dr.domain.findSubjectKeys()
	c.tiers(dr)
	c.subjects(dr)
	for _, e := range dr.upstreams {
		c.upstream(dr, e)
	}
	for _, s := range dr.scopes {
		for _, e := range s.entries {
			if l := c.limit(dr.domain, s, e); l != nil {
				dr.domain.limits = append(dr.domain.limits, l)
			}
		}
	}
	for _, e := range dr.lanes {
		c.lane(dr.domain, e)
	}
	c.prices(dr)
	c.anonymous(dr)
	c.usage(dr)
	c.answers(dr)
	c.onFailure(dr)
}

func (c *compiler) tiers(dr *draft) {
	d := dr.domain
	for _, e := range dr.tiers {
		twin, known := d.TierNamed(e.name.value)
		switch {
		case !e.name.given:
			c.rep.error(e.at, "a tier has no name")
			continue
		case known:
			c.rep.error(e.name.at, "there is a tier `%s` at %s already", clip(e.name.value), d.tiers[twin].place)
			continue
		}
		d.tiers = append(d.tiers, Tier{Name: e.name.value, Attributes: e.attributes, place: e.at})
	}
	if d.trustsTier = dr.trustTier.value; d.trustsTier && len(d.tiers) == 0 {
		c.rep.warn(dr.trustTier.at, "`trust_tier` has no effect: the domain has no tiers")
	}
}

// tier returns the tier that a name stands for, and reports a name of none.
func (c *compiler) tier(d *Domain, name field[string]) (tier int, ok bool) {
	if tier, ok = d.TierNamed(name.value); ok {
		return tier, true
	}
	if len(d.tiers) == 0 {
		c.rep.error(name.at, "tier `%s` is unknown: the domain declares no `tiers` at its top", clip(name.value))
		return 0, false
	}
	names := make([]string, len(d.tiers))
	for i := range d.tiers {
		names[i] = d.tiers[i].Name
	}
	p := Problem{Message: "tier `" + clip(name.value) + "` is unknown", Suggestion: nearest(name.value, names)}
	if p.Suggestion == "" {
		p.Message += ": it is " + clip(alternatives(names))
	}
	c.rep.add(name.at, p)
	return 0, false
}

func (c *compiler) subjects(dr *draft) {
	d := dr.domain
	for _, e := range dr.subjects {
		if twin, known := d.subjects[e.name.value]; known {
			c.rep.error(e.name.at, "subject `%s` stands at %s already", clip(e.name.value), twin.place)
			continue
		}
		s := Subject{Anchor: e.anchor.value, place: e.name.at}
		if e.tier.given {
			s.Tier, _ = c.tier(d, e.tier)
		}
		s.Zone = c.zone(e.timeZone)
		if d.subjects == nil {
			d.subjects = map[string]Subject{}
		}
		d.subjects[e.name.value] = s
	}
}

// zone returns the time zone of a field, nil if it is not given or is UTC, and reports what is none.
func (c *compiler) zone(name field[string]) *time.Location {
	if !name.given || name.value == "UTC" {
		return nil
	}
	if zone := c.zones[name.value]; zone != nil {
		return zone
	}
	zone, err := time.LoadLocation(name.value)
	if err != nil || zone == time.Local || name.value == "Local" {
		c.rep.error(name.at, "`%s` is no time zone: write its name in the IANA database, such as Europe/Berlin, or UTC",
			clip(name.value))
		return nil
	}
	if c.zones == nil {
		c.zones = map[string]*time.Location{}
	}
	c.zones[name.value] = zone
	return zone
}

func (c *compiler) upstream(dr *draft, e *upstreamEntry) {
	d := dr.domain
	if !e.name.given {
		c.rep.error(e.at, "an upstream has no name")
		return
	}
	if i := slices.IndexFunc(d.upstreams, func(u *Upstream) bool { return u.Name == e.name.value }); i >= 0 {
		c.rep.error(e.name.at, "there is an upstream `%s` at %s already", clip(e.name.value), d.upstreams[i].place)
		return
	}
	u := &Upstream{Name: e.name.value, place: e.at, models: e.models}
	u.owner = appendEscaped([]byte(string(d.escaped)+"|upstreams|"), u.Name)
	d.upstreams = append(d.upstreams, u)
	if len(e.models) == 0 {
		c.rep.error(e.at, "upstream `%s` has no models: say which it serves, as in models: [claude-*]", clip(u.Name))
	}
	if len(e.limits) == 0 {
		c.rep.warn(e.at, "upstream `%s` has no limits", clip(u.Name))
	}
	for _, m := range e.models {
		d.models.add(m.value, u)
	}
	dr.scope(scope{path: d.name + ".upstreams." + u.Name, upstream: u, entries: e.limits})
}
