package policy

import (
	"strings"
	"testing"
)

func TestExplain(t *testing.T) {
	p, failures, _ := parse(t, `
=== b.yaml
domain: second one
=== a.yaml
domain: llm
descriptors:
- key: path
  value: /login
  descriptors:
  - {key: user, rate_limit: {unit: minute, requests_per_unit: 10}}
- {key: path, rate_limit: {unit: second, requests_per_unit: 1}}
- {key: path, value: "/static/*"}
- {key: path, value: /health}
- {key: path, value: "/api/*", rate_limit: {unit: hour, requests_per_unit: 2}}
- {key: path, value: "/img/*", share_threshold: true, rate_limit: {unit: day, requests_per_unit: 2}}
- {key: "ip*", rate_limit: {unit: week, requests_per_unit: 2, name: by ip}}
- {key: "net*", share_threshold: true, rate_limit: {unit: month, requests_per_unit: 2}}
- key: org
  rate_limit: {unit: year, requests_per_unit: 1000, name: org}
  descriptors:
  - {key: team, value: a b, rate_limit: {unit: day, requests_per_unit: 0}}
- {key: free, rate_limit: {unlimited: true, replaces: [{name: org}]}}
- {key: trial, shadow_mode: true, rate_limit: {unit: day, requests_per_unit: 3}}
- key: share
  quota_mode: true
  rate_limit: {unit: day, requests_per_unit: 3, replaces: [{name: org}, {name: by ip}, {name: trial}]}
`, Options{})
	if failures != "" {
		t.Fatal(failures)
	}
	want := strings.TrimPrefix(`
domain llm: 11 rules
  path=/login, with no further entry: no limit
  each value of user under path=/login (rule llm.path_/login.user): 10 requests per minute, aligned to the clock's minutes (UTC)
  each other value of path (rule llm.path): 1 request per second, aligned to the clock's seconds (UTC)
  each value of path matching /static/*: no limit
  path=/health: no limit
  each value of path matching /api/* (rule llm.path_/api/*): 2 requests per hour, aligned to the clock's hours (UTC)
  all values of path matching /img/* taken together (rule llm.path_/img/*): 2 requests per day, aligned to the clock's days (UTC)
  each entry matching ip* (rule llm.ip*, named "by ip"): 2 requests per week, in weeks that begin on Thursday at 00:00 UTC
  each key of the entries matching net*, all their values taken together (rule llm.net*): 2 requests per month, in periods of 30 days from 1970-01-01 UTC on, not calendar months
  each value of org (rule llm.org, named org): 1000 requests per year, in periods of 365 days from 1970-01-01 UTC on, not calendar years
  team="a b" under each value of org (rule llm.org.team_a b): no request at all (0 per day)
  each value of free (rule llm.free): unlimited and not counted; replaces org in the same request
  each value of trial (rule llm.trial): 3 requests per day, aligned to the clock's days (UTC); in shadow, so counted and reported but never refused
  each value of share (rule llm.share): 3 requests per day, aligned to the clock's days (UTC); a quota, so refused only if every quota of the request is used up; replaces org, "by ip" and trial in the same request
domain "second one": no rules
`, "\n")
	if got := strings.Join(p.Explain(), "\n") + "\n"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestSuggestions(t *testing.T) {
	for word, want := range map[string]string{
		"ratelimit": "rate_limit", "rate-limit": "rate_limit", "RATE_LIMIT": "rate_limit", "request_per_unit": "requests_per_unit",
		"descriptor": "descriptors", "desciptors": "descriptors", "shadow": "shadow_mode", "vlaue": "value",
		"xyzzy": "", "": "", strings.Repeat("rate_limit", 100): "",
	} {
		if got := nearest(word, sortedKeys); got != want {
			t.Errorf("for %q the suggestion is %q, want %q", word, got, want)
		}
	}
}
