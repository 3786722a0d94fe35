package policy

// Entry is one (key, value) of a descriptor.
type Entry struct{ Key, Value string }

// Domain is the rules of one domain.
type Domain struct {
	name    string
	escaped []byte // the name as it begins the names of counters
	root    node
	rules   []*Rule
}

// Name returns the name of the domain.
func (d *Domain) Name() string { return d.name }

// Rules returns the rules of the domain in the order of the files.
func (d *Domain) Rules() []*Rule { return d.rules }

// node is one descriptor of the policy, at the end of the path that leads to it.
type node struct {
	place
	parent     *node
	key, value string
	composite  string // key or key_value: its name among its siblings
	shared     bool   // all values that match the wildcard share one counter
	besides    bool   // siblings have the same key, so that not all of its values arrive here
	rule       *Rule  // nil: a request that ends here has no limit

	children  map[string]*node // by composite
	ordered   []*node          // the same as declared
	wildcards wildcards        // those of them with a * in their composite
}

// Match walks the tree with entries and returns the rule that applies, or nil. It appends to bucket
// the name of the counter, as [AppendBucket] forms it; nothing is appended when no rule or an
// unlimited rule applies. It does not allocate while bucket has room, and entries are not kept.
//
// Each entry leads one level down: to the child that is exactly key_value, else to the first
// declared wildcard that matches key_value, else to the child that is the key alone. There is no way
// back from a choice once made. The rule is that of the node at which the last entry arrives.
func (d *Domain) Match(entries []Entry, bucket []byte) (*Rule, []byte) {
	if len(entries) == 0 {
		return nil, bucket
	}
	start := len(bucket)
	bucket = append(bucket, d.escaped...)
	at := &d.root
	for i := range entries {
		e := &entries[i]
		// What follows the name is free: key_value is composed there.
		end := len(bucket)
		bucket = append(bucket, e.Key...)
		bucket = append(bucket, '_')
		bucket = append(bucket, e.Value...)
		next, value := at.child(bucket[end:], e)
		if next == nil {
			return nil, bucket[:start]
		}
		bucket = appendEntry(bucket[:end], e.Key, value)
		at = next
	}
	if at.rule == nil || at.rule.Unlimited {
		return at.rule, bucket[:start]
	}
	return at.rule, appendWindow(bucket, at.rule.Spec.Window)
}

// child returns the child that an entry leads to, or nil, and the value that the entry has in the
// name of the counter.
func (n *node) child(composed []byte, e *Entry) (next *node, value string) {
	if exact := n.children[string(composed)]; exact != nil {
		return exact, e.Value
	}
	if wild := n.wildcards.first(composed); wild != nil {
		if wild.shared {
			return wild, sharedValue(wild.composite, e)
		}
		return wild, e.Value
	}
	return n.children[e.Key], e.Value
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
