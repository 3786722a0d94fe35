package pricelist_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rationhq/ration/price"
	"github.com/rationhq/ration/price/pricelist"
)

func read(t *testing.T, file string) *pricelist.List {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	l, err := pricelist.Read(data)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// line shows an entry: name, input/output, and what else it says.
func line(m price.Model) string {
	text := fmt.Sprintf("%s %v/%v", m.Name, m.Input, m.Output)
	if m.HasCacheRead {
		text += fmt.Sprintf(" read %v", m.CacheRead)
	}
	if m.HasCacheWrite {
		text += fmt.Sprintf(" write %v", m.CacheWrite)
	}
	if m.MaxOutput > 0 {
		text += fmt.Sprintf(" most %d", m.MaxOutput)
	}
	if !m.From.IsZero() {
		text += " from " + m.From.Format(time.DateOnly)
	}
	return text
}

func same(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n\t%s\nwant\n\t%s", what, strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

func lines[T any](all []T, show func(T) string) []string {
	var shown []string
	for _, x := range all {
		shown = append(shown, show(x))
	}
	return shown
}

func TestLiteLLM(t *testing.T) {
	l := read(t, "testdata/litellm.json")
	if l.Format != "litellm" {
		t.Errorf("it is taken for %s", l.Format)
	}
	same(t, "entries", lines(l.Models, line), []string{
		"gemini/pro 1.25/10.00", // half a token is no length
		"groq/llama 0.06/0.12",  // less than 0.06 by the remains of a binary fraction
		"haiku-4-5 0.80/4.00 read 0.08 write 1.00 most 8192",
		"new 1.00/3.00 most 1000",
		"old 2.00/2.00",
	})
	same(t, "notes", lines(l.Notes, pricelist.Note.String), []string{
		"skipped below: has the price -1e-06, which is negative",
		"skipped free: is listed as free, as those are whose price is not known: where it is free, write 0 in the policy",
		"gemini/pro: costs more where the prompt is long: this is the price of a short one",
		"skipped huge: has the price 1e30, which is more than can be counted",
		"skipped no-input: has no price of input tokens",
		"skipped no-output: has no price of output tokens",
		"skipped nothing: has no mode, so it may not write text",
		"skipped sample_spec: explains the others",
		"skipped text-embedding: does not write text: its mode is embedding",
		"skipped words: has no price of input tokens",
	})
}

func TestGenAIPrices(t *testing.T) {
	l := read(t, "testdata/genai-prices.json")
	if l.Format != "genai-prices" {
		t.Errorf("it is taken for %s", l.Format)
	}
	same(t, "entries", lines(l.Models, line), []string{
		"anthropic.haiku-4-5-2025* 0.88/4.40", // as Bedrock writes it: not the maker's own price
		"chat 0.27/1.10 read 0.07",            // of the hours of a day the dearest
		"dated 10.00/40.00",                   // the first counts from the beginning
		"dated 2.00/8.00 from 2025-06-10",
		"gemini-pro* 1.25/10.00",
		"gemini-pro.5-0* 1.25/10.00",
		"gemini-pro.5-1* 1.25/10.00",
		"gemini-pro.5-2* 1.25/10.00",
		"global.anthropic.haiku 0.80/4.00",
		"global.anthropic.haiku-v1* 0.80/4.00",
		"haiku-4-5* 0.80/4.00 read 0.08 write 1.00",
		"haiku-5-20* 0.80/4.00 read 0.08 write 1.00",
		"haiku-5@20* 0.80/4.00 read 0.08 write 1.00",
		"haiku-latest 0.80/4.00 read 0.08 write 1.00",
		"hourly 1.00/2.00",
		"hourly-cache 2.00/2.00 read 2.00", // what has no price of its own costs as much as input
		"sonnet* 3.00/15.00",
		"together_ai/meta/Llama-70B 0.88/0.88",
	})
	same(t, "notes", lines(l.Notes, pricelist.Note.String), []string{
		"skipped below: has the price -1, which is negative",
		"skipped broken: has prices that cannot be read: json: cannot unmarshal string into Go value of type map[string]interface {}",
		"skipped claude-haiku: is another maker's, which lists it",
		"skipped gemini-paint: does not only write text: it has a price for output_image_mtok",
		"gemini-pro: also stands for several conditions at once, which no name with stars can say",
		"skipped gemini-pro-tts: does not only write text: its name says tts",
		"skipped haiku-latest: is in the list a second time, with other prices: the first ones count",
		"skipped nebula/ada: has no price of output tokens",
		"odd: also stands for ^(odd|even)$, which no name with stars can say",
		"skipped odd: has no name that can be written with stars",
		`skipped someday: has a price from "soon" on, which is no date`,
		"sonnet: costs more where the prompt is long: this is the price of a short one",
		"skipped together_ai/Llama-free: is listed as free, as those are whose price is not known: where it is free, write 0 in the policy",
		"skipped together_ai/empty: has no price of input tokens",
	})
	slices.Sort(l.Unpriced)
	same(t, "names without a price", l.Unpriced, []string{
		"below", "broken", "gemini-paint", "gemini-pro*-tts*", "gemini-pro-tts", "nebula/ada*", "someday",
		"together_ai/Llama-free", "together_ai/empty",
	})
	// A book takes them all as they are.
	if _, err := price.NewBook(l.Models, nil); err != nil {
		t.Error(err)
	}
}

func TestOtherFiles(t *testing.T) {
	for text, says := range map[string]string{
		"":                    "this is no JSON",
		"prices:":             "this is no JSON",
		`{"a": 1}`:            "this is not LiteLLM's list",
		`{"a": {"mode": `:     "this is not LiteLLM's list",
		`[1]`:                 "this is not the list of genai-prices",
		`[{"models": [}]`:     "this is not the list of genai-prices",
		`[{"id": 1}]`:         "this is not the list of genai-prices",
		`{"a": "x", "b": []}`: "this is not LiteLLM's list",
	} {
		if l, err := pricelist.Read([]byte(text)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %+v, %v; want an error that says: %s", text, l, err, says)
		}
	}
}
