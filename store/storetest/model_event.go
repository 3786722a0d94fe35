package storetest

import (
	"cmp"
	"slices"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

// crossing is an event, and whose it is. Instead of by an ID it is known by its bucket, its Start and its Threshold.
type crossing struct {
	bucket bucketName
	store.Event
}

// tell looks behind the step for thresholds that are reached. A bucket of which something is told has changed.
func (d *decision) tell() {
	for i := range d.step.Ops {
		op := &d.step.Ops[i]
		if len(op.Thresholds) == 0 {
			continue
		}
		s := d.sights[nameOf(op)]
		from, to := op.Spec.Crossed(&s.state, op.Thresholds)
		for which := from; which < to; which++ {
			d.add(crossing{nameOf(op), store.Event{
				At: d.now, Which: which, Threshold: op.Thresholds[which],
				Used: op.Spec.Describe(&s.state, s.now).Used, Limit: op.Spec.Limit,
				Start: s.state.At, End: s.state.End, Label: slices.Clone(op.Label),
			}})
			s.written = true
		}
	}
}

// add adds an event, unless a period has come again and there is one already.
func (m *Model) add(e crossing) {
	if !slices.ContainsFunc(m.events, e.isSame) {
		m.events = append(slices.Clip(m.events), e)
	}
}

// isSame says that both are of the same bucket, period and threshold.
func (e crossing) isSame(o crossing) bool {
	return e.bucket == o.bucket && e.Start == o.Start && e.Threshold == o.Threshold
}

// since returns the events from an instant on, in the order of At, and then of what is made of their bucket, Start and
// Threshold: the IDs of a store.
func (m *Model) since(since limit.Micros, id func(crossing) string) (list []store.Event) {
	for _, e := range m.events {
		if e.At >= since {
			e.ID = id(e)
			list = append(list, e.Event)
		}
	}
	sortEvents(list)
	return list
}

// sortEvents brings events into the order in which a store returns them.
func sortEvents(list []store.Event) {
	slices.SortFunc(list, func(a, b store.Event) int { return cmp.Or(cmp.Compare(a.At, b.At), cmp.Compare(a.ID, b.ID)) })
}
