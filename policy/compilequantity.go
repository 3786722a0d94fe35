package policy

import (
	"strings"
	"time"

	"github.com/rationhq/ration/limit"
)

// quantities compiles how much the limit allows to each tier, or to everybody.
func (ld *limitDraft) quantities() {
	e, l, tiers := ld.entry, ld.limit, len(ld.domain.tiers)
	perTier := make([]*quantityEntry, tiers)
	ceilings := make([]field[ceiling], tiers)
	if !ld.tierEntries(perTier) || !ld.ceilingEntries(ceilings) {
		return
	}
	if len(e.tiers) == 0 && len(e.ceilings) == 0 {
		l.quantities = []*Quantity{ld.quantity(nil, field[ceiling]{})}
	} else {
		l.quantities = make([]*Quantity, tiers)
		for i := range l.quantities {
			l.quantities[i] = ld.quantity(perTier[i], ceilings[i])
			if q := perTier[i]; q == nil && len(e.tiers) > 0 && l.quantities[i] == nil && !ld.says(&e.base) {
				ld.warn(e.tiersAt, "tier `%s` has no quantity, so nothing limits it: write `%s: unlimited` if that is meant",
					clip(ld.domain.tiers[i].Name), clip(ld.domain.tiers[i].Name))
			}
		}
	}
	if ld.algorithm == limit.CalendarWindow && ld.window.given {
		ld.hang()
	}
}

// says reports whether a quantity says how much.
func (ld *limitDraft) says(q *quantityEntry) bool {
	return q.unlimited || q.limit.given || q.rate.given
}

// tierEntries sorts the limit's `tiers` by tier.
func (ld *limitDraft) tierEntries(perTier []*quantityEntry) (ok bool) {
	e := ld.entry
	if e.tiersAt.line > 0 && (ld.scope.node == nil || ld.scope.node.payer() == nil) {
		ld.error(e.tiersAt, "`tiers` need a subject, whose tier counts: this limit is shared by callers of several tiers. "+
			"Set `subject: true` on the descriptor of those who pay, or give each tier a `ceiling`")
		return false
	}
	ok = true
	for _, q := range e.tiers {
		tier, known := ld.tier(ld.domain, q.tier)
		if ok = ok && known; known {
			perTier[tier] = q
		}
	}
	return ok
}

// ceilingEntries sorts the limit's ceilings by tier.
func (ld *limitDraft) ceilingEntries(ceilings []field[ceiling]) (ok bool) {
	e := ld.entry
	if len(e.ceilings) == 0 {
		return true
	}
	ok = true
	for _, c := range e.ceilings {
		tier, known := ld.tier(ld.domain, c.tier)
		if ok = ok && known; known {
			ceilings[tier] = c.ceiling
		}
	}
	if ld.scope.node != nil && ld.scope.node.payer() != nil {
		ld.warn(e.ceilingsAt, "`ceiling` by tier leaves room to nobody here: "+
			"the counter belongs to one subject, which has one tier")
	}
	for i, c := range ceilings {
		if ok && !c.given {
			name := clip(ld.domain.tiers[i].Name)
			ld.warn(e.ceilingsAt, "tier `%s` has no ceiling, so it may use all: write `%s: 100%%` if that is meant", name, name)
		}
	}
	return ok
}

// amount returns so much of what the limit counts.
func (ld *limitDraft) amount(n int64) amount { return amount{n, ld.limit.Meter == Cost} }

