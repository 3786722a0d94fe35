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
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rls "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
)

// These tests are about Envoy and not about ration: they pin down what Envoy 1.40 does with the fields of its rate
// limit filter, by putting a scripted service in ration's place. docs/envoy.md tells their results; a newer Envoy that
// differs fails here first.

// kv is the action of a descriptor k=v, and so a descriptor that says nothing by itself.
const kv = `actions: [{ generic_key: { descriptor_key: k, descriptor_value: v } }]`

// entries is a list of rate_limits that each make the descriptor k=v, with what is given beside it.
func entries(beside ...string) string {
	var list []string
	for _, b := range beside {
		list = append(list, "{ "+strings.TrimSuffix(kv+", "+b, ", ")+" }")
	}
	return "[" + strings.Join(list, ", ") + "]"
}

// TestFilterAsks shows which calls Envoy makes of one request.
func TestFilterAsks(t *testing.T) {
	const (
		absent = `{ request_headers: { header_name: x-absent, descriptor_key: h } }`
		skip   = `{ request_headers: { header_name: x-absent, descriptor_key: h, skip_if_absent: true } }`
		byCost = `hits_addend: { format: "%REQ(X-COST)%" }`
		atEnd  = `, apply_on_stream_done: true`
	)
	cost := func(n string) map[string]string { return map[string]string{"x-cost": n} }
	override := func(from string) string {
		return `limit: { dynamic_metadata: { metadata_key: { key: facts, path: [{ key: ` + from + ` }] } } }`
	}

	facts := []struct {
		name   string
		path   string            // a route of the shipped file,
		limits string            // or the rate_limits of a route of its own,
		plain  bool              // which stand in the route itself and not in its RateLimitPerRoute
		header map[string]string // of the request
		want   []string          // the calls, in order
	}{
		// The shipped routes.
		{name: "two descriptors in one call", path: "/",
			want: []string{"http: remote_address=127.0.0.1; user=anonymous"}},
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
			limits: `[{ actions: [` + absent + `, { remote_address: {} }] }]`, want: nil},
		{name: "skip_if_absent drops the entry only",
			limits: `[{ actions: [` + skip + `, { remote_address: {} }] }]`,
			want:   []string{"http: remote_address=127.0.0.1"}},
		{name: "metadata has a default",
			limits: `[{ actions: [{ metadata: { descriptor_key: m, default_value: none, source: DYNAMIC,
			                                    metadata_key: { key: absent, path: [{ key: x }] } } }] }]`,
			want: []string{"http: m=none"}},
		{name: "the same descriptor twice", limits: entries("", ""), want: []string{"http: k=v; k=v"}},

		// Hits.
		{name: "no hits_addend: nothing is sent, which means 1", limits: entries(""), want: []string{"http: k=v"}},
		{name: "hits 0 is sent as such", limits: entries(`hits_addend: { number: 0 }`), want: []string{"http: k=v hits 0"}},
		{name: "negative hits", limits: entries(`hits_addend: { number: 3, is_negative_hits: true }`),
			want: []string{"http: k=v hits 3 negative"}},
		{name: "by format", limits: entries(byCost, ""), header: cost("7"), want: []string{"http: k=v hits 7; k=v"}},
		{name: "by format: zero", limits: entries(byCost, ""), header: cost("0"), want: []string{"http: k=v hits 0; k=v"}},
		{name: "by format: fractions are cut off", limits: entries(byCost, ""), header: cost("1.9"),
			want: []string{"http: k=v hits 1; k=v"}},
		{name: "by format: a billion", limits: entries(byCost, ""), header: cost("1000000000"),
			want: []string{"http: k=v hits 1000000000; k=v"}},
		{name: "by format: above, and the descriptor is dropped", limits: entries(byCost, ""), header: cost("1000000001"),
			want: []string{"http: k=v"}},
		{name: "by format: below 0, dropped", limits: entries(byCost, ""), header: cost("-1"), want: []string{"http: k=v"}},
		{name: "by format: no number, dropped", limits: entries(byCost, ""), header: cost("much"),
			want: []string{"http: k=v"}},
		{name: "by format: missing, dropped", limits: entries(byCost, ""), want: []string{"http: k=v"}},
		{name: "hits for all descriptors, by filter state", limits: entries(""), header: map[string]string{"x-hits": "5"},
			want: []string{"http: k=v (hits 5)"}},
		{name: "in the route's own rate_limits, hits are ignored (and the charge filter leaves these alone)", plain: true,
			limits: entries(`hits_addend: { number: 4 }`), want: []string{"http: k=v"}},

		// Overrides.
		{name: "fixed override", limits: entries(`limit: { rate_limit: { requests_per_unit: 7, unit: DAY } }`),
			want: []string{"http: k=v limit 7/DAY"}},
		{name: "override: a small-letter unit is no override", limits: entries(override("lower")),
			want: []string{"http: k=v"}},
		{name: "override: WEEK is no unit here", limits: entries(override("week")), want: []string{"http: k=v"}},
		{name: "override: no metadata, no override", limits: entries(override("absent")), want: []string{"http: k=v"}},
		{name: "override: Envoy leaves unit_multiplier out", limits: entries(override("multiplied")),
			want: []string{"http: k=v limit 5/SECOND"}},

		// When the stream is done.
		{name: "all charges of a request leave in one call, after the check",
			limits: entries(`hits_addend: { number: 2 }`+atEnd, "", `hits_addend: { format: "%RESP(X-COST)%" }`+atEnd),
			header: map[string]string{"x-answer-x-cost": "9"},
			want:   []string{"http: k=v", "http: k=v hits 2; k=v hits 9"}},
		{name: "charges in the route's own rate_limits, but of 1", plain: true,
			limits: `[{ ` + kv + `, hits_addend: { number: 4 }` + atEnd + ` }, { actions: [{ remote_address: {} }] }]`,
			want:   []string{"http: remote_address=127.0.0.1", "http: k=v"}},
		{name: "a charge without its figure is lost",
			limits: entries(`hits_addend: { format: "%RESP(X-COST)%" }` + atEnd), want: nil},
		{name: "giving back at the end",
			limits: entries(`hits_addend: { format: "%RESP(X-COST)%", is_negative_hits: true }` + atEnd),
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
			service.will(answering(ok))
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
		service.will(answering(ok))
		send(t, e.url, request{path: "/"})
		service.mu.Lock()
		defer service.mu.Unlock()
		if service.deadline.IsZero() {
			t.Error("the call has no deadline")
		}
	})
	t.Run("a client that hangs up is charged for what it got", func(t *testing.T) {
		service.will(answering(ok))
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

// TestChargeAfterRefusal shows why the shipped file has two filters: one that checks and charges also charges for its
// refusals.
func TestChargeAfterRefusal(t *testing.T) {
	service, behind := startScripted(t), startUpstream(t)
	b := shipped(t, behind.addr, service.addr)
	b.virtualHost(factsHost,
		markerRoute(t),
		limitedRoute(t, "/one", entries(
			`hits_addend: { number: 0 }`,
			`hits_addend: { number: 8 }, apply_on_stream_done: true`)))
	e := startEnvoy(t, b)

	service.will(answering(over))
	send(t, e.url, request{host: factsHost, path: "/one"})
	want := []string{"http: k=v hits 0", "http: k=v hits 8"}
	if got := service.settled(t, e); !slices.Equal(got, want) {
		t.Errorf("with one filter, Envoy asked %q, want %q", got, want)
	}
	service.will(answering(over))
	send(t, e.url, request{path: "/download"})
	want = []string{"http: meter=bytes, user=anonymous hits 0"}
	if got := service.settled(t, e); !slices.Equal(got, want) {
		t.Errorf("with two filters, Envoy asked %q, want %q", got, want)
	}
}

// TestFilterAnswers shows what the client and the upstream get to see of an answer.
func TestFilterAnswers(t *testing.T) {
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
	const (
		absent = "(absent)"
		off    = `x_ratelimit_option: "OFF"`
	)

	facts := []struct {
		name    string
		limits  string // that make two descriptors, if empty
		request map[string]string
		answer  *rls.RateLimitResponse
		code    int
		body    string
		want    map[string]string // response headers; several of one name are joined with " | "
	}{
		{name: "429 with our body, content type and headers",
			answer: &rls.RateLimitResponse{OverallCode: over, RawBody: []byte(`{"title":"x"}`), ResponseHeadersToAdd: problem},
			code:   429, body: `{"title":"x"}`,
			want: map[string]string{"content-type": "application/problem+json", "ratelimit-limit": "5",
				"x-envoy-ratelimited": "true"}},
		{name: "a body without a content type is text",
			answer: &rls.RateLimitResponse{OverallCode: over, RawBody: []byte("slow down")},
			code:   429, body: "slow down", want: map[string]string{"content-type": "text/plain"}},
		{name: "no body",
			answer: &rls.RateLimitResponse{OverallCode: over},
			code:   429, want: map[string]string{"content-type": absent, "content-length": "0"}},
		{name: "OK: headers are added to the upstream's, also a second content type; a body is ignored",
			answer: &rls.RateLimitResponse{OverallCode: ok, RawBody: []byte("x"), ResponseHeadersToAdd: problem},
			code:   200, body: greeting,
			want: map[string]string{"content-type": "text/plain; charset=utf-8,application/problem+json",
				"ratelimit-limit": "5", "x-envoy-ratelimited": absent}},
		{name: "raw_value of a header is ignored",
			answer: &rls.RateLimitResponse{OverallCode: over,
				ResponseHeadersToAdd: []*core.HeaderValue{{Key: "x-raw", RawValue: []byte("x")}}},
			code: 429, want: map[string]string{"x-raw": ""}},
		{name: "gRPC: 200 and RESOURCE_EXHAUSTED", request: map[string]string{"content-type": "application/grpc"},
			answer: &rls.RateLimitResponse{OverallCode: over},
			code:   200, want: map[string]string{"grpc-status": "8"}},
		{name: "code UNKNOWN lets pass",
			answer: &rls.RateLimitResponse{Statuses: statuses("over 5/MINUTE", 9)},
			code:   200, body: greeting},
		{name: "the overall code decides, not the statuses",
			answer: &rls.RateLimitResponse{OverallCode: ok, Statuses: statuses("over 5/MINUTE", 9)},
			code:   200, body: greeting},
		{name: "dynamic metadata, in the namespace that the file sets",
			answer: &rls.RateLimitResponse{OverallCode: over, DynamicMetadata: told},
			code:   429, want: map[string]string{"x-told": "user"}},

		// x-ratelimit-*, draft 03.
		{name: "x-ratelimit: the smallest remaining, whatever its unit",
			answer: &rls.RateLimitResponse{OverallCode: ok,
				Statuses: statuses("50 of 100/WEEK; 40 of 60/MINUTE (n)", 9000, 30)},
			code: 200, body: greeting,
			want: map[string]string{"x-ratelimit-limit": `60, 100;w=604800, 60;w=60;name="n"`,
				"x-ratelimit-remaining": "40", "x-ratelimit-reset": "30"}},
		{name: "x-ratelimit: Envoy knows the unit_multiplier",
			answer: &rls.RateLimitResponse{OverallCode: ok, Statuses: statuses("3 of 9/MINUTEx5", 1)},
			code:   200, body: greeting, want: map[string]string{"x-ratelimit-limit": "9, 9;w=300"}},
		{name: "x-ratelimit: no current_limit, no header",
			answer: &rls.RateLimitResponse{OverallCode: over, Statuses: []*rls.RateLimitResponse_DescriptorStatus{{Code: over}}},
			code:   429,
			want:   map[string]string{"x-ratelimit-limit": absent, "x-ratelimit-remaining": absent, "retry-after": "1"}},
		{name: "x-ratelimit: ours and Envoy's stand side by side",
			answer: &rls.RateLimitResponse{OverallCode: over, Statuses: statuses("over 5/MINUTE", 9),
				ResponseHeadersToAdd: headers("x-ratelimit-remaining", "7")},
			code: 429, want: map[string]string{"x-ratelimit-remaining": "7 | 0"}},
		{name: "x_ratelimit_option OFF leaves a limit out", limits: entries(off, ""),
			answer: &rls.RateLimitResponse{OverallCode: ok, Statuses: statuses("9 of 10/MINUTE; 4 of 20/HOUR", 5, 6)},
			code:   200, body: greeting, want: map[string]string{"x-ratelimit-limit": "20, 20;w=3600"}},
		{name: "x_ratelimit_option OFF on the limit with the smallest remaining leaves nothing", limits: entries(off, ""),
			answer: &rls.RateLimitResponse{OverallCode: ok, Statuses: statuses("4 of 10/MINUTE; 9 of 20/HOUR", 5, 6)},
			code:   200, body: greeting,
			want: map[string]string{"x-ratelimit-limit": absent, "x-ratelimit-remaining": absent, "x-ratelimit-reset": absent}},

		// retry-after.
		{name: "retry-after: the longest of those over limit",
			answer: &rls.RateLimitResponse{OverallCode: over,
				Statuses: statuses("over 5/MINUTE; 1 of 5/HOUR; over 5/MINUTE", 15, 999, 40)},
			code: 429, want: map[string]string{"retry-after": "40", "x-ratelimit-reset": "15"}},
		{name: "retry-after: cut off to whole seconds, at least 1",
			answer: &rls.RateLimitResponse{OverallCode: over, Statuses: statuses("over 5/SECOND", 0.9)},
			code:   429, want: map[string]string{"retry-after": "1", "x-ratelimit-reset": "0"}},
		{name: "retry-after: ours is kept",
			answer: &rls.RateLimitResponse{OverallCode: over, Statuses: statuses("over 5/MINUTE", 15),
				ResponseHeadersToAdd: headers("Retry-After", "3")},
			code: 429, want: map[string]string{"retry-after": "3"}},
		{name: "retry-after: not on OK",
			answer: &rls.RateLimitResponse{OverallCode: ok, Statuses: statuses("0 of 5/MINUTE", 15)},
			code:   200, body: greeting, want: map[string]string{"retry-after": absent}},
		{name: "retry-after: not if no status is over",
			answer: &rls.RateLimitResponse{OverallCode: over, Statuses: statuses("0 of 5/MINUTE", 15)},
			code:   429, want: map[string]string{"retry-after": absent}},
	}

	service, behind := startScripted(t), startUpstream(t)
	b := shipped(t, behind.addr, service.addr)
	b.filter("envoy.filters.http.ratelimit")["stat_prefix"] = "check"
	var routes []any
	for i, f := range facts {
		if f.limits == "" {
			f.limits = entries("", "")
		}
		r := limitedRoute(t, fmt.Sprintf("/%d", i), f.limits)
		tell := message(t, `header: { key: x-told, value: "%%DYNAMIC_METADATA(ration:rule)%%" }`)
		r["response_headers_to_add"] = []any{tell}
		routes = append(routes, r)
	}
	b.virtualHost(factsHost, routes...)
	e := startEnvoy(t, b)

	for i, f := range facts {
		t.Run(f.name, func(t *testing.T) {
			service.will(func(*rls.RateLimitRequest) (*rls.RateLimitResponse, error) { return f.answer, nil })
			got := send(t, e.url, request{host: factsHost, path: fmt.Sprintf("/%d", i), header: f.request})
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
		return answering(over)(r)
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
				if deny && got.body+got.header.Get("retry-after")+got.header.Get("x-envoy-ratelimited") != "" {
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
		cluster := named(b, "ration", "static_resources", "clusters")
		cluster["circuit_breakers"] = message(t, `thresholds: [{ max_requests: 1 }]`)
		e := startEnvoy(t, b)

		var asked atomic.Int32
		proceed := make(chan struct{})
		service.will(func(*rls.RateLimitRequest) (*rls.RateLimitResponse, error) {
			asked.Add(1)
			<-proceed
			return &rls.RateLimitResponse{OverallCode: over}, nil
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
	for name, c := range map[string]struct{ beside, want string }{
		"hits above a billion":         {`hits_addend: { number: 1000000001 }`, "less than or equal to 1000000000"},
		"hits by two substitutions":    {`hits_addend: { format: "%REQ(a)%%REQ(b)%" }`, "exactly one substitution"},
		"hits as a number and format":  {`hits_addend: { number: 1, format: "%BYTES_SENT%" }`, "either a format or a number"},
		"unit_multiplier on a limit":   {`limit: { rate_limit: { unit: SECOND, unit_multiplier: 30 } }`, "unit_multiplier"},
		"stages in a route's filter":   {`stage: 1`, "not supported"},
		"disable_key in such a filter": {`disable_key: a`, "not supported"},
	} {
		t.Run(name, func(t *testing.T) {
			b := shipped(t, "127.0.0.1:1", "127.0.0.1:2")
			b.virtualHost(factsHost, limitedRoute(t, "/", entries(c.beside)))
			err := validate(t, write(t, b))
			if err == nil || !strings.Contains(strings.Join(strings.Fields(err.Error()), " "), c.want) {
				t.Errorf("Envoy said %v\nwant an error with %q", err, c.want)
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
	if err := validate(t, file); err != nil {
		t.Error(err)
	}
}

// validate lets Envoy read a bootstrap, without serving it. Warnings are errors.
func validate(t *testing.T, file string) error {
	t.Helper()
	args := []string{"--mode", "validate", "--config-path", file, "--log-level", "warning"}
	out, err := exec.Command(envoyBinary(t), args...).CombinedOutput()
	if err != nil || strings.Contains(string(out), "[warning]") {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
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
	perRoute := at(r, "typed_per_filter_config", "envoy.filters.http.ratelimit")
	perRoute["rate_limits"] = message(t, "list: %s", limits)["list"]
	return r
}

// answering answers every call with one code and nothing else.
func answering(code rls.RateLimitResponse_Code) func(*rls.RateLimitRequest) (*rls.RateLimitResponse, error) {
	return func(*rls.RateLimitRequest) (*rls.RateLimitResponse, error) {
		return &rls.RateLimitResponse{OverallCode: code}, nil
	}
}

// statuses reads the statuses of an answer, and takes as many durations until reset, in seconds.
func statuses(text string, resets ...float64) (list []*rls.RateLimitResponse_DescriptorStatus) {
	for i, s := range strings.Split(text, "; ") {
		status := parseStatus(s)
		status.DurationUntilReset = durationpb.New(time.Duration(resets[i] * float64(time.Second)))
		list = append(list, status)
	}
	return list
}
