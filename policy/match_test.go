package policy

import (
	"fmt"
	"strings"
	"testing"
)

// entries reads "user=alice model=x"; a value may be empty.
func entries(s string) (list []Entry) {
	for _, field := range strings.Fields(s) {
		key, value, _ := strings.Cut(field, "=")
		list = append(list, Entry{key, value})
	}
	return list
}

// The rules of the established contract for which rule applies to a descriptor, one after the other.
// Each line of a case is a descriptor, the path of the rule that applies to it, below the domain, and
// the name of its counter, without domain and window.
func TestMatch(t *testing.T) {
	for _, c := range []struct {
		name   string
		policy string
		want   []string
	}{
		{"an exact value comes before a wildcard, a wildcard before the default", `
			- {key: k, rate_limit: {unit: hour, requests_per_unit: 1}}
			- {key: k, value: "a*", rate_limit: {unit: hour, requests_per_unit: 1}}
			- {key: k, value: ab, rate_limit: {unit: hour, requests_per_unit: 1}}`, []string{
			"k=ab → k_ab |k=ab",
			"k=abc → k_a* |k=abc",
			"k=b → k |k=b",
			"other=b → none",
		}},
		{"of two wildcards the first declared wins, not the longest", `
			- {key: k, value: "a*", rate_limit: {unit: hour, requests_per_unit: 1}}
			- {key: k, value: "*c", rate_limit: {unit: hour, requests_per_unit: 1}}
			- {key: k, value: "*", rate_limit: {unit: hour, requests_per_unit: 1}}
			- {key: l, value: "*", rate_limit: {unit: hour, requests_per_unit: 1}}`, []string{
			"k=abc → k_a* |k=abc",
			"k=bc → k_*c |k=bc",
			"k=b → k_* |k=b",
		}},
		{"a star stands for anything, also nothing", `
			- {key: k, value: "a*", rate_limit: {unit: hour, requests_per_unit: 1}}
			- {key: k, value: "x*y*z", rate_limit: {unit: hour, requests_per_unit: 1}}`, []string{
			"k=a → k_a* |k=a",
			"k=xyz → k_x*y*z |k=xyz",
			"k=x1y2z → k_x*y*z |k=x1y2z",
			"k=xzy → none",
			"k=xyzq → none",
			"k=qxyz → none",
		}},
		{"the parts of a wildcard do not overlap", `
			- {key: k, value: "ab*ba", rate_limit: {unit: hour, requests_per_unit: 1}}
			- {key: l, value: "a*aa*a", rate_limit: {unit: hour, requests_per_unit: 1}}
			- {key: m, value: "*a*a*", rate_limit: {unit: hour, requests_per_unit: 1}}`, []string{
			"k=abba → k_ab*ba |k=abba",
			"k=aba → none",
			"l=aaaa → l_a*aa*a |l=aaaa",
			"l=aaa → none",
			"m=bab → none",
			"m=baab → m_*a*a* |m=baab",
		}},
		{"the rule is that of the last entry: a descriptor deeper than the policy has none", `
			- key: a
			  rate_limit: {unit: hour, requests_per_unit: 1}
			  descriptors:
			  - {key: b, rate_limit: {unit: day, requests_per_unit: 1}}
			- key: bare
			  descriptors:
			  - {key: b, rate_limit: {unit: day, requests_per_unit: 1}}`, []string{
			"a=1 → a |a=1",
			"a=1 b=2 → a.b |a=1|b=2",
			"a=1 b=2 c=3 → none",
			"bare=1 → none",
			"bare=1 b=2 → bare.b |bare=1|b=2",
			" → none",
		}},
		{"there is no way back from an exact value to the default beside it", `
			- key: k
			  value: x
			  descriptors:
			  - {key: only, rate_limit: {unit: hour, requests_per_unit: 1}}
			- key: k
			  rate_limit: {unit: hour, requests_per_unit: 1}
			  descriptors:
			  - {key: child, rate_limit: {unit: hour, requests_per_unit: 1}}`, []string{
			"k=y child=1 → k.child |k=y|child=1",
			"k=x child=1 → none",
			"k=x → none",
			"k=x only=1 → k_x.only |k=x|only=1",
		}},
		{"an exact value without rate_limit is exempt from the default", `
			- {key: ip, rate_limit: {unit: hour, requests_per_unit: 1}}
			- {key: ip, value: 10.0.0.1}`, []string{
			"ip=10.0.0.2 → ip |ip=10.0.0.2",
			"ip=10.0.0.1 → none",
		}},
		{"an empty value takes the default, and a wildcard before it", `
			- {key: k, rate_limit: {unit: hour, requests_per_unit: 1}}
			- {key: l, value: "*", rate_limit: {unit: hour, requests_per_unit: 1}}
			- {key: m, value: "a*", rate_limit: {unit: hour, requests_per_unit: 1}}
			- {key: m, rate_limit: {unit: hour, requests_per_unit: 1}}`, []string{
			"k= → k |k=",
			"l= → l_* |l=",
			"m= → m |m=",
		}},
		{"defaults and wildcards count each value by itself", `
			- {key: k, rate_limit: {unit: hour, requests_per_unit: 1}}
			- {key: w, value: "*", rate_limit: {unit: hour, requests_per_unit: 1}}`, []string{
			"k=1 → k |k=1",
			"k=2 → k |k=2",
			"w=1 → w_* |w=1",
			"w=2 → w_* |w=2",
		}},
		{"share_threshold counts all matching values together, and one that is the pattern itself", `
			- {key: path, value: "/api/*", share_threshold: true, rate_limit: {unit: hour, requests_per_unit: 1}}
			- key: org
			  value: "x*"
			  share_threshold: true
			  descriptors:
			  - {key: user, rate_limit: {unit: hour, requests_per_unit: 1}}
			- {key: "t*", share_threshold: true, rate_limit: {unit: hour, requests_per_unit: 1}}
			- {key: "v*_", share_threshold: true, rate_limit: {unit: hour, requests_per_unit: 1}}`, []string{
			"path=/api/a → path_/api/* |path=/api/*",
			"path=/api/b → path_/api/* |path=/api/*",
			"path=/api/* → path_/api/* |path=/api/*",
			"org=x1 user=u → org_x*.user |org=x*|user=u",
			"org=x2 user=u → org_x*.user |org=x*|user=u",
			"org=x2 user=v → org_x*.user |org=x*|user=v",
			"t1=a → t* |t1=t*",
			"t1=b → t* |t1=t*",
			"t2=b → t* |t2=t*",
			"v*=a_ → v*_ |v*=a_", // nothing of the pattern is left beside the key
		}},
		{"the order of entries matters", `
			- key: a
			  descriptors:
			  - {key: b, rate_limit: {unit: hour, requests_per_unit: 1}}`, []string{
			"a=1 b=2 → a.b |a=1|b=2",
			"b=2 a=1 → none",
		}},
		{"keys and values are case-sensitive", `
			- {key: k, value: v, rate_limit: {unit: hour, requests_per_unit: 1}}`, []string{
			"k=v → k_v |k=v",
			"K=v → none",
			"k=V → none",
		}},
		{"key and value are looked up as one, so an entry may meet a key with an underscore", `
			- {key: a_b, rate_limit: {unit: hour, requests_per_unit: 1}}
			- {key: c, value: d, rate_limit: {unit: hour, requests_per_unit: 1}}`, []string{
			"a_b=x → a_b |a_b=x",
			"a=b → a_b |a=b",
			"c_d= → c_d |c_d=",
			"c=d → c_d |c=d",
		}},
		{"an unlimited rule applies and counts nothing", `
			- {key: k, rate_limit: {unlimited: true}}`, []string{
			"k=1 → k ",
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			yaml := "domain: d\ndescriptors:\n" + strings.ReplaceAll(c.policy, "\n\t\t\t", "\n")
			p, _, err := Parse([]Source{{"policy.yaml", []byte(yaml)}}, Options{})
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range c.want {
				descriptor, _, _ := strings.Cut(want, "→")
				m, bucket := p.Domain("d").Match(entries(descriptor), nil)
				rule := m.Rule
				got := descriptor + "→ none"
				if rule != nil {
					name := strings.TrimPrefix(string(bucket), "d")
					name = name[:max(0, strings.LastIndex(name, "|"))]
					got = fmt.Sprintf("%s→ %s %s", descriptor, strings.TrimPrefix(rule.Path, "d."), name)
				}
				if got != want {
					t.Errorf("got  %s\nwant %s", got, want)
				}
			}
		})
	}
}

