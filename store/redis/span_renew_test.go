package redis_test

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
	"github.com/rationhq/ration/store/redis"
	"github.com/rationhq/ration/store/redis/redistest"
)

// renewing returns the renewal of a lease for another minute.
func renewing(opening *store.Lease, actual int64) *store.Lease {
	l := *opening
	l.Do, l.Actual = store.LeaseRenew, []int64{actual}
	return &l
}

// The keys of a lease and of its holds live on as it is renewed; also of one that is alone on its bucket.
func TestRenewedLeasesExpireLater(t *testing.T) {
	server := redistest.Start(t)
	look := server.Client(t)
	s := newStore(t, redis.Options{URL: server.URL()})
	opening := lease(1, store.LeaseOpen)
	opening.Lasts = second
	apply(t, s, opening, hold("b", limit.Spec{Algorithm: limit.Concurrency, Limit: 3}, 1, 1),
		hold("kept for a day", limit.Spec{FirstUse: true, Limit: 3, Window: 1440 * minute}, 1, 1))
	renewal := renewing(opening, 1)
	renewal.Lasts = 10 * minute
	apply(t, s, renewal)
	for end, lasts := range map[string]time.Duration{
		"b:5": 11 * time.Minute, "b:5#holds": 11 * time.Minute, "#lease": 24*time.Hour + 10*time.Minute,
		"day:5": 24*time.Hour + time.Minute, "day:5#holds": 24*time.Hour + time.Minute,
	} {
		keys := look.Keys(t.Context(), "*"+end).Val()
		if len(keys) != 1 {
			t.Fatalf("keys %q end with %q, want one", keys, end)
		}
		// Buckets are kept for an eighth more, so that not every charge has to say so.
		if got := look.PTTL(t.Context(), keys[0]).Val(); got < lasts-10*time.Second || got > lasts+lasts/8+10*time.Second {
			t.Errorf("%s expires in %v, want %v or a little more", keys[0], got, lasts)
		}
	}
}

// A lease with holds on three nodes is renewed on each, and in its directory.
func TestRenewedAcrossShards(t *testing.T) {
	t.Parallel()
	c := startSpread(t)
	s, other := c.open(t), c.open(t)
	opening := c.leaseAt(t, s, 0)
	apply(t, s, opening, c.all(store.Hold, 4)...)
	for range 3 {
		c.clock.Advance(minute - 1)
		out := apply(t, other, renewing(opening, 6), c.all(store.Charge, 0)...)
		if out.Lease != store.LeaseRenewed || out.Refused {
			t.Errorf("%+v, want it renewed", out)
		}
		for i, r := range out.Results {
			if r.Held != 6 || r.Remaining != 4 {
				t.Errorf("node %d: %+v, want 6 held", i, r)
			}
		}
		c.look(t, s, "0+6 0+6 0+6")
	}
	c.clock.Advance(minute)
	c.look(t, s, "6+0 6+0 6+0")
	if out := apply(t, s, renewing(opening, 9), c.all(store.Charge, 0)...); out.Lease != store.LeaseLapsed {
		t.Errorf("renewed when it had lapsed: %+v", out)
	}
	c.look(t, s, "6+0 6+0 6+0")
	settle := lease(0, store.LeaseSettle)
	settle.ID, settle.Actual = opening.ID, []int64{3}
	if out := apply(t, s, settle); out.Lease != store.LeaseCorrected {
		t.Errorf("settled: %+v, want it corrected", out)
	}
	if out := apply(t, s, renewing(opening, 9)); out.Lease != store.LeaseSettled {
		t.Errorf("renewed when it was settled: %+v", out)
	}
	c.look(t, s, "3+0 3+0 3+0")
}

// A server dies while it renews a lease. What it has not reached lapses when it was due; a repeat renews what still
// lives, and what has lapsed is charged what was used.
func TestDeathWithinARenewal(t *testing.T) {
	t.Parallel()
	c := startSpread(t)
	for name, died := range map[string]struct {
		reached  [3]int64 // messages to each node; the directory is on the first
		state    store.LeaseState
		at       string // how the buckets stand then
		due      string // and when they were due before
		repeated string // and after a repeat
		end      string // and when that is due
	}{
		"nothing has heard of it": {
			[3]int64{0, 2, 2}, store.LeaseLapsed, "0+4 0+4 0+4", "1+0 1+0 1+0", "1+0 1+0 1+0", "1+0 1+0 1+0",
		},
		"only the directory": {
			[3]int64{1, 0, 0}, store.LeaseOpened, "0+4 0+4 0+4", "1+0 1+0 1+0", "6+0 6+0 6+0", "6+0 6+0 6+0",
		},
		"all but the directory's node": {
			[3]int64{1, 1, 1}, store.LeaseOpened, "0+4 0+6 0+6", "1+0 0+6 0+6", "6+0 0+6 0+6", "6+0 6+0 6+0",
		},
		"all but one": {
			[3]int64{2, 0, 1}, store.LeaseOpened, "0+6 0+4 0+6", "0+6 1+0 0+6", "0+6 6+0 0+6", "6+0 6+0 6+0",
		},
	} {
		t.Run(name, func(t *testing.T) {
			dying, s := c.open(t), c.open(t)
			opening := c.leaseAt(t, s, 0)
			holds := c.all(store.Hold, 4)
			for i := range holds {
				holds[i].Lapse = 1
			}
			begin := func() {
				apply(t, s, opening, holds...)
				c.clock.Advance(minute / 2)
				apply(t, dying, nil, c.all(store.Charge, 0)...)
				for i, n := range died.reached {
					c.dieAfter(i, n)
				}
				c.dies(t, dying, &store.Step{Lease: renewing(opening, 6)})
				c.look(t, s, died.at)
			}
			empty := func() {
				for _, node := range c.nodes {
					node.Client(t).FlushAll(t.Context())
				}
			}
			settles := func(want string) {
				t.Helper()
				settle := *opening
				settle.Do, settle.Actual = store.LeaseSettle, []int64{3}
				apply(t, s, &settle)
				c.look(t, s, want)
				empty()
			}
			look := *opening
			look.Do = store.LeaseLook

			begin()
			settles("3+0 3+0 3+0")

			begin() // and the repeat comes in time
			if out := apply(t, s, renewing(opening, 6)); out.Lease != store.LeaseRenewed {
				t.Errorf("repeated in time: %+v", out)
			}
			c.look(t, s, "0+6 0+6 0+6")
			c.clock.Advance(minute - 1)
			c.look(t, s, "0+6 0+6 0+6")
			settles("3+0 3+0 3+0")

			begin() // and the repeat comes late
			c.clock.Advance(minute / 2)
			if out := apply(t, s, &look); out.Lease != died.state {
				t.Errorf("when it was due before, its state is %d, want %d", out.Lease, died.state)
			}
			c.look(t, s, died.due)
			apply(t, s, renewing(opening, 6))
			c.look(t, s, died.repeated)
			c.clock.Advance(minute)
			c.look(t, s, died.end)
			settles("3+0 3+0 3+0")
		})
	}
}

