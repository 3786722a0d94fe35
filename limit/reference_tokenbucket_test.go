package limit_test

import (
	"math/big"
	"slices"

	"pgregory.net/rapid"

	"github.com/rationhq/ration/limit"
)

// bucketReference is a token bucket as all that has happened to it since it was last empty: what came in, and
// what would have drained of a bucket that is full enough. A hold that ends changes what it has put in, in the
// past, and the level follows by letting all of it happen once more.
type bucketReference struct {
	at    limit.Micros
	level *big.Rat
	past  []*flow
	units int64 // held
	live  []*bucketHold

	// What came in since the bucket was last found empty. Where it would pass 2^53, the holds until
	// then give nothing back: another filling begins.
	entered int64
	filling int
	// last is the hold of which something was given back last.
	last *bucketHold
	// inexact: something has happened in this filling from which on a bucket may give back less than it should.
	inexact bool
}

// flow is what came into a bucket at one instant, or is to go out of it, then it is below 0.
type flow struct{ amount *big.Rat }

// bucketHold is what came in by a hold: when it was made, and when it has grown.
type bucketHold struct {
	parts []*flow
	grown bool
	// late: nothing is left of what it was before it has grown, and below it is nothing.
	late bool
	// settling: it has ended just now.
	settling bool
	before   []*big.Rat // its parts before the last of them was cut, newest first
	// filling is that in which the parts came in.
	filling int
}

func newBucketReference() *bucketReference { return &bucketReference{level: new(big.Rat)} }

// flows has something happen now.
func (b *bucketReference) flows(amount *big.Rat) *flow {
	f := &flow{amount}
	b.past = append(b.past, f)
	b.level = f.from(b.level)
	return f
}

// from returns the level after f, where it was before.
func (f *flow) from(level *big.Rat) *big.Rat {
	sum := new(big.Rat).Add(level, f.amount)
	if sum.Sign() < 0 {
		sum.SetInt64(0)
	}
	return sum
}

// again has all of the past happen once more.
func (b *bucketReference) again() {
	b.level = new(big.Rat)
	for _, f := range b.past {
		b.level = f.from(b.level)
	}
}

func (b *bucketReference) advance(s *limit.Spec, now limit.Micros) limit.Micros {
	now = standing(b.at, now)
	if now > b.at {
		drains := new(big.Rat).Mul(whole(int64(now-b.at)), ratio(s.Limit, int64(s.Window)))
		if b.flows(drains.Neg(drains)); b.level.Sign() == 0 {
			b.past, b.entered, b.inexact = nil, 0, false
			b.filling++
		}
	}
	b.at = now
	return now
}

func (b *bucketReference) used(s *limit.Spec, t limit.Micros) *big.Rat {
	drains := new(big.Rat).Mul(whole(int64(t-b.at)), ratio(s.Limit, int64(s.Window)))
	return (&flow{drains.Neg(drains)}).from(b.level)
}

// spent takes what is in the bucket for held as long as there are holds: which of it is theirs is
// not known.
func (b *bucketReference) spent(s *limit.Spec, t limit.Micros) int64 {
	return lessFloor(units(b.used(s, t)), b.units)
}

func (b *bucketReference) charge(_ *limit.Spec, n int64) { b.comesIn(n) }

func (b *bucketReference) comesIn(n int64) *flow {
	b.enter(n)
	f := b.flows(whole(n))
	if over := new(big.Int).Sub(floor(b.level), big.NewInt(pinned)); over.Sign() > 0 {
		b.flows(new(big.Rat).SetInt(over.Neg(over))) // what is beyond the largest number is lost
	}
	return f
}

func (b *bucketReference) enter(n int64) {
	if b.entered+n > pinned {
		b.entered = 0
		b.filling++
	}
	b.entered += n
}

func (b *bucketReference) giveBack(_ *limit.Spec, n int64) { b.flows(whole(-n)) }

