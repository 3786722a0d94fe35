package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	rationv1 "github.com/rationhq/ration/gen/ration/v1"
	"github.com/rationhq/ration/server/failure"
)

// echo is a service that answers as its function does.
type echo struct {
	rationv1.UnimplementedAccountingServiceServer
	reserve func(context.Context, *rationv1.ReserveRequest) (*rationv1.ReserveResponse, error)
}

func (e echo) Reserve(ctx context.Context, r *rationv1.ReserveRequest) (*rationv1.ReserveResponse, error) {
	return e.reserve(ctx, r)
}

const path = "/ration.v1.AccountingService/Reserve"

func serves(opts Options, reserve func(context.Context, *rationv1.ReserveRequest) (*rationv1.ReserveResponse, error)) *Gateway {
	g := New(opts)
	rationv1.RegisterAccountingServiceServer(g, echo{reserve: reserve})
	return g
}

func fails(code codes.Code) *Gateway {
	return serves(Options{}, func(context.Context, *rationv1.ReserveRequest) (*rationv1.ReserveResponse, error) {
		return nil, status.Error(code, "it fails")
	})
}

// keeps serves a method that keeps what it was asked.
func keeps(into *rationv1.ReserveRequest) *Gateway {
	return serves(Options{}, func(_ context.Context, r *rationv1.ReserveRequest) (*rationv1.ReserveResponse, error) {
		proto.Merge(into, r)
		return &rationv1.ReserveResponse{}, nil
	})
}

