package contract

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"
)

// Answers are trees of map[string]any, []any, string, float64 and bool, the same whether they were read from a case
// or came from a server, so that one function compares them and one writes them.

const (
	processExits = "exits"
	processLives = "lives"

	// anyText stands in a recorded answer for a text that is not compared.
	anyText = "<text>"
)

// responseTree is an answer in the notation of the cases.
func responseTree(r *rlsv3.RateLimitResponse) (map[string]any, error) {
	tree := map[string]any{"overall_code": r.GetOverallCode().String()}
	var statuses []any
	for _, s := range r.GetStatuses() {
		st := map[string]any{"code": s.GetCode().String()}
		if l := s.GetCurrentLimit(); l != nil {
			st["current_limit"] = limitText(l)
		}
		if s.GetLimitRemaining() != 0 || s.GetCurrentLimit() != nil {
			st["limit_remaining"] = float64(s.GetLimitRemaining())
		}
		if d := s.GetDurationUntilReset(); d != nil {
			st["duration_until_reset"] = secondsText(d.GetSeconds(), d.GetNanos())
		}
		if q := s.GetQuota(); q != nil {
			text, err := protojson.Marshal(q)
			if err != nil {
				return nil, err
			}
			var quota any
			if err := json.Unmarshal(text, &quota); err != nil {
				return nil, err
			}
			st["quota"] = quota
		}
		statuses = append(statuses, st)
	}
	if statuses != nil {
		tree["statuses"] = statuses
	}
	if h := headerTree(r.GetResponseHeadersToAdd()); h != nil {
		tree["response_headers_to_add"] = h
	}
	if h := headerTree(r.GetRequestHeadersToAdd()); h != nil {
		tree["request_headers_to_add"] = h
	}
	if len(r.GetRawBody()) > 0 {
		tree["raw_body"] = string(r.GetRawBody())
	}
	if m := r.GetDynamicMetadata(); m != nil {
		tree["dynamic_metadata"] = metadataTree(m)
	}
	return tree, nil
}

// limitText writes a limit as "3 per DAY", "3 per 10 MINUTE", "3 per DAY named burst".
func limitText(l *rlsv3.RateLimitResponse_RateLimit) string {
	text := fmt.Sprintf("%d per %s", l.GetRequestsPerUnit(), windowText(l))
	if l.GetName() != "" {
		text += " named " + l.GetName()
	}
	return text
}

func windowText(l *rlsv3.RateLimitResponse_RateLimit) string {
	if m := l.GetUnitMultiplier(); m != nil {
		return fmt.Sprintf("%d %s", m.GetValue(), l.GetUnit())
	}
	return l.GetUnit().String()
}

func secondsText(seconds int64, nanos int32) string {
	if nanos != 0 {
		return fmt.Sprintf("%d.%09ds", seconds, nanos)
	}
	return strconv.FormatInt(seconds, 10) + "s"
}

func headerTree(headers []*corev3.HeaderValue) []any {
	var out []any
	for _, h := range headers {
		value := h.GetValue()
		if value == "" {
			value = string(h.GetRawValue())
		}
		out = append(out, map[string]any{h.GetKey(): value})
	}
	return out
}

// metadataTree is dynamic metadata without the text of overrides, which is not meant to be stable.
func metadataTree(m *structpb.Struct) any {
	tree := m.AsMap()
	descriptors, _ := tree["descriptors"].([]any)
	for _, d := range descriptors {
		if d, ok := d.(map[string]any); ok {
			if _, isText := d["limit"].(string); isText {
				d["limit"] = anyText
			}
		}
	}
	return tree
}

// errorTree is a gRPC error in the notation of the cases.
func errorTree(err error) map[string]any {
	s := status.Convert(err)
	return map[string]any{"error": map[string]any{"code": codeText(s.Code()), "message": s.Message()}}
}

// codeText writes a code as the protocol spells it: INVALID_ARGUMENT.
func codeText(c codes.Code) string {
	var out strings.Builder
	for i, r := range c.String() {
		if i > 0 && r >= 'A' && r <= 'Z' && c != codes.OK {
			out.WriteByte('_')
		}
		out.WriteRune(r)
	}
	return strings.ToUpper(out.String())
}

// httpOf is what /json has to send for an answer, as far as the answer alone decides it: status, content type, and
// the body of an error. The second result tells whether the body is that of an error.
func httpOf(want map[string]any, c Column) (answer map[string]any, isError bool) {
	if e, ok := want["error"].(map[string]any); ok {
		// Over /json the reference answers every error alike; ration lets a caller tell its own mistake from an outage.
		if c == Ration && (e["code"] == "UNAVAILABLE") {
			return map[string]any{"status": float64(503), "content_type": "text/plain; charset=utf-8"}, true
		}
		return map[string]any{
			"status": float64(400), "content_type": "text/plain; charset=utf-8", "body": "Bad Request\n",
		}, true
	}
	code := 200
	if want["overall_code"] == "OVER_LIMIT" {
		code = 429
	}
	return map[string]any{"status": float64(code), "content_type": "application/json"}, false
}

// decodeJSONAnswer reads a body of /json, or says what is wrong with it. The body must be written as protojson writes
// it: lowerCamelCase, and nothing that has its zero value.
func decodeJSONAnswer(body []byte) (answer map[string]any, problem string) {
	var r rlsv3.RateLimitResponse
	if err := protojson.Unmarshal(body, &r); err != nil {
		return nil, fmt.Sprintf("body is not a RateLimitResponse: %v", err)
	}
	canonical, err := protojson.Marshal(&r)
	if err != nil {
		return nil, fmt.Sprintf("body cannot be written again: %v", err)
	}
	var got, want any
	if err := json.Unmarshal(body, &got); err != nil {
		return nil, fmt.Sprintf("body is not JSON: %v", err)
	}
	if err := json.Unmarshal(canonical, &want); err != nil {
		return nil, fmt.Sprintf("body cannot be read again: %v", err)
	}
	if diff := compare(want, got, nil); len(diff) > 0 {
		return nil, "body is not in protojson form: " + strings.Join(diff, "; ")
	}
	answer, err = responseTree(&r)
	if err != nil {
		return nil, err.Error()
	}
	return answer, ""
}
