package store

import (
	"fmt"
	"time"

	"github.com/rationhq/ration/limit"
)

// Row is what a step reports of usage: who has used how much of what. It is added up by hours and by days,
// for the owner and for the group, by dimensions; and owners are ranked.
//
// Rows are written if the step admits, in the same instant as its ops, and never by a repeat
// (LeaseReplayed): so that what rows and buckets say agrees, also after a crash. One OfLease goes with the lease.
type Row struct {
	// Owner names whose usage it is: 1 byte at least. It is kept with the counters of that owner.
	Owner []byte
	// Group names what all owners' rows add up to.
	Group []byte
	// Dimensions tells the rows of one owner and period apart. The store knows nothing of what is in it.
	// Together with Owner and Group it has at most [MaxRowName] bytes.
	Dimensions []byte
	// At is the instant to whose hour, day and month the usage belongs, in UTC; 0 is the step's own.
	At limit.Micros
	// Add says what is added. Sums are pinned at ±[limit.MaxAmount].
	Add []Addition
	// Rank has a bit for each column by which the owners of the group are ranked, for a day and for a month.
	Rank uint64
	Keep Retain
	// OfLease says that Add is what the step's lease has added to this row in all, 0 in the columns that it does not
	// name; and not so much more. The store keeps with the lease what that has added, by columns, and adds the
	// difference:
	//
	//	LeaseOpen    all of it, if the lease is opened
	//	LeaseRenew   if the lease lives, what it is more than before, in each column: an older report, or a
	//	             repeat, changes nothing
	//	LeaseSettle  what it is more or less than before, also where the lease has lapsed; where it is unknown,
	//	             it has added nothing before
	//
	// whatever the verdict is on the step's ops. Other actions, and repeats, add nothing: what a lease that lapses
	// has added stays. A step has one such row at most. Those of a lease are to name the same row each time (owner,
	// group, dimensions, At, Keep and Rank): the store does not keep with the lease which one that is, and adds the
	// difference to the one that is named.
	OfLease bool
}

// Addition is so much more, or less, in one column; or the sum in it.
type Addition struct {
	Column uint8 // 0…63
	Amount int64 // −(2^53−1)…2^53−1
}

// Retain says how long what a row adds to is kept after the end of its hour or day. Where it is 0 there is
// no such row. Where steps say different things of one row, any of them counts.
type Retain struct {
	OwnerHours, OwnerDays, GroupHours, GroupDays limit.Micros
}

const (
	// MaxRowName is the longest that the owner, the group and the dimensions of a row are together, in bytes.
	MaxRowName = 4 << 10
	// MaxColumns is how many columns a row can have.
	MaxColumns = 64
	// MaxRows is how many rows a step has at most.
	MaxRows = 64
	// MaxRetain is the longest that a row is kept: ten years.
	MaxRetain = 3653 * 24 * 3600 * limit.Second
)

// Span is a length of time by which rows are added up. Its periods follow one another, in UTC.
type Span uint8

// The spans. A month is one of the calendar.
const (
	Hour Span = iota
	Day
	Month
)

// Start returns when the period began that t lies in.
func (s Span) Start(t limit.Micros) limit.Micros {
	switch s {
	case Hour:
		return t - t%hour
	case Day:
		return t - t%day
	case Month:
	}
	year, month, _ := t.Time().Date()
	return limit.At(time.Date(year, month, 1, 0, 0, 0, 0, time.UTC))
}

// End returns when the period ends that begins at start.
func (s Span) End(start limit.Micros) limit.Micros {
	switch s {
	case Hour:
		return start + hour
	case Day:
		return start + day
	case Month:
	}
	return s.Start(start + 31*day)
}

const (
	hour = 3600 * limit.Second
	day  = 24 * hour
)

// Total is one of the sums that a row adds to. Without an owner it is the group's.
type Total struct {
	Span Span
	// Group says that it is the sum of all owners; else it is the row's owner's.
	Group bool
	// Ranked says that it is kept to rank owners by; only the ranked columns are in it.
	Ranked bool
	// Start is of its period.
	Start limit.Micros
	// Until is when it may be forgotten.
	Until limit.Micros
}

// Totals is how many sums a row adds to at most.
const Totals = 6

// Totals returns the sums that the row adds to when the step's instant is now, those that are already past
// their time left out. Rankings are kept for as long as the days of owners.
func (r *Row) Totals(now limit.Micros) (all [Totals]Total, n int) {
	at := r.At
	if at == 0 {
		at = now
	}
	add := func(total Total, keep limit.Micros) {
		total.Start = total.Span.Start(at)
		total.Until = limit.Micros(limit.Add(int64(total.Span.End(total.Start)), int64(keep)))
		if keep > 0 && total.Until > now {
			all[n] = total
			n++
		}
	}
	add(Total{Span: Hour}, r.Keep.OwnerHours)
	add(Total{Span: Day}, r.Keep.OwnerDays)
	add(Total{Span: Hour, Group: true}, r.Keep.GroupHours)
	add(Total{Span: Day, Group: true}, r.Keep.GroupDays)
	if r.Ranked() != 0 {
		add(Total{Span: Day, Ranked: true}, r.Keep.OwnerDays)
		add(Total{Span: Month, Ranked: true}, r.Keep.OwnerDays)
	}
	return all, n
}

// Columns returns the columns that the row may add to, as bits: one of a lease to any.
func (r *Row) Columns() (columns uint64) {
	if r.OfLease {
		return 1<<64 - 1
	}
	for _, a := range r.Add {
		if a.Amount != 0 {
			columns |= 1 << a.Column
		}
	}
	return columns
}

// Ranked returns those of them by which owners are ranked.
func (r *Row) Ranked() uint64 { return r.Columns() & r.Rank }

// AddSigned returns a + b, pinned at ±[limit.MaxAmount].
func AddSigned(a, b int64) int64 { return max(-limit.MaxAmount, min(a+b, limit.MaxAmount)) }

func (r *Row) validate(l *Lease) error {
	name := len(r.Owner) + len(r.Group) + len(r.Dimensions)
	switch {
	case r.OfLease && l == nil:
		return fmt.Errorf("%w: it is of a lease, and the step has none", ErrInvalid)
	case len(r.Owner) == 0:
		return fmt.Errorf("%w: it has no owner", ErrInvalid)
	case name > MaxRowName:
		return fmt.Errorf("%w: its owner, group and dimensions have %d bytes, want at most %d", ErrInvalid, name, MaxRowName)
	case r.At < 0 || int64(r.At) > limit.MaxAmount:
		return fmt.Errorf("%w: an instant of %d, want 0…2^53−1", ErrInvalid, r.At)
	case len(r.Add) > MaxColumns:
		return fmt.Errorf("%w: it adds %d times, want at most %d", ErrInvalid, len(r.Add), MaxColumns)
	}
	for _, a := range r.Add {
		if a.Column >= MaxColumns || a.Amount < -limit.MaxAmount || a.Amount > limit.MaxAmount {
			return fmt.Errorf("%w: it adds %d to column %d, want ±(2^53−1) at most, in 0…63", ErrInvalid, a.Amount, a.Column)
		}
	}
	for _, keep := range [...]limit.Micros{r.Keep.OwnerHours, r.Keep.OwnerDays, r.Keep.GroupHours, r.Keep.GroupDays} {
		if keep < 0 || keep > MaxRetain {
			return fmt.Errorf("%w: it is kept for %d µs, want 0 to ten years", ErrInvalid, keep)
		}
	}
	return nil
}
