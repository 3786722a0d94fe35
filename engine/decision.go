package engine

import (
	"time"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/policy"
)

// Decision is the answer to a request. A Decision may be used for many requests, one after the
// other.
type Decision struct {
	// Over is the overall verdict: true refuses the request.
	Over bool
	// Now is when it was decided, by the store's clock; 0 where no limit applied.
	Now limit.Micros
	// Statuses has one entry per descriptor, in order.
	Statuses []Status
	// Limits has one entry for each limit of a `limits:` list that was asked.
	Limits []Applied
	// Tier is the tier that the request was decided for; nil where the domain has none.
	Tier *policy.Tier
	// Zone is where the subject of the request lives; nil where nobody knows.
	Zone *time.Location
	// MaxOutput is the longest output that fits under all limits and the cap of the tier, in tokens, where Bounded says
	// that something bounds it; it is known only of calls that are told of as a whole.
	MaxOutput int64
	Bounded   bool
	// Degraded says that the store could not decide, and what the limits wanted to happen then; the
	// decision was made so: StoreErrorAllow, StoreErrorLocal or StoreErrorDeny. Limits and Statuses then
	// tell only of the limits that refuse or were counted locally. StoreErrorNone: the store has decided.
	Degraded policy.StoreError
	// Queued says that the store could not take what the request reports, and that it is kept until it can: the request is
	// admitted, and Limits and Statuses tell nothing.
	Queued bool
	// Bar says why the request is refused whatever the limits say.
	Bar Bar
	// Waiting says how the request has waited in a lane.
	Waiting Waiting
	// Reused says that the request was refused because its id was that of another one.
	Reused bool
	// API is whose client is answered, and RequestID the request's own id, where an API is named.
	API       API
	RequestID string

	// retryUpTo and exhaustedStatus are what the policy says of refusals; zero: nothing.
	retryUpTo       limit.Micros
	exhaustedStatus int
}

// Limit is the limit that applied to a descriptor.
type Limit struct {
	Name            string
	RequestsPerUnit int64 // or tokens, or nano-dollars: units of its meter
	Unit            policy.Unit
	Multiplier      uint32 // 0 where none was given
	Spec            limit.Spec
}

// Status is the verdict on one descriptor.
type Status struct {
	// Rule is the rule of the policy that matched; nil if none did, or if the request brought the
	// limit itself.
	Rule *policy.Rule
	// Limited says that a limit applied: the fields below mean something.
	Limited bool
	// Unlimited says that a rule matched which admits without counting.
	Unlimited bool

	Limit Limit
	// Applied is the limit of a `limits:` list that binds, and that the fields around it describe; nil
	// where a plain rule, or an override, does. It points into Decision.Limits.
	Applied *Applied
	// Exceeded says that the limit has no room for the amount.
	Exceeded bool
	// Over is this descriptor's verdict: Exceeded, unless the rule is in shadow.
	Over bool
	// Quota says that it refuses only together with the request's other quotas.
	Quota bool
	// Amount is how many hits were asked for.
	Amount int64
	// Remaining is how many units of the meter are left in this window; 0 where the limit is over, shadow or not.
	Remaining int64
	// ResetAfter is how long after Now the window ends, or nothing is used any more; where a limit of
	// a `limits:` list refuses, how long to wait.
	ResetAfter limit.Micros
}

// tierName returns the name of the tier; empty where the domain has none.
func (d *Decision) tierName() string {
	if d.Tier == nil {
		return ""
	}
	return d.Tier.Name
}

// Binding returns the index of the status whose limit decides, or -1 if none refuses: the one that
// can never be met, else the one that keeps the caller waiting longest. There is none where something bars the request.
func (d *Decision) Binding() int {
	binding := -1
	if d.Bar != BarNone {
		return binding
	}
	for i := range d.Statuses {
		s := &d.Statuses[i]
		if s.Over && (binding < 0 || s.standing().binds(d.Statuses[binding].standing())) {
			binding = i
		}
	}
	return binding
}

// Never says that waiting does not help: the limit is zero, or smaller than the amount asked for.
func (s *Status) Never() bool {
	if s.Applied != nil {
		return s.Over && s.Applied.Never()
	}
	return s.Over && s.Amount > s.Limit.Spec.Limit
}
