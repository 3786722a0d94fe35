package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
)

// followPolicy has an upstream for each provider: sixty requests a minute, as fakellm has in the test.
const followPolicy = `
domain: llm
anonymous: deny
prices:
  models:
    claude-haiku-4-5: { input: "1.00", output: "5.00", cache_read: "0.10", cache_write: "1.25" }
    gpt-5-mini: { input: "1.00", output: "5.00", cache_read: "0.10", cache_write: "1.25" }
descriptors:
- key: user
  subject: true
  limits: [ { name: requests, meter: requests, algorithm: fixed_window, limit: 1_000/day } ]
upstreams:
- name: anthropic
  models: ["*claude*"]
  limits: [ { name: rpm, meter: requests, algorithm: token_bucket, rate: 60/minute } ]
- name: openai
  models: ["*"]
  limits: [ { name: rpm, meter: requests, algorithm: token_bucket, rate: 60/minute } ]`

// TestLLMFollowsTheProvider shows that what a provider says in its answers counts for all: after it has refused one user,
// the next is told to wait without asking it; and where others have used up most of the key, there is as little left here.
func TestLLMFollowsTheProvider(t *testing.T) {
	for file, name := range map[string]string{"llm-anthropic.yaml": "messages", "llm-openai.yaml": "responses", "llm-reserve.yaml": "chat"} {
		t.Run(file+", "+name, func(t *testing.T) {
			t.Parallel()
			server, provider := startRation(t, memory, policyFile(t, followPolicy)), startFakeLLM(t, "--rpm", "60")
			e := startEnvoy(t, fromFile(t, "../"+file, provider.addr, server.grpc))
			api := llmAPIs[name]
			if got := send(t, e.url, api.ask("ann", "", small(api))); got.code != http.StatusOK {
				t.Fatalf("ann: %d %s", got.code, got.body)
			}
			key, value := api.auth(providerKey)
			for range 40 {
				elsewhere := api.ask("nobody", "", small(api))
				elsewhere.header[key] = value
				if got := send(t, "http://"+provider.addr, elsewhere); got.code != http.StatusOK {
					t.Fatalf("elsewhere: %d %s", got.code, got.body)
				}
			}
			if got := send(t, e.url, api.ask("ann", "", small(api))); got.code != http.StatusOK {
				t.Fatalf("ann: %d %s", got.code, got.body)
			}
			eventually(t, "little is left", func() error {
				if left := server.check(t, "bob", api.model).left; left > 25 {
					return fmt.Errorf("there are %d", left)
				}
				return nil
			})

			const wait = 8
			got := send(t, e.url, api.ask("ann", fmt.Sprintf("status=429 retry-after=%ds", wait), small(api)))
			if got.code != http.StatusTooManyRequests || got.header.Get("x-envoy-ratelimited") != "" || got.header.Get("retry-after") != "" {
				t.Errorf("the provider's 429: %d %v", got.code, got.header)
			}
			eventually(t, "nobody is let through", func() error {
				if s := server.check(t, "bob", api.model); s.verdict != "VERDICT_THROTTLED" {
					return fmt.Errorf("it is %s", s.verdict)
				}
				return nil
			})
			asked, _ := provider.ledger(t)
			got = send(t, e.url, api.ask("bob", "", small(api)))
			seconds, err := strconv.Atoi(got.header.Get("retry-after"))
			if got.code != http.StatusTooManyRequests || got.header.Get("x-envoy-ratelimited") == "" || err != nil || seconds < 1 || seconds > wait+1 { // by whole requests, of which there is one a second
				t.Errorf("the next user: %d %v %s", got.code, got.header, got.body)
			}
			if again, _ := provider.ledger(t); again.Requests != asked.Requests {
				t.Errorf("the provider was asked %d times, and then %d", asked.Requests, again.Requests)
			}
			eventually(t, "it is time", func() error {
				if s := server.check(t, "bob", api.model); s.verdict != "VERDICT_ADMITTED" {
					return fmt.Errorf("it is %s", s.verdict)
				}
				return nil
			})
			if got := send(t, e.url, api.ask("bob", "", small(api))); got.code != http.StatusOK {
				t.Errorf("when it is time: %d %s", got.code, got.body)
			}
		})
	}
}

// outlook is what would be said to a call, and what is left of the upstream's requests.
type outlook struct {
	verdict string
	left    int
}

// check asks ration what would be said to a call.
func (r *ration) check(t testing.TB, user, model string) outlook {
	t.Helper()
	var told struct {
		Decision struct {
			Verdict string
			Limits  []struct{ Limit, Remaining string }
		}
	}
	a := send(t, "http://"+r.http, request{method: http.MethodPost, path: "/ration.v1.AccountingService/Check",
		body:   fmt.Sprintf(`{"caller":{"domain":"llm","model":%q,"attributes":{"user":%q}},"estimate":{"usage":{"inputTokens":1}}}`, model, user),
		header: map[string]string{"content-type": "application/json"}})
	if err := json.Unmarshal([]byte(a.body), &told); err != nil || a.code != http.StatusOK {
		t.Fatalf("code %d, %s: %v", a.code, a.body, err)
	}
	o := outlook{verdict: told.Decision.Verdict}
	for _, l := range told.Decision.Limits {
		if strings.HasSuffix(l.Limit, ".rpm") {
			o.left, _ = strconv.Atoi(l.Remaining)
		}
	}
	return o
}
