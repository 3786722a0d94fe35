package policy

import (
	"reflect"
	"strings"
	"testing"
)

// What is kept of the past, and how `ration check` says it.
func TestUsage(t *testing.T) {
	defaults := Keep{OwnerHours: 3 * day, OwnerDays: 35 * day, GroupHours: 35 * day, GroupDays: 400 * day}
	for _, c := range []struct {
		said  string
		want  Usage
		words string
	}{
		{"", Usage{Keep: defaults}, ""},
		{"usage: on", Usage{Keep: defaults}, ""},
		{"usage: {}", Usage{Keep: defaults}, ""},
		{"usage: off", Usage{Off: true}, "usage: none is kept"},
		{"usage: { tags: team }", Usage{Tags: []string{"team"}, Keep: defaults},
			"usage by subject, tier, model and team: hours for 3 days, days for 35 days; of all together hours for 35 days, days for 400 days"},
		{"usage: { tags: [a, b, c], keep: { hourly: 7d, daily: 3653d, domain_hourly: 1h, domain_daily: 1 day } }",
			Usage{Tags: []string{"a", "b", "c"}, Keep: Keep{OwnerHours: 7 * day, OwnerDays: 3653 * day, GroupHours: hour, GroupDays: day}},
			"usage by subject, tier, model, a, b and c: hours for 7 days, days for 3653 days; of all together hours for 1 hour, days for 1 day"},
		{"usage: { keep: { hourly: off, domain_daily: off } }",
			Usage{Keep: Keep{OwnerDays: 35 * day, GroupHours: 35 * day}},
			"usage by subject, tier and model: no hours, days for 35 days; of all together hours for 35 days, no days"},
	} {
		p := mustParse(t, "domain: d\n"+c.said)
		if got := p.Domain("d").Usage(); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s is %+v, want %+v", c.said, got, c.want)
		}
		if got := strings.TrimSpace(strings.Join(p.Explain()[1:], "\n")); got != c.words {
			t.Errorf("%s is explained as %q, want %q", c.said, got, c.words)
		}
	}
}

func TestUsageProblems(t *testing.T) {
	for _, c := range []struct{ policy, want string }{
		{"usage: of", "policy.yaml:2:8: ´usage´ is off, or a mapping such as { tags: [team], keep: { daily: 90d } }, not ´of´"},
		{"usage:", "policy.yaml:2:7: ´usage´ is off, or a mapping such as { tags: [team], keep: { daily: 90d } }, not ´´"},
		{"usage: [team]", "policy.yaml:2:8: ´usage´ must be a mapping, not a list"},
		{"usage: { tag: team }", "policy.yaml:2:10: unknown key ´tag´ in ´usage´ (did you mean ´tags´?)"},
		{"usage: { tags: [a, b, c, e] }", "policy.yaml:2:26: there are more than 3 tags: each multiplies the rows of usage"},
		{"usage: { tags: [a, b, a] }", "policy.yaml:2:23: tag ´a´ is given twice"},
		{"usage: { tags: [a, model] }", "policy.yaml:2:20: tag ´model´: usage is kept by subject, tier and model anyway"},
		{"usage: { tags: user }", "policy.yaml:2:16: tag ´user´: usage is kept by subject, tier and model anyway"},
		{"usage: { tags: ration.tier }", "policy.yaml:2:16: tag ´ration.tier´: keys that begin with ´ration.´ say something about a request, and are no part of its attributes"},
		{"usage: { keep: 7d }", "policy.yaml:2:16: ´keep´ must be a mapping, not ´7d´"},
		{"usage: { keep: { dayly: 7d } }", "policy.yaml:2:18: unknown key ´dayly´ in ´keep´ (did you mean ´daily´?)"},
		{"usage: { keep: { hourly: 59m } }", "policy.yaml:2:26: ´hourly´: its rows are of an hour, so they are kept for that long at least: write off if there shall be none"},
		{"usage: { keep: { domain_daily: 23h } }", "policy.yaml:2:32: ´domain_daily´: its rows are of a day, so they are kept for that long at least: write off if there shall be none"},
		{"usage: { keep: { daily: 23h } }", "policy.yaml:2:25: ´daily´: its rows are of a day, so they are kept for that long at least: write off if there shall be none"},
		{"usage: { keep: { daily: 3654d } }", "policy.yaml:2:25: ´daily´: rows are kept for ten years at most, 3653d"},
		{"usage: { keep: { daily: year } }", "policy.yaml:2:25: ´daily´: a year has no fixed length: write it in days"},
		{"usage: { keep: { daily: on } }", "policy.yaml:2:25: ´daily´: ´on´ is no unit of time: there are microsecond, millisecond, second, minute, hour, day, week, month and year"},
		{"usage: off\n=== b.yaml\ndomain: d\nusage: off", "b.yaml:2:8: the ´usage´ of the domain stands at policy.yaml:2:8 already: one file says all of it"},
		{"limits: [{name: x, rate: 1/s, keep: {}, tags: a, hourly: 1d}]", `policy.yaml:2:31: ´keep´ means nothing in an entry of ´limits´: it belongs in ´usage´
policy.yaml:2:41: ´tags´ means nothing in an entry of ´limits´: it belongs in ´usage´
policy.yaml:2:50: ´hourly´ means nothing in an entry of ´limits´: it belongs in ´keep´`},
	} {
		policy := "domain: d\n" + c.policy + "\n=== subjects.yaml\ndomain: d\ndescriptors: [{key: user, subject: true}]\n"
		_, failures, _ := parse(t, policy, Options{MergeDomains: true})
		if want := expected(c.want) + "\n"; failures != want {
			t.Errorf("%s: got\n%swant\n%s", c.policy, failures, want)
		}
	}
	// Of several subjects one may be a tag: it tells the rows of the others apart.
	mustParse(t, "domain: d\nanonymous: deny\nusage: {tags: org}\ndescriptors: [{key: user, subject: true}, {key: org, subject: true}]")
}
