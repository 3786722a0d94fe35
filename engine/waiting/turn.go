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

	seat   int64         // of those who wait here, who came first
	called chan struct{} // holds one: it is its turn
	stands chan Standing // holds the last one
}

// wait waits for the turn, and tries.
func (t *turn) wait(ctx context.Context) (Result, error) {
	enter := lane.Step{Do: lane.Enter, Ticket: t.party.Ticket}
	for {
		enter.Wait = t.left()
		out, err := t.room.step(ctx, t.party.Line, &t.party.Spec, &enter)
		switch {
		case ctx.Err() != nil:
			t.depart()
			return Result{}, ctx.Err()
		case err != nil || out.Answer == lane.Go:
			a, tryErr := t.try(ctx)
			if tryErr != nil || a.Verdict != Busy || err != nil {
				return Result{End: Tried}, tryErr
			}
			enter.Tried = true // and once more as soon as it waits: room that has come since nobody else would tell it of
			continue
		case out.Answer == lane.Full, out.Answer == lane.FullForSubject:
			return t.full(&out), nil
		}
		t.sitDown(&out)
		result, lost, err := t.await(ctx, enter.Tried)
		t.standUp()
		if !lost {
			return result, err
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

// await waits in the line. tried says that the party has tried before, so that it stays; lost, that the line does not know it
// any more.
func (t *turn) await(ctx context.Context, tried bool) (result Result, lost bool, err error) {
	if t.party.Stays != nil && !tried {
		if stays, err := t.party.Stays(ctx); err != nil || !stays {
			t.leave()
			return Result{End: TurnedAway}, false, err
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
				t.leave()
				return Result{End: Tried}, false, err
			case a.Verdict == Got:
				_, _ = t.say(&lane.Step{Do: lane.Admitted, Room: a.Room, Until: a.Until}) // else the line ends it in time
				return Result{End: Tried}, false, nil
			}
			// Where it is not known whether the line has heard, it will count this process as gone, and say so.
			if out, err := t.say(&lane.Step{Do: lane.Refused, Until: a.Until}); err == nil && out.Answer == lane.Unknown {
				return Result{}, true, nil
			}
		case s := <-t.stands:
			t.party.Tell(s)
		case <-timer.C:
			standing := t.room.standing(ctx, t)
			t.leave()
			return Result{End: TimedOut, Standing: standing}, false, nil
		case <-t.room.stopping:
			return Result{}, false, ErrStopping
		case <-ctx.Done():
			select {
			case <-t.room.stopping: // the server has ended it
			default:
				t.depart()
			}
			return Result{}, false, ctx.Err()
		}
	}
}

// say says something of the ticket to the line, also when the party has gone.
func (t *turn) say(step *lane.Step) (lane.Outcome, error) {
	step.Ticket.ID = t.party.Ticket.ID
	return t.room.step(t.room.alive, t.party.Line, &t.party.Spec, step)
}

// leave gives the place up, unless somebody else here waits for the same.
func (t *turn) leave() { t.goAway(false) }

// depart leaves because the party is gone, who may come back.
func (t *turn) depart() { t.goAway(t.party.Keep) }

func (t *turn) goAway(keep bool) {
	if !t.room.isShared(t) {
		_, _ = t.say(&lane.Step{Do: lane.Leave, Keep: keep}) // else the line ends it in time
	}
}
