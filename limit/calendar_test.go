package limit_test

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/rationhq/ration/limit"
)

func zone(t testing.TB, name string) *time.Location {
	t.Helper()
	z, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return z
}

// Walks through the days on which clocks change, and through the ends of months.
func TestCalendarBounds(t *testing.T) {
	type walk struct {
		calendar string
		bounds   []string // the bounds of periods that follow each other
	}
	walks := []walk{
		{"minute;UTC", []string{"2026-11-21T12:34:00Z", "2026-11-21T12:35:00Z", "2026-11-21T12:36:00Z"}},
		{"day;UTC", []string{"2026-02-28T00:00:00Z", "2026-03-01T00:00:00Z", "2026-03-02T00:00:00Z"}},

		// Days of 23 and 25 hours.
		{"day;Europe/Berlin", []string{"2026-03-28T00:00:00+01:00", "2026-03-29T00:00:00+01:00", "2026-03-30T00:00:00+02:00"}},
		{"day;Europe/Berlin", []string{"2026-10-25T00:00:00+02:00", "2026-10-26T00:00:00+01:00", "2026-10-27T00:00:00+01:00"}},
		// Of 23½ and 24½.
		{"day;Australia/Lord_Howe", []string{"2026-10-04T00:00:00+10:30", "2026-10-05T00:00:00+11:00"}},
		{"day;Australia/Lord_Howe", []string{"2026-04-05T00:00:00+11:00", "2026-04-06T00:00:00+10:30"}},
		// Days without a midnight.
		{"day;America/Sao_Paulo", []string{"2018-11-03T00:00:00-03:00", "2018-11-04T01:00:00-02:00", "2018-11-05T00:00:00-02:00"}},
		{"day;Asia/Beirut", []string{"2026-03-28T00:00:00+02:00", "2026-03-29T01:00:00+03:00", "2026-03-30T00:00:00+03:00"}},
		// Clocks set back to the day before: at midnight, which is not reached until the hour is over; and at one past
		// midnight, when the new day has begun.
		{"day;America/Sao_Paulo", []string{"2018-02-17T00:00:00-02:00", "2018-02-18T00:00:00-03:00", "2018-02-19T00:00:00-03:00"}},
		{"day;America/St_Johns", []string{"2010-11-06T00:00:00-02:30", "2010-11-07T00:00:00-02:30", "2010-11-08T00:00:00-03:30"}},
		// Samoa went over the date line and had no 30 December; Kwajalein the same way.
		{"day;Pacific/Apia", []string{"2011-12-29T00:00:00-10:00", "2011-12-31T00:00:00+14:00", "2012-01-01T00:00:00+14:00"}},
		{"month;Pacific/Apia;30", []string{"2011-11-30T00:00:00-10:00", "2011-12-31T00:00:00+14:00", "2012-01-30T00:00:00+14:00"}},
		{"day;Pacific/Kwajalein", []string{"1993-08-20T00:00:00-12:00", "1993-08-22T00:00:00+12:00"}},

		{"week;Europe/Berlin;monday", []string{"2026-03-23T00:00:00+01:00", "2026-03-30T00:00:00+02:00", "2026-04-06T00:00:00+02:00"}},
		{"week;Europe/Berlin;sunday", []string{"2026-03-22T00:00:00+01:00", "2026-03-29T00:00:00+01:00", "2026-04-05T00:00:00+02:00"}},
		{"week;UTC;thursday", []string{"1969-12-25T00:00:00Z", "1970-01-01T00:00:00Z", "1970-01-08T00:00:00Z"}},

		{"month;Europe/Berlin;1", []string{"2026-10-01T00:00:00+02:00", "2026-11-01T00:00:00+01:00", "2026-12-01T00:00:00+01:00", "2027-01-01T00:00:00+01:00"}},
		{"month;UTC;15", []string{"2026-11-15T00:00:00Z", "2026-12-15T00:00:00Z", "2027-01-15T00:00:00Z"}},
		{"month;UTC;31", []string{"2026-12-31T00:00:00Z", "2027-01-31T00:00:00Z", "2027-02-28T00:00:00Z", "2027-03-31T00:00:00Z", "2027-04-30T00:00:00Z"}},
		{"month;UTC;30", []string{"2028-01-30T00:00:00Z", "2028-02-29T00:00:00Z", "2028-03-30T00:00:00Z"}},
		{"month;UTC;29", []string{"2027-01-29T00:00:00Z", "2027-02-28T00:00:00Z", "2027-03-29T00:00:00Z"}},

		{"year;UTC;01-01", []string{"1969-01-01T00:00:00Z", "1970-01-01T00:00:00Z", "1971-01-01T00:00:00Z"}},
		{"year;Europe/London;04-06", []string{"2025-04-06T00:00:00+01:00", "2026-04-06T00:00:00+01:00", "2027-04-06T00:00:00+01:00"}},
		{"year;UTC;02-29", []string{"2027-02-28T00:00:00Z", "2028-02-29T00:00:00Z", "2029-02-28T00:00:00Z"}},
		{"year;UTC;12-31", []string{"2254-12-31T00:00:00Z", "2255-12-31T00:00:00Z"}},

		// A repeated hour is two hours; a skipped one is none.
		{"hour;Europe/Berlin", []string{"2026-10-25T01:00:00+02:00", "2026-10-25T02:00:00+02:00", "2026-10-25T02:00:00+01:00", "2026-10-25T03:00:00+01:00"}},
		{"hour;Europe/Berlin", []string{"2026-03-29T01:00:00+01:00", "2026-03-29T03:00:00+02:00", "2026-03-29T04:00:00+02:00"}},
		{"hour;Australia/Lord_Howe", []string{"2026-10-04T01:00:00+10:30", "2026-10-04T02:30:00+11:00", "2026-10-04T03:00:00+11:00"}},
		{"hour;Australia/Lord_Howe", []string{"2026-04-05T01:00:00+11:00", "2026-04-05T01:30:00+10:30", "2026-04-05T02:00:00+10:30"}},
		{"hour;Asia/Kolkata", []string{"2026-11-21T12:00:00+05:30", "2026-11-21T13:00:00+05:30"}},
		{"hour;Asia/Kathmandu", []string{"2026-11-21T12:00:00+05:45", "2026-11-21T13:00:00+05:45"}},
		// New Year in UTC, in the middle of an hour, is no change of clocks, also where package time calculates them. There
		// the last day of a leap year is a special one.
		{"hour;Australia/Adelaide", []string{"2041-01-01T10:00:00+10:30", "2041-01-01T11:00:00+10:30"}},
		{"day;Europe/Berlin", []string{"2040-12-30T00:00:00+01:00", "2040-12-31T00:00:00+01:00", "2041-01-01T00:00:00+01:00", "2041-01-02T00:00:00+01:00"}},
		{"minute;Africa/Monrovia", []string{"1972-01-06T23:59:00-00:44:30", "1972-01-07T00:44:30Z", "1972-01-07T00:45:00Z"}},
	}
	for _, w := range walks {
		c, err := limit.ParseCalendar(w.calendar)
		if err != nil {
			t.Error(err)
			continue
		}
		for i := range w.bounds[1:] {
			var bounds [2]limit.Micros
			for j := range bounds {
				layout := time.RFC3339
				if text := w.bounds[i+j]; len(text) > len("2006-01-02T15:04:05-07:00") {
					layout = "2006-01-02T15:04:05-07:00:00"
				}
				instant, err := time.Parse(layout, w.bounds[i+j])
				if err != nil {
					t.Fatal(err)
				}
				bounds[j] = limit.At(instant)
			}
			half := (bounds[1] - bounds[0]) / 2
			for _, into := range []limit.Micros{0, 1, min(90*limit.Second, half), min(3000*limit.Second, half), half, 2*half - 1} {
				now := bounds[0] + into
				if start, end := c.Bounds(now); start != bounds[0] || end != bounds[1] {
					t.Errorf("%s at %s: [%s, %s), want [%s, %s)",
						w.calendar, in(c, now), in(c, start), in(c, end), w.bounds[i], w.bounds[i+1])
				}
			}
		}
	}
}