func post(g *Gateway, body string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequestWithContext(context.Background(), http.MethodPost, path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	g.ServeHTTP(w, r)
	return w
}

// 409 is never sent, nor 429, whatever an error says: the clients of model APIs repeat both by themselves.
func TestStatuses(t *testing.T) {
	want := map[codes.Code]int{
		codes.Canceled: 499, codes.Unknown: 500, codes.InvalidArgument: 400, codes.DeadlineExceeded: 504, codes.NotFound: 404,
		codes.AlreadyExists: 422, codes.PermissionDenied: 403, codes.ResourceExhausted: 503, codes.FailedPrecondition: 400,
		codes.Aborted: 503, codes.OutOfRange: 400, codes.Unimplemented: 501, codes.Internal: 500, codes.Unavailable: 503,
		codes.DataLoss: 500, codes.Unauthenticated: 401,
	}
	// What an error says that came without a reason.
	reasons := map[codes.Code]failure.Reason{
		codes.Canceled: failure.CallerLeft, codes.Unknown: failure.Internal, codes.InvalidArgument: failure.InvalidField,
		codes.DeadlineExceeded: failure.DeadlinePassed, codes.PermissionDenied: failure.NotPermitted,
		codes.Unauthenticated: failure.NotAuthenticated,
		codes.Unimplemented:   failure.NotServed, codes.Internal: failure.Internal, codes.Unavailable: failure.StoreUnavailable,
	}
	for code := codes.Code(1); code < 40; code++ {
		got := post(fails(code), "{}")
		wanted, known := want[code]
		if !known {
			wanted = 500
		}
		if got.Code != wanted {
			t.Errorf("%v: %d, want %d", code, got.Code, wanted)
		}
		var body struct {
			Code    int
			Details []struct{ Reason string }
		}
		reason, known := reasons[code]
		if !known {
			reason = failure.Other
		}
		if err := json.Unmarshal(got.Body.Bytes(), &body); err != nil || body.Code != int(code) || body.Details[0].Reason != string(reason) {
			t.Errorf("%v: body %s (%v), want %s", code, got.Body, err, reason)
		}
		if retry := got.Header().Get("Retry-After"); (retry != "") != (code == codes.Unavailable) {
			t.Errorf("%v: Retry-After: %q", code, retry)
		}
	}
	if got := post(keeps(&rationv1.ReserveRequest{}), "{}"); got.Code != http.StatusOK {
		t.Errorf("OK: %d", got.Code)
	}
}

// Numbers may be numbers or text, as in protobuf's JSON; names as in the proto file, or in the manner of JSON.
func TestSpellings(t *testing.T) {
	var got rationv1.ReserveRequest
	w := post(keeps(&got), `{"caller": {"domain": "d"}, "estimate": {"usage": {"input_tokens": 5, "outputTokens": "9007199254740991"}},
		"idempotency_key": "k", "lease": "1.5s"}`, "Content-Type", "application/json; charset=utf-8")
	want := `{"caller":{"domain":"d"},"estimate":{"usage":{"inputTokens":"5","outputTokens":"9007199254740991"}},"idempotencyKey":"k","lease":"1.500s"}`
	if text, _ := protojson.Marshal(&got); w.Code != http.StatusOK || compact(text) != want {
		t.Errorf("%d %s\nread   %s\nwant   %s", w.Code, w.Body, compact(text), want)
	}
}

func compact(text []byte) string {
	var b bytes.Buffer
	_ = json.Compact(&b, text)
	return b.String()
}

// Fields are written that say 0, false or nothing, so that a caller who reads JSON finds them; messages that are not
// there are left out.
func TestAnswer(t *testing.T) {
	g := serves(Options{}, func(context.Context, *rationv1.ReserveRequest) (*rationv1.ReserveResponse, error) {
		return &rationv1.ReserveResponse{Decision: &rationv1.Decision{Verdict: rationv1.Verdict_VERDICT_ADMITTED, Limits: []*rationv1.LimitStatus{{}}}}, nil
	})
	w := post(g, "{}")
	const want = `{"decision":{"verdict":"VERDICT_ADMITTED","message":"","limits":[{"limit":"","name":"","meter":"METER_UNSPECIFIED",` +
		`"quantity":"","capacity":"0","used":"0","held":"0","remaining":"0","amount":"0","refuses":false,"shadow":false,"tooLarge":false}],` +
		`"retryAfterEstimated":false,"clamped":false,"tier":"","warnings":[],"degraded":"","policyVersion":"","estimatedCost":"0"},` +
		`"replayed":false}` + "\n"
	if w.Body.String() != want || w.Header().Get("Content-Type") != "application/json" || w.Header().Get("Cache-Control") != "no-store" {
		t.Errorf("%v\n%s\nwant\n%s", w.Header(), w.Body, want)
	}
}

// What is not a call is answered before the method hears of it.
func TestRequestsThatAreNone(t *testing.T) {
	g := serves(Options{}, func(context.Context, *rationv1.ReserveRequest) (*rationv1.ReserveResponse, error) {
		t.Error("the method was called")
		return &rationv1.ReserveResponse{}, nil
	})
	for _, c := range []struct {
		name, body, method, path, kind, encoding string
		status                                   int
		reason                                   failure.Reason
		says                                     string
	}{
		{name: "a misspelled field", body: `{"caller": {"domian": "d"}}`, status: 400, reason: failure.UnknownField, says: `domian: ration.v1.ReserveRequest has no such field: (line 1:13): unknown field \"domian\"`},
		{name: "a field of another message", body: `{"usage": {}}`, status: 400, reason: failure.UnknownField, says: `usage: `},
		{name: "a field twice", body: `{"caller": {}, "caller": {}}`, status: 400, reason: failure.MalformedJSON, says: `duplicate field`},
		{name: "both of what is one", body: `{"estimate": {"usage": {}, "prompt": {}}}`, status: 400, reason: failure.MalformedJSON, says: "oneof"},
		{name: "half of it", body: `{"caller": `, status: 400, reason: failure.MalformedJSON, says: "unexpected EOF"},
		{name: "text after it", body: `{} {}`, status: 400, reason: failure.MalformedJSON, says: "unexpected token"},
		{name: "a list", body: `[]`, status: 400, reason: failure.MalformedJSON, says: "unexpected token"},
		{name: "half a token", body: `{"estimate": {"usage": {"inputTokens": 1.5}}}`, status: 400, reason: failure.MalformedJSON, says: "inputTokens"},
		{name: "more than 64 bits", body: `{"estimate": {"usage": {"inputTokens": 99999999999999999999}}}`, status: 400, reason: failure.MalformedJSON, says: "inputTokens"},
		{name: "no time", body: `{"lease": "soon"}`, status: 400, reason: failure.MalformedJSON, says: "soon"},
		{name: "not UTF-8", body: "{\"idempotencyKey\": \"\xff\"}", status: 400, reason: failure.MalformedJSON, says: "UTF-8"},
		{name: "too large", body: `{"idempotencyKey": "` + strings.Repeat("x", MaxBodyBytes) + `"}`, status: 413, reason: failure.BodyTooLarge, says: "1048576 bytes"},
		{name: "too deep", body: strings.Repeat(`{"caller":`, 100_000), status: 400, reason: failure.UnknownField},
		{name: "no method", path: "/ration.v1.AccountingService/Reserv", status: 404, reason: failure.UnknownMethod, says: "AccountingService/Reserv"},
		{name: "not posted", method: http.MethodGet, status: 405, reason: failure.MethodNotAllowed, says: "POST"},
		{name: "a form of a web page", body: "caller=x", kind: "application/x-www-form-urlencoded", status: 415, reason: failure.NotJSON, says: "application/json"},
		{name: "plain text, as any web page may send", body: "{}", kind: "text/plain", status: 415, reason: failure.NotJSON, says: "application/json"},
		{name: "of no type", body: "{}", kind: "-", status: 415, reason: failure.NotJSON, says: "application/json"},
		{name: "compressed", body: "{}", encoding: "gzip", status: 415, reason: failure.NotJSON, says: "not compressed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			method, at, kind := c.method, c.path, c.kind
			if method == "" {
				method = http.MethodPost
			}
			if at == "" {
				at = path
			}
			r := httptest.NewRequestWithContext(context.Background(), method, at, strings.NewReader(c.body))
			switch kind {
			case "":
				r.Header.Set("Content-Type", "application/json")
			case "-":
			default:
				r.Header.Set("Content-Type", kind)
			}
			r.Header.Set("Content-Encoding", c.encoding)
			w := httptest.NewRecorder()
			g.ServeHTTP(w, r)
			if w.Code != c.status || !strings.Contains(w.Body.String(), `"reason":"`+string(c.reason)+`"`) || !strings.Contains(w.Body.String(), c.says) {
				t.Errorf("%d %s\nwant %d %s: %s", w.Code, w.Body, c.status, c.reason, c.says)
			}
			if allow := w.Header().Get("Allow"); (allow == "POST") != (c.status == http.StatusMethodNotAllowed) {
				t.Errorf("Allow: %q", allow)
			}
		})
	}
}

