package engine_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/rationhq/ration/engine"
	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/price"
	"github.com/rationhq/ration/store"
	"github.com/rationhq/ration/subject"
)

// people is a directory as a test wants it.
type people struct {
	known map[string]*subject.Subject // by name
	err   error
}

func (p *people) Get(_ context.Context, of subject.Ref) (subject.Answer, error) {
	if p.err != nil || of.Domain != "llm" {
		return subject.Answer{}, p.err
	}
	return subject.Answer{Subject: p.known[of.Name]}, nil
}

func (p *people) GetByKey(_ context.Context, hash subject.KeyHash) (subject.Answer, error) {
	for _, s := range p.known {
		if s.Lists(hash) {
			return subject.Answer{Subject: s}, p.err
		}
	}
	return subject.Answer{}, p.err
}

// knowing returns an engine whose directory knows some people, with the policy of accounts and what is added to it.
func knowing(t testing.TB, more string, known ...subject.Subject) (bench, *people) {
	t.Helper()
	p := &people{known: map[string]*subject.Subject{}}
	for i := range known {
		known[i].Domain = "llm"
		p.known[known[i].Name] = &known[i]
	}
	return newPolicyBench(t, accounts+more, engine.Options{Subjects: p}), p
}

const aliceKey = "sk-0123456789abcdef"

func TestDirectory(t *testing.T) {
	alice := subject.Subject{Name: "alice", Tier: "pro", Zone: "Europe/Berlin"}
	b, people := knowing(t, "", alice)
	a := b.reserve(t, call("small", 100, 5_000))
	if a.Over || a.Tier.Name != "pro" || a.Zone.String() != "Europe/Berlin" {
		t.Fatalf("refused %t in tier %s, zone %v", a.Over, a.Tier.Name, a.Zone)
	}
	expect(t, "over Envoy", sayLimits(b.askIn(t, "llm", hits(1, "user=alice"))), "OK requests:1+1 tokens:0+5100 in-flight:0+1 company:0+10100000")
	if d := b.askIn(t, "llm", hits(1, "user=bob")); d.Tier.Name != "free" {
		t.Errorf("whom nobody knows is %s", d.Tier.Name)
	}
	people.err = subject.ErrUnavailable
	if a := b.check(t, call("small", 1, 1)); a.Tier.Name != "free" {
		t.Errorf("nothing is known, and the tier is %s", a.Tier.Name)
	}
}

func TestSuspended(t *testing.T) {
	b, people := knowing(t, "", subject.Subject{Name: "alice"})
	before := b.reserve(t, call("small", 100, 100))
	people.known["alice"] = &subject.Subject{Name: "alice", Suspended: true}
	a := b.reserve(t, call("small", 1, 1))
	if _, waits := a.RetryAfter(); !a.Over || a.Verdict() != engine.Blocked || waits || !strings.Contains(a.Message(), "suspended") {
		t.Errorf("%v: %s", a.Verdict(), a.Message())
	}
	if checked := b.check(t, call("small", 1, 1)); checked.Verdict() != engine.Blocked {
		t.Errorf("a check says %v", checked.Verdict())
	}
	d := b.askIn(t, "llm", hits(1, "user=alice"))
	if !d.Over || d.Verdict() != engine.Blocked || !strings.Contains(string(d.Body()), "suspended") {
		t.Errorf("over Envoy: %v, %s", d.Verdict(), d.Body())
	}
	if g := b.progress(t, before, price.Usage{Output: 1}); g.Advice != engine.Stop {
		t.Errorf("a call under way hears %d", g.Advice)
	}
	if s := b.settle(t, before, price.Usage{Input: 100}); s.Over || s.Cost != 100_000 {
		t.Errorf("what was used was not settled: refused %t, cost %d", s.Over, s.Cost)
	}
	if d := b.askIn(t, "llm", hits(50, "user=alice", "ration.phase=record", "ration.meter=tokens")); d.Over {
		t.Error("what was used is not recorded")
	}
	expect(t, "charged is what was used, and nothing that was refused", b.standing(t, call("small", 0, 0)),
		"requests:1 tokens:150 in-flight:0 company:100000 itpm:100")
}

