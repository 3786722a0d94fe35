package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"
)

// issuer signs JWTs.
type issuer struct{ key *ecdsa.PrivateKey }

func newIssuer(t testing.TB) issuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return issuer{key}
}

// jwks is the issuer's public key.
func (i issuer) jwks() string {
	b64 := base64.RawURLEncoding.EncodeToString
	return fmt.Sprintf(`{"keys":[{"kty":"EC","crv":"P-256","alg":"ES256","x":%q,"y":%q}]}`,
		b64(i.key.X.FillBytes(make([]byte, 32))), b64(i.key.Y.FillBytes(make([]byte, 32))))
}

// token makes a JWT for a subject, that ends at a time.
func (i issuer) token(t testing.TB, subject string, until time.Time) string {
	t.Helper()
	claims, err := json.Marshal(map[string]any{"iss": "https://issuer.test", "aud": "llm", "sub": subject, "exp": until.Unix(), "org": map[string]any{"team": "red"}})
	if err != nil {
		t.Fatal(err)
	}
	b64 := base64.RawURLEncoding.EncodeToString
	signed := b64([]byte(`{"alg":"ES256"}`)) + "." + b64(claims)
	sum := sha256.Sum256([]byte(signed))
	r, s, err := ecdsa.Sign(rand.Reader, i.key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return signed + "." + b64(append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...))
}

// fromMetadata is an action that takes an entry from metadata, or `none`.
func fromMetadata(entry, namespace string, path ...string) string {
	for i := range path {
		path[i] = "{ key: " + path[i] + " }"
	}
	return fmt.Sprintf(`{ metadata: { descriptor_key: %s, default_value: none, source: DYNAMIC, metadata_key: { key: %s, path: %s } } }`,
		entry, namespace, list(path...))
}

// fromHeader is an action that takes an entry from a header, and leaves it out without.
func fromHeader(entry, header string) string {
	return fmt.Sprintf(`{ request_headers: { descriptor_key: %s, header_name: %s, skip_if_absent: true } }`, entry, header)
}

