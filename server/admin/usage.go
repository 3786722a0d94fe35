package admin

import (
	"context"

	"github.com/rationhq/ration/engine"
	rationv1 "github.com/rationhq/ration/gen/ration/v1"
	"github.com/rationhq/ration/server/api"
	"github.com/rationhq/ration/server/failure"
	"github.com/rationhq/ration/subject"
)

// AdjustUsage implements rationv1.AdminServiceServer.
func (s *Service) AdjustUsage(ctx context.Context, r *rationv1.AdjustUsageRequest) (*rationv1.AdjustUsageResponse, error) {
	all, err := s.correct(ctx, s.engine.Adjust, "adjust_usage", r.GetActor(), engine.Correction{
		Caller: api.Caller(r.GetCaller()), Limit: r.GetLimit(), Amount: r.GetAmount(),
	})
	if err != nil {
		return nil, err
	}
	return &rationv1.AdjustUsageResponse{Status: all[0]}, nil
}

// ResetUsage implements rationv1.AdminServiceServer.
func (s *Service) ResetUsage(ctx context.Context, r *rationv1.ResetUsageRequest) (*rationv1.ResetUsageResponse, error) {
	all, err := s.correct(ctx, s.engine.Reset, "reset_usage", r.GetActor(), engine.Correction{
		Caller: api.Caller(r.GetCaller()), Limit: r.GetLimit(),
	})
	if err != nil {
		return nil, err
	}
	return &rationv1.ResetUsageResponse{Limits: all}, nil
}

// correct makes a correction, of which each part is in the audit of its subject before it is made: counters and
// directory cannot change in one step, and a change that nobody has written down would be worse than a line too many.
func (s *Service) correct(
	ctx context.Context, correct func(context.Context, *engine.Correction, *engine.Decision) error,
	action string, actor *rationv1.Actor, c engine.Correction,
) ([]*rationv1.LimitStatus, error) {
	who, err := by(ctx, actor, action)
	if err != nil {
		return nil, err
	}
	c.Before = func(ctx context.Context, what *engine.Corrected) error {
		_, err := s.directory.Change(ctx, what.Subject, who, func(to *subject.Subject) error {
			to.Corrected = subject.Correction{Limit: what.Limit.Path, Amount: what.Amount, At: now()}
			return nil
		})
		return err
	}
	var d engine.Decision
	if err := correct(ctx, &c, &d); err != nil {
		return nil, failure.Of(err)
	}
	var all []*rationv1.LimitStatus
	for _, l := range d.Listing() {
		all = append(all, api.Limit(l, d.Now))
	}
	return all, nil
}
