package redis

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

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
//	admit    to the same shards, and to those of the lease that the step ends: the promise is taken back
//	         and the ops are written, in one script. Where the promise has lapsed nothing is written: it is
//	         too late, and the step is not admitted. Only when all have written is the caller answered.
//	refuse   instead: the promise is taken back, and written is what is written whatever the verdict: ends of
//	         leases, give-backs, records, refusals that count.
//	repeat   instead, where the step was done before: only what a repeat writes is written.
//	forget   when something went wrong: the promise is taken back, nothing is written.
//
// Since every amount is promised in every shard before any of it is written, never is one too many
// admitted. It may be that one too many is refused, by a promise that is then not taken.
//
// No message is sent twice. What writes does so once: a promise is taken once, and where there is a
// lease, each shard in which it has something keeps its own record of what was opened and settled there. A
// repeat of the request asks each of them, and finishes what a server that died has left open; where nobody
// repeats it, holds lapse by the clock, and charges stay, as those of any call without an answer. A repeat that
// comes while the first is on its way shares what that is promised.
//
// Where some shards have opened a lease, and another has forgotten its promise and has no room any more, the lease
// cannot be finished:
//
//	bury     to the shards of the ops: those that have not opened the lease note that they never will. If all
//	         have, it is open after all.
//	undo     to those that have: its holds end, with nothing used.
//	dismiss  to the lease's own shard: the directory goes, and the id is free.
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
	wrote    bool // some shard may have written something of it
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
	bury
	undo
	claim
	disclaim
	dismiss
)

// errLate means that a promise has lapsed, or that the lease is buried.
var errLate = fmt.Errorf("%w: a shard did not hear in time that the step is admitted", store.ErrUnavailable)

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
	refused, err := sp.decide(ctx)
	unfinished := errors.Is(err, errLate) || err == nil && refused && sp.begun()
	if unfinished && sp.opens() {
		opened, buried := sp.bury(ctx)
		switch {
		case buried != nil:
			err = errors.Join(err, buried)
		case opened:
			sp.out.Lease, err = store.LeaseReplayed, nil
			sp.unjudge(func(uint16) bool { return true })
		default:
			sp.out.Lease = store.LeaseNone
			sp.claimed, sp.prepared = false, false // nothing is left of it
		}
	}
	if err != nil && sp.wrote {
		return partly(err)
	}
	return err
}

func (sp *span) opens() bool { return sp.step.Lease != nil && sp.step.Lease.Do == store.LeaseOpen }

// begun says that a shard had opened the lease already.
func (sp *span) begun() bool {
	for shard := range sp.repeated {
		if !sp.home.foreign(shard) {
			return true
		}
	}
	return false
}

// decide goes through the rounds, and returns the verdict.
func (sp *span) decide(ctx context.Context) (refused bool, err error) {
	if err := sp.first(ctx); err != nil {
		return false, err
	}
	sp.unjudge(sp.home.foreign)
	refused = refuses(sp.step, sp.out.Results)
	sp.wrote, sp.writing = true, true
	sp.out.Lease, err = sp.write(ctx, refused)
	return refused, err
}

// unjudge admits the strict ops of shards, since a repeat is not judged.
func (sp *span) unjudge(in func(shard uint16) bool) {
	for _, p := range sp.parts {
		for _, i := range p.ops {
			if sp.strict(i) && in(p.shard) {
				sp.out.Results[i].Refused = false
			}
		}
	}
}

// first claims the lease and prepares the shards.
func (sp *span) first(ctx context.Context) error {
	if sp.step.Lease != nil {
		home, err := sp.claim(ctx)
		if err != nil {
			return err
		}
		sp.home, sp.out.Now = home, max(sp.out.Now, home.now)
		sp.wrote = !sp.opens()
	}
	sp.prepared = true
	sp.wrote = sp.wrote || slices.ContainsFunc(sp.step.Ops, func(op store.Op) bool { return op.Manner == limit.Plain })
	return sp.prepare(ctx)
}

