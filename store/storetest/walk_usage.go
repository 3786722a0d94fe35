package storetest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

// testUsageModel runs random histories of steps with rows: what they add up to is what the model says.
func testUsageModel(t *testing.T, open Open) { agree(t, 1, shapes(), true, open, nil) }

// reported is a row of one owner in the group "g", kept for long.
func reported(owner, dimensions string, add ...store.Addition) store.Row {
	return store.Row{
		Owner: []byte(owner), Group: []byte("g"), Dimensions: []byte(dimensions), Add: add, Keep: forever, Rank: 1 << 1,
	}
}

// add is an addition to a column.
func add(column uint8, amount int64) store.Addition {
	return store.Addition{Column: column, Amount: amount}
}

// at returns a row of another instant than the step's.
func at(t limit.Micros, r store.Row) store.Row { r.At = t; return r }

// testUsage walks through what is added up, and when.
func testUsage(t *testing.T, open Open) {
	tokens := limit.Spec{Limit: 100, Window: day}
	reserve := func(n int, amount int64) *store.Step {
		return &store.Step{
			Lease: opens(n, 7), Ops: ops(holding("tokens", tokens, amount, 5)), Rows: []store.Row{reported("u", "d", add(0, 1), add(1, 5))},
		}
	}
	settle := func() *store.Step {
		return &store.Step{
			Lease: settles(1, 1, 30), Rows: []store.Row{at(noon, reported("u", "d", add(1, 30-5)))},
		}
	}
	type line struct {
		what  string
		later limit.Micros
		step  *store.Step
		was   string // of u: the hours of the day, and who is first in column 1
	}
	for name, lines := range map[string][]line{
		"with a reservation": {
			{"admitted", 0, reserve(1, 40), "12: d 0+1 1+5; u 5"},
			{"repeated", sec, reserve(1, 40), "12: d 0+1 1+5; u 5"},
			{"refused", 0, reserve(2, 61), "12: d 0+1 1+5; u 5"},
			{"settled in the next hour, in its own", hour, settle(), "12: d 0+1 1+30; u 30"},
			{"settled twice", sec, settle(), "12: d 0+1 1+30; u 30"},
			{"another one is left to lapse", 0, reserve(3, 40), "12: d 0+1 1+30, 13: d 0+1 1+5; u 35"},
			{"has lapsed, which says nothing new", minute, &store.Step{Ops: ops(strict("tokens", tokens, 0))}, "12: d 0+1 1+30, 13: d 0+1 1+5; u 35"},
			{"is corrected", minute, &store.Step{Lease: settles(3, 1, 2), Rows: []store.Row{reported("u", "d", add(1, -3))}}, "12: d 0+1 1+30, 13: d 0+1 1+2; u 32"},
		},
		"of an unknown lease": {
			{"settled", 0, settle(), "12: d 1+25; u 25"},
			{"twice", 0, settle(), "12: d 1+25; u 25"},
			{"looked at", 0, &store.Step{Lease: &store.Lease{ID: id(1), Do: store.LeaseLook}, Rows: []store.Row{reported("u", "d", add(1, 1))}}, "12: d 1+26; u 26"},
		},
		"of a lease that is let go": {
			{"admitted", 0, reserve(1, 40), "12: d 0+1 1+5; u 5"},
			{"let go", 0, &store.Step{Lease: lapses(1), Rows: []store.Row{reported("v", "", add(2, 3))}}, "12: d 0+1 1+5; u 5"},
			{"twice", 0, &store.Step{Lease: lapses(1), Rows: []store.Row{reported("u", "d", add(2, 3))}}, "12: d 0+1 1+5; u 5"},
		},
		"without a lease": {
			{"rows only", 0, &store.Step{Rows: []store.Row{reported("u", "a", add(1, 1)), reported("u", "b", add(1, 2)), reported("u", "a", add(1, 4))}}, "12: a 1+5, 12: b 1+2; u 7"},
			{"beside plain charges", 0, &store.Step{Ops: ops(charge("p", perMinute(1), 1)), Rows: []store.Row{reported("u", "a", add(1, 1))}}, "12: a 1+6, 12: b 1+2; u 8"},
			{"which refuse", 0, &store.Step{Ops: ops(charge("p", perMinute(1), 1)), Rows: []store.Row{reported("u", "a", add(1, 1))}}, "12: a 1+6, 12: b 1+2; u 8"},
			{"which would refuse", 0, &store.Step{Shadow: true, Ops: ops(charge("p", perMinute(1), 1)), Rows: []store.Row{reported("u", "a", add(1, 1))}}, "12: a 1+7, 12: b 1+2; u 9"},
			{"refused by the caller", 0, &store.Step{Refused: true, Rows: []store.Row{reported("u", "a", add(1, 1))}}, "12: a 1+7, 12: b 1+2; u 9"},
			{"beside a strict charge", 0, &store.Step{Ops: ops(strict("s", perMinute(1), 1)), Rows: []store.Row{reported("u", "a", add(1, 1))}}, "12: a 1+8, 12: b 1+2; u 10"},
			{"which refuses", 0, &store.Step{Ops: ops(strict("s", perMinute(1), 1)), Rows: []store.Row{reported("u", "a", add(1, 1))}}, "12: a 1+8, 12: b 1+2; u 10"},
			{"beside a plain charge and a strict one that lie apart", 0, &store.Step{
				Ops:  ops(with(charge("of u", perMinute(1), 1), func(o *store.Op) { o.Owner = []byte("u") }), strict("s2", perMinute(2), 1)),
				Rows: []store.Row{reported("u", "a", add(1, 1))},
			}, "12: a 1+9, 12: b 1+2; u 11"},
			{"which refuse", 0, &store.Step{
				Ops:  ops(with(charge("of u", perMinute(9), 1), func(o *store.Op) { o.Owner = []byte("u") }), strict("s2", perMinute(1), 1)),
				Rows: []store.Row{reported("u", "a", add(1, 1))},
			}, "12: a 1+9, 12: b 1+2; u 11"},
			{"taken back", 0, &store.Step{Rows: []store.Row{reported("u", "a", add(1, -9))}}, "12: b 1+2; u 2"},
			{"somebody else", 0, &store.Step{Rows: []store.Row{reported("t", "a", add(1, 2)), reported("v", "", add(1, 2))}}, "12: b 1+2; t 2 u 2 v 2"},
			{"less than nothing", 0, &store.Step{Rows: []store.Row{reported("u", "b", add(1, -3))}}, "12: b 1-1; t 2 v 2"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			clock := NewClock(noon)
			s := open(t, clock)
			for _, l := range lines {
				clock.Advance(l.later)
				applyStep(t, s, l.step)
				if got := told(t, s); got != l.was {
					t.Errorf("%s: %s, want %s", l.what, got, l.was)
				}
			}
		})
	}
	t.Run("pinned", func(t *testing.T) {
		s := open(t, NewClock(noon))
		for range 3 {
			applyStep(t, s, &store.Step{Rows: []store.Row{reported("u", "", add(1, limit.MaxAmount), add(2, -limit.MaxAmount))}})
		}
		want := fmt.Sprintf("12:  1+%d 2-%[1]d; u %[1]d", limit.MaxAmount)
		if got := told(t, s); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	})
	t.Run("months", func(t *testing.T) { testMonths(t, open(t, NewClock(noon))) })
}

