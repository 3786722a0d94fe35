package engine

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/rationhq/ration/engine/waiting"
	"github.com/rationhq/ration/lane"
	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/store"
)

// A call that waits in a lane is asked about as any other, again and again: whenever the line says that it is its turn.
// What refuses it then, and is shared by all who are in the lane, has it wait on; everything else is the answer.

// Standing is how a call stands that waits in a lane.
type Standing = waiting.Standing

// ErrStopping is the error of those who wait in a lane when the server stops.
var ErrStopping = waiting.ErrStopping

// Waiting is how a call has waited in a lane.
type Waiting struct {
	// Lane is where it waited, or would have; nil: nowhere.
	Lane *policy.Lane
	// Ended says why it has not had its turn; WaitedForTurn where it has.
	Ended WaitEnd
	// For is how long it has waited.
	For time.Duration
	// Standing is how it stood when it gave up.
	Standing
}

// WaitEnd is how waiting has ended.
type WaitEnd uint8

// How waiting ends.
const (
	WaitedForTurn     WaitEnd = iota // it was its turn, and the limits have said the rest
	WaitedTooLong                    // the longest wait was over
	LineFull                         // there was no place in line
	LineFullOfSubject                // the subject had as many places in line as it may have
)

// String returns the word for metrics and messages.
func (w WaitEnd) String() string {
	return [...]string{"turn", "too_long", "full", "full_for_subject"}[w]
}

// refuses says that the request is refused because it had no turn.
func (w *Waiting) refuses() bool { return w.Ended != WaitedForTurn }

// retryAfter returns when it is worth coming again: when it would have been its turn, or soon.
func (w *Waiting) retryAfter() limit.Micros {
	if w.Expected <= 0 {
		return Soon()
	}
	return max(limit.Second, limit.Micros(w.Expected/time.Microsecond))
}

// Place asks for a turn in a lane.
type Place struct {
	// Lane names it; empty: the one that is bound to the upstream which serves the model.
	Lane string
	// Longest is how long to wait at most; 0: as long as the lane says, which is the longest in any case.
	Longest time.Duration
	// Tell is told how the call stands, while it waits; nil: nobody is.
	Tell func(Standing)

	keep bool // who asks can come back: the place in line is kept for a while
}

// Acquire is Reserve when it is the call's turn in a lane: it waits until there is room for it under what all share who are
// in the lane, and then reserves that too. A limit of its own refuses it at once, when it comes and when it is its turn. Where
// it has no turn in time [Decision.Waiting] says so, and the call is refused.
//
// Its errors are those of Reserve; and an *InvalidError where there is no such lane. When ctx ends the call has left the
// line.
func (e *Engine) Acquire(ctx context.Context, call *Call, place *Place, a *Admission) error {
	started := time.Now()
	err := e.acquire(ctx, call, place, a)
	e.metrics.decided(time.Since(started)-a.Waiting.For, &a.Decision, err)
	return err
}

func (e *Engine) acquire(ctx context.Context, call *Call, place *Place, a *Admission) error {
	_, domain, err := e.begin(ctx, &call.Caller, a)
	if err != nil {
		return err
	}
	in, err := laneFor(domain, place.Lane, call.Model)
	if err != nil {
		return err
	}
	if place.Longest < 0 {
		return &InvalidError{Field: "wait.longest", Reason: "it is not above 0: say how long to wait, or nothing, for as long as the lane lets calls wait"}
	}
	s := e.scratch.Get().(*scratch)
	defer e.release(s)
	place.keep = call.Key != ""
	return e.waitIn(ctx, in, place, newReservation(e, call, a, s))
}

// laneFor returns the lane of that name, or the one of the model's upstream.
func laneFor(domain *policy.Domain, name, model string) (*policy.Lane, error) {
	if name != "" {
		if in := domain.Lane(name); in != nil {
			return in, nil
		}
		return nil, &InvalidError{Field: "wait.lane", Reason: domain.UnknownLane(name)}
	}
	if in := domain.LaneOf(domain.Upstream(model)); in != nil {
		return in, nil
	}
	return nil, &InvalidError{
		Field:  "wait.lane",
		Reason: fmt.Sprintf("no lane is bound to the upstream of the model %.100q: name the lane", model),
	}
}

