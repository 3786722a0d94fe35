package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/rationhq/ration/engine/events"
	"github.com/rationhq/ration/policy"
)

// EventQuery says what somebody wants to hear of.
type EventQuery struct {
	// Domain and Subject are those that events are about; empty: all.
	Domain  string
	Subject policy.Entry
	// Kinds of events; none: all but refusals, as far as the caller may hear of them.
	Kinds []string
	// After is the ID of the event that was seen last; empty: only new ones are told.
	After string
}

// errServerOutOfScope says that what happens to the server is nothing for a caller who is bound.
var errServerOutOfScope = scopeError("events of the kinds `degraded` and `policy` are of the whole server, and the token is not for all of it: " +
	"leave those kinds out, or use a token without `domains` and `subjects`")

// Watch begins to tell what happens. The watcher has to be closed.
//
// Errors: an *InvalidError; ErrNoPolicy, ErrUnknownDomain, ErrOutOfScope; events.ErrCrowded and events.ErrClosed; those of
// the store, where it is asked for what it has kept.
func (e *Engine) Watch(ctx context.Context, q *EventQuery) (*events.Watcher, error) {
	scope := scopeOf(ctx)
	kinds, err := q.kinds(scope)
	if err != nil {
		return nil, err
	}
	var subjectKeys []string
	if q.Domain != "" {
		_, domain, err := e.domainOf(ctx, &Caller{Domain: q.Domain})
		if err != nil {
			return nil, err
		}
		subjectKeys = domain.SubjectKeys()
	}
	if q.Subject.Key != "" && scope != nil && !scope.seesSubjects(subjectKeys, []policy.Entry{q.Subject}) {
		return nil, scope.refuse(errSubjectOutOfScope)
	}
	w, err := e.hub.Watch(ctx, events.Want{Kinds: kinds, After: q.After, Takes: func(of *events.Event) bool {
		return (q.Domain == "" || of.Domain == q.Domain) &&
			(q.Subject.Key == "" || slices.Contains(of.Path, q.Subject)) && e.sees(scope, of)
	}})
	if errors.Is(err, events.ErrPosition) {
		return nil, &InvalidError{Field: "after", Reason: fmt.Sprintf("%.100q is the id of no event: leave it empty to hear of new ones", q.After)}
	}
	return w, err
}

// kinds returns those that are wanted.
func (q *EventQuery) kinds(scope *Scope) (kinds []events.Kind, err error) {
	bound := scope != nil && len(scope.Domains)+len(scope.Subjects) > 0
	if len(q.Kinds) == 0 {
		if bound {
			return []events.Kind{events.Threshold}, nil
		}
		return []events.Kind{events.Threshold, events.Degraded, events.Policy}, nil
	}
	for i, name := range q.Kinds {
		k := events.Kind(name)
		switch {
		case !slices.Contains(events.Kinds(), k):
			return nil, &InvalidError{
				Field: fmt.Sprintf("kinds[%d]", i), Reason: fmt.Sprintf("there are no events of the kind %.100q: use threshold, refusal, degraded or policy", name),
			}
		case bound && (k == events.Degraded || k == events.Policy):
			return nil, scope.refuse(errServerOutOfScope)
		}
		kinds = append(kinds, k)
	}
	return kinds, nil
}

// sees says whether somebody may hear of an event. It is no refusal not to: nobody asked for that one.
func (e *Engine) sees(scope *Scope, of *events.Event) bool {
	if scope == nil || len(scope.Domains)+len(scope.Subjects) == 0 {
		return true
	}
	if of.Domain == "" || of.Clipped || len(scope.Domains) > 0 && !slices.Contains(scope.Domains, of.Domain) {
		return false
	}
	var subjectKeys []string
	if domain, err := e.Domain(of.Domain); err == nil {
		subjectKeys = domain.SubjectKeys()
	}
	return scope.seesSubjects(subjectKeys, of.Path)
}

// seesSubjects says whether what belongs to the subject of a path may be seen: as takesSubjects.
func (s *Scope) seesSubjects(subjectKeys []string, path []policy.Entry) bool {
	if len(s.Subjects) == 0 {
		return true
	}
	named := false
	for i := range path {
		a := &path[i]
		within := slices.ContainsFunc(s.Subjects, func(p SubjectPattern) bool { return p.matches(a.Key, a.Value) })
		known := slices.ContainsFunc(s.Subjects, func(p SubjectPattern) bool { return p.Key == a.Key }) || namesSubjects(subjectKeys, a.Key)
		if known && !within {
			return false
		}
		named = named || within
	}
	return named
}

func (e *Engine) newHub() *events.Hub {
	opts := events.Options{Failed: func(err error) { e.noteUnread(err) }}
	if o := e.Outbox(); o != nil {
		opts.Source = o
	}
	return events.New(opts)
}

// noteUnread says why the store's events could not be read, where no outage tells of it.
func (e *Engine) noteUnread(why error) {
	if _, out := e.Outage(); !out && e.unreadNoted.allows(time.Now()) {
		e.opts.Log.Warn("the events of thresholds cannot be read, and are told later; this is said once a minute at most", "error", why)
	}
}

// tellRefusal tells that a request was refused, if somebody wants to know.
func (e *Engine) tellRefusal(domain *policy.Domain, s *scratch, d *Decision, verdict Verdict) {
	if !e.hub.WantsRefusals() {
		return
	}
	var owner []byte
	if first := s.firstSubject(domain.SubjectKey()); first >= 0 {
		owner = s.matches[first].Owner
	}
	e.hub.Refused(domain.Name(), owner, d.bindingPath(), verdict.Reason(), func() ([]policy.Entry, string) {
		return policy.ReadOwner(owner), d.Message()
	})
}

// bindingPath returns the path of the limit that refuses; empty where none does.
func (d *Decision) bindingPath() string {
	binding := d.Binding()
	switch {
	case binding < 0 || d.Bar != BarNone || d.Reused:
		return ""
	case d.Statuses[binding].Applied != nil:
		return d.Statuses[binding].Applied.Limit.Path
	case d.Statuses[binding].Rule != nil:
		return d.Statuses[binding].Rule.Path
	}
	return ""
}

// What the events of the server say has no particulars: those are in the log.

func (e *Engine) tellOutage() {
	e.hub.Publish(events.Event{Kind: events.Degraded, Message: "The store does not decide: limits do what their on_store_error says."})
}

func (e *Engine) tellEndOfOutage(after time.Duration) {
	e.hub.Publish(events.Event{Kind: events.Degraded, Message: fmt.Sprintf("The store decides again, after %v.", after.Round(time.Millisecond))})
}

func (e *Engine) tellPolicy(p *policy.Policy) {
	e.hub.Publish(events.Event{Kind: events.Policy, Message: fmt.Sprintf("The policy of version %s is in force.", p.Version())})
}

// TellPolicyRefused tells that a policy was not put in force, with the problems that it has.
func (e *Engine) TellPolicyRefused(problems []string) {
	text := "A new policy cannot be used, and the one before stays in force"
	if len(problems) > 0 {
		text += ": " + problems[0]
	}
	if more := len(problems) - 1; more > 0 {
		text += fmt.Sprintf(" (and %d more)", more)
	}
	e.hub.Publish(events.Event{Kind: events.Policy, Message: text})
}
