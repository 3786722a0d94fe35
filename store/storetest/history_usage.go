package storetest

import (
	"context"
	"slices"

	"pgregory.net/rapid"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

// forever is longer than a history goes on.
var forever = store.Retain{
	OwnerHours: store.MaxRetain, OwnerDays: store.MaxRetain, GroupHours: store.MaxRetain, GroupDays: store.MaxRetain,
}

// addRows adds up to two rows to a step, of few owners, so that they meet again.
func (h *history) addRows(step *store.Step) {
	draw := func(what string, list ...string) []byte { return []byte(rapid.SampledFrom(list).Draw(h.r, what)) }
	now := h.clock.Now()
	var own *leased
	if l := step.Lease; l != nil && rapid.IntRange(0, 3).Draw(h.r, "row of the lease") > 0 {
		own = h.leases[slices.IndexFunc(h.leases, func(known *leased) bool { return known.id == l.ID })]
	}
	if own != nil && own.row != nil {
		step.Rows = append(step.Rows, *own.row)
		step.Rows[0].Add = h.additions()
		own = nil
	}
	for range rapid.SampledFrom([]int{0, 1, 1, 1, 2}).Draw(h.r, "rows") {
		row := store.Row{
			Owner: draw("owner", "u", "u", "v", "w\x00|"), Group: draw("group", "g", "g", "", "g|u"),
			Dimensions: draw("dimensions", "", "d", "d\x00\xff"), Keep: forever,
			At:   max(0, rapid.SampledFrom([]limit.Micros{0, 0, now, now - hour, now - 31*day, now + day}).Draw(h.r, "at")),
			Rank: rapid.SampledFrom([]uint64{0, 1 << 1, 1<<1 | 1<<63, 1<<64 - 1}).Draw(h.r, "rank"),
		}
		row.Add = h.additions()
		switch rapid.IntRange(0, 9).Draw(h.r, "keep") {
		case 8:
			row.Keep.OwnerHours, row.Keep.GroupDays = 0, 0
		case 9:
			row.Keep.OwnerDays, row.Keep.GroupHours = 0, 0
		}
		if own != nil { // it is the first of the lease
			row.OfLease, own.row, own = true, &row, nil
		}
		step.Rows = append(step.Rows, row)
	}
}

func (h *history) additions() (list []store.Addition) {
	for range rapid.IntRange(0, 4).Draw(h.r, "additions") {
		list = append(list, store.Addition{
			Column: rapid.SampledFrom([]uint8{0, 1, 1, 7, 63}).Draw(h.r, "column"),
			Amount: rapid.SampledFrom([]int64{
				0, 1, 1, 1, 2, 3, 250, 1 << 33, -1, -2, -250, 1 << 44,
			}).Draw(h.r, "amount"),
		})
	}
	return list
}

// usage asks the store for what rows add up to, and insists that the model says the same. A store on several
// machines has much to look through for each answer on a whole group: of those questions some are asked.
func (w *twin) usage(r *rapid.T) {
	w.t.Helper()
	asked := map[sumName]bool{} // of each owner, group and ranking, every period
	for name := range w.model.usage {
		name.dimensions = ""
		if name.ranked {
			name.owner = ""
		}
		asked[name] = true
	}
	of := func(which func(sumName) bool) (names []sumName) {
		for name := range asked {
			if which(name) {
				names = append(names, name)
			}
		}
		sortNames(names)
		return names
	}
	for _, name := range of(func(n sumName) bool { return !n.ranked && n.owner != "" }) {
		w.rows(name)
	}
	sample := func(names []sumName, ask func(sumName)) {
		if len(names) > 0 {
			for range 4 {
				ask(rapid.SampledFrom(names).Draw(r, "asked"))
			}
		}
	}
	sample(of(func(n sumName) bool { return !n.ranked && n.owner == "" }), w.rows)
	sample(of(func(n sumName) bool { return n.ranked }), w.top)
}

// rows asks for the rows of a period, and of some around it.
func (w *twin) rows(name sumName) {
	w.t.Helper()
	q := store.RowsQuery{
		Group: []byte(name.group), Owner: []byte(name.owner), Daily: name.span == store.Day,
		From: name.start, To: name.start + 1,
	}
	w.ask(q)
	q.From, q.To = max(0, q.From-1), q.To+2*hour
	w.ask(q)
}

func (w *twin) ask(q store.RowsQuery) {
	w.t.Helper()
	want, err := w.model.Rows(q)
	if err != nil {
		w.t.Fatalf("%+v: %v", q, err)
	}
	got, err := w.store.(store.Usage).Rows(context.Background(), q)
	if err != nil || !sameSums(got, want) {
		w.t.Fatalf("rows of %q, %q, %d…%d, daily %v: %v\n got %+v\nwant %+v", q.Group, q.Owner, q.From, q.To, q.Daily, err, got, want)
	}
}

// top asks for who was first in a period.
func (w *twin) top(name sumName) {
	w.t.Helper()
	for _, column := range []uint8{1, 63} {
		for _, most := range []int{1, 2, store.MaxTop} {
			q := store.TopQuery{Group: []byte(name.group), Column: column, In: name.start, Monthly: name.span == store.Month, Most: most}
			got, err := w.store.(store.Usage).Top(context.Background(), q)
			if want := w.model.Top(q); err != nil || !sameRanking(got, want) {
				w.t.Fatalf("the first %d of %q in column %d at %d, monthly %v: %v\n got %s\nwant %s",
					most, q.Group, column, q.In, q.Monthly, err, showRanking(got), showRanking(want))
			}
		}
	}
}
