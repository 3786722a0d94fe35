package policy

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/rationhq/ration/limit"
)

// span is a length of time as people write it: `minute`, `10m`, `1h30m`.
type span struct {
	length limit.Micros // 0 where months or years are in it, which have no fixed length
	// period is the period of the calendar that the span names, if it names just one.
	period   limit.Period
	calendar bool
	text     string // as it is written
}

// timeUnit is a unit of time in a policy.
type timeUnit struct {
	names    []string // the first is the one for messages
	length   limit.Micros
	period   limit.Period
	calendar bool
}

const (
	minute = 60 * limit.Second
	hour   = 60 * minute
	day    = 24 * hour
	week   = 7 * day
)

var timeUnits = []timeUnit{
	{names: []string{"microsecond", "us", "µs"}, length: 1},
	{names: []string{"millisecond", "ms"}, length: limit.Second / 1000},
	{names: []string{"second", "s", "sec"}, length: limit.Second},
	{names: []string{"minute", "m", "min"}, length: minute, period: limit.PerMinute, calendar: true},
	{names: []string{"hour", "h", "hr"}, length: hour, period: limit.PerHour, calendar: true},
	{names: []string{"day", "d"}, length: day, period: limit.PerDay, calendar: true},
	{names: []string{"week", "w"}, length: week, period: limit.PerWeek, calendar: true},
	{names: []string{"month"}, period: limit.PerMonth, calendar: true},
	{names: []string{"year", "y"}, period: limit.PerYear, calendar: true},
}

// timeUnitNamed finds a unit by a name of one or two letters as it is, by a word in any case and also
// in the plural.
func timeUnitNamed(name string) *timeUnit {
	for i := range timeUnits {
		for _, n := range timeUnits[i].names {
			if name == n || len(n) > 2 && (strings.EqualFold(name, n) || strings.EqualFold(name, n+"s")) {
				return &timeUnits[i]
			}
		}
	}
	return nil
}

// parseSpan reads one unit, or numbers with units: `hour`, `10m`, `10 minutes`, `1h30m`.
func parseSpan(s string) (span, error) {
	sp := span{text: strings.TrimSpace(s)}
	rest, terms := sp.text, 0
	for rest != "" {
		digits := len(rest) - len(strings.TrimLeft(rest, "0123456789_"))
		number, after := rest[:digits], strings.TrimLeft(rest[digits:], " ")
		end := strings.IndexAny(after, "0123456789 ")
		if end < 0 {
			end = len(after)
		}
		name := after[:end]
		rest = strings.TrimLeft(after[end:], " ")
		unit := timeUnitNamed(name)
		if unit == nil {
			return sp, noTimeUnit(sp.text, name)
		}
		times := int64(1)
		switch {
		case number != "":
			var err error
			if times, err = parseUnits(number); err != nil {
				return sp, err
			}
		case terms > 0 || rest != "":
			return sp, notASpan(sp.text)
		}
		if terms++; unit.length == 0 {
			if times != 1 || terms > 1 || rest != "" {
				return sp, fmt.Errorf("%s has no fixed length, and calendars have periods of one month or one year: "+
					"write it in days", quote(sp.text))
			}
		} else if times > (limit.MaxAmount-int64(sp.length))/int64(unit.length) {
			return sp, fmt.Errorf("%s is beyond 2^53 − 1 microseconds, about 285 years", quote(sp.text))
		}
		sp.length += limit.Micros(times) * unit.length
		sp.period, sp.calendar = unit.period, unit.calendar && times == 1 && terms == 1
	}
	switch {
	case terms == 0:
		return sp, fmt.Errorf("a length of time is missing behind the slash: write it as 10/minute or 5/10m")
	case sp.length == 0 && !sp.calendar:
		return sp, fmt.Errorf("%s is no time at all", quote(sp.text))
	}
	return sp, nil
}

// length is a length of time that is the same on every day.
type length limit.Micros

// String returns the length in words: "1 hour 30 minutes".
func (l length) String() string { return timeInWords(limit.Micros(l)) }

func parseLength(s string) (length, error) {
	sp, err := parseSpan(s)
	if err == nil && sp.length == 0 {
		err = fmt.Errorf("a %s has no fixed length: write it in days", sp.text)
	}
	return length(sp.length), err
}

func notASpan(text string) error {
	return fmt.Errorf("%s is no length of time: write it as minute, 10m or 1h30m", quote(text))
}

func noTimeUnit(text, name string) error {
	if name == "" {
		return notASpan(text)
	}
	if strings.HasPrefix(name, ".") {
		return fmt.Errorf("%s has a fraction: write it in a smaller unit, as 90m for an hour and a half", quote(text))
	}
	words := make([]string, len(timeUnits))
	for i, u := range timeUnits {
		words[i] = u.names[0]
	}
	if near := nearest(name, words); near != "" {
		return fmt.Errorf("%s is no unit of time (did you mean `%s`?)", quote(name), near)
	}
	return fmt.Errorf("%s is no unit of time: there are %s", quote(name), enumerate(words))
}

// String returns the span in words behind "per": "minute", "10 minutes", "1 hour 30 minutes".
func (s span) String() string {
	if s.calendar {
		return periodNames[s.period]
	}
	return lengthInWords(s.length)
}

// lengthInWords says a length of time behind "per": "minute", "10 minutes", "1 hour 30 minutes".
func lengthInWords(length limit.Micros) string {
	words := timeInWords(length)
	if strings.Count(words, " ") == 1 {
		return strings.TrimPrefix(words, "1 ")
	}
	return words
}

// timeInWords says a length of time: "1 minute", "10 minutes", "1 hour 30 minutes".
func timeInWords(length limit.Micros) string {
	var terms []string
	for i := len(timeUnits) - 1; i >= 0; i-- {
		u := &timeUnits[i]
		if u.length == 0 || length < u.length || u.names[0] == "week" && length%week != 0 {
			continue
		}
		terms = append(terms, strconv.FormatInt(int64(length/u.length), 10)+" "+u.names[0])
		if length/u.length > 1 {
			terms[len(terms)-1] += "s"
		}
		length %= u.length
	}
	return strings.Join(terms, " ")
}
