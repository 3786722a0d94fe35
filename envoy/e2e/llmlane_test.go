package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

const (
	laneFile  = "../llm-lane.yaml"
	laneRules = "../lanes.policy.yaml"
)

// lane is llm-lane.yaml, running: users of three tiers, who wait for their turn at Anthropic.
type lane struct {
	*envoy
	*callers
	replicas []*ration
	metrics  []string // where each replica tells its figures
	provider *fakellm
}

// laneUsers are those of each tier.
var laneUsers = map[string][]string{"free": of("free", 5), "pro": of("pro", 5), "premium": of("premium", 5)}

// lanePolicy is llm.policy.yaml with lanes.policy.yaml, for these users; what is given goes before what the file says of
// Anthropic's lane.
func lanePolicy(t testing.TB, change map[string]any) string {
	t.Helper()
	policy := modelPolicy(t, laneUsers)
	user := policy["descriptors"].([]any)[0].(map[string]any)
	// As many as a test needs: what is shown here is how calls wait for what all share.
	user["limits"] = []any{message(t, `{ name: requests, rate: 10_000/minute, burst: 1000 }`), message(t, `{ name: in-flight, meter: concurrency, limit: 500 }`)}
	text, err := os.ReadFile(laneRules)
	if err != nil {
		t.Fatal(err)
	}
	var rules map[string]any
	if err := yaml.Unmarshal(text, &rules); err != nil {
		t.Fatal(err)
	}
	maps.Copy(named(rules, "anthropic", "lanes"), change)
	policy["lanes"] = rules["lanes"]
	whole, err := json.Marshal(policy)
	if err != nil {
		t.Fatal(err)
	}
	return policyFile(t, string(whole))
}

// startLane runs so many replicas of ration, whose lane for Anthropic is 5 calls a second, 2 at a time, but for what is
// given.
func startLane(t testing.TB, store string, replicas int, change map[string]any, flags ...string) *lane {
	t.Helper()
	l := &lane{provider: startFakeLLM(t, flags...)}
	all := map[string]any{"drain": "5/second", "max_concurrent": 2}
	maps.Copy(all, change)
	policy := lanePolicy(t, all)
	var addrs []string
	for range replicas {
		l.metrics = append(l.metrics, freeAddr(t))
		r := startRation(t, store, policy, "--metrics-addr", l.metrics[len(l.metrics)-1])
		l.replicas, addrs = append(l.replicas, r), append(addrs, r.grpc)
	}
	b := fromFile(t, laneFile, l.provider.addr, addrs...)
	b.filter("envoy.filters.http.ratelimit")["timeout"] = "35s" // as in the file: a busy machine makes nobody wait longer
	b.users(slices.Concat(laneUsers["free"], laneUsers["pro"], laneUsers["premium"]))
	l.envoy = startEnvoy(t, b)
	l.callers = newCallers(t, l.envoy)
	return l
}

// brief is a call that takes no time.
func brief(user string) prompt {
	return prompt{user: user, maxTokens: 10, script: map[string]string{"output-tokens": "4"}}
}

// lasting takes for as long.
func lasting(user string, d time.Duration) prompt {
	p := brief(user)
	p.script["first-byte"] = d.String()
	return p
}

// endless is a stream that only its reader ends.
func endless(user string) prompt {
	return prompt{user: user, maxTokens: 8000, script: map[string]string{"output-tokens": "8000", "tokens-per-second": "20"}}
}

// begin makes a call in the background. It is over when leave has been called, at the latest.
func (l *lane) begin(t testing.TB, p prompt) (answer <-chan heard, leave func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	heard, done := make(chan heard, 1), make(chan struct{})
	go func() {
		heard <- l.call(ctx, p)
		close(done)
	}()
	leave = func() { cancel(); <-done }
	t.Cleanup(leave)
	return heard, leave
}

// occupy takes a place, and returns what ends the call that has it: its reader hangs up.
func (l *lane) occupy(t testing.TB, user string) (leave func()) {
	t.Helper()
	before := len(l.served(t))
	_, leave = l.begin(t, endless(user))
	l.serves(t, before+1)
	return leave
}

