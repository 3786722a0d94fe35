package limit

import (
	"slices"
	"sort"
)

// slidingLog remembers every charge for one window:
//
//	admits iff the sum of what was charged in (t − W, t] + c ≤ L
//
// It is exact at every instant, for the price of 16 bytes a charge.
type slidingLog struct{}

// Entry is what was charged to a sliding_log at one instant.
type Entry struct {
	At    Micros
	Units int64
}

// maxUnits is where the units of an entry are pinned: far beyond any limit of a log, and so that a
// log of [MaxLog] entries has an exact sum.
const maxUnits = MaxAmount / MaxLog

// live returns the entries in sight.
func (st *State) live() []Entry {
	if st.Log == nil {
		return nil
	}
	return st.Log.Entries[st.Rest:]
}

// add counts units in an entry of the log, and take takes them out of it again, as far as they are there.
func (st *State) add(e *Entry, units int64) {
	added := min(units, maxUnits-e.Units)
	e.Units += added
	st.Count += added
}

func (st *State) take(e *Entry, units int64) (taken int64) {
	taken = min(units, e.Units)
	e.Units -= taken
	st.Count -= taken
	return taken
}

func (slidingLog) advance(s *Spec, st *State, now Micros) {
	if st.End == 0 {
		st.End = Micros(name(now))
	}
	if now < st.At {
		st.comeBack(now)
		st.End++
	}
	st.At = now
	for _, e := range st.live() {
		if e.At > now-s.Window {
			return
		}
		st.Count -= e.Units
		st.Rest++
	}
	st.Log, st.Rest = nil, 0
}

// comeBack follows a clock that has stepped back to now: entries later than now become one of now.
func (st *State) comeBack(now Micros) {
	kept := slices.Clone(st.live())
	if first := notBefore(kept, now); first < len(kept) {
		one := Entry{At: now}
		for _, e := range kept[first:] {
			st.Count -= e.Units
			st.add(&one, e.Units)
		}
		kept = append(kept[:first], one)
	}
	st.Log, st.Rest = &Log{Entries: kept}, 0
}

// notBefore returns the place of the first entry that is not before t.
func notBefore(entries []Entry, t Micros) int {
	return sort.Search(len(entries), func(i int) bool { return entries[i].At >= t })
}

func (slidingLog) used(_ *Spec, st *State, _ Micros) int64 { return st.Count }

// held: what has passed out of sight is held no more. Of what is in sight, holds that are live come
// first: which of it is theirs is not kept.
func (slidingLog) held(_ *Spec, st *State, _ Micros) int64 { return min(st.Held, st.Count) }

func (slidingLog) wait(s *Spec, st *State, now Micros, amount int64) Micros {
	used := st.Count
	for _, e := range st.live() {
		if used -= e.Units; used+amount <= s.Ceiling() {
			return e.At + s.Window - now
		}
	}
	return Micros(MaxAmount) // not reached: amount fits an empty log
}

func (slidingLog) reset(s *Spec, st *State, now Micros) Micros {
	for _, e := range slices.Backward(st.live()) {
		if e.Units > 0 { // else all of it was given back
			return e.At + s.Window - now
		}
	}
	return 0
}

// charge: charges of one microsecond are one entry. A log has no more than [MaxLog] of them. Those
// that were given back make room; with a unit in each, only what is charged regardless of the limit
// can need more: then the newest takes it up and counts from now on, which forgets it later and never
// earlier.
func (slidingLog) charge(_ *Spec, st *State, now Micros, amount int64) {
	if st.Log == nil {
		st.Log = &Log{}
	}
	live := st.live()
	if len(live) == MaxLog && st.Count < MaxLog {
		live = slices.DeleteFunc(live, func(e Entry) bool { return e.Units == 0 })
		st.Log.Entries, st.Rest = live, 0
		st.End++ // a hold may have lost its entry, and must not find another one
	}
	if n := len(live); n > 0 && (live[n-1].At == now || n == MaxLog) {
		live[n-1].At = now
		st.add(&live[n-1], amount)
		return
	}
	if st.slides() {
		st.Log.Entries, st.Rest = append(st.Log.Entries[:0], live...), 0
	}
	st.Log.Entries = append(st.Log.Entries, Entry{At: now})
	st.add(&st.Log.Entries[len(st.Log.Entries)-1], amount)
}

// slides says that the log is full, and that as many of its entries are out of sight as are worth moving
// the others down to its start.
func (st *State) slides() bool {
	n := len(st.Log.Entries)
	return n == cap(st.Log.Entries) && st.Rest > int64(n/4)
}

// LogGrows says that the log of st, advanced to now, needs more memory than it has for a charge.
func (st *State) LogGrows(now Micros) bool {
	live := st.live()
	n := len(live)
	switch {
	case st.Log == nil:
		return true
	case n == MaxLog || n > 0 && live[n-1].At == now: // the newest takes the charge up, or one is dropped
		return false
	}
	return len(st.Log.Entries) == cap(st.Log.Entries) && !st.slides()
}

// giveBack takes the newest charges back first, held or not: which entries are of holds is not kept. What
// it takes of a hold's entry, settling that hold cannot give back once more.
func (slidingLog) giveBack(_ *Spec, st *State, _ Micros, amount int64) {
	live := st.live()
	for i := len(live) - 1; i >= 0 && amount > 0; i-- {
		amount -= st.take(&live[i], amount)
	}
}

func (l slidingLog) hold(s *Spec, st *State, now Micros, amount int64) Mark {
	l.charge(s, st, now, amount)
	return Mark{At: now, Entered: int64(st.End)}
}

func (slidingLog) counts(s *Spec, st *State, now Micros, mark Mark) bool {
	e := st.entry(mark)
	return e != nil && e.Units > 0 && mark.At > now-s.Window
}

// entry returns what a hold was counted in, nil if that is not there. It is the first entry that is not
// before the mark: the hold's own, or the one that has taken it up.
func (st *State) entry(mark Mark) *Entry {
	live := st.live()
	i := notBefore(live, mark.At)
	if mark.Entered != int64(st.End) || i == len(live) {
		return nil
	}
	return &live[i]
}

func (l slidingLog) settle(s *Spec, st *State, now Micros, mark Mark, held, actual int64) {
	st.Held = Less(st.Held, held)
	l.correct(s, st, now, mark, held, actual)
}

// grow: what is held is held until it is settled, in sight or not.
func (l slidingLog) grow(s *Spec, st *State, now Micros, mark Mark, more int64) Mark {
	st.Held = Add(st.Held, more)
	l.correct(s, st, now, mark, 0, more)
	return mark
}

// correct rewrites the hold's entry, while it is in sight.
func (l slidingLog) correct(s *Spec, st *State, now Micros, mark Mark, charged, actual int64) {
	if mark.At <= now-s.Window {
		return
	}
	switch e := st.entry(mark); {
	case e != nil && actual > charged:
		st.add(e, actual-charged)
	case e != nil:
		st.take(e, charged-actual)
	case actual > charged: // it was given back, or the clock has stepped back, or the bucket is another
		l.charge(s, st, now, actual-charged)
	}
}

func (l slidingLog) idle(s *Spec, st *State) Micros {
	return later(st.At, l.reset(s, st, st.At))
}
