package limit_test

import (
	"math/big"

	"github.com/rationhq/ration/limit"
)

// logReference is a list of everything that was ever charged, in order of time; charges of one
// microsecond are one.
type logReference struct {
	at      limit.Micros
	charges []charged
	live    int64
	steps   int // of the clock, back, that were followed
}

// mostOfAnInstant is where the units of one instant are pinned: the 10,000th part of 2^53.
const mostOfAnInstant = 900_719_925_474

type charged struct {
	at    limit.Micros
	units int64
}

func (l *logReference) advance(s *limit.Spec, now limit.Micros) limit.Micros {
	now = standing(l.at, now)
	if now < l.at { // a large step back
		l.steps++
		old := l.charges
		l.charges = nil
		for _, c := range old {
			if c.at <= l.at-s.Window {
				continue // had passed out of sight, and does not come back
			}
			l.put(min(c.at, now), c.units)
		}
	}
	l.at = now
	return now
}

func (l *logReference) put(at limit.Micros, n int64) {
	if last := len(l.charges) - 1; last >= 0 && l.charges[last].at == at {
		l.charges[last].units = min(mostOfAnInstant, l.charges[last].units+n)
		return
	}
	l.charges = append(l.charges, charged{at, min(mostOfAnInstant, n)})
}

func (l *logReference) used(s *limit.Spec, t limit.Micros) *big.Rat {
	sum := new(big.Rat)
	for _, c := range l.charges {
		if t-s.Window < c.at && c.at <= t {
			sum.Add(sum, whole(c.units))
		}
	}
	return sum
}

// spent takes what is in sight for held as long as there are holds, also of such that have passed out
// of sight.
func (l *logReference) spent(s *limit.Spec, t limit.Micros) int64 {
	return lessFloor(units(l.used(s, t)), l.live)
}

func (l *logReference) charge(_ *limit.Spec, n int64) { l.put(l.at, n) }

func (l *logReference) giveBack(s *limit.Spec, n int64) {
	for i := len(l.charges) - 1; i >= 0 && l.charges[i].at > l.at-s.Window; i-- {
		taken := min(n, l.charges[i].units)
		l.charges[i].units -= taken
		n -= taken
	}
}

func (l *logReference) hold(s *limit.Spec, n int64) place {
	l.charge(s, n)
	l.live = addPinned(l.live, n)
	return place{at: l.at, filling: l.steps}
}

func (l *logReference) grow(s *limit.Spec, p place, n int64) place {
	l.live = addPinned(l.live, n)
	l.correct(s, p, 0, n)
	return p
}

func (l *logReference) release(_ *limit.Spec, _ place, n int64) { l.live = lessFloor(l.live, n) }

func (l *logReference) correct(s *limit.Spec, p place, before, actual int64) {
	if p.at <= l.at-s.Window {
		return
	}
	for i := range l.charges {
		if c := &l.charges[i]; c.at >= p.at && p.filling == l.steps {
			c.units = min(mostOfAnInstant, max(0, c.units+actual-before))
			return
		}
	}
	if actual > before { // the clock has stepped back since the hold, and with it what it has counted
		l.charge(s, actual-before)
	}
}
