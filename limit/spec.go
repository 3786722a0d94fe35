package limit

import (
	"errors"
	"fmt"
)

// Algorithm is how a limit turns the past into room for the next amount.
type Algorithm uint8

// The algorithms. What each admits, and its exact bound, is in docs/algorithms.md.
const (
	// FixedWindow counts per window of time, aligned to the Unix epoch or begun by its first charge.
	FixedWindow Algorithm = iota
	// TokenBucket drains at a steady rate and lets a burst through at once. It is GCRA with an exact
	// level instead of a theoretical arrival time, so that it outlives a change of rate.
	TokenBucket
	// SlidingWindow weighs the count of the window before by how much of it is still in sight.
	SlidingWindow
	// SlidingLog remembers every charge for one window: exact at every instant.
	SlidingLog
	// CalendarWindow counts per period of the calendar in a time zone.
	CalendarWindow
	// Concurrency counts places that are held at the same time.
	Concurrency
	algorithms
)

var algorithmNames = [algorithms]string{
	FixedWindow: "fixed_window", TokenBucket: "token_bucket", SlidingWindow: "sliding_window",
	SlidingLog: "sliding_log", CalendarWindow: "calendar", Concurrency: "concurrency",
}

// String returns the name that policies use: "token_bucket".
func (a Algorithm) String() string {
	if a < algorithms {
		return algorithmNames[a]
	}
	return fmt.Sprintf("algorithm %d", uint8(a))
}

// ParseAlgorithm returns the algorithm of that name.
func ParseAlgorithm(name string) (Algorithm, bool) {
	for a, n := range algorithmNames {
		if n == name {
			return Algorithm(a), true
		}
	}
	return 0, false
}

// Spec says what one limit allows to one caller. Callers of different tiers have different Specs on
// one bucket: they share its Algorithm, Window and Calendar, and differ in the quantities.
//
// The zero Spec refuses everything and has no window: it is not valid for a store.
type Spec struct {
	Algorithm Algorithm
	// FirstUse lets a FixedWindow begin with its first charge instead of at the epoch's multiples.
	FirstUse bool
	// Limit is how many units one window or period admits, or the rate of a TokenBucket in units per
	// Window, or the places of a Concurrency; in 0…[MaxAmount]. 0 admits nothing.
	Limit int64
	// Burst is the depth of a TokenBucket: what it admits at once when it is empty; 0…[MaxAmount].
	Burst int64
	// Headroom is the part of the capacity that this caller has to leave to others on the same
	// bucket: the other side of a ceiling. 0…[MaxAmount].
	Headroom int64
	// Window is the length of the window, at least one microsecond; 0 for a Calendar and a Concurrency.
	Window Micros
	// Calendar says the periods of a CalendarWindow; nil for all others.
	Calendar *Calendar
}

// MaxLog is the largest limit of a [SlidingLog]: how many charges it remembers at most.
const MaxLog = 10_000

// Capacity returns how much can be used at once by those who need not leave any headroom.
func (s *Spec) Capacity() int64 {
	if s.Algorithm == TokenBucket {
		if s.Limit == 0 {
			return 0 // what never drains is no allowance
		}
		return s.Burst
	}
	return s.Limit
}

// Ceiling returns how much can be in use after this caller's charge: the capacity without the
// headroom, never below 0.
func (s *Spec) Ceiling() int64 { return max(0, s.Capacity()-s.Headroom) }

// Validate reports what makes s unusable.
func (s *Spec) Validate() error {
	for _, q := range []struct {
		name  string
		value int64
	}{{"limit", s.Limit}, {"burst", s.Burst}, {"headroom", s.Headroom}, {"window", int64(s.Window)}} {
		if q.value < 0 || q.value > MaxAmount {
			return fmt.Errorf("a %s of %d, want 0…2^53−1", q.name, q.value)
		}
	}
	hasWindow := s.Algorithm != CalendarWindow && s.Algorithm != Concurrency
	switch {
	case s.Algorithm >= algorithms:
		return fmt.Errorf("%v is unknown", s.Algorithm)
	case hasWindow != (s.Window > 0):
		return fmt.Errorf("a window of %d µs for %v", s.Window, s.Algorithm)
	case (s.Algorithm == CalendarWindow) != (s.Calendar != nil):
		return errors.New("a calendar belongs to the algorithm calendar, and to no other")
	case s.Algorithm == SlidingWindow && s.Window > Micros(MaxAmount/2):
		return fmt.Errorf("a sliding window of %d µs, want at most half of 2^53", s.Window)
	case s.Algorithm == SlidingLog && s.Limit > MaxLog:
		return fmt.Errorf("a sliding_log of %d, want at most %d: it remembers every charge", s.Limit, MaxLog)
	}
	if s.Calendar != nil {
		return s.Calendar.Validate()
	}
	return nil
}