// testMonths: days and months begin and end in UTC, and each has its own ranking.
func testMonths(t *testing.T, s store.Store) {
	month := store.Month.Start(noon)
	for i, in := range []limit.Micros{month - 1, month, month + 30*day - 1, month + 30*day} { // November
		applyStep(t, s, &store.Step{Rows: []store.Row{at(in, reported("u", "", add(1, 1<<i)))}})
	}
	for _, c := range []struct {
		in      limit.Micros
		monthly bool
		want    int64
	}{
		{month - 1, false, 1}, {month, false, 2}, {month + 30*day - 1, false, 4}, {month + 30*day, false, 8},
		{month - 1, true, 1}, {month, true, 6}, {noon, true, 6}, {month + 30*day, true, 8},
	} {
		top, err := s.(store.Usage).Top(t.Context(), store.TopQuery{Group: []byte("g"), Column: 1, In: c.in, Monthly: c.monthly, Most: 9})
		if want := []store.Ranked{{Owner: []byte("u"), Total: c.want}}; err != nil || !sameRanking(top, want) {
			t.Errorf("at %v, monthly %v: %s %v, want %d", c.in.Time(), c.monthly, showRanking(top), err, c.want)
		}
	}
	q := store.RowsQuery{Group: []byte("g"), Daily: true, From: month - 1, To: month + 30*day + 1}
	days, err := s.(store.Usage).Rows(t.Context(), q)
	want := []store.Sums{
		{Start: month - day, Columns: []store.Addition{add(1, 1)}}, {Start: month, Columns: []store.Addition{add(1, 2)}},
		{Start: month + 29*day, Columns: []store.Addition{add(1, 4)}}, {Start: month + 30*day, Columns: []store.Addition{add(1, 8)}},
	}
	if err != nil || !sameSums(days, want) {
		t.Errorf("by days: %+v %v, want %+v", days, err, want)
	}
}

