package policy

import "time"

// Tier is a class of subjects.
type Tier struct {
	Name string
	// Attributes is handed back with every decision. It holds what JSON can hold, as encoding/json
	// would decode it; nil if there is none.
	Attributes map[string]any

	place place
}

// Subject is what a policy says of one fixed subject.
type Subject struct {
	Tier int            // index in [Domain.Tiers]
	Zone *time.Location // for the times that it is told; nil: none is known
	// Anchor is the day of the month, 1…31, on which its billing month begins; 0: none is known.
	Anchor int

	place place
}

// Tiers returns the tiers of the domain in their order: the first is that of unknown subjects.
func (d *Domain) Tiers() []Tier { return d.tiers }

// TierNamed returns the index of a tier.
func (d *Domain) TierNamed(name string) (tier int, ok bool) {
	for i := range d.tiers {
		if d.tiers[i].Name == name {
			return i, true
		}
	}
	return 0, false
}

// TierOf returns the tier that `subjects:` gives to a subject; where it names none, known is false and
// the tier is the first.
func (d *Domain) TierOf(subject string) (tier int, known bool) {
	s, known := d.subjects[subject]
	return s.Tier, known
}

// SubjectNamed returns what `subjects:` says of a subject.
func (d *Domain) SubjectNamed(name string) (s Subject, ok bool) {
	s, ok = d.subjects[name]
	return s, ok
}

// TrustsTier reports whether a caller may name its tier in a request.
func (d *Domain) TrustsTier() bool { return d.trustsTier }
