package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc"
)

// The contestants of these tests are this test program itself, started again with one of these arguments.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 {
		switch os.Args[1] {
		case "--serve-floor":
			main()
			return
		case "serve-counting":
			if err := serveCounting(os.Args[2]); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			return
		case "fail":
			fmt.Fprintln(os.Stderr, "cannot read the policy: no such file")
			os.Exit(3)
		}
	}
	os.Exit(m.Run())
}

// serveCounting is the smallest server that enforces the benchmark's policy. From the 200th call on it refuses
// everything if it is told so by its environment.
func serveCounting(addr string) error {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	rlsv3.RegisterRateLimitServiceServer(server, &counting{used: make(map[string]uint32), breaks: os.Getenv("BREAKS") != ""})
	return server.Serve(listener)
}

type counting struct {
	rlsv3.UnimplementedRateLimitServiceServer
	breaks bool

	lock  sync.Mutex
	calls int
	used  map[string]uint32
}

func (c *counting) ShouldRateLimit(_ context.Context, request *rlsv3.RateLimitRequest) (*rlsv3.RateLimitResponse, error) {
	c.lock.Lock()
	defer c.lock.Unlock()
	c.calls++
	answer := &rlsv3.RateLimitResponse{OverallCode: rlsv3.RateLimitResponse_OK}
	for _, descriptor := range request.Descriptors {
		var key string
		for _, entry := range descriptor.Entries {
			key += entry.Key + "=" + entry.Value + ","
		}
		c.used[key]++
		limit := &rlsv3.RateLimitResponse_RateLimit{RequestsPerUnit: highLimit, Unit: rlsv3.RateLimitResponse_RateLimit_HOUR}
		if descriptor.Entries[0].Key == "probe" {
			limit.RequestsPerUnit, limit.Unit = probeLimit, rlsv3.RateLimitResponse_RateLimit_DAY
		}
		status := &rlsv3.RateLimitResponse_DescriptorStatus{Code: rlsv3.RateLimitResponse_OK, CurrentLimit: limit}
		if c.used[key] > limit.RequestsPerUnit || c.breaks && c.calls > 200 {
			status.Code, answer.OverallCode = rlsv3.RateLimitResponse_OVER_LIMIT, rlsv3.RateLimitResponse_OVER_LIMIT
		} else {
			status.LimitRemaining = limit.RequestsPerUnit - c.used[key]
		}
		answer.Statuses = append(answer.Statuses, status)
	}
	return answer, nil
}

// play compares the floor with one more contestant, as briefly as possible.
func play(t *testing.T, yaml string) (*comparison, error) {
	t.Helper()
	contestants, err := gather(nil, []string{yaml}, []string{"mine"})
	if err != nil {
		t.Fatal(err)
	}
	scenarios, err := choice{names: []string{"closed-16x3", "hot-16x1", "open-half-own", "open-half-floor"}}.scenarios()
	if err != nil {
		t.Fatal(err)
	}
	policy, err := filepath.Abs("../policy/plain/policy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	comparison := &comparison{
		launcher:    launcher{policy: policy, redisServer: "redis-server", dir: t.TempDir(), connections: 2},
		contestants: contestants, scenarios: scenarios, progress: &bytes.Buffer{},
		pace: pace{Rounds: 2, Warmup: time.Millisecond, Duration: 50 * time.Millisecond, Keys: 100},
	}
	return comparison, comparison.play(t.Context())
}

func TestComparisonFromStartToTable(t *testing.T) {
	// The Redis is not needed by this server, but started, metered and stopped.
	comparison, err := play(t, `{name: mine, command: ["{self}", serve-counting, "{grpc}"], env: {REDIS: "{redis_url}"}}`)
	if err != nil {
		t.Fatal(err)
	}
	// 5 scenarios, since open loops bring along the one that tells the saturation.
	if got, want := len(comparison.runs), 2*2*5; got != want {
		t.Errorf("%d runs, want %d", got, want)
	}
	results := results(comparison.runs)
	for _, scenario := range comparison.scenarios {
		for _, name := range []string{"floor", "mine"} {
			if results.over(scenario.Name, name, serverCPU).N != 2 || results.over(scenario.Name, name, throughput).Min <= 0 {
				t.Errorf("%s, %s: not measured in both rounds", scenario.Name, name)
			}
			if got, want := results.over(scenario.Name, name, redisCPU).N, map[string]int{"floor": 0, "mine": 2}[name]; got != want {
				t.Errorf("%s, %s: CPU of Redis in %d rounds, want %d", scenario.Name, name, got, want)
			}
		}
	}
	for round := 1; round <= 2; round++ {
		half := find(comparison.runs, round, saturation, "floor").DecisionsPerSecond / 2
		for scenario, name := range map[string]string{"open-half-floor": "mine", "open-half-own": "floor"} {
			if got := find(comparison.runs, round, scenario, name).OfferedRate; got != half {
				t.Errorf("round %d, %s, %s: rate %v, want half of the floor's saturation, %v", round, scenario, name, got, half)
			}
		}
	}
	var order []string
	for _, run := range comparison.runs {
		if run.Scenario == "hot-16x1" {
			order = append(order, run.Contestant)
		}
	}
	if got, want := strings.Join(order, " "), "floor mine mine floor"; got != want {
		t.Errorf("turns: %s, want %s", got, want)
	}
}

func TestRowsHaveServersOfTheirOwn(t *testing.T) {
	scenarios, err := choice{
		names: []string{"closed-*", "token_bucket-*", "calendar-16*", "rules-*"},
	}.scenarios()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, sitting := range sittings(scenarios) {
		got = append(got, fmt.Sprintf("%d %s", len(sitting), sitting[0].Name))
	}
	want := "6 closed-1x1, 6 token_bucket-16x1, 3 calendar-16x1, 4 rules-16x10"
	if got := strings.Join(got, ", "); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestContestantsThatFailAreErrors(t *testing.T) {
	tests := []struct {
		name, yaml string
		want       []string
	}{
		{"no such program", `{name: mine, command: [/no/such/program, "{grpc}"]}`,
			[]string{"contestant mine", "/no/such/program"}},
		{"ends at once", `{name: mine, command: ["{self}", fail, "{grpc}"]}`,
			[]string{"contestant mine", "ended by itself: exit status 3", "cannot read the policy"}},
		{"does not count", `{name: mine, command: ["{self}", --serve-floor, "{grpc}"]}`,
			[]string{"contestant mine", "answers wrongly", "got 0 statuses", "want OK OK OK OVER_LIMIT, got OK OK OK OK"}},
		{"refuses under load", `{name: mine, command: ["{self}", serve-counting, "{grpc}"], env: {BREAKS: "yes"}}`,
			[]string{"contestant mine", "OVER_LIMIT where only OK is right"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := play(t, test.yaml)
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("no %q in\n%v", want, err)
				}
			}
		})
	}
}

func TestEnvironmentOfTheShellDoesNotReachContestants(t *testing.T) {
	t.Setenv("GOGC", "off")
	t.Setenv("REDIS_URL", "redis://production")
	dir := t.TempDir()
	process, err := startProcess([]string{"env"}, []string{"MINE=1"}, dir, "env.log")
	if err != nil {
		t.Fatal(err)
	}
	<-process.exited
	output, err := os.ReadFile(filepath.Join(dir, "env.log"))
	if err != nil {
		t.Fatal(err)
	}
	text := string(output)
	if !strings.Contains(text, "MINE=1") || strings.Contains(text, "GOGC") || strings.Contains(text, "REDIS_URL") {
		t.Errorf("the child sees\n%s", text)
	}
}
