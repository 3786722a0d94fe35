package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/price"
	"github.com/rationhq/ration/store"
)

// Accounts are calls of a model that are told of as a whole: by whom, of which model, how many tokens. Every limit
// applies to which the attributes lead, and each is charged what it counts of the call. It is as if a proxy had sent a
// descriptor for each place to which they lead, all with the same hits; and the counters are the same.

// Caller says for whom a call is made, and of what. Its strings are only read while the call runs.
type Caller struct {
	Domain string
	// Attributes are what is known of the call, each key once, in any order.
	Attributes []policy.Entry
	// Model is the name of the model that is called; empty where it is not known. It is the attribute "model" too,
	// where there is none.
	Model string
	// APIKey is a key of the subject, by which the directory knows it: it stands for the subject's attributes.
	APIKey string
	// Tier is that of the subject, where the policy trusts callers to say so.
	Tier string
}

// modelAttribute is the attribute that the model of a call is, where the caller gives none.
const modelAttribute = "model"

// MaxAttributes is how many bytes the attributes of a caller, its model and its tier have at most.
const MaxAttributes = 8 << 10

// The errors of accounts.
var (
	// ErrUnknownDomain: no policy limits the domain, and nothing can be said of the call.
	ErrUnknownDomain = errors.New("no policy is in force for the domain")
	// ErrKeyReused: the key, or the reservation, belongs to a request that said something else.
	ErrKeyReused = errors.New("the key was used before, by a request that said something else")
	// ErrUnknownReservation: nothing is known of a reservation, and the request does not say whose usage it is.
	ErrUnknownReservation = errors.New("nothing is known of the reservation")
)

// check reports what of the caller cannot be used.
func (c *Caller) check() error {
	if c.Domain == "" {
		return &InvalidError{Field: "caller.domain", Reason: "it is empty: name the domain of the policy that judges the call"}
	}
	if n := len(c.Attributes); n > policy.MaxAttributes {
		return tooMuch("caller.attributes", "attributes", n, policy.MaxAttributes)
	}
	size := len(c.Domain) + len(c.Model) + len(c.Tier) + len(c.APIKey)
	for i := range c.Attributes {
		a := &c.Attributes[i]
		size += len(a.Key) + len(a.Value)
		switch {
		case a.Key == "":
			return &InvalidError{Field: "caller.attributes", Reason: "a key is empty"}
		case strings.HasPrefix(a.Key, reservedPrefix):
			return &InvalidError{
				Field:  fmt.Sprintf("caller.attributes[%.100q]", a.Key),
				Reason: "keys that begin with ration. are reserved: the request has fields for what they say",
			}
		}
	}
	if size > MaxAttributes {
		return tooMuch("caller", "bytes in all", size, MaxAttributes)
	}
	return nil
}

// usageOf returns what limits count of a call.
func usageOf(used price.Usage, requestCount int64, p *Price) (u usage) {
	u.add(requests, requestCount)
	u.add(inputTokens, used.Input)
	u.add(cacheRead, used.CacheRead)
	u.add(cacheWrite, used.CacheWrite)
	u.add(outputTokens, used.Output)
	if p.Known {
		u.add(money, int64(p.Cost(used)))
		before := used
		before.Output = 0
		u.moneyBefore = int64(p.Cost(before))
	}
	return u
}

// checkUsage reports amounts that cannot be counted.
func checkUsage(field string, u price.Usage) error {
	for _, c := range [...]struct {
		name   string
		amount int64
	}{
		{"input_tokens", u.Input}, {"cache_read_tokens", u.CacheRead},
		{"cache_write_tokens", u.CacheWrite}, {"output_tokens", u.Output},
	} {
		if c.amount < 0 || c.amount > limit.MaxAmount {
			return &InvalidError{
				Field: field + "." + c.name, Reason: fmt.Sprintf("%d tokens: say 0 to 2^53-1", c.amount),
			}
		}
	}
	return nil
}

