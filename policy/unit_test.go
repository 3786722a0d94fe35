package policy

import (
	"testing"

	"github.com/rationhq/ration/limit"
)

func TestUnits(t *testing.T) {
	for _, c := range []struct {
		unit    Unit
		number  int // in Envoy's RateLimitResponse.RateLimit.Unit
		name    string
		seconds limit.Micros
	}{
		{Second, 1, "second", 1},
		{Minute, 2, "minute", 60},
		{Hour, 3, "hour", 3600},
		{Day, 4, "day", 86400},
		{Month, 5, "month", 2592000},
		{Year, 6, "year", 31536000},
		{Week, 7, "week", 604800},
	} {
		if int(c.unit) != c.number || c.unit.String() != c.name || !c.unit.Valid() {
			t.Errorf("%d %s, want %d %s", c.unit, c.unit, c.number, c.name)
		}
		if got := c.unit.Window(); got != c.seconds*limit.Second {
			t.Errorf("a %s has %d µs, want %d s", c.unit, got, c.seconds)
		}
	}
	for _, u := range []Unit{0, 8, 255} {
		if u.Valid() || u.Window() != 0 || u.String() != "unknown" {
			t.Errorf("unit %d is taken for %s of %d µs", u, u, u.Window())
		}
	}
}

func TestParseUnit(t *testing.T) {
	for text, want := range map[string]Unit{
		"second": Second, "MINUTE": Minute, "Hour": Hour, "dAy": Day, "week": Week, "month": Month, "YEAR": Year,
		"": 0, "unknown": 0, "minutes": 0, "per minute": 0, "2": 0,
	} {
		if got, ok := ParseUnit(text); got != want || ok != (want != 0) {
			t.Errorf("%q is %v, %v; want %v", text, got, ok, want)
		}
	}
}
