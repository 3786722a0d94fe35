package e2e

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rls "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
)

// upstreamFilters gives the model's cluster HTTP filters of its own.
func (b bootstrap) upstreamFilters(t testing.TB, filters ...string) {
	t.Helper()
	const codec = `{ name: envoy.filters.http.upstream_codec, typed_config: {
		"@type": type.googleapis.com/envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec } }`
	named(b, "upstream", "static_resources", "clusters")["typed_extension_protocol_options"] = message(t, `
envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
  "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
  explicit_http_config: { http_protocol_options: {} }
  http_filters: %s`, list(append(filters, codec)...))
}

// What takes the provider's headers off, and what gives its 429 our form.
const (
	stripFilter = `{ name: envoy.filters.http.header_mutation, typed_config: {
		"@type": type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation,
		mutations: { response_mutations: [{ remove_on_match: { key_matcher: { safe_regex: { regex: "(anthropic|x)-ratelimit-.*|retry-after" } } } }] } } }`
	luaFilter = `{ name: envoy.filters.http.lua, typed_config: {
		"@type": type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua,
		default_source_code: { inline_string: "
function envoy_on_response(response)\n
  if response:headers():get(':status') ~= '429' or response:headers():get('x-envoy-ratelimited') ~= nil then return end\n
  local length = response:body(true):setBytes('{\"busy\":true}')\n
  response:headers():replace('content-length', length)\n
end" } } }`
	customFilter = `{ name: envoy.filters.http.custom_response, typed_config: {
		"@type": type.googleapis.com/envoy.extensions.filters.http.custom_response.v3.CustomResponse,
		custom_response_matcher: { matcher_list: { matchers: [{
		  predicate: { and_matcher: { predicate: [
		    { single_predicate: { value_match: { exact: "429" },
		        input: { name: status, typed_config: { "@type": type.googleapis.com/envoy.type.matcher.v3.HttpResponseStatusCodeMatchInput } } } },
		    { not_matcher: { single_predicate: { value_match: { exact: "true" },
		        input: { name: ours, typed_config: { "@type": type.googleapis.com/envoy.type.matcher.v3.HttpResponseHeaderMatchInput,
		                                             header_name: x-envoy-ratelimited } } } } }] } },
		  on_match: { action: { name: busy, typed_config: {
		    "@type": type.googleapis.com/envoy.extensions.http.custom_response.local_response_policy.v3.LocalResponsePolicy,
		    status_code: 503, body: { inline_string: '{"busy":true}' } } } } }] } } } }`
)

