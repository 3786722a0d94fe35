package policy

import (
	"errors"
	"fmt"
	"math/bits"
	"strconv"
	"strings"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/price"
)

// quantity is an amount, mostly per a length of time, as people write it: `10/minute`, `$5/month`.
type quantity struct {
	amount    amount
	unlimited bool // the word in place of all else
	per       span // zero where none is named
}

// amount is a number of units, or money.
type amount struct {
	n     int64 // in nano-dollars, if it is money
	money bool  // written with a dollar sign
}

// String returns the amount as policies write it: "5000", "$0.50".
func (a amount) String() string {
	if a.money {
		return price.Nanos(a.n).String()
	}
	return strconv.FormatInt(a.n, 10)
}

const unlimitedWord = "unlimited"

// parseQuantity reads `10/minute`, `5/10m`, `50_000 per hour`, `$5/month`, `20` or `unlimited`.
func parseQuantity(s string) (q quantity, err error) {
	s = strings.TrimSpace(s)
	if s == unlimitedWord {
		return quantity{unlimited: true}, nil
	}
	text, per, hasWindow := strings.Cut(s, "/")
	if !hasWindow {
		text, per, hasWindow = strings.Cut(s, " per ")
	}
	if q.amount, err = parseAmount(text); err != nil || !hasWindow {
		return q, err
	}
	q.per, err = parseSpan(per)
	return q, err
}

// parseAmount reads a number of units, or money: `10`, `5M`, `$0.50`.
func parseAmount(s string) (a amount, err error) {
	s = strings.TrimSpace(s)
	if a.money = strings.Contains(s, "$"); a.money {
		a.n, err = parseMoney(s)
	} else {
		a.n, err = parseUnits(s)
	}
	return a, err
}

// parseMoney reads dollars: `$5`, `$0.50`, `$5_000`. It returns nano-dollars.
func parseMoney(s string) (int64, error) {
	digits, signed := strings.CutPrefix(s, "$")
	whole, fraction, pointed := strings.Cut(digits, ".")
	switch {
	case strings.HasPrefix(s, "-"), strings.HasPrefix(digits, "-"):
		return 0, fmt.Errorf("%s is negative: write $0 to refuse everything, or the word unlimited", quote(s))
	case strings.Contains(s, ","):
		return 0, fmt.Errorf("%s has a comma: write $5_000, and $1.50 with a point", quote(s))
	case !signed, !isDigits(whole), pointed && (!isDigits(fraction) || strings.Contains(fraction, "_")), len(s) > clipAt:
		return 0, fmt.Errorf("%s is no amount in dollars: write it as $5, $0.50 or $5_000", quote(s))
	}
	n, err := price.ParseDollars(s)
	return int64(n), err
}

// multiples are the letters that may stand behind a number.
var multiples = map[byte]int{'k': 3, 'M': 6, 'B': 9}

// parseUnits reads a number of units: `10`, `50_000`, `5M`, `1.5k`.
func parseUnits(s string) (int64, error) {
	s = strings.TrimSpace(s)
	var zeros int
	digits := s
	if n := len(s); n > 0 {
		if zeros = multiples[s[n-1]]; zeros > 0 {
			digits = s[:n-1]
		}
	}
	whole, fraction, pointed := strings.Cut(digits, ".")
	if !isDigits(whole) || pointed && (!isDigits(fraction) || strings.Contains(fraction, "_")) {
		return 0, notAnAmount(s)
	}
	whole = strings.ReplaceAll(whole, "_", "")
	if len(whole) > 1 && whole[0] == '0' {
		return 0, fmt.Errorf("%s begins with a zero: write it without", quote(s))
	}
	fraction = strings.TrimRight(fraction, "0")
	if len(fraction) > zeros {
		return 0, fmt.Errorf("%s is no whole number of units", quote(s))
	}
	whole += fraction + strings.Repeat("0", zeros-len(fraction))
	amount, err := strconv.ParseInt(whole, 10, 64)
	if err != nil || amount > limit.MaxAmount {
		return 0, fmt.Errorf("%s is beyond 2^53 − 1, the largest amount", quote(s))
	}
	return amount, nil
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

// notAnAmount says what is wrong with text that is no number, and what to write.
func notAnAmount(s string) error {
	switch {
	case s == "":
		return errors.New("an amount is missing: write it as 10/minute")
	case s[0] == '-':
		return fmt.Errorf("%s is negative: write 0 to refuse everything, or the word unlimited", quote(s))
	case strings.Contains(s, ","):
		return fmt.Errorf("%s has a comma: write 50_000 or 50k", quote(s))
	case strings.HasSuffix(s, "%"):
		return fmt.Errorf("%s is a part: only a ceiling and warn_at are written in percent", quote(s))
	case strings.EqualFold(s, unlimitedWord):
		return fmt.Errorf("%s is written %s", quote(s), unlimitedWord)
	case isDigits(s[:len(s)-1]):
		return fmt.Errorf("%s ends in a letter that is no multiple: k is a thousand, M a million, B a billion", quote(s))
	}
	return fmt.Errorf("%s is no amount: write it as 10, 50_000, 5M, or the word unlimited", quote(s))
}

// Share is a part of a whole in hundredths of a percent: 8_500 is 85 %.
type Share int64

// Whole is the [Share] that leaves nothing out: 100 %.
const Whole Share = 10_000

// parseShare reads `85%` or `99.5%`, at most 100%.
func parseShare(s string) (Share, error) {
	number, ok := strings.CutSuffix(strings.TrimSpace(s), "%")
	whole, fraction, pointed := strings.Cut(strings.TrimSpace(number), ".")
	if !ok || !isDigits(whole) || pointed && !isDigits(fraction) || strings.Contains(number, "_") {
		return 0, fmt.Errorf("%s is no percentage: write it as 85%%", quote(s))
	}
	if fraction = strings.TrimRight(fraction, "0"); len(fraction) > 2 {
		return 0, fmt.Errorf("%s is finer than a hundredth of a percent", quote(s))
	}
	n, err := strconv.ParseInt(whole+fraction+strings.Repeat("0", 2-len(fraction)), 10, 64)
	if err != nil || Share(n) > Whole {
		return 0, fmt.Errorf("%s is more than 100%%", quote(s))
	}
	return Share(n), nil
}

// Of returns the part of amount, which is in 0…[limit.MaxAmount], rounded down.
func (s Share) Of(amount int64) int64 {
	high, low := bits.Mul64(uint64(amount), uint64(s))
	part, _ := bits.Div64(high, low, uint64(Whole))
	return int64(part)
}

// String returns the share as policies write it: "85%", "99.5%".
func (s Share) String() string {
	text := strconv.FormatInt(int64(s/100), 10)
	if hundredths := s % 100; hundredths > 0 {
		text += strings.TrimRight(fmt.Sprintf(".%02d", hundredths), "0")
	}
	return text + "%"
}

// quote shows text that a policy holds, for messages.
func quote(s string) string { return "`" + clip(s) + "`" }

// isNameOf reports whether s is name in any case, or its first three letters.
func isNameOf(s, name string) bool {
	return strings.EqualFold(s, name) || strings.EqualFold(s, name[:3])
}
