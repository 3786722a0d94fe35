package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"
)

// habit is how a user calls the model.
type habit struct {
	user   string
	models []string
	// callers are so many at the same time, each of which waits about so long between two calls.
	callers int
	pause   time.Duration
	// prompt has so many words.
	prompt int
	// stubborn users do not care what a refusal says of when to come again.
	stubborn bool
	// hangUp leaves one stream of so many before its end; 0: none.
	hangUp int
}

// habits of the users. Every other call is streamed.
func habits() []habit {
	haiku, sonnet := "claude-haiku-4-5", "claude-sonnet-4-6"
	return []habit{
		// Pays for it, and gets what she asks for, whatever the others do. Some answers she does not want to the end.
		{user: "ann", models: []string{sonnet, haiku}, callers: 4, pause: 500 * time.Millisecond, prompt: 150, hangUp: 5},
		// Works, until his budget of the day has ended.
		{user: "bob", models: []string{haiku, sonnet}, callers: 3, pause: 700 * time.Millisecond, prompt: 250},
		// Runs a script that asks and asks.
		{user: "carol", models: []string{haiku}, callers: 20, pause: 800 * time.Millisecond, prompt: 60, stubborn: true},
	}
}

// traffic is calls of the users through Envoy, as an application would make them.
type traffic struct {
	url    string
	client *http.Client
	// ending is done when no call begins any more; calls ends those under way.
	ending  context.Context
	endNow  context.CancelFunc
	noMore  context.CancelFunc
	callers sync.WaitGroup

	mu     sync.Mutex
	broken string            // what came back that should not have
	left   map[subject]int64 // streams that were left before their end
}

// subject is a user with a model.
type subject struct{ user, model string }

// beginTraffic lets the users call the model at url until the traffic is stopped, or ctx ends.
func beginTraffic(ctx context.Context, url string) *traffic {
	transport := &http.Transport{MaxIdleConnsPerHost: 100, DisableCompression: true}
	t := &traffic{url: url, client: &http.Client{Transport: transport}, left: map[subject]int64{}}
	calls, endNow := context.WithCancel(ctx)
	ending, noMore := context.WithCancel(calls)
	t.ending, t.noMore, t.endNow = ending, noMore, endNow
	for _, h := range habits() {
		for i := range h.callers {
			t.callers.Go(func() { t.caller(calls, h, i) })
		}
	}
	return t
}

// stop lets no call begin any more, and waits for those under way, until ctx ends them.
func (t *traffic) stop(ctx context.Context) {
	t.noMore()
	defer context.AfterFunc(ctx, t.endNow)()
	t.callers.Wait()
	t.endNow()
	t.client.CloseIdleConnections()
}

// trouble is an answer that nobody in the demo should get: neither the model's nor a refusal. Empty: none.
func (t *traffic) trouble() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.broken
}

// caller makes one call after the other.
func (t *traffic) caller(ctx context.Context, h habit, i int) {
	for n := i; ; n++ {
		pause := h.pause/2 + rand.N(h.pause) //nolint:gosec // it spreads calls, and hides nothing
		select {
		case <-t.ending.Done():
			return
		case <-time.After(pause):
		}
		c := call{user: h.user, model: h.models[n%len(h.models)], prompt: prompt(h.prompt, n), stream: n/len(h.models)%2 == 0}
		c.hangUp = c.stream && h.hangUp > 0 && rand.N(h.hangUp) == 0 //nolint:gosec // likewise
		wait, err := t.make(ctx, c)
		if err != nil && ctx.Err() == nil {
			t.mu.Lock()
			t.broken = fmt.Sprintf("%s: %v", h.user, err)
			t.mu.Unlock()
		}
		if wait > 0 && !h.stubborn {
			select {
			case <-t.ending.Done():
				return
			case <-time.After(wait):
			}
		}
	}
}

// call is what a user asks of the model.
type call struct {
	user, model, prompt string
	stream              bool
	hangUp              bool // in the middle of the stream
}

// longestAnswer is the output cap of all calls.
const longestAnswer = 150

// make makes a call, and returns how long to wait before the next one where it was refused.
func (t *traffic) make(ctx context.Context, c call) (wait time.Duration, err error) {
	ctx, cancel := context.WithCancel(ctx) // leaves a stream that was not read to its end
	defer cancel()
	body, err := json.Marshal(map[string]any{
		"model": c.model, "max_tokens": longestAnswer, "stream": c.stream,
		"messages": []map[string]string{{"role": "user", "content": c.prompt}},
	})
	if err != nil {
		return 0, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, t.url+"/v1/messages", bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	for name, value := range map[string]string{
		"Content-Type": "application/json", "Anthropic-Version": "2023-06-01", "X-Api-Key": "key-of-" + c.user,
	} {
		r.Header.Set(name, value)
	}
	resp, err := t.client.Do(r)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if c.hangUp && resp.StatusCode == http.StatusOK {
		if _, err := io.CopyN(io.Discard, resp.Body, 1_000); err != nil {
			return 0, err
		}
		t.mu.Lock()
		defer t.mu.Unlock()
		t.left[subject{c.user, c.model}]++
		return 0, nil
	}
	said, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return 0, err
	case resp.StatusCode == http.StatusOK:
		return 0, nil
	case resp.StatusCode != http.StatusTooManyRequests:
		return 0, fmt.Errorf("%s: %s", resp.Status, said)
	case resp.Header.Get("X-Should-Retry") == "false":
		return 5 * time.Second, nil // an SDK would give up; the user tries again after a while
	}
	if wait, err = time.ParseDuration(resp.Header.Get("Retry-After") + "s"); err != nil {
		return 0, errors.New("a refusal without retry-after")
	}
	return min(wait, 5*time.Second), nil
}

// words of prompts.
var words = strings.Fields(`please explain how a token bucket differs from sliding windows and what happens to requests
	that arrive while it is empty then compare both for an interface with many small callers and a few large ones`)

// prompt is the n-th prompt of so many words.
func prompt(length, n int) string {
	text := []string{fmt.Sprintf("Question %d:", n)}
	for i := range length {
		text = append(text, words[(n+i)%len(words)])
	}
	return strings.Join(text, " ")
}
