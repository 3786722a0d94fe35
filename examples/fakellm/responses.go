package main

import (
	"encoding/json"
	"iter"
	"net/http"
)

// responses speaks Responses: https://platform.openai.com/docs/api-reference/responses and /responses-streaming.
type responses struct{ openAI }

func (responses) name() string { return "responses" }

func (responses) read(_ *http.Request, body []byte) (ask, *fault) {
	var request struct {
		Model           string          `json:"model"`
		Input           json.RawMessage `json:"input"`
		Instructions    json.RawMessage `json:"instructions"`
		Tools           json.RawMessage `json:"tools"`
		MaxOutputTokens *int64          `json:"max_output_tokens"`
		Stream          bool            `json:"stream"`
	}
	if err := json.Unmarshal(body, &request); err != nil {
		return ask{}, invalid("", "the body is no request: "+err.Error())
	}
	text := textIn(request.Instructions, request.Input)
	a := ask{
		model: request.Model, prompt: text, promptTokens: promptTokens(text, request.Tools), choices: 1, stream: request.Stream,
	}
	switch {
	case request.Model == "":
		return a, invalid("model", "you must provide a model parameter")
	case len(request.Input) == 0:
		return a, invalid("input", "input: a string or a list is required")
	case request.MaxOutputTokens != nil && *request.MaxOutputTokens < 1:
		return a, invalid("max_output_tokens", "max_output_tokens: must be 1 or more")
	}
	a.limit = orElse(request.MaxOutputTokens, 0)
	return a, nil
}

// response is an answer, at any stage.
type response struct {
	ID                string              `json:"id"`
	Object            string              `json:"object"`
	CreatedAt         int64               `json:"created_at"`
	Status            string              `json:"status"`
	Background        bool                `json:"background"`
	Error             any                 `json:"error"`
	IncompleteDetails *responseIncomplete `json:"incomplete_details"`
	Instructions      any                 `json:"instructions"`
	MaxOutputTokens   *int64              `json:"max_output_tokens"`
	Model             string              `json:"model"`
	Output            []any               `json:"output"`
	ParallelToolCalls bool                `json:"parallel_tool_calls"`
	PreviousResponse  *string             `json:"previous_response_id"`
	ServiceTier       string              `json:"service_tier"`
	Store             bool                `json:"store"`
	Temperature       float64             `json:"temperature"`
	ToolChoice        string              `json:"tool_choice"`
	Tools             []any               `json:"tools"`
	TopP              float64             `json:"top_p"`
	Truncation        string              `json:"truncation"`
	Usage             *responseUsage      `json:"usage"`
	User              *string             `json:"user"`
	Metadata          map[string]string   `json:"metadata"`
}

type responseIncomplete struct {
	Reason string `json:"reason"`
}

type responseUsage struct {
	Input         int64                 `json:"input_tokens"`
	InputDetails  responseInputDetails  `json:"input_tokens_details"`
	Output        int64                 `json:"output_tokens"`
	OutputDetails responseOutputDetails `json:"output_tokens_details"`
	Total         int64                 `json:"total_tokens"`
}

type responseInputDetails struct {
	Cached     int64 `json:"cached_tokens"`
	CacheWrite int64 `json:"cache_write_tokens"`
}

type responseOutputDetails struct {
	Reasoning int64 `json:"reasoning_tokens"`
}

// responseReasoning is an item that stands for reasoning of which nothing is shown.
type responseReasoning struct {
	ID      string `json:"id"`
	Type    string `json:"type"`
	Summary []any  `json:"summary"`
}

type responseMessage struct {
	ID      string         `json:"id"`
	Type    string         `json:"type"`
	Status  string         `json:"status"`
	Role    string         `json:"role"`
	Content []responseText `json:"content"`
}

type responseText struct {
	Type        string `json:"type"`
	Annotations []any  `json:"annotations"`
	Logprobs    []any  `json:"logprobs"`
	Text        string `json:"text"`
}

// Stages of a response.
const (
	inProgress = "in_progress"
	complete   = "completed"
	incomplete = "incomplete"
	failure    = "failed"
)

// end is the last stage of an answer.
func (responses) end(x *exchange) string {
	if x.capped {
		return incomplete
	}
	return complete
}

