package policy

import (
	"bytes"
	"strings"
)

// Entry is one (key, value) of a descriptor.
type Entry struct{ Key, Value string }

// Domain is the rules of one domain.
type Domain struct {
	name    string
	escaped []byte // the name as it begins the names of counters
	root    node
	rules   []*Rule
	limits  []*Limit

	tiers      []Tier
	trustsTier bool
	subjects   map[string]Subject
	upstreams  []*Upstream
	lanes      []*Lane
	// subjectKeys are those of descriptors that name subjects; subjectKey is the first that is no wildcard.
	subjectKeys []string
	subjectKey  string
	models      models
	prices      prices
	anonymous   anonymous
	usage       Usage
	answers     answers
	onFailure   Failure
}

// Name returns the name of the domain.
func (d *Domain) Name() string { return d.name }

// Rules returns the rules of the domain in the order of the files.
func (d *Domain) Rules() []*Rule { return d.rules }

// Limits returns the limits of the domain: those of the root, of descriptors, of upstreams and of lanes.
func (d *Domain) Limits() []*Limit { return d.limits }

// node is one descriptor of the policy, at the end of the path that leads to it.
type node struct {
	place
	parent     *node
	key, value string
	composite  string // key or key_value: its name among its siblings
	shared     bool   // all values that match the wildcard share one counter
	subject    bool   // its entry's value names who pays for what lies here and below
	besides    bool   // siblings have the same key, so that not all of its values arrive here
	rule       *Rule  // nil: there is no `rate_limit` for a request that ends here
	limits     []*Limit

	children  map[string]*node // by composite
	ordered   []*node          // the same as declared
	wildcards wildcards        // those of them with a * in their composite
	patterns  []*node          // the same as nodes
}

// Match is what applies to a descriptor. Its slices of bytes point into the names that were given to
// [Domain.Match], and live as long as they do.
type Match struct {
	// Rule is the `rate_limit` that applies, or nil.
	Rule *Rule
	// Bucket is the name of the rule's counter, as [AppendBucket] forms it; empty where no rule or an
	// unlimited one applies.
	Bucket []byte

	// Limits are the `limits:` that apply. [Limit.AppendBucket] names their buckets.
	Limits []*Limit
	// Owner names whom the buckets of Limits belong to. With a subject it is the path that ends at the
	// subject, so that whatever belongs to one subject has the same owner; else the path that ends
	// where the limits stand. It is there too where a subject is named and no limit applies.
	Owner []byte
	// Subject is the value of the entry that the policy declares a subject; HasSubject says that there
	// was one. An entry names the subject also if no rule applies further down.
	Subject    string
	HasSubject bool

	below []byte // the path below the owner: each entry behind a separator
}

// OwnerOf returns the owner that the limits of a subject at the top of the domain have, whether or not the policy knows
// the key: [Match.Owner].
func (d *Domain) OwnerOf(subject Entry) []byte {
	return appendEntry(append([]byte(nil), d.escaped...), subject.Key, subject.Value)
}

// ReadOwner reads the name of an owner ([Match.Owner]): the entries that lead to it, none for a whole domain, for
// upstreams and for lanes.
func ReadOwner(owner []byte) (path []Entry) {
	for _, part := range strings.Split(string(owner), "|")[1:] { // behind the domain
		if key, value, ok := strings.Cut(part, "="); ok {
			path = append(path, Entry{Key: unescape(key), Value: unescape(value)})
		}
	}
	return path
}

// Path returns the entries that lead to the match, "user=alice"; none where it is of a whole domain, of an upstream or a lane.
func (m *Match) Path() (entries []string) {
	path := string(m.Owner) + string(m.below)
	if m.Limits == nil && m.Rule != nil {
		path = string(m.Bucket[:max(0, bytes.LastIndexByte(m.Bucket, '|'))]) // without the window
	}
	for _, part := range strings.Split(path, "|")[1:] { // behind the domain
		if strings.Contains(part, "=") {
			entries = append(entries, unescape(part))
		}
	}
	return entries
}

// Match walks the tree with entries and returns what applies. It appends what the Match points to to
// names, and nothing where nothing applies. It does not allocate while names has room, and entries
// are not kept.
//
// Each entry leads one level down: to the child that is exactly key_value, else to the first
// declared wildcard that matches key_value, else to the child that is the key alone. There is no way
// back from a choice once made. What applies is that of the node at which the last entry arrives.
func (d *Domain) Match(entries []Entry, names []byte) (Match, []byte) {
	var m Match
	if len(entries) == 0 {
		return m, names
	}
	start, owner := len(names), 0
	names = append(names, d.escaped...)
	at := &d.root
	for i := range entries {
		e := &entries[i]
		// What follows the name is free: key_value is composed there.
		end := len(names)
		names = appendComposed(names, e)
		next, value := at.child(names[end:], e)
		if next == nil {
			at, names = nil, names[:end]
			break
		}
		names = appendEntry(names[:end], e.Key, value)
		if at = next; at.subject {
			m.Subject, m.HasSubject, owner = e.Value, true, len(names)
		}
	}
	m, names = at.matched(m, names, start, owner)
	return m, names
}

// matched completes the match of a descriptor that arrived at n, or nowhere where n is nil. Its path
// is names[start:], the part of it that is the owner's ends at owner if there is a subject.
func (n *node) matched(m Match, names []byte, start, owner int) (Match, []byte) {
	path := len(names)
	if n != nil && len(n.limits) > 0 {
		m.Limits = n.limits
		if !m.HasSubject {
			owner = path
		}
	}
	end := owner // of what the match points to
	if n != nil && n.rule != nil {
		if m.Rule = n.rule; !m.Rule.Unlimited {
			names = appendWindow(names, m.Rule.Spec.Window)
			m.Bucket = names[start:]
			end = len(names)
		}
	}
	if m.Limits != nil {
		m.below = names[owner:path]
		end = max(end, path)
	}
	if owner > 0 {
		m.Owner = names[start:owner]
	}
	return m, names[:max(start, end)]
}

func appendComposed(b []byte, e *Entry) []byte {
	b = append(b, e.Key...)
	b = append(b, '_')
	return append(b, e.Value...)
}

// child returns the child that an entry leads to, or nil, and the value that the entry has in the
// name of the counter.
func (n *node) child(composed []byte, e *Entry) (next *node, value string) {
	if exact := n.children[string(composed)]; exact != nil {
		return exact, e.Value
	}
	if wild := n.wildcard(composed); wild != nil {
		if wild.shared {
			return wild, sharedValue(wild.composite, e)
		}
		return wild, e.Value
	}
	return n.children[e.Key], e.Value
}

// wildcard returns the first declared child that is a pattern which matches key_value, or nil.
func (n *node) wildcard(composed []byte) *node {
	if i := n.wildcards.first(composed); i >= 0 {
		return n.patterns[i]
	}
	return nil
}

// sharedValue returns what stands for the value of every entry that matches the pattern of a shared
// counter: the pattern, without the entry's key where it begins with it.
func sharedValue(pattern string, e *Entry) string {
	k := len(e.Key)
	if len(pattern) > k && pattern[:k] == e.Key && pattern[k] == '_' {
		pattern = pattern[k+1:]
	}
	if pattern == "" {
		return e.Value
	}
	return pattern
}

// Root returns the match that every request of the domain has: the limits at the domain's root.
func (d *Domain) Root() Match { return Match{Limits: d.root.limits, Owner: d.escaped} }
