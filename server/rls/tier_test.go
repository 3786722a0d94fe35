package rls

import (
	"testing"

	"github.com/rationhq/ration/engine"
	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/store/memory"
)

// The service behind the proxy is told of the tier of what is admitted, where that is wanted.
func TestRequestHeaders(t *testing.T) {
	p, _, err := policy.Parse([]policy.Source{{Name: "p", Data: []byte(`
domain: shop
tiers: [ { name: free, attributes: { max_output: 10 } } ]
descriptors: [ { key: user, subject: true, limits: [ { name: pace, algorithm: fixed_window, limit: 1/day } ] } ]
`)}}, policy.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for wanted, answers := range map[bool][]string{true: {"ration-tier=free ration-max-output=10 ", ""}, false: {"", ""}} {
		s := memory.New(memory.Options{})
		e := engine.New(s, engine.Options{})
		e.SetPolicy(p)
		service := New(e, Options{RequestHeaders: wanted})
		for n, want := range answers { // the first is admitted, the second is not
			_, got := askJSON(t, service, "user=ann", 0)
			told := ""
			for _, h := range got.GetRequestHeadersToAdd() {
				told += h.GetKey() + "=" + h.GetValue() + " "
			}
			if told != want {
				t.Errorf("wanted %v, request %d: %q, want %q", wanted, n, told, want)
			}
		}
		e.Close()
		_ = s.Close()
	}
}
