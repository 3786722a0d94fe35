package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	commonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// TestMetrics scrapes a server after traffic of which every call is known.
func TestMetrics(t *testing.T) {
	file := filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(file, []byte(`
domain: shop
descriptors:
- key: user
  rate_limit: {unit: year, requests_per_unit: 3}
- key: user
  value: robot
  rate_limit: {unlimited: true}
- key: plan
  value: free
  shadow_mode: true
  rate_limit: {unit: year, requests_per_unit: 1}
`), 0o600); err != nil {
		t.Fatal(err)
	}
	p := serve(t, "--policy", file)
	at := p.addrs(t)
	client := limiter(t, at.GRPC)

	const secret = "caller-4711" // stands in every value, key and domain that only a caller knows
	for range 5 {
		ask(t, client, request("shop", "user", secret)) // 3 admitted, 2 refused
	}
	heavy := request("shop", "user", secret+"-b")
	heavy.HitsAddend = 2
	ask(t, client, heavy) // admitted: 2 hits
	back := request("shop", "user", secret+"-b")
	back.Descriptors[0].HitsAddend, back.Descriptors[0].IsNegativeHits = wrapperspb.UInt64(1), true
	ask(t, client, back)                               // given back: 1 hit
	ask(t, client, request("shop", "user", "robot"))   // unlimited
	ask(t, client, request("shop", "plan", "free"))    // admitted
	ask(t, client, request("shop", "plan", "free"))    // over, in shadow
	ask(t, client, request("shop", secret, "v"))       // no rule
	ask(t, client, request(secret, "user", "a"))       // unknown domain
	override := request("shop", "tenant", secret+"-c") // a limit of its own, of 0: over
	override.Descriptors[0].Limit = &commonv3.RateLimitDescriptor_RateLimitOverride{Unit: typev3.RateLimitUnit_HOUR}
	ask(t, client, override)
	if _, err := client.ShouldRateLimit(t.Context(), &ratelimitv3.RateLimitRequest{Domain: secret}); err == nil {
		t.Error("a request without descriptors is answered")
	}
	if code, _ := send(t, "POST", "http://"+at.HTTP+"/json",
		`{"domain":"shop","descriptors":[{"entries":[{"key":"user","value":"`+secret+`-d"}]}]}`); code != 200 {
		t.Errorf("/json answers %d, want 200", code)
	}

	_, page := get(t, "http://"+at.Metrics+"/metrics")
	if strings.Contains(page, secret) {
		t.Error("the metrics hold what a caller sent")
	}
	for _, want := range []string{
		`ration_requests_total{verdict="ok"} 11`,
		`ration_requests_total{verdict="over_limit"} 3`,
		`ration_requests_total{verdict="error"} 1`,
		`ration_request_errors_total{cause="invalid"} 1`,
		`ration_request_errors_total{cause="unavailable"} 0`,
		`ration_decisions_total{domain="shop",rule="shop.user",verdict="admitted"} 5`,
		`ration_decisions_total{domain="shop",rule="shop.user",verdict="over_limit"} 2`,
		`ration_decisions_total{domain="shop",rule="shop.user",verdict="given_back"} 1`,
		`ration_decisions_total{domain="shop",rule="shop.user_robot",verdict="unlimited"} 1`,
		`ration_decisions_total{domain="shop",rule="shop.plan_free",verdict="admitted"} 1`,
		`ration_decisions_total{domain="shop",rule="shop.plan_free",verdict="shadow"} 1`,
		`ration_decisions_total{domain="",rule="(override)",verdict="over_limit"} 1`,
		`ration_hits_total{domain="shop",rule="shop.user",verdict="admitted"} 6`,
		`ration_hits_total{domain="shop",rule="shop.user",verdict="over_limit"} 2`,
		`ration_hits_total{domain="shop",rule="shop.user",verdict="given_back"} 1`,
		`ration_unmatched_total{cause="no_rule"} 1`,
		`ration_unmatched_total{cause="unknown_domain"} 1`,
		`ration_store_errors_total{cause="unavailable"} 0`,
		`ration_decision_duration_seconds_count 15`,
		`ration_store_duration_seconds_count 11`,
		`ration_policy_reloads_total{result="success"} 1`,
		`ration_policy_reloads_total{result="failure"} 0`,
		`ration_panics_total 0`,
	} {
		if !strings.Contains(page, "\n"+want+"\n") {
			name, _, _ := strings.Cut(want, "{")
			t.Errorf("the metrics lack %s; of that name they have\n%s", want, linesOf(page, name))
		}
	}
	for _, name := range []string{"ration_build_info", "ration_policy_info", "go_goroutines", "process_resident_memory_bytes"} {
		if linesOf(page, name) == "" {
			t.Errorf("the metrics lack %s", name)
		}
	}
	p.stop(t)
}

// linesOf returns the lines of a page of metrics that begin with name.
func linesOf(page, name string) string {
	var b strings.Builder
	for line := range strings.Lines(page) {
		if strings.HasPrefix(line, name) {
			b.WriteString(line)
		}
	}
	return b.String()
}
