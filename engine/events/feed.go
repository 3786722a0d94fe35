package events

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/rationhq/ration/limit"
)

// feed reads the source for all who watch.
type feed struct {
	watchers int
	stop     context.CancelFunc
	ready    chan struct{} // closed once what is new can be told from what was
}

// restBetween is the least time between two looks at the source.
const restBetween = 20 * time.Millisecond

func (h *Hub) startFeed() *feed {
	ctx, stop := context.WithCancel(context.Background())
	f := &feed{stop: stop, ready: make(chan struct{})}
	h.running.Go(func() { h.run(ctx, f) })
	return f
}

// run tells what is new, until ctx ends.
func (h *Hub) run(ctx context.Context, f *feed) {
	notices := h.opts.Source.Notices(ctx)
	r := reader{source: h.opts.Source, began: limit.At(time.Now()), known: make(map[string]limit.Micros)}
	// What is there already is not new. If that cannot be read, what is read later is told by its time.
	_, err := r.read(ctx)
	if err != nil && ctx.Err() == nil {
		h.opts.Failed(err)
	}
	close(f.ready)
	for {
		pause := time.NewTimer(h.opts.Every/2 + rand.N(h.opts.Every)) //nolint:gosec // it spreads replicas, and hides nothing
		select {
		case <-ctx.Done():
			pause.Stop()
			return
		case _, ok := <-notices:
			if !ok {
				notices = nil
			}
		case <-pause.C:
		}
		pause.Stop()
		fresh, err := r.read(ctx)
		if err != nil {
			if ctx.Err() == nil {
				h.opts.Failed(err)
			}
		}
		h.mu.Lock()
		if h.feed == f {
			for i := range fresh {
				h.tell(&fresh[i])
			}
		}
		h.mu.Unlock()
		rest := time.NewTimer(restBetween)
		select {
		case <-ctx.Done():
		case <-rest.C:
		}
		rest.Stop()
	}
}

// reader reads what is new in a source.
type reader struct {
	source Source
	began  limit.Micros // by the clock of this process
	synced bool         // the source was read once
	newest limit.Micros
	known  map[string]limit.Micros // when those happened that were read and may be read again
}

// read returns what it has not read before; the first time what has happened since the reader began.
func (r *reader) read(ctx context.Context) (fresh []Event, err error) {
	ctx, cancel := context.WithTimeout(ctx, readWithin)
	defer cancel()
	all, err := r.source.Events(ctx, max(0, r.newest-overlap))
	if err != nil {
		return nil, err
	}
	for i := range all {
		e := &all[i]
		if _, ok := r.known[e.ID]; !ok && (r.synced || e.At >= r.began-again) {
			fresh = append(fresh, *e)
		}
		r.known[e.ID] = e.At
		r.newest = max(r.newest, e.At)
	}
	r.synced = true
	for id, at := range r.known {
		if at < r.newest-2*overlap {
			delete(r.known, id)
		}
	}
	return fresh, nil
}
