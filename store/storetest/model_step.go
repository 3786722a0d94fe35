package storetest

import (
	"cmp"
	"slices"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

// Apply performs step at now and returns the model after it, which is m itself on an error.
func (m *Model) Apply(now limit.Micros, step *store.Step) (*Model, store.Outcome, error) {
	if err := step.Validate(); err != nil {
		return m, store.Outcome{}, err
	}
	d := &decision{Model: m.clone(), step: step, now: now, sights: map[bucketName]*sight{}}
	if step.Lease != nil {
		d.lease, d.known = m.lease(step.Lease.ID, now)
	}
	d.look()
	if err := d.decideLease(); err != nil {
		return m, store.Outcome{}, err
	}
	if d.fate == store.LeaseRenewed {
		d.renew()
	}
	d.judge()
	d.write()
	d.report()
	d.describe()
	return d.Model, d.out, nil
}

// decision is one step under way.
type decision struct {
	*Model
	step   *store.Step
	now    limit.Micros
	sights map[bucketName]*sight // of every bucket of the strict manner that the step touches
	lease  lease                 // the step's, if known
	known  bool
	fate   store.LeaseState // what becomes of the lease, if the step admits
	out    store.Outcome
}

// sight is how one bucket looks to a step.
type sight struct {
	spec    limit.Spec // brings the state to now
	demand  int64      // of all charges and holds on it, together
	state   limit.State
	now     limit.Micros // at which state stands
	there   bool         // and may not be forgotten
	written bool
}

// look lets what is due lapse on every bucket that the step names, or that the lease holds on which it
// ends or renews, and brings copies of their states to now.
func (d *decision) look() {
	see := func(name bucketName, spec limit.Spec) *sight {
		if s := d.sights[name]; s != nil {
			return s
		}
		d.lapse(name, d.now)
		b, there := d.buckets[name]
		s := &sight{spec: spec, state: b.state.Clone(), there: there && !b.mayBeForgotten(&spec, d.now)}
		s.now = spec.Advance(&s.state, d.now)
		s.written = there && s.state.At < b.state.At // it has followed the clock back
		d.sights[name] = s
		return s
	}
	for i := range d.step.Ops {
		op := &d.step.Ops[i]
		if op.Manner == limit.Plain {
			continue
		}
		s := see(nameOf(op), op.Spec)
		if op.Judged() {
			s.demand = limit.Add(s.demand, op.Amount)
		}
	}
	over := d.lease.settled || d.lease.lapsed || d.now >= d.lease.due // and so not renewed
	if d.known && d.step.Lease.MovesHolds() && (!over || d.step.Lease.Do != store.LeaseRenew) {
		for _, h := range d.lease.holds {
			see(h.bucket, h.spec)
		}
	}
}

// decideLease says what becomes of the step's lease.
func (d *decision) decideLease() error {
	l := d.step.Lease
	if l == nil {
		return nil
	}
	ended := d.lease.settled || d.lease.lapsed || d.now >= d.lease.due
	if d.known {
		d.out.Note = []byte(d.lease.note)
	}
	switch l.Do {
	case store.LeaseLook, store.LeaseRenew:
		switch {
		case !d.known:
			d.fate = store.LeaseUnknown
		case d.lease.settled:
			d.fate = store.LeaseSettled
		case ended:
			d.fate = store.LeaseLapsed
		case l.Do == store.LeaseRenew:
			d.fate = store.LeaseRenewed
		default:
			d.fate = store.LeaseOpened
		}
	case store.LeaseOpen:
		switch {
		case !d.known:
			d.fate = store.LeaseOpened
		case d.lease.opened && d.lease.request == l.Request:
			d.fate = store.LeaseReplayed
		default:
			return store.ErrConflict
		}
	case store.LeaseSettle:
		switch {
		case !d.known:
			d.fate = store.LeaseUnknown
		case d.lease.settled && d.lease.settlement == l.Request:
			d.fate = store.LeaseReplayed
		case d.lease.settled:
			return store.ErrConflict
		case ended:
			d.fate = store.LeaseCorrected
		default:
			d.fate = store.LeaseSettled
		}
	default: // LeaseLapse
		switch {
		case !d.known:
			d.fate = store.LeaseUnknown
		case ended:
			d.fate = store.LeaseReplayed
		default:
			d.fate = store.LeaseLapsed
		}
	}
	return nil
}

// renew moves the lease on, and has its holds grow to what was used so far.
func (d *decision) renew() {
	asked, l := d.step.Lease, d.lease
	l.due = max(l.due, after(d.now, asked.Lasts))
	if len(asked.Note) > 0 {
		l.note = string(asked.Note)
	}
	for _, h := range l.holds {
		live, s, charged := d.isLive(h), d.sights[h.bucket], h.lapse
		h.due = l.due
		if h.spec.Algorithm != limit.Concurrency && int(h.class) < len(asked.Actual) {
			h.lapse = max(h.lapse, asked.Actual[h.class])
		}
		switch {
		case !live:
			s.spec.Correct(&s.state, s.now, h.mark, charged, h.lapse)
		case h.lapse > h.amount:
			h.mark = s.spec.Grow(&s.state, s.now, h.mark, h.lapse-h.amount)
			h.amount = h.lapse
		}
		s.written = true
		l.holds = replace(l.holds, h)
		b := d.buckets[h.bucket]
		b.live = replace(b.live, h)
		d.buckets[h.bucket] = b
	}
	d.leases[asked.ID] = l
}

// judge judges every op and forms the overall verdict. Plain ops are written on the way: they are
// whatever the verdict will be. In a replay, strict ops are not judged: they have been admitted.
func (d *decision) judge() {
	overall := limit.Tally{}
	if d.step.QuotaOpen {
		overall.Add(true, false)
	}
	d.out.Now = d.now
	for i := range d.step.Ops {
		op := &d.step.Ops[i]
		var verdict limit.Status
		switch {
		case op.Manner == limit.Plain:
			verdict = d.plain(op)
		case op.Judged() && d.fate != store.LeaseReplayed:
			s := d.sights[nameOf(op)]
			judged := op.Spec.Judge(&s.state, s.now, max(1, s.demand), 0)
			verdict = limit.Status{Refused: judged.Refused, Never: judged.Never}
		}
		overall.Add(op.Quota, verdict.Refused && !op.Shadow)
		d.out.Results = append(d.out.Results, verdict)
	}
	d.out.Refused = (d.step.Refused || overall.Refuses()) && !d.step.Shadow
}

func (d *decision) plain(op *store.Op) limit.Status {
	b := d.buckets[nameOf(op)]
	before := op.Spec.Counted(&b.state, d.now)
	used, refused := limit.Add(before, op.Amount), op.Spec.Exceeds(before, op.Amount)
	if op.Kind == store.GiveBack {
		used, refused = limit.Less(before, op.Amount), false
	}
	if used != before {
		op.Spec.SetCounted(&b.state, d.now, used)
		d.buckets[nameOf(op)] = b
	}
	return op.Spec.PlainStatus(d.now, used, refused)
}

// write does to the strict buckets what the verdict and the lease ask for: a lease ends first, and
// one begins last.
func (d *decision) write() {
	if d.step.Lease != nil && d.step.Lease.Ends() {
		d.endLease()
	}
	var made []hold
	for i := range d.step.Ops {
		op := &d.step.Ops[i]
		if op.Manner == limit.Strict && (d.fate != store.LeaseReplayed || op.Kind == store.GiveBack) {
			made = append(made, d.writeOp(op)...)
		}
	}
	if d.step.Lease != nil && (d.step.Lease.Ends() || d.step.Lease.Do == store.LeaseOpen) {
		d.remember(made)
	}
	d.tell()
	for name, s := range d.sights {
		if s.written {
			b := d.buckets[name]
			b.state = s.state
			d.buckets[name] = b
		}
	}
}

func (d *decision) endLease() {
	switch d.fate {
	case store.LeaseSettled, store.LeaseCorrected:
		d.settle()
	case store.LeaseLapsed:
		d.endHolds(func(h hold) int64 { return h.lapse })
	default:
	}
}

// writeOp writes a strict op as far as the verdict lets it, and returns the hold that it made.
func (d *decision) writeOp(op *store.Op) []hold {
	s := d.sights[nameOf(op)]
	land, amount := op.Amount > 0, op.Amount
	switch op.Kind {
	case store.GiveBack:
		if land = land && (s.there || s.written); land {
			op.Spec.GiveBack(&s.state, s.now, op.Amount)
		}
	case store.Hold:
		if !d.out.Refused {
			return []hold{d.hold(op, s)}
		}
		land = land && op.CountRefusals
	case store.Charge:
		land = land && (!d.out.Refused || op.CountRefusals)
	case store.Settle:
		land = land && !d.leaseHoldsOn(nameOf(op))
	case store.Deplete:
		amount = op.Spec.Missing(&s.state, s.now, op.Amount, op.NotBefore(d.now))
		land = amount > 0
	default: // Record
	}
	if !land {
		return nil
	}
	s.written = true
	if op.Kind != store.GiveBack {
		op.Spec.Charge(&s.state, s.now, amount)
	}
	return nil
}

func (d *decision) hold(op *store.Op, s *sight) hold {
	d.holds++
	h := hold{
		number: d.holds, bucket: nameOf(op), spec: op.Spec, mark: op.Spec.Hold(&s.state, s.now, op.Amount),
		amount: op.Amount, lapse: op.Lapse, class: op.Class, due: after(d.now, d.step.Lease.Lasts),
	}
	s.written = true
	b := d.buckets[h.bucket]
	b.live = append(b.live, h)
	d.buckets[h.bucket] = b
	return h
}

func (d *decision) leaseHoldsOn(name bucketName) bool {
	return d.known && slices.ContainsFunc(d.lease.holds, func(h hold) bool { return h.bucket == name })
}

// settle replaces each hold of the lease, or what its lapse has left, by what was really used. Also
// before the lease is due one of its holds may have lapsed: when the clock was ahead.
func (d *decision) settle() {
	actual := func(h hold) int64 {
		used, named := int64(0), false
		for _, op := range d.step.Ops {
			if op.Kind == store.Settle && nameOf(&op) == h.bucket {
				used, named = limit.Add(used, op.Amount), true
			}
		}
		switch all := d.step.Lease.Actual; {
		case named:
			return used
		case int(h.class) < len(all) && all[h.class] != store.Unknown:
			return all[h.class]
		}
		return h.lapse
	}
	for _, h := range d.lease.holds {
		if !d.isLive(h) {
			s := d.sights[h.bucket]
			s.spec.Correct(&s.state, s.now, h.mark, h.lapse, actual(h))
			s.written = true
		}
	}
	d.endHolds(actual)
}

// endHolds settles what is live of the lease, each hold with as many units as used says.
func (d *decision) endHolds(used func(hold) int64) {
	for _, h := range d.lease.holds {
		if d.isLive(h) {
			s := d.sights[h.bucket]
			s.spec.Settle(&s.state, s.now, h.mark, h.amount, used(h))
			s.written = true
			d.end(h)
		}
	}
}

// remember notes what has become of the lease.
func (d *decision) remember(made []hold) {
	l := d.lease
	request, note := d.step.Lease.Request, string(d.step.Lease.Note)
	switch d.fate {
	case store.LeaseOpened:
		if d.out.Refused {
			d.fate = store.LeaseNone
			return
		}
		l = lease{due: after(d.now, d.step.Lease.Lasts), holds: made, opened: true, request: request, note: note}
	case store.LeaseSettled, store.LeaseCorrected:
		l.settled, l.settlement, l.holds = true, request, nil
		if note != "" {
			l.note = note
		}
	case store.LeaseLapsed:
		l.lapsed = true
	case store.LeaseUnknown:
		if d.step.Lease.Do == store.LeaseLapse {
			return
		}
		l = lease{due: d.now, settled: true, settlement: request, note: note}
	default: // replayed
		return
	}
	d.leases[d.step.Lease.ID] = l
}

// describe completes the results of the strict ops by how their buckets stand after the step.
func (d *decision) describe() {
	d.out.Lease = d.fate
	for i := range d.step.Ops {
		op, r := &d.step.Ops[i], &d.out.Results[i]
		if op.Manner == limit.Plain {
			continue
		}
		s, verdict := d.sights[nameOf(op)], *r
		lag := s.now - d.now
		if *r = op.Spec.Describe(&s.state, s.now).After(lag); verdict.Refused {
			*r = op.Spec.Judge(&s.state, s.now, max(1, s.demand), d.earliest(nameOf(op))).After(lag)
			r.Refused, r.Never = true, verdict.Never
		}
	}
}

// earliest returns when the first of those live holds on a bucket lapses that make room by it, 0 if
// there is none among those that are foreseen.
func (d *decision) earliest(name bucketName) limit.Micros {
	s := d.sights[name]
	live := slices.Clone(d.buckets[name].live)
	slices.SortStableFunc(live, func(a, b hold) int { return cmp.Compare(a.due, b.due) })
	for _, h := range live[:min(len(live), store.Foreseen)] {
		lapsed := s.state.Clone()
		s.spec.Settle(&lapsed, s.now, h.mark, h.amount, h.lapse)
		// Less is counted now. (Where Rest is something else, the end of a hold leaves it as it is.)
		counted := []int64{lapsed.Count, lapsed.Rest}
		if slices.Compare(counted, []int64{s.state.Count, s.state.Rest}) < 0 {
			return h.due
		}
	}
	return 0
}
