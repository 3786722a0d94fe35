package engine

import (
	"context"
	"time"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/subject"
)

// Who pays, and what that means: the tier, the time zone, what the directory of subjects has set for one of them.

// Subjects is a directory of subjects, as a [subject.Cache] answers from it.
type Subjects interface {
	Get(ctx context.Context, of subject.Ref) (subject.Answer, error)
	GetByKey(ctx context.Context, hash subject.KeyHash) (subject.Answer, error)
}

// payer is who pays for what lies at one place of the policy.
type payer struct {
	tier int
	from TierSource
	// directory is what the directory knows; nil: nothing.
	directory *subject.Subject
	zone      *time.Location // nil: nobody knows
	anchor    int            // the day of the billing month; 0: nobody knows
}

// TierSource says where a tier comes from.
type TierSource string

// Where tiers come from.
const (
	TierByDefault   TierSource = "default"   // the first of the policy
	TierByPolicy    TierSource = "policy"    // `subjects:` says it
	TierByDirectory TierSource = "directory" // the directory of subjects says it
	TierByCaller    TierSource = "caller"    // a caller says it whom the policy trusts
)

// Bar is why a request is refused whatever the limits say.
type Bar uint8

// What bars a request.
const (
	BarNone      Bar = iota
	BarSuspended     // the subject is suspended
	BarUnknown       // nobody knows who asks, and the policy lets nobody through unknown
)

// identify finds out who pays at each match, and says in d which tier the request is in: that of its first subject, else
// one that a trusted caller names, else the first.
func (e *Engine) identify(ctx context.Context, domain *policy.Domain, d *Decision, s *scratch) {
	s.payers = s.payers[:0]
	first, claimed := -1, -1
	for i := range s.matches {
		m, a := &s.matches[i], &s.asked[i]
		if !m.HasSubject {
			if claimed < 0 && a.tier != "" && domain.TrustsTier() {
				claimed = e.tierNamed(domain, a.tier)
			}
			s.payers = append(s.payers, payer{tier: -1})
			continue
		}
		if same := s.sameSubject(i); same >= 0 {
			s.payers = append(s.payers, s.payers[same])
			continue
		}
		who := e.payer(ctx, domain, m.Subject)
		if a.tier != "" && domain.TrustsTier() {
			who.tier, who.from = e.tierNamed(domain, a.tier), TierByCaller
		}
		if who.directory != nil && who.directory.Suspended {
			d.Bar = BarSuspended
		}
		if s.payers = append(s.payers, who); first < 0 {
			first = i
		}
	}
	s.everybody = payer{from: TierByDefault}
	if claimed >= 0 {
		s.everybody.tier, s.everybody.from = claimed, TierByCaller
	}
	if first >= 0 {
		who := &s.payers[first]
		s.everybody.tier, s.everybody.from, d.Zone = who.tier, who.from, who.zone
	}
	for i := range s.payers {
		if s.payers[i].tier < 0 {
			s.payers[i] = s.everybody
		}
	}
	if tiers := domain.Tiers(); len(tiers) > 0 {
		d.Tier = &tiers[s.everybody.tier]
	}
	d.retryUpTo, d.exhaustedStatus = domain.RetryUpTo(), domain.ExhaustedStatus()
}

// sameSubject returns an earlier match of the same subject in the same tier; −1 if there is none.
func (s *scratch) sameSubject(i int) int {
	m := &s.matches[i]
	for j := range i {
		if s.matches[j].HasSubject && s.matches[j].Subject == m.Subject && s.asked[j].tier == s.asked[i].tier {
			return j
		}
	}
	return -1
}

// payer returns what is known of a subject: by the directory, and where it does not say, by the policy.
func (e *Engine) payer(ctx context.Context, domain *policy.Domain, name string) (who payer) {
	who = payerByPolicy(domain, name)
	if e.opts.Subjects == nil {
		return who
	}
	found, err := e.opts.Subjects.Get(ctx, subject.Ref{Domain: domain.Name(), Name: name})
	if err != nil {
		e.metrics.unknownSubjects.Inc()
	}
	if err != nil || found.Subject == nil {
		return who
	}
	e.learn(&who, domain, found.Subject)
	return who
}

