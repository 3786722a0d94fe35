package redis

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

// rowsOf returns the rows of a part that are of the lease, or the others.
func (sp *span) rowsOf(p part, ofLease bool) []int {
	return slices.DeleteFunc(slices.Clone(p.rows), func(i int) bool { return sp.step.Rows[i].OfLease != ofLease })
}

// encoding is a message to a shard.
func (sp *span) encoding(p part, as phase) *encoding {
	switch {
	case as == admit:
	case as == refuse && sp.ends():
		p.rows = sp.rowsOf(p, true)
	default:
		p.rows = nil
	}
	e := &encoding{
		step: sp.step, part: p, inCluster: true, phase: as, transaction: sp.transaction, madeBy: sp.home.madeBy,
	}
	l := sp.step.Lease
	if l != nil && l.Do == store.LeaseLapse && sp.home.state == store.LeaseUnknown {
		l = nil // there is nothing to end, and nothing to remember
	}
	if l != nil && as != whole && as != repeat && (as != forget || sp.opens()) {
		e.lease = l
		if l.Ends() { // the shard's record is to be forgotten when the directory is
			late := *l
			late.Lasts = sp.home.due - sp.home.now // whose clock may be another
			e.lease = &late
		}
	}
	return e
}

// send sends messages to their shards, at the same time, and returns the states of the lease there.
func (sp *span) send(ctx context.Context, messages []*encoding) ([]store.LeaseState, error) {
	states := make([]store.LeaseState, len(messages))
	errs := make([]error, len(messages))
	nows := make([]limit.Micros, len(messages))
	one := func(i int) {
		e := messages[i]
		c, err := sp.store.decide(ctx, e)
		if errs[i] = err; err == nil {
			nows[i] = c.now
			states[i] = e.read(answer{rest: c.answer}, c.now, sp.out.Results)
		}
	}
	var all sync.WaitGroup
	for i := range messages {
		if i == len(messages)-1 {
			one(i) // the last is for whoever would only wait
			break
		}
		all.Go(func() { one(i) })
	}
	all.Wait()
	for i := range nows {
		sp.out.Now = max(sp.out.Now, nows[i])
	}
	return states, errors.Join(errs...)
}

// appendLeaseKey appends the key of what this message is about of its lease.
func (e *encoding) appendLeaseKey(b []byte, prefix string) []byte {
	switch {
	case !e.inCluster:
		return appendLeaseKey(b, prefix, shardOfLease(&e.lease.ID), &e.lease.ID, "#lease")
	case e.phase >= claim:
		return appendLeaseKey(b, prefix, e.part.shard, &e.lease.ID, "#shards")
	}
	return appendLeaseKey(b, prefix, e.part.shard, &e.lease.ID, "#lease")
}
