package redis_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/rationhq/ration/lane"
	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
	"github.com/rationhq/ration/store/redis"
	"github.com/rationhq/ration/store/redis/redistest"
	"github.com/rationhq/ration/store/storetest"
)

// Lines that three replicas share.
func TestLines(t *testing.T) {
	t.Parallel()
	t.Run("one Redis", func(t *testing.T) {
		histories(t, 20)
		server := redistest.Start(t)
		storetest.RunLines(t, threeReplicas(t, server.URL(), server))
	})
	t.Run("Cluster", func(t *testing.T) {
		histories(t, 6)
		nodes := redistest.StartCluster(t)
		storetest.RunLines(t, threeReplicas(t, "redis-cluster://"+nodes[0].Addr, nodes...))
	})
}

// step performs a step in a line of two classes.
func step(t testing.TB, s *redis.Store, step lane.Step) lane.Outcome {
	t.Helper()
	out, err := line(t, s, step)
	if err != nil {
		t.Fatalf("%+v: %v", step, err)
	}
	return out
}

func line(t testing.TB, s *redis.Store, step lane.Step) (lane.Outcome, error) {
	spec := lane.Spec{Classes: 2, Aging: 10 * second, Most: 100, MostOfSubject: 100}
	return s.Line(t.Context(), []byte("line"), &spec, &step)
}

// enter is how a ticket of the first waiter enters, which has tried.
func enter(ticket byte, until limit.Micros) lane.Step {
	return lane.Step{
		Waiter: lane.ID{1}, Ticket: lane.Ticket{ID: lane.ID{ticket}, Subject: lane.ID{ticket % 3}, Cost: 1},
		Wait: 3600 * second, Tried: true, Until: until,
	}
}

func inAnHour() limit.Micros { return limit.At(time.Now()) + 3600*second }

func lineState(t *testing.T, s *redis.Store) lane.State {
	t.Helper()
	state, err := s.LineState(t.Context(), []byte("line"))
	if err != nil {
		t.Fatal(err)
	}
	return state
}

func beat(waiter byte) lane.Step { return lane.Step{Do: lane.Beat, Waiter: lane.ID{waiter}} }

// A line is three keys, all or none of them, which outlive who waits longest. One in which nobody waits is none.
func TestLineKeys(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	look := server.Client(t)
	s := newStore(t, redis.Options{URL: server.URL(), KeyPrefix: "eu-"})
	first := enter(1, 0)
	first.Tried = false
	step(t, s, first)
	step(t, s, lane.Step{Do: lane.Free, Room: 1})
	if n := look.DBSize(t.Context()).Val(); n != 0 {
		t.Errorf("nobody waits, and there are %d keys", n)
	}
	for _, do := range []lane.Step{enter(1, inAnHour()), beat(2), {Do: lane.Leave, Waiter: lane.ID{1}, Ticket: first.Ticket}} {
		step(t, s, do)
		keys := look.Keys(t.Context(), "*").Val()
		slices.Sort(keys)
		for i, key := range keys {
			_, keys[i], _ = strings.Cut(key, "}")
			left := look.PTTL(t.Context(), key).Val()
			if left < time.Hour+lane.MaxWait.Duration()/2 || left > 2*time.Hour || !strings.HasPrefix(key, "eu-ration:{s") {
				t.Errorf("%s is kept for %v, want two hours", key, left)
			}
		}
		if want := []string{"line#line", "line#line-order", "line#line-waiters"}; !slices.Equal(keys, want) {
			t.Errorf("after %+v there are the keys %q, want %q", do, keys, want)
		}
	}
}

