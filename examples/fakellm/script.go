package main

import (
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// script says how a request is answered, in place of a model. Its zero value is an answer at once, in one piece, with
// tokens counted by the text.
//
// The same words stand in three places, of which the later wins word by word: the flag --script, a directive in the
// prompt, [fake output-tokens=20 first-byte=1s], and headers, x-fake-output-tokens: 20.
type script struct {
	// Tokens of each kind; nil where the text of the prompt or a hash of it decides. The kinds are disjoint, but for
	// reasoning, which is part of the output.
	input, cacheRead, cacheWrite, cacheWrite1h, output, reasoning *int64

	// firstByte passes before anything is answered.
	firstByte time.Duration
	// tokensPerSecond is the pace of the output, 0 for no delay.
	tokensPerSecond float64
	// chunk is how many tokens go into an event of a stream, at least 1.
	chunk int64
	// split writes the body in pieces of so many bytes, whatever they cut through; 0 in whole events.
	split int
	// slowClose passes between the last byte and the end of the body.
	slowClose time.Duration
	// compress uses gzip where the caller accepts it.
	compress bool
	// noUsage leaves out how many tokens were used.
	noUsage bool

	// status, where it is not 0, is an error instead of an answer, with errorType and retryAfter where they are said.
	status     int
	errorType  string
	retryAfter time.Duration
	// errorAfter and abortAfter end an answer after so many tokens of output: with an error in the stream, or with a
	// reset of the connection. Nil for never.
	errorAfter, abortAfter *int64
}

// directive finds what a prompt says about its answer.
var directive = regexp.MustCompile(`\[fake ([^\]]*)\]`)

// headerPrefix starts the headers of a script.
const headerPrefix = "X-Fake-"

// parse reads words of the form name=value, or name for true.
func (s *script) parse(words string) error {
	for _, word := range strings.Fields(words) {
		name, value, found := strings.Cut(word, "=")
		if !found {
			value = "true"
		}
		if err := s.set(name, value); err != nil {
			return fmt.Errorf("%s=%s: %w", name, value, err)
		}
	}
	return nil
}

// forRequest adds to a copy of s what the prompt and the headers of a request say. Of several directives in a prompt
// the last counts: those before it are a conversation's past.
func (s script) forRequest(prompt string, headers http.Header) (script, error) {
	if found := directive.FindAllStringSubmatch(prompt, -1); found != nil {
		if err := s.parse(found[len(found)-1][1]); err != nil {
			return s, fmt.Errorf("directive in the prompt: %w", err)
		}
	}
	for name, values := range headers {
		word, found := strings.CutPrefix(name, headerPrefix)
		if !found {
			continue
		}
		if err := s.set(strings.ToLower(word), values[len(values)-1]); err != nil {
			return s, fmt.Errorf("header %s: %w", strings.ToLower(name), err)
		}
	}
	return s, nil
}

// set reads one word.
func (s *script) set(name, value string) (err error) {
	switch name {
	case "input-tokens":
		s.input, err = parseTokens(value)
	case "cache-read-tokens":
		s.cacheRead, err = parseTokens(value)
	case "cache-write-tokens":
		s.cacheWrite, err = parseTokens(value)
	case "cache-write-1h-tokens":
		s.cacheWrite1h, err = parseTokens(value)
	case "output-tokens":
		s.output, err = parseTokens(value)
	case "reasoning-tokens":
		s.reasoning, err = parseTokens(value)
	case "first-byte":
		s.firstByte, err = parseDelay(value)
	case "tokens-per-second":
		s.tokensPerSecond, err = strconv.ParseFloat(value, 64)
		if err == nil && !(s.tokensPerSecond >= 0 && s.tokensPerSecond <= 1e9) {
			err = errors.New("want a number from 0 to 1e9")
		}
	case "chunk-tokens":
		s.chunk, err = strconv.ParseInt(value, 10, 64)
		if err == nil && s.chunk < 1 {
			err = errors.New("want at least 1")
		}
	case "split":
		s.split, err = strconv.Atoi(value)
		if err == nil && s.split < 0 {
			err = errors.New("want a number of bytes")
		}
	case "slow-close":
		s.slowClose, err = parseDelay(value)
	case "compress":
		s.compress, err = strconv.ParseBool(value)
	case "no-usage":
		s.noUsage, err = strconv.ParseBool(value)
	case "status":
		s.status, err = strconv.Atoi(value)
		if err == nil && (s.status < 400 || s.status > 599) {
			err = errors.New("want an error, 400 to 599")
		}
	case "error":
		s.errorType = value
	case "retry-after":
		s.retryAfter, err = parseDelay(value)
	case "error-after":
		s.errorAfter, err = parseTokens(value)
	case "abort-after":
		s.abortAfter, err = parseTokens(value)
	default:
		return errors.New("a script has no such word")
	}
	return err
}

// maxTokens of one kind in a script: more than any model has, and few enough to be made up in memory.
const maxTokens = 1_000_000

func parseTokens(value string) (*int64, error) {
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil {
		return nil, err
	}
	if n < 0 || n > maxTokens {
		return nil, fmt.Errorf("want a number from 0 to %d", maxTokens)
	}
	return &n, nil
}

func parseDelay(value string) (time.Duration, error) {
	d, err := time.ParseDuration(value)
	if err == nil && d < 0 {
		err = errors.New("want a duration of 0 or more")
	}
	return d, err
}
