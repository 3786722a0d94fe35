package policy

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// parse compiles files that are separated by lines of "=== NAME"; one without such a line is
// policy.yaml. It returns the policy, and errors and warnings as they are shown.
func parse(tb testing.TB, files string, opts Options) (p *Policy, failures, warnings string) {
	tb.Helper()
	var sources []Source
	for i, part := range strings.Split("\n"+files, "\n=== ") {
		name, text := "policy.yaml", strings.TrimPrefix(part, "\n")
		if i > 0 {
			name, text, _ = strings.Cut(part, "\n")
		} else if text == "" && strings.Contains(files, "=== ") {
			continue
		}
		sources = append(sources, Source{name, []byte(text)})
	}
	p, problems, err := Parse(sources, opts)
	for _, w := range problems {
		if !w.Warning {
			tb.Errorf("among the warnings is an error: %s", w)
		}
		warnings += w.String() + "\n"
	}
	if err == nil {
		return p, "", warnings
	}
	if p != nil {
		tb.Error("there is a policy in spite of errors")
	}
	list, ok := errors.AsType[*Errors](err)
	if !ok || len(list.Problems) == 0 {
		tb.Fatalf("the error is %T with no problems: %v", err, err)
	}
	for _, f := range list.Problems {
		if f.Warning {
			tb.Errorf("among the errors is a warning: %s", f)
		}
	}
	return nil, err.Error() + "\n", warnings
}

// mustParse compiles a policy that has neither errors nor warnings.
func mustParse(tb testing.TB, yaml string) *Policy {
	tb.Helper()
	p, failures, warnings := parse(tb, yaml, Options{})
	if failures+warnings != "" {
		tb.Fatal(failures + warnings)
	}
	return p
}

