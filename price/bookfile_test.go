package price

import (
	"strings"
	"testing"
	"time"
)

// The book that ships is as the generator writes it: what is edited by hand, or read otherwise than it was written,
// shows.
func TestBuiltinIsCanonical(t *testing.T) {
	date, models, err := readBook(builtin)
	if err != nil {
		t.Fatal(err)
	}
	var remarks []string
	for line := range strings.Lines(builtin) {
		if r, ok := strings.CutPrefix(line, "# "); ok && !strings.HasPrefix(line, dateLine) {
			remarks = append(remarks, strings.TrimSuffix(r, "\n"))
		}
	}
	again := FormatBook(remarks, date, models)
	if again != builtin {
		was, is := strings.Split(builtin, "\n"), strings.Split(again, "\n")
		for i := range min(len(was), len(is)) {
			if was[i] != is[i] {
				t.Fatalf("line %d is %q, and written again %q", i+1, was[i], is[i])
			}
		}
		t.Fatalf("%d lines are %d when written again", len(was), len(is))
	}
	if !strings.Contains(strings.Join(remarks, "\n"), "genai-prices ") {
		t.Errorf("the book does not name its source, but %q", remarks)
	}
}

// Every entry of the book that ships is found by its name, and has prices of a kind that there is.
func TestBuiltin(t *testing.T) {
	b := Builtin()
	if Builtin() != b {
		t.Error("it was read twice")
	}
	models := b.Models()
	if len(models) < 1000 {
		t.Fatalf("%d entries", len(models))
	}
	newest := map[string]Model{} // by name, on the day of the book
	for _, m := range models {
		if !m.From.After(b.Date()) {
			newest[m.Name] = m
		}
	}
	const dearest = 1000 * Rate(Dollar)
	for name, m := range newest {
		q, ok := b.Find(name, b.Date())
		if ok == m.Unpriced || ok && (q.Model != name || q.Rates != m.Rates || q.MaxOutput != m.MaxOutput) {
			t.Errorf("%s is found as %+v (%t), not as %+v", name, q, ok, m)
		}
		if !m.Unpriced && (m.Input+m.Output == 0 || m.Input > dearest || m.Output > dearest) {
			t.Errorf("%s has the prices %+v", name, m.Rates)
		}
	}
	for _, model := range []string{
		"claude-haiku-4-5-20251001", "claude-sonnet-4-6", "anthropic/claude-opus-4-1", "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
		"gpt-4o", "gpt-4o-mini-2024-07-18", "openai/gpt-5.1", "o3", "gemini-2.5-pro", "models/gemini-2.5-flash",
		"vertex_ai/gemini-2.5-pro", "mistral-large-latest", "deepseek-chat", "grok-4.5", "groq/llama-3.3-70b-versatile",
		"openrouter/anthropic/claude-sonnet-4.5",
	} {
		if _, ok := b.Find(model, b.Date()); !ok {
			t.Errorf("there is no price for %s", model)
		}
	}
	if date := b.Date(); !strings.HasPrefix(b.Version(), date.Format(time.DateOnly)+"-") || date.Year() < 2026 {
		t.Errorf("the book of %v has the version %s", date, b.Version())
	}
	for _, model := range []string{"gemini-2.5-pro-preview-tts", "text-embedding-3-small", "llama-3.3-70b-versatile"} {
		if q, ok := b.Find(model, b.Date()); ok {
			t.Errorf("%s, which does not write text or has no one price, is priced as %s", model, q.Model)
		}
	}
}

func TestBookFile(t *testing.T) {
	const text = "# A remark.\n# date: 2026-01-31\n" + columns + "\n" +
		"a\t1.00\t2.00\n" +
		"a\t1.00\t2.00\t0.10\t0.00\t4096\t2026-03-01\n" +
		"b*-tts\t-\t-\n" +
		"c\t0.0028\t2.00\t\t1.25\n"
	date, models, err := readBook(text)
	if err != nil {
		t.Fatal(err)
	}
	if got := FormatBook([]string{"A remark."}, date, []Model{models[3], models[1], models[0], models[2]}); got != text {
		t.Errorf("written again:\n%s\nwant\n%s", got, text)
	}
	want := Model{
		Name: "a", From: time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC), MaxOutput: 4096, HasCacheRead: true, HasCacheWrite: true,
		Rates: Rates{Input: 1e9, Output: 2e9, CacheRead: 1e8},
	}
	if models[1] != want {
		t.Errorf("%+v, want %+v", models[1], want)
	}
	if m := models[3]; m.HasCacheRead || !m.HasCacheWrite || m.Input.String() != "0.0028" || models[0].HasCacheWrite || !models[2].Unpriced {
		t.Errorf("%+v", models)
	}
	for says, wrong := range map[string]string{
		"line 2: ":                            strings.Replace(text, "2026-01-31", "yesterday", 1),
		`line 4: "x" is no amount`:            strings.Replace(text, "a\t1.00", "a\tx", 1),
		"line 4: 2 columns":                   strings.Replace(text, "a\t1.00\t2.00\n", "a\t1.00\n", 1),
		"line 5: 8 columns":                   strings.Replace(text, "2026-03-01", "2026-03-01\tx", 1),
		"line 5: parsing time":                strings.Replace(text, "2026-03-01", "March", 1),
		"line 5: strconv":                     strings.Replace(text, "4096", "many", 1),
		`no line that begins with "# date: "`: strings.Replace(text, "# date", "# day", 1),
		"two prices from the same day on":     text + "C\t1.00\t1.00\n",
		`line 5: "0,10" has a comma`:          strings.Replace(text, "0.10", "0,10", 1),
		`line 7: "-1.25" is negative`:         strings.Replace(text, "1.25", "-1.25", 1),
	} {
		if _, err := ParseBook(wrong); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v; want an error that says: %s", err, says)
		}
	}
}

func TestFindDoesNotAllocate(t *testing.T) {
	b, err := NewBook([]Model{{Name: "my-*"}, {Name: "mine"}}, Builtin())
	if err != nil {
		t.Fatal(err)
	}
	at := time.Now()
	for _, model := range lookups() {
		if allocs := testing.AllocsPerRun(100, func() { b.Find(model, at) }); allocs > 0 {
			t.Errorf("%s: %v allocations", model, allocs)
		}
	}
	if allocs := testing.AllocsPerRun(100, func() { b.Dearest(at) }); allocs > 0 {
		t.Errorf("the dearest: %v allocations", allocs)
	}
}

// lookups are names by how they are found: as they are, in another case, by a pattern, behind ways to reach them, and
// not at all.
func lookups() []string {
	return []string{
		"mine", "gpt-4o", "GPT-4o", "claude-haiku-4-5-20251001", "openrouter/openai/gpt-4o-2024-08-06:x",
		"arn:aws:bedrock:us-east-1:1:inference-profile/us.anthropic.claude-sonnet-4-5-20250929-v1:0", "unknown/model",
	}
}

func BenchmarkFind(b *testing.B) {
	book, err := NewBook([]Model{{Name: "my-*"}, {Name: "mine"}}, Builtin())
	if err != nil {
		b.Fatal(err)
	}
	at := time.Now()
	for _, model := range lookups() {
		b.Run(strings.ReplaceAll(model, "/", "|"), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				book.Find(model, at)
			}
		})
	}
}

func BenchmarkNearest(b *testing.B) {
	book := Builtin()
	for b.Loop() {
		book.Nearest("claude-sonnett-4-5-20250929")
	}
}

func BenchmarkParseBook(b *testing.B) {
	for b.Loop() {
		if _, err := ParseBook(builtin); err != nil {
			b.Fatal(err)
		}
	}
}
