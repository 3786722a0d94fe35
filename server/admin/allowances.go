package admin

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/rationhq/ration/engine"
	rationv1 "github.com/rationhq/ration/gen/ration/v1"
	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/server/failure"
	"github.com/rationhq/ration/subject"
)

// PutOverride implements rationv1.AdminServiceServer.
func (s *Service) PutOverride(ctx context.Context, r *rationv1.PutOverrideRequest) (*rationv1.PutOverrideResponse, error) {
	o := r.GetOverride()
	expires, err := future("override.expires_at", o.GetExpiresAt())
	if err != nil {
		return nil, err
	}
	got, err := s.change(ctx, r.GetSubject(), r.GetActor(), "put_override", func(to *subject.Subject) error {
		allowance, err := s.engine.AllowanceOf(to, o.GetLimit())
		if err != nil {
			return under("override.", err)
		}
		if err := allowance.Override(o.GetQuantity()); err != nil {
			return wrong("override.quantity", "%.100q for %s: %v", o.GetQuantity(), o.GetLimit(), err)
		}
		to.Overrides = slices.DeleteFunc(to.Overrides, func(old subject.Override) bool { return old.Limit == o.GetLimit() })
		to.Overrides = append(to.Overrides, subject.Override{
			Limit: o.GetLimit(), Quantity: o.GetQuantity(), Expires: expires, Reason: r.GetActor().GetReason(),
		})
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &rationv1.PutOverrideResponse{Subject: got}, nil
}

// DeleteOverride implements rationv1.AdminServiceServer. The limit need not be in the policy any more.
func (s *Service) DeleteOverride(ctx context.Context, r *rationv1.DeleteOverrideRequest) (*rationv1.DeleteOverrideResponse, error) {
	got, err := s.changeKnown(ctx, r.GetSubject(), r.GetActor(), "delete_override", func(to *subject.Subject) error {
		before := len(to.Overrides)
		to.Overrides = slices.DeleteFunc(to.Overrides, func(o subject.Override) bool { return o.Limit == r.GetLimit() })
		if len(to.Overrides) == before {
			return failure.New(codes.NotFound, failure.UnknownSubject, "the subject has no override of that limit")
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &rationv1.DeleteOverrideResponse{Subject: got}, nil
}

// forgotten is how long after its end a grant is still known by its id, so that one that is sent again is not made again.
const forgotten = 24 * 3600 * limit.Second

// Grant implements rationv1.AdminServiceServer.
func (s *Service) Grant(ctx context.Context, r *rationv1.GrantRequest) (*rationv1.GrantResponse, error) {
	until, err := future("expires_at", r.GetExpiresAt())
	if err != nil {
		return nil, err
	}
	g := subject.Grant{ID: r.GetId(), Limit: r.GetLimit(), Reason: r.GetActor().GetReason()}
	if g.ID == "" {
		g.ID = strings.ToLower(rand.Text()[:16])
	}
	_, err = s.change(ctx, r.GetSubject(), r.GetActor(), "grant", func(to *subject.Subject) error {
		allowance, err := s.engine.AllowanceOf(to, g.Limit)
		if err != nil {
			return failure.Of(err)
		}
		if g.Amount, err = allowance.Limit.Meter.ParseAmount(r.GetAmount()); err != nil {
			return wrong("amount", "%v", err)
		}
		if i := slices.IndexFunc(to.Grants, func(old subject.Grant) bool { return old.ID == g.ID }); i >= 0 {
			old := to.Grants[i]
			if old.Limit != g.Limit || old.Amount != g.Amount || until != 0 && until != old.Expires {
				return failure.New(codes.AlreadyExists, failure.KeyReused, "the subject has another grant of that id: give this one another")
			}
			g = old
			return nil
		}
		if allowance.Quantity == nil && !overridden(to, g.Limit) {
			return wrong("limit", "%.200q is unlimited for the subject: there is nothing to add to", g.Limit)
		}
		if g.Expires, err = ends(&allowance, until); err != nil {
			return err
		}
		to.Grants = slices.DeleteFunc(to.Grants, func(old subject.Grant) bool {
			return old.Expires != 0 && old.Expires+forgotten < now()
		})
		to.Grants = append(to.Grants, g)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &rationv1.GrantResponse{Grant: s.grantMessage(r.GetSubject().GetDomain(), &g)}, nil
}

func overridden(s *subject.Subject, path string) bool {
	_, ok := s.Override(path, now())
	return ok
}

// ends returns when a grant ends: when it was said, else with the period of the limit.
func ends(a *engine.Allowance, until limit.Micros) (limit.Micros, error) {
	if until != 0 {
		return until, nil
	}
	if end, ok := a.PeriodEnd(now()); ok {
		return end, nil
	}
	return 0, wrong("expires_at", "it is missing, and %.200q has no period with which the grant could end: say when it ends", a.Limit.Path)
}

// Revoke implements rationv1.AdminServiceServer.
func (s *Service) Revoke(ctx context.Context, r *rationv1.RevokeRequest) (*rationv1.RevokeResponse, error) {
	_, err := s.changeKnown(ctx, r.GetSubject(), r.GetActor(), "revoke", func(to *subject.Subject) error {
		before := len(to.Grants)
		to.Grants = slices.DeleteFunc(to.Grants, func(g subject.Grant) bool { return g.ID == r.GetId() })
		if len(to.Grants) == before {
			return failure.New(codes.NotFound, failure.UnknownSubject, "the subject has no grant of that id")
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &rationv1.RevokeResponse{}, nil
}

// future returns an instant that has not come yet; 0 for none.
func future(field string, at *timestamppb.Timestamp) (limit.Micros, error) {
	if at == nil {
		return 0, nil
	}
	if err := at.CheckValid(); err != nil {
		return 0, wrong(field, "%v", err)
	}
	if m := limit.At(at.AsTime()); m > now() {
		return m, nil
	}
	return 0, wrong(field, "%s has passed: say when it ends, or leave it out", at.AsTime().Format(time.RFC3339))
}

// under puts the field that an error names below another one.
func under(prefix string, err error) error {
	if of, ok := errors.AsType[*engine.InvalidError](err); ok {
		return wrong(prefix+of.Field, "%s", of.Reason)
	}
	return failure.Of(err)
}