// TestIdentity shows which filters say who calls, and how what they say reaches a descriptor.
func TestIdentity(t *testing.T) {
	who := newIssuer(t)
	filters := map[string]string{
		"jwt": fmt.Sprintf(`
- name: envoy.filters.http.jwt_authn
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication
    providers:
      issuer:
        issuer: https://issuer.test
        local_jwks: { inline_string: '%s' }
        payload_in_metadata: jwt
        claim_to_headers: [{ header_name: x-subject, claim_name: sub }]
    rules:
    - { match: { path: / }, requires: { provider_name: issuer } }
    - { match: { path: /optional }, requires: { requires_any: { requirements: [{ provider_name: issuer }, { allow_missing: {} }] } } }`, who.jwks()),
		"key": `
- name: envoy.filters.http.api_key_auth
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.filters.http.api_key_auth.v3.ApiKeyAuth
    credentials: [{ key: sk-ann, client: ann }]
    key_sources: [{ header: authorization }, { header: x-api-key }]
    forwarding: { header: x-client, hide_credentials: true }`,
		"hand": `
- name: envoy.filters.http.header_to_metadata
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.filters.http.header_to_metadata.v3.Config
    request_rules:
    - header: x-api-key
      on_header_present: { metadata_namespace: key, key: key, type: STRING }
    - header: authorization
      on_header_present:
        { metadata_namespace: key, key: key, type: STRING, regex_value_rewrite: { pattern: { regex: "^[Bb]earer +(.+)$" }, substitution: '\1' } }
      remove: true`,
	}
	limits := map[string]string{
		"jwt": list(`{ actions: ` + list(fromMetadata("subject", "envoy.filters.http.jwt_authn", "jwt", "sub"),
			fromMetadata("team", "envoy.filters.http.jwt_authn", "jwt", "org", "team"), fromHeader("header", "x-subject")) + ` }`),
		"key": list(`{ actions: ` + list(`{ generic_key: { descriptor_key: k, descriptor_value: v } }`, fromHeader("client", "x-client"),
			fromHeader("key", "authorization"), fromMetadata("metadata", "envoy.filters.http.api_key_auth", "client")) + ` }`),
		"hand": list(`{ actions: ` + list(fromMetadata("key", "key", "key"), fromHeader("header", "authorization")) + ` }`),
	}
	limits["cleared"] = limits["key"]
	filters["cleared"] = filters["key"]

	valid, expired := who.token(t, "ann", time.Now().Add(time.Hour)), who.token(t, "ann", time.Now().Add(-time.Hour))
	for _, f := range []struct {
		name, filter, path string
		header             map[string]string
		code               int
		want               string // the call
		model              map[string]string
	}{
		{name: "JWT: its claims are metadata, nested ones too; the token stays from the model", filter: "jwt",
			header: map[string]string{"authorization": "Bearer " + valid}, code: 200,
			want: "subject=ann, team=red, header=ann", model: map[string]string{"authorization": ""}},
		{name: "JWT: a forged header of a claim is replaced", filter: "jwt",
			header: map[string]string{"authorization": "Bearer " + valid, "x-subject": "bob"}, code: 200,
			want: "subject=ann, team=red, header=ann", model: map[string]string{"x-subject": "ann"}},
		{name: "JWT: no token, and nobody is asked", filter: "jwt", code: 401},
		{name: "JWT: expired",
			filter: "jwt", header: map[string]string{"authorization": "Bearer " + expired}, code: 401},
		{name: "JWT: may be missing; the forged header goes all the same", filter: "jwt", path: "/optional",
			header: map[string]string{"x-subject": "bob"}, code: 200, want: "subject=none, team=none", model: map[string]string{"x-subject": ""}},
		{name: "JWT: may be missing, but not be wrong", filter: "jwt", path: "/optional",
			header: map[string]string{"authorization": "Bearer x.y.z"}, code: 401},

		{name: "API keys of Envoy: the client is a header, no metadata; the key is taken off, forged headers are replaced",
			filter: "key",
			header: map[string]string{"authorization": "Bearer sk-ann", "x-client": "bob"}, code: 200,
			want: "k=v, client=ann, metadata=none", model: map[string]string{"authorization": "", "x-client": "ann"}},
		{name: "API keys of Envoy: x-api-key",
			filter: "key", header: map[string]string{"x-api-key": "sk-ann"}, code: 200,
			want: "k=v, client=ann, metadata=none", model: map[string]string{"x-api-key": ""}},
		{name: "API keys of Envoy: an unknown one",
			filter: "key", header: map[string]string{"x-api-key": "sk-bob"}, code: 401},
		{name: "API keys of Envoy: bearer in small letters is none",
			filter: "key", header: map[string]string{"authorization": "bearer sk-ann"}, code: 401},
		{name: "API keys of Envoy: a route that names clients, and says nothing of forwarding, forwards what the client forged",
			filter: "cleared",
			header: map[string]string{"authorization": "Bearer sk-ann", "x-client": "bob"}, code: 200,
			want: "k=v, client=bob, key=Bearer sk-ann, metadata=none", model: map[string]string{"authorization": "Bearer sk-ann", "x-client": "bob"}},

		{name: "a key for ration: without Bearer, by header_to_metadata, and off", filter: "hand",
			header: map[string]string{"authorization": "Bearer sk-ann"}, code: 200, want: "key=sk-ann", model: map[string]string{"authorization": ""}},
		{name: "a key for ration: in small letters",
			filter: "hand", header: map[string]string{"authorization": "bearer  sk-ann"}, code: 200, want: "key=sk-ann"},
		{name: "a key for ration: x-api-key",
			filter: "hand", header: map[string]string{"x-api-key": "sk-ann"}, code: 200, want: "key=sk-ann"},
		{name: "a key for ration: of two headers, the last rule's", filter: "hand",
			header: map[string]string{"x-api-key": "sk-ann", "authorization": "Bearer sk-bob"}, code: 200, want: "key=sk-bob"},
		{name: "a key for ration: another scheme is handed on as it is",
			filter: "hand", header: map[string]string{"authorization": "Basic YTpi"}, code: 200,
			want: "key=Basic YTpi"},
		{name: "a key for ration: none", filter: "hand", code: 200, want: "key=none"},
	} {
		t.Run(f.name, func(t *testing.T) {
			if f.path == "" {
				f.path = "/"
			}
			service, behind := startScripted(t), startModel(t)
			behind.at(f.path, say(messageJSON))
			b := shipped(t, behind.addr, service.addr)
			b.insertBefore("envoy.filters.http.ratelimit", message(t, "list: %s", filters[f.filter])["list"].([]any)[0].(map[string]any))
			r := modelRoute(t, f.path, limits[f.filter], "[]")
			if f.filter == "cleared" {
				at(r, "typed_per_filter_config")["envoy.filters.http.api_key_auth"] = message(t, `
"@type": type.googleapis.com/envoy.extensions.filters.http.api_key_auth.v3.ApiKeyAuthPerRoute
allowed_clients: [ann]`)
			}
			b.virtualHost(factsHost, r)
			e := startEnvoy(t, b)
			service.will(answering(ok))
			got := send(t, e.url, request{host: factsHost, path: f.path, header: f.header})
			if got.code != f.code {
				t.Errorf("code %d, want %d", got.code, f.code)
			}
			// The check came before the answer, so what was asked is known now.
			var want []string
			if f.code == http.StatusOK {
				want = []string{f.want}
			}
			if calls := short(service.asked()); fmt.Sprint(calls) != fmt.Sprint(want) {
				t.Errorf("Envoy asked %q, want %q", calls, want)
			}
			for name, value := range f.model {
				if saw := behind.newest(f.path).Header.Get(name); saw != value {
					t.Errorf("the model saw %s: %q, want %q", name, saw, value)
				}
			}
		})
	}
}
