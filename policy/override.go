package policy

import (
	"errors"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/rationhq/ration/limit"
)

// maxOverride bounds the text of an override, in bytes.
const maxOverride = 1000

// Override returns what the limit allows to one subject in place of base, which its tier has; base is nil where the tier
// is unlimited. The text is what policies say of a tier:
//
//	200/minute                                a rate, of a token bucket, or else a limit
//	$50/month                                 of money
//	{ rate: 100/minute, burst: 20 }           any of limit, rate, burst and per_request
//	unlimited                                 which returns nil
//
// What it does not say stays as in base: a cap of single requests, a burst that the policy gives, the words for people,
// the share that a ceiling leaves. It has the meter, the algorithm and the window of the limit, so that it counts where
// base does.
func (p *Periods) Override(text string, base *Quantity) (*Quantity, error) {
	rep := newReport(Options{Strict: true})
	q := p.override(text, base, rep)
	if _, err := rep.result(nil); err != nil {
		return nil, inOneLine(err)
	}
	return q, nil
}

// inOneLine joins problems of a text that has no lines worth naming.
func inOneLine(err error) error {
	list, ok := errors.AsType[*Errors](err)
	if !ok {
		return err
	}
	texts := make([]string, len(list.Problems))
	for i, p := range list.Problems {
		p.Message = strings.TrimPrefix(p.Message, "error loading config file: ")
		texts[i] = p.String()
	}
	return errors.New(strings.Join(texts, "; "))
}

func (p *Periods) override(text string, base *Quantity, rep *report) *Quantity {
	l := p.of
	ld := &limitDraft{compiler: &compiler{rep: rep}, limit: l, entry: &limitEntry{name: field[string]{value: l.Name}}}
	q := &ld.entry.base
	if len(text) > maxOverride {
		ld.error(place{}, "an override has at most %d bytes", maxOverride)
		return nil
	}
	// What it says beside the amounts: all tiers have the same.
	like := base
	if like == nil {
		like = p.any()
	}
	if like != nil {
		ld.algorithm = like.Spec.Algorithm
	}
	if !ld.read(text, q) || !ld.inUnits() {
		return nil
	}
	switch {
	case q.unlimited || q.limit.value.unlimited || q.rate.value.unlimited:
		ld.nothingBeside(nil, q)
		return nil
	case like == nil:
		ld.error(place{}, "it is unlimited for everybody, so that nothing says in which window an override counts")
		return nil
	}
	return ld.over(q, base, like)
}

// read reads an override: a quantity alone, or in a mapping with what goes with it.
func (ld *limitDraft) read(text string, q *quantityEntry) (ok bool) {
	root, ok := parseYAML(Source{Data: []byte(text)}, ld.rep)
	r := &reader{rep: ld.rep}
	bare := "limit"
	if ld.algorithm == limit.TokenBucket {
		bare = "rate"
	}
	switch {
	case !ok:
	case root == nil:
		ld.error(place{}, "an override is missing: write it as 200/minute")
	case root.Kind != yaml.MappingNode:
		r.quantityField(q, bare, root)
	default:
		r.table("an override", root, func(_ *yaml.Node, key string, v *yaml.Node) {
			switch key {
			case "limit", "rate", "burst", "per_request":
				r.quantityField(q, key, v)
			default:
				ld.rep.add(place{}, Problem{
					Message:    fmt.Sprintf("unknown key %s in an override: it has limit, or rate and burst, and per_request", quote(key)),
					Suggestion: nearest(key, []string{"limit", "rate", "burst", "per_request"}),
				})
			}
		})
	}
	return !ld.rep.failed()
}

// over puts what an override says over base.
func (ld *limitDraft) over(q *quantityEntry, base, like *Quantity) *Quantity {
	over := *like
	if base == nil {
		over.PerRequest, over.Message, over.UpgradeURL, over.ceiling, over.ownBurst = 0, "", "", fraction{}, false
	}
	amount := q.limit
	if ld.algorithm == limit.TokenBucket {
		amount = q.rate
	}
	spec := &over.Spec
	switch {
	case !ld.fits(q):
		return nil
	case amount.given:
		if !ld.windowFits(amount) || !ld.countsAlike(amount, spec) {
			return nil
		}
		if spec.Limit = amount.value.amount.n; !over.ownBurst && ld.algorithm == limit.TokenBucket {
			spec.Burst = spec.Limit
		}
	case base == nil:
		ld.error(place{}, "it is unlimited for the tier, so an override says how much: write it as 200/minute")
		return nil
	}
	if q.burst.given {
		spec.Burst, over.ownBurst = q.burst.value.n, true
	}
	if q.perRequest.given {
		over.PerRequest = q.perRequest.value.n
	}
	ld.judge(q, amount, spec)
	over.complete()
	if err := spec.Validate(); err != nil && !ld.rep.failed() {
		ld.error(place{}, "%v", err)
	}
	return &over
}

// countsAlike reports an override in another window than the limit has.
func (ld *limitDraft) countsAlike(amount field[quantity], spec *limit.Spec) bool {
	per := amount.value.per
	var want string
	switch {
	case spec.Algorithm == limit.Concurrency:
		return true
	case spec.Calendar != nil:
		if per.period == spec.Calendar.Period {
			return true
		}
		want = periodNames[spec.Calendar.Period]
	case per.length == spec.Window:
		return true
	default:
		want = lengthInWords(spec.Window)
	}
	ld.error(amount.at, "it counts per %s, and so must an override, so that what was used is kept: write %v/%s, not per %s",
		want, amount.value.amount, strings.ReplaceAll(want, " ", ""), clip(per.text))
	return false
}

// Raised returns the quantity with so much more, in units of the meter, as a grant gives it: more limit per window,
// period or in flight; of a token bucket more burst, which comes once, while the rate stays. A ceiling keeps its
// share, and so has its part of it; the cap of single requests stays. The largest amount is [limit.MaxAmount],
// [limit.MaxLog] of a sliding log. It returns q where by is not above 0, or q is nil: unlimited.
func (q *Quantity) Raised(by int64) *Quantity {
	if q == nil || by <= 0 {
		return q
	}
	raised := *q
	s := &raised.Spec
	switch s.Algorithm {
	case limit.TokenBucket:
		s.Burst = limit.Add(s.Burst, by)
	case limit.SlidingLog:
		s.Limit = min(limit.Add(s.Limit, by), limit.MaxLog)
	default:
		s.Limit = limit.Add(s.Limit, by)
	}
	raised.complete()
	return &raised
}
