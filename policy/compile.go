package policy

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/price"
)

// compiler builds a policy out of documents, one after the other.
type compiler struct {
	merge   bool
	rep     *report
	drafts  []*draft          // of all domains, also of those that cannot be used
	domains map[string]*draft // of those that can
	zones   map[string]*time.Location
	paths   int  // bytes in the paths of all descriptors so far
	priced  int  // prices so far
	shipped bool // the book that ships is in use
}

// maxPaths bounds the paths of all descriptors together. A path holds the keys of all levels above
// it, so that they may be many times longer than the file.
const maxPaths = 64 << 20

// document adds a file. Where its domain cannot be used its rules are compiled nevertheless, so that
// their errors are found too.
func (c *compiler) document(file string, doc *document) {
	name := doc.domain.value
	dr := c.domains[name]
	at := doc.domain.at
	if !doc.domain.given {
		at = place{file: file}
	}
	switch {
	case name == "":
		c.rep.error(at, "config file cannot have empty domain")
		dr = c.begin(name, file)
	case dr == nil:
		dr = c.begin(name, file)
		c.domains[name] = dr
	case !c.merge:
		c.rep.error(at, "duplicate domain '%s' in config file: %s has it too, and domains are not merged",
			clip(name), dr.file)
		dr = c.begin(name, file)
	}
	c.sections(dr, doc)
	c.descriptors(dr, &dr.domain.root, name, doc.descriptors)
}

// begin begins a domain.
func (c *compiler) begin(name, file string) *draft {
	dr := &draft{domain: newDomain(name), file: file}
	c.drafts = append(c.drafts, dr)
	return dr
}

func newDomain(name string) *Domain {
	return &Domain{name: name, escaped: appendEscaped(nil, name)}
}

// descriptors adds descriptors below parent, whose path is given.
func (c *compiler) descriptors(dr *draft, parent *node, path string, list []*descriptor) {
	for _, desc := range list {
		n := &node{
			place:     desc.at,
			parent:    parent,
			key:       desc.key.value,
			value:     desc.value.value,
			composite: desc.key.value,
			shared:    desc.share.value,
			subject:   desc.subject.value,
		}
		if n.value != "" {
			n.composite += "_" + n.value
		}
		if c.paths += len(path) + 1 + len(n.composite); c.paths > maxPaths {
			c.rep.error(place{file: desc.at.file}, "the keys and values of the descriptors are too long: "+
				"the paths of all rules together have more than %d MB", maxPaths>>20)
			return
		}
		path := path + "." + n.composite
		twin := parent.children[n.composite]
		switch {
		case n.key == "":
			c.rep.error(desc.at, "descriptor has empty key")
		case strings.HasPrefix(n.key, reservedPrefix):
			c.rep.error(desc.key.at, "key '%s': keys that begin with `%s` say something about a request, "+
				"and are no part of its descriptor", clip(n.key), reservedPrefix)
		case twin != nil:
			c.rep.error(desc.at, "duplicate descriptor composite key '%s': it stands at %s already",
				clip(path), twin.place)
		default:
			parent.add(n)
		}
		if n.shared && !isPattern(n.composite) {
			c.rep.error(desc.share.at,
				"share_threshold can only be used with wildcard values (containing '*'), but found key '%s'",
				clip(n.composite))
		}
		c.subject(n, desc)
		c.rule(dr.domain, n, path, desc)
		dr.scope(scope{path: path, node: n, entries: desc.limits})
		c.descriptors(dr, n, path, desc.descriptors)
	}
}

// reservedPrefix begins the keys of entries that say something about the request: they are taken out of
// a descriptor before it is matched.
const reservedPrefix = "ration."

// subject judges who is declared to pay.
func (c *compiler) subject(n *node, desc *descriptor) {
	if !n.subject {
		return
	}
	if n.shared {
		c.rep.error(desc.subject.at, "a subject is one value, and with share_threshold all values count as one: "+
			"leave one of them out")
	}
	if above := n.parent.payer(); above != nil {
		c.rep.error(desc.subject.at, "the way here has a subject already, `%s` at %s: only one entry can name who pays",
			clip(above.composite), above.place)
	}
}

// payer returns the node on the way to n, or n itself, that is the subject; nil if there is none.
func (n *node) payer() *node {
	for ; n != nil; n = n.parent {
		if n.subject {
			return n
		}
	}
	return nil
}

func (n *node) add(child *node) {
	if n.children == nil {
		n.children = map[string]*node{}
	}
	n.children[child.composite] = child
	n.ordered = append(n.ordered, child)
	if isPattern(child.composite) {
		n.wildcards.add(child.composite)
		n.patterns = append(n.patterns, child)
	}
}