// TestProviderAnswers shows how the rate limit headers and the 429 of a model's provider can be kept from its callers,
// while those of ration stay.
func TestProviderAnswers(t *testing.T) {
	const theirs, ours, busy = `{"theirs":true}`, `{"ours":true}`, `{"busy":true}`
	below := func(filter string) func(testing.TB, bootstrap) {
		return func(t testing.TB, b bootstrap) { b.insertBefore("envoy.filters.http.router", message(t, "%s", filter)) }
	}
	above := func(filter string) func(testing.TB, bootstrap) {
		return func(t testing.TB, b bootstrap) {
			b.insertBefore("envoy.filters.http.ratelimit", message(t, "%s", filter))
		}
	}
	upstream := func(filters ...string) func(testing.TB, bootstrap) {
		return func(t testing.TB, b bootstrap) { b.upstreamFilters(t, filters...) }
	}
	mapped := func(body string) func(testing.TB, bootstrap) {
		return func(t testing.TB, b bootstrap) {
			b.hcm()["local_reply_config"] = message(t, "mappers: [{ filter: { response_flag_filter: { flags: [RL] } }, %s }]", body)
		}
	}
	// Each is "code, anthropic-ratelimit-requests-remaining, x-ratelimit-remaining, retry-after, body". The provider says
	// 49, 48 and 47, ration 9, 8 and 7.
	const (
		asIs    = "200, 49+9, 48+8, 47+7, " + messageJSON
		asIs429 = "429, 49+9, 48+8, 47+7, " + theirs
		own     = "200, 9, 8, 7, " + messageJSON
		own429  = "429, 9, 8, 7, " + ours
	)
	for _, f := range []struct {
		name   string
		change func(testing.TB, bootstrap)
		route  bool // whether the routes remove two of the headers

		ok, theirs429, ours429 string
	}{
		{name: "nothing: both stand there",
			change: func(testing.TB, bootstrap) {}, ok: asIs, theirs429: asIs429, ours429: own429},
		{name: "header_mutation in the cluster: theirs go, ours stay", change: upstream(stripFilter),
			ok: own, theirs429: "429, 9, 8, 7, " + theirs, ours429: own429},
		{name: "header_mutation behind the check: ours go too, on our 429", change: below(stripFilter),
			ok: own, theirs429: "429, 9, 8, 7, " + theirs, ours429: "429, , , , " + ours},
		{name: "header_mutation before the check: all go", change: above(stripFilter),
			ok: "200, , , , " + messageJSON, theirs429: "429, , , , " + theirs, ours429: "429, , , , " + ours},
		{name: "response_headers_to_remove of a route, by name: theirs go, ours stay",
			change: func(testing.TB, bootstrap) {}, route: true,
			ok: "200, 49+9, 8, 7, " + messageJSON, theirs429: "429, 49+9, 8, 7, " + theirs, ours429: own429},
		{name: "Lua in the cluster: their 429 with another body", change: upstream(stripFilter, luaFilter),
			ok: own, theirs429: "429, 9, 8, 7, " + busy, ours429: own429},
		{name: "Lua behind the check", change: below(luaFilter),
			ok: asIs, theirs429: "429, 49+9, 48+8, 47+7, " + busy, ours429: own429},
		{name: "custom_response: their 429 becomes another answer, without any of these headers",
			change: below(customFilter),
			ok:     asIs, theirs429: "503, , , , " + busy, ours429: own429},
		{name: "custom_response before the check: the same", change: above(customFilter),
			ok: asIs, theirs429: "503, , , , " + busy, ours429: own429},
		{name: "local_reply_config: our 429 only",
			change: mapped(`body_format_override: { text_format_source: { inline_string: "<%LOCAL_REPLY_BODY%>" } }`),
			ok:     asIs, theirs429: asIs429, ours429: "429, 9, 8, 7, <" + ours + ">"},
	} {
		t.Run(f.name, func(t *testing.T) {
			service, behind := startScripted(t), startModel(t)
			provider := []string{"anthropic-ratelimit-requests-remaining", "49", "x-ratelimit-remaining", "48", "retry-after", "47"}
			behind.at("/ok", say(messageJSON, provider...))
			behind.at("/busy", refuse(429, theirs, provider...))
			b := shipped(t, behind.addr, service.addr)
			delete(b.filter("envoy.filters.http.ratelimit"), "enable_x_ratelimit_headers")
			f.change(t, b)
			routes := []any{markerRoute(t)}
			for _, path := range []string{"/ok", "/busy"} {
				r := modelRoute(t, path, list("{ "+kv+" }"), list("{ "+kv+", apply_on_stream_done: true }"))
				if f.route {
					r["response_headers_to_remove"] = []any{"x-ratelimit-remaining", "retry-after"}
				}
				routes = append(routes, r)
			}
			b.virtualHost(factsHost, routes...)
			e := startEnvoy(t, b)
			answers := func(code rls.RateLimitResponse_Code) func(*rls.RateLimitRequest) (*rls.RateLimitResponse, error) {
				a := &rls.RateLimitResponse{OverallCode: code, RawBody: []byte(ours)}
				for name, value := range map[string]string{"anthropic-ratelimit-requests-remaining": "9", "x-ratelimit-remaining": "8", "retry-after": "7"} {
					a.ResponseHeadersToAdd = append(a.ResponseHeadersToAdd, &core.HeaderValue{Key: name, Value: value})
				}
				return func(*rls.RateLimitRequest) (*rls.RateLimitResponse, error) { return a, nil }
			}
			for _, c := range []struct {
				path, want string
				code       rls.RateLimitResponse_Code
				calls      []string
			}{
				{"/ok", f.ok, ok, []string{"k=v", "k=v"}},
				{"/busy", f.theirs429, ok, []string{"k=v", "k=v"}},
				{"/ok", f.ours429, over, []string{"k=v"}},
			} {
				service.will(answers(c.code))
				got := send(t, e.url, request{host: factsHost, path: c.path})
				values := []string{strconv.Itoa(got.code)}
				for _, name := range []string{"anthropic-ratelimit-requests-remaining", "x-ratelimit-remaining", "retry-after"} {
					values = append(values, strings.Join(got.header.Values(name), "+"))
				}
				if line := strings.Join(append(values, got.body), ", "); line != c.want {
					t.Errorf("%s, %s: %s\nwant %s", c.path, c.code, line, c.want)
				}
				service.asks(t, e, c.calls...)
			}
		})
	}
}