// Every error of the established contract, in its own words, with the place and what was probably
// meant.
func TestErrors(t *testing.T) {
	for _, c := range []struct{ name, policy, want string }{
		{"no domain", `
descriptors: []
`, "policy.yaml: config file cannot have empty domain\n"},
		{"empty file", ``, "policy.yaml: config file cannot have empty domain\n"},
		{"empty domain", `
domain: ""
`, "policy.yaml:1:9: config file cannot have empty domain\n"},
		{"a domain in two files", `
=== a.yaml
domain: X
=== b.yaml
domain: X
descriptors:
- {key: k, rate_limit: {unit: foo}}
`, `
b.yaml:1:9: duplicate domain 'X' in config file: a.yaml has it too, and domains are not merged
b.yaml:3:31: invalid rate limit unit 'foo'
`},
		{"empty key", `
domain: d
descriptors:
- value: v
- key: ""
  descriptors:
  - {key: k, nam: x}
`, `
policy.yaml:3:3: descriptor has empty key
policy.yaml:4:3: descriptor has empty key
policy.yaml:6:14: config error, unknown key 'nam' (did you mean ` + "`name`" + `?)
`},
		{"the same key and value twice", `
domain: d
descriptors:
- key: a
  descriptors:
  - {key: k, value: v}
  - {key: k_v}
`, "policy.yaml:6:5: duplicate descriptor composite key 'd.a.k_v': it stands at policy.yaml:5:5 already\n"},
		{"units that are none", `
domain: d
descriptors:
- {key: a, rate_limit: {unit: foo, requests_per_unit: 1}}
- {key: b, rate_limit: {unit: minutes, requests_per_unit: 1}}
- {key: c, rate_limit: {unit: unknown, requests_per_unit: 1}}
- {key: e, rate_limit: {requests_per_unit: 1}}
- {key: f, rate_limit: {unit: "", requests_per_unit: 1}}
- {key: g, rate_limit: {unit: hr, requests_per_unit: 1}}
- {key: h, rate_limit: {unit: s, requests_per_unit: 1}}
`, `
policy.yaml:3:31: invalid rate limit unit 'foo'
policy.yaml:4:31: invalid rate limit unit 'minutes' (did you mean ` + "`minute`" + `?)
policy.yaml:5:31: invalid rate limit unit 'unknown'
policy.yaml:6:24: invalid rate limit unit ''
policy.yaml:7:31: invalid rate limit unit ''
policy.yaml:8:31: invalid rate limit unit 'hr' (did you mean ` + "`hour`" + `?)
policy.yaml:9:31: invalid rate limit unit 's' (did you mean ` + "`second`" + `?)
`},
		{"unlimited with a unit", `
domain: d
descriptors:
- {key: a, rate_limit: {unlimited: true, unit: day}}
`, "policy.yaml:3:48: should not specify rate limit unit when unlimited\n"},
		{"replaces", `
domain: d
descriptors:
- key: a
  rate_limit:
    unit: day
    requests_per_unit: 1
    name: me
    replaces:
    - name: ""
    - {}
    - name: me
`, `
policy.yaml:9:7: should not have an empty replaces entry
policy.yaml:10:7: should not have an empty replaces entry
policy.yaml:11:7: replaces should not contain name of same descriptor
`},
		{"share_threshold without a wildcard", `
domain: d
descriptors:
- {key: k, value: v, share_threshold: true}
`, "policy.yaml:3:39: share_threshold can only be used with wildcard values (containing '*'), but found key 'k_v'\n"},
		{"metadata that JSON cannot hold", `
domain: d
descriptors:
- key: k
  metadata: {a: [.nan], b: !!binary /w==}
  rate_limit: {unit: day, requests_per_unit: 1}
`, `
policy.yaml:4:18: error parsing metadata: no number of JSON is ` + "`.nan`" + `
policy.yaml:4:28: error parsing metadata: a value is no UTF-8 text
`},
		{"no YAML", `
domain: d
descriptors:
- key: a
 value: b
`, "policy.yaml:3: error loading config file: yaml: line 3: did not find expected key\n"},
		{"no mapping", `
- domain: d
`, "policy.yaml:1:1: error loading config file: yaml: a policy file must be a mapping with domain and descriptors, not a list\n"},
		{"values of the wrong type", `
domain: [{key: a}]
descriptors:
- {key: a, rate_limit: {unit: day, requests_per_unit: -5}}
- {key: b, rate_limit: {unit: day, requests_per_unit: 4294967296}}
- {key: c, rate_limit: {unit: day, requests_per_unit: "5"}}
- {key: e, rate_limit: {unit: day, requests_per_unit: 5, unlimited: "true"}}
- {key: f, shadow_mode: 1, rate_limit: day}
- {key: g, descriptors: {key: h}}
- {key: h, metadata: 1.5}
- {key: !!int abc}
`, `
policy.yaml: config file cannot have empty domain
policy.yaml:1:9: error loading config file: yaml: domain must be text, not a list
policy.yaml:3:55: error loading config file: yaml: requests_per_unit must be a whole number in 0…4294967295, not ` + "`-5`" + `
policy.yaml:4:55: error loading config file: yaml: requests_per_unit must be a whole number in 0…4294967295, not ` + "`4294967296`" + `
policy.yaml:5:55: error loading config file: yaml: requests_per_unit must be a whole number in 0…4294967295, not "5"
policy.yaml:6:69: error loading config file: yaml: unlimited must be true or false, not "true"
policy.yaml:7:25: error loading config file: yaml: shadow_mode must be true or false, not ` + "`1`" + `
policy.yaml:7:40: error loading config file: yaml: rate_limit must be a mapping, not ` + "`day`" + `
policy.yaml:8:25: error loading config file: yaml: descriptors must be a list, not a mapping
policy.yaml:9:22: error loading config file: yaml: metadata must be a mapping, not ` + "`1.5`" + `
policy.yaml:10:9: error loading config file: yaml: cannot decode ` + "`abc`" + ` as a !!int
`},
		{"keys that nobody knows", `
domain: d
descriptors:
- key: a
  ratelimit: {unit: day}
- key: b
  rate_limit: {unit: day, requests_per_unit: 1, requestPerUnit: 3, Unit: day}
- key: c
  xyzzy: 1
`, `
policy.yaml:4:3: config error, unknown key 'ratelimit' (did you mean ` + "`rate_limit`" + `?)
policy.yaml:6:49: config error, unknown key 'requestPerUnit' (did you mean ` + "`requests_per_unit`" + `?)
policy.yaml:6:68: config error, unknown key 'Unit' (did you mean ` + "`unit`" + `?)
policy.yaml:8:3: config error, unknown key 'xyzzy'
`},
		{"keys that are not text", `
domain: d
0.25: a
yes: b
~: c
[a]: d
`, `
policy.yaml:2:1: config error, key is not of type string: 0.25
policy.yaml:3:1: config error, key is not of type string: true
policy.yaml:4:1: config error, key is not of type string: <nil>
policy.yaml:5:1: error loading config file: yaml: a key must be text, not a list
`},
		{"lists of something else than mappings", `
domain: d
descriptors:
- a
- 1.5
- [b, 2]
- ~
`, `
policy.yaml:3:3: config error, yaml file contains list of type other than map: a
policy.yaml:4:3: config error, yaml file contains list of type other than map: 1.5
policy.yaml:5:3: config error, yaml file contains list of type other than map: [b 2]
policy.yaml:6:3: config error, yaml file contains list of type other than map: <nil>
`},
		{"numbers that are neither text nor whole numbers", `
domain: d
descriptors:
- {key: a, value: 1.5}
- {key: b, value: 18446744073709551615}
- {key: c, rate_limit: {unit: day, requests_per_unit: 1e3}}
`, `
policy.yaml:3:19: error checking config: ` + "`1.5`" + ` is neither text nor a whole number of 64 bits: write it in quotes if it is text
policy.yaml:4:19: error checking config: ` + "`18446744073709551615`" + ` is neither text nor a whole number of 64 bits: write it in quotes if it is text
policy.yaml:5:55: error checking config: ` + "`1e3`" + ` is neither text nor a whole number of 64 bits: write it in quotes if it is text
`},
		{"a merge of something else than a mapping", `
domain: d
descriptors:
- {<<: a, key: k}
`, "policy.yaml:3:8: error loading config file: yaml: map merge requires map or sequence of maps as the value\n"},
		{"a mistake that aliases repeat", `
domain: d
descriptors:
- {key: a, rate_limit: &bad {unit: foo, requests_per_unit: 1, nam: x}}
- {key: b, rate_limit: *bad}
- {key: c, rate_limit: *bad}
`, `
policy.yaml:3:36: invalid rate limit unit 'foo'
policy.yaml:3:63: config error, unknown key 'nam' (did you mean ` + "`name`" + `?)
`},
		{"an alias within itself", `
domain: d
descriptors: &a
- key: k
  descriptors: *a
`, "policy.yaml:4:16: error loading config file: yaml: anchor 'a' value contains itself\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, got, _ := parse(t, strings.TrimPrefix(c.policy, "\n"), Options{})
			if want := strings.TrimPrefix(c.want, "\n"); got != want {
				t.Errorf("got\n%swant\n%s", got, want)
			}
		})
	}
}

