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
		for _, rules := range []int{10, 10_000} {
			b.Run(fmt.Sprintf("%s/rules=%d", kind, rules), func(b *testing.B) {
				d := mustParse(b, manyRules(rules, kind == "wildcard")).Domain("bench")
				var requests [64][]Entry
				for i := range requests {
					requests[i] = []Entry{{"tenant", "acme"}, {"path", fmt.Sprintf("/api/%d/", i*7919%rules)}}
				}
				bucket := make([]byte, 0, 256)
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					var rule *Rule
					if rule, bucket = d.Match(requests[i%len(requests)], bucket[:0]); rule == nil {
						b.Fatal("no rule")
					}
				}
			})
		}
	}
}

// manyRules returns a policy with n rules on one level.
func manyRules(n int, wild bool) string {
	var b strings.Builder
	b.WriteString("domain: bench\ndescriptors:\n- key: tenant\n  descriptors:\n")
	star := ""
	if wild {
		star = "*"
	}
	for i := range n {
		fmt.Fprintf(&b, "  - {key: path, value: '/api/%d/%s', rate_limit: {unit: minute, requests_per_unit: 10}}\n", i, star)
	}
	return b.String()
}
