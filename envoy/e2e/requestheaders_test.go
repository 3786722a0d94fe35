package e2e

import (
	"net/http"
	"slices"
	"testing"
)

// TestRequestHeaders shows what the model sees of a tier, with --request-headers: the tier's name and its attributes, and
// none that a client has forged, if Envoy removes those before anything else. Without that it sees the forged ones first,
// since Envoy appends.
func TestRequestHeaders(t *testing.T) {
	const tiered = `
domain: llm
anonymous: deny
tiers: [ { name: free, attributes: { model: small, max_output: 1024 } }, { name: pro, attributes: { model: large, beta: true } } ]
subjects: { bob: { tier: pro } }
prices: { models: { claude-*: { input: "1.00", output: "5.00" } } }
descriptors:
- key: user
  subject: true
  limits:
  - { name: tokens, meter: tokens, algorithm: fixed_window, limit: 1M/day, per_request: 8_000 }`
	server, behind := startRation(t, memory, policyFile(t, tiered), "--request-headers"), startModel(t)
	behind.at("/v1/messages", say(messageJSON))
	forged := map[string]string{"ration-tier": "pro", "ration-max-output": "1000000", "ration-model": "large", "ration-other": "x"}
	for _, f := range []struct {
		name string
		kept bool // what a client sends
		user string
		want map[string][]string
	}{
		{name: "of the first tier", user: "ann", want: map[string][]string{
			"Ration-Tier": {"free"}, "Ration-Model": {"small"}, "Ration-Max-Output": {"1024"},
		}},
		{name: "of another tier", user: "bob", want: map[string][]string{
			"Ration-Tier": {"pro"}, "Ration-Model": {"large"}, "Ration-Beta": {"true"},
		}},
		{name: "forged ones that nobody removes", user: "ann", kept: true, want: map[string][]string{
			"Ration-Tier": {"pro", "free"}, "Ration-Model": {"large", "small"}, "Ration-Max-Output": {"1000000", "1024"}, "Ration-Other": {"x"},
		}},
	} {
		t.Run(f.name, func(t *testing.T) {
			b := fromFile(t, reserveFile, behind.addr, server.grpc)
			if !f.kept {
				early := named(b.hcm(), "envoy.http.early_header_mutation.header_mutation", "early_header_mutation_extensions")
				early = at(early, "typed_config")
				early["mutations"] = append(early["mutations"].([]any),
					message(t, `remove_on_match: { key_matcher: { prefix: ration- } }`))
			}
			e := startEnvoy(t, b)
			r := request{method: http.MethodPost, path: "/v1/messages", body: `{"max_tokens":100,"model":"claude-haiku-4-5"}`,
				header: map[string]string{"x-api-key": "key-of-" + f.user, "content-type": "application/json"}}
			for name, value := range forged {
				r.header[name] = value
			}
			if got := send(t, e.url, r); got.code != http.StatusOK {
				t.Fatalf("code %d, want 200: %s", got.code, got.body)
			}
			seen := behind.newest("/v1/messages").Header
			for _, name := range []string{"Ration-Tier", "Ration-Model", "Ration-Max-Output", "Ration-Beta", "Ration-Other"} {
				if got := seen.Values(name); !slices.Equal(got, f.want[name]) {
					t.Errorf("%s: %q, want %q", name, got, f.want[name])
				}
			}
		})
	}
}