func TestOverridesAndGrants(t *testing.T) {
	alice := subject.Subject{Name: "alice", Overrides: []subject.Override{
		{Limit: "llm.user.tokens", Quantity: "2_000/day"},
		{Limit: "llm.user.requests", Quantity: "unlimited", Expires: 1},
		{Limit: "llm.user.in-flight", Quantity: "3/day"}, // no override for what is in flight
	}, Grants: []subject.Grant{
		{ID: "a", Limit: "llm.user.tokens", Amount: 500}, {ID: "b", Limit: "llm.user.tokens", Amount: 7, Expires: 1},
		{ID: "c", Limit: "llm.user.requests", Amount: 2},
	}}
	b, _ := knowing(t, "", alice)
	a := b.check(t, call("small", 0, 0))
	for name, want := range map[string]int64{"tokens": 2_500, "requests": 7, "in-flight": 2} {
		for i := range a.Limits {
			if l := &a.Limits[i]; l.Limit.Name == name && l.Quantity.Spec.Ceiling() != want {
				t.Errorf("%s: %d, want %d", name, l.Quantity.Spec.Ceiling(), want)
			}
		}
	}
}

func TestAPIKeys(t *testing.T) {
	alice := subject.Subject{
		Name: "alice", Key: "user", Tier: "pro", Attributes: map[string]string{"model": "large", "org": "acme"},
		APIKeys: []subject.APIKey{{Hash: subject.HashKey(aliceKey)}},
	}
	b, people := knowing(t, "", alice)
	byKey := func(apiKey string) *engine.Call {
		c := call("small", 100, 200)
		c.Attributes, c.APIKey = nil, apiKey
		return c
	}
	a := b.reserve(t, byKey(aliceKey))
	expect(t, "as alice", sayLimits(&a.Decision), "OK requests:0+1 tokens:0+300 in-flight:0+1 company:0+500000 itpm:0+100")
	other := b.replica(t) // which knows nobody
	if s := other.settle(t, a, price.Usage{Input: 1}); len(s.Limits) != 4 {
		t.Errorf("settled elsewhere: %s", sayLimits(&s.Decision))
	}
	mallory := byKey(aliceKey)
	mallory.Attributes = []policy.Entry{{Key: "user", Value: "mallory"}}
	if a := b.check(t, mallory); a.Tier.Name != "pro" || !strings.Contains(sayLimits(&a.Decision), "requests:1") {
		t.Errorf("whoever has the key is its owner, whatever else is said: %s", sayLimits(&a.Decision))
	}
	expect(t, "over Envoy", sayLimits(b.askIn(t, "llm", hits(1, "ration.key="+aliceKey))),
		"OK requests:2 tokens:1 in-flight:0 company:1000")

	for i, name := range []string{"alice", "mallory"} {
		expect(t, "over Envoy, beside the name "+name, sayLimits(b.askIn(t, "llm", hits(1, "user="+name, "ration.key="+aliceKey))),
			fmt.Sprintf("OK requests:%d tokens:1 in-flight:0 company:1000", 3+i))
	}

	for name, c := range map[string]*engine.Call{"nobody's key": byKey("sk-fedcba9876543210")} {
		if a := b.reserve(t, c); a.Verdict() != engine.Blocked || !strings.Contains(a.Message(), "API key") {
			t.Errorf("%s: %v, %s", name, a.Verdict(), a.Message())
		}
	}
	if d := b.askIn(t, "llm", hits(1, "ration.key=sk-fedcba9876543210")); d.Verdict() != engine.Blocked {
		t.Errorf("nobody's key over Envoy: %v", d.Verdict())
	}
	people.err = subject.ErrUnavailable
	var out engine.Admission
	if err := b.Reserve(context.Background(), byKey(aliceKey), &out); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("nobody can say whose key it is: %v", err)
	}
}

