package limit_test

import (
	"math/big"
	"time"

	"github.com/rationhq/ration/limit"
)

// periodReference is a count and the window it belongs to.
type periodReference struct {
	bounds     func(s *limit.Spec, t limit.Micros) (start, end limit.Micros)
	start, end limit.Micros
	begun      bool  // something was charged in it
	steps      int   // of the clock, back, that were followed
	told       int64 // the highest threshold that was crossed in it
	total
}

// alignedBounds are those of windows that begin at the epoch.
func alignedBounds(s *limit.Spec, t limit.Micros) (start, end limit.Micros) {
	n := new(big.Int).Div(big.NewInt(int64(t)), big.NewInt(int64(s.Window)))
	start = limit.Micros(n.Int64()) * s.Window
	return start, min(pinned, start+s.Window)
}

// firstUseBounds are those of a window that begins at t.
func firstUseBounds(s *limit.Spec, t limit.Micros) (start, end limit.Micros) {
	return t, min(pinned, t+s.Window)
}

// dayBounds are those of calendar days in a zone whose days all have a midnight.
func dayBounds(zone *time.Location) func(*limit.Spec, limit.Micros) (start, end limit.Micros) {
	return func(_ *limit.Spec, t limit.Micros) (start, end limit.Micros) {
		y, m, d := time.UnixMicro(int64(t)).In(zone).Date()
		return limit.At(time.Date(y, m, d, 0, 0, 0, 0, zone)), limit.At(time.Date(y, m, d+1, 0, 0, 0, 0, zone))
	}
}

// monthBounds are those of calendar months in a zone whose days all have a midnight.
func monthBounds(zone *time.Location) func(*limit.Spec, limit.Micros) (start, end limit.Micros) {
	return func(_ *limit.Spec, t limit.Micros) (start, end limit.Micros) {
		y, m, _ := time.UnixMicro(int64(t)).In(zone).Date()
		return limit.At(time.Date(y, m, 1, 0, 0, 0, 0, zone)), limit.At(time.Date(y, m+1, 1, 0, 0, 0, 0, zone))
	}
}

func (p *periodReference) advance(s *limit.Spec, now limit.Micros) limit.Micros {
	now = standing(p.start, now)
	switch {
	case now < p.start: // a large step back: the count moves with the clock, and knows of no holds
		p.start, p.end = p.bounds(s, now)
		p.held = 0
		p.steps++
	case !p.begun || now >= p.end:
		*p = periodReference{bounds: p.bounds, steps: p.steps}
		p.start, p.end = p.bounds(s, now)
	}
	return now
}

func (p *periodReference) used(_ *limit.Spec, t limit.Micros) *big.Rat {
	if t >= p.end {
		return new(big.Rat)
	}
	return whole(p.count)
}

func (p *periodReference) spent(_ *limit.Spec, t limit.Micros) int64 {
	if t >= p.end {
		return 0
	}
	return lessFloor(p.count, p.held)
}

// crossed returns those of the thresholds that are reached, above the highest that was returned before in the window.
func (p *periodReference) crossed(s *limit.Spec, t limit.Micros, thresholds []int64) (reached []int64) {
	for _, threshold := range thresholds {
		if threshold > p.told && threshold <= p.spent(s, t) {
			reached = append(reached, threshold)
		}
	}
	if len(reached) > 0 {
		p.told = reached[len(reached)-1]
	}
	return reached
}

func (p *periodReference) charge(_ *limit.Spec, n int64) {
	p.count, p.begun = addPinned(p.count, n), true
}

func (p *periodReference) giveBack(_ *limit.Spec, n int64) { p.free(n) }

func (p *periodReference) hold(s *limit.Spec, n int64) place {
	p.charge(s, n)
	p.held = addPinned(p.held, n)
	return place{at: p.start, filling: p.steps}
}

func (p *periodReference) grow(s *limit.Spec, at place, n int64) place {
	if at.at == p.start && at.filling == p.steps {
		p.charge(s, n)
		p.held = addPinned(p.held, n)
	}
	return at
}

func (p *periodReference) release(_ *limit.Spec, at place, n int64) {
	if at.at == p.start && at.filling == p.steps {
		p.held = lessFloor(p.held, n)
	}
}

func (p *periodReference) correct(_ *limit.Spec, at place, before, actual int64) {
	if at.at == p.start && at.filling == p.steps {
		p.replace(before, actual)
	}
}
