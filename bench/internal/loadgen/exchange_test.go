package loadgen

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// reserving is a mix of reservations that are settled.
func reserving(keys int) Mix {
	return Mix{
		Domain: "bench", Descriptors: []string{"user={key},phase=hold,id={id} hits=5"},
		Then: []string{"user={key},phase=settle,id={id} hits=3"}, Keys: keys,
	}
}

// A ledger keeps what a service was asked about each id.
type ledger struct {
	lock sync.Mutex
	seen map[string][]string // phases, with the key
}

func (l *ledger) note(request *rlsv3.RateLimitRequest) {
	l.lock.Lock()
	defer l.lock.Unlock()
	entries := request.Descriptors[0].Entries
	user, phase, id := entries[0].Value, entries[1].Value, entries[2].Value
	l.seen[id] = append(l.seen[id], user+" "+phase)
}

func TestSecondCallFollowsTheAnswerToTheFirst(t *testing.T) {
	ledger := &ledger{seen: make(map[string][]string)}
	address, _ := serve(t, &service{answer: alwaysOK, seen: ledger.note})
	client := connect(t, address, 2)
	if err := client.Prime(t.Context(), reserving(10)); err != nil {
		t.Fatal(err)
	}
	report, err := client.Run(t.Context(), Plan{
		Mix: reserving(10), Callers: 5, Warmup: 10 * time.Millisecond, Duration: time.Minute, MaxRequests: 200,
	}, Meters{})
	if err != nil {
		t.Fatal(err)
	}
	if report.Decisions != 400 || report.Errors != 0 {
		t.Errorf("want 400 decisions, two for each of 200 exchanges, got %+v", report)
	}
	if len(ledger.seen) < 210 { // those of the warm-up come on top
		t.Errorf("%d ids for 210 exchanges and a warm-up", len(ledger.seen))
	}
	for id, calls := range ledger.seen {
		user, _, _ := strings.Cut(calls[0], " ")
		if got, want := strings.Join(calls, ", "), user+" hold, "+user+" settle"; got != want || len(id) != IDLength {
			t.Errorf("id %q: %s, want %s", id, got, want)
		}
	}
}

func TestNothingFollowsACallThatIsNotAnsweredWithOK(t *testing.T) {
	ledger := &ledger{seen: make(map[string][]string)}
	address, _ := serve(t, &service{
		seen: ledger.note,
		answer: func(_ context.Context, number int64) (rlsv3.RateLimitResponse_Code, error) {
			if number%2 == 0 {
				return 0, status.Error(codes.Unavailable, "no")
			}
			return rlsv3.RateLimitResponse_OVER_LIMIT, nil
		},
	})
	client := connect(t, address, 1)
	report, err := client.Run(t.Context(), Plan{
		Mix: reserving(10), Callers: 5, Duration: time.Minute, MaxRequests: 100,
	}, Meters{})
	if err != nil {
		t.Fatal(err)
	}
	if report.Decisions+report.Errors != 100 || len(ledger.seen) != 100 {
		t.Errorf("%d calls were answered for %d ids, want 100", report.Decisions+report.Errors, len(ledger.seen))
	}
}

func TestExchangesNeedAClosedLoop(t *testing.T) {
	plan := Plan{Mix: reserving(1), Rate: 5, MaxInFlight: 1, Duration: time.Second}
	if err := plan.validate(); err == nil || !strings.Contains(err.Error(), "closed loop only") {
		t.Errorf("got %v", err)
	}
}
