package redis

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"math/big"
	"slices"
	"testing"

	"github.com/redis/go-redis/v9"
	"pgregory.net/rapid"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
	"github.com/rationhq/ration/store/redis/redistest"
)

// harness runs the script's own arithmetic, in a real Redis, with a main program of the test's.
type harness struct {
	client *redis.Client
	script *redis.Script
}

func newHarness(t *testing.T, program string) *harness {
	return &harness{
		client: redistest.Start(t).Client(t),
		script: redis.NewScript(read("apply") + read(limitFiles...) + read("decide/bucket") + program),
	}
}

// numbers is what a program reads and writes.
type numbers []int64

func (n numbers) encode() []byte {
	var b []byte
	for _, v := range n {
		b = appendNumber(b, v)
	}
	return b
}

func (h *harness) run(t rapid.TB, in numbers) numbers {
	t.Helper()
	reply, err := h.script.Run(context.Background(), h.client, nil, in.encode(), "").Text()
	if err != nil {
		t.Fatal(err)
	}
	out := make(numbers, len(reply)/8)
	for i := range out {
		out[i] = int64(math.Float64frombits(binary.LittleEndian.Uint64([]byte(reply[8*i:]))))
	}
	return out
}

// Products and quotients are exact up to 2^53, whichever way they are computed.
func TestLuaProducts(t *testing.T) {
	h := newHarness(t, `
local pos, out = 1, {}
while pos <= #steps do
  local a, b, c, d
  a, b, c, d, pos = unpack('<dddd', steps, pos)
  local q, rest = over(a, b, c, d)
  out[#out + 1] = pack('<ddd', q, rest, over_up(a, b, c, d))
end
return table.concat(out)`)
	edges := []int64{0, 1, 2, 1<<26 - 1, 1 << 26, 1<<27 + 1, 1<<50 - 1, 1 << 50, 1<<50 + 1, limit.MaxAmount - 1, limit.MaxAmount}
	any53 := rapid.OneOf(
		rapid.SampledFrom(edges), rapid.Int64Range(0, limit.MaxAmount),
		rapid.Custom(func(r *rapid.T) int64 {
			return rapid.Int64Range(0, 1<<rapid.IntRange(0, 53).Draw(r, "bits")-1).Draw(r, "n")
		}),
	)
	rapid.Check(t, func(r *rapid.T) {
		var in numbers
		for range 50 {
			a, b, d := any53.Draw(r, "a"), any53.Draw(r, "b"), max(1, any53.Draw(r, "d"))
			c := any53.Draw(r, "c")
			if rapid.Bool().Draw(r, "near a multiple") {
				// Quotients that are whole, or nearly.
				d = max(1, any53.Draw(r, "divisor"))
				b = max(b/d, 1) * d
				if b > limit.MaxAmount {
					b = d
				}
				c = rapid.Int64Range(0, 2).Draw(r, "more")
			}
			in = append(in, a, b, c, d)
		}
		got := h.run(r, in)
		for i := 0; i < len(in); i += 4 {
			q, rest, up := quotient(in[i], in[i+1], in[i+2], in[i+3])
			if g := got[i/4*3:]; g[0] != q || g[1] != rest || g[2] != up {
				r.Fatalf("(%d·%d + %d)/%d: got %d, %d and %d rounded up, want %d, %d and %d",
					in[i], in[i+1], in[i+2], in[i+3], g[0], g[1], g[2], q, rest, up)
			}
		}
	})
}

// quotient is (a·b + c)/d with its remainder, and rounded up, pinned as limit pins them.
func quotient(a, b, c, d int64) (q, rest, up int64) {
	n := new(big.Int).Mul(big.NewInt(a), big.NewInt(b))
	n.Add(n, big.NewInt(c))
	whole, part := new(big.Int).DivMod(n, big.NewInt(d), new(big.Int))
	if whole.Cmp(big.NewInt(limit.MaxAmount)) > 0 {
		return limit.MaxAmount, d - 1, limit.MaxAmount
	}
	q, rest = whole.Int64(), part.Int64()
	if up = q; rest > 0 {
		up = limit.Add(q, 1)
	}
	return q, rest, up
}