// Of those who have had their turns nothing is left for long, though the line is never empty.
func TestLineForgets(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	look := server.Client(t)
	s := newStore(t, redis.Options{URL: server.URL()})
	spec := lane.Spec{Classes: 1, Aging: second, Most: 99, MostOfSubject: 9}
	perform := func(step lane.Step) lane.Outcome {
		t.Helper()
		step.Waiter = lane.ID{1}
		out, err := s.Line(t.Context(), []byte("line"), &spec, &step)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	var called lane.ID
	for n := range 1000 {
		id := lane.ID{byte(n), byte(n >> 8)}
		out := perform(lane.Step{
			Ticket: lane.Ticket{ID: id, Subject: id, Cost: 1 + int64(n%5)*1000}, Wait: second * 60, Tried: n == 0,
		})
		if n > 50 {
			out = perform(lane.Step{Do: lane.Admitted, Ticket: lane.Ticket{ID: called}, Room: 1})
		}
		for _, call := range out.Calls {
			called = call.Ticket
		}
	}
	keys := look.Keys(t.Context(), "*").Val()
	slices.Sort(keys)
	if n, ranked := look.HLen(t.Context(), keys[0]).Val(), look.ZCard(t.Context(), keys[1]).Val(); n > 200 || ranked > 200 {
		t.Errorf("fifty wait, and there are %d fields and %d names", n, ranked)
	}
}

// What ration did not write is reported.
func TestForeignLine(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	look := server.Client(t)
	s := newStore(t, redis.Options{URL: server.URL()})
	ctx := t.Context()
	for name, spoil := range map[string]func(keys []string){
		"no hash":          func(keys []string) { look.Del(ctx, keys[0]); look.Set(ctx, keys[0], "x", 0) },
		"no orders":        func(keys []string) { look.Del(ctx, keys[1]); look.Set(ctx, keys[1], "x", 0) },
		"no waiters":       func(keys []string) { look.Del(ctx, keys[2]); look.Set(ctx, keys[2], "x", 0) },
		"too short":        func(keys []string) { look.HSet(ctx, keys[0], "s", "x") },
		"another version":  func(keys []string) { look.HSet(ctx, keys[0], "s", "\x02"+look.HGet(ctx, keys[0], "s").Val()[1:]) },
		"too long a state": func(keys []string) { look.HSet(ctx, keys[0], "s", look.HGet(ctx, keys[0], "s").Val()+"x") },
	} {
		look.FlushAll(ctx)
		step(t, s, enter(1, inAnHour()))
		keys := look.Keys(ctx, "*").Val()
		slices.Sort(keys)
		spoil(keys)
		if _, err := line(t, s, beat(1)); !errors.Is(err, store.ErrCorrupt) {
			t.Errorf("%s: %v, want %v", name, err, store.ErrCorrupt)
		}
		if name == "no orders" || name == "too long a state" {
			continue // which the state is not read from
		}
		if _, err := s.LineState(ctx, []byte("line")); !errors.Is(err, store.ErrCorrupt) {
			t.Errorf("the state of a line that has %s: %v, want %v", name, err, store.ErrCorrupt)
		}
	}
}

// Of a line of which Redis has dropped a part nothing is left but who comes: it begins anew, and its waiters see that.
func TestLineOfWhichAPartIsLost(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	look := server.Client(t)
	s := newStore(t, redis.Options{URL: server.URL()})
	ctx := t.Context()
	for name, lose := range map[string]func(keys []string){
		"the hash":   func(keys []string) { look.Del(ctx, keys[0]) },
		"the orders": func(keys []string) { look.Del(ctx, keys[1]) },
		"a ticket":   func(keys []string) { look.HDel(ctx, keys[0], "t\x01"+strings.Repeat("\x00", 15)) },
		"all":        func(keys []string) { look.Del(ctx, keys...) },
	} {
		look.FlushAll(ctx)
		for n := range byte(5) {
			step(t, s, enter(n+1, inAnHour()))
		}
		keys := look.Keys(ctx, "*").Val()
		slices.Sort(keys)
		lose(keys)
		step(t, s, lane.Step{Do: lane.Free, Waiter: lane.ID{2}, Room: 1})
		out := step(t, s, beat(1))
		if !out.Gone || out.Waiting != 0 {
			t.Errorf("without %s: %+v, want that the waiter is gone, and nobody waits", name, out)
		}
		for n := range byte(5) { // they enter again
			out = step(t, s, enter(n+1, inAnHour()))
		}
		if state := lineState(t, s); out.Answer != lane.Waits || out.Waiting != 5 || len(state.Tickets) != 5 || len(state.Subjects) != 3 {
			t.Errorf("afterwards: %+v, and %+v", out, state)
		}
	}
}

// Redis is restarted and empty, in mid-line: a waiter is told, and all enter again. A script that Redis does not know any
// more it is sent again.
func TestLineWhileRedisRestarts(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s := newStore(t, redis.Options{URL: server.URL(), Timeout: time.Second})
	for n := range byte(3) {
		step(t, s, enter(n+1, inAnHour()))
	}
	must(t, server.Client(t).Do(t.Context(), "script", "flush"))
	if out := step(t, s, beat(1)); out.Gone || out.Waiting != 3 {
		t.Errorf("without scripts: %+v", out)
	}
	server.Stop()
	if _, err := line(t, s, beat(1)); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("while it is gone: %v, want %v", err, store.ErrUnavailable)
	}
	redistest.StartAt(t, server.Addr)
	waitUntilReady(t, s)
	if out := step(t, s, beat(1)); !out.Gone || out.Waiting != 0 {
		t.Errorf("afterwards: %+v, want that the waiter is gone, and nobody waits", out)
	}
	for n := range byte(3) {
		if out := step(t, s, enter(n+1, inAnHour())); out.Answer != lane.Waits || out.Gone || out.Waiting != int(n)+1 {
			t.Errorf("ticket %d enters again: %+v", n, out)
		}
	}
	out := step(t, s, lane.Step{Do: lane.Free, Waiter: lane.ID{1}, Room: 3})
	if len(out.Calls) != 3 {
		t.Errorf("called are %v, want all three", out.Calls)
	}
	for i, call := range out.Calls {
		if want := (lane.Call{Ticket: lane.ID{byte(i + 1)}, Waiter: lane.ID{1}}); call != want {
			t.Errorf("call %d is %v, want %v: they keep their order", i, call, want)
		}
	}
}

