package price_test

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/price"
)

func TestParseDollars(t *testing.T) {
	for _, c := range []struct {
		text  string
		nanos price.Nanos
		shown string
	}{
		{"1", 1_000_000_000, "$1.00"},
		{"1.50", 1_500_000_000, "$1.50"},
		{"$1.0012", 1_001_200_000, "$1.0012"},
		{"$0.0028", 2_800_000, "$0.0028"},
		{"5_000", 5_000_000_000_000, "$5000.00"},
		{"0", 0, "$0.00"},
		{"0.000000001", 1, "$0.000000001"},
		{"0.1000000000000", 100_000_000, "$0.10"},
		{"9007199.254740991", price.Nanos(limit.MaxAmount), "$9007199.254740991"},
	} {
		n, err := price.ParseDollars(c.text)
		if err != nil || n != c.nanos || n.String() != c.shown {
			t.Errorf("%q is %d nano-dollars, shown as %v (%v); want %d, %s", c.text, n, n, err, c.nanos, c.shown)
		}
	}
	for text, says := range map[string]string{
		"":                   "is no amount in dollars",
		"$":                  "is no amount in dollars",
		".5":                 "is no amount in dollars",
		"1.":                 "is no amount in dollars",
		"1e3":                "is no amount in dollars",
		"1__0":               "is no amount in dollars",
		"_1":                 "is no amount in dollars",
		"1.5_0":              "is no amount in dollars",
		"1 USD":              "is no amount in dollars",
		"5,000":              "has a comma",
		"-1":                 "is negative",
		"$-1":                "is negative",
		"0.0000000001":       "finer than a billionth",
		"9007199.254740992":  "more than the largest amount, $9007199.254740991",
		"99999999999999999":  "more than the largest amount",
		"$$1":                "is no amount in dollars",
		"1.2.3":              "is no amount in dollars",
		"0x10":               "is no amount in dollars",
		"18446744073.709551": "more than the largest amount",
	} {
		if n, err := price.ParseDollars(text); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q is %d, %v; want an error that says: %s", text, n, err, says)
		}
	}
}

// What is left of a budget may be less than nothing.
func TestDebtIsShown(t *testing.T) {
	for n, want := range map[price.Nanos]string{-500_000_000: "-$0.50", -1: "-$0.000000001", -1 << 63: "-$9223372036.854775808"} {
		if n.String() != want {
			t.Errorf("%d is shown as %v, want %s", int64(n), n, want)
		}
	}
}

// What is shown is read again as the same, and never ends in a zero too many.
func TestDollarsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := price.Nanos(amounts().Draw(t, "nanos"))
		if back, err := price.ParseDollars(n.String()); err != nil || back != n {
			t.Fatalf("%d is shown as %v, and read as %d (%v)", n, n, back, err)
		}
		_, fraction, _ := strings.Cut(n.String(), ".")
		if len(fraction) < 2 || len(fraction) > 2 && strings.HasSuffix(fraction, "0") {
			t.Fatalf("%d is shown as %v", n, n)
		}
		r := price.Rate(n)
		if back, err := price.ParseRate(r.String()); err != nil || back != r || "$"+r.String() != n.String() {
			t.Fatalf("the price %d is shown as %v, and read as %d (%v)", n, r, back, err)
		}
	})
}

// amounts draws amounts of all sizes, often near the edges.
func amounts() *rapid.Generator[int64] {
	return rapid.OneOf(
		rapid.Int64Range(0, limit.MaxAmount), rapid.Int64Range(limit.MaxAmount-3, limit.MaxAmount), rapid.Int64Range(0, 3),
		rapid.Int64Range(0, 1_000_000), rapid.Int64Range(0, 100_000_000_000),
	)
}
