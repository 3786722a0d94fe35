package e2e

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// What the users of the SDKs have. A day begins with its first use, so that no run of the test comes near its end.
const sdkPolicy = `
domain: llm
anonymous: deny
tiers: [ { name: free }, { name: slow } ]
prices:
  models:
    claude-haiku-4-5*: { input: "1.00", output: "5.00", cache_read: "0.10", cache_write: "1.25" }
    gpt-5-mini*: { input: "0.25", output: "2.00", cache_read: "0.03", cache_write: "0.25" }
descriptors:
- key: user
  subject: true
  limits:
  - { name: pace, meter: requests, algorithm: token_bucket, tiers: { free: { rate: 600/minute, burst: 100 }, slow: { rate: 40/minute, burst: 1 } } }
  - { name: tokens, meter: tokens, algorithm: fixed_window, starts: first_use, limit: 100_000/day, per_request: 5_000, warn_at: 50% }
  - { name: spend, meter: cost, algorithm: fixed_window, limit: $100/day }
upstreams:
- { name: providers, models: [ claude-*, gpt-* ], limits: [ { name: rpm, meter: requests, algorithm: token_bucket, rate: 6_000/minute } ] }
subjects:
`

// sdkAPIs are the APIs that the SDKs call, and what ration.api calls them.
var sdkAPIs = map[string]string{"messages": "anthropic", "chat": "openai", "responses": "openai"}

// sdkForms are the ways in which a case of the scripts ends, by the end of its name.
func sdkForms() map[string]sdkForm {
	return map[string]sdkForm{
		// One retry each, so that whoever came earlier than told would be refused twice and fail.
		"throttled": {answers: 3, log: "a(rara|raa|ara)", tier: "slow"},
		"warned":    {answers: 1, log: "a", used: 50_000, warning: `"You have used 50 % of your daily quota."`},
		"exhausted": {
			log: "r", used: 99_950, message: `^Daily quota used up: 99,950 of 100,000 tokens; 50 left\. Resets `,
			anthropic: "rate_limit_error quota_exhausted", openAI: "insufficient_quota insufficient_quota",
		},
		"large": {
			log: "r", message: `^Request too large: 6,\d\d\d tokens, 5,000 per request\.$`,
			anthropic: "invalid_request_error request_too_large", openAI: "invalid_request_error request_too_large",
		},
		"unpriced": {
			log: "r", message: `^This request is not allowed: the model mystery has no price here\.`,
			anthropic: "permission_error blocked", openAI: "invalid_request_error blocked",
		},
		// The provider's own refusal: it is tried again, and says nothing of the key that all share.
		"busy": {
			log: "pp", theirs: true, message: `^The model is busy\. Try again in a moment\.$`,
			anthropic: "overloaded_error ", openAI: "server_error overloaded",
		},
	}
}

// sdkForm is what becomes of a case.
type sdkForm struct {
	tier string // of the user; empty for the first
	used int    // tokens, before

	answers int    // that the application gets
	log     string // what becomes of its requests in Envoy: admitted, refused by ration, refused by the provider
	warning string // of an answer

	message           string // of the refusal
	anthropic, openAI string // its type and code, as the SDKs tell them
	theirs            bool   // the provider has refused
}

// sdkOutcome is what a script says of a case.
type sdkOutcome struct {
	Answers int
	Headers map[string]string // of the last answer
	Refusal *struct {
		Class, Text, Request, Retry, Message string
		Status                               int
		Type, Code                           *string
	}
}

// sdkRequest is a request in Envoy's access log.
type sdkRequest struct {
	ID, User, Details string
	Code              int
}