// served are the users whose calls the provider has got, in turn.
func (l *lane) served(t testing.TB) (users []string) {
	t.Helper()
	var arrived []struct{ Headers http.Header }
	told := send(t, "http://"+l.provider.addr, request{path: "/fake/requests"})
	if err := json.Unmarshal([]byte(told.body), &arrived); err != nil {
		t.Fatal(err)
	}
	for _, a := range arrived {
		users = append(users, a.Headers.Get("x-fake-user"))
	}
	return users
}

// serves waits until the provider has got so many calls, and returns whose they are.
func (l *lane) serves(t testing.TB, n int) (users []string) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d calls are served", n), func() error {
		if users = l.served(t); len(users) < n {
			return fmt.Errorf("%q are", users)
		}
		return nil
	})
	return users
}

// waits waits until so many calls wait in line, at all replicas that are there.
func (l *lane) waits(t testing.TB, want int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d calls wait", want), func() error {
		got := 0
		for i, addr := range l.metrics {
			if l.replicas[i].alive() != nil {
				continue
			}
			told, err := try(t.Context(), "http://"+addr, request{path: "/metrics"})
			if err != nil {
				return err
			}
			for line := range strings.Lines(told.body) {
				var n int
				if name, value, _ := strings.Cut(line, "} "); strings.HasPrefix(name, `ration_lane_waiting{domain="llm",lane="anthropic"`) {
					if _, err := fmt.Sscan(value, &n); err != nil {
						return err
					}
					got += n
				}
			}
		}
		if got != want {
			return fmt.Errorf("%d do", got)
		}
		return nil
	})
}

func tierOf(user string) string {
	tier, _, _ := strings.Cut(user, "-")
	return tier
}

// wantServed fails unless a call has been served to its end.
func wantServed(t testing.TB, h heard) {
	t.Helper()
	if !h.whole {
		t.Errorf("a call that had its turn heard %d %s", h.code, h.body)
	}
}

// TestLLMLaneInTurn has users of three tiers flood a lane: those of the highest tier go first, in a tier users take turns, all
// are answered in the end, and there are never more calls at the provider than the lane has places.
func TestLLMLaneInTurn(t *testing.T) {
	onBothStores(t, func(t *testing.T, store func(testing.TB) string) {
		l := startLane(t, store(t), 1, nil, "--concurrency", "2")
		first, second := l.occupy(t, "free-1"), l.occupy(t, "free-2")
		var answers []<-chan heard
		for _, tier := range []string{"free", "pro", "premium"} {
			for range 2 {
				for _, user := range laneUsers[tier] {
					heard, _ := l.begin(t, lasting(user, 300*time.Millisecond))
					answers = append(answers, heard)
				}
			}
			l.waits(t, len(answers))
		}
		first()
		second()
		for _, heard := range answers {
			wantServed(t, <-heard)
		}
		served := l.served(t)[2:]
		t.Logf("served in turn: %q", served)
		for i, tier := range []string{"premium", "pro", "free"} {
			inTurn := served[10*i : 10*i+10]
			for j, user := range inTurn {
				if tierOf(user) != tier || j < 5 && slices.Contains(inTurn[:j], user) {
					t.Errorf("call %d of %s was that of %s", j+1, tier, user)
				}
			}
		}
		if total, _ := l.provider.ledger(t); total.Overloaded > 0 {
			t.Errorf("the provider had more than 2 calls at a time, %d times", total.Overloaded)
		}
	})
}

// TestLLMLaneNobodyForever has premium users keep a lane full: the others have their turns all the same, by `aging`.
func TestLLMLaneNobodyForever(t *testing.T) {
	onBothStores(t, func(t *testing.T, store func(testing.TB) string) {
		l := startLane(t, store(t), 1, map[string]any{"aging": "1s", "drain": "20/second"}, "--concurrency", "2")
		flooding := l.flood(t.Context(), 20, laneUsers["premium"], func(user string) prompt { return lasting(user, 100*time.Millisecond) })
		flooding.until(t, "the line is full of premium users", func(served int, _ map[string]int) bool { return served > 0 })
		for range 2 {
			began := time.Now()
			low, _ := l.begin(t, brief("free-1"))
			middle, _ := l.begin(t, brief("pro-1"))
			wantServed(t, <-low)
			wantServed(t, <-middle)
			t.Logf("free and pro were served within %v", time.Since(began).Round(time.Millisecond))
		}
		flooding.stop(t)
		if total, _ := l.provider.ledger(t); total.Overloaded > 0 {
			t.Errorf("the provider had more than 2 calls at a time, %d times", total.Overloaded)
		}
	})
}

