package main

import (
	"sync"
	"time"
)

// limitOptions are the rate limits of every API key, each 0 for none.
type limitOptions struct {
	RPM         int64         `name:"rpm" help:"Requests per minute."`
	InputTPM    int64         `name:"input-tpm" help:"Input tokens per minute, Anthropic: what was not read from the cache."`
	OutputTPM   int64         `name:"output-tpm" help:"Output tokens per minute, Anthropic: what was written, whatever max_tokens says."`
	TPM         int64         `name:"tpm" help:"Tokens per minute, OpenAI: of each request the larger of its prompt and its output cap."`
	Burst       time.Duration `default:"1m" help:"How much of a limit may be used at once: what comes back in this time."`
	PoolModels  bool          `help:"Hold all models of a key to one set of limits, instead of each to its own."`
	Concurrency int           `help:"Requests at once of all callers; others are told that the service is overloaded. 0 for any number."`
}

// The level of a bucket is counted in parts, such that every nanosecond brings as many parts as the limit says tokens per
// minute. So nothing is ever rounded.
const partsPerToken = int64(time.Minute)

// maxPerMinute keeps the arithmetic of buckets inside 64 bits.
const maxPerMinute = 100_000_000

// bucket holds what may be used now. It fills continuously, as both providers' limits do. Its zero value limits
// nothing.
type bucket struct {
	perMinute int64
	// capacity and level are in parts. A level below zero is a debt.
	capacity, level int64
	// at is the time of level.
	at time.Time
}

func newBucket(perMinute int64, burst time.Duration, now time.Time) bucket {
	// Of a limit so small that less than one token fits, one fits.
	capacity := max(perMinute*int64(burst), partsPerToken)
	return bucket{perMinute: perMinute, capacity: capacity, level: capacity, at: now}
}

// refill brings the level up to now.
func (b *bucket) refill(now time.Time) {
	passed := int64(now.Sub(b.at))
	if b.perMinute == 0 || passed <= 0 {
		return
	}
	b.at = now
	if passed >= int64(b.untilFull()) {
		b.level = b.capacity
		return
	}
	b.level += passed * b.perMinute
}

// untilFull is how long until everything is there again.
func (b *bucket) untilFull() time.Duration { return b.until(b.capacity) }

// until is how long until the level is at so many parts, rounded up.
func (b *bucket) until(level int64) time.Duration {
	if b.perMinute == 0 || level <= b.level {
		return 0
	}
	return time.Duration((level - b.level + b.perMinute - 1) / b.perMinute)
}

// wait is how long until n tokens are there, and whether they ever will.
func (b *bucket) wait(n int64) (wait time.Duration, ever bool) {
	if b.perMinute == 0 {
		return 0, true
	}
	if n > b.capacity/partsPerToken {
		return 0, false
	}
	return b.until(n * partsPerToken), true
}

// take removes n tokens, if there are as many or not.
func (b *bucket) take(n int64) {
	if b.perMinute > 0 {
		b.level -= n * partsPerToken
	}
}

// standing is what the headers of an answer tell about a limit. Its zero value tells that there is none.
type standing struct {
	limit, remaining int64
	// fullAt is when all of it is there again.
	fullAt time.Time
}

func (b *bucket) standing() standing {
	return standing{limit: b.perMinute, remaining: max(0, b.level/partsPerToken), fullAt: b.at.Add(b.untilFull())}
}

// standings of an account at a time, by limit.
type standings struct {
	requests, input, output, tokens standing
	at                              time.Time
}

// Names of the limits.
const (
	limitRequests = "requests"
	limitInput    = "input tokens"
	limitOutput   = "output tokens"
	limitTokens   = "tokens"
)

// demand is what a request takes of the limits, beside itself.
type demand struct {
	// input and tokens are taken when it is admitted.
	input, tokens int64
	// output must be there for it to be admitted, and is taken later, as it is produced.
	output int64
	// countRefused takes a request of the limit even where tokens are lacking.
	countRefused bool
}

// refusal says which limit is in the way.
type refusal struct {
	limit string
	// perMinute is the limit, used how much of it is gone, and asked how much was wanted.
	perMinute, used, asked int64
	// retryAfter is how long until it would be admitted; never says that this will not happen.
	retryAfter time.Duration
	never      bool
}

// account identifies whose limits are asked: those of a key at one provider, and there for one model or for all.
type account struct{ provider, key, model string }

type buckets struct{ requests, input, output, tokens bucket }

func (b *buckets) refill(now time.Time) {
	for _, bucket := range []*bucket{&b.requests, &b.input, &b.output, &b.tokens} {
		bucket.refill(now)
	}
}

// limiter holds every account to the same limits. Safe for concurrent use.
type limiter struct {
	options limitOptions

	mu       sync.Mutex
	accounts map[account]*buckets
}

func newLimiter(options limitOptions) *limiter {
	return &limiter{options: options, accounts: map[account]*buckets{}}
}

// admit takes what a request demands, all of it or nothing. A refusal names the limit that takes longest to wait for.
func (l *limiter) admit(a account, d demand, now time.Time) (standings, *refusal) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.of(a, now)
	var refused *refusal
	for _, want := range []struct {
		limit string
		from  *bucket
		n     int64
	}{
		{limitRequests, &b.requests, 1},
		{limitInput, &b.input, d.input},
		{limitOutput, &b.output, d.output},
		{limitTokens, &b.tokens, d.tokens},
	} {
		wait, ever := want.from.wait(want.n)
		if ever && wait == 0 {
			continue
		}
		if refused == nil || !ever || (!refused.never && wait > refused.retryAfter) {
			left := max(0, want.from.level/partsPerToken)
			refused = &refusal{
				limit: want.limit, perMinute: want.from.perMinute, used: want.from.capacity/partsPerToken - left,
				asked: want.n, retryAfter: wait, never: !ever,
			}
		}
	}
	wait, _ := b.requests.wait(1)
	if refused == nil || (d.countRefused && wait == 0) {
		b.requests.take(1)
	}
	if refused == nil {
		b.input.take(d.input)
		b.tokens.take(d.tokens)
	}
	return b.standings(now), refused
}

// produce takes output that was written, even if that makes a debt.
func (l *limiter) produce(a account, output int64, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.of(a, now).output.take(output)
}

// look tells how an account stands, and takes nothing.
func (l *limiter) look(a account, now time.Time) standings {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.of(a, now).standings(now)
}

// reset fills every bucket.
func (l *limiter) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.accounts)
}

func (b *buckets) standings(now time.Time) standings {
	return standings{
		requests: b.requests.standing(), input: b.input.standing(), output: b.output.standing(), tokens: b.tokens.standing(),
		at: now,
	}
}

// of returns the buckets of an account at now. The caller holds the lock.
func (l *limiter) of(a account, now time.Time) *buckets {
	if l.options.PoolModels {
		a.model = ""
	}
	b := l.accounts[a]
	if b == nil {
		full := func(perMinute int64) bucket {
			if perMinute == 0 {
				return bucket{}
			}
			return newBucket(perMinute, l.options.Burst, now)
		}
		b = &buckets{
			requests: full(l.options.RPM), input: full(l.options.InputTPM), output: full(l.options.OutputTPM),
			tokens: full(l.options.TPM),
		}
		l.accounts[a] = b
	}
	b.refill(now)
	return b
}
