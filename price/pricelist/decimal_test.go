package pricelist

import (
	"encoding/json"
	"math/big"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/rationhq/ration/limit"
)

// A price is the decimal number of the list, exactly, and rounded up where it is finer than can be counted.
func TestRateIsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringMatching(`(0|[1-9][0-9]{0,6})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,2})?`).Draw(t, "number")
		digits := rapid.SampledFrom([]int{perMillion, perToken}).Draw(t, "digits")
		exact, ok := new(big.Rat).SetString(text)
		if !ok {
			t.Fatalf("%s is no number", text)
		}
		exact.Mul(exact, new(big.Rat).SetInt(new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(digits)), nil)))
		want, rest := new(big.Int).QuoRem(exact.Num(), exact.Denom(), new(big.Int))
		if rest.Sign() > 0 {
			want.Add(want, big.NewInt(1))
		}
		got, err := rate(json.Number(text), digits)
		if most := big.NewInt(limit.MaxAmount); want.Cmp(most) > 0 {
			if err == nil {
				t.Fatalf("%s is %d, want an error", text, got)
			}
			return
		}
		if err != nil || int64(got) != want.Int64() {
			t.Fatalf("%s is %d (%v), want %d", text, got, err, want)
		}
	})
}

func TestRatesThatCannotBe(t *testing.T) {
	for text, says := range map[string]string{
		"-0.1":                         "is negative",
		"-0":                           "is negative",
		"1e401":                        "out of range",
		"1e-401":                       "out of range",
		"1e99999999999999999999":       "out of range",
		"1e400":                        "more than can be counted",
		"9.007199254740992":            "more than can be counted", // 2^53 of them
		"1" + strings.Repeat("0", 500): "a price of 501 digits",
	} {
		if r, err := rate(json.Number(text), perToken); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%.20s is %d, %v; want an error that says: %s", text, r, err, says)
		}
	}
}