// TestLLMLaneLeaves has callers hang up: who waits is out of the line at once, and whose stream is broken off leaves the place
// to the next.
func TestLLMLaneLeaves(t *testing.T) {
	onBothStores(t, func(t *testing.T, store func(testing.TB) string) {
		l := startLane(t, store(t), 1, map[string]any{"max_waiting": map[string]any{"total": 2, "per_subject": 1}})
		first, second := l.occupy(t, "free-1"), l.occupy(t, "free-2")
		_, leave := l.begin(t, brief("premium-1"))
		l.waits(t, 1)
		l.refuses(t, "premium-1", "Too many of your requests wait for their turn already.")
		next, _ := l.begin(t, brief("free-3"))
		l.waits(t, 2)
		l.refuses(t, "pro-1", "Too many requests wait for their turn already.")

		leave()
		l.waits(t, 1)
		last, _ := l.begin(t, brief("pro-1"))
		l.waits(t, 2) // there is room in line
		freed := time.Now()
		first()
		wantServed(t, <-last)
		wantServed(t, <-next)
		t.Logf("both had their turn %v after a reader hung up", time.Since(freed).Round(time.Millisecond))
		if served := l.served(t)[2:]; !slices.Equal(served, []string{"pro-1", "free-3"}) {
			t.Errorf("served were %q: want pro-1 and free-3, and not who left", served)
		}
		second()
		l.idle(t)
	})
}

// refuses wants a call to be refused at once, because the line is full.
func (l *lane) refuses(t testing.TB, user, words string) {
	t.Helper()
	began := time.Now()
	h := l.call(t.Context(), brief(user))
	t.Logf("the line is full: %d after %v", h.code, time.Since(began).Round(time.Millisecond))
	if h.code != http.StatusTooManyRequests || !strings.Contains(h.body, words) || !strings.Contains(h.body, `"rate_limit_error"`) ||
		h.header.Get("retry-after") == "" || h.header.Get("x-should-retry") != "true" {
		t.Errorf("%s, where the line is full: %d %v %s", user, h.code, h.header, h.body)
	}
}

// idle waits until nobody has a place, nor anything held.
func (l *lane) idle(t testing.TB) {
	t.Helper()
	eventually(t, "nothing is held", func() error {
		for limit, stands := range l.replicas[0].standings(t, "free-1") {
			if stands.held > 0 {
				return fmt.Errorf("%s: %+v", limit, stands)
			}
		}
		return nil
	})
}

