package store

import "github.com/rationhq/ration/limit"

// LeaseID names a lease: random, or derived from what makes its request unique (domain, subject and
// the caller's key), so that a second run of the same step finds the first.
type LeaseID [16]byte

// Lease is the life of a reservation: its id, and what the step does to it.
//
// A lease keeps the holds of the step that opened it, for as long as its holder renews it. It ends once:
// by being settled, or by lapsing when nobody settles it in time. What ended it is remembered for
// [Retention] after it was due, so that a repeat changes nothing.
type Lease struct {
	ID LeaseID
	Do LeaseAction
	// Lasts is how long after now the holds lapse if nobody settles them: 1…[MaxLease]. Only for
	// LeaseOpen and LeaseRenew.
	Lasts limit.Micros
	// Request is a hash of what the caller asked for. It tells the repeat of a request, which
	// changes nothing, from another one under the same id, which is ErrConflict.
	Request uint64
	// Actual is what was really used, per [Op.Class] of the holds, where no settle op names the
	// bucket. Unknown, and classes beyond its end, leave charged what a lapse would; to LeaseRenew, for which it
	// is what was used so far, in all, they say nothing. Only for LeaseSettle and LeaseRenew.
	Actual []int64
	// Note is what the caller wants to find again under the id, at most [MaxNote] bytes. A step that opens,
	// renews or settles the lease leaves it there, in place of the one before; an empty one leaves that.
	Note []byte
}

// Ends says that the step ends the lease, if it lives.
func (l *Lease) Ends() bool { return l.Do == LeaseSettle || l.Do == LeaseLapse }

// MovesHolds says that the step ends or renews the holds of the lease, if it lives.
func (l *Lease) MovesHolds() bool { return l.Ends() || l.Do == LeaseRenew }

// AddsRow says that a step with the lease may add to a row that is OfLease.
func (l *Lease) AddsRow() bool { return l.Do == LeaseOpen || l.Do == LeaseRenew || l.Do == LeaseSettle }

// Unknown stands for an actual amount that nobody knows.
const Unknown int64 = -1

// LeaseAction is what a step does to its lease.
type LeaseAction uint8

const (
	// LeaseOpen opens the lease if the step admits; all holds of the step belong to it. Where the
	// lease is there already, the step is a repeat: it has been admitted before, changes nothing but its
	// plain charges and give-backs, and answers how the buckets stand.
	LeaseOpen LeaseAction = iota
	// LeaseSettle replaces every hold of the lease by what was really used, in the window of the hold,
	// whatever room there is: by the amounts of the step's settle ops on its bucket, else by
	// Lease.Actual. A settle op on a bucket on which the lease holds nothing is recorded. A lease that has
	// lapsed is corrected by the difference, once. Where it was settled before, the step is a repeat. An
	// unknown lease has no holds: all settle ops are recorded, once, and the id counts as settled.
	LeaseSettle
	// LeaseLapse ends the lease as if it were due now: the holder is gone. Where it has ended, the step
	// is a repeat.
	LeaseLapse
	// LeaseLook only asks: the lease is LeaseOpened while it lives, LeaseSettled, LeaseLapsed or LeaseUnknown.
	LeaseLook
	// LeaseRenew says that the holder of a live lease goes on, and what it has used so far. The lease is due
	// after Lasts from now, or when it was before, if that is later. Of each hold whose class has an actual
	// amount, what a lapse would leave charged becomes that, if it was less; and so does what is held: where more
	// is used than was held, the hold grows to it, whatever room there is ([limit.Spec.Grow]). Beyond the limit
	// that is debt at once. Amounts that are lower than before change nothing, so that a repeat is harmless, and
	// no request is remembered. A place of a concurrency limit stays the place that it is, whatever was used. A
	// hold that has lapsed before its lease was due, when the clock was ahead, stays lapsed; what it has left
	// charged grows likewise.
	//
	// A renewing step has no ops but checks. They are judged when it is renewed, and their refusal is only said.
	// A lease that does not live is not changed, and is answered as by LeaseLook.
	//
	// In a store that answers ErrUnavailable some holds may be renewed and some not, if they lie on several
	// machines. Each of them lapses when it is due itself. A repeat renews those that live, and what others have
	// left charged grows.
	LeaseRenew
)

// LeaseState is what became of a step's lease.
type LeaseState uint8

const (
	// LeaseNone: the step has none, or would have opened one and was refused.
	LeaseNone LeaseState = iota
	// LeaseOpened by this step.
	LeaseOpened
	// LeaseSettled by this step, before it was due.
	LeaseSettled
	// LeaseCorrected by this step: it was due, or was made to lapse, before.
	LeaseCorrected
	// LeaseLapsed by this step.
	LeaseLapsed
	// LeaseReplayed: this was done before, nothing has changed.
	LeaseReplayed
	// LeaseUnknown: there is no such lease. A settlement was recorded.
	LeaseUnknown
	// LeaseRenewed by this step: it lives.
	LeaseRenewed
)

const (
	// MaxNote is the longest note of a lease, in bytes.
	MaxNote = 16 << 10
	// MaxLease is the longest that a lease lasts.
	MaxLease = 3600 * limit.Second
	// Retention is how long a lease is remembered after it was due; less where a store that is full
	// needs the room.
	Retention = 24 * 3600 * limit.Second
	// Foreseen is how many of a bucket's live holds a refusal looks at to say when one of them makes room:
	// those that are due first, and of those that are due at once, those that were made first. Thousands may
	// be live, none of which makes any, and a refusal must not cost more for that.
	Foreseen = 64
)
