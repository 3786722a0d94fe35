package access

import (
	"cmp"
	"context"
	"errors"
	"reflect"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"github.com/rationhq/ration/engine"
	rationv1 "github.com/rationhq/ration/gen/ration/v1"
	"github.com/rationhq/ration/server/failure"
)

// Gate judges the calls on one listener. The zero value lets everybody in.
type Gate struct {
	// Tokens are asked who calls; nil: nobody can say.
	Tokens *Tokens
	// Closed says that, where nobody can say who calls, nobody may call what spends, or tells of usage.
	Closed bool
	// Cure says how to open the listener, where it is closed.
	Cure string
	// Recheck is how often it is looked whether the tokens of streams are still in force; 0: DefaultRecheck.
	Recheck time.Duration
}

// DefaultRecheck is how often that is looked at where a [Gate] does not say.
const DefaultRecheck = time.Second

// Header is that of HTTP, and the key of gRPC's metadata, in which a token comes, behind "Bearer ".
const Header = "authorization"

// rightsFor returns the rights of which one is needed to call a method, none for those that everybody may call; and
// whether it spends, tells of usage, or changes who may.
func rightsFor(method string) (rights []Right, guarded bool) {
	service, name, _ := strings.Cut(strings.TrimPrefix(method, "/"), "/")
	switch service {
	case rationv1.AccountingService_ServiceDesc.ServiceName:
		if name == "Check" {
			return []Right{Account, Read}, true
		}
		return []Right{Account}, true
	case rationv1.UsageService_ServiceDesc.ServiceName:
		return []Right{Account, Read}, true
	case rationv1.AdminService_ServiceDesc.ServiceName:
		return []Right{Admin}, true
	case rationv1.StatusService_ServiceDesc.ServiceName:
		return []Right{Account, Read, Admin}, false
	}
	return nil, false
}

// Admit returns the context with which a call goes on, or why it does not. What it refuses it does not log: whoever is
// refused could fill a disk with it. The metrics count it.
func (g *Gate) Admit(ctx context.Context, method string) (context.Context, error) {
	rights, guarded := rightsFor(method)
	if g.Tokens == nil {
		if g.Closed && guarded {
			return nil, failure.New(codes.Unauthenticated, failure.NotAuthenticated,
				"this address is not only for callers on the same machine, and nobody can say who they are: "+g.Cure)
		}
		return ctx, nil
	}
	if rights == nil {
		return ctx, nil
	}
	t, err := g.Tokens.of(ctx)
	if err != nil {
		return nil, err
	}
	if !t.permits(rights) {
		g.Tokens.refused[causeMethod].Inc()
		var need []string
		for _, r := range rights {
			need = append(need, string(r))
		}
		return nil, failure.New(codes.PermissionDenied, failure.NotPermitted,
			"the token does not permit this method: it needs `may: "+strings.Join(need, "`, or `may: ")+"`")
	}
	if len(t.Domains)+len(t.Subjects) == 0 {
		return ctx, nil
	}
	return engine.WithScope(ctx, &engine.Scope{
		Domains: t.Domains, Subjects: t.Subjects, Refused: g.Tokens.refused[causeScope].Inc,
	}), nil
}

// of returns the token of a call. What it says of a token that is not taken does not depend on whether another is like it.
func (t *Tokens) of(ctx context.Context) (*Token, error) {
	refuse := func(c cause, why string) (*Token, error) {
		t.refused[c].Inc()
		return nil, failure.New(codes.Unauthenticated, failure.NotAuthenticated, why)
	}
	sent := metadata.ValueFromIncomingContext(ctx, Header)
	const how = "send one as `authorization: Bearer TOKEN`; `ration token new` makes one, and whoever runs ration enters " +
		"it into the file of --access"
	switch len(sent) {
	case 0:
		return refuse(causeMissing, "the call came without a token: "+how)
	case 1:
	default:
		return refuse(causeUnknown, "the call came with several authorizations: send one")
	}
	scheme, token, _ := strings.Cut(sent[0], " ")
	token = strings.TrimSpace(token)
	if !strings.EqualFold(scheme, "Bearer") || token == "" {
		return refuse(causeUnknown, "the authorization of the call is no token: "+how)
	}
	var known *Token
	if len(token) <= maxToken {
		known = t.list.Load().lookUp(token)
	}
	switch {
	case known == nil:
		return refuse(causeUnknown, "the token is not known: "+how)
	case !known.Expires.IsZero() && !t.now().Before(known.Expires):
		return refuse(causeExpired, "the token has expired: whoever runs ration can give you another")
	}
	return known, nil
}

// Unary is a grpc.UnaryServerInterceptor.
func (g *Gate) Unary(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	ctx, err := g.Admit(ctx, info.FullMethod)
	if err != nil {
		return nil, err
	}
	return handler(ctx, request)
}

// Stream is a grpc.StreamServerInterceptor. A stream may outlive its token: it ends soon after the token does, or means
// something else.
func (g *Gate) Stream(service any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	rights, _ := rightsFor(info.FullMethod)
	if g.Tokens == nil || rights == nil {
		ctx, err := g.Admit(stream.Context(), info.FullMethod)
		if err != nil {
			return err
		}
		return handler(service, admitted{stream, ctx})
	}
	// The token is found before the call is judged by it: if it is another one then, the stream ends.
	first, err := g.Tokens.of(stream.Context())
	if err != nil {
		return err
	}
	ctx, err := g.Admit(stream.Context(), info.FullMethod)
	if err != nil {
		return err
	}
	ctx, end := context.WithCancelCause(ctx)
	var following sync.WaitGroup
	following.Go(func() { g.follow(ctx, first, end) })
	err = handler(service, admitted{stream, ctx})
	end(nil)
	following.Wait()
	if why := context.Cause(ctx); !errors.Is(why, context.Canceled) && stream.Context().Err() == nil {
		return why
	}
	return err
}

// follow ends a stream, with the reason, once the token that it was begun with is not in force any more.
func (g *Gate) follow(ctx context.Context, first *Token, end context.CancelCauseFunc) {
	tick := time.NewTicker(cmp.Or(g.Recheck, DefaultRecheck))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		switch now, err := g.Tokens.of(ctx); {
		case err != nil:
			end(err)
			return
		case !reflect.DeepEqual(now, first):
			end(failure.New(codes.Aborted, failure.TokenChanged, "the token permits something else by now: call again"))
			return
		}
	}
}

// admitted is a stream whose context knows who calls.
type admitted struct {
	grpc.ServerStream
	ctx context.Context
}

func (a admitted) Context() context.Context { return a.ctx }
