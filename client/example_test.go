package client_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"time"

	"github.com/rationhq/ration/client"
)

// A handler that calls a model for a user: what may be spent is held before, what was used is settled after, and whoever
// may not hears why.
func Example() {
	addr, stop, err := start()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = stop() }()
	ration, err := client.New(addr, client.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer ration.Close()

	answer := func(w http.ResponseWriter, r *http.Request) {
		lease, err := ration.Reserve(r.Context(), client.Call{
			Caller: client.Caller{Domain: "llm", Model: "small", Attributes: map[string]string{"user": r.FormValue("user")}},
			Prompt: &client.Prompt{Characters: 400, OutputCaps: map[string]int64{"max_tokens": 500}},
		})
		var refusal *client.Refusal
		switch {
		case errors.As(err, &refusal):
			refusal.WriteResponse(w)
			return
		case err != nil:
			http.Error(w, "try again later", http.StatusServiceUnavailable)
			return
		}
		defer lease.Close() // gives everything back, should the model fail

		text, used := model(r.Context(), min(500, lease.Decision.MaxOutput))
		if _, err := lease.Settle(r.Context(), used); err != nil {
			fmt.Println(err)
		}
		fmt.Fprint(w, text)
	}

	for range 4 {
		w := httptest.NewRecorder()
		answer(w, httptest.NewRequestWithContext(context.Background(), http.MethodGet, "/?user=alice", nil))
		fmt.Println(w.Code)
	}
	// Output:
	// 200
	// 200
	// 200
	// 429
}

// model stands for one.
func model(_ context.Context, maxTokens int64) (text string, used client.Usage) {
	return "…", client.Usage{Input: 90, Output: min(maxTokens, 110)}
}

// The least that an application does for a call.
func ExampleClient_Reserve() {
	addr, stop, err := start()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = stop() }()
	ration, err := client.New(addr, client.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer ration.Close()

	ask := func(ctx context.Context, user, prompt string) (text string, err error) {
		lease, err := ration.Reserve(ctx, client.Call{
			Caller: client.Caller{Domain: "llm", Model: "small", Attributes: map[string]string{"user": user}},
			Prompt: &client.Prompt{Characters: int64(len(prompt)), OutputCaps: map[string]int64{"max_tokens": 500}},
		})
		if err != nil {
			return "", err // a *client.Refusal says why, and WriteResponse hands it on
		}
		defer lease.Close() // gives everything back, should the model fail
		text, used := model(ctx, min(500, lease.Decision.MaxOutput))
		_, err = lease.Settle(ctx, used)
		return text, err
	}
	for range 4 {
		_, err := ask(context.Background(), "carol", strings.Repeat("x", 400))
		fmt.Println(errors.As(err, new(*client.Refusal)), err == nil)
	}
	// Output:
	// false true
	// false true
	// false true
	// true false
}

// Calls that wait for a turn in a lane, in which one is under way at a time.
func ExampleClient_Acquire() {
	addr, stop, err := start()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = stop() }()
	ration, err := client.New(addr, client.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer ration.Close()

	show := func(string) {} // to the user
	ask := func(ctx context.Context, user, prompt string) (text string, err error) {
		lease, err := ration.Acquire(ctx, client.Call{
			Caller: client.Caller{Domain: "llm", Model: "small", Attributes: map[string]string{"user": user}},
			Prompt: &client.Prompt{Characters: int64(len(prompt)), OutputCaps: map[string]int64{"max_tokens": 100}},
		}, client.Turn{Lane: "one", Longest: 10 * time.Second, Tell: func(s client.Standing) {
			show(fmt.Sprintf("%d of %d in line, about %v", s.Position, s.Waiting, s.Expected))
		}})
		if err != nil {
			return "", err // of a *client.Refusal, Waited says how it has waited
		}
		defer lease.Close() // its place is free for the next one
		text, used := model(ctx, min(100, lease.Decision.MaxOutput))
		_, err = lease.Settle(ctx, used)
		return text, err
	}
	var all sync.WaitGroup
	for _, user := range []string{"alice", "bob", "carol"} {
		all.Go(func() {
			if _, err := ask(context.Background(), user, "How are you?"); err != nil {
				fmt.Println(err)
			}
		})
	}
	all.Wait()
	// Output:
}

// A stream tells what it has written so far; the server renews the reservation, and says when the allowance ends.
func ExampleLease_Observe() {
	addr, stop, err := start()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = stop() }()
	ration, err := client.New(addr, client.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer ration.Close()

	lease, err := ration.Reserve(context.Background(), client.Call{
		Caller:   client.Caller{Domain: "llm", Model: "small", Attributes: map[string]string{"user": "bob"}},
		Estimate: client.Usage{Input: 100, Output: 500},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	for written := int64(1); written <= 200; written++ { // each token of the stream
		if lease.Observe(client.Usage{Input: 100, Output: written}) == client.Stop {
			break
		}
	}
	if err := lease.Close(); err != nil { // settles what was observed
		fmt.Println(err)
	}
	d, err := ration.Check(context.Background(), client.Call{
		Caller: client.Caller{Domain: "llm", Model: "small", Attributes: map[string]string{"user": "bob"}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(d.Limits[0].Used, "tokens used,", d.Limits[0].Held, "held")
	// Output: 300 tokens used, 0 held
}
