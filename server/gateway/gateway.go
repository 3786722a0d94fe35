// Package gateway serves gRPC services over HTTP/JSON, for callers without gRPC: POST /PACKAGE.SERVICE/METHOD with the
// request as protobuf JSON in the body, answered by the response; by a line for each, where there are many.
//
// It needs no code of its own for a service: what grpc-go registers with a server, it registers with a [Gateway], which
// is a grpc.ServiceRegistrar too. It must not know any service. Read [Gateway.ServeHTTP] first.
package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/server/failure"
	"github.com/rationhq/ration/server/recovery"
)

// MaxBodyBytes is the largest request that is read.
const MaxBodyBytes = 1 << 20

// DefaultTimeout is how long a call may take where [Options] do not say.
const DefaultTimeout = 15 * time.Second

// Options of a gateway. The zero value is ready to use.
type Options struct {
	// Unary runs around every call, as it does in a gRPC server; nil: nothing does.
	Unary grpc.UnaryServerInterceptor
	// Stream runs around every call with many answers, likewise. It may return before the handler does.
	Stream grpc.StreamServerInterceptor
	// Heartbeat is how often a stream that is silent has an empty line; 0: DefaultHeartbeat.
	Heartbeat time.Duration
	// Guard catches panics; nil catches them silently.
	Guard *recovery.Guard
	// Timeout is how long a call may take; 0: DefaultTimeout.
	Timeout time.Duration
	// Waits returns how much longer a call may take, since its request asks to wait for something; nil: none does.
	Waits func(request any) time.Duration
}

// Gateway serves what was registered with it.
type Gateway struct {
	opts    Options
	methods map[string]method // by path
	streams map[string]serverStream
}

type method struct {
	service any
	handler grpc.MethodHandler
}

// New returns a gateway that serves nothing yet.
func New(opts Options) *Gateway {
	if opts.Guard == nil {
		opts.Guard = recovery.New(nil)
	}
	if opts.Timeout <= 0 {
		opts.Timeout = DefaultTimeout
	}
	if opts.Heartbeat <= 0 {
		opts.Heartbeat = DefaultHeartbeat
	}
	return &Gateway{opts: opts, methods: map[string]method{}, streams: map[string]serverStream{}}
}

// RegisterService implements grpc.ServiceRegistrar, before the first call is served. It serves the methods that have one
// request, and one answer or a stream of them.
func (g *Gateway) RegisterService(service *grpc.ServiceDesc, impl any) {
	for _, m := range service.Methods {
		g.methods["/"+service.ServiceName+"/"+m.MethodName] = method{impl, m.Handler}
	}
	for i := range service.Streams {
		if desc := &service.Streams[i]; desc.ServerStreams && !desc.ClientStreams {
			g.streams["/"+service.ServiceName+"/"+desc.StreamName] = serverStream{impl, desc}
		}
	}
}

// Prefixes returns the beginnings of the paths that are served: /PACKAGE.SERVICE/.
func (g *Gateway) Prefixes() []string {
	var all []string
	known := map[string]bool{}
	for path := range g.methods {
		prefix := path[:strings.LastIndexByte(path, '/')+1]
		if !known[prefix] {
			known[prefix] = true
			all = append(all, prefix)
		}
	}
	return all
}

// ServeHTTP implements http.Handler.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if m, ok := g.streams[r.URL.Path]; ok {
		g.serveStream(w, r, m)
		return
	}
	m, ok := g.methods[r.URL.Path]
	if !ok {
		why := fmt.Sprintf("there is no method %.200q", r.URL.Path)
		if !slices.ContainsFunc(g.Prefixes(), func(p string) bool { return strings.HasPrefix(r.URL.Path, p) }) {
			why += " here: AdminService is served at --admin-addr, all others at --http-addr"
		}
		answerError(w, http.StatusNotFound, failure.New(codes.Unimplemented, failure.UnknownMethod, why))
		return
	}
	body, httpStatus, err := read(w, r)
	if err != nil {
		answerError(w, httpStatus, err)
		return
	}
	response, err := g.call(asCall(r), m, body)
	// The server's own deadline is for answers that come soon.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeWithin))
	if err != nil {
		err = failure.Complete(err)
		answerError(w, httpStatusOf(status.Code(err)), err)
		return
	}
	answer(w, http.StatusOK, response)
}

// asCall returns the context of a call with what interceptors look for, as gRPC has it: the authorization in the metadata,
// and the connection with its certificates as the peer. No other header gets there: what a client says of its certificate
// is not what it has shown.
func asCall(r *http.Request) context.Context {
	ctx := r.Context()
	if r.TLS != nil {
		info := credentials.TLSInfo{State: *r.TLS, CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}}
		ctx = peer.NewContext(ctx, &peer.Peer{AuthInfo: info})
	}
	const authorization = "authorization"
	sent := r.Header.Values(authorization)
	if len(sent) == 0 {
		return ctx
	}
	return metadata.NewIncomingContext(ctx, metadata.MD{authorization: sent})
}

