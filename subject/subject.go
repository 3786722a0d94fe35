package subject

import (
	"fmt"
	"maps"
	"slices"

	"github.com/rationhq/ration/limit"
)

// Subject is what the directory knows of one who pays. The zero value of each field but the first two and the last says
// nothing; a subject of whom nothing is known, and one whom the directory does not know, are treated alike.
//
// Subjects that a [Cache] hands out are shared: they must not be changed.
type Subject struct {
	Domain, Name string
	// Key is the descriptor key whose value is Name, "user" say. A call that comes with nothing but an API key gets it,
	// with Name, among its attributes.
	Key string
	// Tier is the name of a tier of the policy. Empty, or one that the policy does not know: the policy's first.
	Tier string
	// Zone is the IANA time zone in which the subject is told times; empty: none is known.
	Zone string
	// Anchor is the day of the month, 1…31, with which the subject's billing month begins; 0: none of its own. In
	// months that have no such day it is their last.
	Anchor int
	// Suspended refuses whatever the subject asks for.
	Suspended bool
	// Attributes are added to those of a call that comes by one of APIKeys: the org to which the subject belongs, say.
	Attributes map[string]string
	// Overrides stand in place of what the tier allows: one for a limit at most.
	Overrides []Override
	// Grants are added to what the tier, or an override, allows.
	Grants []Grant
	// APIKeys are the keys by which callers say that they are this subject.
	APIKeys []APIKey
	// Corrected is the last correction by hand of what counts as used of one of the subject's limits. It stands here so
	// that the audit has it, and means nothing to decisions.
	Corrected Correction
	// Revision rises by one with each change. A subject that is made anew goes on above where it was deleted. The
	// directory sets it.
	Revision uint64
}

// Override is another quantity for one limit of one subject.
type Override struct {
	// Limit is the path of the limit in the policy: llm.user.requests.
	Limit string `json:"limit"`
	// Quantity is what it allows, as policies write it: 100/minute. The policy reads it.
	Quantity string `json:"quantity"`
	// Expires is when it counts no more; 0: never.
	Expires limit.Micros `json:"expires,omitempty"`
	// Reason says why it was made.
	Reason string `json:"reason,omitempty"`
}

// Grant is an amount that one subject may use of a limit beyond what it allows.
type Grant struct {
	// ID tells it from the subject's other grants, so that granting twice by mistake is noticed.
	ID string `json:"id"`
	// Limit is the path of the limit in the policy.
	Limit string `json:"limit"`
	// Amount is in units of the limit's meter, nano-dollars for money: 1…[limit.MaxAmount].
	Amount int64 `json:"amount"`
	// Expires is when it counts no more; 0: never.
	Expires limit.Micros `json:"expires,omitempty"`
	// Reason says why it was made.
	Reason string `json:"reason,omitempty"`
}

// Correction is what was added by hand to what counts as used of a limit.
type Correction struct {
	// Limit is the path of the limit in the policy; empty: there was none.
	Limit string `json:"limit,omitempty"`
	// Amount is in units of the limit's meter; below 0 it was taken away.
	Amount int64 `json:"amount,omitempty"`
	// At is when.
	At limit.Micros `json:"at,omitempty"`
}

// Ref names the subject.
func (s *Subject) Ref() Ref { return Ref{s.Domain, s.Name} }

// Override returns what stands in place of the limit's quantity for this subject now. It is for every decision: it
// allocates nothing.
func (s *Subject) Override(path string, now limit.Micros) (quantity string, ok bool) {
	for i := range s.Overrides {
		if o := &s.Overrides[i]; o.Limit == path && !expired(o.Expires, now) {
			return o.Quantity, true
		}
	}
	return "", false
}

// Granted returns what the grants of a limit come to now, [limit.MaxAmount] at most. It is for every decision: it
// allocates nothing.
func (s *Subject) Granted(path string, now limit.Micros) (sum int64) {
	for i := range s.Grants {
		if g := &s.Grants[i]; g.Limit == path && !expired(g.Expires, now) {
			sum = limit.Add(sum, g.Amount)
		}
	}
	return sum
}

// DropExpired removes the overrides and grants that count no more, which otherwise stay for people to see.
func (s *Subject) DropExpired(now limit.Micros) {
	s.Overrides = slices.DeleteFunc(s.Overrides, func(o Override) bool { return expired(o.Expires, now) })
	s.Grants = slices.DeleteFunc(s.Grants, func(g Grant) bool { return expired(g.Expires, now) })
}

func expired(at, now limit.Micros) bool { return at != 0 && now >= at }

// Lists reports whether the API key of this hash is the subject's.
func (s *Subject) Lists(hash KeyHash) bool {
	for i := range s.APIKeys {
		if s.APIKeys[i].Hash == hash {
			return true
		}
	}
	return false
}

// Format prints it as a struct, also where it is found behind a pointer by a verb that is not for structs: there package
// fmt would not let API keys hide their hashes.
func (s Subject) Format(f fmt.State, verb rune) {
	type plain Subject
	_, _ = fmt.Fprintf(f, fmt.FormatString(f, verb), plain(s))
}

// Clone returns a copy that shares nothing with s.
func (s *Subject) Clone() Subject {
	c := *s
	c.Attributes = maps.Clone(s.Attributes)
	c.Overrides = slices.Clone(s.Overrides)
	c.Grants = slices.Clone(s.Grants)
	c.APIKeys = slices.Clone(s.APIKeys)
	return c
}
