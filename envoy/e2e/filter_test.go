package e2e

import (
	"context"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rls "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// These tests are about Envoy and not about ration: they pin down what Envoy 1.40 does with the fields of its rate limit filter, by
// putting a scripted service in ration's place. docs/envoy.md tells their results; a newer Envoy that differs fails here first.

// kv is the action of a descriptor k=v, and so a descriptor that says nothing by itself.
const kv = `actions: [{ generic_key: { descriptor_key: k, descriptor_value: v } }]`

// TestFilterAsks shows which calls Envoy makes of one request.
func TestFilterAsks(t *testing.T) {
	override := func(from string) string {
		return fmt.Sprintf(`[{ %s, limit: { dynamic_metadata: { metadata_key: { key: facts, path: [{ key: %s }] } } } }]`, kv, from)
	}
	byHeader := fmt.Sprintf(`[{ %s, hits_addend: { format: "%%REQ(X-COST)%%" } }, { %s }]`, kv, kv)
	cost := func(n string) map[string]string { return map[string]string{"x-cost": n} }

	facts := []struct {
		name   string
		path   string            // a route of the shipped file,
		limits string            // or the rate_limits of a route of its own,
		plain  bool              // which stand in the route itself and not in its RateLimitPerRoute
		header map[string]string // of the request
		want   []string          // the calls, in order
	}{
		// The shipped routes.
		{name: "two descriptors in one call", path: "/", want: []string{"http: remote_address=127.0.0.1; user=anonymous"}},
		{name: "identity", path: "/", header: map[string]string{"x-user-id": "ann"},
			want: []string{"http: remote_address=127.0.0.1; user=ann"}},
		{name: "a route's list replaces the virtual host's; no query in path", path: "/search/a?x=1",
			want: []string{"http: user=anonymous; path=/search/a, remote_address=127.0.0.1"}},
		{name: "the path is normalized first", path: "/x/..//search/%61",
			want: []string{"http: user=anonymous; path=/search/a, remote_address=127.0.0.1"}},
		{name: "override from metadata", path: "/reports/1",
			want: []string{"http: route=reports, user=anonymous limit 3/HOUR"}},
		{name: "check, then charge", path: "/download/1", // the upstream's body has 24 bytes
			want: []string{"http: meter=bytes, user=anonymous hits 0", "http: meter=bytes, user=anonymous hits 24"}},

		// Descriptors.
		{name: "a missing header drops the descriptor, and no call is left",
			limits: `[{ actions: [{ request_headers: { header_name: x-absent, descriptor_key: h } }, { remote_address: {} }] }]`, want: nil},
		{name: "skip_if_absent drops the entry only",
			limits: `[{ actions: [{ request_headers: { header_name: x-absent, descriptor_key: h, skip_if_absent: true } }, { remote_address: {} }] }]`,
			want:   []string{"http: remote_address=127.0.0.1"}},
		{name: "metadata has a default",
			limits: `[{ actions: [{ metadata: { descriptor_key: m, default_value: none, source: DYNAMIC, metadata_key: { key: absent, path: [{ key: x }] } } }] }]`,
			want:   []string{"http: m=none"}},
		{name: "the same descriptor twice", limits: `[{ ` + kv + ` }, { ` + kv + ` }]`, want: []string{"http: k=v; k=v"}},

		// Hits.
		{name: "no hits_addend: nothing is sent, which means 1", limits: `[{ ` + kv + ` }]`, want: []string{"http: k=v"}},
		{name: "hits 0 is sent as such", limits: `[{ ` + kv + `, hits_addend: { number: 0 } }]`, want: []string{"http: k=v hits 0"}},
		{name: "negative hits", limits: `[{ ` + kv + `, hits_addend: { number: 3, is_negative_hits: true } }]`,
			want: []string{"http: k=v hits 3 negative"}},
		{name: "hits by format", limits: byHeader, header: cost("7"), want: []string{"http: k=v hits 7; k=v"}},
		{name: "hits by format: zero", limits: byHeader, header: cost("0"), want: []string{"http: k=v hits 0; k=v"}},
		{name: "hits by format: fractions are cut off", limits: byHeader, header: cost("1.9"), want: []string{"http: k=v hits 1; k=v"}},
		{name: "hits by format: a billion", limits: byHeader, header: cost("1000000000"), want: []string{"http: k=v hits 1000000000; k=v"}},
		{name: "hits by format: above, and the descriptor is dropped", limits: byHeader, header: cost("1000000001"), want: []string{"http: k=v"}},
		{name: "hits by format: below 0, dropped", limits: byHeader, header: cost("-1"), want: []string{"http: k=v"}},
		{name: "hits by format: no number, dropped", limits: byHeader, header: cost("much"), want: []string{"http: k=v"}},
		{name: "hits by format: missing, dropped", limits: byHeader, want: []string{"http: k=v"}},
		{name: "hits for all descriptors, by filter state", limits: `[{ ` + kv + ` }]`, header: map[string]string{"x-hits": "5"},
			want: []string{"http: k=v (hits 5)"}},

		{name: "hits in the route's own rate_limits are ignored (and the charge filter leaves them alone)", plain: true, limits: `[{ ` + kv + `, hits_addend: { number: 4 } }]`,
			want: []string{"http: k=v"}},

		// Overrides.
		{name: "fixed override", limits: `[{ ` + kv + `, limit: { rate_limit: { requests_per_unit: 7, unit: DAY } } }]`,
			want: []string{"http: k=v limit 7/DAY"}},
		{name: "override: a small-letter unit is no override", limits: override("lower"), want: []string{"http: k=v"}},
		{name: "override: WEEK is no unit here", limits: override("week"), want: []string{"http: k=v"}},
		{name: "override: no metadata, no override", limits: override("absent"), want: []string{"http: k=v"}},
		{name: "override: Envoy leaves unit_multiplier out", limits: override("multiplied"), want: []string{"http: k=v limit 5/SECOND"}},

		// When the stream is done.
		{name: "all charges of a request leave in one call, after the check",
			limits: `[{ ` + kv + `, hits_addend: { number: 2 }, apply_on_stream_done: true },
			          { ` + kv + ` },
			          { ` + kv + `, hits_addend: { format: "%RESP(X-COST)%" }, apply_on_stream_done: true }]`,
			header: map[string]string{"x-answer-x-cost": "9"},
			want:   []string{"http: k=v", "http: k=v hits 2; k=v hits 9"}},
		{name: "charges in the route's own rate_limits, but of 1", plain: true,
			limits: `[{ ` + kv + `, hits_addend: { number: 4 }, apply_on_stream_done: true }, { actions: [{ remote_address: {} }] }]`,
			want:   []string{"http: remote_address=127.0.0.1", "http: k=v"}},
		{name: "a charge without its figure is lost", limits: `[{ ` + kv + `, hits_addend: { format: "%RESP(X-COST)%" }, apply_on_stream_done: true }]`, want: nil},
		{name: "giving back at the end",
			limits: `[{ ` + kv + `, hits_addend: { format: "%RESP(X-COST)%", is_negative_hits: true }, apply_on_stream_done: true }]`,
			header: map[string]string{"x-answer-x-cost": "9"}, want: []string{"http: k=v hits 9 negative"}},
	}

	service, behind := startScripted(t), startUpstream(t)
	b := shipped(t, behind.addr, service.addr)
	routes := []any{markerRoute(t)}
	for i, f := range facts {
		if f.limits != "" {
			route := limitedRoute(t, fmt.Sprintf("/%d", i), f.limits)
			if f.plain {
				of := at(route, "typed_per_filter_config", "envoy.filters.http.ratelimit")
				at(route, "route")["rate_limits"] = of["rate_limits"]
				delete(route, "typed_per_filter_config")
			}
			routes = append(routes, route)
		}
	}
	b.virtualHost(factsHost, routes...)
	metadata := b.filter("envoy.filters.http.set_metadata")
	metadata["metadata"] = append(metadata["metadata"].([]any), message(t, `
metadata_namespace: facts
value:
  lower: { requests_per_unit: 5, unit: hour }
  week: { requests_per_unit: 5, unit: WEEK }
  multiplied: { requests_per_unit: 5, unit: SECOND, unit_multiplier: 30 }`))
	b.hitsByHeader(t)
	e := startEnvoy(t, b)

	for i, f := range facts {
		t.Run(f.name, func(t *testing.T) {
			service.will(answering(rls.RateLimitResponse_OK))
			r := request{path: f.path, header: f.header}
			if f.limits != "" {
				r = request{host: factsHost, path: fmt.Sprintf("/%d", i), header: f.header}
			}
			if got := send(t, e.url, r); got.code != http.StatusOK {
				t.Errorf("code %d, want 200", got.code)
			}
			if got := service.settled(t, e); !slices.Equal(got, f.want) {
				t.Errorf("Envoy asked %q\nwant       %q", got, f.want)
			}
		})
	}

	t.Run("the call says how long Envoy waits", func(t *testing.T) {
		service.will(answering(rls.RateLimitResponse_OK))
		send(t, e.url, request{path: "/"})
		service.mu.Lock()
		defer service.mu.Unlock()
		if service.deadline.IsZero() {
			t.Error("the call has no deadline")
		}
	})
	t.Run("a client that hangs up is charged for what it got", func(t *testing.T) {
		service.will(answering(rls.RateLimitResponse_OK))
		conn, err := dial(t, strings.TrimPrefix(e.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(conn, "POST /download HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nmore to come")
		eventually(t, "the check arrives", func() error {
			if len(service.asked()) == 0 {
				return fmt.Errorf("no call")
			}
			return nil
		})
		conn.Close()
		eventually(t, "the charge arrives", func() error {
			want := []string{"http: meter=bytes, user=anonymous hits 0", "http: meter=bytes, user=anonymous hits 0"}
			if got := service.asked(); !slices.Equal(got, want) {
				return fmt.Errorf("Envoy asked %q", got)
			}
			return nil
		})
	})
}

// TestChargeAfterRefusal shows why the shipped file has two filters: one that checks and charges also charges for its refusals.
func TestChargeAfterRefusal(t *testing.T) {
	service, behind := startScripted(t), startUpstream(t)
	b := shipped(t, behind.addr, service.addr)
	b.virtualHost(factsHost,
		markerRoute(t),
		limitedRoute(t, "/one", `[{ `+kv+`, hits_addend: { number: 0 } }, { `+kv+`, hits_addend: { number: 8 }, apply_on_stream_done: true }]`))
	e := startEnvoy(t, b)

	service.will(answering(rls.RateLimitResponse_OVER_LIMIT))
	send(t, e.url, request{host: factsHost, path: "/one"})
	if got, want := service.settled(t, e), []string{"http: k=v hits 0", "http: k=v hits 8"}; !slices.Equal(got, want) {
		t.Errorf("with one filter, Envoy asked %q, want %q", got, want)
	}
	service.will(answering(rls.RateLimitResponse_OVER_LIMIT))
	send(t, e.url, request{path: "/download"})
	if got, want := service.settled(t, e), []string{"http: meter=bytes, user=anonymous hits 0"}; !slices.Equal(got, want) {
		t.Errorf("with two filters, Envoy asked %q, want %q", got, want)
	}
}

// TestFilterAnswers shows what the client and the upstream get to see of an answer.
func TestFilterAnswers(t *testing.T) {
	const over, ok = rls.RateLimitResponse_OVER_LIMIT, rls.RateLimitResponse_OK
	headers := func(kv ...string) (list []*core.HeaderValue) {
		for i := 0; i < len(kv); i += 2 {
			list = append(list, &core.HeaderValue{Key: kv[i], Value: kv[i+1]})
		}
		return list
	}
	problem := headers("content-type", "application/problem+json", "RateLimit-Limit", "5")
	told, err := structpb.NewStruct(map[string]any{"rule": "user"})
	if err != nil {
		t.Fatal(err)
	}
	const absent = "(absent)"

	facts := []struct {
		name   string
		limits string // [{k=v}, {k=v}] if empty
		header map[string]string
		answer *rls.RateLimitResponse
		code   int
		body   string
		want   map[string]string // response headers; several of one name are joined with " | "
	}{
		{name: "429 with our body, content type and headers", code: 429, body: `{"title":"x"}`,
			answer: &rls.RateLimitResponse{OverallCode: over, RawBody: []byte(`{"title":"x"}`), ResponseHeadersToAdd: problem},
			want:   map[string]string{"content-type": "application/problem+json", "ratelimit-limit": "5", "x-envoy-ratelimited": "true"}},
		{name: "a body without a content type is text", code: 429, body: "slow down",
			answer: &rls.RateLimitResponse{OverallCode: over, RawBody: []byte("slow down")},
			want:   map[string]string{"content-type": "text/plain"}},
		{name: "no body", code: 429, answer: &rls.RateLimitResponse{OverallCode: over},
			want: map[string]string{"content-type": absent, "content-length": "0"}},
		{name: "OK: headers are added to the upstream's, also a second content type; a body is ignored", code: 200, body: greeting,
			answer: &rls.RateLimitResponse{OverallCode: ok, RawBody: []byte("x"), ResponseHeadersToAdd: problem},
			want: map[string]string{"content-type": "text/plain; charset=utf-8,application/problem+json", "ratelimit-limit": "5",
				"x-envoy-ratelimited": absent}},
		{name: "raw_value of a header is ignored", code: 429,
			answer: &rls.RateLimitResponse{OverallCode: over, ResponseHeadersToAdd: []*core.HeaderValue{{Key: "x-raw", RawValue: []byte("x")}}},
			want:   map[string]string{"x-raw": ""}},
		{name: "gRPC: 200 and RESOURCE_EXHAUSTED", header: map[string]string{"content-type": "application/grpc"}, code: 200,
			answer: &rls.RateLimitResponse{OverallCode: over}, want: map[string]string{"grpc-status": "8"}},
		{name: "code UNKNOWN lets pass", code: 200, body: greeting, answer: &rls.RateLimitResponse{Statuses: []*rls.RateLimitResponse_DescriptorStatus{
			decided(over, 5, rls.RateLimitResponse_RateLimit_MINUTE, 0, 9)}}},
		{name: "the overall code decides, not the statuses", code: 200, body: greeting,
			answer: &rls.RateLimitResponse{OverallCode: ok, Statuses: []*rls.RateLimitResponse_DescriptorStatus{
				decided(over, 5, rls.RateLimitResponse_RateLimit_MINUTE, 0, 9)}}},
		{name: "dynamic metadata, in the namespace that the file sets", code: 429, answer: &rls.RateLimitResponse{OverallCode: over, DynamicMetadata: told},
			want: map[string]string{"x-told": "user"}},

		// x-ratelimit-*, draft 03.
		{name: "x-ratelimit: the smallest remaining, whatever its unit", code: 200, body: greeting,
			answer: &rls.RateLimitResponse{OverallCode: ok, Statuses: []*rls.RateLimitResponse_DescriptorStatus{
				decided(ok, 100, rls.RateLimitResponse_RateLimit_WEEK, 50, 9000), decided(ok, 60, rls.RateLimitResponse_RateLimit_MINUTE, 40, 30)}},
			want: map[string]string{"x-ratelimit-limit": `60, 100;w=604800;name="n", 60;w=60;name="n"`,
				"x-ratelimit-remaining": "40", "x-ratelimit-reset": "30"}},
		{name: "x-ratelimit: Envoy knows the unit_multiplier", code: 200, body: greeting,
			answer: &rls.RateLimitResponse{OverallCode: ok, Statuses: []*rls.RateLimitResponse_DescriptorStatus{
				{Code: ok, LimitRemaining: 3, CurrentLimit: &rls.RateLimitResponse_RateLimit{RequestsPerUnit: 9,
					Unit: rls.RateLimitResponse_RateLimit_MINUTE, UnitMultiplier: wrapperspb.UInt32(5)}}}},
			want: map[string]string{"x-ratelimit-limit": "9, 9;w=300"}},
		{name: "x-ratelimit: no current_limit, no header", code: 429, answer: &rls.RateLimitResponse{OverallCode: over,
			Statuses: []*rls.RateLimitResponse_DescriptorStatus{{Code: over}, {Code: over}}},
			want: map[string]string{"x-ratelimit-limit": absent, "x-ratelimit-remaining": absent, "retry-after": "1"}},
		{name: "x-ratelimit: ours and Envoy's stand side by side", code: 429, answer: &rls.RateLimitResponse{OverallCode: over,
			ResponseHeadersToAdd: headers("x-ratelimit-remaining", "7"),
			Statuses:             []*rls.RateLimitResponse_DescriptorStatus{decided(over, 5, rls.RateLimitResponse_RateLimit_MINUTE, 0, 9)}},
			want: map[string]string{"x-ratelimit-remaining": "7 | 0"}},
		{name: "x_ratelimit_option OFF leaves a limit out", limits: `[{ ` + kv + `, x_ratelimit_option: "OFF" }, { ` + kv + ` }]`, code: 200, body: greeting,
			answer: &rls.RateLimitResponse{OverallCode: ok, Statuses: []*rls.RateLimitResponse_DescriptorStatus{
				decided(ok, 10, rls.RateLimitResponse_RateLimit_MINUTE, 9, 5), decided(ok, 20, rls.RateLimitResponse_RateLimit_HOUR, 4, 6)}},
			want: map[string]string{"x-ratelimit-limit": `20, 20;w=3600;name="n"`}},
		{name: "x_ratelimit_option OFF on the limit with the smallest remaining leaves nothing",
			limits: `[{ ` + kv + `, x_ratelimit_option: "OFF" }, { ` + kv + ` }]`, code: 200, body: greeting,
			answer: &rls.RateLimitResponse{OverallCode: ok, Statuses: []*rls.RateLimitResponse_DescriptorStatus{
				decided(ok, 10, rls.RateLimitResponse_RateLimit_MINUTE, 4, 5), decided(ok, 20, rls.RateLimitResponse_RateLimit_HOUR, 9, 6)}},
			want: map[string]string{"x-ratelimit-limit": absent, "x-ratelimit-remaining": absent, "x-ratelimit-reset": absent}},

		// retry-after.
		{name: "retry-after: the longest of those over limit", code: 429, answer: &rls.RateLimitResponse{OverallCode: over,
			Statuses: []*rls.RateLimitResponse_DescriptorStatus{
				decided(over, 5, rls.RateLimitResponse_RateLimit_MINUTE, 0, 15), decided(ok, 5, rls.RateLimitResponse_RateLimit_HOUR, 1, 999),
				decided(over, 5, rls.RateLimitResponse_RateLimit_MINUTE, 0, 40)}},
			want: map[string]string{"retry-after": "40", "x-ratelimit-reset": "15"}},
		{name: "retry-after: cut off to whole seconds, at least 1", code: 429, answer: &rls.RateLimitResponse{OverallCode: over,
			Statuses: []*rls.RateLimitResponse_DescriptorStatus{decided(over, 5, rls.RateLimitResponse_RateLimit_SECOND, 0, 0.9)}},
			want: map[string]string{"retry-after": "1", "x-ratelimit-reset": "0"}},
		{name: "retry-after: ours is kept", code: 429, answer: &rls.RateLimitResponse{OverallCode: over, ResponseHeadersToAdd: headers("Retry-After", "3"),
			Statuses: []*rls.RateLimitResponse_DescriptorStatus{decided(over, 5, rls.RateLimitResponse_RateLimit_MINUTE, 0, 15)}},
			want: map[string]string{"retry-after": "3"}},
		{name: "retry-after: not on OK", code: 200, body: greeting, answer: &rls.RateLimitResponse{OverallCode: ok,
			Statuses: []*rls.RateLimitResponse_DescriptorStatus{decided(ok, 5, rls.RateLimitResponse_RateLimit_MINUTE, 0, 15)}},
			want: map[string]string{"retry-after": absent}},
		{name: "retry-after: not if no status is over", code: 429, answer: &rls.RateLimitResponse{OverallCode: over,
			Statuses: []*rls.RateLimitResponse_DescriptorStatus{decided(ok, 5, rls.RateLimitResponse_RateLimit_MINUTE, 0, 15)}},
			want: map[string]string{"retry-after": absent}},
	}

	service, behind := startScripted(t), startUpstream(t)
	b := shipped(t, behind.addr, service.addr)
	b.filter("envoy.filters.http.ratelimit")["stat_prefix"] = "check"
	var routes []any
	for i, f := range facts {
		if f.limits == "" {
			f.limits = `[{ ` + kv + ` }, { ` + kv + ` }]`
		}
		r := limitedRoute(t, fmt.Sprintf("/%d", i), f.limits)
		r["response_headers_to_add"] = []any{message(t, `header: { key: x-told, value: "%%DYNAMIC_METADATA(ration:rule)%%" }`)}
		routes = append(routes, r)
	}
	b.virtualHost(factsHost, routes...)
	e := startEnvoy(t, b)

	for i, f := range facts {
		t.Run(f.name, func(t *testing.T) {
			service.will(func(*rls.RateLimitRequest) (*rls.RateLimitResponse, error) { return f.answer, nil })
			got := send(t, e.url, request{host: factsHost, path: fmt.Sprintf("/%d", i), header: f.header})
			if got.code != f.code || got.body != f.body {
				t.Errorf("code %d with body %q, want %d with %q", got.code, got.body, f.code, f.body)
			}
			for name, want := range f.want {
				value := absent
				if values := got.header.Values(name); values != nil {
					value = strings.Join(values, " | ")
				}
				if value != want {
					t.Errorf("%s: %s, want %s", name, value, want)
				}
			}
		})
	}

	t.Run("OK: request headers reach the upstream", func(t *testing.T) {
		service.will(func(*rls.RateLimitRequest) (*rls.RateLimitResponse, error) {
			return &rls.RateLimitResponse{OverallCode: ok, RequestHeadersToAdd: headers("x-tier", "gold")}, nil
		})
		send(t, e.url, request{path: "/"})
		if got := behind.last().Header.Get("x-tier"); got != "gold" {
			t.Errorf("x-tier: %q, want gold", got)
		}
	})
	t.Run("the counters belong to the upstream's cluster", func(t *testing.T) {
		for name, answers := range map[string]rls.RateLimitResponse_Code{"ok": ok, "over_limit": over} {
			counter := "cluster.upstream.ratelimit.check." + name
			before := e.stat(t, counter)
			service.will(answering(answers))
			send(t, e.url, request{path: "/"})
			if got := e.stat(t, counter) - before; got != 1 {
				t.Errorf("%s grew by %d, want 1", counter, got)
			}
		}
	})
	t.Run("a charge is counted nowhere but at ration's cluster", func(t *testing.T) {
		const calls, counted = "cluster.ration.upstream_rq_completed", "cluster.upstream.ratelimit.check.ok"
		callsBefore, countedBefore := e.stat(t, calls), e.stat(t, counted)
		service.will(answering(ok))
		send(t, e.url, request{path: "/download"})
		eventually(t, "check and charge are answered", func() error {
			if got := e.stat(t, calls) - callsBefore; got != 2 {
				return fmt.Errorf("%d calls", got)
			}
			return nil
		})
		if got := e.stat(t, counted) - countedBefore; got != 1 {
			t.Errorf("%s grew by %d, want 1 for the check", counted, got)
		}
	})
}

// TestFilterWithoutAnswer shows what happens when the service fails, is slow, or may not be asked.
func TestFilterWithoutAnswer(t *testing.T) {
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	fails := func(*rls.RateLimitRequest) (*rls.RateLimitResponse, error) {
		return nil, status.Error(codes.Unavailable, "no store")
	}
	stalls := func(r *rls.RateLimitRequest) (*rls.RateLimitResponse, error) {
		<-release
		return answering(rls.RateLimitResponse_OVER_LIMIT)(r)
	}
	for _, deny := range []bool{false, true} {
		t.Run(fmt.Sprintf("failure_mode_deny %v", deny), func(t *testing.T) {
			service, behind := startScripted(t), startUpstream(t)
			b := shipped(t, behind.addr, service.addr)
			b.filter("envoy.filters.http.ratelimit")["failure_mode_deny"] = deny
			b.filter("envoy.filters.http.ratelimit")["timeout"] = "0.1s"
			e := startEnvoy(t, b)
			want, counter := 200, "cluster.upstream.ratelimit.failure_mode_allowed"
			if deny {
				want, counter = 503, "cluster.upstream.ratelimit.error"
			}
			for i, answer := range []func(*rls.RateLimitRequest) (*rls.RateLimitResponse, error){fails, stalls} {
				service.will(answer)
				got := send(t, e.url, request{path: "/"})
				if got.code != want {
					t.Errorf("code %d, want %d", got.code, want)
				}
				if deny && (got.body != "" || got.header.Get("retry-after") != "" || got.header.Get("x-envoy-ratelimited") != "") {
					t.Errorf("body %q, headers %v: want a bare answer", got.body, got.header)
				}
				if got := e.stat(t, counter); got != i+1 {
					t.Errorf("%s is %d, want %d", counter, got, i+1)
				}
			}
			flags := map[bool]string{false: `"flags":"-"`, true: `"flags":"RLSE"`}[deny]
			eventually(t, "the access log tells", func() error {
				if !strings.Contains(e.output(), flags) {
					return fmt.Errorf("no %s", flags)
				}
				return nil
			})
		})
	}
	t.Run("beyond max_requests Envoy does not ask, and lets pass", func(t *testing.T) {
		service, behind := startScripted(t), startUpstream(t)
		b := shipped(t, behind.addr, service.addr)
		named(b, "ration", "static_resources", "clusters")["circuit_breakers"] = message(t, `thresholds: [{ max_requests: 1 }]`)
		e := startEnvoy(t, b)

		var asked atomic.Int32
		proceed := make(chan struct{})
		service.will(func(*rls.RateLimitRequest) (*rls.RateLimitResponse, error) {
			asked.Add(1)
			<-proceed
			return &rls.RateLimitResponse{OverallCode: rls.RateLimitResponse_OVER_LIMIT}, nil
		})
		first := make(chan int, 1)
		go func() {
			a, _ := try(context.WithoutCancel(t.Context()), e.url, request{path: "/"})
			first <- a.code
		}()
		eventually(t, "the first call arrives", func() error {
			if asked.Load() == 0 {
				return fmt.Errorf("no call")
			}
			return nil
		})
		if got := send(t, e.url, request{path: "/"}); got.code != 200 {
			t.Errorf("second request: code %d, want 200", got.code)
		}
		if asked.Load() != 1 {
			t.Errorf("the service was asked %d times, want 1", asked.Load())
		}
		close(proceed)
		if got := <-first; got != 429 {
			t.Errorf("first request: code %d, want 429", got)
		}
	})
}

// TestFilterRejects shows the configurations that Envoy does not start with, so that nobody looks for them.
func TestFilterRejects(t *testing.T) {
	for name, c := range map[string]struct{ limits, want string }{
		"hits above a billion":         {`[{ ` + kv + `, hits_addend: { number: 1000000001 } }]`, "less than or equal to 1000000000"},
		"hits by two substitutions":    {`[{ ` + kv + `, hits_addend: { format: "%REQ(a)%%REQ(b)%" } }]`, "exactly one substitution"},
		"hits as a number and format":  {`[{ ` + kv + `, hits_addend: { number: 1, format: "%BYTES_SENT%" } }]`, "either a format or a number"},
		"unit_multiplier on a limit":   {`[{ ` + kv + `, limit: { rate_limit: { requests_per_unit: 5, unit: SECOND, unit_multiplier: 30 } } }]`, "unit_multiplier"},
		"stages in a route's filter":   {`[{ ` + kv + `, stage: 1 }]`, "not supported"},
		"disable_key in such a filter": {`[{ ` + kv + `, disable_key: a }]`, "not supported"},
	} {
		t.Run(name, func(t *testing.T) {
			b := shipped(t, "127.0.0.1:1", "127.0.0.1:2")
			b.virtualHost(factsHost, limitedRoute(t, "/", c.limits))
			out, err := exec.Command(envoyBinary(t), "--mode", "validate", "--config-path", write(t, b), "--log-level", "error").CombinedOutput()
			if err == nil || !strings.Contains(strings.Join(strings.Fields(string(out)), " "), c.want) {
				t.Errorf("Envoy said %v, %s\nwant an error with %q", err, out, c.want)
			}
		})
	}
}

// TestShippedFileAsItIs validates the file that users start from, unchanged.
func TestShippedFileAsItIs(t *testing.T) {
	file, err := filepath.Abs(shippedFile)
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(envoyBinary(t), "--mode", "validate", "--config-path", file, "--log-level", "warning").CombinedOutput()
	if err != nil || strings.Contains(string(out), "deprecated") {
		t.Errorf("%v\n%s", err, out)
	}
}

// limitedRoute is a route that sends requests for path to the upstream, with these rate_limits.
func limitedRoute(t testing.TB, path, limits string) map[string]any {
	t.Helper()
	r := message(t, `
match: { path: %s }
route: { cluster: upstream }
typed_per_filter_config:
  envoy.filters.http.ratelimit:
    "@type": type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimitPerRoute`, path)
	at(r, "typed_per_filter_config", "envoy.filters.http.ratelimit")["rate_limits"] = message(t, "list: %s", limits)["list"]
	return r
}

// answering answers every call with one code and nothing else.
func answering(code rls.RateLimitResponse_Code) func(*rls.RateLimitRequest) (*rls.RateLimitResponse, error) {
	return func(*rls.RateLimitRequest) (*rls.RateLimitResponse, error) {
		return &rls.RateLimitResponse{OverallCode: code}, nil
	}
}

// decided is the status of a descriptor with a limit named n.
func decided(code rls.RateLimitResponse_Code, limit uint32, unit rls.RateLimitResponse_RateLimit_Unit, remaining uint32,
	reset float64) *rls.RateLimitResponse_DescriptorStatus {
	return &rls.RateLimitResponse_DescriptorStatus{
		Code:               code,
		CurrentLimit:       &rls.RateLimitResponse_RateLimit{Name: "n", RequestsPerUnit: limit, Unit: unit},
		LimitRemaining:     remaining,
		DurationUntilReset: &durationpb.Duration{Seconds: int64(reset), Nanos: int32((reset - float64(int64(reset))) * 1e9)},
	}
}
