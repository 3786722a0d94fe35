package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// epoch is when tests begin that have a clock of their own.
var epoch = time.Date(2026, time.November, 1, 12, 0, 0, 0, time.UTC)

// fake is a server, with a clock of its own.
type fake struct {
	*server
	// passed is the time since epoch, for tests to set.
	passed atomic.Int64
	http   *httptest.Server
}

func newFake(t *testing.T, o options) *fake {
	t.Helper()
	return newFakeBy(t, o, func(f *fake) time.Duration { return time.Duration(f.passed.Load()) })
}

// newFakeBy is a server by a clock that tells the time since epoch.
func newFakeBy(t *testing.T, o options, clock func(*fake) time.Duration) *fake {
	t.Helper()
	if o.Burst == 0 {
		o.Burst = time.Minute
	}
	if o.UserHeader == "" {
		o.UserHeader = "x-fake-user"
	}
	if o.Keep == 0 {
		o.Keep = 100
	}
	f := &fake{}
	var err error
	f.server, err = newServerAt(o, func() time.Time { return epoch.Add(clock(f)) })
	if err != nil {
		t.Fatal(err)
	}
	f.http = httptest.NewServer(f.routes())
	t.Cleanup(f.http.Close)
	return f
}

// paths of the APIs.
var paths = map[string]string{"messages": "/v1/messages", "chat": "/v1/chat/completions", "responses": "/v1/responses"}

// ask makes a request of an API with the key "key". More is added to its fields; words are a script, in headers.
func (f *fake) ask(t *testing.T, api, more, words string) *http.Request {
	t.Helper()
	request := map[string]any{"model": "model"}
	if api == "responses" {
		request["input"] = "How long is an hour?"
	} else {
		request["messages"] = []any{map[string]any{"role": "user", "content": "How long is an hour?"}}
	}
	if api == "messages" {
		request["max_tokens"] = 1000
	}
	if more != "" {
		if err := json.Unmarshal([]byte("{"+more+"}"), &request); err != nil {
			t.Fatal(err)
		}
	}
	body, err := json.Marshal(request)
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, f.http.URL+paths[api], bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer key")
	r.Header.Set("Anthropic-Version", "2023-06-01")
	for _, word := range strings.Fields(words) {
		name, value, _ := strings.Cut(word, "=")
		r.Header.Set(headerPrefix+name, value)
	}
	return r
}

// answer is what came back.
type answer struct {
	*http.Response
	body string
}

// send has the request answered to the end.
func (f *fake) send(t *testing.T, r *http.Request) answer {
	t.Helper()
	response, err := f.http.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatalf("after %d bytes: %v", len(body), err)
	}
	return answer{Response: response, body: string(body)}
}

// call asks and takes the answer.
func (f *fake) call(t *testing.T, api, more, words string) answer {
	t.Helper()
	return f.send(t, f.ask(t, api, more, words))
}

// total is the sum of the ledger, once no request is open any more.
func (f *fake) total(t *testing.T) counts {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for {
		total := f.ledger.balance().Total
		if total.Open == 0 {
			return total
		}
		if !sleep(ctx, time.Millisecond) {
			t.Fatalf("requests are open still: %+v", total)
		}
	}
}

// decode reads JSON that came back.
func decode[T any](t *testing.T, document string) T {
	t.Helper()
	var value T
	if err := json.Unmarshal([]byte(document), &value); err != nil {
		t.Fatalf("%v in %s", err, document)
	}
	return value
}