// A misspelled field is named where programs look for it, too.
func TestUnknownFieldIsNamed(t *testing.T) {
	w := post(fails(codes.OK), `{"caller": {"domian": "d"}}`)
	if !strings.Contains(w.Body.String(), `"fieldViolations":[{"field":"domian",`) {
		t.Error(w.Body)
	}
}

// So is one whose value cannot be, with what it can be: the text of the decoder says only where it stands.
func TestMisfitIsNamed(t *testing.T) {
	for body, says := range map[string]string{
		`{"lease": "soon"}`:   `lease: write seconds, as \"300s\": (line 1:11)`,
		`{"lease": 300}`:      `lease: write seconds, as \"300s\": syntax error (line 1:11)`,
		`{"caller": "alice"}`: `caller: write an object`,
		`{"caller": {"domain": "d", "attributes": {"ä": "é", "user": 5}}}`:                             `caller.attributes[\"user\"]: write text`,
		"{\n\"caller\": {\"domain\": \"d\"},\n  \"estimate\": {\"usage\": {\"input_tokens\": \"x\"}}}": `estimate.usage.input_tokens: write a whole number`,
		`{"estimate": {"prompt": {"outputCaps": 500}}}`:                                                `estimate.prompt.output_caps: write an object`,
		`{"estimate": {"prompt": {"outputCaps": {"max_tokens": 1.5}}}}`:                                `estimate.prompt.output_caps[\"max_tokens\"]: write a whole number`,
	} {
		w := post(fails(codes.OK), body)
		field, _, _ := strings.Cut(says, ": ")
		if !strings.Contains(w.Body.String(), `"message":"`+says) || !strings.Contains(w.Body.String(), `"field":"`+field+`"`) {
			t.Errorf("%s\n%s\nwant %s", body, w.Body, says)
		}
	}
	for _, c := range []struct {
		request    proto.Message
		body, want string
	}{
		{&rationv1.QueryUsageRequest{}, `{"from": "2026-01-31"}`, `from: write an instant, as "2026-01-31T00:00:00Z"`},
		{&rationv1.TopUsageRequest{}, `{"by": "money"}`, `by: write one of RANKING_REQUESTS, RANKING_TOKENS, RANKING_COST, RANKING_REFUSALS`},
		{&rationv1.BatchSettleRequest{}, `{"items": [{"release": {}}, 5]}`, `items[1]: write an object, { … }`},
	} {
		if err := unmarshal([]byte(c.body), c.request); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %s", err, c.want)
		}
	}
}

