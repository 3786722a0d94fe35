package e2e

import (
	"net/http"
	"slices"
	"testing"
)

// TestRequestHeaders shows what the service behind Envoy is told of a tier, with --request-headers: its name and its
// attributes, and nothing that a client has forged, if Envoy removes that before all else. Else the forged values stand
// first, since Envoy appends; and while ration does not answer they stand alone.
func TestRequestHeaders(t *testing.T) {
	const tiered = `
domain: http
tiers: [ { name: free, attributes: { model: small, max_output: 1024 } }, { name: pro, attributes: { model: large, beta: true } } ]
subjects: { bob: { tier: pro } }
descriptors:
- key: user
  subject: true
  limits: [ { name: requests, meter: requests, algorithm: fixed_window, limit: 1M/day } ]`
	server, behind := startRation(t, memory, policyFile(t, tiered), "--request-headers"), startModel(t)
	behind.at("/", say("{}"))
	early := message(t, `
early_header_mutation_extensions:
- name: envoy.http.early_header_mutation.header_mutation
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation
    mutations: [{ remove_on_match: { key_matcher: { prefix: ration- } } }]`)["early_header_mutation_extensions"]
	for _, f := range []struct {
		name    string
		removes bool // what a client sends
		without bool // ration
		user    string
		want    map[string][]string
	}{
		{name: "of the first tier", removes: true, user: "ann", want: map[string][]string{
			"Ration-Tier": {"free"}, "Ration-Model": {"small"}, "Ration-Max-Output": {"1024"},
		}},
		{name: "of another tier", removes: true, user: "bob", want: map[string][]string{
			"Ration-Tier": {"pro"}, "Ration-Model": {"large"}, "Ration-Beta": {"true"},
		}},
		{name: "without ration", removes: true, without: true, user: "ann"},
		{name: "forged ones that nobody removes", user: "ann", want: map[string][]string{
			"Ration-Tier": {"pro", "free"}, "Ration-Model": {"large", "small"}, "Ration-Max-Output": {"1000000", "1024"}, "Ration-Other": {"x"},
		}},
		{name: "those without ration", without: true, user: "ann", want: map[string][]string{
			"Ration-Tier": {"pro"}, "Ration-Model": {"large"}, "Ration-Max-Output": {"1000000"}, "Ration-Other": {"x"},
		}},
	} {
		t.Run(f.name, func(t *testing.T) {
			b := shipped(t, behind.addr, server.grpc)
			if f.removes {
				b.hcm()["early_header_mutation_extensions"] = early
			}
			if f.without {
				b.endpoints(t, "ration", freeAddr(t))
			}
			e := startEnvoy(t, b)
			r := request{path: "/", header: map[string]string{
				"x-user-id": f.user, "ration-tier": "pro", "ration-max-output": "1000000", "ration-model": "large", "ration-other": "x",
			}}
			if got := send(t, e.url, r); got.code != http.StatusOK {
				t.Fatalf("code %d, want 200: %s", got.code, got.body)
			}
			seen := behind.newest("/").Header
			for _, name := range []string{"Ration-Tier", "Ration-Model", "Ration-Max-Output", "Ration-Beta", "Ration-Other"} {
				if got := seen.Values(name); !slices.Equal(got, f.want[name]) {
					t.Errorf("%s: %q, want %q", name, got, f.want[name])
				}
			}
		})
	}
}
