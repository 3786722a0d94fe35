// Command lanes calls a model for users of three tiers, all at once, through a lane that lets five calls through in a second,
// and prints who has waited for how long.
//
// It knows ration by its client, and the model by its API. Read README.md first, then ask.go, which is what an application
// does for each call; the rest is the burst and the table. lanes.py is the same in Python.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"time"

	"github.com/rationhq/ration/client"
)

// user is somebody who calls the model, and what they pay for.
type user struct{ name, tier string }

// burst is who calls at the same time, and how often: those who pay most come last.
func burst() []visit {
	return []visit{
		{user{"finn", "free"}, 8}, // a batch, for which the next two do not have to wait
		{user{"fay", "free"}, 1},
		{user{"flo", "free"}, 1},
		{user{"paul", "pro"}, 5},
		{user{"pia", "pro"}, 3},
		{user{"pam", "pro"}, 2},
		{user{"ann", "premium"}, 4},
		{user{"amy", "premium"}, 3},
		{user{"abe", "premium"}, 3},
	}
}

// visit is so many calls of a user.
type visit struct {
	user
	calls int
}

// call is what has become of one.
type call struct {
	user
	end    end
	waited time.Duration
}

// end is how a call has ended.
type end int

const (
	served end = iota
	refused
	failed
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	server := cmp.Or(os.Getenv("RATION_SERVER"), "localhost:8081")
	model := cmp.Or(os.Getenv("MODEL_URL"), "http://localhost:8090/v1/chat/completions")
	if err := run(ctx, server, model); err != nil {
		fmt.Fprintln(os.Stderr, "lanes:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, server, model string) error {
	ration, err := client.New(server, client.Options{})
	if err != nil {
		return err
	}
	defer ration.Close()
	app := &app{ration: ration, http: &http.Client{Timeout: 30 * time.Second}, model: model}

	var calls []*call
	var underWay sync.WaitGroup
	for _, v := range burst() {
		for n := range v.calls {
			c := &call{user: v.user}
			calls = append(calls, c)
			underWay.Go(func() { c.run(ctx, app, fmt.Sprintf("Tell me story %d.", n+1)) })
		}
	}
	underWay.Wait()
	if ctx.Err() != nil {
		return errors.New("interrupted: who waited has left the line, and what was held is given back")
	}
	printTable(os.Stdout, calls)
	if n := count(calls, failed); n > 0 {
		return fmt.Errorf("%d calls have failed", n)
	}
	return nil
}

// run makes the call, and says what becomes of it, unless it is served.
func (c *call) run(ctx context.Context, app *app, prompt string) {
	_, waited, err := app.ask(ctx, c.user, prompt, func(s client.Standing) {
		if s.Position == s.Waiting { // all can hear it; one is enough to read
			fmt.Printf("%s (%s) is the last of %d in line: about %.1f s to go\n", c.name, c.tier, s.Waiting, s.Expected.Seconds())
		}
	})
	c.waited = waited
	var refusal *client.Refusal
	switch {
	case err == nil:
	case ctx.Err() != nil: // interrupted
		c.end = failed
	case errors.As(err, &refusal): // a handler of HTTP would say so by refusal.WriteResponse(w)
		c.end = refused
		fmt.Printf("%s (%s) is refused: %s\n", c.name, c.tier, refusal.Message)
	default:
		c.end = failed
		fmt.Printf("%s (%s): %v\n", c.name, c.tier, err)
	}
}
