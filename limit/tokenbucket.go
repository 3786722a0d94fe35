package limit

// tokenBucket is a bucket that drains Limit units per Window and holds Burst of them: GCRA (ITU-T
// I.371) told by its level. The level is Count + Rest/Window units, exact: nothing is lost to a
// truncated emission interval, and a change of rate leaves it where it is.
//
//	level(t) = max(0, level − Δt·N/P); admits iff level + c ≤ B
//
// so that in any interval δ at most B + δ·N/P units are admitted.
type tokenBucket struct{}

func (tokenBucket) advance(s *Spec, st *State, now Micros) {
	if now <= st.At {
		st.At = now // a step back of the clock refills nothing
		return
	}
	drained, rest := times(now-st.At, s.Limit).over(int64(s.Window))
	st.At = now
	if drained > st.Count || drained == st.Count && rest >= st.Rest {
		// The next filling is named by this instant, or a later one where a clock that was put back shows
		// an instant again: what was held in another filling gives nothing back in this one.
		*st = State{At: now, End: max(now, st.End+1), Held: st.Held}
		return
	}
	st.Count -= drained
	if st.Rest -= rest; st.Rest < 0 {
		st.Rest += int64(s.Window)
		st.Count--
	}
}

func (tokenBucket) used(_ *Spec, st *State, _ Micros) int64 {
	if st.Rest > 0 {
		return Add(st.Count, 1)
	}
	return st.Count
}

// held: what has drained is held no more. Of what is left, holds that are live come first: which of it
// is theirs is not known.
func (b tokenBucket) held(s *Spec, st *State, now Micros) int64 {
	return min(st.Held, b.used(s, st, now))
}

// wait solves level − Δt·N/P + c ≤ B for Δt.
func (tokenBucket) wait(s *Spec, st *State, _ Micros, amount int64) Micros {
	excess := st.Count + amount - s.Ceiling() // 0 where only Rest is in the way
	return Micros(times(excess, s.Window).plus(st.Rest).overUp(s.Limit))
}

func (tokenBucket) reset(s *Spec, st *State, _ Micros) Micros {
	if s.Limit == 0 {
		return 0
	}
	return Micros(times(st.Count, s.Window).plus(st.Rest).overUp(s.Limit))
}

func (tokenBucket) charge(_ *Spec, st *State, _ Micros, amount int64) {
	st.Count = Add(st.Count, amount)
	if st.Entered > MaxAmount-amount {
		// Begin to count anew, as another filling: what was held in this one gives nothing back.
		st.End++
		st.Entered = 0
	}
	st.Entered += amount
}

func (tokenBucket) giveBack(_ *Spec, st *State, _ Micros, amount int64) {
	st.takeOut(amount, st.Count)
}

// takeOut lowers the level of a token bucket by amount, but by no more than whole units and the
// fraction that lies above them.
func (st *State) takeOut(amount, whole int64) {
	if amount <= whole {
		st.Count -= amount
		return
	}
	st.Count -= whole
	st.Rest = 0
}

func (b tokenBucket) hold(s *Spec, st *State, now Micros, amount int64) Mark {
	b.charge(s, st, now, amount)
	return Mark{At: st.End, Entered: st.Entered}
}

// counts: what came in after the hold lies above it.
func (tokenBucket) counts(_ *Spec, st *State, _ Micros, mark Mark) bool {
	above := st.Entered - mark.Entered // below 0 only if the bucket has forgotten what the mark has not
	return mark.At == st.End && above >= 0 && (above < st.Count || above == st.Count && st.Rest > 0)
}

func (tokenBucket) release(_ *Spec, st *State, _ Mark, held int64) {
	st.Held = Less(st.Held, held)
}

// grow charges more, as anybody would. What correct may give back from then on is what is left of the hold
// and, on top of it, the more: all but what others have in the bucket, which is
//
//	min(level, Entered − Entered at the hold)
//
// and in another filling the level, since nothing is left of the hold. So the mark is moved down from here
// by as much, as if that had come in since. Where Entered has begun anew and knows of less, nothing will be
// given back.
func (b tokenBucket) grow(s *Spec, st *State, now Micros, mark Mark, more int64) Mark {
	others := b.used(s, st, now)
	if mark.At == st.End && mark.Entered <= st.Entered {
		others = min(others, st.Entered-mark.Entered)
	}
	st.Held = Add(st.Held, more)
	b.charge(s, st, now, more)
	if others > st.Entered-more {
		return mark
	}
	return Mark{At: st.End, Entered: st.Entered - others}
}

// correct must not hand out what has already drained. The bucket drains from below, and what came in
// after the hold lies above it; so at most what is left below that can still be of the hold:
//
//	give back min(charged − actual, level − (Entered − Entered at the hold))
//
// Giving back lowers the level and not Entered, so that it counts for later settlements too. This is
// min(charged − actual, max(0, end − (G − G0) − now)·N/P) with end the theoretical arrival time
// after the hold and G the running total of give-backs, told by levels.
func (b tokenBucket) correct(s *Spec, st *State, now Micros, mark Mark, charged, actual int64) {
	if actual > charged {
		b.charge(s, st, now, actual-charged)
		return
	}
	if b.counts(s, st, now, mark) {
		st.takeOut(charged-actual, st.Count-(st.Entered-mark.Entered))
	}
}

func (b tokenBucket) idle(s *Spec, st *State) Micros {
	if s.Limit == 0 && b.used(s, st, st.At) > 0 {
		return Micros(MaxAmount)
	}
	return later(st.At, b.reset(s, st, st.At))
}