// TestLuaWaits shows that headers which a script took before it waited for the body are void afterwards: the body is
// changed, and nothing behind that is done.
func TestLuaWaits(t *testing.T) {
	for _, f := range []struct{ name, headers, want string }{
		{"taken before", "before", ""},
		{"taken anew", "response:headers()", "yes"},
	} {
		t.Run(f.name, func(t *testing.T) {
			service, behind := startScripted(t), startModel(t)
			seen := make(chan struct{})
			behind.at("/", func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("content-length", "2")
				_ = http.NewResponseController(w).Flush()
				<-seen
				_, _ = io.WriteString(w, "{}")
			})
			b := shipped(t, behind.addr, service.addr)
			b.filters(t, fmt.Sprintf(`[{ name: envoy.filters.http.lua, typed_config: {
				"@type": type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua,
				default_source_code: { inline_string: "
function envoy_on_response(response)\n
  local before = response:headers()\n
  response:logWarn('the headers are here')\n
  response:body(true):setBytes('[]')\n
  %s:replace('x-changed', 'yes')\n
end" } } }]`, f.headers))
			b.virtualHost(factsHost, modelRoute(t, "/", "[]", "[]"))
			e := startEnvoy(t, b)
			go func() {
				defer close(seen)
				for !strings.Contains(e.output(), "the headers are here") && t.Context().Err() == nil {
					time.Sleep(10 * time.Millisecond)
				}
			}()
			got := send(t, e.url, request{host: factsHost, path: "/"})
			if changed := got.header.Get("x-changed"); got.body != "[]" || changed != f.want {
				t.Errorf("body %s, x-changed: %q, want [] and %q", got.body, changed, f.want)
			}
		})
	}
}

// TestClusterFilters shows which filters can stand in a cluster. Those that read or rewrite bodies cannot, but for Lua
// and ai_protocol_manager.
func TestClusterFilters(t *testing.T) {
	for name, config := range map[string]string{
		"json_to_metadata": `"@type": type.googleapis.com/envoy.extensions.filters.http.json_to_metadata.v3.JsonToMetadata,
			response_rules: { rules: ` + usageRules("") + ` }`,
		"sse_to_metadata": `"@type": type.googleapis.com/envoy.extensions.filters.http.sse_to_metadata.v3.SseToMetadata`,
		"transform":       `"@type": type.googleapis.com/envoy.extensions.filters.http.transform.v3.TransformConfig`,
		"custom_response": `"@type": type.googleapis.com/envoy.extensions.filters.http.custom_response.v3.CustomResponse`,
	} {
		t.Run(name, func(t *testing.T) {
			b := shipped(t, "127.0.0.1:1", "127.0.0.1:2")
			b.upstreamFilters(t, "{ name: envoy.filters.http."+name+", typed_config: { "+config+" } }")
			err := validate(t, write(t, b))
			if want := "Didn't find a registered implementation for 'envoy.filters.http." + name + "'"; err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("Envoy said %v\nwant an error with %q", err, want)
			}
		})
	}
}

// TestRegexTooLarge shows that one expression cannot name all headers that shall go: several do.
func TestRegexTooLarge(t *testing.T) {
	const strip = `{ name: envoy.filters.http.header_mutation, typed_config: {
		"@type": type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation,
		mutations: { response_mutations: [%s] } } }`
	rule := func(regex string) string {
		return fmt.Sprintf(`{ remove_on_match: { key_matcher: { safe_regex: { regex: %q } } } }`, regex)
	}
	const limits, account = "(anthropic|x)-ratelimit-.*|retry-after(-ms)?", "(anthropic|openai)-organization.*|openai-project|x-request-id"
	one, two := shipped(t, "127.0.0.1:1", "127.0.0.1:2"), shipped(t, "127.0.0.1:1", "127.0.0.1:2")
	one.upstreamFilters(t, fmt.Sprintf(strip, rule(limits+"|"+account)))
	two.upstreamFilters(t, fmt.Sprintf(strip, rule(limits)+", "+rule(account)))
	const want = "max program size of 100"
	if err := validate(t, write(t, one)); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("Envoy said %v\nwant an error with %q", err, want)
	}
	if err := validate(t, write(t, two)); err != nil {
		t.Error(err)
	}
}
