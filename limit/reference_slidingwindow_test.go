package limit_test

import (
	"math/big"

	"github.com/rationhq/ration/limit"
)

// slidingReference is a sliding window as totals of aligned windows, by number: those of the newest
// and of the one before are in sight.
type slidingReference struct {
	newest int64
	steps  int // of the clock, back, that were followed
	counts map[int64]total
}

type total struct{ count, held int64 }

// free gives back n units that are not held, as far as there are any.
func (c *total) free(n int64) {
	if free := c.count - c.held; free > 0 {
		c.count -= min(n, free)
	}
}

// replace puts actual in the place of units that were charged before.
func (c *total) replace(before, actual int64) {
	if actual > before {
		c.count = addPinned(c.count, actual-before)
	} else {
		c.free(before - actual)
	}
}

func newSlidingReference() *slidingReference { return &slidingReference{counts: map[int64]total{}} }

func number(s *limit.Spec, t limit.Micros) int64 { return int64(t) / int64(s.Window) }

func (w *slidingReference) advance(s *limit.Spec, now limit.Micros) limit.Micros {
	now = standing(limit.Micros(w.newest)*s.Window, now)
	n := number(s, now)
	if n < w.newest { // a large step back: the counts move with the clock, and know of no holds
		w.steps++
		w.counts = map[int64]total{
			n:     {count: w.counts[w.newest].count},
			n - 1: {count: w.counts[w.newest-1].count},
		}
	}
	for m := range w.counts {
		if m < n-1 {
			delete(w.counts, m)
		}
	}
	w.newest = n
	return now
}

func (w *slidingReference) used(s *limit.Spec, t limit.Micros) *big.Rat {
	return w.weigh(s, t, func(c total) int64 { return c.count })
}

func (w *slidingReference) spent(s *limit.Spec, t limit.Micros) int64 {
	return units(w.weigh(s, t, func(c total) int64 { return lessFloor(c.count, c.held) }))
}

// weigh adds the window of t and, by how much of it the sliding window still covers, the one before.
func (w *slidingReference) weigh(s *limit.Spec, t limit.Micros, of func(total) int64) *big.Rat {
	n := number(s, t)
	endOfBefore := n * int64(s.Window)
	covered := ratio(endOfBefore-(int64(t)-int64(s.Window)), int64(s.Window))
	before := covered.Mul(covered, whole(of(w.counts[n-1])))
	return before.Add(before, whole(of(w.counts[n])))
}

func (w *slidingReference) change(n int64, by func(*total)) {
	if n == w.newest || n == w.newest-1 {
		c := w.counts[n]
		by(&c)
		w.counts[n] = c
	}
}

func (w *slidingReference) charge(_ *limit.Spec, n int64) {
	w.change(w.newest, func(c *total) { c.count = addPinned(c.count, n) })
}

func (w *slidingReference) giveBack(_ *limit.Spec, n int64) {
	w.change(w.newest, func(c *total) { c.free(n) })
}

func (w *slidingReference) hold(s *limit.Spec, n int64) place {
	w.charge(s, n)
	w.change(w.newest, func(c *total) { c.held = addPinned(c.held, n) })
	return place{at: limit.Micros(w.newest), filling: w.steps}
}

func (w *slidingReference) grow(_ *limit.Spec, p place, n int64) place {
	if p.filling == w.steps {
		w.change(int64(p.at), func(c *total) { c.count, c.held = addPinned(c.count, n), addPinned(c.held, n) })
	}
	return p
}

func (w *slidingReference) release(_ *limit.Spec, p place, n int64) {
	if p.filling == w.steps {
		w.change(int64(p.at), func(c *total) { c.held = lessFloor(c.held, n) })
	}
}

func (w *slidingReference) correct(_ *limit.Spec, p place, charged, actual int64) {
	if p.filling == w.steps {
		w.change(int64(p.at), func(c *total) { c.replace(charged, actual) })
	}
}
