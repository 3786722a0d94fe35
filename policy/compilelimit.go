package policy

import (
	"fmt"
	"slices"

	"github.com/rationhq/ration/limit"
)

// limitDraft is a limit that is being compiled.
type limitDraft struct {
	*compiler
	domain *Domain
	scope  scope
	entry  *limitEntry
	limit  *Limit

	algorithm limit.Algorithm
	calendar  *limit.Calendar
	// window is that of the first quantity: all others have the same.
	window field[span]
}

// limit compiles one entry of `limits:`. It returns nil for one that cannot be used.
func (c *compiler) limit(d *Domain, s scope, e *limitEntry) *Limit {
	ld := &limitDraft{compiler: c, domain: d, scope: s, entry: e}
	errors := c.rep.errors
	if !ld.begin() || e.broken {
		return nil
	}
	if !ld.choose() {
		return nil
	}
	ld.options()
	if ld.inUnits() {
		ld.quantities()
	}
	if c.rep.errors > errors {
		return nil
	}
	l := ld.limit
	l.of = l
	l.kind = kind(l.Name, &limit.Spec{
		Algorithm: ld.algorithm, FirstUse: ld.firstUse(), Window: ld.window.value.length, Calendar: ld.calendar,
	})
	if ld.calendar != nil && (l.SubjectZone || l.SubjectAnchor) {
		l.subjects = &subjectPeriods{own: ld.calendar}
	}
	for _, q := range l.quantities {
		if q == nil {
			continue
		}
		if err := q.Spec.Validate(); err != nil {
			ld.error(e.at, "%v", err)
			return nil
		}
	}
	return l
}

// error reports what is wrong with the limit.
func (ld *limitDraft) error(at place, format string, args ...any) {
	ld.rep.error(at, "limit `%s`: %s", clip(ld.entry.name.value), fmt.Sprintf(format, args...))
}

func (ld *limitDraft) warn(at place, format string, args ...any) {
	ld.rep.warn(at, "limit `%s`: %s", clip(ld.entry.name.value), fmt.Sprintf(format, args...))
}

// begin gives the limit its name, and its place in the policy.
func (ld *limitDraft) begin() bool {
	e, s := ld.entry, ld.scope
	if !e.name.given {
		if !e.broken {
			ld.rep.error(e.at, "a limit has no name: it is needed to tell its counters from others")
		}
		return false
	}
	ld.limit = &Limit{
		Domain: ld.domain.name, Path: s.path + "." + e.name.value, Name: e.name.value,
		Shadow: e.shadow.value, Clamp: e.clamp.value, CountDenied: e.countDenied.value, CountCacheRead: e.countCacheRead.value,
		File: e.at.file, Line: e.at.line, Column: e.at.column,
		node: s.node, upstream: s.upstream, lane: s.lane, tiers: ld.domain.tiers,
	}
	if ld.paths += len(ld.limit.Path); ld.paths > maxPaths {
		ld.rep.error(place{file: e.at.file}, "the names of the limits are too long: "+
			"the paths of all rules and limits together have more than %d MB", maxPaths>>20)
		return false
	}
	list := s.list()
	if i := slices.IndexFunc(*list, func(l *Limit) bool { return l.Name == e.name.value }); i >= 0 {
		first := (*list)[i]
		ld.rep.error(e.name.at, "there is a limit `%s` here at %s already: limits of one place have names of their own",
			clip(e.name.value), first.place())
		return false
	}
	*list = append(*list, ld.limit)
	return true
}

// choose finds out what is counted, and how.
func (ld *limitDraft) choose() bool {
	e, l := ld.entry, ld.limit
	var ok [3]bool
	l.Meter, ok[0] = choice(ld, e.meter, "meter", Requests, meterNames[:])
	l.OnLapse, ok[1] = choice(ld, e.onLapse, "on_lapse", LapseInput, lapseNames[:])
	l.OnStoreError, ok[2] = choice(ld, e.onStoreError, "on_store_error", l.Meter.storeError(), storeErrorNames[:])
	if ok != [3]bool{true, true, true} {
		return false
	}
	var known bool
	switch name := e.algorithm; {
	case name.given:
		if ld.algorithm, known = limit.ParseAlgorithm(name.value); !known {
			ld.unknown(name, "algorithm", algorithmNames())
			return false
		}
	case l.Meter == InFlight:
		ld.algorithm = limit.Concurrency
	case ld.any(func(q *quantityEntry) bool { return q.rate.given }):
		ld.algorithm = limit.TokenBucket
	case ld.any(func(q *quantityEntry) bool { return q.limit.value.per.calendar && q.limit.value.per.length == 0 }):
		ld.algorithm = limit.CalendarWindow // nothing else knows months and years
	default:
		log := fmt.Sprintf("sliding_log (exact, up to %d), ", limit.MaxLog)
		if l.Meter == Cost {
			log = ""
		}
		ld.error(e.at, "it needs an algorithm: sliding_window (close to exact, small), %s"+
			"fixed_window (anew with each window of the clock) or calendar (anew each hour, day or month of a time zone); "+
			"a `rate` with a `burst` is a token_bucket", log)
		return false
	}
	if l.Meter == Cost && ld.algorithm == limit.SlidingLog {
		ld.error(e.algorithm.at, "a sliding_log remembers every unit, %d at most, and those of money are billionths of a dollar: "+
			"take sliding_window, which remembers two numbers", limit.MaxLog)
		return false
	}
	if (l.Meter == InFlight) != (ld.algorithm == limit.Concurrency) {
		ld.error(e.algorithm.at, "what is in flight at the same time takes both meter: concurrency and algorithm: concurrency "+
			"(which is its default), not %s with %s", l.Meter, ld.algorithm)
		return false
	}
	return true
}

