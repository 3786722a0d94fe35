package e2e

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
)

// The tests of the files model*_test.go are about Envoy and not about ration: they pin down what Envoy 1.40 does with
// the traffic of a model's API, by putting a scripted service in ration's place and a scripted model behind Envoy.
// docs/envoy.md tells their results.

// byID is the action that hands on a request's id; held and settled are what a check and a charge may say by it.
const byID = `{ request_headers: { header_name: x-request-id, descriptor_key: id } }`

var (
	held    = list(`{ actions: [` + byID + `] }`)
	settled = list(charge("input", "%DYNAMIC_METADATA(usage:input)%", byID), charge("output", "%DYNAMIC_METADATA(usage:output)%", byID),
		`{ actions: [`+byID+`, { generic_key: { descriptor_key: of, descriptor_value: end } }], apply_on_stream_done: true }`)
)

// TestRequestID shows whose id a request has. The id is the same at the check, at the model and when the stream is done.
func TestRequestID(t *testing.T) {
	const (
		mine  = "mine"
		uuid  = "11111111-1111-4111-8111-111111111111"
		early = `
early_header_mutation_extensions:
- name: envoy.http.early_header_mutation.header_mutation
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation
    mutations: [{ remove: x-request-id }]`
		internal  = `internal_address_config: { cidr_ranges: [{ address_prefix: 127.0.0.0, prefix_len: 8 }] }`
		notBehind = `use_remote_address: false`
		traced    = `
tracing:
  random_sampling: { value: 100 }
  provider:
    name: envoy.tracers.zipkin
    typed_config:
      "@type": type.googleapis.com/envoy.config.trace.v3.ZipkinConfig
      collector_cluster: upstream
      collector_endpoint: /spans
      collector_endpoint_version: HTTP_JSON`
	)
	facts := []struct {
		name   string
		hcm    string // fields of the connection manager, beside those of the shipped file
		client string // the id that the client sends
		kept   bool   // whether that is the request's
		none   bool   // whether the request has none
	}{
		{name: "Envoy makes one"},
		{name: "use_remote_address: a client's is discarded, also on loopback", client: mine},
		{name: "also one like Envoy's own", client: uuid},
		{name: "but not from an address that the file calls internal", hcm: internal, client: mine, kept: true},
		{name: "nor with preserve_external_request_id",
			hcm: "preserve_external_request_id: true", client: mine, kept: true},
		{name: "nor without use_remote_address", hcm: notBehind, client: mine, kept: true},
		{name: "unless it is removed early", hcm: notBehind + early, client: mine},
		{name: "removed early, from an internal address", hcm: internal + early, client: mine},
		{name: "tracing does not change the id between", hcm: strings.TrimSpace(traced), client: mine},
		{name: "generate_request_id off: no id, so no descriptor and no call",
			hcm: "generate_request_id: false", none: true},
	}
	for _, f := range facts {
		t.Run(f.name, func(t *testing.T) {
			service, behind := startScripted(t), startModel(t)
			behind.at("/spans", say(""))
			behind.at("/", say(messageJSON))
			b := shipped(t, behind.addr, service.addr)
			for field, value := range message(t, "%s", f.hcm) {
				b.hcm()[field] = value
			}
			b.filters(t, usageFilters)
			b.virtualHost(factsHost, markerRoute(t), modelRoute(t, "/", held, settled))
			e := startEnvoy(t, b)
			service.will(answering(ok))
			r := request{host: factsHost, path: "/"}
			if f.client != "" {
				r.header = map[string]string{"x-request-id": f.client}
			}
			if got := send(t, e.url, r); got.code != http.StatusOK {
				t.Fatalf("code %d, want 200", got.code)
			}
			id := behind.newest("/").Header.Get("x-request-id")
			calls := service.settled(t, e)
			switch {
			case f.none:
				if id != "" || len(calls) != 0 {
					t.Errorf("the model saw id %q, and Envoy asked %q; want neither", id, calls)
				}
				return
			case f.kept != (id == f.client) || id == "":
				t.Errorf("the model saw id %q, and the client sent %q; want it kept: %v", id, f.client, f.kept)
			}
			want := []string{"http: id=ID", "http: id=ID, of=input hits 25; id=ID, of=output hits 15; id=ID, of=end"}
			for i := range want {
				want[i] = strings.ReplaceAll(want[i], "ID", id)
			}
			if !slices.Equal(calls, want) {
				t.Errorf("Envoy asked %q\nwant       %q", calls, want)
			}
		})
	}
	t.Run("always_set_request_id_in_response", func(t *testing.T) {
		service, behind := startScripted(t), startModel(t)
		behind.at("/", say(messageJSON))
		b := shipped(t, behind.addr, service.addr)
		b.hcm()["always_set_request_id_in_response"] = true
		b.virtualHost(factsHost, modelRoute(t, "/", held, "[]"))
		e := startEnvoy(t, b)
		for _, answer := range []func(string){
			func(told string) {
				if id := behind.newest("/").Header.Get("x-request-id"); told != id {
					t.Errorf("the client saw id %q, the model %q", told, id)
				}
			},
			func(told string) {
				if calls := service.asked(); !slices.Equal(calls, []string{"http: id=" + told}) {
					t.Errorf("a refusal says id %q, and Envoy asked %q", told, calls)
				}
			},
		} {
			code := ok
			if behind.requests("/") > 0 {
				code = over
			}
			service.will(answering(code))
			answer(send(t, e.url, request{host: factsHost, path: "/"}).header.Get("x-request-id"))
		}
	})
}

