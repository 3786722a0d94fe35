package redis

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

// code is what the script says of a step.
type code byte

// The codes of lua/apply.lua.
const (
	codeOK code = iota
	codeAgain
	codeCorrupt
	codeConflict
	codeMore
	codeFailed
	codeLate
	codeElsewhere
)

var errElsewhere = errors.New("a bucket of the lease lies on another node")

var errShortAnswer = fmt.Errorf("%w: the script's answer is too short", store.ErrUnavailable)

// answer is what is left to read of the script's reply.
type answer struct {
	rest string
	err  error
}

func (a *answer) take(n int) string {
	if n > len(a.rest) {
		a.err, a.rest = errShortAnswer, ""
		return "\x00\x00\x00\x00\x00\x00\x00\x00"
	}
	taken := a.rest[:n]
	a.rest = a.rest[n:]
	return taken
}

func (a *answer) byte() byte { return a.take(1)[0] }

func (a *answer) length() int { return int(binary.LittleEndian.Uint16([]byte(a.take(2)))) }

func (a *answer) number() int64 {
	return int64(math.Float64frombits(binary.LittleEndian.Uint64([]byte(a.take(8)))))
}

func (a *answer) short() (n int64) {
	for i, b := range []byte(a.take(shortSize)) {
		n |= int64(b) << (8 * i)
	}
	return n << 8 >> 8 // its sign
}

// readStep takes what concerns c, and keeps of it what its caller will read.
func (a *answer) readStep(c *call) error {
	if a.err != nil {
		return a.err
	}
	switch code := code(a.byte()); code {
	case codeOK:
		if c.noted {
			c.note = a.take(a.length())
		}
		if c.size == sizedByAnswer {
			c.size = a.length()
		}
		c.answer = a.take(c.size)
	case codeAgain:
		c.again = true
		for range a.byte() {
			c.need = append(c.need, a.take(int(a.byte())))
		}
	case codeMore:
		c.again, c.more = true, true
	case codeCorrupt:
		return store.ErrCorrupt
	case codeConflict:
		return store.ErrConflict
	case codeLate:
		return errLate
	case codeElsewhere:
		return &redirection{cause: errElsewhere}
	case codeFailed:
		problem := a.take(a.length())
		return fmt.Errorf("%w: the script failed: %w", store.ErrUnavailable, errors.New(problem))
	default:
		return fmt.Errorf("%w: the script answered the code %d", store.ErrUnavailable, code)
	}
	return a.err
}

// The sizes of an answer: to a plain op, to a strict one, and what a log has beside that.
const plainSize, strictSize, logSize = 8, verdictSize + stateSize, 3 * 8

// Those of the parts of an answer to a strict op: lua/decide/decide.lua and lua/decide/bucket.lua.
const verdictSize, stateSize = 1 + 2*8, 1 + 7*shortSize

// shortSize is that of the numbers in a bucket: lua/decide/bucket.lua.
const shortSize = 7

// sizedByAnswer stands for a size that the answer says, as uint16.
const sizedByAnswer = -1

// size returns how long the script's answer to the step is, behind the code.
func (e *encoding) size() int {
	if e.phase == claim {
		return sizedByAnswer
	}
	n := 0
	if !e.plainCharges() {
		n = 1
	}
	for i := range e.part.ops {
		op := e.op(i)
		switch {
		case op.Manner == limit.Plain:
			n += plainSize
		case op.Spec.Algorithm == limit.SlidingLog:
			n += strictSize + logSize
		default:
			n += strictSize
		}
	}
	return n
}

// read turns the script's answer at now into results, and says what became of the lease.
func (e *encoding) read(a answer, now limit.Micros, results []limit.Status) store.LeaseState {
	state := store.LeaseNone
	if !e.plainCharges() {
		state = store.LeaseState(a.byte())
	}
	for i, at := range e.part.ops {
		if op := e.op(i); op.Manner == limit.Plain {
			used := a.number()
			if refused := used < 0; refused {
				results[at] = op.Spec.PlainStatus(now, -1-used, true)
			} else {
				results[at] = op.Spec.PlainStatus(now, used, false)
			}
		} else {
			results[at] = e.readStrict(&a, i, now)
		}
	}
	return state
}

// readStrict describes a strict limit by the state that its bucket is left in.
func (e *encoding) readStrict(a *answer, i int, now limit.Micros) limit.Status {
	op := e.op(i)
	refused := a.byte() == 1
	stands, earliest := limit.Micros(a.number()), limit.Micros(a.number())
	a.byte() // the version
	st := limit.State{
		At: limit.Micros(a.short()), End: limit.Micros(a.short()), Count: a.short(), Rest: a.short(),
		Entered: a.short(), Held: a.short(),
	}
	a.short() // until when it is kept
	if op.Spec.Algorithm == limit.SlidingLog {
		st = readLog(a, st)
	}
	if !refused {
		return op.Spec.Describe(&st, stands).After(stands - now)
	}
	amount := max(1, e.demand(i))
	status := op.Spec.Judge(&st, stands, amount, earliest).After(stands - now)
	status.Refused, status.Never = true, amount > op.Spec.Ceiling()
	return status
}

// readLog completes the state of a log by as much of its entries as there is to say of it: those that
// pass before there is room, as one, and the others, as another one.
func readLog(a *answer, st limit.State) limit.State {
	newest := limit.Entry{At: limit.Micros(a.number())}
	passing := limit.Entry{At: limit.Micros(a.number()), Units: a.number()}
	newest.Units = st.Count - passing.Units
	st.Rest, st.Entered = 0, 0
	st.Log = &limit.Log{Entries: []limit.Entry{passing, newest}}
	return st
}
