package policy

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// modelNode is a descriptor of the model: the contract's rules of matching in their plainest form,
// to compare the compiled matcher with. It marshals to what a policy file holds.
type modelNode struct {
	Key         string      `json:"key"`
	Value       string      `json:"value,omitempty"`
	Shared      bool        `json:"share_threshold,omitempty"`
	Limit       *modelLimit `json:"rate_limit,omitempty"`
	Descriptors []modelNode `json:"descriptors,omitempty"`
}

type modelLimit struct {
	Unit     string `json:"unit"`
	Requests int    `json:"requests_per_unit"`
	Name     string `json:"name"` // different for every rule
}

func (n modelNode) composite() string {
	if n.Value == "" {
		return n.Key
	}
	return n.Key + "_" + n.Value
}

// modelMatch returns the name of the rule that applies and its counter, or two empty strings.
func modelMatch(level []modelNode, list []Entry) (name, counter string) {
	named := make([]Entry, len(list))
	for i, e := range list {
		at, value := modelChild(level, e)
		if at == nil {
			return "", ""
		}
		named[i] = Entry{e.Key, value}
		if i == len(list)-1 && at.Limit != nil {
			unit, _ := ParseUnit(at.Limit.Unit)
			return at.Limit.Name, string(AppendBucket(nil, "d", named, unit.Window()))
		}
		level = at.Descriptors
	}
	return "", ""
}

func modelChild(level []modelNode, e Entry) (at *modelNode, value string) {
	both := e.Key + "_" + e.Value
	for i, n := range level {
		if n.composite() == both {
			return &level[i], e.Value
		}
	}
	for i, n := range level {
		pattern := strings.ReplaceAll(regexp.QuoteMeta(n.composite()), `\*`, `.*`)
		if !strings.Contains(n.composite(), "*") || !regexp.MustCompile(`(?s)^`+pattern+`$`).MatchString(both) {
			continue
		}
		if shared := strings.TrimPrefix(n.composite(), e.Key+"_"); n.Shared && shared != "" {
			return &level[i], shared
		}
		return &level[i], e.Value
	}
	for i, n := range level {
		if n.composite() == e.Key {
			return &level[i], e.Value
		}
	}
	return nil, ""
}

func TestMatchAgreesWithTheModel(t *testing.T) {
	matched := 0
	rapid.Check(t, func(t *rapid.T) {
		tree := drawLevel(t, 0, new(int))
		yaml, err := json.Marshal(map[string]any{"domain": "d", "descriptors": tree}) // JSON is YAML
		if err != nil {
			t.Fatal(err)
		}
		p, _, err := Parse([]Source{{"policy.yaml", yaml}}, Options{})
		if err != nil {
			t.Fatalf("%s: %v", yaml, err)
		}
		bucket := make([]byte, 0, 16)
		for range 20 {
			list := rapid.SliceOfN(rapid.Custom(drawEntry), 0, 4).Draw(t, "entries")
			var rule *Rule
			rule, bucket = p.Domain("d").Match(list, bucket[:0])
			gotName, gotCounter := "", string(bucket)
			if rule != nil {
				gotName = rule.Name
				matched++
			}
			wantName, wantCounter := modelMatch(tree, list)
			if gotName != wantName || gotCounter != wantCounter {
				t.Fatalf("%s\n%q: got %q %q, want %q %q", yaml, list, gotName, gotCounter, wantName, wantCounter)
			}
		}
	})
	if matched == 0 {
		t.Error("no descriptor of the test ever matched a rule")
	}
}

var (
	modelKey   = rapid.StringMatching(`[ab_]{1,2}|a\*|\*`)
	modelValue = rapid.StringMatching(`[ab|=_*]{0,4}|\*[ab]\*[ab]\*`)
)

func drawEntry(t *rapid.T) Entry {
	return Entry{
		rapid.StringMatching(`[ab_]{1,2}|a\*|`).Draw(t, "key"),
		rapid.StringMatching(`[ab|=_*]{0,4}`).Draw(t, "value"),
	}
}

func drawLevel(t *rapid.T, depth int, rules *int) []modelNode {
	var level []modelNode
	seen := map[string]bool{}
	for range rapid.IntRange(1, 5).Draw(t, "descriptors") {
		n := modelNode{Key: modelKey.Draw(t, "key"), Value: modelValue.Draw(t, "value")}
		if seen[n.composite()] {
			continue
		}
		seen[n.composite()] = true
		n.Shared = strings.Contains(n.composite(), "*") && rapid.Bool().Draw(t, "shared")
		if rapid.IntRange(0, 3).Draw(t, "limited") > 0 {
			*rules++
			n.Limit = &modelLimit{
				Unit:     rapid.SampledFrom([]string{"second", "minute", "week"}).Draw(t, "unit"),
				Requests: 1,
				Name:     fmt.Sprint("rule", *rules),
			}
		}
		if depth < 2 && rapid.Bool().Draw(t, "deeper") {
			n.Descriptors = drawLevel(t, depth+1, rules)
		}
		level = append(level, n)
	}
	return level
}
