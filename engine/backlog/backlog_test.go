package backlog_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rationhq/ration/engine/backlog"
	"github.com/rationhq/ration/store"
)

// taker is a store that notes what it takes, or fails.
type taker struct {
	mu     sync.Mutex
	fail   func(step *store.Step) error // nil: it takes all
	taken  []string
	asked  atomic.Int64
	atOnce atomic.Int64 // steps under way
	most   atomic.Int64
}

func (k *taker) apply(_ context.Context, step *store.Step, _ *store.Outcome) error {
	k.asked.Add(1)
	k.most.Store(max(k.most.Load(), k.atOnce.Add(1)))
	time.Sleep(time.Millisecond)
	defer k.atOnce.Add(-1)
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.fail != nil {
		if err := k.fail(step); err != nil {
			return err
		}
	}
	k.taken = append(k.taken, fmt.Sprintf("%d:%d", step.Lease.ID[0], step.Ops[0].Amount))
	return nil
}

func (k *taker) set(fail func(*store.Step) error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.fail = fail
}

func newBacklog(t *testing.T, k *taker, opts backlog.Options) *backlog.Backlog {
	t.Helper()
	opts.Apply, opts.Unwritten = k.apply, func(error) bool { return true }
	b := backlog.New(opts)
	t.Cleanup(func() { b.Close() })
	return b
}

func full(*store.Step) error { return store.ErrFull }

// Reports of one request land in their order, whatever fails; those of others do not wait for them.
func TestOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &taker{}
		k.set(func(step *store.Step) error {
			if step.Lease.ID[0] == 7 {
				return store.ErrCorrupt
			}
			return nil
		})
		b := newBacklog(t, k, backlog.Options{Most: 1000, MostBytes: 1 << 20})
		for amount := range int64(5) {
			for request := range 10 {
				b.Put(settlement(request, amount), false, nil)
			}
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := b.Stats(); got.Waiting != 5 || got.Landed != 45 {
			t.Errorf("%+v, want 45 landed and the 5 of the request that cannot land", got)
		}
		k.set(nil)
		time.Sleep(time.Minute)
		synctest.Wait()
		for request := range 10 {
			got := slices.DeleteFunc(slices.Clone(k.taken), func(s string) bool { return s[0] != byte('0'+request) })
			want := []string{}
			for amount := range 5 {
				want = append(want, fmt.Sprintf("%d:%d", request, amount))
			}
			if !slices.Equal(got, want) {
				t.Errorf("request %d: %v, want %v", request, got, want)
			}
		}
	})
}

// A store that fails is asked once a second or so, by one; one that is back soon by many, and by no more than a bound.
func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &taker{}
		k.set(full)
		b := newBacklog(t, k, backlog.Options{Most: 10_000, MostBytes: 100 << 20})
		for request := range 2000 {
			b.Put(settlement(request, 1), false, nil)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if asked, most := k.asked.Load(), k.most.Load(); asked < 40 || asked > 150 || most != 1 {
			t.Errorf("the store was asked %d times in a minute, %d times at once: want about 65, one after the other", asked, most)
		}
		k.set(nil)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if got := b.Stats(); got.Waiting > 0 || got.Landed != 2000 || got.Bytes != 0 {
			t.Errorf("%+v, want all landed", got)
		}
		if most := k.most.Load(); most != 16 {
			t.Errorf("%d were put at once, want 16", most)
		}
	})
}

// However many need a damaged counter, what does not need it lands soon behind them; and they are not tried all the time.
func TestManyDamaged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const damaged = 2_000
		k := &taker{}
		k.set(func(step *store.Step) error {
			if step.Ops[0].Amount == 1 {
				return store.ErrCorrupt
			}
			return nil
		})
		b := newBacklog(t, k, backlog.Options{Most: 2 * damaged, MostBytes: 1 << 30})
		for range damaged {
			step := settlement(1, 1)
			step.Lease.ID = backlog.NewID()
			b.Put(step, false, nil)
		}
		b.Put(settlement(2, 2), false, nil)
		time.Sleep(30 * time.Second)
		if got := b.Stats(); got.Landed != 1 || got.Waiting != damaged {
			t.Errorf("%d have landed and %d wait, want 1 and %d", got.Landed, got.Waiting, damaged)
		}
		before := k.asked.Load()
		time.Sleep(time.Minute)
		if tries := k.asked.Load() - before; tries > 60*600 {
			t.Errorf("%d tries in a minute", tries)
		}
	})
}

