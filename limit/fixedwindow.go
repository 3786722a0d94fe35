package limit

// Spec says what one limit allows. The zero Spec refuses everything and has no window: it is not
// valid for a store.
//
// A fixed window is aligned to the Unix epoch and half-open: the window of now is
// [⌊now/Window⌋·Window, +Window). A week therefore starts on Thursday 00:00 UTC, and a "month" of
// 30 days or a "year" of 365 days is no calendar period. This is what envoyproxy/ratelimit means by
// its units.
type Spec struct {
	// Limit is how many units one window admits, in 0…[MaxAmount]. 0 admits nothing.
	Limit int64
	// Window is the length of the window, at least one microsecond.
	Window Micros
}

// Start returns the first instant of the window that now lies in.
func (s Spec) Start(now Micros) Micros {
	return now - now%s.Window
}

// ResetAfter returns how long after now the next window starts, in 1…Window.
func (s Spec) ResetAfter(now Micros) Micros {
	return s.Window - now%s.Window
}

// Manner is how a limit judges and charges.
type Manner uint8

const (
	// Plain is the manner of the established contract (envoyproxy/ratelimit's `rate_limit`): the
	// amount is counted first and judged afterwards, so refused hits stay counted, also those of a
	// request that another limit refuses. An amount of 0 asks whether the limit is overdrawn.
	Plain Manner = iota
	// Strict is the manner of ration's own limits: judged first, and counted only if the whole
	// decision admits. An amount of 0 is judged as 1 and counts nothing.
	Strict
)

// Judge says whether amount is refused in a window that has already counted used units.
// Both are in 0…[MaxAmount].
//
// Inclusive: at the limit nothing remains, and the next unit is refused. A Plain check (amount 0)
// of a limit that is exactly used up is therefore not refused; a Strict one is.
func (s Spec) Judge(used, amount int64, m Manner) (refused bool) {
	if m == Strict {
		amount = max(amount, 1)
	}
	return Add(used, amount) > s.Limit
}

// Remaining returns how many units are left of the limit after used of them, never below 0.
func (s Spec) Remaining(used int64) int64 {
	return max(0, s.Limit-used)
}

// GiveBack returns what is used after amount units were given back: never below 0.
func GiveBack(used, amount int64) int64 {
	return max(0, used-amount)
}
