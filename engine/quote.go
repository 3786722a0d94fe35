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

// describes says that a describes a status rather than what does so so far: as it binds; but while neither
// refuses, money comes last.
func (a *Applied) describes(s *Status) bool {
	if money := a.isMoney(); !a.Over && !s.Over && money != s.isMoney() {
		return !money
	}
	return a.standing().binds(s.standing())
}

// Quoted returns the index of the status that response headers quote, as the established contract
// chooses it: the smallest remaining below 2^32 − 1, the first of equals; but the last one that
// refused and is no quota comes before all. Money, which it does not know, is quoted where it
// refuses, or where there is nothing else. -1 if there is none.
func (d *Decision) Quoted() int {
	quoted := d.scarcest(false)
	if quoted < 0 {
		quoted = d.scarcest(true)
	}
	for i := range d.Statuses {
		if s := &d.Statuses[i]; s.Over && !s.Quota {
			quoted = i
		}
	}
	return quoted
}

// scarcest returns the index of the status with the least that remains, among those of money or the others.
func (d *Decision) scarcest(money bool) int {
	scarcest, least := -1, int64(math.MaxUint32)
	for i := range d.Statuses {
		s := &d.Statuses[i]
		if _, remaining := s.Counts(); s.Limited && s.isMoney() == money && remaining < least {
			scarcest, least = i, remaining
		}
	}
	return scarcest
}
