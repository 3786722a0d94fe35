package main

import (
	"encoding/json"
	"fmt"
	"iter"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// anthropic speaks the Messages API: https://platform.claude.com/docs/en/api/messages, its streams and its errors.
type anthropic struct{}

func (anthropic) name() string     { return "messages" }
func (anthropic) provider() string { return "anthropic" }
func (anthropic) overloaded() int  { return statusOverloaded }

func (anthropic) key(r *http.Request) string {
	if key := r.Header.Get("X-Api-Key"); key != "" {
		return key
	}
	return bearer(r)
}

// bearer is the token of the Authorization header.
func bearer(r *http.Request) string {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}

// readPrompt understands what messages and count_tokens have in common.
func (anthropic) readPrompt(r *http.Request, body []byte) (ask, *int64, *fault) {
	var request struct {
		Model     string          `json:"model"`
		MaxTokens *int64          `json:"max_tokens"`
		System    json.RawMessage `json:"system"`
		Messages  json.RawMessage `json:"messages"`
		Tools     json.RawMessage `json:"tools"`
		Stream    bool            `json:"stream"`
	}
	if err := json.Unmarshal(body, &request); err != nil {
		return ask{}, nil, invalid("", "the body is no request: "+err.Error())
	}
	text := textIn(request.System, request.Messages)
	a := ask{
		model: request.Model, prompt: text, promptTokens: promptTokens(text, request.Tools), choices: 1, stream: request.Stream,
	}
	switch {
	case r.Header.Get("Anthropic-Version") == "":
		return a, nil, invalid("", "anthropic-version: the header is required")
	case request.Model == "":
		return a, nil, invalid("model", "model: Field required")
	case !isList(request.Messages):
		return a, nil, invalid("messages", "messages: at least one message is required")
	}
	return a, request.MaxTokens, nil
}

// isList tells whether a field is a list with anything in it.
func isList(field json.RawMessage) bool {
	var list []json.RawMessage
	return json.Unmarshal(field, &list) == nil && len(list) > 0
}

func (d anthropic) read(r *http.Request, body []byte) (ask, *fault) {
	a, most, f := d.readPrompt(r, body)
	switch {
	case f != nil:
		return a, f
	case most == nil:
		return a, invalid("max_tokens", "max_tokens: Field required")
	case *most < 1:
		return a, invalid("max_tokens", "max_tokens: must be 1 or more")
	}
	a.limit = *most
	return a, nil
}

// demand: what is read from the cache is free of the limit, and max_tokens plays no part in that of output, which is
// judged by what is written.
func (anthropic) demand(_ ask, p plan) demand {
	return demand{input: p.tokens.Input + p.tokens.CacheWrite, output: 1}
}

func (anthropic) head(h http.Header, x *exchange, s standings, f *fault) {
	h.Set("Request-Id", x.id("req_"))
	h.Set("Anthropic-Organization-Id", "00000000-0000-4000-8000-000000000000")
	tell := func(name string, s standing) {
		if s.limit == 0 {
			return
		}
		h.Set("Anthropic-Ratelimit-"+name+"-Limit", strconv.FormatInt(s.limit, 10))
		h.Set("Anthropic-Ratelimit-"+name+"-Remaining", strconv.FormatInt(s.remaining, 10))
		h.Set("Anthropic-Ratelimit-"+name+"-Reset", upToSecond(s.fullAt).UTC().Format(time.RFC3339))
	}
	tell("Requests", s.requests)
	tell("Input-Tokens", s.input)
	tell("Output-Tokens", s.output)
	if s.input.limit > 0 && s.output.limit > 0 {
		both := standing{
			limit: s.input.limit + s.output.limit, remaining: s.input.remaining + s.output.remaining, fullAt: s.input.fullAt,
		}
		if s.output.fullAt.After(both.fullAt) {
			both.fullAt = s.output.fullAt
		}
		tell("Tokens", both)
	}
	if f == nil {
		return
	}
	if f.retryAfter > 0 {
		h.Set("Retry-After", wholeSeconds(f.retryAfter))
	}
	if f.retryAfter > 0 || f.status >= http.StatusInternalServerError {
		h.Set("X-Should-Retry", "true")
	}
}

// wholeSeconds rounds up, so that whoever waits as long does not come too early.
func wholeSeconds(d time.Duration) string {
	return strconv.FormatInt(int64(math.Ceil(d.Seconds())), 10)
}

// upToSecond rounds up, for the same reason.
func upToSecond(at time.Time) time.Time { return at.Add(time.Second - 1).Truncate(time.Second) }

// anthropicMessage is an answer, or the beginning of one.
type anthropicMessage struct {
	ID           string          `json:"id"`
	Type         string          `json:"type"`
	Role         string          `json:"role"`
	Model        string          `json:"model"`
	Content      []any           `json:"content"`
	StopReason   *string         `json:"stop_reason"`
	StopSequence *string         `json:"stop_sequence"`
	Usage        *anthropicUsage `json:"usage,omitempty"`
}

type anthropicUsage struct {
	Input         int64                   `json:"input_tokens"`
	CacheCreation int64                   `json:"cache_creation_input_tokens"`
	CacheRead     int64                   `json:"cache_read_input_tokens"`
	ByTTL         *anthropicCacheCreation `json:"cache_creation,omitempty"`
	Output        int64                   `json:"output_tokens"`
	OutputDetails *anthropicOutputDetails `json:"output_tokens_details,omitempty"`
	ServiceTier   string                  `json:"service_tier,omitempty"`
}

type anthropicCacheCreation struct {
	FiveMinutes int64 `json:"ephemeral_5m_input_tokens"`
	OneHour     int64 `json:"ephemeral_1h_input_tokens"`
}

type anthropicOutputDetails struct {
	Thinking int64 `json:"thinking_tokens"`
}

// usage is what a message says at its beginning or at its end, with so much output.
func (anthropic) usage(x *exchange, output, thinking int64) *anthropicUsage {
	if x.noUsage {
		return nil
	}
	t := x.tokens
	usage := &anthropicUsage{
		Input: t.Input, CacheCreation: t.CacheWrite, CacheRead: t.CacheRead,
		ByTTL:  &anthropicCacheCreation{FiveMinutes: t.CacheWrite - t.CacheWrite1h, OneHour: t.CacheWrite1h},
		Output: output, ServiceTier: "standard",
	}
	if thinking > 0 {
		usage.OutputDetails = &anthropicOutputDetails{Thinking: thinking}
	}
	return usage
}

// finalUsage is what message_delta says: the amounts of the whole message.
func (d anthropic) finalUsage(x *exchange) *anthropicUsage {
	usage := d.usage(x, x.tokens.Output, x.tokens.Reasoning)
	if usage != nil {
		usage.ByTTL, usage.ServiceTier = nil, ""
	}
	return usage
}

type anthropicText struct {
	Type string `json:"type"`
	Text string `json:"text"`
}

// anthropicThinking is reasoning of which nothing is shown.
type anthropicThinking struct {
	Type      string `json:"type"`
	Thinking  string `json:"thinking"`
	Signature string `json:"signature"`
}

func (anthropic) stopReason(x *exchange) string {
	if x.capped {
		return "max_tokens"
	}
	return "end_turn"
}

func (d anthropic) whole(x *exchange) any {
	content := []any{}
	if x.plan.reasoning > 0 {
		content = append(content, anthropicThinking{Type: "thinking", Signature: x.id("")})
	}
	if len(x.texts[0]) > 0 {
		content = append(content, anthropicText{Type: "text", Text: x.text(0)})
	}
	why := d.stopReason(x)
	return anthropicMessage{
		ID: x.id("msg_"), Type: "message", Role: "assistant", Model: x.model, Content: content, StopReason: &why,
		Usage: d.usage(x, x.tokens.Output, x.tokens.Reasoning),
	}
}

// anthropicEvent has its name twice, as the real ones do.
func anthropicEvent(name string, more ...field) event {
	return event{name: name, data: append(object{{"type", name}}, more...)}
}

func (d anthropic) events(x *exchange) iter.Seq[event] {
	return func(yield func(event) bool) {
		// The real service begins to count before it begins to write; only the last count is to be relied on.
		begun := anthropicMessage{
			ID: x.id("msg_"), Type: "message", Role: "assistant", Model: x.model, Content: []any{},
			Usage: d.usage(x, min(1, x.tokens.Output), 0),
		}
		if !yield(anthropicEvent("message_start", field{"message", begun})) {
			return
		}
		blocks := 0
		if x.plan.reasoning > 0 {
			if !d.thinkingEvents(x, yield) {
				return
			}
			blocks++
		}
		if len(x.texts[0]) > 0 && !d.textEvents(x, blocks, yield) {
			return
		}
		end := []field{{"delta", object{{"stop_reason", d.stopReason(x)}, {"stop_sequence", nil}}}}
		if usage := d.finalUsage(x); usage != nil {
			end = append(end, field{"usage", usage})
		}
		_ = yield(anthropicEvent("message_delta", end...)) && yield(anthropicEvent("message_stop"))
	}
}

// thinkingEvents are the first block, of which nothing but a signature is seen.
func (anthropic) thinkingEvents(x *exchange, yield func(event) bool) bool {
	at := field{"index", 0}
	signature := object{{"type", "signature_delta"}, {"signature", x.id("")}}
	return yield(anthropicEvent("content_block_start", at, field{"content_block", anthropicThinking{Type: "thinking"}})) &&
		yield(anthropicEvent("ping")) &&
		x.think(yield) &&
		yield(anthropicEvent("content_block_delta", at, field{"delta", signature})) &&
		yield(anthropicEvent("content_block_stop", at))
}

// textEvents are the block of the given index.
func (anthropic) textEvents(x *exchange, index int, yield func(event) bool) bool {
	at := field{"index", index}
	if !yield(anthropicEvent("content_block_start", at, field{"content_block", anthropicText{Type: "text"}})) {
		return false
	}
	if index == 0 && !yield(anthropicEvent("ping")) {
		return false
	}
	for n, text := range x.chunks(0) {
		delta := anthropicEvent("content_block_delta", at, field{"delta", anthropicText{Type: "text_delta", Text: text}})
		delta.output = n
		if !yield(delta) {
			return false
		}
	}
	return yield(anthropicEvent("content_block_stop", at))
}

type anthropicError struct {
	Type      string               `json:"type"`
	Error     anthropicErrorDetail `json:"error"`
	RequestID string               `json:"request_id"`
}

type anthropicErrorDetail struct {
	Type    string `json:"type"`
	Message string `json:"message"`
}

// anthropicErrorType is the type of errors of a status.
func anthropicErrorType(status int) string {
	switch status {
	case http.StatusUnauthorized:
		return "authentication_error"
	case http.StatusPaymentRequired:
		return "billing_error"
	case http.StatusForbidden:
		return "permission_error"
	case http.StatusNotFound:
		return "not_found_error"
	case http.StatusRequestEntityTooLarge:
		return "request_too_large"
	case http.StatusTooManyRequests:
		return "rate_limit_error"
	case http.StatusGatewayTimeout:
		return "timeout_error"
	case statusOverloaded:
		return "overloaded_error"
	}
	if status < http.StatusInternalServerError {
		return "invalid_request_error"
	}
	return "api_error"
}

func (anthropic) errorBody(x *exchange, f *fault) any {
	kind, message := f.kind, f.message
	if kind == "" {
		kind = anthropicErrorType(f.status)
	}
	if r := f.refusal; r != nil {
		message = fmt.Sprintf("This request would exceed the rate limit of %d %s per minute.", r.perMinute, r.limit)
	}
	return anthropicError{Type: "error", Error: anthropicErrorDetail{Type: kind, Message: message}, RequestID: x.id("req_")}
}

func (d anthropic) errorEvents(x *exchange, f *fault, _ int) []event {
	return []event{{name: "error", data: d.errorBody(x, f)}}
}
