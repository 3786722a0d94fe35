package memory_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"testing"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
	"github.com/rationhq/ration/store/memory"
	"github.com/rationhq/ration/store/storetest"
)

const (
	hour = 3600 * limit.Second
	day  = 24 * hour
)

// usageRow is a row of five columns, two of them ranked.
func usageRow(owner string) store.Row {
	return store.Row{
		Owner: []byte(owner), Group: []byte("bench"), Dimensions: []byte("free\x00gpt-5-mini"),
		Add: []store.Addition{
			{Column: 0, Amount: 1}, {Column: 1, Amount: 420}, {Column: 2, Amount: 1200}, {Column: 3, Amount: 98_000}, {Column: 12, Amount: 1},
		},
		Rank: 1<<0 | 1<<3,
		Keep: store.Retain{OwnerHours: 2 * day, OwnerDays: 31 * day, GroupHours: 31 * day, GroupDays: 366 * day},
	}
}

// reportAll reports once for each subject, at an instant.
func reportAll(t testing.TB, s *memory.Store, subjects int, at limit.Micros) {
	step := &store.Step{Rows: []store.Row{usageRow("")}}
	step.Rows[0].At = at
	var out store.Outcome
	name := make([]byte, 0, 64)
	for i := range subjects {
		name = fmt.Appendf(name[:0], "app|user=user-%08d", i)
		step.Rows[0].Owner = name
		if err := s.Apply(context.Background(), step, &out); err != nil {
			t.Fatal(err)
		}
	}
}

// usageOfHours reports for so many subjects in each of some hours of one day, and returns by how much the heap has
// grown for the first, and for each of the others.
func usageOfHours(t testing.TB, s *memory.Store, subjects, hours int) (first, next int64) {
	first = heapOf(func() { reportAll(t, s, subjects, noon) })
	next = heapOf(func() {
		for n := range hours - 1 {
			reportAll(t, s, subjects, noon+limit.Micros(n+1)*hour)
		}
	}) / int64(hours-1)
	return first, next
}

// A row of an hour takes no more memory than promised, and the store knows how much.
func TestMemoryOfARow(t *testing.T) {
	const subjects, mostFirst, mostNext = 100_000, 700, 200
	clock := storetest.NewClock(noon + 12*hour)
	s := open(t, memory.Options{Clock: clock.Now})
	first, next := usageOfHours(t, s, subjects, 4)
	t.Logf("%d bytes per subject in the first hour of a day and a month, %d in each other hour; the store knows of %d in all",
		first/subjects, next/subjects, s.Bytes()/subjects)
	if first/subjects > mostFirst || next/subjects > mostNext {
		t.Errorf("%d bytes per subject in the first hour and %d in each other one, want at most %d and %d",
			first/subjects, next/subjects, mostFirst, mostNext)
	}
	if heap := first + 3*next; s.Bytes() < heap-heap/4 || s.Bytes() > heap+heap/4 {
		t.Errorf("the store takes itself for %d bytes, and has grown the heap by %d", s.Bytes(), heap)
	}
	runtime.KeepAlive(s)
}

// BenchmarkUsageOfAMillion says what a million subjects take that report in each of three hours of a day.
//
//	go test -run xxx -bench UsageOfAMillion -benchtime 1x ./store/memory
func BenchmarkUsageOfAMillion(b *testing.B) {
	const subjects = 1_000_000
	for range b.N {
		s := open(b, memory.Options{MaxBytes: 4 << 30, Clock: storetest.NewClock(noon + 12*hour).Now})
		first, next := usageOfHours(b, s, subjects, 3)
		b.ReportMetric(float64(first)/subjects, "B/subject")
		b.ReportMetric(float64(next)/subjects, "B/row")
		_ = s.Close()
	}
}

