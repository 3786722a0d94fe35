package engine

import (
	"slices"
	"time"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/price"
)

// tokenClasses are those of which a price is known.
const tokenClasses = 1<<inputTokens | 1<<cacheRead | 1<<cacheWrite | 1<<outputTokens | 1<<tokens

// addMoney adds to d what the descriptors cost that have the entries of the first one, and that count: all of a
// model together, so that it is rounded up once. Of a model without a price it is noted that it has none.
func (s *scratch) addMoney(domain *policy.Domain, first int, counts func(*asked) bool, d *demand) {
	book := domain.Prices()
	if book == nil {
		return
	}
	same := func(i int) bool {
		return counts(&s.asked[i]) && slices.Equal(s.asked[i].entries, s.asked[first].entries)
	}
	for i := first; i < len(s.asked); i++ {
		model := s.asked[i].model
		if model == "" || !same(i) || s.sameModel(first, i, same) {
			continue
		}
		var of demand
		for j := i; j < len(s.asked); j++ {
			if same(j) && s.asked[j].model == model {
				of.add(&s.asked[j])
			}
		}
		rates, known := s.ratesOf(domain, model)
		if !known {
			d.unpriced, d.book = model, book
			continue
		}
		if rates == (price.Rates{}) {
			d.free = true
		} else {
			d.paid = true
		}
		d.charge.addCost(rates, &of.charge)
		d.hold.addCost(rates, &of.hold)
		d.record.addCost(rates, &of.record)
		d.giveBack.addCost(rates, &of.giveBack)
	}
}

// Price is what a call is charged by.
type Price struct {
	price.Quote
	// Known says that money is limited, and the call has a price, be it that it costs nothing.
	Known bool
	// Assumed says that the book has no price for the model, and the policy wants the dearest.
	Assumed bool
}

// priceOf returns the price of a model at an instant, as the domain wants it for one that is not in its book, or that
// nobody names. unknown says that it is not, and has no price.
func priceOf(domain *policy.Domain, model string, at time.Time) (p Price, unknown bool) {
	book := domain.Prices()
	if book == nil {
		return Price{}, false
	}
	if quote, known := book.Find(model, at); known {
		return Price{Quote: quote, Known: true}, false
	}
	p.Version = book.Version()
	switch domain.UnknownModel() {
	case policy.UnknownModelAssumeMax:
		p.Rates, p.Known, p.Assumed = book.Dearest(at), true, true
		return p, false
	case policy.UnknownModelAllow:
		p.Known = true
	default:
	}
	return p, true
}

// sameModel reports whether a descriptor from first to before i has the same model.
func (s *scratch) sameModel(first, i int, same func(int) bool) bool {
	for j := first; j < i; j++ {
		if same(j) && s.asked[j].model == s.asked[i].model {
			return true
		}
	}
	return false
}

// ratesOf returns the prices of a model, and false where it has none and is not to be let through.
func (s *scratch) ratesOf(domain *policy.Domain, model string) (price.Rates, bool) {
	p, unknown := priceOf(domain, model, s.now)
	if unknown && !slices.Contains(s.unknownModels, model) {
		s.unknownModels = append(s.unknownModels, model)
	}
	return p.Rates, p.Known
}

// addCost adds what the tokens of a usage cost.
func (u *usage) addCost(r price.Rates, of *usage) {
	if of.asked&tokenClasses == 0 {
		return
	}
	u.add(money, int64(r.Cost(of.tokens(r, tokenClasses))))
	u.moneyBefore = limit.Add(u.moneyBefore, int64(r.Cost(of.tokens(r, tokenClasses&knownBefore))))
}

// tokens returns those of some classes. Tokens of no known class are of the dearest.
func (u *usage) tokens(r price.Rates, classes uint8) price.Usage {
	var all price.Usage
	dearest, of := price.Rate(0), &all.Input
	for _, c := range [...]struct {
		class class
		rate  price.Rate
		sum   *int64
	}{
		{inputTokens, r.Input, &all.Input}, {cacheRead, r.CacheRead, &all.CacheRead},
		{cacheWrite, r.CacheWrite, &all.CacheWrite}, {outputTokens, r.Output, &all.Output},
	} {
		if classes&(1<<c.class) != 0 {
			*c.sum = u.amounts[c.class]
		}
		if c.rate > dearest {
			dearest, of = c.rate, c.sum
		}
	}
	if classes&(1<<tokens) != 0 {
		*of = limit.Add(*of, u.amounts[tokens])
	}
	return all
}

// everything counts all descriptors.
func everything(*asked) bool { return true }
