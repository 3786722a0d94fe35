// Package storetest is the conformance suite of the storage contract: any store.Store must pass it.
//
// It knows the contract and the arithmetic only. Stores have to be a store.Usage and a store.Outbox too.
// [Run] is all that a store's test has to call;
// [RunPlain] is the part of it that a store passes which knows plain charges and give-backs only,
// [RunConcurrent] the part that shows whether those who share a store do each other harm,
// [RunAcrossShards] the part that one passes whose counters lie on several machines, and
// [RunDurable] is for a store that keeps its state on disk, beside Run.
//
// Read the walks first (walk_*.go): tables of who is admitted when, and of the life of a lease. Then
// model.go: the contract in plain code, which the random tests compare with.
package storetest

import (
	"sync/atomic"
	"testing"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/store"
)

// Clock is a clock that tests set. It is safe for concurrent use.
type Clock struct{ now atomic.Int64 }

// NewClock returns a clock that stands at start.
func NewClock(start limit.Micros) *Clock {
	c := &Clock{}
	c.Set(start)
	return c
}

// Now returns what the clock shows.
func (c *Clock) Now() limit.Micros { return limit.Micros(c.now.Load()) }

// Set moves the clock to an instant.
func (c *Clock) Set(t limit.Micros) { c.now.Store(int64(t)) }

// Advance moves the clock by d, which may be negative.
func (c *Clock) Advance(d limit.Micros) { c.now.Add(int64(d)) }

// Open makes a store with nothing in it, on the given clock; nil means the store's own. It may be
// called many times in a test. What the store needs is cleaned up by t.Cleanup.
type Open func(t testing.TB, clock *Clock) store.Store

// test is one test of the suite.
type test struct {
	name string
	run  func(*testing.T, Open)
}

func run(t *testing.T, open Open, tests []test) {
	for _, c := range tests {
		t.Run(c.name, func(t *testing.T) { c.run(t, open) })
	}
}

// RunPlain runs what concerns the plain manner only: charges and give-backs on windows that are
// aligned to the epoch.
func RunPlain(t *testing.T, open Open) {
	run(t, open, []test{
		{"walks through a window", testPlainWindow},
		{"counts what it refuses", testPlain},
		{"gives back", testPlainGiveBack},
		{"forms the overall verdict", testPlainOverall},
		{"counts one bucket twice in a step", testPlainSameBucket},
		{"pins counts at 2^53-1", testPlainLargest},
		{"finds counters when the clock steps back", testPlainClockBack},
		{"keeps names apart", testPlainNames},
		{"refuses what breaks the contract", testPlainInvalid},
		{"honours the caller's deadline", testDeadline},
		{"agrees with the model", testPlainModel},
		{"admits exactly the limit to many at once", testPlainConcurrent},
	})
}

// Run runs the whole suite.
func Run(t *testing.T, open Open) {
	acrossShards(t, open, 400)
	run(t, open, whole())
}

// RunAcrossShards runs what concerns also a store whose counters lie on several machines: there a step may
// be refused by what another one is promised, and be seen half done (see store.Store). All that is asked of
// a store by one caller at a time is asked of it too.
func RunAcrossShards(t *testing.T, open Open) { acrossShards(t, open, 100) }

func acrossShards(t *testing.T, open Open, games int) {
	t.Run("plain", func(t *testing.T) { RunPlain(t, open) })
	run(t, open, walks())
	run(t, open, []test{
		{"agrees with the model", testModel},
		{"keeps to its bounds", testEnvelope},
		{"admits after exactly retry_after", testWait},
		{"64 spenders across shards", testSpendersAcrossShards},
		{"is linearizable within shards", testLinearizableWithinShards},
		{"usage agrees with the model", testUsageModel},
		{"usage of many adds up", testUsageOfMany},
		{"bounds what it says of usage", testManySums},
		{"many cross a threshold at once", testManyCross},
		{"keeps events for a while", testKeptEvents},
	})
	run(t, open, exact(games, rounds/2))
}

