package e2e

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

// callers are the users of models' APIs behind Envoy: any number of them, each with a key of its own.
type callers struct {
	url  string
	http *http.Client
}

// newCallers asks at an Envoy whose clients are made by users.
func newCallers(t testing.TB, e *envoy) *callers {
	t.Helper()
	connections := &http.Transport{MaxIdleConnsPerHost: 1000, DisableCompression: true}
	t.Cleanup(connections.CloseIdleConnections)
	return &callers{url: e.url, http: &http.Client{Transport: connections}}
}

// prompt is one call of a model: who makes it, what is asked, and what fakellm is to make of it.
type prompt struct {
	user      string
	chat      bool              // of OpenAI's Chat Completions, and not of Anthropic's Messages
	words     string            // what the model reads; "Hello" if empty
	maxTokens int               // the most that it may write
	whole     bool              // in one document, and not as a stream
	script    map[string]string // of fakellm
	hangUp    int               // the caller leaves when so many bytes have come; 0: it stays until the end
}

// heard is what a caller knows of its call afterwards.
type heard struct {
	code   int // 0: nothing
	header http.Header
	body   string // of what is not 200
	whole  bool   // an answer that has come to its end
	ended  time.Time
}

// body is the request as it is sent.
func (p prompt) body() string {
	words := p.words
	if words == "" {
		words = "Hello"
	}
	model, most := "claude-haiku-4-5", "max_tokens"
	if p.chat {
		model, most = "gpt-5-mini", "max_completion_tokens"
	}
	return fmt.Sprintf(`{"model":%q,%q:%d,"stream":%t,"messages":[{"role":"user","content":%q}]}`, model, most, p.maxTokens, !p.whole, words)
}

func (p prompt) path() string {
	if p.chat {
		return "/v1/chat/completions"
	}
	return "/v1/messages"
}

// last is what the end of a stream has in it.
func (p prompt) last() string {
	if p.chat {
		return "data: [DONE]"
	}
	return "message_stop"
}

// call asks, and reads the answer to its end, or until it has had enough of it.
func (c *callers) call(ctx context.Context, p prompt) (h heard) {
	ctx, leave := context.WithCancel(ctx)
	defer leave()
	defer func() { h.ended = time.Now() }()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url+p.path(), strings.NewReader(p.body()))
	if err != nil {
		return heard{body: err.Error()}
	}
	header := map[string]string{
		"content-type": "application/json", "anthropic-version": "2023-06-01", "x-api-key": keyOf(p.user), "x-fake-user": p.user,
	}
	for word, value := range p.script {
		header["x-fake-"+word] = value
	}
	for name, value := range header {
		req.Header.Set(name, value)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return heard{body: err.Error()}
	}
	defer resp.Body.Close()
	h = heard{code: resp.StatusCode, header: resp.Header}
	if h.code != http.StatusOK {
		body, _ := io.ReadAll(resp.Body) // a refusal that is cut short does not look like one
		h.body = string(body)
		return h
	}
	if p.hangUp > 0 {
		_, _ = io.CopyN(io.Discard, resp.Body, int64(p.hangUp)) // an end before that is as good
		return h
	}
	end := tail{}
	_, err = io.Copy(&end, resp.Body)
	h.whole = err == nil && (p.whole || strings.Contains(string(end), p.last()))
	return h
}

// tail is the last of what was written to it.
type tail []byte

func (t *tail) Write(p []byte) (int, error) {
	*t = append(*t, p...)
	*t = (*t)[max(0, len(*t)-256):]
	return len(p), nil
}

// refusedBy is the limit that a refusal of ours names; "" if it is none.
func (h heard) refusedBy() string {
	if h.code != http.StatusTooManyRequests || h.header.Get("x-envoy-ratelimited") == "" {
		return ""
	}
	_, rest, _ := strings.Cut(h.body, `"name":"`)
	name, _, _ := strings.Cut(rest, `"`)
	return name
}

func keyOf(user string) string { return "key-of-" + user }

