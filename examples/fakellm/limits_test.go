package main

import (
	"net/http"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// What a bucket of 60 per minute holds as time goes by, when 10 seconds of it may be used at once.
func TestBucket(t *testing.T) {
	b := newBucket(60, 10*time.Second, epoch)
	for _, step := range []struct {
		name      string
		after     time.Duration
		take      int64
		remaining int64
		untilFull time.Duration
		// next is how long until one more is there.
		next time.Duration
	}{
		{name: "at first it is full", remaining: 10},
		{name: "what is taken is gone", take: 4, remaining: 6, untilFull: 4 * time.Second},
		{name: "and comes back bit by bit", after: 500 * time.Millisecond, remaining: 6, untilFull: 3500 * time.Millisecond},
		{name: "one a second", after: 500 * time.Millisecond, remaining: 7, untilFull: 3 * time.Second},
		{name: "it may be emptied", take: 7, untilFull: 10 * time.Second, next: time.Second},
		{name: "and more: that is a debt", take: 5, untilFull: 15 * time.Second, next: 6 * time.Second},
		{name: "which is paid first", after: 5999 * time.Millisecond, untilFull: 9001 * time.Millisecond, next: time.Millisecond},
		{name: "to the nanosecond", after: time.Millisecond - 1, untilFull: 9*time.Second + 1, next: 1},
		{name: "then there is one", after: 1, remaining: 1, untilFull: 9 * time.Second},
		{name: "it never holds more than it did at first", after: time.Hour, remaining: 10},
	} {
		b.refill(b.at.Add(step.after))
		b.take(step.take)
		s := b.standing()
		next, ever := b.wait(1)
		if s.remaining != step.remaining || s.fullAt.Sub(b.at) != step.untilFull || next != step.next || !ever {
			t.Errorf("%s: %d remain, full in %v, one more in %v; want %d, %v, %v",
				step.name, s.remaining, s.fullAt.Sub(b.at), next, step.remaining, step.untilFull, step.next)
		}
	}
	if _, ever := b.wait(11); ever {
		t.Error("more than it can hold is said to come some time")
	}
}

// In no stretch of time is more admitted than what may be used at once and what came back meanwhile; and whoever waits
// exactly as long as he is told is admitted, and a nanosecond earlier is not.
func TestLimitsAreExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tpm := rapid.Int64Range(1, 1_000_000).Draw(t, "tpm")
		burst := time.Duration(rapid.Int64Range(1, int64(time.Minute)).Draw(t, "burst"))
		l := newLimiter(limitOptions{TPM: tpm, Burst: burst})
		now, taken := epoch, int64(0)
		full := newBucket(tpm, burst, epoch).capacity
		for range rapid.IntRange(1, 30).Draw(t, "requests") {
			now = now.Add(time.Duration(rapid.Int64Range(0, int64(time.Minute)).Draw(t, "passes")))
			n := rapid.Int64Range(1, max(1, full/partsPerToken)).Draw(t, "tokens")
			_, refused := l.admit(account{}, demand{tokens: n}, now)
			if refused != nil {
				if _, early := l.admit(account{}, demand{tokens: n}, now.Add(refused.retryAfter-1)); early == nil {
					t.Fatalf("admitted earlier than after the %v it was told", refused.retryAfter)
				}
				now = now.Add(refused.retryAfter)
				if _, still := l.admit(account{}, demand{tokens: n}, now); still != nil {
					t.Fatalf("refused after the %v it was told", refused.retryAfter)
				}
			}
			taken += n
			if most := full + int64(now.Sub(epoch))*tpm; taken*partsPerToken > most {
				t.Fatalf("%d tokens in %v of %d per minute", taken, now.Sub(epoch), tpm)
			}
		}
	})
}

// Anthropic: what is read from the cache is free of the limit, what is written to it is not; output counts as it is
// written, whatever max_tokens says, and may leave a debt.
func TestAnthropicLimits(t *testing.T) {
	f := newFake(t, options{limitOptions: limitOptions{InputTPM: 600, OutputTPM: 120}})

	first := f.call(t, "messages", `"max_tokens":100000`,
		"input-tokens=100 cache-read-tokens=5000 cache-write-tokens=200 output-tokens=180")
	wantStatus(t, first, http.StatusOK)
	wantHeaders(t, first, map[string]string{
		"anthropic-ratelimit-input-tokens-limit":      "600",
		"anthropic-ratelimit-input-tokens-remaining":  "300",
		"anthropic-ratelimit-input-tokens-reset":      "2026-11-01T12:00:30Z",
		"anthropic-ratelimit-output-tokens-limit":     "120",
		"anthropic-ratelimit-output-tokens-remaining": "0",
		"anthropic-ratelimit-output-tokens-reset":     "2026-11-01T12:01:30Z",
		"anthropic-ratelimit-tokens-limit":            "720",
		"anthropic-ratelimit-tokens-remaining":        "300",
		"anthropic-ratelimit-requests-limit":          "", // there is none
	})

	second := f.call(t, "messages", "", "")
	wantStatus(t, second, http.StatusTooManyRequests)
	// A debt of 60 is paid in 30 seconds, and half a second later one token is there: 30.5 seconds, rounded up.
	wantHeaders(t, second, map[string]string{"retry-after": "31", "x-should-retry": "true"})

	f.passed.Store(int64(30500 * time.Millisecond))
	wantStatus(t, f.call(t, "messages", "", ""), http.StatusOK)
}