// laneAsked returns the lane in which a request is to wait; nil if it names none.
func laneAsked(domain *policy.Domain, request *Request) (in *policy.Lane, err error) {
	if len(domain.Lanes()) == 0 {
		return nil, nil
	}
	for i := range request.Descriptors {
		entries := request.Descriptors[i].Entries
		name := valueOf(entries, reservedLane)
		if name == "" {
			continue
		}
		if p := phaseNamed(valueOf(entries, reservedPhase)); p == record || p == done || p == fail {
			continue
		}
		found := domain.Lane(name)
		switch {
		case found == nil:
			err = errors.New(domain.UnknownLane(name))
		case in != nil && found != in:
			err = errors.New("another descriptor names another lane: a request waits in one")
		}
		if err != nil {
			return nil, &InvalidError{Field: fmt.Sprintf("descriptors[%d].entries", i), Reason: reservedLane + ": " + err.Error()}
		}
		in = found
	}
	return in, nil
}

// asking is a request on its way to being decided.
type asking struct {
	engine   *Engine
	decision *Decision
	s        *scratch
	now      *loaded
	domain   *policy.Domain
}

// candidate is a request that wants a turn.
type candidate interface {
	// prepare writes the step that asks for all; in a lane, also for what that limits. Empty: in none.
	prepare(ctx context.Context, lane string) error
	// ask puts it to the store.
	ask(ctx context.Context) error
	// look asks for all but what is shared in a lane, and writes nothing.
	look(ctx context.Context, lane string) error
	// conclude says what the request is told, and counts it.
	conclude()
	// abandon gives back what it holds, if anything: nobody is there any more to be told of it.
	abandon(ctx context.Context)
	// wants is what it asks for.
	wants() *demand
	// named says that it may come again under the same name, so that it may have been admitted already.
	named() bool
	base() *asking
}

// longestMargin is the most that is kept of a caller's time to answer that it has waited in vain.
const longestMargin = 50 * time.Millisecond

// waitIn has a request wait for its turn in a lane.
func (e *Engine) waitIn(ctx context.Context, in *policy.Lane, place *Place, c candidate) error {
	if err := c.prepare(ctx, in.Name); err != nil {
		return err
	}
	a := c.base()
	w := &waiter{candidate: c, lane: in, prepared: true}
	if l := a.s.step.Lease; l != nil && c.named() {
		w.lease = l.ID
	}
	if e.room == nil || e.opts.Shadow {
		if err := c.ask(ctx); err != nil {
			return err
		}
		c.conclude()
		return nil
	}
	result, err := e.room.Wait(ctx, &waiting.Party{
		Line: string(in.Owner()), Spec: orderOf(a.domain, in), Ticket: ticketOf(c, in), Wait: longest(ctx, in, place),
		Pace: in.Interval().Duration(), Keep: place.keep, Look: w.lookAround, Try: w.try, Tell: place.Tell,
	})
	w.stopped()
	d := a.decision
	switch {
	case err == nil && w.holds:
		err = ctx.Err() // its turn came when it left
	case err == nil && result.End != waiting.TurnedAway:
		err = w.unsure
	}
	if err != nil && w.holds && !place.keep {
		c.abandon(context.WithoutCancel(ctx))
	}
	ended := WaitedForTurn
	switch {
	case err != nil:
	case result.End == waiting.Full, result.End == waiting.FullForSubject:
		ended, err = w.standsOutside(ctx, result.End)
	case result.End == waiting.TimedOut:
		ended, err = w.standsInVain(ctx, &result)
	}
	d.Waiting = Waiting{Lane: in, For: result.Waited, Standing: result.Standing}
	if err != nil {
		e.metrics.lanes.observe(in, d, "gone")
		return err
	}
	if d.Waiting.Ended = ended; ended != WaitedForTurn {
		d.Over = true
	}
	c.conclude()
	e.metrics.lanes.observe(in, d, d.Waiting.Ended.String())
	return nil
}

// waiter is a candidate that waits.
type waiter struct {
	candidate
	lane     *policy.Lane
	lease    store.LeaseID // that it has if it was admitted before under its name; zero: it has none
	prepared bool          // its step is that of now
	asked    bool          // it has been asked, so that plain rules have counted it
	counted  bool          // it is among those who wait
	holds    bool          // it was admitted, or left before that was known
	unsure   error         // why it was not known, when it tried last, whether there is room
}

// lookAround says whether it is worth waiting: Refused, where a limit of its own refuses it; Got, where it was admitted
// before, and only has not heard, so that nobody's turn is needed for it to hear again.
func (w *waiter) lookAround(ctx context.Context) (waiting.Verdict, error) {
	w.begins()
	return w.wouldBe(ctx)
}

