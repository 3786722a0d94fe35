// Package breaker decides whether a service that may be down, or may stall, is asked at all: once it
// has not answered for a while, calls are refused at once, and one at a time tries whether it is back.
//
// It is a state machine and nothing else: it calls nobody, starts nothing, and is given the time. It
// knows neither stores nor limits. While all is well a call costs two atomic loads.
//
// What makes it different from others: a call that its own caller ended (a deadline, a client that
// left) never counts against the service. It only makes the breaker ask for a probe, a call of its own
// whose time nobody cuts short; what that finds counts.
//
// Read [Breaker.Ask] first.
package breaker

import (
	"sync"
	"sync/atomic"
	"time"
)

// Options of a breaker. The zero value is ready to use.
type Options struct {
	// Failures is how many calls must have failed in a row before the breaker opens; 0 means 5.
	Failures int
	// Patience is how long the row must have lasted: one lost connection fails many calls at the same
	// instant. 0 means 100 ms.
	Patience time.Duration
	// Pause is how long an open breaker waits before it lets a call try, and the least time between
	// two probes; 0 means 250 ms.
	Pause time.Duration
	// Notice is how long a call must have waited before its end by the caller is reason for a probe;
	// 0 means 5 ms.
	Notice time.Duration
}

// State is what a breaker thinks of the service.
type State uint8

// The states.
const (
	// Closed: the service answers.
	Closed State = iota
	// Doubtful: the last calls got no answer. Calls are made as ever.
	Doubtful
	// Open: the service is down. Calls are refused.
	Open
	// Trying: as Open, and one call tries whether the service is back.
	Trying
	// States is how many there are.
	States
)

// String returns the state's name, for metrics: "closed".
func (s State) String() string { return [States]string{"closed", "doubtful", "open", "trying"}[s] }

// Permit is the answer to [Breaker.Ask]. Whoever got leave reports how the call ended, with the permit.
type Permit uint64

// The permits. All others are leave to try.
const (
	Refused Permit = iota // make no call
	Granted
)

// Tries says that the call is the one that finds out whether the service is back: nobody else does
// until it is reported.
func (p Permit) Tries() bool { return p > Granted }

// Change says that a report changed the state.
type Change struct {
	From, To State
	// Since is when the row of failures began that opens the breaker or was ended.
	Since time.Duration
}

// Opened says that the service was found down.
func (c Change) Opened() bool { return c.From < Open && c.To == Open }

// Recovered says that a service that was down is back.
func (c Change) Recovered() bool { return c.From >= Open && c.To == Closed }

// Doubted says that a row of failures has begun.
func (c Change) Doubted() bool { return c.From == Closed && c.To == Doubtful }

// Breaker is the state machine. It is safe for concurrent use. Times are spans since an instant that
// its user chooses; they never fall.
type Breaker struct {
	opts  Options
	state atomic.Uint32
	// next is when an open breaker lets a call try.
	next atomic.Int64

	mu       sync.Mutex
	failures int           // in a row
	since    time.Duration // when the row began
	trial    Permit        // of the last call that tried
	probing  bool
	asked    time.Duration // when a probe was last asked for
	healed   bool          // since then, the service has answered
}

// New returns a closed breaker.
func New(opts Options) *Breaker {
	if opts.Failures <= 0 {
		opts.Failures = 5
	}
	for _, d := range []struct {
		option *time.Duration
		value  time.Duration
	}{{&opts.Patience, 100 * time.Millisecond}, {&opts.Pause, 250 * time.Millisecond}, {&opts.Notice, 5 * time.Millisecond}} {
		if *d.option <= 0 {
			*d.option = d.value
		}
	}
	return &Breaker{opts: opts, trial: Granted, asked: -opts.Pause}
}

// State returns the state.
func (b *Breaker) State() State { return State(b.state.Load()) }

// Ask says whether a call may be made. Each call that may is reported, by one of Answered, Failed and
// GaveUp.
func (b *Breaker) Ask(now time.Duration) Permit {
	if b.State() < Open {
		return Granted
	}
	if b.State() == Trying || now < time.Duration(b.next.Load()) {
		return Refused
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.State() < Open:
		return Granted
	case b.State() == Trying || now < time.Duration(b.next.Load()):
		return Refused
	}
	b.set(Trying)
	b.trial++
	return b.trial
}

// Answered reports that the service answered a call, whatever it said. It is never too late: an answer
// proves that the service is there.
func (b *Breaker) Answered() Change {
	if b.State() == Closed {
		return Change{}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.heal()
}

// Failed reports that the service could not be asked, or was silent for all the time that it may take.
func (b *Breaker) Failed(permit Permit, now time.Duration) Change {
	b.mu.Lock()
	defer b.mu.Unlock()
	from := b.State()
	switch {
	case from < Open:
		b.doubt(now)
		b.fail(1, now)
	case b.tries(permit):
		b.reopen(now + b.opts.Pause)
	}
	return b.change(from)
}

// GaveUp reports that the caller ended a call after it had waited. That says nothing about the service,
// but where it is silent nobody may ever wait for long enough to find out: probe says that it is to be
// asked in some other way, whose end [Breaker.Probed] is told.
func (b *Breaker) GaveUp(permit Permit, waited, now time.Duration) (change Change, probe bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	from, noticed := b.State(), waited >= b.opts.Notice
	if b.tries(permit) {
		next := now // it has not tried, so the next one does
		if noticed {
			next += b.opts.Pause
		}
		b.reopen(next)
	}
	if noticed && !b.probing && now-b.asked >= b.opts.Pause {
		b.probing, b.asked, b.healed = true, now, false
		if from == Closed {
			b.doubt(now)
		}
		probe = true
	}
	return b.change(from), probe
}

// Probed reports how a probe ended. One that failed counts as a row of failures that lasts since it
// was asked for; or as a single one, if a call was answered meanwhile.
func (b *Breaker) Probed(answered bool, now time.Duration) Change {
	b.mu.Lock()
	defer b.mu.Unlock()
	from, failures := b.State(), b.opts.Failures
	b.probing = false
	if answered {
		return b.heal()
	}
	if b.healed {
		failures = 1
	}
	if from < Open {
		b.doubt(now)
		b.fail(failures, now)
	}
	return b.change(from)
}

// doubt begins a row of failures, if there is none.
func (b *Breaker) doubt(now time.Duration) {
	if b.State() == Closed {
		b.failures, b.since = 0, now
		b.set(Doubtful)
	}
}

// fail counts failures, and opens if the row is long enough.
func (b *Breaker) fail(failures int, now time.Duration) {
	b.failures += failures
	if b.failures >= b.opts.Failures && now-b.since >= b.opts.Patience {
		b.reopen(now + b.opts.Pause)
	}
}

func (b *Breaker) heal() Change {
	from := b.State()
	b.healed = true
	b.set(Closed)
	return b.change(from)
}

// tries says that permit is that of the call that tries now.
func (b *Breaker) tries(permit Permit) bool { return b.State() == Trying && permit == b.trial }

// reopen is open, until a call tries at the given time.
func (b *Breaker) reopen(next time.Duration) {
	b.next.Store(int64(next))
	b.set(Open)
}

func (b *Breaker) set(s State) { b.state.Store(uint32(s)) }

func (b *Breaker) change(from State) Change { return Change{From: from, To: b.State(), Since: b.since} }
