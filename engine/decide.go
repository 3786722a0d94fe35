package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rationhq/ration/engine/backlog"
	"github.com/rationhq/ration/engine/provider"
	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/store"
)

// scratch is what one decision works with; it is used again by later ones.
type scratch struct {
	step    store.Step
	outcome store.Outcome
	// asked and matches have one entry per descriptor.
	asked   []asked
	matches []policy.Match
	// told is what the provider has answered, as the request says.
	told []provider.Header
	// plain[i] is the descriptor whose plain rule op i of the step decides. The ops of `limits:` follow
	// from firstNative on: one for each of Decision.Limits. links says whom they concern.
	plain       []int
	firstNative int
	links       []link

	// shared is the match of limits that belong to no descriptor.
	shared policy.Match

	// payers has one entry per descriptor; everybody is who pays for what belongs to no subject.
	payers    []payer
	everybody payer

	tells     bool          // what was used is told of
	waits     bool          // it may wait until the store can take it
	behind    bool          // it waits behind another report of the same request
	noAnswer  error         // why nothing is known of what is settled: the store was silent
	metered   bool          // a limit of tokens, or of money, applies
	said      stage         // what the request is counted as; set where the domain has limits
	calls     *callCounters // those of the domain; nil where it limits neither
	wholeCall bool          // an account is decided: a call that is told of as a whole
	looks     bool          // nothing is to be written
	refused   bool          // the call that is looked at is refused whatever the store says
	newKinds  bool          // some rows of the step are of kinds that are not known yet
	in        *policy.Lane  // what this limits is asked too; nil: no lane
	apartFrom *policy.Lane  // what all share who are in it is not asked; nil: everything is

	inquiry     inquiry
	reservation reservation

	// local is the step that this process decides alone, and localOf the limits of its ops.
	local        store.Step
	localOutcome store.Outcome
	localOf      []int

	// What the fields above point into.
	names   []byte
	entries []policy.Entry
	text    []byte
	now     time.Time // by which prices are found
	note    []byte
	// What rows point to.
	rowBytes  []byte
	labels    []byte // those of ops
	additions []store.Addition
	// unknownModels are those of the request that have no price.
	unknownModels []string
	leased        store.Lease
	actual        [measures]int64
}

// keepNames bounds what a scratch keeps of a request with unusually long names.
const keepNames = 64 << 10

func (e *Engine) release(s *scratch) {
	if cap(s.names) > keepNames {
		s.names = nil
	}
	s.in, s.apartFrom, s.inquiry, s.reservation = nil, nil, inquiry{}, reservation{}
	e.scratch.Put(s)
}

// Decide answers request: it finds the limit of each descriptor, lets the store judge and charge all
// of them in one step, and writes the answer to d.
//
// Where the store cannot decide, the limits do, as their policy says: [Decision.Degraded]; and what only reports usage
// waits until it can: [Decision.Queued].
//
// Errors: ErrNoDomain, ErrNoDescriptors, ErrNoPolicy; an *InvalidError for a request that cannot be
// read; ErrUnavailable, or that of ctx, which leave it unknown whether the request was charged;
// ErrFull, ErrUnsupported or ErrCorrupt. After any other error nothing was charged.
func (e *Engine) Decide(ctx context.Context, request *Request, d *Decision) error {
	started := time.Now()
	err := e.decide(ctx, request, d)
	if err != nil {
		e.countInvalid(request, err)
	}
	e.metrics.decided(time.Since(started), d, err)
	return err
}

func (e *Engine) decide(ctx context.Context, request *Request, d *Decision) error {
	*d = Decision{Statuses: d.Statuses[:0], Limits: d.Limits[:0]}
	switch {
	case request.Domain == "":
		return ErrNoDomain
	case len(request.Descriptors) == 0:
		return ErrNoDescriptors
	}
	now := e.current.Load()
	if now == nil {
		return ErrNoPolicy
	}
	if err := e.opts.Bounds.check(request); err != nil {
		return err
	}
	domain := now.policy.Domain(request.Domain)
	if domain == nil {
		for range request.Descriptors {
			d.Statuses = append(d.Statuses, Status{})
		}
		e.metrics.unknownDomain.Add(float64(len(d.Statuses)))
		return nil
	}

	s := e.scratch.Get().(*scratch)
	defer e.release(s)
	i := &s.inquiry
	*i = inquiry{asking: asking{engine: e, decision: d, s: s, now: now, domain: domain}, request: request}
	in, err := laneAsked(domain, request)
	if err != nil {
		return err
	}
	if in != nil {
		return e.waitIn(ctx, in, &Place{}, i)
	}
	if err := i.prepare(ctx, ""); err != nil {
		return err
	}
	if err := i.ask(ctx); err != nil {
		return err
	}
	i.conclude()
	i.followTold(ctx)
	return nil
}

