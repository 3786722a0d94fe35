package engine

import (
	"math"
	"math/bits"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/price"
)

// Applied is what one limit of a `limits:` list said to a request.
type Applied struct {
	Limit    *policy.Limit
	Quantity *policy.Quantity
	// Tier is the index of the tier that Quantity is for.
	Tier int
	// Asks says that the limit was asked for room, by a charge, a hold or a check; else usage was
	// recorded, or given back.
	Asks bool
	// Amount is what was asked for; 0 was a check.
	Amount int64
	held   bool // it is held, not charged
	// Reserved is what the reservation held of it that the request has settled.
	Reserved int64
	// TooLarge says that all that the request asks for is above what a single request may.
	TooLarge bool
	// Unpriced is the model of the request where it has no price, and money is limited; else empty.
	Unpriced string
	book     *price.Book // in which it has none
	// Status is how the limit stands after the decision, and its verdict.
	Status limit.Status
	// Over says that the limit refuses the request.
	Over bool
	// Unavailable says that it refuses because the store could not be asked: of its Status only the
	// waits mean something.
	Unavailable bool
}

// refuses says that the limit refuses the request however much is left of it.
func (a *Applied) refuses() bool { return a.TooLarge || a.Unpriced != "" }

// Never says that waiting does not help.
func (a *Applied) Never() bool { return a.refuses() || a.Status.Never }

// standing is how a limit stands towards a request, whatever kind of limit it is.
type standing struct {
	over, never      bool
	wait             limit.Micros
	charged          bool // not only looked at
	remaining, limit int64
}

func (a *Applied) standing() standing {
	return standing{
		over: a.Over, never: a.Never(), wait: a.Status.RetryAfter,
		// Whose turn it was has used up what a lane lets through: nothing that binds, unless it refuses.
		charged:   a.Amount > 0 && (a.Over || !a.Limit.OfLane()),
		remaining: max(0, a.Status.Remaining), limit: a.Quantity.Spec.Ceiling(),
	}
}

func (s *Status) standing() standing {
	return standing{
		over: s.Over, never: s.Never(), wait: s.ResetAfter, charged: s.Amount > 0,
		remaining: s.Remaining, limit: s.Limit.RequestsPerUnit,
	}
}

// binds says that a limit that stands like this decides rather than one that stands like other: the
// one that refuses for longest, and while none refuses, the scarcest of those that are charged.
func (s standing) binds(other standing) bool {
	switch {
	case s.over != other.over:
		return s.over
	case s.over && s.never != other.never:
		return s.never
	case s.over:
		return s.wait > other.wait
	case s.charged != other.charged:
		return s.charged
	}
	hi, lo := bits.Mul64(uint64(s.remaining), uint64(other.limit))
	otherHi, otherLo := bits.Mul64(uint64(other.remaining), uint64(s.limit))
	return hi < otherHi || hi == otherHi && lo < otherLo
}

// bind lets a limit of a `limits:` list describe the status, where it says more than what does so far.
func (s *Status) bind(a *Applied) {
	if s.Limited && !a.describes(s) {
		return
	}
	*s = Status{
		Rule: s.Rule, Quota: s.Quota, Limited: true, Limit: describeLimit(a), Applied: a,
		Over: a.Over, Exceeded: a.Status.Refused || a.refuses(), Amount: a.Amount,
		Remaining: max(0, a.Status.Remaining), ResetAfter: a.Status.ResetAfter,
	}
	if s.Over {
		s.ResetAfter = a.Status.RetryAfter
	}
}

// describeLimit says a limit in the terms of the established contract, as far as they reach.
func describeLimit(a *Applied) Limit {
	spec := &a.Quantity.Spec
	l := Limit{Name: a.Limit.Name, RequestsPerUnit: spec.Ceiling(), Spec: *spec}
	if spec.Calendar != nil {
		l.Unit = calendarUnits[spec.Calendar.Period]
		return l
	}
	for _, unit := range [...]policy.Unit{policy.Year, policy.Month, policy.Week, policy.Day, policy.Hour, policy.Minute, policy.Second} {
		if n := spec.Window / unit.Window(); n > 0 && spec.Window%unit.Window() == 0 && n <= math.MaxUint32 {
			if l.Unit = unit; n > 1 {
				l.Multiplier = uint32(n)
			}
			break
		}
	}
	return l
}

var calendarUnits = [...]policy.Unit{
	limit.PerMinute: policy.Minute, limit.PerHour: policy.Hour, limit.PerDay: policy.Day,
	limit.PerWeek: policy.Week, limit.PerMonth: policy.Month, limit.PerYear: policy.Year,
}