func in(c *limit.Calendar, m limit.Micros) string {
	t := m.Time()
	if c.Zone != nil {
		t = t.In(c.Zone)
	}
	return t.Format(time.RFC3339Nano)
}

// The zero calendar is every minute in UTC, and zero fields are what they mean.
func TestCalendarZeroValues(t *testing.T) {
	for want, c := range map[string]limit.Calendar{
		"minute;UTC":              {},
		"hour;UTC":                {Period: limit.PerHour, Zone: time.UTC},
		"week;UTC;sunday":         {Period: limit.PerWeek},
		"month;Europe/Berlin;1":   {Period: limit.PerMonth, Zone: zone(t, "Europe/Berlin")},
		"year;UTC;01-01":          {Period: limit.PerYear},
		"year;Asia/Tokyo;04-01":   {Period: limit.PerYear, Zone: zone(t, "Asia/Tokyo"), AnchorMonth: time.April},
		"year;UTC;01-31":          {Period: limit.PerYear, Anchor: 31},
		"day;UTC":                 {Period: limit.PerDay, WeekStart: time.Monday, Anchor: 32, AnchorMonth: 13}, // of no use to it
		"period 6;UTC":            {Period: limit.PerYear + 1},
		"month;America/Denver;31": {Period: limit.PerMonth, Zone: zone(t, "America/Denver"), Anchor: 31},
	} {
		if got := c.String(); got != want {
			t.Errorf("%#v is %q, want %q", c, got, want)
		}
		explicit, err := limit.ParseCalendar(want)
		if (err == nil) != (c.Validate() == nil) {
			t.Errorf("ParseCalendar(%q): %v, but Validate: %v", want, err, c.Validate())
		}
		if err != nil {
			continue
		}
		now := limit.At(time.Date(2026, 11, 21, 12, 34, 56, 0, time.UTC))
		start, end := c.Bounds(now)
		if s, e := explicit.Bounds(now); s != start || e != end {
			t.Errorf("%s: [%v, %v), but parsed from its name: [%v, %v)", want, start, end, s, e)
		}
	}
}

