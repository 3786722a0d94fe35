package e2e

import (
	"fmt"
	"net/http"
	"testing"
	"time"
)

// TestCharge is about costs that are known only when the response is there. Envoy reports them when the stream is done,
// and throws the answer away, so they show in what the next request has left.
func TestCharge(t *testing.T) {
	const policy = `
domain: http
descriptors:
- { key: tokens, rate_limit: { unit: day, requests_per_unit: 100 } }
- { key: quota, rate_limit: { unit: day, requests_per_unit: 2 } }`
	tokens := func(user string) string {
		return fmt.Sprintf(`actions: [{ generic_key: { descriptor_key: tokens, descriptor_value: %s } }]`, user)
	}
	const quota = `actions: [{ generic_key: { descriptor_key: quota, descriptor_value: x } }]`

	onBothStores(t, func(t *testing.T, store func(testing.TB) string) {
		server, behind := startRation(t, store(t), policyFile(t, policy)), startUpstream(t)
		b := shipped(t, behind.addr, server.grpc)
		b.virtualHost("charge.test",
			// Ask first, charge what the upstream says: at most one request beyond the limit for each that runs at the
			// same time.
			limitedRoute(t, "/afterwards", `[{ `+tokens("ann")+`, hits_addend: { number: 0 } },
				{ `+tokens("ann")+`, hits_addend: { format: "%RESP(X-COST)%" }, apply_on_stream_done: true }]`),
			// Charge the most it can cost, and give back what it did not: never beyond the limit.
			limitedRoute(t, "/before", `[{ `+tokens("bob")+`, hits_addend: { number: 40 } },
				{ `+tokens("bob")+`, hits_addend: { format: "%RESP(X-UNUSED)%", is_negative_hits: true },
				  apply_on_stream_done: true }]`),
			limitedRoute(t, "/tokenquota", `[{ `+quota+`, hits_addend: { number: 0 } },
				{ `+quota+`, hits_addend: { number: 1 }, apply_on_stream_done: true }]`))
		e := startEnvoy(t, b)
		get := func(t *testing.T, path, header, value string) answer {
			return send(t, e.url, request{host: "charge.test", path: path, header: map[string]string{header: value}})
		}

		t.Run("charged afterwards", func(t *testing.T) {
			withinOneMinute()
			for _, s := range []struct{ cost, before, after string }{
				{"30", "100 of 100/DAY", "70 of 100/DAY"},
				{"0", "70 of 100/DAY", "70 of 100/DAY"},
				{"80", "70 of 100/DAY", "over 100/DAY"},
			} {
				got := get(t, "/afterwards", "x-answer-x-cost", s.cost)
				left := got.header.Get("RateLimit-Remaining") + " of 100/DAY"
				if got.code != http.StatusOK || left != s.before {
					t.Errorf("code %d, %s, want 200 and %s", got.code, left, s.before)
				}
				server.becomes(t, "http: tokens=ann hits 0", s.after)
			}
			if got := get(t, "/afterwards", "x-answer-x-cost", "1"); got.code != http.StatusTooManyRequests {
				t.Errorf("code %d, want 429", got.code)
			}
		})
		t.Run("charged before, and the rest given back", func(t *testing.T) {
			withinOneMinute()
			for _, s := range []struct{ unused, during, after string }{
				{"30", "60", "90 of 100/DAY"},
				{"0", "50", "50 of 100/DAY"},
				{"40", "10", "50 of 100/DAY"},
			} {
				got := get(t, "/before", "x-answer-x-unused", s.unused)
				if left := got.header.Get("RateLimit-Remaining"); got.code != http.StatusOK || left != s.during {
					t.Errorf("code %d, %s left, want 200 and %s", got.code, left, s.during)
				}
				server.becomes(t, "http: tokens=bob hits 0", s.after)
			}
		})
		// A check passes while the count is not above the limit, so a limit of 2 lets 3 of them be charged.
		t.Run("token-quota", func(t *testing.T) {
			withinOneMinute()
			for _, left := range []string{"1 of 2/DAY", "0 of 2/DAY", "over 2/DAY"} {
				if got := get(t, "/tokenquota", "x", "y"); got.code != http.StatusOK {
					t.Errorf("code %d, want 200", got.code)
				}
				server.becomes(t, "http: quota=x hits 0", left)
			}
			if got := get(t, "/tokenquota", "x", "y"); got.code != http.StatusTooManyRequests {
				t.Errorf("code %d, want 429", got.code)
			}
		})
	})
}

// becomes waits until a check of one descriptor has this status: a charge is on its way.
func (r *ration) becomes(t *testing.T, check, status string) {
	t.Helper()
	eventually(t, check+" is "+status, func() error {
		resp, err := r.client.ShouldRateLimit(t.Context(), parseCall(check, ""))
		if err != nil {
			return err
		}
		if got := verdict(resp); got != "pass: "+status && got != "refuse: "+status {
			return fmt.Errorf("it is %s", got)
		}
		return nil
	})
}

