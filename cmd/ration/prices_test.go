package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/price"
	"github.com/rationhq/ration/price/pricelist"
)

// TestPrices walks through what ration prices says of models.
func TestPrices(t *testing.T) {
	for _, c := range []struct {
		name string
		args []string
		code int
		says []string // parts of what it prints
		err  string   // the beginning of what it says is wrong
	}{
		{
			name: "the whole book", args: nil,
			says: []string{"Price book 20", "US dollars per million tokens", "\nMODEL ", "SINCE\n", "\ngpt-4o-2024-05-13 ", "  2026-12-01\n"},
		},
		{
			name: "a model by a pattern", args: []string{"claude-haiku-4-5-20251001"},
			says: []string{
				"entry        claude-haiku-4-5*\ninput        $1.00 per million tokens\noutput       $5.00 per million tokens\n" +
					"cache read   $0.10 per million tokens\ncache write  $1.25 per million tokens\nmost output  64000 tokens\nprice book   20",
			},
		},
		{name: "the command in full", args: []string{"show", "gpt-4o"}, says: []string{"entry        gpt-4o\n"}},
		{name: "a future price", args: []string{"gemini-4-argon", "--at=2026-12-01"}, says: []string{"since        2026-12-01\ninput        $4.00 "}},
		{name: "a past one", args: []string{"gemini-4-argon", "--at", "2026-11-30"}, says: []string{"entry        gemini-4-argon\ninput        $2.00 "}},
		{name: "almost a model", args: []string{"gpt-4oo"}, code: exitFailed, err: "ration: the price book 20"},
		{name: "no model", args: []string{"zebra"}, code: exitFailed, err: "ration: the price book 20"},
		{name: "no day", args: []string{"gpt-4o", "--at", "soon"}, code: exitUsage, err: `ration: --at: "soon" is no day: write it as 2026-01-31`},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, stdout, stderr := runs(t, nil, append([]string{"prices"}, c.args...)...)
			if code != c.code || !strings.HasPrefix(stderr, c.err) || c.err == "" && stderr != "" {
				t.Errorf("exit code %d and on stderr %q, want %d and %q", code, stderr, c.code, c.err)
			}
			for _, want := range c.says {
				if !strings.Contains(stdout, want) {
					t.Errorf("it does not say %q, but:\n%.2000s", want, stdout)
				}
			}
			if code != exitOK && stdout != "" {
				t.Errorf("it prints %q", stdout)
			}
		})
	}
	if _, _, stderr := runs(t, nil, "prices", "gpt-4oo"); !strings.HasSuffix(stderr, "has no price for gpt-4oo: did you mean gpt-4o?") {
		t.Errorf("it says %q", stderr)
	}
	if _, _, stderr := runs(t, nil, "prices", "zebra"); !strings.HasSuffix(stderr, "has no price for zebra") {
		t.Errorf("it says %q", stderr)
	}
	if _, stdout, _ := runs(t, nil, "prices"); strings.Contains(stdout, "tts") {
		t.Error("the book lists a name without a price")
	}
}

