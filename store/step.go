package store

import (
	"fmt"

	"github.com/rationhq/ration/limit"
)

// Validate reports, as ErrInvalid or ErrUnsupported, what in the step breaks the contract. Every
// store calls it before it touches anything.
func (s *Step) Validate() error {
	for i := range s.Ops {
		if err := s.Ops[i].validate(); err != nil {
			return fmt.Errorf("op %d on %.200q: %w", i, s.Ops[i].Bucket, err)
		}
	}
	return nil
}

func (o *Op) validate() error {
	switch {
	case o.Kind > GiveBack:
		return ErrUnsupported
	case len(o.Bucket) == 0 || len(o.Bucket) > MaxBucketName:
		return fmt.Errorf("%w: the bucket's name has %d bytes, want 1…%d", ErrInvalid, len(o.Bucket), MaxBucketName)
	case o.Spec.Window <= 0 || int64(o.Spec.Window) > limit.MaxAmount:
		return fmt.Errorf("%w: a window of %d µs, want 1…2^53−1", ErrInvalid, o.Spec.Window)
	case o.Spec.Limit < 0 || o.Spec.Limit > limit.MaxAmount:
		return fmt.Errorf("%w: a limit of %d, want 0…2^53−1", ErrInvalid, o.Spec.Limit)
	case o.Amount < 0 || o.Amount > limit.MaxAmount:
		return fmt.Errorf("%w: an amount of %d, want 0…2^53−1", ErrInvalid, o.Amount)
	}
	return nil
}

// HasStrict reports whether any charge of the step is written only if the whole step admits.
func (s *Step) HasStrict() bool {
	for i := range s.Ops {
		if s.Ops[i].Kind == Charge && s.Ops[i].Manner == limit.Strict {
			return true
		}
	}
	return false
}

// Grace is how long a counter with the given window outlives its window.
func Grace(window limit.Micros) limit.Micros {
	return min(window, 60*limit.Second)
}
