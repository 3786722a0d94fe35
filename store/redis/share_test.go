package redis_test

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
	"github.com/rationhq/ration/store/redis"
	"github.com/rationhq/ration/store/redis/redistest"
	"github.com/rationhq/ration/store/storetest"
)

// ofLease is the row of an owner that a lease adds to, so much in all.
func ofLease(owner string, amount int64) []store.Row {
	return []store.Row{{
		Owner: []byte(owner), Group: []byte("g"), At: noon, Add: []store.Addition{{Column: 1, Amount: amount}}, Rank: 1 << 1, OfLease: true,
		Keep: store.Retain{OwnerHours: 600 * minute, OwnerDays: 600 * minute, GroupHours: 600 * minute, GroupDays: 600 * minute},
	}}
}

// added returns what the row of an owner says, which the group and the ranking say too.
func added(t *testing.T, s *redis.Store, owner string) int64 {
	t.Helper()
	var sums []int64
	for _, name := range []string{owner, ""} {
		q := store.RowsQuery{Group: []byte("g"), Owner: []byte(name), From: noon, To: noon + 1}
		for _, q.Daily = range []bool{false, true} {
			rows, err := s.Rows(t.Context(), q)
			if err != nil || len(rows) > 1 {
				t.Fatalf("%+v, %v", rows, err)
			}
			sums = append(sums, 0)
			for _, r := range rows {
				sums[len(sums)-1] = r.Columns[0].Amount
			}
		}
	}
	top, err := s.Top(t.Context(), store.TopQuery{Group: []byte("g"), Column: 1, In: noon, Most: 9})
	if err != nil || len(top) > 1 {
		t.Fatalf("%+v, %v", top, err)
	}
	sums = append(sums, 0)
	for _, r := range top {
		sums[len(sums)-1] = r.Total
	}
	if len(slices.Compact(slices.Clone(sums))) > 1 {
		t.Errorf("of %s hours and days, those of the group, and the ranking say %d", owner, sums)
	}
	return sums[0]
}

// With a lease is kept in a few bytes what it has added to its row, until it is settled; and nothing where that is
// nothing.
func TestSizeOfARowOfALease(t *testing.T) {
	server := redistest.Start(t)
	look := server.Client(t)
	s := newStore(t, redis.Options{URL: server.URL(), Clock: storetest.NewClock(noon).Now})
	size := func(do store.LeaseAction, rows ...store.Row) int64 {
		t.Helper()
		if err := s.Apply(t.Context(), &store.Step{Lease: lease(1, do), Rows: rows}, &store.Outcome{}); err != nil {
			t.Fatal(err)
		}
		return look.StrLen(t.Context(), look.Keys(t.Context(), "*#lease").Val()[0]).Val()
	}
	empty := size(store.LeaseOpen)
	row := ofLease("u", 1)
	row[0].Add = append(row[0].Add, store.Addition{Column: 0, Amount: 128}, store.Addition{Column: 63, Amount: -127})
	for _, c := range []struct {
		what      string
		got, want int64
	}{
		{"of nothing", size(store.LeaseRenew, ofLease("u", 0)...), 0},
		{"of 1", size(store.LeaseRenew, ofLease("u", 1)...), 2 + 2},
		{"of 1, 128 and −127, which is less than 0", size(store.LeaseRenew, row...), 2 + 2 + 3},
		{"settled", size(store.LeaseSettle, row...), 0},
	} {
		if c.got-empty != c.want {
			t.Errorf("%s: %d bytes more, want %d", c.what, c.got-empty, c.want)
		}
	}
}

// A server dies at each point of opening, renewing and settling a lease with a row, wherever that lies. The step that is
// sent again finishes it, and the row says what was said last, or most, once.
func TestDeathAndTheRowOfALease(t *testing.T) {
	t.Parallel()
	c := startSpread(t)
	opening := c.leaseAt(t, c.open(t), 0)
	for _, owner := range append([]string{reporter(0)}, c.owners...) {
		for _, reached := range [][3]int64{
			{0, 0, 0}, {1, 0, 0}, {1, 1, 1}, {2, 0, 0}, {2, 1, 1}, {2, 2, 0}, {2, 0, 2}, {3, 1, 1}, {3, 2, 1}, {9, 9, 9},
		} {
			t.Run(fmt.Sprint(owner, reached), func(t *testing.T) {
				for _, node := range c.nodes {
					node.Client(t).FlushAll(t.Context())
				}
				dying, s := c.open(t), c.open(t)
				for _, l := range []struct {
					do        store.LeaseAction
					said, was int64
				}{{store.LeaseOpen, 2, 2}, {store.LeaseRenew, 5, 5}, {store.LeaseRenew, 3, 5}, {store.LeaseSettle, 4, 4}} {
					step := &store.Step{Lease: renewing(opening, 3), Rows: ofLease(owner, l.said)}
					if step.Lease.Do = l.do; l.do == store.LeaseOpen {
						step.Ops = c.all(store.Hold, 0)
					}
					added(t, dying, owner) // which knows all nodes then
					for i, n := range reached {
						c.dieAfter(i, n)
					}
					_ = dying.Apply(context.Background(), step, &store.Outcome{})
					c.live()
					for range 2 {
						if err := s.Apply(t.Context(), step, &store.Outcome{}); err != nil {
							t.Fatal(err)
						}
						if got := added(t, s, owner); got != l.was {
							t.Fatalf("action %d with %d, again: the row says %d, want %d", l.do, l.said, got, l.was)
						}
					}
				}
				c.look(t, s, "3+0 3+0 3+0")
			})
		}
	}
}

