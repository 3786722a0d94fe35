// Package store is the storage contract: what every store of counters promises to the engine.
//
// It knows the arithmetic (package limit) and nothing of policies, descriptors or transports.
// Implementations: store/memory and store/redis; store/storetest is the suite that any must pass. Both are
// [Usage] and [Outbox] too.
//
// Read [Store] first: its comments state every obligation. Then step.go, which says what can be
// asked, lease.go for what outlives a step, row.go for what is added up of usage, and event.go for what is told when
// a threshold is reached.
package store

import (
	"context"
	"errors"

	"github.com/rationhq/ration/limit"
)

// Parted is a [Store] that may lie on several machines, as Parted says: then that one step fails says little of
// others, and Ready is content while any machine is there.
type Parted interface{ Parted() bool }

// Store keeps counters and decides on them, atomically.
//
// All methods are safe for concurrent use.
type Store interface {
	// Apply performs one decision: everything in step happens at one instant, seen by all other
	// decisions either before it or after it, whole. Concurrent callers never overshoot together.
	//
	// A store whose counters lie on several machines, and that answers for it, may decide a step that
	// touches several of them less strictly. To others an amount counts as held before it is charged, so
	// that one too many may be refused, for a moment, and never is one admitted. They may see some buckets after the
	// step and some before it, until it is answered. A lease counts as opened or settled from when that is
	// begun: another request under its id is ErrConflict meanwhile, and for as long as a lease is remembered
	// if the step ends by an error that leaves its outcome unknown. Then some buckets and rows may be written and
	// some not, until the step is applied again under its lease; if that is refused, until the holds lapse, while charges
	// stay. Each bucket goes by the clock of its own machine. To one caller at a time there is no difference, as
	// long as each step is answered.
	//
	// The instant is the store's own clock, read once. Windows are computed from it at each call;
	// nothing has to run for a window to end or a hold to lapse. A counter outlives what it counts:
	// a plain one by [Grace], others by [limit.Tolerance], so that a clock stepping back by no more
	// than that finds what was counted. Then it may be forgotten, and is as good as one that never was.
	//
	// How the step is decided:
	//
	//  1. On the buckets that the step names, and those of the holds that it ends or renews, holds that are
	//     due lapse: each at the instant at which it was due and by its own Spec, the earliest first.
	//     This happens whatever the verdict is. Then a lease that step.Lease renews is renewed.
	//  2. Every op is judged, by [limit.Spec.Exceeds] (plain) or [limit.Spec.Judge] (strict). A plain
	//     op's own charge is seen by the ops behind it that name the same bucket; the strict charges
	//     and holds on one bucket are judged together, each by the sum of them all.
	//  3. These verdicts form the overall verdict by [limit.Tally]. There an op in shadow counts as
	//     not refused; step.QuotaOpen counts as one more quota, not spent; step.Refused refuses; and
	//     step.Shadow admits in any case. Only charges and holds can be refused.
	//  4. A lease that step.Lease ends is ended, whatever the verdict is.
	//  5. Plain charges, give-backs, records and depletions are written whatever the overall verdict is. Strict
	//     charges and holds are written only if it admits: all of them or none; but those that count
	//     refusals are written as charges. The ops are written in their order: how much a depletion records depends
	//     on what those before it have left, and on the lease's holds as they are by then.
	//  6. A lease that step.Lease opens is opened if the verdict admits.
	//  7. What step.Rows say is added up if the verdict admits, and the step is no repeat; a row OfLease as
	//     said there.
	//  8. Of each strict bucket that an op with Thresholds names, it is told which of them are reached ([Event]).
	//
	// A strict bucket that has followed the clock back, so that its [limit.State] stands at an earlier
	// instant than before, is written also where the step is refused, checks only, or is a repeat: what it
	// says of the time to wait holds from there on. And so is one of which something is told.
	//
	// On an error nothing of step was written, or (only ErrUnavailable and the errors of ctx) it is
	// unknown whether all of it was, or some, or nothing. A store never repeats a write whose outcome it does
	// not know.
	// Apply returns by the deadline of ctx; with none it may bound the call by a timeout of its own.
	//
	// A store that keeps its state on disk has written the step there before Apply returns if the
	// step has a lease.
	//
	// The answer goes to out, whose slices are appended to from their start, so that a caller may use
	// one Outcome many times. step and what it points to may be used again by the caller as soon as
	// Apply has returned.
	Apply(ctx context.Context, step *Step, out *Outcome) error

	// Ready reports whether the store can decide now, by asking it. A nil error means yes.
	Ready(ctx context.Context) error

	// Close releases what the store holds. Calls under way may fail with ErrUnavailable.
	Close() error
}

// Outcome is what the store answers to a step.
type Outcome struct {
	// Now is the instant of the decision, by the store's clock.
	Now limit.Micros
	// Refused is the overall verdict.
	Refused bool
	// Lease is what became of the step's lease.
	Lease LeaseState
	// Note is the note that the step found under its lease: of a repeat, what was left by the first; empty where
	// there was none.
	Note []byte
	// Results has one entry per op, in order: the verdict on its amount by its own limit, shadow or
	// not, and the state of its bucket directly after the step (plain: after the op). The first hold that
	// makes room by its lapse ([limit.Spec.Frees]) is looked for among [Foreseen] of them.
	Results []limit.Status
}

var (
	// ErrUnavailable means that the store could not be asked, or did not answer in time: whether
	// the step was written is unknown.
	ErrUnavailable = errors.New("the store is unavailable")
	// ErrFull means that the step needs room for new counters, and the store has none. Nothing was
	// written.
	ErrFull = errors.New("the store has no room for more counters")
	// ErrCorrupt means that a bucket holds something that ration did not write. Nothing of the step
	// was written.
	ErrCorrupt = errors.New("a stored counter is not readable")
	// ErrConflict means that the step's lease was opened, or settled, before by another request than
	// this. Nothing was written.
	ErrConflict = errors.New("the lease belongs to another request")
	// ErrUnsupported means that the store does not know this kind of op. Nothing was written.
	ErrUnsupported = errors.New("the store does not support this operation")
	// ErrInvalid means that the step breaks the contract (an amount out of range, a window of
	// zero, a name too long). Nothing was written.
	ErrInvalid = errors.New("invalid step")
)
