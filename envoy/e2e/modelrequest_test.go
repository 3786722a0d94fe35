package e2e

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rls "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/protobuf/types/known/structpb"
)

// requestRules put a request's model and its output cap into the metadata request. They have to stand before the check.
const requestRules = `
name: envoy.filters.http.json_to_metadata.request
typed_config:
  "@type": type.googleapis.com/envoy.extensions.filters.http.json_to_metadata.v3.JsonToMetadata
  request_rules:
    rules:
    - selectors: [{ key: model }]
      on_present: { metadata_namespace: request, key: model, type: STRING }
      on_missing: { metadata_namespace: request, key: model, value: missing }
      on_error: { metadata_namespace: request, key: model, value: unreadable }
    - selectors: [{ key: max_tokens }]
      on_present: { metadata_namespace: request, key: max, type: NUMBER }
      on_missing: { metadata_namespace: request, key: max, value: 4096 }
      on_error: { metadata_namespace: request, key: max, value: 8192 }
    - selectors: [{ key: stream }]
      on_present: { metadata_namespace: request, key: stream }
      on_missing: { metadata_namespace: request, key: stream, value: false }`

// TestRequestRead shows what a check says of a request's body. The hits are its output cap: as it stands there, and held
// between 1 and 8192.
func TestRequestRead(t *testing.T) {
	const (
		model = `{ metadata: { descriptor_key: model, default_value: none, source: DYNAMIC,
			metadata_key: { key: request, path: [{ key: model }] } } }`
		outputCap = "metadata.filter_metadata.request.max"
		kind      = "application/json"
	)
	check := list(
		`{ actions: [`+model+`], hits_addend: { format: "%DYNAMIC_METADATA(request:max)%" } }`,
		`{ actions: [{ generic_key: { descriptor_key: of, descriptor_value: clamped } }],
		   hits_addend: { format: "%CEL(int(`+outputCap+` >= 1.0 && `+outputCap+` <= 8192.0 ? `+outputCap+` : 8192.0))%" } }`)
	facts := []struct {
		name, contentType, body string
		code                    int
		want                    string
	}{
		{"model and cap", kind, `{"model":"m","max_tokens":100}`, 200, "model=m 100; clamped 100"},
		{"no cap: on_missing", kind, `{"model":"m"}`, 200, "model=m 4096; clamped 4096"},
		{"null is missing", kind, `{"model":null,"max_tokens":null}`, 200, "model=missing 4096; clamped 4096"},
		{"and so are objects and lists",
			kind, `{"model":["m"],"max_tokens":{}}`, 200, "model=missing 4096; clamped 4096"},
		{"a cap in quotes is one", kind, `{"model":"m","max_tokens":"77"}`, 200, "model=m 77; clamped 77"},
		{"a cap above a billion drops the descriptor: nothing is held",
			kind, `{"model":"m","max_tokens":1000000001}`, 200, "clamped 8192"},
		{"and one below 0", kind, `{"model":"m","max_tokens":-5}`, 200, "clamped 8192"},
		{"a cap of 0 is a check", kind, `{"model":"m","max_tokens":0}`, 200, "model=m 0; clamped 8192"},
		{"an empty model is the default value", kind, `{"model":"","max_tokens":1}`, 200, "model=none 1; clamped 1"},
		{"a charset: on_error, if the content type is not allowed",
			kind + "; charset=utf-8", `{"model":"m","max_tokens":100}`, 200,
			"model=unreadable 8192; clamped 8192"},
		{"another content type: on_error",
			"text/plain", `{"model":"m","max_tokens":100}`, 200, "model=unreadable 8192; clamped 8192"},
		{"no JSON: on_error, and the request goes on", kind, `{"model":`, 200, "model=unreadable 8192; clamped 8192"},
		{"no body: on_missing", kind, ``, 200, "model=missing 4096; clamped 4096"},
		{"above the listener's buffer: 413, and nobody is asked",
			kind, `{"model":"m","text":"` + long(2<<20) + `"}`, 413, ""},
	}
	service, behind := startScripted(t), startModel(t)
	behind.at("/", say(messageJSON))
	behind.at("/size", say(messageJSON))
	b := shipped(t, behind.addr, service.addr)
	b.insertBefore("envoy.filters.http.ratelimit", message(t, "%s", requestRules))
	b.virtualHost(factsHost, markerRoute(t), modelRoute(t, "/", check, "[]"),
		modelRoute(t, "/size",
			list(`{ actions: [{ generic_key: { descriptor_key: of, descriptor_value: sent } }], hits_addend: { format: "%CEL(request.size)%" } }`),
			list(charge("got", "%CEL(response.size)%"))))
	e := startEnvoy(t, b)
	for _, f := range facts {
		t.Run(f.name, func(t *testing.T) {
			service.will(answering(ok))
			got := send(t, e.url, request{method: http.MethodPost, host: factsHost, path: "/", body: f.body,
				header: map[string]string{"content-type": f.contentType}})
			if got.code != f.code {
				t.Errorf("code %d, want %d", got.code, f.code)
			}
			if f.want == "" {
				service.asks(t, e)
			} else {
				service.asks(t, e, f.want)
			}
		})
	}
	t.Run("CEL knows the sizes of the bodies, also of one that came in chunks", func(t *testing.T) {
		body := `{"model":"m"}`
		for _, r := range []io.Reader{strings.NewReader(body), io.MultiReader(strings.NewReader(body[:5]), strings.NewReader(body[5:]))} {
			service.will(answering(ok))
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, e.url+"/size", r)
			if err != nil {
				t.Fatal(err)
			}
			req.Host = factsHost
			req.Header.Set("content-type", "application/json")
			resp, err := http.DefaultTransport.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			service.asks(t, e, fmt.Sprintf("sent %d", len(body)), fmt.Sprintf("got %d", len(messageJSON)))
		}
	})
	t.Run("the check waits for the whole body", func(t *testing.T) {
		service.will(answering(ok))
		conn, err := dial(t, strings.TrimPrefix(e.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: 13\r\n\r\n{\"model\":", factsHost)
		eventually(t, "Envoy has the beginning", func() error {
			if e.stat(t, "http.http.downstream_rq_active") == 0 {
				return fmt.Errorf("no request")
			}
			return nil
		})
		if calls := service.settled(t, e); len(calls) != 0 {
			t.Errorf("Envoy asked %q before it had the body", calls)
		}
		service.will(answering(ok))
		fmt.Fprint(conn, `"m"}`)
		service.asks(t, e, "model=m 4096; clamped 4096")
	})
}

// told is the answer of a service that has a model and an output cap for the caller.
func told(t testing.TB) func(*rls.RateLimitRequest) (*rls.RateLimitResponse, error) {
	metadata, err := structpb.NewStruct(map[string]any{"model": "small", "max_output": 1024})
	if err != nil {
		t.Fatal(err)
	}
	return func(*rls.RateLimitRequest) (*rls.RateLimitResponse, error) {
		return &rls.RateLimitResponse{OverallCode: ok, DynamicMetadata: metadata, RequestHeadersToAdd: []*core.HeaderValue{
			{Key: "x-model", Value: "small"}, {Key: "x-max-output", Value: "1024"}}}, nil
	}
}

// TestRequestRewritten shows what becomes of a request's body when a filter behind the check writes into it what the
// answer of the check said: model `small`, at most 1024 tokens.
func TestRequestRewritten(t *testing.T) {
	const (
		outputCap = "metadata.filter_metadata.request.max"
		most      = "metadata.filter_metadata.ration.max_output"
		lower     = "int(" + outputCap + " < " + most + " ? " + outputCap + " : " + most + ")"
		guard     = "int(has(metadata.filter_metadata.ration.absent) ? 1.0 : " + outputCap + ")"
		usage     = `%CEL(metadata.filter_metadata.request.stream ? "{\"stream_options\":{\"include_usage\":true}}" : "{}")%`
		script    = `
function envoy_on_request(request)
  local told = request:streamInfo():dynamicMetadata():get('ration')
  local body = request:body()
  if told == nil or body == nil then return end
  local text = body:getBytes(0, body:length())
  text = string.gsub(text, '("max_tokens"%s*:%s*)(%d+)', function(key, value)
    return key .. string.format('%d', math.min(tonumber(value), told['max_output']))
  end)
  local length = body:setBytes(text)
  request:headers():replace('content-length', length)
end`
	)
	fields := func(format string) string {
		return "request_transformation: { body_transformation: { body_format: { " + format + " } } }"
	}
	text := func(body string) string {
		return fields(fmt.Sprintf("text_format_source: { inline_string: '%s' }", body))
	}
	facts := []struct {
		name, transform, lua string
		contentType          string // JSON's, if empty
		body, want           string
		chunked              bool
	}{
		{name: "no filter", body: `{"model":"m","max_tokens":5000}`, want: `{"model":"m","max_tokens":5000}`},
		{name: "MERGE metadata: numbers stay numbers; no content-length",
			transform: fields(`json_format: { model: "%DYNAMIC_METADATA(ration:model)%", max_tokens: "%DYNAMIC_METADATA(ration:max_output)%" }`),
			body:      `{"model":"m","max_tokens":5000}`, want: `{"max_tokens":1024,"model":"small"}`, chunked: true},
		{name: "the body is written anew: keys in order, numbers as floats",
			transform: fields(`json_format: { model: "%DYNAMIC_METADATA(ration:model)%" }`),
			body:      `{"seed":12345678901234567,"temperature":1.0,"model":"m","a":"\u00e9"}`,
			want:      `{"a":"é","model":"small","seed":12345678901234568,"temperature":1}`, chunked: true},
		{name: "MERGE is shallow", transform: fields(`json_format: { stream_options: { include_usage: true } }`),
			body: `{"stream":true,"stream_options":{"other":1}}`,
			want: `{"stream":true,"stream_options":{"include_usage":true}}`, chunked: true},
		{name: "a header is a string", transform: fields(`json_format: { max_tokens: "%REQ(x-max-output)%" }`),
			body: `{"max_tokens":5000}`, want: `{"max_tokens":"1024"}`, chunked: true},
		{name: "CEL is a string in json_format",
			transform: fields(`json_format: { max_tokens: "%CEL(` + lower + `)%" }`),
			body:      `{"max_tokens":5000}`, want: `{"max_tokens":"1024"}`, chunked: true},
		{name: "CEL in text: the lower of two, here ours", transform: text(`{"max_tokens":%CEL(` + lower + `)%}`),
			body: `{"max_tokens":5000}`, want: `{"max_tokens":1024}`, chunked: true},
		{name: "here the client's", transform: text(`{"max_tokens":%CEL(` + lower + `)%}`),
			body: `{"max_tokens":10}`, want: `{"max_tokens":10}`, chunked: true},
		{
			name:      "text that CEL chooses: only where the request is for a stream, it has to tell its usage",
			transform: text(usage), body: `{"stream":true}`, want: `{"stream":true,"stream_options":{"include_usage":true}}`, chunked: true,
		},
		{
			name:      "and not elsewhere",
			transform: text(usage), body: `{"model":"m"}`, want: `{"model":"m"}`, chunked: true,
		},
		{name: "what is absent is null",
			transform: fields(`json_format: { max_tokens: "%DYNAMIC_METADATA(ration:absent)%" }`),
			body:      `{"max_tokens":5000}`, want: `{"max_tokens":null}`, chunked: true},
		{name: "unless omit_empty_values",
			transform: fields(`omit_empty_values: true, json_format: { max_tokens: "%DYNAMIC_METADATA(ration:absent)%" }`),
			body:      `{"max_tokens":5000}`, want: `{"max_tokens":5000}`, chunked: true},
		{name: "CEL of what is absent: the body stays as it was",
			transform: text(`{"max_tokens":%CEL(metadata.filter_metadata.ration.absent)%}`),
			body:      `{"max_tokens":5000, "a":1.0}`, want: `{"max_tokens":5000, "a":1.0}`},
		{name: "with has()", transform: text(`{"max_tokens":%CEL(` + guard + `)%}`),
			body: `{"max_tokens":77}`, want: `{"max_tokens":77}`, chunked: true},
		{name: "a charset is no matter", contentType: "application/json; charset=utf-8",
			transform: fields(`json_format: { model: "%DYNAMIC_METADATA(ration:model)%" }`),
			body:      `{"model":"m"}`, want: `{"model":"small"}`, chunked: true},
		{name: "not as text: a client evades it", contentType: "text/plain",
			transform: fields(`json_format: { model: "%DYNAMIC_METADATA(ration:model)%" }`),
			body:      `{"model":"m"}`, want: `{"model":"m"}`},
		{name: "nor what is no object", transform: fields(`json_format: { model: "%DYNAMIC_METADATA(ration:model)%" }`),
			body: `[1]`, want: `[1]`},
		{name: "nor what is no JSON", transform: fields(`json_format: { model: "%DYNAMIC_METADATA(ration:model)%" }`),
			body: `{"model":`, want: `{"model":`},
		{name: "Lua changes what it means to, and nothing else; content-length by hand", lua: script,
			body: `{"seed":12345678901234567, "max_tokens": 5000}`, want: `{"seed":12345678901234567, "max_tokens": 1024}`},
		{name: "Lua as text too", lua: script, contentType: "text/plain",
			body: `{"max_tokens": 5000}`, want: `{"max_tokens": 1024}`},
	}

	service, behind := startScripted(t), startModel(t)
	b := shipped(t, behind.addr, service.addr)
	b.insertBefore("envoy.filters.http.ratelimit", message(t, "%s", requestRules))
	b.filters(t, `
- name: envoy.filters.http.transform
  disabled: true
  typed_config: { "@type": type.googleapis.com/envoy.extensions.filters.http.transform.v3.TransformConfig }
- name: envoy.filters.http.lua
  typed_config: { "@type": type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua }`)
	routes := []any{markerRoute(t)}
	for i, f := range facts {
		path := fmt.Sprintf("/%d", i)
		behind.at(path, say(messageJSON))
		r := modelRoute(t, path, list("{ "+kv+" }"), "[]")
		if f.transform != "" {
			config := message(t, "%s", f.transform)
			config["@type"] = "type.googleapis.com/envoy.extensions.filters.http.transform.v3.TransformConfig"
			at(r, "typed_per_filter_config")["envoy.filters.http.transform"] = config
		}
		if f.lua != "" {
			at(r, "typed_per_filter_config")["envoy.filters.http.lua"] = map[string]any{
				"@type":       "type.googleapis.com/envoy.extensions.filters.http.lua.v3.LuaPerRoute",
				"source_code": map[string]any{"inline_string": f.lua}}
		}
		routes = append(routes, r)
	}
	b.virtualHost(factsHost, routes...)
	e := startEnvoy(t, b)
	for i, f := range facts {
		t.Run(f.name, func(t *testing.T) {
			service.will(told(t))
			if f.contentType == "" {
				f.contentType = "application/json"
			}
			path := fmt.Sprintf("/%d", i)
			got := send(t, e.url, request{method: http.MethodPost, host: factsHost, path: path, body: f.body,
				header: map[string]string{"content-type": f.contentType}})
			if got.code != http.StatusOK {
				t.Fatalf("code %d, want 200", got.code)
			}
			r := behind.newest(path)
			if body := r.Header.Get("Body"); body != f.want {
				t.Errorf("the model saw %s, want %s", body, f.want)
			}
			if chunked := slices.Contains(r.TransferEncoding, "chunked"); chunked != f.chunked {
				t.Errorf("the model saw content-length %d, want chunked: %v", r.ContentLength, f.chunked)
			}
		})
	}
}

// TestRequestRouted shows what makes Envoy choose the route by a header that the answer of the check added. The call at
// the end is the one of the route from before.
func TestRequestRouted(t *testing.T) {
	const transform = `envoy.filters.http.transform: {
		"@type": type.googleapis.com/envoy.extensions.filters.http.transform.v3.TransformConfig, clear_route_cache: true, request_transformation: `
	facts := []struct{ name, path, filter, want string }{
		{"nothing does by itself", "/plain", `{}`, "/plain"},
		{"nor header_mutation", "/mutation", `{ envoy.filters.http.header_mutation: {
			"@type": type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutationPerRoute,
			mutations: { request_mutations: [{ append: { header: { key: x-any, value: "1" } } }] } } }`, "/mutation"},
		{"nor clear_route_cache of a transform of the body alone", "/body",
			`{ ` + transform + `{ body_transformation: { body_format: { json_format: { a: 1 } } } } } }`, "/body"},
		{"but of a header", "/header",
			`{ ` + transform + `{ headers_mutations: [{ append: { header: { key: x-any, value: "1" } } }] } } }`, "/small"},
		{"and clearRouteCache() of Lua", "/lua", `{ envoy.filters.http.lua: {
			"@type": type.googleapis.com/envoy.extensions.filters.http.lua.v3.LuaPerRoute,
			source_code: { inline_string: "function envoy_on_request(request) request:clearRouteCache() end" } } }`, "/small"},
	}
	service, behind := startScripted(t), startModel(t)
	behind.at("/small", say(messageJSON))
	b := shipped(t, behind.addr, service.addr)
	b.filters(t, `
- name: envoy.filters.http.transform
  disabled: true
  typed_config: { "@type": type.googleapis.com/envoy.extensions.filters.http.transform.v3.TransformConfig }
- name: envoy.filters.http.lua
  typed_config: { "@type": type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua }
- name: envoy.filters.http.header_mutation
  disabled: true
  typed_config: { "@type": type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation }`)
	end := func(name string) string {
		return list(fmt.Sprintf(`{ actions: [{ generic_key: { descriptor_key: end, descriptor_value: %s } }], apply_on_stream_done: true }`, name))
	}
	routes := []any{markerRoute(t)}
	for _, f := range facts {
		behind.at(f.path, say(messageJSON))
		small, plain := modelRoute(t, f.path, list("{ "+kv+" }"), end("small")), modelRoute(t, f.path, list("{ "+kv+" }"), end("first"))
		at(small, "match")["headers"] = []any{message(t, `{ name: x-model, string_match: { exact: small } }`)}
		at(small, "route")["prefix_rewrite"] = "/small"
		for filter, config := range message(t, "%s", f.filter) {
			at(plain, "typed_per_filter_config")[filter] = config
		}
		routes = append(routes, small, plain)
	}
	b.virtualHost(factsHost, routes...)
	e := startEnvoy(t, b)
	for _, f := range facts {
		t.Run(f.name, func(t *testing.T) {
			service.will(told(t))
			before := behind.requests(f.want)
			send(t, e.url, request{method: http.MethodPost, host: factsHost, path: f.path, body: `{"model":"m"}`,
				header: map[string]string{"content-type": "application/json"}})
			if behind.requests(f.want) != before+1 {
				t.Errorf("the model was not asked at %s", f.want)
			}
			service.asks(t, e, "k=v", "end=first")
		})
	}
}
