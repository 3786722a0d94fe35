package loadgen

import (
	"errors"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestFailuresDoNotLookFast(t *testing.T) {
	now := time.Now()
	tally := newTally()
	tally.answered(codeOK, nil, 10*time.Millisecond, now)
	tally.answered(0, status.Error(codes.Unavailable, "refused at once"), time.Microsecond, now)
	tally.answered(0, status.Error(codes.DeadlineExceeded, "too late"), 5*time.Second, now)
	tally.answered(0, nil, time.Microsecond, now) // neither OK nor OVER_LIMIT
	if tally.ok != 1 || tally.errors != 3 || tally.latency.TotalCount() != 2 {
		t.Errorf("%d OK, %d errors, %d latencies; want 1, 3, and the latencies of the answer and the timeout",
			tally.ok, tally.errors, tally.latency.TotalCount())
	}
	if fastest := time.Duration(tally.latency.Min()); fastest < 9*time.Millisecond {
		t.Errorf("fastest %v", fastest)
	}
}

func TestTalliesAddUp(t *testing.T) {
	now := time.Now()
	first, second := newTally(), newTally()
	first.answered(codeOK, nil, time.Millisecond, now)
	first.answered(0, errors.New("later"), 0, now.Add(2*time.Second))
	second.answered(0, errors.New("earlier"), 0, now.Add(time.Second))
	second.answered(codeOverLimit, nil, 3*time.Millisecond, now.Add(3*time.Second))
	second.unsent = 5
	total := newTally()
	total.add(first)
	total.add(second)
	if total.ok != 1 || total.overLimit != 1 || total.decisions() != 2 || total.errors != 2 || total.unsent != 5 {
		t.Errorf("got %+v", total)
	}
	if total.firstError.Error() != "earlier" || !total.lastAnswer.Equal(now.Add(3*time.Second)) {
		t.Errorf("first error %v, last answer after %v", total.firstError, total.lastAnswer.Sub(now))
	}
	if total.latency.TotalCount() != 2 || time.Duration(total.latency.Max()).Round(100*time.Microsecond) != 3*time.Millisecond {
		t.Errorf("latencies %d, up to %v", total.latency.TotalCount(), time.Duration(total.latency.Max()))
	}
}

func TestLatencyBeyondTheHistogramIsKeptAtItsEnd(t *testing.T) {
	histogram := newHistogram(3)
	record(histogram, 24*time.Hour)
	record(histogram, -time.Second) // clocks may disagree
	if histogram.TotalCount() != 2 || time.Duration(histogram.Max()) < time.Hour-time.Second {
		t.Errorf("%d values up to %v", histogram.TotalCount(), time.Duration(histogram.Max()))
	}
}