// How much a depletion records is in the script what it is in limit, also of numbers that are near 2^53. What is
// promised counts like what is used.
func TestLuaMissing(t *testing.T) {
	h := newHarness(t, read("limit/missing")+`
local op, b, at = {}, {}, nil
op.algorithm, op.limit, op.ceiling, op.window, op.amount, op.wait, at, b.now, b.count, b.rest, b.pending = unpack('<ddddddddddd', steps)
b.at, b.arithmetic, now = b.now, arithmetic(op.algorithm), at
return pack('<d', missing(op, b))`)
	amounts := rapid.OneOf(rapid.Int64Range(0, 30), rapid.Int64Range(0, limit.MaxAmount), rapid.Int64Range(limit.MaxAmount-3, limit.MaxAmount))
	waits := rapid.OneOf(rapid.Int64Range(0, 50), rapid.Int64Range(0, 2*int64(limit.LongestWait)), amounts)
	rapid.Check(t, func(r *rapid.T) {
		s := limit.Spec{
			Algorithm: limit.TokenBucket, Limit: max(1, amounts.Draw(r, "limit")), Burst: amounts.Draw(r, "burst"),
			Window: limit.Micros(rapid.OneOf(rapid.SampledFrom([]int64{1, 7, 60_000_000}), rapid.Int64Range(1, limit.MaxAmount)).Draw(r, "window")),
		}
		if rapid.IntRange(0, 4).Draw(r, "window of time") == 0 {
			s.Algorithm = limit.FixedWindow
		}
		st := limit.State{Count: amounts.Draw(r, "count")}
		if s.Algorithm == limit.TokenBucket {
			st.Rest = rapid.Int64Range(0, int64(s.Window)-1).Draw(r, "rest")
		}
		op := store.Op{Spec: s, Kind: store.Deplete, Amount: amounts.Draw(r, "leave"), Wait: limit.Micros(waits.Draw(r, "wait"))}
		at := limit.Micros(1_763_726_400_000_000)
		lag := limit.Micros(rapid.OneOf(rapid.Just(int64(0)), rapid.Int64Range(0, 60)).Draw(r, "lag"))
		pending := rapid.OneOf(rapid.Just(int64(0)), rapid.Int64Range(0, limit.MaxAmount-st.Count)).Draw(r, "pending")
		got := h.run(r, numbers{
			int64(algorithmCode(&s)), s.Limit, s.Ceiling(), int64(s.Window), op.Amount, int64(op.Wait),
			int64(at), int64(at + lag), st.Count, st.Rest, pending,
		})[0]
		st.Count += pending
		if want := s.Missing(&st, at+lag, op.Amount, op.NotBefore(at)); got != want {
			r.Fatalf("%+v, %+v, %d pending, asked to leave %d for %d µs, %d µs behind: %d are missing, want %d",
				s, st, pending, op.Amount, op.Wait, lag, got, want)
		}
	})
}

// The operations of the program below.
const (
	doAdvance = iota
	doCharge
	doGiveBack
	doHold
	doGrow
	doSettle
	doCross // only of windows and periods
	operations
)

const walk = `
local pos = 1
local s = {}
s.algorithm, s.limit, s.window, pos = unpack('<ddd', steps, pos)
local a = arithmetic(s.algorithm)
local b = { arithmetic = a, at = 0, ends = 0, count = 0, rest = 0, entered = 0, held = 0, log = '', laid = '' }
local t, out = 0, {}
while pos <= #steps do
  local what, amount, mark_at, mark_entered, actual
  what, amount, mark_at, mark_entered, actual, pos = unpack('<ddddd', steps, pos)
  local counts, left_at, left_entered, from, to = 0, 0, 0, 0, 0
  if what == 0 then
    t = advance(s, b, amount)
  elseif what == 1 then
    a.charge(s, b, t, amount)
  elseif what == 2 then
    a.give_back(s, b, t, amount)
  elseif what == 3 then
    b.held = add(b.held, amount)
    left_at, left_entered = a.hold(s, b, t, amount)
  elseif what == 4 then
    left_at, left_entered = a.grow(s, b, t, mark_at, mark_entered, amount)
  elseif what == 6 then -- amount is how many thresholds follow
    local thresholds = {}
    for i = 1, amount do thresholds[i], pos = unpack('<d', steps, pos) end
    from, to = a.crossed(b, thresholds)
  else
    counts = a.counts(s, b, t, mark_at, mark_entered) and 1 or 0
    a.settle(s, b, t, mark_at, mark_entered, amount, actual)
  end
  lay(b) -- and read once more by the next operation that needs them
  b.floors = nil
  out[#out + 1] = pack('<dddddddddddd',
    t, a.used(s, b, t), a.idle(s, b), b.count, b.held, left_at, left_entered, counts, b.entered, from, to,
    #b.laid / FLOOR_SIZE)
end
return table.concat(out)`

// After every operation of a random walk the script's state says what limit's does. (Calendars, leases
// and the rest of a decision are compared by the conformance suite.)
func TestLuaArithmetic(t *testing.T) {
	h := newHarness(t, walk)
	for _, shape := range []limit.Spec{
		{Algorithm: limit.TokenBucket, Window: 60 * limit.Second},
		{Algorithm: limit.TokenBucket, Window: 7},
		{Algorithm: limit.SlidingWindow, Window: 60 * limit.Second},
		{Algorithm: limit.SlidingWindow, Window: 7},
		{Algorithm: limit.SlidingLog, Window: 60 * limit.Second},
		{Algorithm: limit.FixedWindow, Window: 60 * limit.Second},
		{Algorithm: limit.FixedWindow, Window: 60 * limit.Second, FirstUse: true},
		{Algorithm: limit.Concurrency},
	} {
		t.Run(fmt.Sprint(shape.Algorithm, shape.FirstUse, shape.Window), func(t *testing.T) {
			rapid.Check(t, func(r *rapid.T) { compareWalks(r, h, shape) })
		})
	}
}

