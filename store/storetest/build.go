package storetest

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

// perMinute is the limit of most walks.
func perMinute(most int64) limit.Spec { return limit.Spec{Limit: most, Window: minute} }

func charge(bucket string, spec limit.Spec, amount int64) store.Op {
	return store.Op{Bucket: []byte(bucket), Spec: spec, Kind: store.Charge, Amount: amount}
}

func strict(bucket string, spec limit.Spec, amount int64) store.Op {
	op := charge(bucket, spec, amount)
	op.Manner = limit.Strict
	return op
}

func giveBack(bucket string, spec limit.Spec, amount int64) store.Op {
	op := charge(bucket, spec, amount)
	op.Kind = store.GiveBack
	return op
}

// of returns op as a strict one of another kind.
func of(kind store.Kind, op store.Op) store.Op {
	op.Kind, op.Manner = kind, limit.Strict
	return op
}

// with returns op, changed.
func with(op store.Op, change func(*store.Op)) store.Op { change(&op); return op }

func asQuota(op store.Op) store.Op  { return with(op, func(o *store.Op) { o.Quota = true }) }
func asShadow(op store.Op) store.Op { return with(op, func(o *store.Op) { o.Shadow = true }) }
func countsRefusals(op store.Op) store.Op {
	return with(op, func(o *store.Op) { o.CountRefusals = true })
}

// warns returns op with thresholds. What is told of it has the bucket's name for a label.
func warns(op store.Op, thresholds ...int64) store.Op {
	return with(op, func(o *store.Op) { o.Thresholds, o.Label = thresholds, o.Bucket })
}

// upTo returns so many thresholds.
func upTo(n int64) (list []int64) {
	for i := range n {
		list = append(list, i+1)
	}
	return list
}

// holding returns a hold of which lapse units stay if nobody settles it.
func holding(bucket string, spec limit.Spec, amount, lapse int64) store.Op {
	op := of(store.Hold, charge(bucket, spec, amount))
	op.Lapse = lapse
	return op
}

func id(n int) store.LeaseID {
	var id store.LeaseID
	copy(id[:], fmt.Sprintf("lease %d", n))
	return id
}

// opens returns a lease that lasts for a minute.
func opens(n int, request uint64) *store.Lease {
	return &store.Lease{ID: id(n), Do: store.LeaseOpen, Lasts: minute, Request: request}
}

func settles(n int, request uint64, actual ...int64) *store.Lease {
	return &store.Lease{ID: id(n), Do: store.LeaseSettle, Request: request, Actual: actual}
}

// renews returns a renewal for another minute.
func renews(n int, actual ...int64) *store.Lease {
	return &store.Lease{ID: id(n), Do: store.LeaseRenew, Lasts: minute, Actual: actual}
}

func lapses(n int) *store.Lease { return &store.Lease{ID: id(n), Do: store.LeaseLapse} }

// shown is a step as messages show it: what is of use, and only when it is printed.
type shown struct{ *store.Step }

func (step shown) String() string {
	var b strings.Builder
	b.WriteString("step{")
	if step.Shadow {
		b.WriteString(" shadow")
	}
	if step.QuotaOpen {
		b.WriteString(" quota open")
	}
	if l := step.Lease; l != nil {
		do := [...]string{"open", "settle", "lapse", "look at", "renew"}[min(l.Do, store.LeaseRenew)]
		fmt.Fprintf(&b, " %s lease %q request %d", do, bytes.TrimRight(l.ID[:], "\x00"), l.Request)
		switch l.Do {
		case store.LeaseOpen:
			fmt.Fprintf(&b, " for %d µs", l.Lasts)
		case store.LeaseSettle:
			fmt.Fprintf(&b, " actual %d", l.Actual)
		case store.LeaseRenew:
			fmt.Fprintf(&b, " for %d µs, actual %d", l.Lasts, l.Actual)
		default:
		}
	}
	for i := range step.Ops {
		b.WriteString("\n  " + showOp(&step.Ops[i]))
	}
	for i := range step.Rows {
		r := &step.Rows[i]
		fmt.Fprintf(&b, "\n  row of %.40q/%.40q by %.40q at %d: add %d, rank %#x, keep %d, of lease %v",
			r.Group, r.Owner, r.Dimensions, r.At, r.Add, r.Rank, r.Keep, r.OfLease)
	}
	return b.String() + " }"
}

func showOp(op *store.Op) string {
	var b strings.Builder
	kind := [...]string{"charge", "give back", "hold", "settle", "record", "deplete"}[min(op.Kind, store.Deplete)]
	if op.Manner == limit.Plain {
		b.WriteString("plain ")
	}
	fmt.Fprintf(&b, "%s %d on %.40q/%.60q", kind, op.Amount, op.Owner, op.Bucket)
	if op.Kind == store.Hold {
		fmt.Fprintf(&b, " lapses to %d, class %d", op.Lapse, op.Class)
	}
	if op.Kind == store.Deplete {
		fmt.Fprintf(&b, " for %d", op.Wait)
	}
	for word, is := range map[string]bool{"shadow": op.Shadow, "quota": op.Quota, "counts refusals": op.CountRefusals} {
		if is {
			b.WriteString(" " + word)
		}
	}
	s := op.Spec
	fmt.Fprintf(&b, "; %v limit %d burst %d headroom %d window %d", s.Algorithm, s.Limit, s.Burst, s.Headroom, s.Window)
	if s.FirstUse {
		b.WriteString(" first use")
	}
	if s.Calendar != nil {
		b.WriteString(" " + s.Calendar.String())
	}
	if len(op.Thresholds) > 0 {
		fmt.Fprintf(&b, "; thresholds %d of %.40q", op.Thresholds, op.Label)
	}
	return b.String()
}