// findPlaces finds what applies to a caller, and who pays, and begins a step for it: every place of the domain to which
// the attributes lead, the root, the upstreams of the models, and the lane that it is in, those last. Each is as a descriptor. The attributes are
// s.entries then: with what an API key adds, and without one that of nobody, as the policy wants it. Whoever asks has to
// be permitted to act for them.
func (e *Engine) findPlaces(
	ctx context.Context, domain *policy.Domain, c *Caller, d *Decision, s *scratch, models ...string,
) error {
	s.entries = append(s.entries[:0], c.Attributes...)
	s.add(modelAttribute, c.Model)
	if c.APIKey != "" {
		who, more, ok, err := e.keyOwner(ctx, domain, c.APIKey)
		switch {
		case err != nil:
			return err
		case ok:
			// Whose key it is says who pays, whatever else is said; which model is called the call says.
			s.entries = slices.DeleteFunc(s.entries, func(a policy.Entry) bool {
				return a.Key == who.Key || more[a.Key] != "" && a.Key != modelAttribute
			})
			s.add(who.Key, who.Value)
			for key, value := range more {
				s.add(key, value)
			}
		case !takesAnonymous(domain):
			d.Bar = BarUnknown
		default:
			s.entries = unnamed(domain, s.entries, 0)
		}
	}
	s.entries = nameNobody(domain, d, s.entries)
	s.asked = s.asked[:0]
	if err := s.matchSet(domain); err != nil {
		return err
	}
	if key := domain.SubjectKey(); domain.Anonymous().Given && key != "" && !s.namesSubject() {
		if domain.Anonymous().Deny {
			d.Bar = BarUnknown
		} else {
			name, ok := anonymousBy(domain, s.entries)
			if !ok {
				name = policy.AnonymousName
			}
			s.entries = slices.DeleteFunc(s.entries, func(a policy.Entry) bool { return a.Key == key })
			s.add(key, name)
			if err := s.matchSet(domain); err != nil {
				return err
			}
		}
	}
	if err := scopeOf(ctx).takesSubjects(domain, s.entries); err != nil {
		return err
	}
	if root := domain.Root(); len(root.Limits) > 0 {
		s.matches = append(s.matches, root)
	}
	for i, model := range models {
		upstream := domain.Upstream(model)
		if model == "" || upstream == nil || slices.ContainsFunc(models[:i], func(m string) bool { return domain.Upstream(m) == upstream }) {
			continue
		}
		s.matches = append(s.matches, upstream.Match())
	}
	if s.in != nil {
		s.matches = append(s.matches, s.in.Match())
	}
	for range s.matches {
		s.asked = append(s.asked, asked{phase: admit, class: requests, amount: 1, model: c.Model, tier: c.Tier})
		d.Statuses = append(d.Statuses, Status{Amount: 1})
	}
	s.beginStep()
	s.wholeCall, s.looks = true, false
	e.identify(ctx, domain, d, s)
	return nil
}

// add adds an attribute that the call does not have yet.
func (s *scratch) add(key, value string) {
	if value != "" && !slices.ContainsFunc(s.entries, func(e policy.Entry) bool { return e.Key == key }) {
		s.entries = append(s.entries, policy.Entry{Key: key, Value: value})
	}
}

// matchSet finds where the attributes lead.
func (s *scratch) matchSet(domain *policy.Domain) (err error) {
	slices.SortFunc(s.entries, func(a, b policy.Entry) int { return strings.Compare(a.Key, b.Key) })
	if s.matches, s.names, err = domain.MatchSet(s.entries, s.matches[:0], s.names[:0]); err != nil {
		return &InvalidError{Field: "caller.attributes", Reason: err.Error() + ": leave out those that no descriptor names"}
	}
	return nil
}

// askPlaces adds to the step all that is asked of the rules and the limits of the places.
func (e *Engine) askPlaces(want *demand, d *Decision, s *scratch) {
	s.followRules(d, e.opts.Quota)
	dropReplaced(d, e.opts.Quota)
	s.prepare(d, e.opts.Shadow)
	for i := range s.matches {
		e.expand(&s.matches[i], want, &s.payers[i], i, d, s)
	}
}

// followRules lets the plain rules of the places count the call too, each apart from the limits of its place.
func (s *scratch) followRules(d *Decision, allQuotas bool) {
	for i := range s.matches {
		rule := s.matches[i].Rule
		if rule == nil {
			continue
		}
		at := i
		if len(s.matches[i].Limits) > 0 {
			at = len(s.matches)
			apart := s.matches[i]
			apart.Limits = nil
			s.matches, s.asked, s.payers = append(s.matches, apart), append(s.asked, s.asked[i]), append(s.payers, s.payers[i])
			d.Statuses = append(d.Statuses, Status{Amount: 1})
		}
		d.Statuses[at].Quota = allQuotas
		d.Statuses[at].follow(rule)
	}
}

// settleWhole makes the step the settlement of a lease by all that was used.
func (s *scratch) settleWhole(id store.LeaseID, fingerprint uint64, used *usage) {
	l := &s.leased
	s.actual = used.settled()
	s.actual[ofPlaces] = 0
	*l = store.Lease{ID: id, Do: store.LeaseSettle, Request: fingerprint, Actual: s.actual[:]}
	s.step.Lease = l
}
