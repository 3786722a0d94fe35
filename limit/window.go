package limit

// Window is the state of a fixed window: its count, and that of the window before.
// The zero Window has counted nothing.
//
// The window before is remembered so that a clock which steps back across the boundary finds what
// was counted there instead of admitting the whole limit a second time. How far back a store can
// remember is said in the contract of package store.
type Window struct {
	Start    Micros // the first instant of the newest window seen
	Count    int64  // units counted in it, 0…[MaxAmount]
	Previous int64  // units counted in the window directly before it
}

// Used returns the units counted in the window that starts at start.
func (w Window) Used(s Spec, start Micros) int64 {
	switch start {
	case w.Start:
		return w.Count
	case w.Start - s.Window:
		return w.Previous
	}
	return 0
}

// Set returns the state in which the window that starts at start has counted used units.
//
// A start older than the window before the newest means that the clock was wrong and has been put
// right by more than a window: the state follows it and forgets the rest.
func (w Window) Set(s Spec, start Micros, used int64) Window {
	switch start {
	case w.Start:
		w.Count = used
		return w
	case w.Start - s.Window:
		w.Previous = used
		return w
	case w.Start + s.Window:
		return Window{Start: start, Count: used, Previous: w.Count}
	}
	return Window{Start: start, Count: used}
}
