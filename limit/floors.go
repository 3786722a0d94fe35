package limit

import "slices"

// Floor is the lowest that a token bucket has been at since one of its live holds, or some that no instant tells
// apart, were made. What of a hold has not drained is in the bucket below its floor:
//
//	the floor of a hold = the least level at any instant since it was made, its own units included
//
// This is what makes a settlement exact. If only r units less had been held, the level would have been lower by r at
// every instant since, as long as it has never been lower than r.
type Floor struct {
	// Entered is State.Entered directly after the first of the holds. The floor is that of all live holds
	// whose marks are not below, up to the next floor.
	Entered int64
	// Count and Rest are the level, as those of a State: or the level of the bucket, if that is lower now. The
	// list is brought down to it when next the level rises.
	Count, Rest int64
	// Holds is how many live holds have this floor. Without any it is dropped.
	Holds int64
}

// MaxFloors is how many floors a bucket keeps at most. Where more holds than that overlap, some share a floor that is
// lower than their own: they give back no more than they may, and perhaps less.
const MaxFloors = 64

// level is what is in a token bucket: units and rest Window-ths of one.
type level struct{ units, rest int64 }

func (st *State) level() level { return level{st.Count, st.Rest} }

func (f *Floor) level() level { return level{f.Count, f.Rest} }

func (f *Floor) set(l level) { f.Count, f.Rest = l.units, l.rest }

func (l level) below(m level) bool { return l.units < m.units || l.units == m.units && l.rest < m.rest }

// less returns l − m, never below 0.
func (l level) less(s *Spec, m level) level {
	if !m.below(l) {
		return level{}
	}
	l.units -= m.units
	if l.rest -= m.rest; l.rest < 0 {
		l.rest += int64(s.Window)
		l.units--
	}
	return l
}

// up returns l in units, rounded up.
func (l level) up() int64 {
	if l.rest > 0 {
		return Add(l.units, 1)
	}
	return l.units
}

func lower(l, m level) level {
	if l.below(m) {
		return l
	}
	return m
}

func higher(l, m level) level {
	if l.below(m) {
		return m
	}
	return l
}

func (st *State) floors() []Floor {
	if st.Log == nil {
		return nil
	}
	return st.Log.Floors
}

// floor returns the place of the floor that a live hold at mark has, -1 if there is none.
func (st *State) floor(mark Mark) int {
	floors := st.floors()
	i := len(floors) - 1
	for i >= 0 && floors[i].Entered > mark.Entered {
		i--
	}
	return i
}

// sink brings the floors down to the level, which is going to rise.
func (st *State) sink() {
	l, floors := st.level(), st.floors()
	for i := range floors {
		if l.below(floors[i].level()) {
			st.joinFloors(i)
			return
		}
	}
}

// joinFloors brings the floors from one place on down to the level. Holds with equal floors share one from then on:
// what comes will change them alike.
func (st *State) joinFloors(from int) {
	floors := st.Log.Floors
	kept := floors[:from]
	for _, f := range floors[from:] {
		f.set(lower(f.level(), st.level()))
		if n := len(kept); n > 0 && kept[n-1].level() == f.level() {
			kept[n-1].Holds += f.Holds
			continue
		}
		kept = append(kept, f)
	}
	st.Log.Floors = kept
}

// layFloor adds the floor of a hold that is made now: what has entered since is above it.
func (st *State) layFloor(l level) {
	if st.Log == nil {
		st.Log = &Log{}
	}
	floors := st.Log.Floors
	if n := len(floors); n > 0 && floors[n-1].level() == l {
		floors[n-1].Holds++
		return
	}
	if len(floors) == MaxFloors {
		floors = dropFloor(floors)
	}
	floors = append(floors, Floor{Entered: st.Entered, Count: l.units, Rest: l.rest, Holds: 1})
	st.Log.Floors = floors
}

// dropFloor joins a floor to the one before it, at the lower of the two: that by which least is lost, as many holds as
// it has over as far as these are apart.
func dropFloor(floors []Floor) []Floor {
	at, least := 1, MaxAmount
	for i := 1; i < len(floors); i++ {
		apart := max(floors[i].Count-floors[i-1].Count, floors[i-1].Count-floors[i].Count)
		if loss, _ := times(apart, floors[i].Holds).over(1); loss < least {
			at, least = i, loss
		}
	}
	before := &floors[at-1]
	before.set(lower(before.level(), floors[at].level()))
	before.Holds += floors[at].Holds
	return slices.Delete(floors, at, at+1)
}

// leaveFloor takes a hold from those that have the floor at that place, which may be none.
func (st *State) leaveFloor(place int) {
	if place < 0 {
		return
	}
	floors := st.Log.Floors
	if floors[place].Holds--; floors[place].Holds > 0 {
		return
	}
	if len(floors) == 1 {
		st.Log = nil
		return
	}
	st.Log.Floors = slices.Delete(floors, place, place+1)
}