// inUnits reports amounts that are not in what the limit counts: money has a dollar sign, and nothing else has.
func (ld *limitDraft) inUnits() (ok bool) {
	ok = true
	judge := func(given bool, at place, a amount, per string) {
		switch {
		case !given || a.money == (ld.limit.Meter == Cost):
			return
		case a.money:
			ld.error(at, "%v is money, and its meter is %v: write the number alone, or `meter: cost`", a, ld.limit.Meter)
		default:
			if per != "" {
				per = "/" + per
			}
			ld.error(at, "cost is counted in dollars: write $%v%s", a, clip(per))
		}
		ok = false
	}
	judgeCeiling := func(c field[ceiling]) { judge(c.given && !c.value.part, c.at, c.value.amount, "") }
	for _, q := range append([]*quantityEntry{&ld.entry.base}, ld.entry.tiers...) {
		for _, f := range []field[quantity]{q.limit, q.rate} {
			judge(f.given && !f.value.unlimited, f.at, f.value.amount, f.value.per.text)
		}
		for _, f := range []field[amount]{q.burst, q.perRequest} {
			judge(f.given, f.at, f.value, "")
		}
		judgeCeiling(q.ceiling)
	}
	for _, c := range ld.entry.ceilings {
		judgeCeiling(c.ceiling)
	}
	return ok
}

// quantity compiles what the limit allows to the tier that t says more about; t may be nil. It returns
// nil where that is anything, or was reported.
func (ld *limitDraft) quantity(t *quantityEntry, byTier field[ceiling]) *Quantity {
	q := ld.entry.base
	if t != nil {
		q = q.with(t)
	}
	amount := q.limit
	if ld.algorithm == limit.TokenBucket {
		amount = q.rate
	}
	switch {
	case q.unlimited || q.limit.value.unlimited || q.rate.value.unlimited:
		ld.nothingBeside(t, &q)
		return nil
	case !ld.fits(&q):
		return nil
	case !amount.given:
		if t != nil || len(ld.entry.tiers) == 0 {
			ld.missing(t)
		}
		return nil
	case !ld.sameWindow(amount):
		return nil
	}
	spec := limit.Spec{Algorithm: ld.algorithm, FirstUse: ld.firstUse(), Limit: amount.value.amount.n}
	switch ld.algorithm {
	case limit.TokenBucket:
		if spec.Window, spec.Burst = amount.value.per.length, spec.Limit; q.burst.given {
			spec.Burst = q.burst.value.n
		}
	case limit.CalendarWindow:
		if ld.calendar == nil {
			ld.calendar = &limit.Calendar{}
		}
		spec.Calendar = ld.calendar
	default:
		spec.Window = amount.value.per.length
	}
	ld.judge(&q, amount, &spec)
	if !q.ceiling.given {
		q.ceiling = byTier
	}
	ceiling, ok := ld.leave(q.ceiling, spec.Capacity())
	if !ok {
		return nil
	}
	compiled := &Quantity{
		Spec: spec, PerRequest: q.perRequest.value.n, Message: q.message.value, UpgradeURL: q.upgradeURL.value,
		ceiling: ceiling, ownBurst: q.burst.given, localShare: ld.limit.LocalShare, warnAt: ld.warnAt(),
	}
	compiled.complete()
	spec = compiled.Spec
	if most := ld.amount(spec.Ceiling()); q.perRequest.value.n > most.n && spec.Capacity() > 0 {
		ld.warn(q.perRequest.at, "`per_request` of %v is above the %v that fit at most, and never matters", q.perRequest.value, most)
	}
	if compiled.localShare > 0 {
		ld.judgeLocal(compiled, amount.at)
	}
	return compiled
}

// with returns q with the fields of t in place of its own where t has some.
func (q quantityEntry) with(t *quantityEntry) quantityEntry {
	if t.limit.given || t.rate.given || t.unlimited {
		q.limit, q.rate, q.unlimited = t.limit, t.rate, t.unlimited
	}
	overlay(&q.burst, t.burst)
	overlay(&q.perRequest, t.perRequest)
	overlay(&q.ceiling, t.ceiling)
	overlay(&q.message, t.message)
	overlay(&q.upgradeURL, t.upgradeURL)
	return q
}

func overlay[T any](f *field[T], over field[T]) {
	if over.given {
		*f = over
	}
}

