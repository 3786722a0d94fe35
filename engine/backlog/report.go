package backlog

import (
	"reflect"
	"slices"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

// newReport copies step, which its caller uses again. A step without a lease gets one of its own, which it settles: so the
// store knows a repeat.
func newReport(step *store.Step, landed func(*store.Outcome)) *report {
	r := &report{step: *step, landed: landed}
	s := &r.step
	s.Ops, s.Rows = slices.Clone(s.Ops), slices.Clone(s.Rows)
	r.bytes = sizeOf[report]() + sizeOf[chain]() + int64(len(s.Ops))*sizeOf[store.Op]() + int64(len(s.Rows))*sizeOf[store.Row]()
	r.ownID = s.Lease == nil
	lease := store.Lease{ID: NewID(), Do: store.LeaseSettle}
	if s.Lease != nil {
		lease = *s.Lease
		lease.Actual = keep(r, lease.Actual)
		lease.Note = keep(r, lease.Note)
	}
	s.Lease = &lease
	r.bytes += sizeOf[store.Lease]()
	for i := range s.Ops {
		op := &s.Ops[i]
		op.Bucket, op.Owner, op.Label = keep(r, op.Bucket), keep(r, op.Owner), keep(r, op.Label)
		op.Thresholds = keep(r, op.Thresholds)
	}
	for i := range s.Rows {
		row := &s.Rows[i]
		row.Owner, row.Group, row.Dimensions = keep(r, row.Owner), keep(r, row.Group), keep(r, row.Dimensions)
		row.Add = keep(r, row.Add)
	}
	return r
}

// keep copies what a step points to, and counts what that takes.
func keep[S ~[]E, E any](r *report, s S) S {
	r.bytes += int64(len(s)) * sizeOf[E]()
	return slices.Clone(s)
}

func sizeOf[T any]() int64 { return int64(reflect.TypeFor[T]().Size()) }

// leaveOutPlain takes out what a repeat of the step would do again although it has a lease. It returns false if nothing
// is left.
func (r *report) leaveOutPlain() bool {
	s := &r.step
	s.Ops = slices.DeleteFunc(s.Ops, func(op store.Op) bool { return op.Manner == limit.Plain })
	return !r.ownID || len(s.Ops)+len(s.Rows) > 0
}
