package price

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// index finds the entry of a model by its name.
type index struct {
	entries  []*entry            // by name
	exact    map[string]*entry   // by the name in lower case
	patterns map[string][]*entry // by the part before the first star; the most specific first
	lengths  []int               // of those parts, the longest first
}

// entry is all that a book says of one name.
type entry struct {
	name    string  // as it is written
	pattern pattern // of the name in lower case, where it has stars
	prices  []priced
}

// priced is what an entry says from some day on. Those of an entry are in order of time, the last one first.
type priced struct {
	from      time.Time
	rates     Rates
	maxOutput int64
	unpriced  bool
}

func newIndex(models []Model) index {
	x := index{exact: map[string]*entry{}, patterns: map[string][]*entry{}}
	byName := map[string]*entry{}
	for i := range models {
		m := &models[i]
		key := strings.ToLower(m.Name)
		e := byName[key]
		if e == nil {
			e = &entry{name: m.Name}
			byName[key] = e
			x.entries = append(x.entries, e)
			if isPattern(key) {
				e.pattern = newPattern(key)
				x.patterns[e.pattern.prefix] = append(x.patterns[e.pattern.prefix], e)
			} else {
				x.exact[key] = e
			}
		}
		e.prices = append(e.prices, priced{m.From, m.effective(), m.MaxOutput, m.Unpriced})
	}
	slices.SortFunc(x.entries, func(a, b *entry) int { return strings.Compare(a.name, b.name) })
	for _, e := range x.entries {
		slices.SortFunc(e.prices, func(a, b priced) int { return b.from.Compare(a.from) })
	}
	for prefix, entries := range x.patterns {
		slices.SortFunc(entries, func(a, b *entry) int {
			return cmp.Or(len(b.literal())-len(a.literal()), strings.Compare(a.name, b.name))
		})
		x.lengths = append(x.lengths, len(prefix))
	}
	slices.Sort(x.lengths)
	x.lengths = slices.Compact(x.lengths)
	slices.Reverse(x.lengths)
	return x
}

// literal returns the name without its stars.
func (e *entry) literal() string { return strings.ReplaceAll(e.name, "*", "") }

// at returns what the entry says at an instant, or nil where that is before all it says.
func (e *entry) at(t time.Time) *priced {
	for i := range e.prices {
		if !e.prices[i].from.After(t) {
			return &e.prices[i]
		}
	}
	return nil
}

// find returns the entry that stands for the model at an instant, and what it says then; nil for none. Of the ways
// to write the name the most complete wins, of entries for it the exact one, then the one with the longest part
// before a star, then the one with the most letters. A pattern that begins with a star stands behind all others.
func (x *index) find(whole called, t time.Time) (*entry, *priced) {
	for c, more := whole, true; more; c, more = c.shorter() {
		if e := x.exact[string(c.name)]; e != nil {
			if p := e.at(t); p != nil {
				return e, p
			}
		}
		for _, n := range x.lengths {
			if n == 0 || n > len(c.name) {
				continue
			}
			if e, p := first(x.patterns[string(c.name[:n])], c, t); e != nil {
				return e, p
			}
		}
	}
	return first(x.patterns[""], whole, t)
}

// first returns the first entry that stands for the name and says something at that instant.
func first(entries []*entry, c called, t time.Time) (*entry, *priced) {
	for _, e := range entries {
		if e.pattern.matches(c.name) {
			if p := e.at(t); p != nil {
				return e, p
			}
		}
	}
	return nil, nil
}
