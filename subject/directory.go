package subject

import (
	"context"

	"github.com/rationhq/ration/limit"
)

// Directory keeps subjects. All methods are safe for concurrent use, and return by the deadline of their context.
//
// Beside [ErrUnavailable] and the errors of the context, which any method may return, errors are named with each.
type Directory interface {
	// Find returns a subject. A name under which there can be none is not found, without an error. ErrCorrupt: its
	// record is not readable.
	Find(ctx context.Context, of Ref) (s Subject, found bool, err error)

	// FindByKey returns the subject, of whatever domain, that lists the API key of this hash. Errors as of Find.
	FindByKey(ctx context.Context, hash KeyHash) (s Subject, found bool, err error)

	// Change lets apply change a subject, in one atomic step with the audit row of it, and returns what it has become.
	// Where there is none apply is given an empty one, and it is made. Where apply leaves the subject as it was, nothing
	// is written.
	//
	// Nobody's change is lost: if another one comes in between, apply is called again with what that has left, a bounded
	// number of times; after that the error is ErrConflict. So apply must do nothing but change what it is given; an
	// error of its own is returned as it is, and nothing is written. It leaves Domain, Name and Revision alone.
	//
	// ErrInvalid: the subject or by breaks a rule. ErrKeyTaken: an API key that apply has added belongs to another
	// subject; of those that add one key to several subjects at once, one at most succeeds. ErrCorrupt: the record is not
	// readable, or a newer ration has written it.
	Change(ctx context.Context, of Ref, by By, apply func(*Subject) error) (Subject, error)

	// Delete removes a subject, in one atomic step with the audit row of it, and reports whether there was one. Its API
	// keys are free after that. ErrConflict and ErrInvalid as of Change.
	Delete(ctx context.Context, of Ref, by By) (found bool, err error)

	// List returns up to n subjects of a domain in the order of their names, those behind after. A page that has fewer
	// than n is the last. Subjects that come and go meanwhile may be in it or not. ErrInvalid: n is not in 1…[MaxPage].
	List(ctx context.Context, domain, after string, n int) ([]Subject, error)

	// Audit returns up to n audit rows, the newest first: of one subject, of a domain if the name is empty, or of all.
	// They begin below the row whose ID is before, or with the newest if it is empty. A page that has fewer than n is the
	// last. Of each of [Shards] shards the newest [AuditRows] rows are kept. ErrInvalid as of List, or before is no ID.
	Audit(ctx context.Context, of Ref, before string, n int) ([]Row, error)

	// Watch tells of changes until ctx ends. It tells one thing at a time, and waits until tell returns, which must be
	// soon.
	//
	// A change is told after it was made, by whichever process; where this directory made it, before Change or Delete
	// returns. What was changed before [Live], or between [Lost] and the next Live, is not told. That changes are no
	// longer heard of is noticed within two seconds.
	Watch(ctx context.Context, tell func(Notice))
}

// MaxPage is the most that List and Audit return at once.
const MaxPage = 1000

// Notice is what [Directory.Watch] tells.
type Notice struct {
	Kind NoticeKind
	// Subject is the one that has changed.
	Subject Ref
	// Keys are the API keys that were added to it, or removed.
	Keys []KeyHash
}

// NoticeKind says what a [Notice] is about.
type NoticeKind uint8

const (
	// Changed means that a subject was made, changed or deleted.
	Changed NoticeKind = iota
	// Live means that every change from now on is told.
	Live
	// Lost means that changes may have gone untold for two seconds at most, and may until Live.
	Lost
)

// Shards is how many parts a directory has, and AuditRows how many audit rows are kept in each: subjects that have a
// shard in common push out each other's.
const (
	Shards    = 256
	AuditRows = 400
)

// By says who changes something, and why. Actor and Reason are required.
type By struct {
	Actor, Reason string
	// Credential is by what the service knew who calls, "token ops", whatever they call themselves; empty: it did not ask.
	Credential string
	// Action is what the audit row calls it; empty: create, change or delete.
	Action string
	// At is the instant that the audit row names; 0: that of the directory's clock.
	At limit.Micros
}
