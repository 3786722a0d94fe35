package main

import (
	"encoding/json"
	"iter"
	"net/http"
)

// chat speaks Chat Completions: https://platform.openai.com/docs/api-reference/chat.
type chat struct{ openAI }

func (chat) name() string { return "chat" }

// maxChoices is the most that a request may ask for.
const maxChoices = 128

func (chat) read(_ *http.Request, body []byte) (ask, *fault) {
	var request struct {
		Model               string          `json:"model"`
		Messages            json.RawMessage `json:"messages"`
		Tools               json.RawMessage `json:"tools"`
		MaxTokens           *int64          `json:"max_tokens"`
		MaxCompletionTokens *int64          `json:"max_completion_tokens"`
		Choices             *int            `json:"n"`
		Stream              bool            `json:"stream"`
		StreamOptions       *struct {
			IncludeUsage bool `json:"include_usage"`
		} `json:"stream_options"`
	}
	if err := json.Unmarshal(body, &request); err != nil {
		return ask{}, invalid("", "the body is no request: "+err.Error())
	}
	text := textIn(request.Messages)
	a := ask{
		model: request.Model, prompt: text, promptTokens: promptTokens(text, request.Tools), choices: 1, stream: request.Stream,
	}
	if request.Choices != nil {
		a.choices = *request.Choices
	}
	a.streamUsage = request.StreamOptions != nil && request.StreamOptions.IncludeUsage
	most := firstOf(request.MaxCompletionTokens, request.MaxTokens)
	switch {
	case request.Model == "":
		return a, invalid("model", "you must provide a model parameter")
	case !isList(request.Messages):
		return a, invalid("messages", "messages: want at least one")
	case a.choices < 1 || a.choices > maxChoices:
		return a, invalid("n", "n: want 1 to 128")
	case request.MaxTokens != nil && request.MaxCompletionTokens != nil:
		return a, invalid("max_tokens", "max_tokens and max_completion_tokens exclude each other")
	case most != nil && *most < 1:
		return a, invalid("max_tokens", "the cap of the output must be 1 or more")
	case request.StreamOptions != nil && !request.Stream:
		return a, invalid("stream_options", "stream_options are for streams")
	}
	a.limit = orElse(most, 0)
	return a, nil
}

// chatCompletion is an answer, and with other choices a chunk of one.
type chatCompletion struct {
	ID          string `json:"id"`
	Object      string `json:"object"`
	Created     int64  `json:"created"`
	Model       string `json:"model"`
	Choices     []any  `json:"choices"`
	Usage       any    `json:"usage,omitempty"`
	ServiceTier string `json:"service_tier"`
	Fingerprint string `json:"system_fingerprint"`
}

type chatUsage struct {
	Prompt            int64                 `json:"prompt_tokens"`
	Completion        int64                 `json:"completion_tokens"`
	Total             int64                 `json:"total_tokens"`
	PromptDetails     chatPromptDetails     `json:"prompt_tokens_details"`
	CompletionDetails chatCompletionDetails `json:"completion_tokens_details"`
}

type chatPromptDetails struct {
	Cached     int64 `json:"cached_tokens"`
	CacheWrite int64 `json:"cache_write_tokens"`
	Audio      int64 `json:"audio_tokens"`
}

type chatCompletionDetails struct {
	Reasoning          int64 `json:"reasoning_tokens"`
	Audio              int64 `json:"audio_tokens"`
	AcceptedPrediction int64 `json:"accepted_prediction_tokens"`
	RejectedPrediction int64 `json:"rejected_prediction_tokens"`
}

func (chat) usage(x *exchange) chatUsage {
	t := x.tokens
	return chatUsage{
		Prompt: t.wholePrompt(), Completion: t.Output, Total: t.wholePrompt() + t.Output,
		PromptDetails:     chatPromptDetails{Cached: t.CacheRead, CacheWrite: t.CacheWrite},
		CompletionDetails: chatCompletionDetails{Reasoning: t.Reasoning},
	}
}

type chatChoice struct {
	Index        int         `json:"index"`
	Message      chatMessage `json:"message"`
	Logprobs     any         `json:"logprobs"`
	FinishReason string      `json:"finish_reason"`
}

type chatMessage struct {
	Role        string  `json:"role"`
	Content     string  `json:"content"`
	Refusal     *string `json:"refusal"`
	Annotations []any   `json:"annotations"`
}

type chatChunkChoice struct {
	Index        int       `json:"index"`
	Delta        chatDelta `json:"delta"`
	Logprobs     any       `json:"logprobs"`
	FinishReason *string   `json:"finish_reason"`
}

type chatDelta struct {
	Role    string  `json:"role,omitempty"`
	Content *string `json:"content,omitempty"`
}

func (chat) finishReason(x *exchange) string {
	if x.capped {
		return "length"
	}
	return "stop"
}

func (chat) completion(x *exchange, object string, choices ...any) chatCompletion {
	if choices == nil {
		choices = []any{}
	}
	return chatCompletion{
		ID: x.id("chatcmpl-"), Object: object, Created: x.created.Unix(), Model: x.model, Choices: choices,
		ServiceTier: "default", Fingerprint: "fp_fake",
	}
}

func (d chat) whole(x *exchange) any {
	completion := d.completion(x, "chat.completion")
	for i := range x.choices {
		completion.Choices = append(completion.Choices, chatChoice{
			Index: i, FinishReason: d.finishReason(x),
			Message: chatMessage{Role: "assistant", Content: x.text(i), Annotations: []any{}},
		})
	}
	if !x.noUsage {
		completion.Usage = d.usage(x)
	}
	return completion
}

// events of all choices, in turn. Usage is in a chunk of its own at the end, of no choice, if it was asked for; all
// chunks before then say that they have none.
func (d chat) events(x *exchange) iter.Seq[event] {
	usage := x.streamUsage && !x.noUsage
	say := func(choices ...any) event {
		chunk := d.completion(x, "chat.completion.chunk", choices...)
		if usage {
			chunk.Usage = json.RawMessage("null")
		}
		return event{data: chunk}
	}
	return func(yield func(event) bool) {
		for i := range x.choices {
			empty := ""
			if !yield(say(chatChunkChoice{Index: i, Delta: chatDelta{Role: "assistant", Content: &empty}})) {
				return
			}
		}
		if !x.think(yield) {
			return
		}
		for i := range x.choices {
			for n, text := range x.chunks(i) {
				delta := say(chatChunkChoice{Index: i, Delta: chatDelta{Content: &text}})
				delta.output = n
				if !yield(delta) {
					return
				}
			}
		}
		for i := range x.choices {
			why := d.finishReason(x)
			if !yield(say(chatChunkChoice{Index: i, FinishReason: &why})) {
				return
			}
		}
		if usage {
			last := d.completion(x, "chat.completion.chunk")
			last.Usage = d.usage(x)
			if !yield(event{data: last}) {
				return
			}
		}
		yield(event{data: "[DONE]"})
	}
}

func (d chat) errorEvents(x *exchange, f *fault, _ int) []event {
	return []event{{data: d.errorBody(x, f)}}
}
