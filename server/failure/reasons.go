// Package failure says what went wrong in a call of ration.v1, so that a program can tell: every error carries
// google.rpc.ErrorInfo with a reason that stays the same, INVALID_ARGUMENT names the fields, and UNAVAILABLE says when to
// try again.
//
// It must not know which service failed, nor over which protocol it was called. Read [Of] first; docs/accounting.md lists
// the reasons.
package failure

import "google.golang.org/grpc/codes"

// Domain is that of every reason, in google.rpc.ErrorInfo.
const Domain = "ration"

// Reason is the word for a cause that programs may compare.
type Reason string

// The reasons. What they mean for a caller stands in docs/accounting.md, which a test holds to this list.
const (
	InvalidField       Reason = "INVALID_FIELD"       // a field says what cannot be
	KeyReused          Reason = "KEY_REUSED"          // the idempotency key belongs to another request
	SettledOtherwise   Reason = "SETTLED_OTHERWISE"   // the reservation was ended by another report
	UnknownReservation Reason = "UNKNOWN_RESERVATION" // nobody knows it, and the report names no caller
	UnknownDomain      Reason = "UNKNOWN_DOMAIN"      // no policy limits the domain
	NoPolicy           Reason = "NO_POLICY"           // no policy is loaded at all
	StoreUnavailable   Reason = "STORE_UNAVAILABLE"   // the store does not answer
	StoreFull          Reason = "STORE_FULL"          // the store has no room for what is new
	StoreCorrupt       Reason = "STORE_CORRUPT"       // a counter in the store cannot be read
	StoreUnsupported   Reason = "STORE_UNSUPPORTED"   // the store cannot do what a limit needs
	DeadlinePassed     Reason = "DEADLINE_PASSED"     // it ended before the store answered
	CallerLeft         Reason = "CALLER_LEFT"         // the call was cancelled
	ChangedMeanwhile   Reason = "CHANGED_MEANWHILE"   // somebody else has changed the same
	KeyTaken           Reason = "KEY_TAKEN"           // the API key belongs to another subject
	UnknownSubject     Reason = "UNKNOWN_SUBJECT"     // nothing is known of the subject, or it has no such thing
	NotAuthenticated   Reason = "NOT_AUTHENTICATED"   // nobody knows who calls
	NotPermitted       Reason = "NOT_PERMITTED"       // the caller may not call the method
	OutOfScope         Reason = "OUT_OF_SCOPE"        // the caller is not for the domain, or not for the subjects
	NotServed          Reason = "NOT_SERVED"          // this version does not have the method
	Stopping           Reason = "STOPPING"            // the server ends, and a stream with it
	TooSlow            Reason = "TOO_SLOW"            // a watcher does not take its events
	Crowded            Reason = "CROWDED"             // too many watch
	TokenChanged       Reason = "TOKEN_CHANGED"       // what the caller of a stream may do has changed
	Internal           Reason = "INTERNAL"            // a mistake of ration
	UnknownMethod      Reason = "UNKNOWN_METHOD"      // over HTTP: the path names none
	MethodNotAllowed   Reason = "METHOD_NOT_ALLOWED"  // over HTTP: it is called by POST
	NotJSON            Reason = "NOT_JSON"            // over HTTP: the body is of another type
	MalformedJSON      Reason = "MALFORMED_JSON"      // over HTTP: the body cannot be read as the request
	UnknownField       Reason = "UNKNOWN_FIELD"       // over HTTP: the request has no such field
	BodyTooLarge       Reason = "BODY_TOO_LARGE"      // over HTTP: more than is read
	Other              Reason = "OTHER"               // none of these
)

// bare is the reason of an error that says no more than its code.
func bare(c codes.Code) Reason {
	switch c {
	case codes.InvalidArgument:
		return InvalidField
	case codes.Unauthenticated:
		return NotAuthenticated
	case codes.PermissionDenied:
		return NotPermitted
	case codes.Unavailable:
		return StoreUnavailable
	case codes.DeadlineExceeded:
		return DeadlinePassed
	case codes.Canceled:
		return CallerLeft
	case codes.Unimplemented:
		return NotServed
	case codes.Internal, codes.Unknown:
		return Internal
	}
	return Other
}
