package engine

import (
	"bytes"
	"context"
	"slices"
	"time"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/store"
)

// leaseLasts is how long a reservation over Envoy's protocol lives if nobody ends it.
const leaseLasts = 5 * 60 * limit.Second

// link says that an op of the step concerns a descriptor.
type link struct{ op, descriptor int }

// native adds the ops of the `limits:` to the step: those of the descriptors' own places, of the
// domain's root, of the upstream that serves the model, and of the lane that it is in. It
// returns what the descriptors ask for in all.
func (e *Engine) native(
	ctx context.Context, domain *policy.Domain, request *Request, d *Decision, s *scratch,
) (total demand, err error) {
	s.now, s.unknownModels = time.Now(), s.unknownModels[:0]
	total = s.total(domain, "", true)
	lease, err := s.lease(domain, request, &total)
	if err != nil {
		return total, err
	}
	s.step.Lease = lease
	var begun part
	if lease != nil && lease.Do == store.LeaseSettle {
		begun, total.reserved, s.noAnswer = e.begun(ctx, lease.ID)
	}
	e.identify(ctx, domain, d, s)
	for i := range s.asked {
		m := &s.matches[i]
		if len(m.Limits) == 0 {
			continue
		}
		own := demand{reserved: total.reserved}
		own.add(&s.asked[i])
		if !s.saidBefore(i, everything) {
			s.addMoney(domain, i, everything, &own)
		}
		e.expand(m, &own, &s.payers[i], i, d, s)
	}
	if s.anonymous(domain, d) {
		e.expand(&s.shared, &total, &s.everybody, 0, d, s)
	}
	if s.shared = domain.Root(); len(s.shared.Limits) > 0 {
		e.expand(&s.shared, &total, &s.everybody, 0, d, s)
	}
	for i := range s.asked {
		model := s.asked[i].model
		upstream := domain.Upstream(model)
		if model == "" || upstream == nil || s.modelBefore(i) {
			continue
		}
		s.shared = upstream.Match()
		sum := s.total(domain, model, false)
		sum.reserved = total.reserved && domain.Upstream(begun.model) == upstream // another one may have been asked
		e.expand(&s.shared, &sum, &s.everybody, i, d, s)
	}
	if s.in != nil {
		s.shared = s.in.Match()
		e.expand(&s.shared, &total, &s.everybody, 0, d, s)
	}
	s.said = s.stage(&total)
	if lease != nil && lease.Do == store.LeaseOpen && !s.takes() {
		s.step.Lease = nil // nothing that a repeat could take again
	}
	s.reportDescriptors(domain, d, &total, begun)
	return total, nil
}

func (s *scratch) modelBefore(i int) bool {
	for j := range i {
		if s.asked[j].model == s.asked[i].model {
			return true
		}
	}
	return false
}

// takes reports whether the limits of the step are asked for more than whether there is room.
func (s *scratch) takes() bool {
	return slices.ContainsFunc(s.step.Ops[s.firstNative:], func(op store.Op) bool { return op.Judged() && !isCheck(&op) })
}

// isCheck says that an op only looks whether there is room. A hold of 0 does more: it can grow.
func isCheck(op *store.Op) bool { return op.Kind == store.Charge && op.Amount == 0 }

// expand adds an op for everything that want asks of the limits of m.
func (e *Engine) expand(m *policy.Match, want *demand, who *payer, descriptor int, d *Decision, s *scratch) {
	for _, l := range m.Limits {
		if s.apartFrom != nil && s.apartFrom.Shares(l) {
			continue
		}
		of := measureOf(l)
		s.metered = s.metered || ofModels(of)
		periods, q := e.allows(l, who, limit.At(s.now))
		if q == nil {
			continue // unlimited
		}
		o := opening{limit: l, periods: periods, quantity: q, match: m, descriptor: descriptor, tier: who.tier, zone: who.zone}
		charge, charged := want.charge.of(of)
		held, holds := want.hold.of(of)
		if of == ofCost {
			s.costs(m, descriptor)
		}
		free := of == ofCost && want.free && !want.paid
		// What a whole call tells of later has to find a hold that can grow, even if nothing is expected of it.
		reserves := held > 0 || holds && s.wholeCall && !free
		switch {
		case of == ofPlaces && want.admits():
			o.takePlace(want, d, s)
		case of == ofCost && want.asks() && want.unpriced != "":
			asked := &d.Limits[s.open(d, o, store.Charge, 0, 0)]
			asked.Unpriced, asked.book = want.unpriced, want.book
		case free && charge == 0:
			// A limit whose charge is known to be nothing is not asked.
		case charged:
			s.open(d, o, store.Charge, charge, 0)
		case want.admits() && !reserves:
			s.open(d, o, store.Charge, 0, 0) // is there room at all?
		}
		if reserves {
			s.open(d, o, store.Hold, held, lapse(l, &want.hold, of, held))
		}
		used, reported := want.record.of(of)
		if (used > 0 || reported && s.recording() == store.Settle) && (!l.CountAsked || !want.reserved) {
			s.open(d, o, s.recording(), used, 0)
		}
		if back, _ := want.giveBack.of(of); back > 0 {
			s.open(d, o, store.GiveBack, back, 0)
		}
	}
}

