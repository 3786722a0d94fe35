package engine

import "slices"

// Listed is one limit that applies to a request, whatever kind of limit it is: one of a `limits:` list (Applied), or the
// plain rule of a status (Status).
type Listed struct {
	Applied *Applied
	Status  *Status
}

// Listing returns all limits that the decision tells of, the one that binds first.
func (d *Decision) Listing() []Listed {
	var all []Listed
	for i := range d.Limits {
		all = append(all, Listed{Applied: &d.Limits[i]})
	}
	for i := range d.Statuses {
		if s := &d.Statuses[i]; s.Limited && s.Applied == nil {
			all = append(all, Listed{Status: s})
		}
	}
	slices.SortStableFunc(all, func(a, b Listed) int {
		switch x, y := a.standing(), b.standing(); {
		case x.binds(y):
			return -1
		case y.binds(x):
			return 1
		}
		return 0
	})
	return all
}

func (l Listed) standing() standing {
	if l.Applied != nil {
		return l.Applied.standing()
	}
	return l.Status.standing()
}
