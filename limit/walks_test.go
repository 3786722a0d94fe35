package limit_test

import (
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/rationhq/ration/limit"
)

// family is an algorithm with its reference.
type family struct {
	name      string
	spec      limit.Spec       // without quantities and window
	windows   []limit.Micros   // to choose from
	most      int64            // the largest limit
	reference func() reference // of nothing charged yet
}

const month = 30 * day

var windows = []limit.Micros{1, 2, 7, 1000, limit.Second, minute, 60 * minute, day, month, 365 * day, limit.Micros(limit.MaxAmount / 2)}

func families(t testing.TB) []family {
	berlin := zone(t, "Europe/Berlin")
	aligned := func() reference { return &periodReference{bounds: alignedBounds} }
	firstUse := func() reference { return &periodReference{bounds: firstUseBounds} }
	days := func() reference { return &periodReference{bounds: dayBounds(berlin)} }
	months := func() reference { return &periodReference{bounds: monthBounds(berlin)} }
	longest := append(slices.Clone(windows), limit.Micros(limit.MaxAmount))
	calendar := func(p limit.Period) limit.Spec {
		return limit.Spec{Algorithm: limit.CalendarWindow, Calendar: &limit.Calendar{Period: p, Zone: berlin}}
	}
	return []family{
		{"token_bucket", limit.Spec{Algorithm: limit.TokenBucket}, longest, limit.MaxAmount, func() reference { return newBucketReference() }},
		{"sliding_window", limit.Spec{Algorithm: limit.SlidingWindow}, windows, limit.MaxAmount, func() reference { return newSlidingReference() }},
		{"sliding_log", limit.Spec{Algorithm: limit.SlidingLog}, longest, limit.MaxLog, func() reference { return &logReference{} }},
		{"fixed_window", limit.Spec{Algorithm: limit.FixedWindow}, longest, limit.MaxAmount, aligned},
		{"fixed_window of first use", limit.Spec{Algorithm: limit.FixedWindow, FirstUse: true}, longest, limit.MaxAmount, firstUse},
		{"calendar day", calendar(limit.PerDay), nil, limit.MaxAmount, days},
		{"calendar month", calendar(limit.PerMonth), nil, limit.MaxAmount, months},
		{"concurrency", limit.Spec{Algorithm: limit.Concurrency}, nil, limit.MaxAmount, func() reference { return &placesReference{} }},
	}
}

// Random walks over every algorithm: after each step all that can be asked has the answer that follows
// from the reference.
func TestWalks(t *testing.T) {
	for _, f := range families(t) {
		t.Run(f.name, func(t *testing.T) { rapid.Check(t, f.walk) })
	}
}

// FuzzWalks is TestWalks with the steps chosen by coverage.
func FuzzWalks(f *testing.F) {
	all := families(f)
	f.Add([]byte("\x00\x01\x02\x03\x04\x05\x06\x07 a walk of a few steps \xff\xfe\xfd"))
	f.Fuzz(rapid.MakeFuzz(func(r *rapid.T) { rapid.SampledFrom(all).Draw(r, "family").walk(r) }))
}

// walk is one bucket on its way, told twice.
type walk struct {
	family
	s     limit.Spec
	clock limit.Micros // may step back
	now   limit.Micros // where the bucket stands
	st    limit.State
	ref   reference
	live  []*held
	ended []*held
}

// held is a hold, or one that has ended.
type held struct {
	units int64 // as they are counted now
	due   limit.Micros
	mark  limit.Mark
	place place
}

func (f family) walk(r *rapid.T) {
	w := &walk{family: f, s: f.spec, ref: f.reference()}
	if f.windows != nil {
		w.s.Window = rapid.SampledFrom(f.windows).Draw(r, "window")
	}
	w.tune(r)
	w.clock = w.start(r)
	w.arrive(r)
	r.Repeat(map[string]func(*rapid.T){
		"":                   w.compare,
		"wait":               w.wait,
		"wait for room":      w.waitForRoom,
		"clock steps back":   w.stepBack,
		"charge":             w.charge,
		"charge all":         w.chargeAll,
		"charge regardless":  w.chargeRegardless,
		"hold":               w.hold,
		"hold regardless":    w.holdRegardless,
		"grow":               w.grow,
		"settle":             w.settle,
		"settle late":        w.settleLate,
		"give back":          w.giveBack,
		"move tier":          w.tune,
		"look ahead":         w.lookAhead,
		"forget when idle":   w.forget,
		"settle all of them": w.settleAll,
		"cross thresholds":   w.cross,
	})
}

