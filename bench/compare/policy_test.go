package main

import (
	"os"
	"testing"

	"go.yaml.in/yaml/v3"
)

// checkAnswers expects of servers what the policy says, so the two must agree.
func TestPolicySaysWhatIsCheckedFor(t *testing.T) {
	type rule struct {
		Key       string
		RateLimit struct {
			Unit            string
			RequestsPerUnit uint32 `yaml:"requests_per_unit"`
		} `yaml:"rate_limit"`
		Descriptors []rule
	}
	var policy struct {
		Domain      string
		Descriptors []rule
	}
	text, err := os.ReadFile("../policy/policy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, &policy); err != nil {
		t.Fatal(err)
	}
	if policy.Domain != policyDomain {
		t.Errorf("domain %q, want %q", policy.Domain, policyDomain)
	}
	got := make(map[string]rule)
	var collect func(prefix string, rules []rule)
	collect = func(prefix string, rules []rule) {
		for _, r := range rules {
			got[prefix+r.Key] = r
			collect(prefix+r.Key+",", r.Descriptors)
		}
	}
	collect("", policy.Descriptors)
	for key, want := range map[string]struct {
		unit  string
		limit uint32
	}{
		"client": {"hour", highLimit}, "client,path": {"hour", highLimit}, "tenant": {"hour", highLimit},
		"probe": {"day", probeLimit},
	} {
		if limit := got[key].RateLimit; limit.Unit != want.unit || limit.RequestsPerUnit != want.limit {
			t.Errorf("%s: %d per %s, want %d per %s", key, limit.RequestsPerUnit, limit.Unit, want.limit, want.unit)
		}
	}
}
