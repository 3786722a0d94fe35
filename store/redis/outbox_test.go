package redis_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
	"github.com/rationhq/ration/store/redis"
	"github.com/rationhq/ration/store/redis/redistest"
	"github.com/rationhq/ration/store/storetest"
)

// warning returns op with thresholds, and its owner for a label.
func warning(op store.Op, thresholds ...int64) store.Op {
	op.Thresholds, op.Label = thresholds, op.Owner
	return op
}

// told returns the thresholds that a store tells of, by label.
func told(t *testing.T, s store.Outbox) map[string][]int64 {
	t.Helper()
	events, err := s.Events(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string][]int64)
	for _, e := range events {
		all[string(e.Label)] = append(all[string(e.Label)], e.Threshold)
	}
	for _, list := range all {
		slices.Sort(list)
	}
	return all
}

// The outbox is one in all: three keys, each kept for as long as the newest event.
func TestOutboxKeys(t *testing.T) {
	server := redistest.Start(t)
	look := server.Client(t)
	s := newStore(t, redis.Options{URL: server.URL(), KeyPrefix: "eu-"})
	for _, owner := range []string{"alice", "bob"} {
		op := warning(strict("b", year(10), 10), 5, 10)
		op.Owner = []byte(owner)
		apply(t, s, nil, op)
	}
	keys := look.Keys(t.Context(), "eu-ration:{s0000}#*").Val()
	slices.Sort(keys)
	want := []string{"eu-ration:{s0000}#events", "eu-ration:{s0000}#events-by-time", "eu-ration:{s0000}#undelivered"}
	if !slices.Equal(keys, want) {
		t.Fatalf("keys %q, want %q", keys, want)
	}
	for _, key := range keys {
		week := store.KeptEvents.Duration()
		if left := look.PTTL(t.Context(), key).Val(); left > week+time.Second || left < week-time.Minute {
			t.Errorf("%s is kept for %v, want a week", key, left)
		}
	}
	if n := look.DBSize(t.Context()).Val(); n != 5 {
		t.Errorf("%d keys, want those and two buckets", n)
	}
}

// In a Cluster each event lies where its bucket does, and so does what is delivered of it.
func TestOutboxesOfACluster(t *testing.T) {
	nodes := redistest.StartCluster(t)
	s := newStore(t, redis.Options{URL: "redis-cluster://" + nodes[0].Addr})
	var step store.Step
	for i := range 20 {
		op := warning(strict("b", year(10), 6), 5, 6)
		op.Owner = fmt.Append(nil, "owner ", i)
		step.Ops = append(step.Ops, op)
	}
	apply(t, s, lease(1, store.LeaseOpen), step.Ops...) // in rounds
	events, err := s.Events(t.Context(), 0)
	if err != nil || len(events) != 40 {
		t.Fatalf("%d events (%v), want 40", len(events), err)
	}
	places := make(map[string]bool) // of buckets, and of outboxes
	for _, node := range nodes {
		look := node.Client(t)
		for _, key := range look.Keys(t.Context(), "*|b:*").Val() {
			places[key[len("ration:{s"):len("ration:{s0000")]] = true
		}
		for _, key := range look.Keys(t.Context(), "*#events").Val() {
			shard := key[len("ration:{s"):len("ration:{s0000")]
			if !places[shard] {
				t.Errorf("%s lies where no bucket is", key)
			}
			for id := range look.HGetAll(t.Context(), key).Val() {
				if !strings.HasPrefix(id, shard) {
					t.Errorf("%s is in %s", id, key)
				}
			}
		}
	}
	wrong := []store.Event{{ID: "1024" + events[0].ID[4:]}, {ID: "-001" + events[0].ID[4:]}, {ID: events[0].ID + "0"}}
	if err := s.Delivered(t.Context(), append(wrong, events[:30]...)); err != nil {
		t.Fatal(err)
	}
	if left, err := s.Undelivered(t.Context()); err != nil || len(left) != 10 || left[0].ID != events[30].ID {
		t.Errorf("not delivered are %+v (%v), want the last ten of %+v", left, err, events)
	}
}

