package limit

// Status is what one limit says of an amount at an instant, to one caller.
type Status struct {
	// Refused says that there is no room for the amount.
	Refused bool
	// Never says that there never will be: the amount is larger than the ceiling.
	Never bool
	// FitsWithoutHolds says that a refused amount would fit if every hold were zero.
	FitsWithoutHolds bool
	// Estimated says that RetryAfter depends on holds: one lapses before the room would come without.
	Estimated bool
	// Used is what was spent and is still counted, Held what is reserved, Remaining what is left:
	// together they are the ceiling. Remaining is below 0 where there is debt, or the limit was lowered.
	Used, Held, Remaining int64
	// RetryAfter is how long until the amount fits, if nobody else spends, settles or renews
	// meanwhile: exact, and at least 1, where the amount is refused and can ever fit; else 0.
	RetryAfter Micros
	// ResetAfter is how long until nothing is used any more, holds kept; 0 where nothing is, or no
	// time does that (concurrency).
	ResetAfter Micros
}

// Describe says how the limit stands, without judging anything.
func (s *Spec) Describe(st *State, now Micros) Status {
	a := s.arithmetic()
	used := a.used(s, st, now)
	held := a.held(s, st, now)
	return Status{Used: used - held, Held: held, Remaining: s.Ceiling() - used, ResetAfter: a.reset(s, st, now)}
}

// Judge says whether amount fits, and describes the limit. earliest is when the first of those live
// holds lapses that free something by it ([Spec.Frees]), 0 if there is none.
//
// Inclusive: with amount exactly remaining it fits, and the next unit does not.
func (s *Spec) Judge(st *State, now Micros, amount int64, earliest Micros) Status {
	out := s.Describe(st, now)
	if amount <= out.Remaining {
		return out
	}
	out.Refused = true
	if amount > s.Ceiling() {
		out.Never = true
		return out
	}
	out.FitsWithoutHolds = amount <= out.Remaining+out.Held
	out.RetryAfter = s.arithmetic().wait(s, st, now, amount)
	if lapse := earliest - now; earliest > 0 && lapse < out.RetryAfter {
		out.Estimated = true
		if out.FitsWithoutHolds {
			out.RetryAfter = lapse
		}
	}
	return out
}

// After returns the status as it is for somebody whose clock is behind the bucket by lag: it has
// stepped back, and has to come as far again before anything changes. Without a lag a hold that lapses
// first does so later than now.
func (s Status) After(lag Micros) Status {
	if s.Refused && !s.Never {
		s.RetryAfter = later(s.RetryAfter, lag)
	}
	if s.ResetAfter > 0 {
		s.ResetAfter = later(s.ResetAfter, lag)
	}
	return s
}
