package limit_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/rationhq/ration/limit"
)

// What a limit admits over time stays below the bound that docs/algorithms.md gives for its
// algorithm, counted by what was really used: a hold counts where it was made, by what it was settled
// at. Units given back without saying of what count as those that were charged last. Where a counter
// cannot tell more than that, in windows, callers give back what they have charged in this one, and
// never what a hold will return once more.

// histories is how many random histories each bound is tried on.
const histories = 10_000

// history is what one bucket has admitted.
type history struct {
	s        limit.Spec
	st       limit.State
	now      limit.Micros
	admitted []admission
	live     []reservation
	ended    []reservation
}

// admission is an amount that was admitted at an instant, in units of 1/Window of one: what a bucket
// drains in a microsecond is then whole.
type admission struct {
	at   limit.Micros
	used int64
	held bool
}

type reservation struct {
	admission int // its place among the admitted
	asked     int64
	units     int64 // asked, and by how much it has grown: that is debt, for which nobody was asked
	mark      limit.Mark
}

// manner is what happens in a history.
type manner struct {
	givesBack bool // also without saying of what
	grows     bool // holds do
	corrects  bool // what has ended, to less
	// settle ends a hold of which actual units were used; nil: by [limit.Spec.Settle].
	settle func(h *history, r reservation, actual int64)
	// grow makes a hold larger, and returns where it lies then; nil: by [limit.Spec.Grow].
	grow func(h *history, r reservation, more int64) limit.Mark
}

// simulate lets about steps things happen to a bucket, on and around the edges of its windows.
func simulate(s limit.Spec, rng *rand.Rand, steps int, m manner) *history {
	if m.settle == nil {
		m.settle = func(h *history, r reservation, actual int64) { h.s.Settle(&h.st, h.now, r.mark, r.units, actual) }
	}
	if m.grow == nil {
		m.grow = func(h *history, r reservation, more int64) limit.Mark { return h.s.Grow(&h.st, h.now, r.mark, more) }
	}
	h := &history{s: s, now: 1000 * s.Window}
	for range steps {
		h.now += limit.Micros(rng.Int64N(int64(s.Window) / 4))
		if rng.IntN(4) == 0 {
			edge := s.Window - h.now%s.Window
			h.now += edge - 1 + limit.Micros(rng.Int64N(3))
		}
		h.s.Advance(&h.st, h.now)
		switch n := rng.IntN(10); {
		case n < 4:
			h.admit(rng, false)
		case n < 7:
			h.admit(rng, true)
		case n < 9 && len(h.live) > 0 && (len(h.ended) == 0 || rng.IntN(4) > 0 || !m.corrects):
			i := rng.IntN(len(h.live))
			r := &h.live[i]
			if m.grows && rng.IntN(2) == 0 {
				more := 1 + rng.Int64N(3)
				r.mark = m.grow(h, *r, more)
				r.units += more
				continue
			}
			actual := rng.Int64N(r.units + 1)
			m.settle(h, *r, actual)
			h.end(*r, actual)
			h.live = slices.Delete(h.live, i, i+1)
		case n < 9 && m.corrects && len(h.ended) > 0:
			i := rng.IntN(len(h.ended))
			r := h.ended[i]
			actual := rng.Int64N(r.units + 1)
			h.s.Correct(&h.st, h.now, r.mark, r.units, actual)
			h.ended = slices.Delete(h.ended, i, i+1)
			h.end(r, actual)
		case n == 9 && m.givesBack:
			h.giveBack(1 + rng.Int64N(s.Capacity()))
		}
	}
	return h
}

// end notes that actual units were used of a hold.
func (h *history) end(r reservation, actual int64) {
	h.admitted[r.admission].used -= max(0, min(r.asked, r.units)-actual) * int64(h.s.Window)
	r.units = actual
	h.ended = append(h.ended, r)
}

// admit charges or holds as much as the limit lets it, of a random wish.
func (h *history) admit(rng *rand.Rand, hold bool) {
	n := min(1+rng.Int64N(h.s.Capacity()), max(1, h.s.Describe(&h.st, h.now).Remaining))
	if h.s.Judge(&h.st, h.now, n, 0).Refused {
		return
	}
	if hold {
		h.live = append(h.live, reservation{len(h.admitted), n, n, h.s.Hold(&h.st, h.now, n)})
	} else {
		h.s.Charge(&h.st, h.now, n)
	}
	h.admitted = append(h.admitted, admission{h.now, n * int64(h.s.Window), hold})
}