func TestDomainsAreCaseSensitive(t *testing.T) {
	p := mustParse(t, "domain: Shop")
	if p.Domain("Shop") == nil || p.Domain("shop") != nil || p.Domain("") != nil {
		t.Error("a domain is found by another name than its own")
	}
}

// A rule counts in the same counter as a limit that a request brings for the same entries and window.
func TestRuleAndOverrideShareCounters(t *testing.T) {
	d := mustParse(t, `
domain: "a|b"
descriptors:
- key: user
  descriptors:
  - {key: "p=%", rate_limit: {unit: minute, requests_per_unit: 5}}
`).Domain("a|b")
	list := []Entry{{"user", "x|y"}, {"p=%", ""}}
	m, got := d.Match(list, []byte("before "))
	want := AppendBucket([]byte("before "), "a|b", list, m.Rule.Spec.Window)
	if string(got) != string(want) {
		t.Errorf("the rule counts in %q, the override in %q", got, want)
	}
}

func TestMatchLeavesTheBucketAlone(t *testing.T) {
	d := mustParse(t, `
domain: d
descriptors:
- {key: free, rate_limit: {unlimited: true}}
- {key: exempt, value: x}
- {key: deep, descriptors: [{key: deeper, rate_limit: {unit: day, requests_per_unit: 1}}]}
`).Domain("d")
	for _, descriptor := range []string{"free=1", "exempt=x", "nobody=1", "deep=1 nobody=1", "deep=1", ""} {
		if _, got := d.Match(entries(descriptor), []byte("before")); string(got) != "before" {
			t.Errorf("%q appended to the bucket: %q", descriptor, got)
		}
	}
}

