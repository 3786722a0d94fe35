package waiting

import (
	"context"
	"crypto/rand"
	"errors"
	"sync"
	"time"

	"github.com/rationhq/ration/lane"
	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

// Room is where callers of this process wait. It is safe for concurrent use. Close ends it.
type Room struct {
	lines    store.Lines
	patience time.Duration
	me       lane.ID

	alive  context.Context //nolint:containedctx // that of what goes on beside callers
	stop   context.CancelFunc
	behind sync.WaitGroup

	stopping chan struct{}
	once     sync.Once

	mu        sync.Mutex
	closed    bool
	listening bool
	byName    map[string]*line
	freed     map[string]*freed
	here      map[place]*presence
}

// New returns an empty room. A step in a line takes as long as patience at most; 0: as long as it takes.
func New(lines store.Lines, patience time.Duration) *Room {
	r := &Room{lines: lines, patience: patience, byName: make(map[string]*line), freed: make(map[string]*freed), here: make(map[place]*presence), stopping: make(chan struct{})}
	_, _ = rand.Read(r.me[:]) // never fails
	r.alive, r.stop = context.WithCancel(context.Background())
	return r
}

// ErrStopping says that this process stops, and that the place in line is kept for whoever comes for it by another one.
var ErrStopping = errors.New("this server stops: ask another one, with the same key, and the place in line is kept")

// Stop has everybody who waits stop waiting, with ErrStopping. Their places in line are kept for a while.
func (r *Room) Stop() { r.once.Do(func() { close(r.stopping) }) }

// Close ends what goes on beside callers. Nobody is called any more.
func (r *Room) Close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.stop()
	r.behind.Wait()
}

// Party is somebody who wants a turn.
type Party struct {
	// Line names the line, and Spec says how it orders.
	Line string
	Spec lane.Spec
	// Ticket is the place in it. Whoever comes with the same ID has the same place.
	Ticket lane.Ticket
	// Wait is how long to wait at most.
	Wait time.Duration
	// Pace is the least time from one turn to the next; 0: nobody knows.
	Pace time.Duration
	// Keep says that the party may come back with the same ticket when it has gone, so that its place is kept for a while.
	Keep bool
	// Look says, before it waits, what would come of trying but for what is waited for: Busy: waiting can help; Refused: it
	// cannot; Got: it is there already, whoever's turn it is. nil: waiting can help.
	Look func(context.Context) (Verdict, error)
	// Try asks for what is waited for, when it is its turn. It is told for how long it could still wait.
	Try func(ctx context.Context, left time.Duration) (Attempt, error)
	// Tell is told how the party stands, once a second; nil: nobody is. It must not take long.
	Tell func(Standing)
}

// Attempt is what came of trying.
type Attempt struct {
	Verdict Verdict
	// Until, where there was no room, is when there may be; where it was the last, when there is room again, 0 if nobody
	// knows.
	Until limit.Micros
	// Room is for how many more like it there is room, of one that got what it wants.
	Room int
}

// Verdict is what came of trying.
type Verdict uint8

// What may come of trying.
const (
	Got     Verdict = iota // what is waited for
	Refused                // for good: waiting does not help
	Busy                   // there was no room; there will be
	Unsure                 // nobody could say. Who waits already asks again after a while
)

// Standing is how somebody stands who waits.
type Standing struct {
	// Position is 1 for the next one; 0 where nobody knows.
	Position int
	// Waiting is how many do.
	Waiting int
	// Expected is how long it will take, as far as is known; 0: nobody knows.
	Expected time.Duration
}

// End is how waiting has ended.
type End uint8

// How waiting ends.
const (
	Tried          End = iota // it was the party's turn, and Try says what came of it
	TimedOut                  // it took too long
	Full                      // the line had no place
	FullForSubject            // the line had no more places for the subject
	TurnedAway                // it did not stay
)

// Result is how waiting has ended, and how the party stood then.
type Result struct {
	End
	Standing
	Waited time.Duration
}

