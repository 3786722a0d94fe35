package provider

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/rationhq/ration/limit"
)

// amount reads what is left: digits. What is more than can be counted is as much as can be counted.
func amount(text string) (int64, error) {
	if !digits(text) {
		return 0, fmt.Errorf("%.40q is no amount: 0 or more, in digits", text)
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil { // of digits there can only be too many
		n = limit.MaxAmount
	}
	return min(n, limit.MaxAmount), nil
}

func digits(text string) bool {
	for i := range len(text) {
		if text[i] < '0' || text[i] > '9' {
			return false
		}
	}
	return text != ""
}

// span reads how long it is until something, in any of the forms that providers use: seconds ("20", "0.5"), a duration
// ("6m0s", "120ms"), an instant (RFC 3339, a date of HTTP, seconds or milliseconds since 1970). What is past is now. With
// inMillis a plain number is of milliseconds.
func span(text string, now limit.Micros, inMillis bool) (limit.Micros, error) {
	if whole, fraction, pointed := strings.Cut(text, "."); digits(whole) && pointed == digits(fraction) {
		n := number(whole, fraction)
		switch {
		case inMillis:
			n /= 1000
		case n >= millisSince*limit.Second:
			n = n/1000 - now
		case n >= secondsSince*limit.Second:
			n -= now
		}
		return within(n), nil
	}
	if then, err := instant(text); err == nil {
		return within(then - now), nil
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return within(limit.Micros(d.Microseconds())), nil
	}
	return 0, fmt.Errorf("%.40q is no time: seconds, a duration as 6m0s, or an instant", text)
}

// From these numbers on nobody means a span: it would be 31 years, of which seconds and milliseconds since 1970 are more.
const (
	secondsSince = 1_000_000_000
	millisSince  = 1_000_000_000_000
)

// number returns a number of seconds in microseconds, of which there may be too many for any use. Both are digits.
func number(whole, fraction string) limit.Micros {
	const zeros = "000000"
	n, err := strconv.ParseInt(whole+(fraction + zeros)[:len(zeros)], 10, 64)
	if err != nil {
		n = limit.MaxAmount
	}
	return limit.Micros(n)
}

// instant reads a time of RFC 3339, or a date in one of the three forms of HTTP.
func instant(text string) (limit.Micros, error) {
	for _, layout := range [...]string{time.RFC3339, "Mon, 02 Jan 2006 15:04:05 GMT", time.RFC850, time.ANSIC} {
		if t, err := time.Parse(layout, text); err == nil {
			return limit.At(t), nil
		}
	}
	return 0, errors.New("no instant")
}

// within bounds a span.
func within(m limit.Micros) limit.Micros { return max(0, min(m, MaxReset)) }
