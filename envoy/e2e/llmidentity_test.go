package e2e

import (
	"encoding/base64"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"
)

// forgeries are headers by which a client might call itself somebody else.
var forgeries = map[string]string{
	"x-ration-user": "bob", "ration-user": "bob", "user": "bob", "x-user-id": "bob", "ration-tier": "premium", "ration-model": "house-1",
	"x-jwt-payload": base64.RawURLEncoding.EncodeToString([]byte(`{"sub":"bob"}`)), "x-request-id": "mine", "x-forwarded-user": "bob",
}

// TestLLMJWT shows that only a token which the issuer has signed says who calls.
func TestLLMJWT(t *testing.T) {
	who, somebody := newIssuer(t), newIssuer(t)
	l := startLLM(t, "llm-jwt.yaml", memory, func(b bootstrap) {
		provider := at(b.filter("envoy.filters.http.jwt_authn"), "providers", "issuer")
		provider["issuer"] = "https://issuer.test" // as the tokens of the tests say
		provider["local_jwks"] = map[string]any{"inline_string": who.jwks()}
	})
	hour := time.Now().Add(time.Hour)
	valid := who.token(t, "ann", hour)
	unsigned := func(subject string) string {
		b64 := base64.RawURLEncoding.EncodeToString
		return b64([]byte(`{"alg":"none"}`)) + "." + b64(fmt.Appendf(nil, `{"iss":"https://issuer.test","sub":%q,"aud":"llm","exp":%d}`, subject, hour.Unix())) + "."
	}
	parts := strings.Split(valid, ".")
	for _, f := range []struct {
		name, token string
		code        int
	}{
		{"a valid one", valid, http.StatusOK},
		{"none", "", http.StatusUnauthorized},
		{"expired", who.token(t, "ann", time.Now().Add(-time.Hour)), http.StatusUnauthorized},
		{"of another issuer's key", somebody.token(t, "ann", hour), http.StatusUnauthorized},
		{"unsigned", unsigned("ann"), http.StatusUnauthorized},
		{"with claims of another", parts[0] + "." + strings.Split(who.token(t, "bob", hour), ".")[1] + "." + parts[2], http.StatusUnauthorized},
		{"of nobody: ration refuses", who.token(t, "", hour), http.StatusTooManyRequests},
	} {
		for name, api := range llmAPIs {
			t.Run(f.name+", "+name, func(t *testing.T) {
				r := api.ask("ann", "input-tokens=10 output-tokens=10", nil)
				delete(r.header, "x-api-key")
				delete(r.header, "authorization")
				maps.Copy(r.header, forgeries)
				if f.token != "" {
					header, value := api.auth(f.token)
					r.header[header] = value
				}
				if got := send(t, l.url, r); got.code != f.code {
					t.Errorf("code %d, want %d: %s", got.code, f.code, got.body)
				}
			})
		}
	}
	l.chargesWhatWasServed(t)
	l.ration.stands(t, "bob", "tokens", standing{})
	l.sawNoSecret(t, valid)
}

// TestLLMKeys shows that keys which ration knows say who calls, from one request to the next; that nobody else is let in; and
// that the model does not see them.
func TestLLMKeys(t *testing.T) {
	onBothStores(t, func(t *testing.T, store func(testing.TB) string) {
		admin := freeAddr(t)
		l := startLLMWith(t, "llm-keys.yaml", store(t), llmPolicy, []string{"--admin-addr", admin})
		change := func(method, key string) {
			t.Helper()
			a := send(t, "http://"+admin, request{method: http.MethodPost, path: "/ration.v1.AdminService/" + method,
				header: map[string]string{"content-type": "application/json"},
				body:   fmt.Sprintf(`{"subject":{"domain":"llm","name":"ann"},"key":%q,"actor":{"name":"test","reason":"test"}}`, key)})
			if a.code != http.StatusOK {
				t.Fatalf("%s: code %d: %s", method, a.code, a.body)
			}
		}
		asks := func(key string, code int) {
			t.Helper()
			for name, api := range llmAPIs {
				eventually(t, fmt.Sprintf("%s with %s is answered %d", name, key, code), func() error {
					r := api.ask("", "input-tokens=10 output-tokens=10", nil)
					delete(r.header, "x-api-key")
					delete(r.header, "authorization")
					maps.Copy(r.header, forgeries)
					if key != "" {
						header, value := api.auth(key)
						r.header[header] = value
					}
					if got := send(t, l.url, r); got.code != code {
						return fmt.Errorf("code %d: %s", got.code, got.body)
					}
					return nil
				})
			}
		}
		asks("", http.StatusTooManyRequests)
		asks("sk-ann-0123456789", http.StatusTooManyRequests)
		change("AddKey", "sk-ann-0123456789")
		asks("sk-ann-0123456789", http.StatusOK)
		l.chargesWhatWasServed(t)
		l.ration.stands(t, "bob", "tokens", standing{})
		l.sawNoSecret(t, "sk-ann-0123456789")
	})
}

// TestLLMSecrets shows that the provider sees its own key alone, and no account that a client names.
func TestLLMSecrets(t *testing.T) {
	l := startLLM(t, "llm-reserve.yaml", memory)
	r := llmAPIs["messages"].ask("ann", "output-tokens=4", nil)
	maps.Copy(r.header, forgeries)
	r.header["authorization"], r.header["openai-organization"] = "Bearer strange-key", "strange-account"
	if got := send(t, l.url, r); got.code != http.StatusOK {
		t.Errorf("code %d: %s", got.code, got.body)
	}
	l.sawNoSecret(t, "strange")
}

// sawNoSecret fails where what a caller is known by has reached the model, or what is ration's, or another key than the
// provider's.
func (l *llm) sawNoSecret(t testing.TB, secret string) {
	t.Helper()
	seen := send(t, "http://"+l.model.addr, request{path: "/fake/requests"}).body
	for _, text := range []string{secret, "Ration-", `"mine"`} {
		if strings.Contains(seen, text) {
			t.Errorf("the model saw %s: %s", text, seen)
		}
	}
	_, rows := l.model.ledger(t)
	for _, row := range rows {
		if row.Key != providerKey {
			t.Errorf("the model was asked with the key %q, want the provider's", row.Key)
		}
	}
}
