package memory

import (
	"slices"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

// recall finds out what the step's lease was before: state is LeaseReplayed, and the step a repeat,
// where this was done already.
func (d *decision) recall() (store.LeaseState, error) {
	asked := d.step.Lease
	if asked == nil {
		return store.LeaseNone, nil
	}
	known := d.lease
	if known == nil {
		if asked.Do == store.LeaseOpen {
			return store.LeaseNone, nil
		}
		return store.LeaseUnknown, nil
	}
	switch asked.Do {
	case store.LeaseLook:
		return known.state(d.now), nil
	case store.LeaseRenew:
		if state := known.state(d.now); state != store.LeaseOpened {
			return state, nil
		}
		return store.LeaseRenewed, nil
	case store.LeaseOpen:
		if !known.opened || known.openedBy != asked.Request {
			return 0, store.ErrConflict
		}
		d.replay = true
	case store.LeaseSettle:
		if known.ended == settled {
			if known.settledBy != asked.Request {
				return 0, store.ErrConflict
			}
			d.replay = true
		} else if known.hasLapsed(d.now) {
			return store.LeaseCorrected, nil
		} else {
			return store.LeaseSettled, nil
		}
	case store.LeaseLapse:
		if known.ended == live && !known.hasLapsed(d.now) {
			return store.LeaseLapsed, nil
		}
		d.replay = true
	}
	return store.LeaseReplayed, nil
}

// state is how the lease stands: what [store.LeaseLook] asks.
func (l *lease) state(now limit.Micros) store.LeaseState {
	switch {
	case l.ended == settled:
		return store.LeaseSettled
	case l.hasLapsed(now):
		return store.LeaseLapsed
	}
	return store.LeaseOpened
}

// open makes the step's lease. Its holds are added as they are written.
func (d *decision) open() *lease {
	asked := d.step.Lease
	opened := &lease{
		id: asked.ID, due: d.now + asked.Lasts, opened: true, openedBy: asked.Request, note: slices.Clone(asked.Note),
		added: string(d.share.packed),
	}
	count := 0
	for i := range d.step.Ops {
		if d.step.Ops[i].Kind == store.Hold {
			count++
		}
	}
	opened.holds = make([]hold, 0, count)
	d.leases.leases[asked.ID] = opened
	return opened
}

// hold reserves what op asks for.
func (w *work) hold(op *store.Op, opened *lease) {
	opened.holds = append(opened.holds, hold{
		lease: opened, index: int32(len(opened.holds)),
		due: opened.due, amount: op.Amount, lapse: op.Lapse, class: op.Class, spec: op.Spec,
		name: slices.Concat(op.Owner, op.Bucket), ownerLen: len(op.Owner),
		mark: op.Spec.Hold(&w.state, w.now, op.Amount),
	})
	if w.holds == nil {
		w.holds = &holds{}
	}
	w.holds.add(&opened.holds[len(opened.holds)-1])
}

// renew moves the step's lease on, and has its holds grow to what was used so far.
func (d *decision) renew() {
	asked := d.step.Lease
	d.lease.due = max(d.lease.due, d.now+asked.Lasts)
	for i, at := range d.holds {
		h, w := &d.lease.holds[i], &d.work[at]
		before := h.lapse
		if int(h.class) < len(asked.Actual) && h.spec.Algorithm != limit.Concurrency {
			h.lapse = max(h.lapse, asked.Actual[h.class])
		}
		if h.ended() { // it has lapsed; before it was due, if the clock has stepped back since
			w.spec.Correct(&w.state, w.now, h.mark, before, h.lapse)
		} else {
			if h.lapse > h.amount {
				h.mark = w.spec.Grow(&w.state, w.now, h.mark, h.lapse-h.amount)
				h.amount = h.lapse
			}
			w.holds.moveTo(h, d.lease.due)
		}
		w.wrote = true
	}
	d.leaveNote()
	if d.share.adds && string(d.share.packed) != d.lease.added {
		d.leaveAdded(string(d.share.packed))
	}
	d.leases.changed(d.lease)
	d.wrote = true
}

// leaveAdded notes with the lease what it has added to its row.
func (d *decision) leaveAdded(added string) {
	d.store.bytes.Add(int64(len(added) - len(d.lease.added)))
	d.lease.added = added
}

// leaveNote puts the step's note in the place of the lease's, unless it is empty.
func (d *decision) leaveNote() {
	if note := d.step.Lease.Note; len(note) > 0 {
		d.store.bytes.Add(int64(len(note) - len(d.lease.note)))
		d.lease.note = slices.Clone(note)
	}
}

// endLease settles the step's lease, or lets it lapse; state says which.
func (d *decision) endLease(state store.LeaseState) {
	asked := d.step.Lease
	if asked == nil || !asked.Ends() {
		return
	}
	switch state {
	case store.LeaseUnknown:
		if asked.Do == store.LeaseSettle {
			l := &lease{id: asked.ID, due: d.now, ended: settled, settledBy: asked.Request, note: slices.Clone(asked.Note)}
			d.leases.leases[asked.ID] = l
			d.store.bytes.Add(l.bytes())
			d.leases.changed(l)
			d.wrote = true
		}
	case store.LeaseSettled, store.LeaseCorrected:
		d.endHolds(d.actual)
		d.lease.ended, d.lease.settledBy = settled, asked.Request
		d.forgetHolds()
		d.leaveAdded("")
		d.leaveNote()
		d.leases.changed(d.lease)
		d.wrote = true
	case store.LeaseLapsed:
		d.endHolds(func(h *hold, _ int) int64 { return h.lapse })
		d.lease.ended = lapsed
		d.leases.changed(d.lease)
		d.wrote = true
	case store.LeaseNone, store.LeaseOpened, store.LeaseReplayed, store.LeaseRenewed:
	}
}

// forgetHolds drops the holds of a lease that has ended for good.
func (d *decision) forgetHolds() {
	d.store.bytes.Add(-d.lease.bytes())
	d.lease.holds = nil
	d.store.bytes.Add(d.lease.bytes())
}

// actual returns what was really used of a hold whose bucket stands at a place in work.
func (d *decision) actual(h *hold, at int) int64 {
	sum, named := int64(0), false
	for i := range d.ops {
		if op := &d.step.Ops[i]; op.Kind == store.Settle && d.ops[i] == at {
			sum, named = limit.Add(sum, op.Amount), true
		}
	}
	if all := d.step.Lease.Actual; !named {
		if int(h.class) >= len(all) || all[h.class] == store.Unknown {
			return h.lapse
		}
		return all[h.class]
	}
	return sum
}

// endHolds replaces what the holds of the lease have counted by what was really used.
func (d *decision) endHolds(actual func(h *hold, at int) int64) {
	for i, at := range d.holds {
		h, w := &d.lease.holds[i], &d.work[at]
		if h.ended() { // it has lapsed; before it was due, if the clock has stepped back since
			w.spec.Correct(&w.state, w.now, h.mark, h.lapse, actual(h, at))
			w.shard.ledger.remove(lapseKey(d.lease.id, i))
		} else {
			w.holds.remove(h)
			w.spec.Settle(&w.state, w.now, h.mark, h.amount, actual(h, at))
		}
		w.wrote = true
	}
}
