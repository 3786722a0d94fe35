package policy

import (
	"fmt"
	"slices"

	"github.com/rationhq/ration/limit"
)

// laneDraft is a lane that is being compiled.
type laneDraft struct {
	*compiler
	domain *Domain
	entry  *laneEntry
	lane   *Lane
}

// lane compiles one entry of `lanes:`. The domain has its tiers and upstreams.
func (c *compiler) lane(d *Domain, e *laneEntry) {
	if !e.name.given {
		if !e.broken {
			c.rep.error(e.at, "a lane has no name: callers name the lane that they wait in")
		}
		return
	}
	if twin := d.Lane(e.name.value); twin != nil {
		c.rep.error(e.name.at, "there is a lane `%s` at %s already", clip(e.name.value), twin.place())
		return
	}
	ln := &Lane{
		Name: e.name.value, Domain: d.name, Path: d.name + ".lanes." + e.name.value,
		owner: appendEscaped([]byte(string(d.escaped)+"|lanes|"), e.name.value), tiers: d.tiers,
		File: e.at.file, Line: e.at.line, Column: e.at.column,
	}
	d.lanes = append(d.lanes, ln)
	if len(ln.owner) > MaxLaneName {
		c.rep.error(e.name.at, "the name of the lane `%s`, with that of its domain, is too long: lines have names of %d bytes at most, as they "+
			"are written in the store", clip(ln.Name), MaxLaneName)
		return
	}
	if e.broken {
		return
	}
	ld := &laneDraft{compiler: c, domain: d, entry: e, lane: ln}
	ld.waitsFor()
	ld.waiting()
	ld.order()
	ld.turns()
}

// third returns about a third of a wait, in whole seconds where it has some.
func third(wait limit.Micros) limit.Micros {
	part := max(1, wait/3)
	if part >= limit.Second {
		part -= part % limit.Second
	}
	return part
}

// error reports what is wrong with the lane.
func (ld *laneDraft) error(at place, format string, args ...any) {
	ld.rep.error(at, "lane `%s`: %s", clip(ld.lane.Name), fmt.Sprintf(format, args...))
}

func (ld *laneDraft) warn(at place, format string, args ...any) {
	ld.rep.warn(at, "lane `%s`: %s", clip(ld.lane.Name), fmt.Sprintf(format, args...))
}

// waitsFor compiles what the lane's callers wait for.
func (ld *laneDraft) waitsFor() {
	e := ld.entry
	if !e.drain.given && !e.places.given && !e.upstream.given {
		ld.error(e.at, "there is nothing to wait for: write a `drain`, as 5/second, `max_concurrent`, or an `upstream` "+
			"whose limits its callers share")
		return
	}
	if e.upstream.given {
		ld.upstream()
	}
	if e.onStoreError.given && !ld.onStoreError() {
		return
	}
	if e.drain.given && ld.drains() {
		one := field[amount]{amount{n: 1}, e.drain.at, true}
		ld.lane.Drain = ld.limit("drain", e.drain.at, quantityEntry{rate: e.drain, burst: one})
	}
	if e.places.given && ld.places() {
		ld.lane.Places = ld.limit("places", e.places.at, quantityEntry{limit: e.places})
	}
}

func (ld *laneDraft) upstream() {
	d, name := ld.domain, ld.entry.upstream
	names := make([]string, len(d.upstreams))
	for i, u := range d.upstreams {
		if names[i] = u.Name; u.Name == name.value {
			ld.lane.Upstream = u
		}
	}
	switch {
	case ld.lane.Upstream != nil:
	case len(names) == 0:
		ld.error(name.at, "upstream %s is unknown: the domain declares no `upstreams` at its top", quote(name.value))
	default:
		ld.unknownWord(name, "lane "+quote(ld.lane.Name)+": upstream", names)
	}
}