// What loads and is probably not meant: a warning, and with Strict an error of the same words.
func TestWarnings(t *testing.T) {
	for _, c := range []struct{ name, policy, want string }{
		{"known keys in the wrong place", `
domain: d
name: x
descriptors:
- key: k
  unit: day
  rate_limit: {unit: day, requests_per_unit: 1, shadow_mode: true, descriptors: []}
`, `
policy.yaml:2:1: ` + "`name` means nothing in the top of the file: it belongs in rate_limit" + `
policy.yaml:5:3: ` + "`unit` means nothing in a descriptor: it belongs in rate_limit" + `
policy.yaml:6:49: ` + "`shadow_mode` means nothing in rate_limit: it belongs in a descriptor" + `
policy.yaml:6:68: ` + "`descriptors` means nothing in rate_limit: it belongs in the top of the file" + `
`},
		{"fields without effect", `
domain: d
descriptors:
- {key: a, shadow_mode: true, quota_mode: true, metadata: {x: 1}}
- {key: b, shadow_mode: true, rate_limit: {unlimited: true, requests_per_unit: 5, unit: fortnight}}
`, `
policy.yaml:3:25: ` + "`shadow_mode` has no effect: this descriptor has no rate_limit" + `
policy.yaml:3:43: ` + "`quota_mode` has no effect: this descriptor has no rate_limit" + `
policy.yaml:3:59: ` + "`metadata` has no effect: this descriptor has no rate_limit" + `
policy.yaml:4:25: ` + "`shadow_mode` has no effect: this rule is unlimited" + `
policy.yaml:4:80: ` + "`requests_per_unit` has no effect: this rule is unlimited" + `
policy.yaml:4:89: ` + "`unit` has no effect: this rule is unlimited" + `
`},
		{"no requests_per_unit", `
domain: d
descriptors:
- {key: a, rate_limit: {unit: day}}
- {key: b, rate_limit: {unit: day, requests_per_unit: ~}}
- {key: c, rate_limit: {unit: day, requests_per_unit: 0}}
`, `
policy.yaml:3:24: rate_limit has no requests_per_unit, which means 0: every request is refused
policy.yaml:4:24: rate_limit has no requests_per_unit, which means 0: every request is refused
`},
		{"a second document", `
domain: d
---
domain: e
`, "policy.yaml:3:1: a second document in the file is ignored: write one domain per file\n"},
		{"a key twice", `
domain: a
domain: d
descriptors:
- {key: k, value: a, value: b}
`, `
policy.yaml:2:1: duplicate key 'domain': the last one counts
policy.yaml:4:22: duplicate key 'value': the last one counts
`},
		{"a merge that overwrites", `
domain: d
descriptors:
- {key: a, rate_limit: {requests_per_unit: 1, <<: {requests_per_unit: 2, unit: day}}}
`, "policy.yaml:3:47: `<<` overwrites the `requests_per_unit` that stands before it: write `<<` first\n"},
		{"replaces of nothing", `
domain: d
descriptors:
- {key: a, rate_limit: {unit: day, requests_per_unit: 1, name: first}}
- {key: b, rate_limit: {unit: day, requests_per_unit: 1, replaces: [{name: frist}]}}
- {key: c, rate_limit: {unlimited: true, name: free}}
- {key: e, rate_limit: {unit: day, requests_per_unit: 1, replaces: [{name: free}]}}
`, `
policy.yaml:4:3: replaces 'frist', but no rule of the domain has that name (did you mean ` + "`first`" + `?)
policy.yaml:6:3: replaces 'free', which is unlimited: unlimited rules cannot be replaced
`},
		{"a name twice", `
domain: d
descriptors:
- {key: a, rate_limit: {unit: day, requests_per_unit: 1, name: n}}
- {key: b, rate_limit: {unit: day, requests_per_unit: 1, name: n}}
`, "policy.yaml:4:3: the name 'n' is that of the rule at policy.yaml:3:3 too: whatever replaces one replaces both\n"},
		{"a path twice", `
domain: d
descriptors:
- {key: a.b, rate_limit: {unit: day, requests_per_unit: 1}}
- {key: a, descriptors: [{key: b, rate_limit: {unit: day, requests_per_unit: 1}}]}
`, "policy.yaml:4:26: the rule is called 'd.a.b' in metrics and listings, as is what stands at policy.yaml:3:3\n"},
		{"rules that never apply", `
domain: d
descriptors:
- {key: k, value: "a*"}
- {key: k, value: "a*b"}
- {key: k, value: "*c"}
- {key: k, value: "ab"}
- {key: k}
- {key: l, value: "*"}
- {key: l}
- {key: l, value: "x*"}
`, `
policy.yaml:4:3: the wildcard ` + "`k_a*b` never applies: the wildcard `k_a*`" + ` at policy.yaml:3:3 comes first and matches whatever it matches
policy.yaml:9:3: the default ` + "`l` never applies: the wildcard `l_*`" + ` at policy.yaml:8:3 comes first and matches whatever it matches
policy.yaml:10:3: the wildcard ` + "`l_x*` never applies: the wildcard `l_*`" + ` at policy.yaml:8:3 comes first and matches whatever it matches
`},
	} {
		t.Run(c.name, func(t *testing.T) {
			policy, want := strings.TrimPrefix(c.policy, "\n"), strings.TrimPrefix(c.want, "\n")
			_, failures, warnings := parse(t, policy, Options{})
			if failures != "" || warnings != want {
				t.Errorf("got errors\n%sand warnings\n%swant the warnings\n%s", failures, warnings, want)
			}
			_, failures, warnings = parse(t, policy, Options{Strict: true})
			if failures != want || warnings != "" {
				t.Errorf("strict: got errors\n%sand warnings\n%swant the errors\n%s", failures, warnings, want)
			}
		})
	}
}

