package events

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/policy"
)

// Kind is what an event is about.
type Kind string

// The kinds. The events of thresholds are the same on every replica of one store, the others are those of one process.
const (
	Threshold Kind = "threshold" // of a limit so much is used as its warn_at says
	Refusal   Kind = "refusal"   // requests were refused
	Degraded  Kind = "degraded"  // the store does not decide, or does again
	Policy    Kind = "policy"    // a policy is in force, or could not be used
)

// Kinds returns all kinds.
func Kinds() []Kind { return []Kind{Threshold, Refusal, Degraded, Policy} }

// Event is something that has happened.
type Event struct {
	// ID is the same however often the event is told.
	ID   string
	Kind Kind
	At   limit.Micros
	// Domain is the one that it is about; empty: it is about the process.
	Domain string
	// Path are the entries that lead to whose event it is, the subject last; none: that of nobody in particular.
	Path []policy.Entry
	// Clipped says that Domain or Path are not whole, since they were too long to be kept.
	Clipped bool
	// Limit is the path of the limit.
	Limit string
	// Message says it to a person.
	Message string

	// The others are of thresholds alone: which was crossed, in percent, what was used and what is allowed, and until when.
	Percent        int32
	Used, Capacity int64
	ResetsAt       limit.Micros
}

// Subject returns the path as text: "user=alice".
func (e *Event) Subject() string {
	var all []string
	for _, entry := range e.Path {
		all = append(all, entry.Key+"="+entry.Value)
	}
	return strings.Join(all, " ")
}

// inOrder sorts events by when they happened.
func inOrder(all []Event) {
	slices.SortStableFunc(all, func(a, b Event) int { return cmp.Or(cmp.Compare(a.At, b.At), strings.Compare(a.ID, b.ID)) })
}

// Source has the events of thresholds: see store.Outbox, whose promises are these.
type Source interface {
	// Events returns those that are kept from since on, in the order of At.
	Events(ctx context.Context, since limit.Micros) ([]Event, error)
	// Notices returns a channel on which something comes, soon after, when there may be new ones: a hint, until ctx ends.
	Notices(ctx context.Context) <-chan struct{}
}
