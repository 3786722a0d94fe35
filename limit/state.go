package limit

import "slices"

// State is what is remembered of one bucket. The zero State has counted nothing, and equals an
// absent bucket.
//
// One type serves all algorithms, so that a store keeps and writes one shape. What the fields mean:
//
//	          token_bucket             sliding_window       fixed_window, calendar   sliding_log             concurrency
//	At        last instant             start of the window  start of the window      last instant            last instant
//	End       name of the filling      name                 end of the window        name                    –
//	Count     whole units in it        in the window        in the window            in sight                places taken
//	Rest      and Window-ths of one    in the window before name                     first entry in sight    –
//	Entered   units in, this filling;  held of Rest         1 once charged, more by  –                       –
//	          again what was above a                        the threshold crossed
//	          hold that has grown
//	Held      reserved, not yet settled: a part of what was counted
//	Log       floors of live holds     –                    –                        charges in sight        –
//
// The name is the instant after that at which the bucket has begun, counted up by every step back of the
// clock that it has followed; 0 is none yet. An instant may come twice, after such a step, or in another
// bucket that has come in the place of a forgotten one: only holds that were made under this name are the
// bucket's own. A State that has counted nothing equals an absent bucket whatever its name.
//
// Under the plain manner (plain.go) At, Count and Rest are as for sliding_window.
type State struct {
	At, End Micros
	Count   int64
	Rest    int64
	Entered int64
	Held    int64
	Log     *Log
}

// Log is what of a bucket is no single number: nil if it is nothing. A State that is advanced shares it with the one
// that it was copied from; all else changes it in its place.
type Log struct {
	// Entries are what a sliding_log has counted, oldest first.
	Entries []Entry
	// Floors are where the live holds of a token_bucket lie, oldest first.
	Floors []Floor
}

// Clone returns a copy that shares nothing with st.
func (st *State) Clone() State {
	c := *st
	if c.Log != nil {
		c.Log = &Log{Entries: slices.Clone(c.Log.Entries), Floors: slices.Clone(c.Log.Floors)}
	}
	return c
}

// Mark is where a hold lies in its bucket, so that settling it later moves what it moved.
type Mark struct {
	// At is the start of the window that the hold counts in; the instant of its log entry; for a
	// token bucket its State.End.
	At Micros
	// Entered is a token bucket's State.Entered directly after the hold, or after it has grown; of windows and
	// logs, the name of the bucket by then.
	Entered int64
}

// Tolerance is the largest step back of the clock through which time stands still: an instant that
// lies before what a bucket has seen, by no more than this, is taken for the newest it has seen. A
// larger step is adopted: the bucket follows the clock with all that it has counted, and gets
// nothing back. A store therefore keeps a bucket for this long after it could be forgotten.
const Tolerance = 60 * Second

// Advance brings st to now: what has drained, ended or passed out of sight by then goes. It returns
// the instant at which st stands, which is later than now where the clock has stepped back, and is
// the `now` of all other methods, which need a State that was advanced.
//
// Advance changes nothing that a copy of the State shares with it.
func (s *Spec) Advance(st *State, now Micros) Micros {
	if now < st.At && st.At-now <= Tolerance {
		now = st.At
	}
	s.arithmetic().advance(s, st, now)
	return now
}

// Charge counts amount, whether there is room for it or not: beyond the limit it is debt.
func (s *Spec) Charge(st *State, now Micros, amount int64) {
	if amount > 0 {
		s.arithmetic().charge(s, st, now, amount)
	}
}

// LongestWait is the longest that [Spec.Missing] has anybody wait for a token bucket: what a provider says that is
// beside itself must not lock the bucket for days.
const LongestWait = 3600 * Second

// Missing returns how much there is to charge so that no more than leave units remain and, of a token bucket, the
// next unit fits no sooner than at notBefore, or [LongestWait] from now if that is earlier: just so much and not one
// unit more, 0 where it is so already. Somebody knows that so much has been used, by others.
func (s *Spec) Missing(st *State, now Micros, leave int64, notBefore Micros) int64 {
	a := s.arithmetic()
	missing := max(0, s.Ceiling()-a.used(s, st, now)-leave)
	if s.Algorithm == TokenBucket && s.Ceiling() > 0 && notBefore > now {
		missing = max(missing, tokenBucket{}.missing(s, st, min(notBefore-now, LongestWait)))
	}
	return missing
}

// GiveBack returns amount to the bucket without knowing which charge it belonged to: at most what
// the current window, or the level, still has; in windows nothing of what is held. A log gives its newest
// charges back first, held or not.
func (s *Spec) GiveBack(st *State, now Micros, amount int64) {
	if amount > 0 {
		s.arithmetic().giveBack(s, st, now, amount)
	}
}

// Hold counts amount as reserved and returns where it lies. A hold of 0 counts nothing, and has a place in which
// it can grow, or be settled: where a window begins with its first charge, it begins with such a hold too.
func (s *Spec) Hold(st *State, now Micros, amount int64) Mark {
	st.Held = Add(st.Held, amount)
	return s.arithmetic().hold(s, st, now, amount)
}

// Grow makes a live hold at mark larger by more units, which are at least 1, whatever room there is: its
// holder has used them already. They are counted where the hold is, so that it is as good as one that was
// made so large; where that has passed out of sight they are not counted. A token bucket counts them from
// now on. Grow returns where the hold lies then. Places do not grow.
func (s *Spec) Grow(st *State, now Micros, mark Mark, more int64) Mark {
	return s.arithmetic().grow(s, st, now, mark, more)
}

// Settle ends a hold of held units at mark: actual units were really used. The difference lands in
// the window that the hold was made in, whatever room there is; where that window has passed out of
// sight it changes nothing. A lapse is a settlement by the clock.
func (s *Spec) Settle(st *State, now Micros, mark Mark, held, actual int64) {
	s.arithmetic().settle(s, st, now, mark, held, actual)
}

// Correct changes what a hold at mark has left behind after its end: charged units were counted
// then, and actual were really used.
func (s *Spec) Correct(st *State, now Micros, mark Mark, charged, actual int64) {
	if charged != actual {
		s.arithmetic().correct(s, st, now, mark, charged, actual)
	}
}

// Crossed returns which of the thresholds, from ≤ i < to, are reached by what is spent in the window, what is held left
// out, and were not by what was spent in it at an earlier call: each is reached once in a window, also where something
// is given back in between, unless a higher one was reached before. They ascend, and each is in 1…2^53−2. Only for fixed
// windows and calendars.
func (s *Spec) Crossed(st *State, thresholds []int64) (from, to int) {
	return period{}.crossed(st, thresholds)
}

// Frees says whether the lapse of a live hold at mark, of held units to lapse, would make room: it
// leaves less charged, and what it was counted in still counts.
func (s *Spec) Frees(st *State, now Micros, mark Mark, held, lapse int64) bool {
	return held > 0 && (lapse < held || s.Algorithm == Concurrency) && s.arithmetic().counts(s, st, now, mark)
}

// Idle returns the instant from which st equals an absent bucket, if nothing happens before. Live
// holds are not looked at: a bucket with one is never idle.
func (s *Spec) Idle(st *State) Micros { return s.arithmetic().idle(s, st) }

// name returns how a bucket is called that begins at now.
func name(now Micros) int64 { return int64(now) + 1 }

// later returns t + d, pinned at the end of time as amounts are.
func later(t, d Micros) Micros { return Micros(Add(int64(t), int64(d))) }
