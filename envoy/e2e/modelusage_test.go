package e2e

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

// usageFact is an answer of the model and what is charged for it at the end: `-` is nothing.
type usageFact struct {
	name   string
	answer http.HandlerFunc
	want   string
}

// runUsage plays the facts on an Envoy with these filters and charges.
func runUsage(t *testing.T, change func(bootstrap), filters, charges string, facts []usageFact) {
	service, behind := startScripted(t), startModel(t)
	b := shipped(t, behind.addr, service.addr)
	b.filters(t, filters)
	change(b)
	routes := []any{markerRoute(t)}
	for i, f := range facts {
		path := fmt.Sprintf("/%d", i)
		behind.at(path, f.answer)
		routes = append(routes, modelRoute(t, path, "[]", charges))
	}
	b.virtualHost(factsHost, routes...)
	e := startEnvoy(t, b)
	for i, f := range facts {
		t.Run(f.name, func(t *testing.T) {
			service.will(answering(ok))
			_, err := try(t.Context(), e.url, request{host: factsHost, path: fmt.Sprintf("/%d", i),
				header: map[string]string{"accept-encoding": "identity"}})
			if err != nil {
				t.Fatal(err)
			}
			service.asks(t, e, f.want)
		})
	}
}

// asShipped changes nothing.
func asShipped(bootstrap) {}

// compressed is a body as a model's API sends it to clients that accept gzip.
func compressed(body string) string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = io.WriteString(w, body) // into memory
	_ = w.Close()
	return b.String()
}

// long makes a text of n bytes.
func long(n int) string { return strings.Repeat("x", n) }