// TestPricesImport: what is printed is YAML, with every entry that was asked for, and each one that is left out is named.
func TestPricesImport(t *testing.T) {
	const lists = "../../price/pricelist/testdata/"
	code, stdout, stderr := runs(t, nil, "prices", "import", lists+"genai-prices.json")
	if code != exitOK || !strings.Contains(stderr, "skipped nebula/ada: has no price of output tokens\n") {
		t.Errorf("exit code %d, stderr\n%s", code, stderr)
	}
	type entry struct {
		From, Input, Output string
		CacheRead           string `yaml:"cache_read"`
		CacheWrite          string `yaml:"cache_write"`
	}
	var imported struct {
		Prices struct{ Models map[string]yaml.Node }
	}
	if err := yaml.Unmarshal([]byte(stdout), &imported); err != nil {
		t.Fatalf("%v\n%s", err, stdout)
	}
	models := imported.Prices.Models
	if len(models) != 17 {
		t.Errorf("%d models, want 17:\n%s", len(models), stdout)
	}
	var one entry
	node := models["haiku-4-5*"]
	if err := node.Decode(&one); err != nil || one != (entry{"", "0.80", "4.00", "0.08", "1.00"}) {
		t.Errorf("%+v, %v", one, err)
	}
	var dated []entry
	node = models["dated"]
	if err := node.Decode(&dated); err != nil || len(dated) != 2 || dated[0] != (entry{Input: "10.00", Output: "40.00"}) ||
		dated[1] != (entry{From: "2025-06-10", Input: "2.00", Output: "8.00"}) {
		t.Errorf("%+v, %v", dated, err)
	}
	for name, node := range models {
		for _, price := range node.Content {
			if strings.Contains(price.Value, ".") && price.Tag != "!!str" {
				t.Errorf("%s has the price %s as %s, want text", name, price.Value, price.Tag)
			}
		}
	}

	code, stdout, stderr = runs(t, nil, "prices", "import", lists+"litellm.json", "HAIKU-*", "no-*", "groq/llama")
	const want = `prices:
  models:
    "groq/llama": { input: "0.06", output: "0.12" }
    haiku-4-5: { input: "0.80", output: "4.00", cache_read: "0.08", cache_write: "1.00", max_output: 8192 }
`
	if code != exitOK || stdout != want || strings.Count(stderr, "\n") != 1 {
		t.Errorf("exit code %d, printed\n%s\nand on stderr\n%s", code, stdout, stderr)
	}

	other := filepath.Join(t.TempDir(), "prices.yaml")
	if err := os.WriteFile(other, []byte("prices: {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for says, args := range map[string][]string{
		"no such file":                  {"/nowhere.json"},
		"this is no JSON":               {other},
		"has no such model with prices": {lists + "litellm.json", "no-input"},
	} {
		code, stdout, stderr := runs(t, nil, append([]string{"prices", "import"}, args...)...)
		if code != exitFailed || stdout != "" || !strings.Contains(stderr, says) {
			t.Errorf("%v: exit code %d, %q, %q; want %d and: %s", args, code, stdout, stderr, exitFailed, says)
		}
	}
	if code, _, stderr := runs(t, nil, "prices", "import"); code != exitUsage || !strings.Contains(stderr, `expected "<file>`) {
		t.Errorf("without a file: exit code %d, %q", code, stderr)
	}
}

// TestPricesImportIsAPolicy: what is printed is the prices of a policy as it is, and says there what the list says.
func TestPricesImportIsAPolicy(t *testing.T) {
	for _, file := range []string{"genai-prices.json", "litellm.json"} {
		path := "../../price/pricelist/testdata/" + file
		code, stdout, _ := runs(t, nil, "prices", "import", path)
		if code != exitOK {
			t.Fatalf("%s: exit code %d", file, code)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		list, err := pricelist.Read(data)
		if err != nil {
			t.Fatal(err)
		}
		want, err := price.NewBook(list.Models, price.Builtin())
		if err != nil {
			t.Fatal(err)
		}
		source := policy.Source{Name: file, Data: []byte("domain: d\n" + stdout)}
		p, _, err := policy.Parse([]policy.Source{source}, policy.Options{})
		if err != nil {
			t.Errorf("%s:\n%v", file, err)
			continue
		}
		if got := p.Domain("d").Prices(); got.Version() != want.Version() || len(list.Models) == 0 {
			t.Errorf("%s: the policy's prices are %s, want %s:\n%s", file, got.Version(), want.Version(), stdout)
		}
	}
}

// TestPoliciesAreJudgedAsOfToday: ration tells the time to the reader of policies, which finds old prices by it.
func TestPoliciesAreJudgedAsOfToday(t *testing.T) {
	if now := (&policyFlags{}).options().Now; now == nil || now().Before(price.Builtin().Date()) {
		t.Error("policies are read at no time, or before the price book that ships")
	}
}