// The longest that an op may say of its thresholds comes back as it was.
func TestLargestEvent(t *testing.T) {
	s := newStore(t, redis.Options{URL: redistest.Start(t).URL()})
	calendar, err := limit.ParseCalendar("month;America/Argentina/ComodRivadavia;31")
	if err != nil {
		t.Fatal(err)
	}
	op := strict("b", limit.Spec{Algorithm: limit.CalendarWindow, Limit: 7, Calendar: calendar}, limit.MaxAmount)
	op.Kind, op.Label = store.Record, bytes.Repeat([]byte("\x00\xff"), store.MaxLabel/2)
	for i := range int64(store.MaxThresholds) {
		op.Thresholds = append(op.Thresholds, limit.MaxAmount-store.MaxThresholds+i)
	}
	out := apply(t, s, nil, op)
	events, err := s.Events(t.Context(), out.Now)
	if err != nil || len(events) != store.MaxThresholds {
		t.Fatalf("%d events (%v), want %d", len(events), err, store.MaxThresholds)
	}
	start, end := calendar.Bounds(out.Now)
	for _, e := range events {
		want := store.Event{
			ID: e.ID, At: out.Now, Which: e.Which, Threshold: op.Thresholds[e.Which], Used: limit.MaxAmount, Limit: 7,
			Start: start, End: end, Label: op.Label,
		}
		if fmt.Sprint(e) != fmt.Sprint(want) {
			t.Errorf("%+v, want %+v", e, want)
		}
	}
}

// An outbox that ration did not write is found out before anything of a step is written that needs it, and by those who
// read it.
func TestForeignOutbox(t *testing.T) {
	for suffix, read := range map[string]struct{ events, undelivered bool }{
		"#events": {true, true}, "#events-by-time": {true, false}, "#undelivered": {false, true},
	} {
		t.Run(suffix, func(t *testing.T) {
			server := redistest.Start(t)
			look := server.Client(t)
			s := newStore(t, redis.Options{URL: server.URL()})
			for _, set := range []string{"#events-by-time", "#undelivered"} { // which lead to the events
				look.ZAdd(t.Context(), "ration:{s0000}"+set, goredis.Z{Member: "0000"})
			}
			look.Set(t.Context(), "ration:{s0000}"+suffix, "x", 0)
			op := func(amount int64) store.Op { return warning(strict("b", year(10), amount), 5) }
			apply(t, s, nil, op(4)) // reaches nothing
			apply(t, s, lease(1, store.LeaseOpen), hold("b", year(10), 3, 0))
			settle := lease(1, store.LeaseSettle)
			settle.Actual = []int64{3}
			for name, step := range map[string]*store.Step{
				"charges": {Ops: []store.Op{op(1)}},
				"settles": {Lease: settle, Ops: []store.Op{op(0)}},
			} {
				if err := s.Apply(t.Context(), step, &store.Outcome{}); !errors.Is(err, store.ErrCorrupt) {
					t.Errorf("a step that %s: %v, want %v", name, err, store.ErrCorrupt)
				}
			}
			if r := apply(t, s, nil, strict("b", year(10), 0)).Results[0]; r.Used != 4 || r.Held != 3 {
				t.Errorf("%d are used and %d held, want 4 and 3", r.Used, r.Held)
			}
			_, ofEvents := s.Events(t.Context(), 0)
			_, ofUndelivered := s.Undelivered(t.Context())
			corrupt := func(err error) bool { return errors.Is(err, store.ErrCorrupt) }
			if corrupt(ofEvents) != read.events || corrupt(ofUndelivered) != read.undelivered {
				t.Errorf("events: %v, undelivered: %v; want %v: %+v", ofEvents, ofUndelivered, store.ErrCorrupt, read)
			}
		})
	}
}

// A deliverer that ration did not write is reported.
func TestForeignDeliverer(t *testing.T) {
	server := redistest.Start(t)
	s := newStore(t, redis.Options{URL: server.URL()})
	for _, write := range []func(key string){
		func(key string) { server.Client(t).Set(t.Context(), key, "x", 0) },
		func(key string) { server.Client(t).LPush(t.Context(), key, "x") },
	} {
		server.Client(t).FlushAll(t.Context())
		write("ration:{s0000}#deliverer")
		if is, err := s.Deliver(t.Context(), [16]byte{1}, second); is || !errors.Is(err, store.ErrCorrupt) {
			t.Errorf("deliver: %v, %v, want %v", is, err, store.ErrCorrupt)
		}
	}
}

