package limit

// arithmetic is what every algorithm answers. `now` is what advance left st at. Amounts are above 0; that
// of a hold may be 0.
type arithmetic interface {
	// advance brings st to now. An instant before st.At is a step back of the clock to be adopted.
	advance(s *Spec, st *State, now Micros)
	// used returns how much of the capacity is taken, holds included, rounded up.
	used(s *Spec, st *State, now Micros) int64
	// held returns how much of used is held.
	held(s *Spec, st *State, now Micros) int64
	// wait returns how long until there is room for amount ≤ ceiling, all holds kept; [MaxAmount]
	// where no time makes room. There is none now.
	wait(s *Spec, st *State, now Micros, amount int64) Micros
	// reset returns how long until nothing is used, all holds kept; 0 where no time does that.
	reset(s *Spec, st *State, now Micros) Micros
	charge(s *Spec, st *State, now Micros, amount int64)
	giveBack(s *Spec, st *State, now Micros, amount int64)
	// hold charges amount and returns where it lies.
	hold(s *Spec, st *State, now Micros, amount int64) Mark
	// counts says whether anything of what was charged by a live hold at mark is still counted, so that it can be
	// given back.
	counts(s *Spec, st *State, now Micros, mark Mark) bool
	// settle ends a live hold at mark, of held units, of which actual were really used: it is held no more, and
	// what was counted is corrected.
	settle(s *Spec, st *State, now Micros, mark Mark, held, actual int64)
	// grow makes a live hold at mark more units larger, and returns where it lies then.
	grow(s *Spec, st *State, now Micros, mark Mark, more int64) Mark
	// correct changes what a hold at mark that has ended has left counted there from charged to actual.
	correct(s *Spec, st *State, now Micros, mark Mark, charged, actual int64)
	idle(s *Spec, st *State) Micros
}

func (s *Spec) arithmetic() arithmetic {
	switch s.Algorithm {
	case TokenBucket:
		return tokenBucket{}
	case SlidingWindow:
		return slidingWindow{}
	case SlidingLog:
		return slidingLog{}
	case Concurrency:
		return concurrency{}
	default:
		return period{}
	}
}
