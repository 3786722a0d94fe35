package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"testing"
)

// llm is one of the bootstraps for models, running: Envoy, ration with the policy that ships, and fakellm behind both APIs.
type llm struct {
	*envoy
	ration *ration
	model  *fakellm
}

const llmPolicy = "../llm.policy.yaml"

// startLLM runs a bootstrap of the folder above until the test ends.
func startLLM(t testing.TB, file, store string, change ...func(bootstrap)) *llm {
	t.Helper()
	return startLLMWith(t, file, store, llmPolicy, nil, change...)
}

// startLLMWith is startLLM with another policy, and with flags of ration.
func startLLMWith(t testing.TB, file, store, policy string, flags []string, change ...func(bootstrap)) *llm {
	t.Helper()
	l := &llm{ration: startRation(t, store, policy, flags...), model: startFakeLLM(t)}
	b := fromFile(t, "../"+file, l.model.addr, l.ration.grpc)
	for _, c := range change {
		c(b)
	}
	l.envoy = startEnvoy(t, b)
	return l
}

// llmAPI is one that a model speaks.
type llmAPI struct {
	path, model string
	outputCap   string // the field of the request
	auth        func(key string) (name, value string)
}

func xAPIKey(key string) (name, value string) { return "x-api-key", key }
func bearer(key string) (name, value string)  { return "authorization", "Bearer " + key }

// llmAPIs are those that the bootstraps serve.
var llmAPIs = map[string]llmAPI{
	"messages":  {"/v1/messages", "claude-haiku-4-5", "max_tokens", xAPIKey},
	"chat":      {"/v1/chat/completions", "gpt-5-mini", "max_completion_tokens", bearer},
	"responses": {"/v1/responses", "gpt-5-mini", "max_output_tokens", bearer},
}

// ask makes a request to a model. The script is fakellm's, fields are put into the body beside model and prompt; one
// that is nil is taken out.
func (a llmAPI) ask(user, script string, fields map[string]any) request {
	prompt := "Hello [fake " + script + "]"
	body := map[string]any{"model": a.model, a.outputCap: 1000}
	if a.path == "/v1/responses" {
		body["input"] = prompt
	} else {
		body["messages"] = []any{map[string]any{"role": "user", "content": prompt}}
	}
	for name, value := range fields {
		if body[name] = value; value == nil {
			delete(body, name)
		}
	}
	text, err := json.Marshal(body)
	if err != nil {
		panic(err)
	}
	name, value := a.auth("key-of-" + user)
	return request{method: http.MethodPost, path: a.path, body: string(text),
		header: map[string]string{name: value, "content-type": "application/json", "anthropic-version": "2023-06-01"}}
}

// bootstrapsOf are the bootstraps that differ in what they ask of ration, with the APIs that they serve.
var bootstrapsOf = map[string][]string{
	"llm-anthropic.yaml": {"messages"},
	"llm-openai.yaml":    {"chat", "responses"},
	"llm-reserve.yaml":   {"messages", "chat", "responses"},
}

// standing is how a limit of a user stands.
type standing struct{ used, held int64 }

// standings asks ration how a user's limits stand, by their names: tokens, spend (in nano-dollars), requests, in-flight.
func (r *ration) standings(t testing.TB, user string) map[string]standing {
	t.Helper()
	var told struct {
		Limits []struct {
			Status struct{ Name, Used, Held string }
		}
	}
	a := send(t, "http://"+r.http, request{method: http.MethodPost, path: "/ration.v1.UsageService/GetUsage",
		body:   fmt.Sprintf(`{"caller":{"domain":"llm","attributes":{"user":%q}}}`, user),
		header: map[string]string{"content-type": "application/json"}})
	if err := json.Unmarshal([]byte(a.body), &told); err != nil || a.code != http.StatusOK {
		t.Fatalf("code %d, %s: %v", a.code, a.body, err)
	}
	all := map[string]standing{}
	for _, l := range told.Limits {
		var s standing
		for into, text := range map[*int64]string{&s.used: l.Status.Used, &s.held: l.Status.Held} {
			n, err := strconv.ParseInt(text, 10, 64)
			if err != nil {
				t.Fatalf("%s: %v", a.body, err)
			}
			*into = n
		}
		all[l.Status.Name] = s
	}
	return all
}

