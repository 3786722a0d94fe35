package server_test

import (
	"testing"

	"google.golang.org/protobuf/encoding/protojson"

	rationv1 "github.com/rationhq/ration/gen/ration/v1"
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
