package access

import (
	"context"
	"crypto/sha256"
	"slices"
	"time"

	"github.com/rationhq/ration/engine"
)

// Right is what a caller may do.
type Right string

// The rights.
const (
	// Account permits all of AccountingService and UsageService.
	Account Right = "account"
	// Read permits what changes nothing: AccountingService.Check and UsageService.
	Read Right = "read"
	// Admin permits AdminService.
	Admin Right = "admin"
)

// Kind is how a caller is known.
type Kind string

// The kinds.
const (
	ByToken       Kind = "token"
	ByCertificate Kind = "certificate"
)

// Caller is one who may call, by what a file says.
type Caller struct {
	Name string
	Kind Kind
	// May is what it may do.
	May []Right
	// Domains and Subjects are those for which it may; none: all.
	Domains  []string
	Subjects []engine.SubjectPattern
	// Expires is from when on it may not any more; zero: never.
	Expires time.Time
}

// Credential says by what the caller is known: "token ops", "certificate ops".
func (c *Caller) Credential() string { return string(c.Kind) + " " + c.Name }

// permits reports whether the caller has one of the rights.
func (c *Caller) permits(rights []Right) bool {
	return slices.ContainsFunc(rights, func(r Right) bool { return slices.Contains(c.May, r) })
}

type callerKey struct{}

// CallerOf returns who makes a call that a gate has admitted; nil: it was not asked for.
func CallerOf(ctx context.Context) *Caller {
	c, _ := ctx.Value(callerKey{}).(*Caller)
	return c
}

// List are the callers of a file. It does not change.
type List struct {
	tokens       map[[sha256.Size]byte]*Caller
	certificates map[certName]*Caller
}

func newList() *List {
	return &List{tokens: make(map[[sha256.Size]byte]*Caller), certificates: make(map[certName]*Caller)}
}

// Tokens and Certificates return how many there are of each.
func (l *List) Tokens() int { return len(l.tokens) }

// Certificates returns how many certificates are named.
func (l *List) Certificates() int { return len(l.certificates) }

// byToken returns whose token it is; nil: nobody's. The map is asked by a hash that nobody can choose: how long it takes
// tells nothing of tokens that are in it.
func (l *List) byToken(token string) *Caller {
	return l.tokens[sha256.Sum256([]byte(token))]
}