// TestLLMLaneMaxWait shows what a caller hears who had no turn in time.
func TestLLMLaneMaxWait(t *testing.T) {
	onBothStores(t, func(t *testing.T, store func(testing.TB) string) {
		l := startLane(t, store(t), 1, map[string]any{"max_wait": "2s", "aging": "10s", "max_concurrent": 1, "drain": "40/minute"})
		l.occupy(t, "free-1")
		low, _ := l.begin(t, brief("free-2"))
		l.waits(t, 1)
		time.Sleep(time.Second) // the others wait still when its time is over
		for _, user := range []string{"pro-1", "premium-1"} {
			l.begin(t, brief(user))
		}
		h := <-low
		var said struct {
			Error struct {
				Type, Message string
				Details       struct {
					Code       string `json:"error_code"`
					RetryAfter int    `json:"retry_after"`
				}
			}
		}
		if err := json.Unmarshal([]byte(h.body), &said); err != nil {
			t.Fatalf("%d %s: %v", h.code, h.body, err)
		}
		const words = "Waited 2 s, third in line. Try again in about 5 s."
		if e := said.Error; h.code != http.StatusTooManyRequests || e.Type != "rate_limit_error" || e.Message != words || e.Details.Code != "rate_limited" || e.Details.RetryAfter != 5 {
			t.Errorf("%d %s, want 429 and %q", h.code, h.body, words)
		}
		for name, want := range map[string]string{"retry-after": "5", "x-should-retry": "true", "content-type": "application/json"} {
			if got := h.header.Get(name); got != want {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
	})
}

// TestLLMLaneRationStops stops and kills ration while calls wait at it: they have their turn all the same, when it is there
// again or at another one, and in their order where a store has kept their places.
func TestLLMLaneRationStops(t *testing.T) {
	onBothStores(t, func(t *testing.T, store func(testing.TB) string) {
		for _, how := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
			t.Run(how.String(), func(t *testing.T) {
				s := store(t)
				testLLMLaneRationStops(t, startLane(t, s, 1, nil), how, true, s != memory)
				if s != memory {
					testLLMLaneRationStops(t, startLane(t, store(t), 2, nil), how, false, true)
				}
			})
		}
	})
}

// testLLMLaneRationStops ends the first replica, and starts it again where it is to come back. Where places are kept those who
// wait are heard of again before there is room.
func testLLMLaneRationStops(t *testing.T, l *lane, how syscall.Signal, comesBack, kept bool) {
	first, second := l.occupy(t, "free-1"), l.occupy(t, "free-2")
	var answers []<-chan heard
	for _, user := range []string{"free-3", "free-4", "pro-1", "pro-2", "premium-1", "premium-2"} {
		heard, _ := l.begin(t, brief(user))
		answers = append(answers, heard)
		l.waits(t, len(answers))
	}
	l.replicas[0].signal(how)
	_ = l.replicas[0].wait(t)
	if comesBack {
		l.replicas[0].start(t)
	}
	if kept {
		l.waits(t, len(answers))
	}
	first()
	second()
	for _, heard := range answers {
		wantServed(t, <-heard)
	}
	served := l.served(t)[2:]
	t.Logf("served in turn: %q", served)
	for i, tier := range []string{"premium", "premium", "pro", "pro", "free", "free"} {
		if kept && tierOf(served[i]) != tier {
			t.Errorf("call %d was that of %s, want one of %s", i+1, served[i], tier)
		}
	}
}

// TestLLMLaneRationAway shows what clients hear while nobody can say whose turn it is.
func TestLLMLaneRationAway(t *testing.T) {
	l := startLane(t, memory, 1, nil)
	wantServed(t, l.call(t.Context(), brief("free-1")))
	l.replicas[0].signal(syscall.SIGKILL)
	_ = l.replicas[0].wait(t)
	h := l.call(t.Context(), brief("free-1"))
	if h.code != http.StatusServiceUnavailable || !strings.Contains(h.body, "Limits cannot be checked") || h.header.Get("retry-after") == "" {
		t.Errorf("%d %v %s, want 503 in the words of the API", h.code, h.header, h.body)
	}
}

// TestLLMLaneBurst has more calls wait at once than ration takes over one connection: all have their turn.
func TestLLMLaneBurst(t *testing.T) {
	const calls = 400
	l := startLane(t, memory, 1, map[string]any{"drain": "1000/second", "max_waiting": map[string]any{"per_subject": calls}})
	first, second := l.occupy(t, "free-1"), l.occupy(t, "free-2")
	var answers []<-chan heard
	for i := range calls {
		heard, _ := l.begin(t, brief(laneUsers["pro"][i%5]))
		answers = append(answers, heard)
	}
	l.waits(t, calls)
	first()
	second()
	for _, heard := range answers {
		wantServed(t, <-heard)
	}
	if n := l.stat(t, "cluster.ration.upstream_rq_5xx"); n > 0 {
		t.Errorf("%d calls of ration were refused", n)
	}
}

// TestLLMLaneWakes measures how long it takes from the end of a stream until the next call is at the provider.
func TestLLMLaneWakes(t *testing.T) {
	onBothStores(t, func(t *testing.T, store func(testing.TB) string) {
		l := startLane(t, store(t), 1, map[string]any{"drain": "1000/second", "max_concurrent": 1})
		const calls = 50
		var answers []<-chan heard
		began := time.Now()
		for i := range calls {
			heard, _ := l.begin(t, brief(laneUsers["pro"][i%5]))
			answers = append(answers, heard)
		}
		for _, heard := range answers {
			wantServed(t, <-heard)
		}
		t.Logf("one at a time: %v for each", (time.Since(began) / calls).Round(100*time.Microsecond))
	})
}
