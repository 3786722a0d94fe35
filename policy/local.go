package policy

import (
	"math/bits"

	"github.com/rationhq/ration/limit"
)

// defaultLocalShare is what each process may admit by itself of a limit with `on_store_error: local`
// that says no `local_share`: with ten replicas, the whole limit once more.
const defaultLocalShare = Whole / 10

// localSpec returns what admits that share of s, each quantity rounded down. A token bucket keeps its
// rate in units and takes longer for them, so that a slow one still drains.
func localSpec(s limit.Spec, share Share) limit.Spec {
	local := s
	if s.Algorithm == limit.TokenBucket {
		local.Burst = share.Of(s.Burst)
		local.Headroom = local.Burst - share.Of(max(0, s.Burst-s.Headroom))
		high, low := bits.Mul64(uint64(s.Window), uint64(Whole))
		local.Window = limit.Micros(limit.MaxAmount)
		if high < uint64(share) {
			if window, rest := bits.Div64(high, low, uint64(share)); window < uint64(limit.MaxAmount) {
				local.Window = limit.Micros(window) + limit.Micros(min(rest, 1)) // longer rather than faster
			}
		}
		return local
	}
	local.Limit = share.Of(s.Limit)
	local.Headroom = local.Limit - share.Of(s.Ceiling())
	return local
}

// judgeLocal warns of a share in which nothing fits.
func (ld *limitDraft) judgeLocal(q *Quantity, at place) {
	if q.Local.Ceiling() > 0 || q.Spec.Ceiling() == 0 {
		return
	}
	if ld.entry.localShare.given {
		at = ld.entry.localShare.at
	}
	ld.warn(at, "%v of %s is less than 1, so nothing is admitted while the store cannot decide: "+
		"write a larger `local_share`, or `on_store_error: deny`", ld.limit.LocalShare, ld.limit.Meter.Number(q.Spec.Ceiling()))
}