// Who names many models has many rows, each of which is found, also when the store is opened again; and nobody waits while
// they are looked through.
func TestManyRowsOfOneOwner(t *testing.T) {
	clock := storetest.NewClock(noon)
	dir, many := t.TempDir(), 2000
	s := openDir(t, dir, memory.Options{Clock: clock.Now})
	step := &store.Step{Rows: []store.Row{usageRow("app|user=mallory")}}
	var out store.Outcome
	report := func() {
		t.Helper()
		for i := range many {
			step.Rows[0].Dimensions = fmt.Appendf(nil, "free\x00model-%d", i)
			if err := s.Apply(t.Context(), step, &out); err != nil {
				t.Fatal(err)
			}
		}
	}
	report()
	report()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openDir(t, dir, memory.Options{Clock: clock.Now, SweepEvery: often})
	report()
	rows, err := s.Rows(t.Context(), store.RowsQuery{
		Group: []byte("bench"), Owner: step.Rows[0].Owner, From: noon - noon%day, To: noon - noon%day + day, Daily: true,
	})
	if err != nil || len(rows) != many {
		t.Fatalf("%v, %d rows, want %d", err, len(rows), many)
	}
	for _, r := range rows {
		if r.Columns[0] != (store.Addition{Column: 0, Amount: 3}) {
			t.Fatalf("%q has %v, want 3 in its first column", r.Dimensions, r.Columns)
		}
	}
	if walk := s.LongestWalk(); walk > 20 {
		t.Errorf("up to %d rows are looked at to find one", walk)
	}
	clock.Advance(400 * day)
	waitFor(t, "all to be swept", func() bool { return s.Bytes() == 0 })
}

