package policy

import (
	"strings"
	"testing"

	"github.com/rationhq/ration/limit"
)

// What refused callers are told: how long to wait for, and which status is theirs if that does not help.
func TestAnswers(t *testing.T) {
	for _, c := range []struct {
		said   string
		upTo   limit.Micros
		status int
		words  string
	}{
		{"", minute, 429, ""},
		{"retry_up_to: 30s", 30 * limit.Second, 429, "refused callers are told to try again within 30 seconds; where it takes longer they are told not to, with status 429"},
		{"retry_up_to: minute\nexhausted_status: 402", minute, 402, "refused callers are told to try again within 1 minute; where it takes longer they are told not to, with status 402"},
		{"exhausted_status: '403'", minute, 403, "refused callers are told to try again within 1 minute; where it takes longer they are told not to, with status 403"},
		{"exhausted_status: 429", minute, 429, "refused callers are told to try again within 1 minute; where it takes longer they are told not to, with status 429"},
	} {
		p := mustParse(t, "domain: d\n"+c.said)
		d := p.Domain("d")
		if d.RetryUpTo() != c.upTo || d.ExhaustedStatus() != c.status {
			t.Errorf("%s is %v and %d, want %v and %d", c.said, d.RetryUpTo().Duration(), d.ExhaustedStatus(), c.upTo.Duration(), c.status)
		}
		if got := strings.TrimSpace(strings.Join(p.Explain()[1:], "\n")); got != c.words {
			t.Errorf("%s is explained as %q, want %q", c.said, got, c.words)
		}
	}
}

func TestAnswerProblems(t *testing.T) {
	for _, c := range []struct{ policy, want string }{
		{"retry_up_to: 60", "policy.yaml:2:14: ´retry_up_to´: ´60´ is no length of time: write it as minute, 10m or 1h30m"},
		{"retry_up_to: 0s", "policy.yaml:2:14: ´retry_up_to´: ´0s´ is no time at all"},
		{"retry_up_to: month", "policy.yaml:2:14: ´retry_up_to´: a month has no fixed length: write it in days"},
		{"retry_up_to: 61s", "policy.yaml:2:14: ´retry_up_to´ above 60s: of the common model SDKs some do not believe a longer wait and try again at once, others sleep through it"},
		{"exhausted_status: 418", "policy.yaml:2:19: exhausted_status ´418´ is unknown: it is 402, 403 or 429"},
		{"exhausted_status: {}", "policy.yaml:2:19: ´exhausted_status´ must be text, not a mapping"},
		{"retry_up_to: 5s\n=== b.yaml\ndomain: d\nretry_up_to: 6s\n=== c.yaml\ndomain: d\nretry_up_to: 5s", "b.yaml:2:14: ´retry_up_to´ is 5 seconds at policy.yaml:2:14: it is said once for the domain"},
		{"exhausted_status: 402\n=== b.yaml\ndomain: d\nexhausted_status: 403", "b.yaml:2:19: ´exhausted_status´ is 402 at policy.yaml:2:19: it is said once for the domain"},
		{"descriptors: [{key: a, retry_up_to: 5s}]", "policy.yaml:2:24: ´retry_up_to´ means nothing in a descriptor: it belongs in the top of the file"},
	} {
		_, failures, warnings := parse(t, "domain: d\n"+c.policy, Options{MergeDomains: true})
		if want := expected(c.want) + "\n"; failures+warnings != want {
			t.Errorf("%s: got\n%swant\n%s", c.policy, failures+warnings, want)
		}
	}
}
