package price

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/rationhq/ration/limit"
)

// Nanos is money in nano-dollars: a billion of them are one US dollar. Amounts that are counted are in
// 0…[limit.MaxAmount], which is $9,007,199.254740991; what is left of a limit may be negative.
type Nanos int64

// Rate is a price in nano-dollars per million tokens, in 0…[limit.MaxAmount].
type Rate int64

// Dollar is one US dollar.
const Dollar Nanos = 1_000_000_000

// decimals is how many digits a dollar has behind its point.
const decimals = 9

// ParseDollars reads an amount as people write it: "1", "1.50", "$0.0028", "5_000". It is exact: what is
// finer than a nano-dollar is an error, as is what is beyond [limit.MaxAmount] of them.
func ParseDollars(s string) (Nanos, error) {
	n, err := parseDecimal(strings.TrimPrefix(s, "$"))
	if err != nil {
		return 0, fmt.Errorf("%q %w", s, err)
	}
	return Nanos(n), nil
}

// ParseRate reads a price in dollars per million tokens: "0.80", "$15". It is as exact as [ParseDollars].
func ParseRate(s string) (Rate, error) {
	n, err := ParseDollars(s)
	return Rate(n), err
}

// String returns the amount in dollars, with two digits behind the point or as many as it takes:
// "$1.00", "$1.0012", "-$0.50".
func (n Nanos) String() string {
	if n < 0 {
		return "-$" + formatDecimal(-uint64(n))
	}
	return "$" + formatDecimal(uint64(n))
}

// String returns the price in dollars per million tokens, as policies write it: "0.80", "0.0028".
func (r Rate) String() string { return formatDecimal(uint64(r)) }

// parseDecimal reads a number with at most nine digits behind the point as so many billionths.
func parseDecimal(s string) (int64, error) {
	whole, fraction, pointed := strings.Cut(s, ".")
	switch {
	case strings.HasPrefix(s, "-"):
		return 0, errors.New("is negative")
	case strings.Contains(s, ","):
		return 0, errors.New("has a comma: write 5_000, and 1.50 with a point")
	case !isDigits(whole) || pointed && (!isDigits(fraction) || strings.Contains(fraction, "_")):
		return 0, errors.New("is no amount in dollars: write it as 1, 1.50, 0.0028 or 5_000")
	}
	if fraction = strings.TrimRight(fraction, "0"); len(fraction) > decimals {
		return 0, errors.New("is finer than a billionth of a dollar: round it up")
	}
	digits := strings.ReplaceAll(whole, "_", "") + fraction + strings.Repeat("0", decimals-len(fraction))
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n > limit.MaxAmount {
		return 0, fmt.Errorf("is more than the largest amount, %v", Nanos(limit.MaxAmount))
	}
	return n, nil
}

// isDigits reports whether s is digits, with single underscores between some of them.
func isDigits(s string) bool {
	between := false // a digit stands before
	for i := range len(s) {
		switch c := s[i]; {
		case '0' <= c && c <= '9':
			between = true
		case c == '_' && between && i+1 < len(s):
			between = false
		default:
			return false
		}
	}
	return between
}

// formatDecimal writes n billionths with at least two digits behind the point.
func formatDecimal(n uint64) string {
	const fewest = 2
	fraction := fmt.Sprintf("%0*d", decimals, n%uint64(Dollar))
	fraction = fraction[:fewest] + strings.TrimRight(fraction[fewest:], "0")
	return strconv.FormatUint(n/uint64(Dollar), 10) + "." + fraction
}