// TestUsage shows which usage json_to_metadata and sse_to_metadata find, and what hits_addend makes of it. Both stand in
// one chain.
func TestUsage(t *testing.T) {
	const input, cached = "metadata.filter_metadata.usage.input", "metadata.filter_metadata.usage.cached"
	charges := list(
		charge("input", "%DYNAMIC_METADATA(usage:input)%"),
		charge("cached", "%DYNAMIC_METADATA(usage:cached)%"),
		charge("output", "%DYNAMIC_METADATA(usage:output)%"),
		charge("difference", "%CEL(int("+input+" - "+cached+"))%"),
		charge("guarded", "%CEL(int(has("+cached+") ? "+input+" - "+cached+" : "+input+"))%"),
		`{ actions: [{ generic_key: { descriptor_key: of, descriptor_value: end } }], apply_on_stream_done: true }`)
	const (
		anthropic = "input 25; cached 7; output 15; difference 18; guarded 18; end"
		openAI    = "input 25; cached 20; output 15; difference 5; guarded 5; end"
		none      = "end"
	)
	usage := func(fields string) http.HandlerFunc { return say(`{"usage":{` + fields + `}}`) }
	lines := strings.NewReplacer("\n", "\r\n")

	runUsage(t, asShipped, usageFilters, charges, []usageFact{
		{"JSON: Anthropic", say(messageJSON), anthropic},
		{"JSON: OpenAI, whose input includes what was cached: CEL subtracts", say(completionJSON), openAI},
		{"JSON in chunks",
			pieces("application/json", messageJSON[:10], messageJSON[10:40], messageJSON[40:]), anthropic},
		{"JSON of an error", refuse(529, messageJSON), anthropic},
		{"JSON with a charset: nothing, if the content type is not allowed",
			say(messageJSON, "content-type", "application/json; charset=utf-8"), none},
		{"JSON as text: nothing", say(messageJSON, "content-type", "text/plain"), none},
		{"JSON compressed: nothing", say(compressed(messageJSON), "content-encoding", "gzip"), none},
		{"no JSON: nothing", say("hello"), none},
		{"JSON, and more: nothing", say(messageJSON + "x"), none},
		{"no body: nothing", refuse(204, ""), none},
		{"a field is missing: its charge is dropped, and what CEL makes of it; not what has()",
			usage(`"input_tokens":25`),
			"input 25; guarded 25; end"},
		{"null is missing", usage(`"input_tokens":25,"output_tokens":null`), "input 25; guarded 25; end"},
		{"0 is a charge of 0", usage(`"input_tokens":0,"output_tokens":0`), "input 0; output 0; guarded 0; end"},
		{"below 0: dropped", usage(`"input_tokens":-1,"output_tokens":2`), "output 2; end"},
		{"a difference below 0: dropped",
			usage(`"input_tokens":3,"cache_read_input_tokens":7`), "input 3; cached 7; end"},
		{"above a billion: dropped",
			usage(`"input_tokens":1000000001,"output_tokens":1000000000`), "output 1000000000; end"},
		{"a number in quotes is one", usage(`"input_tokens":"25","output_tokens":"many"`), "input 25; guarded 25; end"},
		{"fractions are cut off",
			usage(`"input_tokens":1.9,"output_tokens":2e3`), "input 1; output 2000; guarded 1; end"},
		{"of a field twice, the last", usage(`"input_tokens":1,"input_tokens":2`), "input 2; guarded 2; end"},

		{"a stream: Anthropic, cumulative: the last counts",
			stream(messageStart, messageText, messageDelta, messageStop), anthropic},
		{"a stream: OpenAI, last chunk", stream(chunkText, chunkText, chunkUsage, chunkDone), openAI},
		{"a stream: OpenAI, without include_usage: nothing", stream(chunkText, chunkDone), none},
		{"a stream: Responses", stream(responseCreated, responseCompleted), openAI},
		{"in one piece", stream(messageStart + messageText + messageDelta + messageStop), anthropic},
		{"events across pieces",
			stream(messageStart[:50], messageStart[50:70], messageStart[70:], messageDelta[:len(messageDelta)-1], "\n"), anthropic},
		{"CRLF", stream(lines.Replace(messageStart), lines.Replace(messageDelta)), anthropic},
		{"no space after data:, and comments",
			stream(": ping\n\n", strings.ReplaceAll(messageStart, "data: ", "data:"), messageDelta), anthropic},
		{"data in several lines",
			stream(messageStart, "data: {\"usage\":\ndata: {\"output_tokens\":15}}\n\n"), anthropic},
		{"an event that is no JSON is passed over", stream(messageStart, "data: {oops\n\n", messageDelta), anthropic},
		{"with a charset", pieces("text/event-stream; charset=utf-8", messageStart, messageDelta), anthropic},
		{"the last event without its blank line: it does not count",
			stream(messageStart, strings.TrimRight(messageDelta, "\n")),
			"input 25; cached 7; output 1; difference 18; guarded 18; end"},
		{"an event above max_event_size (8 KiB) does not count, those after it do",
			stream(messageStart, "data: {\"text\":\""+long(1<<20)+"\",\"usage\":{\"output_tokens\":9}}\n\n", messageDelta),
			anthropic},
		{"an event above max_event_size that arrives last",
			stream(messageStart, "data: {\"text\":\""+long(1<<20)+"\",\"usage\":{\"output_tokens\":9}}\n\n"),
			"input 25; cached 7; output 1; difference 18; guarded 18; end"},
		{"compressed: nothing",
			encodedPieces("text/event-stream", "gzip", compressed(messageStart+messageDelta)), none},
	})
}

// TestUsageMissed shows when the rules' on_missing and on_error apply.
func TestUsageMissed(t *testing.T) {
	const filters = `
- name: envoy.filters.http.json_to_metadata
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.filters.http.json_to_metadata.v3.JsonToMetadata
    response_rules:
      rules:
      - selectors: [{ key: usage }, { key: output_tokens }]
        on_present: { metadata_namespace: usage, key: output, type: NUMBER }
        on_missing: { metadata_namespace: usage, key: missing, value: 1 }
        on_error: { metadata_namespace: usage, key: error, value: 1 }`
	charges := list(
		charge("output", "%DYNAMIC_METADATA(usage:output)%"),
		charge("missing", "%DYNAMIC_METADATA(usage:missing)%"),
		charge("error", "%DYNAMIC_METADATA(usage:error)%"))
	runUsage(t, asShipped, filters, charges, []usageFact{
		{"neither", say(messageJSON), "output 15"},
		{"the field is missing", say(`{"usage":{}}`), "missing 1"},
		{"no object", say(`[1]`), "missing 1"},
		{"no body", say(""), "missing 1"},
		{"no JSON", say("hello"), "error 1"},
		{"compressed", say(compressed(messageJSON), "content-encoding", "gzip"), "error 1"},
		{"a content type that is not allowed, so every stream", stream(messageStart, messageDelta), "error 1"},
	})
}