// inquiry is a request on its way to being decided.
type inquiry struct {
	asking
	request *Request
	want    demand
	written bool // it has been, perhaps by a policy that is not in force any more
}

func (i *inquiry) base() *asking { return &i.asking }

func (i *inquiry) wants() *demand { return &i.want }

func (i *inquiry) named() bool { return true }

// prepare implements candidate.
func (i *inquiry) prepare(ctx context.Context, lane string) error {
	if err := i.renew(); err != nil {
		return err
	}
	i.s.in, i.s.apartFrom = i.domain.Lane(lane), nil
	return i.write(ctx)
}

// look implements candidate.
func (i *inquiry) look(ctx context.Context, lane string) error {
	if err := i.renew(); err != nil {
		return err
	}
	s := i.s
	s.in, s.apartFrom = nil, i.domain.Lane(lane)
	if err := i.write(ctx); err != nil {
		return err
	}
	s.step.Lease, s.step.Rows = nil, nil
	for op := range s.step.Ops {
		if s.step.Ops[op].Kind == store.Hold {
			s.step.Ops[op].Kind, s.step.Ops[op].Lapse = store.Charge, 0
		}
	}
	s.onlyLook(i.engine.opts.Shadow)
	return i.ask(ctx)
}

// write writes the step that decides the request.
func (i *inquiry) write(ctx context.Context) (err error) {
	e, domain, request, d, s := i.engine, i.domain, i.request, i.decision, i.s
	if err := s.read(request); err != nil {
		return err
	}
	if err := s.addressee(d); err != nil {
		return err
	}
	if err := e.resolveKeys(ctx, domain, d, s); err != nil {
		return err
	}
	for i := range s.asked {
		s.asked[i].entries = nameNobody(domain, d, s.asked[i].entries)
	}
	if err := e.match(domain, request, d, s); err != nil {
		return err
	}
	dropReplaced(d, e.opts.Quota)
	s.prepare(d, e.opts.Shadow)
	if len(domain.Limits()) > 0 {
		if i.want, err = e.native(ctx, domain, request, d, s); err != nil {
			return err
		}
		s.judgeSizes(d)
	}
	if s.bar(d); len(s.step.Ops) == 0 {
		d.Over = s.step.Refused && !e.opts.Shadow
	}
	s.calls = i.now.calls[domain]
	s.step.Rows, s.newKinds = e.kinds.bound(s.step.Rows)
	return nil
}

// renew makes the decision an empty one again, by the policy that is in force, if it has been written before.
func (i *inquiry) renew() error {
	if !i.written {
		i.written = true
		return nil
	}
	d := i.decision
	*d = Decision{Statuses: d.Statuses[:0], Limits: d.Limits[:0]}
	if i.now = i.engine.current.Load(); i.now == nil {
		return ErrNoPolicy
	}
	if i.domain = i.now.policy.Domain(i.request.Domain); i.domain == nil {
		return fmt.Errorf("%w: %.100q", ErrUnknownDomain, i.request.Domain)
	}
	return nil
}

// ask implements candidate.
func (i *inquiry) ask(ctx context.Context) error {
	e, d, s := i.engine, i.decision, i.s
	switch {
	case s.isEmpty():
	case len(s.step.Ops) > 0, s.step.Lease != nil, s.tells:
		return e.ask(ctx, s, d)
	default: // nothing limits the request, so that it does not need the store
		if e.apply(ctx, s, d) != nil {
			e.metrics.lostRows.Add(float64(len(s.step.Rows)))
		}
	}
	return nil
}

// conclude implements candidate.
func (i *inquiry) conclude() {
	e, d, s := i.engine, i.decision, i.s
	if s.step.Lease != nil && s.step.Lease.Ends() {
		e.freeLanes(i.domain, false)
	}
	s.countCall(d)
	if d.Degraded != policy.StoreErrorNone {
		return
	}
	e.tellUnpriced(i.now, i.domain, s, d)
	if d.Queued {
		return
	}
	e.reportRefusal(i.domain, s.model(), s, d)
	e.metrics.count(i.now, s, d)
}

