package limit

import (
	"math/big"
	"testing"

	"pgregory.net/rapid"
)

// A product is exact, and its quotient too; one of 2^53 or more is pinned at the most that is less.
func TestProduct(t *testing.T) {
	factor := rapid.OneOf(rapid.Int64Range(0, MaxAmount), rapid.Int64Range(MaxAmount-3, MaxAmount), rapid.Int64Range(0, 1000))
	rapid.Check(t, func(r *rapid.T) {
		a, b, n := factor.Draw(r, "a"), factor.Draw(r, "b"), factor.Draw(r, "n")
		checkProduct(r.Fatalf, a, b, n, max(1, factor.Draw(r, "d")))
	})
}

func FuzzProduct(f *testing.F) {
	f.Add(MaxAmount, MaxAmount, MaxAmount, int64(1))
	f.Add(MaxAmount, MaxAmount, int64(0), MaxAmount)
	f.Add(int64(1)<<53-2, int64(3), int64(1), int64(3))
	f.Fuzz(func(t *testing.T, a, b, n, d int64) {
		checkProduct(t.Fatalf, a&MaxAmount, b&MaxAmount, n&MaxAmount, max(1, d&MaxAmount))
	})
}

func checkProduct(fail func(string, ...any), a, b, n, d int64) {
	exact := new(big.Int).Mul(big.NewInt(a), big.NewInt(b))
	exact.Add(exact, big.NewInt(n))
	wantQ, wantR := new(big.Int).DivMod(exact, big.NewInt(d), new(big.Int))
	if wantQ.Cmp(big.NewInt(MaxAmount)) > 0 {
		wantQ, wantR = big.NewInt(MaxAmount), big.NewInt(d-1)
	}
	p := times(a, b).plus(n)
	if q, r := p.over(d); q != wantQ.Int64() || r != wantR.Int64() {
		fail("(%d·%d + %d) / %d = %d, %d over; want %d, %d", a, b, n, d, q, r, wantQ, wantR)
	}
	up := wantQ.Int64()
	if wantR.Sign() > 0 {
		up = min(up+1, MaxAmount)
	}
	if got := p.overUp(d); got != up {
		fail("(%d·%d + %d) / %d = %d rounded up, want %d", a, b, n, d, got, up)
	}
}

func TestProductEdges(t *testing.T) {
	const m = MaxAmount
	cases := []struct{ a, b, n, d, q, r, up int64 }{
		{0, 0, 0, 1, 0, 0, 0},
		{7, 3, 0, 7, 3, 0, 3},
		{7, 3, 1, 7, 3, 1, 4},
		{m, m, 0, m, m, 0, m},
		{m, m, m - 1, m, m, m - 1, m}, // the largest quotient that is not pinned; rounded up, it is
		{m, m, m, m, m, m - 1, m},     // m + 1
		{m, m, m, 1, m, 0, m},         // more than 64 bits
		{m, 4, 0, 2, m, 1, m},
		{1<<32 - 1, 1<<32 + 1, 1, 1 << 20, 1 << 44, 0, 1 << 44}, // 2^64: the sum carries
	}
	for _, c := range cases {
		p := times(c.a, c.b).plus(c.n)
		if q, r := p.over(c.d); q != c.q || r != c.r {
			t.Errorf("(%d·%d + %d) / %d = %d, %d over; want %d, %d", c.a, c.b, c.n, c.d, q, r, c.q, c.r)
		}
		if up := p.overUp(c.d); up != c.up {
			t.Errorf("(%d·%d + %d) / %d = %d rounded up, want %d", c.a, c.b, c.n, c.d, up, c.up)
		}
	}
}
