package e2e

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
)

// startScriptedLLM runs a bootstrap with a scripted model behind it.
func startScriptedLLM(t testing.TB, file, policy string, change ...func(bootstrap)) (*envoy, *ration, *model) {
	t.Helper()
	server, behind := startRation(t, memory, policy), startModel(t)
	b := fromFile(t, "../"+file, behind.addr, server.grpc)
	for _, c := range change {
		c(b)
	}
	return startEnvoy(t, b), server, behind
}

// TestLLMProvider shows that what the provider says of its limits, and of whose account it is, stays from users; that its 429 is
// told apart from ours, and worded as the API does; and that it costs nothing.
func TestLLMProvider(t *testing.T) {
	theirs := []string{
		"anthropic-ratelimit-requests-remaining", "7777", "anthropic-organization-id", "acme", "x-ratelimit-remaining-requests", "7777",
		"openai-organization", "acme", "openai-project", "acme", "retry-after", "47", "retry-after-ms", "47000", "x-request-id", "theirs",
	}
	busy := map[string]string{"messages": `"type":"overloaded_error"`, "chat": `"code":"overloaded"`, "responses": `"code":"overloaded"`}
	remaining := map[string]string{"messages": "anthropic-ratelimit-requests-remaining", "chat": "x-ratelimit-remaining-requests",
		"responses": "x-ratelimit-remaining-requests"}
	for file, apis := range bootstrapsOf {
		t.Run(file, func(t *testing.T) {
			e, server, behind := startScriptedLLM(t, file, policyFile(t, promisesPolicy))
			var requests int64
			for _, name := range apis {
				api := llmAPIs[name]
				t.Run(name, func(t *testing.T) {
					behind.at(api.path, say(`{"model":"`+api.model+`"}`, theirs...))
					ok := send(t, e.url, api.ask("bob", "", small(api)))
					behind.at(api.path, refuse(http.StatusTooManyRequests, `{"theirs":true}`, theirs...))
					limited := send(t, e.url, api.ask("ann", "", small(api)))
					requests++
					for code, got := range map[int]answer{http.StatusOK: ok, http.StatusTooManyRequests: limited} {
						if got.code != code {
							t.Errorf("code %d, want %d", got.code, code)
						}
						for i := 0; i < len(theirs); i += 2 {
							if values := got.header.Values(theirs[i]); slices.Contains(values, theirs[i+1]) {
								t.Errorf("%d: %s: %q, want nothing of theirs", code, theirs[i], values)
							}
						}
						if values := got.header.Values(remaining[name]); len(values) != 1 {
							t.Errorf("%d: %s: %q, want ours alone", code, remaining[name], values)
						}
					}
					if !strings.Contains(limited.body, busy[name]) || limited.header.Get("x-should-retry") != "true" || limited.header.Get("retry-after") != "" ||
						limited.header.Get("content-type") != "application/json" || limited.header.Get("x-envoy-ratelimited") != "" {
						t.Errorf("headers %v, body %s", limited.header, limited.body)
					}
					for _, code := range []int{http.StatusUnauthorized, http.StatusPaymentRequired, http.StatusForbidden} {
						behind.at(api.path, refuse(code, `{"error":{"message":"of the key ...abcd of the project acme"}}`, theirs...))
						closed := send(t, e.url, api.ask("ann", "", small(api)))
						requests++
						if closed.code != http.StatusBadGateway || strings.Contains(closed.body, "acme") ||
							!strings.Contains(closed.body, "cannot be asked") || closed.header.Get("x-should-retry") != "false" {
							t.Errorf("%d of the provider: code %d, headers %v, body %s", code, closed.code, closed.header, closed.body)
						}
					}
					server.stands(t, "ann", "in-flight", standing{})
					server.stands(t, "ann", "tokens", standing{})
					server.stands(t, "ann", "requests", standing{used: requests})
				})
			}
		})
	}
}

// small are the fields of a request that fits into the policy with small limits.
func small(api llmAPI) map[string]any { return map[string]any{api.outputCap: 100} }

// TestLLMServed shows that the price is that of the model which has served.
func TestLLMServed(t *testing.T) {
	e, server, behind := startScriptedLLM(t, "llm-reserve.yaml", llmPolicy)
	r := llmAPIs["messages"].ask("ann", "", map[string]any{"model": "claude-haiku-4-5"})
	served := strings.NewReplacer(`"model":"m"`, `"model":"claude-sonnet-4-6"`).Replace
	behind.at(r.path, say(served(messageJSON)))
	send(t, e.url, r)
	const cost = 25*3000 + 7*300 + 15*15000
	server.stands(t, "ann", "spend", standing{used: cost})
	behind.at(r.path, stream(served(messageStart), messageText, messageDelta, messageStop))
	send(t, e.url, r)
	server.stands(t, "ann", "spend", standing{used: 2 * cost})
}