// TestSDKs drives the official SDKs through Envoy. They sleep as long as they are told, and succeed; they stop at once
// where waiting does not help; and their errors say what ration says. How often they ask is told by Envoy's access log.
func TestSDKs(t *testing.T) {
	scripts := map[string][]string{
		"python":     {sdk(t, "python/bin/python"), "testdata/sdks.py"},
		"typescript": {"node", "testdata/sdks.mjs", sdk(t, "node")},
	}
	forms, users := sdkForms(), map[string]sdkForm{}
	for language := range scripts {
		for api := range sdkAPIs {
			for name, form := range forms {
				users[language+"-"+api+"-"+name], users[language+"-"+api+"-stream-"+name] = form, form
			}
		}
	}
	subjects, credentials := "", []any{}
	for user, form := range users {
		subjects += "  " + user + ": { tier: " + cmp.Or(form.tier, "free") + " }\n"
		credentials = append(credentials, map[string]any{"key": user, "client": user})
	}
	server, behind := startRation(t, memory, policyFile(t, sdkPolicy+subjects)), startFakeLLM(t, "--script", "output-tokens=20")
	for user, form := range users {
		report := fmt.Sprintf("llm: user=%s, ration.meter=tokens, ration.phase=record hits %d", user, form.used)
		if _, err := server.client.ShouldRateLimit(t.Context(), parseCall(report, "")); err != nil {
			t.Fatal(err)
		}
	}
	b := fromFile(t, reserveFile, behind.addr, server.grpc)
	b.filter("envoy.filters.http.api_key_auth")["credentials"] = credentials
	b.untold() // the refusals that the provider is scripted to give some users are no business of the others
	e := startEnvoy(t, b)

	var mu sync.Mutex
	outcomes := map[string]sdkOutcome{} // by user
	t.Run("scripts", func(t *testing.T) {
		for language, command := range scripts {
			t.Run(language, func(t *testing.T) {
				t.Parallel()
				for name, outcome := range runScript(t, command[0], append(command[1:], e.url)...) {
					mu.Lock()
					outcomes[language+"-"+name] = outcome
					mu.Unlock()
				}
			})
		}
	})
	requests, admitted, busy := e.accessLog(t), 0, 0
	for user, outcome := range outcomes {
		t.Run(user, func(t *testing.T) {
			api := sdkAPIs[strings.Split(user, "-")[1]]
			checkOutcome(t, api, users[user], outcome, requests[user])
		})
		for _, r := range requests[user] {
			switch r.fate() {
			case 'a':
				admitted++
			case 'p':
				busy++
			}
		}
	}
	if want := len(scripts) * len(sdkAPIs) * 9; len(outcomes) != want {
		t.Errorf("the scripts had %d cases, want %d", len(outcomes), want)
	}
	total, _ := behind.ledger(t)
	if total.Completed != int64(admitted) || total.Requests != int64(admitted+busy) {
		t.Errorf("the model was asked %d times and answered %d, want %d and %d", total.Requests, total.Completed, admitted+busy, admitted)
	}
}

func checkOutcome(t *testing.T, api string, want sdkForm, got sdkOutcome, requests []sdkRequest) {
	t.Helper()
	log := ""
	for _, r := range requests {
		log += string(r.fate())
	}
	if !regexp.MustCompile("^(" + want.log + ")$").MatchString(log) {
		t.Errorf("its requests ended %q, want %s: %v", log, want.log, requests)
	}
	if got.Answers != want.answers || (got.Refusal == nil) != (want.message == "") {
		t.Fatalf("%d answers, and then %+v; want %d", got.Answers, got.Refusal, want.answers)
	}
	if got.Refusal == nil {
		checkFields(t, api, want, got.Headers)
		return
	}
	r, kind := got.Refusal, want.anthropic
	if api == "openai" {
		kind = want.openAI
	}
	if r.Class != "RateLimitError" || r.Status != http.StatusTooManyRequests {
		t.Errorf("%s with the status %d, want RateLimitError with 429", r.Class, r.Status)
	}
	if !regexp.MustCompile(want.message).MatchString(r.Message) || !strings.Contains(r.Text, r.Message) {
		t.Errorf("its message is %q, and it reads %q; want %s", r.Message, r.Text, want.message)
	}
	if said := text(r.Type) + " " + text(r.Code); said != kind {
		t.Errorf("its type and code are %q, want %q", said, kind)
	}
	if shouldRetry := fmt.Sprint(want.theirs); r.Retry != shouldRetry {
		t.Errorf("x-should-retry is %q, want %q", r.Retry, shouldRetry)
	}
	if id := requests[len(requests)-1].ID; r.Request != id && !want.theirs {
		t.Errorf("the request is %q, and %q in Envoy's log", r.Request, id)
	}
}

