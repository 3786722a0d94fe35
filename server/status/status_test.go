package status_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rationhq/ration/engine"
	rationv1 "github.com/rationhq/ration/gen/ration/v1"
	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/server/health"
	"github.com/rationhq/ration/server/status"
	"github.com/rationhq/ration/store"
)

// gone is a store that is not there.
type gone struct{}

func (gone) Apply(context.Context, *store.Step, *store.Outcome) error { return store.ErrUnavailable }
func (gone) Ready(context.Context) error                              { return store.ErrUnavailable }
func (gone) Close() error                                             { return nil }

// GetHealth says since when decisions are made without the store.
func TestHealthWithoutTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := engine.New(gone{}, engine.Options{StoreWait: time.Second})
		defer e.Close()
		p, _, err := policy.Parse([]policy.Source{{Name: "p", Data: []byte(
			"domain: shop\nlimits: [ { name: all, algorithm: fixed_window, limit: 5/day } ]\n")}}, policy.Options{})
		if err != nil {
			t.Fatal(err)
		}
		e.SetPolicy(p)
		s := status.New(nil, e, &health.State{})
		detail := func() string {
			got, err := s.GetHealth(t.Context(), &rationv1.GetHealthRequest{})
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range got.GetComponents() {
				if c.GetName() == "decisions" {
					return c.GetDetail()
				}
			}
			return ""
		}
		if got := detail(); got != "" {
			t.Errorf("at first: %s", got)
		}
		began := time.Now().UTC().Format(time.RFC3339)
		for range 20 {
			request := &engine.Request{Domain: "shop", Descriptors: []engine.Descriptor{{Entries: []policy.Entry{{Key: "k", Value: "v"}}}}}
			if err := e.Decide(t.Context(), request, new(engine.Decision)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Millisecond)
		}
		if got, want := detail(), "made without the store since "+began+", as on_store_error says"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

// ListPolicies says limits of money in dollars.
func TestListsMoney(t *testing.T) {
	e := engine.New(gone{}, engine.Options{})
	defer e.Close()
	p, _, err := policy.Parse([]policy.Source{{Name: "p", Data: []byte(
		"domain: shop\nlimits: [ { name: all, meter: cost, limit: $5_000.25/month } ]\n")}}, policy.Options{})
	if err != nil {
		t.Fatal(err)
	}
	e.SetPolicy(p)
	got, err := status.New(nil, e, &health.State{}).ListPolicies(t.Context(), &rationv1.ListPoliciesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	const want = "all requests of the domain together (limit shop.all): $5,000.25 per calendar month (UTC); refused while the store cannot decide"
	l := got.GetPolicies()[0].GetLimits()[0]
	if said := strings.Join(l.GetExplanation(), "\n"); l.GetMeter() != "cost" || said != want {
		t.Errorf("%s: %s\nwant cost: %s", l.GetMeter(), said, want)
	}
}

// A file is told of where a lane stands, though it has no limit of its own.
func TestFilesOfLanes(t *testing.T) {
	e := engine.New(gone{}, engine.Options{StoreWait: time.Second})
	defer e.Close()
	p, _, err := policy.Parse([]policy.Source{
		{Name: "a.yaml", Data: []byte("domain: shop\nupstreams: [ { name: u, models: m, limits: [ { name: rpm, rate: 5/second } ] } ]\n")},
		{Name: "b.yaml", Data: []byte("domain: shop\nlanes: [ { name: u, upstream: u } ]\n")},
	}, policy.Options{MergeDomains: true})
	if err != nil {
		t.Fatal(err)
	}
	e.SetPolicy(p)
	got, err := status.New(nil, e, &health.State{}).ListPolicies(t.Context(), &rationv1.ListPoliciesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if files := got.GetPolicies()[0].GetFiles(); strings.Join(files, " ") != "a.yaml b.yaml" {
		t.Errorf("the domain stands in %q", files)
	}
}
