package store

import (
	"fmt"

	"github.com/rationhq/ration/limit"
)

// Step is what one decision asks of the store.
type Step struct {
	Ops []Op
	// Rows is what the step reports of usage, at most [MaxRows]. There may be rows without ops.
	Rows []Row
	// Lease is the reservation that the step opens, renews or ends; nil for none.
	Lease *Lease
	// Refused says that the caller has refused already, by a rule of its own: the overall verdict is
	// no, whatever the limits say.
	Refused bool
	// Shadow admits whatever the limits say (the whole server is in shadow mode).
	Shadow bool
	// QuotaOpen says that a quota outside this step has room: a descriptor without any limit
	// counts as such when every descriptor is a quota.
	QuotaOpen bool
}

// Kind is what an op does to its bucket.
type Kind uint8

const (
	// Charge judges the amount and counts it. An amount of 0 is a check: it judges and counts
	// nothing.
	Charge Kind = iota
	// GiveBack returns units that were charged: to the current window only, never below 0, at once
	// visible to every caller. It is never refused. On a bucket that may be forgotten it writes nothing.
	GiveBack
	// Hold judges the amount, and reserves it under the lease that the step opens. A hold of 0 is judged as a
	// check, and reserves nothing; but the lease has a hold on the bucket then, which a renewal lets grow and a
	// settlement replaces.
	Hold
	// Settle says how much was used of the bucket: what the lease that the step settles holds there is
	// replaced by it; where it holds nothing, the amount is recorded. It is never refused. A lease has
	// one hold on a bucket.
	Settle
	// Record counts usage that has already happened: it always lands and is never refused.
	Record
	// Deplete brings the bucket down to what somebody says who knows better, the provider of a key that others use
	// too: usage that was theirs is recorded, just as much as it takes ([limit.Spec.Missing]) that
	//
	//  1. no more than Amount units remain, and
	//  2. of a token bucket, the next unit fits no sooner than Wait from now.
	//
	// Both are as the caller of Op.Spec sees them: by a Spec without Headroom, of all that there is. What is
	// held counts as used. Where less remains already it changes nothing: it never gives anything back. It always
	// lands, is never refused, and the bucket recovers from it as from any usage: also sooner, by what is given back,
	// or settled below what was held. Not of a concurrency limit.
	Deplete
	kinds
)

// Op is one operation on one bucket.
type Op struct {
	// Bucket names the counter within its owner. Different counters have different names: whoever
	// forms names makes them injective, and gives all ops on one name the same algorithm, window,
	// calendar and manner. 1…[MaxBucketName] bytes, the owner included.
	Bucket []byte
	// Owner names whom the counter belongs to: counters of one owner are kept together. Empty: the
	// counter stands by itself.
	Owner []byte
	Spec  limit.Spec
	Kind  Kind
	// Manner is Plain only for charges and give-backs on fixed windows that are aligned to the epoch.
	Manner limit.Manner
	// Amount is in 0…[limit.MaxAmount] units. Of a Deplete, it is what may remain.
	Amount int64
	// Wait is how long it is, of a Deplete of a token bucket, until another unit fits: 0 (it does not say) …
	// [limit.MaxAmount]. More than [limit.LongestWait] is as good as that. To windows, whose end is their own, and to
	// other kinds, it says nothing.
	Wait limit.Micros
	// Lapse is how much of a Hold stays charged if nobody settles it: 0…Amount.
	Lapse int64
	// Class says which of [Lease.Actual] settles a Hold whose bucket no settle op names.
	Class uint8
	// Shadow: judged and counted as ever, but never a reason to refuse.
	Shadow bool
	// Quota: refuses only together with all other quotas of the step.
	Quota bool
	// Thresholds are amounts used, ascending, of which each that is reached makes an [Event]: at most
	// [MaxThresholds], each in 1…2^53−2. Only of fixed windows and calendars, in the strict manner. Ops on one bucket
	// may have different ones: what is not above the highest that was told of in its period is not told of any more.
	Thresholds []int64
	// Label is what events of the op are told with, at most [MaxLabel] bytes. The store knows nothing of what is in it.
	Label []byte
	// CountRefusals charges a strict charge or hold also when the step is refused.
	CountRefusals bool
}

// MaxBucketName is the longest name of a bucket, with its owner, in bytes.
const MaxBucketName = 64 << 10

// Demand is the amount that a charge or hold is judged by: a strict check asks for 1.
func (o *Op) Demand() int64 {
	if o.Manner == limit.Strict {
		return max(1, o.Amount)
	}
	return o.Amount
}

