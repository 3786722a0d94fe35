package main

import (
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// openAI is what Chat Completions and Responses have in common: keys, limits, headers and errors.
// https://platform.openai.com/docs/guides/rate-limits and /guides/error-codes
type openAI struct{}

func (openAI) provider() string           { return "openai" }
func (openAI) key(r *http.Request) string { return bearer(r) }
func (openAI) overloaded() int            { return http.StatusServiceUnavailable }

// demand is decided before there is output: the larger of the prompt and of all that could be written at most. Requests
// that are refused count too.
func (openAI) demand(a ask, p plan) demand {
	return demand{tokens: max(p.tokens.wholePrompt(), a.limit*int64(a.choices)), countRefused: true}
}

func (openAI) head(h http.Header, x *exchange, s standings, f *fault) {
	h.Set("X-Request-Id", x.id("req_"))
	h.Set("Openai-Organization", "org-fake")
	h.Set("Openai-Version", "2020-10-01")
	h.Set("Openai-Processing-Ms", strconv.FormatInt(max(0, s.at.Sub(x.created).Milliseconds()), 10))
	tell := func(name string, was standing) {
		if was.limit == 0 {
			return
		}
		h.Set("X-Ratelimit-Limit-"+name, strconv.FormatInt(was.limit, 10))
		h.Set("X-Ratelimit-Remaining-"+name, strconv.FormatInt(was.remaining, 10))
		h.Set("X-Ratelimit-Reset-"+name, upToMillisecond(was.fullAt.Sub(s.at)).String())
	}
	tell("Requests", s.requests)
	tell("Tokens", s.tokens)
	if f != nil && f.retryAfter > 0 {
		h.Set("Retry-After", wholeSeconds(f.retryAfter))
		h.Set("Retry-After-Ms", strconv.FormatInt(upToMillisecond(f.retryAfter).Milliseconds(), 10))
	}
}

// upToMillisecond rounds up.
func upToMillisecond(d time.Duration) time.Duration {
	return (d + time.Millisecond - 1).Truncate(time.Millisecond)
}

type openAIError struct {
	Error openAIErrorDetail `json:"error"`
}

type openAIErrorDetail struct {
	Message string  `json:"message"`
	Type    string  `json:"type"`
	Param   *string `json:"param"`
	Code    *string `json:"code"`
}

func (openAI) errorDetail(x *exchange, f *fault) openAIErrorDetail {
	kind, code, message := f.kind, f.code, f.message
	switch r := f.refusal; {
	case r != nil:
		kind, code = limitTokens, "rate_limit_exceeded"
		short := "TPM"
		if r.limit == limitRequests {
			kind, short = limitRequests, "RPM"
		}
		if r.never {
			message = fmt.Sprintf("Request too large for %s on %s per min (%s): Limit %d, Requested %d.",
				x.model, kind, short, r.perMinute, r.asked)
		} else {
			message = fmt.Sprintf("Rate limit reached for %s on %s per min (%s): Limit %d, Used %d, Requested %d. "+
				"Please try again in %v.", x.model, kind, short, r.perMinute, r.used, r.asked, upToMillisecond(r.retryAfter))
		}
	case f.status == http.StatusTooManyRequests && kind == "":
		kind, code = limitRequests, "rate_limit_exceeded"
	case kind == "" && f.status >= http.StatusInternalServerError:
		kind = "server_error"
	case kind == "":
		kind = "invalid_request_error"
	}
	return openAIErrorDetail{Message: message, Type: kind, Param: orNull(f.param), Code: orNull(code)}
}

func (d openAI) errorBody(x *exchange, f *fault) any { return openAIError{d.errorDetail(x, f)} }

// orNull is nil for the empty string.
func orNull(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
