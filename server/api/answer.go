package api

import (
	"net/http"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/rationhq/ration/engine"
	rationv1 "github.com/rationhq/ration/gen/ration/v1"
	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/price"
	"github.com/rationhq/ration/server/headers"
)

// What is answered.

// decisionOf says what was decided about a call.
func decisionOf(a *engine.Admission) *rationv1.Decision {
	d := &a.Decision
	out := &rationv1.Decision{
		Verdict: verdictOf(d.Verdict()), Message: d.Message(), Limits: limitsOf(d), Clamped: a.Clamped,
		Http: httpOf(d), Degraded: d.Degraded.String(), PolicyVersion: a.PolicyVersion, Price: priceOf(&a.Price),
		EstimatedCost: int64(a.Cost), Estimate: usageMessage(a.Estimate), DecidedAt: instant(d.Now), Warnings: d.Warnings(), Waited: waitedOf(&d.Waiting),
	}
	if wait, ok := d.RetryAfter(); ok {
		out.RetryAfter = span(wait)
		out.RetryAfterEstimated = d.RetryEstimated()
	}
	if a.Bounded {
		out.MaxOutputTokens = &a.MaxOutput
	}
	if d.Tier != nil {
		out.Tier = d.Tier.Name
		// A policy loads only with attributes that JSON can hold, and so can a Struct.
		out.TierAttributes, _ = structpb.NewStruct(d.Tier.Attributes)
	}
	return out
}

func verdictOf(v engine.Verdict) rationv1.Verdict {
	switch v {
	case engine.Admitted:
		return rationv1.Verdict_VERDICT_ADMITTED
	case engine.Throttled:
		return rationv1.Verdict_VERDICT_THROTTLED
	case engine.Exhausted:
		return rationv1.Verdict_VERDICT_EXHAUSTED
	case engine.Impossible:
		return rationv1.Verdict_VERDICT_IMPOSSIBLE
	case engine.Blocked:
		return rationv1.Verdict_VERDICT_BLOCKED
	default: // that nobody could decide is an error, and no verdict
		return rationv1.Verdict_VERDICT_UNSPECIFIED
	}
}

// httpOf is what an application may answer to its own caller.
func httpOf(d *engine.Decision) *rationv1.HttpAnswer {
	status := d.HTTPStatus()
	out := &rationv1.HttpAnswer{
		Status: int32(status), Headers: map[string]string{}, Body: string(d.BodyAs(status, http.StatusText(status))),
	}
	for _, f := range headers.Append(nil, d) {
		out.Headers[f.Name] = f.Value
	}
	return out
}

// limitsOf says how all limits stand of which something is known, the one that binds first.
func limitsOf(d *engine.Decision) []*rationv1.LimitStatus {
	var all []*rationv1.LimitStatus
	for _, l := range d.Listing() {
		switch {
		case l.Applied == nil:
			all = append(all, ruleStatus(l.Status, d.Now))
		case !l.Applied.Unavailable:
			all = append(all, limitStatus(l.Applied, d.Now))
		}
	}
	return all
}

func limitStatus(a *engine.Applied, now limit.Micros) *rationv1.LimitStatus {
	s := &a.Status
	out := &rationv1.LimitStatus{
		Limit: a.Limit.Path, Name: a.Limit.Name, Meter: Meter(a.Limit.Meter), Quantity: a.Quantity.Rate(a.Limit.Meter),
		Capacity: a.Quantity.Spec.Ceiling(), Used: s.Used, Held: s.Held, Remaining: s.Remaining, Amount: a.Amount,
		Refuses: a.Over, Shadow: a.Limit.Shadow, TooLarge: a.TooLarge,
	}
	if s.ResetAfter > 0 {
		out.ResetsAt = instant(now + s.ResetAfter)
	}
	if a.Over && !a.Never() {
		out.RetryAfter = span(s.RetryAfter)
	}
	return out
}

