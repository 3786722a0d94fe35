package e2e

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	rls "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/protobuf/encoding/protojson"
)

// A door is a way to ask ration: with an HTTP request through Envoy, with a gRPC call, with a JSON document. Each tests
// the answer as far as it can be seen from there.
type door struct {
	name string
	// ask makes the call of the n-th step of a scenario and compares the answer: all of it, or only whether it passes.
	ask func(t *testing.T, s scenario, n int, all bool)
}

// grpcDoor sees everything that ration answers.
func grpcDoor(r *ration) door {
	return door{"grpc", func(t *testing.T, s scenario, n int, all bool) {
		step := s.steps[n]
		before := time.Now()
		resp, err := r.client.ShouldRateLimit(t.Context(), parseCall(step.ask, s.domain("grpc")))
		if err != nil {
			t.Fatal(err)
		}
		if !compare(t, resp, step.want, before, all) {
			return
		}
		var headers []string
		for _, h := range resp.ResponseHeadersToAdd {
			if strings.HasPrefix(h.Key, "RateLimit-") {
				headers = append(headers, h.Key+" "+h.Value)
			}
		}
		s.compareHeaders(t, headers, step.want, before)
	}}
}

// jsonDoor sees the same through the established HTTP endpoint, whose status is 200 or 429.
func jsonDoor(r *ration) door {
	return door{"json", func(t *testing.T, s scenario, n int, all bool) {
		step := s.steps[n]
		body, err := protojson.Marshal(parseCall(step.ask, s.domain("json")))
		if err != nil {
			t.Fatal(err)
		}
		before := time.Now()
		got := send(t, "http://"+r.http, request{method: http.MethodPost, path: "/json", body: string(body)})
		code := http.StatusOK
		if refused, _ := parseVerdict(step.want); refused {
			code = http.StatusTooManyRequests
		}
		if got.code != code || got.header.Get("content-type") != "application/json" {
			t.Errorf("code %d, content type %q; want %d, application/json", got.code, got.header.Get("content-type"), code)
		}
		var resp rls.RateLimitResponse
		if err := protojson.Unmarshal([]byte(got.body), &resp); err != nil {
			t.Fatalf("%v in %s", err, got.body)
		}
		compare(t, &resp, step.want, before, all)
	}}
}

// envoyDoor sees what a user's client sees: the status, the headers and the body, and whether the request got through.
func envoyDoor(e *envoy, behind *upstream) door {
	return door{"envoy", func(t *testing.T, s scenario, n int, all bool) {
		step := s.steps[n]
		refused, limits := parseVerdict(step.want)
		r := request{host: s.domain("envoy"), path: fmt.Sprintf("/%d", n), header: map[string]string{}}
		if hits := parseCall(step.ask, "").HitsAddend; hits != 0 {
			r.header["x-hits"] = strconv.FormatUint(uint64(hits), 10)
		}
		reached := behind.requests()
		before := time.Now()
		got := send(t, e.url, r)

		if refused {
			if got.code != http.StatusTooManyRequests || behind.requests() != reached {
				t.Errorf("code %d with %d requests upstream, want 429 with none", got.code, behind.requests()-reached)
			}
			checkProblem(t, got)
		} else if got.code != http.StatusOK || got.body != greeting || behind.requests() != reached+1 {
			t.Errorf("code %d, body %q, %d requests upstream; want 200, the upstream's body, 1",
				got.code, got.body, behind.requests()-reached)
		}
		if !all {
			return
		}

		var headers []string
		for _, name := range []string{"RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset"} {
			for _, value := range got.header.Values(name) {
				headers = append(headers, name+" "+value)
			}
		}
		s.compareHeaders(t, headers, step.want, before)
		wantLimit, wantRemaining := draftHeaders(limits)
		if got := got.header.Get("x-ratelimit-limit"); got != wantLimit {
			t.Errorf("x-ratelimit-limit %q, want %q", got, wantLimit)
		}
		if got := got.header.Get("x-ratelimit-remaining"); got != wantRemaining {
			t.Errorf("x-ratelimit-remaining %q, want %q", got, wantRemaining)
		}
		retry, early, late := got.header.Get("retry-after"), "", ""
		if refused {
			early, late = retryAfter(limits, before), retryAfter(limits, time.Now())
		}
		if retry != early && retry != late {
			t.Errorf("retry-after %q, want %q or %q", retry, early, late)
		}
	}}
}

