package limit_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/rationhq/ration/limit"
)

// A provider behind a shared key counts output when it is written, and a bucket here when it is held: up to `late`
// earlier. So the provider may see in any time δ what is admitted in δ + late, which is burst + rate·(δ + late). These are the
// bursts that docs/policy.md derives of that, for each way in which a provider may count.
const (
	perSecond = 100 // the rate, here and there
	late      = 3 * limit.Second
	depth     = 1_000 // of what the provider counts with
	step      = limit.Second
	span      = 4 * limit.Second
)

type provider interface {
	// write counts output, and returns how much is left then.
	write(now limit.Micros, n int64) int64
	// burst is the largest that fits.
	burst() int64
}

// continuous is a bucket that fills all the time. It is empty at 0, and counts in millionths.
type continuous struct {
	at    limit.Micros
	level int64
}

func (p *continuous) write(now limit.Micros, n int64) int64 {
	p.level = max(0, p.level-perSecond*int64(now-p.at)) + n*1_000_000
	p.at = now
	return depth - (p.level+999_999)/1_000_000
}

func (*continuous) burst() int64 { return depth - perSecond*int64(late/limit.Second) }

// stepped is a bucket that fills once in a step.
type stepped struct{ continuous }

func (p *stepped) write(now limit.Micros, n int64) int64 {
	return p.continuous.write(max(p.at, now-now%step), n)
}

func (*stepped) burst() int64 { return depth - perSecond*int64((late+step)/limit.Second) }

// windowed counts what was written in the last span, or in fixed windows of it, which is never more.
type windowed struct{ log []piece }

func (p *windowed) write(now limit.Micros, n int64) int64 {
	p.log = append(slices.DeleteFunc(p.log, func(w piece) bool { return w.at <= now-span }), piece{now, n})
	left := int64(depth)
	for _, w := range p.log {
		left -= w.n
	}
	return left
}

func (*windowed) burst() int64 { return depth - perSecond*int64((late+span)/limit.Second) }

// piece of an answer.
type piece struct {
	at limit.Micros
	n  int64
}

// answer is a call that was admitted: what it holds, and what it will have written when.
type answer struct {
	mark limit.Mark
	held int64
	left []piece
	used int64
}

// key is the bucket of a policy, and the provider that it spares.
type key struct {
	spec     limit.Spec
	state    limit.State
	provider provider
	calls    []*answer
	least    int64 // of what was ever left at the provider
}

func newKey(p provider, more int64) *key {
	return &key{provider: p, least: depth,
		spec: limit.Spec{Algorithm: limit.TokenBucket, Limit: perSecond, Window: limit.Second, Burst: p.burst() + more}}
}

// ask admits a call, if there is room for what it holds.
func (k *key) ask(now limit.Micros, held int64, writes ...piece) {
	k.until(now)
	k.spec.Advance(&k.state, now)
	if k.spec.Judge(&k.state, now, held, 0).Refused {
		return
	}
	k.calls = append(k.calls, &answer{mark: k.spec.Hold(&k.state, now, held), held: held, left: writes})
}

// until lets the provider write what is due, and settles calls whose last piece that was.
func (k *key) until(now limit.Micros) {
	for {
		var next *answer
		for _, c := range k.calls {
			if c.left[0].at <= now && (next == nil || c.left[0].at < next.left[0].at) {
				next = c
			}
		}
		if next == nil {
			return
		}
		p := next.left[0]
		next.left, next.used = next.left[1:], next.used+p.n
		k.least = min(k.least, k.provider.write(p.at, p.n))
		if len(next.left) == 0 {
			k.spec.Advance(&k.state, p.at)
			k.spec.Settle(&k.state, p.at, next.mark, next.held, next.used)
			k.calls = slices.DeleteFunc(k.calls, func(c *answer) bool { return c == next })
		}
	}
}

func providers() map[string]func() provider {
	return map[string]func() provider{
		"continuous": func() provider { return &continuous{} },
		"stepped":    func() provider { return &stepped{} },
		"windowed":   func() provider { return &windowed{} },
	}
}

// Whatever is asked for, and whenever it is written: the provider never has to refuse.
func TestProviderIsSpared(t *testing.T) {
	for name, p := range providers() {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(500) {
				dice := rand.New(rand.NewPCG(seed, 0))
				k, now := newKey(p(), 0), limit.Micros(0)
				for range 300 {
					now += limit.Micros(dice.Int64N(60_000))
					held := 1 + dice.Int64N(40)
					used, at := held, now+late-now%late // at worst all is used, and written at the same instants
					switch dice.IntN(8) {
					case 0:
						used = dice.Int64N(held + 1)
					case 1:
						at = now + limit.Micros(dice.Int64N(int64(late)))
					}
					first := dice.Int64N(2) * used / 2 // or in two parts
					k.ask(now, held, piece{(now + at) / 2, first}, piece{at, used - first})
				}
				if k.until(now + late); k.least < 0 {
					t.Fatalf("seed %d: the provider lacked %d", seed, -k.least)
				}
			}
		})
	}
}

// The bursts are the largest, but for one unit: two more, and the provider has to refuse where callers take all that there is,
// and what they have asked for in the longest time is written at the same instant.
func TestProviderIsSparedByNoMore(t *testing.T) {
	for name, p := range providers() {
		t.Run(name, func(t *testing.T) {
			for more, spared := range map[int64]bool{0: true, 2: false} {
				k := newKey(p(), more)
				start, worst := late, 2*late
				k.ask(start, k.spec.Burst, piece{worst, k.spec.Burst})
				for now := start; now <= worst+span; now += limit.Second / perSecond {
					k.ask(now, 1, piece{max(now, worst), 1})
				}
				k.until(worst + span + late)
				if (k.least >= 0) != spared {
					t.Errorf("with a burst larger by %d the provider has %d left at least", more, k.least)
				}
			}
		})
	}
}
