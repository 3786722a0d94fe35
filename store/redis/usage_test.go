package redis_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
	"github.com/rationhq/ration/store/redis"
	"github.com/rationhq/ration/store/redis/redistest"
	"github.com/rationhq/ration/store/storetest"
)

// report is a step that reports one request and so many tokens of alice, and charges as many.
func report(tokens int64) *store.Step {
	const day = 24 * hour
	return &store.Step{
		Ops: []store.Op{strict("b", year(1000), tokens)},
		Rows: []store.Row{{
			Owner: []byte("alice"), Group: []byte("llm"), Dimensions: []byte("pro"), Rank: 1 << 1,
			Add:  []store.Addition{{Column: 0, Amount: 1}, {Column: 1, Amount: tokens}},
			Keep: store.Retain{OwnerHours: 2 * day, OwnerDays: 31 * day, GroupHours: day, GroupDays: 366 * day},
		}},
	}
}

// reported returns what is reported of somebody, or of all, on the day of an instant; and of alice by the ranking.
func reported(t *testing.T, s *redis.Store, owner string, at limit.Micros) (columns []store.Addition, ranked int64) {
	t.Helper()
	hours, err := s.Rows(t.Context(), store.RowsQuery{
		Group: []byte("llm"), Owner: []byte(owner), From: store.Day.Start(at), To: store.Day.End(store.Day.Start(at)),
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range hours {
		columns = store.Merge(columns, r.Columns)
	}
	top, err := s.Top(t.Context(), store.TopQuery{Group: []byte("llm"), Column: 1, In: at, Most: 10})
	if err != nil || len(top) > 1 {
		t.Fatalf("%+v, %v", top, err)
	}
	for _, r := range top {
		ranked = r.Total
	}
	return columns, ranked
}

// What is reported lies under a key for each of what it adds to, until it need not be kept any more.
func TestUsageKeys(t *testing.T) {
	server := redistest.Start(t)
	look := server.Client(t)
	clock := storetest.NewClock(noon + hour)
	s := newStore(t, redis.Options{URL: server.URL(), KeyPrefix: "team:", Clock: clock.Now})
	for range 2 {
		step := report(5)
		if err := s.Apply(t.Context(), &store.Step{Rows: step.Rows}, &store.Outcome{}); err != nil {
			t.Fatal(err)
		}
	}
	const day = 24 * time.Hour
	standing := time.Hour                           // that a test's clock adds
	left, month := 11*time.Hour, 9*day+11*time.Hour // of the day, and of November
	want := map[string]time.Duration{
		"llm|alice:3@1763683200#hours":  left + 2*day,
		"llm|alice:3@1761955200#days":   month + 31*day,
		"llm|:3@1763730000#hours":       time.Hour + day,
		"llm|:3@1763683200#days":        left + 366*day,
		"llm|:3@1763683200#top-day-1":   left + 31*day,
		"llm|:3@1761955200#top-month-1": month + 31*day,
	}
	keys := look.Keys(t.Context(), "*").Val()
	if len(keys) != len(want) {
		t.Errorf("keys %q, want %d", keys, len(want))
	}
	for _, key := range keys {
		name, _ := strings.CutPrefix(key, "team:ration:")
		_, name, _ = strings.Cut(name, "}")
		if got := look.PTTL(t.Context(), key).Val() - standing; (got - want[name]).Abs() > 10*time.Second {
			t.Errorf("%s expires in %v, want %v", key, got, want[name])
		}
	}
}

// An hour that ends while a step is on its way is not the one that it is added to.
func TestUsageWhenAnHourEnds(t *testing.T) {
	server := redistest.Start(t)
	var looks atomic.Int64
	s := newStore(t, redis.Options{URL: server.URL(), Clock: func() limit.Micros {
		if looks.Add(1) == 1 {
			return noon - 1 // when the step is written down
		}
		return noon
	}})
	if err := s.Apply(t.Context(), report(5), &store.Outcome{}); err != nil {
		t.Fatal(err)
	}
	rows, err := s.Rows(t.Context(), store.RowsQuery{Group: []byte("llm"), From: noon - hour, To: noon + hour})
	if err != nil || len(rows) != 1 || rows[0].Start != noon {
		t.Errorf("it is added to %+v (%v), want the hour from noon", rows, err)
	}
}

// A key of usage that holds what ration did not write is reported, before anything of the step is written; and it is
// nobody else's trouble.
func TestForeignUsage(t *testing.T) {
	server := redistest.Start(t)
	look := server.Client(t)
	clock := storetest.NewClock(noon)
	s := newStore(t, redis.Options{URL: server.URL(), Clock: clock.Now})
	list := func(key string) { look.RPush(t.Context(), key, "x") }
	field := func(value string) func(string) {
		return func(key string) {
			for name := range look.HGetAll(t.Context(), key).Val() {
				look.HSet(t.Context(), key, name, value)
			}
		}
	}
	score := func(score float64) func(string) {
		return func(key string) { look.ZAdd(t.Context(), key, goredis.Z{Score: score, Member: "alice"}) }
	}
	for name, c := range map[string]struct {
		key     string
		replace bool
		with    func(key string)
	}{
		"hours, another type":         {"alice:3@*#hours", true, list},
		"days, another type":          {"alice:3@*#days", true, list},
		"the group's, another type":   {"|:3@*#days", true, list},
		"a ranking, another type":     {"#top-month-1", true, list},
		"hours, too short":            {"alice:3@*#hours", false, field("1234567")},
		"the group's, too long":       {"|:3@*#hours", false, field("123456789")},
		"a ranking, with a fraction":  {"#top-day-1", false, score(-1.5)},
		"a ranking, more than counts": {"#top-day-1", false, score(-1 << 53)},
	} {
		t.Run(name, func(t *testing.T) {
			look.FlushAll(t.Context())
			if err := s.Apply(t.Context(), report(5), &store.Outcome{}); err != nil {
				t.Fatal(err)
			}
			keys := look.Keys(t.Context(), "*"+c.key).Val()
			if len(keys) != 1 {
				t.Fatalf("keys %q, want one", keys)
			}
			if c.replace {
				look.Del(t.Context(), keys[0])
			}
			c.with(keys[0])
			before := dump(t, look)
			if err := s.Apply(t.Context(), report(7), &store.Outcome{}); !errors.Is(err, store.ErrCorrupt) {
				t.Errorf("%v, want %v", err, store.ErrCorrupt)
			}
			if after := dump(t, look); !slices.Equal(after, before) {
				t.Errorf("something was written:\nbefore %q\n after %q", before, after)
			}
			// In a batch with it, others are not harmed.
			errs := make(chan error)
			for i := range 40 {
				step := report(7)
				if i%2 == 0 {
					step.Ops[0].Owner, step.Rows[0].Owner, step.Rows[0].Group = []byte("bert"), []byte("bert"), []byte("g")
				}
				go func() {
					err := s.Apply(context.Background(), step, &store.Outcome{})
					if i%2 == 1 && errors.Is(err, store.ErrCorrupt) {
						err = nil
					}
					errs <- err
				}()
			}
			for range 40 {
				if err := <-errs; err != nil {
					t.Error(err)
				}
			}
			rows, err := s.Rows(t.Context(), store.RowsQuery{Group: []byte("g"), From: noon, To: noon + 1})
			if want := []store.Addition{{Column: 0, Amount: 20}, {Column: 1, Amount: 140}}; err != nil || len(rows) != 1 || !slices.Equal(rows[0].Columns, want) {
				t.Errorf("of others there is reported %+v (%v), want %+v", rows, err, want)
			}
		})
	}
}

// dump is all that is in a Redis.
func dump(t *testing.T, look *goredis.Client) (all []string) {
	t.Helper()
	for _, key := range look.Keys(t.Context(), "*").Val() {
		all = append(all, fmt.Sprintf("%s %q", key, look.Dump(t.Context(), key).Val()))
	}
	slices.Sort(all)
	return all
}

// What was reported is found at every stage of a slot's move to another node.
func TestUsageWhileASlotMoves(t *testing.T) {
	nodes := redistest.StartCluster(t)
	clock := storetest.NewClock(noon)
	s := newStore(t, redis.Options{URL: "redis-cluster://" + nodes[0].Addr, Clock: clock.Now})
	count := int64(0)
	hit := func(stage string) {
		t.Helper()
		count++
		if err := s.Apply(t.Context(), &store.Step{Rows: report(1).Rows}, &store.Outcome{}); err != nil {
			t.Fatalf("%s: %v", stage, err)
		}
	}
	look := func(stage string) {
		t.Helper()
		want := []store.Addition{{Column: 0, Amount: count}, {Column: 1, Amount: count}}
		for _, owner := range []string{"", "alice"} {
			if got, ranked := reported(t, s, owner, noon); !slices.Equal(got, want) || ranked != count {
				t.Errorf("%s: of %q there is %+v and %d, want %+v", stage, owner, got, ranked, want)
			}
		}
	}
	hit("before")
	look("before")
	m := beginMove(t, nodes)
	hit("announced")
	look("announced")
	for i, key := range m.keys {
		m.move(t, key)
		look(fmt.Sprint(i, " keys moved"))
	}
	hit("moved, not yet owned")
	look("moved, not yet owned")
	m.end(t, nodes)
	look("owned by the other")
	hit("owned by the other")
	look("afterwards")
}

// slotMove is the move of the one slot with keys in it to another node.
type slotMove struct {
	from, to *goredis.Client
	slot     int64
	keys     []string
}

// beginMove announces it.
func beginMove(t *testing.T, nodes []*redistest.Server) *slotMove {
	t.Helper()
	m := &slotMove{}
	for _, node := range nodes {
		c := node.Client(t)
		if found := c.Keys(t.Context(), "*").Val(); len(found) > 0 {
			m.from, m.keys = c, found
		} else {
			m.to = c
		}
	}
	m.slot = m.from.ClusterKeySlot(t.Context(), m.keys[0]).Val()
	must(t, m.to.Do(t.Context(), "cluster", "setslot", m.slot, "importing", nodeID(t, m.from)))
	must(t, m.from.Do(t.Context(), "cluster", "setslot", m.slot, "migrating", nodeID(t, m.to)))
	return m
}

// move moves a key.
func (m *slotMove) move(t *testing.T, key string) {
	t.Helper()
	host, port, _ := net.SplitHostPort(m.to.Options().Addr)
	must(t, m.from.Do(t.Context(), "migrate", host, port, key, 0, 5000))
}

// end tells all nodes who has the slot.
func (m *slotMove) end(t *testing.T, nodes []*redistest.Server) {
	t.Helper()
	for _, node := range nodes {
		must(t, node.Client(t).Do(t.Context(), "cluster", "setslot", m.slot, "node", nodeID(t, m.to)))
	}
}

func nodeID(t *testing.T, c *goredis.Client) string {
	t.Helper()
	id, err := c.Do(t.Context(), "cluster", "myid").Text()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func must(t *testing.T, cmd *goredis.Cmd) {
	t.Helper()
	if cmd.Err() != nil {
		t.Fatal(cmd.Err())
	}
}
