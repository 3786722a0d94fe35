package limit

// slidingWindow counts in two windows and takes what was counted in the one before as spread evenly
// over it:
//
//	admits iff (cur + c)·W + prev·(W − e) ≤ L·W, e = t mod W
//
// It needs two numbers only. It is not exact: a burst at the end of a window may be followed by
// another at the end of the next, 2L − 1 units within one window's length in the worst case.
type slidingWindow struct{}

func (slidingWindow) advance(s *Spec, st *State, now Micros) {
	if st.End == 0 {
		st.End = Micros(name(now))
	}
	start := s.Start(now)
	switch {
	case start == st.At:
	case start < st.At: // the clock has stepped back: the counts go with it
		*st = State{At: start, End: st.End + 1, Count: st.Count, Rest: st.Rest}
	case start == st.At+s.Window:
		*st = State{At: start, End: st.End, Rest: st.Count, Entered: st.Held}
	default:
		*st = State{At: start, End: st.End}
	}
}

// inSight returns how much of before, counted in the window before, still weighs at now; rounded up.
func inSight(s *Spec, st *State, now Micros, before int64) int64 {
	if before == 0 {
		return 0
	}
	return times(before, s.Window-(now-st.At)).overUp(int64(s.Window))
}

func (slidingWindow) used(s *Spec, st *State, now Micros) int64 {
	return Add(st.Count, inSight(s, st, now, st.Rest))
}

// held is what used would be less by without any hold.
func (w slidingWindow) held(s *Spec, st *State, now Micros) int64 {
	spent := Add(Less(st.Count, st.Held), inSight(s, st, now, Less(st.Rest, st.Entered)))
	return w.used(s, st, now) - spent
}

// wait solves the inequality for e: in this window while what came in it leaves room, and else in
// the next, where cur has become prev. It can therefore reach almost two windows ahead.
func (slidingWindow) wait(s *Spec, st *State, now Micros, amount int64) Micros {
	elapsed := now - st.At
	if room := s.Ceiling() - amount - st.Count; room >= 0 {
		return afterFading(s, st.Rest, room) - elapsed
	}
	return s.Window - elapsed + afterFading(s, st.Count, s.Ceiling()-amount)
}

// afterFading returns how far into a window no more than room of prev > 0 is in sight:
// prev·(W − e) ≤ room·W.
func afterFading(s *Spec, prev, room int64) Micros {
	fits, _ := times(room, s.Window).over(prev)
	return max(0, s.Window-Micros(fits))
}

func (slidingWindow) reset(s *Spec, st *State, now Micros) Micros {
	switch {
	case st.Count > 0:
		return st.At + 2*s.Window - now
	case st.Rest > 0:
		return st.At + s.Window - now
	}
	return 0
}

func (slidingWindow) charge(_ *Spec, st *State, _ Micros, amount int64) {
	st.Count = Add(st.Count, amount)
}

func (slidingWindow) giveBack(_ *Spec, st *State, _ Micros, amount int64) {
	st.Count = moved(st.Count, st.Held, amount, 0)
}

func (w slidingWindow) hold(s *Spec, st *State, now Micros, amount int64) Mark {
	w.charge(s, st, now, amount)
	return Mark{At: st.At, Entered: int64(st.End)}
}

func (slidingWindow) counts(s *Spec, st *State, _ Micros, mark Mark) bool {
	return mark.Entered == int64(st.End) && (mark.At == st.At || mark.At == st.At-s.Window)
}

func (w slidingWindow) settle(s *Spec, st *State, now Micros, mark Mark, held, actual int64) {
	switch {
	case !w.counts(s, st, now, mark):
		return
	case mark.At == st.At:
		st.Held = Less(st.Held, held)
	default:
		st.Entered = Less(st.Entered, held)
	}
	w.correct(s, st, now, mark, held, actual)
}

func (w slidingWindow) grow(s *Spec, st *State, now Micros, mark Mark, more int64) Mark {
	switch {
	case !w.counts(s, st, now, mark):
	case mark.At == st.At:
		st.Held = Add(st.Held, more)
		st.Count = Add(st.Count, more)
	default:
		st.Entered = Add(st.Entered, more)
		st.Rest = Add(st.Rest, more)
	}
	return mark
}

func (w slidingWindow) correct(s *Spec, st *State, now Micros, mark Mark, charged, actual int64) {
	switch {
	case !w.counts(s, st, now, mark):
	case mark.At == st.At:
		st.Count = moved(st.Count, st.Held, charged, actual)
	default:
		st.Rest = moved(st.Rest, st.Entered, charged, actual)
	}
}

// moved returns count with charged units in it replaced by actual. The held ones among the others are
// not touched: their own settlement gives them back, and nothing gives them back twice.
func moved(count, held, charged, actual int64) int64 {
	if actual > charged {
		return Add(count, actual-charged)
	}
	return count - min(charged-actual, Less(count, held))
}

// idle: also where nothing is left in them, what was held in the two windows may be corrected upwards.
func (slidingWindow) idle(s *Spec, st *State) Micros { return later(st.At, 2*s.Window) }