// TestUsageInCEL shows that CEL counts in floating point and writes six digits, unless it is told to make an integer.
func TestUsageInCEL(t *testing.T) {
	const output = "metadata.filter_metadata.usage.output"
	charges := list(
		charge("metadata", "%DYNAMIC_METADATA(usage:output)%"),
		charge("cel", "%CEL("+output+")%"),
		charge("int", "%CEL(int("+output+"))%"))
	runUsage(t, asShipped, usageFilters, charges, []usageFact{
		{"six digits", say(`{"usage":{"output_tokens":123456}}`), "metadata 123456; cel 123456; int 123456"},
		{"seven", say(`{"usage":{"output_tokens":1234567}}`), "metadata 1234567; cel 1234570; int 1234567"},
		{"a billion and one", say(`{"usage":{"output_tokens":1000000001}}`), "cel 1000000000"},
	})
}

// TestCELWithout shows what Envoy's CEL does not have: nothing that makes or takes apart a text, or goes through a list.
func TestCELWithout(t *testing.T) {
	const unknown, loop = "No overload found in reference resolve step for ", "Comprehension support is disabled"
	for function, f := range map[string]struct{ expression, want string }{
		"string":    {"string(1)", unknown + "string"},
		"substring": {"request.path.substring(1)", unknown + "substring"},
		"split":     {"request.path.split('/')[1]", unknown + "split"},
		"replace":   {"request.path.replace('/', '')", unknown + "replace"},
		"map":       {"[response.size, 7].map(n, n + 1)[0]", loop},
		"exists":    {"[response.size, 7].exists(n, n > 1) ? 1 : 2", loop},
	} {
		t.Run(function, func(t *testing.T) {
			b := shipped(t, "127.0.0.1:1", "127.0.0.1:2")
			b.virtualHost(factsHost, modelRoute(t, "/", "[]", list(charge("x", "%CEL("+f.expression+")%"))))
			if err := validate(t, write(t, b)); err == nil || !strings.Contains(err.Error(), f.want) {
				t.Errorf("Envoy said %v\nwant an error with %q", err, f.want)
			}
		})
	}
}

// TestUsageOfLargeBodies shows that JSON is read whole, within the listener's buffer.
func TestUsageOfLargeBodies(t *testing.T) {
	const large = 2 << 20
	body := `{"text":"` + long(large) + `","usage":{"input_tokens":25,"output_tokens":15}}`
	for _, f := range []struct {
		name   string
		change func(bootstrap)
		code   int
		want   string
	}{
		{"1 MiB, if not set: 500, and the usage is lost", asShipped, 500, "<1> end"},
		{"per_connection_buffer_limit_bytes", func(b bootstrap) {
			named(b, "http", "static_resources", "listeners")["per_connection_buffer_limit_bytes"] = 2 * large
		}, 200, "<1> input 25; <1> output 15; <1> end"},
	} {
		t.Run(f.name, func(t *testing.T) {
			service, behind := startScripted(t), startModel(t)
			behind.at("/", say(body))
			b := shipped(t, behind.addr, service.addr)
			f.change(b)
			b.filters(t, usageFilters)
			b.virtualHost(factsHost, markerRoute(t), modelRoute(t, "/", held, settled))
			e := startEnvoy(t, b)
			service.will(answering(ok))
			if got := send(t, e.url, request{host: factsHost, path: "/"}); got.code != f.code {
				t.Errorf("code %d, want %d", got.code, f.code)
			}
			service.asks(t, e, "id=<1>", f.want)
		})
	}
}