// checkFields checks which fields an answer of the model has beside the model's own: those of its API, each once.
func checkFields(t *testing.T, api string, want sdkForm, got map[string]string) {
	t.Helper()
	names := []string{"ratelimit", "ratelimit-policy", "x-request-id"}
	for _, what := range []string{"limit", "remaining", "reset"} {
		for _, of := range []string{"requests", "tokens"} {
			if api == "anthropic" {
				names = append(names, "anthropic-ratelimit-"+of+"-"+what)
			} else {
				names = append(names, "x-ratelimit-"+what+"-"+of)
			}
		}
	}
	if api == "anthropic" {
		names = append(names, "request-id") // the model's
	}
	if want.warning != "" {
		names = append(names, "ration-warning")
	}
	slices.Sort(names)
	if has := slices.Sorted(maps.Keys(got)); !slices.Equal(has, names) {
		t.Errorf("the answer has the fields\n%q, want\n%q", has, names)
	}
	if got["ration-warning"] != want.warning {
		t.Errorf("ration-warning: %s, want %s", got["ration-warning"], want.warning)
	}
	for name, value := range got {
		if strings.Contains(value, ",") && !strings.HasPrefix(name, "ratelimit") {
			t.Errorf("%s: %s: two writers", name, value)
		}
	}
	if strings.Contains(got["ratelimit"], "providers") {
		t.Errorf("ratelimit: %s: tells of what all share", got["ratelimit"])
	}
}

// fate is what became of a request: admitted, refused by ration, refused by the provider; or something else.
func (r sdkRequest) fate() rune {
	switch fmt.Sprintf("%d %s", r.Code, r.Details) {
	case "200 via_upstream":
		return 'a'
	case "429 request_rate_limited":
		return 'r'
	case "429 via_upstream":
		return 'p'
	}
	return '?'
}

// accessLog returns the requests of Envoy's access log by user, when all that Envoy has seen are in it.
func (e *envoy) accessLog(t testing.TB) (byUser map[string][]sdkRequest) {
	t.Helper()
	eventually(t, "all requests are in the access log", func() error {
		byUser = map[string][]sdkRequest{}
		printed, err := os.ReadFile(e.log)
		if err != nil {
			return err
		}
		n := 0
		for line := range strings.Lines(string(printed)) {
			var r sdkRequest
			if json.Unmarshal([]byte(line), &r) == nil {
				byUser[r.User] = append(byUser[r.User], r)
				n++
			}
		}
		if seen := e.stat(t, "http.http.downstream_rq_total"); n != seen {
			return fmt.Errorf("%d of %d", n, seen)
		}
		return nil
	})
	return byUser
}

// sdk returns where an official SDK, or its interpreter, is installed.
func sdk(t *testing.T, path string) string {
	t.Helper()
	found, err := filepath.Abs(filepath.Join("../../.cache/sdks", path))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(found); err != nil {
		t.Fatalf("there are no SDKs: run `make test-deps`, which installs them (%v)", err)
	}
	return found
}

// runScript runs a script of the SDKs and returns what it prints.
func runScript(t *testing.T, program string, args ...string) (outcomes map[string]sdkOutcome) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	command := exec.CommandContext(ctx, program, args...)
	var complaints bytes.Buffer
	command.Stderr = &complaints
	out, err := command.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", program, err, &complaints)
	}
	if err := json.Unmarshal(out, &outcomes); err != nil {
		t.Fatalf("%s: %v\n%s", program, err, out)
	}
	return outcomes
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
