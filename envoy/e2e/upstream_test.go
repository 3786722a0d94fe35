package e2e

import (
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// greeting is the body of every answer of the upstream.
const greeting = "hello from the upstream\n"

// upstream is the service behind Envoy. It answers 200 to everything and says in x-served-by where. The request may ask
// for more response headers, with x-answer-NAME, and for a body of a certain length, with ?bytes=N. What it was asked
// it keeps.
type upstream struct {
	addr string

	mu   sync.Mutex
	seen []*http.Request
}

func startUpstream(t testing.TB) *upstream {
	t.Helper()
	u := &upstream{}
	server := httptest.NewServer(u)
	t.Cleanup(server.Close)
	u.addr = server.Listener.Addr().String()
	return u
}

func (u *upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	u.mu.Lock()
	u.seen = append(u.seen, r)
	u.mu.Unlock()
	w.Header().Set("x-served-by", u.addr)
	for name, values := range r.Header {
		if name, ok := strings.CutPrefix(name, "X-Answer-"); ok {
			w.Header()[http.CanonicalHeaderKey(name)] = values
		}
	}
	body := []byte(greeting)
	if n, err := strconv.Atoi(r.FormValue("bytes")); err == nil {
		body = make([]byte, n)
	}
	_, _ = w.Write(body) // an error means that the client has gone
}

// requests returns how many requests have reached the upstream.
func (u *upstream) requests() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.seen)
}

// last returns the newest request that has reached the upstream.
func (u *upstream) last() *http.Request {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.seen[len(u.seen)-1]
}
