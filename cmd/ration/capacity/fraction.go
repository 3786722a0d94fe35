package capacity

import (
	"math/big"

	"github.com/rationhq/ration/limit"
)

func whole(n int64) *big.Rat { return new(big.Rat).SetInt64(n) }

// ratio returns a/b; b is above 0.
func ratio[N ~int64](a, b N) *big.Rat { return big.NewRat(int64(a), int64(b)) }

func times(factors ...*big.Rat) *big.Rat {
	product := whole(1)
	for _, f := range factors {
		product.Mul(product, f)
	}
	return product
}

func plus(a, b *big.Rat) *big.Rat  { return new(big.Rat).Add(a, b) }
func minus(a, b *big.Rat) *big.Rat { return new(big.Rat).Sub(a, b) }
func over(a, b *big.Rat) *big.Rat  { return new(big.Rat).Quo(a, b) }

func least(a, b *big.Rat) *big.Rat {
	if a.Cmp(b) <= 0 {
		return a
	}
	return b
}

func largest(a, b *big.Rat) *big.Rat {
	if a.Cmp(b) >= 0 {
		return a
	}
	return b
}

// leastOf and plusOf take nil for what has no end.
func leastOf(a, b *big.Rat) *big.Rat {
	if a == nil || b != nil && b.Cmp(a) < 0 {
		return b
	}
	return a
}

func plusOf(a, b *big.Rat) *big.Rat {
	if a == nil || b == nil {
		return nil
	}
	return plus(a, b)
}

func atLeastOne(r *big.Rat) *big.Rat { return largest(r, whole(1)) }

// Down returns r, which is not below 0, as a whole number, rounded down and pinned at [limit.MaxAmount].
func Down(r *big.Rat) int64 { return pinned(new(big.Int).Quo(r.Num(), r.Denom())) }

// Up is [Down], rounded up.
func Up(r *big.Rat) int64 {
	q, rest := new(big.Int).QuoRem(r.Num(), r.Denom(), new(big.Int))
	if rest.Sign() > 0 {
		q.Add(q, big.NewInt(1))
	}
	return pinned(q)
}

func pinned(n *big.Int) int64 {
	if !n.IsInt64() {
		return limit.MaxAmount
	}
	return min(n.Int64(), limit.MaxAmount)
}
