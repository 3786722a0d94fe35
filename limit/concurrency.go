package limit

// concurrency counts places that are held at the same time:
//
//	admits iff live + c ≤ L
//
// A place is taken by a hold and freed by settling it, releasing it, or its lapse; what was really
// used does not matter, and a plain charge takes none.
type concurrency struct{}

func (concurrency) advance(_ *Spec, st *State, now Micros) { st.At = now }

func (concurrency) used(_ *Spec, st *State, _ Micros) int64 { return st.Count }

func (concurrency) held(_ *Spec, st *State, _ Micros) int64 { return st.Count }

// wait: no time frees a place, only the end of a hold does.
func (concurrency) wait(*Spec, *State, Micros, int64) Micros { return Micros(MaxAmount) }

func (concurrency) reset(*Spec, *State, Micros) Micros { return 0 }

func (concurrency) charge(*Spec, *State, Micros, int64) {}

func (concurrency) giveBack(*Spec, *State, Micros, int64) {}

func (concurrency) hold(_ *Spec, st *State, _ Micros, amount int64) Mark {
	st.Count = Add(st.Count, amount)
	return Mark{}
}

func (concurrency) counts(*Spec, *State, Micros, Mark) bool { return true }

func (concurrency) settle(_ *Spec, st *State, _ Micros, _ Mark, held, _ int64) {
	st.Count = Less(st.Count, held)
	st.Held = Less(st.Held, held)
}

func (concurrency) grow(_ *Spec, _ *State, _ Micros, mark Mark, _ int64) Mark { return mark }

func (concurrency) correct(*Spec, *State, Micros, Mark, int64, int64) {}

func (concurrency) idle(_ *Spec, st *State) Micros { return st.At }
