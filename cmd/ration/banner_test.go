package main

import (
	"testing"

	"github.com/rationhq/ration/policy"
)

// TestExample: the banner asks for a decision by the rule that it says it does, whatever keys and
// values look like.
func TestExample(t *testing.T) {
	const text = `
domain: d.with.dots
descriptors:
- key: user
  rate_limit: {unit: minute, requests_per_unit: 1}
- key: remote_address
  value: 10.0.0.1
  rate_limit: {unit: minute, requests_per_unit: 1}
  descriptors:
  - key: path
    value: /a_b.html
    rate_limit: {unit: minute, requests_per_unit: 1}
- key: path
  value: /api/*/x_*
  rate_limit: {unit: minute, requests_per_unit: 1}
- key: "any*"
  rate_limit: {unlimited: true}
`
	p, _, err := policy.Parse([]policy.Source{{Name: "p", Data: []byte(text)}}, policy.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range p.Rules() {
		entries := example(p, r)
		if matched, _ := p.Domain(r.Domain).Match(entries, nil); matched.Rule != r {
			t.Errorf("for %s it sends %v, which does not get there", r.Path, entries)
		}
	}
}
