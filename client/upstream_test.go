package client_test

import (
	"errors"
	"net/http"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/rationhq/ration/client"
)

// TestReportUpstream: after a provider has refused one call, the next is refused without asking it.
func TestReportUpstream(t *testing.T) {
	c := connect(t, serve(t).addr, client.Options{})
	header := http.Header{
		"Retry-After": {"20"}, "X-Ratelimit-Remaining-Requests": {"0"}, "X-Ratelimit-Reset-Requests": {"soon"}, "Set-Cookie": {"secret"},
	}
	f, err := c.ReportUpstream(t.Context(), client.Answer{Domain: "llm", Model: "shared", Status: 429, Header: header})
	if err != nil {
		t.Fatal(err)
	}
	if f.Upstream != "key" || !f.Refused || f.Wait > 20*time.Second || f.Wait < 10*time.Second || len(f.Limits) != 1 || f.Limits[0].Path != "llm.upstreams.key.requests" {
		t.Errorf("it follows: %+v", f)
	}
	if len(f.Ignored) != 1 || f.Ignored[0].Header != "x-ratelimit-reset-requests" || f.Ignored[0].Reason == "" {
		t.Errorf("ignored: %+v", f.Ignored)
	}
	next := call("alice", client.Usage{Input: 1})
	next.Model = "shared"
	var refusal *client.Refusal
	if _, err := c.Reserve(t.Context(), next); !errors.As(err, &refusal) || refusal.RetryAfter < 10*time.Second {
		t.Errorf("the next call: %v", err)
	}
	if _, err := c.ReportUpstream(t.Context(), client.Answer{Domain: "llm", Upstream: "kee", Status: 429}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("an upstream that there is not: %v", err)
	}
}

// TestSaysNothingOfLimits: what would change nothing is not sent.
func TestSaysNothingOfLimits(t *testing.T) {
	c := connect(t, "127.0.0.1:1", client.Options{Retry: impatient()})
	f, err := c.ReportUpstream(t.Context(), client.Answer{
		Domain: "llm", Model: "shared", Status: 200, Header: http.Header{"Date": {"Thu, 21 Aug 2025 12:41:00 GMT"}, "Content-Type": {"text/plain"}},
	})
	if err != nil || f.Upstream != "" {
		t.Errorf("%+v, %v", f, err)
	}
}

// TestReportsOfEarlier: what a provider has said long ago says nothing of now.
func TestReportsOfEarlier(t *testing.T) {
	c := connect(t, serve(t).addr, client.Options{})
	for _, ago := range []time.Duration{time.Hour, 0} {
		f, err := c.ReportUpstream(t.Context(), client.Answer{
			Domain: "llm", Upstream: "key", Status: 200, Header: http.Header{"X-Ratelimit-Remaining-Requests": {"3"}}, At: time.Now().Add(-ago),
		})
		if err != nil || f.Upstream != "key" || f.Refused || (len(f.Ignored) > 0) != (ago > 0) {
			t.Errorf("%v ago: %+v %v", ago, f, err)
		}
		if follow := len(f.Limits) == 1 && f.Limits[0].Remaining == 3; follow != (ago == 0) {
			t.Errorf("%v ago these follow: %+v", ago, f.Limits)
		}
	}
}
