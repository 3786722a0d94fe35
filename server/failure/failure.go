package failure

import (
	"context"
	"errors"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/rationhq/ration/engine"
	"github.com/rationhq/ration/engine/events"
	"github.com/rationhq/ration/subject"
)

// Of turns an error of the engine into a gRPC status.
func Of(err error) error {
	var invalid *engine.InvalidError
	switch {
	case errors.As(err, &invalid):
		return Invalid(InvalidField, invalid.Field, invalid.Reason)
	case errors.Is(err, subject.ErrInvalid):
		return invalidSubject(err)
	case errors.Is(err, subject.ErrConflict):
		return New(codes.Aborted, ChangedMeanwhile, err.Error())
	case errors.Is(err, subject.ErrKeyTaken):
		return New(codes.AlreadyExists, KeyTaken, err.Error())
	case errors.Is(err, subject.ErrCorrupt):
		return New(codes.DataLoss, StoreCorrupt, err.Error())
	case errors.Is(err, engine.ErrOutOfScope):
		return New(codes.PermissionDenied, OutOfScope, err.Error())
	case errors.Is(err, engine.ErrKeyReused):
		return New(codes.AlreadyExists, KeyReused, err.Error())
	case errors.Is(err, engine.ErrUnknownReservation):
		return New(codes.NotFound, UnknownReservation, err.Error())
	case errors.Is(err, engine.ErrUnknownDomain):
		return New(codes.FailedPrecondition, UnknownDomain, err.Error())
	case errors.Is(err, events.ErrTooSlow):
		return New(codes.Aborted, TooSlow, err.Error())
	case errors.Is(err, events.ErrCrowded):
		return Unavailable(Crowded, err.Error(), engine.Soon().Duration())
	case errors.Is(err, events.ErrClosed), errors.Is(err, engine.ErrStopping):
		return Unavailable(Stopping, err.Error(), engine.Soon().Duration())
	case errors.Is(err, engine.ErrNoPolicy):
		return New(codes.FailedPrecondition, NoPolicy, err.Error())
	case errors.Is(err, context.DeadlineExceeded):
		return New(codes.DeadlineExceeded, DeadlinePassed,
			"the deadline passed before the store answered: the outcome is unknown, repeat with the same key")
	case errors.Is(err, context.Canceled):
		return New(codes.Canceled, CallerLeft,
			"the caller left before the store answered: the outcome is unknown, repeat with the same key")
	case errors.Is(err, engine.ErrUnavailable), errors.Is(err, subject.ErrUnavailable):
		return Unavailable(StoreUnavailable, err.Error(), engine.Soon().Duration())
	case errors.Is(err, engine.ErrFull):
		return Unavailable(StoreFull, err.Error(), engine.Soon().Duration())
	case errors.Is(err, engine.ErrUnsupported):
		return New(codes.Unimplemented, StoreUnsupported, err.Error())
	case errors.Is(err, engine.ErrCorrupt):
		return New(codes.DataLoss, StoreCorrupt, err.Error())
	}
	return New(codes.Internal, Internal, err.Error())
}

// New makes the status of an error.
func New(code codes.Code, reason Reason, message string) error {
	return with(status.New(code, message), info(reason))
}

// Invalid makes the status of a request that cannot be used. field names what of it, as in caller.domain; empty where
// that is nothing in particular.
func Invalid(reason Reason, field, why string) error {
	if field == "" {
		return New(codes.InvalidArgument, reason, why)
	}
	return with(status.New(codes.InvalidArgument, field+": "+why), info(reason), &errdetails.BadRequest{
		FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: field, Description: why}},
	})
}

// Unavailable makes the status of a call that is to be repeated after a while.
func Unavailable(reason Reason, message string, retry time.Duration) error {
	return with(status.New(codes.Unavailable, message), info(reason), &errdetails.RetryInfo{RetryDelay: durationpb.New(retry)})
}

func info(reason Reason) *errdetails.ErrorInfo {
	return &errdetails.ErrorInfo{Reason: string(reason), Domain: Domain}
}

func with(s *status.Status, details ...protoadapt.MessageV1) error {
	detailed, err := s.WithDetails(details...)
	if err != nil {
		return s.Err() // messages of this kind can always be encoded
	}
	return detailed.Err()
}

// ReasonOf returns the reason that an error carries; empty if it has none.
func ReasonOf(err error) Reason {
	for _, d := range status.Convert(err).Details() {
		if i, ok := d.(*errdetails.ErrorInfo); ok {
			return Reason(i.GetReason())
		}
	}
	return ""
}

// RetryOf returns when an error says that the call may be repeated, if it does.
func RetryOf(err error) (after time.Duration, ok bool) {
	for _, d := range status.Convert(err).Details() {
		if r, isRetry := d.(*errdetails.RetryInfo); isRetry {
			return r.GetRetryDelay().AsDuration(), true
		}
	}
	return 0, false
}

// Complete gives a reason to an error that came without, and a while to wait to one that is to be repeated.
func Complete(err error) error {
	s := status.Convert(err)
	if err == nil || ReasonOf(err) != "" {
		return err
	}
	reason := bare(s.Code())
	if s.Code() == codes.Unavailable {
		return Unavailable(reason, s.Message(), engine.Soon().Duration())
	}
	return with(s, info(reason))
}

// Stream completes the errors of ration.v1, as Unary does. It is a grpc.StreamServerInterceptor.
func Stream(service any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	err := handler(service, stream)
	if strings.HasPrefix(info.FullMethod, "/ration.v1.") {
		err = Complete(err)
	}
	return err
}

// Unary completes the errors of ration.v1; those of other services are theirs. It is a grpc.UnaryServerInterceptor.
func Unary(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	answer, err := handler(ctx, request)
	if strings.HasPrefix(info.FullMethod, "/ration.v1.") {
		err = Complete(err)
	}
	return answer, err
}