// RunConcurrent runs what a store must keep whoever shares it, callers in one process or in several.
// It plays fewer games than Run: stores in other processes take longer to ask.
func RunConcurrent(t *testing.T, open Open) {
	run(t, open, exact(200, 1))
	run(t, open, whole())
	run(t, open, []test{{"many cross a threshold at once", testManyCross}})
}

// exact has 64 callers spend in so many games, and rounds of random histories.
func exact(games, rounds int) []test {
	return []test{
		{"conserves the limit", func(t *testing.T, open Open) { testConservation(t, open, rounds) }},
		{"64 spenders", func(t *testing.T, open Open) { testSpenders(t, open, games) }},
	}
}

// whole is what is asked of a store each of whose decisions is seen whole.
func whole() []test { return []test{{"is linearizable", testLinearizable}} }

func walks() []test {
	return []test{
		{"algorithms", testAlgorithms},
		{"long logs", testLongLogs},
		{"follows what others say is left", testDeplete},
		{"depletes in the order of the step", testDepleteInOrder},
		{"leases", testLeases},
		{"many calendars", testManyCalendars},
		{"notes", testNotes},
		{"holds", testHolds},
		{"overlapping holds", testOverlappingHolds},
		{"waits for holds", testForeseen},
		{"follows the clock back", testClockBack},
		{"gives nothing back to what is forgotten", testForgottenGiveBack},
		{"keeps namesakes apart", testNamesakes},
		{"a hold outlives its lease", func(t *testing.T, open Open) { testForgotten(t, open, nil) }},
		{"all or nothing", testAllOrNothing},
		{"verdicts", testVerdicts},
		{"refuses what breaks the contract", testInvalid},
		{"holds of nothing", testHoldsOfNothing},
		{"usage", testUsage},
		{"rows of leases", func(t *testing.T, open Open) { testLeaseRows(t, open, nil) }},
		{"rows of leases that are renewed at once", testRenewedAtOnce},
		{"refuses rows of leases that break the contract", testLeaseRowsInvalid},
		{"bounds what is asked of usage", testUsageQueries},
		{"refuses rows that break the contract", testUsageInvalid},
		{"thresholds", testThresholds},
		{"what events say", testEvent},
		{"IDs of events", testEventIDs},
		{"an error tells of nothing", testUntold},
		{"events are delivered", testDelivered},
		{"one of many delivers", testDeliver},
		{"notices of events", testNotices},
	}
}

// RunDurable runs what concerns a store that keeps its state in a directory: the walks; and random
// histories, between whose steps it is closed and opened again, and answers as if it had never been
// away. open makes a store of what is in dir. The rest of the suite opens too many stores for a disk.
func RunDurable(t *testing.T, open func(t testing.TB, clock *Clock, dir string) store.Store) {
	dir := ""
	fresh := func(t testing.TB, clock *Clock) store.Store {
		dir = t.TempDir()
		return open(t, clock, dir)
	}
	again := func(t testing.TB, clock *Clock) store.Store { return open(t, clock, dir) }
	run(t, fresh, walks())
	t.Run("a hold outlives its lease, on disk too", func(t *testing.T) { testForgotten(t, fresh, again) })
	t.Run("a renewed lease, on disk too", func(t *testing.T) { testRenewedOnDisk(t, fresh, again) })
	t.Run("rows of leases, on disk too", func(t *testing.T) { testLeaseRows(t, fresh, again) })
	run(t, fresh, []test{{"keeps events for a while, on disk too", testKeptEvents}})
	t.Run("answers as if it had never been away", func(t *testing.T) { agree(t, 1, shapes(), false, fresh, again) })
	t.Run("usage is as if it had never been away", func(t *testing.T) { agree(t, 1, shapes(), true, fresh, again) })
}

// noon is where most walks begin: the start of every window up to a day, at 12:00.
const noon limit.Micros = 1_763_726_400 * limit.Second // 2025-11-21T12:00:00Z

const (
	minute = 60 * limit.Second
	hour   = 60 * minute
	day    = 24 * hour
)
