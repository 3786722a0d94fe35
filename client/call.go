package client

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	rationv1 "github.com/rationhq/ration/gen/ration/v1"
)

// Caller says for whom a call is made, and of what.
type Caller struct {
	// Domain of the policy that judges the call. Required.
	Domain string
	// Attributes are what is known of the call, as the policy's descriptors name it: "user", "org" and so on. At most 64,
	// and 8 KiB in all.
	Attributes map[string]string
	// Model that is called, by the name that the provider knows it by; empty where it is not known.
	Model string
	// Tier of the subject, where the policy trusts its callers to say so.
	Tier string
	// APIKey of the subject, by which the server knows it. It is never written to a journal.
	APIKey string
}

func (c *Caller) message() *rationv1.Caller {
	return &rationv1.Caller{Domain: c.Domain, Attributes: c.Attributes, Model: c.Model, Tier: c.Tier, ApiKey: c.APIKey}
}

// Usage is an amount of tokens, each counted in one class only: 0 to 2^53 − 1. Anthropic's input_tokens leave out those
// of the cache, as here; OpenAI's prompt_tokens include cached_tokens, which are to be subtracted.
type Usage struct {
	Input      int64 // of the prompt, that came from no cache
	CacheRead  int64 // of the prompt, read from the provider's cache
	CacheWrite int64 // of the prompt, written to the provider's cache
	Output     int64 // that the model has written, reasoning included
}

func (u Usage) message() *rationv1.Usage {
	return &rationv1.Usage{InputTokens: u.Input, CacheReadTokens: u.CacheRead, CacheWriteTokens: u.CacheWrite, OutputTokens: u.Output}
}

func usageOf(u *rationv1.Usage) Usage {
	return Usage{
		Input: u.GetInputTokens(), CacheRead: u.GetCacheReadTokens(), CacheWrite: u.GetCacheWriteTokens(), Output: u.GetOutputTokens(),
	}
}

// atLeast returns the larger of both in each class.
func (u Usage) atLeast(v Usage) Usage {
	return Usage{
		Input: max(u.Input, v.Input), CacheRead: max(u.CacheRead, v.CacheRead),
		CacheWrite: max(u.CacheWrite, v.CacheWrite), Output: max(u.Output, v.Output),
	}
}

// withPromptOf returns u with the prompt of an estimate, where u says nothing of the prompt: the model has read it.
func (u Usage) withPromptOf(estimate Usage) Usage {
	if u.Input == 0 && u.CacheRead == 0 && u.CacheWrite == 0 {
		u.Input, u.CacheRead, u.CacheWrite = estimate.Input, estimate.CacheRead, estimate.CacheWrite
	}
	return u
}

// Prompt is what is known of a call whose tokens nobody has counted.
type Prompt struct {
	// Tokens of the prompt, where they were counted: they win over Characters.
	Tokens int64
	// Characters of the prompt: four count as a token.
	Characters int64
	// OutputCaps are the caps of the output, in tokens, under whatever names the request carries them: "max_tokens" and so
	// on. The largest counts. Without any, the longest answer that the model can give.
	OutputCaps map[string]int64
	// Choices is how many answers the request asks for, under whatever names: "n" and so on. The largest counts.
	Choices map[string]int64
}

// Call is a call of a model that is to be made.
type Call struct {
	Caller
	// Estimate is what the call will use at most, where its tokens were counted. Prompt wins, if it is set.
	Estimate Usage
	// Prompt is what is known of it, where nobody has counted.
	Prompt *Prompt
	// Key names the call, so that it counts once however often it is sent: 1 to 200 bytes. Empty: one is made, so that the
	// client may repeat what it sends. Set it where your own caller repeats requests, and names them.
	Key string
	// Lease is how long the reservation lasts if nobody settles it: a millisecond to an hour. 0: 5 minutes.
	Lease time.Duration
	// AnswerAs is the API that the application offers to its own caller: [Decision.HTTP] is an answer of that API then.
	AnswerAs ModelAPI
}

// ModelAPI is an API of models, whose clients know its headers and the form of its errors. The zero value is none in
// particular.
type ModelAPI rationv1.ModelApi

// The APIs.
const (
	AnthropicAPI = ModelAPI(rationv1.ModelApi_MODEL_API_ANTHROPIC) // Messages
	OpenAIAPI    = ModelAPI(rationv1.ModelApi_MODEL_API_OPENAI)    // Chat Completions, Responses
)

// defaultLease is how long a reservation lasts of which nobody says so.
const defaultLease = 5 * time.Minute

func (c *Call) estimate() *rationv1.Estimate {
	if p := c.Prompt; p != nil {
		return &rationv1.Estimate{Of: &rationv1.Estimate_Prompt{Prompt: &rationv1.Prompt{
			Tokens: p.Tokens, Characters: p.Characters, OutputCaps: p.OutputCaps, Choices: p.Choices,
		}}}
	}
	return &rationv1.Estimate{Of: &rationv1.Estimate_Usage{Usage: c.Estimate.message()}}
}

func (c *Call) request() *rationv1.ReserveRequest {
	r := &rationv1.ReserveRequest{
		Caller: c.message(), Estimate: c.estimate(), IdempotencyKey: c.Key, AnswerAs: rationv1.ModelApi(c.AnswerAs),
	}
	if c.Lease != 0 {
		r.Lease = durationpb.New(c.Lease)
	}
	return r
}