// A Redis that does not answer costs a bounded wait.
func TestLineWhileRedisHangs(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s := newStore(t, redis.Options{URL: server.URL(), Timeout: 200 * time.Millisecond})
	step(t, s, beat(1))
	if err := server.Pause(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = server.Resume() }()
	if _, err := line(t, s, beat(1)); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("%v, want %v", err, store.ErrUnavailable)
	}
}

// A line whose slot moves to another node is followed at every stage, and keeps its order.
func TestLineInASlotThatMoves(t *testing.T) {
	t.Parallel()
	nodes := redistest.StartCluster(t)
	s := newStore(t, redis.Options{URL: "redis-cluster://" + nodes[0].Addr})
	tickets := byte(0)
	hit := func(stage string) {
		t.Helper()
		tickets++
		if out, err := line(t, s, enter(tickets, inAnHour())); err != nil || out.Answer != lane.Waits || out.Waiting != int(tickets) {
			t.Fatalf("%s: %+v, %v, want %d to wait", stage, out, err, tickets)
		}
	}
	hit("before")
	m := beginMove(t, nodes)
	hit("announced")
	m.move(t, m.keys[0])
	done := make(chan struct{})
	go func() {
		defer close(done)
		hit("in two places") // where Redis says TRYAGAIN
	}()
	time.Sleep(20 * time.Millisecond)
	m.move(t, m.keys[1])
	m.move(t, m.keys[2])
	<-done
	hit("moved, not yet owned")
	if state := lineState(t, s); len(state.Tickets) != int(tickets) {
		t.Errorf("it has %d tickets, want %d", len(state.Tickets), tickets)
	}
	m.end(t, nodes)
	hit("owned by the other")
	hit("afterwards")
}

