package main

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write testdata/ anew")

// Answers byte by byte, headers included, as testdata/ has them. `go test ./examples/fakellm -run TestFormats -update`
// writes them anew.
func TestFormats(t *testing.T) {
	everything := "input-tokens=25 cache-read-tokens=1000 cache-write-tokens=300 cache-write-1h-tokens=100 " +
		"output-tokens=12 reasoning-tokens=5"
	caps := map[string]string{
		"messages": `"max_tokens":7`, "chat": `"max_completion_tokens":7`, "responses": `"max_output_tokens":7`,
	}
	for api := range paths {
		for _, c := range []struct{ name, more, words string }{
			{"whole", ``, everything},
			{"stream", `"stream":true`, everything},
			{"capped", caps[api], "output-tokens=12"},
			{"capped-stream", caps[api] + `,"stream":true`, "output-tokens=12"},
			{"no-usage-stream", `"stream":true`, "output-tokens=3 no-usage=true"},
			{"error-stream", `"stream":true`, "output-tokens=12 error-after=2"},
			{"limited", ``, "input-tokens=200"},
			{"status-400", ``, "status=400"},
			{"status-401", ``, "status=401"},
			{"status-429", ``, "status=429 error=insufficient_quota"},
			{"status-500", ``, "status=500"},
			{"overloaded", ``, "status=529 retry-after=2s"},
		} {
			t.Run(api+"-"+c.name, func(t *testing.T) { checkFormat(t, api, c.more, c.words) })
		}
	}
	t.Run("chat-stream-usage", func(t *testing.T) {
		checkFormat(t, "chat", `"stream":true,"n":2,"stream_options":{"include_usage":true}`, everything)
	})
}

func checkFormat(t *testing.T, api, more, words string) {
	f := newFake(t, options{limitOptions: limitOptions{RPM: 50, InputTPM: 1000, OutputTPM: 8000, TPM: 2000}})
	if strings.HasSuffix(t.Name(), "limited") {
		f.call(t, api, "", "input-tokens=1000")
		f.call(t, api, "", "input-tokens=900")
	}
	recorder := httptest.NewRecorder()
	f.routes().ServeHTTP(recorder, f.ask(t, api, more, words))
	var got bytes.Buffer
	fmt.Fprintf(&got, "%d\n", recorder.Code)
	for _, name := range slices.Sorted(maps.Keys(recorder.Header())) {
		fmt.Fprintf(&got, "%s: %s\n", name, recorder.Header().Get(name))
	}
	fmt.Fprintf(&got, "\n%s", recorder.Body)

	golden := filepath.Join("testdata", filepath.Base(t.Name())+".http")
	if *update {
		if err := os.WriteFile(golden, got.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Errorf("not as %s has it:\n%s", golden, got.String())
	}
}

// The same request gets the same words and the same counts, whole or streamed; another gets others.
func TestDeterministic(t *testing.T) {
	f := newFake(t, options{})
	first := decode[anthropicMessage](t, f.call(t, "messages", "", "").body)
	again := decode[anthropicMessage](t, f.call(t, "messages", "", "").body)
	if fmt.Sprint(first.Content, first.Usage.Output) != fmt.Sprint(again.Content, again.Usage.Output) {
		t.Errorf("%v, and then %v", first, again)
	}
	if first.ID == again.ID {
		t.Errorf("both have the id %s", first.ID)
	}
	other := decode[anthropicMessage](t, f.call(t, "messages", `"model":"another"`, "").body)
	if fmt.Sprint(first.Content) == fmt.Sprint(other.Content) {
		t.Errorf("another model says the same: %v", other.Content)
	}
	text := first.Content[0].(map[string]any)["text"].(string)
	if streamed := textOf(t, f.call(t, "messages", `"stream":true`, "").body); streamed != text {
		t.Errorf("streamed %q, whole %q", streamed, text)
	}
}

// A prompt says how it is answered, the last time it does so; headers win.
func TestDirective(t *testing.T) {
	f := newFake(t, options{Script: "output-tokens=1 cache-read-tokens=7"})
	messages := `"messages":[{"role":"user","content":"[fake output-tokens=2]"},
		{"role":"user","content":[{"type":"text","text":"[fake output-tokens=3 input-tokens=4]"}]}]`
	for _, c := range []struct {
		more, words string
		want        anthropicUsage
	}{
		{want: anthropicUsage{Input: 5, CacheRead: 7, Output: 1}},
		{more: messages, want: anthropicUsage{Input: 4, CacheRead: 7, Output: 3}},
		{more: messages, words: "output-tokens=9 cache-read-tokens=0", want: anthropicUsage{Input: 4, Output: 9}},
	} {
		got := decode[anthropicMessage](t, f.call(t, "messages", c.more, c.words).body).Usage
		if got.Input != c.want.Input || got.CacheRead != c.want.CacheRead || got.Output != c.want.Output {
			t.Errorf("%s %s: %+v, want %+v", c.more, c.words, got, c.want)
		}
	}
	// The header of the user looks like a script and is none; what is misspelled is not passed over.
	wantStatus(t, f.call(t, "chat", "", "user=ada"), 200)
	wantStatus(t, f.call(t, "chat", "", "output-tokns=3"), 400)
	wantStatus(t, f.call(t, "chat", `"messages":[{"role":"user","content":"[fake status=200]"}]`, ""), 400)
}

// Requests that the real services refuse are refused.
func TestInvalidRequests(t *testing.T) {
	f := newFake(t, options{Keys: []string{"key"}, Models: []string{"model"}})
	for _, c := range []struct {
		api, more string
		want      int
	}{
		{"messages", `"max_tokens":null`, 400},
		{"messages", `"max_tokens":0`, 400},
		{"messages", `"messages":[]`, 400},
		{"messages", `"model":"other"`, 404},
		{"chat", `"messages":"x"`, 400},
		{"chat", `"max_tokens":5,"max_completion_tokens":5`, 400},
		{"chat", `"max_tokens":0`, 400},
		{"chat", `"n":0`, 400},
		{"chat", `"n":129`, 400},
		{"chat", `"stream_options":{"include_usage":true}`, 400},
		{"chat", `"model":"other"`, 404},
		{"responses", `"model":""`, 400},
		{"responses", `"max_output_tokens":-1`, 400},
		{"responses", `"stream":"yes"`, 400},
	} {
		if got := f.call(t, c.api, c.more, ""); got.StatusCode != c.want {
			t.Errorf("%s with %s: status %d, want %d: %s", c.api, c.more, got.StatusCode, c.want, got.body)
		}
	}
	for api := range paths {
		r := f.ask(t, api, "", "")
		r.Header.Set("Authorization", "Bearer another")
		wantStatus(t, f.send(t, r), 401)
	}
	r := f.ask(t, "messages", "", "")
	r.Header.Del("Anthropic-Version")
	wantStatus(t, f.send(t, r), 400)
	if total := f.total(t); total.Failed != total.Requests || total.Served != (tokens{}) {
		t.Errorf("the ledger says %+v", total)
	}
}
