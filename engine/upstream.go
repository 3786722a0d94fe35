package engine

import (
	"context"
	"fmt"
	"time"

	"github.com/rationhq/ration/engine/provider"
	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/store"
)

// A provider knows better than any policy how much of its limits is left: others may use the same key, and it may count
// otherwise. So the limits of an upstream come down to what the provider says, for all callers on all replicas, and recover
// by themselves, each at its own rate. Nothing else is kept of what it says.

// UpstreamReport is what a provider has answered to a call.
type UpstreamReport struct {
	Domain string
	// Upstream is its name in the policy; empty: the one that serves Model.
	Upstream, Model string
	Answer          provider.Answer
	// At is when the answer came, by the clock of who tells of it; the zero time: just now.
	At time.Time
}

const (
	// FreshFor is how old an answer may be for what it says to be left to count: calls that were made since are not in it.
	FreshFor = 10 * limit.Second
	// MaxHeaders is how many headers a report has at most.
	MaxHeaders = 256
	// MaxHeaderBytes is how many bytes they are in all.
	MaxHeaderBytes = 64 << 10
)

// Followed is what has become of a report. Its Decision holds no verdict: Limits are those that follow the provider, as they
// stand now.
type Followed struct {
	Decision
	// Upstream is the one that the report is about.
	Upstream *policy.Upstream
	// Refused says that the provider has not served the call for its limits, and Wait for how much longer it wants nobody to
	// come.
	Refused bool
	Wait    limit.Micros
	// Ignored is what does not count, and why.
	Ignored []Ignored
}

// Ignored is a header, or what it says of a limit, that does not count.
type Ignored struct {
	Header string // in lower case; empty: the refusal itself
	Limit  string // the path of the limit; empty: none in particular
	Why    string
}

// ReportUpstream lets the limits of an upstream follow what its provider has answered: where less is left there than here,
// they come down to that, and after a refusal nothing fits before it is time. They never go up. Whatever cannot be read is
// told, and is no error; nor is it one that no limit follows.
//
// Errors: an *InvalidError; ErrNoPolicy, ErrUnknownDomain; and those of the store as [Engine.Decide], after which it may be
// sent again as long as it is fresh.
func (e *Engine) ReportUpstream(ctx context.Context, r *UpstreamReport, out *Followed) error {
	*out = Followed{Decision: Decision{Statuses: out.Statuses[:0], Limits: out.Limits[:0]}, Ignored: out.Ignored[:0]}
	if r.Domain == "" {
		return &InvalidError{Field: "domain", Reason: "it is empty: name the domain of the policy that has the upstream"}
	}
	now, domain, err := e.domainOf(ctx, &Caller{Domain: r.Domain})
	if err != nil {
		return err
	}
	// It is about calls of everybody, whoever has made this one.
	if err := scopeOf(ctx).takesEverybody(); err != nil {
		return err
	}
	if err := r.check(); err != nil {
		return err
	}
	if out.Upstream, err = r.upstream(domain); err != nil {
		return err
	}
	at, age := time.Now(), limit.Micros(0)
	if !r.At.IsZero() {
		age = max(0, limit.At(at)-limit.At(r.At)) // whoever's clock is ahead tells of what is now
	}
	facts := provider.Read(&r.Answer, limit.At(at)-age)
	return e.follow(ctx, now, domain, &facts, age, nil, out)
}

func (r *UpstreamReport) check() error {
	size := 0
	for i := range r.Answer.Headers {
		size += len(r.Answer.Headers[i].Name) + len(r.Answer.Headers[i].Value)
	}
	switch s := r.Answer.Status; {
	case s != 0 && (s < 100 || s > 599):
		return &InvalidError{Field: "status", Reason: fmt.Sprintf("%d is no status of HTTP: say 100 to 599, or leave it out", s)}
	case len(r.Answer.Headers) > MaxHeaders:
		return tooMuch("headers", "headers", len(r.Answer.Headers), MaxHeaders)
	case size > MaxHeaderBytes:
		return tooMuch("headers", "bytes in all", size, MaxHeaderBytes)
	}
	return nil
}

// upstream finds the one that the report is about.
func (r *UpstreamReport) upstream(domain *policy.Domain) (*policy.Upstream, error) {
	switch {
	case r.Upstream != "":
		u, near := domain.UpstreamNamed(r.Upstream)
		if u != nil {
			return u, nil
		}
		why := fmt.Sprintf("the domain %.100q has no upstream %.100q", domain.Name(), r.Upstream)
		if near != "" {
			why += fmt.Sprintf(": did you mean %q?", near)
		}
		return nil, &InvalidError{Field: "upstream", Reason: why}
	case r.Model == "":
		return nil, &InvalidError{Field: "upstream", Reason: "name the upstream, or the model that it serves"}
	}
	if u := domain.Upstream(r.Model); u != nil {
		return u, nil
	}
	return nil, &InvalidError{Field: "model", Reason: fmt.Sprintf(
		"no upstream of the domain %.100q serves %.100q: name the upstream, or add the model to the `models` of one", domain.Name(), r.Model)}
}

// follow lets the limits of out.Upstream follow what a provider has said. All that is known of providers comes through here,
// by whichever way. known, where there is one, says how limits stood a moment ago: those that are as low already are left
// alone.
func (e *Engine) follow(
	ctx context.Context, now *loaded, domain *policy.Domain, facts *provider.Facts, age limit.Micros, known *Decision, out *Followed,
) error {
	counters := now.upstreams[out.Upstream]
	plan := needed(planOf(domain, facts, limit.At(time.Now()), age, out), known)
	if len(facts.Notes) > 0 {
		counters.unreadable.Inc()
	}
	if len(plan) == 0 {
		counters.count(out.Refused, false, nil)
		return nil
	}
	s := e.scratch.Get().(*scratch)
	defer e.release(s)
	s.beginStep()
	s.names, s.tells, s.wholeCall, s.looks = s.names[:0], true, true, false
	s.matches, s.asked = s.matches[:0], s.asked[:0]
	match := out.Upstream.Match()
	for i := range plan {
		p := &plan[i]
		o := opening{limit: p.limit, periods: &p.limit.Periods, quantity: p.quantity, match: &match}
		op := &s.step.Ops[s.open(&out.Decision, o, store.Deplete, p.left, 0)]
		op.Wait = p.wait
		op.Thresholds, op.Label = nil, nil // it is not used up by anybody here: whoever uses more hears of it
	}
	s.links = s.links[:0] // no descriptor has asked
	err := e.askWhole(ctx, s, &out.Decision)
	counters.count(out.Refused, true, err)
	if err != nil {
		return err
	}
	for i := range out.Limits {
		out.Limits[i].Amount = 0 // nothing was charged
	}
	if out.Refused && counters.noted.allows(time.Now()) {
		e.opts.Log.Warn("a provider has refused a call for its limits, and those of its upstream follow; this is said once a "+
			"minute at most", "domain", domain.Name(), "upstream", out.Upstream.Name, "wait", out.Wait.Duration(), "limits", len(plan))
	}
	return nil
}
