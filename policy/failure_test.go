package policy

import (
	"strings"
	"testing"
)

// What a call costs whose upstream fails: nothing, unless the policy says otherwise.
func TestOnFailure(t *testing.T) {
	for said, want := range map[string]struct {
		is    Failure
		words string
	}{
		"":                    {FailureNothing, ""},
		"on_failure: nothing": {FailureNothing, ""},
		"on_failure: lapse":   {FailureLapse, "calls whose upstream fails stay charged as those that nobody settles"},
	} {
		p := mustParse(t, "domain: d\n"+said)
		if got := p.Domain("d").OnFailure(); got != want.is {
			t.Errorf("%s is %v, want %v", said, got, want.is)
		}
		if got := strings.TrimSpace(strings.Join(p.Explain()[1:], "\n")); got != want.words {
			t.Errorf("%s is explained as %q, want %q", said, got, want.words)
		}
	}
}

func TestOnFailureProblems(t *testing.T) {
	for said, want := range map[string]string{
		"on_failure: laps":  "policy.yaml:2:13: on_failure ´laps´ is unknown (did you mean ´lapse´?)",
		"on_failure: input": "policy.yaml:2:13: on_failure ´input´ is unknown: it is nothing or lapse",
		"on_failure: lapse\n=== b.yaml\ndomain: d\non_failure: nothing": "b.yaml:2:13: ´on_failure´ is lapse at policy.yaml:2:13: it is said once for the domain",
		"descriptors: [{ key: a, on_failure: lapse }]":                  "policy.yaml:2:25: ´on_failure´ means nothing in a descriptor: it belongs in the top of the file",
	} {
		_, failures, warnings := parse(t, "domain: d\n"+said, Options{MergeDomains: true})
		if want := expected(want) + "\n"; failures+warnings != want {
			t.Errorf("%s: got\n%swant\n%s", said, failures+warnings, want)
		}
	}
}
