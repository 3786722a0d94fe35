package lane

import (
	"fmt"

	"github.com/rationhq/ration/limit"
)

// ID names a ticket, a subject, or a waiter.
type ID [16]byte

// Ticket is a place in a line.
type Ticket struct {
	ID ID
	// Class is 0…[Spec.Classes]−1.
	Class int
	// Subject is whose turn it will be: those of a class take turns.
	Subject ID
	// Cost is how much of the subject's share the turn takes: 1…[MaxCost].
	Cost int64
}

// Step is what somebody does in a line.
type Step struct {
	Do Action
	// Waiter is who does it: whoever will try when a ticket is called. One that says nothing for [WaiterLasts] counts as
	// gone.
	Waiter ID
	// Ticket is the one that it is about. Enter needs all of it, and others its ID; Free and Beat are about none.
	Ticket Ticket
	// Wait is how long a ticket that enters waits at most: 1 µs…[MaxWait].
	Wait limit.Micros
	// Tried says that who enters has tried already, and that there was no room until the instant Until.
	Tried bool
	Until limit.Micros
	// Keep, to Leave, keeps the ticket's place for [AsideLasts], for whoever comes for it.
	Keep bool
	// Room is how many more like it would be admitted now, as far as is known, to Admitted; where it is none, Until is when
	// there may be room, 0 if nobody knows. To Free it is how many may be called. Both 0…[MaxCalled]; more is as much.
	Room int
}

// Action is what a step does.
type Action uint8

const (
	// Enter asks for a turn. Where nobody waits, and nothing keeps others from trying, it is its turn at once, and
	// nothing is kept of it ([Go]). Else the ticket waits, if there is room for it in the line. A ticket that is there already
	// stays in its place, and is waited for by Waiter from now on.
	Enter Action = iota
	// Admitted says that a ticket which was called has tried, and got what it wants: it has had its turn.
	Admitted
	// Refused says that there was no room for a ticket that was called, until the instant Until: it goes back to its
	// place. Its class, and those below it, are not called before, unless somebody says that room has come, or has said so
	// while it tried: then it is called again.
	Refused
	// Leave says that Waiter waits for a ticket no more. If it was called, it has not used its turn. Where another waiter has
	// come for it meanwhile, it stays.
	Leave
	// Free says that room may have come. Where nobody waits nothing is noted of it either.
	Free
	// Beat says that Waiter is there, and asks which of its tickets are called.
	Beat
	actions
)

// Validate reports, as ErrInvalid, what is wrong with the step.
func (s *Step) Validate(spec *Spec) error {
	switch {
	case s.Do >= actions:
		return fmt.Errorf("%w: action %d", ErrInvalid, s.Do)
	case s.Until < 0 || int64(s.Until) > limit.MaxAmount:
		return fmt.Errorf("%w: an instant of %d, want 0…2^53−1", ErrInvalid, s.Until)
	case s.Room < 0:
		return fmt.Errorf("%w: room for %d, want 0 or more", ErrInvalid, s.Room)
	case s.Do != Enter:
		return nil
	case s.Ticket.Class < 0 || s.Ticket.Class >= spec.Classes:
		return fmt.Errorf("%w: class %d, want 0…%d", ErrInvalid, s.Ticket.Class, spec.Classes-1)
	case s.Ticket.Cost < 1 || s.Ticket.Cost > MaxCost:
		return fmt.Errorf("%w: a cost of %d, want 1…%d", ErrInvalid, s.Ticket.Cost, MaxCost)
	case s.Wait < 1 || s.Wait > MaxWait:
		return fmt.Errorf("%w: a wait of %d µs, want 1 µs to an hour", ErrInvalid, s.Wait)
	}
	return nil
}

// Outcome is what follows from a step.
type Outcome struct {
	// Now is the instant of the step.
	Now limit.Micros
	// Answer is what becomes of the ticket.
	Answer Answer
	// Gone says that the waiter counted as gone, or was not known. Tickets that it waits for may have been set aside, and are
	// to enter again. Who has had its turns at once, and never waited, is not known.
	Gone bool
	// Calls are the tickets whose turn has come by this step, and those called before of which it is to be said again.
	Calls []Call
	// Due is when somebody should say something again, since more will follow then, at most [WaiterLasts] after which the
	// waiters are to do so in any case; 0: nothing is known to follow.
	Due limit.Micros
	// Waiting is how many tickets there are that have not had their turn, and Ahead, of a ticket that is refused a place,
	// how many of these would go before it.
	Waiting, Ahead int
	// Pace is [Line.Pace].
	Pace limit.Micros
}

// Call says that it is a ticket's turn: who waits for it is to try.
type Call struct{ Ticket, Waiter ID }

// Answer is what becomes of the ticket of a step.
type Answer uint8

const (
	// None: nothing is to be said of it.
	None Answer = iota
	// Go: it is its turn, at once, and it is not in the line. What comes of it need not be told.
	Go
	// Waits: it has a place in the line, or has been called.
	Waits
	// Full: there is no place for it.
	Full
	// FullForSubject: its subject has as many places as it may have.
	FullForSubject
	// Unknown: there is no such ticket, any more.
	Unknown
)
