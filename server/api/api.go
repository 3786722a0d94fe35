// Package api serves ration.v1.AccountingService: it turns messages into what the engine asks, and what the engine says
// into messages.
//
// It decides nothing, and must not know how a limit works. Read [Service.Reserve] first, then ask.go and answer.go; acquire.go waits.
package api

import (
	"context"
	"errors"
	"strings"

	"google.golang.org/grpc/codes"

	"github.com/rationhq/ration/engine"
	rationv1 "github.com/rationhq/ration/gen/ration/v1"
	"github.com/rationhq/ration/server/failure"
	"github.com/rationhq/ration/server/recovery"
)

// Service implements rationv1.AccountingServiceServer.
type Service struct {
	rationv1.UnimplementedAccountingServiceServer
	engine *engine.Engine
	guard  *recovery.Guard
}

// New returns the service over e. The guard catches panics where a call goes on in goroutines of its own.
func New(e *engine.Engine, guard *recovery.Guard) *Service { return &Service{engine: e, guard: guard} }

// Check implements rationv1.AccountingServiceServer.
func (s *Service) Check(ctx context.Context, r *rationv1.CheckRequest) (*rationv1.CheckResponse, error) {
	call := callOf(r.GetCaller(), r.GetEstimate())
	call.API = apiOf(r.GetAnswerAs())
	var a engine.Admission
	if err := decided(&a, s.engine.Check(ctx, call, &a)); err != nil {
		return nil, err
	}
	return &rationv1.CheckResponse{Decision: decisionOf(&a)}, nil
}

// Reserve implements rationv1.AccountingServiceServer.
func (s *Service) Reserve(ctx context.Context, r *rationv1.ReserveRequest) (*rationv1.ReserveResponse, error) {
	call := callOf(r.GetCaller(), r.GetEstimate())
	call.Key, call.Lasts, call.API = r.GetIdempotencyKey(), leaseOf(r.GetLease()), apiOf(r.GetAnswerAs())
	if r.Wait != nil {
		place := placeOf(r.GetWait())
		return s.acquire(ctx, call, &place)
	}
	var a engine.Admission
	if err := decided(&a, s.engine.Reserve(ctx, call, &a)); err != nil {
		return nil, err
	}
	return reserved(&a), nil
}

// decided returns what keeps a from being an answer. That nobody could decide is an error, although a limit refuses:
// clients repeat errors, and do not show them to people.
func decided(a *engine.Admission, err error) error {
	if err != nil {
		return failure.Of(err)
	}
	if a.Verdict() != engine.Unavailable {
		return nil
	}
	wait, _ := a.RetryAfter()
	return failure.Unavailable(failure.StoreUnavailable, a.Message(), wait.Duration())
}

// Settle implements rationv1.AccountingServiceServer.
func (s *Service) Settle(ctx context.Context, r *rationv1.SettleRequest) (*rationv1.SettleResponse, error) {
	id, err := idOf(r.GetReservationId())
	if err != nil {
		return nil, failure.Of(err)
	}
	report := &engine.Report{ID: id, Usage: usageOf(r.GetUsage()), Model: r.GetModel()}
	if r.GetCaller() != nil {
		caller := callerOf(r.GetCaller())
		report.Caller = &caller
	}
	var out engine.Settlement
	err = s.engine.Settle(ctx, report, &out)
	if errors.Is(err, engine.ErrUnknownReservation) {
		return nil, failure.New(codes.NotFound, failure.UnknownReservation,
			err.Error()+": name its caller in the report, and what was used is recorded")
	}
	if err != nil {
		return nil, failedEnd(err)
	}
	return &rationv1.SettleResponse{
		State: stateOf(out.State), Replayed: out.Replayed, Cost: int64(out.Cost), Charges: chargesOf(&out),
		Limits: limitsOf(&out.Decision), Price: priceOf(&out.Price), Warnings: out.Warnings(),
	}, nil
}