// claim asks the lease's own shard.
func (sp *span) claim(ctx context.Context) (directory, error) {
	e := sp.toHome(claim)
	for _, p := range sp.parts {
		if slices.ContainsFunc(p.ops, sp.strict) {
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
	for len(a.rest) > 0 {
		home.shards = append(home.shards, binary.LittleEndian.Uint16([]byte(a.take(2))))
	}
	return home, a.err
}

func (sp *span) strict(op int) bool { return sp.step.Ops[op].Manner == limit.Strict }

// prepare asks the shards of the ops, where there is anything to be judged or counted.
func (sp *span) prepare(ctx context.Context) error {
	ask := false
	for i := range sp.step.Ops {
		ask = ask || sp.step.Ops[i].Judged() || !sp.strict(i)
	}
	if !ask {
		return nil
	}
	var messages []*encoding
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
		if e := messages[i]; e.phase == forget || e.phase == prepare && state == store.LeaseReplayed {
			sp.repeated[e.part.shard] = true
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
		e := sp.encoding(p, as)
		if sp.repeated[p.shard] || sp.home.foreign(p.shard) {
			e = sp.encoding(p, repeat)
		}
		messages = append(messages, e)
	}
	lease := sp.step.Lease
	if refused && sp.opens() {
		messages = append(messages, sp.toHome(disclaim))
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

// bury ends the opening of a lease that cannot be finished. It returns true if it has been, by a twin.
func (sp *span) bury(ctx context.Context) (opened bool, err error) {
	parts := sp.shardsToWrite()
	var messages []*encoding
	for _, p := range parts {
		messages = append(messages, sp.encoding(p, bury))
	}
	states, err := sp.send(ctx, messages)
	if err != nil {
		return false, err
	}
	messages = nil
	for i, state := range states {
		if state == store.LeaseReplayed {
			messages = append(messages, sp.encoding(parts[i], undo))
		}
	}
	if len(messages) == len(parts) {
		return true, nil
	}
	if _, err = sp.send(ctx, messages); err != nil {
		return false, err
	}
	_, err = sp.send(ctx, []*encoding{sp.toHome(dismiss)})
	return false, err
}

// toHome is a message to the lease's own shard.
func (sp *span) toHome(as phase) *encoding {
	return sp.encoding(part{shard: shardOfLease(&sp.step.Lease.ID)}, as)
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

// shardsToWrite returns the strict ops by shard, and the other shards of the lease that the step ends,
// if it was not done there before.
func (sp *span) shardsToWrite() []part {
	var parts []part
	for _, p := range sp.parts {
		ops := slices.DeleteFunc(slices.Clone(p.ops), func(i int) bool { return !sp.strict(i) })
		if len(ops) > 0 {
			parts = append(parts, part{shard: p.shard, ops: ops})
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

// abandon takes all promises back that there may be, for as long as ctx lasts in the sight of the caller,
// and else behind its back.
func (sp *span) abandon(ctx context.Context) {
	if !sp.claimed && !sp.prepared {
		return
	}
	step := *sp.step // which is the caller's again when it has its answer
	step.Ops = slices.Clone(step.Ops)
	if step.Lease != nil {
		lease := *step.Lease
		step.Lease = &lease
	}
	for i := range step.Ops {
		op := &step.Ops[i]
		op.Bucket, op.Owner = bytes.Clone(op.Bucket), bytes.Clone(op.Owner)
	}
	behind := *sp
	behind.step, behind.out = &step, &store.Outcome{Results: make([]limit.Status, len(step.Ops))}
	var messages []*encoding
	for _, p := range behind.shardsToWrite() {
		if len(p.ops) > 0 && sp.prepared {
			messages = append(messages, behind.encoding(p, forget))
		}
	}
	if sp.opens() && sp.claimed && !sp.writing {
		messages = append(messages, behind.toHome(disclaim))
	}
	done := make(chan struct{})
	if !sp.store.inBackground(func(ctx context.Context) {
		defer close(done)
		_, _ = behind.send(ctx, messages) // what is not reached lapses
	}) {
		return
	}
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// partly makes of what some shards have said what is known of a step that others may have written. That of them
// nothing was written does not tell; that the caller's time is over does.
func partly(err error) error {
	for _, ended := range [...]error{context.DeadlineExceeded, context.Canceled} {
		if errors.Is(err, ended) {
			return fmt.Errorf("%w, some shards of it: %w: %s", store.ErrUnavailable, ended, err.Error())
		}
	}
	return fmt.Errorf("%w, some shards of it: %s", store.ErrUnavailable, err.Error())
}

// unknown says that err leaves open what was written.
func unknown(err error) bool {
	return errors.Is(err, store.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

// encoding is a message to a shard.
func (sp *span) encoding(p part, as phase) *encoding {
	e := &encoding{step: sp.step, part: p, inCluster: true, phase: as, transaction: sp.transaction, madeBy: sp.home.madeBy}
	if as >= admit && as <= undo {
		e.judged = sp.out.Results
	}
	if as == dismiss {
		e.transaction = sp.home.madeBy
	}
	if sp.step.Lease == nil || as == whole || as == repeat || as == forget && !sp.opens() {
		return e
	}
	l := *sp.step.Lease
	e.lease = &l
	switch {
	case l.Do == store.LeaseSettle: // the shard's record is to be forgotten when the directory is
		l.Lasts = sp.home.due - sp.home.now // whose clock may be another
	case as == bury || as == undo: // nobody is under way for longer
		l.Lasts = limit.Micros((2*sp.store.timeout + time.Minute).Microseconds())
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

// inBackground runs f, which Close waits for. It returns false if the store is closed.
func (s *Store) inBackground(f func(ctx context.Context)) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return false
	}
	s.leaving.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), s.timeout)
		defer cancel()
		f(ctx)
	})
	return true
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
