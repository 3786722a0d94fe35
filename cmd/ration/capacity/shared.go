package capacity

import (
	"cmp"
	"math/big"
	"slices"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/policy"
)

// Verdict says whether there is room.
type Verdict uint8

// The verdicts, from good to bad.
const (
	Fits       Verdict = iota // twice as much would fit
	Tight                     // it fits, and twice as much would not
	DoesNotFit                // some are refused, or wait
)

// Row is one limit that all share, for the tiers that may use equally much of it.
type Row struct {
	Limit    *policy.Limit
	Quantity *policy.Quantity // what it allows them
	// Groups are whose calls count here: of tiers with this ceiling, and of those with a higher one, which those below
	// cannot keep out. The last of them have this ceiling.
	Groups []*Group
	// Room is the ceiling, and Peak what comes, both in units of the meter per window or period of the limit: what comes in the
	// time over which the limit evens out, as if it came steadily. Of concurrency they are places.
	Room, Peak *big.Rat
	// Most is Peak where all users do at the same time what their own limits let them; nil: anything.
	Most *big.Rat
	// Asked is what one call asks for that is never let through, for want of room or as too large; 0: each call would fit alone.
	Asked int64
	// Unpriced is the model that is refused, since it has no price; empty: none.
	Unpriced string
	Verdict  Verdict

	all bool // all calls that the limit counts count in this row
}

// share says what part of the room is taken; nil where there is none.
func (r *Row) share() *big.Rat {
	if r.Room.Sign() == 0 {
		return nil
	}
	return over(r.Peak, r.Room)
}

// Percent returns what part of the room is taken, in percent, rounded up; false where there is no room.
func (r *Row) Percent() (int64, bool) {
	share := r.share()
	if share == nil {
		return 0, false
	}
	return Up(times(share, whole(100))), true
}

// judge fills in the verdict.
func (r *Row) judge() {
	switch {
	case r.Asked > 0, r.Unpriced != "", r.Peak.Cmp(r.Room) > 0:
		r.Verdict = DoesNotFit
	case plus(r.Peak, r.Peak).Cmp(r.Room) > 0:
		r.Verdict = Tight
	}
}

// callsIn returns how many calls a group makes at most in a time; nil: any number.
type callsIn func(g *Group, span limit.Micros) *big.Rat

// used returns what the calls of a time use of a limit, and asked what they ask for. Of concurrency both are how many calls
// are under way at once: so many as come while one lasts. nil: there is no end of it.
func (p *Plan) used(l *policy.Limit, groups []*Group, span limit.Micros, calls callsIn) (used, asked *big.Rat) {
	if l.Meter == policy.InFlight {
		span = p.Duration
	}
	used, asked = whole(0), whole(0)
	for _, g := range groups {
		n := calls(g, span)
		if n == nil {
			return nil, nil
		}
		uses, asks, _ := p.amounts(l.Meter, g)
		if l.CountAsked {
			uses = asks
		}
		used, asked = plus(used, times(n, whole(uses))), plus(asked, times(n, whole(asks)))
	}
	return used, asked
}

// step is the groups with one ceiling, and what is judged of them.
type step struct {
	spec  *limit.Spec
	own   []*Group // with this ceiling
	from  []*Group // with this ceiling or a higher one; those with this one are the last
	below int64    // the ceiling of the step below
}

// steps sorts groups by how much they may use of a limit, from the highest ceiling down. Who is not limited is in none.
func steps(l *policy.Limit, groups []*Group) []step {
	groups = slices.DeleteFunc(slices.Clone(groups), func(g *Group) bool { return l.For(g.Tier) == nil })
	ceiling := func(g *Group) int64 { return l.For(g.Tier).Spec.Ceiling() }
	slices.SortStableFunc(groups, func(a, b *Group) int { return cmp.Compare(ceiling(b), ceiling(a)) })
	var all []step
	for end := 1; end <= len(groups); end++ {
		if end < len(groups) && ceiling(groups[end]) == ceiling(groups[end-1]) {
			continue
		}
		s := step{spec: &l.For(groups[end-1].Tier).Spec, from: groups[:end], own: groups[:end]}
		if n := len(all); n > 0 {
			s.own = groups[len(all[n-1].from):end]
			all[n-1].below = ceiling(groups[end-1])
		}
		all = append(all, s)
	}
	return all
}

