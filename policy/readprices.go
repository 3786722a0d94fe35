package policy

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/rationhq/ration/price"
)

func (r *reader) prices(n *yaml.Node) *pricesEntry {
	p := &pricesEntry{at: r.at(n)}
	if isNull(n) {
		return p
	}
	r.object("`prices`", n, inPrices, func(key string, v *yaml.Node) {
		switch key {
		case "book":
			r.ownText(key, v, &p.book)
		case "unknown_model":
			r.ownText(key, v, &p.unknownModel)
		case "models":
			if isNull(v) {
				return
			}
			r.table("`models`", v, func(k *yaml.Node, name string, v *yaml.Node) {
				p.models = append(p.models, r.model(field[string]{name, r.at(k), true}, v))
			})
		}
	})
	return p
}

// model reads the prices of a model: a mapping, or a list of mappings from different days on.
func (r *reader) model(name field[string], n *yaml.Node) *modelEntry {
	m := &modelEntry{name: name}
	switch n.Kind {
	case yaml.MappingNode:
		m.prices = append(m.prices, r.price(n))
	case yaml.SequenceNode:
		r.list(clip(name.value), n, func(n *yaml.Node) { m.prices = append(m.prices, r.price(n)) })
		if len(n.Content) == 0 {
			r.rep.error(r.at(n), "model %s has no price: leave it out, or write it as %s", quote(name.value), pricesInDollars)
		}
	default:
		r.rep.error(r.at(n), "the price of %s must be %s, or a list of such with `from`, not %s",
			quote(name.value), pricesInDollars, describe(n))
	}
	return m
}

// pricesInDollars shows how prices are written.
const pricesInDollars = `{ input: "0.80", output: "4.00" }, in dollars per million tokens`

func (r *reader) price(n *yaml.Node) *priceEntry {
	p := &priceEntry{at: r.at(n)}
	r.object("a price", n, inPrice, func(key string, v *yaml.Node) {
		before := r.rep.errors
		switch key {
		case "from":
			read(r, key, v, &p.from, parseDate)
		case "input":
			read(r, key, v, &p.input, parseRate)
		case "output":
			read(r, key, v, &p.output, parseRate)
		case "cache_read":
			read(r, key, v, &p.cacheRead, parseRate)
		case "cache_write":
			read(r, key, v, &p.cacheWrite, parseRate)
		case "max_output":
			read(r, key, v, &p.maxOutput, parseMaxOutput)
		}
		p.broken = p.broken || r.rep.errors > before
	})
	return p
}

// parseRate reads a price in dollars per million tokens. It takes the text as it is written, so that a plain number of
// YAML is as exact as one in quotes.
func parseRate(s string) (price.Rate, error) {
	switch {
	case strings.HasPrefix(strings.TrimPrefix(s, "$"), "-"):
		return 0, fmt.Errorf("%s is negative: write 0 for what is free", quote(s))
	case len(s) > clipAt:
		return 0, fmt.Errorf("%s is no amount in dollars: write it as 1, 1.50, 0.0028 or 5_000", quote(s))
	}
	return price.ParseRate(s)
}

func parseDate(s string) (time.Time, error) {
	day, err := time.Parse(time.DateOnly, s)
	if err != nil {
		return day, fmt.Errorf("%s is no day: write it as 2026-01-31", quote(s))
	}
	return day, nil
}

func parseMaxOutput(s string) (int64, error) {
	n, err := parseUnits(s)
	if err == nil && n == 0 {
		err = errors.New("a model that writes nothing has no price: leave it out where it is not known")
	}
	return n, err
}
