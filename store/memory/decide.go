package memory

import (
	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

// bucket is one counter.
type bucket struct {
	window limit.Window
	// idle is the instant from which the bucket equals an absent one, so that it may be dropped.
	idle limit.Micros
	// tentative is what the decision under way would leave used. It has no meaning between
	// decisions.
	tentative int64
}

// decide judges step at out.Now and writes it, with all shards of its buckets locked.
func (s *Store) decide(step *store.Step, out *store.Outcome) {
	var few [8]*bucket
	buckets := s.load(step, out.Now, few[:0])

	out.Results = out.Results[:0]
	overall := limit.Tally{}
	if step.QuotaOpen {
		overall.Add(true, false)
	}
	for i, b := range buckets {
		op := &step.Ops[i]
		refused := op.Kind == store.Charge && op.Spec.Judge(b.tentative, op.Amount, op.Manner)
		overall.Add(op.Quota, refused && !op.Shadow)
		b.count(op)
		out.Results = append(out.Results, store.Result{Used: b.tentative, Refused: refused})
	}
	out.Refused = overall.Refuses() && !step.Shadow

	if out.Refused && step.HasStrict() {
		for i, b := range buckets {
			b.tentative = b.used(&step.Ops[i], out.Now)
		}
		for i, b := range buckets {
			if op := &step.Ops[i]; op.Manner != limit.Strict || op.Kind != store.Charge {
				b.count(op)
			}
			out.Results[i].Used = b.tentative
		}
	}
	for i, b := range buckets {
		b.commit(&step.Ops[i], out.Now)
	}
}

// load finds the bucket of each op, or makes it, and sets what is tentatively used of it.
func (s *Store) load(step *store.Step, now limit.Micros, buckets []*bucket) []*bucket {
	for i := range step.Ops {
		op := &step.Ops[i]
		shard := &s.shards[s.shardOf(op.Bucket)]
		b := shard.buckets[string(op.Bucket)]
		if b == nil {
			b = &bucket{}
			shard.buckets[string(op.Bucket)] = b
		}
		b.tentative = b.used(op, now)
		buckets = append(buckets, b)
	}
	return buckets
}

func (b *bucket) used(op *store.Op, now limit.Micros) int64 {
	return b.window.Used(op.Spec, op.Spec.Start(now))
}

// count applies op to what is tentatively used.
func (b *bucket) count(op *store.Op) {
	if op.Kind == store.GiveBack {
		b.tentative = limit.GiveBack(b.tentative, op.Amount)
	} else {
		b.tentative = limit.Add(b.tentative, op.Amount)
	}
}

// commit makes what is tentatively used true.
func (b *bucket) commit(op *store.Op, now limit.Micros) {
	start := op.Spec.Start(now)
	if b.tentative == b.window.Used(op.Spec, start) {
		return
	}
	b.window = b.window.Set(op.Spec, start, b.tentative)
	b.idle = b.window.Start + op.Spec.Window + store.Grace(op.Spec.Window)
}
