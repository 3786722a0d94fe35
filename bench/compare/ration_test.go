package main

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// buildRation builds the contestant that all suites are for.
func buildRation(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "ration")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "../../cmd/ration")
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	return binary
}

// Ration itself plays every suite, a few scenarios of each as briefly as possible: its policies are what it takes, its
// answers pass the examination, and everything is measured.
func TestRationPlaysEverySuite(t *testing.T) {
	contestants, err := gather(nil, nil, []string{"ration-memory", "ration-rules"})
	if err != nil {
		t.Fatal(err)
	}
	scenarios, err := choice{names: []string{"closed-16x3", "*-16x6", "account*-16x3", "lane-*-64", "rules-16x10000"}}.scenarios()
	if err != nil {
		t.Fatal(err)
	}
	rulesPolicy, err := writeRules(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	var policies [2]string
	for i, name := range []string{"plain", "limits"} {
		if policies[i], err = filepath.Abs("../policy/" + name + "/policy.yaml"); err != nil {
			t.Fatal(err)
		}
	}
	accountsPolicy, err := filepath.Abs("../policy/accounts")
	if err != nil {
		t.Fatal(err)
	}
	lanesPolicy, err := filepath.Abs("../policy/lanes/policy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	comparison := &comparison{
		launcher: launcher{
			binaries: map[string]string{"ration": buildRation(t)}, policy: policies[0], limitsPolicy: policies[1],
			accountsPolicy: accountsPolicy, lanesPolicy: lanesPolicy, rulesPolicy: rulesPolicy, dir: t.TempDir(), connections: 2,
		},
		contestants: contestants, scenarios: scenarios, progress: &bytes.Buffer{},
		pace: pace{Rounds: 1, Warmup: time.Millisecond, Duration: 40 * time.Millisecond, Keys: 500, Subjects: 20_000, Waiters: 20},
	}
	if err := comparison.play(t.Context()); err != nil {
		t.Fatal(err)
	}
	results := results(comparison.runs)
	for _, s := range scenarios {
		name := "ration-memory"
		if s.Suite == rules {
			name = "ration-rules"
		}
		if results.ratio(s.Name, name, floorName, throughput).N != 1 {
			t.Errorf("%s: not measured beside the floor", s.Name)
		}
	}
	if w := comparison.wakings; len(w) != 1 || w[0].Turns != 6 || w[0].SinceSent.P99 <= 0 {
		t.Errorf("turns after the end of a call: %+v", w)
	}
	if c := comparison.crowds; len(c) != 2 || c[0].Turns != 0 || c[1].Turns <= 0 {
		t.Errorf("those who wait: %+v, want none to have a turn in one lane, and some in the other", c)
	}
	if len(comparison.footprints) != 1 {
		t.Fatalf("memory of %d contestants, want that of ration-memory", len(comparison.footprints))
	}
	if f := comparison.footprints[0]; f.After.Resident <= 0 || f.perSubject() <= 0 || f.Took <= 0 {
		t.Errorf("memory: %+v", f)
	}
}

// A mistake in a policy is found here, rather than by whoever measures.
func TestPoliciesAreWithoutMistakes(t *testing.T) {
	rulesPolicy, err := writeRules(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	check := exec.CommandContext(t.Context(), buildRation(t), "check", "--strict",
		"../policy/plain/policy.yaml", "../policy/limits/policy.yaml", "../policy/accounts", "../policy/lanes/policy.yaml", rulesPolicy)
	if output, err := check.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, output)
	}
}
