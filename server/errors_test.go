package server_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	rationv1 "github.com/rationhq/ration/gen/ration/v1"
	"github.com/rationhq/ration/server"
	"github.com/rationhq/ration/store"
)

// failing is a store that fails.
type failing struct{ err error }

func (f failing) Apply(context.Context, *store.Step, *store.Outcome) error { return f.err }
func (f failing) Ready(context.Context) error                              { return f.err }
func (f failing) Close() error                                             { return nil }

// said is what an error says to a program.
type said struct {
	code   codes.Code
	reason string
	field  string
	retry  bool
}

func saidBy(t *testing.T, err error) said {
	t.Helper()
	s := status.Convert(err)
	out := said{code: s.Code()}
	for _, d := range s.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			if out.reason = d.GetReason(); d.GetDomain() != "ration" {
				t.Errorf("the reason is of the domain %q", d.GetDomain())
			}
		case *errdetails.BadRequest:
			v := d.GetFieldViolations()
			if out.field = v[0].GetField(); len(v) != 1 || v[0].GetDescription() == "" || s.Message() != out.field+": "+v[0].GetDescription() {
				t.Errorf("message %q, violations %v", s.Message(), v)
			}
		case *errdetails.RetryInfo:
			wait := d.GetRetryDelay().AsDuration()
			if out.retry = true; wait < time.Second || wait > 3*time.Second {
				t.Errorf("to be repeated after %v, want 1 to 3 seconds", wait)
			}
		}
	}
	return out
}

// call calls a method of AccountingService by its name.
func (s *site) call(ctx context.Context, method string, r proto.Message) error {
	var out rationv1.ReserveResponse // nobody reads it
	return s.conn.Invoke(ctx, "/"+accounting+method, r, &out)
}