// TestRequestIDElsewhere shows by which other words a descriptor has the request's id.
func TestRequestIDElsewhere(t *testing.T) {
	expr := func(text string) string {
		return `{ actions: [{ extension: { name: envoy.rate_limit_descriptors.expr, typed_config: {
			"@type": type.googleapis.com/envoy.extensions.rate_limit_descriptors.expr.v3.Descriptor, descriptor_key: id, text: "` + text + `" } } }]`
	}
	generic := func(value string) string {
		return `{ actions: [{ generic_key: { descriptor_key: id, descriptor_value: "` + value + `" } }]`
	}
	words := []string{
		`{ actions: [` + byID + `]`, expr("request.id"), expr("request.headers['x-request-id']"), expr("filter_state['kept']"),
		generic("%STREAM_ID%"), generic("%REQ(x-request-id)%"), generic("%FILTER_STATE(kept:PLAIN)%"), generic("%UNIQUE_ID%"),
	}
	const formatter = "envoy.reloadable_features.enable_formatter_for_ratelimit_action_descriptor_value"
	for _, f := range []struct {
		on         bool
		check, end string
	}{
		{false, "id=<1>; id=<1>; id=<1>; id=<1>; id=%STREAM_ID%; id=%REQ(x-request-id)%; id=%FILTER_STATE(kept:PLAIN)%; id=%UNIQUE_ID%",
			"id=<1>; id=<1>; id=<1>; id=<1>; id=%STREAM_ID%; id=%REQ(x-request-id)%; id=%FILTER_STATE(kept:PLAIN)%; id=%UNIQUE_ID%"},
		{true, "id=<1>; id=<1>; id=<1>; id=<1>; id=<1>; id=<1>; id=<1>; id=<2>",
			"id=<1>; id=<1>; id=<1>; id=<1>; id=<1>; id=<1>; id=<1>; id=<3>"},
	} {
		t.Run(fmt.Sprintf("formats in generic_key: %v", f.on), func(t *testing.T) {
			service, behind := startScripted(t), startModel(t)
			behind.at("/", say(messageJSON))
			b := shipped(t, behind.addr, service.addr)
			b["layered_runtime"] = message(t, `layers: [{ name: static, static_layer: { %s: %v } }]`, formatter, f.on)
			b.insertBefore("envoy.filters.http.ratelimit", message(t, `
name: envoy.filters.http.set_filter_state
typed_config:
  "@type": type.googleapis.com/envoy.extensions.filters.http.set_filter_state.v3.Config
  on_request_headers:
  - { object_key: kept, factory_key: envoy.string, format_string: { text_format_source: { inline_string: "%%STREAM_ID%%" } } }`))
			b.virtualHost(factsHost, markerRoute(t), modelRoute(t, "/", list(strings.Join(words, " }, ")+" }"),
				list(strings.Join(words, ", apply_on_stream_done: true }, ")+", apply_on_stream_done: true }")))
			e := startEnvoy(t, b)
			service.will(answering(ok))
			send(t, e.url, request{host: factsHost, path: "/"})
			service.asks(t, e, f.check, f.end)
		})
	}
}

