package storetest

import (
	"bytes"
	"cmp"
	"maps"
	"slices"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

// sumName is the identity of a sum of usage: of an owner, or without one of the group.
type sumName struct {
	group, owner, dimensions string
	span                     store.Span
	ranked                   bool
	start                    limit.Micros
}

// columns are sums, by column. They never change.
type columns map[uint8]int64

// report adds up what the step reports.
func (d *decision) report() {
	for i := range d.step.Rows {
		row := &d.step.Rows[i]
		if row.OfLease {
			if row = d.ofLease(row); row == nil {
				continue
			}
		} else if d.out.Refused || d.fate == store.LeaseReplayed {
			continue
		}
		totals, n := row.Totals(d.now)
		for _, total := range totals[:n] {
			name := sumName{string(row.Group), string(row.Owner), string(row.Dimensions), total.Span, total.Ranked, total.Start}
			if total.Group {
				name.owner = ""
			}
			if total.Ranked {
				name.dimensions = ""
			}
			sums := maps.Clone(d.usage[name])
			if sums == nil {
				sums = columns{}
			}
			for _, a := range row.Add {
				if !total.Ranked || row.Rank&(1<<a.Column) != 0 {
					sums[a.Column] = store.AddSigned(sums[a.Column], a.Amount)
				}
			}
			d.usage[name] = sums
		}
	}
}

// ofLease returns what a row of the lease adds beyond what the lease has added before, which is noted with it; nil
// if that is nothing.
func (d *decision) ofLease(row *store.Row) *store.Row {
	asked, adds := d.step.Lease, false
	switch asked.Do {
	case store.LeaseOpen:
		adds = d.fate == store.LeaseOpened
	case store.LeaseRenew:
		adds = d.fate == store.LeaseRenewed
	case store.LeaseSettle:
		adds = d.fate != store.LeaseReplayed
	default:
	}
	if !adds {
		return nil
	}
	is := columns{}
	for _, a := range row.Add {
		is[a.Column] = store.AddSigned(is[a.Column], a.Amount)
	}
	added := columns{}
	if d.known {
		added = d.lease.added
	}
	more := *row
	more.Add, more.OfLease = nil, false
	for column := range uint8(store.MaxColumns) {
		was := added[column]
		if asked.Do == store.LeaseRenew {
			is[column] = max(is[column], was)
		}
		more.Add = append(more.Add, store.Addition{Column: column, Amount: store.AddSigned(is[column], -was)})
	}
	l := d.leases[asked.ID]
	l.added = is
	d.leases[asked.ID] = l
	return &more
}

// Rows is what a store answers to the query (store.Usage).
func (m *Model) Rows(q store.RowsQuery) (all []store.Sums, err error) {
	from, to, err := q.Bounds()
	for name, sums := range m.usage {
		if name.ranked || name.group != string(q.Group) || name.owner != string(q.Owner) || name.span != q.Span() ||
			name.start < from || name.start >= to {
			continue
		}
		s := store.Sums{Start: name.start, Dimensions: []byte(name.dimensions)}
		for _, column := range slices.Sorted(maps.Keys(sums)) {
			if sums[column] != 0 {
				s.Columns = append(s.Columns, store.Addition{Column: column, Amount: sums[column]})
			}
		}
		if len(s.Columns) > 0 {
			all = append(all, s)
		}
	}
	slices.SortFunc(all, func(a, b store.Sums) int {
		return cmp.Or(cmp.Compare(a.Start, b.Start), bytes.Compare(a.Dimensions, b.Dimensions))
	})
	return all, err
}

// Top is what a store answers to the query (store.Usage).
func (m *Model) Top(q store.TopQuery) (all []store.Ranked) {
	span := q.Span()
	for name, sums := range m.usage {
		if name.ranked && name.group == string(q.Group) && name.span == span && name.start == span.Start(q.In) && sums[q.Column] > 0 {
			all = append(all, store.Ranked{Owner: []byte(name.owner), Total: sums[q.Column]})
		}
	}
	slices.SortFunc(all, func(a, b store.Ranked) int {
		return cmp.Or(cmp.Compare(b.Total, a.Total), bytes.Compare(a.Owner, b.Owner))
	})
	return all[:min(len(all), q.Most)]
}