// A name that is missing may stand in a file that could not be read.
func TestNamesAreNotMissedWhereAFileIsMissing(t *testing.T) {
	_, failures, warnings := parse(t, `
=== a.yaml
domain: d
descriptors:
- {key: a, rate_limit: {unit: day, requests_per_unit: 1, replaces: [{name: elsewhere}]}}
=== b.yaml
domain: [
`, Options{MergeDomains: true})
	if !strings.HasPrefix(failures, "b.yaml:1: error loading config file: yaml:") || warnings != "" {
		t.Errorf("got errors\n%sand warnings\n%s", failures, warnings)
	}
}

// Scalars mean what YAML 1.1 makes of them, and keys and values keep the text that was written.
func TestScalars(t *testing.T) {
	for text, want := range map[string]string{
		"v": "v", "12": "12", "true": "true", "yes": "yes", "0x10": "0x10", "010": "010", "1_000": "1_000",
		"2026-11-21": "2026-11-21", "1:30": "1:30", "10.0.0.1": "10.0.0.1", "'1.5'": "1.5", `"a\tb"`: "a\tb",
		"!!str 1.5": "1.5", "!!binary aGk=": "hi", "~": "", "''": "", "null": "", "<<": "<<", "!tag x": "x",
	} {
		p, failures, _ := parse(t, "domain: d\ndescriptors: [{key: k, value: "+text+", rate_limit: {unit: day}}]", Options{})
		if failures != "" {
			t.Errorf("value: %s: %s", text, failures)
			continue
		}
		wantPath := "d.k_" + want
		if want == "" {
			wantPath = "d.k"
		}
		if got := p.Rules()[0].Path; got != wantPath {
			t.Errorf("value: %s makes the path %q, want %q", text, got, wantPath)
		}
	}
	for text, want := range map[string]uint32{
		"5": 5, "+5": 5, "0": 0, "1_000": 1000, "0x10": 16, "010": 8, "0o10": 8, "0b101": 5, "4294967295": 4294967295,
		"!!int 7": 7, "-0": 0, "!!int '8'": 8,
	} {
		p, failures, _ := parse(t,
			"domain: d\ndescriptors: [{key: k, rate_limit: {unit: day, requests_per_unit: "+text+"}}]", Options{})
		if failures != "" {
			t.Errorf("requests_per_unit: %s: %s", text, failures)
			continue
		}
		if r := p.Rules()[0]; r.RequestsPerUnit != want || r.Spec.Limit != int64(want) {
			t.Errorf("requests_per_unit: %s is %d, want %d", text, r.RequestsPerUnit, want)
		}
	}
	for _, text := range []string{"true", "yes", "on", "Y", "TRUE"} {
		if !mustParse(t, "domain: d\ndescriptors: [{key: k, rate_limit: {unlimited: "+text+"}}]").Rules()[0].Unlimited {
			t.Errorf("unlimited: %s is not true", text)
		}
	}
	for _, text := range []string{"false", "no", "off", "n", "~"} {
		p := mustParse(t, "domain: d\ndescriptors: [{key: k, rate_limit: {unit: day, requests_per_unit: 1, unlimited: "+text+"}}]")
		if p.Rules()[0].Unlimited {
			t.Errorf("unlimited: %s is true", text)
		}
	}
}