// Progress implements rationv1.AccountingServiceServer.
func (s *Service) Progress(ctx context.Context, r *rationv1.ProgressRequest) (*rationv1.ProgressResponse, error) {
	id, err := idOf(r.GetReservationId())
	if err != nil {
		return nil, failure.Of(err)
	}
	var out engine.Going
	progress := &engine.Progress{ID: id, Usage: usageOf(r.GetUsage()), Lasts: leaseOf(r.GetLease())}
	if err := s.engine.Progress(ctx, progress, &out); err != nil {
		return nil, failure.Of(err)
	}
	answer := &rationv1.ProgressResponse{
		Advice: adviceOf(out.Advice), State: stateOf(out.State), Limits: limitsOf(&out.Decision),
	}
	for _, l := range answer.Limits {
		l.Refuses, l.RetryAfter = false, nil // a call under way: what it may still use is in the advice
	}
	if out.Bounded {
		answer.MaxOutputTokens = &out.MaxOutput
	}
	if out.State == engine.StateOpen {
		answer.ExpiresAt = instant(out.Expires)
	}
	return answer, nil
}

// Release implements rationv1.AccountingServiceServer.
func (s *Service) Release(ctx context.Context, r *rationv1.ReleaseRequest) (*rationv1.ReleaseResponse, error) {
	id, err := idOf(r.GetReservationId())
	if err != nil {
		return nil, failure.Of(err)
	}
	var out engine.Settlement
	if err := s.engine.Release(ctx, id, &out); err != nil {
		return nil, failedEnd(err)
	}
	return &rationv1.ReleaseResponse{State: stateOf(out.State), Replayed: out.Replayed, Limits: limitsOf(&out.Decision)}, nil
}

// failedEnd says of a reservation that could not be ended why.
func failedEnd(err error) error {
	if errors.Is(err, engine.ErrKeyReused) {
		return failure.New(codes.AlreadyExists, failure.SettledOtherwise,
			"the reservation was ended before, by a report that said something else: that one counts")
	}
	return failure.Of(err)
}

// Record implements rationv1.AccountingServiceServer.
func (s *Service) Record(ctx context.Context, r *rationv1.RecordRequest) (*rationv1.RecordResponse, error) {
	record := &engine.Record{
		Caller: callerOf(r.GetCaller()), Usage: usageOf(r.GetUsage()), Requests: 1, Key: r.GetIdempotencyKey(),
	}
	if r.Requests != nil {
		record.Requests = r.GetRequests()
	}
	var out engine.Settlement
	if err := s.engine.Record(ctx, record, &out); err != nil {
		return nil, failure.Of(err)
	}
	return &rationv1.RecordResponse{
		Replayed: out.Replayed, Cost: int64(out.Cost), Limits: limitsOf(&out.Decision), Price: priceOf(&out.Price),
		Warnings: out.Warnings(),
	}, nil
}

// ReportUpstream implements rationv1.AccountingServiceServer.
func (s *Service) ReportUpstream(ctx context.Context, r *rationv1.ReportUpstreamRequest) (*rationv1.ReportUpstreamResponse, error) {
	report, err := upstreamReportOf(r)
	if err != nil {
		return nil, failure.Of(err)
	}
	var out engine.Followed
	if err := s.engine.ReportUpstream(ctx, report, &out); err != nil {
		return nil, failure.Of(err)
	}
	answer := &rationv1.ReportUpstreamResponse{Upstream: out.Upstream.Name, Refused: out.Refused, Limits: limitsOf(&out.Decision)}
	if out.Refused {
		answer.Wait = span(out.Wait)
	}
	for _, i := range out.Ignored {
		answer.Ignored = append(answer.Ignored, &rationv1.IgnoredHeader{
			Header: strings.ToValidUTF8(i.Header, "\ufffd"), Limit: i.Limit, Reason: strings.ToValidUTF8(i.Why, "\ufffd"),
		})
	}
	return answer, nil
}
