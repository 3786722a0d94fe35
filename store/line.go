package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/rationhq/ration/lane"
)

// Lines is a [Store] that also keeps lines (package lane), in which callers of all processes wait for their turn. What it
// keeps of them need not outlive the store's process: a line that is lost costs its order, and those who wait enter again.
type Lines interface {
	// Line performs a step in a line, by [lane.Line.Apply], atomically and at one instant of the store's clock, that of the
	// steps on buckets ([Outcome.Now]); where counters lie on several machines, by the clock of the one that has the line. A line
	// that nobody knows is empty. All calls are in the outcome. Those whose tickets the step calls hear of it by [Lines.Called],
	// each the calls of its own, but not the step's own waiter, who has the outcome.
	//
	// name has 1 to [MaxLineName] bytes. The error is ErrInvalid where spec or step is; or one of [Store.Apply]:
	// after ErrUnavailable and the errors of ctx it is unknown whether the step was performed. It may be done again: who enters
	// twice has one place, and one call; who was Admitted or has left is Unknown then; a ticket of which Refused is said twice
	// has its place, and waits until the same instant; after Free said twice some may be called in vain. Calls that were lost with
	// the outcome [lane.Beat] says again.
	Line(ctx context.Context, name []byte, spec *lane.Spec, step *lane.Step) (lane.Outcome, error)

	// LineState returns all that is known of a line.
	LineState(ctx context.Context, name []byte) (lane.State, error)

	// Called returns a channel of the calls for a waiter's tickets by the steps of others, until ctx is done. It is a hint: a
	// call may be lost, or come twice, and [lane.Beat] says it again. The channel is never closed. A waiter listens once.
	Called(ctx context.Context, waiter lane.ID) <-chan Called
}

// Called says that a ticket's turn has come.
type Called struct {
	Line   string
	Ticket lane.ID
}

// MaxLineName is the longest name of a line, in bytes.
const MaxLineName = 4 << 10

// ValidateLine reports, as ErrInvalid, what in a step on a line breaks the contract.
func ValidateLine(name []byte, spec *lane.Spec, step *lane.Step) error {
	if len(name) == 0 || len(name) > MaxLineName {
		return fmt.Errorf("%w: a line's name of %d bytes, want 1…%d", ErrInvalid, len(name), MaxLineName)
	}
	if err := errors.Join(spec.Validate(), step.Validate(spec)); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return nil
}