// No more is kept than may be: by number, and by what it takes.
func TestBounds(t *testing.T) {
	large := settlement(1, 1)
	large.Ops[0].Label = make([]byte, 4<<10)
	for name, c := range map[string]struct {
		opts backlog.Options
		step *store.Step
		want int
	}{
		"number": {backlog.Options{Most: 3, MostBytes: 1 << 20}, settlement(1, 1), 3},
		"memory": {backlog.Options{Most: 100, MostBytes: 10 << 10}, large, 2},
	} {
		synctest.Test(t, func(t *testing.T) {
			k := &taker{}
			k.set(full)
			lost := 0
			c.opts.Lost = func(backlog.Cause, error) { lost++ }
			b := newBacklog(t, k, c.opts)
			taken := 0
			for range 10 {
				if b.Put(c.step, false, nil) {
					taken++
				}
			}
			if taken != c.want || lost != 10-c.want || b.Stats().Waiting != c.want {
				t.Errorf("%s: %d are taken, %d lost, %+v: want %d taken", name, taken, lost, b.Stats(), c.want)
			}
			if held := b.Stats().Bytes; held > c.opts.MostBytes {
				t.Errorf("%s: %d bytes, want at most %d", name, held, c.opts.MostBytes)
			}
		})
	}
}

// What is put may be used again at once by who has put it.
func TestCopies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &taker{}
		b := newBacklog(t, k, backlog.Options{Most: 10, MostBytes: 1 << 20})
		step := &store.Step{
			Ops: []store.Op{{
				Bucket: []byte("bucket"), Owner: []byte("owner"), Label: []byte("label"), Thresholds: []int64{1}, Amount: 5, Kind: store.Settle,
			}},
			Rows:  []store.Row{{Owner: []byte("owner"), Group: []byte("group"), Dimensions: []byte("dim"), Add: []store.Addition{{Column: 1, Amount: 2}}}},
			Lease: &store.Lease{ID: store.LeaseID{9}, Do: store.LeaseSettle, Actual: []int64{3}, Note: []byte("note")},
		}
		said := func(s *store.Step) string { return fmt.Sprintf("%v %v %v", s.Ops, s.Rows, *s.Lease) }
		want, got := said(step), ""
		k.set(func(s *store.Step) error { got = said(s); return nil })
		b.Put(step, false, nil)
		for _, text := range [][]byte{
			step.Ops[0].Bucket, step.Ops[0].Owner, step.Ops[0].Label, step.Rows[0].Owner, step.Rows[0].Group, step.Rows[0].Dimensions, step.Lease.Note,
		} {
			clear(text)
		}
		clear(step.Ops[0].Thresholds)
		clear(step.Rows[0].Add)
		clear(step.Lease.Actual)
		clear(step.Ops)
		clear(step.Rows)
		*step.Lease = store.Lease{}
		time.Sleep(time.Minute)
		synctest.Wait()
		if got != want {
			t.Errorf("it has landed as\n%s\nwant\n%s", got, want)
		}
	})
}

// A report that another one has come before lands beside it, by an id of its own; what the store can never take is lost.
func TestConflictAndRejection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &taker{}
		first := settlement(1, 1).Lease.ID
		k.set(func(step *store.Step) error {
			switch {
			case step.Lease.ID == first:
				return store.ErrConflict
			case step.Ops[0].Amount == 2:
				return store.ErrInvalid
			}
			return nil
		})
		var lost []backlog.Cause
		b := newBacklog(t, k, backlog.Options{Most: 10, MostBytes: 1 << 20, Lost: func(c backlog.Cause, _ error) { lost = append(lost, c) }})
		landed := 0
		b.Put(settlement(1, 1), false, func(*store.Outcome) { landed++ })
		b.Put(settlement(2, 2), false, nil)
		time.Sleep(time.Minute)
		synctest.Wait()
		if landed != 1 || len(k.taken) != 1 {
			t.Errorf("landed: %d, as %v, want the one beside", landed, k.taken)
		}
		if !slices.Equal(lost, []backlog.Cause{backlog.Rejected}) {
			t.Errorf("lost: %v, want one that was rejected", lost)
		}
	})
}
