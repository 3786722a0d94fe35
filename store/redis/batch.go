package redis

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

const (
	// batchKeys bounds the keys of one batch: more save nothing in Redis and make everybody wait.
	batchKeys = 64
	// rowWeight is how many keys a row counts for in it.
	rowWeight = 2
	// batchesInFlight bounds the batches that one node works on at a time. Beyond the first only
	// full ones are sent: a distant Redis is kept busy, and a near one gets large batches.
	batchesInFlight = 8
)

// call is one step, or the part of it that lives in one shard, on its way to Redis.
type call struct {
	shard uint16
	// keys are those that the script reads as KEYS; beside lie in a cluster what else it may look at.
	keys, beside []string
	weight       int    // how many keys it counts for in a batch
	step         []byte // as the script reads it
	since        time.Time

	// taken is set by whoever gets there first: the batch that sends the call, or the caller that
	// gives up on it. A call that was given up before it was sent was never written.
	taken atomic.Bool

	// What the script said: at which instant, and either the answer, whose size is known beforehand,
	// or that the step has to be sent again, with newer windows and the calendars that it needs; or,
	// where more holds were due than lapse at once, as it is.
	now    limit.Micros
	size   int
	answer string
	noted  bool // the lease's note stands before the answer
	note   string
	again  bool
	more   bool
	need   []string
	err    error
	done   chan struct{}
}

func (c *call) finish(err error) {
	c.err = err
	close(c.done)
}

// batcher sends calls to one node of Redis. A call that finds nothing under way is sent at once;
// those that come meanwhile are the next batch. There is no timer: an idle store answers
// immediately, and a busy one forms large batches by itself.
type batcher struct {
	client  *redis.Client
	timeout time.Duration
	// perShard: keys of different shards may not meet in one run of the script (Redis Cluster).
	perShard bool
	// replicas is how many have to have what was written before it is answered.
	replicas int
	// fakeNow is the suite's clock; nil in production, where Redis's own counts.
	fakeNow func() limit.Micros

	mu       sync.Mutex
	waiting  []*call
	keys     int // of the calls that wait
	inFlight int

	batches chan []*call
	stop    chan struct{}
	workers sync.WaitGroup

	// ahead is how far Redis's clock is ahead of this process's, in µs.
	ahead atomic.Int64
}

func newBatcher(client *redis.Client, perShard bool, opts *Options) *batcher {
	b := &batcher{
		client: client, timeout: opts.Timeout, perShard: perShard, replicas: opts.WaitReplicas, fakeNow: opts.Clock,
		batches: make(chan []*call, batchesInFlight), stop: make(chan struct{}),
	}
	for range batchesInFlight {
		b.workers.Go(b.work)
	}
	return b
}

func (b *batcher) close() {
	close(b.stop)
	b.workers.Wait()
}

// now estimates Redis's clock. The script refuses windows that the estimate got wrong.
func (b *batcher) now() limit.Micros {
	if b.fakeNow != nil {
		return b.fakeNow()
	}
	return limit.At(time.Now()) + limit.Micros(b.ahead.Load())
}

// send sends c, with others, and waits for its end.
func (b *batcher) send(ctx context.Context, c *call) error {
	b.mu.Lock()
	b.waiting = append(b.waiting, c)
	b.keys += c.weight
	var batch []*call
	if b.inFlight == 0 || b.keys >= batchKeys && b.inFlight < batchesInFlight {
		b.inFlight++
		batch = b.take()
	}
	b.mu.Unlock()
	if batch != nil {
		b.batches <- batch // has room for as many as may be in flight
	}
	select {
	case <-c.done:
		return c.err
	case <-ctx.Done():
		// Not yet sent, nothing is written; on its way, nobody knows.
		c.taken.Store(true)
		return ctx.Err()
	case <-b.stop:
		return fmt.Errorf("%w: it is closed", store.ErrUnavailable)
	}
}

// take returns the next batch of the calls that wait. b.mu is held.
func (b *batcher) take() []*call {
	n, keys := 0, 0
	for n < len(b.waiting) && (n == 0 || keys+b.waiting[n].weight <= batchKeys) {
		keys += b.waiting[n].weight
		n++
	}
	batch := b.waiting[:n:n]
	b.waiting = b.waiting[n:]
	b.keys -= keys
	return batch
}

// next returns the batch that follows one that is done, or nil if none has to.
func (b *batcher) next() []*call {
	// Those who just got their answers may have something new to ask: they go first, so that the
	// batch becomes larger.
	runtime.Gosched()
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.waiting) == 0 || b.inFlight > 1 && b.keys < batchKeys {
		b.inFlight--
		return nil
	}
	return b.take()
}

func (b *batcher) work() {
	for {
		select {
		case batch := <-b.batches:
			for batch != nil {
				b.run(batch)
				batch = b.next()
			}
		case <-b.stop:
			return
		}
	}
}

// run sends a batch and hands out its answers.
func (b *batcher) run(batch []*call) {
	live := batch[:0]
	for _, c := range batch {
		switch {
		case !c.taken.CompareAndSwap(false, true):
		case time.Since(c.since) > b.timeout:
			// Redis has stalled: better an answer now than another wait for one.
			c.finish(errQueue)
		default:
			live = append(live, c)
		}
	}
	if len(live) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), b.timeout)
	defer cancel()
	if b.perShard {
		b.decide(ctx, b.client, false, byShard(live))
	} else {
		b.decide(ctx, b.client, false, [][]*call{live})
	}
}

func byShard(calls []*call) [][]*call {
	var groups [][]*call
	place := make(map[uint16]int, len(calls))
	for _, c := range calls {
		i, ok := place[c.shard]
		if !ok {
			i = len(groups)
			place[c.shard] = i
			groups = append(groups, nil)
		}
		groups[i] = append(groups[i], c)
	}
	return groups
}

var errQueue = fmt.Errorf("%w: Redis does not keep up, the call was not sent", store.ErrUnavailable)
