package store

import (
	"context"
	"fmt"

	"github.com/rationhq/ration/limit"
)

// Usage is a [Store] that also says what its rows add up to. To ask costs as much as there is to be found in
// the periods that are asked about; nothing else is looked through.
type Usage interface {
	// Rows returns the sums of the periods that a query asks about, in the order of periods, and then of
	// dimensions. What steps write meanwhile may be in some of them and not in others.
	Rows(ctx context.Context, q RowsQuery) ([]Sums, error)

	// Top returns the owners of a group with the largest totals in a column, the largest first; those with
	// the same total in the order of their names. Those without any, or with less than nothing, are not
	// among them.
	Top(ctx context.Context, q TopQuery) ([]Ranked, error)
}

// RowsQuery asks for the rows of an owner, or of a whole group.
type RowsQuery struct {
	Group []byte
	// Owner is whose rows are asked for; empty for those of the group.
	Owner []byte
	// From and To bound the periods: all those of which any part lies in From ≤ t < To.
	From, To limit.Micros
	// Daily asks for days instead of hours.
	Daily bool
}

// Sums are what was added up by some dimensions in one period.
type Sums struct {
	// Start of the period.
	Start      limit.Micros
	Dimensions []byte
	// Columns are in ascending order. Sums of 0 are left out, and so are rows that have no others.
	Columns []Addition
}

// TopQuery asks for those who have used most.
type TopQuery struct {
	Group  []byte
	Column uint8
	// In is an instant of the day, or month, in UTC.
	In limit.Micros
	// Monthly asks for a month instead of a day.
	Monthly bool
	// Most is how many owners are asked for: 1…[MaxTop].
	Most int
}

// Ranked is one of those who have used most.
type Ranked struct {
	Owner []byte
	Total int64
}

const (
	// MaxOwnerPeriods is how many hours or days a query of an owner's rows spans at most.
	MaxOwnerPeriods = 10_000
	// MaxGroupPeriods is as many for those of a group, which lie in many places.
	MaxGroupPeriods = 1_000
	// MaxSums is how many sums a query returns at most.
	MaxSums = 100_000
	// MaxTop is how many owners a query returns at most.
	MaxTop = 1000
)

// Span returns the length of the periods.
func (q *RowsQuery) Span() Span {
	if q.Daily {
		return Day
	}
	return Hour
}

// Bounds returns the start of the first period, and the end of the last. Where the query is too wide, or
// makes no sense, the error is ErrInvalid and says what to ask instead.
func (q *RowsQuery) Bounds() (from, to limit.Micros, err error) {
	most, length, periods := int64(MaxGroupPeriods), hour, "hours"
	if len(q.Owner) > 0 {
		most = MaxOwnerPeriods
	}
	if q.Daily {
		length, periods = day, "days"
	}
	if q.From < 0 || q.To < q.From || int64(q.To) > limit.MaxAmount {
		return 0, 0, fmt.Errorf("%w: from %d to %d: want 0 ≤ from ≤ to", ErrInvalid, q.From, q.To)
	}
	if q.From == q.To {
		return 0, 0, nil
	}
	from, to = q.From-q.From%length, q.To-1-(q.To-1)%length+length
	if count := int64((to - from) / length); count > most {
		cure := "ask for a shorter time"
		if !q.Daily {
			cure += ", or for days"
		}
		return 0, 0, fmt.Errorf("%w: the query spans %d %s, and may span %d: %s", ErrInvalid, count, periods, most, cure)
	}
	return from, to, nil
}

// ErrTooManySums is the error of a query that would return more than [MaxSums].
var ErrTooManySums = fmt.Errorf("%w: there are more than %d sums: ask for a shorter time", ErrInvalid, MaxSums)

// Span returns the length of the period.
func (q *TopQuery) Span() Span {
	if q.Monthly {
		return Month
	}
	return Day
}

// Validate reports, as ErrInvalid, what is wrong with the query.
func (q *TopQuery) Validate() error {
	switch {
	case q.Column >= MaxColumns:
		return fmt.Errorf("%w: column %d, want 0…%d", ErrInvalid, q.Column, MaxColumns-1)
	case q.In < 0 || int64(q.In) > limit.MaxAmount:
		return fmt.Errorf("%w: an instant of %d, want 0…2^53−1", ErrInvalid, q.In)
	case q.Most < 1 || q.Most > MaxTop:
		return fmt.Errorf("%w: the first %d owners, want 1…%d", ErrInvalid, q.Most, MaxTop)
	}
	return nil
}

// Merge adds up two lists of sums, each in ascending order of columns. Sums of 0 are left out.
func Merge(a, b []Addition) []Addition {
	merged := make([]Addition, 0, max(len(a), len(b)))
	for len(a) > 0 || len(b) > 0 {
		var next Addition
		switch {
		case len(b) == 0 || len(a) > 0 && a[0].Column < b[0].Column:
			next, a = a[0], a[1:]
		case len(a) == 0 || b[0].Column < a[0].Column:
			next, b = b[0], b[1:]
		default:
			next, a, b = Addition{a[0].Column, AddSigned(a[0].Amount, b[0].Amount)}, a[1:], b[1:]
		}
		if next.Amount != 0 {
			merged = append(merged, next)
		}
	}
	return merged
}
