package main

import (
	"encoding/json"
	"hash/fnv"
	"strings"
	"unicode/utf8"
)

// charactersPerToken is the rule of thumb by which everything is counted that a script does not say.
const charactersPerToken = 4

// countTokens tells how many tokens a text of so many characters is, rounded up.
func countTokens(characters int) int64 {
	return int64((characters + charactersPerToken - 1) / charactersPerToken)
}

// vocabulary has characters of one to four bytes, so that splitting a stream at any byte splits some of them.
var vocabulary = strings.Fields(`the counter lends a quiet hour to every naïve caller, für eine Weile; then über the bridge
	of 令牌 and スコープ the tide returns — Ærø, Łódź, São Tomé — and each bucket 🪣 refills, drop by drop 💧, until
	somebody asks again. Ещё раз: nothing is free, πάντα ῥεῖ, and what was held comes back.`)

// compose makes n tokens of text, each of charactersPerToken characters: the same for the same seed.
func compose(seed uint64, n int64) []string {
	var text []rune
	for int64(len(text)) < n*charactersPerToken {
		seed = mix(seed)
		text = append(append(text, []rune(vocabulary[seed%uint64(len(vocabulary))])...), ' ')
	}
	tokens := make([]string, n)
	for i := range tokens {
		tokens[i] = string(text[i*charactersPerToken : (i+1)*charactersPerToken])
	}
	return tokens
}

// mix is the next number of a sequence (splitmix64).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// seedOf is a number that is the same for the same strings.
func seedOf(parts ...string) uint64 {
	h := fnv.New64a()
	for _, part := range parts {
		h.Write([]byte(part))
		h.Write([]byte{0})
	}
	return h.Sum64()
}

// textIn collects what a model would read of a field of a request: text itself, or blocks with text in them, at any
// depth. Pictures and other media count nothing.
func textIn(fields ...json.RawMessage) string {
	var text strings.Builder
	for _, field := range fields {
		var value any
		if len(field) > 0 && json.Unmarshal(field, &value) == nil {
			collect(&text, value)
		}
	}
	return text.String()
}

func collect(text *strings.Builder, value any) {
	switch value := value.(type) {
	case string:
		text.WriteString(value)
	case []any:
		for _, element := range value {
			collect(text, element)
		}
	case map[string]any:
		for _, key := range []string{"text", "content", "arguments", "output"} {
			collect(text, value[key])
		}
	}
}

// promptTokens counts a prompt and the definitions of its tools. No prompt is free.
func promptTokens(text string, tools json.RawMessage) int64 {
	return max(1, countTokens(utf8.RuneCountInString(text)+utf8.RuneCount(tools)))
}
