// Package usage serves ration.v1.UsageService: how limits stand, what was used and by whom, and why a limit applies.
//
// It changes nothing, and must not know where anything is kept. Read [Service.GetUsage] first.
package usage

import (
	"cmp"
	"context"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/rationhq/ration/engine"
	rationv1 "github.com/rationhq/ration/gen/ration/v1"
	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/server/api"
	"github.com/rationhq/ration/server/failure"
)

// Service implements rationv1.UsageServiceServer.
type Service struct {
	rationv1.UnimplementedUsageServiceServer
	engine *engine.Engine
}

// New returns the service over e.
func New(e *engine.Engine) *Service { return &Service{engine: e} }

// GetUsage implements rationv1.UsageServiceServer.
func (s *Service) GetUsage(ctx context.Context, r *rationv1.GetUsageRequest) (*rationv1.GetUsageResponse, error) {
	caller := api.Caller(r.GetCaller())
	var d engine.Decision
	if err := s.engine.Standing(ctx, &caller, &d); err != nil {
		return nil, failure.Of(err)
	}
	if d.Degraded != policy.StoreErrorNone {
		return nil, failure.Unavailable(failure.StoreUnavailable,
			"the store does not answer, and nobody else knows how limits stand", engine.Soon().Duration())
	}
	out := &rationv1.GetUsageResponse{AskedAt: api.Instant(d.Now), Warnings: d.Warnings()}
	if d.Bar != engine.BarNone {
		out.Warnings = append([]string{d.Message()}, out.Warnings...)
	}
	if d.Tier != nil {
		out.Tier = d.Tier.Name
	}
	for _, l := range d.Listing() {
		f := &rationv1.LimitForecast{Status: api.Limit(l, d.Now)}
		if l.Applied != nil {
			if lasts, ends := l.Applied.Forecast(d.Now); ends {
				f.ExhaustedIn, f.Forecast = api.Span(lasts), engine.ForecastWords(lasts)
			}
		}
		out.Limits = append(out.Limits, f)
	}
	return out, nil
}

// Explain implements rationv1.UsageServiceServer.
func (s *Service) Explain(ctx context.Context, r *rationv1.ExplainRequest) (*rationv1.ExplainResponse, error) {
	var x engine.Explanation
	if err := s.engine.Explain(ctx, api.Call(r.GetCaller(), r.GetEstimate()), &x); err != nil {
		return nil, failure.Of(err)
	}
	if err := api.Decided(&x.Admission, nil); err != nil {
		return nil, err
	}
	out := &rationv1.ExplainResponse{Decision: api.Decision(&x.Admission), Text: x.Text()}
	if x.Tier != nil {
		out.TierFrom = string(x.TierFrom)
	}
	for i := range x.Reasons {
		reason := &x.Reasons[i]
		out.Reasons = append(out.Reasons, &rationv1.Reason{
			Status: api.Limit(reason.Listed, x.Now), Place: reason.Place, Because: reason.Because,
			Meaning: strings.Join(reason.Meaning, "\n"),
		})
	}
	return out, nil
}

// QueryUsage implements rationv1.UsageServiceServer.
func (s *Service) QueryUsage(ctx context.Context, r *rationv1.QueryUsageRequest) (*rationv1.QueryUsageResponse, error) {
	q := engine.UsageQuery{Domain: r.GetDomain(), By: r.GetGroupBy()}
	if r.GetDomain() == "" {
		return nil, failure.Invalid(failure.InvalidField, "domain", "it is empty: name the domain of a policy")
	}
	var err error
	if q.Subject, err = subjectOf(r.GetSubject()); err != nil {
		return nil, err
	}
	if r.GetFrom() == nil {
		return nil, failure.Invalid(failure.InvalidField, "from", "it is missing: say from when, as 2026-11-01T00:00:00Z")
	}
	if q.From, err = instant("from", r.GetFrom()); err != nil {
		return nil, err
	}
	if q.To, err = instant("to", r.GetTo()); err != nil {
		return nil, err
	}
	if r.GetTo() == nil {
		q.To++ // this very hour, also where it begins just now
	}
	switch r.GetResolution() {
	case rationv1.Resolution_RESOLUTION_UNSPECIFIED, rationv1.Resolution_RESOLUTION_DAY:
		q.Resolution = engine.ByDays
	case rationv1.Resolution_RESOLUTION_HOUR:
		q.Resolution = engine.ByHours
	case rationv1.Resolution_RESOLUTION_TOTAL:
		q.Resolution = engine.Totals
	default:
		return nil, failure.Invalid(failure.InvalidField, "resolution", "it is none of RESOLUTION_HOUR, RESOLUTION_DAY and RESOLUTION_TOTAL")
	}
	rows, total, err := s.engine.Usage(ctx, &q)
	if err != nil {
		return nil, failure.Of(err)
	}
	out := &rationv1.QueryUsageResponse{Total: rowMessage(&total, nil)}
	for i := range rows {
		out.Rows = append(out.Rows, rowMessage(&rows[i], r.GetGroupBy()))
	}
	return out, nil
}