func TestMatchDoesNotAllocate(t *testing.T) {
	d := mustParse(t, `
domain: d
anonymous: unlimited
descriptors:
- key: tenant
  descriptors:
  - {key: path, value: /exact, rate_limit: {unit: minute, requests_per_unit: 1}}
  - {key: path, value: "/a/*/b*", rate_limit: {unit: minute, requests_per_unit: 1}}
  - {key: path, value: "/shared/*", share_threshold: true, rate_limit: {unit: minute, requests_per_unit: 1}}
  - {key: path, rate_limit: {unit: minute, requests_per_unit: 1}}
- key: user
  subject: true
  limits: [{name: requests, rate: 10/minute}]
  descriptors: [{key: model, value: "m*", limits: [{name: a, algorithm: sliding_log, limit: 20/day}]}]
upstreams: [{name: up, models: ["m*"], limits: [{name: rpm, rate: 10/minute}]}]
`).Domain("d")
	bucket := make([]byte, 0, 128)
	for _, descriptor := range []string{
		"tenant=acme path=/exact", "tenant=acme path=/a/1/b2", "tenant=acme path=/shared/x",
		"tenant=a|b path=/default", "tenant=acme nobody=1", "user=alice", "user=alice model=m1",
	} {
		list := entries(descriptor)
		if n := testing.AllocsPerRun(100, func() { _, bucket = d.Match(list, bucket[:0]) }); n != 0 {
			t.Errorf("%q: %v allocations", descriptor, n)
		}
	}
	set, matches, room := entries("model=m1 path=/exact tenant=acme user=alice"), make([]Match, 0, 8), make([]byte, 0, 512)
	if n := testing.AllocsPerRun(100, func() {
		matches, room, _ = d.MatchSet(set, matches[:0], room[:0])
		if u := d.Upstream("m1"); u != nil {
			matches = append(matches, u.Match(), d.Root())
		}
		for i := range matches {
			for _, l := range matches[i].Limits {
				room = l.AppendBucket(room, &matches[i])
			}
		}
	}); n != 0 || len(matches) != 5 {
		t.Errorf("%d matches of a set: %v allocations", len(matches), n)
	}
}

func TestRuleFields(t *testing.T) {
	p := mustParse(t, `
domain: llm
descriptors:
- key: path
  value: /login
  descriptors:
  - key: user
    shadow_mode: true
    quota_mode: true
    metadata: {plan: free}
    rate_limit: {name: login, unit: MINUTE, requests_per_unit: 10, replaces: [{name: other}]}
- key: all
  rate_limit: {unlimited: true}
- key: third
  rate_limit: {name: other, unit: day, requests_per_unit: 1}
`[1:])
	rules := p.Rules()
	if len(rules) != 3 || rules[0].Index != 0 || rules[1].Index != 1 {
		t.Fatalf("%d rules, or not at their index", len(rules))
	}
	r := rules[0]
	got := fmt.Sprintln(r.Domain, r.Path, r.Name, r.Replaces, r.Unlimited, r.Shadow, r.Quota,
		r.RequestsPerUnit, r.Unit, r.Spec, r.Metadata, r.File, r.Line, r.Column)
	want := "llm llm.path_/login.user login [other] false true true 10 minute {fixed_window false 10 0 0 60000000 <nil>} map[plan:free] policy.yaml 6 5\n"
	if got != want {
		t.Errorf("got  %swant %s", got, want)
	}
	if u := rules[1]; !u.Unlimited || u.Spec.Limit != 0 || u.Spec.Window != 0 || u.Unit.Valid() {
		t.Errorf("an unlimited rule has %+v", u)
	}
}
