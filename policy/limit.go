package policy

import (
	"slices"

	"github.com/rationhq/ration/limit"
)

// Limit is one entry of a `limits:` list. All fields are for reading only.
type Limit struct {
	// Index is the limit's place in [Policy.Limits]: dense, so that others can keep slices beside the
	// policy.
	Index int
	// Domain is the name of the domain that the limit belongs to.
	Domain string
	// Path names the limit in metrics, listings and logs: that of its descriptor as in [Rule.Path],
	// then its name. A limit at the root is DOMAIN.NAME, one of an upstream
	// DOMAIN.upstreams.UPSTREAM.NAME.
	Path string
	// Name is what the policy calls the limit, once in a list. It is part of the names of its buckets.
	Name string

	Meter Meter

	Shadow         bool // counts and judges, never refuses
	Clamp          bool // a request that is too large is admitted with the output that fits
	CountDenied    bool // counts what it refuses, too
	CountCacheRead bool // InputTokens includes cache reads

	OnLapse Lapse
	// OnStoreError is what the limit answers when the store cannot decide: never StoreErrorNone.
	OnStoreError StoreError
	// LocalShare is how much of the limit each process may admit by itself then; 0 unless OnStoreError
	// is StoreErrorLocal.
	LocalShare Share
	// WarnAt lists the parts of the limit at which a warning is due, ascending.
	WarnAt []Share

	// File, Line and Column say where the limit stands.
	File         string
	Line, Column int

	quantities []*Quantity // by tier, or one for all tiers
	tiers      []Tier      // of the domain
	kind       []byte      // the end of its buckets' names
	node       *node       // the descriptor; nil for the root and for upstreams
	upstream   *Upstream   // nil for all others
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
}

// For returns what the limit allows to a tier, given by its index in [Domain.Tiers], and to everybody
// where the domain has no tiers. nil: no limit for that tier.
func (l *Limit) For(tier int) *Quantity {
	if len(l.quantities) == 1 {
		return l.quantities[0]
	}
	return l.quantities[tier]
}

func (l *Limit) place() place { return place{l.File, l.Line, l.Column} }

// AppendBucket appends the name of the limit's counter for m, within the owner of m:
// `model=claude-opus-4-1|opus|sliding_log|86400s`, or `requests|token_bucket|60s` for a limit of the
// owner itself. m must hold l among its Limits.
//
// Owner and name together are injective, as the names of [AppendBucket] are: the parts before the last
// three are the entries below the owner, then come the name of the limit, the algorithm and the window.
func (l *Limit) AppendBucket(b []byte, m *Match) []byte {
	if len(m.below) > 0 {
		b = append(b, m.below[1:]...) // without the first separator
		b = append(b, '|')
	}
	return append(b, l.kind...)
}

// AnswersAlone says that a limit of the policy says what happens while the store cannot decide, other
// than an error.
func (p *Policy) AnswersAlone() bool {
	return slices.ContainsFunc(p.limits, func(l *Limit) bool { return l.Shadow || l.OnStoreError != StoreErrorFail })
}

// Limits returns all limits of `limits:` lists: each stands at its Index.
func (p *Policy) Limits() []*Limit { return p.limits }
