package engine

import (
	"slices"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/price"
	"github.com/rationhq/ration/store"
)

// class is what the hits of a descriptor count. The four classes of tokens are disjoint; tokens
// stands for all of them where a caller does not know the parts.
type class uint8

const (
	requests class = iota
	inputTokens
	cacheRead
	cacheWrite
	outputTokens
	tokens
	money // nano-dollars: what tokens cost, which no caller says
	classes
)

func classNamed(name string) class {
	switch name {
	case "requests":
		return requests
	case "input_tokens":
		return inputTokens
	case "cache_read":
		return cacheRead
	case "cache_write":
		return cacheWrite
	case "output_tokens":
		return outputTokens
	case "tokens":
		return tokens
	}
	return classes
}

// usage is how much of each class.
type usage struct {
	amounts [classes]int64
	asked   uint8 // a bit for each class that was named, be it with 0
	// moneyBefore is the part of money that is known before the model has answered.
	moneyBefore int64
}

func (u *usage) add(c class, amount int64) {
	u.amounts[c] = limit.Add(u.amounts[c], amount)
	u.asked |= 1 << c
}

// atLeast raises every class to what it is in other.
func (u *usage) atLeast(other *usage) {
	for c := range u.amounts {
		u.amounts[c] = max(u.amounts[c], other.amounts[c])
	}
	u.asked |= other.asked
	u.moneyBefore = max(u.moneyBefore, other.moneyBefore)
}

// measure is a sum of classes that a limit may count. Holds are settled by it.
type measure uint8

const (
	ofRequests measure = iota
	ofInput
	ofInputAndCacheRead
	ofOutput
	ofTokens
	ofCost
	ofPlaces     // of concurrency: nothing is used up
	ofDescriptor // what a descriptor has held, which is its own to report
	ofAsked      // what nobody reports, since what was asked for counts
	measures
)

// counted lists the classes of each measure, as bits.
var counted = [measures]uint8{
	ofRequests:          1 << requests,
	ofInput:             1<<inputTokens | 1<<cacheWrite,
	ofInputAndCacheRead: 1<<inputTokens | 1<<cacheWrite | 1<<cacheRead,
	ofOutput:            1 << outputTokens,
	ofTokens:            1<<inputTokens | 1<<cacheWrite | 1<<cacheRead | 1<<outputTokens | 1<<tokens,
	ofCost:              1 << money,
}

// knownBefore are the classes that a caller knows before the model has answered.
const knownBefore = 1<<requests | 1<<inputTokens | 1<<cacheRead | 1<<cacheWrite | 1<<tokens

// measureOf returns what l counts.
func measureOf(l *policy.Limit) measure {
	switch l.Meter {
	case policy.InputTokens:
		if l.CountCacheRead {
			return ofInputAndCacheRead
		}
		return ofInput
	case policy.OutputTokens:
		return ofOutput
	case policy.Tokens:
		return ofTokens
	case policy.Cost:
		return ofCost
	case policy.InFlight:
		return ofPlaces
	default:
		return ofRequests
	}
}

// of returns how much m counts of u, and whether u names anything of it.
func (u *usage) of(m measure) (amount int64, asked bool) {
	return u.sum(counted[m]), u.asked&counted[m] != 0
}

func (u *usage) sum(classes uint8) (amount int64) {
	for c := range u.amounts {
		if classes&(1<<c) != 0 {
			amount = limit.Add(amount, u.amounts[c])
		}
	}
	return amount
}

// settled returns how much of each measure was used, or that nobody has said.
func (u *usage) settled() (all [measures]int64) {
	for m := range all {
		amount, asked := u.of(measure(m))
		if all[m] = amount; !asked {
			all[m] = store.Unknown
		}
	}
	return all
}

// demand is what is asked of the limits at one place.
type demand struct {
	charge, hold, record, giveBack usage
	reserved                       bool // what is recorded is known to have been held at this place

	unpriced string      // a model that has no price; empty for none
	book     *price.Book // in which it has none
	free     bool        // a model is known to cost nothing
	paid     bool        // a model costs something
}

func (d *demand) add(a *asked) {
	switch {
	case a.isEnd():
	case a.giveBack:
		d.giveBack.add(a.class, a.amount)
	case a.phase == hold:
		d.hold.add(a.class, a.amount)
	case a.phase == record:
		d.record.add(a.class, a.amount)
	default:
		d.charge.add(a.class, a.amount)
	}
}

func (d *demand) atLeast(other *demand) {
	d.charge.atLeast(&other.charge)
	d.hold.atLeast(&other.hold)
	d.record.atLeast(&other.record)
	d.giveBack.atLeast(&other.giveBack)
	if d.unpriced == "" {
		d.unpriced, d.book = other.unpriced, other.book
	}
	d.free = d.free || other.free
	d.paid = d.paid || other.paid
}

// admits says that a request asks to be let through.
func (d *demand) admits() bool { return (d.charge.asked|d.hold.asked)&(1<<requests) != 0 }

// asks says that room is asked for, be it for requests or for tokens.
func (d *demand) asks() bool { return d.charge.asked|d.hold.asked != 0 }

// total returns what the descriptors with that model (any: all) ask for together. Descriptors that
// say the same of whom they are about add up; those that say it of others (the user, and beside it
// the organisation) tell of the same usage, and the largest counts.
func (s *scratch) total(domain *policy.Domain, model string, all bool) (sum demand) {
	counts := func(a *asked) bool { return all || a.model == model }
	for i := range s.asked {
		a := &s.asked[i]
		if !counts(a) || s.saidBefore(i, counts) {
			continue
		}
		var about demand
		for j := i; j < len(s.asked); j++ {
			if other := &s.asked[j]; counts(other) && slices.Equal(other.entries, a.entries) {
				about.add(other)
			}
		}
		s.addMoney(domain, i, counts, &about)
		sum.atLeast(&about)
	}
	return sum
}

// saidBefore reports whether a descriptor before i has the same entries and counts too.
func (s *scratch) saidBefore(i int, counts func(*asked) bool) bool {
	for j := range i {
		if counts(&s.asked[j]) && slices.Equal(s.asked[j].entries, s.asked[i].entries) {
			return true
		}
	}
	return false
}
