package limit

// period counts in windows that follow one another: aligned to the epoch, begun by their first
// charge, or by the calendar.
//
//	admits iff count + c ≤ L
//
// Windows are half-open, and what is counted in one is forgotten at its end: around an edge, up to
// 2L units may be admitted in less than a window.
type period struct{}

// bounds returns the window that now lies in, or that begins now.
func (period) bounds(s *Spec, now Micros) (start, end Micros) {
	switch {
	case s.Calendar != nil:
		return s.Calendar.Bounds(now)
	case s.FirstUse:
		return now, later(now, s.Window)
	default:
		start = s.Start(now)
		return start, later(start, s.Window)
	}
}

func (p period) advance(s *Spec, st *State, now Micros) {
	if st.Rest == 0 {
		st.Rest = name(now)
	}
	switch {
	case now < st.At: // the clock has stepped back: the count goes with it
		st.At, st.End = p.bounds(s, now)
		st.Held = 0
		st.Rest++
	case st.Entered == 0 || now >= st.End:
		*st = State{Rest: st.Rest}
		st.At, st.End = p.bounds(s, now)
	}
}

func (period) used(_ *Spec, st *State, _ Micros) int64 { return st.Count }

func (period) held(_ *Spec, st *State, _ Micros) int64 { return min(st.Held, st.Count) }

func (period) wait(_ *Spec, st *State, now Micros, _ int64) Micros { return st.End - now }

func (period) reset(_ *Spec, st *State, now Micros) Micros {
	if st.Count == 0 {
		return 0
	}
	return st.End - now
}

func (period) charge(_ *Spec, st *State, _ Micros, amount int64) {
	st.Count = Add(st.Count, amount)
	st.Entered = max(st.Entered, 1)
}

func (period) giveBack(_ *Spec, st *State, _ Micros, amount int64) {
	st.Count = moved(st.Count, st.Held, amount, 0)
}

// crossed returns which of the thresholds what was spent has reached, above those that it had reached before.
func (p period) crossed(st *State, thresholds []int64) (from, to int) {
	if st.Entered == 0 {
		return 0, 0
	}
	spent, told := st.Count-p.held(nil, st, 0), st.Entered-1
	for to < len(thresholds) && thresholds[to] <= spent {
		if thresholds[to] <= told {
			from = to + 1
		}
		to++
	}
	if from < to {
		st.Entered = 1 + thresholds[to-1]
	}
	return from, to
}

func (p period) hold(s *Spec, st *State, now Micros, amount int64) Mark {
	p.charge(s, st, now, amount)
	return Mark{At: st.At, Entered: st.Rest}
}

func (period) counts(_ *Spec, st *State, _ Micros, mark Mark) bool {
	return mark.At == st.At && mark.Entered == st.Rest
}

func (p period) settle(s *Spec, st *State, now Micros, mark Mark, held, actual int64) {
	if p.counts(s, st, now, mark) {
		st.Held = Less(st.Held, held)
		st.Count = moved(st.Count, st.Held, held, actual)
	}
}

func (p period) grow(s *Spec, st *State, now Micros, mark Mark, more int64) Mark {
	if p.counts(s, st, now, mark) {
		st.Held = Add(st.Held, more)
		st.Count = Add(st.Count, more)
	}
	return mark
}

func (p period) correct(s *Spec, st *State, now Micros, mark Mark, charged, actual int64) {
	if p.counts(s, st, now, mark) {
		st.Count = moved(st.Count, st.Held, charged, actual)
	}
}

func (period) idle(_ *Spec, st *State) Micros {
	if st.Entered == 0 {
		return st.At
	}
	return st.End
}