func (w *waiter) wouldBe(ctx context.Context) (waiting.Verdict, error) {
	if w.wasAdmitted(ctx) {
		return waiting.Got, nil
	}
	w.prepared = false
	err := w.look(ctx, w.lane.Name)
	if w.base().decision.Over {
		return waiting.Refused, err
	}
	return waiting.Busy, err
}

// wasAdmitted says that it certainly was, under its name.
func (w *waiter) wasAdmitted(ctx context.Context) bool {
	return w.lease != store.LeaseID{} && w.base().engine.knows(ctx, w.lease)
}

// standsInVain says what becomes of one whose time is over. Where its ticket is gone another process may have had its turn,
// for who asked for the same there.
func (w *waiter) standsInVain(ctx context.Context, result *waiting.Result) (WaitEnd, error) {
	if result.Position > 0 || !w.wasAdmitted(ctx) {
		return WaitedTooLong, nil
	}
	_, err := w.try(ctx, 0)
	return WaitedForTurn, cmp.Or(err, w.unsure)
}

// standsOutside says what becomes of one for whom the line has no place.
func (w *waiter) standsOutside(ctx context.Context, end waiting.End) (WaitEnd, error) {
	verdict, err := w.wouldBe(ctx)
	switch {
	case err != nil:
		return WaitedForTurn, err
	case verdict == waiting.Got:
		if a, err := w.try(ctx, 0); err != nil || a.Verdict != waiting.Busy {
			return WaitedForTurn, cmp.Or(err, w.unsure)
		}
	case verdict == waiting.Refused:
		return WaitedForTurn, nil // by a limit of its own, which says more
	}
	if end == waiting.FullForSubject {
		return LineFullOfSubject, nil
	}
	return LineFull, nil
}

// begins says that it waits.
func (w *waiter) begins() {
	if !w.counted {
		w.counted = true
		w.base().engine.metrics.lanes.waits(w.lane, 1)
	}
}

// stopped says that it waits no more.
func (w *waiter) stopped() {
	if w.counted {
		w.base().engine.metrics.lanes.waits(w.lane, -1)
	}
}

func (w *waiter) try(ctx context.Context, left time.Duration) (waiting.Attempt, error) {
	if !w.prepared {
		if err := w.prepare(ctx, w.lane.Name); err != nil {
			return waiting.Attempt{}, err
		}
	}
	a := w.base()
	a.s.attempt(w.asked)
	w.prepared, w.asked = false, true
	w.unsure = nil
	err := w.ask(ctx)
	a.s.asAsked(a.decision)
	if err != nil {
		if w.holds = ctx.Err() != nil; !w.holds && errors.Is(err, store.ErrUnavailable) {
			w.unsure = err
			return waiting.Attempt{Verdict: waiting.Unsure}, nil
		}
		return waiting.Attempt{}, err
	}
	w.holds = !a.decision.Over && a.decision.Degraded == policy.StoreErrorNone
	out := a.decision.attempt(a.s.in, left, w.counted)
	if out.Verdict == waiting.Busy {
		w.begins() // also who has tried at once
	}
	return out, nil
}

// attempt makes the step one that may come to nothing without anything being counted; again says that plain rules, which
// count whatever the verdict is, have counted it before.
func (s *scratch) attempt(again bool) {
	for i := range s.step.Ops {
		op := &s.step.Ops[i]
		op.CountRefusals = false
		if again && op.Manner == limit.Plain {
			op.Amount = 0
		}
	}
}

// asAsked makes the amounts of plain rules what was asked for again, for those who count it.
func (s *scratch) asAsked(d *Decision) {
	for op, i := range s.plain {
		s.step.Ops[op].Amount = d.Statuses[i].Amount
	}
}

// askAgain is after how long the first of those tries again who wait for what others hold. Whoever gives it back says so; but
// a process may end before it does, and calls may be settled where nobody has heard of the lane.
const askAgain = 3 * limit.Second

// soonRoom is how long room that comes soon takes at most.
const soonRoom = time.Second