func (d responses) at(x *exchange, status string) response {
	r := response{
		ID: x.id("resp_"), Object: "response", CreatedAt: x.created.Unix(), Status: status, Model: x.model,
		Output: []any{}, ParallelToolCalls: true, ServiceTier: "default", Store: true, Temperature: 1, ToolChoice: "auto",
		Tools: []any{}, TopP: 1, Truncation: "disabled", Metadata: map[string]string{},
	}
	if x.limit > 0 {
		r.MaxOutputTokens = &x.limit
	}
	if status != complete && status != incomplete {
		return r
	}
	if status == incomplete {
		r.IncompleteDetails = &responseIncomplete{Reason: "max_output_tokens"}
	}
	if x.plan.reasoning > 0 {
		r.Output = append(r.Output, d.reasoning(x))
	}
	if len(x.texts[0]) > 0 {
		r.Output = append(r.Output, d.message(x, status, d.text(x.text(0))))
	}
	if t := x.tokens; !x.noUsage {
		r.Usage = &responseUsage{
			Input: t.wholePrompt(), InputDetails: responseInputDetails{Cached: t.CacheRead, CacheWrite: t.CacheWrite},
			Output: t.Output, OutputDetails: responseOutputDetails{Reasoning: t.Reasoning},
			Total: t.wholePrompt() + t.Output,
		}
	}
	return r
}

func (responses) reasoning(x *exchange) responseReasoning {
	return responseReasoning{ID: x.id("rs_"), Type: "reasoning", Summary: []any{}}
}

func (responses) message(x *exchange, status string, content ...responseText) responseMessage {
	if content == nil {
		content = []responseText{}
	}
	return responseMessage{ID: x.id("msg_"), Type: "message", Status: status, Role: "assistant", Content: content}
}

func (responses) text(text string) responseText {
	return responseText{Type: "output_text", Annotations: []any{}, Logprobs: []any{}, Text: text}
}

func (d responses) whole(x *exchange) any { return d.at(x, d.end(x)) }

// numberedFrom makes events that carry their place in the stream, the first the given one.
func numberedFrom(sequence int) func(name string, more ...field) event {
	return func(name string, more ...field) event {
		data := append(object{{"type", name}, {"sequence_number", sequence}}, more...)
		sequence++
		return event{name: name, data: data}
	}
}

func (d responses) events(x *exchange) iter.Seq[event] {
	return func(yield func(event) bool) {
		say := numberedFrom(0)
		if !yield(say("response.created", field{"response", d.at(x, inProgress)})) ||
			!yield(say("response.in_progress", field{"response", d.at(x, inProgress)})) {
			return
		}
		item := 0
		if x.plan.reasoning > 0 {
			at, thought := field{"output_index", item}, field{"item", d.reasoning(x)}
			if !yield(say("response.output_item.added", at, thought)) || !x.think(yield) ||
				!yield(say("response.output_item.done", at, thought)) {
				return
			}
			item++
		}
		if len(x.texts[0]) > 0 && !d.messageEvents(x, item, say, yield) {
			return
		}
		end := d.end(x)
		yield(say("response."+end, field{"response", d.at(x, end)}))
	}
}

// messageEvents streams the text, as the only part of the message at the given place of the output.
func (d responses) messageEvents(x *exchange, item int, say func(string, ...field) event, yield func(event) bool) bool {
	part := func(more ...field) []field {
		return append([]field{{"item_id", x.id("msg_")}, {"output_index", item}, {"content_index", 0}}, more...)
	}
	if !yield(say("response.output_item.added", field{"output_index", item}, field{"item", d.message(x, inProgress)})) ||
		!yield(say("response.content_part.added", part(field{"part", d.text("")})...)) {
		return false
	}
	for n, text := range x.chunks(0) {
		delta := say("response.output_text.delta", part(field{"delta", text}, field{"logprobs", []any{}})...)
		delta.output = n
		if !yield(delta) {
			return false
		}
	}
	text := x.text(0)
	message := d.message(x, d.end(x), d.text(text))
	return yield(say("response.output_text.done", part(field{"text", text}, field{"logprobs", []any{}})...)) &&
		yield(say("response.content_part.done", part(field{"part", d.text(text)})...)) &&
		yield(say("response.output_item.done", field{"output_index", item}, field{"item", message}))
}

// errorEvents tell of an error twice, as the real service does: by itself, and as the state of the response.
func (d responses) errorEvents(x *exchange, f *fault, sent int) []event {
	detail := d.errorDetail(x, f)
	say := numberedFrom(sent)
	broken := d.at(x, failure)
	code := detail.Code
	if code == nil {
		code = &detail.Type
	}
	broken.Error = object{{"code", *code}, {"message", detail.Message}}
	return []event{
		say("error", field{"code", *code}, field{"message", detail.Message}, field{"param", detail.Param}),
		say("response.failed", field{"response", broken}),
	}
}
