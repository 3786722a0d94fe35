package engine

import (
	"context"
	"fmt"
	"slices"

	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/store"
	"github.com/rationhq/ration/subject"
)

// Whose call it is, where that is not said by an entry: by an API key, or by nobody.

// keyOwner returns the entry that an API key stands for, and whatever else the directory adds to a call that comes by
// it. ok is false where the key belongs to nobody in the domain.
func (e *Engine) keyOwner(
	ctx context.Context, domain *policy.Domain, key string,
) (who policy.Entry, more map[string]string, ok bool, err error) {
	if e.opts.Subjects == nil {
		return who, nil, false, nil
	}
	found, err := e.opts.Subjects.GetByKey(ctx, subject.HashKey(key))
	if err != nil {
		return who, nil, false, fmt.Errorf("%w: whose API key it is: %w", store.ErrUnavailable, err)
	}
	of := found.Subject
	if of == nil || of.Domain != domain.Name() {
		return who, nil, false, nil
	}
	who = policy.Entry{Key: of.Key, Value: of.Name}
	if who.Key == "" {
		who.Key = domain.SubjectKey()
	}
	return who, of.Attributes, true, nil
}

// resolveKeys replaces the API keys in the descriptors by the subjects that they belong to.
func (e *Engine) resolveKeys(ctx context.Context, domain *policy.Domain, d *Decision, s *scratch) error {
	for i := range s.asked {
		a := &s.asked[i]
		if a.key == "" {
			continue
		}
		who, _, ok, err := e.keyOwner(ctx, domain, a.key)
		switch {
		case err != nil:
			return err
		case ok:
			from := len(s.entries)
			s.entries = append(s.entries, a.entries...)
			// It takes the place of another name: behind that no rule would look for it, and none apply.
			if i := slices.IndexFunc(a.entries, func(e policy.Entry) bool { return e.Key == who.Key }); i >= 0 {
				s.entries[from+i] = who
			} else {
				s.entries = append(s.entries, who)
			}
			a.entries = s.entries[from:]
		case !takesAnonymous(domain):
			d.Bar = BarUnknown
		default:
			from := len(s.entries)
			s.entries = unnamed(domain, append(s.entries, a.entries...), from)
			a.entries = s.entries[from:]
		}
	}
	return nil
}

// unnamed takes out of entries, from a place on, those that name a subject: who shows a key that is nobody's is nobody,
// whatever name comes with it.
func unnamed(domain *policy.Domain, entries []policy.Entry, from int) []policy.Entry {
	keys := domain.SubjectKeys()
	rest := slices.DeleteFunc(entries[from:], func(e policy.Entry) bool { return slices.Contains(keys, e.Key) })
	return entries[:from+len(rest)]
}

// takesAnonymous says that the policy lets calls through that come from nobody, as those of one subject.
func takesAnonymous(domain *policy.Domain) bool {
	a := domain.Anonymous()
	return a.Given && !a.Deny
}

// anonymous lets s.shared be what applies to nobody in particular, where a request names no subject and the policy gives
// it one; or bars it.
func (s *scratch) anonymous(domain *policy.Domain, d *Decision) bool {
	key := domain.SubjectKey()
	if !domain.Anonymous().Given || key == "" || s.namesSubject() {
		return false
	}
	if domain.Anonymous().Deny {
		d.Bar = BarUnknown
		return false
	}
	name := policy.AnonymousName
	for i := range s.asked {
		if by, ok := anonymousBy(domain, s.asked[i].entries); ok {
			name = by
			break
		}
	}
	s.shared, s.names = domain.Match([]policy.Entry{{Key: key, Value: name}}, s.names)
	return true
}

// nameNobody gives a subject that is named by nothing the name of nobody, or bars the request, as the policy says of those
// who are anonymous. It returns entries, or a copy where one of them changes.
func nameNobody(domain *policy.Domain, d *Decision, entries []policy.Entry) []policy.Entry {
	if !domain.Anonymous().Given {
		return entries
	}
	for i := range entries {
		if entries[i].Value != "" || !namesSubjects(domain.SubjectKeys(), entries[i].Key) {
			continue
		}
		if domain.Anonymous().Deny {
			d.Bar = BarUnknown
			return entries
		}
		name, ok := anonymousBy(domain, entries)
		if !ok {
			name = policy.AnonymousName
		}
		entries = slices.Clone(entries)
		entries[i].Value = name
	}
	return entries
}

func (s *scratch) namesSubject() bool {
	for i := range s.matches {
		if s.matches[i].HasSubject {
			return true
		}
	}
	return false
}

// anonymousBy returns the subject of a caller who is told from others by one of its entries.
func anonymousBy(domain *policy.Domain, entries []policy.Entry) (name string, ok bool) {
	by := domain.Anonymous().By
	if by == "" {
		return "", false
	}
	for i := range entries {
		if entries[i].Key == by && entries[i].Value != "" {
			return policy.AnonymousName + ":" + entries[i].Value, true
		}
	}
	return "", false
}

// bar refuses the request where something bars it that asks to be let through. What reports usage is let through in any
// case.
func (s *scratch) bar(d *Decision) {
	if d.Bar == BarNone {
		return
	}
	asks := func(a asked) bool { return (a.phase == admit || a.phase == hold) && !a.giveBack }
	if !s.wholeCall && !slices.ContainsFunc(s.asked, asks) {
		d.Bar = BarNone
		return
	}
	s.step.Refused = true
}
