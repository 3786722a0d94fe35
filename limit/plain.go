package limit

// The plain manner is that of the established contract (envoyproxy/ratelimit's `rate_limit`): fixed
// windows aligned to the epoch, in which an amount is counted first and judged afterwards. Refused
// hits stay counted. A window is the half-open [⌊now/Window⌋·Window, +Window); a week therefore
// begins on Thursday 00:00 UTC, and a "month" of 30 days or a "year" of 365 days is no calendar
// period.

// Start returns the first instant of the aligned window that now lies in.
func (s *Spec) Start(now Micros) Micros { return now - now%s.Window }

// Exceeds says whether a window that has counted used units has no room for amount more under the
// plain manner. An amount of 0 asks whether it is overdrawn: exactly used up, it is not.
func (s *Spec) Exceeds(used, amount int64) bool { return Add(used, amount) > s.Limit }

// Counted returns the units that st has counted in the window of now.
//
// The window before is remembered beside the newest one, so that a clock which steps back across the
// boundary finds what was counted there instead of admitting the whole limit a second time.
func (s *Spec) Counted(st *State, now Micros) int64 {
	switch s.Start(now) {
	case st.At:
		return st.Count
	case st.At - s.Window:
		return st.Rest
	}
	return 0
}

// SetCounted makes st one in which the window of now has counted used units.
//
// A window older than the one before the newest means that the clock was wrong and has been put
// right by more than a window: the state follows it and forgets the rest.
func (s *Spec) SetCounted(st *State, now Micros, used int64) {
	switch start := s.Start(now); start {
	case st.At:
		st.Count = used
	case st.At - s.Window:
		st.Rest = used
	case st.At + s.Window:
		*st = State{At: start, Count: used, Rest: st.Count}
	default:
		*st = State{At: start, Count: used}
	}
}

// PlainStatus describes a limit of the plain manner whose window of now has counted used units.
func (s *Spec) PlainStatus(now Micros, used int64, refused bool) Status {
	return Status{
		Refused: refused, Used: used, Remaining: max(0, s.Limit-used),
		ResetAfter: s.Window - now%s.Window,
	}
}

// Manner is how a limit judges and charges.
type Manner uint8

const (
	// Plain counts first and judges afterwards, also in a decision that another limit refuses.
	Plain Manner = iota
	// Strict is the manner of ration's own limits: judged first, and counted only if the whole
	// decision admits. An amount of 0 is a check: judged as 1, counting nothing.
	Strict
)
