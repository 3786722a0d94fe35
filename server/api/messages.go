package api

import (
	"strings"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/rationhq/ration/engine"
	"github.com/rationhq/ration/engine/events"
	rationv1 "github.com/rationhq/ration/gen/ration/v1"
	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/price"
)

// Messages that other services of ration.v1 have in common with this one.

// Caller returns whom a message tells of.
func Caller(c *rationv1.Caller) engine.Caller { return callerOf(c) }

// Call returns the call that messages tell of.
func Call(c *rationv1.Caller, e *rationv1.Estimate) *engine.Call { return callOf(c, e) }

// Decision says what was decided.
func Decision(a *engine.Admission) *rationv1.Decision { return decisionOf(a) }

// Decided returns what keeps a from being an answer: err, or that nobody could decide.
func Decided(a *engine.Admission, err error) error { return decided(a, err) }

// Limit says how a limit stood when it was now. One of which nothing is known, as the store could not be asked, is nil.
func Limit(l engine.Listed, now limit.Micros) *rationv1.LimitStatus {
	switch {
	case l.Applied == nil:
		return ruleStatus(l.Status, now)
	case l.Applied.Unavailable:
		return nil
	}
	return limitStatus(l.Applied, now)
}

// Instant returns an instant; nil for 0.
func Instant(m limit.Micros) *timestamppb.Timestamp { return instant(m) }

// Span returns a length of time.
func Span(m limit.Micros) *durationpb.Duration { return span(m) }

// Usage says what was used.
func Usage(u price.Usage) *rationv1.Usage { return usageMessage(u) }

// Event says what has happened.
func Event(e *events.Event) *rationv1.WatchEventsResponse {
	out := &rationv1.WatchEventsResponse{
		Id: e.ID, Kind: string(e.Kind), Time: timestamppb.New(e.At.Time()), Domain: e.Domain, Subject: e.Subject(), Limit: e.Limit,
		Message: e.Message, ThresholdPercent: e.Percent, Used: e.Used, Capacity: e.Capacity, ResetsAt: instant(e.ResetsAt),
	}
	// What callers have named themselves need not be text.
	for _, text := range []*string{&out.Domain, &out.Subject, &out.Limit, &out.Message} {
		*text = strings.ToValidUTF8(*text, "\ufffd")
	}
	return out
}
