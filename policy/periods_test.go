package policy

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/rationhq/ration/limit"
)

// periodsOf is a policy with a limit for each way in which periods may be the subject's.
const periodsOf = `
domain: d
anonymous: deny
tiers: [{name: free}, {name: pro}, {name: max}]
descriptors:
- key: user
  subject: true
  limits:
  - &x {name: none, limit: 5/month, time_zone: Asia/Tokyo, anchor: 7}
  - {<<: *x, name: zone, time_zone: subject, on_store_error: local, local_share: 20%, warn_at: 50%, tiers: {pro: {limit: 9/month}, max: unlimited}}
  - {<<: *x, name: zone-or, time_zone: subject or Europe/Berlin}
  - {<<: *x, name: day, anchor: subject}
  - {<<: *x, name: day-or, anchor: subject or 31}
  - {<<: *x, name: both, time_zone: subject, anchor: subject or 15}
  - {name: year, limit: 5/year, time_zone: subject, anchor: {month: april, day: subject or 6}}
  - {name: week, algorithm: calendar, limit: 5/week, time_zone: subject, week_start: sunday}
  - {name: hour, algorithm: calendar, limit: 5/hour, time_zone: subject}
  - {name: unlimited, algorithm: calendar, time_zone: subject, tiers: {free: unlimited, pro: unlimited, max: {limit: 5/day}}}
`

func zone(t failer, name string) *time.Location {
	z, err := time.LoadLocation(name)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return z
}

// nameOf is the name of the counter of periods, for a subject's own limit.
func nameOf(p *Periods) string { return string(p.AppendBucket(nil, &Match{})) }

// Where the periods of a limit begin is in the name of the counter: the policy's own for subjects who say nothing, or
// nothing else than the policy.
func TestPeriodsOfSubjects(t *testing.T) {
	p := mustParse(t, strings.TrimPrefix(periodsOf, "\n"))
	berlin := zone(t, "Europe/Berlin")
	for _, c := range []struct {
		limit string
		zone  *time.Location
		day   int
		want  string
	}{
		{"none", berlin, 20, "none|calendar|month;Asia/Tokyo;7"},
		{"zone", nil, 0, "zone|calendar|month;UTC;7"},
		{"zone", time.UTC, 20, "zone|calendar|month;UTC;7"},
		{"zone", berlin, 20, "zone|calendar|month;Europe/Berlin;7"},
		{"zone-or", nil, 0, "zone-or|calendar|month;Europe/Berlin;7"},
		{"zone-or", time.UTC, 0, "zone-or|calendar|month;UTC;7"},
		{"zone-or", berlin, 0, "zone-or|calendar|month;Europe/Berlin;7"},
		{"day", berlin, 0, "day|calendar|month;Asia/Tokyo;1"},
		{"day", berlin, 1, "day|calendar|month;Asia/Tokyo;1"},
		{"day", berlin, 31, "day|calendar|month;Asia/Tokyo;31"},
		{"day-or", berlin, 0, "day-or|calendar|month;Asia/Tokyo;31"},
		{"both", nil, 0, "both|calendar|month;UTC;15"},
		{"both", nil, 3, "both|calendar|month;UTC;3"},
		{"both", berlin, 3, "both|calendar|month;Europe/Berlin;3"},
		{"year", berlin, 30, "year|calendar|year;Europe/Berlin;04-30"},
		{"year", nil, 0, "year|calendar|year;UTC;04-06"},
		{"week", berlin, 30, "week|calendar|week;Europe/Berlin;sunday"},
		{"hour", berlin, 30, "hour|calendar|hour;Europe/Berlin"},
		// What is no zone or no day says nothing.
		{"both", time.Local, 32, "both|calendar|month;UTC;15"},
		{"both", time.FixedZone("Mars/Olympus", 1), -1, "both|calendar|month;UTC;15"},
		{"both", time.FixedZone("Mars/Olympus", 1), 3, "both|calendar|month;UTC;3"},
		{"zone-or", time.FixedZone("", 1), 3, "zone-or|calendar|month;Europe/Berlin;7"},
		{"zone-or", time.FixedZone("Local", 1), 3, "zone-or|calendar|month;Europe/Berlin;7"},
		{"zone-or", time.Local, 3, "zone-or|calendar|month;Europe/Berlin;7"},
	} {
		l := p.Limits()[slices.IndexFunc(p.Limits(), func(l *Limit) bool { return l.Name == c.limit })]
		periods := l.PeriodsFor(c.zone, c.day)
		if got := nameOf(periods); got != c.want {
			t.Errorf("%s of %v and %d counts in %s, want %s", c.limit, c.zone, c.day, got, c.want)
		}
		if own := nameOf(&l.Periods) == c.want; own != (periods == &l.Periods) {
			t.Errorf("%s of %v and %d: the same name as the limit's own is %v", c.limit, c.zone, c.day, own)
		}
		if again := l.PeriodsFor(c.zone, c.day); again != periods {
			t.Errorf("%s of %v and %d differs from time to time", c.limit, c.zone, c.day)
		}
	}
}

