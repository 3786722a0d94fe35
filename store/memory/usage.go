package memory

import (
	"math/bits"
	"sync"
	"unique"
	"unsafe"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

// usage is what steps have reported, added up (store.Row). That of owners lies with their buckets, in the same
// shard, and that of groups in stripes. It is kept by period, so that what is over goes at once.
type usage struct {
	tables map[tableName]*table
	// owners are those who have rows in tables, each once.
	owners map[string]*reporter
	// due is the earliest instant at which a table may be dropped, and closed the earliest end of a period that
	// there is one of.
	due, closed limit.Micros
}

// tableName is of what a table holds of a group: one period.
type tableName struct {
	group string
	kind  tableKind
	start limit.Micros
}

// tableKind is a span (store.Span), and whose sums these are.
type tableKind uint8

const (
	spanBits             = 3
	ofGroup    tableKind = 4
	ofRanking  tableKind = 8
	tableKinds tableKind = 16
)

func kindOf(t *store.Total) tableKind {
	kind := tableKind(t.Span)
	if t.Group {
		kind |= ofGroup
	}
	if t.Ranked {
		kind |= ofRanking
	}
	return kind
}

func (k tableKind) span() store.Span { return store.Span(k & spanBits) }

// place returns where rows of this kind are among the latest of an owner: of hours, of days, and of rankings by days and
// by months.
func (k tableKind) place() int {
	if k&ofRanking != 0 {
		return int(k&spanBits) + 1
	}
	return int(k & spanBits)
}

// table is the rows of a period: by owner, or of a group by dimensions.
type table struct {
	tableName
	until        limit.Micros
	dropped      bool
	ofOwners     map[*reporter]*row
	byDimensions map[string]*row
	// many finds the rows, by dimensions, of those owners who have more than a few. Callers may name what they like, and
	// nobody is to wait while all that one of them has named is looked through.
	many map[*reporter]map[string]*row
}

// reporter is an owner with rows.
type reporter struct {
	name string
	rows int
	// latest are the rows of the period that was looked at last, of each kind: mostly it is the same again, and tables
	// are large.
	latest [4]struct {
		table *table
		first *row
	}
}

// row is the sums of one owner, or group, by some dimensions.
type row struct {
	dimensions unique.Handle[string]
	next       *row // of the same owner, by others
	columns    uint64
	sums       []int64 // of these columns, in ascending order
	dirty      bool    // it has changed, and its ledger names it
}

// What these take, as far as it is known.
const (
	rowBytes      = int64(unsafe.Sizeof(row{})) + 8 + 24 // and its place in a map
	sumBytes      = 8
	reporterBytes = int64(unsafe.Sizeof(reporter{})) + 56
	tableBytes    = int64(unsafe.Sizeof(table{})) + 160
	manyBytes     = 40 // of a row in table.many
)

func (u *usage) init() {
	u.tables = make(map[tableName]*table)
	u.owners = make(map[string]*reporter)
	u.due, u.closed = never, never
}

// table returns the table of a period, or nil.
func (u *usage) table(group []byte, kind tableKind, start limit.Micros) *table {
	return u.tables[tableName{string(group), kind, start}]
}

// find returns a row, or nil: that of the group, or that of an owner who has rows. The table may be nil.
func (t *table) find(by *reporter, dimensions []byte) *row {
	if t == nil || by == nil && t.ofOwners != nil {
		return nil
	}
	if t.ofOwners == nil {
		return t.byDimensions[string(dimensions)]
	}
	return t.among(by, t.ofOwners[by], dimensions)
}

// among returns the row with these dimensions of those of an owner, the first of which r is, or nil. A few are found faster
// one by one.
func (t *table) among(by *reporter, r *row, dimensions []byte) *row {
	for range few {
		switch {
		case r == nil:
			return nil
		case r.dimensions.Value() == string(dimensions):
			return r
		}
		r = r.next
	}
	return t.many[by][string(dimensions)]
}

// put makes r the first row of an owner, and returns about how many bytes finding them takes from then on.
func (t *table) put(by *reporter, r *row) (bytes int64) {
	r.next = t.ofOwners[by]
	t.ofOwners[by] = r
	index := t.many[by]
	if index == nil {
		count := 0
		for of := r; of != nil; of = of.next {
			count++
		}
		if count <= few {
			return 0
		}
		index = make(map[string]*row, 2*count)
		for of := r.next; of != nil; of = of.next {
			index[of.dimensions.Value()] = of
			bytes += manyBytes
		}
		if t.many == nil {
			t.many = make(map[*reporter]map[string]*row)
		}
		t.many[by] = index
	}
	index[r.dimensions.Value()] = r
	return bytes + manyBytes
}

// lookUp returns the table of a period, and the row in it: that of the group, or that of an owner who has rows. Either may
// be nil.
func (u *usage) lookUp(by *reporter, group []byte, kind tableKind, start limit.Micros, dimensions []byte) (*table, *row) {
	if by == nil || kind&ofGroup != 0 {
		t := u.table(group, kind, start)
		return t, t.find(by, dimensions)
	}
	latest := &by.latest[kind.place()]
	if t := latest.table; t == nil || t.dropped || t.start != start || t.group != string(group) {
		if t = u.table(group, kind, start); t == nil {
			return nil, nil
		}
		latest.table, latest.first = t, t.ofOwners[by]
	}
	return latest.table, latest.table.among(by, latest.first, dimensions)
}

// create makes a row that is not there, in a table that need not be, and returns both and about how many bytes it takes.
func (u *usage) create(group []byte, kind tableKind, start limit.Micros, owner, dimensions []byte) (_ *table, _ *row, bytes int64) {
	t := u.table(group, kind, start)
	if t == nil {
		t = &table{tableName: tableName{string(group), kind, start}}
		u.tables[t.tableName] = t
		bytes += tableBytes + int64(len(group))
		u.closed = min(u.closed, kind.span().End(start))
		if kind&ofGroup == 0 {
			t.ofOwners = make(map[*reporter]*row)
		} else {
			t.byDimensions = make(map[string]*row)
		}
	}
	r := &row{dimensions: unique.Make(string(dimensions))}
	bytes += rowBytes
	if kind&ofGroup != 0 {
		t.byDimensions[r.dimensions.Value()] = r
		return t, r, bytes + int64(len(dimensions))
	}
	by := u.owners[string(owner)]
	if by == nil {
		by = &reporter{name: string(owner)}
		u.owners[by.name] = by
		bytes += reporterBytes + int64(len(owner))
	}
	by.rows++
	bytes += t.put(by, r)
	latest := &by.latest[kind.place()]
	latest.table, latest.first = t, r
	return t, r, bytes
}

// keep has a table kept until an instant at least.
func (u *usage) keep(t *table, until limit.Micros) {
	t.until = max(t.until, until)
	u.due = min(u.due, t.until)
}

// place returns where the sum of a column is among the sums, or is to be.
func (r *row) place(column uint8) int { return bits.OnesCount64(r.columns & (1<<column - 1)) }

// missing returns how many columns there are among those that the row does not have.
func (r *row) missing(columns uint64) int { return bits.OnesCount64(columns &^ r.columns) }

// grow gives the row columns.
func (r *row) grow(columns uint64) {
	sums := make([]int64, bits.OnesCount64(r.columns|columns))
	before, at := *r, 0
	r.columns |= columns
	for rest := before.columns; rest != 0; rest &= rest - 1 {
		sums[r.place(uint8(bits.TrailingZeros64(rest)))] = before.sums[at]
		at++
	}
	r.sums = sums
}

// add adds what is reported to the columns, which the row has.
func (r *row) add(from *store.Row, columns uint64) {
	for _, a := range from.Add {
		if columns&(1<<a.Column) != 0 {
			sum := &r.sums[r.place(a.Column)]
			*sum = store.AddSigned(*sum, a.Amount)
		}
	}
}

// bytes returns about how much memory the row takes, beside names.
func (r *row) bytes() int64 { return rowBytes + sumBytes*int64(len(r.sums)) }

// sweep drops the tables that need not be kept any more, and returns about how many bytes they took.
func (u *usage) sweep(now limit.Micros, l *ledger, stripe int) (freed int64) {
	if now < u.due {
		return 0
	}
	u.due = never
	for _, t := range u.tables {
		if now >= t.until {
			freed += u.drop(t, l, stripe)
		} else {
			u.due = min(u.due, t.until)
		}
	}
	u.close()
	return freed
}

// drop lets go of a table with all its rows, and returns about how many bytes they took.
func (u *usage) drop(t *table, l *ledger, stripe int) (freed int64) {
	remove := func(owner, dimensions string) {
		if l.on {
			l.remove(rowKey(t.tableName, stripe, owner, dimensions))
		}
	}
	freed = tableBytes + int64(len(t.group))
	for dimensions, r := range t.byDimensions {
		freed += r.bytes() + int64(len(dimensions))
		remove("", dimensions)
	}
	for by, first := range t.ofOwners {
		for r := first; r != nil; r = r.next {
			freed += r.bytes()
			by.rows--
			remove(by.name, r.dimensions.Value())
		}
		freed += manyBytes * int64(len(t.many[by]))
		if by.rows == 0 {
			freed += reporterBytes + int64(len(by.name))
			delete(u.owners, by.name)
		}
	}
	delete(u.tables, t.tableName)
	t.dropped = true
	return freed
}

// close finds out anew when the first period ends.
func (u *usage) close() {
	u.closed = never
	for name := range u.tables {
		u.closed = min(u.closed, name.kind.span().End(name.start))
	}
}

// stripeCount is how many stripes there are. A group's rows are in all of them, which takes memory; and who
// reports waits for whoever reports to the same one.
const stripeCount = 16

// stripe is a part of the sums of groups. Stripes are locked behind all shards, in ascending order.
type stripe struct {
	mu     sync.Mutex
	number int
	usage  usage
	ledger ledger
}

// stripeSet is a set of stripes.
type stripeSet uint16

func (set stripeSet) each(f func(i int)) {
	for ; set != 0; set &= set - 1 {
		f(bits.TrailingZeros16(uint16(set)))
	}
}

// freeze implements freezer.
func (st *stripe) freeze() {
	l := &st.ledger
	var arena []byte
	for _, c := range l.dirty {
		arena = l.freezeRow(&st.usage, c, arena)
	}
	l.dirty = l.dirty[:0]
}

// freezeRow makes the record of a row that has changed.
func (l *ledger) freezeRow(u *usage, c change, arena []byte) []byte {
	if c.kind == changeRemoved {
		l.frozen = append(l.frozen, record{c.key, nil})
		return arena
	}
	name, _, owner, dimensions, _ := splitRowKey(c.key)
	t := u.tables[name]
	r := t.find(u.owners[owner], []byte(dimensions))
	if r == nil {
		return arena // it was removed
	}
	r.dirty = false
	start := len(arena)
	arena = appendRow(arena, c.key, r, t.until)
	l.frozen = append(l.frozen, record{c.key, arena[start:len(arena):len(arena)]})
	return arena
}