// nothingBeside reports quantities that stand beside `unlimited`, in the same mapping.
func (ld *limitDraft) nothingBeside(t, q *quantityEntry) {
	if t == nil {
		t = q
	}
	for _, f := range []field[amount]{t.burst, t.perRequest} {
		if f.given {
			ld.error(f.at, "nothing stands beside unlimited: give a large limit if single requests are to be capped")
		}
	}
	if t.ceiling.given {
		ld.error(t.ceiling.at, "unlimited has no ceiling")
	}
}

// fits reports quantities that the algorithm has not.
func (ld *limitDraft) fits(q *quantityEntry) (ok bool) {
	bucket := ld.algorithm == limit.TokenBucket
	switch {
	case bucket && q.limit.given:
		ld.error(q.limit.at, "a token_bucket has a rate: write `rate: 10/minute`, and `burst` for what may come at once")
	case !bucket && q.rate.given:
		ld.error(q.rate.at, "a `rate` is only for token_bucket: a %v has a `limit`", ld.algorithm)
	case !bucket && q.burst.given:
		ld.error(q.burst.at, "a `burst` is only for token_bucket")
	case ld.algorithm == limit.Concurrency && q.perRequest.given:
		ld.error(q.perRequest.at, "a request takes one place, so there is no `per_request`")
	default:
		return true
	}
	return false
}

// missing reports a quantity that does not say how much.
func (ld *limitDraft) missing(t *quantityEntry) {
	write := "`limit: 10/minute`"
	switch ld.algorithm {
	case limit.TokenBucket:
		write = "`rate: 10/minute`"
	case limit.CalendarWindow:
		write = "`limit: 1_000/month`"
	case limit.Concurrency:
		write = "`limit: 3`"
	case limit.FixedWindow, limit.SlidingWindow, limit.SlidingLog:
	}
	if ld.limit.Meter == Cost {
		write = strings.Replace(write, ": ", ": $", 1)
	}
	if t != nil {
		ld.error(t.tier.at, "tier `%s` says no quantity: write %s, or the word unlimited", clip(t.tier.value), write)
		return
	}
	ld.error(ld.entry.at, "it says no quantity: write %s, `limit` or `rate` by tier, or the word unlimited", write)
}

// sameWindow judges the window of a quantity, which all tiers share.
func (ld *limitDraft) sameWindow(amount field[quantity]) bool {
	per, text := amount.value.per, amount.value.per.text
	switch {
	case !ld.windowFits(amount):
		return false
	case ld.algorithm == limit.Concurrency:
	case !ld.window.given:
		ld.window = field[span]{per, amount.at, true}
	case ld.window.value.length != per.length || per.length == 0 && ld.window.value.period != per.period:
		ld.error(amount.at, "%s here and %s at %s: tiers share the window of a limit, so that moving tier keeps what was used. "+
			"Make two limits of it", quote(text), quote(ld.window.value.text), ld.window.at)
		return false
	}
	return true
}

// windowFits judges whether the algorithm has windows such as that of a quantity.
func (ld *limitDraft) windowFits(amount field[quantity]) bool {
	per, text := amount.value.per, amount.value.per.text
	switch {
	case ld.algorithm == limit.Concurrency && text != "":
		ld.error(amount.at, "concurrency counts what is in flight at the same time, in no window: write the number alone")
		return false
	case ld.algorithm == limit.Concurrency:
	case text == "":
		ld.error(amount.at, "%v in what time? Write it as %[1]v/minute", amount.value.amount)
		return false
	case ld.algorithm == limit.CalendarWindow && !per.calendar:
		ld.error(amount.at, "a calendar has periods of one minute, hour, day, week, month or year, not of %s", quote(text))
		return false
	case ld.algorithm != limit.CalendarWindow && per.length == 0:
		ld.error(amount.at, "a %s has no fixed length: take algorithm calendar, or write it in days", text)
		return false
	}
	return true
}