func TestCalendarValidate(t *testing.T) {
	for _, c := range []limit.Calendar{
		{Period: limit.PerYear + 1},
		{Period: limit.PerDay, Zone: time.Local},
		{Period: limit.PerDay, Zone: time.FixedZone("Atlantis", 3600)},
		{Period: limit.PerDay, Zone: time.FixedZone("", 3600)},
		{Period: limit.PerWeek, WeekStart: 7},
		{Period: limit.PerWeek, WeekStart: -1},
		{Period: limit.PerMonth, Anchor: 32},
		{Period: limit.PerMonth, Anchor: -1},
		{Period: limit.PerYear, AnchorMonth: 13},
		{Period: limit.PerYear, AnchorMonth: -1},
	} {
		if err := c.Validate(); err == nil {
			t.Errorf("%#v is valid", c)
		}
	}
}

// A calendar has one name: other spellings of it are refused, since buckets are told apart by it.
func TestParseCalendarRefuses(t *testing.T) {
	for _, s := range []string{
		"", ";", "month", "fortnight;UTC", "Month;UTC;1", "minute", "minute;", "minute;;", "minute;UTC;", "minute;UTC;1",
		"day;Local", "day;Atlantis", "day;../UTC", "day;/etc/localtime", "day;UTC;monday",
		"week;UTC", "week;UTC;Monday", "week;UTC;mon", "week;UTC;saturnday",
		"month;UTC", "month;UTC;0", "month;UTC;01", "month;UTC;+1", "month;UTC;32", "month;UTC;1;", "month;UTC;-1", "month; UTC;1",
		"year;UTC", "year;UTC;1-1", "year;UTC;01-00", "year;UTC;13-01", "year;UTC;01-01-01", "year;UTC;-01", "year;UTC;01-",
		"month;UTC;99999999999999999999",
	} {
		if c, err := limit.ParseCalendar(s); err == nil {
			t.Errorf("%q was read as %q", s, c)
		}
	}
}

func FuzzParseCalendar(f *testing.F) {
	for _, s := range []string{"minute;UTC", "day;Europe/Berlin", "week;Asia/Beirut;sunday", "month;UTC;31", "year;Europe/London;04-06"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c, err := limit.ParseCalendar(s)
		if err != nil {
			return
		}
		if err := c.Validate(); err != nil {
			t.Errorf("%q was read, but is not valid: %v", s, err)
		}
		if got := c.String(); got != s {
			t.Errorf("%q was read as %q", s, got)
		}
		now := limit.At(time.Date(2026, 11, 21, 12, 34, 56, 0, time.UTC))
		if start, end := c.Bounds(now); start > now || end <= now {
			t.Errorf("%s: %d is not in [%d, %d)", s, now, start, end)
		}
	})
}

