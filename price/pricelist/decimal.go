package pricelist

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/price"
)

// How many digits to move the point of a price to have it as a [price.Rate].
const (
	perMillion = 9          // dollars per million tokens
	perToken   = 9 + 6      // dollars per token
	mostDigits = 400        // of a number with its exponent written out
	mostPower  = mostDigits // of its exponent
)

// rate returns a price of a list in dollars, whose point is moved by so many digits. What is finer than a [price.Rate]
// is rounded up: lists show remains of binary fractions (5.9999999999999995e-08), and a price is never less than
// what the list says.
func rate(n json.Number, digits int) (price.Rate, error) {
	mantissa, exponent, _ := strings.Cut(strings.ToLower(n.String()), "e")
	power := 0
	if exponent != "" {
		var err error
		if power, err = strconv.Atoi(exponent); err != nil || power > mostPower || power < -mostPower {
			return 0, fmt.Errorf("has the price %s, whose exponent is out of range", n)
		}
	}
	whole, fraction, _ := strings.Cut(mantissa, ".")
	if strings.HasPrefix(whole, "-") {
		return 0, fmt.Errorf("has the price %s, which is negative", n)
	}
	if len(whole)+len(fraction) > mostDigits {
		return 0, fmt.Errorf("has a price of %d digits", len(whole)+len(fraction))
	}
	text, point := whole+fraction, len(whole)+power+digits
	if point < 0 {
		text, point = strings.Repeat("0", -point)+text, 0
	}
	text += strings.Repeat("0", max(0, point-len(text)))
	integer, rest := "0"+text[:point], text[point:]
	value, err := strconv.ParseInt(integer, 10, 64)
	if err == nil && strings.Trim(rest, "0") != "" {
		value++
	}
	if err != nil || value > limit.MaxAmount {
		return 0, fmt.Errorf("has the price %s, which is more than can be counted", n)
	}
	return price.Rate(value), nil
}

// priced reads the prices of a model, in dollars with their point moved by so many digits. Those of the cache may be
// missing.
func priced(digits int, input, output, cacheRead, cacheWrite any) (m price.Model, err error) {
	for _, p := range []struct {
		value   any
		rate    *price.Rate
		missing string // what to say where there is none; empty where there need not be
		has     *bool
	}{
		{value: input, rate: &m.Input, missing: noInput},
		{value: output, rate: &m.Output, missing: noOutput},
		{value: cacheRead, rate: &m.CacheRead, has: &m.HasCacheRead},
		{value: cacheWrite, rate: &m.CacheWrite, has: &m.HasCacheWrite},
	} {
		number, ok := p.value.(json.Number)
		switch {
		case !ok && p.missing != "":
			return m, errors.New(p.missing)
		case !ok:
			continue
		}
		if *p.rate, err = rate(number, digits); err != nil {
			return m, err
		}
		if p.has != nil {
			*p.has = true
		}
	}
	return m, nil
}
