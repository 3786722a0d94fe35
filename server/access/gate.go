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
	// Callers are asked who calls; nil: nobody can say.
	Callers *Callers
	// Closed says that, where nobody can say who calls, nobody may call what spends, or tells of usage.
	Closed bool
	// Cure says how to open the listener, where it is closed.
	Cure string
	// Recheck is how often it is looked whether the callers of streams may still have them; 0: DefaultRecheck.
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
	if g.Callers == nil {
		if g.Closed && guarded {
			return nil, failure.New(codes.Unauthenticated, failure.NotAuthenticated,
				"this address is not only for callers on the same machine, and nobody can say who they are: "+g.Cure)
		}
		return ctx, nil
	}
	if rights == nil {
		return ctx, nil
	}
	c, err := g.Callers.of(ctx)
	if err != nil {
		return nil, err
	}
	if !c.permits(rights) {
		g.Callers.refused[causeMethod].Inc()
		var need []string
		for _, r := range rights {
			need = append(need, string(r))
		}
		return nil, failure.New(codes.PermissionDenied, failure.NotPermitted,
			"the "+string(c.Kind)+" does not permit this method: it needs `may: "+strings.Join(need, "`, or `may: ")+"`")
	}
	ctx = context.WithValue(ctx, callerKey{}, c)
	if len(c.Domains)+len(c.Subjects) == 0 {
		return ctx, nil
	}
	return engine.WithScope(ctx, &engine.Scope{
		Domains: c.Domains, Subjects: c.Subjects, Refused: g.Callers.refused[causeScope].Inc,
	}), nil
}

// of returns who makes a call. A token says so alone, where one is sent, whatever certificate comes with it: a caller that
// may do much by its certificate can do less by a token, and a token that is not taken is not made good for.
func (c *Callers) of(ctx context.Context) (*Caller, error) {
	sent := metadata.ValueFromIncomingContext(ctx, Header)
	if len(sent) == 0 {
		if cert := verifiedCertificate(ctx); cert != nil {
			known, err := c.list.Load().byCertificate(cert)
			if err != nil {
				return c.refuse(causeCertificate, err.Error())
			}
			return c.unexpired(known)
		}
	}
	const how = "send one as `authorization: Bearer TOKEN`; `ration token new` makes one, and whoever runs ration enters " +
		"it into the file of --access"
	switch len(sent) {
	case 0:
		came := "the call came without a token"
		if c.list.Load().Certificates() > 0 {
			came += ", and without a certificate that was verified"
		}
		return c.refuse(causeMissing, came+": "+how)
	case 1:
	default:
		return c.refuse(causeUnknown, "the call came with several authorizations: send one")
	}
	scheme, token, _ := strings.Cut(sent[0], " ")
	token = strings.TrimSpace(token)
	if !strings.EqualFold(scheme, "Bearer") || token == "" {
		return c.refuse(causeUnknown, "the authorization of the call is no token: "+how)
	}
	var known *Caller
	if len(token) <= maxToken {
		known = c.list.Load().byToken(token)
	}
	// What is said of a token that is not taken does not depend on whether another is like it.
	if known == nil {
		return c.refuse(causeUnknown, "the token is not known: "+how)
	}
	return c.unexpired(known)
}

func (c *Callers) unexpired(known *Caller) (*Caller, error) {
	if !known.Expires.IsZero() && !c.now().Before(known.Expires) {
		return c.refuse(causeExpired, "the "+string(known.Kind)+" has expired by the file of --access: whoever runs ration "+
			"can give you another, or enter another day")
	}
	return known, nil
}

func (c *Callers) refuse(why cause, text string) (*Caller, error) {
	c.refused[why].Inc()
	return nil, failure.New(codes.Unauthenticated, failure.NotAuthenticated, text)
}

// Unary is a grpc.UnaryServerInterceptor.
func (g *Gate) Unary(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	ctx, err := g.Admit(ctx, info.FullMethod)
	if err != nil {
		return nil, err
	}
	return handler(ctx, request)
}

// Stream is a grpc.StreamServerInterceptor. A stream may last for longer than its caller may have it: then it ends, soon
// after, and before another message.
func (g *Gate) Stream(service any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	ctx, err := g.Admit(stream.Context(), info.FullMethod)
	if err != nil {
		return err
	}
	if CallerOf(ctx) == nil {
		return handler(service, admitted{stream, ctx, g, info.FullMethod})
	}
	ctx, end := context.WithCancelCause(ctx)
	a := admitted{stream, ctx, g, info.FullMethod}
	var following sync.WaitGroup
	following.Go(func() { a.follow(end) })
	err = handler(service, a)
	end(nil)
	following.Wait()
	if why := context.Cause(ctx); !errors.Is(why, context.Canceled) && stream.Context().Err() == nil {
		return why
	}
	return err
}

// admitted is a stream whose context knows who calls.
type admitted struct {
	grpc.ServerStream
	ctx    context.Context
	gate   *Gate
	method string
}

func (a admitted) Context() context.Context { return a.ctx }

// SendMsg implements grpc.ServerStream.
func (a admitted) SendMsg(message any) error {
	if err := a.still(); err != nil {
		return err
	}
	return a.ServerStream.SendMsg(message)
}

// still says why the caller may not have the stream any more, if that is so.
func (a admitted) still() error {
	now, err := a.gate.Admit(a.ServerStream.Context(), a.method)
	if err != nil {
		return err
	}
	if !reflect.DeepEqual(CallerOf(now), CallerOf(a.ctx)) {
		return failure.New(codes.Aborted, failure.TokenChanged, "what you may do has changed meanwhile: call again")
	}
	return nil
}

// follow ends the stream, with the reason, once its caller may not have it any more.
func (a admitted) follow(end context.CancelCauseFunc) {
	tick := time.NewTicker(cmp.Or(a.gate.Recheck, DefaultRecheck))
	defer tick.Stop()
	for {
		select {
		case <-a.ctx.Done():
			return
		case <-tick.C:
		}
		if err := a.still(); err != nil {
			end(err)
			return
		}
	}
}
