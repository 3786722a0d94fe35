package memory

import (
	"github.com/rationhq/ration/store"
)

// report is a sum that a step adds to.
type report struct {
	from  *store.Row
	total store.Total
	kind  tableKind
	usage *usage
	// ledger and stripe are where it lies.
	ledger  *ledger
	stripe  int
	columns uint64
	// table and row are nil if they do not exist yet.
	table *table
	row   *row
}

// reported returns a row of the step as it is added up, by the verdict so far; nil if it is not.
func (d *decision) reported(i int) *store.Row {
	r := &d.step.Rows[i]
	switch {
	case r.OfLease && d.share.adds && (d.step.Lease.Do != store.LeaseOpen || !d.refuse):
		return &d.share.row
	case r.OfLease || d.refuse || d.replay:
		return nil
	}
	return r
}

// stripeOf returns the stripe in which what an owner reports is added up for the group.
func stripeOf(shard int) int { return shard % stripeCount }

// lookUpRows finds the sums that the step adds to, and returns about how much memory those take that are
// missing.
func (d *decision) lookUpRows() (need int64) {
	d.sums = d.sums[:0]
	places := d.places[len(d.places)-len(d.step.Rows):]
	for i := range d.step.Rows {
		from := d.reported(i)
		if from == nil {
			continue
		}
		sh, number := &d.store.shards[places[i]], stripeOf(places[i])
		st, by := &d.store.stripes[number], sh.usage.owners[string(from.Owner)]
		totals, n := from.Totals(d.now)
		for _, total := range totals[:n] {
			r := report{from: from, total: total, kind: kindOf(&total), columns: from.Columns()}
			if total.Ranked {
				r.columns = from.Ranked()
			}
			if r.columns == 0 {
				continue
			}
			if total.Group {
				r.usage, r.ledger, r.stripe = &st.usage, &st.ledger, number
			} else {
				r.usage, r.ledger = &sh.usage, &sh.ledger
			}
			r.table, r.row = r.usage.lookUp(by, from.Group, r.kind, total.Start, r.dimensions())
			if r.table == nil {
				need += tableBytes + int64(len(from.Group))
			}
			if r.row == nil {
				need += rowBytes + reporterBytes + int64(len(from.Owner)+len(from.Dimensions)) + sumBytes*int64(len(from.Add))
			} else {
				need += sumBytes * int64(r.row.missing(r.columns))
			}
			d.sums = append(d.sums, r)
		}
	}
	return need
}

// dimensions returns what tells the row from others of its owner and period; a ranking has none.
func (r *report) dimensions() []byte {
	if r.total.Ranked {
		return nil
	}
	return r.from.Dimensions
}

// writeRows adds up what the step reports.
func (d *decision) writeRows() {
	grown := int64(0)
	for i := range d.sums {
		r := &d.sums[i]
		from, u := r.from, r.usage
		if d.refuse && from != &d.share.row { // of a step that renews a lease
			continue
		}
		if r.row == nil { // unless another row of the step has made it
			r.table, r.row = u.lookUp(u.owners[string(from.Owner)], from.Group, r.kind, r.total.Start, r.dimensions())
		}
		if r.row == nil {
			table, row, bytes := u.create(from.Group, r.kind, r.total.Start, from.Owner, r.dimensions())
			r.table, r.row = table, row
			grown += bytes
		}
		if n := r.row.missing(r.columns); n > 0 {
			r.row.grow(r.columns)
			grown += sumBytes * int64(n)
		}
		r.row.add(from, r.columns)
		u.keep(r.table, r.total.Until)
		if r.ledger.on && !r.row.dirty {
			r.row.dirty = true
			r.ledger.dirty = append(r.ledger.dirty, change{r.key(), changeNow})
		}
		d.wrote = true
	}
	if grown != 0 {
		d.store.bytes.Add(grown)
	}
}

// key returns the key of the row's record.
func (r *report) key() string {
	name := tableName{string(r.from.Group), r.kind, r.total.Start}
	if r.total.Group {
		return rowKey(name, r.stripe, "", string(r.from.Dimensions))
	}
	return rowKey(name, 0, string(r.from.Owner), string(r.dimensions()))
}

// forgetRows drops, to make room, what owners have reported in a period that is over: the oldest one of the shard
// that has the oldest. It reports whether there was one. What groups add up to stays.
func (s *Store) forgetRows() bool {
	oldest, closed := -1, s.clock()-repeats
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.Lock()
		if sh.usage.closed <= closed {
			oldest, closed = i, sh.usage.closed
		}
		sh.mu.Unlock()
	}
	if oldest < 0 {
		return false
	}
	sh := &s.shards[oldest]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	s.journal.enter(&sh.ledger, sh)
	for _, t := range sh.usage.tables {
		if t.kind.span().End(t.start) <= closed {
			s.bytes.Add(-sh.usage.drop(t, &sh.ledger, 0))
		}
	}
	sh.usage.close()
	return true
}

// sweepStripe drops what need not be kept any more of a stripe.
func (s *Store) sweepStripe(i int) {
	st := &s.stripes[i]
	st.mu.Lock()
	defer st.mu.Unlock()
	now := s.clock()
	if now < st.usage.due {
		return
	}
	s.journal.enter(&st.ledger, st)
	s.bytes.Add(-st.usage.sweep(now, &st.ledger, i))
}
