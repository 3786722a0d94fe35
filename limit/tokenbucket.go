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

func (tokenBucket) used(_ *Spec, st *State, _ Micros) int64 { return st.level().up() }

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

// missing solves wait ≥ delay > 0 for what is to be charged before: with E = level + 1 − B units too much, wait is
// ⌈E·P/N⌉, which is delay or more where E·P ≥ (delay − 1)·N + 1.
func (tokenBucket) missing(s *Spec, st *State, delay Micros) int64 {
	excess, rest := times(delay-1, s.Limit).plus(1).over(int64(s.Window))
	if rest > st.Rest {
		excess = Add(excess, 1)
	}
	return Less(Add(s.Ceiling()-1, excess), st.Count)
}

func (tokenBucket) reset(s *Spec, st *State, _ Micros) Micros {
	if s.Limit == 0 {
		return 0
	}
	return Micros(times(st.Count, s.Window).plus(st.Rest).overUp(s.Limit))
}

func (tokenBucket) charge(_ *Spec, st *State, _ Micros, amount int64) {
	st.sink()
	st.Count = Add(st.Count, amount)
	st.enter(amount)
}

// enter counts what comes in. Where the count would grow too large, it begins anew as in another filling: what was
// held until then gives nothing back.
func (st *State) enter(amount int64) {
	if st.Entered > MaxAmount-amount {
		st.End++
		st.Entered, st.Log = 0, nil
	}
	st.Entered += amount
}

// giveBack takes out what came last, so that a hold has as much left as has not been taken.
func (tokenBucket) giveBack(s *Spec, st *State, _ Micros, amount int64) {
	st.setLevel(st.level().less(s, level{units: amount}))
}

func (st *State) setLevel(l level) { st.Count, st.Rest = l.units, l.rest }

func (b tokenBucket) hold(s *Spec, st *State, now Micros, amount int64) Mark {
	b.charge(s, st, now, amount)
	st.layFloor(st.level())
	return Mark{At: st.End, Entered: st.Entered}
}

// knows says that mark is of this filling, and not of what a bucket that was restored from before has forgotten.
func (st *State) knows(mark Mark) bool { return mark.At == st.End && mark.Entered <= st.Entered }

// below is how much of the level can still be of what lies at mark or below it, if nothing is known but what came in
// since: level − (Entered − Entered at mark). Giving back lowers the level and not Entered, so that it may be less
// than there is, and is never more.
func (st *State) below(mark Mark) level {
	above := st.Entered - mark.Entered
	if above > st.Count {
		return level{}
	}
	return level{st.Count - above, st.Rest}
}

// left returns how much a live hold at mark can give back at most: its floor.
func (tokenBucket) left(st *State, mark Mark) level {
	if !st.knows(mark) {
		return level{}
	}
	left := st.below(mark)
	if i := st.floor(mark); i >= 0 {
		left = higher(left, lower(st.Log.Floors[i].level(), st.level()))
	}
	return left
}

func (b tokenBucket) counts(_ *Spec, st *State, _ Micros, mark Mark) bool {
	return b.left(st, mark) != level{}
}

// settle must not hand out what has already drained: that was room for others. A hold gives back
//
//	min(held − actual, its floor)
//
// which leaves the bucket at the level that it would stand at if no more than actual had ever been held.
func (b tokenBucket) settle(s *Spec, st *State, now Micros, mark Mark, held, actual int64) {
	st.Held = Less(st.Held, held)
	if actual > held {
		b.charge(s, st, now, actual-held)
	} else {
		b.takeOut(s, st, mark, level{units: held - actual}, b.left(st, mark))
	}
	if st.knows(mark) {
		st.leaveFloor(st.floor(mark))
	}
}

// correct: a hold that has ended has no floor any more, and only what came in since tells of it.
func (b tokenBucket) correct(s *Spec, st *State, now Micros, mark Mark, charged, actual int64) {
	switch {
	case actual > charged:
		b.charge(s, st, now, actual-charged)
	case st.knows(mark):
		b.takeOut(s, st, mark, level{units: charged - actual}, st.below(mark))
	}
}

// takeOut gives back amount at mark, and no more than is left there. Whoever came later has had the level lower by
// that at every instant since; and what is left to those that came before is no more than what is left here.
func (tokenBucket) takeOut(s *Spec, st *State, mark Mark, amount, left level) {
	amount = lower(amount, left)
	if amount == (level{}) {
		return
	}
	st.sink()
	left = left.less(s, amount)
	st.setLevel(st.level().less(s, amount))
	own := st.floor(mark)
	floors := st.floors()
	equal := 0 // the place of the first that is now as the one before it
	for i := range floors {
		f := &floors[i]
		if i < own {
			f.set(lower(f.level(), left))
		} else {
			f.set(f.level().less(s, amount))
		}
		if equal == 0 && i > 0 && f.level() == floors[i-1].level() {
			equal = i
		}
	}
	if equal > 0 {
		st.joinFloors(equal)
	}
}

// grow charges more, as anybody would. What the hold may give back from then on is what is left of it and, on top of
// that, the more; but nothing of what others have in the bucket. So that is counted as if it came in after the more:
// then the hold lies below it, by its floor and by what came in since.
func (b tokenBucket) grow(s *Spec, st *State, now Micros, mark Mark, more int64) Mark {
	left := b.left(st, mark)
	others := st.level().less(s, left).up()
	if st.knows(mark) {
		st.leaveFloor(st.floor(mark))
	}
	st.Held = Add(st.Held, more)
	b.charge(s, st, now, more)
	left.units = Add(left.units, more)
	st.layFloor(left)
	mark = Mark{At: st.End, Entered: st.Entered}
	st.enter(others)
	return mark
}

func (b tokenBucket) idle(s *Spec, st *State) Micros {
	if s.Limit == 0 && b.used(s, st, st.At) > 0 {
		return Micros(MaxAmount)
	}
	return later(st.At, b.reset(s, st, st.At))
}