// giveBack returns up to n units without saying of what.
func (h *history) giveBack(n int64) {
	if h.s.Algorithm == limit.FixedWindow || h.s.Algorithm == limit.SlidingWindow {
		inWindow := func(a admission) bool { return !a.held && a.at >= h.st.At }
		returned := h.takeBack(n*int64(h.s.Window), inWindow)
		h.s.GiveBack(&h.st, h.now, returned/int64(h.s.Window))
		return
	}
	before := h.counted()
	h.s.GiveBack(&h.st, h.now, n)
	h.takeBack(before-h.counted(), func(admission) bool { return true })
}

// counted is what the bucket has counted, in units of 1/Window.
func (h *history) counted() int64 {
	if h.s.Algorithm == limit.TokenBucket {
		return h.st.Count*int64(h.s.Window) + h.st.Rest
	}
	return h.st.Count * int64(h.s.Window)
}

// takeBack takes units from those admitted last, and returns how many.
func (h *history) takeBack(units int64, from func(admission) bool) (taken int64) {
	for i := len(h.admitted) - 1; i >= 0; i-- {
		if a := &h.admitted[i]; from(*a) && a.used > 0 {
			n := min(units-taken, a.used)
			a.used -= n
			taken += n
		}
	}
	return taken
}

// breaks returns the first interval in which more was used than bound says of its length, in units of
// 1/Window; a negative bound says nothing of it.
func (h *history) breaks(bound func(from, to limit.Micros) int64) (from, to limit.Micros, used int64, broken bool) {
	for i, first := range h.admitted {
		sum := int64(0)
		for _, a := range h.admitted[i:] {
			sum += a.used
			if most := bound(first.at, a.at); most >= 0 && sum > most {
				return first.at, a.at, sum, true
			}
		}
	}
	return 0, 0, 0, false
}

// bounds of the algorithms on the amount that is used in [from, to], in units of 1/Window.
func bound(s limit.Spec) func(from, to limit.Micros) int64 {
	w := int64(s.Window)
	return func(from, to limit.Micros) int64 {
		d := int64(to - from)
		switch {
		case s.Algorithm == limit.TokenBucket:
			return s.Burst*w + d*s.Limit // B + δ·N/P
		case d >= w:
			return -1
		case s.Algorithm == limit.SlidingLog:
			return s.Limit * w // L, exactly
		case s.Algorithm == limit.SlidingWindow:
			return min(s.Limit*(w+d), (2*s.Limit-1)*w) // L·(1 + δ/W), and at most 2L − 1
		case !s.FirstUse && from/s.Window == to/s.Window:
			return s.Limit * w // L in each window
		default:
			return 2 * s.Limit * w // around an edge
		}
	}
}

func TestEnvelope(t *testing.T) {
	algorithms := map[string]limit.Spec{
		"token_bucket":              {Algorithm: limit.TokenBucket},
		"sliding_window":            {Algorithm: limit.SlidingWindow},
		"sliding_log":               {Algorithm: limit.SlidingLog},
		"fixed_window":              {Algorithm: limit.FixedWindow},
		"fixed_window of first use": {Algorithm: limit.FixedWindow, FirstUse: true},
	}
	for name, s := range algorithms {
		t.Run(name, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(1, 2))
			admitted := 0
			for range histories {
				s := draw(s, rng)
				h := simulate(s, rng, 40, manner{givesBack: rng.IntN(2) == 0, grows: rng.IntN(2) == 0, corrects: rng.IntN(2) == 0})
				admitted += len(h.admitted)
				if from, to, used, broken := h.breaks(bound(s)); broken {
					t.Fatalf("%+v used %d/%d units in [%d, %d], want at most %d/%d", s, used, s.Window, from, to, bound(s)(from, to), s.Window)
				}
			}
			if admitted < 5*histories {
				t.Errorf("only %d admissions in %d histories", admitted, histories)
			}
		})
	}
}

// draw gives s quantities, and a window of 100 to 1099 µs.
func draw(s limit.Spec, rng *rand.Rand) limit.Spec {
	s.Limit, s.Window = 1+rng.Int64N(12), limit.Micros(100+rng.Int64N(1000))
	if s.Algorithm == limit.TokenBucket {
		s.Burst = 1 + rng.Int64N(20)
	}
	return s
}