// abandon implements candidate: the request ends as one that nobody has served.
func (i *inquiry) abandon(ctx context.Context) {
	end := Request{Domain: i.request.Domain}
	for d := range i.request.Descriptors {
		entries := i.request.Descriptors[d].Entries
		if valueOf(entries, reservedRequest) == "" || i.request.Descriptors[d].GiveBack {
			continue
		}
		rest := make([]policy.Entry, 0, len(entries)+1)
		for _, entry := range entries {
			if entry.Key != reservedMeter && entry.Key != reservedPhase && entry.Key != reservedLane {
				rest = append(rest, entry)
			}
		}
		end.Descriptors = append(end.Descriptors, Descriptor{Entries: append(rest, policy.Entry{Key: reservedPhase, Value: phaseFailed})})
	}
	if len(end.Descriptors) > 0 {
		_ = i.engine.Decide(ctx, &end, new(Decision)) // else it lapses
	}
}

// ask lets the store decide, or those limits for which it cannot. What only reports usage waits until it can.
func (e *Engine) ask(ctx context.Context, s *scratch, d *Decision) error {
	s.waits = e.backlog != nil && s.onlyReports()
	if s.waits && e.queueBehind(ctx, s, d) {
		return nil
	}
	err := s.noAnswer
	if err == nil || !s.waits { // else its caller has waited for the store once
		err = e.apply(ctx, s, d)
	}
	if err == nil {
		s.conclude(d)
		e.remember(s)
		return nil
	}
	if errors.Is(err, store.ErrConflict) {
		if s.waits && s.step.Lease.Do == store.LeaseSettle {
			s.step.Lease.ID = backlog.NewID() // usage beside, which can wait too if the store is silent now
		} else {
			d.Reused = withoutLease(&s.step)
		}
		err = e.apply(ctx, s, d)
	}
	switch {
	case err == nil:
		s.conclude(d)
	case s.waits && (undecided(err) || silent(err)) && e.queue(ctx, s, d, err):
	case ctx.Err() == nil && undecided(err):
		return e.without(ctx, s, d, err)
	default:
		return err
	}
	return nil
}

// match finds what applies to each descriptor, and the names of the counters.
func (e *Engine) match(domain *policy.Domain, request *Request, d *Decision, s *scratch) error {
	s.names, s.matches = s.names[:0], s.matches[:0]
	for i := range request.Descriptors {
		asked := &s.asked[i]
		status := Status{Amount: asked.amount, Quota: e.opts.Quota}
		before := len(s.names)
		var m policy.Match
		m, s.names = domain.Match(asked.entries, s.names)
		if override := request.Descriptors[i].Override; override != nil {
			l, err := override.applies(i)
			if err != nil {
				return err
			}
			status.Limit, status.Limited = l, true
			from := len(s.names)
			s.names = policy.AppendBucket(s.names, request.Domain, asked.entries, l.Spec.Window)
			m.Bucket = s.names[from:]
		} else if status.follow(m.Rule); !asked.isRequest() {
			status.Limited, status.Unlimited = false, false // a plain rule counts nothing else
		}
		if err := checkName(i, s.names[before:]); err != nil {
			return err
		}
		s.matches = append(s.matches, m)
		d.Statuses = append(d.Statuses, status)
	}
	return nil
}

// follow fills in what rule, if any, says.
func (s *Status) follow(rule *policy.Rule) {
	if s.Rule = rule; rule == nil {
		return
	}
	s.Quota = s.Quota || rule.Quota
	s.Unlimited = rule.Unlimited
	if !rule.Unlimited {
		s.Limited = true
		s.Limit = Limit{Name: rule.Name, RequestsPerUnit: int64(rule.RequestsPerUnit), Unit: rule.Unit, Spec: rule.Spec}
	}
}

// dropReplaced takes the limits away that another rule of the same request replaces. A rule that is
// replaced still replaces others.
func dropReplaced(d *Decision, allQuotas bool) {
	for i := range d.Statuses {
		if d.Statuses[i].Rule == nil {
			continue
		}
		for _, name := range d.Statuses[i].Rule.Replaces {
			for j := range d.Statuses {
				if s := &d.Statuses[j]; s.Limited && s.Limit.Name == name {
					s.Limited, s.Quota = false, allQuotas
				}
			}
		}
	}
}

// prepare begins the step that decides all limits of the request, with its plain rules.
func (s *scratch) prepare(d *Decision, shadow bool) {
	s.beginStep()
	s.step.Shadow = shadow
	for i := range d.Statuses {
		status := &d.Statuses[i]
		if !status.Limited {
			s.step.QuotaOpen = s.step.QuotaOpen || status.opensQuota()
			continue
		}
		op := store.Op{
			Bucket: s.matches[i].Bucket, Spec: status.Limit.Spec, Manner: limit.Plain, Amount: status.Amount,
			Quota: status.Quota, Shadow: status.Rule != nil && status.Rule.Shadow || s.asked[i].phase == record,
		}
		if s.asked[i].giveBack {
			op.Kind = store.GiveBack
		}
		s.step.Ops = append(s.step.Ops, op)
		s.plain = append(s.plain, i)
	}
	s.firstNative = len(s.step.Ops)
}

