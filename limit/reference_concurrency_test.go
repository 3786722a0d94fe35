package limit_test

import (
	"math/big"

	"github.com/rationhq/ration/limit"
)

// placesReference is the places that live holds take. Nothing else takes any.
type placesReference struct {
	at   limit.Micros
	live int64
}

func (p *placesReference) advance(_ *limit.Spec, now limit.Micros) limit.Micros {
	p.at = standing(p.at, now)
	return p.at
}

func (p *placesReference) used(*limit.Spec, limit.Micros) *big.Rat { return whole(p.live) }
func (p *placesReference) spent(*limit.Spec, limit.Micros) int64   { return 0 }

func (p *placesReference) charge(*limit.Spec, int64)                {}
func (p *placesReference) giveBack(*limit.Spec, int64)              {}
func (p *placesReference) correct(*limit.Spec, place, int64, int64) {}

func (p *placesReference) hold(_ *limit.Spec, n int64) place {
	p.live = addPinned(p.live, n)
	return place{}
}

func (p *placesReference) grow(_ *limit.Spec, at place, _ int64) place { return at }

func (p *placesReference) release(_ *limit.Spec, _ place, n int64) { p.live = lessFloor(p.live, n) }
