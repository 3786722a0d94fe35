package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// model stands in for a model's API behind Envoy. Each path answers as a test says, and what it was asked it keeps.
type model struct {
	addr string

	mu    sync.Mutex
	paths map[string]http.HandlerFunc
	seen  []*http.Request
}

func startModel(t testing.TB) *model {
	t.Helper()
	m := &model{paths: map[string]http.HandlerFunc{"/marker": say("")}}
	server := httptest.NewServer(m)
	t.Cleanup(server.Close)
	m.addr = server.Listener.Addr().String()
	return m
}

func (m *model) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body) // an error means that the client has gone
	m.mu.Lock()
	r.Header["Body"] = []string{string(body)}
	m.seen = append(m.seen, r)
	answer := m.paths[r.URL.Path]
	m.mu.Unlock()
	answer(w, r)
}

// at makes a path answer as given.
func (m *model) at(path string, answer http.HandlerFunc) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.paths[path] = answer
}

// newest returns the newest request that has reached a path of the model; its body is in the header Body.
func (m *model) newest(path string) *http.Request {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range slices.Backward(m.seen) {
		if r.URL.Path == path {
			return r
		}
	}
	return &http.Request{}
}

// requests returns how many requests have reached a path of the model.
func (m *model) requests(path string) (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range m.seen {
		if r.URL.Path == path {
			n++
		}
	}
	return n
}

// say answers 200 with a body, and with headers, given as name, value, name, value. A content type that is not given is
// JSON's.
func say(body string, header ...string) http.HandlerFunc {
	return refuse(http.StatusOK, body, header...)
}

// refuse is say with another status.
func refuse(code int, body string, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("content-type", "application/json")
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(code)
		_, _ = io.WriteString(w, body) // an error means that the client has gone
	}
}

// stream answers with server-sent events, piece by piece, each flushed. A piece "hold" waits until the caller has gone,
// "abort" breaks the connection off.
func stream(pieces ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("content-type", "text/event-stream")
		control := http.NewResponseController(w)
		for _, piece := range pieces {
			switch piece {
			case "hold":
				<-r.Context().Done()
			case "abort":
				panic(http.ErrAbortHandler)
			default:
				_, _ = io.WriteString(w, piece)
			}
			_ = control.Flush()
		}
	}
}

// silence answers nothing, until the caller has gone.
func silence(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

// uuid is what Envoy makes request ids of.
var uuid = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)

// numbered replaces the ids that Envoy has made by <1>, <2>, …, in the order in which they appear.
func numbered(calls []string) []string {
	var ids []string
	calls = slices.Clone(calls)
	for i := range calls {
		calls[i] = uuid.ReplaceAllStringFunc(calls[i], func(id string) string {
			if !slices.Contains(ids, id) {
				ids = append(ids, id)
			}
			return fmt.Sprintf("<%d>", 1+slices.Index(ids, id))
		})
	}
	return calls
}

// filters replaces the HTTP filters between the charge and the router.
func (b bootstrap) filters(t testing.TB, list string) {
	t.Helper()
	for _, f := range message(t, "list: %s", list)["list"].([]any) {
		b.insertBefore("envoy.filters.http.router", f.(map[string]any))
	}
}

// modelRoute is a route with the rate_limits of the check and of the charge, each a YAML list that may be empty.
func modelRoute(t testing.TB, path, check, charge string) map[string]any {
	t.Helper()
	r := message(t, `
match: { path: %s }
route: { cluster: upstream }
typed_per_filter_config: {}`, path)
	for filter, limits := range map[string]string{"envoy.filters.http.ratelimit": check, "ration.charge": charge} {
		at(r, "typed_per_filter_config")[filter] = map[string]any{
			"@type":       "type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimitPerRoute",
			"rate_limits": message(t, "list: %s", limits)["list"],
		}
	}
	return r
}

// asks fails unless Envoy makes these calls, in this order and no others. They are written short: `<1>` is an id that
// Envoy has made, and `input 25` a charge of 25 for input.
func (s *scripted) asks(t testing.TB, e *envoy, want ...string) {
	t.Helper()
	eventually(t, fmt.Sprintf("Envoy asks %q", want), func() error {
		if got := short(s.asked()); len(got) < len(want) {
			return fmt.Errorf("it asked %q", got)
		}
		return nil
	})
	if got := short(s.settled(t, e)); !slices.Equal(got, want) {
		t.Errorf("Envoy asked %q\nwant       %q", got, want)
	}
}

// short writes calls as asks takes them.
func short(calls []string) []string {
	words := strings.NewReplacer("http: ", "", "id=<1>, of=", "<1> ", "of=", "", " hits", "")
	calls = numbered(calls)
	for i := range calls {
		calls[i] = words.Replace(calls[i])
	}
	return calls
}

