package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// key is what a provider allows for the one key that all users share. Each limit is a bucket with room for what comes back in
// `bucket`.
type key struct {
	requests, input, output int // per minute
	bucket                  time.Duration
}

// flags make fakellm enforce it.
func (k key) flags() []string {
	return []string{
		"--rpm", strconv.Itoa(k.requests), "--input-tpm", strconv.Itoa(k.input), "--output-tpm", strconv.Itoa(k.output),
		"--burst", k.bucket.String(),
	}
}

// limits are those of the policy, by the rule that docs/policy.md derives: of each bucket as much is left as may come
// back while a call is on its way, which for output is until it has been written.
func (k key) limits(way, written time.Duration) (limits []map[string]any) {
	for _, l := range []struct {
		name      string
		perMinute int
		late      time.Duration
	}{{"rpm", k.requests, way}, {"itpm", k.input, way}, {"otpm", k.output, written}} {
		limits = append(limits, map[string]any{
			"name": l.name, "rate": fmt.Sprintf("%d/minute", l.perMinute),
			"burst": int(int64(l.perMinute) * int64(k.bucket-l.late) / int64(time.Minute)),
		})
	}
	return limits
}

// TestSharedKey has 500 users on one key whose limits the provider enforces, and ration before it. Where calls reserve what
// they may use, the provider never has to refuse, however many ask for whatever it is; and those who pay have what they pay
// for while the others flood.
func TestSharedKey(t *testing.T) {
	users := map[string][]string{"free": of("free", 440), "pro": of("pro", 50), "premium": of("premium", 10)}
	all := slices.Concat(users["free"], users["pro"], users["premium"])
	shared := key{requests: 1_200, input: 120_000, output: 60_000, bucket: 6 * time.Second}
	policy, err := json.Marshal(modelPolicy(t, users, shared.limits(time.Second, 3*time.Second)...))
	if err != nil {
		t.Fatal(err)
	}
	provider := startFakeLLM(t, shared.flags()...)
	server := startRation(t, startRedis(t).url(), policyFile(t, string(policy)))
	b := fromFile(t, reserveFile, provider.addr, server.grpc)
	b.users(all)
	asking := newCallers(t, startEnvoy(t, b))

	small := func(user string) prompt {
		return prompt{user: user, maxTokens: 10, script: map[string]string{"output-tokens": "8"}}
	}
	for _, f := range []struct {
		limit string // that is to be reached
		ask   func(user string) prompt
	}{
		{"rpm", small},
		{"itpm", func(user string) prompt {
			return prompt{user: user, words: strings.Repeat("four", 1000), maxTokens: 10, script: map[string]string{"output-tokens": "8"}}
		}},
		// The worst for a provider that counts output when it is written: all of it is, and at the same instants.
		{"otpm", func(user string) prompt {
			const together = 2 * time.Second
			now := time.Now()
			return prompt{user: user, maxTokens: 200, script: map[string]string{
				"output-tokens": "200", "chunk-tokens": "50", "tokens-per-second": "2000",
				"first-byte": now.Truncate(together).Add(together).Sub(now).Round(time.Millisecond).String()}}
		}},
	} {
		t.Run(f.limit, func(t *testing.T) {
			before, _ := provider.ledger(t)
			flooding := asking.flood(t.Context(), 100, users["free"], f.ask)
			flooding.until(t, "the free users are refused for the sake of the others", func(_ int, refused map[string]int) bool {
				return refused[f.limit] >= 100
			})
			// Ten users who pay, each with a call every two seconds: by each limit less than their 40 %.
			paying := asking.paced(t, users["premium"], 2*time.Second, 3, small)
			flooding.stop(t)
			for _, h := range paying {
				if !h.whole {
					t.Errorf("a premium user within the headroom heard %d %s", h.code, h.body)
				}
			}

			flooding = asking.flood(t.Context(), 100, slices.Concat(users["premium"], users["pro"], users["premium"]), f.ask)
			flooding.until(t, "all of the pool is in use, and written", func(served int, refused map[string]int) bool {
				return refused[f.limit] >= 1000 || served >= 50 && refused[f.limit] >= 100 || refused[""] > 0
			})
			flooding.stop(t)
			after, _ := provider.ledger(t)
			t.Logf("fakellm served %d requests, %d input, %d output tokens", after.Completed-before.Completed,
				after.Served.Input-before.Served.Input, after.Served.Output-before.Served.Output)
			if after.Limited != 0 {
				t.Errorf("the provider has refused %d of %d requests, want none", after.Limited, after.Requests)
			}
		})
	}
}

// paced lets each user make a call at once and then at a pace, and returns what they heard.
func (c *callers) paced(t testing.TB, users []string, every time.Duration, times int, ask func(user string) prompt) (all []heard) {
	answers := make(chan heard)
	for _, user := range users {
		go func() {
			next := time.NewTicker(every)
			defer next.Stop()
			for i := range times {
				if i > 0 {
					<-next.C
				}
				answers <- c.call(t.Context(), ask(user))
			}
		}()
	}
	for range len(users) * times {
		all = append(all, <-answers)
	}
	return all
}

