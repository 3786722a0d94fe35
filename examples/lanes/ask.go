package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/rationhq/ration/client"
)

// modelName is the model that all call, and maxTokens the longest answer that they ask for.
const (
	modelName = "gpt-5-mini"
	maxTokens = 200
)

// app is an application that calls a model for its users.
type app struct {
	ration *client.Client
	http   *http.Client
	model  string // URL of its chat completions, in the manner of OpenAI
}

// ask asks the model when it is the user's turn, and returns its answer, and how long the user has waited. Meanwhile tell is
// told how the user stands. An error may be a *client.Refusal.
func (a *app) ask(
	ctx context.Context, u user, prompt string, tell func(client.Standing),
) (text string, waited time.Duration, err error) {
	lease, err := a.ration.Acquire(ctx, client.Call{
		Caller: client.Caller{Domain: "chat", Attributes: map[string]string{"user": u.name}, Tier: u.tier, Model: modelName},
		Prompt: &client.Prompt{Characters: int64(len(prompt)), OutputCaps: map[string]int64{"max_tokens": maxTokens}},
		Lease:  time.Minute, // longer than an answer takes: if this process dies, what the call holds is free after that
	}, client.Turn{Lane: "model", Tell: tell})
	if err != nil {
		return "", 0, err // where ctx has ended, its place in line is free already
	}
	// If the model fails, or ctx ends because the user has hung up, all that the call holds is given back. What could not be
	// settled is told once more.
	defer lease.Close()

	most := int64(maxTokens)
	if lease.Decision.Clamped {
		most = lease.Decision.MaxOutput
	}
	waited = lease.Decision.Waited.For
	text, used, err := a.complete(ctx, prompt, most)
	if err != nil {
		return "", waited, err
	}
	_, err = lease.Settle(ctx, used)
	return text, waited, err
}

// complete calls the model, and returns its answer and what that has used.
func (a *app) complete(ctx context.Context, prompt string, most int64) (text string, used client.Usage, err error) {
	body, err := json.Marshal(map[string]any{
		"model": modelName, "messages": []map[string]string{{"role": "user", "content": prompt}}, "max_tokens": most,
	})
	if err != nil {
		return "", used, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, a.model, bytes.NewReader(body))
	if err != nil {
		return "", used, err
	}
	request.Header.Set("Authorization", "Bearer any-key")
	request.Header.Set("Content-Type", "application/json")
	response, err := a.http.Do(request)
	if err != nil {
		return "", used, err
	}
	defer response.Body.Close()
	body, err = io.ReadAll(response.Body)
	switch {
	case err != nil:
		return "", used, err
	case response.StatusCode != http.StatusOK:
		return "", used, fmt.Errorf("the model has answered %s", response.Status)
	}
	var answer struct {
		Choices []struct{ Message struct{ Content string } }
		Usage   struct {
			Prompt  int64 `json:"prompt_tokens"`
			Output  int64 `json:"completion_tokens"`
			Details struct {
				Cached int64 `json:"cached_tokens"`
			} `json:"prompt_tokens_details"`
		}
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return "", used, fmt.Errorf("the model's answer: %w", err)
	}
	for _, c := range answer.Choices {
		text += c.Message.Content
	}
	cached := answer.Usage.Details.Cached // OpenAI counts them in the prompt too, ration only once
	return text, client.Usage{Input: answer.Usage.Prompt - cached, CacheRead: cached, Output: answer.Usage.Output}, nil
}
