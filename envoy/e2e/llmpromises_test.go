package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// promisesPolicy has small limits, which a handful of calls can reach.
const promisesPolicy = `
domain: llm
anonymous: deny
prices:
  models:
    claude-haiku-4-5: { input: "1.00", output: "5.00", cache_read: "0.10", cache_write: "1.25" }
    gpt-5-mini: { input: "1.00", output: "5.00", cache_read: "0.10", cache_write: "1.25" }
descriptors:
- key: user
  subject: true
  limits:
  - { name: requests, meter: requests, algorithm: fixed_window, limit: 100/day }
  - { name: tokens, meter: tokens, algorithm: fixed_window, limit: 1_000/day, per_request: 600 }
  - { name: spend, meter: cost, algorithm: fixed_window, limit: $0.005/day }
  - { name: in-flight, meter: concurrency, limit: 3 }`

// TestLLMPromises shows which limits hold in which bootstrap, while calls run at the same time that each use a third of what a
// user has. docs/envoy-models.md has the table.
func TestLLMPromises(t *testing.T) {
	for file, apis := range bootstrapsOf {
		reserves := file == "llm-reserve.yaml"
		for _, name := range apis {
			t.Run(file+", "+name, func(t *testing.T) {
				server, behind := startRation(t, memory, policyFile(t, promisesPolicy)), startModel(t)
				e := startEnvoy(t, fromFile(t, "../"+file, behind.addr, server.grpc))
				api := llmAPIs[name]
				const output, input = 400, 25
				finish, ends := waiting(t)
				used := strings.NewReplacer("15", fmt.Sprint(output), "7", "0", "20", "0").Replace(map[string]string{
					"messages": messageJSON, "chat": completionJSON,
					"responses": `{"model":"m","usage":{"input_tokens":25,"input_tokens_details":{"cached_tokens":20},"output_tokens":15,"total_tokens":40}}`}[name])
				used = strings.Replace(used, `"model":"m"`, `"model":"`+api.model+`"`, 1)
				behind.at(api.path, func(w http.ResponseWriter, r *http.Request) {
					<-finish
					say(used)(w, r)
				})
				r := api.ask("ann", "", map[string]any{api.outputCap: output})
				ended := make(chan int, 10)
				begin := func(n int) {
					go func() {
						a, _ := try(t.Context(), e.url, r)
						ended <- a.code
					}()
					eventually(t, "it is under way, or refused", func() error {
						if n < len(ended)+behind.requests(api.path) {
							return nil
						}
						return fmt.Errorf("%d requests", behind.requests(api.path))
					})
				}
				const calls = 4
				for n := range calls {
					begin(n)
				}
				admitted := behind.requests(api.path)
				if want := map[bool]int{false: calls, true: 2}[reserves]; admitted != want {
					t.Errorf("%d of %d calls at the same time were admitted, want %d", admitted, calls, want)
				}
				if stands := server.standings(t, "ann"); reserves != (stands["tokens"].held > 0) || reserves != (stands["in-flight"].held > 0) {
					t.Errorf("while they run, limits stand so: %v", stands)
				}
				ends()
				codes := map[int]int{}
				for range calls {
					codes[<-ended]++
				}
				if codes[http.StatusOK] != admitted || codes[http.StatusTooManyRequests] != calls-admitted {
					t.Errorf("the calls were answered %v", codes)
				}
				// What was used lands, whatever was left, and a refused call is charged nothing.
				n := int64(admitted)
				server.stands(t, "ann", "tokens", standing{used: n * (input + output)})
				server.stands(t, "ann", "spend", standing{used: n * (input*1000 + output*5000)})
				server.stands(t, "ann", "requests", standing{used: n})
				server.stands(t, "ann", "in-flight", standing{})

				r = api.ask("bob", "", map[string]any{api.outputCap: 5000})
				got := send(t, e.url, r)
				if want := map[bool]int{false: http.StatusOK, true: http.StatusTooManyRequests}[reserves]; got.code != want {
					t.Errorf("a request above the cap of one: code %d, want %d: %s", got.code, want, got.body)
				}
				if reserves && (got.header.Get("x-should-retry") != "false" || !strings.Contains(got.body, "invalid_request_error")) {
					t.Errorf("headers %v, body %s", got.header, got.body)
				}
				r = api.ask("ann", "", map[string]any{api.outputCap: output})
				if got := send(t, e.url, r); got.code != http.StatusTooManyRequests || got.header.Get("x-should-retry") != "false" {
					t.Errorf("with nothing left: code %d, headers %v, want 429, not to be tried again", got.code, got.header)
				}
				server.stands(t, "ann", "requests", standing{used: n})
			})
		}
	}
}