// Every error says the same over gRPC and over HTTP: code, reason, field, and whether to try again.
func TestErrors(t *testing.T) {
	const (
		llm  = "domain: llm\ndescriptors: [ { key: user, limits: [ { name: n, algorithm: fixed_window, limit: 5/day, on_store_error: "
		end  = " } ] } ]\n"
		good = "00000000000000000000000000000001"
	)
	reserve := func(change func(*rationv1.ReserveRequest)) *rationv1.ReserveRequest {
		r := &rationv1.ReserveRequest{Caller: alice(), Estimate: estimate(1, 1)}
		change(r)
		return r
	}
	attribute := func(key string) *rationv1.ReserveRequest {
		return reserve(func(r *rationv1.ReserveRequest) { r.Caller.Attributes[key] = "x" })
	}
	lease := func(d *durationpb.Duration) *rationv1.ReserveRequest {
		return reserve(func(r *rationv1.ReserveRequest) { r.Lease = d })
	}
	prompt := func(p *rationv1.Prompt) *rationv1.ReserveRequest {
		return reserve(func(r *rationv1.ReserveRequest) { r.Estimate.Of = &rationv1.Estimate_Prompt{Prompt: p} })
	}
	invalid := func(field string) said { return said{codes.InvalidArgument, "INVALID_FIELD", field, false} }
	for _, c := range []struct {
		name, policy string
		store        store.Store
		before       func(*testing.T, *site)
		method       string
		request      proto.Message
		want         said
		http         int
	}{
		{name: "no caller", method: "Reserve", request: &rationv1.ReserveRequest{}, want: invalid("caller.domain"), http: 400},
		{name: "no caller of a check", method: "Check", request: &rationv1.CheckRequest{}, want: invalid("caller.domain"), http: 400},
		{name: "no caller of a record", method: "Record", request: &rationv1.RecordRequest{}, want: invalid("caller.domain"), http: 400},
		{name: "empty attribute", method: "Reserve", request: attribute(""), want: invalid("caller.attributes"), http: 400},
		{name: "reserved attribute", method: "Reserve", request: attribute("ration.key"), want: invalid(`caller.attributes["ration.key"]`), http: 400},
		{name: "too much of a caller", method: "Reserve", request: attribute(strings.Repeat("x", 9000)), want: invalid("caller"), http: 400},
		{name: "long key", method: "Reserve", want: invalid("idempotency_key"), http: 400,
			request: reserve(func(r *rationv1.ReserveRequest) { r.IdempotencyKey = strings.Repeat("k", 201) })},
		{name: "negative tokens", method: "Reserve", want: invalid("estimate.usage.output_tokens"), http: 400,
			request: reserve(func(r *rationv1.ReserveRequest) { r.Estimate = estimate(1, -1) })},
		{name: "negative prompt", method: "Reserve", request: prompt(&rationv1.Prompt{Tokens: -1}), want: invalid("estimate.prompt"), http: 400},
		{name: "output without an end", method: "Reserve", request: prompt(&rationv1.Prompt{Tokens: 1}), want: invalid("estimate.prompt.output_caps"), http: 400,
			policy: llm + "allow" + end},
		{name: "lease of nothing", method: "Reserve", request: lease(&durationpb.Duration{}), want: invalid("lease"), http: 400},
		{name: "lease of a microsecond", method: "Reserve", request: lease(durationpb.New(time.Microsecond)), want: invalid("lease"), http: 400},
		{name: "negative lease", method: "Reserve", request: lease(durationpb.New(-time.Nanosecond)), want: invalid("lease"), http: 400},
		{name: "lease that is none", method: "Reserve", request: lease(&durationpb.Duration{Seconds: 5, Nanos: -1}), want: invalid("lease"), http: 400},
		{name: "long lease", method: "Reserve", request: lease(durationpb.New(time.Hour + time.Millisecond)), want: invalid("lease"), http: 400},
		{name: "negative use", method: "Record", want: invalid("usage.input_tokens"), http: 400,
			request: &rationv1.RecordRequest{Caller: alice(), Usage: tokens(-1, 0)}},
		{name: "negative requests", method: "Record", want: invalid("requests"), http: 400,
			request: &rationv1.RecordRequest{Caller: alice(), Requests: proto.Int64(-1)}},
		{name: "negative settlement", method: "Settle", want: invalid("usage.output_tokens"), http: 400,
			request: &rationv1.SettleRequest{ReservationId: good, Usage: tokens(0, -1)}},
		{name: "no id", method: "Settle", request: &rationv1.SettleRequest{}, want: invalid("reservation_id"), http: 400},
		{name: "an id of another kind", method: "Release", want: invalid("reservation_id"), http: 400,
			request: &rationv1.ReleaseRequest{ReservationId: good[1:] + "x"}},
		{name: "too many items", method: "BatchSettle", want: invalid("items"), http: 400,
			request: &rationv1.BatchSettleRequest{Items: slices.Repeat([]*rationv1.BatchItem{{}}, 1001)}},
		{name: "unknown domain", method: "Reserve", want: said{code: codes.FailedPrecondition, reason: "UNKNOWN_DOMAIN"}, http: 400,
			request: reserve(func(r *rationv1.ReserveRequest) { r.Caller.Domain = "lmm" })},
		{name: "no policy", policy: "-", method: "Reserve", request: reserve(func(*rationv1.ReserveRequest) {}),
			want: said{code: codes.FailedPrecondition, reason: "NO_POLICY"}, http: 400},
		{name: "unknown reservation", method: "Settle", request: &rationv1.SettleRequest{ReservationId: good},
			want: said{code: codes.NotFound, reason: "UNKNOWN_RESERVATION"}, http: 404},
		{name: "unknown reservation to release", method: "Release", request: &rationv1.ReleaseRequest{ReservationId: good},
			want: said{code: codes.NotFound, reason: "UNKNOWN_RESERVATION"}, http: 404},
		{
			name: "key of another call", method: "Reserve", want: said{code: codes.AlreadyExists, reason: "KEY_REUSED"}, http: 422,
			request: reserve(func(r *rationv1.ReserveRequest) { r.IdempotencyKey = "k" }),
			before: func(t *testing.T, s *site) {
				r := reserve(func(r *rationv1.ReserveRequest) { r.IdempotencyKey, r.Estimate = "k", estimate(2, 2) })
				if _, err := s.Reserve(t.Context(), r); err != nil {
					t.Fatal(err)
				}
			},
		},
		{
			name: "key of other usage", method: "Record", want: said{code: codes.AlreadyExists, reason: "KEY_REUSED"}, http: 422,
			request: &rationv1.RecordRequest{Caller: alice(), IdempotencyKey: "k", Usage: tokens(1, 1)},
			before: func(t *testing.T, s *site) {
				if _, err := s.Record(t.Context(), &rationv1.RecordRequest{Caller: alice(), IdempotencyKey: "k"}); err != nil {
					t.Fatal(err)
				}
			},
		},
		{
			name: "settled otherwise", method: "Settle", want: said{code: codes.AlreadyExists, reason: "SETTLED_OTHERWISE"}, http: 422,
			request: &rationv1.SettleRequest{ReservationId: good, Usage: tokens(1, 1), Caller: alice()},
			before: func(t *testing.T, s *site) {
				if _, err := s.Settle(t.Context(), &rationv1.SettleRequest{ReservationId: good, Caller: alice()}); err != nil {
					t.Fatal(err)
				}
			},
		},
		{name: "no domain of an upstream", method: "ReportUpstream", request: &rationv1.ReportUpstreamRequest{}, want: invalid("domain"), http: 400},
		{name: "no upstream", method: "ReportUpstream", request: &rationv1.ReportUpstreamRequest{Domain: "llm"}, want: invalid("upstream"), http: 400},
		{name: "a model without an upstream", method: "ReportUpstream", want: invalid("model"), http: 400,
			request: &rationv1.ReportUpstreamRequest{Domain: "llm", Model: "large"}},
		{name: "a status that is none", method: "ReportUpstream", want: invalid("status"), http: 400,
			request: &rationv1.ReportUpstreamRequest{Domain: "llm", Upstream: "key", Status: 42}},
		{name: "an instant that is none", method: "ReportUpstream", want: invalid("observed_at"), http: 400,
			request: &rationv1.ReportUpstreamRequest{Domain: "llm", Upstream: "key", ObservedAt: &timestamppb.Timestamp{Nanos: -1}}},
		{name: "an upstream while the store is away", store: failing{store.ErrUnavailable}, method: "ReportUpstream",
			request: &rationv1.ReportUpstreamRequest{Domain: "llm", Upstream: "key", Status: 429},
			want:    said{codes.Unavailable, "STORE_UNAVAILABLE", "", true}, http: 503},
		{name: "store away", policy: llm + "error" + end, store: failing{store.ErrUnavailable}, method: "Reserve",
			request: reserve(func(*rationv1.ReserveRequest) {}), want: said{codes.Unavailable, "STORE_UNAVAILABLE", "", true}, http: 503},
		{name: "store away, and the limit denies", policy: llm + "deny" + end, store: failing{store.ErrUnavailable}, method: "Reserve",
			request: reserve(func(*rationv1.ReserveRequest) {}), want: said{codes.Unavailable, "STORE_UNAVAILABLE", "", true}, http: 503},
		{name: "store away, and the limit denies a check", policy: llm + "deny" + end, store: failing{store.ErrUnavailable}, method: "Check",
			request: &rationv1.CheckRequest{Caller: alice()}, want: said{codes.Unavailable, "STORE_UNAVAILABLE", "", true}, http: 503},
		{name: "usage while the store is away", policy: llm + "allow" + end, store: failing{store.ErrUnavailable}, method: "Record",
			request: &rationv1.RecordRequest{Caller: alice()}, want: said{codes.Unavailable, "STORE_UNAVAILABLE", "", true}, http: 503},
		{name: "store full", policy: llm + "error" + end, store: failing{store.ErrFull}, method: "Reserve",
			request: reserve(func(*rationv1.ReserveRequest) {}), want: said{codes.Unavailable, "STORE_FULL", "", true}, http: 503},
		{name: "store corrupt", policy: llm + "error" + end, store: failing{store.ErrCorrupt}, method: "Reserve",
			request: reserve(func(*rationv1.ReserveRequest) {}), want: said{code: codes.DataLoss, reason: "STORE_CORRUPT"}, http: 500},
		{name: "store that cannot", store: failing{store.ErrUnsupported}, method: "Reserve",
			request: reserve(func(*rationv1.ReserveRequest) {}), want: said{code: codes.Unimplemented, reason: "STORE_UNSUPPORTED"}, http: 501},
		{name: "a mistake of ours", store: failing{errors.New("boom")}, method: "Reserve",
			request: reserve(func(*rationv1.ReserveRequest) {}), want: said{code: codes.Internal, reason: "INTERNAL"}, http: 500},
		{name: "progress of nothing", method: "Progress", request: &rationv1.ProgressRequest{}, want: invalid("reservation_id"), http: 400},
		{name: "progress with a lease of nothing", method: "Progress", want: invalid("lease"), http: 400,
			request: &rationv1.ProgressRequest{ReservationId: good, Lease: &durationpb.Duration{}}},
		{name: "progress of what nobody knows", method: "Progress", request: &rationv1.ProgressRequest{ReservationId: good},
			want: said{code: codes.NotFound, reason: "UNKNOWN_RESERVATION"}, http: 404},
	} {
		t.Run(c.name, func(t *testing.T) {
			switch c.policy {
			case "":
				c.policy = accounts
			case "-":
				c.policy = ""
			}
			s := serve(t, c.policy, c.store, server.Config{})
			if c.before != nil {
				c.before(t, s)
			}
			err := s.call(t.Context(), c.method, c.request)
			if got := saidBy(t, err); got != c.want {
				t.Errorf("over gRPC: %+v (%v)\nwant %+v", got, err, c.want)
			}
			body, err := protojson.Marshal(c.request)
			if err != nil {
				return // JSON has no words for it
			}
			answer := post(t, s.Addr("HTTP"), accounting+c.method, string(body))
			var overHTTP statuspb.Status
			if err := protojson.Unmarshal([]byte(answer.text), &overHTTP); err != nil {
				t.Fatalf("%+v: %v", answer, err)
			}
			if got := saidBy(t, status.ErrorProto(&overHTTP)); got != c.want || answer.status != c.http {
				t.Errorf("over HTTP: %d %+v\nwant %d %+v", answer.status, got, c.http, c.want)
			}
			after, err := strconv.Atoi(answer.header.Get("Retry-After"))
			if c.want.retry != (err == nil && 1 <= after && after <= 3) {
				t.Errorf("Retry-After: %q", answer.header.Get("Retry-After"))
			}
		})
	}
}

