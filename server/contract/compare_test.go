package contract

import (
	"strings"
	"testing"
	"time"

	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/types/known/durationpb"
)

// Every line is an answer and something that differs from it in one point.
func TestCompareNamesEveryDifference(t *testing.T) {
	// 12:00:10 on a day in UTC: 43190 seconds of the day are left.
	noon := time.Date(2026, 1, 2, 12, 0, 10, 0, time.UTC)
	when := &span{from: noon, to: noon}
	for _, c := range []struct{ want, got, diff string }{
		{"{code: OK}", "{code: OK}", ""},
		{"{code: OK}", "{code: OVER_LIMIT}", "code: want OK, got OVER_LIMIT"},
		{"{left: 2}", "{left: 1}", "left: want 2, got 1"},
		{"{left: 2}", `{left: "2"}`, `left: want 2, got "2"`},
		{"{left: 2}", "{}", "left: want 2, got nothing"},
		{"{}", "{left: 2}", "left: want nothing, got 2"},
		{"{list: [a, b]}", "{list: [a]}", "list: want [a, b], got [a]"},
		{"{list: [a, b]}", "{list: [a, c]}", "list[1]: want b, got c"},
		{"{reset: rest of DAY}", "{reset: 43190s}", ""},
		{"{reset: rest of DAY}", `{reset: "43190"}`, ""},
		{"{reset: rest of DAY}", "{reset: 43189s}", ""},
		{"{reset: rest of DAY}", "{reset: 43188s}", "reset: want rest of DAY, got 43188s"},
		{"{reset: rest of DAY}", "{reset: 43190.500000000s}", "reset: want rest of DAY, got 43190.500000000s"},
		{"{reset: rest of 10 MINUTE}", "{reset: 590s}", ""},
		{"{reset: rest of SECOND}", "{reset: 1s}", ""},
		{"{reset: rest of SECOND}", "{reset: 0s}", "reset: want rest of SECOND, got 0s"},
		{"{text: <text>}", "{text: anything}", ""},
		{"{text: <text>}", "{text: 5}", "text: want <text>, got 5"},
		{"{error: {code: UNKNOWN}}", "{error: {code: UNKNOWN, message: any}}", ""},
		{"{error: {code: UNKNOWN}}", "{error: {code: INTERNAL, message: any}}", "error.code: want UNKNOWN, got INTERNAL"},
		{"{error: {code: UNKNOWN, message: a}}", "{error: {code: UNKNOWN, message: b}}", "error.message: want a, got b"},
	} {
		diff := strings.Join(compare(parse(t, c.want), parse(t, c.got), when), "; ")
		if diff != c.diff {
			t.Errorf("compare(%s, %s) = %q, want %q", c.want, c.got, diff, c.diff)
		}
	}
}

func TestWindowsEndWhereTheEpochPutsThem(t *testing.T) {
	// A Thursday in UTC begins a week; the month of 30 days and the year of 365 begin at multiples of them.
	thursday := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	when := &span{from: thursday, to: thursday}
	for unit, left := range map[string]int64{
		"SECOND": 1, "MINUTE": 60, "HOUR": 3600, "DAY": 86400, "WEEK": 604800,
		"MONTH": 2592000 - 20454%30*86400, "YEAR": 31536000 - 20454%365*86400,
	} {
		if !when.isRest(unitSeconds(unit), left) {
			t.Errorf("%s: %d seconds are not the rest of the window", unit, left)
		}
		if when.isRest(unitSeconds(unit), left-10) {
			t.Errorf("%s: %d seconds count as the rest of the window", unit, left-10)
		}
	}
}

