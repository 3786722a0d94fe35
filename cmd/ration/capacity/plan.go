package capacity

import (
	"math/big"
	"time"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/price"
)

// Plan is who will call, how much and when.
//
// Of the day it says four things, and of any length of time follows from them how many calls come in it at most:
//
//	calls(δ) = min(Peak × C × δ, C × max(1, δ), C × Hours × max(1, δ/24))    δ in hours, C calls in the busy hour
//
// No minute has more than Peak times the calls of the hour's average one, no hour more than the busy one, no day more than
// Hours of these. It grows with δ, and is never more than that of two parts of δ together, which the bounds rely on.
type Plan struct {
	Domain *policy.Domain
	// Groups are the users, at least one group, each a tier at most once.
	Groups []Group
	// Peak is how many times the average minute of the busy hour its busiest minute is, 1…60.
	Peak *big.Rat
	// Hours is how many busy hours a day is worth, 1…24.
	Hours *big.Rat
	// Duration is how long a call takes; above 0.
	Duration limit.Micros
	// Now is when prices are asked for.
	Now time.Time
}

// Group is the users of one tier. All of them are there in the busy hour, and are alike.
type Group struct {
	// Tier is the index of the tier in [policy.Domain.Tiers]; 0 where the domain has none.
	Tier int
	// Users is how many they are, at least 1.
	Users int64
	// Calls is how many calls each makes in the busy hour, not below 0.
	Calls *big.Rat
	// Model is what they call.
	Model string
	// Input and Output are the tokens of one call, and MaxOutput, which is not below Output, for how much output it
	// asks: that is what it holds while it is under way.
	Input, Output, MaxOutput int64
}

// Lengths of time. Months and years are the longest that there are.
const (
	Minute = 60 * limit.Second
	Hour   = 60 * Minute
	Day    = 24 * Hour
	Month  = 31 * Day
)

// lengths of the periods of a calendar.
var lengths = [...]limit.Micros{
	limit.PerMinute: Minute, limit.PerHour: Hour, limit.PerDay: Day, limit.PerWeek: 7 * Day, limit.PerMonth: Month,
	limit.PerYear: 366 * Day,
}

// windowOf returns the length of a limit's window or period; 0 of places.
func windowOf(s *limit.Spec) limit.Micros {
	if s.Calendar != nil {
		return lengths[s.Calendar.Period]
	}
	return s.Window
}

// Calls returns how many calls a group makes at most in any time of a length.
func (p *Plan) Calls(g *Group, span limit.Micros) *big.Rat {
	hourly := times(whole(g.Users), g.Calls)
	hours := ratio(span, Hour)
	most := times(hourly, p.Peak, hours)
	most = least(most, times(hourly, atLeastOne(hours)))
	return least(most, times(hourly, p.Hours, atLeastOne(ratio(span, Day))))
}

// Users returns how many there are in all groups.
func (p *Plan) Users() int64 {
	var all int64
	for i := range p.Groups {
		all += p.Groups[i].Users
	}
	return all
}

// ratesOf returns what a model costs; false if the plan's domain refuses it where money is limited, for want of a price.
func (p *Plan) ratesOf(model string) (price.Rates, bool) {
	book := p.Domain.Prices()
	if book == nil {
		book = price.Builtin() // nothing of the domain limits money: the price is for the bill
	}
	if q, ok := book.Find(model, p.Now); ok {
		return q.Rates, true
	}
	if p.Domain.Prices() == nil {
		return price.Rates{}, false
	}
	switch p.Domain.UnknownModel() {
	case policy.UnknownModelAssumeMax:
		return book.Dearest(p.Now), true
	case policy.UnknownModelAllow:
		return price.Rates{}, true
	default:
		return price.Rates{}, false
	}
}

// amounts returns what one call of a group uses of a meter, and what it asks for while it is under way. false if that has
// no price.
func (p *Plan) amounts(m policy.Meter, g *Group) (used, asked int64, ok bool) {
	switch m {
	case policy.InputTokens:
		return g.Input, g.Input, true
	case policy.OutputTokens:
		return g.Output, g.MaxOutput, true
	case policy.Tokens:
		return limit.Add(g.Input, g.Output), limit.Add(g.Input, g.MaxOutput), true
	case policy.Cost:
		rates, ok := p.ratesOf(g.Model)
		used := rates.Cost(price.Usage{Input: g.Input, Output: g.Output})
		return int64(used), int64(rates.Cost(price.Usage{Input: g.Input, Output: g.MaxOutput})), ok
	default:
		return 1, 1, true // a request, or a place
	}
}
