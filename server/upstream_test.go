package server_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/timestamppb"

	rationv1 "github.com/rationhq/ration/gen/ration/v1"
	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/server"
)

// All that ReportUpstream says, field by field, over gRPC and over HTTP.
func TestReportUpstream(t *testing.T) {
	s := serve(t, accounts, nil, server.Config{})
	const ask = `{"domain": "llm", "model": "shared", "status": 429,
		"headers": {"Retry-After": "20", "X-RateLimit-Remaining-Tokens": "7", "X-RateLimit-Reset-Requests": "\u0000"}}`
	const answer = `{
  "upstream": "key",
  "refused": true,
  "wait": "20s",
  "limits": [
    {"limit": "llm.upstreams.key.requests", "name": "requests", "meter": "METER_REQUESTS", "quantity": "60 requests per minute",
      "capacity": "60", "used": "79", "remaining": "-19", "resetsAt": "2026-11-23T12:01:19Z"}
  ],
  "ignored": [
    {"header": "x-ratelimit-reset-requests", "reason": "\"\\x00\" is no time: seconds, a duration as 6m0s, or an instant"},
    {"header": "x-ratelimit-remaining-tokens", "reason": "the upstream has no limit of tokens"}
  ]
}`
	var request rationv1.ReportUpstreamRequest
	if err := protojson.Unmarshal([]byte(ask), &request); err != nil {
		t.Fatal(err)
	}
	got, err := s.ReportUpstream(t.Context(), &request)
	if err != nil {
		t.Fatal(err)
	}
	expectJSON(t, "over gRPC", got, answer)
	again := post(t, s.Addr("HTTP"), accounting+"ReportUpstream", ask)
	var same rationv1.ReportUpstreamResponse
	if err := protojson.Unmarshal([]byte(again.text), &same); err != nil || again.status != 200 {
		t.Fatalf("%d %s: %v", again.status, again.text, err)
	}
	expectJSON(t, "over HTTP, again", &same, answer)
}

// metered has an upstream that counts whatever providers do.
const metered = `
domain: llm
upstreams:
  - name: key
    models: [ shared ]
    limits:
      - { name: requests, meter: requests, algorithm: token_bucket, rate: 600/minute }
      - { name: tokens, meter: tokens, algorithm: token_bucket, rate: 60_000/minute }
      - { name: input, meter: input_tokens, algorithm: token_bucket, rate: 60_000/minute }
      - { name: output, meter: output_tokens, algorithm: token_bucket, rate: 60_000/minute }
`

// What each provider says in its answers is what is left afterwards, for whoever asks next; and until it is time nothing is,
// where it has refused.
func TestWhatProvidersSay(t *testing.T) {
	const whole = "requests 600 tokens 60000 input 60000 output 60000"
	for _, c := range []struct {
		provider string
		status   int32
		headers  string // a line each
		left     string // of the limits, as Check says
		wait     time.Duration
	}{
		{provider: "Anthropic", status: 200, headers: `Date: Mon, 23 Nov 2026 12:00:00 GMT
			anthropic-ratelimit-requests-limit: 1000
			anthropic-ratelimit-requests-remaining: 7
			anthropic-ratelimit-requests-reset: 2026-11-23T12:00:59Z
			anthropic-ratelimit-tokens-remaining: 300
			anthropic-ratelimit-tokens-reset: 2026-11-23T12:01:00Z
			anthropic-ratelimit-input-tokens-remaining: 200
			anthropic-ratelimit-input-tokens-reset: 2026-11-23T12:01:00Z
			anthropic-ratelimit-output-tokens-remaining: 100
			anthropic-ratelimit-output-tokens-reset: 2026-11-23T12:01:00Z`,
			left: "requests 7 tokens 300 input 200 output 100"},
		{provider: "Anthropic, refusing", status: 429, headers: `anthropic-ratelimit-input-tokens-remaining: 0
			retry-after: 17`,
			left: "requests 600 tokens 60000 input -16999 output 60000", wait: 17 * time.Second},
		{provider: "OpenAI", status: 200, headers: `x-ratelimit-limit-requests: 60
			x-ratelimit-remaining-requests: 59
			x-ratelimit-reset-requests: 1m0s
			x-ratelimit-remaining-tokens: 149
			x-ratelimit-reset-tokens: 6m0s`,
			left: "requests 59 tokens 149 input 60000 output 60000"},
		{provider: "OpenAI, refusing", status: 429, headers: `x-ratelimit-remaining-tokens: 0
			retry-after-ms: 1500
			retry-after: 2`,
			left: "requests 600 tokens -1499 input 60000 output 60000", wait: 1500 * time.Millisecond},
		{provider: "Azure OpenAI", status: 200, headers: `x-ratelimit-remaining-requests: 3
			x-ratelimit-remaining-tokens: 900`, left: "requests 3 tokens 900 input 60000 output 60000"},
		{provider: "Groq, whose requests are those of a day", status: 200, headers: `x-ratelimit-remaining-requests: 14370
			x-ratelimit-reset-requests: 2m59.56s
			x-ratelimit-remaining-tokens: 17997
			x-ratelimit-reset-tokens: 1m`, left: "requests 600 tokens 17997 input 60000 output 60000"},
		{provider: "DigitalOcean", status: 200, headers: fmt.Sprintf(`Date: Mon, 23 Nov 2026 12:00:00 GMT
			x-ratelimit-remaining-tokens-per-minute: 500
			x-ratelimit-reset-tokens-per-minute: %d`, noon.Time().Unix()+60), left: "requests 600 tokens 500 input 60000 output 60000"},
		{provider: "one by the drafts", status: 200, headers: `ratelimit: "default";r=50;t=60`, left: "requests 50 tokens 60000 input 60000 output 60000"},
		{provider: "one by older drafts", status: 200, headers: `ratelimit-remaining: 9
			ratelimit-reset: 60`, left: "requests 9 tokens 60000 input 60000 output 60000"},
		{provider: "one that is overloaded", status: 529, headers: `retry-after: 5`, left: "requests -49 tokens 60000 input 60000 output 60000", wait: 5 * time.Second},
		{provider: "one that refuses, and no more", status: 429, left: "requests -9 tokens 60000 input 60000 output 60000", wait: time.Second},
		{provider: "one that is out of order", status: 503, left: whole},
		{provider: "one that says nothing", status: 200, headers: `content-type: application/json`, left: whole},
	} {
		for _, over := range []string{"gRPC", "JSON"} {
			s := serve(t, metered, nil, server.Config{})
			r := &rationv1.ReportUpstreamRequest{Domain: "llm", Model: "shared", Status: c.status, Headers: map[string]string{}}
			for line := range strings.Lines(c.headers) {
				name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
				r.Headers[name] = value
			}
			answer := new(rationv1.ReportUpstreamResponse)
			var err error
			if over == "gRPC" {
				answer, err = s.ReportUpstream(t.Context(), r)
			} else {
				body, _ := protojson.Marshal(r)
				err = protojson.Unmarshal([]byte(post(t, s.Addr("HTTP"), accounting+"ReportUpstream", string(body)).text), answer)
			}
			if err != nil {
				t.Errorf("%s over %s: %v", c.provider, over, err)
				continue
			}
			if refused := c.wait > 0; answer.GetUpstream() != "key" || answer.GetRefused() != refused || answer.GetWait().AsDuration() != c.wait {
				t.Errorf("%s over %s: %v", c.provider, over, answer)
			}
			checked, err := s.Check(t.Context(), &rationv1.CheckRequest{Caller: alice(func(c *rationv1.Caller) { c.Model = "shared" })})
			if err != nil {
				t.Fatal(err)
			}
			left := map[string]int64{}
			for _, l := range checked.GetDecision().GetLimits() {
				left[l.GetName()] = l.GetRemaining()
			}
			got := fmt.Sprintf("requests %d tokens %d input %d output %d", left["requests"], left["tokens"], left["input"], left["output"])
			if got != c.left {
				t.Errorf("%s over %s: left is %s, want %s", c.provider, over, got, c.left)
			}
		}
	}
}

