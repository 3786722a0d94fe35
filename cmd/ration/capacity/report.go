package capacity

import (
	"math/big"
	"slices"
	"time"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/policy"
)

// Report is what is found of a plan.
type Report struct {
	// Calls is how many calls come in the busiest minute, CallsPerHour in the busy hour, both of all together.
	Calls, CallsPerHour *big.Rat
	// Rows are the limits that all share: of upstreams, of the lanes before them, and of the whole domain.
	Rows []Row
	// Verdict is the worst of all that refuse.
	Verdict Verdict
	// Binds is the row that is full first as users become more, nil if nothing binds; and Users is how many users, of all
	// tiers in the plan's proportion, fit with all that they do.
	Binds *Row
	Users int64
	// Waits is how long the last of those waits for whom that limit has no room. NextPeriod says instead that it is a
	// budget of more than an hour, and has room again in its next window or period.
	Waits      time.Duration
	NextPeriod bool
	// Bills is what each group costs, in the order of the plan.
	Bills []Bill
	// Held are the groups whose own limits keep them from what is planned.
	Held []Held
	// Without are models that no upstream serves, where there are upstreams.
	Without []string
}

// Bill is what a group's calls cost.
type Bill struct {
	Group *Group
	// Hour is of the busy hour, Day of a day, and Month of one of 31 days, in nano-dollars; nil: the model has no price.
	Hour, Day, Month *big.Rat
}

// Judge compares a plan with the limits of its domain.
func (p *Plan) Judge() (*Report, error) {
	report := &Report{Calls: whole(0), CallsPerHour: whole(0)}
	own := map[*Group][]allowance{}
	var everybody []*Group
	for i := range p.Groups {
		g := &p.Groups[i]
		everybody = append(everybody, g)
		allowed, err := p.own(g)
		if err != nil {
			return nil, err
		}
		own[g] = allowed
		report.Calls = plus(report.Calls, p.Calls(g, Minute))
		report.CallsPerHour = plus(report.CallsPerHour, p.Calls(g, Hour))
		report.Bills = append(report.Bills, p.bill(g))
		if h := p.held(g, allowed); h != nil {
			report.Held = append(report.Held, *h)
		}
	}
	most := func(g *Group, span limit.Micros) *big.Rat { return p.most(g, own[g], span) }
	add := func(limits []*policy.Limit, groups []*Group) {
		for _, l := range limits {
			report.Rows = append(report.Rows, p.rows(l, groups, most)...)
		}
	}
	served, without := p.upstreams(everybody)
	report.Without = without
	for _, u := range p.Domain.Upstreams() {
		if len(served[u]) == 0 {
			continue
		}
		add(u.Limits(), served[u])
		for _, lane := range p.Domain.Lanes() {
			if lane.Upstream == u {
				add(lane.Limits(), served[u])
			}
		}
	}
	add(p.Domain.Root().Limits, everybody)
	p.conclude(report)
	return report, nil
}

// upstreams returns whose models each upstream serves, and the models that none does.
func (p *Plan) upstreams(groups []*Group) (served map[*policy.Upstream][]*Group, without []string) {
	served = map[*policy.Upstream][]*Group{}
	for _, g := range groups {
		u := p.Domain.Upstream(g.Model)
		if u == nil {
			if len(p.Domain.Upstreams()) > 0 && !slices.Contains(without, g.Model) {
				without = append(without, g.Model)
			}
			continue
		}
		served[u] = append(served[u], g)
	}
	return served, without
}

// conclude says what the rows mean together.
func (p *Plan) conclude(report *Report) {
	for i := range report.Rows {
		r := &report.Rows[i]
		if r.Limit.Shadow {
			continue
		}
		report.Verdict = max(report.Verdict, r.Verdict)
		// A row of some tiers is never fuller than that of all together.
		if r.all && fuller(r, report.Binds) {
			report.Binds = r
		}
	}
	binds := report.Binds
	if binds == nil {
		return
	}
	if binds.Possible() {
		report.Users = Down(over(whole(p.Users()), binds.share()))
	}
	if binds.Verdict == DoesNotFit && binds.Possible() {
		report.Waits, report.NextPeriod = p.wait(binds)
	}
}

// Possible says that with fewer users there is room: that calls are let through at all.
func (r *Row) Possible() bool { return r.Asked == 0 && r.Unpriced == "" && r.Room.Sign() > 0 }

// fuller says that a is full before b, which may be nil, as users become more. What nothing comes to is never full.
func fuller(a, b *Row) bool {
	switch {
	case a.Peak.Sign() == 0 && a.Possible():
		return false
	case b == nil:
		return true
	case !a.Possible() || !b.Possible():
		return b.Possible()
	}
	return a.share().Cmp(b.share()) > 0
}

// wait returns how long the last of those waits whom there is no room for: after the busiest minute, or after the busy hour,
// whichever is longer. nextPeriod is as in [Report].
func (p *Plan) wait(r *Row) (longest time.Duration, nextPeriod bool) {
	s := &r.Quantity.Spec
	window := windowOf(s)
	if s.Algorithm == limit.Concurrency {
		window = p.Duration // a place serves one call in that time
	}
	if s.Algorithm != limit.TokenBucket && window > Hour {
		return 0, true
	}
	for _, span := range []limit.Micros{Minute, Hour} {
		needed := whole(0)
		for _, g := range r.Groups {
			used, asked, _ := p.amounts(r.Limit.Meter, g)
			if r.Limit.CountAsked {
				used = asked
			}
			needed = plus(needed, times(p.Calls(g, span), whole(used)))
		}
		takes := over(times(needed, whole(int64(window))), r.Room)
		if beyond := minus(takes, whole(int64(span))); beyond.Sign() > 0 {
			longest = max(longest, limit.Micros(Up(beyond)).Duration())
		}
	}
	return longest, false
}

// bill says what a group's calls cost.
func (p *Plan) bill(g *Group) Bill {
	b := Bill{Group: g}
	if each, _, ok := p.amounts(policy.Cost, g); ok {
		cost := func(span limit.Micros) *big.Rat { return times(p.Calls(g, span), whole(each)) }
		b.Hour, b.Day, b.Month = cost(Hour), cost(Day), cost(Month)
	}
	return b
}
