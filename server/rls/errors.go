package rls

import (
	"context"
	"errors"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/rationhq/ration/engine"
)

// toStatus turns an error of the engine into a gRPC status. The established contract's own errors
// keep its code, UNKNOWN; Envoy's failure_mode_deny decides on all of them alike.
func toStatus(err error) error {
	var invalid *engine.InvalidError
	switch {
	case errors.Is(err, engine.ErrNoDomain), errors.Is(err, engine.ErrNoDescriptors), errors.Is(err, engine.ErrNoPolicy):
		return status.Error(codes.Unknown, err.Error())
	case errors.As(err, &invalid):
		s := status.New(codes.InvalidArgument, err.Error())
		detailed, detailErr := s.WithDetails(&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{
			{Field: invalid.Field, Description: invalid.Reason},
		}})
		if detailErr != nil {
			return s.Err()
		}
		return detailed.Err()
	case errors.Is(err, errMalformed):
		return status.Error(codes.InvalidArgument, err.Error())
	case errors.Is(err, context.DeadlineExceeded):
		return status.Error(codes.DeadlineExceeded, "the deadline passed before the store answered: it is unknown whether the request was counted")
	case errors.Is(err, context.Canceled):
		return status.Error(codes.Canceled, "the caller left before the store answered: it is unknown whether the request was counted")
	case errors.Is(err, engine.ErrUnavailable), errors.Is(err, engine.ErrFull), errors.Is(err, engine.ErrStopping):
		return status.Error(codes.Unavailable, err.Error())
	case errors.Is(err, engine.ErrUnsupported):
		return status.Error(codes.Unimplemented, err.Error())
	case errors.Is(err, engine.ErrCorrupt):
		return status.Error(codes.DataLoss, err.Error())
	}
	return status.Error(codes.Internal, err.Error())
}
