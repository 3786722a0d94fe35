// Package store is the storage contract: what every store of counters promises to the engine.
//
// It knows the arithmetic (package limit) and nothing of policies, descriptors or transports.
// Implementations: store/memory and store/redis; store/storetest is the suite that any must pass.
//
// Read [Store] first: its comments state every obligation.
package store

import (
	"context"
	"errors"

	"github.com/rationhq/ration/limit"
)

// Store keeps counters and decides on them, atomically.
//
// All methods are safe for concurrent use.
type Store interface {
	// Apply performs one decision: everything in step happens at one instant, seen by all other
	// decisions either before it or after it, whole. Concurrent callers never overshoot together.
	//
	// The instant is the store's own clock, read once. Windows are computed from it at each call;
	// nothing has to run for a window to end. A counter outlives its window by min(window, 60 s),
	// so that a clock stepping back by no more than that finds what was counted.
	//
	// How the overall verdict is formed and what is written:
	//
	//  1. Every op is judged by [limit.Spec.Judge], in order; the op's own charge is seen by the
	//     ops behind it that name the same bucket.
	//  2. These verdicts form the overall verdict by [limit.Tally]. There an op in shadow counts as
	//     not refused; step.QuotaOpen counts as one more quota, not spent; and step.Shadow admits
	//     in any case.
	//  3. Plain charges and give-backs are written whatever the overall verdict is. Strict charges
	//     are written only if it admits: all of them or none.
	//
	// On an error nothing of step was written, or (only ErrUnavailable and the errors of ctx) it is
	// unknown whether all of it was. A store never repeats a write whose outcome it does not know.
	// Apply returns by the deadline of ctx; with none it may bound the call by a timeout of its own.
	//
	// The answer goes to out, whose Results are appended to from the start of its slice, so that a
	// caller may use one Outcome many times. step and what it points to may be used again by the
	// caller as soon as Apply has returned.
	Apply(ctx context.Context, step *Step, out *Outcome) error

	// Ready reports whether the store can decide now, by asking it. A nil error means yes.
	Ready(ctx context.Context) error

	// Close releases what the store holds. Calls under way may fail with ErrUnavailable.
	Close() error
}

// Step is what one decision asks of the store.
type Step struct {
	Ops []Op

	// Lease keeps the holds among Ops: its id makes a second run of the same step a no-op.
	// nil where nothing is held.
	Lease *Lease

	// Shadow admits whatever the limits say (the whole server is in shadow mode).
	Shadow bool

	// QuotaOpen says that a quota outside this step has room: a descriptor without any limit
	// counts as such when every descriptor is a quota.
	QuotaOpen bool
}

// Lease is the life of a reservation: who holds, under which id, and for how long.
type Lease struct {
	ID      [16]byte     // random, or derived from the caller's idempotency key
	Expires limit.Micros // how long after now the holds lapse if nobody settles them
}

// Kind is what an op does to its bucket.
type Kind uint8

const (
	// Charge judges the amount and counts it. An amount of 0 is a check: it judges and counts
	// nothing.
	Charge Kind = iota
	// GiveBack returns units that were charged: to the current window only, never below 0, at once
	// visible to every caller. It is never refused.
	GiveBack
	// Hold reserves the amount under the step's lease.
	Hold
	// Settle replaces what the step's lease holds by the amount that was really used.
	Settle
	// Record counts usage that has already happened: it always lands and is never refused.
	Record
)

// Op is one operation on one bucket.
type Op struct {
	// Bucket names the counter. Different counters have different names: whoever forms names makes
	// them injective, and gives all ops on one name the same Window. 1…[MaxBucketName] bytes.
	Bucket []byte

	// Owner names whom the counter belongs to: counters of one owner are kept together. Empty: the
	// counter stands by itself.
	Owner []byte

	Spec   limit.Spec
	Kind   Kind
	Manner limit.Manner

	// Amount is in 0…[limit.MaxAmount] units.
	Amount int64

	// Shadow: judged and counted as ever, but never a reason to refuse.
	Shadow bool
	// Quota: refuses only together with all other quotas of the step.
	Quota bool
}

// MaxBucketName is the longest name of a bucket, in bytes.
const MaxBucketName = 64 << 10

// Outcome is what the store answers to a step.
type Outcome struct {
	// Now is the instant of the decision, by the store's clock.
	Now limit.Micros
	// Refused is the overall verdict.
	Refused bool
	// Results has one entry per op, in order.
	Results []Result
}

// Result is the verdict on one op.
type Result struct {
	// Used is the count of the bucket's current window directly after this op; where an op was
	// not written, directly before it. 0…[limit.MaxAmount].
	Used int64
	// Refused is the verdict of this op's own limit, shadow or not.
	Refused bool
}

var (
	// ErrUnavailable means that the store could not be asked, or did not answer in time: whether
	// the step was written is unknown.
	ErrUnavailable = errors.New("the store is unavailable")

	// ErrCorrupt means that a bucket holds something that ration did not write. Nothing of the step
	// was written.
	ErrCorrupt = errors.New("a stored counter is not readable")

	// ErrUnsupported means that the store does not know this kind of op. Nothing was written.
	ErrUnsupported = errors.New("the store does not support this operation")

	// ErrInvalid means that the step breaks the contract (an amount out of range, a window of
	// zero, a name too long). Nothing was written.
	ErrInvalid = errors.New("invalid step")
)