// room returns what there is for a step per window, or of places.
func (s *step) room() *big.Rat {
	if s.spec.Algorithm == limit.TokenBucket {
		return whole(s.spec.Limit)
	}
	return whole(s.spec.Ceiling())
}

// peaks returns what comes to each step in the unit of its room; nil: there is no end of it.
//
// Tiers with higher ceilings are judged without those below, which leave them room:
//
//   - A window of the length W has room for c units of tiers with the ceiling c. Those below have used f of it at most,
//     what they want or what their own ceilings let them. It is enough if f + demand(W) ≤ c, where demand is what calls
//     use, and beside it what those under way hold and will not use. Places are a window without a length.
//   - A bucket of rate N/W has room for those with the ceiling c above the ceiling b of those below, and drains for them
//     alone while it is fuller. It is enough if demand(τ) ≤ c − b for the time τ = (c − b) × W/N in which that drains:
//     in a longer time δ at most demand(τ) × ⌈δ/τ⌉ come, and c − b + δ × N/W go in. With holds it is enough if what is
//     used in the busiest minute drains in it, and if there is room for all that is asked for while one call lasts. Or it
//     is enough for those below, together with these.
//
// Within a minute calls are taken to come steadily.
func (p *Plan) peaks(l *policy.Limit, all []step, calls callsIn) []*big.Rat {
	peaks := make([]*big.Rat, len(all))
	full := whole(0) // what those below use at most
	for i := len(all) - 1; i >= 0; i-- {
		s := &all[i]
		if s.spec.Algorithm == limit.TokenBucket {
			peaks[i] = p.bucketPeak(l, s, calls)
			if lower := i + 1; lower < len(all) && peaks[lower] != nil {
				peaks[i] = leastOf(peaks[i], peaks[lower]) // their room is the same rate
			}
			continue
		}
		per, span := whole(1), p.Duration
		if window := windowOf(s.spec); window > 0 {
			span = max(Minute, window)
			per = ratio(span, window)
		}
		demand := func(groups []*Group) *big.Rat {
			used, _ := p.used(l, groups, span, calls)
			if used == nil {
				return nil
			}
			uses, asks := p.used(l, groups, min(span, p.Duration), calls)
			return over(plus(used, minus(asks, uses)), per)
		}
		if peaks[i] = demand(s.from); peaks[i] != nil {
			peaks[i] = plus(peaks[i], full)
		}
		full = leastOf(whole(s.spec.Ceiling()), plusOf(full, demand(s.own)))
	}
	return peaks
}

// bucketPeak returns what comes to a bucket, for a step alone, per window.
func (p *Plan) bucketPeak(l *policy.Limit, s *step, calls callsIn) *big.Rat {
	_, asked := p.used(l, s.from, p.Duration, calls)
	if asked == nil {
		return nil
	}
	uses, _ := p.used(l, s.from, p.Duration, calls)
	depth, rate := whole(s.spec.Ceiling()-s.below), ratio(s.spec.Limit, int64(s.spec.Window)) // per microsecond
	span := Minute
	if s.spec.Limit > 0 && asked.Cmp(uses) == 0 {
		span = max(span, limit.Micros(Down(over(depth, rate))))
	}
	used, _ := p.used(l, s.from, span, calls)
	peak := over(used, ratio(span, s.spec.Window))
	if asked.Cmp(uses) > 0 {
		goesIn := plus(depth, times(rate, whole(int64(p.Duration))))
		if goesIn.Sign() > 0 {
			peak = largest(peak, over(times(asked, whole(s.spec.Limit)), goesIn))
		}
	}
	return peak
}

// rows judges one limit that all of the groups share, from the highest ceiling down.
func (p *Plan) rows(l *policy.Limit, groups []*Group, most callsIn) []Row {
	all := steps(l, groups)
	peaks, mosts := p.peaks(l, all, p.Calls), p.peaks(l, all, most)
	rows := make([]Row, len(all))
	for i := range all {
		s := &all[i]
		r := Row{Limit: l, Groups: s.from, Room: s.room(), Peak: peaks[i], Most: mosts[i], all: i == len(all)-1}
		for _, g := range s.own {
			r.Quantity = l.For(g.Tier)
			_, asked, priced := p.amounts(l.Meter, g)
			if !priced {
				r.Unpriced = g.Model
			}
			if tooLarge(l, r.Quantity, asked) {
				r.Asked = max(r.Asked, asked)
			}
		}
		r.judge()
		rows[i] = r
	}
	return rows
}
