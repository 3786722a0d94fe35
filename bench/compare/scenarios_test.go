package main

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func chosen(t *testing.T, c choice) string {
	t.Helper()
	scenarios, err := c.scenarios()
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, s := range scenarios {
		all = append(all, s.Name)
	}
	return strings.Join(all, " ")
}

func TestScenariosAreChosenByNameAndSuite(t *testing.T) {
	tests := []struct {
		choice choice
		want   string
	}{
		{choice{quick: true, suites: []suite{plain}}, "closed-16x1 closed-128x1 closed-16x3 open-half-own"},
		{choice{names: []string{"hot-16x1", "closed-1x1"}}, "closed-1x1 hot-16x1"},
		{choice{names: []string{"open-half-floor"}}, "closed-128x1 open-half-floor"}, // whose rate comes from the other
		{choice{names: []string{"calendar-16x*", "reserve-*"}},
			"calendar-16x1 calendar-16x3 calendar-16x6 reserve-16x6 reserve-128x6"},
		{choice{names: []string{"*-16x6"}, suites: []suite{limits}, quick: true},
			"token_bucket-16x6 sliding_window-16x6 sliding_log-16x6 fixed_window-16x6 first_use-16x6 calendar-16x6 " +
				"concurrency-16x6 reserve-16x6"},
		{choice{quick: true, suites: []suite{accounts}}, "account-128x1 account-128x3 account-rows-128x1 account-rows-128x3"},
		{choice{suites: []suite{rules}}, "rules-16x10 rules-16x10000 rules-128x10 rules-128x10000"},
		{choice{suites: []suite{memory}}, ""},
	}
	for _, test := range tests {
		if got := chosen(t, test.choice); got != test.want {
			t.Errorf("%+v: got %s, want %s", test.choice, got, test.want)
		}
	}
	for want, choice := range map[string]choice{
		"there are closed-1x1,":               {names: []string{"closed"}},
		"there are rules-16x10,":              {names: []string{"closed-*"}, suites: []suite{rules}},
		"syntax error":                        {names: []string{"closed-["}},
		`no suite is named "fast"; there are`: {suites: []suite{"fast"}},
	} {
		if _, err := choice.scenarios(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: got %v, want an error with %q", choice, err, want)
		}
	}
}

func TestMemoryIsMeasuredUnlessSomethingElseIsAskedFor(t *testing.T) {
	for _, test := range []struct {
		choice choice
		want   bool
	}{
		{choice{}, true}, {choice{quick: true}, true}, {choice{suites: []suite{memory}}, true},
		{choice{suites: []suite{limits}}, false}, {choice{names: []string{"closed-1x1"}}, false},
	} {
		if got := test.choice.memory(); got != test.want {
			t.Errorf("%+v: got %t, want %t", test.choice, got, test.want)
		}
	}
}

// The README says how long a full comparison takes, and that nobody has to choose between scenarios of one name.
func TestFullComparisonIsDoneInTime(t *testing.T) {
	scenarios := allScenarios()
	seen := make(map[string]bool)
	for _, s := range scenarios {
		if seen[s.Name] {
			t.Errorf("two scenarios are named %s", s.Name)
		}
		seen[s.Name] = true
	}
	contestants, err := gather(nil, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if took := (options{}).pace().estimate(scenarios, contestants); took < 8*time.Minute || took > 14*time.Minute {
		t.Errorf("%v of load", took)
	}
	suites := slices.Clone(allSuites)
	for _, s := range scenarios {
		suites = slices.DeleteFunc(suites, func(other suite) bool { return other == s.Suite })
	}
	if !slices.Equal(suites, []suite{memory}) {
		t.Errorf("no scenarios of %v", suites)
	}
}

func TestOnlyThoseWhoCanTakePart(t *testing.T) {
	able := contestant{Name: "able", Suites: []suite{limits}}
	unable := contestant{Name: "unable"}
	bottom := contestant{Name: floorName, Suites: []suite{plain, limits, rules}}
	all := comparison{contestants: []contestant{bottom, able, unable}}
	for _, test := range []struct {
		who  contestant
		in   suite
		want bool
	}{
		{able, limits, true}, {able, plain, false}, {unable, plain, true}, {unable, limits, false},
		{bottom, plain, true}, {bottom, limits, true},
		{bottom, rules, false}, // with nobody to compare it with
	} {
		if got := all.plays(test.who, scenario{Suite: test.in}); got != test.want {
			t.Errorf("%s in %s: got %t, want %t", test.who.Name, test.in, got, test.want)
		}
	}
	if alone := (&comparison{contestants: []contestant{bottom}}); !alone.plays(bottom, scenario{Suite: rules}) {
		t.Error("the floor alone is not measured")
	}
}