// TestUsageByProtocol shows what ai_protocol_manager finds, which knows the APIs by itself. It writes typed metadata,
// which only CEL can read.
func TestUsageByProtocol(t *testing.T) {
	const (
		filters = `
- name: envoy.filters.http.ai_protocol_manager
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.filters.http.ai_protocol_manager.v3.AiProtocolManager
    response_handling: { token_usage: { include_unconfigured_routes: true } }`
		usage  = "metadata.typed_filter_metadata['envoy.ai.token_usage']"
		input  = usage + ".input_tokens"
		cached = usage + ".input_token_details.cached_tokens"
	)
	charges := list(
		charge("plain", "%DYNAMIC_METADATA(envoy.ai.token_usage:input_tokens)%"), // never
		charge("input", "%CEL("+input+")%"),
		charge("uncached", "%CEL("+input+" - "+cached+")%"),
		charge("cached", "%CEL("+cached+")%"),
		charge("output", "%CEL("+usage+".output_tokens)%"),
		`{ actions: [{ generic_key: { descriptor_key: of, descriptor_value: end } }], apply_on_stream_done: true }`)
	const (
		anthropic = "input 32; uncached 25; cached 7; output 15; end"
		openAI    = "input 25; uncached 5; cached 20; output 15; end"
		none      = "end"
	)
	facts := []usageFact{
		{"JSON: Anthropic: input is all of it", say(messageJSON), anthropic},
		{"JSON: OpenAI", say(completionJSON), openAI},
		{"a stream: Anthropic", stream(messageStart, messageText, messageDelta, messageStop), anthropic},
		{"a stream: OpenAI", stream(chunkText, chunkUsage, chunkDone), openAI},
		{"a stream: Responses", stream(responseCreated, responseCompleted), openAI},
		{"JSON with a charset", say(messageJSON, "content-type", "application/json; charset=utf-8"), anthropic},
		{"JSON in 2 MiB is not buffered",
			say(strings.Replace(messageJSON, `"content":[]`, `"content":"`+long(2<<20)+`"`, 1)), anthropic},
		{"JSON in 5 MiB, above max_json_body_size: all 0",
			say(strings.Replace(messageJSON, `"content":[]`, `"content":"`+long(5<<20)+`"`, 1)),
			"input 0; uncached 0; cached 0; output 0; end"},
		{"seven digits", say(strings.Replace(messageJSON, `"output_tokens":15`, `"output_tokens":1234567`, 1)),
			"input 32; uncached 25; cached 7; output 1234567; end"},
		{"compressed: nothing", say(compressed(messageJSON), "content-encoding", "gzip"), none},
		{"JSON that it does not take for an API's: nothing",
			say(`{"usage":{"input_tokens":25,"output_tokens":15}}`), none},
		{"the model's error with usage: nothing", refuse(529, messageJSON), none},
	}
	runUsage(t, asShipped, filters, charges, facts)

	t.Run("broken off in the stream: nothing, usage is told at the end", func(t *testing.T) {
		service, behind := startScripted(t), startModel(t)
		behind.at("/aborted", stream(messageStart, messageText, "abort"))
		behind.at("/left", stream(messageStart, messageText, "hold"))
		b := shipped(t, behind.addr, service.addr)
		b.filters(t, filters)
		b.virtualHost(factsHost, markerRoute(t), modelRoute(t, "/aborted", "[]", charges), modelRoute(t, "/left", "[]", charges))
		e := startEnvoy(t, b)
		service.will(answering(ok))
		if _, err := try(t.Context(), e.url, request{host: factsHost, path: "/aborted"}); err == nil {
			t.Error("the answer is whole")
		}
		service.asks(t, e, none)
		service.will(answering(ok))
		hangUp(t, e, behind, "/left", "Hello")
		service.asks(t, e, none)
	})
}

// TestUsageByBytes shows that the size of an answer is known when it is broken off, where its usage is not.
func TestUsageByBytes(t *testing.T) {
	service, behind := startScripted(t), startModel(t)
	behind.at("/", stream(chunkText, "hold"))
	b := shipped(t, behind.addr, service.addr)
	b.filters(t, usageFilters)
	b.virtualHost(factsHost, markerRoute(t), modelRoute(t, "/", "[]",
		list(charge("output", "%CEL(has(metadata.filter_metadata.usage) ? int(metadata.filter_metadata.usage.output) : response.size)%"))))
	e := startEnvoy(t, b)
	service.will(answering(ok))
	hangUp(t, e, behind, "/", "chunk")
	service.asks(t, e, fmt.Sprintf("output %d", len(chunkText)))
}

// pieces answers 200 with a body that arrives in pieces.
func pieces(contentType string, body ...string) http.HandlerFunc {
	return encodedPieces(contentType, "", body...)
}

// encodedPieces is pieces with a content-encoding.
func encodedPieces(contentType, encoding string, body ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("content-type", contentType)
		if encoding != "" {
			w.Header().Set("content-encoding", encoding)
		}
		for _, piece := range body {
			_, _ = io.WriteString(w, piece)
			_ = http.NewResponseController(w).Flush()
		}
	}
}
