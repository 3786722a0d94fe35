package policy_test

import (
	"testing"

	"github.com/rationhq/ration/policy"
)

func TestParseAmount(t *testing.T) {
	for _, c := range []struct {
		meter policy.Meter
		text  string
		want  int64
		err   string
	}{
		{policy.Tokens, "5_000", 5_000, ""},
		{policy.Requests, " 1.5k ", 1_500, ""},
		{policy.Cost, "$1.50", 1_500_000_000, ""},
		{policy.Cost, "5", 0, "`5` is no money: write it as $5"},
		{policy.OutputTokens, "$5", 0, "`$5` is money, and the limit counts output tokens: leave out the $"},
		{policy.Tokens, "5/month", 0, "`5/month` is no amount: write it as 10, 50_000 or 5M"},
		{policy.Tokens, "", 0, "`` is no amount: write it as 10, 50_000 or 5M"},
		{policy.Cost, "$-5", 0, "`$-5` is no amount: write it as $5 or $0.50"},
	} {
		got, err := c.meter.ParseAmount(c.text)
		said := ""
		if err != nil {
			said = err.Error()
		}
		if got != c.want || said != c.err {
			t.Errorf("%s of %v: %d, %q; want %d, %q", c.text, c.meter, got, said, c.want, c.err)
		}
	}
}

func TestLimitNamed(t *testing.T) {
	p, _, err := policy.Parse([]policy.Source{{Name: "p", Data: []byte(`
domain: d
limits: [ { name: all, algorithm: fixed_window, limit: 5/day } ]
descriptors:
- { key: user, subject: true, limits: [ { name: own, algorithm: fixed_window, limit: 5/day } ], descriptors: [
    { key: model, limits: [ { name: dear, algorithm: fixed_window, limit: 5/day } ] } ] }
- { key: path, limits: [ { name: path, algorithm: fixed_window, limit: 5/day } ] }
`)}}, policy.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for path, ofSubject := range map[string]bool{"d.all": false, "d.user.own": true, "d.user.model.dear": true, "d.path.path": false} {
		if l, near := p.Domain("d").LimitNamed(path); l == nil || l.Path != path || near != "" || l.OfSubject() != ofSubject {
			t.Errorf("%s: %+v, near %q, want one of a subject: %t", path, l, near, ofSubject)
		}
	}
	for path, want := range map[string]string{"d.user.won": "d.user.own", "something.else": ""} {
		if l, near := p.Domain("d").LimitNamed(path); l != nil || near != want {
			t.Errorf("%s: %v, near %q, want %q", path, l, near, want)
		}
	}
}
