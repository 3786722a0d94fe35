package policy

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/rationhq/ration/price"
)

// oldAfter is how old the figures of the book that ships may be before there is a warning.
const oldAfter = 90 * 24 * time.Hour

// prices warns of prices that are old, that are none, and of calls that cost nothing.
func (l *linter) prices(d *Domain) {
	p := &d.prices
	if p.book == nil {
		return
	}
	if age := l.now.Sub(p.book.Date()); p.shipped && !l.now.IsZero() && age > oldAfter {
		// Never an error: what loads today must load tomorrow.
		l.rep.add(p.at, Problem{
			Message: fmt.Sprintf("the price book that ships is of %s, %d days ago: take a later version of ration, "+
				"or write the prices of your models, with `book: none`", p.book.Date().Format(time.DateOnly), int(age.Hours()/24)),
			Warning: true,
		})
	}
	first := d.costLimit()
	if first == nil {
		return
	}
	if p.unknown == UnknownModelAllow {
		l.rep.warn(p.unknownAt, "`unknown_model: allow`: a call to a model without a price costs nothing, "+
			"so no limit of cost holds it back, such as `%s` at %s", clip(first.Name), first.place())
	}
	if p.own == 0 && !p.shipped {
		becomes := "every call costs nothing, and no limit of cost holds it back"
		if p.unknown == UnknownModelDeny {
			becomes = p.unknown.means("every call")
		}
		l.rep.warn(p.at, "there are no prices at all, so %s: write some, or `book: builtin`", becomes)
	}
}

// priced warns of models that the policy names and that have no price, where money is limited.
func (l *linter) priced(d *Domain) {
	if d.prices.book == nil || d.costLimit() == nil {
		return
	}
	if d.prices.own == 0 && !d.prices.shipped {
		return // no model has one, which was said
	}
	for i := range d.tiers {
		t := &d.tiers[i]
		if model, ok := t.Attributes["model"].(string); ok && !l.model(d, model, t.place, "tier", t.Name) {
			return
		}
	}
	names := known{book: d.prices.book}
	for _, u := range d.upstreams {
		for _, m := range u.models {
			if !isPattern(m.value) {
				if !l.model(d, m.value, m.at, "upstream", u.Name) {
					return
				}
				continue
			}
			if !l.spend(len(names.list())) {
				return
			}
			if !names.overlap(m.value) {
				l.rep.warn(m.at, "no model like %s of upstream %s has a price: %s",
					quote(m.value), quote(u.Name), d.prices.unknown.means("such a model"))
			}
		}
	}
}

// model warns of a model that has no price. It reports false where the search is given up.
func (l *linter) model(d *Domain, model string, at place, what, name string) bool {
	const pattern = 8 // bytes, or so
	if !l.spend(pattern * d.prices.own) {
		return false
	}
	when := l.now
	if when.IsZero() {
		when = time.Date(9999, time.December, 31, 0, 0, 0, 0, time.UTC)
	}
	if _, ok := d.prices.book.Find(model, when); ok || l.rep.full() {
		return true
	}
	p := Problem{
		Message: fmt.Sprintf("model %s of %s %s has no price: %s",
			quote(model), what, quote(name), d.prices.unknown.means("a call to it")),
		Warning: !l.rep.strict,
	}
	const most = 20 // suggestions take a millisecond each
	if l.suggested++; l.suggested <= most {
		p.Suggestion = d.prices.book.Nearest(model)
	}
	l.rep.add(at, p)
	return true
}

// known are the names of a book, in lower case. Among them are those that have no price: they stand under a pattern
// that has one.
type known struct {
	book  *price.Book
	names []string
}

func (k *known) list() []string {
	if k.names == nil {
		for _, m := range k.book.Models() {
			k.names = append(k.names, strings.ToLower(m.Name))
		}
	}
	return k.names
}

// overlap reports whether some name is both for the pattern and for an entry of the book, be it behind the way to
// reach it.
func (k *known) overlap(pattern string) bool {
	pattern = strings.ToLower(pattern)
	model := pattern[strings.LastIndexByte(pattern, '/')+1:]
	for _, name := range k.list() {
		if overlap(pattern, name) || overlap(cmp.Or(model, pattern), name) {
			return true
		}
	}
	return false
}

// overlap reports whether there is a text that is both for a pattern and for a name, which may be one too: what is
// behind a star can be what the other wants, so that only the ends matter where both have one.
func overlap(pattern, name string) bool {
	if !isPattern(name) {
		return price.Matches(pattern, name)
	}
	before, _, _ := strings.Cut(pattern, "*")
	nameBefore, _, _ := strings.Cut(name, "*")
	after, nameAfter := pattern[strings.LastIndexByte(pattern, '*')+1:], name[strings.LastIndexByte(name, '*')+1:]
	n, m := min(len(before), len(nameBefore)), min(len(after), len(nameAfter))
	return before[:n] == nameBefore[:n] && after[len(after)-m:] == nameAfter[len(nameAfter)-m:]
}
