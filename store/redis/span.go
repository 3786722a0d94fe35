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
//	admit    to the same shards, to those of the lease that the step ends, and to those of its rows: the promise is
//	         taken back, the ops are written, and what is reported is added up, in one script. Where the promise has lapsed nothing is written: it is
//	         too late, and the step is not admitted. Only when all have written is the caller answered.
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

// errLate means that a promise has lapsed.
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

// renew tells the lease's own shard first, and if it lives there, the others, and that of its row, which has a record of
// the lease from then on. What else the step reports comes last, when it is known whether the checks admit. Each shard judges the checks on its own
// buckets by itself: they ask for nothing that would have to be promised. Where a shard is not reached, what is held there
// lapses when it was due, and a repeat, or the settlement, sets right what is charged.
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

// reportRest adds up the rows of a renewing step that are not of its lease, if the checks admit: each shard for itself.
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

// abandon takes all promises back that there may be, for as long as ctx lasts in the sight of the caller,
// and else behind its back.
func (sp *span) abandon(ctx context.Context) {
	if !sp.claimed && !sp.prepared {
		return
	}
	step := *sp.step // which is the caller's again when it has its answer
	step.Ops, step.Rows = slices.Clone(step.Ops), nil
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
		messages = append(messages, behind.encoding(part{shard: shardOfLease(&step.Lease.ID)}, disclaim))
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
	e := &encoding{step: sp.step, part: p, inCluster: true, phase: as, transaction: sp.transaction, madeBy: sp.home.madeBy}
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
