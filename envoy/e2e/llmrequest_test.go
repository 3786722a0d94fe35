package e2e

import (
	"fmt"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// TestLLMRequests shows what the bootstraps make of a request: what ration is asked to hold, and what the model is asked.
func TestLLMRequests(t *testing.T) {
	const (
		messages, chat, responses = "/v1/messages", "/v1/chat/completions", "/v1/responses"
	)
	facts := []struct {
		name, path, body string
		held             string // of output
		sees             string // the model; as it came, if empty
		code             int    // 200, if 0
	}{
		{name: "the cap of Messages", path: messages, body: `{"model":"m","max_tokens":77}`, held: "77"},
		{name: "of Chat Completions", path: chat, body: `{"model":"m","max_completion_tokens":77}`, held: "77"},
		{name: "of Chat Completions, as it was before", path: chat, body: `{"model":"m","max_tokens":77}`, held: "77"},
		{name: "both: the larger", path: chat, body: `{"model":"m","max_completion_tokens":77,"max_tokens":78}`, held: "78"},
		{name: "of several answers", path: chat, body: `{"model":"m","max_completion_tokens":77, "n": 3}`, held: "231"},
		{name: "of Responses", path: responses, body: `{"model":"m","max_output_tokens":77}`, held: "77"},
		{name: "the cap of another API is none", path: messages, body: `{"model":"m","max_tokens":77,"max_output_tokens":1}`, held: "77"},
		{name: "none: one is written into it", path: messages, body: `{"model":"m"}`,
			held: "8192", sees: `{"model":"m","max_tokens":8192}`},
		{name: "none, Chat Completions", path: chat, body: `{ "model": "m", "seed": 12345678901234567 }`,
			held: "8192", sees: `{ "model": "m", "seed": 12345678901234567 ,"max_completion_tokens":8192}`},
		{name: "none, Responses", path: responses, body: `{"model":"m","max_output_tokens":null}`,
			held: "8192", sees: `{"model":"m","max_output_tokens":8192}`},
		{name: "below 1: the provider's business", path: messages, body: `{"model":"m","max_tokens":-5}`, held: "1"},
		{name: "above a billion: as much as can be said", path: messages, body: `{"model":"m","max_tokens":5000000000}`, held: "1000000000"},
		{name: "a stream of Chat Completions tells its usage", path: chat, body: `{"model":"m","max_tokens":7,"stream":true}`,
			held: "7", sees: `{"model":"m","max_tokens":7,"stream":true,"stream_options":{"include_usage":true}}`},
		{name: "also where the caller says no", path: chat,
			body: `{"stream_options":{"include_usage":false},"model":"m","max_tokens":7,"stream":true}`,
			held: "7", sees: `{"model":"m","max_tokens":7,"stream":true,"stream_options":{"include_usage":true}}`},
		{name: "where the caller wants it, nothing changes", path: chat,
			body: `{"stream_options": {"include_usage": true, "more": 1}, "model":"m","max_tokens":7,"stream":true}`, held: "7"},
		{name: "all else stays as it is", path: chat,
			body: `{"a":[1,{"stream_options":{}}],"b":"\"}],{\\","c":1.0,"model":"m","max_tokens":7,"stream":true,"d":{"e":"ü\u00e9"}}`,
			held: "7",
			sees: `{"a":[1,{"stream_options":{}}],"b":"\"}],{\\","c":1.0,"model":"m","max_tokens":7,"stream":true,"d":{"e":"ü\u00e9"},"stream_options":{"include_usage":true}}`},
		{name: "a field twice", path: chat, body: `{"model":"m","max_tokens":7,"max_tokens":1}`, code: 400},
		{name: "a field in disguise", path: chat, body: `{"model":"m","max\u005ftokens":7,"max_tokens":1}`, code: 400},
		{name: "a field in capitals, which servers in Go read", path: chat, body: `{"model":"m","max_tokens":7,"Stream":true}`, code: 400},
		{name: "a field with a letter that they take for another", path: chat, body: `{"model":"m","max_tokens":7,"ſtream":true}`, code: 400},
		{name: "an option of streams in capitals", path: chat,
			body: `{"model":"m","stream":true,"stream_options":{"include_usage":true,"Include_Usage":false}}`, code: 400},
		{name: "an option of streams twice", path: chat,
			body: `{"model":"m","stream":true,"stream_options":{"include_usage":false,"include_usage":true}}`, code: 400},
		{name: "a stream by another word for true", path: chat, body: `{"model":"m","max_tokens":7,"stream":"true"}`,
			held: "7", sees: `{"model":"m","max_tokens":7,"stream":"true","stream_options":{"include_usage":true}}`},
		{name: "what is answered later, elsewhere", path: responses, body: `{"model":"m","background":true}`, code: 400},
		{name: "no JSON: the most there is, of a model without a price", path: chat, body: `{"model":`, held: "1000000000"},
		{name: "no object", path: chat, body: `[]`, held: "1000000000"},
	}
	service, behind := startScripted(t), startModel(t)
	e := startEnvoy(t, fromFile(t, "../llm-reserve.yaml", behind.addr, service.addr))
	held := regexp.MustCompile(`ration.meter=(\w+) hits (\d+)`)
	for _, path := range []string{messages, chat, responses} {
		behind.at(path, say(messageJSON))
	}
	for _, f := range facts {
		t.Run(f.name, func(t *testing.T) {
			service.will(answering(ok))
			got := send(t, e.url, request{method: http.MethodPost, path: f.path + "?beta=true", body: f.body,
				header: map[string]string{"authorization": "Bearer key-of-ann", "content-type": "application/json"}})
			if f.code != 0 {
				if asked := admissions(service); got.code != f.code || !strings.Contains(got.body, "invalid_request_error") || len(asked) > 0 {
					t.Errorf("code %d, body %s, and ration was asked %q, want %d, and that nobody is asked", got.code, got.body, asked, f.code)
				}
				return
			}
			if got.code != http.StatusOK {
				t.Fatalf("code %d, want 200", got.code)
			}
			var holds []string
			for _, found := range held.FindAllStringSubmatch(admissions(service)[0], -1) {
				holds = append(holds, found[1]+" "+found[2])
			}
			if f.sees == "" {
				f.sees = f.body
			}
			// The input is four bytes to a token, of the body as it goes on.
			if want := fmt.Sprintf("[input_tokens %d output_tokens %s]", len(f.sees)/4+1, f.held); fmt.Sprint(holds) != want {
				t.Errorf("Envoy asks for %v, want %s", holds, want)
			}
			r := behind.newest(f.path)
			if saw := r.Header.Get("Body"); saw != f.sees || r.ContentLength != int64(len(f.sees)) {
				t.Errorf("the model saw %d bytes %s\nwant           %s", r.ContentLength, saw, f.sees)
			}
		})
	}
	t.Run("in chunks", func(t *testing.T) {
		service.will(answering(ok))
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, e.url+chat,
			struct{ *strings.Reader }{strings.NewReader(`{"model":"m"}`)})
		if err != nil {
			t.Fatal(err)
		}
		req.Header = http.Header{"Authorization": {"Bearer key-of-ann"}, "Content-Type": {"application/json"}}
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if saw, want := behind.newest(chat).Header.Get("Body"), `{"model":"m","max_completion_tokens":8192}`; saw != want {
			t.Errorf("the model saw %s, want %s", saw, want)
		}
	})
}

