package e2e

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
)

// TestShipped runs the files that users start from, bootstrap and policy, and tests what their comments promise.
func TestShipped(t *testing.T) {
	onBothStores(t, func(t *testing.T, store func(testing.TB) string) {
		server, behind := startRation(t, store(t), "../http-ratelimit.policy.yaml"), startUpstream(t)
		e := startEnvoy(t, shipped(t, behind.addr, server.grpc))
		get := func(t *testing.T, path, user string) answer {
			r := request{path: path}
			if user != "" {
				r.header = map[string]string{"x-user-id": user}
			}
			return send(t, e.url, r)
		}

		t.Run("all who do not say who they are share 10 requests a minute", func(t *testing.T) {
			withinOneMinute()
			for left := 9; left >= 0; left-- {
				got := get(t, "/", "")
				remaining := got.header.Get("RateLimit-Remaining")
				if got.code != http.StatusOK || got.body != greeting || remaining != strconv.Itoa(left) {
					t.Fatalf("code %d, %s remaining, want 200 and %d", got.code, remaining, left)
				}
			}
			got := get(t, "/", "")
			if got.code != http.StatusTooManyRequests {
				t.Fatalf("the 11th request: code %d, want 429", got.code)
			}
			checkProblem(t, got)
			want := `10, 600;w=60;name="address", 10;w=60;name="anonymous"`
			if limit := got.header.Get("x-ratelimit-limit"); limit != want {
				t.Errorf("x-ratelimit-limit %s, want %s", limit, want)
			}
			reset, retry := got.header.Get("x-ratelimit-reset"), got.header.Get("retry-after")
			if reset == "" || retry != reset {
				t.Errorf("retry-after %q, want that of x-ratelimit-reset, %q", retry, reset)
			}
			eventually(t, "the access log tells", func() error {
				line := `{"code":429,"details":"request_rate_limited","flags":"RL",`
				if !strings.Contains(e.output(), line) {
					return fmt.Errorf("no %s", line)
				}
				return nil
			})
		})
		t.Run("a user has 60 of his own", func(t *testing.T) {
			withinOneMinute()
			for _, user := range []string{"ann", "bob"} {
				if got := get(t, "/", user); got.code != http.StatusOK || got.header.Get("RateLimit-Limit") != "60" ||
					got.header.Get("RateLimit-Remaining") != "59" {
					t.Errorf("%s: code %d, headers %v, want 200 and 59 of 60 left", user, got.code, got.header)
				}
			}
		})
		t.Run("every path below /search has 5 a minute, however it is written", func(t *testing.T) {
			withinOneMinute()
			for _, path := range []string{"/search", "/search?q=1", "/search?q=2", "/x/../search", "//search"} {
				if got := get(t, path, "ann"); got.code != http.StatusOK {
					t.Errorf("%s: code %d, want 200", path, got.code)
				}
			}
			if got := get(t, "/search?q=3", "ann"); got.code != http.StatusTooManyRequests {
				t.Errorf("the 6th search: code %d, want 429", got.code)
			}
			if got := get(t, "/search/more", "ann"); got.code != http.StatusOK {
				t.Errorf("another path: code %d, want 200", got.code)
			}
		})
		t.Run("the limit of /reports comes with the request", func(t *testing.T) {
			withinOneMinute()
			for _, want := range []int{200, 200, 200, 429} {
				got := get(t, "/reports", "ann")
				if limit := got.header.Get("x-ratelimit-limit"); got.code != want || limit != "3, 3;w=3600" {
					t.Errorf("code %d with %s, want %d with 3, 3;w=3600", got.code, limit, want)
				}
			}
		})
		t.Run("/download is charged by the byte, afterwards", func(t *testing.T) {
			withinOneMinute()
			// The charge leaves when the response is over, so it may arrive a little after the client has everything.
			left := func(want string) {
				t.Helper()
				eventually(t, want+" bytes are left", func() error {
					got := get(t, "/download?bytes=0", "ann")
					if remaining := got.header.Get("x-ratelimit-remaining"); remaining != want {
						return fmt.Errorf("code %d with %s left", got.code, remaining)
					}
					return nil
				})
			}
			left("10000000")
			get(t, "/download?bytes=4000000", "ann")
			left("6000000")
			if got := get(t, "/download?bytes=7000000", "ann"); got.code != http.StatusOK || len(got.body) != 7000000 {
				t.Errorf("the response that crosses the limit: code %d with %d bytes, want it whole", got.code, len(got.body))
			}
			left("0")
			if got := get(t, "/download?bytes=1", "ann"); got.code != http.StatusTooManyRequests {
				t.Errorf("beyond the limit: code %d, want 429", got.code)
			}
			if got := get(t, "/download?bytes=1", "bob"); got.code != http.StatusOK {
				t.Errorf("another user: code %d, want 200", got.code)
			}
		})
	})
}