// users makes Envoy know these users, each by its key.
func (b bootstrap) users(names []string) {
	var credentials []any
	for _, name := range names {
		credentials = append(credentials, map[string]any{"key": keyOf(name), "client": name})
	}
	b.filter("envoy.filters.http.api_key_auth")["credentials"] = credentials
}

// of numbers users: free-1, free-2, …
func of(tier string, n int) (names []string) {
	for i := range n {
		names = append(names, tier+"-"+strconv.Itoa(i+1))
	}
	return names
}

// modelPolicy reads the policy for models and puts these users into it, by tier, and these limits in place of what it says
// of Anthropic's.
func modelPolicy(t testing.TB, users map[string][]string, upstream ...map[string]any) map[string]any {
	t.Helper()
	text, err := os.ReadFile("../llm.policy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var policy map[string]any
	if err := yaml.Unmarshal(text, &policy); err != nil {
		t.Fatal(err)
	}
	subjects := map[string]any{}
	for tier, names := range users {
		for _, name := range names {
			subjects[name] = map[string]any{"tier": tier}
		}
	}
	policy["subjects"] = subjects
	for _, l := range upstream {
		found := named(named(policy, "anthropic", "upstreams"), l["name"].(string), "limits")
		maps.Copy(found, l)
	}
	return policy
}

// flood makes calls of many users at once until it is stopped, and keeps count of what they hear.
type flood struct {
	callers *callers
	cancel  context.CancelFunc
	done    sync.WaitGroup

	mu      sync.Mutex
	served  int
	refused map[string]int // by the limit; "" are those that are not ours
	lengths []time.Duration
	odd     []string // what nobody should hear
}

// flood lets so many work at the same time, each for one user after the other, in turn. Whoever is refused pauses shortly, as
// nobody's retries are faster.
func (c *callers) flood(ctx context.Context, atOnce int, users []string, ask func(user string) prompt) *flood {
	ctx, cancel := context.WithCancel(ctx)
	f := &flood{callers: c, cancel: cancel, refused: map[string]int{}}
	turns := make(chan string)
	f.done.Go(func() {
		defer close(turns)
		for i := 0; ; i++ {
			select {
			case turns <- users[i%len(users)]:
			case <-ctx.Done():
				return
			}
		}
	})
	for range atOnce {
		f.done.Go(func() {
			for user := range turns {
				began := time.Now()
				// A call that has begun is made to its end: what is served is what was heard.
				h := c.call(context.WithoutCancel(ctx), ask(user))
				f.note(user, began, h)
				if !h.whole {
					select {
					case <-time.After(250 * time.Millisecond):
					case <-ctx.Done():
					}
				}
			}
		})
	}
	return f
}

func (f *flood) note(user string, began time.Time, h heard) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case h.whole:
		f.served++
		f.lengths = append(f.lengths, h.ended.Sub(began))
	case h.code == http.StatusTooManyRequests:
		f.refused[h.refusedBy()]++
	default:
		f.odd = append(f.odd, fmt.Sprintf("%s: %d %s", user, h.code, h.body))
	}
}

// until waits for the flood to have come as far.
func (f *flood) until(t testing.TB, what string, enough func(served int, refused map[string]int) bool) {
	t.Helper()
	eventually(t, what, func() error {
		f.mu.Lock()
		defer f.mu.Unlock()
		if !enough(f.served, f.refused) {
			return fmt.Errorf("%d served, refused by %v, odd %.300q", f.served, f.refused, f.odd)
		}
		return nil
	})
}

// stop ends the flood when all calls that have begun have ended, and reports what nobody should have heard.
func (f *flood) stop(t testing.TB) {
	t.Helper()
	f.cancel()
	f.done.Wait()
	if len(f.odd) > 0 {
		t.Errorf("%d calls were neither served nor refused, such as %.300q", len(f.odd), f.odd[0])
	}
	longest := time.Duration(0)
	if len(f.lengths) > 0 {
		longest = slices.Max(f.lengths)
	}
	t.Logf("%d served, the longest in %v; refused by %v", f.served, longest.Round(time.Millisecond), f.refused)
}
