// Package subjecttest is the suite that any subject directory must pass.
//
// It knows the contract (package subject), nothing else. Read [Run]: each of its tests is a rule of [subject.Directory].
package subjecttest

import (
	"context"
	"crypto/rand"
	"errors"
	"testing"
	"time"

	"github.com/rationhq/ration/subject"
)

// Open makes an empty directory and returns it once or several times: as several servers have it.
type Open func(t testing.TB) []subject.Directory

// Run runs the suite.
func Run(t *testing.T, open Open) {
	for name, test := range map[string]func(*testing.T, Open){
		"whatever is written is found":          testFound,
		"names never run together":              testNames,
		"changes":                               testChanges,
		"what is refused leaves no trace":       testRefused,
		"deletion":                              testDeletion,
		"API keys":                              testAPIKeys,
		"an API key belongs to one":             testKeyTaken,
		"lists":                                 testList,
		"audit":                                 testAudit,
		"audit pages":                           testAuditPages,
		"audit is bounded":                      testAuditBound,
		"no update is lost":                     testNoLostUpdate,
		"of those who add one key one wins":     testOneWins,
		"API keys that move agree with records": testKeysMove,
		"watching":                              testWatch,
		"a cache sees changes":                  testCache,
		"random operations":                     testModel,
	} {
		t.Run(name, func(t *testing.T) { test(t, open) })
	}
}

var by = subject.By{Actor: "root", Reason: "a test"}

// Full returns a subject that says something in every field.
func Full(of subject.Ref) subject.Subject {
	return subject.Subject{
		Domain: of.Domain, Name: of.Name, Key: "user", Tier: "pro", Zone: "Europe/Berlin", Anchor: 31, Suspended: true,
		Attributes: map[string]string{"org": "acme", "team": "größe"},
		Overrides: []subject.Override{
			{Limit: "llm.user.requests", Quantity: "100/minute", Expires: 1_800_000_000_000_000, Reason: "launch"},
			{Limit: "llm.user.spend", Quantity: "$50/month"},
		},
		Grants: []subject.Grant{
			{ID: "g1", Limit: "llm.user.spend", Amount: 9_007_199_254_740_991, Expires: 1_800_000_000_000_001, Reason: "sorry"},
			{ID: "g2", Limit: "llm.user.tokens", Amount: 1},
		},
		APIKeys: []subject.APIKey{
			{Hash: NewKey(), Label: "laptop", Created: 1_763_000_000_000_000},
			{Hash: NewKey()},
		},
	}
}

// NewKey returns the hash of an API key that nobody has.
func NewKey() (hash subject.KeyHash) {
	_, _ = rand.Read(hash[:]) // it never fails
	return hash
}

// become returns a change that makes a subject what another one is.
func become(is subject.Subject) func(*subject.Subject) error {
	return func(s *subject.Subject) error {
		of, revision := s.Ref(), s.Revision
		*s = is.Clone()
		s.Domain, s.Name, s.Revision = of.Domain, of.Name, revision
		return nil
	}
}

func setTier(tier string) func(*subject.Subject) error {
	return func(s *subject.Subject) error { s.Tier = tier; return nil }
}

func addKey(hash subject.KeyHash) func(*subject.Subject) error {
	return func(s *subject.Subject) error {
		if !s.Lists(hash) {
			s.APIKeys = append(s.APIKeys, subject.APIKey{Hash: hash})
		}
		return nil
	}
}

func dropKeys(s *subject.Subject) error {
	s.APIKeys = nil
	return nil
}

func change(t testing.TB, d subject.Directory, of subject.Ref, apply func(*subject.Subject) error) subject.Subject {
	t.Helper()
	s, err := d.Change(t.Context(), of, by, apply)
	if err != nil {
		t.Fatalf("change %v: %v", of, err)
	}
	return s
}

func find(t testing.TB, d subject.Directory, of subject.Ref) (subject.Subject, bool) {
	t.Helper()
	s, found, err := d.Find(t.Context(), of)
	if err != nil {
		t.Fatalf("find %v: %v", of, err)
	}
	return s, found
}

// findByKey returns the ref of the owner of a key; the zero value is for none.
func findByKey(t testing.TB, d subject.Directory, hash subject.KeyHash) subject.Ref {
	t.Helper()
	s, found, err := d.FindByKey(t.Context(), hash)
	if err != nil {
		t.Fatalf("find by key: %v", err)
	}
	if found && !s.Lists(hash) {
		t.Fatalf("%v was found by a key that it does not list", s.Ref())
	}
	return s.Ref()
}

// insist repeats what others have come in between too often, or just now.
func insist(ctx context.Context, do func() error) error {
	for {
		err := do()
		if !errors.Is(err, subject.ErrConflict) || ctx.Err() != nil {
			return err
		}
	}
}

// WaitFor polls until is is true, for 20 s at most.
func WaitFor(t testing.TB, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}
