package policy

import (
	"sync"
	"time"

	"github.com/rationhq/ration/limit"
)

// Periods are a limit with the periods of its calendar where they are for one subject: in the subject's time zone, from
// its billing day on. Those of a [Limit] itself are for subjects that say nothing, and the only ones of limits that do
// not ask subjects.
type Periods struct {
	of         *Limit
	quantities []*Quantity // by tier, or one for all tiers
	kind       []byte      // the end of its buckets' names
}

// For returns what the limit allows to a tier, given by its index in [Domain.Tiers], and to everybody
// where the domain has no tiers. nil: no limit for that tier.
func (p *Periods) For(tier int) *Quantity {
	if len(p.quantities) == 1 {
		return p.quantities[0]
	}
	return p.quantities[tier]
}

// AppendBucket appends the name of the limit's counter for m, within the owner of m:
// `model=claude-opus-4-1|opus|sliding_log|86400s`, or `requests|token_bucket|60s` for a limit of the
// owner itself. m must hold the limit among its Limits.
//
// Owner and name together are injective, as the names of [AppendBucket] are: the parts before the last
// three are the entries below the owner, then come the name of the limit, the algorithm and the window.
// The calendar is part of the window: Periods that differ have different names.
func (p *Periods) AppendBucket(b []byte, m *Match) []byte {
	if len(m.below) > 0 {
		b = append(b, m.below[1:]...) // without the first separator
		b = append(b, '|')
	}
	return append(b, p.kind...)
}

// any returns a quantity of some tier, nil where the limit is unlimited for all.
func (p *Periods) any() *Quantity {
	for _, q := range p.quantities {
		if q != nil {
			return q
		}
	}
	return nil
}

// kind returns the end of the names of a limit's buckets: its name, algorithm and window.
func kind(name string, spec *limit.Spec) []byte {
	b := appendEscaped(nil, name)
	b = append(b, '|')
	b = append(b, spec.Algorithm.String()...)
	if spec.FirstUse {
		b = append(b, ":first_use"...)
	}
	if spec.Calendar == nil {
		return appendWindow(b, spec.Window)
	}
	b = append(b, '|')
	return appendEscaped(b, spec.Calendar.String())
}

// PeriodsFor returns the limit as it is for a subject with that time zone and billing day; nil and 0 where the subject
// has none. It returns the limit's own Periods, and allocates nothing, where the limit does not ask (SubjectZone,
// SubjectAnchor), where the subject says nothing, and where it says what the limit has anyway. A zone that is not in the
// IANA database, and a day that is in no month, say nothing. Periods are the same each time as long as not too many are
// in use.
func (l *Limit) PeriodsFor(zone *time.Location, anchorDay int) *Periods {
	if l.subjects == nil {
		return &l.Periods
	}
	own := l.subjects.own
	ask := beginning{zoneName(own.Zone), max(own.Anchor, 1)}
	said := ask
	if l.SubjectZone && zone != nil && zone != time.Local { // which is another one elsewhere
		ask.zone = zone.String()
	}
	if l.SubjectAnchor && 1 <= anchorDay && anchorDay <= 31 {
		ask.day = anchorDay
	}
	if ask == said {
		return &l.Periods
	}
	return l.subjects.of(ask, l)
}

// subjectPeriods are the Periods of a limit whose calendar is the subject's own. It is safe for concurrent use.
type subjectPeriods struct {
	own *limit.Calendar // where the subject says nothing

	mu    sync.RWMutex
	known map[beginning]*Periods
}

// beginning is where a subject's periods begin.
type beginning struct {
	zone string
	day  int
}

// maxPeriods bounds how many Periods of a limit are kept. There are some 600 zones and 31 days.
const maxPeriods = 4096

func (s *subjectPeriods) of(ask beginning, l *Limit) *Periods {
	s.mu.RLock()
	p := s.known[ask]
	s.mu.RUnlock()
	if p != nil {
		return p
	}
	made := l.beginning(ask, s.own)
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.known[ask]; p != nil {
		return p
	}
	if s.known == nil || len(s.known) == maxPeriods {
		s.known = map[beginning]*Periods{} // those in use come back
	}
	s.known[ask] = made
	return made
}

// beginning returns the Periods that begin there; where there is no such zone, as if the subject did not say it.
func (l *Limit) beginning(at beginning, own *limit.Calendar) *Periods {
	calendar := *own
	calendar.Anchor = at.day
	var err error
	// By its name, since whoever reads the counter's name knows no other.
	if calendar.Zone, err = time.LoadLocation(at.zone); at.zone == "" || err != nil || calendar.Validate() != nil {
		return l.PeriodsFor(nil, at.day)
	}
	p := &Periods{of: l}
	for _, q := range l.quantities {
		if q != nil {
			moved := *q
			moved.Spec.Calendar = &calendar
			if moved.localShare > 0 {
				moved.Local.Calendar = &calendar
			}
			q = &moved
			p.kind = kind(l.Name, &q.Spec)
		}
		p.quantities = append(p.quantities, q)
	}
	return p
}

func zoneName(zone *time.Location) string {
	if zone == nil {
		return "UTC"
	}
	return zone.String()
}