// recording is how usage lands: as the settlement of the request's lease, where it has one.
func (s *scratch) recording() store.Kind {
	if s.step.Lease != nil && s.step.Lease.Do == store.LeaseSettle {
		return store.Settle
	}
	return store.Record
}

// lapse returns how much of a hold stays charged if nobody settles it.
func lapse(l *policy.Limit, want *usage, of measure, held int64) int64 {
	switch {
	case l.CountAsked, l.OnLapse == policy.LapseAll, of == ofRequests: // a request that was let through was made
		return held
	case l.OnLapse == policy.LapseNothing:
		return 0
	case of == ofCost:
		return want.moneyBefore
	}
	return want.sum(counted[of] & knownBefore)
}

// opening is a limit that is asked, and for whom.
type opening struct {
	limit            *policy.Limit
	periods          *policy.Periods
	quantity         *policy.Quantity
	match            *policy.Match
	tier, descriptor int
	zone             *time.Location // of who pays; nil: nobody knows
}

// takePlace takes a place of a concurrency limit, where the request has an id by which it is freed
// again; else it only looks whether there is one.
func (o *opening) takePlace(want *demand, d *Decision, s *scratch) {
	if s.step.Lease != nil && want.charge.amounts[requests] > 0 || want.hold.amounts[requests] > 0 {
		s.open(d, *o, store.Hold, 1, 0)
		return
	}
	s.open(d, *o, store.Charge, 0, 0)
}

// open adds an op, or adds to the one that does the same already: what descriptors of one request
// ask of one bucket adds up. It returns the index of the limit in d.
func (s *scratch) open(d *Decision, o opening, kind store.Kind, amount, lapse int64) int {
	from := len(s.names)
	s.names = o.periods.AppendBucket(s.names, o.match)
	bucket := s.names[from:len(s.names):len(s.names)]
	for i := range d.Limits {
		op := &s.step.Ops[s.firstNative+i]
		same := d.Limits[i].Limit == o.limit && bytes.Equal(op.Bucket, bucket) && bytes.Equal(op.Owner, o.match.Owner)
		if same && merges(op, &store.Op{Kind: kind, Amount: amount}) {
			s.names = s.names[:from]
			op.Kind = max(op.Kind, kind)
			op.Amount, op.Lapse = limit.Add(op.Amount, amount), limit.Add(op.Lapse, lapse)
			d.Limits[i].Amount, d.Limits[i].held = op.Amount, op.Kind == store.Hold
			s.links = append(s.links, link{i, o.descriptor})
			return i
		}
	}
	s.step.Ops = append(s.step.Ops, store.Op{
		Bucket: bucket, Owner: o.match.Owner, Spec: o.quantity.Spec, Kind: kind, Manner: limit.Strict,
		Amount: amount, Lapse: lapse, Class: o.class(s),
		Shadow: o.limit.Shadow, CountRefusals: o.limit.CountDenied,
	})
	s.watch(&s.step.Ops[len(s.step.Ops)-1], &o)
	s.links = append(s.links, link{len(d.Limits), o.descriptor})
	d.Limits = append(d.Limits, Applied{
		Limit: o.limit, Quantity: o.quantity, Tier: o.tier, Asks: kind == store.Charge || kind == store.Hold, Amount: amount,
		held: kind == store.Hold,
	})
	return len(d.Limits) - 1
}

// class says which total of a report settles a hold that no descriptor names: those on limits which
// belong to no descriptor, and those of a call that is told of as a whole. What a descriptor has held is its own to
// report.
func (o *opening) class(s *scratch) uint8 {
	if o.limit.CountAsked {
		return uint8(ofAsked)
	}
	if s.wholeCall || o.match == &s.shared {
		return uint8(measureOf(o.limit))
	}
	return uint8(ofDescriptor)
}

// merges says that two ops on a bucket can be one: both do the same, or one of them only looks whether there is room,
// and the other one asks for it.
func merges(a, b *store.Op) bool {
	return a.Kind == b.Kind || a.Judged() && b.Judged() && (isCheck(a) || isCheck(b))
}

// concludeNative writes what the store answered to the limits and the statuses that they concern.
func (s *scratch) concludeNative(d *Decision) {
	for i := range d.Limits {
		a := &d.Limits[i]
		a.Status = s.outcome.Results[s.firstNative+i]
		a.Over = (a.Status.Refused || a.refuses()) && !a.Limit.Shadow
	}
	for _, l := range s.links {
		a := &d.Limits[l.op]
		if a.Limit.OfLane() && !a.Over {
			continue // whose turn it was has used up what a lane lets through, which is nothing to be told
		}
		d.Statuses[l.descriptor].bind(a)
	}
}
