package loadgen

import (
	"fmt"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// A tally is what one connection saw of a run. When the run is over, the tallies of all connections are added up.
type tally struct {
	ok, overLimit, errors uint64
	// unsent counts requests of an open loop that were due but could not be sent before the end.
	unsent uint64
	// firstError is the earliest, by firstErrorAt.
	firstError   error
	firstErrorAt time.Time
	// lastAnswer is when the last call ended.
	lastAnswer time.Time
	latency    *hdrhistogram.Histogram
	// lateness is how long after its due time a request of an open loop was sent.
	lateness *hdrhistogram.Histogram
}

func newTally() *tally {
	return &tally{latency: newHistogram(3), lateness: newHistogram(2)}
}

// newHistogram counts nanoseconds up to one hour, to this many digits and no finer than 64 ns.
func newHistogram(digits int) *hdrhistogram.Histogram {
	return hdrhistogram.New(100, int64(time.Hour), digits)
}

// answered counts one call that ended after latency at the instant now.
//
// A call that failed is an error and no part of the latencies: a refused connection is quick, and would make a dead
// server look fast. A call that ran into its deadline is an error too, but its latency counts with the time it has
// waited: leaving out the slowest calls would make a hanging server look fast.
func (t *tally) answered(code overallCode, err error, latency time.Duration, now time.Time) {
	t.lastAnswer = now
	if err == nil {
		switch code {
		case codeOK:
			t.ok++
		case codeOverLimit:
			t.overLimit++
		default:
			err = fmt.Errorf("answer with overall_code %d, neither OK nor OVER_LIMIT", code)
		}
	}
	if err != nil {
		t.errors++
		if t.firstError == nil {
			t.firstError, t.firstErrorAt = err, now
		}
		if status.Code(err) != codes.DeadlineExceeded {
			return
		}
	}
	record(t.latency, latency)
}

func record(histogram *hdrhistogram.Histogram, duration time.Duration) {
	// Within the bounds of the histogram RecordValue cannot fail.
	_ = histogram.RecordValue(min(max(int64(duration), 0), histogram.HighestTrackableValue()))
}

// add adds what another connection saw.
func (t *tally) add(other *tally) {
	t.ok += other.ok
	t.overLimit += other.overLimit
	t.errors += other.errors
	t.unsent += other.unsent
	if other.firstError != nil && (t.firstError == nil || other.firstErrorAt.Before(t.firstErrorAt)) {
		t.firstError, t.firstErrorAt = other.firstError, other.firstErrorAt
	}
	if other.lastAnswer.After(t.lastAnswer) {
		t.lastAnswer = other.lastAnswer
	}
	t.latency.Merge(other.latency)
	t.lateness.Merge(other.lateness)
}

func (t *tally) decisions() uint64 { return t.ok + t.overLimit }