// compare compares an answer with what is wanted, the durations too; or only whether it passes. It returns whether to
// compare more.
func compare(t *testing.T, resp *rls.RateLimitResponse, want string, before time.Time, all bool) bool {
	t.Helper()
	got := verdict(resp)
	if !all {
		want, _, _ := strings.Cut(want, ": ")
		if !strings.HasPrefix(got, want+": ") {
			t.Errorf("answer %s, want %s", got, want)
		}
		return false
	}
	if got != want {
		t.Errorf("answer %s\nwant   %s", got, want)
	}
	for _, s := range resp.Statuses {
		if s.CurrentLimit == nil {
			if s.DurationUntilReset != nil {
				t.Errorf("no limit, and resets in %v", s.DurationUntilReset.AsDuration())
			}
			continue
		}
		length := window(unit(s.CurrentLimit))
		early, late := secondsLeft(before, length), secondsLeft(time.Now(), length)
		if got := s.DurationUntilReset; got.GetNanos() != 0 || got.GetSeconds() != early && got.GetSeconds() != late {
			t.Errorf("resets in %v, want %d s or %d s", got.AsDuration(), early, late)
		}
	}
	return true
}

// compareHeaders tests the RateLimit-* headers that ration owes with --response-headers. They tell of the last limit that
// refuses (a quota alone does not refuse), or else of the one with the least remaining.
func (s scenario) compareHeaders(t *testing.T, got []string, want string, before time.Time) {
	t.Helper()
	var possible [][]string
	_, limits := parseVerdict(want)
	if len(limits) == 0 {
		possible = [][]string{nil}
	} else {
		chosen := least(limits)
		for _, l := range limits {
			if l.Code == over && !s.quota {
				chosen = l
			}
		}
		for _, at := range []time.Time{before, time.Now()} {
			possible = append(possible, []string{
				fmt.Sprintf("RateLimit-Limit %d", chosen.CurrentLimit.RequestsPerUnit),
				fmt.Sprintf("RateLimit-Remaining %d", chosen.LimitRemaining),
				fmt.Sprintf("RateLimit-Reset %d", secondsLeft(at, window(unit(chosen.CurrentLimit)))),
			})
		}
	}
	if !slices.ContainsFunc(possible, func(p []string) bool { return slices.Equal(got, p) }) {
		t.Errorf("headers %q, want one of %q", got, possible)
	}
}

// draftHeaders are the x-ratelimit-limit and x-ratelimit-remaining that Envoy makes of an answer.
func draftHeaders(limits []*rls.RateLimitResponse_DescriptorStatus) (limit, remaining string) {
	if len(limits) == 0 {
		return "", ""
	}
	first := least(limits)
	limit = strconv.FormatUint(uint64(first.CurrentLimit.RequestsPerUnit), 10)
	for _, l := range limits {
		limit += fmt.Sprintf(", %d;w=%d", l.CurrentLimit.RequestsPerUnit, window(unit(l.CurrentLimit))/time.Second)
		if name := l.CurrentLimit.Name; name != "" {
			limit += `;name="` + name + `"`
		}
	}
	return limit, strconv.FormatUint(uint64(first.LimitRemaining), 10)
}

// least is the first limit of those with the least remaining.
func least(limits []*rls.RateLimitResponse_DescriptorStatus) *rls.RateLimitResponse_DescriptorStatus {
	return slices.MinFunc(limits, func(a, b *rls.RateLimitResponse_DescriptorStatus) int {
		return cmp.Compare(a.LimitRemaining, b.LimitRemaining)
	})
}

// retryAfter is the longest wait among the limits that are over, in seconds.
func retryAfter(limits []*rls.RateLimitResponse_DescriptorStatus, now time.Time) string {
	var longest int64
	for _, l := range limits {
		if l.Code == over {
			longest = max(longest, secondsLeft(now, window(unit(l.CurrentLimit))))
		}
	}
	return strconv.FormatInt(longest, 10)
}

// checkProblem tests that a refusal carries ration's own body, a problem document of RFC 9457, and says so.
func checkProblem(t *testing.T, a answer) {
	t.Helper()
	if got := a.header.Values("content-type"); !slices.Equal(got, []string{"application/problem+json"}) {
		t.Errorf("content type of the refusal: %q, want application/problem+json", got)
	}
	var problem struct {
		Title  string `json:"title"`
		Status int    `json:"status"`
	}
	err := json.Unmarshal([]byte(a.body), &problem)
	if err != nil || problem.Status != a.code || problem.Title == "" {
		t.Errorf("body of the refusal: %q (%v), want a problem with a title and the status %d", a.body, err, a.code)
	}
}