// TestLLMLargeRequest shows that a request with much in it is served in the time that the bootstrap gives ration. Envoy's
// clock stands still while its filters read a request, so their work counts in it.
func TestLLMLargeRequest(t *testing.T) {
	const file = "../llm-reserve.yaml"
	service, behind := startScripted(t), startModel(t)
	service.will(answering(ok))
	behind.at("/v1/messages", say(messageJSON))
	b := fromFile(t, file, behind.addr, service.addr)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var tree map[string]any
	if err := yaml.Unmarshal(text, &tree); err != nil {
		t.Fatal(err)
	}
	b.filter("envoy.filters.http.ratelimit")["timeout"] = bootstrap(tree).filter("envoy.filters.http.ratelimit")["timeout"]
	e := startEnvoy(t, b)
	got := send(t, e.url, request{method: http.MethodPost, path: "/v1/messages",
		body:   `{"model":"m","max_tokens":7,"tools":[` + strings.Repeat("[],", 1_500_000) + `[]]}`,
		header: map[string]string{"authorization": "Bearer key-of-ann", "content-type": "application/json"}})
	if got.code != http.StatusOK {
		t.Errorf("code %d, want 200: %s", got.code, got.body)
	}
}

// admissions are the calls by which a request was to be admitted, without those of ends of earlier ones.
func admissions(s *scripted) []string {
	return slices.DeleteFunc(s.asked(), func(call string) bool { return strings.Contains(call, "ration.phase=done") })
}