// amounts are small, of the size of the limit, or near 2^53.
func amounts(around ...int64) *rapid.Generator[int64] {
	of := []*rapid.Generator[int64]{
		rapid.Int64Range(1, 12), rapid.Int64Range(1, 12), rapid.Int64Range(1, limit.MaxAmount),
		rapid.Int64Range(limit.MaxAmount-3, limit.MaxAmount),
	}
	for _, n := range around {
		of = append(of, rapid.Int64Range(max(1, min(n-2, limit.MaxAmount)), max(1, min(n+2, limit.MaxAmount))))
	}
	return rapid.OneOf(of...)
}

// tune draws the quantities of a tier: the window stays.
func (w *walk) tune(r *rapid.T) {
	quantity := rapid.OneOf(rapid.Int64Range(1, 20), rapid.Int64Range(0, 20), rapid.Int64Range(1, w.most), rapid.Int64Range(w.most-2, w.most))
	w.s.Limit = quantity.Draw(r, "limit")
	w.s.Headroom = 0
	if rapid.Bool().Draw(r, "has a ceiling") {
		w.s.Headroom = rapid.Int64Range(0, 20).Draw(r, "headroom")
	}
	if w.s.Algorithm == limit.TokenBucket {
		w.s.Burst = quantity.Draw(r, "burst")
	}
	if err := w.s.Validate(); err != nil {
		r.Fatal(err)
	}
}

// span is the unit of the walk's steps: a window, or about the period of a calendar.
func (w *walk) span() limit.Micros {
	switch {
	case w.s.Window > 0:
		return w.s.Window
	case w.s.Calendar != nil && w.s.Calendar.Period == limit.PerMonth:
		return month
	}
	return day
}

// last is the last instant of a walk: windows end by 2^53 − 1 at the latest.
const last = limit.Micros(limit.MaxAmount - 1)

func (w *walk) start(r *rapid.T) limit.Micros {
	const autumn2026 = 1_792_886_400 * limit.Second // a week before summer time ends in Berlin
	near := rapid.SampledFrom([]limit.Micros{0, autumn2026, autumn2026, last - min(last, 3*min(w.span(), last/4))}).Draw(r, "start")
	return min(last, near+limit.Micros(rapid.Int64Range(0, int64(min(w.span(), last/4))).Draw(r, "offset")))
}

// step draws how far the clock moves.
func (w *walk) step(r *rapid.T) limit.Micros {
	span := int64(w.span())
	d := rapid.OneOf(
		rapid.Int64Range(0, 10),
		rapid.Map(rapid.Int64Range(1, 17), func(n int64) int64 { return span / 8 * n }),
		rapid.Int64Range(0, span),
		rapid.Map(rapid.Int64Range(-1, 1), func(n int64) int64 { return max(0, span-int64(w.clock)%span+n) }), // an edge
		rapid.Map(rapid.Int64Range(-1, 1), func(n int64) int64 { return max(0, span+n) }),
	).Draw(r, "span")
	return limit.Micros(min(d, limit.MaxAmount))
}

func (w *walk) wait(r *rapid.T) {
	w.clock = min(last, w.clock+w.step(r))
	w.arrive(r)
}

func (w *walk) waitForRoom(r *rapid.T) {
	amount := amounts(w.s.Ceiling()).Draw(r, "amount")
	w.clock = min(last, w.clock+w.s.Judge(&w.st, w.now, amount, 0).RetryAfter)
	w.arrive(r)
}

func (w *walk) stepBack(r *rapid.T) {
	back := rapid.OneOf(
		rapid.Int64Range(0, 10), rapid.Int64Range(59_999_999, 60_000_001), rapid.Int64Range(0, 3*int64(min(w.span(), last/4))),
	).Draw(r, "back")
	w.clock = max(0, w.clock-limit.Micros(back))
	w.arrive(r)
}