// any reports whether something holds for the limit's own quantity, or for that of one of its tiers.
func (ld *limitDraft) any(holds func(q *quantityEntry) bool) bool {
	return holds(&ld.entry.base) || slices.ContainsFunc(ld.entry.tiers, holds)
}

func algorithmNames() (names []string) {
	for _, a := range []limit.Algorithm{
		limit.TokenBucket, limit.SlidingWindow, limit.SlidingLog, limit.FixedWindow, limit.CalendarWindow, limit.Concurrency,
	} {
		names = append(names, a.String())
	}
	return names
}

// choice returns the value that a field names, unset if it is not given; ok is false where it names none.
func choice[T ~uint8](ld *limitDraft, f field[string], name string, unset T, names []string) (value T, ok bool) {
	if !f.given {
		return unset, true
	}
	if value, ok = named[T](names, f.value); !ok {
		ld.unknown(f, name, slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == "" }))
	}
	return value, ok
}

// unknown reports a word that is none of those wanted.
func (ld *limitDraft) unknown(f field[string], name string, names []string) {
	ld.unknownWord(f, "limit "+quote(ld.entry.name.value)+": "+name, names)
}

// unknownWord reports a word that is none of those that what may be.
func (c *compiler) unknownWord(f field[string], what string, names []string) {
	p := Problem{Message: fmt.Sprintf("%s %s is unknown", what, quote(f.value)), Suggestion: nearest(f.value, names)}
	if p.Suggestion == "" {
		p.Message += ": it is " + alternatives(names)
	}
	c.rep.add(f.at, p)
}

// options judges what goes with the meter and the algorithm.
func (ld *limitDraft) options() {
	e, l := ld.entry, ld.limit
	only := func(f bool, at place, name string, fits bool, what string) {
		if f && !fits {
			ld.error(at, "`%s` is only for %s", name, what)
		}
	}
	tokens := l.Meter == OutputTokens || l.Meter == Tokens
	only(e.clamp.value, e.clamp.at, "clamp", tokens || l.Meter == Cost,
		"the meters output_tokens, tokens and cost: nothing else can be made smaller")
	only(e.countCacheRead.given, e.countCacheRead.at, "count_cache_read", l.Meter == InputTokens,
		"the meter input_tokens: tokens count cache reads anyway")
	flying := l.Meter == InFlight
	only(e.countDenied.value, e.countDenied.at, "count_denied", !flying, "what is counted: a refused request takes no place")
	held := tokens || l.Meter == InputTokens || l.Meter == Cost
	const whatIsHeld = "the meters of tokens and cost: nothing else is held until it is known"
	only(e.onLapse.given, e.onLapse.at, "on_lapse", held, whatIsHeld)
	only(e.counts.given, e.counts.at, "counts", held, whatIsHeld)
	switch e.counts.value {
	case "", "used":
	case "asked":
		l.CountAsked = true
		only(e.onLapse.given, e.onLapse.at, "on_lapse", false, "what is given back: with `counts: asked` nothing is")
	default:
		ld.unknown(e.counts, "counts", []string{"used", "asked"})
	}
	only(e.localShare.given, e.localShare.at, "local_share", l.OnStoreError == StoreErrorLocal,
		"`on_store_error: local`: else no process decides by itself")

	only(e.starts.given, e.starts.at, "starts", ld.algorithm == limit.FixedWindow, "fixed_window")
	calendar := ld.algorithm == limit.CalendarWindow
	only(e.timeZone.given, e.timeZone.at, "time_zone", calendar, "the algorithm calendar")
	only(e.weekStart.given, e.weekStart.at, "week_start", calendar, "the algorithm calendar")
	only(e.anchor.given, e.anchor.at, "anchor", calendar, "the algorithm calendar")

	if starts := e.starts; starts.given && starts.value != "epoch" && starts.value != "first_use" {
		ld.unknown(starts, "starts", []string{"epoch", "first_use"})
	}
	for _, w := range e.warnAt {
		l.WarnAt = append(l.WarnAt, w.value)
	}
	if l.OnStoreError == StoreErrorLocal {
		if l.LocalShare = defaultLocalShare; e.localShare.given {
			l.LocalShare = e.localShare.value
		}
		if l.LocalShare == 0 {
			ld.error(e.localShare.at, "a `local_share` of 0%% admits nothing: `on_store_error: deny` says that more clearly")
		}
	}
	slices.Sort(l.WarnAt)
	l.WarnAt = slices.Compact(l.WarnAt)
	if len(e.warnAt) > 0 {
		if ld.algorithm != limit.FixedWindow && !calendar {
			ld.warn(e.warnAt[0].at, "`warn_at` has no effect on a %v: it is due once in a period, "+
				"which only fixed_window and calendar have", ld.algorithm)
		}
	}
	_, zoneOfSubject := cutSubject(e.timeZone.value)
	for _, f := range []struct {
		name string
		at   place
		own  bool
	}{{"time_zone", e.timeZone.at, zoneOfSubject}, {"anchor", e.anchor.at, e.anchor.value.subject}} {
		if f.own && (ld.scope.node == nil || ld.scope.node.payer() == nil) {
			ld.error(f.at, "the subject's `%s` needs one: set `subject: true` on the descriptor of those who pay, "+
				"or write here what counts for all", f.name)
		}
	}
}

func (ld *limitDraft) firstUse() bool { return ld.entry.starts.value == "first_use" }
