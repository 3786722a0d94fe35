package price_test

import (
	"strings"
	"testing"
	"time"

	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/price"
)

var today = time.Date(2026, 11, 10, 12, 0, 0, 0, time.UTC)

func on(t testing.TB, day string) time.Time {
	t.Helper()
	d, err := time.Parse(time.DateOnly, day)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// model is an entry whose input price, in dollars, tells it from others.
func model(t testing.TB, name, input string) price.Model {
	t.Helper()
	return price.Model{Name: name, Rates: price.Rates{Input: dollars(t, input), Output: dollars(t, "99")}}
}

func newBook(t testing.TB, base *price.Book, own ...price.Model) *price.Book {
	t.Helper()
	b, err := price.NewBook(own, base)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// finds checks which entry the book finds for each model; empty for none.
func finds(t *testing.T, b *price.Book, at time.Time, want map[string]string) {
	t.Helper()
	for model, entry := range want {
		q, ok := b.Find(model, at)
		if ok != (entry != "") || q.Model != entry {
			t.Errorf("%q is found as %q (%t), want %q", model, q.Model, ok, entry)
		}
		if ok && q.Version != b.Version() {
			t.Errorf("%q is quoted from %s, not from %s", model, q.Version, b.Version())
		}
	}
}

func TestFindTheMostSpecific(t *testing.T) {
	b := newBook(t, nil,
		model(t, "claude-*", "1"), model(t, "claude-haiku-*", "2"), model(t, "claude-haiku-4-5", "3"),
		model(t, "claude-*-preview", "4"), model(t, "*-embedding", "5"), model(t, "o*x*y", "6"), model(t, "*", "7"),
		model(t, "Groq/Llama", "8"),
	)
	finds(t, b, today, map[string]string{
		"claude-haiku-4-5":         "claude-haiku-4-5",
		"claude-haiku-4-5-2025":    "claude-haiku-*",
		"claude-haiku-":            "claude-haiku-*",
		"claude-opus":              "claude-*",
		"claude-opus-preview":      "claude-*-preview", // more letters, after the same beginning
		"claude-haiku-preview":     "claude-haiku-*",   // the longer beginning comes first
		"text-embedding":           "*-embedding",
		"oxy":                      "o*x*y",
		"o-y-x-z-y":                "o*x*y",
		"oyx":                      "*",
		"":                         "*",
		"groq/llama":               "Groq/Llama", // in whatever case
		"CLAUDE-Haiku-4-5":         "claude-haiku-4-5",
		strings.Repeat("x", 512):   "*",
		strings.Repeat("x", 513):   "", // no model has such a name
		"claude-haiku-4-5\x00":     "claude-haiku-*",
		"anthropic/claude-sonnet":  "claude-*", // before the pattern that begins with a star
		"anthropic/text-embedding": "*-embedding",
	})
}

// Of what stands before the name of a model, that is left out which does not make it dearer.
func TestFindByTheWayToAModel(t *testing.T) {
	b := newBook(t, nil,
		model(t, "claude-x*", "1"), model(t, "gemini-x", "2"), model(t, "gpt-x", "3"), model(t, "o3", "3"),
		model(t, "groq/llama-x", "4"), model(t, "llama-x", "5"), model(t, "openrouter/openai/gpt-x", "6"),
		model(t, "global.anthropic.claude-x-y*", "7"), model(t, "anthropic.claude-x-y*", "8"),
		model(t, "accounts/fireworks/models/deepseek-x", "9"), model(t, "amazon.nova-x*", "10"), model(t, "deepseek-x", "11"),
	)
	finds(t, b, today, map[string]string{
		"anthropic/claude-x":                 "claude-x*",
		"anthropic:claude-x":                 "claude-x*",
		"openrouter/anthropic/claude-x:beta": "claude-x*",
		"openrouter/openai/gpt-x":            "openrouter/openai/gpt-x",
		"openai/gpt-x":                       "gpt-x",
		"azure/gpt-x":                        "gpt-x",
		"azure/o3":                           "o3",
		"azure/llama-x":                      "", // others' models cost more or less there
		"models/gemini-x":                    "gemini-x",
		"gemini/gemini-x":                    "gemini-x",
		"vertex_ai/gemini-x":                 "gemini-x",
		"vertex_ai/claude-x@20250101":        "claude-x*",
		"vertex_ai/llama-x":                  "",
		"publishers/google/models/gemini-x":  "gemini-x",
		"us.anthropic.claude-x-1-v1:0":       "claude-x*",
		"us.anthropic.claude-x-y-v1:0":       "anthropic.claude-x-y*",
		"bedrock/us.anthropic.claude-x-y":    "anthropic.claude-x-y*",
		"global.anthropic.claude-x-y-v1:0":   "global.anthropic.claude-x-y*",
		"eu.anthropic.claude-x-y-v1:0":       "", // Europe may be dearer, and has ids of its own
		"us.amazon.nova-x-v1:0":              "amazon.nova-x*",
		"groq/llama-x":                       "groq/llama-x",
		"together_ai/llama-x":                "", // a host with prices of its own
		"fireworks_ai/deepseek-x":            "",
		"openrouter/claude-x/nitro":          "claude-x*",
		"x/claude-x":                         "",
		"claude.x":                           "",
		"anthropic.gpt-x":                    "",
		"anthropic/":                         "",
		"/":                                  "",
		"projects/p":                         "",
		"arn:aws:bedrock":                    "",
		"fireworks_ai/accounts/fireworks/models/deepseek-x":                                     "accounts/fireworks/models/deepseek-x",
		"projects/p/locations/l/publishers/anthropic/models/claude-x@20250101":                  "claude-x*",
		"arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-x-y-v1:0": "anthropic.claude-x-y*",
	})
}

func TestFindByDate(t *testing.T) {
	dated := func(name, input, from string) price.Model {
		m := model(t, name, input)
		m.From = on(t, from)
		return m
	}
	b := newBook(t, nil,
		dated("a", "2", "2026-06-01"), model(t, "a", "1"), dated("a", "3", "2027-01-01"),
		dated("b-1", "5", "2026-06-01"), model(t, "b-*", "4"),
	)
	for _, c := range []struct{ model, day, entry, input string }{
		{"a", "2020-01-01", "a", "1.00"},
		{"a", "2026-05-31", "a", "1.00"},
		{"a", "2026-06-01", "a", "2.00"},
		{"a", "2026-12-31", "a", "2.00"},
		{"a", "2030-01-01", "a", "3.00"},
		{"b-1", "2026-05-31", "b-*", "4.00"}, // an entry that does not count yet is not there
		{"b-1", "2026-06-01", "b-1", "5.00"},
	} {
		q, ok := b.Find(c.model, on(t, c.day))
		if !ok || q.Model != c.entry || q.Input.String() != c.input || q.From.After(on(t, c.day)) {
			t.Errorf("%s on %s: %+v; want %s at %s", c.model, c.day, q, c.entry, c.input)
		}
	}
	// The dearest follow the days too: of b-* and b-1 the dearer one.
	for day, input := range map[string]string{"2020-01-01": "4.00", "2026-06-01": "5.00", "2030-01-01": "5.00"} {
		if r := b.Dearest(on(t, day)); r.Input.String() != input {
			t.Errorf("the dearest input on %s costs %v, want %s", day, r.Input, input)
		}
	}
}

// What stands in a policy wins over the book under it.
func TestOwnWins(t *testing.T) {
	exact, short := model(t, "claude-x-1", "1"), model(t, "gpt-x", "2")
	exact.MaxOutput, short.MaxOutput = 64_000, 16_000
	base := newBook(t, nil, exact, short, model(t, "us.anthropic.claude-x-1", "3"), model(t, "other", "4"))
	longer := model(t, "gpt-*", "6")
	longer.MaxOutput = 99
	b := newBook(t, base, model(t, "claude-*", "5"), longer)
	for name, want := range map[string]struct {
		entry, input string
		most         int64
	}{
		"claude-x-1":              {"claude-*", "5.00", 64_000}, // a pattern over an exact name; the length of its answers stays
		"us.anthropic.claude-x-1": {"claude-*", "5.00", 0},
		"gpt-x":                   {"gpt-*", "6.00", 99},
		"other":                   {"other", "4.00", 0},
	} {
		q, ok := b.Find(name, today)
		if !ok || q.Model != want.entry || q.Input.String() != want.input || q.MaxOutput != want.most || q.Version != b.Version() {
			t.Errorf("%s: %+v, want %+v", name, q, want)
		}
	}
	if q, _ := base.Find("claude-x-1", today); q.Model != "claude-x-1" || q.Version != base.Version() {
		t.Errorf("the book under it has changed: %+v", q)
	}
}

// A cache price that there is not is the input price; one of nothing is nothing.
func TestMissingCachePrices(t *testing.T) {
	m := model(t, "a", "3")
	m.CacheRead, m.HasCacheRead = 0, true
	m.CacheWrite = dollars(t, "7") // not said to be one
	q, _ := newBook(t, nil, m).Find("a", today)
	if q.CacheRead != 0 || q.CacheWrite != q.Input {
		t.Errorf("%+v; want reads for nothing, and writes at the price of input", q.Rates)
	}
}

// A name without a price is unknown, also where a pattern stands for it or the book under it has one.
func TestUnpriced(t *testing.T) {
	base := newBook(t, nil, model(t, "gemini-*", "1"), price.Model{Name: "gemini-*-tts", Unpriced: true}, model(t, "old", "1"))
	b := newBook(t, base, price.Model{Name: "old", Unpriced: true})
	finds(t, b, today, map[string]string{"gemini-pro": "gemini-*", "gemini-pro-tts": "", "old": ""})
	if near := b.Nearest("gemini--ttt"); near != "" {
		t.Errorf("%s is suggested, which has no price", near)
	}
}

func TestDearest(t *testing.T) {
	a, c := model(t, "a", "1"), model(t, "c", "5")
	a.Output, c.Output = dollars(t, "20"), dollars(t, "10")
	a.CacheWrite, a.HasCacheWrite = dollars(t, "6"), true
	c.CacheRead, c.HasCacheRead = dollars(t, "0.5"), true
	base := newBook(t, nil, c)
	got := newBook(t, base, a).Dearest(today)
	want := price.Rates{Input: dollars(t, "5"), CacheRead: dollars(t, "1"), CacheWrite: dollars(t, "6"), Output: dollars(t, "20")}
	if got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got := newBook(t, nil).Dearest(today); got != (price.Rates{}) {
		t.Errorf("an empty book's dearest: %+v", got)
	}
}

func TestNearest(t *testing.T) {
	b := newBook(t, newBook(t, nil, model(t, "gpt-4o", "1"), model(t, "claude-sonnet-4-5*", "1"), model(t, "groq/llama-70b", "1")),
		model(t, "claude-opus-4-5", "1"), model(t, "gpt-4a", "1"))
	for model, want := range map[string]string{
		"claude-opus-4.5":            "claude-opus-4-5",
		"claude-sonet-4-5":           "claude-sonnet-4-5",
		"Claude-Sonnet-45":           "claude-sonnet-4-5",
		"anthropic/claude-opsu-4-5":  "claude-opus-4-5",
		"gpt-4x":                     "gpt-4a", // as near as gpt-4o, and the policy's own
		"gpt-4":                      "gpt-4a",
		"gpt-xy":                     "gpt-4a",
		"gpt-xyz":                    "",
		"pgt-o4":                     "gpt-4o", // two pairs are swapped
		"llama-70b":                  "",
		"groq/lama-70b":              "groq/llama-70b",
		"mixtral":                    "",
		"":                           "",
		strings.Repeat("x", 100_000): "",
	} {
		if got := b.Nearest(model); got != want {
			t.Errorf("%.20q: %q, want %q", model, got, want)
		}
	}
}

// A version stands for what is in a book, in whatever order it was written.
func TestVersion(t *testing.T) {
	a, c := model(t, "a", "1"), model(t, "c", "2")
	base := newBook(t, nil, a, c)
	if v := newBook(t, nil, c, a).Version(); v != base.Version() {
		t.Errorf("in another order: %s, not %s", v, base.Version())
	}
	if v := newBook(t, base).Version(); v != base.Version() {
		t.Errorf("nothing over a book: %s, not %s", v, base.Version())
	}
	seen := map[string]string{base.Version(): "the first"}
	dear, dated, longer, free := a, a, a, a
	dear.Output++
	dated.From = today
	longer.MaxOutput = 1
	free.HasCacheRead = true
	for name, b := range map[string]*price.Book{
		"one entry":         newBook(t, nil, a),
		"another price":     newBook(t, nil, dear, c),
		"another day":       newBook(t, nil, dated, c),
		"another length":    newBook(t, nil, longer, c),
		"another cache":     newBook(t, nil, free, c),
		"another name":      newBook(t, nil, model(t, "b", "1"), c),
		"one over the rest": newBook(t, newBook(t, nil, c), a),
		"no price":          newBook(t, nil, price.Model{Name: "a", Unpriced: true}, c),
		"nothing to pay":    newBook(t, nil, price.Model{Name: "a"}, c),
	} {
		if other, ok := seen[b.Version()]; ok || b.Version() == "" {
			t.Errorf("%s has the version %q of %s", name, b.Version(), other)
		}
		seen[b.Version()] = name
	}
}

func TestBooksThatCannotBe(t *testing.T) {
	negative, huge, long := model(t, "a", "1"), model(t, "a", "1"), model(t, "a", "1")
	negative.CacheRead = -1
	huge.Output = price.Rate(limit.MaxAmount) + 1
	long.MaxOutput = -1
	for says, models := range map[string][]price.Model{
		"a price has no model":                            {model(t, "", "1")},
		`model "A" has two prices from the same day on`:   {model(t, "a", "1"), model(t, "A", "2")},
		`model "a" has a figure below 0 or beyond 2^53 −`: {negative},
		`"a" has a figure below 0 or beyond 2^53 − 1`:     {huge},
		`has a figure below 0 or beyond 2^53 − 1`:         {long},
	} {
		if b, err := price.NewBook(models, nil); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v, %v; want an error that says: %s", b, err, says)
		}
	}
}
