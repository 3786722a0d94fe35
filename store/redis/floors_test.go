package redis_test

import (
	"errors"
	"testing"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
	"github.com/rationhq/ration/store/redis"
	"github.com/rationhq/ration/store/redis/redistest"
	"github.com/rationhq/ration/store/storetest"
)

// The floors of a token bucket's holds lie behind its state while there are holds. One that was written without
// them, by a ration that knew none, is read: its holds give back what came in since leaves them.
func TestFloors(t *testing.T) {
	server := redistest.Start(t)
	look := server.Client(t)
	clock := storetest.NewClock(noon)
	s := newStore(t, redis.Options{URL: server.URL(), Clock: clock.Now})
	spec := limit.Spec{Algorithm: limit.TokenBucket, Limit: 60, Burst: 1000, Window: 60 * minute}
	const plain, head, floor = 50, 78, 32
	apply(t, s, nil, strict("b", spec, 1))
	key := look.Keys(t.Context(), "*").Val()[0]
	raw := func() string { return look.Get(t.Context(), key).Val() }
	is := func(what string, size int, version byte) {
		t.Helper()
		if got := raw(); len(got) != size || got[0] != version {
			t.Errorf("%s: %d bytes of version %d, want %d of version %d", what, len(got), got[0], size, version)
		}
	}
	open := func(n int) { apply(t, s, lease(n, store.LeaseOpen), hold("b", spec, 10, 10)) }
	end := func(n int, used, remain int64) {
		t.Helper()
		l := lease(n, store.LeaseSettle)
		l.Actual = []int64{used}
		if r := apply(t, s, l, strict("b", spec, 0)).Results[0]; r.Remaining != remain {
			t.Errorf("%d of call %d are used, and %d remain, want %d", used, n, r.Remaining, remain)
		}
	}

	is("before any hold", plain, 1)
	open(1)
	open(2)
	is("two holds", head+2*floor, 2)
	end(2, 1, 988)
	end(1, 1, 997)
	is("no holds", head, 1)

	open(3)
	open(4)
	look.Set(t.Context(), key, "\x01"+raw()[1:head], 0)
	end(4, 1, 986)
	open(5)
	is("one hold that is known", head+floor, 2)
	end(3, 1, 980) // 20 have come in since, and 24 are there
	end(5, 1, 989)
	is("no holds", head, 1)

	open(6)
	look.Set(t.Context(), key, raw()+"\x00", 0)
	err := s.Apply(t.Context(), &store.Step{Ops: []store.Op{strict("b", spec, 0)}}, new(store.Outcome))
	if !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("one byte too much: %v, want %v", err, store.ErrCorrupt)
	}
	look.Set(t.Context(), key, raw()[:head+floor], 0)

	for _, other := range look.Keys(t.Context(), "*#holds").Val() { // by hand
		look.Del(t.Context(), other)
	}
	clock.Advance(minute)
	apply(t, s, nil, strict("b", spec, 1))
	is("the holds are deleted", head, 1)
}