func TestMetadata(t *testing.T) {
	p := mustParse(t, `
domain: d
descriptors:
- key: k
  metadata:
    text: free
    number: 1_000
    huge: 18446744073709551615
    fraction: 0.5
    yes: true
    nothing: ~
    date: 2026-11-21
    list: [1, [a], {b: c}]
    map: {yes: no, 1.50: x}
  rate_limit: {unit: day, requests_per_unit: 1}
- {key: none, metadata: {}, rate_limit: {unit: day, requests_per_unit: 1}}
`)
	want := map[string]any{
		"text": "free", "number": 1000.0, "huge": 18446744073709551615.0, "fraction": 0.5, "yes": true, "nothing": nil,
		"date": "2026-11-21", "list": []any{1.0, []any{"a"}, map[string]any{"b": "c"}},
		"map": map[string]any{"true": false, "1.5": "x"},
	}
	if got := p.Rules()[0].Metadata; !reflect.DeepEqual(got, want) {
		t.Errorf("got  %#v\nwant %#v", got, want)
	}
	if got := p.Rules()[1].Metadata; got != nil {
		t.Errorf("empty metadata is %#v, want none", got)
	}
}

func TestAliasesAndMergeKeys(t *testing.T) {
	p := mustParse(t, `
domain: d
descriptors:
- key: a
  rate_limit: &limit {unit: minute, requests_per_unit: 5}
  descriptors: &children
  - {key: x, rate_limit: *limit}
- key: b
  rate_limit: *limit
  descriptors: *children
- key: c
  rate_limit: {<<: *limit, requests_per_unit: 7}
- key: e
  rate_limit: {<<: [*limit, {unit: day, name: merged}]}
- &whole
  key: f
  rate_limit: {unit: hour, requests_per_unit: 1}
- {<<: *whole, value: v}
`)
	var got []string
	for _, r := range p.Rules() {
		got = append(got, fmt.Sprintf("%s %d/%s%s", r.Path, r.RequestsPerUnit, r.Unit, r.Name))
	}
	want := []string{
		"d.a 5/minute", "d.a.x 5/minute", "d.b 5/minute", "d.b.x 5/minute", "d.c 7/minute", "d.e 5/minutemerged",
		"d.f 1/hour", "d.f_v 1/hour",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// A rate_limit that is given twice is filled in twice, as the established implementation does.
func TestFieldsGivenTwice(t *testing.T) {
	p, failures, _ := parse(t, `
domain: d
descriptors:
- <<: {key: a, rate_limit: {unit: minute, requests_per_unit: 5}}
  rate_limit: {requests_per_unit: 7}
- <<: {key: b, rate_limit: {unit: minute, requests_per_unit: 5}}
  rate_limit: ~
`, Options{})
	if failures != "" {
		t.Fatal(failures)
	}
	if len(p.Rules()) != 1 || p.Rules()[0].RequestsPerUnit != 7 || p.Rules()[0].Unit != Minute {
		t.Errorf("%+v", p.Rules())
	}
}

func TestMergeDomains(t *testing.T) {
	const files = `
=== a.yaml
domain: d
descriptors:
- {key: k, value: "a*", rate_limit: {unit: day, requests_per_unit: 1}}
=== b.yaml
domain: other
descriptors:
- {key: z, rate_limit: {unit: day, requests_per_unit: 1}}
=== c.yaml
domain: d
descriptors:
- {key: k, value: "*b", rate_limit: {unit: day, requests_per_unit: 1}}
- {key: l, rate_limit: {unit: day, requests_per_unit: 1}}
`
	p, failures, _ := parse(t, files, Options{MergeDomains: true})
	if failures != "" {
		t.Fatal(failures)
	}
	if m, _ := p.Domain("d").Match([]Entry{{"k", "ab"}}, nil); m.Rule == nil || m.Rule.Path != "d.k_a*" || m.Rule.File != "a.yaml" {
		t.Errorf("the wildcard of the first file does not come first: %+v", m.Rule)
	}
	if m, _ := p.Domain("d").Match([]Entry{{"l", ""}}, nil); m.Rule == nil || m.Rule.File != "c.yaml" {
		t.Errorf("what the second file adds is not there: %+v", m.Rule)
	}
	var domains []string
	for _, d := range p.Domains() {
		domains = append(domains, fmt.Sprint(d.Name(), len(d.Rules())))
	}
	if got := fmt.Sprint(domains, p.Files()); got != "[d3 other1] [a.yaml b.yaml c.yaml]" {
		t.Error(got)
	}
	for i, r := range p.Rules() {
		if r.Index != i {
			t.Errorf("rule %s has index %d at %d", r.Path, r.Index, i)
		}
	}

	_, failures, _ = parse(t, `
=== a.yaml
domain: d
descriptors:
- {key: k, descriptors: [{key: x}]}
=== b.yaml
domain: d
descriptors:
- {key: k, descriptors: [{key: y}]}
`, Options{MergeDomains: true})
	want := "b.yaml:3:3: duplicate descriptor composite key 'd.k': it stands at a.yaml:3:3 already\n"
	if failures != want {
		t.Errorf("got  %swant %s", failures, want)
	}
}

func TestVersion(t *testing.T) {
	version := func(sources ...Source) string {
		p, _, err := Parse(sources, Options{})
		if err != nil {
			t.Fatal(err)
		}
		return p.Version()
	}
	a, b := []byte("domain: a"), []byte("domain: b")
	first := version(Source{"x.yaml", a}, Source{"y.yaml", b})
	if first != version(Source{"elsewhere/x.yaml", a}, Source{"elsewhere/y.yaml", b}) {
		t.Error("the same content has another version elsewhere")
	}
	if first == version(Source{"x.yaml", a}) || first == version(Source{"x.yaml", b}, Source{"y.yaml", a}) {
		t.Error("other content has the same version")
	}
	if version(Source{"x.yaml", []byte("domain: a\n")}, Source{"y.yaml", b}) ==
		version(Source{"x.yaml", []byte("domain: a")}, Source{"y.yaml", []byte("\ndomain: b")}) {
		t.Error("the version does not tell where a file ends")
	}
	if len(first) != 12 {
		t.Errorf("the version is %q", first)
	}
}

// What a file may cost is bounded whatever it holds.
func TestBounds(t *testing.T) {
	var bomb strings.Builder
	bomb.WriteString("domain: d\ndescriptors:\n- key: k\n  metadata:\n    a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n")
	for i := 1; i < 30; i++ {
		fmt.Fprintf(&bomb, "    a%d: &a%d [%s*a%d]\n", i, i, strings.Repeat(fmt.Sprintf("*a%d, ", i-1), 9), i-1)
	}
	long := strings.Repeat("x", 1<<20)
	var unknown strings.Builder
	unknown.WriteString("domain: d\n")
	for i := range maxProblems + 500 {
		fmt.Fprintf(&unknown, "unknown%d: 1\n", i)
	}
	for _, c := range []struct{ name, policy, want string }{
		{"an alias bomb", bomb.String(), "document contains excessive aliasing"},
		{"deep nesting", "domain: d\ndescriptors: " + strings.Repeat("[{key: k, descriptors: ", 150) + "[]" +
			strings.Repeat("}]", 150), "nested deeper than 200 levels"},
		{"deeper nesting", strings.Repeat("[", 1<<20), "exceeded max depth"},
		{"a large file", strings.Repeat("#", maxFileSize+1), "the file is larger than 10 MB"},
		{"long paths", "domain: d\ndescriptors: [{key: " + long + ", descriptors: [" +
			strings.Repeat("{key: k}, ", 80) + "]}]",
			"the paths of all rules together have more than 64 MB"},
		{"long limits", "domain: d\ndescriptors: [{key: " + long + ", limits: [" + strings.Repeat("{name: a, rate: 1/s}, ", 80) + "]}]",
			"the paths of all rules and limits together have more than 64 MB"},
		{"many tiers", "domain: d\ntiers: [" + strings.Repeat("{name: a}, ", maxTiers+1) + "]", "there are more than 64 tiers"},
		{"many problems", unknown.String(), "500 more problems are not shown"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, failures, _ := parse(t, c.policy, Options{}); !strings.Contains(failures, c.want) {
				t.Errorf("got %.300s\nwant %s", failures, c.want)
			}
		})
	}
}

// The search for wildcards that never apply gives up in time, and says so.
func TestLintIsBounded(t *testing.T) {
	var b strings.Builder
	b.WriteString("domain: d\ndescriptors:\n")
	for i := range 5000 {
		fmt.Fprintf(&b, "- {key: 'k*%05d'}\n", i)
	}
	_, failures, warnings := parse(t, b.String(), Options{Strict: true})
	if failures != "" || warnings != "there are too many wildcards to find all that is wrong with them\n" {
		t.Errorf("got errors\n%.300sand warnings\n%.300s", failures, warnings)
	}
}

// What is shown to callers and in metrics has to be text.
func TestInvalidUTF8(t *testing.T) {
	_, _, err := Parse([]Source{{Name: "p.yaml", Data: []byte(`domain: d
descriptors:
- key: a
  value: !!binary //8=
  rate_limit: { unit: second, requests_per_unit: 1, name: !!binary //8= }
`)}}, Options{})
	want := "p.yaml:4:10: value is not valid UTF-8\np.yaml:5:59: name is not valid UTF-8"
	if err == nil || err.Error() != want {
		t.Errorf("%v\nwant %s", err, want)
	}
}