// charge is a rate_limits entry of what has a name, with the hits that a format finds when the stream is done.
func charge(of, format string, actions ...string) string {
	actions = append(actions, fmt.Sprintf(`{ generic_key: { descriptor_key: of, descriptor_value: %s } }`, of))
	return fmt.Sprintf(`{ actions: [%s], hits_addend: { format: %q }, apply_on_stream_done: true }`,
		strings.Join(actions, ", "), format)
}

// list makes a YAML list.
func list(elements ...string) string { return "[" + strings.Join(elements, ", ") + "]" }

// hangUp sends a request and closes the connection when the answer so far contains a text; with none, when the model
// has been asked.
func hangUp(t testing.TB, e *envoy, m *model, path, after string) {
	t.Helper()
	conn, err := dial(t, strings.TrimPrefix(e.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", path, factsHost)
	if after == "" {
		eventually(t, "the model is asked", func() error {
			if m.requests(path) == 0 {
				return fmt.Errorf("it was not")
			}
			return nil
		})
		return
	}
	readUntil(t, conn, after)
}

// readUntil reads until what has come contains a text.
func readUntil(t testing.TB, conn net.Conn, text string) {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	var got []byte
	for buf := make([]byte, 4096); !strings.Contains(string(got), text); {
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatalf("%v after %q", err, got)
		}
		got = append(got, buf[:n]...)
	}
}

// What Anthropic's API answers, in short.
const (
	messageStart = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"type\":\"message\"," +
		"\"role\":\"assistant\",\"model\":\"m\",\"content\":[]," +
		"\"usage\":{\"input_tokens\":25,\"cache_read_input_tokens\":7,\"output_tokens\":1}}}\n\n"
	messageText = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0," +
		"\"delta\":{\"type\":\"text_delta\",\"text\":\"Hello\"}}\n\n"
	messageDelta = "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"}," +
		"\"usage\":{\"output_tokens\":15}}\n\n"
	messageStop = "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"
	messageJSON = `{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[],` +
		`"usage":{"input_tokens":25,"cache_read_input_tokens":7,"output_tokens":15}}`
)

// What OpenAI's API answers, in short. Its input includes what was cached.
const (
	completionJSON = `{"id":"chatcmpl-1","object":"chat.completion","model":"m","choices":[],"usage":{"prompt_tokens":25,` +
		`"completion_tokens":15,"total_tokens":40,"prompt_tokens_details":{"cached_tokens":20}}}`
	chunkText  = `data: {"id":"chatcmpl-1","object":"chat.completion.chunk","model":"m","choices":[],"usage":null}` + "\n\n"
	chunkUsage = `data: {"id":"chatcmpl-1","object":"chat.completion.chunk","model":"m","choices":[],"usage":{"prompt_tokens":25,` +
		`"completion_tokens":15,"total_tokens":40,"prompt_tokens_details":{"cached_tokens":20}}}` + "\n\n"
	chunkDone         = "data: [DONE]\n\n"
	responseCreated   = "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"usage\":null}}\n\n"
	responseCompleted = "event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"model\":\"m\"," +
		"\"usage\":{\"input_tokens\":25,\"input_tokens_details\":{\"cached_tokens\":20},\"output_tokens\":15,\"total_tokens\":40}}}\n\n"
)

// usageFilters put what an answer says of its tokens into the metadata usage: input, cached and output.
var usageFilters = fmt.Sprintf(`
- name: envoy.filters.http.json_to_metadata
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.filters.http.json_to_metadata.v3.JsonToMetadata
    response_rules: { rules: %s }
- name: envoy.filters.http.sse_to_metadata
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.filters.http.sse_to_metadata.v3.SseToMetadata
    response_rules:
      content_parser:
        name: envoy.content_parsers.json
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.content_parsers.json.v3.JsonContentParser
          rules: %s`, usageRules(""), usageRules("rule"))

// usageRules are the rules for the answers above, each below a key if one is given.
func usageRules(under string) string {
	var rules []string
	for _, r := range [][]string{
		{"input",
			"usage", "input_tokens"}, {"output", "usage", "output_tokens"}, {"cached", "usage", "cache_read_input_tokens"},
		{"input", "usage", "prompt_tokens"}, {"output", "usage", "completion_tokens"},
		{"cached", "usage", "prompt_tokens_details", "cached_tokens"},
		{"input", "message", "usage", "input_tokens"}, {"output", "message", "usage", "output_tokens"},
		{"cached", "message", "usage", "cache_read_input_tokens"},
		{"input", "response", "usage", "input_tokens"}, {"output", "response", "usage", "output_tokens"},
		{"cached", "response", "usage", "input_tokens_details", "cached_tokens"},
	} {
		var path []string
		for _, key := range r[1:] {
			path = append(path, "{ key: "+key+" }")
		}
		rule := fmt.Sprintf("{ selectors: %s, on_present: { metadata_namespace: usage, key: %s, type: NUMBER } }", list(path...), r[0])
		if under != "" {
			rule = fmt.Sprintf("{ %s: %s }", under, rule)
		}
		rules = append(rules, rule)
	}
	return list(rules...)
}