// told says what the rows of "u" are by hours of noon's day, and who is first in column 1 on that day. By days, and
// of the whole group, there is as much as by hours of its owners.
func told(t *testing.T, s store.Store) string {
	t.Helper()
	today := store.RowsQuery{Group: []byte("g"), Owner: []byte("u"), From: noon - 12*hour, To: noon + 12*hour}
	var rows []string
	for _, r := range rowsOf(t, s, today) {
		text := fmt.Sprintf("%d: %s", (r.Start-today.From)/hour, r.Dimensions)
		for _, a := range r.Columns {
			text += fmt.Sprintf(" %d%+d", a.Column, a.Amount)
		}
		rows = append(rows, text)
	}
	daily := today
	daily.Daily = true
	if hours, days := sum(rowsOf(t, s, today)), sum(rowsOf(t, s, daily)); !slices.Equal(hours, days) {
		t.Errorf("hours add up to %+v, and days to %+v", hours, days)
	}
	for _, q := range []store.RowsQuery{today, daily} {
		var owners []store.Addition
		for _, name := range []string{"t", "u", "v"} {
			q.Owner = []byte(name)
			owners = store.Merge(owners, sum(rowsOf(t, s, q)))
		}
		q.Owner = nil
		if group := sum(rowsOf(t, s, q)); !slices.Equal(owners, group) {
			t.Errorf("owners add up to %+v, and the group to %+v, daily %v", owners, group, q.Daily)
		}
	}
	top, err := s.(store.Usage).Top(t.Context(), store.TopQuery{Group: []byte("g"), Column: 1, In: noon, Most: 10})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(rows, ", ") + ";" + showRanking(top)
}

func showRanking(all []store.Ranked) (text string) {
	for _, r := range all {
		text += fmt.Sprintf(" %s %d", r.Owner, r.Total)
	}
	return text
}