// calendars draws valid calendars, in zones that have been difficult.
func calendars(t testing.TB) *rapid.Generator[*limit.Calendar] {
	var zones []*time.Location
	for _, name := range []string{
		"UTC", "Europe/Berlin", "Europe/London", "Europe/Dublin", "Europe/Lisbon", "America/New_York", "America/Sao_Paulo",
		"America/St_Johns", "America/Caracas", "America/Havana", "America/Scoresbysund", "America/Nuuk", "Asia/Beirut",
		"Asia/Tehran", "Asia/Kolkata", "Asia/Kathmandu", "Asia/Gaza", "Asia/Pyongyang", "Africa/Casablanca", "Africa/Cairo",
		"Africa/Monrovia", "Antarctica/Troll", "Antarctica/Casey", "Australia/Lord_Howe", "Australia/Adelaide", "Pacific/Apia",
		"Pacific/Kwajalein", "Pacific/Kiritimati", "Pacific/Chatham", "Pacific/Marquesas", "Etc/GMT+12", "Etc/GMT-14",
	} {
		zones = append(zones, zone(t, name))
	}
	return rapid.Custom(func(r *rapid.T) *limit.Calendar {
		c := &limit.Calendar{
			Period: limit.Period(rapid.IntRange(int(limit.PerMinute), int(limit.PerYear)).Draw(r, "period")),
			Zone:   rapid.SampledFrom(zones).Draw(r, "zone"),
		}
		switch c.Period {
		case limit.PerWeek:
			c.WeekStart = time.Weekday(rapid.IntRange(0, 6).Draw(r, "week start"))
		case limit.PerYear:
			c.AnchorMonth = time.Month(rapid.IntRange(0, 12).Draw(r, "anchor month"))
			fallthrough
		case limit.PerMonth:
			c.Anchor = rapid.OneOf(rapid.IntRange(0, 31), rapid.IntRange(27, 31)).Draw(r, "anchor")
		default:
		}
		return c
	})
}

// instants draws instants of all of ration's time, most of them close to a change of the clocks.
func instants(z *time.Location) *rapid.Generator[limit.Micros] {
	const hour = 3600 * limit.Second
	ever := rapid.Int64Range(0, limit.MaxAmount)
	recent := rapid.Int64Range(0, int64(limit.At(time.Date(2045, 1, 1, 0, 0, 0, 0, time.UTC))))
	around := rapid.SampledFrom([]limit.Micros{-48 * hour, -24 * hour, -hour, -limit.Second, 0, limit.Second, hour / 2, 24 * hour})
	upTo := rapid.SampledFrom([]int64{1, int64(2 * hour), int64(36 * hour)})
	return rapid.Custom(func(r *rapid.T) limit.Micros {
		now := limit.Micros(rapid.OneOf(ever, recent, recent).Draw(r, "any"))
		_, change := now.Time().In(z).ZoneBounds()
		if change.IsZero() || rapid.IntRange(0, 3).Draw(r, "a quarter are anywhere") == 0 {
			return now
		}
		away := around.Draw(r, "around the change") + limit.Micros(rapid.Int64Range(-1, upTo.Draw(r, "up to")).Draw(r, "away"))
		return min(max(limit.At(change)+away, 0), limit.Micros(limit.MaxAmount))
	})
}

// Every instant lies in exactly one period, and the periods follow each other without a gap.
func TestCalendarTiles(t *testing.T) {
	all := calendars(t)
	rapid.Check(t, func(r *rapid.T) {
		c := all.Draw(r, "calendar")
		for _, now := range rapid.SliceOfN(instants(c.Zone), 20, 20).Draw(r, "instants") {
			tiles(r, c, now)
		}
	})
}

func tiles(r *rapid.T, c *limit.Calendar, now limit.Micros) {
	start, end := c.Bounds(now)
	if start > now || now >= end {
		r.Fatalf("%s: %s is not in [%s, %s)", c, in(c, now), in(c, start), in(c, end))
	}
	within := limit.Micros(rapid.Int64Range(int64(start), int64(end-1)).Draw(r, "within"))
	for _, other := range []limit.Micros{start, within, end - 1} {
		if s, e := c.Bounds(other); s != start || e != end {
			r.Fatalf("%s: %s is in [%s, %s), but %s in [%s, %s)",
				c, in(c, now), in(c, start), in(c, end), in(c, other), in(c, s), in(c, e))
		}
	}
	if s, _ := c.Bounds(end); s != end {
		r.Fatalf("%s: after [%s, %s) comes one from %s", c, in(c, start), in(c, end), in(c, s))
	}
	if _, e := c.Bounds(start - 1); e != start {
		r.Fatalf("%s: before [%s, %s) is one until %s", c, in(c, start), in(c, end), in(c, e))
	}
}