func (b *bucketReference) hold(_ *limit.Spec, n int64) place {
	h := &bucketHold{parts: []*flow{b.comesIn(n)}}
	h.filling = b.filling
	b.units = addPinned(b.units, n)
	b.live = append(b.live, h)
	b.inexact = b.inexact || len(b.live) > limit.MaxFloors
	return place{bucket: h}
}

// below is what is left in the bucket of a hold and of what lay below it: by how much the level would be lower if
// none of that had been there.
func (b *bucketReference) below(h *bucketHold) *big.Rat {
	if h.filling != b.filling {
		return new(big.Rat)
	}
	level := b.level
	var before []*big.Rat
	for i, f := range h.parts {
		before = append(before, f.amount)
		if f.amount = new(big.Rat); i == 0 && !h.late {
			f.amount = whole(-2 * pinned)
		}
	}
	b.again()
	without := b.level
	for i, f := range h.parts {
		f.amount = before[i]
	}
	b.level = level
	return new(big.Rat).Sub(level, without)
}

// grow: what others have in the bucket counts as if it had come in once more.
func (b *bucketReference) grow(_ *limit.Spec, p place, n int64) place {
	h := p.bucket
	others := units(new(big.Rat).Sub(b.level, b.below(h)))
	if h.filling != b.filling {
		h.parts, h.late = nil, true
	}
	h.parts = append(h.parts, b.comesIn(n))
	h.filling, h.grown = b.filling, true
	b.units = addPinned(b.units, n)
	b.enter(others)
	return p
}

func (b *bucketReference) release(_ *limit.Spec, p place, n int64) {
	b.units = lessFloor(b.units, n)
	b.live = slices.DeleteFunc(b.live, func(h *bucketHold) bool { return h == p.bucket })
	p.bucket.settling = true
}

// correct takes what was not used out of what the hold has put in, from the newest part of it on.
func (b *bucketReference) correct(_ *limit.Spec, p place, charged, actual int64) {
	h := p.bucket
	settling := h.settling
	h.settling = false
	if actual > charged {
		debt := b.comesIn(actual - charged)
		if h.filling != b.filling {
			h.parts, h.filling = nil, b.filling
		}
		h.parts = append(h.parts, debt)
		return
	}
	if h.filling != b.filling || actual == charged {
		return
	}
	anyGrown := h.grown || slices.ContainsFunc(b.live, func(h *bucketHold) bool { return h.grown })
	b.inexact = b.inexact || !settling || anyGrown && len(b.live) > 0
	b.cut(h, whole(charged-actual))
	b.last = h
}

// cut takes an amount out of what a hold has put in.
func (b *bucketReference) cut(h *bucketHold, rest *big.Rat) {
	h.before = h.before[:0]
	for _, part := range slices.Backward(h.parts) {
		h.before = append(h.before, part.amount)
		cut := smaller(rest, part.amount)
		part.amount = new(big.Rat).Sub(part.amount, cut)
		rest = new(big.Rat).Sub(rest, cut)
	}
	b.again()
}

// meet compares the level with what a bucket says it is after a hold has ended. Where it gives back less than it
// should, and may, the reference goes on as if no less had been used.
func (b *bucketReference) meet(t rapid.TB, told *big.Rat) {
	t.Helper()
	more := new(big.Rat).Sub(told, b.level)
	switch {
	case more.Sign() < 0:
		t.Fatalf("the level is %s, and %s if no more had ever been held than was used", told, b.level)
	case more.Sign() > 0 && !b.inexact:
		t.Fatalf("the level is %s, want %s: what was not used is lost", told, b.level)
	case more.Sign() > 0:
		for i, part := range slices.Backward(b.last.parts) {
			part.amount = b.last.before[len(b.last.parts)-1-i]
		}
		b.again()
		b.cut(b.last, new(big.Rat).Sub(b.level, told))
		if b.level.Cmp(told) != 0 {
			t.Fatalf("the level is %s, and what was given back leaves %s", told, b.level)
		}
	}
}