// What is recorded reads back as the same answer, and is what stands in the files.
func TestRecordedAnswersReadBack(t *testing.T) {
	now := time.Now()
	when := &span{from: now, to: now}
	day := unitSeconds("DAY")
	reset := durationpb.New(time.Duration(day-now.Unix()%day) * time.Second)
	got, err := responseTree(&rlsv3.RateLimitResponse{
		OverallCode: rlsv3.RateLimitResponse_OK,
		Statuses: []*rlsv3.RateLimitResponse_DescriptorStatus{
			{Code: rlsv3.RateLimitResponse_OK},
			{
				Code: rlsv3.RateLimitResponse_OK, LimitRemaining: 2, DurationUntilReset: reset,
				CurrentLimit: &rlsv3.RateLimitResponse_RateLimit{
					Name: "a name", RequestsPerUnit: 3, Unit: rlsv3.RateLimitResponse_RateLimit_DAY,
				},
			},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	text, err := notation("answer", timeless(got, when), 4)
	if err != nil {
		t.Fatal(err)
	}
	const want = `
      overall_code: OK
      statuses:
      - {code: OK}
      - {code: OK, current_limit: 3 per DAY named a name, limit_remaining: 2, duration_until_reset: rest of DAY}
`
	if text != want {
		t.Errorf("notation:%s\nwant:%s", text, want)
	}
	if diff := compare(parse(t, text), parse(t, want), nil); len(diff) > 0 {
		t.Error(diff)
	}
}

func TestEditsTouchOneKeyAndNothingElse(t *testing.T) {
	const before = `cases:
# A comment stays.
- name: first
  steps:
  - request: {domain: a}
    answer:
      overall_code: OK

  # So does this one.
  - files:
      a: |
        text

        more
    ration: loaded
- name: second
  steps:
  - request: {domain: b}
`
	const after = `cases:
# A comment stays.
- name: first
  steps:
  - request: {domain: a}
    answer: new

  # So does this one.
  - files:
      a: |
        text

        more
    reference: unseen
    ration: loaded
- name: second
  steps:
  - request: {domain: b}
    answer: newer
`
	f, err := parseFile("x.yaml", []byte(before))
	if err != nil {
		t.Fatal(err)
	}
	first, second := f.Cases[0].Steps, f.Cases[1].Steps
	got := applyEdits(before, []edit{
		{first[0].node, "answer", " new\n"},
		{first[1].node, "reference", " unseen\n"},
		{second[0].node, "answer", " newer\n"},
	})
	if got != after {
		t.Errorf("got:\n%s\nwant:\n%s", got, after)
	}
}

// A mistake in a case file is found when it is loaded, not by a case that passes for the wrong reason.
func TestLoadRefusesWhatItDoesNotUnderstand(t *testing.T) {
	for text, want := range map[string]string{
		"cases:\n- name: a\n  steps:\n  - request: {domain: a, hits: 1}\n":               `unknown key "hits"`,
		"cases:\n- name: a\n  step: []\n":                                                `unknown key "step"`,
		"cases:\n- name: a\n  steps:\n  - {health: a, process: start}\n":                 "does 2 things",
		"cases:\n- name: a\n  steps:\n  - {health: a, ration: SERVING}\n":                "must say why",
		"cases:\n- {name: a, steps: [{health: a}]}\n- {name: a, steps: [{health: a}]}\n": "the name is taken",
		"cases:\n- name: a\n  files: {a: 'domain: x'}\n  steps: [{health: a}]\n" +
			"- name: b\n  files: {a: 'domain: x'}\n  steps: [{health: a}]\n": `domain "x" belongs to "a"`,
		"cases:\n- name: a\n  steps:\n  - request: {domain: a, descriptors: [{entries: [a]}]}\n": "one key and one value",
	} {
		f, err := parseFile("x.yaml", []byte(text))
		if err == nil {
			err = validate([]*File{f})
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q, for:\n%s", err, want, text)
		}
	}
}

func parse(t *testing.T, text string) any {
	t.Helper()
	var n yaml.Node
	if err := yaml.Unmarshal([]byte(text), &n); err != nil {
		t.Fatal(err)
	}
	v, err := tree(n.Content[0])
	if err != nil {
		t.Fatal(err)
	}
	return v
}
