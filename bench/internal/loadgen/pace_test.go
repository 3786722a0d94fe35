package loadgen

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
)

// The tests of this file run on the clock of a synctest bubble, on which computing takes no time at all: all durations
// are exact.

// stalling answers at once, except that everything that arrives between from and from+stall after the first request
// is answered at from+stall: a long garbage collection, a failover of Redis.
func stalling(from, stall time.Duration) func(context.Context, int64) (rlsv3.RateLimitResponse_Code, error) {
	first := make(chan time.Time, 1)
	return func(_ context.Context, number int64) (rlsv3.RateLimitResponse_Code, error) {
		if number == 1 {
			first <- time.Now()
		}
		began := <-first
		first <- began
		if since := time.Since(began); since >= from && since < from+stall {
			time.Sleep(from + stall - since)
		}
		return rlsv3.RateLimitResponse_OK, nil
	}
}

func near(got float64, want time.Duration) bool {
	micros := float64(want.Microseconds())
	return got > 0.99*micros && got < 1.01*micros
}

func TestOpenLoopFeelsAStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const stall = 500 * time.Millisecond
		client, stop := connectInMemory(t, &service{answer: stalling(4*time.Second, stall)}, 2, 5*time.Second)
		defer stop()

		// 10 s at 100/s; the stall delays the 50 requests that are due in it by 500, 490, … 10 ms.
		report, err := client.Run(t.Context(), Plan{
			Mix: oneDescriptor(t, 10), Rate: 100, MaxInFlight: 512, Duration: 10 * time.Second,
		}, Meters{})
		if err != nil {
			t.Fatal(err)
		}
		if report.Decisions != 1000 || report.Errors != 0 || report.Unsent != 0 || !report.KeptUp() {
			t.Errorf("want 1000 decisions and nothing else, got %+v", report)
		}
		// 1 of 100 requests waits longer than 400 ms, 1 of 1000 the whole stall.
		if !near(report.Latency.P99, 400*time.Millisecond) || !near(report.Latency.P999, 490*time.Millisecond) ||
			!near(report.Latency.Max, stall) || report.Latency.P90 > 1 {
			t.Errorf("want p90 0, p99 400 ms, p99.9 490 ms, max 500 ms; got %v", report.Latency)
		}
		if report.Lateness.Max > 1 {
			t.Errorf("the generator had nothing to wait for, but sent late by %v", report.Lateness)
		}
	})
}

// The same stall, hardly visible: the reason why there is an open loop.
func TestClosedLoopHidesAStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := stalling(time.Second, 500*time.Millisecond)
		answer := func(ctx context.Context, number int64) (rlsv3.RateLimitResponse_Code, error) {
			time.Sleep(time.Millisecond) // otherwise the loop would turn forever within one instant
			return slow(ctx, number)
		}
		client, stop := connectInMemory(t, &service{answer: answer}, 1, 5*time.Second)
		defer stop()

		report, err := client.Run(t.Context(), Plan{Mix: oneDescriptor(t, 10), Callers: 1, Duration: 3 * time.Second}, Meters{})
		if err != nil {
			t.Fatal(err)
		}
		if !near(report.Latency.P999, time.Millisecond) || !near(report.Latency.Max, 500*time.Millisecond) {
			t.Errorf("want p99.9 1 ms, max 500 ms; got %v", report.Latency)
		}
	})
}

func TestOpenLoopWaitsForACallerOnTheServersAccount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answer := func(context.Context, int64) (rlsv3.RateLimitResponse_Code, error) {
			time.Sleep(400 * time.Millisecond)
			return rlsv3.RateLimitResponse_OK, nil
		}
		client, stop := connectInMemory(t, &service{answer: answer}, 1, 5*time.Second)
		defer stop()

		// One call at a time, each of 400 ms, at 100/s: in a second three can be sent, at 0, 400 and 800 ms.
		report, err := client.Run(t.Context(), Plan{
			Mix: oneDescriptor(t, 10), Rate: 100, MaxInFlight: 1, Duration: time.Second,
		}, Meters{})
		if err != nil {
			t.Fatal(err)
		}
		if report.Decisions != 3 || report.Unsent != 97 || report.KeptUp() {
			t.Errorf("want 3 decisions, 97 unsent, and not to have kept up; got %+v", report)
		}
		// The third was due at 20 ms, sent at 800, answered at 1200.
		if !near(report.Latency.Max, 1180*time.Millisecond) || !near(report.Lateness.Max, 780*time.Millisecond) {
			t.Errorf("want latency up to 1180 ms, lateness up to 780 ms; got %v and %v", report.Latency, report.Lateness)
		}
		// The unsent ones had waited 970, 960, … 10 ms at the end. Of all 100, every other is above 490 ms.
		if !near(report.Latency.P50, 490*time.Millisecond) {
			t.Errorf("want p50 490 ms, got %v", report.Latency)
		}
	})
}

func TestCallsThatAreNeverAnsweredAreCountedAndEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		atTheEnd := make(chan struct{})
		service := &service{answer: func(_ context.Context, number int64) (rlsv3.RateLimitResponse_Code, error) {
			if number%4 == 0 {
				<-atTheEnd
			} else {
				time.Sleep(time.Millisecond)
			}
			return rlsv3.RateLimitResponse_OK, nil
		}}
		client, stop := connectInMemory(t, service, 2, 100*time.Millisecond)
		defer stop()
		defer close(atTheEnd)

		start := time.Now()
		report, err := client.Run(t.Context(), Plan{Mix: oneDescriptor(t, 10), Callers: 8, Duration: time.Second}, Meters{})
		if err != nil {
			t.Fatal(err)
		}
		calls := uint64(service.calls.Load())
		if report.Errors != calls/4 || report.OK != calls-calls/4 {
			t.Errorf("of %d calls, %d were OK and %d errors; want every fourth to be an error", calls, report.OK, report.Errors)
		}
		if !strings.Contains(report.FirstError, "no answer within 100ms") {
			t.Errorf("first error %q", report.FirstError)
		}
		if report.Latency.P99 < 100_000 {
			t.Errorf("the calls without an answer are missing in the latency: %v", report.Latency)
		}
		if took := time.Since(start); took > 1200*time.Millisecond {
			t.Errorf("the run of 1 s ended after %v", took)
		}
	})
}

func TestScheduleIsAFunctionOfTheRequestsNumber(t *testing.T) {
	tests := []struct {
		schedule schedule
		index    uint64
		want     time.Duration
	}{
		{schedule{perSecond: 1000}, 0, 0},
		{schedule{perSecond: 1000}, 1, time.Millisecond},
		{schedule{perSecond: 3}, 3_000_000_000, 1_000_000_000 * time.Second}, // no drift
		{schedule{perSecond: 10_000, tick: 250 * time.Microsecond}, 2, 0},
		{schedule{perSecond: 10_000, tick: 250 * time.Microsecond}, 3, 250 * time.Microsecond},
		{schedule{perSecond: 10_000, tick: 250 * time.Microsecond}, 5, 500 * time.Microsecond},
	}
	for _, test := range tests {
		if got := test.schedule.due(test.index); got != test.want {
			t.Errorf("%+v: request %d is due at %v, want %v", test.schedule, test.index, got, test.want)
		}
	}
}