// TestShippedKey shows that the policy that ships leaves what its comment says to a provider of which it speaks.
func TestShippedKey(t *testing.T) {
	policy := modelPolicy(t, nil)
	for _, f := range []struct {
		upstream, limit string
		allowed         int // per minute, and at once
		late            int // seconds
	}{
		{"anthropic", "rpm", 1_000, 1},
		{"anthropic", "itpm", 2_000_000, 1},
		{"anthropic", "otpm", 400_000, 60},
		{"openai", "rpm", 1_000, 1},
		{"openai", "tpm", 2_000_000, 1},
	} {
		l := named(named(policy, f.upstream, "upstreams"), f.limit, "limits")
		rate, err := strconv.Atoi(strings.ReplaceAll(strings.TrimSuffix(l["rate"].(string), "/minute"), "_", ""))
		if err != nil {
			t.Fatal(err)
		}
		if burst := l["burst"].(int); rate > f.allowed || burst*60+rate*f.late > f.allowed*60 {
			t.Errorf("%s.%s: %d at once and %d per minute, where the provider allows %d", f.upstream, f.limit, burst, rate, f.allowed)
		}
	}
}

// TestSharedKeyOfAnyModel shows that no model with a price goes past the limits of the provider's key, whatever it is called.
func TestSharedKeyOfAnyModel(t *testing.T) {
	server := startRation(t, memory, "../llm.policy.yaml")
	for model, upstream := range map[string]string{
		"claude-haiku-4-5": "anthropic", "anthropic/claude-haiku-4-5": "anthropic",
		"gpt-5-mini": "openai", "codex-mini-latest": "openai", "chatgpt-4o-latest": "openai", "GPT-5-mini": "openai",
	} {
		a := send(t, "http://"+server.http, request{method: http.MethodPost, path: "/ration.v1.UsageService/GetUsage",
			body:   fmt.Sprintf(`{"caller":{"domain":"llm","attributes":{"user":"carol"},"model":%q}}`, model),
			header: map[string]string{"content-type": "application/json"}})
		if a.code != http.StatusOK || !strings.Contains(a.body, "llm.upstreams."+upstream+".rpm") {
			t.Errorf("%s: code %d, want the limits of %s: %s", model, a.code, upstream, a.body)
		}
	}
}

// untold takes out what tells ration of the provider's limits, so that those of the policy are on their own.
func (b bootstrap) untold() {
	host := named(at(b.hcm(), "route_config"), "http", "virtual_hosts")
	for _, l := range at(host, "typed_per_filter_config", "ration.charge")["rate_limits"].([]any) {
		limit := l.(map[string]any)
		limit["actions"] = slices.DeleteFunc(limit["actions"].([]any), func(action any) bool {
			m, _ := action.(map[string]any)["metadata"].(map[string]any)
			key, _ := m["descriptor_key"].(string)
			return strings.HasPrefix(key, "ration.provider.")
		})
	}
}

// TestProviderRefuses lets the provider refuse before ration does. The user hears that in our words, and nothing of the key.
func TestProviderRefuses(t *testing.T) {
	provider := startFakeLLM(t, "--rpm", "2", "--input-tpm", "1000", "--output-tpm", "1000", "--tpm", "1000")
	server := startRation(t, memory, "../llm.policy.yaml")
	b := fromFile(t, reserveFile, provider.addr, server.grpc)
	b.untold()
	e := startEnvoy(t, b)
	for _, api := range []struct{ path, body, words string }{
		{"/v1/messages", prompt{maxTokens: 10}.body(), `"overloaded_error"`},
		{"/v1/chat/completions", `{"model":"gpt-5-mini","max_completion_tokens":10,"messages":[{"role":"user","content":"Hello"}]}`, `"overloaded"`},
	} {
		t.Run(api.path, func(t *testing.T) {
			ask := func() answer {
				return send(t, e.url, request{method: http.MethodPost, path: api.path, body: api.body, header: map[string]string{
					"content-type": "application/json", "anthropic-version": "2023-06-01", "x-api-key": "key-of-ann"}})
			}
			// What an answer says of limits is ours, and once: of the key there are 2 requests and 1,000 tokens.
			ours := func(got answer) {
				t.Helper()
				for name, values := range got.header {
					name = strings.ToLower(name)
					if strings.HasPrefix(name, "retry-after") || strings.Contains(name, "organization") ||
						strings.Contains(name, "ratelimit-") && (len(values) != 1 || values[0] == "2" || values[0] == "1000") {
						t.Errorf("the user is told %s: %q", name, values)
					}
				}
			}
			for range 2 {
				got := ask()
				if got.code != http.StatusOK {
					t.Fatalf("code %d with body %s, want 200", got.code, got.body)
				}
				ours(got)
			}
			got := ask()
			if got.code != http.StatusTooManyRequests || got.header.Get("x-should-retry") != "true" || got.header.Get("x-envoy-ratelimited") != "" ||
				!strings.Contains(got.body, api.words) || strings.Contains(got.body, "per minute") {
				t.Errorf("code %d, headers %v, body %s", got.code, got.header, got.body)
			}
			ours(got)
		})
	}
	if total, _ := provider.ledger(t); total.Limited != 2 {
		t.Errorf("the provider has refused %d requests, want 2", total.Limited)
	}
}