func rowsOf(t testing.TB, s store.Store, q store.RowsQuery) []store.Sums {
	t.Helper()
	rows, err := s.(store.Usage).Rows(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

// sum adds up rows.
func sum(rows []store.Sums) (all []store.Addition) {
	for _, r := range rows {
		all = store.Merge(all, r.Columns)
	}
	return all
}

// testUsageQueries: what is asked for too much is refused, and the error says what to ask instead.
func testUsageQueries(t *testing.T, open Open) {
	s := open(t, NewClock(noon)).(store.Usage)
	g, u := []byte("g"), []byte("u")
	for says, q := range map[string]store.RowsQuery{
		"the query spans 10001 hours, and may span 10000: ask for a shorter time, or for days": {Group: g, Owner: u, From: noon, To: noon + 10_000*hour + 1},
		"the query spans 1001 hours, and may span 1000: ask for a shorter time, or for days":   {Group: g, From: noon, To: noon + 1000*hour + 1},
		"the query spans 1001 days, and may span 1000: ask for a shorter time":                 {Group: g, From: 0, To: 1000*day + 1, Daily: true},
		"want 0 ≤ from ≤ to": {Group: g, From: 2, To: 1},
	} {
		if _, err := s.Rows(t.Context(), q); !errors.Is(err, store.ErrInvalid) || !strings.HasSuffix(err.Error(), says) {
			t.Errorf("%v, want %s", err, says)
		}
	}
	for _, q := range []store.RowsQuery{
		{Group: g, Owner: u, From: noon, To: noon + 10_000*hour}, {Group: g, From: noon, To: noon + 10*day, Daily: true}, {Group: g, From: noon, To: noon},
	} {
		if rows, err := s.Rows(t.Context(), q); err != nil || len(rows) != 0 {
			t.Errorf("%+v: %+v, %v, want nothing", q, rows, err)
		}
	}
	for _, q := range []store.TopQuery{{Column: 64, Most: 1}, {In: -1, Most: 1}, {Most: 0}, {Most: store.MaxTop + 1}} {
		if _, err := s.Top(t.Context(), q); !errors.Is(err, store.ErrInvalid) {
			t.Errorf("%+v: %v, want %v", q, err, store.ErrInvalid)
		}
	}
	if top, err := s.Top(t.Context(), store.TopQuery{Group: g, Most: 1}); err != nil || len(top) != 0 {
		t.Errorf("%s, %v, want nobody", showRanking(top), err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Rows(ended, store.RowsQuery{Group: g, Owner: u, To: 1}); !errors.Is(err, context.Canceled) {
		t.Errorf("for a caller who is gone: %v", err)
	}
}

// testManySums: a query returns no more sums than it may, and says so.
func testManySums(t *testing.T, open Open) {
	s := open(t, NewClock(noon))
	whole := store.RowsQuery{Group: []byte("g"), From: noon, To: noon + 1}
	report := func(from, to int) {
		for n := from; n < to; n += store.MaxRows {
			step := &store.Step{}
			for i := range min(store.MaxRows, to-n) {
				r := reported("u", fmt.Sprint(n+i), add(1, 1))
				r.Keep = store.Retain{GroupHours: day}
				step.Rows = append(step.Rows, r)
			}
			applyStep(t, s, step)
		}
	}
	report(0, store.MaxSums)
	if rows, err := s.(store.Usage).Rows(t.Context(), whole); err != nil || len(rows) != store.MaxSums {
		t.Errorf("of as many sums as are returned: %d, %v", len(rows), err)
	}
	report(store.MaxSums, store.MaxSums+1)
	if _, err := s.(store.Usage).Rows(t.Context(), whole); !errors.Is(err, store.ErrTooManySums) {
		t.Errorf("of one more: %v, want %v", err, store.ErrTooManySums)
	}
}

// testUsageInvalid: a step with a row that breaks the contract is refused, and nothing of it is written.
func testUsageInvalid(t *testing.T, open Open) {
	s := open(t, NewClock(noon))
	good := reported("u", "d", add(1, 1))
	change := func(change func(r *store.Row)) []store.Row {
		bad := good
		change(&bad)
		return []store.Row{good, bad}
	}
	long := bytes.Repeat([]byte("x"), store.MaxRowName-1)
	for name, rows := range map[string][]store.Row{
		"no owner":               change(func(r *store.Row) { r.Owner = nil }),
		"too long a name":        change(func(r *store.Row) { r.Dimensions = long }),
		"before time":            change(func(r *store.Row) { r.At = -1 }),
		"behind time":            change(func(r *store.Row) { r.At = limit.Micros(limit.MaxAmount + 1) }),
		"column 64":              change(func(r *store.Row) { r.Add = []store.Addition{add(64, 1)} }),
		"2^53":                   change(func(r *store.Row) { r.Add = []store.Addition{add(1, limit.MaxAmount+1)} }),
		"−2^53":                  change(func(r *store.Row) { r.Add = []store.Addition{add(1, -limit.MaxAmount-1)} }),
		"too many additions":     change(func(r *store.Row) { r.Add = make([]store.Addition, store.MaxColumns+1) }),
		"kept for less than 0":   change(func(r *store.Row) { r.Keep.GroupDays = -1 }),
		"kept for over 10 years": change(func(r *store.Row) { r.Keep.OwnerHours = store.MaxRetain + 1 }),
		"too many rows":          slices.Repeat([]store.Row{good}, store.MaxRows+1),
	} {
		err := s.Apply(context.Background(), &store.Step{Ops: ops(strict("b", perMinute(5), 1)), Rows: rows}, &store.Outcome{})
		if !errors.Is(err, store.ErrInvalid) {
			t.Errorf("%s: %v, want %v", name, err, store.ErrInvalid)
		}
	}
	if got, used := told(t, s), apply(t, s, strict("b", perMinute(5), 0)).Results[0].Used; got != ";" || used != 0 {
		t.Errorf("steps that break the contract have left %q and %d used", got, used)
	}
	longest := good
	longest.Dimensions = long[:store.MaxRowName-len(good.Owner)-len(good.Group)]
	applyStep(t, s, &store.Step{Rows: slices.Repeat([]store.Row{longest}, store.MaxRows)})
	if got := told(t, s); got != fmt.Sprintf("12: %s 1+64; u 64", longest.Dimensions) {
		t.Errorf("as much as may be: %.200s", got)
	}
}

// testUsageOfMany lets 64 callers spend and report at once, each request twice. What rows say is what was admitted,
// once: as much as the buckets say, and of all owners as much as of the group.
func testUsageOfMany(t *testing.T, open Open) {
	const owners, rounds, most = 5, 20, 300
	s := open(t, NewClock(noon))
	whose := func(caller int) string { return fmt.Sprint("owner ", caller%owners) }
	bucket := func(caller int, amount int64) store.Op {
		return with(holding("tokens", perYear(most*3), amount, 0), func(o *store.Op) { o.Owner = []byte(whose(caller)) })
	}
	report := func(caller int, add ...store.Addition) []store.Row {
		return []store.Row{reported(whose(caller), fmt.Sprint("model ", caller%3), add...)}
	}
	var admitted [owners]atomic.Int64
	spend(t, s, rounds*2, func(caller, round int) *store.Step {
		return &store.Step{
			Lease: opens(caller<<16+round/2, 1), Ops: ops(bucket(caller, 3)), Rows: report(caller, add(0, 1), add(1, 3)),
		}
	}, func(caller, round int) *store.Step {
		if round%2 == 0 {
			admitted[caller%owners].Add(1)
		}
		return &store.Step{Lease: settles(caller<<16+round/2, 1, 2), Rows: report(caller, add(1, -1))}
	})
	today := store.RowsQuery{Group: []byte("g"), From: noon, To: noon + hour}
	all := int64(0)
	var ranking []store.Ranked
	for i := range owners {
		n := admitted[i].Load()
		all += n
		today.Owner = []byte(whose(i))
		if got, want := sum(rowsOf(t, s, today)), store.Merge(nil, []store.Addition{add(0, n), add(1, 2*n)}); !slices.Equal(got, want) {
			t.Errorf("%s was admitted %d times, and its rows say %+v", whose(i), n, got)
		}
		check := bucket(i, 0)
		check.Kind = store.Charge
		counts(t, s, ops(check), 2*n)
		ranking = append(ranking, store.Ranked{Owner: []byte(whose(i)), Total: 2 * n})
	}
	today.Owner = nil
	if got, want := sum(rowsOf(t, s, today)), []store.Addition{add(0, all), add(1, 2*all)}; !slices.Equal(got, want) {
		t.Errorf("%d were admitted, and the rows of the group say %+v", all, got)
	}
	slices.SortStableFunc(ranking, func(a, b store.Ranked) int { return cmp.Compare(b.Total, a.Total) })
	top, err := s.(store.Usage).Top(t.Context(), store.TopQuery{Group: []byte("g"), Column: 1, In: noon, Most: owners})
	if err != nil || !sameRanking(top, ranking) {
		t.Errorf("the first are %s %v, want %s", showRanking(top), err, showRanking(ranking))
	}
}

func sameSums(a, b []store.Sums) bool {
	return slices.EqualFunc(a, b, func(a, b store.Sums) bool {
		return a.Start == b.Start && bytes.Equal(a.Dimensions, b.Dimensions) && slices.Equal(a.Columns, b.Columns)
	})
}

func sameRanking(a, b []store.Ranked) bool {
	return slices.EqualFunc(a, b, func(a, b store.Ranked) bool { return a.Total == b.Total && bytes.Equal(a.Owner, b.Owner) })
}

// sortNames brings names into an order, whichever.
func sortNames(names []sumName) {
	slices.SortFunc(names, func(a, b sumName) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
}
