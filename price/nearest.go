package price

import "strings"

// Nearest returns the known name that is most like the model's, for messages, or "" where none is like it. Of names
// that are equally near the first one counts, in the order of [Book.Models]; of a pattern what stands without its
// stars. It compares with every name of the book, in a millisecond or two: it is for the few who have it wrong.
func (b *Book) Nearest(model string) string {
	var room [longestName]byte
	const longest = 128
	name, ok := newCalled(model, &room)
	if !ok || len(model) > longest {
		return ""
	}
	var best nearest
	best.least = max(2, len(model)/3) + 1
	for c, more := name, true; more; c, more = c.shorter() {
		for in := b; in != nil; in = in.base {
			for _, e := range in.own.entries {
				if e.prices[0].unpriced {
					continue
				}
				best.consider(string(c.name), e.literal())
			}
		}
	}
	return best.name
}

// lower returns the name as names are compared.
func lower(name string) string { return strings.ToLower(name) }

// nearest is the name that is nearest so far, and how far it is.
type nearest struct {
	name         string
	least        int
	before, last []int
	row          []int
}

// consider takes the candidate if it is nearer than all before.
func (n *nearest) consider(word, candidate string) {
	if max(len(candidate)-len(word), len(word)-len(candidate)) >= n.least || len(candidate) <= n.least/2 {
		return
	}
	if d := n.distance(word, lower(candidate)); d < n.least {
		n.name, n.least = candidate, d
	}
}

// distance counts the bytes to insert, delete, replace or swap with their neighbour on the way from a to b. Where it
// is n.least or more it may return any such number.
func (n *nearest) distance(a, b string) int {
	if len(n.row) < len(b)+1 {
		n.before, n.last, n.row = make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	}
	before, last, row := n.before, n.last, n.row
	for j := range len(b) + 1 {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		near := i
		for j := 1; j <= len(b); j++ {
			differs := 1
			if a[i-1] == b[j-1] {
				differs = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+differs)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
			near = min(near, row[j])
		}
		if near > n.least {
			// A swap reaches back over one row, so nothing below grows less by more than it.
			return near
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