// onStoreError judges what the lane's own limits answer when the store cannot decide.
func (ld *laneDraft) onStoreError() (ok bool) {
	e := ld.entry
	said := e.onStoreError
	names := []string{StoreErrorAllow.String(), StoreErrorFail.String(), StoreErrorDeny.String()}
	switch {
	case said.value == StoreErrorLocal.String():
		ld.error(said.at, "a lane has no part for each process by itself, since its drain lets one call through at a time: "+
			"`on_store_error` is %s", alternatives(names))
	case !slices.Contains(names, said.value):
		ld.unknownWord(said, "lane "+quote(ld.lane.Name)+": on_store_error", names)
	case !e.drain.given && !e.places.given:
		ld.warn(said.at, "`on_store_error` has no effect without `drain` and `max_concurrent`: the limits of the upstream say it themselves")
		return true
	default:
		return true
	}
	return false
}

// drains judges how fast the lane lets calls through.
func (ld *laneDraft) drains() (ok bool) {
	at, q := ld.entry.drain.at, ld.entry.drain.value
	switch n, per := q.amount.n, q.per; {
	case q.unlimited:
		ld.error(at, "nothing is to be said of a lane that lets calls through at any rate: leave `drain` out")
	case q.amount.money:
		ld.error(at, "a lane lets calls through, not money: write `drain` as 5/second")
	case per.text == "":
		ld.error(at, "`drain`: %d in what time? Write it as %[1]d/second", n)
	case per.length == 0:
		ld.error(at, "`drain`: a %s has no fixed length: write it in days", clip(per.text))
	case n == 0:
		ld.error(at, "a `drain` of 0 lets nobody through: write 1/minute for a slow one")
	case n > int64(per.length):
		ld.error(at, "a `drain` of %s per %s is more than one in a microsecond: leave it out", grouped(n), lengthInWords(per.length))
	default:
		return true
	}
	return false
}

// places judges how many calls of the lane may be under way.
func (ld *laneDraft) places() (ok bool) {
	at, q := ld.entry.places.at, ld.entry.places.value
	switch {
	case q.unlimited:
		ld.error(at, "nothing is to be said of a lane that has places for all: leave `max_concurrent` out")
	case q.amount.money || q.per.text != "":
		ld.error(at, "`max_concurrent` counts calls that are under way at the same time: write the number alone")
	case q.amount.n == 0:
		ld.error(at, "a `max_concurrent` of 0 lets nobody through: write at least 1")
	default:
		return true
	}
	return false
}

// limit compiles one of the lane's own limits.
func (ld *laneDraft) limit(name string, at place, base quantityEntry) *Limit {
	meter := Requests
	if base.limit.given {
		meter = InFlight
	}
	l := ld.compiler.limit(ld.domain, scope{path: ld.lane.Path, lane: ld.lane}, &limitEntry{
		at: at, name: field[string]{name, at, true}, meter: field[string]{meter.String(), at, true},
		onStoreError: ld.entry.onStoreError, base: base,
	})
	if l != nil {
		ld.domain.limits = append(ld.domain.limits, l)
	}
	return l
}

// waiting compiles how long callers wait, and how many of them.
func (ld *laneDraft) waiting() {
	e, ln := ld.entry, ld.lane
	ln.MaxWait, ln.MaxWaiting = defaultMaxWait, defaultMaxWaiting
	if wait := e.maxWait; wait.given {
		if ln.MaxWait = limit.Micros(wait.value); ln.MaxWait > MaxLaneWait {
			ld.error(wait.at, "`max_wait` is %s at most, and not %v", timeInWords(MaxLaneWait), wait.value)
		}
	}
	if every := ln.Interval(); every > ln.MaxWait {
		ld.warn(e.drain.at, "`drain` lets %s through, and nobody waits for longer than %s: write a longer `max_wait`",
			ln.Drain.For(0).Rate(Requests), timeInWords(ln.MaxWait))
	}
	if total := e.total; total.given {
		if ln.MaxWaiting = int(min(total.value, MaxLaneWaiting)); total.value < 1 || total.value > MaxLaneWaiting {
			ld.error(total.at, "`total` is a number of calls that wait, 1 to %s", grouped(MaxLaneWaiting))
			return
		}
	}
	ln.MaxWaitingPerSubject = min(defaultPerSubject, ln.MaxWaiting)
	if len(ld.domain.root.payers(nil)) == 0 {
		ln.MaxWaitingPerSubject = ln.MaxWaiting // all callers are one
	}
	own := e.perSubject
	if !own.given {
		return
	}
	ln.asksSubjects = true
	switch total := int64(ln.MaxWaiting); {
	case own.value < 1:
		ld.error(own.at, "`per_subject` is a number of calls that wait, at least 1")
		return
	case own.value > total:
		ld.error(own.at, "a `per_subject` of %s is above the %s that wait in all", grouped(own.value), grouped(total))
		return
	case own.value == total && total > 1:
		ld.warn(own.at, "one subject can fill the line, and all others are refused at once: write a smaller `per_subject`")
	}
	ln.MaxWaitingPerSubject = int(own.value)
}