// Wait has a party wait for its turn, and try when that comes, until it gets what it wants, is refused for good, or has
// waited long enough. Where nobody waits it tries at once. Where the store cannot say whose turn it is, everybody tries: what
// is waited for has its own limits.
//
// The error is that of Try or Look, or of ctx: the party has left the line then. Or it is ErrStopping.
func (r *Room) Wait(ctx context.Context, p *Party) (Result, error) {
	began := time.Now()
	t := &turn{
		party: p, room: r, until: began.Add(p.Wait), place: place{p.Line, p.Ticket.ID}, called: make(chan struct{}, 1), stands: make(chan Standing, 1),
	}
	t.arrive()
	result, last, err := t.wait(ctx)
	t.end(last)
	result.Waited = time.Since(began)
	return result, err
}

// bounded returns the context of one step.
func (r *Room) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if r.patience == 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, r.patience)
}

// step performs a step in a line, and calls those here whose turn it is.
func (r *Room) step(ctx context.Context, name string, spec *lane.Spec, step *lane.Step) (lane.Outcome, error) {
	step.Waiter = r.me
	ctx, cancel := r.bounded(ctx)
	defer cancel()
	out, err := r.lines.Line(ctx, []byte(name), spec, step)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		if l := r.byName[name]; l != nil {
			l.unsure = true
		}
		return out, err
	}
	r.heard(name, &out)
	return out, nil
}

// listen begins to hear of calls. r.mu is held.
func (r *Room) listen() {
	if r.listening || r.closed {
		return
	}
	r.listening = true
	calls := r.lines.Called(r.alive, r.me)
	r.behind.Go(func() {
		for {
			select {
			case c := <-calls:
				r.mu.Lock()
				r.hear(place{c.Line, c.Ticket})
				r.mu.Unlock()
			case <-r.alive.Done():
				return
			}
		}
	})
}

// freed is what is to be told a line of room that has come.
type freed struct {
	spec  lane.Spec
	room  int
	hurry chan struct{} // holds one: somebody waits here
}

// rest is how long a line is told nothing in which nobody waited a moment ago: most lines are never waited in, and calls
// end all the time. Who comes meanwhile, by another process, hears of room so much later at most.
const rest = 5 * time.Millisecond

// Free says that room for so many may have come in a line. It does not wait: the line is told soon after.
func (r *Room) Free(name string, spec *lane.Spec, room int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.free(name, spec, room)
}

// FreeAll says that room may have come in all lines in which somebody waits here.
func (r *Room) FreeAll() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name, l := range r.byName {
		r.free(name, &l.spec, 1)
	}
}

// free is Free. Room.mu is held.
func (r *Room) free(name string, spec *lane.Spec, room int) {
	if r.closed {
		return
	}
	f := r.freed[name]
	if f == nil {
		f = &freed{hurry: make(chan struct{}, 1)}
		r.freed[name] = f
		r.behind.Go(func() { r.tellFreed(name, f) })
	}
	f.spec, f.room = *spec, min(lane.MaxCalled, f.room+room)
	if r.byName[name] != nil {
		select {
		case f.hurry <- struct{}{}:
		default:
		}
	}
}

// tellFreed tells a line of room until nothing more is to be told.
func (r *Room) tellFreed(name string, f *freed) {
	for {
		r.mu.Lock()
		if f.room == 0 || r.alive.Err() != nil {
			delete(r.freed, name)
			r.mu.Unlock()
			return
		}
		spec, room := f.spec, f.room
		f.room = 0
		r.mu.Unlock()
		// Where it fails those who wait try when they would have without, or with the next beat.
		out, err := r.step(r.alive, name, &spec, &lane.Step{Do: lane.Free, Room: room})
		if err == nil && (out.Waiting > 0 || len(out.Calls) > 0) {
			continue
		}
		select {
		case <-f.hurry:
		case <-time.After(rest):
		case <-r.alive.Done():
		}
	}
}
