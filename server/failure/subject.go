package failure

import (
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/rationhq/ration/subject"
)

// requestFields are the fields of requests, by those of a subject and of who changes it. Others have the same name.
var requestFields = map[string]string{
	"domain": "subject.domain", "name": "subject.name", "key": "subject.key", "zone": "time_zone", "anchor": "billing_day",
	"api_key": "key", "api_key_hash": "sha256", "actor": "actor.name", "reason": "actor.reason",
}

// invalidSubject makes the status of a change that breaks the rules of subjects. It names all that is wrong.
func invalidSubject(err error) error {
	var all []*errdetails.BadRequest_FieldViolation
	var walk func(error)
	walk = func(err error) {
		if of, ok := err.(*subject.InvalidError); ok { //nolint:errorlint // each of those that are joined is wanted
			field := of.Field
			if named, ok := requestFields[field]; ok {
				field = named
			}
			all = append(all, &errdetails.BadRequest_FieldViolation{Field: field, Description: of.Why})
			return
		}
		switch wraps := err.(type) { //nolint:errorlint // likewise
		case interface{ Unwrap() []error }:
			for _, inner := range wraps.Unwrap() {
				walk(inner)
			}
		case interface{ Unwrap() error }:
			walk(wraps.Unwrap())
		}
	}
	walk(err)
	if len(all) == 0 {
		return New(codes.InvalidArgument, InvalidField, err.Error())
	}
	message := all[0].GetField() + ": " + all[0].GetDescription()
	for _, v := range all[1:] {
		message += "; " + v.GetField() + ": " + v.GetDescription()
	}
	return with(status.New(codes.InvalidArgument, message), info(InvalidField), &errdetails.BadRequest{FieldViolations: all})
}