// OpenAI: the larger of the prompt and the cap counts, before anything is written; a refused request is a request.
func TestOpenAILimits(t *testing.T) {
	for _, api := range []string{"chat", "responses"} {
		t.Run(api, func(t *testing.T) {
			f := newFake(t, options{limitOptions: limitOptions{RPM: 4, TPM: 1000}})
			limit := `"max_output_tokens":700`
			if api == "chat" {
				limit = `"max_tokens":350,"n":2`
			}
			first := f.call(t, api, limit, "output-tokens=1")
			wantStatus(t, first, http.StatusOK)
			wantHeaders(t, first, map[string]string{
				"x-ratelimit-limit-requests":     "4",
				"x-ratelimit-remaining-requests": "3",
				"x-ratelimit-reset-requests":     "15s",
				"x-ratelimit-limit-tokens":       "1000",
				"x-ratelimit-remaining-tokens":   "300",
				"x-ratelimit-reset-tokens":       "42s",
			})
			// Of a prompt what was cached counts as well.
			second := f.call(t, api, "", "input-tokens=100 cache-read-tokens=201")
			wantStatus(t, second, http.StatusTooManyRequests)
			wantHeaders(t, second, map[string]string{
				"retry-after": "1", "retry-after-ms": "60", "x-ratelimit-remaining-requests": "2",
			})
			detail := decode[openAIError](t, second.body).Error
			if detail.Type != "tokens" || *detail.Code != "rate_limit_exceeded" {
				t.Errorf("the error is %+v", detail)
			}
			never := f.call(t, api, "", "input-tokens=1001")
			wantStatus(t, never, http.StatusTooManyRequests)
			wantHeaders(t, never, map[string]string{"retry-after": ""})

			f.call(t, api, "", "")
			if detail := decode[openAIError](t, f.call(t, api, "", "").body).Error; detail.Type != "requests" {
				t.Errorf("after four requests the error is %+v", detail)
			}
		})
	}
}

// Every key and every model has limits of its own, unless models are pooled.
func TestWhoseLimits(t *testing.T) {
	for _, pooled := range []bool{false, true} {
		f := newFake(t, options{limitOptions: limitOptions{RPM: 1, PoolModels: pooled}})
		wantStatus(t, f.call(t, "messages", "", ""), http.StatusOK)
		wantStatus(t, f.call(t, "messages", "", ""), http.StatusTooManyRequests)
		other := f.ask(t, "messages", "", "")
		other.Header.Set("X-Api-Key", "another")
		wantStatus(t, f.send(t, other), http.StatusOK)
		want := http.StatusOK
		if pooled {
			want = http.StatusTooManyRequests
		}
		wantStatus(t, f.call(t, "messages", `"model":"another"`, ""), want)
		// The same key at the other provider is another account.
		wantStatus(t, f.call(t, "chat", "", ""), http.StatusOK)
	}
}

// With as many requests open as there may be, the service is overloaded, in each API's own way, until one ends.
func TestOverload(t *testing.T) {
	f := newFake(t, options{limitOptions: limitOptions{Concurrency: 1}})
	open, err := f.http.Client().Do(f.ask(t, "messages", `"stream":true`, "output-tokens=1000 tokens-per-second=1"))
	if err != nil {
		t.Fatal(err)
	}
	refused := f.call(t, "messages", "", "")
	wantStatus(t, refused, statusOverloaded)
	if kind := decode[anthropicError](t, refused.body).Error.Type; kind != "overloaded_error" {
		t.Errorf("the error is %s", kind)
	}
	wantStatus(t, f.call(t, "chat", "", ""), http.StatusServiceUnavailable)
	open.Body.Close()
	total := f.total(t)
	if total.Overloaded != 2 || total.Aborted != 1 {
		t.Errorf("the ledger says %+v", total)
	}
	wantStatus(t, f.call(t, "chat", "", ""), http.StatusOK)
}

func wantStatus(t *testing.T, a answer, want int) {
	t.Helper()
	if a.StatusCode != want {
		t.Fatalf("status %d, want %d: %s", a.StatusCode, want, a.body)
	}
}

func wantHeaders(t *testing.T, a answer, want map[string]string) {
	t.Helper()
	for name, value := range want {
		if got := a.Header.Get(name); got != value {
			t.Errorf("%s: %q, want %q", name, got, value)
		}
	}
}
