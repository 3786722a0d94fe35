package engine

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

// kinds are the dimensions by which the rows of a day are told apart. Callers name models and tags at will, as often as
// they like: each would be a row for as long as rows are kept, so that reports cannot be read any more, and the store is
// full.
type kinds struct {
	known atomic.Pointer[kindsOfDay]
	mu    sync.Mutex // held while known is replaced
}

// kindsOfDay does not change.
type kindsOfDay struct {
	day limit.Micros
	of  map[string]map[string]bool // the dimensions of each group
}

const (
	// mostKinds is by how many dimensions those of a group and a day are told apart at most.
	mostKinds = 1_000
	// otherModels is what the model of all beyond them is called.
	otherModels = "(others)"
)

// bound gives rows that are of too many kinds that of all others.
func (k *kinds) bound(rows []store.Row) []store.Row {
	if len(rows) == 0 {
		return rows
	}
	now, unnameable := limit.At(time.Now()), false
	for i := range rows {
		if row := &rows[i]; !k.tells(row.Group, row.Dimensions, now) {
			row.Dimensions = others(row.Dimensions)
			unnameable = unnameable || !isNameable(row)
		}
	}
	if unnameable {
		rows = slices.DeleteFunc(rows, func(row store.Row) bool { return !isNameable(&row) })
	}
	return rows
}

// tells reports whether the rows of a group may be told apart by these dimensions.
func (k *kinds) tells(group, dimensions []byte, now limit.Micros) bool {
	day := store.Day.Start(now)
	known := k.known.Load()
	if known != nil && known.day >= day {
		of := known.of[string(group)]
		if of[string(dimensions)] {
			return true
		}
		if len(of) >= mostKinds {
			return false
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	next := &kindsOfDay{day: day, of: map[string]map[string]bool{}}
	if known = k.known.Load(); known != nil && known.day >= day {
		next.day, next.of = known.day, maps.Clone(known.of)
	}
	of := maps.Clone(next.of[string(group)])
	if len(of) >= mostKinds {
		return of[string(dimensions)]
	}
	if of == nil {
		of = map[string]bool{}
	}
	of[string(dimensions)] = true
	next.of[string(group)] = of
	k.known.Store(next)
	return true
}

// others returns the dimensions of all that are like these, but for the tier, not told apart.
func others(dimensions []byte) []byte {
	tier, _, tags, _ := readDimensions(dimensions)
	b := appendText(appendText(nil, tier), otherModels)
	for range tags {
		b = appendText(b, "")
	}
	return b
}
