package policy

import (
	"slices"
	"strings"
	"testing"
)

// What becomes of callers who name no subject, and how `ration check` says it.
func TestAnonymous(t *testing.T) {
	const subject = "tiers: [{name: free}, {name: pro}]\ndescriptors: [{key: user, subject: true, limits: [{name: x, rate: 1/s}]}]\n"
	for said, want := range map[string]struct {
		anonymous Anonymous
		words     string
	}{
		"deny":                   {Anonymous{Given: true, Deny: true}, "who names no subject is refused"},
		"shared":                 {Anonymous{Given: true}, `who names no subject is "anonymous", with all others of whom that is so, in free`},
		"{ by: remote_address }": {Anonymous{Given: true, By: "remote_address"}, `who names no subject is "anonymous", with counters for each value of remote_address, in free`},
		"unlimited":              {Anonymous{}, "who names no subject meets no limit of subjects"},
	} {
		p := mustParse(t, "domain: d\nanonymous: "+said+"\n"+subject)
		if got := p.Domain("d").Anonymous(); got != want.anonymous {
			t.Errorf("%s is %+v, want %+v", said, got, want.anonymous)
		}
		if !slices.Contains(p.Explain(), "  "+want.words) {
			t.Errorf("%s is explained as\n%s\nwithout %q", said, strings.Join(p.Explain(), "\n"), want.words)
		}
	}
	_, _, warnings := parse(t, "domain: d\ndescriptors: [{key: path, descriptors: [{key: user, subject: true}]}]", Options{})
	if !strings.HasPrefix(warnings, "policy.yaml:2:41: whoever names no user ") {
		t.Errorf("a subject further down: got the warnings\n%s", warnings)
	}
	p, failures, warnings := parse(t, "domain: d\n"+subject, Options{})
	if failures != "" || p.Domain("d").Anonymous() != (Anonymous{}) {
		t.Errorf("where nothing is said: %s", failures)
	}
	want := expected(`
policy.yaml:3:15: whoever names no user passes all limits of subjects: write ´anonymous: { by: remote_address }´ at the top, which limits such callers too, ´anonymous: deny´, or ´anonymous: unlimited´ if that is meant
`)
	if warnings != want {
		t.Errorf("got the warnings\n%swant\n%s", warnings, want)
	}
}

// Keys are in the order of the files, each once, wherever a subject stands.
func TestSubjectKeys(t *testing.T) {
	p, failures, _ := parse(t, `
=== a.yaml
domain: d
descriptors:
- key: path
  descriptors: [{key: user, subject: true}]
- {key: org, value: big, subject: true}
- {key: org, subject: true}
=== b.yaml
domain: d
descriptors: [{key: "team*", subject: true}, {key: user, subject: true}, {key: app}]
anonymous: shared
`, Options{MergeDomains: true})
	if failures != "" {
		t.Fatal(failures)
	}
	if got, want := p.Domain("d").SubjectKeys(), []string{"user", "org", "team*"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := p.Domain("d").SubjectKey(); got != "user" {
		t.Errorf("the first is %q", got)
	}
	if got := mustParse(t, "domain: d").Domain("d").SubjectKeys(); len(got) > 0 {
		t.Errorf("without subjects there is %q", got)
	}
}

func TestAnonymousProblems(t *testing.T) {
	for _, c := range []struct{ name, policy, want string }{
		{"what is none", `
anonymous: dney
`, `policy.yaml:2:12: anonymous ´dney´ is unknown (did you mean ´deny´?)`},
		{"what is far from all", `
anonymous: whatever
`, `policy.yaml:2:12: anonymous ´whatever´ is unknown: it is deny, shared, unlimited or { by: remote_address }`},
		{"nothing", `
anonymous:
`, `policy.yaml:2:11: ´anonymous´ is empty`},
		{"a list", `
anonymous: [deny]
`, `policy.yaml:2:12: ´anonymous´ must be text, not a list`},
		{"by nothing", `
anonymous: {}
`, `policy.yaml:2:12: ´anonymous´ does not say by which entry callers are told apart: write { by: remote_address }, or the word shared if they are one subject together`},
		{"by what is not there", `
anonymous: { bye: remote_address }
`, `policy.yaml:2:14: unknown key ´bye´ in ´anonymous´ (did you mean ´by´?)`},
		{"by itself", `
anonymous: { by: user }
`, `policy.yaml:2:18: anonymous callers are not told apart by ´user´: it names the subject, and who has one is not anonymous. Write another entry that requests have, such as remote_address`},
		{"by what is taken out", `
anonymous: { by: ration.key }
`, `policy.yaml:2:18: anonymous callers are not told apart by ´ration.key´: keys that begin with ´ration.´ say something about a request, and are no part of its descriptor`},
		{"two things", `
anonymous: deny
=== b.yaml
domain: d
anonymous: { by: remote_address }
`, `b.yaml:2:12: ´anonymous´ is something else at policy.yaml:2:12: it is said once for the domain`},
		{"two words", `
anonymous: deny
=== b.yaml
domain: d
anonymous: shared
`, `b.yaml:2:12: ´anonymous´ is something else at policy.yaml:2:12: it is said once for the domain`},
		{"two keys", `
anonymous: { by: ip }
=== b.yaml
domain: d
anonymous: { by: remote_address }
`, `b.yaml:2:12: ´anonymous´ is something else at policy.yaml:2:12: it is said once for the domain`},
		{"in a descriptor", `
anonymous: deny
=== b.yaml
domain: d
descriptors: [{key: a, anonymous: deny}]
`, `b.yaml:2:24: ´anonymous´ means nothing in a descriptor: it belongs in the top of the file`},
		{"a key of it at the top", `
anonymous: deny
by: remote_address
`, `policy.yaml:3:1: config error, unknown key 'by': it belongs in ´anonymous´`},
	} {
		t.Run(c.name, func(t *testing.T) {
			policy := "domain: d" + c.policy + "=== subjects.yaml\ndomain: d\ndescriptors: [{key: user, subject: true}]\n"
			_, failures, _ := parse(t, policy, Options{MergeDomains: true})
			if want := expected(c.want) + "\n"; failures != want {
				t.Errorf("got\n%swant\n%s", failures, want)
			}
		})
	}
	_, failures, warnings := parse(t, "domain: d\nanonymous: deny", Options{})
	if want := expected("policy.yaml:2:12: ´anonymous´ has no effect: no descriptor has ´subject: true´\n"); failures+warnings != want {
		t.Errorf("without subjects: got\n%swant\n%s", failures+warnings, want)
	}
}

// What several files say alike is said once.
func TestAnonymousInSeveralFiles(t *testing.T) {
	p, failures, warnings := parse(t, `
=== a.yaml
domain: d
descriptors: [{key: user, subject: true}]
=== b.yaml
domain: d
anonymous: {by: ip}
=== c.yaml
domain: d
anonymous: { by: "ip" }
`, Options{MergeDomains: true})
	if failures+warnings != "" {
		t.Fatal(failures + warnings)
	}
	if got := p.Domain("d").Anonymous(); got != (Anonymous{Given: true, By: "ip"}) {
		t.Errorf("got %+v", got)
	}
}
