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
	stepShadow, stepQuotaOpen, stepPlainCharges = 1, 2, 4
	opGiveBack, opStrict, opShadow, opQuota     = 1, 2, 4, 8
	codeOK, codeAgain, codeCorrupt              = 0, 1, 2
)

// appendStep appends the ops of step, as the script reads them, with the windows of now.
func appendStep(b []byte, step *store.Step, ops []int, now limit.Micros) []byte {
	flags := byte(stepPlainCharges)
	for _, i := range ops {
		op := &step.Ops[i]
		if op.Kind != store.Charge || op.Manner != limit.Plain || op.Amount == 0 {
			flags = 0
		}
	}
	if step.Shadow {
		flags |= stepShadow
	}
	if step.QuotaOpen {
		flags |= stepQuotaOpen
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
	if op.Manner == limit.Strict {
		flags |= opStrict
	}
	if op.Shadow {
		flags |= opShadow
	}
	if op.Quota {
		flags |= opQuota
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

// readStep reads the script's answer to one step of n ops into results, and returns what follows.
// again says that the step has to be repeated with newer windows.
func readStep(answer []int64, n int, results []store.Result) (rest []int64, again bool, err error) {
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
		results[i] = store.Result{Used: used}
		if used < 0 {
			results[i] = store.Result{Used: -1 - used, Refused: true}
		}
	}
	return answer[n:], false, nil
}

var errShortAnswer = fmt.Errorf("%w: the script's answer is too short", store.ErrUnavailable)
