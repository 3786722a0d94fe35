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

// bound gives rows that are of too many kinds that of all others. fresh says that some are of kinds that are not known yet:
// they are to be kept once the rows are written, since those that are not need none.
func (k *kinds) bound(rows []store.Row) (bounded []store.Row, fresh bool) {
	if len(rows) == 0 {
		return rows, false
	}
	known, unnameable := k.ofDay(limit.At(time.Now())), false
	for i := range rows {
		row := &rows[i]
		of := known.of[string(row.Group)]
		switch {
		case of[string(row.Dimensions)]:
		case len(of) < mostKinds:
			fresh = true
		default:
			row.Dimensions = others(row.Dimensions)
			unnameable = unnameable || !isNameable(row)
		}
	}
	if unnameable {
		rows = slices.DeleteFunc(rows, func(row store.Row) bool { return !isNameable(&row) })
	}
	return rows, fresh
}

// ofDay returns the kinds of the day that now lies in, or of a later one that was seen.
func (k *kinds) ofDay(now limit.Micros) *kindsOfDay {
	day := store.Day.Start(now)
	if known := k.known.Load(); known != nil && known.day >= day {
		return known
	}
	return &kindsOfDay{day: day}
}

// keep makes the kinds of rows known, as long as there is room for them.
func (k *kinds) keep(rows []store.Row) {
	k.mu.Lock()
	defer k.mu.Unlock()
	known := k.ofDay(limit.At(time.Now()))
	for i := range rows {
		row := &rows[i]
		of := known.of[string(row.Group)]
		if len(of) >= mostKinds || of[string(row.Dimensions)] {
			continue
		}
		next := &kindsOfDay{day: known.day, of: maps.Clone(known.of)}
		if next.of == nil {
			next.of = map[string]map[string]bool{}
		}
		if of = maps.Clone(of); of == nil {
			of = map[string]bool{}
		}
		of[string(row.Dimensions)] = true
		next.of[string(row.Group)] = of
		known = next
		k.known.Store(known)
	}
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