// arrive advances both tellings to the clock.
func (w *walk) arrive(r *rapid.T) {
	before := w.st
	untouched := clone(before)
	w.now = w.s.Advance(&w.st, w.clock)
	if !reflect.DeepEqual(before, untouched) {
		r.Fatalf("Advance has changed what a copy shares with the state: %+v, before %+v", before, untouched)
	}
	if want := w.ref.advance(&w.s, w.clock); w.now != want {
		r.Fatalf("at %d the bucket stands at %d, want %d", w.clock, w.now, want)
	}
}

func clone(st limit.State) limit.State {
	if st.Log != nil {
		st.Log = &limit.Log{Entries: slices.Clone(st.Log.Entries)}
	}
	return st
}

func (w *walk) charge(r *rapid.T) {
	amount := amounts(w.s.Ceiling()).Draw(r, "amount")
	if !w.s.Judge(&w.st, w.now, amount, 0).Refused {
		w.s.Charge(&w.st, w.now, amount)
		w.ref.charge(&w.s, amount)
	}
}

func (w *walk) chargeAll(*rapid.T) {
	if n := w.s.Describe(&w.st, w.now).Remaining; n > 0 {
		w.s.Charge(&w.st, w.now, n)
		w.ref.charge(&w.s, n)
	}
}

func (w *walk) chargeRegardless(r *rapid.T) {
	amount := amounts(w.s.Ceiling()).Draw(r, "amount")
	w.s.Charge(&w.st, w.now, amount)
	w.ref.charge(&w.s, amount)
}

func (w *walk) hold(r *rapid.T) {
	if n := w.s.Describe(&w.st, w.now).Remaining; n > 0 {
		w.reserve(r, rapid.Int64Range(1, n).Draw(r, "amount"))
	}
}

func (w *walk) holdRegardless(r *rapid.T) { w.reserve(r, amounts(w.s.Ceiling()).Draw(r, "amount")) }

func (w *walk) reserve(r *rapid.T, amount int64) {
	w.live = append(w.live, &held{
		units: amount,
		due:   w.now + limit.Micros(rapid.Int64Range(1, int64(limit.Second)).Draw(r, "lease")),
		mark:  w.s.Hold(&w.st, w.now, amount),
		place: w.ref.hold(&w.s, amount),
	})
}

func (w *walk) grow(r *rapid.T) {
	if len(w.live) == 0 || w.s.Algorithm == limit.Concurrency {
		return
	}
	h := rapid.SampledFrom(w.live).Draw(r, "hold")
	more := min(amounts(w.s.Ceiling(), h.units).Draw(r, "more"), limit.MaxAmount-h.units)
	if more < 1 {
		return
	}
	h.mark = w.s.Grow(&w.st, w.now, h.mark, more)
	h.place = w.ref.grow(&w.s, h.place, more)
	h.units += more
}

func (w *walk) settle(r *rapid.T) {
	if len(w.live) == 0 {
		return
	}
	i := rapid.IntRange(0, len(w.live)-1).Draw(r, "hold")
	h := w.live[i]
	w.live = slices.Delete(w.live, i, i+1)
	w.ended = append(w.ended, h)
	w.end(h, actual(h).Draw(r, "actual"))
}

func (w *walk) settleAll(r *rapid.T) {
	for len(w.live) > 0 {
		w.settle(r)
	}
	if w.st.Held != 0 {
		r.Fatalf("all is settled, and %d units are held", w.st.Held)
	}
}

func (w *walk) end(h *held, actual int64) {
	w.s.Settle(&w.st, w.now, h.mark, h.units, actual)
	w.ref.release(&w.s, h.place, h.units)
	w.ref.correct(&w.s, h.place, h.units, actual)
	h.units = actual
}

func (w *walk) settleLate(r *rapid.T) {
	if len(w.ended) == 0 {
		return
	}
	h := rapid.SampledFrom(w.ended).Draw(r, "hold")
	n := actual(h).Draw(r, "actual")
	w.s.Correct(&w.st, w.now, h.mark, h.units, n)
	w.ref.correct(&w.s, h.place, h.units, n)
	h.units = n
}

// actual is what was used of a hold: mostly a part of it.
func actual(h *held) *rapid.Generator[int64] {
	return rapid.OneOf(rapid.Int64Range(0, h.units), rapid.Just[int64](0), rapid.Just(h.units), rapid.Int64Range(h.units, min(limit.MaxAmount, 2*h.units)))
}

