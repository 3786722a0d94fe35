package limit_test

import (
	"math/big"

	"github.com/rationhq/ration/limit"
)

// bucketReference is a token bucket as a rational level, with running totals of all that ever drained
// from it and all that was ever given back. What of a hold is still in the bucket follows from these
// totals alone (rule 11 of docs/semantics.md): it needs to know nothing of when the bucket was empty.
type bucketReference struct {
	at                    limit.Micros
	level, drained, given *big.Rat
	live                  int64

	// What came in since the bucket was last found empty. Where it would pass 2^53, the holds until
	// then give nothing back: another filling begins.
	entered int64
	filling int
}

func newBucketReference() *bucketReference {
	return &bucketReference{level: new(big.Rat), drained: new(big.Rat), given: new(big.Rat)}
}

func (b *bucketReference) advance(s *limit.Spec, now limit.Micros) limit.Micros {
	now = standing(b.at, now)
	if now > b.at {
		left := b.used(s, now)
		b.drained.Add(b.drained, new(big.Rat).Sub(b.level, left))
		if b.level = left; left.Sign() == 0 {
			b.entered = 0
		}
	}
	b.at = now
	return now
}

func (b *bucketReference) used(s *limit.Spec, t limit.Micros) *big.Rat {
	drains := new(big.Rat).Mul(whole(int64(t-b.at)), ratio(s.Limit, int64(s.Window)))
	left := new(big.Rat).Sub(b.level, drains)
	if left.Sign() < 0 {
		left.SetInt64(0)
	}
	return left
}

// spent takes what is in the bucket for held as long as there are holds: which of it is theirs is
// not known.
func (b *bucketReference) spent(s *limit.Spec, t limit.Micros) int64 {
	return lessFloor(units(b.used(s, t)), b.live)
}

func (b *bucketReference) charge(_ *limit.Spec, n int64) {
	if b.entered+n > pinned {
		b.entered = 0
		b.filling++
	}
	b.entered += n
	sum := new(big.Rat).Add(b.level, whole(n))
	if over := new(big.Int).Sub(floor(sum), big.NewInt(pinned)); over.Sign() > 0 {
		lost := new(big.Rat).SetInt(over) // what is beyond the largest number counts as given back
		sum.Sub(sum, lost)
		b.given.Add(b.given, lost)
	}
	b.level = sum
}

func (b *bucketReference) giveBack(_ *limit.Spec, n int64) { b.takeOut(whole(n)) }

func (b *bucketReference) takeOut(n *big.Rat) {
	n = smaller(n, b.level)
	b.level = new(big.Rat).Sub(b.level, n)
	b.given.Add(b.given, n)
}

func (b *bucketReference) hold(s *limit.Spec, n int64) place {
	b.charge(s, n)
	b.live = addPinned(b.live, n)
	return b.place(b.level)
}

// place is that of a hold of which so much is in the bucket, with all that lies below it.
func (b *bucketReference) place(level *big.Rat) place {
	clone := func(x *big.Rat) *big.Rat { return new(big.Rat).Set(x) }
	return place{level: clone(level), drained: clone(b.drained), given: clone(b.given), filling: b.filling}
}

// left returns what is left of a hold with all that lay below it, below 0 where more than that has gone.
func (b *bucketReference) left(p place) *big.Rat {
	since := new(big.Rat).Add(b.drained, b.given)
	since.Sub(since, p.drained).Sub(since, p.given)
	return since.Sub(p.level, since)
}

// grow puts what is left of the hold, and the more, above what is in the bucket of others: whole units.
func (b *bucketReference) grow(s *limit.Spec, p place, n int64) place {
	others := whole(units(b.level))
	if left := b.left(p); p.filling == b.filling && left.Sign() > 0 {
		others.Sub(b.level, left)
	}
	b.charge(s, n)
	b.live = addPinned(b.live, n)
	if others.Cmp(whole(b.entered-n)) > 0 {
		return p // of another filling: it gives nothing back
	}
	return b.place(new(big.Rat).Sub(b.level, others))
}

func (b *bucketReference) release(_ *limit.Spec, _ place, n int64) { b.live = lessFloor(b.live, n) }

func (b *bucketReference) correct(s *limit.Spec, p place, charged, actual int64) {
	if actual > charged {
		b.charge(s, actual-charged)
		return
	}
	if left := b.left(p); p.filling == b.filling && left.Sign() > 0 {
		b.takeOut(smaller(left, whole(charged-actual)))
	}
}