// thresholdsOf returns thresholds that amounts may reach.
func thresholdsOf(amounts *rapid.Generator[int64]) *rapid.Generator[int64] {
	return rapid.Custom(func(r *rapid.T) int64 {
		return min(amounts.Draw(r, "amount")*rapid.Int64Range(1, 3).Draw(r, "times"), limit.MaxAmount-1)
	})
}

func compareWalks(r *rapid.T, h *harness, s limit.Spec) {
	amounts := rapid.Int64Range(1, 20)
	if rapid.IntRange(0, 3).Draw(r, "huge") == 0 {
		amounts = rapid.Int64Range(limit.MaxAmount/3, limit.MaxAmount)
	}
	// Among many holds there are more floors than are kept apart.
	steps, crowd := 40, s.Algorithm == limit.TokenBucket && rapid.IntRange(0, 9).Draw(r, "crowd") == 9
	if crowd {
		steps = 3 * limit.MaxFloors
	}
	s.Limit = amounts.Draw(r, "limit")
	if s.Algorithm == limit.SlidingLog {
		s.Limit = min(s.Limit, limit.MaxLog)
	}
	in := numbers{int64(algorithmCode(&s)), s.Limit, int64(s.Window)}
	type hold struct {
		mark   limit.Mark
		amount int64
	}
	var holds []hold
	var want []numbers
	clock, st, now := int64(1_763_726_400_000_000), limit.State{}, limit.Micros(0)
	for i := range rapid.IntRange(1, steps).Draw(r, "steps") {
		what := doAdvance
		var mark limit.Mark
		var amount, actual int64
		switch {
		case crowd && i > 0 && i < 2*limit.MaxFloors && i%16 > 0:
			what = doHold
		case i > 0:
			what = rapid.IntRange(0, operations-1).Draw(r, "what")
		}
		var left limit.Mark
		counts, from, to := int64(0), 0, 0
		var thresholds []int64
		switch what {
		case doAdvance:
			clock += rapid.OneOf(rapid.Int64Range(0, 30_000_000), rapid.Int64Range(-200_000_000, 200_000_000), rapid.Int64Range(0, 8)).Draw(r, "µs")
			amount = clock
			now = s.Advance(&st, limit.Micros(clock))
		case doCharge:
			amount = amounts.Draw(r, "amount")
			s.Charge(&st, now, amount)
		case doGiveBack:
			amount = amounts.Draw(r, "amount")
			s.GiveBack(&st, now, amount)
		case doHold:
			amount = amounts.Draw(r, "amount")
			left = s.Hold(&st, now, amount)
			holds = append(holds, hold{left, amount})
		case doGrow:
			if len(holds) == 0 || s.Algorithm == limit.Concurrency {
				continue
			}
			h := &holds[rapid.IntRange(0, len(holds)-1).Draw(r, "which")]
			mark, amount = h.mark, min(amounts.Draw(r, "more"), limit.MaxAmount-h.amount)
			if amount < 1 {
				continue
			}
			left = s.Grow(&st, now, mark, amount)
			h.mark, h.amount = left, h.amount+amount
		case doCross:
			if s.Algorithm != limit.FixedWindow {
				continue
			}
			thresholds = rapid.SliceOfNDistinct(thresholdsOf(amounts), 1, store.MaxThresholds, rapid.ID).Draw(r, "thresholds")
			slices.Sort(thresholds)
			amount = int64(len(thresholds))
			from, to = s.Crossed(&st, thresholds)
		default:
			if len(holds) == 0 {
				continue
			}
			at := rapid.IntRange(0, len(holds)-1).Draw(r, "which")
			mark, amount, actual = holds[at].mark, holds[at].amount, rapid.OneOf(rapid.Just(int64(0)), amounts).Draw(r, "actual")
			holds = append(holds[:at], holds[at+1:]...)
			if s.Frees(&st, now, mark, 1, 0) {
				counts = 1
			}
			s.Settle(&st, now, mark, amount, actual)
		}
		in = append(append(in, int64(what), amount, int64(mark.At), mark.Entered, actual), thresholds...)
		used, floors := s.Describe(&st, now), int64(0)
		if st.Log != nil {
			floors = int64(len(st.Log.Floors))
		}
		want = append(want, numbers{
			int64(now), used.Used + used.Held, int64(s.Idle(&st)), st.Count, st.Held, int64(left.At), left.Entered, counts,
			st.Entered, int64(from), int64(to), floors,
		})
	}
	got := h.run(r, in)
	for i, w := range want {
		for j, name := range [...]string{
			"now", "used", "idle", "count", "held", "mark's at", "mark's entered", "counts", "entered", "from", "to", "floors",
		} {
			if g := got[len(w)*i+j]; g != w[j] && (name != "entered" || s.Algorithm != limit.SlidingLog && s.Algorithm != limit.SlidingWindow) {
				r.Fatalf("operation %d: %s is %d, want %d", i, name, g, w[j])
			}
		}
	}
}