// beginStep makes the step an empty one.
func (s *scratch) beginStep() {
	s.step = store.Step{Ops: s.step.Ops[:0], Rows: s.step.Rows[:0]}
	s.plain, s.links, s.firstNative = s.plain[:0], s.links[:0], 0
	s.tells, s.waits, s.behind, s.metered, s.newKinds = false, false, false, false, false
	s.noAnswer = nil
	s.rowBytes, s.additions, s.labels = s.rowBytes[:0], s.additions[:0], s.labels[:0]
}

// isEmpty says that the store has nothing to decide, and nothing to write.
func (s *scratch) isEmpty() bool {
	return len(s.step.Ops) == 0 && s.step.Lease == nil && (len(s.step.Rows) == 0 || s.step.Refused)
}

// judgeSizes finds the limits that refuse the request whatever is left of them.
func (s *scratch) judgeSizes(d *Decision) {
	for i := range d.Limits {
		a := &d.Limits[i]
		a.TooLarge = a.Asks && a.Quantity.PerRequest > 0 && s.askedOf(d, i) > a.Quantity.PerRequest
		s.step.Refused = s.step.Refused || a.refuses() && !a.Limit.Shadow
	}
}

// askedOf returns how much the request asks of the bucket of a limit: what it charges and what it holds.
func (s *scratch) askedOf(d *Decision, limitIndex int) int64 {
	of, sum := &s.step.Ops[s.firstNative+limitIndex], int64(0)
	for i := range d.Limits {
		op := &s.step.Ops[s.firstNative+i]
		if op.Judged() && bytes.Equal(op.Bucket, of.Bucket) && bytes.Equal(op.Owner, of.Owner) {
			sum = limit.Add(sum, op.Amount)
		}
	}
	return sum
}

// withoutLease makes a step one by itself whose lease belongs to another request. A settlement becomes
// a record beside: it is usage too. What would be taken under the id is refused, where a limit enforces
// it, and reused is true: whoever repeats another's id is not let through by it. Rules, checks and limits
// in shadow count as ever.
func withoutLease(step *store.Step) (reused bool) {
	opens := step.Lease.Do == store.LeaseOpen
	step.Lease = nil
	for i := range step.Rows {
		step.Rows[i].OfLease = false
	}
	for i := range step.Ops {
		op := &step.Ops[i]
		switch op.Kind {
		case store.Settle:
			op.Kind = store.Record
		case store.Hold:
			op.Kind, op.Lapse = store.Charge, 0
		default:
		}
		takes := op.Manner == limit.Strict && op.Kind == store.Charge && op.Amount > 0
		reused = reused || opens && takes && !op.Shadow && !step.Shadow
	}
	step.Refused = step.Refused || reused
	return reused
}

// opensQuota says that a descriptor to which no limit applies counts as a quota with room.
func (s *Status) opensQuota() bool { return !s.Limited && !s.Unlimited && s.Quota }

func (e *Engine) apply(ctx context.Context, s *scratch, d *Decision) error {
	err := e.put(ctx, s, d)
	// A refused step writes no rows but those of a lease that it ends.
	writes := !s.outcome.Refused || s.step.Lease != nil && s.step.Lease.Do != store.LeaseOpen
	if err == nil && s.newKinds && writes {
		e.kinds.keep(s.step.Rows)
	}
	return err
}

// put puts the step to the store.
func (e *Engine) put(ctx context.Context, s *scratch, d *Decision) error {
	if e.guard != nil {
		return e.guard.apply(ctx, &s.step, &s.outcome, s.inTime(d))
	}
	started := time.Now()
	err := e.store.Apply(ctx, &s.step, &s.outcome)
	e.metrics.applied(time.Since(started), err)
	return err
}

// conclude writes what the store answered to the statuses.
func (s *scratch) conclude(d *Decision) {
	d.Now = s.outcome.Now
	if d.Over = s.outcome.Refused; s.looks {
		d.Over = s.wouldRefuse()
	}
	for op, i := range s.plain {
		status, result := &d.Statuses[i], s.outcome.Results[op]
		status.Exceeded = result.Refused
		status.Over = result.Refused && !s.step.Ops[op].Shadow
		status.Remaining = result.Remaining
		status.ResetAfter = result.ResetAfter
	}
	s.concludeNative(d)
}
