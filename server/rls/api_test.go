package rls

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/rationhq/ration/engine"
	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/store/memory"
)

// A request that names an API is answered in that API's form, whatever the options of the service are: no field is
// written twice, and none by two writers.
func TestAnswersOfAPIs(t *testing.T) {
	p, _, err := policy.Parse([]policy.Source{{Name: "p", Data: []byte(`
domain: shop
descriptors: [ { key: user, limits: [ { name: pace, algorithm: fixed_window, limit: 1/day } ] } ]
`)}}, policy.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for name, options := range map[string]Options{
		"by default": {}, "with all there is": {Headers: DefaultHeaders, Body: true, Metadata: true},
	} {
		t.Run(name, func(t *testing.T) {
			s := memory.New(memory.Options{})
			defer s.Close()
			e := engine.New(s, engine.Options{})
			defer e.Close()
			e.SetPolicy(p)
			service := New(e, options)
			for _, c := range []struct {
				entries, headers, body string
				code                   int
			}{
				{
					"user=ann ration.api=anthropic", "anthropic-ratelimit-requests-limit anthropic-ratelimit-requests-remaining " +
						"anthropic-ratelimit-requests-reset ratelimit ratelimit-policy", "", http.StatusOK,
				},
				{
					"user=ann ration.api=anthropic ration.request=x", "anthropic-ratelimit-requests-limit anthropic-ratelimit-requests-remaining " +
						"anthropic-ratelimit-requests-reset content-type ratelimit ratelimit-policy request-id retry-after retry-after-ms x-should-retry",
					`"request_id":"x"`, http.StatusTooManyRequests,
				},
				{
					"user=ann ration.api=openai", "content-type ratelimit ratelimit-policy retry-after retry-after-ms " +
						"x-ratelimit-limit-requests x-ratelimit-remaining-requests x-ratelimit-reset-requests x-should-retry",
					`"code":"insufficient_quota"`, http.StatusTooManyRequests,
				},
			} {
				code, got := askJSON(t, service, c.entries, 0)
				var names []string
				for _, h := range got.GetResponseHeadersToAdd() {
					names = append(names, strings.ToLower(h.GetKey()))
				}
				slices.Sort(names)
				if said := strings.Join(names, " "); said != c.headers || code != c.code {
					t.Errorf("%s: %d with the fields\n%s, want\n%s", c.entries, code, said, c.headers)
				}
				if body := string(got.GetRawBody()); !strings.Contains(body, c.body) || (body == "") != (c.body == "") {
					t.Errorf("%s: the body is %s, want %s", c.entries, body, c.body)
				}
			}
		})
	}
}