// TestEndOfStream shows which calls leave when a request ends, however it ends: what is to be settled leaves in one call,
// under the id of the check.
func TestEndOfStream(t *testing.T) {
	const (
		whole = "<1> input 25; <1> output 15; <1> end"
		part  = "<1> input 25; <1> output 1; <1> end" // what the stream's beginning says
		none  = "<1> end"
	)
	denied := `envoy.filters.http.rbac:
  "@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBACPerRoute
  rbac: { rules: { action: DENY, policies: { all: { permissions: [{ any: true }], principals: [{ any: true }] } } } }`
	var tries atomic.Int32
	facts := []struct {
		name   string
		answer http.HandlerFunc
		route  string // the route's action, if it is not the model alone
		denied bool   // by a filter behind the charge
		over   bool   // the check refuses
		hangUp bool
		after  string // which part of the answer the client hangs up
		code   int    // 0: the answer is broken off
		want   string // the call at the end
	}{
		{name: "JSON", answer: say(messageJSON), code: 200, want: whole},
		{name: "a stream",
			answer: stream(messageStart, messageText, messageDelta, messageStop), code: 200, want: whole},
		{name: "the client hangs up before the answer", answer: silence, hangUp: true, want: none},
		{name: "the client hangs up in the stream: what was seen", answer: stream(messageStart, messageText, "hold"),
			hangUp: true, after: "Hello", want: part},
		{name: "the client hangs up in the JSON: nothing, JSON is read whole",
			answer: say(messageJSON[:len(messageJSON)-1], "content-length", "1000"), hangUp: true, want: none},
		{name: "the model breaks off before the answer",
			answer: func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
			code:   503, want: none},
		{name: "the model breaks off in the stream", answer: stream(messageStart, messageText, "abort"), want: part},
		{name: "route timeout before the answer",
			answer: silence, route: `{ cluster: upstream, timeout: 0.5s }`, code: 504, want: none},
		{name: "route timeout in the stream", answer: stream(messageStart, messageText, "hold"),
			route: `{ cluster: upstream, timeout: 0.5s }`, want: part},
		{name: "the model's error with usage", answer: refuse(500, messageJSON), code: 500, want: whole},
		{name: "the model's error without", answer: refuse(429, `{"type":"error"}`), code: 429, want: none},
		{name: "retries: once, with the last answer's usage", code: 200, want: whole,
			route: `{ cluster: upstream, retry_policy: { retry_on: 5xx, num_retries: 3 } }`,
			answer: func(w http.ResponseWriter, r *http.Request) {
				if tries.Add(1) < 3 {
					refuse(503, `{"usage":{"input_tokens":1,"output_tokens":1}}`)(w, r)
					return
				}
				say(messageJSON)(w, r)
			}},
		{name: "a filter behind the charge refuses", denied: true, code: 403, want: none},
		{name: "the check refuses: no charge", over: true, code: 429},
	}

	service, behind := startScripted(t), startModel(t)
	b := shipped(t, behind.addr, service.addr)
	b.filters(t, usageFilters+`
- name: envoy.filters.http.rbac
  typed_config: { "@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC }`)
	routes := []any{markerRoute(t)}
	for i, f := range facts {
		path := fmt.Sprintf("/%d", i)
		behind.at(path, f.answer)
		r := modelRoute(t, path, held, settled)
		if f.route != "" {
			r["route"] = message(t, "%s", f.route)
		}
		if f.denied {
			for filter, config := range message(t, "%s", denied) {
				at(r, "typed_per_filter_config")[filter] = config
			}
		}
		routes = append(routes, r)
	}
	direct := modelRoute(t, "/direct", held, settled)
	delete(direct, "route")
	direct["direct_response"] = map[string]any{"status": 404}
	b.virtualHost(factsHost, append(routes, direct)...)
	e := startEnvoy(t, b)

	t.Run("a route that answers by itself: nobody is asked", func(t *testing.T) {
		service.will(answering(ok))
		if got := send(t, e.url, request{host: factsHost, path: "/direct"}); got.code != http.StatusNotFound {
			t.Errorf("code %d, want 404", got.code)
		}
		service.asks(t, e)
	})
	for i, f := range facts {
		t.Run(f.name, func(t *testing.T) {
			path := fmt.Sprintf("/%d", i)
			service.will(answering(ok))
			if f.over {
				service.will(answering(over))
			}
			if f.hangUp {
				hangUp(t, e, behind, path, f.after)
			} else {
				got, err := try(t.Context(), e.url, request{host: factsHost, path: path})
				if got.code != f.code || (err != nil) != (f.code == 0) {
					t.Errorf("code %d, error %v, want %d", got.code, err, f.code)
				}
			}
			want := []string{"id=<1>"}
			if f.want != "" {
				want = append(want, f.want)
			}
			service.asks(t, e, want...)
		})
	}
}
