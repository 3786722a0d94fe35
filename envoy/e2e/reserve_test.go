package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

const reserveFile = "../llm-reserve.yaml"

// TestReserve runs the files that meter a model's API by reservations, and tests what their comments promise: what is held
// while a request runs, and what stays charged when it has ended, to the token.
func TestReserve(t *testing.T) {
	onBothStores(t, testReserve)
}

func testReserve(t *testing.T, store func(testing.TB) string) {
	const (
		asked  = `{"model":"claude-haiku-4-5","max_tokens":100,"messages":[{"role":"user","content":"Hello"}]}`
		input  = len(asked)/4 + 1                          // what is held for it
		held   = input + 100                               // with the output
		used   = 25 + 7 + 15                               // what the model says at last
		begun  = 25 + 7 + len(messageStart+messageText)/32 // what is charged of a stream that has told its input and no more
		ofFree = "50000/HOUR (tokens)"                     // what the users have
	)
	server, behind := startRation(t, store(t), "../llm.policy.yaml"), startModel(t)
	e := startEnvoy(t, fromFile(t, reserveFile, behind.addr, server.grpc))
	key := map[string]string{"ann": "key-of-ann", "bob": "key-of-bob", "carol": "key-of-carol"}
	hour := map[string]string{"ann": "5000000/HOUR (tokens)", "bob": "500000/HOUR (tokens)", "carol": ofFree}
	total := map[string]int{"ann": 5_000_000, "bob": 500_000, "carol": 50_000}
	left := func(t *testing.T, user string, n int) {
		t.Helper()
		server.becomes(t, "llm: user="+user+", ration.meter=tokens hits 0", fmt.Sprintf("%d of %s", n, hour[user]))
	}
	post := func(user string) request {
		return request{method: http.MethodPost, path: "/v1/messages", body: asked,
			header: map[string]string{"x-api-key": key[user], "content-type": "application/json"}}
	}
	// begin sends a request in the background; its answer comes out of the channel, empty if it was broken off.
	begin := func(t *testing.T, user string) <-chan answer {
		ended := make(chan answer, 1)
		go func() {
			a, _ := try(t.Context(), e.url, post(user))
			ended <- a
		}()
		return ended
	}

	t.Run("JSON: held while it runs, settled when it has ended", func(t *testing.T) {
		finish := make(chan struct{})
		behind.at("/v1/messages", func(w http.ResponseWriter, r *http.Request) {
			<-finish
			say(messageJSON)(w, r)
		})
		ended := begin(t, "ann")
		left(t, "ann", total["ann"]-held)
		close(finish)
		if got := <-ended; got.code != http.StatusOK || got.body != messageJSON {
			t.Errorf("code %d with body %s", got.code, got.body)
		}
		total["ann"] -= used
		left(t, "ann", total["ann"])
		r := behind.newest("/v1/messages")
		for name, want := range map[string]string{"x-api-key": providerKey, "accept-encoding": "", "x-ration-user": ""} {
			if value := r.Header.Get(name); value != want {
				t.Errorf("the model saw %s: %q, want %q", name, value, want)
			}
		}
	})
	t.Run("JSON under another spelling of its content type: the same", func(t *testing.T) {
		behind.at("/v1/messages", say(messageJSON, "content-type", "Application/JSON; charset=utf-8"))
		r := post("ann")
		r.header["content-type"] = "Application/JSON; charset=utf-8"
		if got := send(t, e.url, r); got.code != http.StatusOK {
			t.Errorf("code %d, want 200", got.code)
		}
		total["ann"] -= used
		left(t, "ann", total["ann"])
	})
	t.Run("a stream: the same", func(t *testing.T) {
		finish := make(chan struct{})
		behind.at("/v1/messages", func(w http.ResponseWriter, r *http.Request) {
			stream(messageStart, messageText)(w, r)
			<-finish
			stream(messageDelta, messageStop)(w, r)
		})
		ended := begin(t, "bob")
		left(t, "bob", total["bob"]-held)
		close(finish)
		if got := <-ended; got.code != http.StatusOK || got.body != messageStart+messageText+messageDelta+messageStop {
			t.Errorf("code %d with body %s", got.code, got.body)
		}
		total["bob"] -= used
		left(t, "bob", total["bob"])
	})
	t.Run("a stream that is broken off: its input, and its output by the bytes", func(t *testing.T) {
		behind.at("/v1/messages", stream(messageStart, messageText, "abort"))
		<-begin(t, "bob")
		total["bob"] -= begun
		left(t, "bob", total["bob"])
	})
	t.Run("a client that hangs up in the stream: the same", func(t *testing.T) {
		behind.at("/v1/messages", stream(messageStart, messageText, "hold"))
		conn, err := dial(t, strings.TrimPrefix(e.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "POST /v1/messages HTTP/1.1\r\nHost: x\r\nx-api-key: %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s",
			key["bob"], len(asked), asked)
		left(t, "bob", total["bob"]-held)
		readUntil(t, conn, "Hello")
		conn.Close()
		total["bob"] -= begun
		left(t, "bob", total["bob"])
	})
	t.Run("never more output than was asked for", func(t *testing.T) {
		behind.at("/v1/messages", stream(messageStart, strings.Repeat(messageText, 100), "abort"))
		<-begin(t, "bob")
		total["bob"] -= 25 + 7 + 100
		left(t, "bob", total["bob"])
	})
	t.Run("an error of the model, without usage: nothing", func(t *testing.T) {
		behind.at("/v1/messages", refuse(http.StatusInternalServerError, `{"type":"error"}`))
		if got := send(t, e.url, post("bob")); got.code != http.StatusInternalServerError {
			t.Errorf("code %d, want 500", got.code)
		}
		left(t, "bob", total["bob"])
	})
	t.Run("an answer without usage: the estimate of the input", func(t *testing.T) {
		behind.at("/v1/messages", say(`{"type":"message"}`))
		if got := send(t, e.url, post("bob")); got.code != http.StatusOK {
			t.Errorf("code %d, want 200", got.code)
		}
		total["bob"] -= input
		left(t, "bob", total["bob"])
	})
	t.Run("an id that a client repeats is no free request", func(t *testing.T) {
		behind.at("/v1/messages", say(messageJSON))
		ids := map[string]bool{}
		for range 2 {
			r := post("ann")
			r.header["x-request-id"] = "mine"
			r.header["x-ration-user"] = "bob"
			got := send(t, e.url, r)
			ids[got.header.Get("x-request-id")] = true
			total["ann"] -= used
			left(t, "ann", total["ann"])
		}
		if len(ids) != 2 || ids["mine"] {
			t.Errorf("the requests had the ids %v", ids)
		}
	})
	t.Run("two places, and the third request is refused until one is free", func(t *testing.T) {
		behind.at("/v1/messages", stream(messageStart, messageText, "hold"))
		var places []func()
		for i := range 2 {
			conn, err := dial(t, strings.TrimPrefix(e.url, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(conn, "POST /v1/messages HTTP/1.1\r\nHost: x\r\nx-api-key: %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s",
				key["carol"], len(asked), asked)
			readUntil(t, conn, "Hello")
			places = append(places, func() { conn.Close() })
			left(t, "carol", total["carol"]-(i+1)*held)
		}
		before := behind.requests("/v1/messages")
		got := send(t, e.url, post("carol"))
		if got.code != http.StatusTooManyRequests || got.header.Get("x-should-retry") != "true" || !strings.Contains(got.body, "in-flight") {
			t.Errorf("code %d, headers %v, body %s", got.code, got.header, got.body)
		}
		if behind.requests("/v1/messages") != before {
			t.Error("the model was asked")
		}
		for _, free := range places {
			free()
			total["carol"] -= begun
		}
		left(t, "carol", total["carol"])
		behind.at("/v1/messages", say(messageJSON))
		if got := send(t, e.url, post("carol")); got.code != http.StatusOK {
			t.Errorf("code %d, want 200: there are places", got.code)
		}
		total["carol"] -= used
		left(t, "carol", total["carol"])
	})
	t.Run("what is not admitted", func(t *testing.T) {
		before := behind.requests("/v1/messages")
		for name, f := range map[string]struct {
			change func(*request)
			code   int
		}{
			"an unknown key":            {func(r *request) { r.header["x-api-key"] = "key-of-eve" }, http.StatusUnauthorized},
			"another content type":      {func(r *request) { r.header["content-type"] = "text/plain" }, http.StatusUnsupportedMediaType},
			"another path":              {func(r *request) { r.path = "/v1/files" }, http.StatusNotFound},
			"another method":            {func(r *request) { r.method = http.MethodPut }, http.StatusNotFound},
			"a model without a price":   {func(r *request) { r.body = strings.Replace(asked, "haiku", "mystery", 1) }, http.StatusTooManyRequests},
			"no model":                  {func(r *request) { r.body = `{"max_tokens":100}` }, http.StatusTooManyRequests},
			"no JSON":                   {func(r *request) { r.body = `{"model":` }, http.StatusTooManyRequests},
			"an output above all there": {func(r *request) { r.body = strings.Replace(asked, ":100", ":1000000001", 1) }, http.StatusTooManyRequests},
		} {
			r := post("ann")
			f.change(&r)
			if got := send(t, e.url, r); got.code != f.code {
				t.Errorf("%s: code %d, want %d", name, got.code, f.code)
			}
		}
		if behind.requests("/v1/messages") != before {
			t.Error("the model was asked")
		}
		left(t, "ann", total["ann"])
	})
	// At last, since others wait after it.
	t.Run("the provider's 429 in our words, and without its headers", func(t *testing.T) {
		behind.at("/v1/messages", refuse(http.StatusTooManyRequests, `{"theirs":true}`, "retry-after", "47", "anthropic-ratelimit-requests-remaining", "0"))
		got := send(t, e.url, post("bob"))
		if got.code != http.StatusTooManyRequests || !strings.Contains(got.body, "overloaded_error") || got.header.Get("x-should-retry") != "true" {
			t.Errorf("code %d, headers %v, body %s", got.code, got.header, got.body)
		}
		for _, name := range []string{"retry-after", "x-envoy-ratelimited"} {
			if value := got.header.Get(name); value != "" {
				t.Errorf("%s: %s, want none", name, value)
			}
		}
		if value := got.header.Values("anthropic-ratelimit-requests-remaining"); len(value) != 1 || value[0] == "0" {
			t.Errorf("anthropic-ratelimit-requests-remaining: %q, want what bob has left, and not the provider's 0", value)
		}
		left(t, "bob", total["bob"])
	})
}
