package memory

import (
	"encoding/binary"
	"math/bits"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

// share is what a step adds to a row for its lease ([store.Row.OfLease]).
//
// With the lease is kept what it has added so far. That is packed: each column that is not 0 in one byte, which
// has negative set if it is less, and behind that the amount as a varint; in the order of columns.
type share struct {
	adds   bool      // if the step admits, or does not open the lease
	row    store.Row // what it says more than before
	packed []byte    // all of it, which a lease that lives is to keep
	sums   [store.MaxColumns]int64
	add    []store.Addition
}

const negative = 1 << 6

// find finds out what the step adds for its lease, of which state becomes.
func (s *share) find(d *decision, state store.LeaseState) {
	s.adds, s.packed = false, s.packed[:0]
	asked := d.step.Lease
	if asked == nil || !asked.AddsRow() || d.replay || asked.Do == store.LeaseRenew && state != store.LeaseRenewed {
		return
	}
	for i := range d.step.Rows {
		if d.step.Rows[i].OfLease {
			before := ""
			if d.lease != nil {
				before = d.lease.added
			}
			s.compare(&d.step.Rows[i], asked.Do, before)
			return
		}
	}
}

// compare compares what a row says with what was added before.
func (s *share) compare(row *store.Row, do store.LeaseAction, before string) {
	s.adds, s.row, s.add = true, *row, s.add[:0]
	clear(s.sums[:])
	said := uint64(0)
	for _, a := range row.Add {
		s.sums[a.Column] = store.AddSigned(s.sums[a.Column], a.Amount)
		said |= 1 << a.Column
	}
	for column, was, rest := nextShare(before); ; column, was, rest = nextShare(rest) {
		for ; said != 0 && bits.TrailingZeros64(said) < column; said &= said - 1 {
			s.change(bits.TrailingZeros64(said), do, 0)
		}
		if column == store.MaxColumns {
			break
		}
		said &^= 1 << column
		s.change(column, do, was)
	}
	s.row.Add, s.row.OfLease = s.add, false
}

// change notes what is said of a column, after what was added to it before.
func (s *share) change(column int, do store.LeaseAction, was int64) {
	is := s.sums[column]
	if do == store.LeaseRenew {
		is = max(is, was)
	}
	if is != was {
		s.add = append(s.add, store.Addition{Column: uint8(column), Amount: store.AddSigned(is, -was)})
	}
	if is != 0 {
		s.packed = appendShare(s.packed, column, is)
	}
}

func (s *share) end() { s.row = store.Row{} }

func appendShare(b []byte, column int, amount int64) []byte {
	if amount < 0 {
		column, amount = column|negative, -amount
	}
	return binary.AppendUvarint(append(b, byte(column)), uint64(amount))
}

// nextShare takes the first column, and what was added to it, from what is packed. Behind the last comes
// store.MaxColumns.
func nextShare(packed string) (column int, amount int64, rest string) {
	if packed == "" {
		return store.MaxColumns, 0, ""
	}
	column = int(packed[0])
	units, at := uint64(0), 1
	for shift := 0; at < len(packed) && shift < 64; shift += 7 {
		b := packed[at]
		at++
		units |= uint64(b&0x7f) << shift
		if b < 0x80 {
			break
		}
	}
	if amount = int64(units); column&negative != 0 {
		column, amount = column&^negative, -amount
	}
	return column, amount, packed[at:]
}

// validShare says that nextShare can take it apart, as read from a disk.
func validShare(packed string) bool {
	last := -1
	for packed != "" {
		column, amount, rest := nextShare(packed)
		if column <= last || column >= store.MaxColumns || amount == 0 || amount < -limit.MaxAmount || amount > limit.MaxAmount {
			return false
		}
		last, packed = column, rest
	}
	return true
}
