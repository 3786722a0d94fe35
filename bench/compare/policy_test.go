package main

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// A policyFile is as much of a policy as these tests look at.
type policyFile struct {
	Domain      string
	Descriptors []policyRule
}

type policyRule struct {
	Key       string
	RateLimit struct {
		Unit            string
		RequestsPerUnit uint32 `yaml:"requests_per_unit"`
	} `yaml:"rate_limit"`
	Limits []struct {
		Meter, Algorithm, Starts string
	}
	Descriptors []policyRule
}

// readPolicy returns the domain of a file and its descriptors by their keys: "client,path".
func readPolicy(t *testing.T, file string) (domain string, byKeys map[string]policyRule) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var policy policyFile
	if err := yaml.Unmarshal(text, &policy); err != nil {
		t.Fatal(err)
	}
	byKeys = make(map[string]policyRule)
	var collect func(prefix string, rules []policyRule)
	collect = func(prefix string, rules []policyRule) {
		for _, r := range rules {
			byKeys[prefix+r.Key] = r
			collect(prefix+r.Key+",", r.Descriptors)
		}
	}
	collect("", policy.Descriptors)
	return policy.Domain, byKeys
}

// checkAnswers expects of servers what the policy says, so the two must agree.
func TestPlainPolicySaysWhatIsCheckedFor(t *testing.T) {
	domain, got := readPolicy(t, "../policy/plain/policy.yaml")
	if domain != plainDomain {
		t.Errorf("domain %q, want %q", domain, plainDomain)
	}
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

// What the tables call 6 limits of an algorithm are 6 limits of it.
func TestLimitsPolicyHasWhatTheScenariosAreNamedAfter(t *testing.T) {
	domain, got := readPolicy(t, "../policy/limits/policy.yaml")
	if domain != limitsDomain {
		t.Errorf("domain %q, want %q", domain, limitsDomain)
	}
	for _, algorithm := range algorithms {
		want := algorithm
		if algorithm == "first_use" {
			want = "fixed_window first_use"
		}
		for _, count := range limitCounts {
			key := fmt.Sprintf("%s_%d", algorithm, count)
			limits := got[key].Limits
			if len(limits) != count {
				t.Errorf("%s: %d limits", key, len(limits))
			}
			for _, l := range limits {
				is := l.Algorithm
				if l.Starts != "" {
					is += " " + l.Starts
				}
				if is != want {
					t.Errorf("%s: a limit of the algorithm %s", key, is)
				}
			}
		}
	}
	if n := len(got["subject"].Limits); n != limitsPerSubject {
		t.Errorf("%d limits remember a subject, want %d", n, limitsPerSubject)
	}
}

// The policies of the accounts have the limits that the scenarios are named after, and differ by the rows of usage.
func TestAccountsPolicies(t *testing.T) {
	var texts []string
	for _, want := range []string{accountsDomain, rowsDomain} {
		file := "../policy/accounts/" + want + ".yaml"
		domain, got := readPolicy(t, file)
		if domain != want {
			t.Errorf("%s: domain %q", file, domain)
		}
		for _, count := range []int{1, 3} {
			if n := len(got[fmt.Sprintf("account_%d", count)].Limits); n != count {
				t.Errorf("%s: %d limits, want %d", file, n, count)
			}
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(text), "\nanonymous:")
		texts = append(texts, strings.Replace(rest, "\nusage: off\n", "\n", 1))
	}
	if texts[0] != texts[1] {
		t.Errorf("they differ in more than usage:\n%s\n%s", texts[0], texts[1])
	}
}