// judge reports quantities that cannot be meant.
func (ld *limitDraft) judge(q *quantityEntry, amount field[quantity], spec *limit.Spec) {
	switch {
	case ld.algorithm == limit.SlidingLog && spec.Limit > limit.MaxLog:
		ld.error(amount.at, "a sliding_log remembers every unit, %d at most: take sliding_window, which remembers two numbers",
			limit.MaxLog)
	case ld.algorithm == limit.SlidingWindow && spec.Window > limit.Micros(limit.MaxAmount/2):
		ld.error(amount.at, "a sliding_window looks at the window before too, so it is at most 142 years")
	case q.perRequest.given && q.perRequest.value.n == 0:
		ld.error(q.perRequest.at, "a `per_request` of 0 refuses everything: a limit of 0 says that more clearly")
	case ld.algorithm == limit.TokenBucket && spec.Burst == 0 && spec.Limit > 0:
		ld.warn(q.burst.at, "a burst of 0 admits nothing, whatever the rate: write at least 1")
	}
}

// leave returns the part of a capacity that a ceiling lets be used.
func (ld *limitDraft) leave(c field[ceiling], capacity int64) (part fraction, ok bool) {
	switch {
	case !c.given:
		return fraction{}, true
	case c.value.part:
		return fraction{int64(c.value.share), int64(Whole)}, true
	case c.value.amount.n <= capacity:
		return fraction{c.value.amount.n, max(1, capacity)}, true
	}
	ld.error(c.at, "a ceiling of %v is above the limit, which is %v", c.value.amount, ld.amount(capacity))
	return fraction{}, false
}

// warnAt returns the parts of the limit at which a warning is due, where there are periods in which each is due once.
func (ld *limitDraft) warnAt() []Share {
	if ld.algorithm == limit.FixedWindow || ld.algorithm == limit.CalendarWindow {
		return ld.limit.WarnAt
	}
	return nil
}

// hang fills in where the periods of the calendar begin.
func (ld *limitDraft) hang() {
	e, period := ld.entry, ld.window.value.period
	zone := e.timeZone
	if zone.value, ld.limit.SubjectZone = cutSubject(zone.value); ld.limit.SubjectZone && zone.value == "" {
		zone.given = false
	}
	ld.limit.SubjectAnchor = e.anchor.value.subject
	cal := limit.Calendar{Period: period, WeekStart: time.Monday, Zone: ld.zone(zone)}
	if e.weekStart.given {
		start, ok := weekdayNamed(e.weekStart.value)
		switch {
		case !ok:
			ld.unknown(e.weekStart, "week_start", weekdays())
		case period != limit.PerWeek:
			ld.error(e.weekStart.at, "`week_start` is only for limits per week")
		}
		cal.WeekStart = start
	}
	if a := e.anchor; a.given {
		switch {
		case period != limit.PerMonth && period != limit.PerYear:
			ld.error(a.at, "an `anchor` is only for limits per month or year")
		case period == limit.PerMonth && a.value.month > 0:
			ld.error(a.at, "a month has no month to begin in: write the day alone")
		case time.Month(a.value.month) == time.February && a.value.day > 29,
			a.value.day > 30 && (a.value.month == 4 || a.value.month == 6 || a.value.month == 9 || a.value.month == 11):
			ld.error(a.at, "%s has no day %d", time.Month(a.value.month), a.value.day)
		}
		cal.Anchor, cal.AnchorMonth = a.value.day, time.Month(a.value.month)
	}
	if ld.calendar != nil { // some tier counts
		*ld.calendar = cal
	}
}

func weekdayNamed(name string) (time.Weekday, bool) {
	for d := time.Sunday; d <= time.Saturday; d++ {
		if isNameOf(name, d.String()) {
			return d, true
		}
	}
	return time.Monday, false
}

func weekdays() (names []string) {
	for d := time.Sunday; d <= time.Saturday; d++ {
		names = append(names, strings.ToLower(d.String()))
	}
	return names
}