// All that a tier is allowed stays as it is, but for where the periods begin.
func TestPeriodsKeepQuantities(t *testing.T) {
	p := mustParse(t, strings.TrimPrefix(periodsOf, "\n"))
	l := p.Limits()[1]
	moved := l.PeriodsFor(zone(t, "Asia/Kathmandu"), 0)
	for tier, want := range []string{
		"5 from month;Asia/Kathmandu;7, local 1 from month;Asia/Kathmandu;7, warnings [3]",
		"9 from month;Asia/Kathmandu;7, local 1 from month;Asia/Kathmandu;7, warnings [5]",
		"unlimited",
	} {
		got := "unlimited"
		if q := moved.For(tier); q != nil {
			got = fmt.Sprintf("%d from %v, local %d from %v, warnings %v", q.Spec.Limit, q.Spec.Calendar, q.Local.Limit, q.Local.Calendar, q.Warnings())
			if err := q.Spec.Validate(); err != nil {
				t.Error(err)
			}
		}
		if got != want {
			t.Errorf("tier %d has %s, want %s", tier, got, want)
		}
	}
	if own := l.For(0).Spec.Calendar.String(); own != "month;UTC;7" {
		t.Errorf("the limit's own calendar has become %s", own)
	}
	// Without a share for replicas there is no local calendar.
	if q := p.Limits()[2].PeriodsFor(time.UTC, 0).For(0); q.Local != (limit.Spec{}) {
		t.Errorf("a limit without a local share has %+v", q.Local)
	}
}

func TestPeriodsDoNotAllocate(t *testing.T) {
	p := mustParse(t, strings.TrimPrefix(periodsOf, "\n"))
	none, both := p.Limits()[0], p.Limits()[5]
	berlin := zone(t, "Europe/Berlin")
	both.PeriodsFor(berlin, 3)
	if n := testing.AllocsPerRun(100, func() {
		none.PeriodsFor(berlin, 3)
		both.PeriodsFor(nil, 0)
		both.PeriodsFor(time.UTC, 15)
		both.PeriodsFor(berlin, 3)
	}); n > 0 {
		t.Errorf("%v allocations, want none", n)
	}
}

// However many subjects there are, a limit keeps a bounded number of calendars, and many may ask at once.
func TestPeriodsAreBounded(t *testing.T) {
	p := mustParse(t, strings.TrimPrefix(periodsOf, "\n"))
	l := p.Limits()[5]
	base := l.subjects
	var group sync.WaitGroup
	for worker := range 4 {
		group.Go(func() {
			for i := range maxPeriods/4 + 100 {
				name := fmt.Sprintf("Nowhere/%d", worker*10_000+i) // takes as much room as a real one
				if got := l.PeriodsFor(time.FixedZone(name, 0), 0); got != &l.Periods {
					t.Errorf("%s is a zone", name)
				}
				if got := nameOf(l.PeriodsFor(nil, 1+i%31)); got != fmt.Sprintf("both|calendar|month;UTC;%d", 1+i%31) {
					t.Errorf("day %d counts in %s", 1+i%31, got)
				}
			}
		})
	}
	group.Wait()
	if n := len(base.known); n == 0 || n > maxPeriods {
		t.Errorf("%d are kept, want 1…%d", n, maxPeriods)
	}
}

// Whatever subjects say, two that count in the same counter have the same periods.
func TestPeriodsAreInjective(t *testing.T) {
	p := mustParse(t, strings.TrimPrefix(periodsOf, "\n"))
	zones := []*time.Location{nil}
	for _, name := range []string{"UTC", "Etc/UTC", "Europe/Berlin", "Europe/Paris", "Asia/Tokyo"} {
		zones = append(zones, zone(t, name))
	}
	begins := map[string]string{}
	rapid.Check(t, func(t *rapid.T) {
		l := rapid.SampledFrom(p.Limits()).Draw(t, "limit")
		periods := l.PeriodsFor(rapid.SampledFrom(zones).Draw(t, "zone"), rapid.IntRange(-1, 32).Draw(t, "day"))
		for tier := range 3 {
			q := periods.For(tier)
			if (q == nil) != (l.For(tier) == nil) {
				t.Fatalf("%s is unlimited for tier %d: %v", l.Name, tier, q == nil)
			}
			if q == nil {
				continue
			}
			if err := q.Spec.Validate(); err != nil {
				t.Fatal(err)
			}
			name, is := nameOf(periods), q.Spec.Calendar.String()
			if !strings.HasSuffix(name, "|"+is) {
				t.Fatalf("%s counts from %s", name, is)
			}
			if was := begins[name]; was != "" && was != is {
				t.Fatalf("%s counts from %s, and from %s", name, was, is)
			}
			begins[name] = is
		}
	})
}

