package limit

import "math/bits"

// product is an exact product of two non-negative integers below 2^63.
type product struct{ hi, lo uint64 }

func times[A, B ~int64](a A, b B) product {
	hi, lo := bits.Mul64(uint64(a), uint64(b))
	return product{hi, lo}
}

func (p product) plus(n int64) product {
	lo, carry := bits.Add64(p.lo, uint64(n), 0)
	return product{p.hi + carry, lo}
}

// over divides by d > 0: ⌊p/d⌋ and the remainder. Where the quotient is 2^53 or more, both are pinned
// at the most that is less: [MaxAmount] and d − 1.
func (p product) over(d int64) (quotient, remainder int64) {
	if p.hi >= uint64(d) {
		return MaxAmount, d - 1
	}
	q, r := bits.Div64(p.hi, p.lo, uint64(d))
	if q > uint64(MaxAmount) {
		return MaxAmount, d - 1
	}
	return int64(q), int64(r)
}

// overUp is over, rounded up.
func (p product) overUp(d int64) int64 {
	q, r := p.over(d)
	if r > 0 {
		return Add(q, 1)
	}
	return q
}
