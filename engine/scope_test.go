package engine_test

import (
	"context"
	"errors"
	"testing"

	"github.com/rationhq/ration/engine"
	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/price"
	"github.com/rationhq/ration/store"
	"github.com/rationhq/ration/store/memory"
)

// listening is a store that remembers which lease it was asked for last.
type listening struct {
	store.Store
	lease store.LeaseID
}

func (l *listening) Apply(ctx context.Context, step *store.Step, out *store.Outcome) error {
	if step.Lease != nil {
		l.lease = step.Lease.ID
	}
	return l.Store.Apply(ctx, step, out)
}

// What was reserved over Envoy's protocol is settled by nobody who is bound to domains or subjects, even if they know
// its name: it does not say whose it is.
func TestScopeOfLeasesOfOthers(t *testing.T) {
	over := &listening{Store: memory.New(memory.Options{})}
	e := engine.New(over, engine.Options{})
	t.Cleanup(func() { e.Close(); _ = over.Close() })
	p, _, err := policy.Parse([]policy.Source{{Name: "p", Data: []byte(`
domain: llm
descriptors:
  - key: user
    subject: true
    limits: [ { name: tokens, meter: tokens, algorithm: fixed_window, limit: 1_000/day } ]
`)}}, policy.Options{})
	if err != nil {
		t.Fatal(err)
	}
	e.SetPolicy(p)
	var d engine.Decision
	if err := e.Decide(t.Context(), &engine.Request{Domain: "llm", Descriptors: []engine.Descriptor{{
		Entries: []policy.Entry{
			{Key: "user", Value: "bob"}, {Key: "ration.request", Value: "r-1"}, {Key: "ration.phase", Value: "hold"},
			{Key: "ration.meter", Value: "tokens"},
		},
		HasHits: true, Hits: 500,
	}}}, &d); err != nil || d.Over {
		t.Fatalf("the reservation: %v, over %t", err, d.Over)
	}
	as := func(name string) *engine.Caller {
		return &engine.Caller{Domain: "llm", Attributes: []policy.Entry{{Key: "user", Value: name}}}
	}
	report := &engine.Report{ID: over.lease, Usage: price.Usage{Input: 1}, Caller: as("alice")}
	for name, scope := range map[string]*engine.Scope{
		"subjects": {Subjects: []engine.SubjectPattern{{Key: "user", Name: "alice"}}}, "domains": {Domains: []string{"llm"}},
	} {
		refused := 0
		scope.Refused = func() { refused++ }
		err := e.Settle(engine.WithScope(t.Context(), scope), report, &engine.Settlement{})
		if !errors.Is(err, engine.ErrOutOfScope) || refused != 1 {
			t.Errorf("settled by alice, bound to %s: %v, told of %d refusals", name, err, refused)
		}
	}
	if err := e.Standing(t.Context(), as("bob"), &d); err != nil || d.Limits[0].Status.Held != 500 {
		t.Errorf("bob holds %v (%v), want 500 tokens", d.Limits, err)
	}
	if err := e.Settle(t.Context(), report, &engine.Settlement{}); err != nil {
		t.Errorf("settled by somebody who may act for all: %v", err)
	}
}