// The bounds are those of a model that reads the clock second by second and day by day.
func TestCalendarModel(t *testing.T) {
	all := calendars(t)
	rapid.Check(t, func(r *rapid.T) {
		c := all.Draw(r, "calendar")
		for _, now := range rapid.SliceOfN(instants(c.Zone), 10, 10).Draw(r, "instants") {
			start, end := c.Bounds(now)
			if s, e := modelBounds(c, now); s != start || e != end {
				r.Fatalf("%s at %s: [%s, %s), the model says [%s, %s)",
					c, in(c, now), in(c, start), in(c, end), in(c, s), in(c, e))
			}
		}
	})
}

func modelBounds(c *limit.Calendar, now limit.Micros) (start, end limit.Micros) {
	t := now.Time().In(c.Zone).Truncate(time.Second)
	if c.Period <= limit.PerHour {
		begins := func(t time.Time) bool {
			_, offset := t.Zone()
			_, before := t.Add(-time.Second).Zone()
			full := t.Second() == 0 && (c.Period == limit.PerMinute || t.Minute() == 0)
			return full || offset != before
		}
		first, next := t, t.Add(time.Second)
		for !begins(first) {
			first = first.Add(-time.Second)
		}
		for !begins(next) {
			next = next.Add(time.Second)
		}
		return limit.At(first), limit.At(next)
	}

	// Dates are written as noon in UTC.
	date := time.Date(t.Year(), t.Month(), t.Day(), 12, 0, 0, 0, time.UTC)
	opens := func(date time.Time) bool {
		atAnchor := date.Day() == max(c.Anchor, 1) || date.Day() < c.Anchor && date.AddDate(0, 0, 1).Day() == 1
		switch c.Period {
		case limit.PerWeek:
			return date.Weekday() == c.WeekStart
		case limit.PerMonth:
			return atAnchor
		case limit.PerYear:
			return atAnchor && date.Month() == max(c.AnchorMonth, time.January)
		default:
			return true
		}
	}
	// shown returns the first second at which the clocks show the date or a later one.
	shown := func(date time.Time) time.Time {
		reached := func(t time.Time) bool {
			t = t.In(c.Zone)
			return !time.Date(t.Year(), t.Month(), t.Day(), 12, 0, 0, 0, time.UTC).Before(date)
		}
		t := date.Add(-38 * time.Hour)
		for !reached(t) {
			t = t.Add(time.Minute)
		}
		for reached(t.Add(-time.Second)) {
			t = t.Add(-time.Second)
		}
		return t
	}
	first := date.AddDate(0, 0, 2)
	for !opens(first) || shown(first).After(t) {
		first = first.AddDate(0, 0, -1)
	}
	next := first.AddDate(0, 0, 1)
	for !opens(next) || !shown(next).After(t) {
		next = next.AddDate(0, 0, 1)
	}
	return limit.At(shown(first)), limit.At(shown(next))
}

func TestPeriodNames(t *testing.T) {
	for p := limit.PerMinute; p <= limit.PerYear; p++ {
		if got, ok := limit.ParsePeriod(p.String()); !ok || got != p {
			t.Errorf("%v was read as %v, %v", p, got, ok)
		}
	}
	if p, ok := limit.ParsePeriod("fortnight"); ok {
		t.Errorf("a fortnight was read as %v", p)
	}
}

func BenchmarkCalendarBounds(b *testing.B) {
	for _, name := range []string{
		"minute;UTC", "hour;Europe/Berlin", "day;UTC", "day;Europe/Berlin", "month;Europe/Berlin;15", "year;Europe/London;04-06",
	} {
		b.Run(name, func(b *testing.B) {
			c, err := limit.ParseCalendar(name)
			if err != nil {
				b.Fatal(err)
			}
			now := limit.At(time.Now())
			b.ReportAllocs()
			for b.Loop() {
				_, now = c.Bounds(now)
				now--
			}
		})
	}
}

func ExampleCalendar() {
	berlin, err := limit.ParseCalendar("day;Europe/Berlin")
	if err != nil {
		panic(err)
	}
	start, end := berlin.Bounds(limit.At(time.Date(2026, 10, 25, 12, 0, 0, 0, time.UTC)))
	fmt.Println(start.Time(), end.Time(), (end - start).Duration())
	// Output: 2026-10-24 22:00:00 +0000 UTC 2026-10-25 23:00:00 +0000 UTC 25h0m0s
}
