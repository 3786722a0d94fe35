package engine

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/rationhq/ration/policy"
)

// ErrOutOfScope says that whoever asks may not act for that domain, or for those subjects. It does not say whose they are.
var ErrOutOfScope = errors.New("not permitted to the caller")

// The ways out of a scope.
var (
	errDomainOutOfScope  = scopeError("the token or certificate is not for this domain: use one whose `domains` name it")
	errSubjectOutOfScope = scopeError("the token or certificate is for some subjects alone, and the call is not only for those: " +
		"name one of its `subjects`, and no other")
	errUnknownOutOfScope = scopeError("the token or certificate is not for everybody, and the reservation, which was not made by Reserve, " +
		"does not say whose it is")
)

// scopeError says what is missing.
type scopeError string

func (e scopeError) Error() string { return string(e) }

func (e scopeError) Is(target error) bool { return target == ErrOutOfScope }

// Scope is for whom somebody may act. The zero value is for everybody.
type Scope struct {
	// Domains are those of policies; none: all.
	Domains []string
	// Subjects are those for whom a call may be made; none: all, and calls for nobody in particular.
	Subjects []SubjectPattern
	// Refused, where set, is told of every call, and every report of a batch, that is out of scope.
	Refused func()
}

// SubjectPattern is a subject, or all whose names begin alike.
type SubjectPattern struct {
	// Key is the descriptor key that names subjects, as user.
	Key string
	// Name is that of the subject, or with Prefix the beginning of it.
	Name   string
	Prefix bool
}

func (p *SubjectPattern) matches(key, name string) bool {
	return key == p.Key && (name == p.Name || p.Prefix && strings.HasPrefix(name, p.Name))
}

type scopeKey struct{}

// WithScope bounds what accounts and usage the calls with the context may be about: those of [Engine.Decide] and
// corrections are not bounded. A reservation is of those for whom it was made, whoever ends it.
func WithScope(ctx context.Context, s *Scope) context.Context {
	return context.WithValue(ctx, scopeKey{}, s)
}

// scopeOf returns the scope of a call; nil for everybody.
func scopeOf(ctx context.Context) *Scope {
	s, _ := ctx.Value(scopeKey{}).(*Scope)
	return s
}

// takesDomain returns why a call may not be about a domain. It is asked before whether the policy has it: which domains
// there are is nobody's business either.
func (s *Scope) takesDomain(name string) error {
	if s == nil || len(s.Domains) == 0 || slices.Contains(s.Domains, name) {
		return nil
	}
	return s.refuse(errDomainOutOfScope)
}

// takesSubjects returns why a call with these attributes may not be made. An API key has to be resolved before. Every
// attribute that names a subject, by the policy or by the scope, has to be in the scope, and one has to be there.
func (s *Scope) takesSubjects(domain *policy.Domain, attributes []policy.Entry) error {
	if s == nil || len(s.Subjects) == 0 {
		return nil
	}
	keys, named := domain.SubjectKeys(), false
	for i := range attributes {
		a := &attributes[i]
		within := slices.ContainsFunc(s.Subjects, func(p SubjectPattern) bool { return p.matches(a.Key, a.Value) })
		if !within && (namesSubjects(keys, a.Key) || slices.ContainsFunc(s.Subjects, func(p SubjectPattern) bool { return p.Key == a.Key })) {
			return s.refuse(errSubjectOutOfScope)
		}
		named = named || within
	}
	if !named {
		return s.refuse(errSubjectOutOfScope)
	}
	return nil
}

// namesSubjects reports whether a key may be one of those, of which some are patterns: rather one too many.
func namesSubjects(keys []string, key string) bool {
	return slices.ContainsFunc(keys, func(k string) bool {
		prefix, _, pattern := strings.Cut(k, "*")
		return k == key || pattern && strings.HasPrefix(key, prefix)
	})
}

// takesEverybody returns why a call may not be about all subjects at once.
func (s *Scope) takesEverybody() error {
	if s == nil || len(s.Subjects) == 0 {
		return nil
	}
	return s.refuse(errSubjectOutOfScope)
}

// takesUnknown returns why a call may not be about a reservation of which nobody knows for whom it was made.
func (s *Scope) takesUnknown() error {
	if s == nil || len(s.Domains)+len(s.Subjects) == 0 {
		return nil
	}
	return s.refuse(errUnknownOutOfScope)
}

func (s *Scope) refuse(why error) error {
	if s.Refused != nil {
		s.Refused()
	}
	return why
}
