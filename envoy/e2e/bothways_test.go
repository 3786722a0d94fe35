package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestBothWays is about the two ways in, Envoy and ration's own API: there is one truth behind them. What Envoy's traffic uses
// is told by the API to the token and the billionth of a dollar, and its thresholds are events; what is reserved by the API
// is not there for Envoy's traffic.
func TestBothWays(t *testing.T) {
	onBothStores(t, testBothWays)
}

func testBothWays(t *testing.T, store func(testing.TB) string) {
	const tokens = 10_000 // what bob has
	users := map[string][]string{"premium": {"ann"}, "pro": {"bob"}, "free": of("free", 20)}
	policy := modelPolicy(t, users)
	limits := policy["descriptors"].([]any)[0].(map[string]any)
	named(limits, "spend", "limits")["warn_at"] = "30%"
	at(named(limits, "spend", "limits"), "tiers")["premium"] = map[string]any{"limit": "$0.05/month"}
	at(named(limits, "tokens", "limits"), "tiers")["pro"] = map[string]any{"limit": fmt.Sprintf("%d/hour", tokens)}
	text, err := json.Marshal(policy)
	if err != nil {
		t.Fatal(err)
	}
	since := time.Now()
	l := startLLMWith(t, "llm-reserve.yaml", store(t), policyFile(t, string(text)), nil,
		func(b bootstrap) { b.users(append([]string{"ann", "bob"}, users["free"]...)) })
	watching := start(t, "watch", rationBinary, "watch", "--server", l.ration.grpc, "--kind", "threshold", "--after", "00", "-o", "json")
	others := newCallers(t, l.envoy).flood(t.Context(), 5, users["free"], func(user string) prompt {
		return prompt{user: user, maxTokens: 50, script: map[string]string{"tokens-per-second": "200"}}
	})
	t.Cleanup(func() { others.stop(t) })

	t.Run("what Envoy's traffic uses", func(t *testing.T) {
		const calls = 8
		var asking sync.WaitGroup
		for _, api := range llmAPIs {
			asking.Go(func() {
				for turn := range calls {
					script := fmt.Sprintf("tokens-per-second=500 output-tokens=%d cache-read-tokens=%d cache-write-tokens=%d",
						200+turn, turn%4*1001, turn%5*77)
					r := api.ask("ann", script, map[string]any{"stream": turn%2 == 0})
					r.header["x-fake-user"] = "ann"
					if got, err := try(t.Context(), l.url, r); err != nil || got.code != http.StatusOK {
						t.Errorf("ann heard %d %s, %v", got.code, got.body, err)
					}
				}
			})
		}
		ended := make(chan struct{})
		go func() { asking.Wait(); close(ended) }()
		for under := true; under; {
			select {
			case <-ended:
				under = false
			case <-time.After(20 * time.Millisecond):
			}
			// What is under way is held, and not used: so no more is used than is served by the time that one looks again.
			used := l.ration.standings(t, "ann")
			served, cost := l.model.account(t, "ann")
			if used["tokens"].used > served || used["spend"].used > cost {
				t.Fatalf("%d tokens for %d n$ are used, and %d for %d n$ served", used["tokens"].used, used["spend"].used, served, cost)
			}
		}
		served, cost := l.model.account(t, "ann")
		l.ration.stands(t, "ann", "tokens", standing{used: served})
		l.ration.stands(t, "ann", "spend", standing{used: cost})
		if row := l.ration.used(t, since)["ann"]; row.Cost != cost || row.Requests != calls*int64(len(llmAPIs)) {
			t.Errorf("the row of ann has %d requests for %d n$, want %d for %d n$", row.Requests, row.Cost, calls*len(llmAPIs), cost)
		}
		if shown := l.ration.says(t, "usage", "--domain", "llm", "user=ann"); !strings.Contains(shown, dollars(cost)) {
			t.Errorf("ration usage does not say %s:\n%s", dollars(cost), shown)
		}
		if cost < 15_000_000 {
			t.Fatalf("ann has used %s of $0.05: too little to reach the threshold", dollars(cost))
		}
		eventually(t, "the threshold is an event", func() error {
			if said := watching.output(); strings.Count(said, `"user=ann"`) != 1 || !strings.Contains(said, `"llm.user.spend"`) {
				return fmt.Errorf("%q", said)
			}
			return nil
		})
	})

	t.Run("what is reserved over the API", func(t *testing.T) {
		ask := func() answer { return send(t, l.url, llmAPIs["messages"].ask("bob", "output-tokens=5", nil)) }
		var reserved struct{ Reservation struct{ ID string } }
		said := l.ration.says(t, "reserve", "--domain", "llm", "--model", "claude-haiku-4-5", "--output", strconv.Itoa(tokens-500), "-o", "json", "user=bob")
		if err := json.Unmarshal([]byte(said), &reserved); err != nil || reserved.Reservation.ID == "" {
			t.Fatalf("%v in %s", err, said)
		}
		if got := ask(); got.code != http.StatusTooManyRequests || !strings.Contains(got.body, `"name":"tokens"`) {
			t.Errorf("code %d, body %s; want 429: bob has 500 tokens left, and asks for 1,000", got.code, got.body)
		}
		l.ration.says(t, "release", reserved.Reservation.ID)
		if got := ask(); got.code != http.StatusOK {
			t.Errorf("code %d, body %s; want 200: it was given back", got.code, got.body)
		}
	})
}

// dollars writes nano-dollars as people read them: with two digits behind the point at least, and all that there are.
func dollars(nanos int64) string {
	text := strings.TrimRight(fmt.Sprintf("$%d.%09d", nanos/1_000_000_000, nanos%1_000_000_000), "0")
	for len(text)-strings.Index(text, ".") < 3 {
		text += "0"
	}
	return text
}

// says runs a command of ration against the server, over gRPC, and returns what it prints.
func (r *ration) says(t testing.TB, command string, args ...string) string {
	t.Helper()
	said, err := exec.Command(rationBinary, slices.Concat([]string{command, "--server", r.grpc}, args)...).CombinedOutput()
	if err != nil {
		t.Fatalf("ration %s %q: %v\n%s", command, args, err, said)
	}
	return string(said)
}

// account is what a user was served: in tokens, and in nano-dollars by the prices of the policy.
func (f *fakellm) account(t testing.TB, user string) (tokens, cost int64) {
	t.Helper()
	_, rows := f.ledger(t)
	for _, row := range rows {
		if row.User == user {
			tokens += row.tokens()
			cost += row.cost()
		}
	}
	return tokens, cost
}