// Whoever has a key pays where its subject does: not with the budget of another organisation.
func TestOrganisationOfAPIKey(t *testing.T) {
	b := newPolicyBench(t, `
domain: llm
descriptors:
  - key: user
    subject: true
    limits: [ { name: requests, algorithm: fixed_window, limit: 5/minute } ]
  - key: org
    subject: true
    limits: [ { name: requests, algorithm: fixed_window, limit: 5/minute } ]
`, engine.Options{Subjects: &people{known: map[string]*subject.Subject{"alice": {
		Domain: "llm", Name: "alice", Key: "user", Attributes: map[string]string{"org": "acme"}, APIKeys: []subject.APIKey{{Hash: subject.HashKey(aliceKey)}},
	}}}})
	byKey := call("", 1, 1, attribute("org", "globex"))
	byKey.APIKey = aliceKey
	b.reserve(t, byKey)
	for org, want := range map[string]string{"acme": "OK requests:0+1 requests:0+1", "globex": "OK requests:0 requests:0+1"} {
		got := sayLimits(&b.check(t, call("", 1, 1, attribute("org", org))).Decision)
		expect(t, org, got, want)
	}
}

func TestAnonymous(t *testing.T) {
	unnamed := func(more ...func(*engine.Call)) *engine.Call {
		c := call("small", 100, 200)
		c.Attributes = nil
		for _, change := range more {
			change(c)
		}
		return c
	}
	t.Run("shared", func(t *testing.T) {
		b, _ := knowing(t, "anonymous: shared\n")
		a := b.reserve(t, unnamed())
		expect(t, "as one subject", sayLimits(&a.Decision), "OK requests:0+1 tokens:0+300 in-flight:0+1 company:0+500000 itpm:0+100")
		expect(t, "over Envoy", sayLimits(b.askIn(t, "llm", hits(1, "route=chat"))), "OK requests:1+1 tokens:0+300 in-flight:0+1 company:0+500000")
		key := unnamed(func(c *engine.Call) { c.APIKey = "sk-fedcba9876543210" })
		expect(t, "a key that is nobody's", sayLimits(&b.check(t, key).Decision),
			"OK requests:1+1 tokens:0+300 in-flight:0+1 company:0+500000 itpm:0+100")
		b.reserve(t, call("small", 100, 200, func(c *engine.Call) { c.APIKey = "sk-fedcba9876543210" }))
		expect(t, "a key that is nobody's beside a name", sayLimits(&b.check(t, key).Decision),
			"OVER requests:1+2 tokens:0+600 in-flight:0+2! company:0+1000000 itpm:0+200")
		expect(t, "the same over Envoy", sayLimits(b.askIn(t, "llm", hits(1, "user=alice", "ration.key=sk-fedcba9876543210"))),
			"OVER requests:1+2 tokens:0+600 in-flight:0+2! company:0+1000000")
		expect(t, "the one who was named", sayLimits(&b.check(t, call("small", 0, 0)).Decision),
			"OK requests:0 tokens:0 in-flight:0 company:0+1000000 itpm:0+200")
	})
	t.Run("by address", func(t *testing.T) {
		b, _ := knowing(t, "anonymous: { by: remote_address }\n")
		b.reserve(t, unnamed(attribute("remote_address", "203.0.113.9")))
		a := b.check(t, unnamed(attribute("remote_address", "203.0.113.10")))
		expect(t, "from elsewhere", sayLimits(&a.Decision), "OK requests:0 tokens:0 in-flight:0 company:0+500000 itpm:0+100")
		expect(t, "over Envoy", sayLimits(b.askIn(t, "llm", hits(1, "remote_address=203.0.113.9"))),
			"OK requests:1+1 tokens:0+300 in-flight:0+1 company:0+500000")
	})
	t.Run("refused", func(t *testing.T) {
		b, _ := knowing(t, "anonymous: deny\n")
		if a := b.reserve(t, unnamed()); a.Verdict() != engine.Blocked {
			t.Errorf("%v", a.Verdict())
		}
		if d := b.askIn(t, "llm", hits(1, "route=chat")); !d.Over || d.Verdict() != engine.Blocked {
			t.Errorf("over Envoy: %v", d.Verdict())
		}
		if a := b.reserve(t, call("small", 1, 1)); a.Over {
			t.Errorf("whoever has a name is refused: %s", a.Message())
		}
		if a := b.reserve(t, call("small", 1, 1, named(""))); a.Verdict() != engine.Blocked {
			t.Errorf("whose name is empty: %v", a.Verdict())
		}
		if d := b.askIn(t, "llm", hits(1, "user=")); d.Verdict() != engine.Blocked {
			t.Errorf("whose name is empty, over Envoy: %v", d.Verdict())
		}
		var d engine.Decision
		if err := b.Standing(context.Background(), &unnamed().Caller, &d); err != nil || d.Bar != engine.BarUnknown {
			t.Errorf("how limits stand: %v, %v", d.Bar, err)
		}
	})
	t.Run("an empty name is that of nobody", func(t *testing.T) {
		b, _ := knowing(t, "anonymous: shared\n")
		b.reserve(t, unnamed())
		expect(t, "over the API", sayLimits(&b.check(t, call("small", 100, 200, named(""))).Decision),
			"OK requests:0+1 tokens:0+300 in-flight:0+1 company:0+500000 itpm:0+100")
		expect(t, "over Envoy", sayLimits(b.askIn(t, "llm", hits(1, "user="))), "OK requests:1+1 tokens:0+300 in-flight:0+1 company:0+500000")
	})
}