// TopUsage implements rationv1.UsageServiceServer.
func (s *Service) TopUsage(ctx context.Context, r *rationv1.TopUsageRequest) (*rationv1.TopUsageResponse, error) {
	if r.GetDomain() == "" {
		return nil, failure.Invalid(failure.InvalidField, "domain", "it is empty: name the domain of a policy")
	}
	at, err := instant("at", r.GetAt())
	if err != nil {
		return nil, err
	}
	by, ok := map[rationv1.Ranking]engine.Ranking{
		rationv1.Ranking_RANKING_UNSPECIFIED: engine.ByCost, rationv1.Ranking_RANKING_COST: engine.ByCost,
		rationv1.Ranking_RANKING_REQUESTS: engine.ByRequests, rationv1.Ranking_RANKING_TOKENS: engine.ByTokens,
		rationv1.Ranking_RANKING_REFUSALS: engine.ByRefusals,
	}[r.GetBy()]
	if !ok {
		return nil, failure.Invalid(failure.InvalidField, "by",
			"it is none of RANKING_REQUESTS, RANKING_TOKENS, RANKING_COST and RANKING_REFUSALS")
	}
	top, start, err := s.engine.Top(ctx, r.GetDomain(), by, at, r.GetMonth(), cmp.Or(int(r.GetLimit()), 10))
	if err != nil {
		return nil, failure.Of(err)
	}
	out := &rationv1.TopUsageResponse{Start: timestamppb.New(start.Time())}
	for _, t := range top {
		out.Subjects = append(out.Subjects, &rationv1.TopSubject{Subject: t.Subject, Amount: t.Total})
	}
	return out, nil
}

// subjectOf reads KEY=VALUE; nothing is nobody in particular.
func subjectOf(text string) (policy.Entry, error) {
	key, value, ok := strings.Cut(text, "=")
	if text != "" && (!ok || key == "" || value == "") {
		return policy.Entry{}, failure.Invalid(failure.InvalidField, "subject", "it is not KEY=VALUE, as user=alice")
	}
	return policy.Entry{Key: key, Value: value}, nil
}

// instant returns when something is; now, where nobody says.
func instant(field string, at *timestamppb.Timestamp) (limit.Micros, error) {
	if at == nil {
		return limit.At(time.Now()), nil
	}
	m := limit.At(at.AsTime())
	if !at.IsValid() || m < 0 || int64(m) > limit.MaxAmount {
		return 0, failure.Invalid(failure.InvalidField, field, "it is no instant from 1970 to 2255")
	}
	return m, nil
}

func rowMessage(row *engine.UsageRow, by []string) *rationv1.UsageRow {
	out := &rationv1.UsageRow{
		Start: api.Instant(row.Start), Group: map[string]string{}, Requests: row.Requests, Refusals: map[string]int64{},
		Usage: api.Usage(row.Usage), Cost: int64(row.Cost), Tokens: row.Tokens, TokensPerRequest: row.TokensPerRequest,
	}
	for i, name := range by {
		out.Group[name] = row.Group[i]
	}
	for verdict, n := range row.Refusals {
		if n != 0 {
			out.Refusals[engine.Verdict(verdict).Reason()] = n
		}
	}
	if l := &row.Latency; l.Count > 0 {
		out.Latency = &rationv1.Latency{Count: l.Count, P50: api.Span(l.P50), P95: api.Span(l.P95), P99: api.Span(l.P99)}
	}
	return out
}
