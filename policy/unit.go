package policy

import (
	"strings"

	"github.com/rationhq/ration/limit"
)

// Unit is the unit of time of a `rate_limit`. Its numbers are those of Envoy's
// RateLimitResponse.RateLimit.Unit, which is why Week stands last. The zero Unit is none.
type Unit uint8

// The units, by Envoy's numbers.
const (
	Second Unit = 1 + iota
	Minute
	Hour
	Day
	Month // 30 days, counted from 1970-01-01: no calendar month
	Year  // 365 days, counted from 1970-01-01: no calendar year
	Week  // 7 days, counted from 1970-01-01: begins on Thursday
)

// units describes each Unit at its own number.
var units = [...]struct {
	name    string
	seconds limit.Micros
}{
	{"unknown", 0},
	Second: {"second", 1},
	Minute: {"minute", 60},
	Hour:   {"hour", 60 * 60},
	Day:    {"day", 24 * 60 * 60},
	Month:  {"month", 30 * 24 * 60 * 60},
	Year:   {"year", 365 * 24 * 60 * 60},
	Week:   {"week", 7 * 24 * 60 * 60},
}

// ParseUnit returns the unit of that name, in whatever case.
func ParseUnit(s string) (Unit, bool) {
	for u := Second; u <= Week; u++ {
		if strings.EqualFold(s, units[u].name) {
			return u, true
		}
	}
	return 0, false
}

// Valid reports whether u is one of the seven units.
func (u Unit) Valid() bool { return Second <= u && u <= Week }

// Window returns the length of the unit, 0 for a Unit that is not valid.
func (u Unit) Window() limit.Micros {
	if !u.Valid() {
		return 0
	}
	return units[u].seconds * limit.Second
}

// String returns the name of the unit: "minute".
func (u Unit) String() string {
	if !u.Valid() {
		return units[0].name
	}
	return units[u].name
}
