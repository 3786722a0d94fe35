package memory

import (
	"bytes"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

// lapsesAtOnce bounds how many holds a step ends for others while it keeps shards locked.
const lapsesAtOnce = 64

// decision is one step on its way: copies of the states of its buckets, which are written back when
// the verdict is known. All shards of the buckets are locked.
type decision struct {
	store  *Store
	step   *store.Step
	leases *leaseShard // where the step's lease is; nil without one
	lease  *lease      // of the step, as it is known; nil if it is not
	now    limit.Micros
	replay bool // the step was done before: only plain ops are written
	refuse bool // the overall verdict
	wrote  bool // something was written, now or when the step was first done
	told   bool // there are events of it

	places []int // the shards of the step's ops, then of the holds of its lease, and then of its rows
	work   []work
	ops    []int // for each op of the step, its place in work
	holds  []int // for each hold of the lease, its place in work

	stripes stripeSet // of the step's rows; these are locked too
	sums    []report  // that the step adds to
	share   share     // what it adds for its lease
}

// work is one bucket in a decision.
type work struct {
	shard       *shard
	owner, name []byte
	bucket      *bucket // nil if it does not exist yet
	spec        *limit.Spec
	plain       bool

	state  limit.State  // native: advanced to now
	now    limit.Micros // native: where state stands
	count  int64        // plain: what is counted in the window of now
	demand int64        // native: of all charges and holds together
	holds  *holds       // of the bucket
	size   int64        // of the bucket as it was
	leased bool         // the step's lease has a hold on it
	wrote  bool         // state or count is to be written back
}

// begin finds out which shards have to be locked. That of the lease is.
func (d *decision) begin(s *Store, step *store.Step, leases *leaseShard) (locks shardSet) {
	d.store, d.step, d.leases, d.lease = s, step, leases, nil
	d.places = d.places[:0]
	for i := range step.Ops {
		d.places = append(d.places, s.shardOf(step.Ops[i].Owner, step.Ops[i].Bucket))
	}
	if leases != nil {
		d.lease = leases.leases[step.Lease.ID]
		for i := range d.moved() {
			h := &d.lease.holds[i]
			d.places = append(d.places, s.shardOf(h.owner(), h.bucket()))
		}
	}
	d.stripes = 0
	for i := range step.Rows {
		shard := s.shardOf(step.Rows[i].Owner, nil)
		d.places = append(d.places, shard)
		d.stripes |= 1 << stripeOf(shard)
	}
	for _, i := range d.places {
		locks.add(i)
	}
	return locks
}

// moved returns the holds that the step would end or renew.
func (d *decision) moved() []hold {
	if d.lease == nil || !d.step.Lease.MovesHolds() {
		return nil
	}
	return d.lease.holds
}

// look finds the buckets, as they are at now.
func (d *decision) look(now limit.Micros) {
	d.now, d.replay, d.refuse, d.wrote, d.told = now, false, false, false, false
	d.work, d.ops, d.holds = d.work[:0], d.ops[:0], d.holds[:0]
	for i := range d.step.Ops {
		op := &d.step.Ops[i]
		at := d.find(d.places[i], op.Owner, op.Bucket, &op.Spec)
		w := &d.work[at]
		w.plain = op.Manner == limit.Plain
		if !w.plain && op.Judged() {
			w.demand = limit.Add(w.demand, op.Amount)
		}
		d.ops = append(d.ops, at)
	}
	if d.step.Lease != nil && d.step.Lease.Do == store.LeaseRenew && d.lease != nil && d.lease.state(now) != store.LeaseOpened {
		return // it is not renewed
	}
	for i := range d.moved() {
		h := &d.lease.holds[i]
		at := d.find(d.places[len(d.step.Ops)+i], h.owner(), h.bucket(), &h.spec)
		d.work[at].leased = true
		d.holds = append(d.holds, at)
	}
}

// find returns the place in work of the bucket of that name.
func (d *decision) find(place int, owner, name []byte, spec *limit.Spec) int {
	sh := &d.store.shards[place]
	b := sh.find(owner, name)
	for i := range d.work {
		w := &d.work[i]
		if w.bucket == b && (b != nil || bytes.Equal(w.name, name) && bytes.Equal(w.owner, owner)) {
			return i
		}
	}
	last := len(d.work)
	if last == cap(d.work) {
		d.work = append(d.work, work{})
	} else {
		d.work = d.work[:last+1]
	}
	w := &d.work[last]
	w.shard, w.owner, w.name, w.bucket, w.spec = sh, owner, name, b, spec
	w.plain, w.leased, w.wrote, w.demand, w.holds = false, false, false, 0, nil
	if b == nil {
		w.state = limit.State{}
	}
	return last
}

// end forgets what the decision worked with and others own.
func (d *decision) end() {
	clear(d.work)
	clear(d.sums)
	d.share.end()
	d.store, d.step, d.leases, d.lease = nil, nil, nil, nil
}

// lapse ends the holds that are due on the buckets of the step, at most lapsesAtOnce, and reports
// whether these were all.
func (d *decision) lapse() (all bool) {
	left := lapsesAtOnce
	for i := range d.work {
		w := &d.work[i]
		if w.bucket == nil || w.bucket.holds == nil {
			continue
		}
		b := w.bucket
		for h := b.holds.first(); h != nil && h.due <= d.now; h = b.holds.first() {
			if left == 0 {
				return false
			}
			left--
			d.store.bytes.Add(w.shard.lapse(b, h, d.now))
		}
	}
	return true
}

// decide judges the step and writes it; state is what becomes of its lease.
func (d *decision) decide(state store.LeaseState, out *store.Outcome) error {
	for i := range d.work {
		d.work[i].load(d.now)
	}
	d.wrote = d.replay
	out.Now, out.Results, out.Note = d.now, out.Results[:0], out.Note[:0]
	if d.lease != nil {
		out.Note = append(out.Note, d.lease.note...)
	}
	d.share.find(d, state)
	if state == store.LeaseRenewed {
		// Nothing may change without room for the rows, whether the checks will admit them or not.
		if err := d.room(); err != nil {
			return err
		}
		d.renew()
	}
	d.judge(out)
	if state != store.LeaseRenewed {
		if err := d.room(); err != nil {
			return err
		}
	}
	var opened *lease
	if d.step.Lease != nil && d.step.Lease.Do == store.LeaseOpen && !d.replay && !d.refuse {
		opened = d.open()
		state = store.LeaseOpened
	}
	d.endLease(state)
	d.write(opened)
	d.tell()
	d.writeRows()
	d.commit(opened)
	out.Refused, out.Lease = d.refuse, state
	d.describe(out)
	return nil
}

// load copies the state of the bucket.
func (w *work) load(now limit.Micros) {
	if w.bucket != nil {
		w.state, w.holds, w.size = w.bucket.state, w.bucket.holds, w.bucket.bytes()
	}
	if w.plain {
		w.count = w.spec.Counted(&w.state, now)
		return
	}
	before := w.state.At
	w.now = w.spec.Advance(&w.state, now)
	// The clock has stepped back. Kept where it was, the bucket would follow it at each look anew.
	w.wrote = w.bucket != nil && w.state.At < before
}

// judge forms the verdicts.
func (d *decision) judge(out *store.Outcome) {
	var overall limit.Tally
	if d.step.QuotaOpen {
		overall.Add(true, false)
	}
	for i, at := range d.ops {
		op, w := &d.step.Ops[i], &d.work[at]
		var status limit.Status
		switch {
		case w.plain:
			status.Refused = op.Kind == store.Charge && op.Spec.Exceeds(w.count, op.Amount)
			w.count = countPlain(op, w.count)
			status = op.Spec.PlainStatus(d.now, w.count, status.Refused)
		case op.Judged() && !d.replay:
			status = op.Spec.Judge(&w.state, w.now, max(1, w.demand), 0)
		}
		overall.Add(op.Quota, status.Refused && !op.Shadow)
		out.Results = append(out.Results, status)
	}
	d.refuse = (d.step.Refused || overall.Refuses()) && !d.step.Shadow
}

// earliest returns when the first of those live holds lapses that make room by it, 0 if there is none
// among those that are foreseen.
func (w *work) earliest() limit.Micros {
	frees := func(h *hold) bool { return w.spec.Frees(&w.state, w.now, h.mark, h.amount, h.lapse) }
	if h := w.holds.foreseen(frees); h != nil {
		return h.due
	}
	return 0
}

// lands says that a native op is written, given the verdict.
func (d *decision) lands(op *store.Op, w *work) bool {
	switch {
	case op.Kind == store.Deplete:
		return !d.replay && d.missing(op, w) > 0
	case op.Amount == 0:
		return op.Kind == store.Hold && !d.replay && !d.refuse
	case op.Kind == store.GiveBack:
		return w.wrote || w.bucket != nil && !w.bucket.mayBeForgotten(w.spec, d.now)
	case d.replay:
		return false
	case op.Judged():
		return !d.refuse || op.CountRefusals
	case op.Kind == store.Settle:
		return !w.leased
	}
	return true
}

// missing returns how much a depletion records.
func (d *decision) missing(op *store.Op, w *work) int64 {
	return op.Spec.Missing(&w.state, w.now, op.Amount, op.NotBefore(d.now))
}

// write applies the ops to the states.
func (d *decision) write(opened *lease) {
	for i, at := range d.ops {
		op, w := &d.step.Ops[i], &d.work[at]
		switch {
		case w.plain:
			w.wrote = w.wrote || w.count != op.Spec.Counted(&w.state, d.now)
			continue
		case !d.lands(op, w):
			continue
		case op.Kind == store.GiveBack:
			op.Spec.GiveBack(&w.state, w.now, op.Amount)
		case op.Kind == store.Hold && opened != nil:
			w.hold(op, opened)
		case op.Kind == store.Deplete:
			op.Spec.Charge(&w.state, w.now, d.missing(op, w))
		default:
			op.Spec.Charge(&w.state, w.now, op.Amount)
		}
		w.wrote = true
	}
}

// describe completes the results of native ops with how their buckets stand now.
func (d *decision) describe(out *store.Outcome) {
	for i, at := range d.ops {
		op, w, judged := &d.step.Ops[i], &d.work[at], out.Results[i]
		switch {
		case w.plain:
		case judged.Refused:
			after := op.Spec.Judge(&w.state, w.now, max(1, w.demand), w.earliest()).After(w.now - d.now)
			after.Refused, after.Never = true, judged.Never
			out.Results[i] = after
		default:
			out.Results[i] = op.Spec.Describe(&w.state, w.now).After(w.now - d.now)
		}
	}
}
