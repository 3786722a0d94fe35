package policy

import (
	"encoding/json"
	"fmt"
	"iter"
	"regexp"
	"slices"
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
	Subject     bool        `json:"subject,omitempty"`
	Limit       *modelLimit `json:"rate_limit,omitempty"`
	Limits      []ownLimit  `json:"limits,omitempty"`
	Descriptors []modelNode `json:"descriptors,omitempty"`
}

type modelLimit struct {
	Unit     string `json:"unit"`
	Requests int    `json:"requests_per_unit"`
	Name     string `json:"name"` // different for every rule
}

// ownLimit is an entry of `limits`, with a name that no other has.
type ownLimit struct {
	Name      string `json:"name"`
	Meter     string `json:"meter"`
	Algorithm string `json:"algorithm"`
	Limit     string `json:"limit"`
}

// modelAnswer is what applies to a descriptor.
type modelAnswer struct {
	rule, counter string   // the name of the rule and of its counter, or two empty strings
	subject       string   // in quotes; empty if nobody is named
	limits        []string // owner and bucket of each limit
}

func (a modelAnswer) String() string {
	return fmt.Sprintf("rule %q in %q, subject %s, limits %q", a.rule, a.counter, a.subject, a.limits)
}

func (n modelNode) composite() string {
	if n.Value == "" {
		return n.Key
	}
	return n.Key + "_" + n.Value
}

// modelMatch returns what applies to a descriptor; arrived says that all of it leads somewhere.
func modelMatch(level []modelNode, list []Entry) (a modelAnswer, arrived bool) {
	named := make([]Entry, len(list))
	paid := -1 // where the subject stands
	for i, e := range list {
		at, value := modelChild(level, e)
		if at == nil {
			return a, false
		}
		named[i] = Entry{e.Key, value}
		if at.Subject {
			a.subject, paid = fmt.Sprintf("%q", e.Value), i
		}
		if i < len(list)-1 {
			level = at.Descriptors
			continue
		}
		if at.Limit != nil {
			unit, _ := ParseUnit(at.Limit.Unit)
			a.rule, a.counter = at.Limit.Name, string(AppendBucket(nil, "d", named, unit.Window()))
		}
		for _, l := range at.Limits {
			owner, below := named, []Entry{}
			if paid >= 0 {
				owner, below = named[:paid+1], named[paid+1:]
			}
			a.limits = append(a.limits, modelName("d", owner)+" "+strings.TrimPrefix(modelName("", below), "|")+
				strings.Repeat("|", min(1, len(below)))+l.Name+"|"+l.Algorithm+"|60s")
		}
		return a, true
	}
	return a, false
}

func modelName(first string, list []Entry) string {
	escape := strings.NewReplacer("%", "%25", "|", "%7C", "=", "%3D", "{", "%7B", "}", "%7D")
	for _, e := range list {
		first += "|" + escape.Replace(e.Key) + "=" + escape.Replace(e.Value)
	}
	return first
}

// answerOf describes a match as the model does.
func answerOf(m *Match) (a modelAnswer) {
	if m.Rule != nil {
		a.rule, a.counter = m.Rule.Name, string(m.Bucket)
	}
	if m.HasSubject {
		a.subject = fmt.Sprintf("%q", m.Subject)
	}
	for _, l := range m.Limits {
		a.limits = append(a.limits, string(m.Owner)+" "+string(l.AppendBucket(nil, m)))
	}
	return a
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
	matched, limited := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		tree := drawLevel(t, 0, false, new(int))
		p, yaml := modelPolicy(t, tree)
		bucket := make([]byte, 0, 16)
		for range 20 {
			list := rapid.SliceOfN(rapid.Custom(drawEntry), 0, 4).Draw(t, "entries")
			var m Match
			m, bucket = p.Domain("d").Match(list, bucket[:0])
			got := answerOf(&m)
			want, _ := modelMatch(tree, list)
			if got.String() != want.String() {
				t.Fatalf("%s\n%q: got %v\nwant %v", yaml, list, got, want)
			}
			matched, limited = matched+len(got.rule), limited+len(got.limits)
		}
	})
	if matched == 0 || limited == 0 {
		t.Error("no descriptor of the test ever matched a rule, or a limit")
	}
}

func modelPolicy(t *rapid.T, tree []modelNode) (p *Policy, yaml []byte) {
	yaml, err := json.Marshal(map[string]any{"domain": "d", "descriptors": tree}) // JSON is YAML
	if err != nil {
		t.Fatal(err)
	}
	if p, _, err = Parse([]Source{{"policy.yaml", yaml}}, Options{}); err != nil {
		t.Fatalf("%s: %v", yaml, err)
	}
	return p, yaml
}

// A set of attributes is as good as every list that can be made of it.
func TestMatchSetAgreesWithTheModel(t *testing.T) {
	matched, most := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		tree := drawLevel(t, 0, false, new(int))
		p, yaml := modelPolicy(t, tree)
		names, matches := make([]byte, 0, 16), make([]Match, 0, 1)
		for range 10 {
			set := rapid.SliceOfNDistinct(rapid.Custom(drawEntry), 0, 4, func(e Entry) string { return e.Key }).Draw(t, "set")
			var err error
			if matches, names, err = p.Domain("d").MatchSet(set, matches[:0], names[:0]); err != nil {
				t.Fatal(err)
			}
			var got []string
			for i := range matches {
				got = append(got, answerOf(&matches[i]).String())
			}
			var want []string
			for list := range lists(set) {
				if a, arrived := modelMatch(tree, list); arrived && (a.rule != "" || len(a.limits) > 0 || namesSubject(tree, list)) {
					want = append(want, a.String())
				}
			}
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Fatalf("%s\n%q: got\n%s\nwant\n%s", yaml, set, strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
			matched, most = matched+len(got), max(most, len(got))
		}
	})
	if matched == 0 || most < 3 {
		t.Errorf("sets matched %d times, at most %d times at once: too little to say anything", matched, most)
	}
}

// namesSubject reports whether the last entry of a list is the one that names the subject.
func namesSubject(level []modelNode, list []Entry) bool {
	for i, e := range list {
		at, _ := modelChild(level, e)
		if i == len(list)-1 {
			return at.Subject
		}
		level = at.Descriptors
	}
	return false
}

// lists goes over every list of different elements of set, the empty one not included.
func lists(set []Entry) iter.Seq[[]Entry] {
	return func(yield func([]Entry) bool) {
		var extend func(list []Entry, used int) bool
		extend = func(list []Entry, used int) bool {
			for i, e := range set {
				if used&(1<<i) != 0 {
					continue
				}
				longer := append(slices.Clone(list), e)
				if !yield(longer) || !extend(longer, used|1<<i) {
					return false
				}
			}
			return true
		}
		extend(nil, 0)
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

func drawLevel(t *rapid.T, depth int, paid bool, rules *int) []modelNode {
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
		n.Subject = !paid && !n.Shared && rapid.IntRange(0, 3).Draw(t, "subject") == 0
		for range max(0, rapid.IntRange(-2, 2).Draw(t, "limits")) {
			*rules++
			own := ownLimit{fmt.Sprint("limit", *rules), "requests", "sliding_log", "5/minute"}
			if rapid.Bool().Draw(t, "money") {
				own = ownLimit{own.Name, "cost", "sliding_window", "$5/minute"}
			}
			n.Limits = append(n.Limits, own)
		}
		if depth < 2 && rapid.Bool().Draw(t, "deeper") {
			n.Descriptors = drawLevel(t, depth+1, paid || n.Subject, rules)
		}
		level = append(level, n)
	}
	return level
}
