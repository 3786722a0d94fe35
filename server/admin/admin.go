// Package admin serves ration.v1.AdminService: what operators change in a running server.
//
// It checks what is asked against the policy in force, and hands it to the directory of subjects, or, for corrections of
// what was used, to the engine. It must not know where either keeps things, nor who may call it; who does is written down with the change. Read [Service.change]
// first.
package admin

import (
	"context"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/rationhq/ration/engine"
	rationv1 "github.com/rationhq/ration/gen/ration/v1"
	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/server/access"
	"github.com/rationhq/ration/server/failure"
	"github.com/rationhq/ration/subject"
)

// Service implements rationv1.AdminServiceServer.
type Service struct {
	rationv1.UnimplementedAdminServiceServer
	engine    *engine.Engine
	directory subject.Directory
	policies  policy.Options
}

// New returns the service over e and a directory. Policies that are to be validated are read with the given options.
func New(e *engine.Engine, directory subject.Directory, policies policy.Options) *Service {
	return &Service{engine: e, directory: directory, policies: policies}
}

// now is when somebody asks, for what ends at an instant. Decisions go by the store's clock, which is near it.
func now() limit.Micros { return limit.At(time.Now()) }

// by says who changes something; what is missing is an error. Actors call themselves what they like: the credential is
// what they have shown.
func by(ctx context.Context, a *rationv1.Actor, action string) (subject.By, error) {
	who := subject.By{Actor: a.GetName(), Reason: a.GetReason(), Action: action}
	if caller := access.CallerOf(ctx); caller != nil {
		who.Credential = caller.Credential()
		if strings.TrimSpace(who.Actor) == "" {
			who.Actor = caller.Name
		}
	}
	switch {
	case strings.TrimSpace(who.Actor) == "":
		return subject.By{}, wrong("actor.name", "it is empty, and no token or certificate is asked for that would tell: say "+
			"who makes the change")
	case strings.TrimSpace(who.Reason) == "":
		return subject.By{}, wrong("actor.reason", "it is empty: say why the change is made")
	}
	return who, nil
}

func wrong(field, why string, args ...any) error {
	return failure.Invalid(failure.InvalidField, field, fmt.Sprintf(why, args...))
}

// ref returns which subject is named.
func ref(n *rationv1.SubjectName) (subject.Ref, error) {
	switch {
	case n.GetDomain() == "":
		return subject.Ref{}, wrong("subject.domain", "it is empty: name the domain of a policy")
	case n.GetName() == "":
		return subject.Ref{}, wrong("subject.name", "it is empty: name the subject by the value of its descriptor, alice")
	}
	return subject.Ref{Domain: n.GetDomain(), Name: n.GetName()}, nil
}

// key returns the descriptor key that names a subject of the domain; empty where the policy has several, and nobody says
// which.
func key(domain *policy.Domain, said string) (string, error) {
	known := domain.SubjectKeys()
	if len(known) == 0 {
		return "", wrong("subject.domain", "the policy names nobody who pays in %.100q: set `subject: true` on a descriptor",
			domain.Name())
	}
	if said == "" {
		if len(known) == 1 && !strings.Contains(known[0], "*") {
			return known[0], nil
		}
		return "", nil
	}
	for _, k := range known {
		if k == said || strings.Contains(k, "*") {
			return said, nil
		}
	}
	return "", wrong("subject.key", "%.100q names no subjects in the policy; these do: %s", said, strings.Join(known, ", "))
}

// intent returns to whom something is to be done, and by whom.
func intent(ctx context.Context, n *rationv1.SubjectName, a *rationv1.Actor, action string) (subject.Ref, subject.By, error) {
	of, err := ref(n)
	if err != nil {
		return subject.Ref{}, subject.By{}, err
	}
	who, err := by(ctx, a, action)
	return of, who, err
}

// change lets apply change a subject, which is made if there is none.
func (s *Service) change(
	ctx context.Context, n *rationv1.SubjectName, a *rationv1.Actor, action string, apply func(*subject.Subject) error,
) (*rationv1.Subject, error) {
	of, who, err := intent(ctx, n, a, action)
	if err != nil {
		return nil, err
	}
	domain, err := s.engine.Domain(of.Domain)
	if err != nil {
		return nil, failure.Of(err)
	}
	named, err := key(domain, n.GetKey())
	if err != nil {
		return nil, err
	}
	return s.apply(ctx, of, who, func(to *subject.Subject) error {
		switch {
		case to.Key == "":
			to.Key = named
		case n.GetKey() != "" && n.GetKey() != to.Key:
			return wrong("subject.key", "the subject is known as the value of %.100q", to.Key)
		}
		return apply(to)
	})
}

// changeKnown is change for a subject that has to be known. Its domain need not be in the policy any more.
func (s *Service) changeKnown(
	ctx context.Context, n *rationv1.SubjectName, a *rationv1.Actor, action string, apply func(*subject.Subject) error,
) (*rationv1.Subject, error) {
	of, who, err := intent(ctx, n, a, action)
	if err != nil {
		return nil, err
	}
	return s.apply(ctx, of, who, func(to *subject.Subject) error {
		if to.Revision == 0 {
			return unknown(of)
		}
		return apply(to)
	})
}

func (s *Service) apply(
	ctx context.Context, of subject.Ref, who subject.By, apply func(*subject.Subject) error,
) (*rationv1.Subject, error) {
	var refused error
	got, err := s.directory.Change(ctx, of, who, func(to *subject.Subject) error {
		refused = apply(to)
		return refused
	})
	switch {
	case refused != nil:
		return nil, refused
	case err != nil:
		return nil, failure.Of(err)
	}
	return s.subjectMessage(&got, now()), nil
}

func unknown(of subject.Ref) error {
	return failure.New(codes.NotFound, failure.UnknownSubject,
		fmt.Sprintf("nothing is known of a subject %.100q in the domain %.100q", of.Name, of.Domain))
}
