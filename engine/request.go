package engine

import (
	"errors"
	"fmt"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/store"
)

// Request asks for a decision. It is what Envoy's RateLimitRequest says
// (envoy/service/ratelimit/v3/rls.proto). Strings are only read while Decide runs.
type Request struct {
	Domain      string
	Descriptors []Descriptor
	// Hits is charged on every descriptor that names no amount of its own; 0 means 1.
	Hits uint32
}

// Descriptor is one list of entries to be limited together.
type Descriptor struct {
	Entries []policy.Entry
	// Override, where set, is the limit to apply, whatever the policy says.
	Override *Override
	// Hits, where HasHits, is the amount for this descriptor; 0 is a check that charges nothing.
	Hits    uint64
	HasHits bool
	// GiveBack returns the hits instead of charging them.
	GiveBack bool
}

// Override is a limit that a request brings itself.
type Override struct {
	RequestsPerUnit uint32
	// Unit is the number of the unit as it came, valid or not.
	Unit int32
	// Multiplier lengthens the window to that many units; 0 means that none was given.
	Multiplier uint32
	// HasMultiplier tells an explicit 0, which is an error, from none.
	HasMultiplier bool
}

// Bounds limits what a request may contain; a zero field means its default.
type Bounds struct {
	Descriptors int // per request, default 256
	Entries     int // per descriptor, default 64
	KeyBytes    int // of a key or of the domain, default 1 KiB
	ValueBytes  int // of a value, default 16 KiB
}

func (b Bounds) withDefaults() Bounds {
	for _, d := range []struct {
		bound *int
		value int
	}{{&b.Descriptors, 256}, {&b.Entries, 64}, {&b.KeyBytes, 1 << 10}, {&b.ValueBytes, 16 << 10}} {
		if *d.bound <= 0 {
			*d.bound = d.value
		}
	}
	return b
}

// The errors of the established contract, with its words.
var (
	ErrNoDomain      = errors.New("rate limit domain must not be empty")
	ErrNoDescriptors = errors.New("rate limit descriptor list must not be empty")
	ErrNoPolicy      = errors.New("no rate limit configuration loaded")
)

// The store's errors, for transports, which do not know the store: see package store.
var (
	ErrUnavailable = store.ErrUnavailable
	ErrFull        = store.ErrFull
	ErrCorrupt     = store.ErrCorrupt
	ErrUnsupported = store.ErrUnsupported
)

// InvalidError says which field of a request cannot be used, why, and what would do.
type InvalidError struct {
	Field  string // as in descriptors[0].entries[2].key
	Reason string
}

func (e *InvalidError) Error() string { return e.Field + ": " + e.Reason }

func tooMuch(field, what string, got, most int) error {
	return &InvalidError{Field: field, Reason: fmt.Sprintf("%d %s, at most %d are allowed", got, what, most)}
}

// check reports what in the request is out of bounds. It allocates only for errors.
func (b Bounds) check(r *Request) error {
	if len(r.Domain) > b.KeyBytes {
		return tooMuch("domain", "bytes", len(r.Domain), b.KeyBytes)
	}
	if len(r.Descriptors) > b.Descriptors {
		return tooMuch("descriptors", "descriptors", len(r.Descriptors), b.Descriptors)
	}
	for i := range r.Descriptors {
		d := &r.Descriptors[i]
		if len(d.Entries) > b.Entries {
			return tooMuch(fmt.Sprintf("descriptors[%d].entries", i), "entries", len(d.Entries), b.Entries)
		}
		for j, entry := range d.Entries {
			if len(entry.Key) > b.KeyBytes {
				return tooMuch(fmt.Sprintf("descriptors[%d].entries[%d].key", i, j), "bytes", len(entry.Key), b.KeyBytes)
			}
			if len(entry.Value) > b.ValueBytes {
				return tooMuch(fmt.Sprintf("descriptors[%d].entries[%d].value", i, j), "bytes", len(entry.Value), b.ValueBytes)
			}
		}
		if d.HasHits && d.Hits > uint64(limit.MaxAmount) {
			return &InvalidError{
				Field:  fmt.Sprintf("descriptors[%d].hits_addend", i),
				Reason: fmt.Sprintf("%d hits, at most 2^53-1 can be counted exactly", d.Hits),
			}
		}
	}
	return nil
}

// amount returns how many hits descriptor i asks for.
func (r *Request) amount(d *Descriptor) int64 {
	switch {
	case d.HasHits:
		return int64(d.Hits)
	case r.Hits == 0:
		return 1
	}
	return int64(r.Hits)
}

// applies turns the override into the limit that it asks for.
func (o *Override) applies(descriptor int) (Limit, error) {
	unit := policy.Unit(o.Unit)
	if o.Unit < 0 || o.Unit > 255 || !unit.Valid() {
		return Limit{}, &InvalidError{
			Field:  fmt.Sprintf("descriptors[%d].limit.unit", descriptor),
			Reason: fmt.Sprintf("the unit %d is unknown: use SECOND (1), MINUTE (2), HOUR (3), DAY (4), MONTH (5), YEAR (6) or WEEK (7)", o.Unit),
		}
	}
	if o.HasMultiplier && o.Multiplier == 0 {
		return Limit{}, &InvalidError{
			Field:  fmt.Sprintf("descriptors[%d].limit.unit_multiplier", descriptor),
			Reason: "0 units make no window: use 1 or more, or leave it out",
		}
	}
	units := limit.Micros(max(1, o.Multiplier))
	if units > limit.Micros(limit.MaxAmount)/unit.Window() {
		return Limit{}, &InvalidError{
			Field:  fmt.Sprintf("descriptors[%d].limit.unit_multiplier", descriptor),
			Reason: fmt.Sprintf("%d times a %s is too long a window: at most 285 years", o.Multiplier, unit),
		}
	}
	return Limit{
		RequestsPerUnit: int64(o.RequestsPerUnit), Unit: unit, Multiplier: o.Multiplier,
		Spec: limit.Spec{Limit: int64(o.RequestsPerUnit), Window: units * unit.Window()},
	}, nil
}

// checkName reports a descriptor whose counter's name would be too long to keep.
func checkName(descriptor int, name []byte) error {
	if len(name) > store.MaxBucketName {
		return tooMuch(fmt.Sprintf("descriptors[%d].entries", descriptor), "bytes in all keys and values", len(name), store.MaxBucketName)
	}
	return nil
}
