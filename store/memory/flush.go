package memory

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"go.etcd.io/bbolt"

	"github.com/rationhq/ration/store"
)

const (
	// flushEvery is how often changes go to disk for which nobody waits. With the time that it takes to
	// write them, none is older than 100 ms.
	flushEvery = 50 * time.Millisecond
	// retryEvery is how often a disk is tried again that has failed.
	retryEvery = 500 * time.Millisecond
)

// writer is where records go: a disk.
type writer interface {
	// write writes records, each key once, all or none.
	write(records []record) error
	close() error
}

// flusher writes to disk what has changed.
type flusher struct {
	store *Store
	disk  writer
	log   *slog.Logger

	stop    chan struct{}
	stopped sync.WaitGroup
	// pending could not be written yet, and takes so many bytes of the store's memory.
	pending []record
	bytes   int64
}

func (f *flusher) run() {
	ticker := time.NewTicker(flushEvery)
	defer ticker.Stop()
	var failed time.Time
	for {
		select {
		case <-f.stop:
			return
		case <-ticker.C:
		case <-f.store.journal.wake:
		}
		if !failed.IsZero() && time.Since(failed) < retryEvery {
			continue
		}
		if f.flush() == nil {
			failed = time.Time{}
		} else {
			failed = time.Now()
		}
	}
}

// flush writes all that has changed until now: see journal.
func (f *flusher) flush() error {
	j := f.store.journal
	next := j.epoch.Add(1)
	records := f.pending
	for i := range f.store.shards {
		sh := &f.store.shards[i]
		sh.mu.Lock()
		records = append(records, sh.ledger.take(next, sh)...)
		sh.mu.Unlock()
	}
	for i := range f.store.leases {
		sh := &f.store.leases[i]
		sh.mu.Lock()
		records = append(records, sh.ledger.take(next, sh)...)
		sh.mu.Unlock()
	}
	for i := range f.store.stripes {
		st := &f.store.stripes[i]
		st.mu.Lock()
		records = append(records, st.ledger.take(next, st)...)
		st.mu.Unlock()
	}
	records = newest(records)
	err := f.disk.write(records)
	f.keep(records, err)
	f.tell(err)
	j.publish(next-1, err != nil)
	return err
}

// newest returns the last record of each key, in the order of keys.
func newest(records []record) []record {
	slices.SortStableFunc(records, func(a, b record) int { return strings.Compare(a.key, b.key) })
	kept := records[:0]
	for i := range records {
		if i+1 == len(records) || records[i].key != records[i+1].key {
			kept = append(kept, records[i])
		}
	}
	return kept
}

// keep holds on to what could not be written. It counts as memory of the store.
func (f *flusher) keep(records []record, err error) {
	before := f.bytes
	f.pending, f.bytes = nil, 0
	if err != nil {
		f.pending = records
		for i := range records {
			f.bytes += int64(len(records[i].key) + len(records[i].value) + 64)
		}
	}
	if f.bytes != before {
		f.store.bytes.Add(f.bytes - before)
	}
}

// tell lets steps know whether the disk can be written to, and logs when that changes.
func (f *flusher) tell(err error) {
	j := f.store.journal
	was := j.failing.Load()
	switch {
	case err != nil:
		why := fmt.Errorf("%w: its data directory cannot be written to: %w", store.ErrUnavailable, err)
		j.failing.Store(&why)
		if was == nil {
			f.log.LogAttrs(context.Background(), slog.LevelError,
				"the data directory cannot be written to: reservations fail, and what else changes is lost if the process ends",
				slog.Any("error", err))
		}
	case was != nil:
		j.failing.Store(nil)
		f.log.LogAttrs(context.Background(), slog.LevelWarn, "the data directory can be written to again")
	}
}

// close writes what is left, and what would be let go in a crash because it counts for less than a
// minute; then it lets go of the file.
func (f *flusher) close() error {
	close(f.stop)
	f.stopped.Wait()
	f.store.markAll()
	err := f.flush()
	f.store.journal.close()
	return errors.Join(err, f.disk.close())
}

// write writes records, each key once, in one transaction.
func (d *disk) write(records []record) (err error) {
	if len(records) == 0 {
		return nil
	}
	defer func() {
		if why := recover(); why != nil {
			err = fmt.Errorf("write to %s: %v", d.db.Path(), why)
		}
	}()
	return d.db.Update(func(tx *bbolt.Tx) error {
		all, meta := tx.Bucket(partRecords), tx.Bucket(partMeta)
		// Read again, for it is not known whether a transaction that has failed is there.
		now, err := decodeTally(meta.Get(keyTally))
		if err != nil {
			return err
		}
		now.turn++
		for _, r := range records {
			key, value := fold(r)
			if before := all.Get(key); before != nil {
				now.subtract(before)
				if value == nil {
					if err := all.Delete(key); err != nil {
						return err
					}
				}
			}
			if value != nil {
				now.add(value)
				if err := all.Put(key, value); err != nil {
					return err
				}
			}
		}
		return meta.Put(keyTally, now.append(nil))
	})
}

const (
	// longKey is the longest key that is written as it is. bbolt takes none above 32 KiB, and long ones
	// make its pages poor.
	longKey = 512
	// keyFolded begins what stands for a longer one, which then stands in front of its record. It comes
	// before all others.
	keyFolded = 'B'
)

// fold returns what stands on disk for a record.
func fold(r record) (key, value []byte) {
	if len(r.key) <= longKey {
		return []byte(r.key), r.value
	}
	sum := sha256.Sum256([]byte(r.key))
	key = append([]byte{keyFolded}, sum[:]...)
	if r.value != nil {
		value = append(binary.AppendUvarint(nil, uint64(len(r.key))), r.key...)
		value = append(value, r.value...)
	}
	return key, value
}

// unfold is the inverse of fold.
func unfold(key, value []byte) (string, []byte, error) {
	if len(key) == 0 {
		return "", nil, errContent
	}
	if key[0] != keyFolded {
		return string(key), value, nil
	}
	n, size := binary.Uvarint(value)
	if size <= 0 || n <= longKey || n > uint64(len(value)-size) {
		return "", nil, errContent
	}
	name := value[size : size+int(n)]
	if sum := sha256.Sum256(name); string(sum[:]) != string(key[1:]) {
		return "", nil, errContent
	}
	return string(name), value[size+int(n):], nil
}