// After a 429 calls are refused, with what is left of the wait, until that is over.
func TestCallsAfterA429(t *testing.T) {
	s := serve(t, metered, nil, server.Config{})
	report := &rationv1.ReportUpstreamRequest{
		Domain: "llm", Upstream: "key", Status: http.StatusTooManyRequests, Headers: map[string]string{"Retry-After": "20"},
		ObservedAt: timestamppb.New(time.Now()),
	}
	if _, err := s.ReportUpstream(t.Context(), report); err != nil {
		t.Fatal(err)
	}
	shared := alice(func(c *rationv1.Caller) { c.Model = "shared" })
	for _, c := range []struct {
		after limit.Micros
		want  rationv1.Verdict
	}{
		{0, rationv1.Verdict_VERDICT_THROTTLED}, {19 * limit.Second, rationv1.Verdict_VERDICT_THROTTLED},
		{1100 * limit.Second / 1000, rationv1.Verdict_VERDICT_ADMITTED},
	} {
		s.clock.Advance(c.after)
		a, err := s.Reserve(t.Context(), &rationv1.ReserveRequest{Caller: shared})
		if err != nil {
			t.Fatal(err)
		}
		d := a.GetDecision()
		if d.GetVerdict() != c.want || (d.GetRetryAfter() == nil) != (c.want == rationv1.Verdict_VERDICT_ADMITTED) || d.GetRetryAfter().AsDuration() > 21*time.Second {
			t.Errorf("%v later: %v, %v", c.after.Duration(), d.GetVerdict(), d.GetRetryAfter())
		}
	}
	small, err := s.Reserve(t.Context(), &rationv1.ReserveRequest{Caller: as("user")})
	if err != nil || small.GetReservation() == nil {
		t.Errorf("a model of another upstream: %v %v", small, err)
	}
}

// What comes late says nothing of now.
func TestReportsThatComeLate(t *testing.T) {
	for name, c := range map[string]struct {
		ago  time.Duration
		left int64
	}{"now": {0, 3}, "an hour ago": {time.Hour, 600}} {
		s := serve(t, metered, nil, server.Config{})
		answer, err := s.ReportUpstream(t.Context(), &rationv1.ReportUpstreamRequest{
			Domain: "llm", Upstream: "key", Status: http.StatusOK, Headers: map[string]string{"x-ratelimit-remaining-requests": "3"},
			ObservedAt: timestamppb.New(time.Now().Add(-c.ago)),
		})
		if err != nil || (len(answer.GetIgnored()) > 0) != (c.ago > 0) {
			t.Errorf("%s: %v %v", name, answer, err)
		}
		checked, err := s.Check(t.Context(), &rationv1.CheckRequest{Caller: alice(func(c *rationv1.Caller) { c.Model = "shared" })})
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range checked.GetDecision().GetLimits() {
			if l.GetName() == "requests" && l.GetRemaining() != c.left {
				t.Errorf("%s: %d are left, want %d", name, l.GetRemaining(), c.left)
			}
		}
	}
}
