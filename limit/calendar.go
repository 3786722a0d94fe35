package limit

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	// A zone means the same where no zone files are installed, as in most container images.
	// Installed ones, and those that ZONEINFO points to, go first, as everywhere in Go.
	_ "time/tzdata"
)

// Period is a unit of the calendar.
type Period uint8

// The periods of a calendar.
const (
	PerMinute Period = iota
	PerHour
	PerDay
	PerWeek
	PerMonth
	PerYear
	periods
)

var periodNames = [periods]string{"minute", "hour", "day", "week", "month", "year"}

// String returns the name that policies use: "month".
func (p Period) String() string {
	if p < periods {
		return periodNames[p]
	}
	return fmt.Sprintf("period %d", uint8(p))
}

// ParsePeriod returns the period of that name.
func ParsePeriod(name string) (Period, bool) {
	for p, n := range periodNames {
		if n == name {
			return Period(p), true
		}
	}
	return 0, false
}

// Calendar divides time into the periods of a calendar in a time zone.
//
// The periods follow each other without gap or overlap, whatever the clocks of the zone do:
//
//   - A day begins at the first instant at which the clocks show its date or a later one. That is
//     midnight, or the end of the gap where midnight is skipped. A day is 24 hours long, 23 or 25
//     when daylight saving time begins or ends; one that a zone leaves out (in Samoa, 30 December
//     2011) has no length. Clocks set back from after midnight do not bring the day before back.
//   - Weeks, months and years begin with their first day. The year is the Gregorian calendar's.
//   - An hour begins whenever the clocks show a full one, and whenever they are changed; a minute
//     likewise. An hour that is repeated when daylight saving time ends is two hours. Where clocks
//     change by half an hour (Lord Howe Island), hours of 30 minutes come out.
//
// Fields that a period has no use for are ignored. The zero Calendar is every minute in UTC.
type Calendar struct {
	Period Period
	// Zone is where the calendar hangs, one of the IANA database; nil means UTC.
	Zone *time.Location
	// WeekStart is the day on which a week begins; its zero value is Sunday, as in package time.
	// Only for PerWeek.
	WeekStart time.Weekday
	// Anchor is the day of the month, 1…31, on which a month or a year begins; 29–31 clamp to the last
	// day of shorter months. 0 means 1. Only for PerMonth and PerYear.
	Anchor int
	// AnchorMonth is the month in which a year begins; 0 means January. Only for PerYear.
	AnchorMonth time.Month
}

// Bounds returns the period that now lies in, half-open: [start, end). Both are whole seconds; start
// is before the epoch, and so negative, in the periods that contain it.
//
// Bounds allocates nothing. It relies on c being valid.
func (c *Calendar) Bounds(now Micros) (start, end Micros) {
	sec := floorDiv(int64(now), int64(Second))
	var from, to int64
	switch c.Period {
	case PerMinute:
		from, to = c.clockBounds(sec, 60)
	case PerHour:
		from, to = c.clockBounds(sec, 60*60)
	default:
		from, to = c.dateBounds(sec)
	}
	return Micros(from) * Second, Micros(to) * Second
}

// clockBounds returns the bounds of the minute or hour around sec, by its length in seconds.
func (c *Calendar) clockBounds(sec, length int64) (start, end int64) {
	e := eraAt(c.Zone, sec)
	start = floorDiv(sec+e.offset, length)*length - e.offset
	end = start + length
	// Not every bound of an era is a change of the clocks: the abbreviation may change alone.
	if start < e.start && eraAt(c.Zone, e.start-1).offset != e.offset {
		start = e.start
	}
	if end > e.end && eraAt(c.Zone, e.end).offset != e.offset {
		end = e.end
	}
	return start, end
}

// dateBounds returns the bounds of the day, week, month or year around sec.
func (c *Calendar) dateBounds(sec int64) (start, end int64) {
	from, to := c.dates(sec + eraAt(c.Zone, sec).offset)
	start, end = firstAt(c.Zone, from), firstAt(c.Zone, to)
	for end <= sec { // the clocks have shown the next period already, and were then set back out of it
		_, to = c.dates(to)
		start, end = end, firstAt(c.Zone, to)
	}
	return start, end
}

// dates returns the midnights with which the period around an instant begins and ends. All three
// are readings of the zone's clocks, in seconds as if they were UTC.
func (c *Calendar) dates(clock int64) (from, to int64) {
	const day = 24 * 60 * 60
	switch c.Period {
	case PerDay:
		from = floorDiv(clock, day) * day
		return from, from + day
	case PerWeek:
		today := floorDiv(clock, day)
		weekday := today + int64(time.Thursday) // the epoch was a Thursday
		from = (today - floorMod(weekday-int64(c.WeekStart), 7)) * day
		return from, from + 7*day
	case PerMonth:
		year, month, _ := time.Unix(clock, 0).UTC().Date()
		if clock < c.anchored(year, month) {
			month--
		}
		return c.anchored(year, month), c.anchored(year, month+1)
	default: // PerYear
		year, month := time.Unix(clock, 0).UTC().Year(), max(c.AnchorMonth, time.January)
		if clock < c.anchored(year, month) {
			year--
		}
		return c.anchored(year, month), c.anchored(year+1, month)
	}
}

// anchored returns the midnight of the anchor day in a month, 0…13, of a year, in seconds as if the
// zone were UTC.
func (c *Calendar) anchored(year int, month time.Month) int64 {
	first := time.Date(year, month, 1, 0, 0, 0, 0, time.UTC)
	last := time.Date(year, month+1, 0, 0, 0, 0, 0, time.UTC)
	return first.AddDate(0, 0, min(max(c.Anchor, 1), last.Day())-1).Unix()
}