// order compiles which tier goes first.
func (ld *laneDraft) order() {
	e, ln := ld.entry, ld.lane
	if tiers := len(ld.domain.tiers); tiers > MaxLaneTiers {
		ld.error(e.at, "the domain has %d tiers, and a lane puts %d in order at most", tiers, MaxLaneTiers)
		return
	}
	if order := e.order; order.given && order.value != "strict" {
		ld.error(order.at, "order %s is unknown: it is strict, or `weighted: { TIER: 3, … }` stands in its place", quote(order.value))
		return
	}
	if e.weightedAt.line > 0 {
		ld.weights()
		return
	}
	at, behind := e.drain.at, limit.Micros(len(ld.domain.tiers)-1)
	ln.Aging = min(defaultAging, third(ln.MaxWait))
	if e.aging.given {
		at, ln.Aging = e.aging.at, limit.Micros(e.aging.value)
	}
	switch every := ln.Interval(); {
	case ln.Aging > MaxLaneWait:
		ld.error(at, "`aging` is %s at most, as long as anybody waits, and not %v", timeInWords(MaxLaneWait), e.aging.value)
	case behind < 1:
		if e.aging.given {
			ld.warn(at, "`aging` has no effect: no tier goes before another")
		}
	case ln.Aging > ln.MaxWait:
		ld.warn(at, "`aging` of %s is above its `max_wait` of %s: a tier that others go before may wait in vain",
			timeInWords(ln.Aging), timeInWords(ln.MaxWait))
	case every*behind >= ln.Aging && every*behind < ln.MaxWait:
		ld.warn(at, "`drain` lets %s through, and a tier that has waited for %s is next, so none goes first: write a longer `aging`",
			ln.Drain.For(0).Rate(Requests), timeInWords(ln.Aging))
	}
}

// weights compiles the shares of the tiers.
func (ld *laneDraft) weights() {
	e, tiers := ld.entry, ld.domain.tiers
	if e.order.given {
		ld.error(e.order.at, "`weighted` gives each tier a share, and `order: strict` lets the last go first: leave one of them out")
	}
	if e.aging.given {
		ld.error(e.aging.at, "`aging` goes with `order: strict`: by weight every tier has its share anyway")
	}
	if len(tiers) == 0 {
		ld.error(e.weightedAt, "`weighted` needs tiers, and the domain declares no `tiers` at its top")
		return
	}
	weights, ok := make([]int64, len(tiers)), true
	for _, w := range e.weights {
		tier, known := ld.tier(ld.domain, w.tier)
		switch n := w.weight.value; {
		case !known:
			ok = false
		case n < 1 || n > MaxLaneWeight:
			ld.error(w.weight.at, "a weight is 1 to %d, and not %d: only how they compare counts", MaxLaneWeight, n)
			ok = false
		default:
			weights[tier] = n
		}
	}
	for i := range tiers {
		if ok && weights[i] == 0 {
			ld.error(e.weightedAt, "tier `%s` has no weight: every tier has one, 1 to %d", clip(tiers[i].Name), MaxLaneWeight)
		}
	}
	ld.lane.Weights = weights
}

// turns compiles what the subjects of a tier take turns by.
func (ld *laneDraft) turns() {
	said := ld.entry.turnsBy
	if !said.given {
		return
	}
	names := make([]string, len(turnMeters))
	for i, m := range turnMeters {
		if names[i] = m.String(); names[i] == said.value {
			ld.lane.TurnsBy, ld.lane.asksSubjects = m, true
			return
		}
	}
	ld.unknownWord(said, "lane "+quote(ld.lane.Name)+": turns_by", names)
}