// TestSharedKeyOfOpenAI is about a provider that counts what a call may write, when it comes, and not what it writes. A
// limit that does so too spares it, and one that gives back what was not written does not, by itself.
func TestSharedKeyOfOpenAI(t *testing.T) {
	const perMinute, bucket, way = 120_000, 6, 1 // tokens; seconds
	users := map[string][]string{"premium": of("premium", 100)}
	for counts, spared := range map[string]bool{"asked": true, "used": false} {
		t.Run(counts, func(t *testing.T) {
			policy := modelPolicy(t, users)
			tpm := named(named(policy, "openai", "upstreams"), "tpm", "limits")
			tpm["rate"], tpm["burst"], tpm["counts"] = fmt.Sprintf("%d/minute", perMinute), perMinute/60*(bucket-way), counts
			text, err := json.Marshal(policy)
			if err != nil {
				t.Fatal(err)
			}
			provider := startFakeLLM(t, "--tpm", strconv.Itoa(perMinute), "--burst", fmt.Sprintf("%ds", bucket))
			server := startRation(t, memory, policyFile(t, string(text)))
			b := fromFile(t, reserveFile, provider.addr, server.grpc)
			b.users(users["premium"])
			b.untold()
			flooding := newCallers(t, startEnvoy(t, b)).flood(t.Context(), 50, users["premium"], func(user string) prompt {
				return prompt{user: user, chat: true, maxTokens: 300, script: map[string]string{"output-tokens": "150", "input-tokens": "20"}}
			})
			flooding.until(t, "ration refuses, or the provider", func(_ int, refused map[string]int) bool {
				return refused["tpm"] >= 500 || !spared && refused[""] >= 10
			})
			flooding.stop(t)
			total, _ := provider.ledger(t)
			if (total.Limited == 0) != spared {
				t.Errorf("the provider has refused %d of %d requests", total.Limited, total.Requests)
			}
		})
	}
}

// TestSharedKeyChecked is about files that check before a call and record after it. What calls under way have used is not known
// yet, so the provider has to refuse where that is more than the policy leaves of its bucket, and not where it is less; and it
// does so only until what was under way is recorded, for then ration refuses.
func TestSharedKeyChecked(t *testing.T) {
	users := map[string][]string{"free": of("free", 440)}
	shared := key{requests: 1_200, input: 120_000, output: 60_000, bucket: 6 * time.Second}
	left := shared.output / 60 * 3 // tokens, of the provider's bucket
	policy, err := json.Marshal(modelPolicy(t, users, shared.limits(time.Second, 3*time.Second)...))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []struct {
		name   string
		output int // of a call
		atOnce int
		spared bool // the provider
	}{
		// What has ended and is not recorded yet counts too; there is room for as much again.
		{"less under way than is left", 100, left / 100 / 2, true},
		// All that the limit of requests lets through at once, which is 100, are admitted before the first is recorded, and write
		// several buckets. While they do so the provider refuses whoever is admitted beside them.
		{"more", 400, 150, false},
	} {
		t.Run(f.name, func(t *testing.T) {
			provider := startFakeLLM(t, shared.flags()...)
			server := startRation(t, memory, policyFile(t, string(policy)))
			b := fromFile(t, "../llm-anthropic.yaml", provider.addr, server.grpc)
			b.users(users["free"])
			flooding := newCallers(t, startEnvoy(t, b)).flood(t.Context(), f.atOnce, users["free"], func(user string) prompt {
				return prompt{user: user, maxTokens: f.output, script: map[string]string{
					"output-tokens": strconv.Itoa(f.output), "tokens-per-second": "200", "chunk-tokens": "20"}}
			})
			usedUp := func(times int) {
				t.Helper()
				flooding.until(t, "the output is used up", func(_ int, refused map[string]int) bool { return refused["otpm"] >= times*f.atOnce })
			}
			usedUp(10)
			before, _ := provider.ledger(t)
			usedUp(12)
			flooding.stop(t)
			total, _ := provider.ledger(t)
			t.Logf("%d at once: the provider has refused %d of %d requests, and written %d tokens", f.atOnce, total.Limited, total.Requests, total.Served.Output)
			if (total.Limited == 0) != f.spared {
				t.Errorf("the provider has refused %d requests; spared: %t", total.Limited, f.spared)
			}
			if total.Limited != before.Limited {
				t.Errorf("the provider has refused %d requests more since ration refuses", total.Limited-before.Limited)
			}
		})
	}
}