// awaitHearers waits until so many hear of calls of a waiter, in hex, at a Redis.
func awaitHearers(t *testing.T, look *goredis.Client, waiter string, want int64) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		n, err := look.PubSubNumSub(t.Context(), "ration:called:"+waiter).Result()
		if err != nil {
			t.Fatal(err)
		}
		if n["ration:called:"+waiter] == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%v hear of calls, want %d", n, want)
		}
	}
}

// Who is called by another process hears of it, also when the connection was lost meanwhile; and nobody hears for those
// who have left, or for a store that is closed.
func TestCalled(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	look := server.Client(t)
	s, other := newStore(t, redis.Options{URL: server.URL()}), newStore(t, redis.Options{URL: server.URL()})
	ctx, leave := context.WithCancel(t.Context())
	calls := s.Called(ctx, lane.ID{1})
	hex := "01" + strings.Repeat("00", 15)
	awaitHearers(t, look, hex, 1)
	step(t, s, enter(1, inAnHour()))
	hears := func() {
		t.Helper()
		step(t, other, lane.Step{Do: lane.Free, Waiter: lane.ID{2}, Room: 1})
		select {
		case got := <-calls:
			if want := (store.Called{Line: "line", Ticket: lane.ID{1}}); got != want {
				t.Errorf("it hears of %+v, want %+v", got, want)
			}
		case <-time.After(30 * time.Second):
			t.Fatal("it does not hear of its call")
		}
	}
	hears()
	step(t, s, lane.Step{Do: lane.Refused, Waiter: lane.ID{1}, Ticket: lane.Ticket{ID: lane.ID{1}}, Until: inAnHour()})
	if err := look.ClientKillByFilter(t.Context(), "TYPE", "pubsub").Err(); err != nil {
		t.Fatal(err)
	}
	awaitHearers(t, look, hex, 1)
	hears()
	look.Publish(t.Context(), "ration:called:"+hex, "x") // which is none
	leave()
	awaitHearers(t, look, hex, 0)
	s.Called(t.Context(), lane.ID{3})
	awaitHearers(t, look, "03"+strings.Repeat("00", 15), 1)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	awaitHearers(t, look, "03"+strings.Repeat("00", 15), 0)
	if left := s.Called(t.Context(), lane.ID{4}); len(left)+len(calls) != 0 {
		t.Error("there are calls")
	}
}

// In a Cluster a call on any node is heard on every one.
func TestCalledInACluster(t *testing.T) {
	t.Parallel()
	nodes := redistest.StartCluster(t)
	s := newStore(t, redis.Options{URL: "redis-cluster://" + nodes[0].Addr})
	other := newStore(t, redis.Options{URL: "redis-cluster://" + nodes[1].Addr})
	calls := s.Called(t.Context(), lane.ID{1})
	spec := lane.Spec{Classes: 1, Aging: second, Most: 9, MostOfSubject: 9}
	heard := map[string]bool{}
	patience := time.After(30 * time.Second)
	for n := 0; len(heard) < 20; n = (n + 1) % 20 { // lines on all nodes
		name := "line " + string(rune('a'+n))
		first := enter(1, inAnHour())
		if _, err := s.Line(t.Context(), []byte(name), &spec, &first); err != nil {
			t.Fatal(err)
		}
		free := lane.Step{Do: lane.Free, Waiter: lane.ID{2}, Room: 1}
		if _, err := other.Line(t.Context(), []byte(name), &spec, &free); err != nil {
			t.Fatal(err)
		}
		refused := lane.Step{Do: lane.Refused, Waiter: lane.ID{1}, Ticket: first.Ticket, Until: inAnHour()}
		if _, err := s.Line(t.Context(), []byte(name), &spec, &refused); err != nil {
			t.Fatal(err)
		}
		select {
		case call := <-calls:
			heard[call.Line] = true
		case <-time.After(5 * time.Millisecond): // it does not listen yet
		case <-patience:
			t.Fatalf("only these lines are heard of: %v", heard)
		}
	}
}
