package storetest

import (
	"testing"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

// strictly applies ops and compares the overall verdict and what is counted in their buckets, and by
// which ops of them it was refused.
func strictly(t reporter, s store.Store, refused bool, list []store.Op, results ...counted) {
	t.Helper()
	out := apply(t, s, list...)
	if out.Refused != refused {
		t.Errorf("refused = %v, want %v", out.Refused, refused)
	}
	for i, want := range results {
		if got := (counted{out.Results[i].Used, out.Results[i].Refused}); got != want {
			t.Errorf("result %d = %+v, want %+v", i, got, want)
		}
	}
}

// testAllOrNothing: strict charges are written all or none, in one instant with all others.
func testAllOrNothing(t *testing.T, open Open) {
	ten, five := perMinute(10), perMinute(5)
	s := open(t, NewClock(noon))
	strictly(t, s, false, ops(strict("a", ten, 8), strict("b", five, 5)), used(8), used(5))
	// b has no room: nothing is charged anywhere.
	strictly(t, s, true, ops(strict("a", ten, 2), strict("b", five, 1)), used(8), over(5))
	strictly(t, s, false, ops(strict("a", ten, 2)), used(10))
	// A check asks for room for one more.
	strictly(t, s, true, ops(strict("a", ten, 0)), over(10))
	strictly(t, s, false, ops(strict("c", perMinute(1), 0)), used(0))
	// Beside a refusal, plain charges, give-backs and records land all the same.
	strictly(t, s, true,
		ops(strict("a", ten, 1), charge("p", five, 2), of(store.GiveBack, strict("b", five, 1)), of(store.Record, strict("c", ten, 3))),
		over(10), used(2), used(4), used(3))
	// A plain refusal keeps strict charges from being written.
	strictly(t, s, true, ops(charge("p", perMinute(3), 2), strict("b", five, 1)), over(4), used(4))
	strictly(t, s, false, ops(strict("b", five, 1)), used(5))
	// What counts refusals is charged all the same, debt included; a hold becomes a charge.
	strictly(t, s, true, ops(countsRefusals(strict("b", five, 2)), strict("c", ten, 1)), over(7), used(3))
	out := applyStep(t, s, &store.Step{Lease: opens(1, 1), Ops: ops(strict("b", five, 1), countsRefusals(holding("c", ten, 4, 0)))})
	if c := out.Results[1]; out.Lease != store.LeaseNone || c.Used != 7 || c.Held != 0 {
		t.Errorf("a refused hold that counts refusals: lease state %d, %+v", out.Lease, c)
	}

	t.Run("one bucket twice", func(t *testing.T) {
		three := perMinute(3)
		// Amounts on one bucket are judged together, each op by its own limit.
		strictly(t, s, true, ops(strict("d", three, 2), strict("d", three, 2)), over(0), over(0))
		strictly(t, s, true, ops(strict("d", three, 2), strict("d", perMinute(4), 2)), over(0), used(0))
		strictly(t, s, false, ops(strict("d", three, 2), strict("d", three, 1), strict("d", three, 0)), used(3), used(3), used(3))
		// Give-backs in the same step make no room for it.
		strictly(t, s, true, ops(of(store.GiveBack, strict("d", three, 2)), strict("d", three, 1)), used(1), over(1))
	})
	t.Run("tiers", func(t *testing.T) {
		free, pro := limit.Spec{Limit: 10, Headroom: 4, Window: minute}, ten
		strictly(t, s, false, ops(strict("e", pro, 5)), used(5))
		strictly(t, s, true, ops(strict("e", free, 2)), over(5)) // 4 are for others
		strictly(t, s, false, ops(strict("e", pro, 5)), used(10))
		strictly(t, s, false, ops(strict("e", perMinute(11), 1)), used(11)) // raised: at once
		out := apply(t, s, strict("e", five, 0))                            // lowered: remaining below 0
		if r := out.Results[0]; !r.Refused || r.Remaining != -6 {
			t.Errorf("after lowering: %+v", r)
		}
	})
	t.Run("owners", func(t *testing.T) {
		owned := func(owner, bucket string, amount int64) store.Op {
			return with(strict(bucket, ten, amount), func(o *store.Op) { o.Owner = []byte(owner) })
		}
		strictly(t, s, false, ops(owned("u", "xy", 1), owned("ux", "y", 2), owned("", "uxy", 3)), used(1), used(2), used(3))
		strictly(t, s, false, ops(owned("u", "xy", 0), owned("ux", "y", 0), owned("", "uxy", 0)), used(1), used(2), used(3))
	})
	t.Run("near 2^53", func(t *testing.T) {
		most, less := perMinute(limit.MaxAmount), perMinute(limit.MaxAmount-1)
		strictly(t, s, true, ops(strict("f", less, limit.MaxAmount)), over(0))
		strictly(t, s, true, ops(strict("f", less, limit.MaxAmount), strict("f", most, limit.MaxAmount)), over(0), used(0))
		strictly(t, s, false, ops(strict("f", most, limit.MaxAmount)), used(limit.MaxAmount))
		strictly(t, s, false, ops(of(store.Record, strict("f", most, limit.MaxAmount))), used(limit.MaxAmount))
	})
}

// testVerdicts: how the verdicts of limits form the overall one, in both manners.
func testVerdicts(t *testing.T, open Open) {
	testOverall(t, open, limit.Strict)
}

func testOverall(t *testing.T, open Open, manner limit.Manner) {
	full, room := perMinute(0), perMinute(100)
	for _, c := range []struct {
		name    string
		step    store.Step
		refused bool
	}{
		{"nothing to judge", store.Step{}, false},
		{"one refuses", store.Step{Ops: ops(charge("a", room, 1), charge("b", full, 1))}, true},
		{"a shadow refuses", store.Step{Ops: ops(charge("a", room, 1), asShadow(charge("b", full, 1)))}, false},
		{"the whole step is in shadow", store.Step{Shadow: true, Ops: ops(charge("b", full, 1))}, false},
		{"one quota of two is spent", store.Step{Ops: ops(asQuota(charge("a", room, 1)), asQuota(charge("b", full, 1)))}, false},
		{"all quotas are spent", store.Step{Ops: ops(asQuota(charge("a", full, 1)), asQuota(charge("b", full, 1)))}, true},
		{"one quota alone is spent", store.Step{Ops: ops(asQuota(charge("a", full, 1)))}, true},
		{"all quotas are spent, another is open", store.Step{QuotaOpen: true, Ops: ops(asQuota(charge("a", full, 1)))}, false},
		{"a limit refuses beside an open quota", store.Step{Ops: ops(asQuota(charge("a", room, 1)), charge("b", full, 1))}, true},
		{"the only quota is spent beside a limit with room", store.Step{Ops: ops(asQuota(charge("a", full, 1)), charge("b", room, 1))}, true},
		{"a spent quota in shadow counts as open", store.Step{Ops: ops(asQuota(charge("a", full, 1)), asShadow(asQuota(charge("b", full, 1))))}, false},
		{"a give-back to a quota counts as open", store.Step{Ops: ops(asQuota(charge("a", full, 1)), asQuota(giveBack("b", full, 1)))}, false},
	} {
		s := open(t, NewClock(noon))
		step := c.step
		for i := range step.Ops {
			step.Ops[i].Manner = manner
		}
		out := applyStep(t, s, &step)
		if out.Refused != c.refused {
			t.Errorf("%s: refused = %v, want %v", c.name, out.Refused, c.refused)
		}
		for i, r := range out.Results {
			want := step.Ops[i].Amount
			if step.Ops[i].Kind == store.GiveBack || manner == limit.Strict && c.refused {
				want = 0
			}
			if r.Used != want {
				t.Errorf("%s: op %d used %d, want %d", c.name, i, r.Used, want)
			}
		}
	}
}
