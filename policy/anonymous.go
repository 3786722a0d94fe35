package policy

import (
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// AnonymousName is the subject that a request has which names none, where [Domain.Anonymous] gives it one.
const AnonymousName = "anonymous"

// Anonymous says what becomes of a request that names no subject, in a domain that has some. The zero Anonymous leaves
// it without one: no limit of subjects applies to it.
type Anonymous struct {
	// Deny refuses it.
	Deny bool
	// By is the key of the entry or attribute whose value tells anonymous callers apart; empty: together they are one
	// subject. It means something only if Given is true and Deny is not.
	By string
	// Given says that such a request is refused, or has the subject [AnonymousName] and the first tier.
	Given bool
}

// anonymous is what a domain says of those who name no subject.
type anonymous struct {
	Anonymous
	said bool // be it that nothing limits them
	at   place
}

var anonymousWords = []string{"deny", "shared", unlimitedWord}

// Anonymous returns what becomes of a request that names no subject.
func (d *Domain) Anonymous() Anonymous { return d.anonymous.Anonymous }

// SubjectKeys returns the keys of the descriptors with `subject: true`, each once, in the order of the files. A key may
// be a wildcard, as it is written.
func (d *Domain) SubjectKeys() []string { return d.subjectKeys }

// SubjectKey returns the first of them that is no wildcard: under it somebody is named of whom only the name is known.
// Empty if there is none.
func (d *Domain) SubjectKey() string { return d.subjectKey }

// findSubjectKeys notes which descriptors name subjects.
func (d *Domain) findSubjectKeys() {
	d.subjectKeys = d.root.subjectKeys(nil)
	if i := slices.IndexFunc(d.subjectKeys, func(key string) bool { return !strings.Contains(key, "*") }); i >= 0 {
		d.subjectKey = d.subjectKeys[i]
	}
}

func (n *node) subjectKeys(keys []string) []string {
	for _, c := range n.ordered {
		if c.subject && !slices.Contains(keys, c.key) {
			keys = append(keys, c.key)
		}
		keys = c.subjectKeys(keys)
	}
	return keys
}

func (r *reader) anonymous(n *yaml.Node) *anonymousEntry {
	e := &anonymousEntry{at: r.at(n)}
	if n.Kind != yaml.MappingNode {
		r.ownText("anonymous", n, &e.word)
		return e
	}
	before := r.rep.errors
	r.object("`anonymous`", n, inAnonymous, func(key string, v *yaml.Node) { r.ownText(key, v, &e.by) })
	if !e.by.given && r.rep.errors == before {
		r.rep.error(e.at, "`anonymous` does not say by which entry callers are told apart: write { by: remote_address }, "+
			"or the word shared if they are one subject together")
	}
	return e
}

// addAnonymous takes over what a file says.
func (c *compiler) addAnonymous(dr *draft, e *anonymousEntry) {
	switch said := dr.anonymous; {
	case e == nil:
	case said != nil && (said.word.value != e.word.value || said.by.value != e.by.value):
		c.rep.error(e.at, "`anonymous` is something else at %s: it is said once for the domain", said.at)
	default:
		dr.anonymous = e
	}
}

func (c *compiler) anonymous(dr *draft) {
	e := dr.anonymous
	if e == nil {
		return
	}
	a := anonymous{said: true, at: e.at}
	switch {
	case e.by.given:
		c.otherThanSubject(dr.domain, e.by)
		a.Given, a.By = true, e.by.value
	case e.word.value == unlimitedWord:
	case slices.Contains(anonymousWords, e.word.value):
		a.Given, a.Deny = true, e.word.value == "deny"
	case e.word.given:
		c.unknownWord(e.word, "anonymous", append(slices.Clone(anonymousWords), "{ by: remote_address }"))
	}
	dr.domain.anonymous = a
}

// otherThanSubject reports a key that cannot tell apart those who name no subject.
func (c *compiler) otherThanSubject(d *Domain, by field[string]) {
	switch keys := d.SubjectKeys(); {
	case strings.HasPrefix(by.value, reservedPrefix):
		c.rep.error(by.at, "anonymous callers are not told apart by %s: keys that begin with `%s` say something about a "+
			"request, and are no part of its descriptor", quote(by.value), reservedPrefix)
	case slices.Contains(keys, by.value):
		c.rep.error(by.at, "anonymous callers are not told apart by %s: it names the subject, and who has one is not anonymous. "+
			"Write another entry that requests have, such as remote_address", quote(by.value))
	}
}

// explainAnonymous adds a line that says what becomes of those who name no subject.
func (d *Domain) explainAnonymous(lines []string) []string {
	if a := &d.anonymous; a.said {
		return append(lines, "  who names no subject "+a.means(d))
	}
	return lines
}

func (a *anonymous) means(d *Domain) string {
	tier := ""
	if len(d.tiers) > 0 {
		tier = ", in " + word(d.tiers[0].Name)
	}
	switch {
	case !a.Given:
		return "meets no limit of subjects"
	case a.Deny:
		return "is refused"
	case a.By != "":
		return fmt.Sprintf("is %q, with counters for each value of %s%s", AnonymousName, word(a.By), tier)
	}
	return fmt.Sprintf("is %q, with all others of whom that is so%s", AnonymousName, tier)
}

// anonymous warns where nothing is said of those who name no subject, or where nobody names one.
func (l *linter) anonymous(d *Domain) {
	first := d.root.firstPayer()
	switch {
	case first == nil && d.anonymous.said:
		l.rep.warn(d.anonymous.at, "`anonymous` has no effect: no descriptor has `subject: true`")
	case first != nil && !d.anonymous.said:
		l.rep.warn(first.place, "whoever names no %s passes all limits of subjects: write "+
			"`anonymous: { by: remote_address }` at the top, which limits such callers too, `anonymous: deny`, "+
			"or `anonymous: unlimited` if that is meant", clip(alternatives(d.SubjectKeys())))
	}
}

// firstPayer returns the first node below n that is a subject, or nil.
func (n *node) firstPayer() *node {
	for _, c := range n.ordered {
		if c.subject {
			return c
		}
		if below := c.firstPayer(); below != nil {
			return below
		}
	}
	return nil
}