// What panics says no more than that, and still carries a reason.
func TestPanicHasAReason(t *testing.T) {
	s, _ := start(t)
	defer http.DefaultClient.CloseIdleConnections()
	got := post(t, s.Addr("HTTP"), accounting+"Check", `{"caller": {"domain": "d"}}`)
	if got.status != http.StatusInternalServerError || !strings.Contains(got.text, `"reason":"INTERNAL"`) || strings.Contains(got.text, "nil pointer") {
		t.Errorf("over HTTP: %+v", got)
	}
	_, err := rationv1.NewAccountingServiceClient(client(t, s.Addr("gRPC"))).Check(t.Context(), &rationv1.CheckRequest{Caller: alice()})
	if got := saidBy(t, err); got.code != codes.Internal || got.reason != "INTERNAL" {
		t.Errorf("over gRPC: %+v", got)
	}
}

// The errors of other services stay as they are.
func TestErrorsOfOthers(t *testing.T) {
	s := serve(t, accounts, nil, server.Config{})
	_, err := healthv1.NewHealthClient(s.conn).Check(t.Context(), &healthv1.HealthCheckRequest{Service: "nobody"})
	if got := saidBy(t, err); got != (said{code: codes.NotFound}) {
		t.Errorf("grpc.health.v1 says %+v", got)
	}
}
