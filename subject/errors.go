package subject

import (
	"errors"
	"fmt"
)

var (
	// ErrUnavailable means that the directory could not be asked, or did not answer in time. Whether a change was made
	// is unknown, unless the error says so.
	ErrUnavailable = errors.New("the subject directory is unavailable")
	// ErrConflict means that others kept changing the same at the same time. Nothing was written: try again.
	ErrConflict = errors.New("somebody else is changing the same just now")
	// ErrKeyTaken means that an API key that is to be added belongs to another subject. Nothing was written.
	ErrKeyTaken = errors.New("the API key belongs to another subject: remove it there first")
	// ErrInvalid means that what was asked for breaks a rule. Nothing was written. The error is, or joins, an
	// [InvalidError] for each thing that is wrong.
	ErrInvalid = errors.New("invalid")
	// ErrCorrupt means that the directory holds something that this version cannot read, or must not overwrite.
	ErrCorrupt = errors.New("the record of a subject is not readable")
)

// InvalidError says what is wrong with a field, and what would be right. It is [ErrInvalid].
type InvalidError struct {
	// Field is the path of the field: overrides[2].limit.
	Field string
	// Why says what is wrong and what to do.
	Why string
}

func (e *InvalidError) Error() string { return e.Field + ": " + e.Why }

// Is makes it [ErrInvalid].
func (e *InvalidError) Is(target error) bool { return target == ErrInvalid }

func invalid(field, why string, args ...any) error {
	return &InvalidError{Field: field, Why: fmt.Sprintf(why, args...)}
}
