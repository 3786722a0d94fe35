package rls

import (
	"context"
	"fmt"
	"sync"

	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"

	"github.com/rationhq/ration/engine"
	"github.com/rationhq/ration/server/headers"
	"github.com/rationhq/ration/server/recovery"
)

// MaxMessageBytes is the largest request that is read.
const MaxMessageBytes = 1 << 20

// Options of the service. The zero value answers as envoyproxy/ratelimit does by default. A request that names the API
// whose client is answered (ration.api) has that API's headers and body, and Headers and Body do not matter to it.
type Options struct {
	// Headers are added to every response to which a limit applied, and beside them one that says so
	// where the store could not decide.
	Headers Headers
	// Metadata describes the request and the metadata of the rules that admitted it in every answer.
	Metadata bool
	// Body gives refused requests a body (application/problem+json) that tells the user what to do,
	// and a Retry-After header.
	Body bool
	// RequestHeaders tells the service behind the proxy of the tier of each admitted request.
	RequestHeaders bool
	// Guard catches panics; nil catches them silently.
	Guard *recovery.Guard
}

// Headers names the three response headers of the established contract. The zero value adds none.
type Headers struct{ Limit, Remaining, Reset string }

// DefaultHeaders are the names that the established contract uses.
var DefaultHeaders = Headers{Limit: "RateLimit-Limit", Remaining: "RateLimit-Remaining", Reset: "RateLimit-Reset"}

// Service is Envoy's RateLimitService.
type Service struct {
	engine *engine.Engine
	opts   Options
	calls  sync.Pool
}

// New returns the service over e.
func New(e *engine.Engine, opts Options) *Service {
	if opts.Guard == nil {
		opts.Guard = recovery.New(nil)
	}
	s := &Service{engine: e, opts: opts}
	s.calls.New = func() any { return new(call) }
	return s
}

// Register adds the service to a gRPC server, which must have been made with
// grpc.ForceServerCodecV2(NewCodec()).
func (s *Service) Register(server grpc.ServiceRegistrar) {
	generated := ratelimitv3.RateLimitService_ServiceDesc
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: generated.ServiceName,
		Metadata:    generated.Metadata,
		HandlerType: (*any)(nil),
		Methods:     []grpc.MethodDesc{{MethodName: generated.Methods[0].MethodName, Handler: shouldRateLimit}},
	}, s)
}

// shouldRateLimit is the handler of the one method. It runs no interceptors, which would cost every
// decision an allocation; answer guards itself.
//
//nolint:revive // the order of the arguments is grpc-go's
func shouldRateLimit(service any, ctx context.Context, receive func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
	f := new(frame)
	if err := receive(f); err != nil {
		return nil, err
	}
	defer f.in.Free()
	out, err := service.(*Service).answer(ctx, f.in.ReadOnlyData())
	if err != nil {
		return nil, err
	}
	f.out = mem.SliceBuffer(out)
	return f, nil
}

// call is what one call works with; it is used again by later ones.
type call struct {
	decoder  decoder
	decision engine.Decision
	answer   answer
}

// keepBytes bounds the requests whose working space is kept for later ones.
const keepBytes = 16 << 10

// answer takes an encoded RateLimitRequest and returns an encoded RateLimitResponse, or a gRPC
// status. A panic below it ends this call only.
func (s *Service) answer(ctx context.Context, in []byte) (out []byte, err error) {
	defer s.opts.Guard.Catch(&err)
	if len(in) > MaxMessageBytes {
		return nil, status.Error(codes.InvalidArgument,
			fmt.Sprintf("the request has %d bytes, at most %d are read: send fewer or shorter descriptors", len(in), MaxMessageBytes))
	}
	c := s.calls.Get().(*call)
	request, err := c.decoder.decode(in)
	if err == nil {
		err = s.engine.Decide(ctx, request, &c.decision)
	}
	if err != nil {
		return nil, toStatus(err)
	}
	if err = s.fill(&c.answer, request, &c.decision); err != nil {
		return nil, toStatus(err)
	}
	out = c.answer.appendTo(make([]byte, 0, 32+48*len(c.decision.Statuses)))
	if len(in) <= keepBytes {
		s.calls.Put(c)
	}
	return out, nil
}

// fill completes a decision to all that is to be said.
func (s *Service) fill(a *answer, request *engine.Request, d *engine.Decision) error {
	*a = answer{decision: d, headers: a.headers[:0], requestHeaders: a.requestHeaders[:0]}
	if s.opts.RequestHeaders && !d.Over {
		a.requestHeaders = headers.AppendTier(a.requestHeaders, d)
	}
	// Envoy sends our body, and its type, in place of its own text/plain, and leaves a Retry-After that we set.
	switch {
	case d.API != engine.APINone:
		a.headers = headers.Append(a.headers, d)
		a.body = d.Body()
	default:
		if s.opts.Headers != (Headers{}) {
			a.headers = appendLimitHeaders(a.headers, s.opts.Headers, d)
			a.headers = headers.AppendDegraded(a.headers, d)
		}
		if s.opts.Body && d.Over {
			a.headers = headers.AppendRefusal(a.headers, d)
			a.body = d.Body()
		}
	}
	if !s.opts.Metadata {
		return nil
	}
	var err error
	a.metadata, err = encodeMetadata(request, d)
	return err
}
