package redis

import (
	"encoding/binary"
	"math"
	"slices"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

// The bits of the script: of a step (lua/batch.lua, lua/decide/step.lua), and of an op.
const (
	stepPlainCharges, stepRefused, stepShadow, stepQuotaOpen, stepLeased = 1, 2, 4, 8, 16
	stepSpans, stepAsked, stepReports                                    = 32, 64, 128

	opPlain, opShadow, opQuota, opCountRefusals, opRefused, opTells = 1, 2, 4, 8, 16, 32
)

// The script's codes of algorithms that limit.Algorithm has no number for.
const algorithmFirstUse = 6

// part is the ops and rows of a step, by index, that one run of the script decides.
type part struct {
	shard     uint16
	ops, rows []int
}

// encoding is a step on its way into the form that the script reads.
type encoding struct {
	step  *store.Step
	part  part
	lease *store.Lease    // of the step; nil where the part is none of the lease's
	keys  []string        // of the ops
	sums  []sum           // of the rows
	now   limit.Micros    // the clock of Redis, estimated
	need  []namedCalendar // beyond those of the ops

	// In a cluster: which phase of a step that spans shards this is, and of which one.
	inCluster   bool
	asked       bool // a node that has not taken the whole shard in yet
	phase       phase
	transaction store.LeaseID
	madeBy      store.LeaseID  // which transaction made the lease's directory
	shards      []uint16       // with claim
	judged      []limit.Status // with admit and refuse: the verdicts, by op of the step
}

// namedCalendar is a calendar with its name.
type namedCalendar struct {
	name     string
	calendar *limit.Calendar
}

func (e *encoding) op(i int) *store.Op { return &e.step.Ops[e.part.ops[i]] }

// plainCharges says that all ops are charges of the plain manner, and nothing else is asked.
func (e *encoding) plainCharges() bool {
	for i := range e.part.ops {
		if op := e.op(i); op.Manner != limit.Plain || op.Kind != store.Charge || op.Amount == 0 {
			return false
		}
	}
	return e.lease == nil && e.phase == whole && !e.reports()
}

// reports says that the part adds to rows, or a lease may.
func (e *encoding) reports() bool {
	return len(e.sums) > 0 || slices.ContainsFunc(e.part.rows, func(i int) bool { return e.step.Rows[i].OfLease })
}

// append appends the step.
func (e *encoding) append(b []byte) []byte {
	from, till := limit.Micros(0), limit.Micros(limit.MaxAmount)
	for i := range e.part.ops {
		if op := e.op(i); op.Manner == limit.Plain {
			start := op.Spec.Start(e.now)
			from, till = max(from, start), min(till, start+op.Spec.Window)
		}
	}
	for i := range e.sums {
		if e.sums[i].row.At == 0 { // it belongs to the hour of the script's own instant
			start := store.Hour.Start(e.now)
			from, till = max(from, start), min(till, store.Hour.End(start))
		}
	}
	flags := byte(stepPlainCharges)
	simple := e.plainCharges()
	if !simple {
		flags = e.flags()
	}
	b = binary.LittleEndian.AppendUint16(b, uint16(len(e.part.ops)))
	b = append(b, flags)
	b = appendNumber(appendNumber(b, int64(from)), int64(till))
	if simple {
		for i := range e.part.ops {
			b = e.appendPlain(append(b, 0), e.op(i))
		}
		return b
	}
	if e.inCluster {
		b = append(append(b, byte(e.phase)), e.transaction[:]...)
	}
	calendars := e.calendars()
	b = binary.LittleEndian.AppendUint16(b, uint16(len(calendars)))
	for _, c := range calendars {
		b = appendCalendar(b, c, e.now)
	}
	if e.lease != nil {
		b = appendLease(b, e.lease)
		note := e.lease.Note
		if e.inCluster && e.phase != claim {
			note = nil // which the directory keeps
		}
		b = append(binary.LittleEndian.AppendUint16(b, uint16(len(note))), note...)
		if e.inCluster && e.phase < claim {
			b = append(b, e.madeBy[:]...)
		}
	}
	if e.phase >= claim {
		b = binary.LittleEndian.AppendUint16(b, uint16(len(e.shards)))
		for _, shard := range e.shards {
			b = binary.LittleEndian.AppendUint16(b, shard)
		}
	}
	for i := range e.part.ops {
		b = e.appendOp(b, i, calendars)
	}
	if e.reports() {
		b = e.appendRows(b)
	}
	return b
}

func (e *encoding) flags() byte {
	// Whether a quota is spent in every shard is not for one of them to say.
	quotaOpen := e.step.QuotaOpen || e.phase == prepare
	return bit(stepRefused, e.step.Refused) | bit(stepShadow, e.step.Shadow) | bit(stepQuotaOpen, quotaOpen) |
		bit(stepLeased, e.lease != nil) | bit(stepSpans, e.inCluster) |
		bit(stepAsked, e.asked) | bit(stepReports, e.reports())
}

func bit(b byte, is bool) byte {
	if is {
		return b
	}
	return 0
}

// appendPlain appends the quantities of a plain op.
func (e *encoding) appendPlain(b []byte, op *store.Op) []byte {
	b = appendNumber(b, op.Amount)
	b = appendNumber(b, op.Spec.Limit)
	return appendNumber(b, e.forget(op))
}

// forget returns when the counter of a plain op may go.
func (e *encoding) forget(op *store.Op) int64 {
	return int64(op.Spec.Start(e.now) + op.Spec.Window + store.Grace(op.Spec.Window))
}

func (e *encoding) appendOp(b []byte, i int, calendars []namedCalendar) []byte {
	op := e.op(i)
	flags := bit(opPlain, op.Manner == limit.Plain) | bit(opShadow, op.Shadow) | bit(opQuota, op.Quota) |
		bit(opCountRefusals, op.CountRefusals) | bit(opRefused, len(e.judged) > 0 && e.judged[e.part.ops[i]].Refused)
	third, demand, window, calendar := op.Spec.Ceiling(), int64(0), int64(0), ""
	if op.Manner == limit.Plain {
		third = e.forget(op)
	} else {
		demand, window = e.demand(i), int64(op.Spec.Window)
		for _, c := range calendars {
			if c.calendar == op.Spec.Calendar {
				calendar = c.name
			}
		}
	}
	size := opSize + len(calendar)
	tells := e.tells(op)
	if tells {
		flags |= opTells
		size += 1 + 8*len(op.Thresholds)
	}
	b = append(b, byte(size), byte(op.Kind), flags, algorithmCode(&op.Spec), op.Class)
	last := op.Lapse
	if op.Kind == store.Deplete {
		last = int64(op.Wait)
	}
	for _, n := range [...]int64{op.Amount, op.Spec.Limit, third, demand, window, last} {
		b = appendNumber(b, n)
	}
	if !tells {
		return append(b, calendar...)
	}
	b = append(b, byte(len(op.Thresholds)))
	for _, n := range op.Thresholds {
		b = appendNumber(b, n)
	}
	return appendText(append(b, calendar...), op.Label)
}

// tells says that the script looks for thresholds of the op that are reached: not while it is open whether the step
// will write anything.
func (e *encoding) tells(op *store.Op) bool {
	return len(op.Thresholds) > 0 && e.phase != prepare && e.phase != forget
}

// demand returns what all charges and holds on the bucket of an op ask for together.
func (e *encoding) demand(of int) int64 {
	sum := int64(0)
	for i := range e.part.ops {
		if op := e.op(i); op.Judged() && e.keys[i] == e.keys[of] {
			sum = limit.Add(sum, op.Amount)
		}
	}
	return sum
}

func algorithmCode(s *limit.Spec) byte {
	if s.FirstUse {
		return algorithmFirstUse
	}
	return byte(s.Algorithm)
}

// calendars returns those that the step needs.
func (e *encoding) calendars() []namedCalendar {
	all := e.need
	for i := range e.part.ops {
		if c := e.op(i).Spec.Calendar; c != nil {
			all = appendNamed(all, c)
		}
	}
	return all
}

func appendNamed(all []namedCalendar, c *limit.Calendar) []namedCalendar {
	for i := range all {
		if all[i].calendar == c {
			return all
		}
	}
	return append(all, namedCalendar{c.String(), c})
}

// appendCalendar appends the period of now, the one before and the one behind it.
func appendCalendar(b []byte, c namedCalendar, now limit.Micros) []byte {
	start, end := c.calendar.Bounds(now)
	before, _ := c.calendar.Bounds(start - 1)
	_, after := c.calendar.Bounds(end)
	b = append(b, byte(len(c.name)))
	b = append(b, c.name...)
	for _, t := range [...]limit.Micros{before, start, end, after} {
		b = appendNumber(b, int64(t))
	}
	return b
}

func appendLease(b []byte, l *store.Lease) []byte {
	b = append(b, l.ID[:]...)
	b = append(b, byte(l.Do))
	b = appendNumber(b, int64(l.Lasts))
	b = binary.LittleEndian.AppendUint64(b, l.Request)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(l.Actual)))
	for _, n := range l.Actual {
		b = appendNumber(b, n)
	}
	return b
}

// appendNumber appends a number as Lua has them. Up to 2^53 none is rounded.
func appendNumber(b []byte, n int64) []byte {
	return binary.LittleEndian.AppendUint64(b, math.Float64bits(float64(n)))
}

// stepBytes and opBytes are about the sizes of a step without a lease, and of a strict op. opSize is that of
// an op without a calendar, as it says of itself.
const stepBytes, opBytes, opSize = 32, 64, 4 + 6*8