// NotBefore returns the instant before which no other unit is to fit, of a Deplete at now.
func (o *Op) NotBefore(now limit.Micros) limit.Micros {
	return limit.Micros(limit.Add(int64(now), int64(o.Wait)))
}

// Judged says that the op can be refused.
func (o *Op) Judged() bool { return o.Kind == Charge || o.Kind == Hold }

// Validate reports, as ErrInvalid, what in the step breaks the contract. Every store calls it before
// it touches anything.
func (s *Step) Validate() error {
	if s.Lease != nil {
		if err := s.Lease.validate(); err != nil {
			return err
		}
	}
	for i := range s.Ops {
		if err := s.Ops[i].validate(s.Lease); err != nil {
			return fmt.Errorf("op %d on %.200q: %w", i, s.Ops[i].Bucket, err)
		}
	}
	if len(s.Rows) > MaxRows {
		return fmt.Errorf("%w: %d rows, want at most %d", ErrInvalid, len(s.Rows), MaxRows)
	}
	ofLease := 0
	for i := range s.Rows {
		if err := s.Rows[i].validate(s.Lease); err != nil {
			return fmt.Errorf("row %d of %.200q: %w", i, s.Rows[i].Owner, err)
		}
		if s.Rows[i].OfLease {
			ofLease++
		}
	}
	if ofLease > 1 {
		return fmt.Errorf("%w: %d rows are of the lease, want one at most", ErrInvalid, ofLease)
	}
	return nil
}

func (l *Lease) validate() error {
	switch {
	case l.Do > LeaseRenew:
		return fmt.Errorf("%w: lease action %d", ErrInvalid, l.Do)
	case (l.Do == LeaseOpen || l.Do == LeaseRenew) && (l.Lasts < 1 || l.Lasts > MaxLease):
		return fmt.Errorf("%w: a lease of %d µs, want 1 µs to an hour", ErrInvalid, l.Lasts)
	case len(l.Note) > MaxNote:
		return fmt.Errorf("%w: a note of %d bytes, want at most %d", ErrInvalid, len(l.Note), MaxNote)
	}
	for class, actual := range l.Actual {
		if actual < Unknown || actual > limit.MaxAmount {
			return fmt.Errorf("%w: %d units of class %d, want 0…2^53−1, or Unknown", ErrInvalid, actual, class)
		}
	}
	return nil
}

func (o *Op) validate(l *Lease) error {
	size := len(o.Bucket) + len(o.Owner)
	aligned := o.Spec.Algorithm == limit.FixedWindow && !o.Spec.FirstUse
	switch {
	case o.Kind >= kinds:
		return fmt.Errorf("%w: %d", ErrUnsupported, o.Kind)
	case len(o.Bucket) == 0 || size > MaxBucketName:
		return fmt.Errorf("%w: the bucket's name has %d bytes, want 1…%d", ErrInvalid, size, MaxBucketName)
	case o.Amount < 0 || o.Amount > limit.MaxAmount:
		return fmt.Errorf("%w: an amount of %d, want 0…2^53−1", ErrInvalid, o.Amount)
	case o.Manner == limit.Plain && (!aligned || o.Kind > GiveBack):
		return fmt.Errorf("%w: the plain manner is for charges and give-backs on aligned windows", ErrInvalid)
	case o.Kind == Hold && (l == nil || l.Do != LeaseOpen):
		return fmt.Errorf("%w: a hold needs a lease that the step opens", ErrInvalid)
	case o.Kind == Hold && (o.Lapse < 0 || o.Lapse > o.Amount):
		return fmt.Errorf("%w: a hold of %d that lapses to %d", ErrInvalid, o.Amount, o.Lapse)
	case o.Kind == Settle && (l == nil || l.Do != LeaseSettle):
		return fmt.Errorf("%w: to settle needs a lease that the step settles", ErrInvalid)
	case o.Kind == Deplete && (o.Wait < 0 || int64(o.Wait) > limit.MaxAmount):
		return fmt.Errorf("%w: depleted for %d µs, want 0…2^53−1", ErrInvalid, o.Wait)
	case o.Kind == Deplete && o.Spec.Algorithm == limit.Concurrency:
		return fmt.Errorf("%w: places are held, and not depleted", ErrInvalid)
	case l != nil && l.Do == LeaseRenew && (o.Kind != Charge || o.Amount > 0):
		return fmt.Errorf("%w: a step that renews a lease has no ops but checks", ErrInvalid)
	}
	if len(o.Thresholds) > 0 {
		if err := o.validateThresholds(); err != nil {
			return err
		}
	}
	if err := o.Spec.Validate(); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return nil
}

// Grace is how long a counter of the plain manner with the given window outlives its window.
func Grace(window limit.Micros) limit.Micros {
	return min(window, limit.Tolerance)
}
