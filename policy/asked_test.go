package policy

import (
	"strings"
	"testing"
)

// What a limit counts of a reserved call: what it has used, or what it has asked for.
func TestCounts(t *testing.T) {
	const limits = "domain: d\nlimits: [{ name: a, meter: tokens, algorithm: fixed_window, limit: 5/day, %}]"
	for said, asked := range map[string]bool{"": false, "counts: used": false, "counts: asked": true} {
		p := mustParse(t, strings.Replace(limits, "%", said, 1))
		if got := p.Limits()[0].CountAsked; got != asked {
			t.Errorf("%s: what is asked counts: %t", said, got)
		}
		if got := strings.Contains(strings.Join(p.Explain(), "\n"), "; what was asked for counts, whatever is used"); got != asked {
			t.Errorf("%s is explained as %q", said, p.Explain())
		}
	}
	for said, want := range map[string]string{
		"counts: used, on_lapse: all":  "",
		"counts: asked, on_lapse: all": "policy.yaml:2:100: limit ´a´: ´on_lapse´ is only for what is given back: with ´counts: asked´ nothing is",
		"counts: ask":                  "policy.yaml:2:83: limit ´a´: counts ´ask´ is unknown (did you mean ´asked´?)",
	} {
		_, failures, warnings := parse(t, strings.Replace(limits, "%", said, 1), Options{})
		if got := strings.TrimSpace(failures + warnings); got != strings.TrimSpace(expected(want)) {
			t.Errorf("%s: got\n%s\nwant\n%s", said, got, expected(want))
		}
	}
	_, failures, _ := parse(t, "domain: d\nlimits: [{ name: a, algorithm: fixed_window, limit: 5/day, counts: asked }]", Options{})
	if want := expected("policy.yaml:2:68: limit ´a´: ´counts´ is only for the meters of tokens and cost: nothing else is held until it is known"); strings.TrimSpace(failures) != strings.TrimSpace(want) {
		t.Errorf("of requests: got\n%s\nwant\n%s", failures, want)
	}
}
