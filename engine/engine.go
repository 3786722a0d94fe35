package engine

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/rationhq/ration/engine/backlog"
	"github.com/rationhq/ration/engine/events"
	"github.com/rationhq/ration/engine/waiting"
	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/store"
)

// Options of an engine. The zero value is ready to use.
type Options struct {
	// Shadow lets every request pass, whatever its limits say.
	Shadow bool
	// Quota makes every descriptor a quota: a request is refused only if all of them refuse.
	Quota bool
	// Bounds limits what a request may contain.
	Bounds Bounds
	// Metrics is where decisions are counted; nil counts them where nobody looks.
	Metrics *Metrics
	// StoreWait is how long a decision waits at most for a store that may be out or stall; once it has
	// been silent for a while, it is not asked at all, but for a call at a time that tries. 0: the store
	// is part of this process, and is always asked.
	StoreWait time.Duration
	// Local makes an empty store, in this process, for limits that it decides by itself while the store
	// cannot (`on_store_error: local`). nil: they answer with an error.
	Local func() store.Store
	// QueuedReports is how many reports of usage wait at most while the store cannot take them, and QueuedBytes how much
	// memory they may take; 0: none waits, and who reports gets an error.
	QueuedReports int
	QueuedBytes   int64
	// Subjects knows more of who pays than the policy does; nil: nobody does.
	Subjects Subjects
	// Log is told once that the store is out, and that it is back; and once for each policy that callers
	// name tiers which it does not have. nil: nobody is.
	Log *slog.Logger
}

// Engine decides. It is safe for concurrent use. Close ends it.
type Engine struct {
	store         store.Store
	guard         *guard // nil for a store that is always asked
	locals        locals
	refusals      refusals
	backlog       *backlog.Backlog // nil: no report waits
	outage        outage
	unpricedNoted rarely
	overrideNoted rarely
	unreadNoted   rarely
	lossNoted     rarely
	zones         sync.Map // *time.Location by name
	opts          Options
	metrics       *Metrics
	current       atomic.Pointer[loaded]
	notes         *lru.Cache[ReservationID, string]
	parts         *lru.Cache[store.LeaseID, string] // of leases of descriptors
	kinds         kinds                             // of rows
	scratch       sync.Pool
	hub           *events.Hub
	room          *waiting.Room // nil: the store keeps no lines
}

// keptNotes is how many reservations of either kind a process remembers that it has made, so as not to ask the store for
// their notes when they are settled here: a few hundred bytes each.
const keptNotes = 16 << 10

// loaded is a policy with what hangs on it: one pointer is swapped when it changes.
type loaded struct {
	policy *policy.Policy
	since  time.Time
	rules  []*ruleCounters // by policy.Rule.Index
	limits []*ruleCounters // by policy.Limit.Index
	// unpriced has an entry for each domain that limits money.
	unpriced map[*policy.Domain]*unpricedCounters
	// calls has one for each that limits tokens or money.
	calls map[*policy.Domain]*callCounters
	// upstreams has one for each.
	upstreams map[*policy.Upstream]*upstreamCounters

	overrides *lru.Cache[overrideKey, *policy.Quantity]

	unknownTier sync.Once
}

// newCache returns a cache of so many, which are at least 1.
func newCache[K comparable, V any](size int) *lru.Cache[K, V] {
	cache, _ := lru.New[K, V](size) // its only error is a size below 1
	return cache
}

// New returns an engine over s. It decides nothing before SetPolicy.
func New(s store.Store, opts Options) *Engine {
	opts.Bounds = opts.Bounds.withDefaults()
	e := &Engine{store: s, opts: opts, metrics: opts.Metrics, notes: newCache[ReservationID, string](keptNotes), parts: newCache[store.LeaseID, string](keptNotes)}
	if e.metrics == nil {
		e.metrics = NewMetrics()
	}
	if e.opts.Log == nil {
		e.opts.Log = slog.New(slog.DiscardHandler)
	}
	e.hub = e.newHub()
	if opts.StoreWait > 0 {
		e.guard = newGuard(s, opts.StoreWait, e.metrics, e.storeChanged, &e.outage.pressed)
		e.metrics.breaker.watch(e.guard.breaker)
	}
	e.backlog = e.newBacklog()
	if lines, ok := s.(store.Lines); ok {
		e.room = waiting.New(lines, opts.StoreWait)
	}
	e.refusals.write, e.refusals.lost = e.writeRows, func(n int64) { e.metrics.lostRows.Add(float64(n)) }
	e.locals.make = opts.Local
	e.locals.needed = func() bool { _, out := e.Outage(); return out }
	e.scratch.New = func() any { return new(scratch) }
	return e
}

// SetPolicy makes p the policy of all decisions that start from now on. Counters are kept: they
// belong to what was asked for, not to the policy.
func (e *Engine) SetPolicy(p *policy.Policy) {
	rules, limits := e.metrics.bind(p)
	e.current.Store(&loaded{
		policy: p, since: time.Now(), rules: rules, limits: limits, unpriced: e.metrics.bindUnpriced(p),
		calls:     e.metrics.bindCalls(p),
		upstreams: e.metrics.bindUpstreams(p),
		overrides: newCache[overrideKey, *policy.Quantity](keptOverrides),
	})
	e.tellPolicy(p)
	if e.room != nil {
		e.room.FreeAll() // what they wait for may be another limit now, or none
	}
}

// Policy returns the policy in force and since when, or nil if none was loaded yet.
func (e *Engine) Policy() (p *policy.Policy, since time.Time) {
	if l := e.current.Load(); l != nil {
		return l.policy, l.since
	}
	return nil, time.Time{}
}

// Ready reports whether the store can decide now.
func (e *Engine) Ready(ctx context.Context) error { return e.store.Ready(ctx) }

// StopWaiting has all who wait in lanes wait no longer, with ErrStopping: the server is about to stop.
func (e *Engine) StopWaiting() {
	if e.room != nil {
		e.room.Stop()
	}
}

// Close ends what the engine has begun beside its decisions, which must have ended. It does not close
// the store. Reports of usage that wait are lost: see [Engine.Flush].
func (e *Engine) Close() {
	if e.room != nil {
		e.room.Close()
	}
	e.refusals.close()
	e.GiveUpReports()
	if e.guard != nil {
		e.guard.close()
	}
	e.locals.close()
	e.hub.Close()
}
