package rls

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	commonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/rationhq/ration/engine"
	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/store"
	"github.com/rationhq/ration/store/memory"
)

// failing is a store that fails.
type failing struct{ err error }

func (f failing) Apply(context.Context, *store.Step, *store.Outcome) error { return f.err }
func (f failing) Ready(context.Context) error                              { return f.err }
func (f failing) Close() error                                             { return nil }

// A decision that was made without the store says so: in a header, in the dynamic metadata, and in the
// body of a refusal, which tells the client to come back soon. A report that waits for it is told to.
func TestWithoutTheStore(t *testing.T) {
	const limits = `
domain: shop
descriptors:
- { key: allow, limits: [ { name: a, algorithm: fixed_window, limit: 100/day, on_store_error: allow } ] }
- { key: deny, limits: [ { name: d, algorithm: fixed_window, limit: 100/day, on_store_error: deny } ] }
- { key: local, limits: [ { name: l, algorithm: fixed_window, limit: 100/day, on_store_error: local, local_share: 3% } ] }
- { key: error, limits: [ { name: e, algorithm: fixed_window, limit: 100/day, on_store_error: error } ] }
- { key: plain, rate_limit: { unit: day, requests_per_unit: 100 } }
`
	p, _, err := policy.Parse([]policy.Source{{Name: "p", Data: []byte(limits)}}, policy.Options{Strict: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		key      string // of an entry; or entries, apart by commas
		fails    error
		code     codes.Code
		over     bool
		headers  string // name=value; a time is only named
		metadata string
		body     []string
		json     int
	}{
		{"allow", store.ErrUnavailable, codes.OK, false, "ration-degraded=allow", "degraded=allow limits=<nil>", nil, http.StatusOK},
		{
			"deny", store.ErrUnavailable, codes.OK, true,
			"RateLimit-Limit=100 RateLimit-Remaining=0 RateLimit-Reset ration-degraded=deny content-type=application/problem+json " +
				"retry-after retry-after-ms x-should-retry=true",
			"degraded=deny limits=map[limit:100 meter:requests name:d over:true unavailable:true]",
			[]string{`"status":503`, `"error":"store_unavailable"`, `"degraded":"deny"`}, http.StatusTooManyRequests,
		},
		{
			"local", store.ErrUnavailable, codes.OK, false,
			"RateLimit-Limit=100 RateLimit-Remaining=2 RateLimit-Reset ration-degraded=local",
			"degraded=local limits=map[held:0 limit:100 meter:requests name:l remaining:2 used:1]", nil, http.StatusOK,
		},
		{
			"error=x,ration.phase=record,ration.request=r", store.ErrUnavailable, codes.OK, false,
			"ration-degraded=queued", "degraded=queued limits=<nil>", nil, http.StatusOK,
		},
		{"error", store.ErrUnavailable, codes.Unavailable, false, "", "", nil, http.StatusServiceUnavailable},
		{"plain", store.ErrUnavailable, codes.Unavailable, false, "", "", nil, http.StatusServiceUnavailable},
		{"error", store.ErrFull, codes.Unavailable, false, "", "", nil, http.StatusServiceUnavailable},
		{"error", store.ErrCorrupt, codes.DataLoss, false, "", "", nil, http.StatusServiceUnavailable},
		{"allow", store.ErrUnsupported, codes.Unimplemented, false, "", "", nil, http.StatusServiceUnavailable},
		{"allow", store.ErrInvalid, codes.Internal, false, "", "", nil, http.StatusServiceUnavailable},
	} {
		t.Run(c.key+": "+c.fails.Error(), func(t *testing.T) {
			e := engine.New(failing{c.fails}, engine.Options{
				Local: func() store.Store { return memory.New(memory.Options{}) }, QueuedReports: 10, QueuedBytes: 1 << 20,
			})
			defer e.Close()
			e.SetPolicy(p)
			s := New(e, Options{Headers: DefaultHeaders, Metadata: true, Body: true})
			descriptor := new(commonv3.RateLimitDescriptor)
			for pair := range strings.SplitSeq(c.key, ",") {
				key, value, _ := strings.Cut(pair, "=")
				descriptor.Entries = append(descriptor.Entries, &commonv3.RateLimitDescriptor_Entry{Key: key, Value: cmp.Or(value, "x")})
			}
			asks := &ratelimitv3.RateLimitRequest{Domain: "shop", Descriptors: []*commonv3.RateLimitDescriptor{descriptor}}
			in, err := proto.Marshal(asks)
			if err != nil {
				t.Fatal(err)
			}
			out, err := s.answer(t.Context(), in)
			if status.Code(err) != c.code {
				t.Errorf("%v, want %v", err, c.code)
			}
			if err == nil {
				var got ratelimitv3.RateLimitResponse
				if err := proto.Unmarshal(out, &got); err != nil {
					t.Fatal(err)
				}
				over := ratelimitv3.RateLimitResponse_OVER_LIMIT
				if (got.GetOverallCode() == over) != c.over || (got.GetStatuses()[0].GetCode() == over) != c.over {
					t.Errorf("%v, want over limit: %v", &got, c.over)
				}
				if got := headersOf(&got); got != c.headers {
					t.Errorf("headers %s\nwant    %s", got, c.headers)
				}
				if got := degradedOf(&got); got != c.metadata {
					t.Errorf("metadata %s\nwant     %s", got, c.metadata)
				}
				for _, want := range c.body {
					if !strings.Contains(string(got.GetRawBody()), want) {
						t.Errorf("the body lacks %s: %s", want, got.GetRawBody())
					}
				}
			}
			w := httptest.NewRecorder()
			s.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/json", strings.NewReader(protojson.Format(asks))))
			if w.Code != c.json {
				t.Errorf("/json: %d, want %d", w.Code, c.json)
			}
		})
	}
}

func headersOf(r *ratelimitv3.RateLimitResponse) string {
	var words []string
	for _, h := range r.GetResponseHeadersToAdd() {
		switch name := h.GetKey(); name {
		case "RateLimit-Reset", "retry-after", "retry-after-ms":
			words = append(words, name)
		default:
			words = append(words, name+"="+h.GetValue())
		}
	}
	return strings.Join(words, " ")
}

// degradedOf writes what the dynamic metadata says of the store and of the first limit, but for times.
func degradedOf(r *ratelimitv3.RateLimitResponse) string {
	fields := r.GetDynamicMetadata().AsMap()
	var first any
	if limits, ok := fields["limits"].([]any); ok {
		one, _ := limits[0].(map[string]any)
		for name := range one {
			if strings.HasSuffix(name, "_ms") || name == "estimated" {
				delete(one, name)
			}
		}
		first = one
	}
	return fmt.Sprintf("degraded=%v limits=%v", fields["degraded"], first)
}