// attempt says what came of a turn in a lane. A request for which room comes only after its wait is refused at once, by what
// has no room. But one that waits already, and would have room soon after, stays to the end of its wait, and hears how it
// stood: of a long line all who are called meanwhile would else be told that they fit soon, and come back together.
func (d *Decision) attempt(in *policy.Lane, left time.Duration, waits bool) waiting.Attempt {
	if !d.Over {
		return d.gotTurn(in)
	}
	out := waiting.Attempt{Verdict: waiting.Refused}
	if d.Bar != BarNone || d.Reused || d.Degraded != policy.StoreErrorNone || in == nil {
		return out
	}
	for i := range d.Statuses {
		if st := &d.Statuses[i]; st.Over && st.Applied == nil {
			return out
		}
	}
	longest := left
	if waits {
		longest = max(left, in.Interval().Duration(), soonRoom)
	}
	for i := range d.Limits {
		a := &d.Limits[i]
		switch {
		case !a.Over:
		case !in.Shares(a.Limit) || a.Never():
			return out
		case a.Status.FitsWithoutHolds:
			out.Until = max(out.Until, d.Now+min(a.Status.RetryAfter, askAgain))
		case a.Status.RetryAfter.Duration() > longest:
			return out
		default:
			out.Until = max(out.Until, d.Now+a.Status.RetryAfter)
		}
	}
	if out.Until > 0 {
		out.Verdict = waiting.Busy
	}
	return out
}

// gotTurn says for how many more there is room like one that was admitted, as far as is known.
func (d *Decision) gotTurn(in *policy.Lane) waiting.Attempt {
	out := waiting.Attempt{Room: lane.MaxCalled}
	for i := range d.Limits {
		a := &d.Limits[i]
		if in == nil || !in.Shares(a.Limit) || a.Limit.Shadow || !a.Asks {
			continue
		}
		out.Room = min(out.Room, int(max(0, a.Status.Remaining)/max(1, a.Amount)))
		if a.Limit == in.Drain && a.Status.Remaining < 1 {
			out.Until = d.Now + a.Status.ResetAfter // its burst is 1: what is used now is gone when the next one fits
		}
	}
	return out
}

// longest returns for how long a request waits in a lane at most: less than its caller does.
func longest(ctx context.Context, in *policy.Lane, place *Place) time.Duration {
	wait := in.MaxWait.Duration()
	if place.Longest > 0 {
		wait = min(wait, place.Longest)
	}
	if deadline, ok := ctx.Deadline(); ok {
		left := time.Until(deadline)
		wait = min(wait, left-min(left/10, longestMargin))
	}
	return max(0, wait)
}

// orderOf says how a lane orders.
func orderOf(domain *policy.Domain, in *policy.Lane) lane.Spec {
	spec := lane.Spec{
		Classes: max(1, len(domain.Tiers())), Weights: in.Weights, Aging: in.Aging, Most: in.MaxWaiting, MostOfSubject: in.MaxWaitingPerSubject,
	}
	if domain.SubjectKey() == "" {
		spec.MostOfSubject = spec.Most // nobody knows whose calls they are
	}
	return spec
}

// ticketOf returns the place in line of a request: its id is that of its lease, so that who comes again with the same
// request has the same place.
func ticketOf(c candidate, in *policy.Lane) lane.Ticket {
	a := c.base()
	t := lane.Ticket{Class: max(0, a.s.everybody.tier), Cost: costOf(c.wants(), in.TurnsBy)}
	if a.s.step.Lease != nil {
		t.ID = lane.ID(a.s.step.Lease.ID)
	} else {
		_, _ = rand.Read(t.ID[:]) // never fails
	}
	for i := range a.s.matches {
		if m := &a.s.matches[i]; m.HasSubject {
			sum := sha256.Sum256(m.Owner)
			t.Subject = lane.ID(sum[:len(t.Subject)])
			break
		}
	}
	return t
}

// costOf returns how much of its subject's share a request takes.
func costOf(want *demand, by policy.Meter) int64 {
	of := func(classes uint8) int64 { return limit.Add(want.charge.sum(classes), want.hold.sum(classes)) }
	cost := int64(1)
	switch by {
	case policy.Tokens:
		cost = of(tokenClasses)
	case policy.Cost:
		cost = of(1<<money) / int64(1000)
	default:
	}
	return min(lane.MaxCost, max(1, cost))
}

// freeLanes tells the lanes of a domain that a call has ended, whose room others may have; made says that the call was made,
// so that its request stays counted. Then a lane that only drains has no more room than before: to tell it would have the next one
// try in vain.
func (e *Engine) freeLanes(domain *policy.Domain, made bool) {
	if e.room == nil {
		return
	}
	for _, in := range domain.Lanes() {
		if made && in.Places == nil && in.Upstream == nil {
			continue
		}
		spec := orderOf(domain, in)
		e.room.Free(string(in.Owner()), &spec, 1)
	}
}
