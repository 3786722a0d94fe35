package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// A set of attributes meets what stands on every level; of one key, one child for each value.
func TestMatchSet(t *testing.T) {
	d := mustParse(t, `
domain: d
anonymous: unlimited
descriptors:
- key: user
  subject: true
  limits: [{name: own, rate: 1/s}]
  descriptors:
  - {key: model, value: opus-*, limits: [{name: opus, rate: 1/s}]}
  - {key: model, limits: [{name: other, rate: 1/s}]}
- {key: user, value: vip, limits: [{name: vip, rate: 1/s}]}
- key: org
  rate_limit: {unit: day, requests_per_unit: 1}
  descriptors:
  - key: team
    descriptors:
    - {key: user, limits: [{name: member, rate: 1/s}]}
- {key: payer, subject: true}
`).Domain("d")
	for _, c := range []struct {
		set  string
		want []string
	}{
		{"", nil},
		{"nobody=x", nil},
		{"user=alice", []string{"d.user.own of alice"}},
		{"user=vip model=opus-4", []string{"d.user_vip.vip"}},
		{"user=alice model=opus-4", []string{"d.user.own of alice", "d.user.model_opus-*.opus of alice"}},
		{"model=haiku user=alice", []string{"d.user.own of alice", "d.user.model.other of alice"}},
		{"org=acme model=x", []string{"d.org"}},
		{"org=acme user=alice", []string{"d.org", "d.user.own of alice"}},
		{"user=alice team=t org=acme", []string{"d.user.own of alice", "d.org", "d.org.team.user.member"}},
		{"payer=p", []string{" of p"}},
	} {
		matches, _, err := d.MatchSet(entries(c.set), nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, m := range matches {
			of, what := "", ""
			if m.HasSubject {
				of = " of " + m.Subject
			}
			if m.Rule != nil {
				what = m.Rule.Path
			}
			for _, l := range m.Limits {
				what += l.Path
			}
			got = append(got, what+of)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s meets %q, want %q", c.set, got, c.want)
		}
	}
}

// A policy in which any key may follow any other cannot be made to walk for ever.
func TestMatchSetIsBounded(t *testing.T) {
	d := mustParse(t, `
domain: d
descriptors:
- {key: "*", descriptors: [{key: "*", descriptors: [{key: "*", descriptors: [{key: "*", descriptors: [{key: "*", descriptors: [{key: "*"}]}]}]}]}]}
`).Domain("d")
	var set []Entry
	for i := range MaxAttributes {
		set = append(set, Entry{fmt.Sprint("k", i), "v"})
	}
	if _, _, err := d.MatchSet(set[:5], nil, nil); err != nil {
		t.Errorf("5 attributes: %v", err)
	}
	before := []Match{{Subject: "kept"}}
	matches, names, err := d.MatchSet(set, before, []byte("kept"))
	if !errors.Is(err, ErrTooManyMatches) || len(matches) != 1 || string(names) != "kept" {
		t.Errorf("%d attributes: %v, with %d matches and the names %q", len(set), err, len(matches), names)
	}
	plain := mustParse(t, "domain: d\ndescriptors: [{key: k0, limits: [{name: x, rate: 1/s}]}]").Domain("d")
	if matches, _, err := plain.MatchSet(set, nil, nil); err != nil || len(matches) != 1 {
		t.Errorf("%d attributes for one rule: %v, %d matches", len(set), err, len(matches))
	}
	if _, _, err := plain.MatchSet(append(set, Entry{"more", "v"}), nil, nil); !errors.Is(err, ErrTooManyMatches) {
		t.Errorf("%d attributes: %v", len(set)+1, err)
	}
}

// What matches point to stays as it is while further names are appended behind it.
func TestMatchesKeepTheirNames(t *testing.T) {
	d := mustParse(t, `
domain: d
anonymous: unlimited
descriptors:
- key: user
  subject: true
  limits: [{name: own, rate: 1/s}]
  descriptors: [{key: path, limits: [{name: x, rate: 1/s}]}, {key: plain, rate_limit: {unit: day, requests_per_unit: 1}}]
- {key: org, limits: [{name: x, rate: 1/s}]}
`).Domain("d")
	asked := []string{"user=alice", "user=alice path=/1", "user=bob nobody=x", "org=acme", "user=carol plain=1", "user=bob path=/2"}
	for _, room := range []int{0, 20, 1000} {
		names := make([]byte, 0, room)
		var matches []Match
		for _, list := range asked {
			var m Match
			m, names = d.Match(entries(list), names)
			matches = append(matches, m)
		}
		matches, names, err := d.MatchSet(entries("user=eve path=/3 org=acme"), matches, names)
		if err != nil {
			t.Fatal(err)
		}
		_ = append(names, strings.Repeat("x", 100)...)
		var got []string
		for i := range matches {
			a := answerOf(&matches[i])
			if a.limits == nil {
				a.limits = []string{string(matches[i].Owner) + " " + a.counter}
			}
			got = append(got, a.limits...)
		}
		want := []string{
			"d|user=alice own|token_bucket|1s", "d|user=alice path=/1|x|token_bucket|1s", "d|user=bob ",
			"d|org=acme x|token_bucket|1s", "d|user=carol d|user=carol|plain=1|86400s", "d|user=bob path=/2|x|token_bucket|1s",
			"d|user=eve own|token_bucket|1s", "d|user=eve path=/3|x|token_bucket|1s", "d|org=acme x|token_bucket|1s",
		}
		if !slices.Equal(got, want) {
			t.Errorf("with room for %d:\ngot  %q\nwant %q", room, got, want)
		}
	}
}