// TestLLMLost shows what is charged where an answer's usage cannot be seen: the input where it was held, and nothing where it
// was only looked for room. docs/envoy-models.md says what to do about each.
func TestLLMLost(t *testing.T) {
	large := `{"model":"claude-haiku-4-5","content":"` + long(2<<20) + `","usage":{"input_tokens":25,"output_tokens":15}}`
	priced := strings.NewReplacer(`"model":"m"`, `"model":"claude-haiku-4-5"`).Replace
	for _, f := range []struct {
		name   string
		answer http.HandlerFunc
		code   int
		free   bool // even where the input was held
	}{
		{"no usage", say(`{"model":"claude-haiku-4-5"}`), 200, false},
		{"a stream without usage", stream(messageText, messageStop), 200, false},
		{"compressed, although nobody has asked for it", say(compressed(messageJSON), "content-encoding", "gzip"), 200, false},
		{"a stream, compressed", encodedPieces("text/event-stream", "gzip", compressed(messageStart+messageDelta)), 200, false},
		{"JSON by another name", say(priced(messageJSON), "content-type", "text/plain"), 200, false},
		{"JSON above the listener's buffer", say(large), 500, true},
		{"an event above max_event_size", stream("data: " + priced(large) + "\n\n"), 200, false},
	} {
		for _, file := range []string{"llm-anthropic.yaml", "llm-reserve.yaml"} {
			t.Run(f.name+", "+file, func(t *testing.T) {
				e, server, behind := startScriptedLLM(t, file, llmPolicy, func(b bootstrap) {
					named(b, "http", "static_resources", "listeners")["per_connection_buffer_limit_bytes"] = 1 << 20
					rules := at(b.filter("envoy.filters.http.sse_to_metadata"), "response_rules")
					rules["max_event_size"] = 1 << 20
				})
				r := llmAPIs["messages"].ask("ann", "", nil)
				behind.at(r.path, f.answer)
				if got := send(t, e.url, r); got.code != f.code {
					t.Errorf("code %d, want %d", got.code, f.code)
				}
				want := standing{used: int64(len(r.body)/4 + 1)}
				if file == "llm-anthropic.yaml" || f.free {
					want = standing{}
				}
				server.stands(t, "ann", "in-flight", standing{})
				server.stands(t, "ann", "tokens", want)
				// What comes afterwards is seen again, so that nothing of it is still on its way.
				behind.at(r.path, say(priced(messageJSON)))
				send(t, e.url, r)
				server.stands(t, "ann", "tokens", standing{used: want.used + 25 + 7 + 15})
			})
		}
	}
}

// TestLLMTooLarge shows that a request above the listener's buffer is refused before anybody is asked.
func TestLLMTooLarge(t *testing.T) {
	e, server, behind := startScriptedLLM(t, "llm-reserve.yaml", policyFile(t, promisesPolicy), func(b bootstrap) {
		named(b, "http", "static_resources", "listeners")["per_connection_buffer_limit_bytes"] = 1 << 20
	})
	r := llmAPIs["messages"].ask("ann", long(2<<20), nil)
	if got := send(t, e.url, r); got.code != http.StatusRequestEntityTooLarge {
		t.Errorf("code %d, want 413", got.code)
	}
	if behind.requests(r.path) > 0 {
		t.Error("the model was asked")
	}
	server.stands(t, "ann", "requests", standing{})
}

// waiting is a channel for what shall wait until ends is called, at the latest when the test fails.
func waiting(t testing.TB) (finish <-chan struct{}, ends func()) {
	c := make(chan struct{})
	ends = sync.OnceFunc(func() { close(c) })
	t.Cleanup(ends)
	return c, ends
}

// TestLLMDuplicates shows that descriptors which Envoy sends twice count twice: requests, what is held, and what was used.
func TestLLMDuplicates(t *testing.T) {
	e, server, behind := startScriptedLLM(t, "llm-reserve.yaml", policyFile(t, promisesPolicy), func(b bootstrap) {
		host := named(at(b.hcm(), "route_config"), "http", "virtual_hosts")
		route := host["routes"].([]any)[0].(map[string]any)
		for _, limits := range []map[string]any{
			at(route, "typed_per_filter_config", "envoy.filters.http.ratelimit"), at(host, "typed_per_filter_config", "ration.charge"),
		} {
			list := limits["rate_limits"].([]any)
			limits["rate_limits"] = append(slices.Clone(list), list...)
		}
	})
	finish, ends := waiting(t)
	r := llmAPIs["messages"].ask("ann", "", map[string]any{"max_tokens": 100})
	behind.at(r.path, func(w http.ResponseWriter, r *http.Request) {
		<-finish
		say(messageJSON)(w, r)
	})
	ended := make(chan answer, 1)
	go func() {
		a, _ := try(t.Context(), e.url, r)
		ended <- a
	}()
	server.stands(t, "ann", "tokens", standing{held: 2 * (int64(len(r.body)/4+1) + 100)})
	server.stands(t, "ann", "requests", standing{used: 2})
	server.stands(t, "ann", "in-flight", standing{held: 2})
	ends()
	if got := <-ended; got.code != http.StatusOK {
		t.Errorf("code %d, want 200", got.code)
	}
	server.stands(t, "ann", "tokens", standing{used: 2 * (25 + 7 + 15)})
	server.stands(t, "ann", "in-flight", standing{})
}

// TestLLMRepeats shows that the end of a call counts once, however often it is told, also where nothing was held: the id says
// that it is the same.
func TestLLMRepeats(t *testing.T) {
	onBothStores(t, func(t *testing.T, store func(testing.TB) string) {
		server := startRation(t, store(t), llmPolicy)
		const end = "llm: user=ann, ration.request=%s, ration.model=claude-haiku-4-5, ration.phase=record, ration.meter=output_tokens hits 40; " +
			"user=ann, ration.request=%s, ration.model=claude-haiku-4-5, ration.phase=done"
		for _, id := range []string{"one", "one", "two", "one"} {
			if _, err := server.client.ShouldRateLimit(t.Context(), parseCall(fmt.Sprintf(end, id, id), "")); err != nil {
				t.Fatal(err)
			}
		}
		server.stands(t, "ann", "tokens", standing{used: 80})
		server.stands(t, "ann", "spend", standing{used: 80 * 5000})
	})
}
