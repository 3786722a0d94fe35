package memory

import (
	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

// fewOps is as many as most decisions on plain rules have.
const fewOps = 8

// applyPlain decides a step of a few plain ops on buckets that exist, and reports whether it was one.
// Nothing can keep such ops from being written, one after the other, so that they need none of what
// a decision is else; this is half of its time.
func (s *Store) applyPlain(step *store.Step, out *store.Outcome) bool {
	if step.Lease != nil || len(step.Rows) > 0 || len(step.Ops) > fewOps {
		return false
	}
	var places [fewOps]int
	var locks shardSet
	for i := range step.Ops {
		op := &step.Ops[i]
		if op.Manner != limit.Plain {
			return false
		}
		places[i] = s.shardOf(op.Owner, op.Bucket)
		locks.add(places[i])
	}
	locks.each(func(i int) { s.shards[i].mu.Lock() })
	var buckets [fewOps]*bucket
	for i := range step.Ops {
		op := &step.Ops[i]
		if buckets[i] = s.shards[places[i]].find(op.Owner, op.Bucket); buckets[i] == nil {
			locks.each(func(i int) { s.shards[i].mu.Unlock() })
			return false
		}
	}
	s.journal.enterStep(s, &locks, nil, 0)
	out.Now, out.Lease, out.Results, out.Note = s.clock(), store.LeaseNone, out.Results[:0], out.Note[:0]
	var overall limit.Tally
	if step.QuotaOpen {
		overall.Add(true, false)
	}
	for i := range step.Ops {
		op, b := &step.Ops[i], buckets[i]
		before := op.Spec.Counted(&b.state, out.Now)
		refused := op.Kind == store.Charge && op.Spec.Exceeds(before, op.Amount)
		overall.Add(op.Quota, refused && !op.Shadow)
		used := countPlain(op, before)
		if used != before {
			b.setCounted(&op.Spec, out.Now, used)
			s.shards[places[i]].changed(b, op.Owner, op.Bucket, out.Now, false)
		}
		out.Results = append(out.Results, op.Spec.PlainStatus(out.Now, used, refused))
	}
	out.Refused = (step.Refused || overall.Refuses()) && !step.Shadow
	locks.each(func(i int) { s.shards[i].mu.Unlock() })
	return true
}

// countPlain returns what op leaves counted of used.
func countPlain(op *store.Op, used int64) int64 {
	if op.Kind == store.GiveBack {
		return limit.Less(used, op.Amount)
	}
	return limit.Add(used, op.Amount)
}

// setCounted makes used what is counted in the window of now.
func (b *bucket) setCounted(spec *limit.Spec, now limit.Micros, used int64) {
	spec.SetCounted(&b.state, now, used)
	b.setIdle(b.state.At + spec.Window + store.Grace(spec.Window))
}
