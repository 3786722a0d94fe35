package policy

import (
	"fmt"
	"strings"
	"time"

	"github.com/rationhq/ration/price"
)

// maxPrices bounds the prices of a policy: to find the dearest of each day takes time by the square of their number.
const maxPrices = 10_000

// addPrices collects the prices that a file adds to its domain.
func (c *compiler) addPrices(dr *draft, e *pricesEntry) {
	switch {
	case e == nil:
		return
	case dr.prices == nil:
		dr.prices = e
		return
	}
	once(c, &dr.prices.book, e.book, "book")
	once(c, &dr.prices.unknownModel, e.unknownModel, "unknown_model")
	dr.prices.models = append(dr.prices.models, e.models...)
}

// once takes over what a further file says, which must not be something else than what was said before.
func once[T comparable](c *compiler, said *field[T], again field[T], name string) {
	switch {
	case !again.given:
	case said.given && said.value != again.value:
		c.rep.error(again.at, "`%s` is %s at %s: it is said once for the domain", name, clip(fmt.Sprint(said.value)), said.at)
	default:
		*said = again
	}
}

// prices compiles the prices of a domain whose limits are there.
func (c *compiler) prices(dr *draft) {
	d := dr.domain
	if dr.prices == nil {
		at, needed := d.pricedAt()
		if !needed {
			return
		}
		dr.prices = &pricesEntry{at: at}
	}
	e, before := dr.prices, c.rep.errors
	p := prices{at: e.at, unknownAt: e.unknownModel.at}
	switch book := e.book; {
	case !book.given || book.value == "builtin":
		p.shipped = true
	case book.value != "none":
		c.unknownWord(book, "book", []string{"builtin", "none"})
	}
	if unknown := e.unknownModel; unknown.given {
		var ok bool
		if p.unknown, ok = named[UnknownModel](unknownModelNames[:], unknown.value); !ok {
			c.unknownWord(unknown, "unknown_model", unknownModelNames[:])
		}
	}
	var own []price.Model
	seen := map[string]*modelEntry{}
	for _, m := range e.models {
		key := strings.ToLower(m.name.value)
		switch first := seen[key]; {
		case key == "":
			c.rep.error(m.name.at, "a price has no model: write its name, or `*` for all others")
		case first != nil:
			c.rep.error(m.name.at, "model %s has prices at %s already: names are compared in lower case, "+
				"and prices from several days on are a list", quote(m.name.value), first.name.at)
		default:
			seen[key] = m
			p.own++
			own = c.model(own, m)
		}
	}
	if c.rep.errors > before {
		return
	}
	var base *price.Book
	if p.shipped {
		base, c.shipped = price.Builtin(), true
	}
	var err error
	if p.book, err = price.NewBook(own, base); err != nil {
		c.rep.error(e.at, "`prices`: %v", err)
	}
	d.prices = p
	c.cachePrices(e.models)
}

// model adds the prices of a model.
func (c *compiler) model(all []price.Model, m *modelEntry) []price.Model {
	if c.priced += len(m.prices); c.priced > maxPrices {
		c.rep.error(place{file: m.name.at.file}, "there are more than %d prices: `ration prices import` takes the names of "+
			"those that are wanted", maxPrices)
		return all
	}
	days := map[time.Time]place{}
	for _, p := range m.prices {
		for _, f := range []struct {
			name string
			rate field[price.Rate]
		}{{"input", p.input}, {"output", p.output}} {
			if !f.rate.given && !p.broken {
				c.rep.error(p.at, "model %s has no `%s` price: write it in dollars per million tokens, or 0 where it is free",
					quote(m.name.value), f.name)
			}
		}
		if first, twice := days[p.from.value]; twice && !p.broken {
			c.rep.error(p.at, "model %s has a price from the same day on at %s already: write from when this one counts, as from: 2026-01-31",
				quote(m.name.value), first)
		}
		days[p.from.value] = p.at
		all = append(all, price.Model{
			Name: m.name.value, From: p.from.value, MaxOutput: p.maxOutput.value,
			Rates: price.Rates{
				Input: p.input.value, Output: p.output.value, CacheRead: p.cacheRead.value, CacheWrite: p.cacheWrite.value,
			},
			HasCacheRead: p.cacheRead.given, HasCacheWrite: p.cacheWrite.given,
		})
	}
	return all
}

// cachePrices warns of models whose cache prices are taken to be the input price.
func (c *compiler) cachePrices(models []*modelEntry) {
	const most = 5 // that are named
	var more []place
	for _, m := range models {
		for _, p := range m.prices {
			var missing []string
			if !p.cacheRead.given {
				missing = append(missing, "`cache_read`")
			}
			if !p.cacheWrite.given {
				missing = append(missing, "`cache_write`")
			}
			if len(missing) == 0 {
				continue
			}
			if more = append(more, p.at); len(more) <= most {
				c.rep.warn(p.at, "model %s has no price of %s, so %s counted as input: write the input price if that is meant",
					quote(m.name.value), enumerate(missing), map[int]string{1: "it is", 2: "they are"}[len(missing)])
			}
		}
	}
	if n := len(more) - most; n > 0 {
		c.rep.warn(more[most], "%s more from here on without a price of cache reads or writes: they are counted as input", count(uint64(n), "price"))
	}
}