// A server dies at each point of a settlement on three nodes, and of a charge. Of what is used in each shard it is told
// there, once, also when the step is sent again.
func TestDeathWithinACrossing(t *testing.T) {
	t.Parallel()
	c := startSpread(t)
	at := func(kind store.Kind, amount int64) []store.Op {
		ops := c.all(kind, amount)
		for i := range ops {
			ops[i] = warning(ops[i], 1, 3, 5)
		}
		return ops
	}
	for n, reached := range [][3]int64{
		{0, 0, 0}, {1, 0, 0}, {1, 1, 1}, {2, 0, 0}, {2, 1, 1}, {2, 2, 0}, {2, 0, 2}, {3, 1, 1}, {3, 2, 1}, {9, 9, 9},
	} {
		for name, use := range map[string]*store.Step{
			"settle": {Lease: lease(n, store.LeaseSettle), Ops: at(store.Settle, 4)},
			"charge": {Lease: lease(n, store.LeaseOpen), Ops: at(store.Charge, 4)},
		} {
			t.Run(fmt.Sprint(name, reached), func(t *testing.T) {
				for _, node := range c.nodes {
					node.Client(t).FlushAll(t.Context())
				}
				dying, witness := c.open(t), c.open(t)
				if name == "settle" {
					apply(t, witness, lease(n, store.LeaseOpen), at(store.Hold, 5)...)
				}
				c.look(t, dying, map[string]string{"settle": "0+5 0+5 0+5", "charge": "0+0 0+0 0+0"}[name])
				for i, messages := range reached {
					c.dieAfter(i, messages)
				}
				_ = dying.Apply(context.Background(), use, &store.Outcome{})
				c.live()
				for owner, list := range told(t, witness) {
					op := c.op(owner, store.Charge, 0)
					if used := apply(t, witness, nil, op).Results[0].Used; used != 4 || !slices.Equal(list, []int64{1, 3}) {
						t.Errorf("%d are used of %s, and it is told of %d", used, owner, list)
					}
				}
				for range 2 {
					apply(t, witness, use.Lease, use.Ops...)
					all := told(t, witness)
					for _, owner := range c.owners {
						if !slices.Equal(all[owner], []int64{1, 3}) {
							t.Errorf("sent again, it is told of %s: %d, want 1 and 3", owner, all[owner])
						}
					}
				}
				c.look(t, witness, "4+0 4+0 4+0")
			})
		}
	}
}

// An answer that replicas have to have, and have not, is none: it is delivered again.
func TestDeliveredWaitsForReplicas(t *testing.T) {
	master := redistest.Start(t)
	replica := redistest.Start(t, replicaOf(master)...)
	awaitReplicas(t, master, 1)
	s := newStore(t, redis.Options{URL: master.URL(), Timeout: timeout, WaitReplicas: 1})
	awaitWrites(t, s)
	apply(t, s, nil, warning(strict("b", year(10), 9), 5, 8))
	events, err := s.Events(t.Context(), 0)
	if err != nil || len(events) != 2 {
		t.Fatalf("%+v, %v", events, err)
	}
	if err := s.Delivered(t.Context(), events[:1]); err != nil {
		t.Fatal(err)
	}
	demote(t, &site{look: replica.Client(t)})
	awaitReplicas(t, master, 0)
	if err := s.Delivered(t.Context(), events[1:]); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("without a replica: %v, want %v", err, store.ErrUnavailable)
	}
}

// A clock that was ahead when somebody became the one who delivers does not keep the others away for as long.
func TestDelivererOfAnotherClock(t *testing.T) {
	server := redistest.Start(t)
	clock := storetest.NewClock(noon)
	s := newStore(t, redis.Options{URL: server.URL(), Clock: clock.Now})
	is := func(who byte) bool {
		t.Helper()
		is, err := s.Deliver(t.Context(), [16]byte{who}, 10*second)
		if err != nil {
			t.Fatal(err)
		}
		return is
	}
	if !is(1) {
		t.Error("the first is not the one")
	}
	clock.Advance(-limit.Tolerance)
	if is(2) {
		t.Error("a step back made another the one")
	}
	clock.Advance(-1)
	if !is(2) || is(1) {
		t.Error("the deliverer of another clock stays")
	}
	if _, err := s.Deliver(t.Context(), [16]byte{1}, -1); !errors.Is(err, store.ErrInvalid) {
		t.Errorf("for less than nothing: %v, want %v", err, store.ErrInvalid)
	}
}