// TestServiceWithQuota is envoyproxy/ratelimit's multiservice-tokenquota. Two services can do the work, and each has a
// quota. ration tells which has some left, in metadata; a filter puts that into a header, another into the metadata
// that the load balancer selects endpoints by; and when the response is there, the service that gave it is charged.
func TestServiceWithQuota(t *testing.T) {
	const policy = `
domain: http
descriptors:
- key: service
  value: one
  quota_mode: true
  rate_limit: { unit: day, requests_per_unit: 1 }
  metadata: { service_with_quota: { name: one } }
- key: service
  value: two
  quota_mode: true
  rate_limit: { unit: day, requests_per_unit: 2 }
  metadata: { service_with_quota: { name: two } }`
	onBothStores(t, func(t *testing.T, store func(testing.TB) string) {
		server := startRation(t, store(t), policyFile(t, policy), "--response-metadata")
		one, two := startUpstream(t), startUpstream(t)
		b := shipped(t, one.addr, server.grpc)
		b.services(t, map[string]string{"one": one.addr, "two": two.addr})
		b.virtualHost("service.test", limitedRoute(t, "/", `[
			{ actions: [{ generic_key: { descriptor_key: service, descriptor_value: one } }], hits_addend: { number: 0 } },
			{ actions: [{ generic_key: { descriptor_key: service, descriptor_value: two } }], hits_addend: { number: 0 } },
			{ actions: [{ metadata: { descriptor_key: service, source: CLUSTER_LOCALITY_ENTRY,
			                          metadata_key: { key: service, path: [{ key: name }] } } }],
			  hits_addend: { number: 1 }, apply_on_stream_done: true }]`))
		e := startEnvoy(t, b)

		withinOneMinute()
		for i, s := range []struct{ by, charged, left string }{
			{one.addr, "one", "0 of 1/DAY"},
			{one.addr, "one", "over 1/DAY"},
			{two.addr, "two", "1 of 2/DAY"},
			{two.addr, "two", "0 of 2/DAY"},
			{two.addr, "two", "over 2/DAY"},
		} {
			got := send(t, e.url, request{host: "service.test", path: "/"})
			if by := got.header.Get("x-served-by"); got.code != http.StatusOK || by != s.by {
				t.Fatalf("request %d: code %d, served by %q; want 200 and service %s, %s", i, got.code, by, s.charged, s.by)
			}
			server.becomes(t, "http: service="+s.charged+" hits 0", s.left)
		}
		if got := send(t, e.url, request{host: "service.test", path: "/"}); got.code != http.StatusTooManyRequests {
			t.Errorf("with both quotas used up: code %d, want 429", got.code)
		}
	})
}

// services makes the cluster of the upstream consist of named services, and lets the rate limit answer's metadata
// choose among them.
func (b bootstrap) services(t testing.TB, addrs map[string]string) {
	t.Helper()
	cluster := named(b, "upstream", "static_resources", "clusters")
	cluster["lb_subset_config"] = message(t, `{ fallback_policy: NO_FALLBACK, subset_selectors: [{ keys: [service] }] }`)
	var endpoints []any
	for name, addr := range addrs {
		b.endpoints(t, "upstream", addr)
		locality := at(cluster, "load_assignment")["endpoints"].([]any)[0].(map[string]any)
		locality["locality"] = message(t, `region: %s`, name)
		locality["metadata"] = message(t, `filter_metadata: { service: { name: %s } }`, name)
		endpoint := locality["lb_endpoints"].([]any)[0].(map[string]any)
		endpoint["metadata"] = message(t, `filter_metadata: { envoy.lb: { service: %s } }`, name)
		endpoints = append(endpoints, locality)
	}
	at(cluster, "load_assignment")["endpoints"] = endpoints

	b.insertBefore("envoy.filters.http.router", message(t, `
name: envoy.filters.http.header_mutation
typed_config:
  "@type": type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation
  mutations:
    request_mutations:
    - append:
        header: { key: x-service, value: "%%DYNAMIC_METADATA(ration:metadata:service_with_quota:name)%%" }
        append_action: OVERWRITE_IF_EXISTS_OR_ADD`))
	b.insertBefore("envoy.filters.http.router", message(t, `
name: service-to-metadata
typed_config:
  "@type": type.googleapis.com/envoy.extensions.filters.http.header_to_metadata.v3.Config
  request_rules:
  - header: x-service
    on_header_present: { metadata_namespace: envoy.lb, key: service, type: STRING }`))
}

// TestRefill waits for the end of a window: what was refused passes again.
func TestRefill(t *testing.T) {
	onBothStores(t, func(t *testing.T, store func(testing.TB) string) {
		server, behind := startRation(t, store(t), policyFile(t, `
domain: http
descriptors:
- { key: remote_address, rate_limit: { unit: second, requests_per_unit: 2 } }`)), startUpstream(t)
		e := startEnvoy(t, shipped(t, behind.addr, server.grpc))
		refused := func() bool { return send(t, e.url, request{path: "/"}).code == http.StatusTooManyRequests }
		for deadline := time.Now().Add(patience); !refused(); {
			if time.Now().After(deadline) {
				t.Fatal("never refused")
			}
		}
		eventually(t, "a request passes again", func() error {
			if refused() {
				return fmt.Errorf("still refused")
			}
			return nil
		})
	})
}
