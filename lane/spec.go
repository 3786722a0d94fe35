package lane

import (
	"errors"
	"fmt"

	"github.com/rationhq/ration/limit"
)

// Spec says how a line orders those who wait in it.
type Spec struct {
	// Classes is how many there are: 1…[MaxClasses]. They are numbered from 0, and the last one goes first.
	Classes int
	// Weights are the shares of the classes, each 1…[MaxWeight]: of two that wait, one with twice the weight has twice the
	// turns, by cost; who does not wait leaves its share to others. nil: the highest class that waits has the next turn.
	Weights []int64
	// Aging, where there are no weights, is after how long without a turn a class has the next one, whoever waits above
	// it: 1 µs…an hour. Of several such classes it is the one that waits longest.
	Aging limit.Micros
	// Most is how many tickets a line holds at most, 1…[MaxTickets], and MostOfSubject how many of one subject in a class.
	Most, MostOfSubject int
}

const (
	// MaxClasses is how many classes a line has at most.
	MaxClasses = 32
	// MaxWeight is the largest weight of a class.
	MaxWeight = 1000
	// MaxTickets is how many tickets a line holds at most.
	MaxTickets = 10_000
	// MaxCost is the largest cost of a ticket.
	MaxCost = 1 << 20
	// MaxWait is the longest that a ticket waits.
	MaxWait = 3600 * limit.Second

	// MaxCalled is how many tickets are called at the same time, at most.
	MaxCalled = 16
	// CallLasts is how long whoever waits for a ticket that is called has to say what came of it. After that it counts as
	// gone, and the ticket is set aside.
	CallLasts = 3 * limit.Second
	// WaiterLasts is for how long a waiter counts as there that says nothing.
	WaiterLasts = 3 * limit.Second
	// AsideLasts is how long a ticket is kept whose waiter is gone, in case somebody else comes for it.
	AsideLasts = 15 * limit.Second
	// AtOnce bounds how many tickets a step ends, or sets aside, for others.
	AtOnce = 64
)

// ErrInvalid means that a spec, or a step, is out of its bounds.
var ErrInvalid = errors.New("invalid")

// Validate reports, as ErrInvalid, what makes s unusable.
func (s *Spec) Validate() error {
	switch {
	case s.Classes < 1 || s.Classes > MaxClasses:
		return fmt.Errorf("%w: %d classes, want 1…%d", ErrInvalid, s.Classes, MaxClasses)
	case s.Weights != nil && len(s.Weights) != s.Classes:
		return fmt.Errorf("%w: %d weights for %d classes", ErrInvalid, len(s.Weights), s.Classes)
	case s.Weights == nil && (s.Aging < 1 || s.Aging > MaxWait):
		return fmt.Errorf("%w: an aging of %d µs, want 1 µs to an hour", ErrInvalid, s.Aging)
	case s.Most < 1 || s.Most > MaxTickets:
		return fmt.Errorf("%w: %d tickets, want 1…%d", ErrInvalid, s.Most, MaxTickets)
	case s.MostOfSubject < 1:
		return fmt.Errorf("%w: %d tickets of a subject, want 1 or more", ErrInvalid, s.MostOfSubject)
	}
	for class, weight := range s.Weights {
		if weight < 1 || weight > MaxWeight {
			return fmt.Errorf("%w: a weight of %d for class %d, want 1…%d", ErrInvalid, weight, class, MaxWeight)
		}
	}
	return nil
}