// stands waits until a limit of a user stands as given: the end of a call is on its way.
func (r *ration) stands(t testing.TB, user, limit string, want standing) {
	t.Helper()
	eventually(t, fmt.Sprintf("%s of %s is %+v", limit, user, want), func() error {
		if got := r.standings(t, user)[limit]; got != want {
			return fmt.Errorf("it is %+v", got)
		}
		return nil
	})
}

// nanos is what a token of each class costs, in nano-dollars.
type nanos struct{ input, cacheRead, cacheWrite, output int64 }

// llmPrices are those of the policy, and of the book that ships.
var llmPrices = map[string]nanos{
	"claude-haiku-4-5": {1000, 100, 1250, 5000},
	"gpt-5-mini":       {250, 25, 250, 2000},
}

// tokens is how many were served, of all classes.
func (s served) tokens() int64 {
	return s.Served.Input + s.Served.CacheRead + s.Served.CacheWrite + s.Served.Output
}

// cost is what they cost, in nano-dollars.
func (s served) cost() int64 {
	p := llmPrices[s.Model]
	return s.Served.Input*p.input + s.Served.CacheRead*p.cacheRead + s.Served.CacheWrite*p.cacheWrite + s.Served.Output*p.output
}

// chargesWhatWasServed waits until ann is charged what fakellm has served in all, tokens and money, and nothing is held.
func (l *llm) chargesWhatWasServed(t testing.TB) {
	t.Helper()
	const user = "ann"
	total, rows := l.model.ledger(t)
	var cost int64
	for _, row := range rows {
		cost += row.cost()
	}
	l.ration.stands(t, user, "tokens", standing{used: total.tokens()})
	l.ration.stands(t, user, "spend", standing{used: cost})
	l.ration.stands(t, user, "in-flight", standing{})
}

// TestLLMCharges shows that every bootstrap charges to the token what the model has served: whole and streamed, whichever
// API and whichever class of tokens, however the answer arrives.
func TestLLMCharges(t *testing.T) {
	for file, apis := range bootstrapsOf {
		t.Run(file, func(t *testing.T) {
			onBothStores(t, func(t *testing.T, store func(testing.TB) string) {
				l := startLLM(t, file, store(t))
				for _, name := range apis {
					t.Run(name, func(t *testing.T) { testLLMCharges(t, l, llmAPIs[name]) })
				}
			})
		})
	}
}

func testLLMCharges(t *testing.T, l *llm, api llmAPI) {
	for _, f := range []struct {
		name, script string
		fields       map[string]any
	}{
		{"input and output", "input-tokens=100 output-tokens=40", nil},
		{"every class", "input-tokens=100 cache-read-tokens=50 cache-write-tokens=20 output-tokens=40 reasoning-tokens=10", nil},
		{"all of the input from the cache", "input-tokens=0 cache-read-tokens=50 output-tokens=4", nil},
		{"in pieces of 7 bytes", "split=7 cache-read-tokens=9 output-tokens=40", nil},
		{"with a slow end", "slow-close=50ms output-tokens=4", nil},
		{"more than is asked for", "output-tokens=2000", nil},
		{"more input than its bytes tell", "input-tokens=3000 output-tokens=4", nil},
		{"usage that the caller forbids", "output-tokens=40", map[string]any{"stream_options": map[string]any{"include_usage": false}}},
		{"usage that the caller wants too", "output-tokens=40", map[string]any{"stream_options": map[string]any{"include_usage": true}}},
		{"several answers", "output-tokens=40", map[string]any{"n": 3}},
	} {
		t.Run(f.name, func(t *testing.T) {
			for _, stream := range []bool{false, true} {
				fields := map[string]any{"stream": stream}
				for name, value := range f.fields {
					if name != "stream_options" || stream && api.path == "/v1/chat/completions" {
						fields[name] = value
					}
				}
				if got := send(t, l.url, api.ask("ann", f.script, fields)); got.code != http.StatusOK {
					t.Fatalf("stream %v: code %d, body %s", stream, got.code, got.body)
				}
				l.chargesWhatWasServed(t)
			}
		})
	}
}
