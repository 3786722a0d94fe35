package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	rationv1 "github.com/rationhq/ration/gen/ration/v1"
	"github.com/rationhq/ration/store/redis/redistest"
)

// accountsFile writes a policy with a budget of 500 tokens, one of 1,000, and limits of all meters that never refuse. Windows
// are so long that no test run crosses an end of one.
func accountsFile(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(file, []byte(`
domain: llm
anonymous: unlimited
prices: { book: none, models: { small: { input: "1.00", output: "5.00", cache_read: "1.00", cache_write: "1.00" } } }
descriptors:
- { key: team, limits: [ { name: budget, meter: tokens, algorithm: fixed_window, limit: 500/365 days } ] }
- { key: debtor, limits: [ { name: tokens, meter: tokens, algorithm: fixed_window, limit: 1_000/365 days } ] }
- key: user
  subject: true
  limits:
  - { name: requests, meter: requests, algorithm: calendar, limit: 1_000_000/year }
  - { name: tokens, meter: tokens, algorithm: fixed_window, limit: 1_000_000/365 days }
  - { name: input, meter: input_tokens, algorithm: sliding_window, limit: 1_000_000/365 days }
  - { name: spend, meter: cost, algorithm: fixed_window, limit: $1000/365 days }
  - { name: at-once, meter: concurrency, limit: 100 }
`), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// longest is the window of the budgets.
const longest = 365 * 24 * time.Hour

// fleet is some processes with one policy and the same counters.
type fleet struct {
	processes []*process
	args      []string
}

// newFleet starts that many processes.
func newFleet(t *testing.T, n int, args ...string) *fleet {
	t.Helper()
	f := &fleet{args: append([]string{"--policy", accountsFile(t), "--redis-timeout", patience.String()}, args...)}
	for range n {
		f.processes = append(f.processes, serve(t, f.args...))
	}
	return f
}

// account returns AccountingService of one of the processes, over a connection of its own.
func (f *fleet) account(t *testing.T, at int) rationv1.AccountingServiceClient {
	t.Helper()
	return rationv1.NewAccountingServiceClient(connect(t, f.processes[at].addrs(t).GRPC, insecure.NewCredentials()))
}

// usage returns UsageService of one of the processes.
func (f *fleet) usage(t *testing.T, at int) rationv1.UsageServiceClient {
	t.Helper()
	return rationv1.NewUsageServiceClient(connect(t, f.processes[at].addrs(t).GRPC, insecure.NewCredentials()))
}

func callOf(key, value string, input, output int64) *rationv1.ReserveRequest {
	return &rationv1.ReserveRequest{
		Caller: &rationv1.Caller{Domain: "llm", Attributes: map[string]string{key: value}, Model: "small"},
		Estimate: &rationv1.Estimate{Of: &rationv1.Estimate_Usage{
			Usage: &rationv1.Usage{InputTokens: input, OutputTokens: output},
		}},
	}
}

// deployments are the ways in which counters are kept and shared.
func deployments() map[string]func(t *testing.T) *fleet {
	return map[string]func(t *testing.T) *fleet{
		"memory":       func(t *testing.T) *fleet { return newFleet(t, 1) },
		"one Redis":    func(t *testing.T) *fleet { return newFleet(t, 1, "--store", redistest.Start(t).URL()) },
		"three of one": func(t *testing.T) *fleet { return newFleet(t, 3, "--store", redistest.Start(t).URL()) },
	}
}

// A thousand callers at once, over 66 connections, ask for 75 tokens each of 500: six may.
func TestAThousandReserves(t *testing.T) {
	for name, start := range deployments() {
		t.Run(name, func(t *testing.T) {
			f := start(t)
			connections := make([]rationv1.AccountingServiceClient, 66)
			for i := range connections {
				connections[i] = f.account(t, i%len(f.processes))
			}
			var admitted, refused atomic.Int64
			var callers sync.WaitGroup
			begin := make(chan struct{})
			for i := range 1000 {
				callers.Go(func() {
					<-begin
					answer, err := connections[i%len(connections)].Reserve(t.Context(), callOf("team", "a", 50, 25))
					switch {
					case err != nil || answer.GetDecision().GetDegraded() != "":
						t.Errorf("%v, %v", answer.GetDecision(), err)
					case answer.GetReservation() != nil:
						admitted.Add(1)
					default:
						refused.Add(1)
					}
				})
			}
			close(begin)
			callers.Wait()
			if admitted.Load() != 6 || refused.Load() != 994 {
				t.Errorf("%d were admitted and %d refused, want 6 and 994", admitted.Load(), refused.Load())
			}
			for at := range f.processes {
				look, err := f.account(t, at).Check(t.Context(), &rationv1.CheckRequest{Caller: callOf("team", "a", 0, 0).GetCaller()})
				if err != nil {
					t.Fatal(err)
				}
				if l := look.GetDecision().GetLimits()[0]; l.GetHeld() != 450 || l.GetUsed() != 0 || l.GetRemaining() != 50 {
					t.Errorf("process %d: %v, want 450 held and 50 left", at, l)
				}
			}
		})
	}
}

// What is used beyond what was held is charged, and is debt: the next call waits until just when the window ends.
func TestDebt(t *testing.T) {
	for name, start := range deployments() {
		t.Run(name, func(t *testing.T) {
			f := start(t)
			first, last := f.account(t, 0), f.account(t, len(f.processes)-1)
			reserved, err := first.Reserve(t.Context(), callOf("debtor", "d", 400, 500))
			if err != nil || reserved.GetReservation() == nil {
				t.Fatalf("%v, %v", reserved, err)
			}
			settled, err := last.Settle(t.Context(), &rationv1.SettleRequest{
				ReservationId: reserved.GetReservation().GetId(), Usage: &rationv1.Usage{InputTokens: 400, OutputTokens: 1_100},
			})
			if err != nil {
				t.Fatal(err)
			}
			if l := settled.GetLimits()[0]; l.GetUsed() != 1_500 || l.GetHeld() != 0 || l.GetRemaining() != -500 {
				t.Errorf("settled: %v, want 1,500 used, none held, −500 left", l)
			}
			refused, err := first.Reserve(t.Context(), callOf("debtor", "d", 1, 0))
			if err != nil {
				t.Fatal(err)
			}
			d := refused.GetDecision()
			decided := d.GetDecidedAt().AsTime()
			end := time.UnixMicro((decided.UnixMicro()/longest.Microseconds() + 1) * longest.Microseconds())
			wait := end.Sub(decided)
			if refused.GetReservation() != nil || d.GetRetryAfter().AsDuration() != wait || d.GetVerdict() != rationv1.Verdict_VERDICT_EXHAUSTED {
				t.Errorf("%v, want a wait of %v", d, wait)
			}
			seconds := strconv.FormatInt(int64((wait+time.Second-1)/time.Second), 10)
			if got := d.GetHttp().GetHeaders()["retry-after"]; got != seconds || d.GetHttp().GetStatus() != 429 {
				t.Errorf("%d with retry-after %s, want 429 with %s", d.GetHttp().GetStatus(), got, seconds)
			}
		})
	}
}

// The wait that a refused call was told is long enough, and no longer than it has to be, to a second that it takes to ask.
func TestDebtEndsAsTold(t *testing.T) {
	server, clock := redistest.StartWithClock(t)
	f := newFleet(t, 1, "--store", server.URL())
	api := f.account(t, 0)
	if _, err := api.Record(t.Context(), &rationv1.RecordRequest{
		Caller: callOf("debtor", "d", 0, 0).GetCaller(), Usage: &rationv1.Usage{OutputTokens: 1_500},
	}); err != nil {
		t.Fatal(err)
	}
	ask := func() *rationv1.ReserveResponse {
		t.Helper()
		answer, err := api.Reserve(t.Context(), callOf("debtor", "d", 1, 0))
		if err != nil {
			t.Fatal(err)
		}
		return answer
	}
	wait := ask().GetDecision().GetRetryAfter().AsDuration()
	clock.Shift(t, wait-patience)
	if answer := ask(); answer.GetReservation() != nil {
		t.Errorf("admitted too early: %v", answer)
	}
	clock.Shift(t, wait)
	if answer := ask(); answer.GetReservation() == nil {
		t.Errorf("refused when it had waited: %v", answer)
	}
}

// A process is killed, again and again, while many callers reserve and settle, who repeat what has had no answer: with Redis at
// another one, and with a directory at the one that comes after it. In the end nothing is held, and each call counts
// once: in the limits, and in the rows of usage.
func TestKilledBetweenReserveAndSettle(t *testing.T) {
	for name, deploy := range map[string]struct {
		start func(t *testing.T) *fleet
		kill  func(t *testing.T, f *fleet, round int)
	}{
		"memory": {
			start: func(t *testing.T) *fleet { return newFleet(t, 1, "--data", filepath.Join(t.TempDir(), "data")) },
			kill: func(t *testing.T, f *fleet, _ int) {
				f.processes[0].signal(t, syscall.SIGKILL)
				f.processes[0].exit(t)
				f.processes[0] = serve(t, f.args...)
			},
		},
		"redis": {
			start: func(t *testing.T) *fleet { return newFleet(t, 3, "--store", redistest.Start(t).URL()) },
			kill: func(t *testing.T, f *fleet, round int) {
				f.processes[round%3].signal(t, syscall.SIGKILL)
				f.processes[round%3].exit(t)
				f.processes[round%3] = serve(t, f.args...)
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			began := time.Now()
			f := deploy.start(t)
			load := &accountLoad{spent: map[string]*spending{}}
			load.connect(t, f)
			var callers sync.WaitGroup
			t.Cleanup(func() {
				load.leave.Store(true)
				callers.Wait()
			})
			for caller := range 32 {
				callers.Go(func() { load.call(t, caller) })
			}
			for round := range 4 {
				await := load.settled.Load() + 200
				eventually(t, "the load goes on", func() error {
					if n := load.settled.Load(); n < await {
						return fmt.Errorf("%d calls are settled, want %d", n, await)
					}
					return nil
				})
				deploy.kill(t, f, round)
				load.connect(t, f)
			}
			load.leave.Store(true)
			callers.Wait()
			if load.repeated.Load() == 0 {
				t.Error("no call was under way when a process was killed")
			}
			t.Logf("%d calls were settled, %d requests repeated", load.settled.Load(), load.repeated.Load())
			for user, want := range load.spent {
				for at := range f.processes {
					want.compare(t, f.usage(t, at), user, began)
				}
			}
			for _, p := range f.processes {
				p.stop(t)
			}
		})
	}
}

// accountLoad is callers who reserve and settle, and do not give up.
type accountLoad struct {
	leave             atomic.Bool
	settled, repeated atomic.Int64

	mu      sync.Mutex
	clients []rationv1.AccountingServiceClient
	spent   map[string]*spending // by user
}

// spending is what a user has spent.
type spending struct{ requests, input, output int64 }

// connect lets the callers know the processes that there are.
func (l *accountLoad) connect(t *testing.T, f *fleet) {
	t.Helper()
	var clients []rationv1.AccountingServiceClient
	for at := range f.processes {
		clients = append(clients, f.account(t, at))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.clients = clients
}

// insist asks one process after another until one answers.
func (l *accountLoad) insist(first int, ask func(ctx context.Context, client rationv1.AccountingServiceClient) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for at := first; ; at++ {
		l.mu.Lock()
		client := l.clients[at%len(l.clients)]
		l.mu.Unlock()
		err := ask(ctx, client)
		if status.Code(err) != codes.Unavailable || ctx.Err() != nil {
			return err
		}
		l.repeated.Add(1)
		time.Sleep(5 * time.Millisecond)
	}
}

// call makes calls for one user of four until told to leave. Each is reserved at one process, settled at another, and
// settled again at a third.
func (l *accountLoad) call(t *testing.T, caller int) {
	user := fmt.Sprint("user-", caller%4)
	for n := 0; !l.leave.Load(); n++ {
		request := callOf("user", user, 10, 20)
		request.IdempotencyKey = fmt.Sprintf("call %d of %d", n, caller)
		used := &rationv1.Usage{InputTokens: int64(n % 11), OutputTokens: int64(n % 37)}
		var id string
		err := l.insist(caller, func(ctx context.Context, client rationv1.AccountingServiceClient) error {
			answer, err := client.Reserve(ctx, request)
			if id = answer.GetReservation().GetId(); err == nil && (id == "" || answer.GetDecision().GetDegraded() != "") {
				return fmt.Errorf("reserved: %v", answer.GetDecision())
			}
			return err
		})
		for again := range 2 {
			if err != nil {
				break
			}
			err = l.insist(caller+1+again, func(ctx context.Context, client rationv1.AccountingServiceClient) error {
				answer, err := client.Settle(ctx, &rationv1.SettleRequest{ReservationId: id, Usage: used})
				if err == nil && (answer.GetState() != rationv1.State_STATE_SETTLED || again > 0 && !answer.GetReplayed()) {
					return fmt.Errorf("settled: %v", answer)
				}
				return err
			})
		}
		if err != nil {
			t.Errorf("%s: %v", request.GetIdempotencyKey(), err)
			return
		}
		l.settled.Add(1)
		l.mu.Lock()
		s := l.spent[user]
		if s == nil {
			s = &spending{}
			l.spent[user] = s
		}
		s.requests, s.input, s.output = s.requests+1, s.input+used.GetInputTokens(), s.output+used.GetOutputTokens()
		l.mu.Unlock()
	}
}

// compare compares it with what the limits of a user and the rows of usage say.
func (s *spending) compare(t *testing.T, api rationv1.UsageServiceClient, user string, began time.Time) {
	t.Helper()
	cost := s.input*1_000 + s.output*5_000
	usage, err := api.GetUsage(t.Context(), &rationv1.GetUsageRequest{Caller: callOf("user", user, 0, 0).GetCaller()})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]int64{"requests": s.requests, "tokens": s.input + s.output, "input": s.input, "spend": cost, "at-once": 0}
	for _, l := range usage.GetLimits() {
		standing := l.GetStatus()
		used, known := want[standing.GetName()]
		if !known || standing.GetUsed() != used || standing.GetHeld() != 0 {
			t.Errorf("%s, %s: %d used and %d held, want %d and none", user, standing.GetName(), standing.GetUsed(), standing.GetHeld(), used)
		}
		delete(want, standing.GetName())
	}
	if len(want) > 0 {
		t.Errorf("%s: nothing is said of %v", user, want)
	}
	rows, err := api.QueryUsage(t.Context(), &rationv1.QueryUsageRequest{
		Domain: "llm", Subject: "user=" + user, From: timestamppb.New(began), Resolution: rationv1.Resolution_RESOLUTION_TOTAL,
	})
	if err != nil {
		t.Fatal(err)
	}
	got := rows.GetTotal()
	if got.GetRequests() != s.requests || got.GetUsage().GetInputTokens() != s.input || got.GetUsage().GetOutputTokens() != s.output ||
		got.GetTokens() != s.input+s.output || got.GetCost() != cost {
		t.Errorf("%s: the rows of usage say %v, want %+v and a cost of %d", user, got, *s, cost)
	}
}