func (w *walk) giveBack(r *rapid.T) {
	amount := amounts(w.s.Ceiling()).Draw(r, "amount")
	w.s.GiveBack(&w.st, w.now, amount)
	w.ref.giveBack(&w.s, amount)
}

// cross asks which of some thresholds are reached. That is not seen by what else is asked.
func (w *walk) cross(r *rapid.T) {
	ref, is := w.ref.(*periodReference)
	if !is {
		return
	}
	spent := w.s.Describe(&w.st, w.now).Used
	thresholds := rapid.SliceOfN(amounts(w.s.Ceiling(), spent, spent), 1, 4).Draw(r, "thresholds")
	slices.Sort(thresholds)
	thresholds = slices.DeleteFunc(slices.Compact(thresholds), func(t int64) bool { return t == limit.MaxAmount })
	from, to := w.s.Crossed(&w.st, thresholds)
	if want := ref.crossed(&w.s, w.now, thresholds); !slices.Equal(thresholds[from:to], want) {
		r.Fatalf("of %d with %d spent the bucket crosses %d, want %d", thresholds, spent, thresholds[from:to], want)
	}
}

// lookAhead asks a copy about a later instant, which changes nothing now.
func (w *walk) lookAhead(r *rapid.T) {
	t := min(last, w.now+w.step(r))
	copied := w.st
	w.s.Advance(&copied, t)
	if got, want := w.s.Describe(&copied, t).Remaining, w.s.Ceiling()-units(w.ref.used(&w.s, t)); got != want {
		r.Fatalf("at %d, %d µs ahead, %d remain, want %d", t, t-w.now, got, want)
	}
}

// forget does what a store may do with a bucket that nothing is held on: it is dropped when it is idle,
// and it must be as if it were still there.
func (w *walk) forget(r *rapid.T) {
	idle := w.s.Idle(&w.st)
	if len(w.live) > 0 || idle > last {
		return
	}
	t := min(last, max(idle, w.now)+w.step(r))
	kept, dropped := clone(w.st), limit.State{}
	amount := amounts(w.s.Ceiling()).Draw(r, "amount")
	for range 3 {
		w.s.Advance(&kept, t)
		w.s.Advance(&dropped, t)
		a, b := w.s.Judge(&kept, t, amount, 0), w.s.Judge(&dropped, t, amount, 0)
		if a != b {
			r.Fatalf("idle from %d on; at %d the bucket says %+v, and if dropped %+v", idle, t, a, b)
		}
		w.s.Charge(&kept, t, amount)
		w.s.Charge(&dropped, t, amount)
		t = min(last, t+w.step(r))
	}
}

// compare asks everything that can be asked now.
func (w *walk) compare(r *rapid.T) {
	used := w.ref.used(&w.s, w.now)
	ceiling := w.ceiling()
	spent := w.ref.spent(&w.s, w.now)
	got := w.s.Describe(&w.st, w.now)
	want := limit.Status{Used: spent, Held: units(used) - spent, Remaining: ceiling - units(used), ResetAfter: got.ResetAfter}
	if got != want {
		r.Fatalf("%+v at %d:\nthe bucket is described as %+v\nwant                       %+v", w.s, w.now, got, want)
	}
	if got.Used+got.Held+got.Remaining != w.s.Ceiling() || w.s.Ceiling() != ceiling || got.Used < 0 || got.Held < 0 {
		r.Fatalf("%+v does not add up to the ceiling %d = %d", got, ceiling, w.s.Ceiling())
	}
	w.checkReset(r, got.ResetAfter)
	w.checkIdle(r)

	earliest := []limit.Micros{0}
	for _, h := range w.live {
		earliest = append(earliest, h.due)
	}
	slices.Sort(earliest)
	for _, amount := range []int64{1, 2, got.Remaining, got.Remaining + 1, ceiling, ceiling + 1} {
		if amount = min(amount, limit.MaxAmount); amount > 0 {
			w.checkJudge(r, amount, 0)
			w.checkJudge(r, amount, earliest[min(1, len(earliest)-1)])
		}
	}
}