func TestSubjectPeriodsInWords(t *testing.T) {
	p := mustParse(t, strings.TrimPrefix(periodsOf, "\n"))
	for i, want := range map[int]string{
		2: "5 requests per calendar month (the subject's time zone, else Europe/Berlin), from day 7 on",
		3: "5 requests per calendar month (Asia/Tokyo), from the subject's billing day on, else day 1",
		5: "5 requests per calendar month (the subject's time zone, else UTC), from the subject's billing day on, else day 15",
		6: "5 requests per calendar year (the subject's time zone, else UTC), from the subject's billing day in April on, else April 6",
		7: "5 requests per calendar week (the subject's time zone, else UTC), from Sunday on",
	} {
		if got := p.Limits()[i].Allows(0); got != want {
			t.Errorf("%s allows %q, want %q", p.Limits()[i].Name, got, want)
		}
	}
	if explained := strings.Join(p.Explain(), "\n"); !strings.Contains(explained, "limit d.user.zone), by tier; a warning is due at 50%; ") {
		t.Errorf("the warning is not in\n%s", explained)
	}
}

func TestSubjectPeriodProblems(t *testing.T) {
	for _, c := range []struct{ entry, want string }{
		{"limit: 5/month, time_zone: subject or Mars/Olympus", "´Mars/Olympus´ is no time zone: write its name in the IANA database, such as Europe/Berlin, or UTC"},
		{"limit: 5/month, time_zone: subject or subject", "´subject´ is no time zone: write its name in the IANA database, such as Europe/Berlin, or UTC"},
		{"limit: 5/month, anchor: subject or 32", "´anchor´: ´32´ is no day of a month, 1…31"},
		{"limit: 5/month, anchor: subject or subject", "´anchor´: ´subject´ is no day of a month, 1…31"},
		{"limit: 5/month, anchor: {day: subject, month: 4}", "limit ´x´: a month has no month to begin in: write the day alone"},
		{"limit: 5/year, anchor: {day: subject or 31, month: 4}", "limit ´x´: April has no day 31"},
		{"limit: 5/week, algorithm: calendar, anchor: subject", "limit ´x´: an ´anchor´ is only for limits per month or year"},
		{"limit: 5/day, algorithm: fixed_window, anchor: subject", "limit ´x´: ´anchor´ is only for the algorithm calendar"},
		{"limit: 5/day, algorithm: fixed_window, time_zone: subject", "limit ´x´: ´time_zone´ is only for the algorithm calendar"},
	} {
		_, failures, _ := parse(t, "domain: d\nanonymous: deny\ndescriptors: [{key: u, subject: true, limits: [{name: x, "+c.entry+"}]}]", Options{})
		if _, message, _ := strings.Cut(failures, ": "); message != expected(c.want)+"\n" {
			t.Errorf("%s: got\n%swant\n%s", c.entry, failures, expected(c.want))
		}
	}
	_, failures, _ := parse(t, `
domain: d
limits: [{name: a, limit: 5/month, time_zone: subject}]
descriptors: [{key: org, limits: [{name: b, limit: 5/month, anchor: subject or 3}]}]
upstreams: [{name: u, models: m, limits: [{name: c, limit: 5/year, time_zone: subject or UTC, anchor: {day: subject}}]}]
subjects: {alice: {anchor: 32}, bob: {anchor: subject}}
`[1:], Options{})
	want := expected(`
policy.yaml:2:47: limit ´a´: the subject's ´time_zone´ needs one: set ´subject: true´ on the descriptor of those who pay, or write here what counts for all
policy.yaml:3:69: limit ´b´: the subject's ´anchor´ needs one: set ´subject: true´ on the descriptor of those who pay, or write here what counts for all
policy.yaml:4:79: limit ´c´: the subject's ´time_zone´ needs one: set ´subject: true´ on the descriptor of those who pay, or write here what counts for all
policy.yaml:4:103: limit ´c´: the subject's ´anchor´ needs one: set ´subject: true´ on the descriptor of those who pay, or write here what counts for all
policy.yaml:5:28: ´anchor´: ´32´ is no day of a month, 1…31
policy.yaml:5:47: ´anchor´: ´subject´ is no day of a month, 1…31
`)
	if failures != want {
		t.Errorf("got\n%swant\n%s", failures, want)
	}
}

// A subject of the policy's own list may have a billing day.
func TestSubjectAnchor(t *testing.T) {
	p := mustParse(t, "domain: d\nanonymous: deny\ndescriptors: [{key: u, subject: true}]\nsubjects: {alice: {anchor: 31}, bob: {}}")
	alice, _ := p.Domain("d").SubjectNamed("alice")
	bob, _ := p.Domain("d").SubjectNamed("bob")
	if alice.Anchor != 31 || bob.Anchor != 0 {
		t.Errorf("alice has day %d and bob %d", alice.Anchor, bob.Anchor)
	}
}
