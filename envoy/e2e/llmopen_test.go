package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"
)

// lookups are requests that cost nothing, as the SDKs of both APIs make them.
var lookups = map[string]request{
	"models of Anthropic": {path: "/v1/models", header: map[string]string{"x-api-key": "key-of-carol", "anthropic-version": "2023-06-01"}},
	"a model of OpenAI":   {path: "/v1/models/gpt-5", header: map[string]string{"authorization": "Bearer key-of-carol"}},
	"counting tokens": {method: http.MethodPost, path: "/v1/messages/count_tokens",
		body:   `{"model":"claude-haiku-4-5","messages":[{"role":"user","content":"Hello"}]}`,
		header: map[string]string{"x-api-key": "key-of-carol", "anthropic-version": "2023-06-01", "content-type": "application/json"}},
}

// TestLLMOpen shows that while nobody can count, what costs money is refused in the words of its API, and what costs nothing
// passes; and that both are limited while ration answers.
func TestLLMOpen(whole *testing.T) {
	t := whole
	server := startRedis(t)
	l := startLLM(t, "llm-open.yaml", server.url(), func(b bootstrap) {
		b.filter("ration.free")["timeout"] = "2s" // a busy machine must not look like a service that does not answer
		b.filter("envoy.filters.http.ratelimit")["timeout"] = "2s"
	})
	passes := func(t *testing.T) {
		t.Helper()
		for name, r := range lookups {
			if got := send(t, l.url, r); got.code != http.StatusOK {
				t.Errorf("%s: code %d, want 200: %s", name, got.code, got.body)
			}
		}
	}
	costs := func(t *testing.T, code int, words map[string]string) {
		t.Helper()
		for name, api := range llmAPIs {
			for _, stream := range []bool{false, true} {
				eventually(t, fmt.Sprintf("%s is answered %d", name, code), func() error {
					got := send(t, l.url, api.ask("ann", "output-tokens=10", map[string]any{"stream": stream}))
					if got.code != code {
						return fmt.Errorf("code %d: %s", got.code, got.body)
					}
					if code != http.StatusOK && (!strings.Contains(got.body, words[name]) || got.header.Get("x-should-retry") != "true" ||
						got.header.Get("retry-after") == "" || got.header.Get("content-type") != "application/json") {
						t.Errorf("headers %v, body %s, want %s", got.header, got.body, words[name])
					}
					return nil
				})
			}
		}
	}

	t.Run("all is well", func(t *testing.T) {
		passes(t)
		costs(t, http.StatusOK, nil)
		l.chargesWhatWasServed(t)
		l.ration.stands(t, "carol", "requests", standing{}) // what costs nothing is counted elsewhere
	})
	t.Run("the store is away", func(t *testing.T) {
		server.signal(syscall.SIGKILL)
		_ = server.wait(t)
		passes(t)
		costs(t, http.StatusTooManyRequests, map[string]string{
			"messages": `"type":"api_error"`, "chat": `"code":"store_unavailable"`, "responses": `"code":"store_unavailable"`})
		passes(t)
		server.start(whole) // and not of this part alone
		costs(t, http.StatusOK, nil)
	})
	t.Run("ration is away", func(t *testing.T) {
		l.ration.signal(syscall.SIGTERM)
		if err := l.ration.wait(t); err != nil {
			t.Error(err)
		}
		passes(t)
		costs(t, http.StatusServiceUnavailable, map[string]string{
			"messages": `"type":"api_error"`, "chat": `"code":"limits_unavailable"`, "responses": `"code":"limits_unavailable"`})
		l.ration.start(whole)
		costs(t, http.StatusOK, nil)
	})
	t.Run("what costs nothing is limited too", func(t *testing.T) {
		eventually(t, "ration refuses", func() error {
			got := send(t, l.url, lookups["models of Anthropic"])
			if got.code != http.StatusTooManyRequests {
				return fmt.Errorf("code %d", got.code)
			}
			if !strings.Contains(got.body, `"rate_limit_error"`) || !strings.Contains(got.body, "lookups") {
				t.Errorf("body %s", got.body)
			}
			return nil
		})
	})
	t.Run("and nobody else is let in", func(t *testing.T) {
		for name, r := range lookups {
			r.header = map[string]string{"x-ration-user": "ann", "content-type": "application/json"}
			if got := send(t, l.url, r); got.code != http.StatusUnauthorized {
				t.Errorf("%s: code %d, want 401", name, got.code)
			}
		}
	})
}

// TestLLMStorePaused shows that what a call has used, while the store is away when it ends, lands when the store is back.
func TestLLMStorePaused(t *testing.T) {
	for file, apis := range bootstrapsOf {
		t.Run(file, func(t *testing.T) {
			counters, behind := startRedis(t), startModel(t)
			server := startRation(t, counters.url(), llmPolicy)
			e := startEnvoy(t, fromFile(t, "../"+file, behind.addr, server.grpc))
			finish, ends := waiting(t)
			r := llmAPIs[apis[0]].ask("ann", "", nil)
			whole := map[string]string{"messages": messageJSON, "chat": completionJSON}[apis[0]]
			behind.at(r.path, func(w http.ResponseWriter, r *http.Request) {
				<-finish
				say(whole)(w, r)
			})
			ended := make(chan answer, 1)
			go func() {
				a, _ := try(t.Context(), e.url, r)
				ended <- a
			}()
			eventually(t, "the model is asked", func() error {
				if behind.requests(r.path) == 0 {
					return fmt.Errorf("it was not")
				}
				return nil
			})
			counters.signal(syscall.SIGSTOP)
			ends()
			if got := <-ended; got.code != http.StatusOK {
				t.Errorf("code %d, want 200: %s", got.code, got.body)
			}
			eventually(t, "the end is told, and waits", func() error {
				if got := e.stat(t, "cluster.ration.upstream_rq_200"); got < 2 {
					return fmt.Errorf("%d calls of ration were answered", got)
				}
				return nil
			})
			counters.signal(syscall.SIGCONT)
			want := map[string]int64{"messages": 25 + 7 + 15, "chat": 25 + 15}[apis[0]]
			server.stands(t, "ann", "tokens", standing{used: want})
			server.stands(t, "ann", "in-flight", standing{})
		})
	}
}