// A renewal comes to the shard of the row before the step that opens the lease has: that is finished all the same when
// it is sent again, and the row says the larger.
func TestRowRenewedBeforeItIsOpened(t *testing.T) {
	t.Parallel()
	c := startSpread(t)
	for _, said := range []int64{5, 1} {
		dying, s := c.open(t), c.open(t)
		opening := c.leaseAt(t, s, 0)
		step := &store.Step{Lease: opening, Ops: c.all(store.Hold, 4), Rows: ofLease(c.owners[1], 2)}
		added(t, dying, c.owners[1])
		c.dieAfter(1, 1) // which has promised
		c.dies(t, dying, step)
		if err := s.Apply(t.Context(), &store.Step{Lease: renewing(opening, 0), Rows: ofLease(c.owners[1], said)}, &store.Outcome{}); err != nil {
			t.Fatal(err)
		}
		if got := added(t, s, c.owners[1]); got != said {
			t.Errorf("renewed: the row says %d, want %d", got, said)
		}
		if err := s.Apply(t.Context(), step, &store.Outcome{}); err != nil {
			t.Fatal(err)
		}
		c.look(t, s, "0+4 0+4 0+4")
		if got, want := added(t, s, c.owners[1]), max(2, said); got != want {
			t.Errorf("opened: the row says %d, want %d", got, want)
		}
		settle := *opening
		settle.Do = store.LeaseSettle
		if err := s.Apply(t.Context(), &store.Step{Lease: &settle, Rows: ofLease(c.owners[1], 3)}, &store.Outcome{}); err != nil {
			t.Fatal(err)
		}
		if got := added(t, s, c.owners[1]); got != 3 {
			t.Errorf("settled: the row says %d, want 3", got)
		}
	}
}

// A renewal that is refused in one shard writes the row of its lease in another, and no other row.
func TestRowsOfARefusedRenewal(t *testing.T) {
	t.Parallel()
	c := startSpread(t)
	s := c.open(t)
	opening := c.leaseAt(t, s, 0)
	apply(t, s, opening, c.op(c.owners[0], store.Hold, 4))
	other := ofLease(c.owners[2], 7)[0]
	other.OfLease = false
	for _, l := range []struct {
		limit int64
		was   []int64
	}{{4, []int64{2, 0}}, {5, []int64{3, 7}}} {
		check := c.op(c.owners[0], store.Charge, 0)
		check.Spec.Limit = l.limit
		row := ofLease(c.owners[1], l.was[0])[0]
		row.Rank, other.Rank = 0, 0
		var out store.Outcome
		step := &store.Step{Lease: renewing(opening, 4), Ops: []store.Op{check}, Rows: []store.Row{other, row}}
		if err := s.Apply(t.Context(), step, &out); err != nil || out.Refused != (l.limit == 4) {
			t.Fatalf("%+v, %v", out, err)
		}
		for i, want := range l.was {
			rows, err := s.Rows(t.Context(), store.RowsQuery{Group: []byte("g"), Owner: []byte(c.owners[i+1]), From: noon, To: noon + 1})
			if got := len(rows) > 0; err != nil || got != (want > 0) || got && rows[0].Columns[0].Amount != want {
				t.Errorf("refused %v: of owner %d %+v, %v, want %d", out.Refused, i+1, rows, err, want)
			}
		}
	}
}

// A row that is not readable is found out before anything of a renewal is written.
func TestRenewalOfAnUnreadableRow(t *testing.T) {
	server := redistest.Start(t)
	look := server.Client(t)
	s := newStore(t, redis.Options{URL: server.URL(), Clock: storetest.NewClock(noon).Now})
	spec := limit.Spec{Limit: 100, Window: 600 * minute}
	for n, ofALease := range []bool{true, false} {
		opening := lease(n, store.LeaseOpen)
		bucket := fmt.Sprint("b", n)
		apply(t, s, opening, hold(bucket, spec, 4, 0))
		rows := ofLease("u", 3)
		rows[0].OfLease = ofALease
		if n == 0 {
			if err := s.Apply(t.Context(), &store.Step{Lease: renewing(opening, 5), Rows: rows}, &store.Outcome{}); err != nil {
				t.Fatal(err)
			}
		}
		for _, key := range look.Keys(t.Context(), "*#days").Val() {
			look.Set(t.Context(), key, "x", 0)
		}
		rows[0].Add[0].Amount = 9
		before := look.Dump(t.Context(), look.Keys(t.Context(), "*#lease").Val()[0]).Val()
		if err := s.Apply(t.Context(), &store.Step{Lease: renewing(opening, 50), Rows: rows}, &store.Outcome{}); err == nil {
			t.Fatal("it was not found out")
		}
		if r := apply(t, s, nil, strict(bucket, spec, 0)).Results[0]; r.Held > 5 {
			t.Errorf("of the lease %v: %d are held", ofALease, r.Held)
		}
		if after := look.Dump(t.Context(), look.Keys(t.Context(), "*#lease").Val()[0]).Val(); n == 0 && after != before {
			t.Error("the lease was renewed")
		}
		apply(t, s, renewing(opening, 7))
		if r := apply(t, s, nil, strict(bucket, spec, 0)).Results[0]; r.Held != 7 {
			t.Errorf("of the lease %v: renewed once more, %d are held, want 7", ofALease, r.Held)
		}
	}
}
