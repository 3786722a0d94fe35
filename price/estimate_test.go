package price_test

import (
	"encoding/json"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/price"
)

func TestEstimate(t *testing.T) {
	const own = 8192 // the model's own maximum
	for _, c := range []struct {
		name   string
		prompt price.Prompt
		max    int64
		want   price.Usage
		open   bool // the output is not bounded
	}{
		{"tokens and a cap", price.Prompt{Tokens: 100, OutputCaps: []int64{50}}, own, price.Usage{Input: 100, Output: 50}, false},
		{"four characters are a token", price.Prompt{Characters: 8, OutputCaps: []int64{1}}, own, price.Usage{Input: 2, Output: 1}, false},
		{"begun tokens count", price.Prompt{Characters: 9, OutputCaps: []int64{1}}, own, price.Usage{Input: 3, Output: 1}, false},
		{"counted is better than guessed", price.Prompt{Tokens: 7, Characters: 400, OutputCaps: []int64{1}}, own, price.Usage{Input: 7, Output: 1}, false},
		{"the largest cap", price.Prompt{OutputCaps: []int64{1, 10_000, 5}}, own, price.Usage{Output: 10_000}, false},
		{"no cap: the model's", price.Prompt{Tokens: 1}, own, price.Usage{Input: 1, Output: own}, false},
		{"neither cap nor maximum", price.Prompt{Tokens: 1}, 0, price.Usage{Input: 1}, true},
		{"no limit, said so", price.Prompt{OutputCaps: []int64{10, -1}}, own, price.Usage{Output: own}, false},
		{"no limit, beside a larger one", price.Prompt{OutputCaps: []int64{10_000, -1}}, own, price.Usage{Output: 10_000}, false},
		{"no limit, and no maximum", price.Prompt{OutputCaps: []int64{10, -2}}, 0, price.Usage{}, true},
		{"no output", price.Prompt{Tokens: 1, OutputCaps: []int64{0}}, own, price.Usage{Input: 1}, false},
		{"several answers", price.Prompt{OutputCaps: []int64{10}, Choices: []int64{2, 5, 1}}, own, price.Usage{Output: 50}, false},
		{"several answers without a cap", price.Prompt{Choices: []int64{2}}, own, price.Usage{Output: 2 * own}, false},
		{"no number of answers", price.Prompt{OutputCaps: []int64{10}, Choices: []int64{0, -3}}, own, price.Usage{Output: 10}, false},
		{"nonsense", price.Prompt{Tokens: -5, Characters: -5, OutputCaps: []int64{1}}, own, price.Usage{Output: 1}, false},
		{
			"too much of everything",
			price.Prompt{Characters: math.MaxInt64, OutputCaps: []int64{math.MaxInt64}, Choices: []int64{math.MaxInt64}}, own,
			price.Usage{Input: limit.MaxAmount, Output: limit.MaxAmount}, false,
		},
		{"too many tokens", price.Prompt{Tokens: math.MaxInt64, OutputCaps: []int64{1 << 60}}, own, price.Usage{Input: limit.MaxAmount, Output: limit.MaxAmount}, false},
	} {
		got, ok := c.prompt.Estimate(c.max)
		if got != c.want || ok == c.open {
			t.Errorf("%s: %+v, bounded: %t; want %+v, %t", c.name, got, ok, c.want, !c.open)
		}
	}
}

// The request bodies of providers, each with a cap of 100 tokens and, where there is such a thing, 3 answers, are read
// by the names alone.
func TestFieldsOfProviders(t *testing.T) {
	for provider, body := range map[string]string{
		"OpenAI chat, Anthropic, Mistral": `{"max_tokens": 100, "n": 3}`,
		"OpenAI chat, newer":              `{"max_completion_tokens": 100, "n": 3}`,
		"OpenAI responses":                `{"max_output_tokens": 100}`,
		"OpenAI completions":              `{"max_tokens": 100, "n": 1, "best_of": 3}`,
		"a bypass":                        `{"max_tokens": 1, "max_completion_tokens": 100, "n": 3}`,
		"Anthropic completions":           `{"max_tokens_to_sample": 100}`,
		"Gemini":                          `{"generationConfig": {"maxOutputTokens": 100, "candidateCount": 3}}`,
		"Vertex AI":                       `{"generation_config": {"max_output_tokens": 100, "candidate_count": 3}}`,
		"Vertex AI predict":               `{"parameters": {"maxOutputTokens": 100, "candidateCount": 3}}`,
		"Bedrock Converse":                `{"inferenceConfig": {"maxTokens": 100}}`,
		"Nova":                            `{"inferenceConfig": {"max_new_tokens": 100}}`,
		"Titan":                           `{"textGenerationConfig": {"maxTokenCount": 100}}`,
		"Llama on Bedrock":                `{"max_gen_len": 100}`,
		"Cohere":                          `{"max_tokens": 100, "num_generations": 3}`,
		"AI21":                            `{"maxTokens": 100, "numResults": 3}`,
		"Ollama":                          `{"options": {"num_predict": 100}}`,
		"llama.cpp":                       `{"n_predict": 100}`,
		"TGI":                             `{"parameters": {"max_new_tokens": 100, "best_of": 3}}`,
		"DashScope":                       `{"parameters": {"max_tokens": 100}}`,
	} {
		var p price.Prompt
		for _, name := range price.OutputCapFields() {
			p.OutputCaps = append(p.OutputCaps, field(t, body, name)...)
		}
		for _, name := range price.ChoiceFields() {
			p.Choices = append(p.Choices, field(t, body, name)...)
		}
		want := int64(100)
		if strings.Contains(body, "3") {
			want = 300
		}
		if got, ok := p.Estimate(0); !ok || got.Output != want {
			t.Errorf("%s: %d tokens of output, bounded: %t; want %d", provider, got.Output, ok, want)
		}
	}
	for _, names := range [][]string{price.OutputCapFields(), price.ChoiceFields()} {
		if sorted := slices.Sorted(slices.Values(names)); len(slices.Compact(sorted)) != len(names) {
			t.Errorf("a name is there twice: %v", names)
		}
	}
}

// field returns the number at a name as [price.OutputCapFields] gives it, if it is there.
func field(t *testing.T, body, name string) []int64 {
	t.Helper()
	var object map[string]json.RawMessage
	if err := json.Unmarshal([]byte(body), &object); err != nil {
		t.Fatal(err)
	}
	outer, inner, nested := strings.Cut(name, ".")
	value, ok := object[outer]
	if !ok {
		return nil
	}
	if nested {
		return field(t, string(value), inner)
	}
	var n int64
	if json.Unmarshal(value, &n) != nil {
		return nil
	}
	return []int64{n}
}
