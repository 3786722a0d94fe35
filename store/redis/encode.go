package redis

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

// The bits and codes of lua/apply.lua.
const (
	stepChargesOnly                = 1
	opGiveBack                     = 1
	codeOK, codeAgain, codeCorrupt = 0, 1, 2
)

// appendStep appends the ops of step, as the script reads them, with the windows of now.
func appendStep(b []byte, step *store.Step, ops []int, now limit.Micros) []byte {
	flags := byte(stepChargesOnly)
	for _, i := range ops {
		op := &step.Ops[i]
		if op.Kind != store.Charge || op.Amount == 0 {
			flags = 0
		}
	}
	from, till := limit.Micros(0), limit.Micros(limit.MaxAmount)
	for _, i := range ops {
		start := step.Ops[i].Spec.Start(now)
		from, till = max(from, start), min(till, start+step.Ops[i].Spec.Window)
	}
	b = binary.LittleEndian.AppendUint16(b, uint16(len(ops)))
	b = append(b, flags)
	b = appendNumber(appendNumber(b, int64(from)), int64(till))
	for _, i := range ops {
		b = appendOp(b, &step.Ops[i], now)
	}
	return b
}

func appendOp(b []byte, op *store.Op, now limit.Micros) []byte {
	flags := byte(0)
	if op.Kind == store.GiveBack {
		flags |= opGiveBack
	}
	forget := op.Spec.Start(now) + op.Spec.Window + store.Grace(op.Spec.Window)
	b = append(b, flags)
	b = appendNumber(b, op.Amount)
	b = appendNumber(b, op.Spec.Limit)
	return appendNumber(b, int64(forget))
}

// appendNumber appends a number as Lua has them. Up to 2^53 none is rounded.
func appendNumber(b []byte, n int64) []byte {
	return binary.LittleEndian.AppendUint64(b, math.Float64bits(float64(n)))
}

// stepBytes and opBytes are the sizes that the script reads.
const stepBytes, opBytes = 19, 25

// result is what the script says of one op.
type result struct {
	used    int64
	refused bool // by the op's own limit
}

// readStep reads the script's answer to one step of n ops into results, and returns what follows.
// again says that the step has to be repeated with newer windows.
func readStep(answer []int64, n int, results []result) (rest []int64, again bool, err error) {
	if len(answer) == 0 {
		return nil, false, errShortAnswer
	}
	code, answer := answer[0], answer[1:]
	switch code {
	case codeAgain:
		return answer, true, nil
	case codeCorrupt:
		return answer, false, store.ErrCorrupt
	case codeOK:
	default:
		return nil, false, fmt.Errorf("%w: the script answered the code %d", store.ErrUnavailable, code)
	}
	if len(answer) < n {
		return nil, false, errShortAnswer
	}
	for i, used := range answer[:n] {
		results[i] = result{used: used}
		if used < 0 {
			results[i] = result{used: -1 - used, refused: true}
		}
	}
	return answer[n:], false, nil
}

var errShortAnswer = fmt.Errorf("%w: the script's answer is too short", store.ErrUnavailable)
