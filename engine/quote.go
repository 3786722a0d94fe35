package engine

import (
	"math"

	"github.com/rationhq/ration/policy"
)

// What a protocol is told of money that has room for whole numbers only, and none for their unit: Envoy's
// statuses and the headers of the established contract. It is cents there, which fit into 32 bits for every
// amount that is counted, and a limit that counts requests or tokens goes before.

// cent is a cent in nano-dollars.
const cent = 10_000_000

// Counts returns the limit and what remains of it as whole numbers: requests, tokens, or cents, of which the
// limit is rounded up, so that it is not 0 where something is allowed, and what remains is rounded down.
func (s *Status) Counts() (ceiling, remaining int64) {
	if !s.isMoney() {
		return s.Limit.RequestsPerUnit, s.Remaining
	}
	return (s.Limit.RequestsPerUnit + cent - 1) / cent, s.Remaining / cent
}

func (s *Status) isMoney() bool { return s.Applied != nil && s.Applied.isMoney() }

func (a *Applied) isMoney() bool { return a.Limit.Meter == policy.Cost }

// Places and money are told of where nothing is counted that callers can go by: how many calls may still begin, or how
// many tokens are left, is what the fields are for.
const (
	countsCalls = iota // and tokens
	countsPlaces
	countsMoney
	countsAll
)

// counts says which of them the limit counts.
func (a *Applied) counts() int {
	switch a.Limit.Meter {
	case policy.Cost:
		return countsMoney
	case policy.InFlight:
		return countsPlaces
	default:
		return countsCalls
	}
}

func (s *Status) counts() int {
	if s.Applied == nil {
		return countsCalls
	}
	return s.Applied.counts()
}

// describes says that a describes a status rather than what does so so far: as it binds; but while neither
// refuses, places and money come last.
func (a *Applied) describes(s *Status) bool {
	if of, before := a.counts(), s.counts(); !a.Over && !s.Over && of != before {
		return of < before
	}
	return a.standing().binds(s.standing())
}

// Quoted returns the index of the status that response headers quote, as the established contract
// chooses it: the smallest remaining below 2^32 − 1, the first of equals; but the last one that
// refused and is no quota comes before all. Places and money, which it does not know, are quoted where
// they refuse, or where there is nothing else. -1 if there is none.
func (d *Decision) Quoted() int {
	quoted := -1
	for what := countsCalls; quoted < 0 && what < countsAll; what++ {
		quoted = d.scarcest(what)
	}
	for i := range d.Statuses {
		if s := &d.Statuses[i]; s.Over && !s.Quota {
			quoted = i
		}
	}
	return quoted
}

// scarcest returns the index of the status with the least that remains, among those that count the same.
func (d *Decision) scarcest(what int) int {
	scarcest, least := -1, int64(math.MaxUint32)
	for i := range d.Statuses {
		s := &d.Statuses[i]
		if _, remaining := s.Counts(); s.Limited && s.counts() == what && remaining < least {
			scarcest, least = i, remaining
		}
	}
	return scarcest
}
