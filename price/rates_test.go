package price_test

import (
	"math"
	"math/big"
	"testing"

	"pgregory.net/rapid"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/price"
)

func dollars(t testing.TB, text string) price.Rate {
	t.Helper()
	r, err := price.ParseRate(text)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestCost(t *testing.T) {
	haiku := price.Rates{
		Input: dollars(t, "0.80"), Output: dollars(t, "4.00"), CacheRead: dollars(t, "0.08"), CacheWrite: dollars(t, "1.00"),
	}
	// The smallest price that there is: a nano-dollar for a million tokens.
	least := price.Rates{Input: 1, CacheRead: 1, CacheWrite: 1, Output: 1}
	most := price.Rates{Input: price.Rate(limit.MaxAmount), Output: price.Rate(limit.MaxAmount)}
	for _, c := range []struct {
		name  string
		rates price.Rates
		usage price.Usage
		cost  string
	}{
		{"nothing", haiku, price.Usage{}, "$0.00"},
		{"each class has its price", haiku, price.Usage{Input: 1000, CacheRead: 10_000, CacheWrite: 100, Output: 500}, "$0.0037"},
		{"100 cached tokens at $0.0028 a million", price.Rates{CacheRead: dollars(t, "0.0028")}, price.Usage{CacheRead: 100}, "$0.00000028"},
		{"a part of a nano-dollar is one", least, price.Usage{Input: 1}, "$0.000000001"},
		{"rounded once, not by class", least, price.Usage{1, 1, 1, 1}, "$0.000000001"},
		{"exactly one", least, price.Usage{250_000, 250_000, 250_000, 250_000}, "$0.000000001"},
		{"one token more", least, price.Usage{250_000, 250_000, 250_000, 250_001}, "$0.000000002"},
		{"a free model", price.Rates{}, price.Usage{1000, 1000, 1000, 1000}, "$0.00"},
		{"the largest amount", most, price.Usage{Input: 1_000_000}, "$9007199.254740991"},
		{"pinned there", most, price.Usage{Input: 1_000_001}, "$9007199.254740991"},
		{"pinned far beyond", most, price.Usage{Input: math.MaxInt64, Output: math.MaxInt64}, "$9007199.254740991"},
		{"nonsense costs nothing", haiku, price.Usage{Input: -1, Output: math.MinInt64}, "$0.00"},
	} {
		if got := c.rates.Cost(c.usage); got.String() != c.cost {
			t.Errorf("%s: %v, want %s", c.name, got, c.cost)
		}
	}
}

// A million calls of 100 cached tokens at $0.0028 per million tokens come to exactly $0.28.
func TestSmallCostsAddUp(t *testing.T) {
	rates, sum := price.Rates{CacheRead: dollars(t, "0.0028")}, int64(0)
	for range 1_000_000 {
		sum = limit.Add(sum, int64(rates.Cost(price.Usage{CacheRead: 100})))
	}
	if price.Nanos(sum).String() != "$0.28" {
		t.Errorf("%v, want $0.28", price.Nanos(sum))
	}
}

// exactCost is Cost in numbers without bounds, before it is pinned.
func exactCost(r price.Rates, u price.Usage) *big.Int {
	sum := new(big.Int)
	for _, c := range []struct {
		rate   price.Rate
		tokens int64
	}{{r.Input, u.Input}, {r.CacheRead, u.CacheRead}, {r.CacheWrite, u.CacheWrite}, {r.Output, u.Output}} {
		sum.Add(sum, new(big.Int).Mul(big.NewInt(int64(c.rate)), big.NewInt(c.tokens)))
	}
	million := big.NewInt(1_000_000)
	return sum.Add(sum, big.NewInt(999_999)).Div(sum, million)
}

func drawRates(t *rapid.T) price.Rates {
	r := amounts()
	return price.Rates{
		Input: price.Rate(r.Draw(t, "input rate")), CacheRead: price.Rate(r.Draw(t, "cache read rate")),
		CacheWrite: price.Rate(r.Draw(t, "cache write rate")), Output: price.Rate(r.Draw(t, "output rate")),
	}
}

func drawUsage(t *rapid.T) price.Usage {
	n := amounts()
	return price.Usage{
		Input: n.Draw(t, "input"), CacheRead: n.Draw(t, "cache read"), CacheWrite: n.Draw(t, "cache write"), Output: n.Draw(t, "output"),
	}
}

func TestCostIsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rates, usage := drawRates(t), drawUsage(t)
		want := exactCost(rates, usage)
		if most := big.NewInt(limit.MaxAmount); want.Cmp(most) > 0 {
			want = most
		}
		if got := rates.Cost(usage); int64(got) != want.Int64() {
			t.Fatalf("%+v at %+v: %d, want %d", usage, rates, got, want)
		}
	})
}