// A policy that comes into force while a request is decided lets nobody through that both refuse.
func TestAnonymousWhilePoliciesChange(t *testing.T) {
	b, _ := knowing(t, "anonymous: deny\n")
	first, _ := b.Policy()
	second, _, err := policy.Parse([]policy.Source{{Name: "llm.yaml", Data: []byte(accounts + "anonymous: deny\n")}}, policy.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var changing sync.WaitGroup
	defer changing.Wait()
	done := make(chan struct{})
	defer close(done)
	changing.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				b.SetPolicy(second)
				b.SetPolicy(first)
			}
		}
	})
	unnamed := call("small", 100, 200)
	unnamed.Attributes = nil
	for range 5_000 {
		if a := b.reserve(t, unnamed); a.Verdict() != engine.Blocked {
			t.Fatalf("%v", a.Verdict())
		}
	}
}

func TestKeyOfAnotherDomain(t *testing.T) {
	b, people := knowing(t, "")
	people.known["alice"] = &subject.Subject{
		Domain: "shop", Name: "alice", Key: "user", APIKeys: []subject.APIKey{{Hash: subject.HashKey(aliceKey)}},
	}
	c := call("small", 100, 200)
	c.Attributes, c.APIKey = nil, aliceKey
	if a := b.reserve(t, c); a.Verdict() != engine.Blocked {
		t.Errorf("%v by the key of another domain's subject", a.Verdict())
	}
}

// Subjects have months of their own, from their billing day in their zone.
func TestOwnMonths(t *testing.T) {
	b := newPolicyBench(t, `
domain: llm
anonymous: deny
descriptors:
  - key: user
    subject: true
    limits: [ { name: tokens, meter: tokens, algorithm: calendar, limit: 1_000/month, time_zone: subject, anchor: subject } ]
`, engine.Options{Subjects: &people{known: map[string]*subject.Subject{
		"alice": {Name: "alice", Zone: "Asia/Tokyo", Anchor: 25}, "bob": {Name: "bob"},
	}}})
	for name, want := range map[string]string{"alice": "2025-11-24T15:00:00Z", "bob": "2025-12-01T00:00:00Z"} {
		c := call("", 10, 0)
		c.Attributes = []policy.Entry{{Key: "user", Value: name}}
		a := b.reserve(t, c)
		expect(t, name+"'s month ends", (a.Now + a.Limits[0].Status.ResetAfter).Time().UTC().Format("2006-01-02T15:04:05Z"), want)
	}
}
