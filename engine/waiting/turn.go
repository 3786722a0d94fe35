package waiting

import (
	"context"
	"time"

	"github.com/rationhq/ration/lane"
	"github.com/rationhq/ration/limit"
)

// turn is a party on its way to its turn.
type turn struct {
	party *Party
	room  *Room
	until time.Time // it waits no longer

	place    place
	presence *presence
	seat     int64         // of those who wait here, who came first
	called   chan struct{} // holds one: it is its turn
	stands   chan Standing // holds the last one
	told     time.Time     // when it was; the line's own
}

// What the line is told in the end.
var (
	leaves = lane.Step{Do: lane.Leave}
	keeps  = lane.Step{Do: lane.Leave, Keep: true} // who has gone may come back
)

// wait waits for the turn, and tries. last is what the line is to be told in the end; nil: nothing.
func (t *turn) wait(ctx context.Context) (result Result, last *lane.Step, err error) {
	enter := lane.Step{Do: lane.Enter, Ticket: t.party.Ticket}
	for {
		out, err := t.enter(ctx, &enter)
		switch {
		case ctx.Err() != nil:
			return Result{}, t.departs(), ctx.Err()
		case err != nil || out.Answer == lane.Go:
			a, tryErr := t.try(ctx)
			if tryErr != nil || a.Verdict != Busy && a.Verdict != Unsure || err != nil {
				return Result{End: Tried}, nil, tryErr
			}
			enter.Tried = true // and once more as soon as it waits: room that has come since nobody else would tell it of
			continue
		case out.Answer == lane.Full, out.Answer == lane.FullForSubject:
			return t.full(&out), nil, nil
		}
		t.sitDown(&out)
		result, last, err := t.await(ctx, enter.Tried)
		t.standUp()
		if last != nil {
			return result, last, err
		}
		enter.Tried = true
	}
}

// stays is for how long a line keeps a ticket that nobody has taken away: it is to be there still when its party gives up,
// and is told how it stood.
const stays = time.Second

// left returns how long it may still be in line.
func (t *turn) left() limit.Micros {
	return min(lane.MaxWait, limit.Micros((max(0, time.Until(t.until))+stays)/time.Microsecond))
}

func (t *turn) full(out *lane.Outcome) Result {
	end := Full
	if out.Answer == lane.FullForSubject {
		end = FullForSubject
	}
	return Result{End: end, Standing: Standing{Waiting: out.Waiting, Expected: t.expected(out.Ahead+1, out.Pace)}}
}

// expected returns how long it takes until so many have had their turn, at the pace of late; 0 if nobody knows.
func (t *turn) expected(turns int, pace limit.Micros) time.Duration {
	return time.Duration(turns) * max(t.party.Pace, pace.Duration())
}

func (t *turn) try(ctx context.Context) (Attempt, error) {
	return t.party.Try(ctx, time.Until(t.until))
}

// await waits in the line. tried says that the party has tried before, so that it stays. last is what the line is to be told
// then; nil: the line does not know the ticket any more.
func (t *turn) await(ctx context.Context, tried bool) (result Result, last *lane.Step, err error) {
	if t.party.Look != nil && !tried {
		switch verdict, err := t.party.Look(ctx); {
		case err != nil || verdict == Refused:
			return Result{End: TurnedAway}, &leaves, err
		case verdict == Got:
			if a, err := t.try(ctx); err != nil || a.Verdict == Got || a.Verdict == Refused {
				return Result{End: Tried}, &leaves, err
			}
		}
	}
	timer := time.NewTimer(time.Until(t.until))
	defer timer.Stop()
	for {
		select {
		case <-t.called:
			a, err := t.try(ctx)
			switch {
			case err != nil || a.Verdict == Refused:
				return Result{End: Tried}, &leaves, err
			case a.Verdict == Got:
				return Result{End: Tried}, &lane.Step{Do: lane.Admitted, Room: a.Room, Until: a.Until}, nil
			}
			if a.Verdict == Unsure {
				a.Until = t.room.later(t.place.line)
			}
			// Where it is not known whether the line has heard, it will count this process as gone, and say so.
			if out, err := t.say(&lane.Step{Do: lane.Refused, Until: a.Until}); err == nil && out.Answer == lane.Unknown {
				return Result{}, nil, nil
			}
		case s := <-t.stands:
			t.party.Tell(s)
		case <-timer.C:
			return Result{End: TimedOut, Standing: t.room.standing(ctx, t)}, &leaves, nil
		case <-t.room.stopping:
			return Result{}, &keeps, ErrStopping
		case <-ctx.Done():
			return Result{}, t.departs(), ctx.Err()
		}
	}
}

// departs is what the line is told of a party that is gone.
func (t *turn) departs() *lane.Step {
	select {
	case <-t.room.stopping: // the server has ended it
		return &keeps
	default:
	}
	if t.party.Keep {
		return &keeps
	}
	return &leaves
}

// enter asks the line for a turn.
func (t *turn) enter(ctx context.Context, step *lane.Step) (lane.Outcome, error) {
	t.presence.saying <- struct{}{}
	defer func() { <-t.presence.saying }()
	step.Wait = t.left()
	return t.room.step(ctx, t.party.Line, &t.party.Spec, step)
}

// say says something of the ticket to the line, also when the party has gone.
func (t *turn) say(step *lane.Step) (lane.Outcome, error) {
	said := *step
	said.Ticket.ID = t.party.Ticket.ID
	return t.room.step(t.room.alive, t.party.Line, &t.party.Spec, &said)
}
