package policy

import (
	"github.com/rationhq/ration/limit"
)

// Policy is a compiled policy. It never changes, and is safe for concurrent use.
type Policy struct {
	domains map[string]*Domain
	sorted  []*Domain
	rules   []*Rule
	limits  []*Limit
	files   []string
	version string
}

// Domain returns the domain of exactly that name, or nil.
func (p *Policy) Domain(name string) *Domain { return p.domains[name] }

// Domains returns the domains, sorted by name.
func (p *Policy) Domains() []*Domain { return p.sorted }

// Rules returns all rules: each stands at its Index.
func (p *Policy) Rules() []*Rule { return p.rules }

// Files returns the names of the files that the policy was read from, in the order of reading.
func (p *Policy) Files() []string { return p.files }

// Version returns a short hexadecimal hash of the content of the files, and of the book that ships where
// the policy uses its prices: the same content has the same version, wherever it lies.
func (p *Policy) Version() string { return p.version }

// Rule is one `rate_limit` of a policy. All fields are for reading only.
type Rule struct {
	// Index is the rule's place in [Policy.Rules]: dense, so that others can keep slices beside the
	// policy.
	Index int
	// Domain is the name of the domain that the rule belongs to.
	Domain string
	// Path names the rule in metrics, listings and logs: the domain and, per level, key or
	// key_value, joined by dots.
	Path string
	// Name is what the policy calls the rule: it is shown to callers, and others replace it by it.
	// It may be empty, and need not be unique.
	Name string
	// Replaces lists the names of rules that do not apply in a request to which this one does.
	Replaces []string

	Unlimited bool // admits without counting; RequestsPerUnit, Unit and Spec mean nothing
	Shadow    bool // counts and judges, never refuses
	Quota     bool // refuses only together with all other quotas of the request

	RequestsPerUnit uint32
	Unit            Unit
	Spec            limit.Spec // what the two above mean

	// Metadata is handed back with a decision. It holds what JSON can hold, as encoding/json would
	// decode it: nil, bool, float64, string, []any, map[string]any. nil if there is none.
	Metadata map[string]any

	// File, Line and Column say where the rule's descriptor stands.
	File         string
	Line, Column int

	node *node // where the rule stands in the tree
}