// ceiling by the words of the semantics: the capacity less the headroom.
func (w *walk) ceiling() int64 {
	capacity := w.s.Limit
	if w.s.Algorithm == limit.TokenBucket && w.s.Limit > 0 {
		capacity = w.s.Burst
	}
	return lessFloor(capacity, w.s.Headroom)
}

// endless says that no time alone changes what is used.
func (w *walk) endless() bool {
	return w.s.Algorithm == limit.Concurrency || w.s.Algorithm == limit.TokenBucket && w.s.Limit == 0
}

// checkReset: after reset nothing is used, and one microsecond before something is.
func (w *walk) checkReset(r *rapid.T, reset limit.Micros) {
	none := func(after limit.Micros) bool { return w.ref.used(&w.s, w.now+after).Sign() == 0 }
	switch {
	case none(0) || w.endless():
		if reset != 0 {
			r.Fatalf("reset after %d µs, want 0", reset)
		}
	case reset < 1 || none(reset-1):
		r.Fatalf("reset after %d µs, which is later than needed", reset)
	case reset < limit.Micros(limit.MaxAmount) && !none(reset):
		r.Fatalf("reset after %d µs, when %s units are used", reset, w.ref.used(&w.s, w.now+reset))
	}
}

// checkIdle: where something is used, the bucket is idle at the instant from which nothing is.
func (w *walk) checkIdle(r *rapid.T) {
	if w.s.Algorithm == limit.Concurrency || w.ref.used(&w.s, w.now).Sign() == 0 {
		return
	}
	idle := w.s.Idle(&w.st)
	// A sliding window is idle when both windows are over: what was held in them may still come to count.
	early := w.s.Algorithm != limit.SlidingWindow && w.ref.used(&w.s, idle-1).Sign() == 0
	if idle <= w.now || early {
		r.Fatalf("idle at %d, now is %d: not the first instant at which nothing is used", idle, w.now)
	}
	if idle < limit.Micros(limit.MaxAmount) && w.ref.used(&w.s, idle).Sign() > 0 {
		r.Fatalf("idle at %d, when %s units are used", idle, w.ref.used(&w.s, idle))
	}
}

func (w *walk) fits(amount int64, after limit.Micros) bool {
	sum := w.ref.used(&w.s, w.now+after)
	return sum.Add(sum, whole(amount)).Cmp(whole(w.ceiling())) <= 0
}

func (w *walk) checkJudge(r *rapid.T, amount int64, earliest limit.Micros) {
	got := w.s.Judge(&w.st, w.now, amount, earliest)
	want := w.s.Describe(&w.st, w.now)
	want.Refused = !w.fits(amount, 0)
	want.Never = amount > w.ceiling()
	// Whether the wait is right is asked of the reference, which then has no need to know a formula.
	wait := w.s.Judge(&w.st, w.now, amount, 0).RetryAfter
	if want.Refused && !want.Never {
		w.checkWait(r, amount, wait)
		want.RetryAfter = wait
		want.FitsWithoutHolds = want.Used+amount <= w.ceiling()
		lapse := earliest - w.now
		want.Estimated = earliest > 0 && lapse < wait
		if want.Estimated && want.FitsWithoutHolds {
			want.RetryAfter = lapse
		}
	}
	if got != want {
		r.Fatalf("%+v at %d, a hold lapses at %d:\n%d units are judged %+v\nwant            %+v", w.s, w.now, earliest, amount, got, want)
	}
}

// checkWait: who waits exactly that long is admitted, one microsecond less and he is refused.
func (w *walk) checkWait(r *rapid.T, amount int64, wait limit.Micros) {
	if wait < 1 || w.fits(amount, wait-1) {
		r.Fatalf("%d units are to wait %d µs, and fit before", amount, wait)
	}
	if wait == limit.Micros(limit.MaxAmount) {
		return // never, or after more than 285 years
	}
	if !w.fits(amount, wait) {
		r.Fatalf("%d units are to wait %d µs, and do not fit then", amount, wait)
	}
	for _, early := range []limit.Micros{0, 1} {
		if t := w.now + wait - early; t <= last {
			later := w.st
			now := w.s.Advance(&later, t)
			if refused := w.s.Judge(&later, now, amount, 0).Refused; refused != (early == 1) {
				r.Fatalf("%d units are to wait %d µs; %d µs before that they are refused: %v", amount, wait, early, refused)
			}
		}
	}
}
