package main

import (
	"iter"
	"strconv"
	"strings"
	"time"
)

// ask is what a request wants, whichever API it is in.
type ask struct {
	model string
	// prompt is all text that the model would read.
	prompt string
	// promptTokens counts it, with what else there is to read.
	promptTokens int64
	// limit caps the output of each choice, 0 for no cap.
	limit int64
	// choices is how many answers are wanted, at least 1.
	choices int
	stream  bool
	// streamUsage asks for usage at the end of a stream, where an API wants to be asked.
	streamUsage bool
}

// tokens counts them by kind. The kinds are disjoint, but for Reasoning, which is part of Output, and CacheWrite1h,
// which is part of CacheWrite.
type tokens struct {
	Input        int64 `json:"input_tokens"`
	CacheRead    int64 `json:"cache_read_tokens"`
	CacheWrite   int64 `json:"cache_write_tokens"`
	CacheWrite1h int64 `json:"cache_write_1h_tokens"`
	Output       int64 `json:"output_tokens"`
	Reasoning    int64 `json:"reasoning_tokens"`
}

func (t *tokens) add(more tokens) {
	t.Input += more.Input
	t.CacheRead += more.CacheRead
	t.CacheWrite += more.CacheWrite
	t.CacheWrite1h += more.CacheWrite1h
	t.Output += more.Output
	t.Reasoning += more.Reasoning
}

// prompt is the part of t that a request pays before there is output.
func (t tokens) prompt() tokens {
	t.Output, t.Reasoning = 0, 0
	return t
}

// wholePrompt is everything that was read, from a cache or not.
func (t tokens) wholePrompt() int64 { return t.Input + t.CacheRead + t.CacheWrite }

// plan is an answer before it is put into the words of an API.
type plan struct {
	tokens tokens
	// reasoning is how many tokens each choice takes before its text.
	reasoning int64
	// texts has the visible tokens of each choice.
	texts [][]string
	// capped says that the cap of the request ended the answer.
	capped bool
}

// Answers whose length nobody said are of shortest tokens and up to so many more.
const (
	shortest = 32
	spread   = 97
)

// planFor decides what is answered: the same for the same request.
func planFor(a ask, s script) plan {
	seed := seedOf(a.model, a.prompt)
	write1h := orElse(s.cacheWrite1h, 0)
	p := plan{tokens: tokens{
		Input:        orElse(s.input, a.promptTokens),
		CacheRead:    orElse(s.cacheRead, 0),
		CacheWrite:   orElse(s.cacheWrite, 0) + write1h,
		CacheWrite1h: write1h,
	}}
	reasoning := orElse(s.reasoning, 0)
	output := orElse(s.output, shortest+int64(mix(seed)%spread)+reasoning)
	output = max(output, reasoning)
	if a.limit > 0 && output > a.limit {
		output, p.capped = a.limit, true
	}
	p.reasoning = min(reasoning, output)
	for i := range a.choices {
		p.texts = append(p.texts, compose(seed+uint64(i), output-p.reasoning))
	}
	p.tokens.Output = output * int64(a.choices)
	p.tokens.Reasoning = p.reasoning * int64(a.choices)
	return p
}

func orElse(said *int64, otherwise int64) int64 {
	if said != nil {
		return *said
	}
	return otherwise
}

// text is all that choice i says.
func (p plan) text(i int) string { return strings.Join(p.texts[i], "") }

// exchange is a request with the answer that it is to get.
type exchange struct {
	ask
	script
	plan

	// number counts the requests that the server has had, to make ids that are never the same.
	number uint64
	// created is when the request came.
	created time.Time
}

// id makes an identifier of the exchange in the manner of the providers: a prefix and letters without meaning.
func (x *exchange) id(prefix string) string {
	hi := mix(seedOf(prefix) + x.number)
	return prefix + strconv.FormatUint(hi|1<<63, 36) + strconv.FormatUint(mix(hi)|1<<63, 36)
}

// step is how many tokens go into one event: single ones where the script wants to stop at one of them.
func (x *exchange) step() int64 {
	if x.errorAfter != nil || x.abortAfter != nil {
		return 1
	}
	return max(1, x.chunk)
}

// think is the time and the tokens of reasoning, of which nothing is seen.
func (x *exchange) think(yield func(event) bool) bool {
	left := x.tokens.Reasoning
	for left > 0 {
		n := min(x.step(), left)
		if !yield(event{output: n, reasoning: n}) {
			return false
		}
		left -= n
	}
	return true
}

// chunks cuts the text of choice i into the pieces that a stream sends, with the number of tokens in each.
func (x *exchange) chunks(i int) iter.Seq2[int64, string] {
	return func(yield func(int64, string) bool) {
		text := x.texts[i]
		for len(text) > 0 {
			n := min(x.step(), int64(len(text)))
			if !yield(n, strings.Join(text[:n], "")) {
				return
			}
			text = text[n:]
		}
	}
}
