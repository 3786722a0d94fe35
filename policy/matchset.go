package policy

import "errors"

// ErrTooManyMatches means that a set of attributes leads to more places of the policy than a request
// may ask for.
var ErrTooManyMatches = errors.New("the attributes lead to too many places of the policy")

const (
	// MaxAttributes is how many attributes a set has at most.
	MaxAttributes = 64
	maxSteps      = 20_000 // that a set takes through the tree
)

// MatchSet appends to matches what applies to a set of attributes, in which each key stands once: that
// of every node with rules or a subject whose way consists of attributes of the set, each used once on
// the way, parents before their children. It is as if [Domain.Match] were asked for every list that can
// be made of the attributes.
//
// It appends what the matches point to to names, as Match does, and does not allocate while both have
// room.
func (d *Domain) MatchSet(attributes []Entry, matches []Match, names []byte) ([]Match, []byte, error) {
	if len(attributes) > MaxAttributes {
		return matches, names, ErrTooManyMatches
	}
	w := setWalk{attributes: attributes, matches: matches, names: names, steps: maxSteps}
	if !w.below(&d.root, d.escaped, 0, Match{}, 0) {
		return matches, names, ErrTooManyMatches
	}
	return w.matches, w.names, nil
}

// setWalk is the way of a set of attributes through the tree.
type setWalk struct {
	attributes []Entry
	matches    []Match
	names      []byte
	steps      int // that it may still take
}

// below visits every node below n that an unused attribute leads to. path is the name of n; subject
// holds who was named on the way, and owner is how much of path is theirs. It returns false where the
// walk takes too long.
func (w *setWalk) below(n *node, path []byte, used uint64, subject Match, owner int) bool {
	if len(n.children) == 0 {
		return true
	}
	for i := range w.attributes {
		if used&(1<<i) != 0 {
			continue
		}
		if w.steps--; w.steps < 0 {
			return false
		}
		e := &w.attributes[i]
		start := len(w.names)
		w.names = appendComposed(w.names, e)
		next, value := n.child(w.names[start:], e)
		w.names = w.names[:start]
		if next == nil {
			continue
		}
		w.names = appendEntry(append(w.names, path...), e.Key, value)
		below := w.names[start:]
		subject, owner := subject, owner
		if next.subject {
			subject.Subject, subject.HasSubject, owner = e.Value, true, len(below)
		}
		found := len(w.matches)
		if next.rule != nil || len(next.limits) > 0 || next.subject {
			ownerEnd := 0
			if owner > 0 {
				ownerEnd = start + owner
			}
			m, names := next.matched(subject, w.names, start, ownerEnd)
			w.matches, w.names = append(w.matches, m), names[:max(len(names), start+len(below))]
		}
		if !w.below(next, below, used|1<<i, subject, owner) {
			return false
		}
		if len(w.matches) == found {
			w.names = w.names[:start] // nobody points there
		}
	}
	return true
}
