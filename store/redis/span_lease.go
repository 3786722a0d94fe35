package redis

import (
	"context"
	"encoding/binary"
	"slices"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

// directory is what a lease's own shard says of the lease.
type directory struct {
	claimed bool
	now     limit.Micros // when it said so
	state   store.LeaseState
	due     limit.Micros
	madeBy  store.LeaseID // the transaction
	shards  []uint16
}

// foreign says that the lease was opened or settled before, and had nothing in the shard: what a repeat
// asks there is nothing new.
func (d *directory) foreign(shard uint16) bool {
	return d.claimed && d.state == store.LeaseReplayed && !slices.Contains(d.shards, shard)
}

// claim asks the lease's own shard.
func (sp *span) claim(ctx context.Context) (directory, error) {
	e := sp.encoding(part{shard: shardOfLease(&sp.step.Lease.ID)}, claim)
	for _, p := range sp.parts {
		if sp.step.Lease.Do != store.LeaseRenew && sp.leavesRecord(p) {
			e.shards = append(e.shards, p.shard)
		}
	}
	c, err := sp.store.decide(ctx, e)
	sp.claimed = err == nil || unknown(err)
	if err != nil {
		return directory{}, err
	}
	a := answer{rest: c.answer}
	home := directory{claimed: true, now: c.now, state: store.LeaseState(a.byte()), due: limit.Micros(a.number())}
	copy(home.madeBy[:], a.take(len(home.madeBy)))
	sp.out.Note = append(sp.out.Note, a.take(a.length())...)
	for len(a.rest) > 0 {
		home.shards = append(home.shards, binary.LittleEndian.Uint16([]byte(a.take(2))))
	}
	return home, a.err
}

// leavesRecord says that a step with a lease leaves a record of it in the shard of a part.
func (sp *span) leavesRecord(p part) bool {
	return len(p.rows) > 0 || slices.ContainsFunc(p.ops, sp.strict)
}

// applyLook asks for the lease, which is on a node of its own, and then applies the rest of the step.
func (s *Store) applyLook(ctx context.Context, step *store.Step, out *store.Outcome) error {
	found := store.Outcome{Note: out.Note}
	home, err := (&span{store: s, step: step, out: &found}).claim(ctx)
	if err != nil {
		return err
	}
	if len(step.Ops)+len(step.Rows) > 0 {
		rest := *step
		rest.Lease = nil
		if ofLease(step) >= 0 {
			rest.Rows = slices.DeleteFunc(slices.Clone(step.Rows), func(r store.Row) bool { return r.OfLease })
		}
		if err := s.Apply(ctx, &rest, out); err != nil {
			return err
		}
	}
	out.Now, out.Lease, out.Note = max(out.Now, home.now), home.state, found.Note
	out.Refused = refuses(step, out.Results)
	return nil
}

// renew tells the lease's own shard first, and if it lives there, the others, and that of its row, which has a
// record of the lease from then on. What else the step reports comes last, when it is known whether the checks
// admit. Each shard judges the checks on its own buckets by itself: they ask for nothing that would have to be
// promised. Where a shard is not reached, what is held there lapses when it was due, and a repeat, or the
// settlement, sets right what is charged.
func (sp *span) renew(ctx context.Context) error {
	home, err := sp.claim(ctx)
	if err != nil {
		return err
	}
	sp.home, sp.out.Now, sp.out.Lease = home, max(sp.out.Now, home.now), home.state
	if home.state == store.LeaseRenewed {
		for _, shard := range home.shards {
			if !slices.ContainsFunc(sp.parts, func(p part) bool { return p.shard == shard }) {
				sp.parts = append(sp.parts, part{shard: shard})
			}
		}
	}
	var messages []*encoding
	for _, p := range sp.parts {
		e := sp.encoding(p, whole)
		row := sp.rowsOf(p, true)
		if home.state == store.LeaseRenewed && (len(row) > 0 || slices.Contains(home.shards, p.shard)) {
			e.lease, e.part.rows = sp.step.Lease, row
		}
		if e.lease != nil || len(p.ops) > 0 {
			messages = append(messages, e)
		}
	}
	wrote := home.state == store.LeaseRenewed
	_, err = sp.send(ctx, messages)
	if err == nil {
		err, wrote = sp.reportRest(ctx), true
	}
	if err != nil && wrote {
		return partly(err)
	}
	return err
}

// reportRest adds up the rows of a renewing step that are not of its lease, if the checks admit: each shard for
// itself.
func (sp *span) reportRest(ctx context.Context) error {
	if refuses(sp.step, sp.out.Results) {
		return nil
	}
	var messages []*encoding
	for _, p := range sp.parts {
		if rows := sp.rowsOf(p, false); len(rows) > 0 {
			e := sp.encoding(part{shard: p.shard}, whole)
			e.lease, e.part.rows = nil, rows
			messages = append(messages, e)
		}
	}
	_, err := sp.send(ctx, messages)
	return err
}

// resumed returns what became of a lease whose directory knew of the step: nothing new, if that was done in all
// shards; else what was done in those that had not heard of it. One in which the lease holds nothing says that
// it does not know it.
func resumed(lease *store.Lease, messages []*encoding, states []store.LeaseState) store.LeaseState {
	all, unknown := store.LeaseReplayed, false
	for i, state := range states {
		switch as := messages[i].phase; {
		case as != admit && as != refuse:
		case state == store.LeaseUnknown:
			unknown = lease.Do == store.LeaseSettle
		case state != store.LeaseReplayed:
			all = state
		}
	}
	if unknown && all == store.LeaseReplayed {
		return store.LeaseUnknown
	}
	return all
}