// payerByPolicy returns what the policy says of a subject.
func payerByPolicy(domain *policy.Domain, name string) payer {
	fixed, known := domain.SubjectNamed(name)
	who := payer{tier: fixed.Tier, from: TierByDefault, zone: fixed.Zone, anchor: fixed.Anchor}
	if known {
		who.from = TierByPolicy
	}
	return who
}

// learn lets what the directory says of a subject win over what the policy says.
func (e *Engine) learn(who *payer, domain *policy.Domain, of *subject.Subject) {
	who.directory = of
	if of.Tier != "" {
		who.tier, who.from = e.tierNamed(domain, of.Tier), TierByDirectory
	}
	if of.Zone != "" {
		if zone, err := e.zone(of.Zone); err == nil {
			who.zone = zone
		}
	}
	if of.Anchor != 0 {
		who.anchor = of.Anchor
	}
}

// zone returns a time zone by its name: to read one takes longer than to decide.
func (e *Engine) zone(name string) (*time.Location, error) {
	if known, ok := e.zones.Load(name); ok {
		return known.(*time.Location), nil
	}
	zone, err := time.LoadLocation(name)
	if err == nil {
		e.zones.Store(name, zone) // the directory knows no others, and there are some 600
	}
	return zone, err
}

// tierNamed returns the tier of that name. One that the policy does not have is the first.
func (e *Engine) tierNamed(domain *policy.Domain, name string) int {
	tier, ok := domain.TierNamed(name)
	if !ok {
		e.unknownTier(domain, name)
	}
	return tier
}

func (e *Engine) unknownTier(domain *policy.Domain, name string) {
	e.metrics.unknownTier.Inc()
	e.current.Load().unknownTier.Do(func() {
		e.opts.Log.Warn("a tier is named that the policy does not have, and the first is taken; this is said once",
			"domain", domain.Name(), "tier", name)
	})
}

// allows returns what a limit allows to a payer, nil for all, and in which periods.
func (e *Engine) allows(l *policy.Limit, who *payer, now limit.Micros) (*policy.Periods, *policy.Quantity) {
	periods := l.PeriodsFor(who.zone, who.anchor)
	q := periods.For(who.tier)
	if who.directory == nil {
		return periods, q
	}
	if text, ok := who.directory.Override(l.Path, now); ok {
		if over, err := e.current.Load().override(periods, text, q); err == nil {
			q = over
		} else {
			e.noteOverride(who.directory, l, err)
		}
	}
	if by := who.directory.Granted(l.Path, now); by > 0 {
		q = q.Raised(by)
	}
	return periods, q
}

// overrideKey is what an override that was read depends on, beside the policy.
type overrideKey struct {
	periods *policy.Periods
	base    *policy.Quantity
	text    string
}

// keptOverrides is how many overrides are kept as they were read.
const keptOverrides = 4096

// override reads an override, or remembers having done so.
func (l *loaded) override(periods *policy.Periods, text string, base *policy.Quantity) (*policy.Quantity, error) {
	key := overrideKey{periods, base, text}
	if q, ok := l.overrides.Get(key); ok {
		return q, nil
	}
	q, err := periods.Override(text, base)
	if err == nil {
		l.overrides.Add(key, q)
	}
	return q, err
}

// noteOverride says that an override cannot be used, so that the tier's quantity counts.
func (e *Engine) noteOverride(of *subject.Subject, l *policy.Limit, err error) {
	e.metrics.badOverrides.Inc()
	if e.overrideNoted.allows(time.Now()) {
		e.opts.Log.Warn("what was set for a subject cannot be used with the policy in force, and what its tier has "+
			"counts; this is said once a minute at most", "domain", of.Domain, "subject", of.Name, "limit", l.Path, "error", err)
	}
}