// firstAt returns the first instant at which the clocks of a zone show clock or later. The clocks
// run from change to change at one offset from UTC, so each era is asked in turn.
func firstAt(zone *time.Location, clock int64) int64 {
	const maxOffset = 26 * 60 * 60 // seconds; no zone has ever been as far from UTC
	for t := clock - maxOffset; ; {
		e := eraAt(zone, t)
		if first := max(t, clock-e.offset); first < e.end {
			return first
		}
		t = e.end
	}
}

// era is a time over which the clocks of a zone keep their offset from UTC: [start, end) in Unix
// seconds, and offset in seconds east. The one before or after may have the same offset.
type era struct{ start, end, offset int64 }

func eraAt(zone *time.Location, sec int64) era {
	if zone == nil {
		zone = time.UTC
	}
	t := time.Unix(sec, 0).In(zone)
	_, offset := t.Zone()
	start, end := t.ZoneBounds()
	const forever = 1 << 60
	e := era{start: -forever, end: forever, offset: int64(offset)}
	if !start.IsZero() {
		e.start = start.Unix()
	}
	if !end.IsZero() {
		e.end = end.Unix()
	}
	if e.end <= sec {
		// Beyond the changes that are listed, package time makes eras end with the year in UTC, which
		// it takes to have 365 days. So this is 31 December of a leap year.
		const day = 24 * 60 * 60
		e.end = (floorDiv(sec, day) + 1) * day
	}
	return e
}

// Validate reports what makes c unusable.
func (c *Calendar) Validate() error {
	switch {
	case c.Period >= periods:
		return fmt.Errorf("%v is unknown", c.Period)
	case c.Period == PerWeek && (c.WeekStart < time.Sunday || c.WeekStart > time.Saturday):
		return fmt.Errorf("a week that begins on day %d, want 0…6", c.WeekStart)
	case c.Period >= PerMonth && (c.Anchor < 0 || c.Anchor > 31):
		return fmt.Errorf("an anchor on day %d of the month, want 1…31", c.Anchor)
	case c.Period == PerYear && (c.AnchorMonth < 0 || c.AnchorMonth > time.December):
		return fmt.Errorf("an anchor in month %d, want 1…12", c.AnchorMonth)
	case c.Zone == nil:
		return nil
	}
	_, err := loadZone(c.Zone.String())
	return err
}

// loadZone returns a zone by its name in the IANA database. What "Local" is differs from machine to
// machine, so it is none.
func loadZone(name string) (*time.Location, error) {
	if name == "" || name == "Local" {
		return nil, fmt.Errorf("the time zone %q, want one of the IANA database such as Europe/Berlin, or UTC", name)
	}
	zone, err := time.LoadLocation(name)
	if err != nil {
		return nil, fmt.Errorf("the time zone %q is not in the IANA database: %w", name, err)
	}
	return zone, nil
}

// String returns the identity of c: period, zone, and where the period has them its first weekday,
// anchor day, or anchor month and day. Zero values are written as what they mean, so that calendars
// that say the same have the same identity. [ParseCalendar] reads it.
//
//	hour;UTC
//	week;Asia/Beirut;sunday
//	month;Europe/Berlin;15
//	year;Europe/London;04-06
//
// It is part of the names of buckets and of files, and does not change from version to version.
func (c *Calendar) String() string {
	zone := "UTC"
	if c.Zone != nil {
		zone = c.Zone.String()
	}
	s := c.Period.String() + ";" + zone
	switch c.Period {
	case PerWeek:
		return s + ";" + strings.ToLower(c.WeekStart.String())
	case PerMonth:
		return s + ";" + strconv.Itoa(max(c.Anchor, 1))
	case PerYear:
		return s + fmt.Sprintf(";%02d-%02d", max(c.AnchorMonth, time.January), max(c.Anchor, 1))
	default:
		return s
	}
}

// ParseCalendar returns the calendar whose [Calendar.String] is s. It loads the zone, which takes
// longer than everything else here: keep the result.
func ParseCalendar(s string) (*Calendar, error) {
	c, err := parseCalendar(s)
	if err != nil {
		return nil, fmt.Errorf("calendar %q: %w", s, err)
	}
	return c, nil
}

func parseCalendar(s string) (*Calendar, error) {
	period, rest, _ := strings.Cut(s, ";")
	zone, begins, _ := strings.Cut(rest, ";")
	c := &Calendar{}
	var ok bool
	if c.Period, ok = ParsePeriod(period); !ok {
		return nil, fmt.Errorf("the period %q is unknown, want minute, hour, day, week, month or year", period)
	}
	var err error
	if c.Zone, err = loadZone(zone); err != nil {
		return nil, err
	}
	switch c.Period {
	case PerWeek:
		for c.WeekStart < time.Saturday && strings.ToLower(c.WeekStart.String()) != begins {
			c.WeekStart++
		}
	case PerMonth:
		c.Anchor, err = strconv.Atoi(begins)
	case PerYear:
		month, day, _ := strings.Cut(begins, "-")
		var m int
		m, err = strconv.Atoi(month)
		c.AnchorMonth = time.Month(m)
		if err == nil {
			c.Anchor, err = strconv.Atoi(day)
		}
	default:
	}
	if err != nil {
		return nil, err
	}
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if c.String() != s { // one calendar, one name
		return nil, errors.New("want " + c.String())
	}
	return c, nil
}

// floorDiv returns a/b rounded down, for b > 0.
func floorDiv(a, b int64) int64 { return (a - floorMod(a, b)) / b }

// floorMod returns what floorDiv leaves over, in 0…b−1.
func floorMod(a, b int64) int64 { return (a%b + b) % b }