// read returns the body of a call. The type of the body is insisted on: a page in somebody's browser can send others
// here, but not this one, without being asked first.
func read(w http.ResponseWriter, r *http.Request) (body []byte, httpStatus int, err error) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return nil, http.StatusMethodNotAllowed, failure.New(codes.Unimplemented, failure.MethodNotAllowed,
			"methods are called by POST, with the request as JSON in the body")
	}
	body, err = io.ReadAll(http.MaxBytesReader(w, r.Body, MaxBodyBytes))
	if err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			return nil, http.StatusRequestEntityTooLarge, failure.New(codes.InvalidArgument, failure.BodyTooLarge,
				fmt.Sprintf("the request has more than %d bytes: send less at once", MaxBodyBytes))
		}
		return nil, http.StatusBadRequest, failure.New(codes.InvalidArgument, failure.MalformedJSON, "the body ends early: "+err.Error())
	}
	if len(bytes.TrimSpace(body)) == 0 {
		return []byte("{}"), 0, nil // a request without fields
	}
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if encoding := r.Header.Get("Content-Encoding"); err != nil || kind != "application/json" || encoding != "" && encoding != "identity" {
		return nil, http.StatusUnsupportedMediaType, failure.New(codes.InvalidArgument, failure.NotJSON,
			"the body is to be JSON, not compressed, with the header Content-Type: application/json")
	}
	return body, 0, nil
}

// call calls the method as a gRPC server would.
func (g *Gateway) call(ctx context.Context, m method, body []byte) (response proto.Message, err error) {
	defer g.opts.Guard.Catch(&err)
	decode := func(into any) error { return unmarshal(body, into.(proto.Message)) }
	out, err := m.handler(m.service, ctx, decode, g.inTime)
	if err != nil {
		return nil, err
	}
	return out.(proto.Message), nil
}

// inTime ends a call that takes too long. It is a grpc.UnaryServerInterceptor.
func (g *Gateway) inTime(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	timeout := g.opts.Timeout
	if g.opts.Waits != nil {
		timeout += g.opts.Waits(request)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if g.opts.Unary == nil {
		return handler(ctx, request)
	}
	return g.opts.Unary(ctx, request, info, handler)
}

// unmarshal reads a request. A field that the request does not have is an error: it is a field that somebody has
// misspelled, and what it says would be lost in silence.
func unmarshal(body []byte, into proto.Message) error {
	err := protojson.Unmarshal(body, into)
	if err == nil {
		return nil
	}
	// The beginning of these texts changes from build to build, so that nobody may depend on it.
	// They quote the request, which may be anything.
	why := strings.ToValidUTF8(strings.TrimLeft(strings.TrimPrefix(err.Error(), "proto:"), " \u00a0"), "\ufffd")
	if _, name, ok := strings.Cut(why, "unknown field "); ok {
		if quoted, err := strconv.QuotedPrefix(name); err == nil {
			name, _ = strconv.Unquote(quoted)
		}
		return failure.Invalid(failure.UnknownField, name, fmt.Sprintf("%s has no such field: %s", into.ProtoReflect().Descriptor().FullName(), why))
	}
	if field, want := misfit(body, into.ProtoReflect().Descriptor(), why); field != "" {
		return failure.Invalid(failure.MalformedJSON, field, want+": "+why)
	}
	return failure.Invalid(failure.MalformedJSON, "", why)
}

// httpStatusOf returns the HTTP status of an error. It is never 409, which the common clients of model APIs repeat by
// themselves, and never 429: that a call is refused is no error here.
func httpStatusOf(c codes.Code) int {
	switch c {
	case codes.OK:
		return http.StatusOK
	case codes.Canceled:
		return statusClientClosedRequest
	case codes.InvalidArgument, codes.FailedPrecondition, codes.OutOfRange:
		return http.StatusBadRequest
	case codes.Unauthenticated:
		return http.StatusUnauthorized
	case codes.PermissionDenied:
		return http.StatusForbidden
	case codes.NotFound:
		return http.StatusNotFound
	case codes.AlreadyExists:
		return http.StatusUnprocessableEntity
	case codes.Unimplemented:
		return http.StatusNotImplemented
	case codes.Unavailable, codes.Aborted, codes.ResourceExhausted:
		return http.StatusServiceUnavailable
	case codes.DeadlineExceeded:
		return http.StatusGatewayTimeout
	}
	return http.StatusInternalServerError
}

// statusClientClosedRequest is what proxies log of a caller that has left. Nobody reads it.
const statusClientClosedRequest = 499

// answerError answers with google.rpc.Status as JSON: the same that gRPC says, with the same details.
func answerError(w http.ResponseWriter, httpStatus int, err error) {
	if after, ok := failure.RetryOf(err); ok {
		w.Header().Set("Retry-After", strconv.FormatInt(limit.Micros(after.Microseconds()).Seconds(), 10))
	}
	if httpStatus == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer") // RFC 9110, 15.5.2
	}
	answer(w, httpStatus, status.Convert(err).Proto())
}

// Refuse answers a request that is not let through to any service, as an error of one.
func Refuse(w http.ResponseWriter, why error) { answerError(w, httpStatusOf(status.Code(why)), why) }

// answer writes a message. Fields that are 0, false or empty are written too: to a caller who reads JSON, one that is
// not there is something else.
func answer(w http.ResponseWriter, httpStatus int, message proto.Message) {
	text, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(message)
	var line bytes.Buffer
	if err == nil {
		err = json.Compact(&line, text) // its spaces change from build to build
	}
	if err != nil {
		http.Error(w, "the answer cannot be written as JSON: "+err.Error(), http.StatusInternalServerError)
		return
	}
	line.WriteByte('\n')
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(httpStatus)
	_, _ = w.Write(line.Bytes()) // the caller may have left
}
