package price

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/rationhq/ration/limit"
)

// Model is one entry of a book: what a model costs, or all models with names of a kind, from some day on.
type Model struct {
	// Name is the name as callers send it, in whatever case; each * in it stands for any letters, also none.
	Name string
	// From is the instant from which the entry counts; zero means that it always did.
	From time.Time
	// Rates are the prices. A cache price that there is not (HasCacheRead, HasCacheWrite) is the input price.
	Rates
	HasCacheRead, HasCacheWrite bool
	// MaxOutput is the most output tokens that the model writes in one answer; 0 where that is not known.
	MaxOutput int64
	// Unpriced says that the book has no price for these names, although a pattern stands for them: a model that
	// speaks, under a pattern of those that write. To look for one ends here, unknown. It has no rates.
	Unpriced bool
}

// Book is a list of prices. It never changes, and may be used by many at once.
type Book struct {
	own     index
	base    *Book // what is not in own; nil for nothing
	date    time.Time
	version string
	dearest []priced // by class, of all entries of own that count then; the latest first
}

// Quote is what a book says of a model.
type Quote struct {
	Rates
	// Model is the name of the entry that says so, as it is written: an exact name, or a pattern.
	Model string
	// From is the instant from which the entry counts; zero means that it always did.
	From time.Time
	// MaxOutput is the most output tokens that the model writes in one answer; 0 where that is not known.
	MaxOutput int64
	// Version is that of the book that was asked.
	Version string
}

// NewBook returns a book of own, over base where that is not nil. What stands in own wins, also a pattern of own
// over an exact name of base; only where own says nothing of a model's MaxOutput, base is asked.
//
// An entry without a name, two that say something of one name from one instant on, and figures that are not in
// 0…[limit.MaxAmount] are errors.
func NewBook(own []Model, base *Book) (*Book, error) {
	date := time.Time{}
	if base != nil {
		date = base.date
	}
	return newBook(own, base, date)
}

func newBook(own []Model, base *Book, date time.Time) (*Book, error) {
	if err := check(own); err != nil {
		return nil, err
	}
	b := &Book{own: newIndex(own), base: base, date: date}
	b.dearest = dearest(b.own.entries)
	b.version = b.newVersion()
	return b, nil
}

// Find returns what the model costs at an instant. Names are compared in lower case. An exact name wins over a
// pattern, of patterns the one with the longest part before its first star, of several dates the latest that is
// not after the instant.
//
// Where the name as a whole is not in the book, ways to reach a model are taken off its front one by one, if they
// do not change its price: makers, gateways and clouds (anthropic/claude-…, openrouter/…, models/gemini-…), regions
// and makers in ids of Bedrock (us.anthropic.claude-…), paths of resources (projects/…/models/gemini-…, ARNs).
//
// It does not allocate.
func (b *Book) Find(model string, at time.Time) (Quote, bool) {
	var room [longestName]byte
	name, ok := newCalled(model, &room)
	if !ok {
		return Quote{}, false
	}
	for in := b; in != nil; in = in.base {
		e, p := in.own.find(name, at)
		switch {
		case e == nil:
			continue
		case p.unpriced:
			return Quote{}, false
		}
		q := Quote{Rates: p.rates, Model: e.name, From: p.from, MaxOutput: p.maxOutput, Version: b.version}
		for under := in.base; under != nil && q.MaxOutput == 0; under = under.base {
			if _, p := under.own.find(name, at); p != nil {
				q.MaxOutput = p.maxOutput
			}
		}
		return q, true
	}
	return Quote{}, false
}

// Dearest returns for each class the highest price that any entry of the book has at an instant: what to assume of
// a model that it does not know. It does not allocate.
func (b *Book) Dearest(at time.Time) Rates {
	var r Rates
	for in := b; in != nil; in = in.base {
		for i := range in.dearest {
			if !in.dearest[i].from.After(at) {
				r = r.dearer(in.dearest[i].rates)
				break
			}
		}
	}
	return r
}

// Version names the book by its date, where it has one, and its content: "2026-11-10-1f0c9a2b". Books with the same
// content have the same version, wherever they were made.
func (b *Book) Version() string { return b.version }