// A bucket of a renewed lease is not readable. Others are renewed, so that the error does not say that nothing was.
func TestRenewalOfAnUnreadableBucket(t *testing.T) {
	t.Parallel()
	c := startSpread(t)
	s := c.open(t)
	opening := c.leaseAt(t, s, 0)
	apply(t, s, opening, c.all(store.Hold, 4)...)
	look := c.nodes[1].Client(t)
	for _, key := range look.Keys(t.Context(), "*b:*").Val() {
		if !strings.Contains(key, "#") {
			look.Set(t.Context(), key, "not a counter", 0)
		}
	}
	var out store.Outcome
	err := s.Apply(t.Context(), &store.Step{Lease: renewing(opening, 6)}, &out)
	if !errors.Is(err, store.ErrUnavailable) || errors.Is(err, store.ErrCorrupt) {
		t.Errorf("%v, want %v and not %v", err, store.ErrUnavailable, store.ErrCorrupt)
	}
	for _, i := range []int{0, 2} {
		if r := apply(t, s, nil, c.op(c.owners[i], store.Charge, 0)).Results[0]; r.Held != 6 {
			t.Errorf("node %d: %+v, want 6 held", i, r)
		}
	}
}

// A shard that no renewal has reached remembers the end of the lease for as long as the directory does: what is settled
// then would count once more.
func TestRetentionWithoutARenewal(t *testing.T) {
	t.Parallel()
	c := startSpread(t)
	for do, want := range map[store.LeaseAction]store.LeaseState{
		store.LeaseSettle: store.LeaseReplayed, store.LeaseLapse: store.LeaseCorrected,
	} {
		dying, s := c.open(t), c.open(t)
		opening := c.leaseAt(t, s, 0)
		apply(t, s, opening, c.all(store.Hold, 4)...)
		apply(t, dying, nil, c.all(store.Charge, 0)...)
		c.dieAfter(1, 0)
		renewal := renewing(opening, 6)
		renewal.Lasts = store.MaxLease
		c.dies(t, dying, &store.Step{Lease: renewal})
		end := *opening
		end.Do = do
		apply(t, s, &end)
		c.clock.Advance(store.MaxLease + store.Retention - 1)
		end.Do = store.LeaseSettle
		if out := apply(t, s, &end, c.all(store.Settle, 4)...); out.Lease != want {
			t.Errorf("after action %d: state %d, want %d", do, out.Lease, want)
		}
		c.look(t, s, "0+0 0+0 0+0") // their window is over
	}
}

// While a lease is renewed, it is settled: the shards that hear of that first are not renewed.
func TestSettledWhileRenewed(t *testing.T) {
	t.Parallel()
	c := startSpread(t)
	for do, want := range map[store.LeaseAction]string{
		store.LeaseSettle: "3+0 3+0 3+0",
		store.LeaseLapse:  "6+0 0+0 6+0", // what those know was used that had heard of the renewal
	} {
		slow, quick := c.open(t), c.open(t)
		opening := c.leaseAt(t, slow, 0)
		apply(t, slow, opening, c.all(store.Hold, 4)...)
		on := point{make(chan struct{}), make(chan struct{})}
		var seen atomic.Int64
		c.proxies[1].Set(func(name string) redistest.Fault {
			if !strings.HasPrefix(name, "EVAL") || seen.Add(1) > 1 {
				return redistest.Fault{}
			}
			close(on.held)
			return redistest.Fault{Until: on.release}
		})
		answered := make(chan error)
		go func() {
			var out store.Outcome
			answered <- slow.Apply(t.Context(), &store.Step{Lease: renewing(opening, 6)}, &out)
		}()
		<-on.held
		end := *opening
		end.Do, end.Actual = do, []int64{3}
		apply(t, quick, &end)
		close(on.release)
		if err := <-answered; err != nil {
			t.Errorf("renewed: %v", err)
		}
		c.live()
		c.look(t, quick, want)
	}
}
