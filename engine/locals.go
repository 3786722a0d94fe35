package engine

import (
	"sync"
	"time"

	"github.com/rationhq/ration/store"
)

// locals keeps the counters by which this process decides alone (`on_store_error: local`). They are made
// when they are first needed, and dropped when the store has decided everything for a while: not at
// once, else a store that comes and goes would hand out a new slice each time.
type locals struct {
	make func() store.Store // nil: there are none
	// needed says that the store is out, so that the counters stay even if nobody asks.
	needed func() bool

	mu     sync.Mutex
	store  store.Store
	used   time.Time
	expiry *time.Timer
	closed bool
}

// localKeeps is how long local counters are kept after they were last needed.
const localKeeps = time.Minute

// open returns the counters, nil if there can be none.
func (l *locals) open() store.Store {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.make == nil {
		return nil
	}
	if l.store == nil {
		l.store = l.make()
		l.expiry = time.AfterFunc(localKeeps, l.expire)
	}
	l.used = time.Now()
	return l.store
}

// opened returns the counters if there are some.
func (l *locals) opened() store.Store {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.store
}

func (l *locals) expire() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	if left := localKeeps - time.Since(l.used); left > 0 || l.needed() {
		l.expiry.Reset(max(left, localKeeps/10))
		return
	}
	l.drop()
}

func (l *locals) drop() {
	if l.store != nil {
		l.expiry.Stop()
		_ = l.store.Close() // it keeps nothing that could be lost
		l.store = nil
	}
}

func (l *locals) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	l.drop()
}
