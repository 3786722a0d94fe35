package memory

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

// pairs is a disk that looks at what it is given: buckets that are always charged together.
type pairs struct {
	t     *testing.T
	turns int
	left  map[string]int64 // of each pair, what was written last of its left bucket
	right map[string]int64
}

func (p *pairs) close() error { return nil }

func (p *pairs) write(records []record) error {
	if len(records) > 0 {
		p.turns++
	}
	for _, r := range records {
		if r.key[0] != keyBucket {
			continue
		}
		content, err := checked(r.key, r.value)
		var b bucket
		if err == nil {
			err = decodeBucket(content, &b)
		}
		if err != nil {
			p.t.Error(err)
		}
		side, pair := splitBucketKey(r.key)
		if side == "left" {
			p.left[pair] = b.state.Count
		} else {
			p.right[pair] = b.state.Count
		}
	}
	for pair, left := range p.left {
		if right := p.right[pair]; left != right {
			p.t.Errorf("transaction %d: %s has %d on the left and %d on the right: a step is in it in part",
				p.turns, pair, left, right)
		}
	}
	return nil
}

// Every transaction holds whole steps only, however often it is cut, and at last all of them.
func TestTransactionsHoldWholeSteps(t *testing.T) {
	s := newStore(Options{})
	for i := range s.shards {
		s.shards[i].ledger.on, s.leases[i].ledger.on = true, true
	}
	s.journal = newJournal()
	disk := &pairs{t: t, left: map[string]int64{}, right: map[string]int64{}}
	f := &flusher{store: s, disk: disk, stop: make(chan struct{})}
	const callers, turns = 4, 1000
	var spending sync.WaitGroup
	var steps atomic.Int64
	var over atomic.Bool
	for caller := range callers {
		spending.Go(func() {
			var out store.Outcome
			for n := 0; !over.Load(); n++ {
				pair := []byte(fmt.Sprint("pair ", n%3))
				op := store.Op{
					Owner: []byte("left"), Bucket: pair, Manner: limit.Strict, Amount: 1,
					Spec: limit.Spec{Algorithm: limit.FixedWindow, FirstUse: true, Limit: 1 << 40, Window: 1 << 45},
				}
				right := op
				right.Owner = []byte("right")
				step := &store.Step{Ops: []store.Op{op, right}}
				if caller%2 == 1 {
					step.Ops[0], step.Ops[1] = right, op
				}
				if err := s.Apply(context.Background(), step, &out); err != nil || out.Refused {
					t.Errorf("apply: %v, refused %v", err, out.Refused)
				}
				steps.Add(1)
			}
		})
	}
	for flushes := 0; disk.turns < turns && !t.Failed(); flushes++ {
		if flushes > 100*turns {
			t.Errorf("%d flushes, and only %d transactions", flushes, disk.turns)
		}
		if err := f.flush(); err != nil {
			t.Fatal(err)
		}
	}
	over.Store(true)
	spending.Wait()
	if err := f.flush(); err != nil {
		t.Fatal(err)
	}
	sum := disk.left["pair 0"] + disk.left["pair 1"] + disk.left["pair 2"]
	if !t.Failed() && sum != steps.Load() {
		t.Errorf("%d steps are on disk, want %d", sum, steps.Load())
	}
	t.Logf("%d steps in %d transactions", steps.Load(), disk.turns)
}
