package events

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rationhq/ration/limit"
)

// Options of a hub. The zero value is ready to use.
type Options struct {
	// Source has the events of thresholds; nil: there are none.
	Source Source
	// Failed hears why the source could not be read; nil: nobody does.
	Failed func(error)
	// Buffer is how many events wait for a watcher at most, before it is too slow; 0: 4,096.
	Buffer int
	// Every is how often the source is looked at, should notices be lost; 0: 5 s.
	Every time.Duration
	// RefusalsEvery is for how long refusals are added up; 0: a second.
	RefusalsEvery time.Duration
}

const (
	// mostWatchers is how many watch at the same time at most.
	mostWatchers = 1000
	// mostKept is how many events of each kind are kept that no source keeps.
	mostKept = 1000
	// readWithin bounds how long the source is waited for.
	readWithin = 5 * time.Second
	// overlap is how much earlier an event may have happened that is read later: a clock may step back.
	overlap = limit.Tolerance
	// again is of what time before a position events are told once more: they may have been written later.
	again = limit.Second
)

// Hub hands events to all who watch. It is safe for concurrent use. The zero Hub is not ready: see [New].
type Hub struct {
	opts    Options
	process string // tells its events from those of other processes
	running sync.WaitGroup

	// refusalWatchers is how many want to hear of refusals.
	refusalWatchers atomic.Int64

	mu       sync.Mutex
	watchers map[*Watcher]struct{}
	number   uint64           // of the last event that was published
	kept     map[Kind][]Event // the last that were published
	feed     *feed            // nil while nobody wants to hear of thresholds
	refusals refusals
	closed   bool
}

// New returns a hub that nobody watches yet.
func New(opts Options) *Hub {
	if opts.Buffer <= 0 {
		opts.Buffer = 4096
	}
	if opts.Every <= 0 {
		opts.Every = 5 * time.Second
	}
	if opts.RefusalsEvery <= 0 {
		opts.RefusalsEvery = time.Second
	}
	if opts.Failed == nil {
		opts.Failed = func(error) {}
	}
	var random [8]byte
	_, _ = rand.Read(random[:]) // never fails
	return &Hub{
		opts: opts, process: hex.EncodeToString(random[:]),
		watchers: make(map[*Watcher]struct{}), kept: make(map[Kind][]Event),
	}
}

// Close ends all watchers, and waits for what runs for them.
func (h *Hub) Close() {
	h.mu.Lock()
	h.closed = true
	for w := range h.watchers {
		h.remove(w, ErrClosed)
	}
	h.refusals.stop(&h.running)
	h.mu.Unlock()
	h.running.Wait()
}

// Publish tells an event of this process, which gets its ID and its time here.
func (h *Hub) Publish(e Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.publish(e)
}

func (h *Hub) publish(e Event) {
	if h.closed {
		return
	}
	h.number++
	e.At = limit.At(time.Now())
	e.ID = (&position{at: e.At, process: h.process, number: h.number}).String()
	kept := h.kept[e.Kind]
	if len(kept) >= mostKept {
		kept = append(kept[:0], kept[len(kept)-mostKept/2:]...) // seldom, so that each is moved once
	}
	h.kept[e.Kind] = append(kept, e)
	h.tell(&e)
}

// tell hands an event to those who want it. Whoever has no room left for it is told no more.
func (h *Hub) tell(e *Event) {
	for w := range h.watchers {
		if !w.takes(e) {
			continue
		}
		select {
		case w.next <- e:
		default:
			h.remove(w, ErrTooSlow)
		}
	}
}

// Watch begins to watch. What happens once it has returned is told.
//
// Errors: ErrPosition, ErrCrowded, ErrClosed; those of ctx, and of the source where it is asked for what it has kept.
func (h *Hub) Watch(ctx context.Context, want Want) (*Watcher, error) {
	var from position
	if want.After != "" {
		var err error
		if from, err = readPosition(want.After); err != nil {
			return nil, err
		}
	}
	w, thresholds, err := h.add(want)
	if err != nil {
		return nil, err
	}
	if err := w.begin(ctx, thresholds, from); err != nil {
		w.Close()
		return nil, err
	}
	return w, nil
}

// add adds a watcher, and begins what has to run for it. The feed is nil where it needs none.
func (h *Hub) add(want Want) (*Watcher, *feed, error) {
	w := &Watcher{hub: h, want: want, kinds: make(map[Kind]bool), next: make(chan *Event, h.opts.Buffer)}
	for _, k := range want.Kinds {
		w.kinds[k] = true
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.closed:
		return nil, nil, ErrClosed
	case len(h.watchers) >= mostWatchers:
		return nil, nil, ErrCrowded
	}
	h.watchers[w] = struct{}{}
	w.from = position{at: limit.At(time.Now()), process: h.process, number: h.number}
	if w.kinds[Refusal] {
		h.refusalWatchers.Add(1)
	}
	if !w.kinds[Threshold] || h.opts.Source == nil {
		return w, nil, nil
	}
	if h.feed == nil {
		h.feed = h.startFeed()
	}
	h.feed.watchers++
	return w, h.feed, nil
}

// remove ends a watcher, if it has not ended.
func (h *Hub) remove(w *Watcher, why error) {
	if _, ok := h.watchers[w]; !ok {
		return
	}
	delete(h.watchers, w)
	w.why = why
	close(w.next)
	if w.kinds[Refusal] {
		h.refusalWatchers.Add(-1)
	}
	if w.kinds[Threshold] && h.feed != nil {
		if h.feed.watchers--; h.feed.watchers == 0 {
			h.feed.stop()
			h.feed = nil
		}
	}
}

// begin waits until nothing new can be missed, and reads what is kept since a position.
func (w *Watcher) begin(ctx context.Context, thresholds *feed, from position) error {
	if thresholds != nil {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-thresholds.ready:
		}
	}
	if w.want.After == "" {
		return nil
	}
	if thresholds != nil || from.threshold != "" {
		if err := w.readKept(ctx, thresholds != nil, &from); err != nil {
			return err
		}
	}
	w.hub.mu.Lock()
	for _, published := range w.hub.kept {
		for i := range published {
			if e := published[i]; from.before(&e) && e.ID != w.want.After && w.takes(&e) {
				w.kept = append(w.kept, e)
			}
		}
	}
	w.hub.mu.Unlock()
	inOrder(w.kept)
	w.told = make(map[string]bool, len(w.kept))
	for i := range w.kept {
		w.told[w.kept[i].ID] = true
	}
	return nil
}

// readKept reads what the source keeps since a position, and when that was, where it was the event of a threshold.
func (w *Watcher) readKept(ctx context.Context, thresholds bool, from *position) error {
	source := w.hub.opts.Source
	if source == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, readWithin)
	defer cancel()
	since := limit.Micros(0)
	if from.threshold == "" {
		since = max(0, from.at-overlap) // it is by the clock of the process, not of the source
	}
	all, err := source.Events(ctx, since)
	if err != nil {
		return err
	}
	if from.threshold != "" {
		for i := range all {
			if all[i].ID == from.threshold {
				from.at = all[i].At
				since = from.at - again
			}
		}
	}
	for i := range all {
		if e := &all[i]; thresholds && e.At >= since && e.ID != w.want.After && w.takes(e) {
			w.kept = append(w.kept, *e)
		}
	}
	return nil
}

// before says that an event that was published comes behind the position, or may.
func (p *position) before(e *Event) bool {
	if of, err := readPosition(e.ID); err == nil && of.process == p.process {
		return of.number > p.number
	}
	return e.At >= p.at-again
}
