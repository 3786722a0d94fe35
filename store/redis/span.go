package redis

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

// Decisions across shards. The shards of a Redis Cluster live on different machines, and no script sees two
// of them. So a step whose strict ops lie in several, or that has a lease, is decided in rounds, each of
// one message to every shard at the same time:
//
//	claim    (only with a lease) to the lease's own shard, the hash of its id: its directory notes the
//	         request and the shards in which the lease has something. This is where a conflict is found, and
//	         goes before the rest: a step in conflict writes nothing anywhere.
//	prepare  to the shards of the ops: plain ops are counted, strict ones judged. What they would charge or
//	         hold is promised to the step's transaction, a random id, unless a limit of that shard refuses.
//	         A promise lies beside its bucket (lua/decide/pending.lua). To others it is as good as held; it
//	         lapses after `provisional`, so that a server that dies strands nothing.
//	verdict  formed here, over the ops of all shards.
//	admit    to the same shards, to those of the lease that the step ends, and to those of its rows: the promise
//	         is taken back, the ops are written, and what is reported is added up, in one script. Where the
//	         promise has lapsed nothing is written: it is too late, and the step is not admitted. Only when all
//	         have written is the caller answered.
//	refuse   instead: the promise is taken back, and written is what is written whatever the verdict: ends of
//	         leases, give-backs, records, refusals that count.
//	repeat   instead, where the step was done before: only what a repeat writes is written.
//	forget   when something went wrong: the promise is taken back, nothing is written.
//
// A step that renews a lease claims it, and then asks all shards once, each for itself: see renew.
//
// Since every amount is promised in every shard before any of it is written, never is one too many
// admitted. It may be that one too many is refused, by a promise that is then not taken.
//
// No message is sent twice. What writes does so once: a promise is taken once, and where there is a
// lease, each shard in which it has something keeps its own record of what was opened and settled there. A
// repeat of the request asks each of them, and finishes what a server that died has left open; a repeat that
// comes while the first is on its way shares what that is promised. Where nobody repeats it, or a shard has no room
// for it any more, holds lapse by the clock, and charges stay, as those of any call without an answer: to undo
// them at once would take them from a twin that is about to be answered.
//
// Here are the rounds. What becomes of a lease is in span_lease.go, what a message is and how they are sent in
// span_message.go, and what is done when something went wrong in span_fail.go.
type span struct {
	store       *Store
	step        *store.Step
	out         *store.Outcome
	parts       []part // of all ops, by shard
	transaction store.LeaseID
	home        directory

	// repeated are the shards in which the step was done before.
	repeated map[uint16]bool
	claimed  bool // the directory may have noted it
	prepared bool // some shard may have heard of the step
	writing  bool // some shard may have heard the verdict
}

// phase is what a message asks of its shard: see lua/decide/step.lua.
type phase byte

const (
	whole phase = iota // all at once
	prepare
	admit
	refuse
	repeat
	forget
	claim
	disclaim
)

// applySpan applies a step that no single script can decide.
func (s *Store) applySpan(ctx context.Context, step *store.Step, parts []part, out *store.Outcome) error {
	bounded, cancel := context.WithTimeout(ctx, 2*s.timeout)
	defer cancel()
	sp := &span{store: s, step: step, out: out, parts: parts, repeated: make(map[uint16]bool)}
	_, _ = rand.Read(sp.transaction[:]) // never fails
	err := sp.apply(bounded)
	if err != nil {
		sp.abandon(bounded)
	}
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		err = fmt.Errorf("%w: %w", store.ErrUnavailable, err)
	}
	return err
}

func (sp *span) apply(ctx context.Context) error {
	if sp.step.Lease != nil && sp.step.Lease.Do == store.LeaseRenew {
		return sp.renew(ctx)
	}
	if err := sp.first(ctx); err != nil {
		return err
	}
	for _, p := range sp.parts {
		if sp.home.foreign(p.shard) {
			for _, i := range p.ops {
				if sp.step.Ops[i].Manner == limit.Strict {
					sp.out.Results[i].Refused = false // a repeat is not judged
				}
			}
		}
	}
	refused := refuses(sp.step, sp.out.Results)
	sp.writing = true
	state, err := sp.write(ctx, refused)
	if err != nil {
		return partly(err)
	}
	sp.out.Lease = state
	return nil
}

