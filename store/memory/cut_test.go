package memory

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

// pairs is a disk that looks at what it is given: buckets that are always charged together, and their events.
type pairs struct {
	t     *testing.T
	turns int
	left  map[string]int64 // of each pair, what was written last of its left bucket
	right map[string]int64
	// highest is the highest threshold that each bucket was told of, by its record, and told by its events, of which
	// there are so many.
	highest, told map[string]int64
	events        int
}

func (p *pairs) close() error { return nil }

func (p *pairs) write(records []record) error {
	if len(records) > 0 {
		p.turns++
	}
	for _, r := range records {
		if r.key[0] == keyEvent {
			p.event(r)
		}
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
		if told := b.state.Entered - 1; told > 0 {
			p.highest[r.key[1:]] = told
		}
	}
	for pair, left := range p.left {
		if right := p.right[pair]; left != right {
			p.t.Errorf("transaction %d: %s has %d on the left and %d on the right: a step is in it in part",
				p.turns, pair, left, right)
		}
	}
	if !maps.Equal(p.told, p.highest) {
		p.t.Errorf("transaction %d: the buckets were told of %v, and the events say %v", p.turns, p.highest, p.told)
	}
	return nil
}

func (p *pairs) event(r record) {
	content, err := checked(r.key, r.value)
	if err == nil {
		err = decodeEvent(content, &event{})
	}
	_, _, _, threshold, ok := splitEventKey(r.key)
	if err != nil || !ok {
		p.t.Errorf("an event is not readable: %v", err)
	}
	bucket := r.key[1 : len(r.key)-eventTail]
	p.told[bucket] = max(p.told[bucket], threshold)
	p.events++
}

// Every transaction holds whole steps only, with their events, however often it is cut, and at last all of them.
func TestTransactionsHoldWholeSteps(t *testing.T) {
	s := newStore(Options{})
	for i := range s.shards {
		s.shards[i].ledger.on, s.leases[i].ledger.on = true, true
	}
	s.journal = newJournal()
	disk := &pairs{
		t: t, left: map[string]int64{}, right: map[string]int64{}, highest: map[string]int64{}, told: map[string]int64{},
	}
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
				if len(out.Results) > 0 { // it is told of about every 2000th that is used
					op.Thresholds = []int64{out.Results[0].Used/2000*2000 + 2000}
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
	if n := int(s.outbox.count.Load()); n < 100 || disk.events != n {
		t.Errorf("%d events are on disk, of %d: want all, and at least 100", disk.events, n)
	}
	t.Logf("%d steps in %d transactions, %d events are kept", steps.Load(), disk.turns, disk.events)
}