// ruleStatus says how a plain rule stands, which counts requests and knows no holds.
func ruleStatus(s *engine.Status, now limit.Micros) *rationv1.LimitStatus {
	out := &rationv1.LimitStatus{
		Limit: s.Rule.Path, Name: s.Limit.Name, Meter: rationv1.Meter_METER_REQUESTS, Quantity: s.Limit.Words(),
		Capacity: s.Limit.RequestsPerUnit, Used: s.Limit.RequestsPerUnit - s.Remaining, Remaining: s.Remaining,
		Amount: s.Amount, Refuses: s.Over, Shadow: s.Rule.Shadow,
	}
	if s.ResetAfter > 0 {
		out.ResetsAt = instant(now + s.ResetAfter)
	}
	if s.Over && !s.Never() {
		out.RetryAfter = span(s.ResetAfter)
	}
	return out
}

// Meter returns what a limit counts.
func Meter(m policy.Meter) rationv1.Meter {
	switch m {
	case policy.Requests:
		return rationv1.Meter_METER_REQUESTS
	case policy.InputTokens:
		return rationv1.Meter_METER_INPUT_TOKENS
	case policy.OutputTokens:
		return rationv1.Meter_METER_OUTPUT_TOKENS
	case policy.Tokens:
		return rationv1.Meter_METER_TOKENS
	case policy.Cost:
		return rationv1.Meter_METER_COST
	case policy.InFlight:
		return rationv1.Meter_METER_CONCURRENCY
	default:
		return rationv1.Meter_METER_UNSPECIFIED
	}
}

func adviceOf(a engine.Advice) rationv1.Advice {
	switch a {
	case engine.Continue:
		return rationv1.Advice_ADVICE_CONTINUE
	case engine.WrapUp:
		return rationv1.Advice_ADVICE_WRAP_UP
	case engine.Stop:
		return rationv1.Advice_ADVICE_STOP
	default:
		return rationv1.Advice_ADVICE_UNSPECIFIED
	}
}

func stateOf(s engine.ReservationState) rationv1.State {
	switch s {
	case engine.StateOpen:
		return rationv1.State_STATE_OPEN
	case engine.StateSettled:
		return rationv1.State_STATE_SETTLED
	case engine.StateLapsed:
		return rationv1.State_STATE_LAPSED
	case engine.StateRecorded:
		return rationv1.State_STATE_RECORDED
	default:
		return rationv1.State_STATE_UNSPECIFIED
	}
}

// reservationOf returns the reservation of an admitted call; nil where there is none.
func reservationOf(a *engine.Admission) *rationv1.Reservation {
	if a.ID == (engine.ReservationID{}) {
		return nil
	}
	return &rationv1.Reservation{Id: idText(a.ID), ExpiresAt: instant(a.Expires)}
}

// chargesOf says what each limit was charged by a settlement.
func chargesOf(s *engine.Settlement) []*rationv1.Charge {
	var all []*rationv1.Charge
	for i := range s.Limits {
		a := &s.Limits[i]
		all = append(all, &rationv1.Charge{
			Limit: a.Limit.Path, Meter: Meter(a.Limit.Meter), Held: a.Reserved, Charged: a.Amount,
		})
	}
	return all
}

// priceOf returns the price by which a call is charged; nil where it has none.
func priceOf(p *engine.Price) *rationv1.Price {
	if !p.Known {
		return nil
	}
	return &rationv1.Price{
		Entry: p.Model, Input: int64(p.Input), CacheRead: int64(p.CacheRead), CacheWrite: int64(p.CacheWrite),
		Output: int64(p.Output), Book: p.Version, Assumed: p.Assumed,
	}
}

func usageMessage(u price.Usage) *rationv1.Usage {
	return &rationv1.Usage{
		InputTokens: u.Input, CacheReadTokens: u.CacheRead, CacheWriteTokens: u.CacheWrite, OutputTokens: u.Output,
	}
}

// instant is absent of a decision that no clock has seen, since no limit applied.
func instant(m limit.Micros) *timestamppb.Timestamp {
	if m == 0 {
		return nil
	}
	return timestamppb.New(m.Time())
}

func span(m limit.Micros) *durationpb.Duration { return durationpb.New(m.Duration()) }
