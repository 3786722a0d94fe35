package engine

import (
	"bytes"
	"context"
	"encoding/binary"
	"sync"
	"time"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/store"
)

// refusals are requests that were refused and are not in the rows of usage yet. A refusal charges nothing, and must not
// cost a write of its own: an attacker would choose how many. So they are added up here, and written together a second
// later; what a process that dies has not written is lost.
type refusals struct {
	write func(context.Context, []store.Row) error
	lost  func(int64)

	mu      sync.Mutex
	waiting map[string]*refusalSum // by what tells rows apart
	key     []byte
	kinds   kinds // apart from those of what is used: who is refused is not to use these up
	timer   *time.Timer
	closed  bool
	writing sync.WaitGroup
}

type refusalSum struct {
	row store.Row
	by  [Blocked + 1]int64
}

const (
	refusalsEvery = time.Second
	// mostRefused is how many rows wait at most; beyond them refusals are only in the metrics.
	mostRefused = 10_000
)

// add notes a refusal for each row.
func (r *refusals) add(rows []store.Row, verdict Verdict) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	for i := range rows {
		row := &rows[i]
		r.key = binary.AppendUvarint(binary.AppendUvarint(r.key[:0], uint64(len(row.Owner))), uint64(len(row.Group)))
		r.key = append(append(append(r.key, row.Owner...), row.Group...), row.Dimensions...)
		sum := r.waiting[string(r.key)]
		if sum == nil {
			if len(r.waiting) >= mostRefused {
				r.lost(1)
				continue
			}
			sum = &refusalSum{row: *row}
			sum.row.Owner, sum.row.Group = bytes.Clone(row.Owner), bytes.Clone(row.Group)
			sum.row.Dimensions, sum.row.Add = bytes.Clone(row.Dimensions), nil
			if r.waiting == nil {
				r.waiting = make(map[string]*refusalSum)
			}
			r.waiting[string(r.key)] = sum
		}
		sum.by[verdict]++
	}
	if r.timer == nil && len(r.waiting) > 0 {
		r.writing.Add(1)
		r.timer = time.AfterFunc(refusalsEvery, func() {
			defer r.writing.Done()
			r.flush()
		})
	}
}

// flush writes what waits.
func (r *refusals) flush() {
	r.mu.Lock()
	waiting := r.waiting
	r.waiting, r.timer = nil, nil
	r.mu.Unlock()
	var rows []store.Row
	for _, sum := range waiting {
		all := int64(0)
		for verdict, n := range sum.by {
			if n > 0 {
				sum.row.Add = append(sum.row.Add, store.Addition{Column: columnRateLimited + uint8(verdict) - uint8(Throttled), Amount: n})
				all += n
			}
		}
		sum.row.Add = append(sum.row.Add, store.Addition{Column: columnRefusals, Amount: all})
		rows = append(rows, sum.row)
	}
	for len(rows) > 0 {
		n := min(len(rows), store.MaxRows)
		ctx, cancel := context.WithTimeout(context.Background(), refusalsEvery)
		if err := r.write(ctx, rows[:n]); err != nil {
			r.lost(int64(n))
		}
		cancel()
		rows = rows[n:]
	}
}

// close writes what waits, and takes no more.
func (r *refusals) close() {
	r.mu.Lock()
	r.closed = true
	stopped := r.timer != nil && r.timer.Stop()
	r.mu.Unlock()
	if stopped {
		r.flush()
		r.writing.Done()
	}
	r.writing.Wait()
}

// reportRefusal notes that a request was refused that asked to be let through.
func (e *Engine) reportRefusal(domain *policy.Domain, model string, s *scratch, d *Decision) {
	if !d.Over || len(domain.Limits()) == 0 {
		return
	}
	verdict := d.Verdict()
	if verdict < Throttled || verdict > Blocked {
		return
	}
	e.tellRefusal(domain, s, d, verdict)
	s.step.Rows = s.step.Rows[:0]
	var one addition
	one[columnRefusals] = 1
	of := part{limit.At(time.Now()), d.tierName(), model}
	if s.report(domain, of, &one); len(s.step.Rows) == 0 {
		return
	}
	rows, fresh := e.refusals.kinds.bound(s.step.Rows)
	if fresh {
		e.refusals.kinds.keep(rows)
	}
	e.refusals.add(rows, verdict)
}

// writeRows writes rows that belong to no decision.
func (e *Engine) writeRows(ctx context.Context, rows []store.Row) error {
	var out store.Outcome
	return e.store.Apply(ctx, &store.Step{Rows: rows}, &out)
}
