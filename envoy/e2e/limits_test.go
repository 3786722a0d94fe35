package e2e

import (
	"fmt"
	"net/http"
	"testing"
)

// TestLimits is about a policy's own limits through Envoy: tiers, tokens that are recorded when the stream is done, and a
// request that reserves under its id what it may use, and is settled by what it did use. They hold whichever store counts.
func TestLimits(t *testing.T) {
	onBothStores(t, testLimits)
}

func testLimits(t *testing.T, store func(testing.TB) string) {
	const policy = `
domain: http
tiers: [ { name: free }, { name: pro } ]
subjects: { paula: { tier: pro } }
descriptors:
- key: user
  subject: true
  limits:
  - name: requests
    meter: requests
    algorithm: fixed_window
    tiers: { free: { limit: 2/day }, pro: { limit: 4/day } }
- key: account
  subject: true
  limits:
  - { name: tokens, meter: tokens, algorithm: fixed_window, limit: 100/day }
- key: session
  subject: true
  limits:
  - { name: budget, meter: tokens, algorithm: fixed_window, limit: 100/day }
  - { name: in-flight, meter: concurrency, limit: 2 }`
	entry := func(key, value string) string {
		return fmt.Sprintf(`{ generic_key: { descriptor_key: %s, descriptor_value: %s } }`, key, value)
	}
	meter := func(name string) string { return entry("ration.meter", name) }
	phase := func(name string) string { return entry("ration.phase", name) }
	const id = `{ request_headers: { header_name: x-request-id, descriptor_key: ration.request } }`
	user := func(name string) string { return fmt.Sprintf(`[{ actions: [%s] }]`, entry("user", name)) }

	server, behind := startRation(t, store(t), policyFile(t, policy)), startUpstream(t)
	b := shipped(t, behind.addr, server.grpc)
	b.virtualHost("limits.test",
		limitedRoute(t, "/ann", user("ann")),
		limitedRoute(t, "/paula", user("paula")),
		limitedRoute(t, "/tokens", fmt.Sprintf(`[{ actions: [%[1]s] },
			{ actions: [%[1]s, %[2]s, %[3]s], hits_addend: { format: "%%RESP(X-OUTPUT)%%" }, apply_on_stream_done: true }]`,
			entry("account", "ann"), phase("record"), meter("output_tokens"))),
		limitedRoute(t, "/reserved", fmt.Sprintf(`[{ actions: [%[1]s, %[2]s] },
			{ actions: [%[1]s, %[2]s, %[3]s, %[4]s], hits_addend: { number: 40 } },
			{ actions: [%[1]s, %[2]s, %[5]s, %[4]s], hits_addend: { format: "%%RESP(X-OUTPUT)%%" }, apply_on_stream_done: true }]`,
			entry("session", "ann"), id, phase("hold"), meter("output_tokens"), phase("record"))))
	e := startEnvoy(t, b)
	get := func(t *testing.T, path, output string) answer {
		return send(t, e.url, request{host: "limits.test", path: path, header: map[string]string{"x-answer-x-output": output}})
	}

	t.Run("each tier has its own quantity", func(t *testing.T) {
		for user, most := range map[string]int{"/ann": 2, "/paula": 4} {
			for i := range most {
				if got := get(t, user, ""); got.code != http.StatusOK {
					t.Errorf("%s, request %d: code %d, want 200", user, i, got.code)
				}
			}
			got := get(t, user, "")
			if got.code != http.StatusTooManyRequests || got.header.Get("x-should-retry") != "false" || got.header.Get("retry-after-ms") == "" {
				t.Errorf("%s, one more: code %d, headers %v, want 429, not to be tried again", user, got.code, got.header)
			}
		}
	})
	t.Run("recorded tokens stop the next request", func(t *testing.T) {
		if got := get(t, "/tokens", "70"); got.code != http.StatusOK {
			t.Errorf("code %d, want 200", got.code)
		}
		server.becomes(t, "http: account=ann, ration.meter=tokens hits 0", "30 of 100/DAY (tokens)")
		if got := get(t, "/tokens", "80"); got.code != http.StatusOK {
			t.Errorf("code %d, want 200: there is room, and nobody knows how much it will be", got.code)
		}
		server.becomes(t, "http: account=ann, ration.meter=tokens hits 0", "over 100/DAY (tokens)")
		if got := get(t, "/tokens", "1"); got.code != http.StatusTooManyRequests {
			t.Errorf("code %d, want 429", got.code)
		}
	})
	t.Run("a request reserves under its id, and its end settles", func(t *testing.T) {
		for i, step := range []struct{ output, left string }{{"10", "90"}, {"0", "90"}, {"50", "40"}} {
			got := get(t, "/reserved", step.output)
			if got.code != http.StatusOK {
				t.Errorf("request %d: code %d, want 200", i, got.code)
			}
			server.becomes(t, "http: session=ann, ration.meter=tokens hits 0", step.left+" of 100/DAY (budget)")
		}
		if got := get(t, "/reserved", "1"); got.code != http.StatusOK {
			t.Errorf("40 of 40 left: code %d, want 200", got.code)
		}
		server.becomes(t, "http: session=ann, ration.meter=tokens hits 0", "39 of 100/DAY (budget)")
		if got := get(t, "/reserved", "1"); got.code != http.StatusTooManyRequests {
			t.Errorf("40 of 39 left: code %d, want 429", got.code)
		}
		server.becomes(t, "http: session=ann, ration.meter=tokens hits 0", "39 of 100/DAY (budget)")
	})
}
