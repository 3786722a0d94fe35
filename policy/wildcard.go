package policy

import (
	"bytes"
	"slices"
	"strings"
)

// wildcard is a pattern, as over key_value: each * stands for any bytes, also none.
type wildcard struct {
	prefix string   // what stands before the first star
	middle [][]byte // what stands between two stars
	suffix []byte   // what stands behind the last star
}

func isPattern(s string) bool { return strings.Contains(s, "*") }

func newWildcard(pattern string) wildcard {
	parts := strings.Split(pattern, "*")
	last := len(parts) - 1
	w := wildcard{prefix: parts[0], suffix: []byte(parts[last])}
	for _, p := range parts[1:last] {
		w.middle = append(w.middle, []byte(p))
	}
	return w
}

// matches reports whether the pattern matches s, which begins with its prefix.
func (w *wildcard) matches(s []byte) bool {
	s = s[len(w.prefix):]
	if !bytes.HasSuffix(s, w.suffix) {
		return false
	}
	s = s[:len(s)-len(w.suffix)]
	for _, p := range w.middle {
		// The leftmost place leaves the most for the parts behind it.
		i := bytes.Index(s, p)
		if i < 0 {
			return false
		}
		s = s[i+len(p):]
	}
	return true
}

// wildcards are patterns in the order of declaration, as those of one level. They are found by what
// stands before their first star, so that patterns with prefixes of their own cost as little as
// exact keys do.
type wildcards struct {
	declared []wildcard
	byPrefix map[string][]int // indices into declared, ascending
	lengths  []int            // of the prefixes, ascending
}

func (w *wildcards) add(pattern string) {
	c := newWildcard(pattern)
	if w.byPrefix == nil {
		w.byPrefix = map[string][]int{}
	}
	w.byPrefix[c.prefix] = append(w.byPrefix[c.prefix], len(w.declared))
	w.declared = append(w.declared, c)
	if i, found := slices.BinarySearch(w.lengths, len(c.prefix)); !found {
		w.lengths = slices.Insert(w.lengths, i, len(c.prefix))
	}
}

// first returns the index of the pattern that is declared first among those that match s, or -1.
func (w *wildcards) first(s []byte) int {
	best := len(w.declared)
	for _, n := range w.lengths {
		if n > len(s) {
			break
		}
		for _, i := range w.byPrefix[string(s[:n])] {
			if i >= best {
				break
			}
			if w.declared[i].matches(s) {
				best = i
				break
			}
		}
	}
	if best == len(w.declared) {
		return -1
	}
	return best
}

// cost returns how many bytes first compares at most for s.
func (w *wildcards) cost(s []byte) int {
	sum := len(w.lengths) * len(s)
	if sum > lintBudget {
		return sum
	}
	for _, n := range w.lengths {
		if n > len(s) {
			break
		}
		sum += len(w.byPrefix[string(s[:n])]) * len(s)
	}
	return sum
}
