package price

import (
	"strings"

	"github.com/rationhq/ration/internal/spelling"
)

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
	name  string
	least int
}

// consider takes the candidate if it is nearer than all before.
func (n *nearest) consider(word, candidate string) {
	if max(len(candidate)-len(word), len(word)-len(candidate)) >= n.least || len(candidate) <= n.least/2 {
		return
	}
	if d := spelling.Distance(word, lower(candidate), n.least-1); d < n.least {
		n.name, n.least = candidate, d
	}
}
