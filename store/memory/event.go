package memory

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

// event is one of a bucket of the shard that keeps it: so it is written with the bucket, in the same transaction.
type event struct {
	key       string // see eventKey: the bucket, the start and the threshold
	told      store.Event
	delivered bool
	dirty     bool // it has changed, and its shard's ledger names it
}

// eventID is a hash of what the key of an event says.
type eventID [20]byte

func idOfEvent(key string) (id eventID) {
	sum := sha256.Sum256([]byte(key[1:])) // without the kind of record that it is
	copy(id[:], sum[:])
	return id
}

// eventBytes is what an event takes beside its key and its label: itself, its ID in hex, and about its place in a map.
const eventBytes = int64(unsafe.Sizeof(event{})) + 2*int64(len(eventID{})) + 100

func (e *event) bytes() int64 { return eventBytes + int64(len(e.key)+len(e.told.Label)) }

// events are those of the buckets of a shard.
type events struct {
	all map[eventID]*event // nil if there never was one
	// due is the earliest instant from which one need not be kept any more.
	due limit.Micros
}

// add puts an event in, and returns about how many bytes it takes.
func (es *events) add(id eventID, e *event) (bytes int64) {
	if es.all == nil {
		es.all = make(map[eventID]*event)
	}
	e.told.ID = hex.EncodeToString(id[:])
	es.all[id] = e
	es.due = min(es.due, e.told.At+store.KeptEvents)
	return e.bytes()
}

// drop lets go of an event, and returns about how many bytes it took.
func (es *events) drop(id eventID, changes *ledger) (freed int64) {
	e := es.all[id]
	delete(es.all, id)
	changes.remove(e.key)
	return e.bytes()
}

// sweep drops what need not be kept any more, and returns how many events that were, and about how many bytes.
func (es *events) sweep(now limit.Micros, changes *ledger) (count, freed int64) {
	if now < es.due {
		return 0, 0
	}
	es.due = never
	for id, e := range es.all {
		if until := e.told.At + store.KeptEvents; until > now {
			es.due = min(es.due, until)
			continue
		}
		count++
		freed += es.drop(id, changes)
	}
	return count, freed
}

// outbox is what concerns the events of all shards.
type outbox struct {
	count atomic.Int64 // of events
	// trimming is held by whoever drops the oldest of too many.
	trimming sync.Mutex

	mu       sync.Mutex
	watchers map[chan struct{}]struct{}
	// deliverer is the one to deliver, before until.
	deliverer [16]byte
	until     limit.Micros
}

// tell makes the events of the step, whose ops are all written to the states.
func (d *decision) tell() {
	for i, at := range d.ops {
		if op := &d.step.Ops[i]; len(op.Thresholds) > 0 {
			d.tellOf(op, &d.work[at])
		}
	}
}

func (d *decision) tellOf(op *store.Op, w *work) {
	from, to := op.Spec.Crossed(&w.state, op.Thresholds)
	for which := from; which < to; which++ {
		w.wrote, d.told = true, true
		e := &event{
			key: eventKey(op.Owner, op.Bucket, w.state.At, op.Thresholds[which]),
			told: store.Event{
				At: d.now, Which: which, Threshold: op.Thresholds[which],
				Used: op.Spec.Describe(&w.state, w.now).Used, Limit: op.Spec.Limit,
				Start: w.state.At, End: w.state.End, Label: slices.Clone(op.Label),
			},
		}
		d.store.keepEvent(w.shard, e, d.now)
	}
}

// keepEvent keeps an event of a bucket of the shard, which is locked. Where there is one of the same bucket, period and
// threshold, the clock has stepped back, and that one stays.
func (s *Store) keepEvent(sh *shard, e *event, now limit.Micros) {
	id := idOfEvent(e.key)
	if sh.events.all[id] != nil {
		return
	}
	s.sweepEvents(sh, now)
	s.bytes.Add(sh.events.add(id, e))
	s.outbox.count.Add(1)
	sh.noteEvent(e)
}

// noteEvent notes that an event has changed.
func (sh *shard) noteEvent(e *event) {
	if sh.ledger.on && !e.dirty {
		e.dirty = true
		sh.ledger.dirty = append(sh.ledger.dirty, change{e.key, changeNow})
	}
}

// sweepEvents drops those of a shard, which is locked, that need not be kept any more.
func (s *Store) sweepEvents(sh *shard, now limit.Micros) {
	count, freed := sh.events.sweep(now, &sh.ledger)
	s.outbox.count.Add(-count)
	s.bytes.Add(-freed)
}

// freezeEvent makes the record of an event that has changed.
func (l *ledger) freezeEvent(es *events, c change, arena []byte) []byte {
	e := es.all[idOfEvent(c.key)]
	switch {
	case c.kind == changeRemoved:
		l.frozen = append(l.frozen, record{c.key, nil})
	case e != nil:
		e.dirty = false
		start := len(arena)
		arena = appendEvent(arena, c.key, e)
		l.frozen = append(l.frozen, record{c.key, arena[start:len(arena):len(arena)]})
	}
	return arena
}