// The output that fits is the most that does: it costs no more than the budget, and one token more does.
func TestOutputWithinIsTheInverseOfCost(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rates, usage := drawRates(t), drawUsage(t)
		budget := price.Nanos(rapid.OneOf(amounts(), rapid.Just(int64(rates.Cost(usage)))).Draw(t, "budget"))
		n := rates.OutputWithin(budget, usage)
		if n < -1 || n > limit.MaxAmount {
			t.Fatalf("%d tokens", n)
		}
		if usage.Output = n; n >= 0 && rates.Cost(usage) > budget {
			t.Fatalf("%d tokens of output within %v cost %v", n, budget, rates.Cost(usage))
		}
		if usage.Output = n + 1; n < limit.MaxAmount && rates.Cost(usage) <= budget {
			t.Fatalf("%d tokens of output within %v: one more costs %v", n, budget, rates.Cost(usage))
		}
	})
}

func TestOutputWithin(t *testing.T) {
	rates := price.Rates{Input: dollars(t, "1.00"), Output: dollars(t, "5.00")}
	free := price.Rates{Input: dollars(t, "1.00")}
	for _, c := range []struct {
		name   string
		rates  price.Rates
		budget string
		usage  price.Usage
		want   int64
	}{
		{"what is left after the input", rates, "0.006", price.Usage{Input: 1000}, 1000},
		{"its own output does not count", rates, "0.006", price.Usage{Input: 1000, Output: 7}, 1000},
		{"all but a token", rates, "0.005999999", price.Usage{Input: 1000}, 999},
		{"only the input", rates, "0.001", price.Usage{Input: 1000}, 0},
		{"not even the input", rates, "0.000999999", price.Usage{Input: 1000}, -1},
		{"free output", free, "0.001", price.Usage{Input: 1000}, limit.MaxAmount},
		{"free output, but not the input", free, "0", price.Usage{Input: 1000}, -1},
		{"no budget that anything exceeds", rates, "9007199.254740991", price.Usage{Input: limit.MaxAmount}, limit.MaxAmount},
	} {
		budget, err := price.ParseDollars(c.budget)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.rates.OutputWithin(budget, c.usage); got != c.want {
			t.Errorf("%s: %d tokens, want %d", c.name, got, c.want)
		}
	}
	if got := rates.OutputWithin(-1, price.Usage{}); got != -1 {
		t.Errorf("a debt leaves room for %d tokens", got)
	}
}

func TestCostDoesNotAllocate(t *testing.T) {
	rates, usage := price.Rates{Input: 1, CacheRead: 2, CacheWrite: 3, Output: 4}, price.Usage{1, 2, 3, 4}
	if allocs := testing.AllocsPerRun(100, func() {
		if rates.Cost(usage) < 0 || rates.OutputWithin(1, usage) < -1 {
			t.Error("impossible")
		}
	}); allocs > 0 {
		t.Errorf("%v allocations", allocs)
	}
}

func BenchmarkCost(b *testing.B) {
	rates := price.Rates{Input: 800_000_000, CacheRead: 80_000_000, CacheWrite: 1_000_000_000, Output: 4_000_000_000}
	usage := price.Usage{Input: 1200, CacheRead: 30_000, CacheWrite: 400, Output: 900}
	b.ReportAllocs()
	for b.Loop() {
		rates.Cost(usage)
	}
}
