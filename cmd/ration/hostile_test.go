package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"

	commonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc/status"

	"github.com/rationhq/ration/store/redis/redistest"
)

// control finds the first character of a text that would mean something to a terminal, or to whoever reads
// it line by line. Lines themselves may end.
func control(text string) string {
	for _, r := range text {
		if unicode.IsControl(r) && r != '\n' {
			return fmt.Sprintf("%U", r)
		}
	}
	return ""
}

// requestOf asks for one descriptor of these keys and values.
func requestOf(domain string, pairs ...string) *ratelimitv3.RateLimitRequest {
	r := request(domain, pairs[0], pairs[1])
	for i := 2; i < len(pairs); i += 2 {
		r.Descriptors[0].Entries = append(r.Descriptors[0].Entries,
			&commonv3.RateLimitDescriptor_Entry{Key: pairs[i], Value: pairs[i+1]})
	}
	return r
}

// addrsInText is process.addrs for a log in text form.
func addrsInText(t *testing.T, p *process) (at line) {
	t.Helper()
	eventually(t, "it serves", func() error {
		m := regexp.MustCompile(`msg=serving grpc=(\S+) http=(\S+) metrics=(\S+)`).FindStringSubmatch(p.said())
		if m == nil {
			return errors.New("not yet")
		}
		at = line{GRPC: m[1], HTTP: m[2], Metrics: m[3]}
		return nil
	})
	return at
}

// TestHostileValues sends values that would end a line, move a cursor, or name another's counter: nothing
// that ration writes anywhere holds them as they are, and each has a counter of its own.
func TestHostileValues(t *testing.T) {
	hostile := []string{
		"a\nration:{s0001}shop|user=victim|60s", "a\r\nSet-Cookie: x=y", "\x1b[2J\x1b]0;owned\a", "\u009b31m", "a\x00b", "\x7f\b\b",
		"a\" b='c' {} | = %0A", "%0A", "a%0Aration", "\t", "\u2028", `{"level":"ERROR"}`, "${jndi:x}", "<script>alert(1)</script>",
	}
	file := filepath.Join(t.TempDir(), "policy.yaml")
	const policy = "domain: shop\ntiers: [ { name: free } ]\ntrust_tier: true\ndescriptors:\n" +
		"- { key: plain, rate_limit: { unit: year, requests_per_unit: 1 } }\n" +
		"- { key: user, subject: true, limits: [ { name: l, algorithm: fixed_window, limit: 1/day }, { name: c, meter: concurrency, limit: 5 } ] }\n"
	if err := os.WriteFile(file, []byte(policy), 0o600); err != nil {
		t.Fatal(err)
	}
	server := redistest.Start(t)
	p := serve(t, "--policy", file, "--store", server.URL(), "--log-format", "text", "--log-level", "debug", "--response-body", "--response-metadata")
	at := addrsInText(t, p)
	client := limiter(t, at.GRPC)

	for _, key := range []string{"plain", "user"} {
		for _, value := range hostile {
			entries := []string{key, value, "ration.tier", value}
			if key == "user" {
				entries = append(entries, "ration.request", value)
			}
			for n, want := range []ratelimitv3.RateLimitResponse_Code{ratelimitv3.RateLimitResponse_OK, ratelimitv3.RateLimitResponse_OVER_LIMIT} {
				if n == 1 && key == "user" {
					entries = entries[:4] // with its id the same request would pass again
				}
				response, err := client.ShouldRateLimit(t.Context(), requestOf("shop", entries...))
				if err != nil {
					t.Fatalf("%s %q: %v", key, value, err)
				}
				if response.GetOverallCode() != want {
					t.Errorf("request %d of %s %q: %v, want %v", n, key, value, response.GetOverallCode(), want)
				}
				if found := control(response.String()); found != "" {
					t.Errorf("the answer to %q holds %s", value, found)
				}
				for _, h := range append(response.GetResponseHeadersToAdd(), response.GetRequestHeadersToAdd()...) {
					if strings.ContainsFunc(h.GetKey()+h.GetValue(), unicode.IsControl) {
						t.Errorf("a header of the answer to %q: %v", value, h)
					}
				}
			}
			// What is wrong with a request is said with the value that is.
			_, err := client.ShouldRateLimit(t.Context(), requestOf("shop", key, value, "ration.meter", value, "ration.phase", value))
			if found := control(status.Convert(err).Message()); err == nil || found != "" {
				t.Errorf("the error for %q holds %q: %v", value, found, err)
			}
		}
	}

	body, err := json.Marshal(map[string]any{"domain": "shop", "descriptors": []any{map[string]any{
		"entries": []any{map[string]string{"key": "plain", "value": hostile[2]}, map[string]string{"key": "ration.phase", "value": hostile[2]}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	if code, answer := send(t, http.MethodPost, "http://"+at.HTTP+"/json", string(body)); code != http.StatusBadRequest || control(answer) != "" {
		t.Errorf("/json answers %d %q", code, answer)
	}

	stored, err := server.Client(t).Keys(t.Context(), "*").Result()
	if err != nil {
		t.Fatal(err)
	}
	plain := 0
	for _, key := range stored {
		if strings.ContainsFunc(key, unicode.IsControl) {
			t.Errorf("the key %q", key)
		}
		if strings.Contains(key, "|plain=") {
			plain++
		}
	}
	if plain != len(hostile) {
		t.Errorf("%d counters of %d values:\n%q", plain, len(hostile), stored)
	}
	_, metrics := get(t, "http://"+at.Metrics+"/metrics")
	for _, value := range hostile {
		if value != "\t" && strings.Contains(metrics, value) {
			t.Errorf("the metrics hold %q", value)
		}
	}
	p.stop(t)
	if found := control(p.said()); found != "" {
		t.Errorf("the log holds %s:\n%q", found, p.said())
	}
	for _, line := range strings.Split(p.said(), "\n") {
		if !strings.HasPrefix(line, "time=") {
			t.Errorf("a line of the log that is none: %q", line)
		}
	}
}
