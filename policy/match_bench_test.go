package policy

import (
	"fmt"
	"strings"
	"testing"
)

// BenchmarkMatch shows that a match costs the same whatever the number of rules beside the one that
// applies.
func BenchmarkMatch(b *testing.B) {
	for _, kind := range []string{"exact", "wildcard"} {
		for _, with := range []string{"rate_limit", "limits"} {
			for _, rules := range []int{10, 10_000} {
				b.Run(fmt.Sprintf("%s/%s/rules=%d", kind, with, rules), func(b *testing.B) {
					d := mustParse(b, manyRules(rules, kind, with)).Domain("bench")
					var requests [64][]Entry
					for i := range requests {
						requests[i] = []Entry{{"tenant", "acme"}, {"path", fmt.Sprintf("/api/%d/", i*7919%rules)}}
					}
					names := make([]byte, 0, 512)
					b.ReportAllocs()
					for i := 0; b.Loop(); i++ {
						var m Match
						if m, names = d.Match(requests[i%len(requests)], names[:0]); m.Rule == nil && m.Limits == nil {
							b.Fatal("nothing applies")
						}
						for _, l := range m.Limits {
							names = l.AppendBucket(names, &m)
						}
					}
				})
			}
		}
	}
}

// BenchmarkMatchSet does the same for sets of attributes, of which one leads nowhere.
func BenchmarkMatchSet(b *testing.B) {
	for _, rules := range []int{10, 10_000} {
		b.Run(fmt.Sprintf("rules=%d", rules), func(b *testing.B) {
			d := mustParse(b, manyRules(rules, "wildcard", "limits")).Domain("bench")
			var requests [64][]Entry
			for i := range requests {
				requests[i] = []Entry{{"model", "m"}, {"path", fmt.Sprintf("/api/%d/", i*7919%rules)}, {"tenant", "acme"}}
			}
			matches, names := make([]Match, 0, 8), make([]byte, 0, 512)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				var err error
				matches, names, err = d.MatchSet(requests[i%len(requests)], matches[:0], names[:0])
				if err != nil || len(matches) != 2 {
					b.Fatal(len(matches), err)
				}
			}
		})
	}
}

// manyRules returns a policy with n rules on one level.
func manyRules(n int, kind, with string) string {
	var b strings.Builder
	b.WriteString("domain: bench\ndescriptors:\n- key: tenant\n  subject: true\n  descriptors:\n")
	star := ""
	if kind == "wildcard" {
		star = "*"
	}
	says := "rate_limit: {unit: minute, requests_per_unit: 10}"
	if with == "limits" {
		says = "limits: [{name: requests, rate: 10/minute}]"
	}
	for i := range n {
		fmt.Fprintf(&b, "  - {key: path, value: '/api/%d/%s', %s}\n", i, star, says)
	}
	return b.String()
}