// tooMany events are that many that all but store.MostEvents are dropped. So nobody looks for the oldest at each event.
const tooMany = store.MostEvents * 5 / 4

// told is called behind a step that has made events, when the locks of its buckets are let go.
func (s *Store) told() {
	if s.outbox.count.Load() > tooMany && s.outbox.trimming.TryLock() {
		s.trimEvents()
		s.outbox.trimming.Unlock()
	}
	s.outbox.mu.Lock()
	defer s.outbox.mu.Unlock()
	for c := range s.outbox.watchers {
		select {
		case c <- struct{}{}:
		default: // it is told already
		}
	}
}

// trimEvents drops all but the newest. One shard at a time is locked.
func (s *Store) trimEvents() {
	type place struct {
		at    limit.Micros
		id    eventID
		shard *shard
	}
	var all []place
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.Lock()
		for id, e := range sh.events.all {
			all = append(all, place{e.told.At, id, sh})
		}
		sh.mu.Unlock()
	}
	slices.SortFunc(all, func(a, b place) int { return cmp.Or(cmp.Compare(a.at, b.at), slices.Compare(a.id[:], b.id[:])) })
	for _, p := range all[:max(0, len(all)-store.MostEvents)] {
		p.shard.mu.Lock()
		s.journal.enter(&p.shard.ledger, p.shard)
		if p.shard.events.all[p.id] != nil { // unless it was swept meanwhile
			s.bytes.Add(-p.shard.events.drop(p.id, &p.shard.ledger))
			s.outbox.count.Add(-1)
		}
		p.shard.mu.Unlock()
	}
}

// Events implements store.Outbox.
func (s *Store) Events(ctx context.Context, since limit.Micros) ([]store.Event, error) {
	return s.someEvents(ctx, func(e *event) bool { return e.told.At >= since })
}

// Undelivered implements store.Outbox.
func (s *Store) Undelivered(ctx context.Context) ([]store.Event, error) {
	return s.someEvents(ctx, func(e *event) bool { return !e.delivered })
}

func (s *Store) someEvents(ctx context.Context, asked func(*event) bool) (list []store.Event, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if s.outbox.count.Load() == 0 {
		return nil, nil
	}
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.Lock()
		for _, e := range sh.events.all {
			if asked(e) {
				told := e.told
				told.Label = slices.Clone(told.Label)
				list = append(list, told)
			}
		}
		sh.mu.Unlock()
	}
	slices.SortFunc(list, func(a, b store.Event) int { return cmp.Or(cmp.Compare(a.At, b.At), cmp.Compare(a.ID, b.ID)) })
	return list, nil
}

// Delivered implements store.Outbox. With a directory, it is on disk when Delivered returns.
func (s *Store) Delivered(ctx context.Context, list []store.Event) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	ids := make([]eventID, 0, len(list))
	for i := range list {
		if id, err := hex.DecodeString(list[i].ID); err == nil && len(id) == len(eventID{}) {
			ids = append(ids, eventID(id))
		}
	}
	if err := s.journal.ready(); err != nil || len(ids) == 0 {
		return err
	}
	epoch := uint64(0)
	for i := range s.shards {
		epoch = max(epoch, s.deliveredOf(&s.shards[i], ids))
	}
	if s.journal == nil || epoch == 0 {
		return nil
	}
	return s.journal.wait(ctx, epoch)
}

// deliveredOf notes that the events of a shard with such IDs are delivered. It returns the epoch in which the last of
// them has changed, 0 if none has.
func (s *Store) deliveredOf(sh *shard, ids []eventID) (epoch uint64) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if len(sh.events.all) == 0 {
		return 0
	}
	s.journal.enter(&sh.ledger, sh)
	for _, id := range ids {
		if e := sh.events.all[id]; e != nil {
			e.delivered = true // perhaps again: then the one before may wait for the disk still
			sh.noteEvent(e)
			epoch = sh.ledger.epoch
		}
	}
	return epoch
}

// Deliver implements store.Outbox.
func (s *Store) Deliver(ctx context.Context, who [16]byte, lasts limit.Micros) (bool, error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	o := &s.outbox
	o.mu.Lock()
	defer o.mu.Unlock()
	now := s.clock()
	if now < o.until && who != o.deliverer {
		return false, nil
	}
	o.deliverer, o.until = who, now+lasts
	return true, nil
}

// Notices implements store.Outbox.
func (s *Store) Notices(ctx context.Context) <-chan struct{} {
	c := make(chan struct{}, 1)
	o := &s.outbox
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.watchers == nil {
		o.watchers = make(map[chan struct{}]struct{})
	}
	o.watchers[c] = struct{}{}
	context.AfterFunc(ctx, func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		delete(o.watchers, c)
	})
	return c
}
