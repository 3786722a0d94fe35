package policy

import (
	"math/bits"
	"slices"

	"github.com/rationhq/ration/limit"
)

// Limit is one entry of a `limits:` list, or a limit that a lane has. All fields are for reading only.
type Limit struct {
	// Index is the limit's place in [Policy.Limits]: dense, so that others can keep slices beside the
	// policy.
	Index int
	// Domain is the name of the domain that the limit belongs to.
	Domain string
	// Path names the limit in metrics, listings and logs: that of its descriptor as in [Rule.Path],
	// then its name. A limit at the root is DOMAIN.NAME, one of an upstream
	// DOMAIN.upstreams.UPSTREAM.NAME, those of a lane DOMAIN.lanes.LANE.drain and DOMAIN.lanes.LANE.places.
	Path string
	// Name is what the policy calls the limit, once in a list. It is part of the names of its buckets.
	Name string

	Meter Meter

	Shadow         bool // counts and judges, never refuses
	Clamp          bool // a request that is too large is admitted with the output that fits
	CountDenied    bool // counts what it refuses, too
	CountCacheRead bool // InputTokens includes cache reads
	CountAsked     bool // of a call that was reserved, what it has asked for counts, and not what it has used

	OnLapse Lapse
	// OnStoreError is what the limit answers when the store cannot decide: never StoreErrorNone.
	OnStoreError StoreError
	// LocalShare is how much of the limit each process may admit by itself then; 0 unless OnStoreError
	// is StoreErrorLocal.
	LocalShare Share
	// WarnAt lists the parts of the limit at which a warning is due, ascending; [Quantity.Warnings] has the amounts.
	WarnAt []Share

	// SubjectZone and SubjectAnchor say that the calendar hangs in the time zone of the subject, and that its months and
	// years begin on the subject's billing day: see [Limit.PeriodsFor].
	SubjectZone, SubjectAnchor bool

	// Periods are those of subjects that say nothing of their own.
	Periods

	// File, Line and Column say where the limit stands.
	File         string
	Line, Column int

	subjects *subjectPeriods // nil unless subjects have periods of their own
	tiers    []Tier          // of the domain
	node     *node           // the descriptor; nil for the root, upstreams and lanes
	upstream *Upstream       // nil for all others
	lane     *Lane           // nil for all others
}

// Quantity is how much a limit allows to the callers of one tier. All fields are for reading only.
type Quantity struct {
	Spec limit.Spec
	// Local is what one process admits by itself while the store cannot decide: LocalShare of Spec. It
	// means something only where OnStoreError is StoreErrorLocal.
	Local limit.Spec
	// PerRequest is the largest amount of a single request, a cap of its own beside the limit; 0: none.
	PerRequest int64
	// Message and UpgradeURL are what callers of this tier are told beside the standard words, where
	// the policy says so.
	Message, UpgradeURL string

	ceiling    fraction // the part of the capacity that Spec may use
	ownBurst   bool     // the policy says the burst; else it is the rate
	localShare Share    // 0 where there is no Local
	warnAt     []Share  // empty where none is due
	warnings   []int64

	warningShares []Share // of each of warnings
}

// fraction is a part of a capacity. The zero fraction is all of it.
type fraction struct{ part, whole int64 }

// of returns the part of n, which is in 0…[limit.MaxAmount], rounded down.
func (f fraction) of(n int64) int64 {
	if f.whole == 0 {
		return n
	}
	high, low := bits.Mul64(uint64(n), uint64(f.part))
	quotient, _ := bits.Div64(high, low, uint64(f.whole))
	return int64(quotient)
}

// complete fills in what follows from how much the quantity is.
func (q *Quantity) complete() {
	capacity := q.Spec.Capacity()
	q.Spec.Headroom = capacity - q.ceiling.of(capacity)
	if q.localShare > 0 {
		q.Local = localSpec(q.Spec, q.localShare)
	}
	q.warnings, q.warningShares = nil, nil
	if most := q.Spec.Ceiling(); most > 0 {
		for _, share := range q.warnAt {
			amount := most - (Whole - share).Of(most) // rounded up
			if n := len(q.warnings); n > 0 && q.warnings[n-1] == amount {
				q.warningShares[n-1] = share
				continue
			}
			q.warnings, q.warningShares = append(q.warnings, amount), append(q.warningShares, share)
		}
	}
}

// Warnings returns the amounts in use, ascending, from which on a warning is due: the limit's WarnAt of what callers of
// this tier may use, each rounded up. There are none where the limit has no periods in which each would be due once,
// and none of a limit that admits nothing.
func (q *Quantity) Warnings() []int64 { return q.warnings }

// WarningShares returns what part of the limit each of [Quantity.Warnings] is; the largest, where several are one amount.
func (q *Quantity) WarningShares() []Share { return q.warningShares }

func (l *Limit) place() place { return place{l.File, l.Line, l.Column} }

// AnswersAlone says that a limit of the policy says what happens while the store cannot decide, other
// than an error.
func (p *Policy) AnswersAlone() bool {
	return slices.ContainsFunc(p.limits, func(l *Limit) bool { return l.Shadow || l.OnStoreError != StoreErrorFail })
}

// Limits returns all limits, those of lanes too: each stands at its Index.
func (p *Policy) Limits() []*Limit { return p.limits }
