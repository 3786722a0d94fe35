package policy

import (
	"slices"
	"strings"
	"testing"
)

// FuzzParse shows that no bytes make the compiler panic or hang, and that whatever it accepts can be
// matched against and explained.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"domain: d\ndescriptors:\n- {key: k, value: 'a*b', rate_limit: {unit: day, requests_per_unit: 1}}\n",
		"domain: d\ndescriptors:\n- &a {key: k, rate_limit: {unlimited: yes, name: n, replaces: [{name: m}]}}\n- {<<: *a, key: l}\n",
		"domain: d\ndescriptors: &x\n- {key: k, descriptors: *x}\n",
		"domain: d\ndescriptors:\n- {key: '*', share_threshold: on, shadow_mode: n, quota_mode: ~, metadata: {a: [1, .5, {}]}}\n---\nb",
		"? [a]\n: {b: !!binary x}\n0x1: !!int 1\n",
		"\xff\xfed\x00o\x00:\x00 \x00a\x00",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		p, _, err := Parse([]Source{{"a.yaml", data}, {"b.yaml", data}}, Options{MergeDomains: true})
		if err != nil {
			if strings.TrimSpace(err.Error()) == "" {
				t.Fatal("an error without words")
			}
			return
		}
		for _, r := range p.Rules() {
			descriptor, exact := pathOf(r.node)
			if !exact {
				continue // what leads to it may lead elsewhere first
			}
			if got, _ := p.Domain(r.Domain).Match(descriptor, nil); got != r {
				t.Fatalf("%q leads to %v, not to rule %s", descriptor, got, r.Path)
			}
		}
		if len(p.Explain()) < len(p.Rules()) {
			t.Fatal("a rule is not explained")
		}
	})
}

// pathOf returns the descriptor whose keys and values are those on the way to n; exact says that all
// of them have a value.
func pathOf(n *node) (descriptor []Entry, exact bool) {
	exact = true
	for ; n.parent != nil; n = n.parent {
		descriptor = append(descriptor, Entry{n.key, n.value})
		exact = exact && n.value != ""
	}
	slices.Reverse(descriptor)
	return descriptor, exact
}
