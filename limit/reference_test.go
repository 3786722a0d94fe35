package limit_test

import (
	"math/big"

	"github.com/rationhq/ration/limit"
)

// reference is a second telling of an algorithm: from its definition, in exact rationals, and as slow
// as that is. It shares no formula with the code that it checks. Each is in a file of its own,
// reference_*_test.go.
type reference interface {
	// advance brings the history to now, and returns the instant at which it stands then.
	advance(s *limit.Spec, now limit.Micros) limit.Micros
	// used returns what is used at t, which is not before the instant at which the history stands, if
	// nothing else happens until then.
	used(s *limit.Spec, t limit.Micros) *big.Rat
	// spent is used, rounded up, if every hold had been of 0 units.
	spent(s *limit.Spec, t limit.Micros) int64

	charge(s *limit.Spec, units int64)
	giveBack(s *limit.Spec, units int64)
	hold(s *limit.Spec, units int64) place
	// grow makes a hold larger, and returns where it lies then.
	grow(s *limit.Spec, p place, units int64) place
	// release ends a hold of that many units. What it has counted stays, until corrected.
	release(s *limit.Spec, p place, units int64)
	correct(s *limit.Spec, p place, charged, actual int64)
}

// place is where a hold lies in a history.
type place struct {
	at      limit.Micros // its window, or the instant of its entry
	filling int          // of windows and logs: how often the clock had stepped back

	bucket *bucketHold // of a token bucket
}

// standing is the rule of a clock that steps back: for a minute, time stands still.
func standing(newest, now limit.Micros) limit.Micros {
	if newest > now && newest-now <= 60_000_000 {
		return newest
	}
	return now
}

// pinned is what a sum of units may grow to, at most.
const pinned = 9_007_199_254_740_991

func addPinned(a, b int64) int64 { return min(pinned, a+b) }

func lessFloor(a, b int64) int64 { return max(0, a-b) }

func ratio(a, b int64) *big.Rat { return big.NewRat(a, b) }

func whole(n int64) *big.Rat { return new(big.Rat).SetInt64(n) }

func floor(x *big.Rat) *big.Int { return new(big.Int).Div(x.Num(), x.Denom()) }

func ceil(x *big.Rat) *big.Int {
	up := new(big.Int).Add(x.Num(), x.Denom())
	return up.Sub(up, big.NewInt(1)).Div(up, x.Denom())
}

// units is x rounded up, and pinned.
func units(x *big.Rat) int64 {
	if up := ceil(x); up.IsInt64() {
		return min(pinned, up.Int64())
	}
	return pinned
}

func smaller(a, b *big.Rat) *big.Rat {
	if a.Cmp(b) < 0 {
		return a
	}
	return b
}