// Date is the day of the figures that ship; zero where none did.
func (b *Book) Date() time.Time { return b.date }

// Models returns the entries of the book by name and date, those of the book under it behind. Cache prices that
// there were not are the input price in them.
func (b *Book) Models() []Model {
	var all []Model
	for in := b; in != nil; in = in.base {
		for _, e := range in.own.entries {
			for _, p := range slices.Backward(e.prices) {
				all = append(all, Model{
					Name: e.name, From: p.from, Rates: p.rates, HasCacheRead: true, HasCacheWrite: true, MaxOutput: p.maxOutput,
					Unpriced: p.unpriced,
				})
			}
		}
	}
	return all
}

// newVersion returns the version of what the book holds.
func (b *Book) newVersion() string {
	if b.base != nil && len(b.own.entries) == 0 {
		return b.base.version
	}
	var content []byte
	if b.base != nil {
		content = strconv.AppendQuote(content, b.base.version)
	}
	for _, e := range b.own.entries {
		for _, p := range e.prices {
			content = strconv.AppendQuote(content, e.name)
			content = strconv.AppendBool(content, p.unpriced)
			for _, n := range []int64{
				p.from.Unix(), int64(p.rates.Input), int64(p.rates.CacheRead), int64(p.rates.CacheWrite), int64(p.rates.Output),
				p.maxOutput,
			} {
				content = strconv.AppendInt(append(content, ' '), n, 10)
			}
		}
	}
	const length = 4 // bytes
	sum := sha256.Sum256(content)
	version := hex.EncodeToString(sum[:length])
	if b.date.IsZero() {
		return version
	}
	return b.date.Format(time.DateOnly) + "-" + version
}

// effective returns the prices of the model with the input price for a cache price that there is not.
func (m *Model) effective() Rates {
	r := m.Rates
	if !m.HasCacheRead {
		r.CacheRead = r.Input
	}
	if !m.HasCacheWrite {
		r.CacheWrite = r.Input
	}
	return r
}

// check returns what is wrong with the entries.
func check(models []Model) error {
	var problems []error
	type key struct {
		name string
		from int64
	}
	seen := make(map[key]bool, len(models))
	for i := range models {
		m := &models[i]
		if m.Name == "" {
			problems = append(problems, errors.New("a price has no model"))
			continue
		}
		k := key{lower(m.Name), m.From.Unix()}
		if seen[k] {
			problems = append(problems, fmt.Errorf("model %q has two prices from the same day on", m.Name))
		}
		seen[k] = true
		for _, n := range []int64{
			int64(m.Input), int64(m.CacheRead), int64(m.CacheWrite), int64(m.Output), m.MaxOutput,
		} {
			if n < 0 || n > limit.MaxAmount {
				problems = append(problems, fmt.Errorf("model %q has a figure below 0 or beyond 2^53 − 1", m.Name))
				break
			}
		}
	}
	return errors.Join(problems...)
}

// dearest returns for each instant from which some entry counts the highest price of each class from then on.
func dearest(entries []*entry) []priced {
	var (
		always  Rates    // the highest of those that never change, which are most
		changes []*entry // the others
		all     []priced
	)
	for _, e := range entries {
		if len(e.prices) == 1 && e.prices[0].from.IsZero() {
			always = always.dearer(e.prices[0].rates)
			continue
		}
		changes = append(changes, e)
		for _, p := range e.prices {
			all = append(all, priced{from: p.from})
		}
	}
	all = append(all, priced{}) // the beginning of time
	slices.SortFunc(all, func(a, b priced) int { return b.from.Compare(a.from) })
	all = slices.CompactFunc(all, func(a, b priced) bool { return a.from.Equal(b.from) })
	for i := range all {
		all[i].rates = always
		for _, e := range changes {
			if p := e.at(all[i].from); p != nil {
				all[i].rates = all[i].rates.dearer(p.rates)
			}
		}
	}
	return all
}

// dearer returns the higher price of each class.
func (r Rates) dearer(s Rates) Rates {
	return Rates{
		Input: max(r.Input, s.Input), CacheRead: max(r.CacheRead, s.CacheRead),
		CacheWrite: max(r.CacheWrite, s.CacheWrite), Output: max(r.Output, s.Output),
	}
}