// first claims the lease and prepares the shards.
func (sp *span) first(ctx context.Context) error {
	plain := slices.ContainsFunc(sp.step.Ops, func(op store.Op) bool { return op.Manner == limit.Plain })
	lease := sp.step.Lease
	wrote := plain
	if lease != nil {
		home, err := sp.claim(ctx)
		if err != nil {
			return err
		}
		sp.home, sp.out.Now = home, max(sp.out.Now, home.now)
		wrote = plain || !sp.opens()
	}
	sp.prepared = true
	err := sp.prepare(ctx)
	if err != nil && wrote {
		return partly(err)
	}
	return err
}

func (sp *span) strict(op int) bool { return sp.step.Ops[op].Manner == limit.Strict }

func (sp *span) ends() bool { return sp.step.Lease != nil && sp.step.Lease.Ends() }

func (sp *span) opens() bool { return sp.step.Lease != nil && sp.step.Lease.Do == store.LeaseOpen }

// prepare asks the shards of the ops, where there is anything to be judged or counted; and of a lease that is opened
// again those in which the step asks for nothing any more, since a policy has changed.
func (sp *span) prepare(ctx context.Context) error {
	ask := false
	for i := range sp.step.Ops {
		ask = ask || sp.step.Ops[i].Judged() || !sp.strict(i)
	}
	var messages []*encoding
	for _, shard := range sp.home.shards {
		asks := func(p part) bool { return p.shard == shard && sp.leavesRecord(p) }
		if sp.opens() && !slices.ContainsFunc(sp.parts, asks) {
			messages = append(messages, sp.encoding(part{shard: shard}, prepare))
			ask = true
		}
	}
	if !ask {
		return nil
	}
	for _, p := range sp.parts {
		as := prepare
		switch {
		case !slices.ContainsFunc(p.ops, sp.strict):
			as = whole
		case sp.home.foreign(p.shard):
			as = forget
		}
		if len(p.ops) > 0 {
			messages = append(messages, sp.encoding(p, as))
		}
	}
	states, err := sp.send(ctx, messages)
	for i, state := range states {
		e := messages[i]
		switch {
		case e.phase == forget, e.phase == prepare && state == store.LeaseReplayed:
			sp.repeated[e.part.shard] = true
		case len(e.part.ops) == 0 && err == nil:
			err = store.ErrConflict // begun for what this step does not ask for, and not finished
		}
	}
	return err
}

// write tells the shards the verdict, and returns what becomes of the lease.
func (sp *span) write(ctx context.Context, refused bool) (store.LeaseState, error) {
	as := admit
	if refused {
		as = refuse
	}
	var messages []*encoding
	for _, p := range sp.shardsToWrite() {
		again := sp.repeated[p.shard] || sp.home.foreign(p.shard)
		if len(p.ops) == 0 && (again || refused && !sp.ends()) && sp.out.Now > 0 {
			continue // it would have reported something there; but some shard has to say what time it is
		}
		e := sp.encoding(p, as)
		if again {
			e = sp.encoding(p, repeat)
		}
		e.judged = sp.out.Results
		messages = append(messages, e)
	}
	lease := sp.step.Lease
	if refused && sp.opens() {
		messages = append(messages, sp.encoding(part{shard: shardOfLease(&lease.ID)}, disclaim))
	}
	states, err := sp.send(ctx, messages)
	switch {
	case err != nil || lease == nil:
		return store.LeaseNone, err
	case sp.home.state == store.LeaseReplayed:
		return resumed(lease, messages, states), nil
	case lease.Do == store.LeaseOpen && refused:
		return store.LeaseNone, nil
	}
	return sp.home.state, nil
}

// shardsToWrite returns the strict ops and the rows by shard, and the other shards of the lease that the step
// ends, if it was not done there before.
func (sp *span) shardsToWrite() []part {
	var parts []part
	for _, p := range sp.parts {
		ops := slices.DeleteFunc(slices.Clone(p.ops), func(i int) bool { return !sp.strict(i) })
		if len(ops) > 0 || len(p.rows) > 0 {
			parts = append(parts, part{shard: p.shard, ops: ops, rows: p.rows})
		}
	}
	if sp.step.Lease == nil || sp.opens() {
		return parts
	}
	for _, shard := range sp.home.shards {
		if !sp.repeated[shard] && !slices.ContainsFunc(parts, func(p part) bool { return p.shard == shard }) {
			parts = append(parts, part{shard: shard})
		}
	}
	return parts
}