// seal completes the nodes below n when all are there.
func (n *node) seal() {
	keys := map[string]int{}
	for _, c := range n.ordered {
		keys[c.key]++
	}
	for _, c := range n.ordered {
		c.besides = keys[c.key] > 1
		c.seal()
	}
}

// rule compiles the rate_limit of a descriptor, if it has one.
func (c *compiler) rule(d *Domain, n *node, path string, desc *descriptor) {
	l := desc.rateLimit
	if l == nil {
		why := "this descriptor has no rate_limit"
		if len(desc.limits) > 0 {
			why += ", and a limit has `shadow` itself"
		}
		c.idle(desc.shadow.given, desc.shadow.at, "shadow_mode", why)
		c.idle(desc.quota.given, desc.quota.at, "quota_mode", "this descriptor has no rate_limit")
		c.idle(desc.metadata.given, desc.metadata.at, "metadata", "this descriptor has no rate_limit")
		return
	}
	unlimited := l.unlimited.value
	r := &Rule{
		Domain:          d.name,
		Path:            path,
		Name:            l.name.value,
		Unlimited:       unlimited,
		Shadow:          desc.shadow.value,
		Quota:           desc.quota.value,
		RequestsPerUnit: l.requestsPerUnit.value,
		File:            n.file,
		Line:            n.line,
		Column:          n.column,
		node:            n,
	}
	if len(desc.metadata.value) > 0 {
		r.Metadata = desc.metadata.value
	}
	unit, valid := ParseUnit(l.unit.value)
	switch {
	case unlimited && valid:
		c.rep.error(l.unit.at, "should not specify rate limit unit when unlimited")
	case unlimited:
		c.idle(l.unit.given, l.unit.at, "unit", "this rule is unlimited")
		c.idle(l.requestsPerUnit.given, l.requestsPerUnit.at, "requests_per_unit", "this rule is unlimited")
		c.idle(r.Shadow, desc.shadow.at, "shadow_mode", "this rule is unlimited")
		c.idle(r.Quota, desc.quota.at, "quota_mode", "this rule is unlimited")
	case !valid:
		c.invalidUnit(l)
	default:
		r.Unit = unit
		r.Spec = limit.Spec{Limit: int64(r.RequestsPerUnit), Window: unit.Window()}
		if !l.requestsPerUnit.given {
			c.rep.warn(l.at, "rate_limit has no requests_per_unit, which means 0: every request is refused")
		}
	}
	for _, x := range l.replaces {
		switch name := x.name.value; name {
		case "":
			c.rep.error(x.at, "should not have an empty replaces entry")
		case r.Name:
			c.rep.error(x.at, "replaces should not contain name of same descriptor")
		default:
			r.Replaces = append(r.Replaces, name)
		}
	}
	n.rule = r
	d.rules = append(d.rules, r)
}

// idle warns of a field that is given and does nothing.
func (c *compiler) idle(given bool, at place, name, why string) {
	if given {
		c.rep.warn(at, "`%s` has no effect: %s", name, why)
	}
}

func (c *compiler) invalidUnit(l *rateLimit) {
	at := l.unit.at
	if !l.unit.given {
		at = l.at
	}
	names := make([]string, 0, len(units))
	for u := Second; u <= Week; u++ {
		names = append(names, u.String())
	}
	c.rep.add(at, Problem{
		Message:    fmt.Sprintf("invalid rate limit unit '%s'", clip(l.unit.value)),
		Suggestion: nearest(l.unit.value, names),
	})
}

// policy returns what was compiled.
func (c *compiler) policy(sources []Source) *Policy {
	p := &Policy{domains: make(map[string]*Domain, len(c.domains))}
	for _, s := range sources {
		p.files = append(p.files, s.Name)
	}
	for _, dr := range c.drafts {
		c.finish(dr)
	}
	p.version = version(sources, c.shipped)
	for _, name := range slices.Sorted(maps.Keys(c.domains)) {
		d := c.domains[name].domain
		p.domains[name] = d
		p.sorted = append(p.sorted, d)
		d.root.seal()
		for _, l := range d.limits {
			l.Index = len(p.limits)
			p.limits = append(p.limits, l)
		}
		for _, r := range d.rules {
			r.Index = len(p.rules)
			p.rules = append(p.rules, r)
		}
	}
	return p
}

// version hashes the content of sources, not their names: a policy has the same version in every
// place that it lies in. With the book that ships it means something else when that has other prices.
func version(sources []Source, shipped bool) string {
	h := sha256.New()
	for _, s := range sources {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(s.Data))))
		h.Write(s.Data)
	}
	if shipped {
		h.Write([]byte(price.Builtin().Version()))
	}
	return hex.EncodeToString(h.Sum(nil)[:6])
}