// What need not be kept any more goes, and with it the memory that it took.
func TestUsageIsSwept(t *testing.T) {
	clock := storetest.NewClock(noon)
	s := open(t, memory.Options{Clock: clock.Now, SweepEvery: often})
	reportAll(t, s, 1000, 0)
	all := s.Bytes()
	has := func(q store.RowsQuery) bool {
		t.Helper()
		q.Group = []byte("bench")
		rows, err := s.Rows(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		return len(rows) > 0
	}
	one := []byte("app|user=user-00000007")
	for _, c := range []struct {
		kept  limit.Micros // after the hour's end, or the day's
		query store.RowsQuery
	}{
		{hour + 2*day, store.RowsQuery{Owner: one, From: noon, To: noon + 1}},
		{hour + 31*day, store.RowsQuery{From: noon, To: noon + 1}},
		{12*hour + 31*day, store.RowsQuery{Owner: one, From: noon, To: noon + 1, Daily: true}},
		{12*hour + 366*day, store.RowsQuery{From: noon, To: noon + 1, Daily: true}},
	} {
		clock.Set(noon + c.kept - 1)
		if !has(c.query) {
			t.Errorf("%+v: gone before its time", c.query)
		}
		before := s.Bytes()
		clock.Advance(1)
		if has(c.query) {
			t.Errorf("%+v: there after its time", c.query)
		}
		waitFor(t, "the rows to be swept", func() bool { return s.Bytes() < before })
	}
	waitFor(t, "all to be swept", func() bool { return s.Bytes() == 0 })
	t.Logf("it was %d bytes", all)
}

// When the clock is set back to an hour that was swept, that is counted anew.
func TestUsageOfAnHourThatComesAgain(t *testing.T) {
	clock := storetest.NewClock(noon)
	s := open(t, memory.Options{Clock: clock.Now, SweepEvery: often})
	row := usageRow("alice")
	apply := func() {
		t.Helper()
		if err := s.Apply(t.Context(), &store.Step{Rows: []store.Row{row}}, &store.Outcome{}); err != nil {
			t.Fatal(err)
		}
	}
	apply()
	before := s.Bytes()
	clock.Advance(hour + row.Keep.OwnerHours)
	waitFor(t, "the hour to be swept", func() bool { return s.Bytes() < before })
	clock.Set(noon)
	apply()
	rows, err := s.Rows(t.Context(), store.RowsQuery{Group: row.Group, Owner: row.Owner, From: noon, To: noon + 1})
	if err != nil || len(rows) != 1 || rows[0].Columns[0].Amount != 1 {
		t.Errorf("the hour says %+v (%v), want one request", rows, err)
	}
}

// What is swept is gone from the directory too.
func TestUsageIsSweptFromDisk(t *testing.T) {
	clock := storetest.NewClock(noon)
	dir := t.TempDir()
	s := openDir(t, dir, memory.Options{Clock: clock.Now, SweepEvery: often})
	reportAll(t, s, 10, 0)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openDir(t, dir, memory.Options{Clock: clock.Now, SweepEvery: often})
	if s.Bytes() == 0 {
		t.Fatal("nothing was kept")
	}
	clock.Advance(400 * day)
	waitFor(t, "all to be swept", func() bool { return s.Bytes() == 0 })
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	clock.Advance(-400 * day)
	s = openDir(t, dir, memory.Options{Clock: clock.Now})
	if got := s.Bytes(); got != 0 {
		t.Errorf("%d bytes have come back", got)
	}
}

// A store that is full lets go of what owners have reported in hours that are over, the oldest first, before it
// refuses anybody; what all of them add up to stays.
func TestFullOfUsage(t *testing.T) {
	clock := storetest.NewClock(noon)
	s := open(t, memory.Options{Clock: clock.Now, MaxBytes: 3 << 20})
	name := func(n int) []byte { return fmt.Append(nil, "made up at ", clock.Now(), ", ", n) }
	fill := func() (n int) {
		step := &store.Step{Rows: []store.Row{usageRow("")}}
		step.Rows[0].Keep = store.Retain{OwnerHours: day, GroupHours: day}
		var out store.Outcome
		for ; ; n++ {
			step.Rows[0].Owner = name(n)
			err := s.Apply(t.Context(), step, &out)
			if errors.Is(err, store.ErrFull) {
				return n
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	first := fill()
	if first < 5000 {
		t.Errorf("full after %d owners", first)
	}
	clock.Advance(hour + 5*60*limit.Second) // of that hour more may still be reported
	if n := fill(); n > first/100 {
		t.Errorf("%d found room when the hour had just ended", n)
	}
	clock.Advance(10 * 60 * limit.Second)
	second := fill()
	if second < first*9/10 {
		t.Errorf("%d found room, want as many as the hour before", second)
	}
	for n := range second {
		q := store.RowsQuery{Group: []byte("bench"), Owner: name(n), From: clock.Now(), To: clock.Now() + 1}
		if rows, err := s.Rows(t.Context(), q); err != nil || len(rows) != 1 {
			t.Fatalf("of %s there is %+v (%v), within this hour", q.Owner, rows, err)
		}
	}
	rows, err := s.Rows(t.Context(), store.RowsQuery{Group: []byte("bench"), From: noon, To: noon + 1})
	if err != nil || len(rows) != 1 || rows[0].Columns[0].Amount != int64(first) {
		t.Errorf("of the first hour all owners together say %+v (%v), want %d requests", rows, err, first)
	}
}

// BenchmarkUsage measures what it costs to report of a decision on strict limits.
func BenchmarkUsage(b *testing.B) {
	const owners = 10_000
	names := make([][]byte, owners)
	for i := range names {
		names[i] = fmt.Appendf(nil, "bench|user=user-%d", i)
	}
	for _, limits := range []int{1, 3} {
		for _, reports := range []bool{false, true} {
			b.Run(fmt.Sprintf("%d limits, row %v", limits, reports), func(b *testing.B) {
				s := open(b, memory.Options{})
				step := func() *store.Step {
					step := &store.Step{}
					for i := range limits {
						step.Ops = append(step.Ops, native("", fmt.Sprint(i), spec(limit.FixedWindow, hour)))
					}
					if reports {
						step.Rows = []store.Row{usageRow("")}
					}
					return step
				}
				benchmark(b, s, owners, step, func(step *store.Step, next int) {
					owner := names[next*7919%owners]
					for i := range step.Ops {
						step.Ops[i].Owner = owner
					}
					for i := range step.Rows {
						step.Rows[i].Owner = owner
					}
				})
			})
		}
	}
}

// A renewal for whose rows there is no room changes nothing, so that it can be sent again.
func TestRenewalWithoutRoom(t *testing.T) {
	clock := storetest.NewClock(noon)
	s := open(t, memory.Options{Clock: clock.Now, MaxBytes: 1 << 20})
	hold := native("owner", "b", spec(limit.FixedWindow, hour))
	hold.Kind, hold.Amount, hold.Spec.Limit = store.Hold, 10, 1000
	lease := &store.Lease{ID: id(1), Lasts: 600 * limit.Second}
	if err := s.Apply(t.Context(), &store.Step{Lease: lease, Ops: []store.Op{hold}}, &store.Outcome{}); err != nil {
		t.Fatal(err)
	}
	row := usageRow("")
	for err, n := error(nil), 0; !errors.Is(err, store.ErrFull); n++ {
		row.Owner = fmt.Append(nil, "made up, ", n)
		err = s.Apply(t.Context(), &store.Step{Rows: []store.Row{row}}, &store.Outcome{})
	}
	renewal := *lease
	renewal.Do, renewal.Actual = store.LeaseRenew, []int64{50}
	held := func(step *store.Step, want error) int64 {
		t.Helper()
		var out store.Outcome
		if err := s.Apply(t.Context(), step, &out); !errors.Is(err, want) {
			t.Fatalf("%v, want %v", err, want)
		}
		look := hold
		look.Kind, look.Amount = store.Charge, 0
		if err := s.Apply(t.Context(), &store.Step{Ops: []store.Op{look}}, &out); err != nil {
			t.Fatal(err)
		}
		return out.Results[0].Held
	}
	for _, ofLease := range []bool{false, true} {
		row.Owner, row.OfLease = []byte("somebody new"), ofLease
		if got := held(&store.Step{Lease: &renewal, Rows: []store.Row{row}}, store.ErrFull); got != 10 {
			t.Errorf("without room for a row, of the lease %v, %d are held, want 10 as before", ofLease, got)
		}
	}
	if got := held(&store.Step{Lease: &renewal}, nil); got != 50 {
		t.Errorf("without a row %d are held, want 50", got)
	}
}

// With a lease is kept in a few bytes what it has added to its row, until it is settled.
func TestMemoryOfARowOfALease(t *testing.T) {
	clock := storetest.NewClock(noon)
	s := open(t, memory.Options{Clock: clock.Now})
	row := usageRow("owner")
	row.OfLease = true
	lease := store.Lease{Lasts: hour}
	grows := func(n int, do store.LeaseAction, add ...store.Addition) int64 {
		t.Helper()
		before := s.Bytes()
		lease.ID, lease.Do, row.Add = id(n), do, add
		if err := s.Apply(t.Context(), &store.Step{Lease: &lease, Rows: []store.Row{row}}, &store.Outcome{}); err != nil {
			t.Fatal(err)
		}
		return s.Bytes() - before
	}
	all := usageRow("").Add
	grows(1, store.LeaseOpen, all...) // makes the row too
	empty := grows(2, store.LeaseOpen)
	for _, c := range []struct {
		what  string
		bytes int64
		want  int64
	}{
		{"opened with 1, 420, 1200, 98000 and 1", grows(3, store.LeaseOpen, all...) - empty, 2 + 3 + 3 + 4 + 2},
		{"renewed to the same", grows(3, store.LeaseRenew, all...), 0},
		{"renewed to a larger one", grows(3, store.LeaseRenew, store.Addition{Column: 0, Amount: 128}), 1},
		{"settled", grows(3, store.LeaseSettle, all...), -15},
		{"nothing is settled", grows(2, store.LeaseSettle), 0},
	} {
		if c.bytes != c.want {
			t.Errorf("%s: it takes %d bytes more, want %d", c.what, c.bytes, c.want)
		}
	}
}
