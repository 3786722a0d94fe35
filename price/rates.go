package price

import (
	"math/bits"

	"github.com/rationhq/ration/limit"
)

// Usage is what a call has used, or will, in tokens. The four classes are disjoint: a token that was read
// from the cache is not in Input. Tokens of reasoning are Output. Each is in 0…[limit.MaxAmount]; what is
// negative counts as nothing.
type Usage struct{ Input, CacheRead, CacheWrite, Output int64 }

// Rates are the prices of one model.
type Rates struct{ Input, CacheRead, CacheWrite, Output Rate }

// million is how many tokens a [Rate] is the price of.
const million = 1_000_000

// Cost returns what u costs: the sum over all four classes, rounded up once to the next nano-dollar, and
// pinned at [limit.MaxAmount] instead of growing beyond it. It does not allocate.
func (r Rates) Cost(u Usage) Nanos {
	hi, lo := r.millionths(u)
	if hi >= million {
		return Nanos(limit.MaxAmount)
	}
	n, rest := bits.Div64(hi, lo, million)
	if rest > 0 && n < uint64(limit.MaxAmount) {
		n++
	}
	return Nanos(min(n, uint64(limit.MaxAmount)))
}

// OutputWithin returns how many output tokens fit into budget beside the other classes of u, whose own
// output does not count: the largest n in 0…[limit.MaxAmount] for which [Rates.Cost] is at most budget.
// It is −1 where not even the input fits, and [limit.MaxAmount] where output is free.
func (r Rates) OutputWithin(budget Nanos, u Usage) int64 {
	if budget < 0 {
		return -1
	}
	if budget >= Nanos(limit.MaxAmount) {
		// No cost is larger.
		return limit.MaxAmount
	}
	u.Output = 0
	spentHi, spentLo := r.millionths(u)
	// A cost that is rounded up is at most budget where what was rounded is.
	hi, lo := bits.Mul64(uint64(budget), million)
	lo, borrow := bits.Sub64(lo, spentLo, 0)
	hi, borrow = bits.Sub64(hi, spentHi, borrow)
	if borrow > 0 {
		return -1
	}
	if hi >= uint64(r.Output) {
		return limit.MaxAmount
	}
	n, _ := bits.Div64(hi, lo, uint64(r.Output))
	return int64(min(n, uint64(limit.MaxAmount)))
}

// millionths returns the cost of u in millionths of a nano-dollar. Four products of numbers below 2^53 and
// 2^63 are below 2^118.
func (r Rates) millionths(u Usage) (hi, lo uint64) {
	hi, lo = add(0, 0, r.Input, u.Input)
	hi, lo = add(hi, lo, r.CacheRead, u.CacheRead)
	hi, lo = add(hi, lo, r.CacheWrite, u.CacheWrite)
	return add(hi, lo, r.Output, u.Output)
}

// add returns the sum and what so many tokens cost.
func add(hi, lo uint64, r Rate, tokens int64) (sumHi, sumLo uint64) {
	costHi, costLo := bits.Mul64(uint64(r), uint64(max(0, tokens)))
	sumLo, carry := bits.Add64(lo, costLo, 0)
	sumHi, _ = bits.Add64(hi, costHi, carry)
	return sumHi, sumLo
}