// Why rule 11 is there: whoever gives back to a token bucket all that a hold did not use hands out
// also what had drained from it in the meantime.
func TestEnvelopeBreaksWhenDrainedUnitsAreGivenBack(t *testing.T) {
	naive := manner{settle: func(h *history, r reservation, actual int64) {
		h.s.Settle(&h.st, h.now, r.mark, r.units, r.units)
		h.s.GiveBack(&h.st, h.now, r.units-actual)
	}}
	breaksBound(t, naive)
}

// Why the mark of a hold that grows does not simply move to where it has grown: it would take with it what others
// have in the bucket by then.
func TestEnvelopeBreaksWhenAGrownHoldCountsAsNew(t *testing.T) {
	breaksBound(t, manner{grows: true, grow: func(h *history, _ reservation, more int64) limit.Mark {
		return h.s.Hold(&h.st, h.now, more)
	}})
}

// breaksBound: what is done to token buckets in this manner breaks their bound, and the simulation shows it.
func breaksBound(t *testing.T, m manner) {
	t.Helper()
	rng := rand.New(rand.NewPCG(3, 4))
	broken := 0
	for range histories {
		s := draw(limit.Spec{Algorithm: limit.TokenBucket}, rng)
		if _, _, _, breaks := simulate(s, rng, 40, m).breaks(bound(s)); breaks {
			broken++
		}
	}
	t.Logf("the bound was broken in %d of %d histories", broken, histories)
	if broken < histories/200 {
		t.Errorf("the bound was broken in %d of %d histories: the simulation has lost its teeth", broken, histories)
	}
}

// The bounds are reached: none of them could be lower.
func TestWorstCases(t *testing.T) {
	type charge struct {
		at    limit.Micros
		units int64
	}
	const edge = 100 * minute
	cases := []struct {
		name    string
		spec    limit.Spec
		charges []charge // all of them admitted, and not a unit more
	}{
		{"B + δ·N/P", limit.Spec{Algorithm: limit.TokenBucket, Limit: 10, Burst: 5, Window: minute},
			[]charge{{edge, 5}, {edge + 6*limit.Second, 1}, {edge + 12*limit.Second, 1}, {edge + 30*limit.Second, 3}}},
		{"2L − 1 within a window's length", limit.Spec{Algorithm: limit.SlidingWindow, Limit: 10, Window: minute},
			[]charge{{edge - 1, 10}, {edge + minute - 2, 9}}},
		{"2L around an edge", limit.Spec{Limit: 10, Window: minute}, []charge{{edge - 1, 10}, {edge, 10}}},
		{"2L around the end of a window of first use", limit.Spec{FirstUse: true, Limit: 10, Window: minute},
			[]charge{{edge, 1}, {edge + minute - 1, 9}, {edge + minute, 10}}},
		{"L, and L again a window later", limit.Spec{Algorithm: limit.SlidingLog, Limit: 10, Window: minute},
			[]charge{{edge, 10}, {edge + minute, 10}}},
	}
	for _, c := range cases {
		var st limit.State
		for i, charge := range c.charges {
			now := c.spec.Advance(&st, charge.at)
			if c.spec.Judge(&st, now, charge.units, 0).Refused {
				t.Errorf("%s: charge %d is refused", c.name, i)
			}
			c.spec.Charge(&st, now, charge.units)
		}
		if n := c.spec.Describe(&st, c.charges[len(c.charges)-1].at).Remaining; n != 0 {
			t.Errorf("%s: %d are left after the last charge, want none", c.name, n)
		}
	}
}

// No more than L places are ever taken at once.
func TestConcurrencyEnvelope(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	for range histories {
		s := limit.Spec{Algorithm: limit.Concurrency, Limit: 1 + rng.Int64N(12)}
		var st limit.State
		var live []reservation
		taken := int64(0)
		for now := range limit.Micros(60) {
			s.Advance(&st, now)
			n := 1 + rng.Int64N(4)
			fits := taken+n <= s.Limit
			switch refused := s.Judge(&st, now, n, 0).Refused; {
			case refused == fits:
				t.Fatalf("%d places of %d are taken, and %d more are refused: %v", taken, s.Limit, n, refused)
			case rng.IntN(2) == 0 && len(live) > 0:
				i := rng.IntN(len(live))
				s.Settle(&st, now, live[i].mark, live[i].units, rng.Int64N(5))
				taken -= live[i].units
				live = slices.Delete(live, i, i+1)
			case fits:
				live = append(live, reservation{units: n, mark: s.Hold(&st, now, n)})
				taken += n
			}
		}
	}
}
