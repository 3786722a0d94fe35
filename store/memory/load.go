package memory

import (
	"container/heap"
	"errors"
	"fmt"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

// loader rebuilds a store from its records, before anybody else sees the store.
type loader struct {
	store     *Store
	now       limit.Micros
	calendars calendars
	lapsed    map[string]bool // keys of holds that have lapsed without their lease
}

func (l *loader) add(key string, content []byte) error {
	switch {
	case key[0] == keyBucket && validBucketKey(key):
		return l.bucket(key, content)
	case key[0] == keyLapse && len(key) == len(lapseKey(store.LeaseID{}, 0)) && len(content) == 0:
		l.lapsed[key] = true
		return nil
	case key[0] == keyEvent:
		return l.event(key, content)
	case key[0] == keyRow:
		return l.row(key, content)
	case key[0] == keyLease && len(key) == len(leaseKey(store.LeaseID{})):
		return l.lease(key, content)
	}
	return errors.New("it is of no kind that is known")
}

func (l *loader) bucket(key string, content []byte) error {
	var read bucket
	if err := decodeBucket(content, &read); err != nil {
		return err
	}
	owner, name := splitBucketKey(key)
	sh := &l.store.shards[l.store.shardOf([]byte(owner), []byte(name))]
	if l.now >= read.idle() {
		sh.ledger.remove(key)
		return nil
	}
	b, bytes := sh.create([]byte(owner), []byte(name))
	bytes -= b.bytes()
	b.state, b.life = read.state, read.life|stored
	sh.due = min(sh.due, b.idle())
	l.store.bytes.Add(bytes + b.bytes())
	return nil
}

func (l *loader) event(key string, content []byte) error {
	read := &event{key: key}
	if err := decodeEvent(content, read); err != nil {
		return err
	}
	owner, name, start, threshold, ok := splitEventKey(key)
	if !ok {
		return errContent
	}
	read.told.Start, read.told.Threshold = start, threshold
	sh := &l.store.shards[l.store.shardOf([]byte(owner), []byte(name))]
	if l.now >= read.told.At+store.KeptEvents {
		sh.ledger.remove(key)
		return nil
	}
	l.store.bytes.Add(sh.events.add(idOfEvent(key), read))
	l.store.outbox.count.Add(1)
	return nil
}

func (l *loader) row(key string, content []byte) error {
	var read row
	until, err := decodeRow(content, &read)
	if err != nil {
		return err
	}
	name, number, owner, dimensions, ok := splitRowKey(key)
	if !ok {
		return errContent
	}
	sh, st := &l.store.shards[l.store.shardOf([]byte(owner), nil)], &l.store.stripes[number]
	u, changes := &sh.usage, &sh.ledger
	if name.kind&ofGroup != 0 {
		u, changes = &st.usage, &st.ledger
	}
	if l.now >= until {
		changes.remove(key)
		return nil
	}
	t, r, bytes := u.create([]byte(name.group), name.kind, name.start, []byte(owner), []byte(dimensions))
	r.columns, r.sums = read.columns, read.sums
	u.keep(t, until)
	l.store.bytes.Add(bytes + sumBytes*int64(len(r.sums)))
	return nil
}

func (l *loader) lease(key string, content []byte) error {
	read := &lease{id: leaseOf(key)}
	if err := decodeLease(content, read, l.calendars); err != nil {
		return err
	}
	sh := l.store.leaseShard(read.id)
	sh.leases[read.id] = read
	sh.note(read)
	l.store.bytes.Add(read.bytes())
	for i := range read.holds {
		h := &read.holds[i]
		key := lapseKey(read.id, i)
		if !l.lapsed[key] && read.ended == live {
			l.hold(h)
		}
		delete(l.lapsed, key)
	}
	return nil
}

// hold lets a hold live on. Where its bucket is gone, it has ended with it: another bucket of the
// name must not find it.
func (l *loader) hold(h *hold) {
	sh := &l.store.shards[l.store.shardOf(h.owner(), h.bucket())]
	b := sh.find(h.owner(), h.bucket())
	if b == nil {
		sh.ledger.lapse(h)
		return
	}
	if b.holds == nil {
		b.holds = &holds{}
	}
	b.holds.made = max(b.holds.made, h.made)
	b.holds.latest = max(b.holds.latest, h.due)
	heap.Push(&b.holds.heap, h)
}

// end forgets lapses of holds whose leases are gone.
func (l *loader) end() {
	for key := range l.lapsed {
		l.store.leaseShard(leaseOf(key)).ledger.remove(key)
	}
}

// load opens the directory and fills the store, which nobody else uses yet.
func (s *Store) load(dir string) (*disk, error) {
	for i := range s.shards {
		s.shards[i].ledger.on, s.leases[i].ledger.on = true, true
	}
	for i := range s.stripes {
		s.stripes[i].ledger.on = true
	}
	l := &loader{store: s, now: s.clock(), calendars: calendars{}, lapsed: map[string]bool{}}
	d, err := openDisk(dir, l.add)
	if err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	l.end()
	return d, nil
}
