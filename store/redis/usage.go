package redis

import (
	"encoding/binary"
	"math/bits"
	"slices"
	"strconv"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

// allColumns stands for all that is added: lua/decide/rows.lua.
const allColumns = 255

// The ends of keys of usage.
const (
	hoursSuffix, daysSuffix   = "#hours", "#days"
	topDayPrefix, topMonthPre = "#top-day-", "#top-month-"
)

// sum is what a row adds to under one key.
type sum struct {
	row    *store.Row
	column uint8 // of a ranking, else allColumns
	// page is when the time of its key began, and place where the period is in that.
	page   limit.Micros
	place  int // noPlace where the key is of one period
	suffix string
	forget limit.Micros // when the key may go
}

const noPlace = -1

// page returns the start of what an owner has one key for, and where a period is in it.
func page(span store.Span, start limit.Micros) (_ limit.Micros, place int) {
	if span == store.Hour {
		day := store.Day.Start(start)
		return day, int((start - day) / (3600 * limit.Second))
	}
	month := store.Month.Start(start)
	return month, int((start - month) / (24 * 3600 * limit.Second))
}

// pageEnd returns the end of it.
func pageEnd(span store.Span, page limit.Micros) limit.Micros {
	if span == store.Hour {
		return store.Day.End(page)
	}
	return store.Month.End(page)
}

// usageSuffix returns the end of the key of sums by hours or by days.
func usageSuffix(span store.Span) string {
	if span == store.Hour {
		return hoursSuffix
	}
	return daysSuffix
}

// topSuffix returns the end of the key of a ranking.
func topSuffix(span store.Span, column uint8) string {
	if span == store.Day {
		return topDayPrefix + strconv.Itoa(int(column))
	}
	return topMonthPre + strconv.Itoa(int(column))
}

// appendSums appends what a row adds to, when it is about now.
func appendSums(all []sum, row *store.Row, now limit.Micros) []sum {
	totals, n := row.Totals(now)
	if row.Columns() == 0 {
		return all
	}
	for _, t := range totals[:n] {
		s := sum{row: row, column: allColumns, page: t.Start, place: noPlace, forget: t.Until}
		switch {
		case t.Ranked:
			ranked := row.Ranked()
			for column := range uint8(store.MaxColumns) {
				if ranked&(1<<column) != 0 {
					s.column, s.suffix = column, topSuffix(t.Span, column)
					all = append(all, s)
				}
			}
			continue
		case t.Group:
			s.suffix = usageSuffix(t.Span)
		default:
			s.page, s.place = page(t.Span, t.Start)
			s.forget += pageEnd(t.Span, s.page) - t.Span.End(t.Start)
			s.suffix = usageSuffix(t.Span)
		}
		all = append(all, s)
	}
	return all
}

// appendKey appends the key of the sum. What a group adds up to lies where the owner is, so that one script can write
// both; where one script can write all there is, together.
func (s *sum) appendKey(b []byte, prefix string, inCluster bool) []byte {
	shard, owner := shardOfName(s.row.Owner), s.row.Owner
	if s.place == noPlace {
		owner = nil
		if s.column == allColumns && !inCluster {
			shard = shardOfName(s.row.Group)
		}
	}
	return appendUsageKey(b, prefix, shard, s.row.Group, owner, s.page, s.suffix)
}

// ofLease is where among the rows of a step the one of its lease is; −1 if there is none.
func ofLease(step *store.Step) int {
	return slices.IndexFunc(step.Rows, func(r store.Row) bool { return r.OfLease })
}

// appendRows appends the rows of the step, which lua/decide/rows.lua reads.
func (e *encoding) appendRows(b []byte) []byte {
	rows := len(b)
	b = append(b, 0, 0)
	sums := e.sums
	for _, at := range e.part.rows {
		row, n := &e.step.Rows[at], 0
		for n < len(sums) && sums[n].row == row {
			n++
		}
		if n == 0 && !row.OfLease { // nothing is kept of it
			continue
		}
		b[rows]++
		if row.OfLease {
			b[rows+1] = b[rows]
		}
		var places [store.MaxColumns]byte
		b, places = appendAdditions(b, row)
		b = append(appendText(b, row.Owner), byte(n))
		for i := range sums[:n] {
			s := &sums[i]
			which := s.column
			if s.column != allColumns && !row.OfLease {
				which = places[s.column]
			}
			b = appendNumber(append(b, which), int64(s.forget))
			b = s.appendField(b)
		}
		sums = sums[n:]
	}
	return b
}

// appendAdditions appends what a row adds, each column once, and returns in which places they are.
func appendAdditions(b []byte, row *store.Row) (_ []byte, places [store.MaxColumns]byte) {
	var amounts [store.MaxColumns]int64
	columns := uint64(0)
	for _, a := range row.Add {
		amounts[a.Column] = store.AddSigned(amounts[a.Column], a.Amount)
		if a.Amount != 0 {
			columns |= 1 << a.Column
		}
	}
	b = append(b, byte(bits.OnesCount64(columns)))
	for n := byte(0); columns != 0; n++ {
		column := bits.TrailingZeros64(columns)
		columns &= columns - 1
		places[column] = n
		b = appendNumber(append(b, byte(column)), amounts[column])
	}
	return b, places
}

// appendField appends the field of a hash, with its length.
func (s *sum) appendField(b []byte) []byte {
	switch {
	case s.column != allColumns:
		return appendText(b, nil)
	case s.place == noPlace:
		return appendText(b, s.row.Dimensions)
	}
	b = binary.LittleEndian.AppendUint16(b, uint16(1+len(s.row.Dimensions)))
	return append(append(b, byte(s.place)), s.row.Dimensions...)
}

func appendText(b, text []byte) []byte {
	return append(binary.LittleEndian.AppendUint16(b, uint16(len(text))), text...)
}
