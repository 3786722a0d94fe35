package policy

import (
	"strconv"
	"strings"
	"time"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/price"
)

// Words for the callers of a limit, as opposed to those for the writers of a policy (explain.go).

// TierName returns the name of a tier, given by its index in [Domain.Tiers]; empty where the limit
// allows the same to all.
func (l *Limit) TierName(tier int) string {
	if len(l.quantities) == 1 {
		return ""
	}
	return l.tiers[tier].Name
}

// Algorithm returns how the limit counts, which is the same for all tiers.
func (l *Limit) Algorithm() limit.Algorithm {
	for _, q := range l.quantities {
		if q != nil {
			return q.Spec.Algorithm
		}
	}
	return limit.FixedWindow // unlimited for all: nothing is counted
}

// Unit returns one unit of the meter in words: "input token"; "money" of Cost.
func (m Meter) Unit() string { return unitNames[m] }

// Amount says a number of units: "1 request", "50,000 tokens", "$1.50".
func (m Meter) Amount(n int64) string {
	switch {
	case m == Cost:
		return m.Number(n)
	case n == 1:
		return "1 " + m.Unit()
	}
	return m.Number(n) + " " + m.Unit() + "s"
}

// Number says a number of units where what they are goes without saying: "50,000", and "$1.50" all the same.
func (m Meter) Number(n int64) string {
	if m != Cost {
		return grouped(n)
	}
	dollars, fraction, _ := strings.Cut(price.Nanos(n).String(), ".")
	sign := strings.IndexByte(dollars, '$') + 1
	return dollars[:sign] + commas(dollars[sign:]) + "." + fraction
}

// Decimal says a number of units for machines: "50000"; of money in dollars, "1.50", exactly.
func (m Meter) Decimal(n int64) string {
	if m != Cost {
		return strconv.FormatInt(n, 10)
	}
	return strings.Replace(price.Nanos(n).String(), "$", "", 1)
}

// Rate says a quantity of a limit with that meter in short: "10 requests per minute", "$1.00 per month".
func (q *Quantity) Rate(m Meter) string {
	s := &q.Spec
	switch {
	case s.Algorithm == limit.Concurrency:
		return m.Amount(s.Limit) + " at the same time"
	case s.Calendar != nil:
		return m.Amount(s.Limit) + " per " + periodNames[s.Calendar.Period]
	}
	return m.Amount(s.Limit) + " per " + lengthInWords(s.Window)
}

// Room says of what is left when something is left of a quantity: as Rate does, of a token bucket its depth and how it drains.
func (q *Quantity) Room(m Meter) string {
	if q.Spec.Algorithm == limit.TokenBucket {
		return m.Amount(q.Spec.Ceiling()) + " at once (" + q.Rate(m) + ")"
	}
	return q.Rate(m)
}

// Quota names what is used up when the quantity of a limit with that meter is: "Hourly quota", "Monthly budget".
func (q *Quantity) Quota(m Meter) string {
	s := &q.Spec
	name := lengthInWords(s.Window)
	if s.Calendar != nil {
		name = periodNames[s.Calendar.Period]
	}
	what := "quota"
	if m == Cost {
		what = "budget"
	}
	switch name {
	case "hour":
		return "Hourly " + what
	case "day":
		return "Daily " + what
	case "week":
		return "Weekly " + what
	case "month":
		return "Monthly " + what
	case "year":
		return "Yearly " + what
	}
	return strings.ToUpper(what[:1]) + what[1:]
}

// Zone returns where the calendar of the quantity hangs; UTC where there is none.
func (q *Quantity) Zone() *time.Location {
	if q.Spec.Calendar != nil && q.Spec.Calendar.Zone != nil {
		return q.Spec.Calendar.Zone
	}
	return time.UTC
}
