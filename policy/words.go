package policy

import (
	"time"

	"github.com/rationhq/ration/limit"
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

// Unit returns one unit of the meter in words: "input token".
func (m Meter) Unit() string { return unitNames[m] }

// Amount says a number of units: "1 request", "50,000 tokens".
func (m Meter) Amount(n int64) string {
	if n == 1 {
		return "1 " + m.Unit()
	}
	return grouped(n) + " " + m.Unit() + "s"
}

// Rate says a quantity of a limit with that meter in short: "10 requests per minute".
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

// Quota names what is used up when the quantity is: "Hourly quota".
func (q *Quantity) Quota() string {
	s := &q.Spec
	name := lengthInWords(s.Window)
	if s.Calendar != nil {
		name = periodNames[s.Calendar.Period]
	}
	switch name {
	case "hour":
		return "Hourly quota"
	case "day":
		return "Daily quota"
	case "week":
		return "Weekly quota"
	case "month":
		return "Monthly quota"
	case "year":
		return "Yearly quota"
	}
	return "Quota"
}

// Zone returns where the calendar of the quantity hangs; UTC where there is none.
func (q *Quantity) Zone() *time.Location {
	if q.Spec.Calendar != nil && q.Spec.Calendar.Zone != nil {
		return q.Spec.Calendar.Zone
	}
	return time.UTC
}

// Grouped writes an amount with commas: 50,000.
func Grouped(n int64) string { return grouped(n) }