func TestBodyThatBreaksOff(t *testing.T) {
	r := httptest.NewRequestWithContext(context.Background(), http.MethodPost, path, iotest.ErrReader(context.Canceled))
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	fails(codes.Internal).ServeHTTP(w, r)
	if w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), "MALFORMED_JSON") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// A request without fields needs no body.
func TestNoBody(t *testing.T) {
	var got rationv1.ReserveRequest
	if w := post(keeps(&got), " \n", "Content-Type", ""); w.Code != http.StatusOK || !proto.Equal(&got, &rationv1.ReserveRequest{}) {
		t.Errorf("%d %s, read %v", w.Code, w.Body, &got)
	}
}

// A call ends by itself, before the connection would be cut.
func TestTimeout(t *testing.T) {
	g := serves(Options{Timeout: time.Millisecond}, func(ctx context.Context, _ *rationv1.ReserveRequest) (*rationv1.ReserveResponse, error) {
		<-ctx.Done()
		return nil, failure.Of(ctx.Err())
	})
	if w := post(g, "{}"); w.Code != http.StatusGatewayTimeout || !strings.Contains(w.Body.String(), "DEADLINE_PASSED") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// What runs around the calls of a gRPC server runs around these too, and knows the method by the same name.
func TestInterceptor(t *testing.T) {
	var called string
	g := serves(Options{Unary: func(_ context.Context, _ any, info *grpc.UnaryServerInfo, _ grpc.UnaryHandler) (any, error) {
		called = info.FullMethod
		return nil, status.Error(codes.PermissionDenied, "no")
	}}, nil)
	if w := post(g, "{}"); w.Code != http.StatusForbidden || called != path {
		t.Errorf("%d, called %q", w.Code, called)
	}
}

func TestPanic(t *testing.T) {
	g := serves(Options{}, nil)
	if w := post(g, "{}"); w.Code != http.StatusInternalServerError || !strings.Contains(w.Body.String(), `"reason":"INTERNAL"`) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// Whatever is posted, the answer is JSON, and one that was read is read the same when it is written again.
func FuzzPost(f *testing.F) {
	for _, seed := range []string{
		`{}`, ``, `{"caller": {"domain": "d", "attributes": {"user": "a"}, "model": "m"}}`,
		`{"estimate": {"usage": {"inputTokens": "5", "output_tokens": 1e3}}, "lease": "300s", "idempotencyKey": "k"}`,
		`{"estimate": {"prompt": {"characters": 5, "outputCaps": {"max_tokens": -1}, "choices": {"n": 2}}}}`,
		`{"callr": 1}`, `[[[[`, `null`, `{"caller": null}`, "\xff", `{"lease": "9223372036854775807s"}`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body string) {
		var first, second rationv1.ReserveRequest
		w := post(keeps(&first), body)
		if !json.Valid(w.Body.Bytes()) {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		switch w.Code {
		case http.StatusOK:
			again, err := protojson.Marshal(&first)
			if err != nil {
				t.Fatal(err)
			}
			if w := post(keeps(&second), string(again)); w.Code != http.StatusOK || !proto.Equal(&first, &second) {
				t.Errorf("read %v, written %s, and read %v", &first, again, &second)
			}
		case http.StatusBadRequest, http.StatusRequestEntityTooLarge:
		default:
			t.Errorf("%d %s", w.Code, w.Body)
		}
	})
}
