package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// scenario is a policy, a sequence of calls, and the answers that are due: the same at every door and with every store.
// notation_test.go explains how calls and answers are written.
type scenario struct {
	name   string
	flags  []string // of ration
	policy string   // its domain must differ from that of all other scenarios; `---` separates files
	quota  bool     // whether the limits are quotas
	direct bool     // whether Envoy has no way to send these calls
	steps  []step
}

type step struct {
	ask   string
	want  string
	times int // how often, if more than once; want is the last answer, and the others pass or refuse like it
}

// scenarios of the plain rules. Those that envoyproxy/ratelimit's documentation and examples show bear the names that
// they have there.
var scenarios = []scenario{
	{
		name: "limited after N",
		policy: `
domain: limited
descriptors:
- key: user
  rate_limit: { unit: day, requests_per_unit: 3 }`,
		steps: []step{
			{ask: "user=ann", want: "pass: 2 of 3/DAY"},
			{ask: "user=ann", want: "pass: 1 of 3/DAY"},
			{ask: "user=ann", want: "pass: 0 of 3/DAY"},
			{ask: "user=ann", want: "refuse: over 3/DAY"},
			{ask: "user=bob", want: "pass: 2 of 3/DAY"},
			{ask: "user=ann", want: "refuse: over 3/DAY"},
		},
	},
	{
		name: "no limit applies",
		policy: `
domain: unlimited
descriptors:
- key: free
- key: user
  value: ann
  rate_limit: { unit: day, requests_per_unit: 1 }`,
		steps: []step{
			{ask: "elsewhere: user=ann", want: "pass: -", times: 3}, // an unknown domain
			{ask: "stranger=ann", want: "pass: -", times: 3},
			{ask: "free=x", want: "pass: -", times: 3}, // a rule without a limit
			{ask: "user=bob", want: "pass: -", times: 3},
			{ask: "user=ann; user=bob; free=x", want: "pass: 0 of 1/DAY; -; -"},
		},
	},
	{
		name: "every unit",
		policy: `
domain: units
descriptors:
- { key: per, value: second, rate_limit: { unit: second, requests_per_unit: 1000 } }
- { key: per, value: minute, rate_limit: { unit: Minute, requests_per_unit: 1000 } }
- { key: per, value: hour, rate_limit: { unit: HOUR, requests_per_unit: 1000 } }
- { key: per, value: day, rate_limit: { unit: day, requests_per_unit: 1000 } }
- { key: per, value: week, rate_limit: { unit: week, requests_per_unit: 1000 } }
- { key: per, value: month, rate_limit: { unit: month, requests_per_unit: 1000 } }
- { key: per, value: year, rate_limit: { unit: year, requests_per_unit: 1000 } }`,
		steps: []step{
			{ask: "per=second", want: "pass: 999 of 1000/SECOND"},
			{ask: "per=minute", want: "pass: 999 of 1000/MINUTE"},
			{ask: "per=hour", want: "pass: 999 of 1000/HOUR"},
			{ask: "per=day", want: "pass: 999 of 1000/DAY"},
			{ask: "per=week", want: "pass: 999 of 1000/WEEK"},
			{ask: "per=month", want: "pass: 999 of 1000/MONTH"},
			{ask: "per=year", want: "pass: 999 of 1000/YEAR"},
		},
	},
	{
		name: "README example 1: two values of a key",
		policy: `
domain: example-1
descriptors:
- { key: table, value: orders, rate_limit: { unit: second, requests_per_unit: 500 } }
- { key: table, value: others, rate_limit: { unit: second, requests_per_unit: 200 } }`,
		steps: []step{ // whole windows at once: a second may pass between two steps
			{ask: "table=orders hits 500", want: "pass: 0 of 500/SECOND"},
			{ask: "table=others hits 201", want: "refuse: over 200/SECOND"},
			{ask: "table=unknown hits 900", want: "pass: -"},
		},
	},
	{
		name: "README example 2: nested rules, and two descriptors in one call",
		policy: `
domain: example-2
descriptors:
- key: kind
  value: newsletter
  descriptors:
  - key: recipient
    rate_limit: { unit: day, requests_per_unit: 2 }
- key: recipient
  rate_limit: { unit: day, requests_per_unit: 4 }`,
		steps: []step{
			{ask: "kind=newsletter, recipient=7; recipient=7", want: "pass: 1 of 2/DAY; 3 of 4/DAY"},
			{ask: "kind=newsletter, recipient=7; recipient=7", want: "pass: 0 of 2/DAY; 2 of 4/DAY"},
			{ask: "kind=newsletter, recipient=8; recipient=8", want: "pass: 1 of 2/DAY; 3 of 4/DAY"},
			// Refused by one, and charged to the other all the same.
			{ask: "kind=newsletter, recipient=7; recipient=7", want: "refuse: over 2/DAY; 1 of 4/DAY"},
			{ask: "kind=invoice, recipient=7; recipient=7", want: "pass: -; 0 of 4/DAY"},
			{ask: "recipient=7", want: "refuse: over 4/DAY"},
		},
	},
	{
		name: "README example 3: the most specific rule, and a limit of 0",
		policy: `
domain: example-3
descriptors:
- key: remote_address
  rate_limit: { unit: second, requests_per_unit: 10 }
- key: remote_address
  value: 192.0.2.5
  rate_limit: { unit: second, requests_per_unit: 0 }`,
		steps: []step{
			{ask: "remote_address=192.0.2.1 hits 10", want: "pass: 0 of 10/SECOND"},
			{ask: "remote_address=192.0.2.2 hits 11", want: "refuse: over 10/SECOND"},
			{ask: "remote_address=192.0.2.5 hits 0", want: "pass: 0 of 0/SECOND"}, // a check asks for nothing
			{ask: "remote_address=192.0.2.5", want: "refuse: over 0/SECOND"},
		},
	},
	{
		name: "README example 4: as many entries as levels",
		policy: `
domain: example-4
descriptors:
- key: shallow
  value: x
  rate_limit: { unit: day, requests_per_unit: 300 }
- key: deep
  value: x
  descriptors:
  - key: below
    rate_limit: { unit: day, requests_per_unit: 300 }`,
		steps: []step{
			{ask: "shallow=x, below=y", want: "pass: -"},
			{ask: "shallow=x", want: "pass: 299 of 300/DAY"},
			{ask: "deep=x, below=y", want: "pass: 299 of 300/DAY"},
			{ask: "deep=x", want: "pass: -"},
		},
	},
	{
		name: "README example 5: unlimited",
		policy: `
domain: example-5
descriptors:
- key: directory
  rate_limit: { unlimited: true }
- key: cloud
  rate_limit: { unit: day, requests_per_unit: 1 }`,
		steps: []step{
			{ask: "directory=x", want: "pass: unlimited", times: 5},
			{ask: "directory=x; cloud=x", want: "pass: unlimited; 0 of 1/DAY"},
			{ask: "directory=x; cloud=x", want: "refuse: unlimited; over 1/DAY"},
		},
	},
	{
		name: "README example 6: shadow_mode",
		policy: `
domain: example-6
descriptors:
- key: service
  descriptors:
  - key: user
    value: ann
    rate_limit: { unit: day, requests_per_unit: 1 }
    shadow_mode: true
  - key: user
    value: bob
    rate_limit: { unit: day, requests_per_unit: 2 }`,
		steps: []step{
			{ask: "service=login, user=ann", want: "pass: 0 of 1/DAY", times: 4},
			{ask: "service=login, user=bob hits 2", want: "pass: 0 of 2/DAY"},
			{ask: "service=login, user=ann; service=login, user=bob", want: "refuse: 0 of 1/DAY; over 2/DAY"},
		},
	},
	{
		name: "README example 7: replaces",
		policy: `
domain: example-7
descriptors:
- key: plan
  value: basic
  descriptors:
  - key: user
    rate_limit: { name: basic, unit: day, requests_per_unit: 1 }
- key: campaign
  value: summer
  descriptors:
  - key: user
    rate_limit: { replaces: [{ name: basic }], unit: day, requests_per_unit: 3 }`,
		steps: []step{
			{ask: "plan=basic, user=ann", want: "pass: 0 of 1/DAY (basic)"},
			{ask: "plan=basic, user=ann; campaign=summer, user=ann", want: "pass: -; 2 of 3/DAY"},
			{ask: "campaign=summer, user=ann; plan=basic, user=ann", want: "pass: 1 of 3/DAY; -"},
			{ask: "plan=basic, user=ann", want: "refuse: over 1/DAY (basic)"},
			{ask: "campaign=summer, user=ann; plan=basic, user=ann hits 9", want: "pass: 0 of 3/DAY; -"},
			{ask: "campaign=summer, user=ann; plan=basic, user=ann", want: "refuse: over 3/DAY; -"},
		},
	},
	{
		name: "README example 8: detailed_metric changes no answer",
		policy: `
domain: example-8
descriptors:
- key: region
  detailed_metric: true
  rate_limit: { unit: day, requests_per_unit: 1 }
- key: region
  value: north
  rate_limit: { unit: day, requests_per_unit: 2 }`,
		steps: []step{
			{ask: "region=south", want: "pass: 0 of 1/DAY"},
			{ask: "region=west", want: "pass: 0 of 1/DAY"},
			{ask: "region=north", want: "pass: 1 of 2/DAY"},
			{ask: "region=south", want: "refuse: over 1/DAY"},
		},
	},
	{
		name: "README example 9: wildcards, each value for itself",
		policy: `
domain: example-9
descriptors:
- { key: name, value: "temp*", rate_limit: { unit: day, requests_per_unit: 1 } }
- { key: path, value: "/v1/*/edit", rate_limit: { unit: day, requests_per_unit: 1 } }
- { key: route, value: "/v1/*/item/*/edit", rate_limit: { unit: day, requests_per_unit: 1 } }`,
		steps: []step{
			{ask: "name=temp", want: "pass: 0 of 1/DAY"},
			{ask: "name=temp1", want: "pass: 0 of 1/DAY"},
			{ask: "name=temp1", want: "refuse: over 1/DAY"},
			{ask: "name=tem", want: "pass: -"},
			{ask: "path=/v1/7/edit", want: "pass: 0 of 1/DAY"},
			{ask: "path=/v1/8/edit", want: "pass: 0 of 1/DAY"},
			{ask: "path=/v1/7/show", want: "pass: -"},
			{ask: "route=/v1/a/item/b/edit", want: "pass: 0 of 1/DAY"},
			{ask: "route=/v1/a/b/edit", want: "pass: -"},
		},
	},
	{
		name: "README example 10: value_to_metric changes no answer",
		policy: `
domain: example-10
descriptors:
- key: route
  value_to_metric: true
  descriptors:
  - key: verb
    value: "read*"
    value_to_metric: true
    descriptors:
    - key: subject
      rate_limit: { unit: day, requests_per_unit: 1 }`,
		steps: []step{
			{ask: "route=api, verb=readall, subject=7", want: "pass: 0 of 1/DAY"},
			{ask: "route=web, verb=readall, subject=7", want: "pass: 0 of 1/DAY"},
			{ask: "route=api, verb=readall, subject=7", want: "refuse: over 1/DAY"},
			{ask: "route=api, verb=write, subject=7", want: "pass: -"},
		},
	},
	{
		name: "README example 11: share_threshold",
		policy: `
domain: example-11
descriptors:
- key: shared
  value: docs/*
  share_threshold: true
  rate_limit: { unit: day, requests_per_unit: 3 }
- key: apart
  value: docs/*
  rate_limit: { unit: day, requests_per_unit: 1 }
- key: parent
  value: api/*
  share_threshold: true
  descriptors:
  - key: verb
    rate_limit: { unit: day, requests_per_unit: 2 }`,
		steps: []step{
			{ask: "shared=docs/a", want: "pass: 2 of 3/DAY"},
			{ask: "shared=docs/b", want: "pass: 1 of 3/DAY"},
			{ask: "shared=docs/*", want: "pass: 0 of 3/DAY"},
			{ask: "shared=docs/c", want: "refuse: over 3/DAY"},
			{ask: "apart=docs/a", want: "pass: 0 of 1/DAY"},
			{ask: "apart=docs/a", want: "refuse: over 1/DAY"},
			{ask: "apart=docs/b", want: "pass: 0 of 1/DAY"},
			{ask: "parent=api/v1, verb=get", want: "pass: 1 of 2/DAY"},
			{ask: "parent=api/v2, verb=get", want: "pass: 0 of 2/DAY"},
			{ask: "parent=api/v2, verb=put", want: "pass: 1 of 2/DAY"},
			{ask: "parent=api/v3, verb=get", want: "refuse: over 2/DAY"},
		},
	},

	// The scripts of envoyproxy/ratelimit's integration test, by their names. token-quota and multiservice-tokenquota
	// are in charge_test.go, since they need an Envoy.
	{
		name: "simple-get and trigger-ratelimit",
		policy: `
domain: trigger
descriptors:
- key: foo
  rate_limit: { unit: minute, requests_per_unit: 2 }
  descriptors:
  - { key: baz, rate_limit: { unit: second, requests_per_unit: 1 } }
  - { key: baz, value: slow, rate_limit: { unit: minute, requests_per_unit: 3 } }`,
		steps: []step{
			{ask: "foo=x, baz=slow", want: "pass: 0 of 3/MINUTE", times: 3},
			{ask: "foo=x, baz=slow", want: "refuse: over 3/MINUTE", times: 2},
			{ask: "foo=y, baz=slow", want: "pass: 2 of 3/MINUTE"},
			{ask: "foo=x", want: "pass: 1 of 2/MINUTE"},
		},
	},
	{
		name: "trigger-shadow-mode-key",
		policy: `
domain: trigger-shadow
descriptors:
- key: foo
  descriptors:
  - key: baz
    value: shady
    rate_limit: { unit: minute, requests_per_unit: 3 }
    shadow_mode: true`,
		steps: []step{
			{ask: "foo=x, baz=shady", want: "pass: 2 of 3/MINUTE"},
			{ask: "foo=x, baz=shady", want: "pass: 0 of 3/MINUTE", times: 5},
		},
	},
	{
		name: "value-included-in-stats-key-when-unspecified",
		policy: `
domain: unspecified
descriptors:
- key: unspec
  detailed_metric: true
  rate_limit: { unit: minute, requests_per_unit: 2 }`,
		steps: []step{
			{ask: "unspec=value", want: "pass: 0 of 2/MINUTE", times: 2},
			{ask: "unspec=value", want: "refuse: over 2/MINUTE"},
		},
	},
	{
		name: "replaces: it raises a limit, leaves the replaced one alone, and can replace several",
		policy: `
domain: replacing
descriptors:
- key: category
  value: account
  rate_limit: { replaces: [{ name: one }, { name: two }, { name: nobody }], unit: day, requests_per_unit: 4 }
- key: target
  value: raised
  rate_limit: { replaces: [{ name: banned }], unit: day, requests_per_unit: 2 }
- key: target
  value: other
  rate_limit: { unit: day, requests_per_unit: 1 }
- key: target
  value: two
  rate_limit: { name: two, unit: day, requests_per_unit: 2 }
- key: user
  rate_limit: { name: one, unit: day, requests_per_unit: 1 }
- key: user
  value: banned
  rate_limit: { name: banned, unit: day, requests_per_unit: 0 }`,
		steps: []step{
			{ask: "user=banned", want: "refuse: over 0/DAY (banned)"},
			{ask: "user=banned; target=other", want: "refuse: over 0/DAY (banned); 0 of 1/DAY"},
			{ask: "user=banned; target=raised", want: "pass: -; 0 of 2/DAY", times: 2},
			{ask: "user=banned; target=raised", want: "refuse: -; over 2/DAY"},
			{ask: "user=ann; target=two; category=account", want: "pass: -; -; 1 of 4/DAY", times: 3},
			{ask: "user=ann; target=two", want: "pass: 0 of 1/DAY (one); 1 of 2/DAY (two)"},
			{ask: "target=two; user=ann", want: "refuse: 0 of 2/DAY (two); over 1/DAY (one)"},
			{ask: "user=ann; target=two; category=account", want: "pass: -; -; 0 of 4/DAY"},
			{ask: "user=ann; target=two; category=account", want: "refuse: -; -; over 4/DAY"},
		},
	},
	{
		name:  "quota: refused when all quotas are used up",
		quota: true,
		policy: `
domain: quotas
descriptors:
- { key: service, value: one, quota_mode: true, rate_limit: { unit: minute, requests_per_unit: 1 } }
- { key: service, value: two, quota_mode: true, rate_limit: { unit: minute, requests_per_unit: 2 } }`,
		steps: []step{
			{ask: "service=one; service=two", want: "pass: 0 of 1/MINUTE; 1 of 2/MINUTE"},
			{ask: "service=one; service=two", want: "pass: over 1/MINUTE; 0 of 2/MINUTE"},
			{ask: "service=one; service=two", want: "refuse: over 1/MINUTE; over 2/MINUTE"},
			{ask: "service=one", want: "refuse: over 1/MINUTE"},
		},
	},

	{
		name: "replaces: chains, circles and unlimited",
		policy: `
domain: replacing-chains
descriptors:
- { key: chain, value: head, rate_limit: { name: head, replaces: [{ name: middle }], unit: day, requests_per_unit: 9 } }
- { key: chain, value: middle, rate_limit: { name: middle, replaces: [{ name: tail }], unit: day, requests_per_unit: 9 } }
- { key: chain, value: tail, rate_limit: { name: tail, unit: day, requests_per_unit: 9 } }
- { key: circle, value: a, rate_limit: { name: a, replaces: [{ name: b }], unit: day, requests_per_unit: 0 } }
- { key: circle, value: b, rate_limit: { name: b, replaces: [{ name: a }], unit: day, requests_per_unit: 0 } }
- { key: free, rate_limit: { name: free, replaces: [{ name: tail }], unlimited: true } }`,
		steps: []step{
			{ask: "chain=head; chain=middle; chain=tail", want: "pass: 8 of 9/DAY (head); -; -"},
			{ask: "chain=tail; chain=middle", want: "pass: -; 8 of 9/DAY (middle)"},
			{ask: "circle=a; circle=b", want: "pass: -; -"},
			{ask: "circle=a", want: "refuse: over 0/DAY (a)"},
			{ask: "free=x; chain=tail", want: "pass: unlimited; -"},
			{ask: "chain=tail", want: "pass: 8 of 9/DAY (tail)"},
		},
	},
	{
		name: "matching: exact, then the first wildcard, then any value, and no way back",
		policy: `
domain: matching
descriptors:
- { key: k, rate_limit: { name: any, unit: day, requests_per_unit: 9 } }
- { key: k, value: "ab*", rate_limit: { name: first, unit: day, requests_per_unit: 9 } }
- { key: k, value: "a*", rate_limit: { name: second, unit: day, requests_per_unit: 9 } }
- { key: k, value: abc, rate_limit: { name: exact, unit: day, requests_per_unit: 9 } }
- { key: pair, value: "x*x", rate_limit: { name: pair, unit: day, requests_per_unit: 9 } }
- key: tree
  value: exact
  descriptors: [{ key: leaf, value: one, rate_limit: { name: one, unit: day, requests_per_unit: 9 } }]
- key: tree
  descriptors: [{ key: leaf, rate_limit: { name: leaf, unit: day, requests_per_unit: 9 } }]`,
		steps: []step{
			{ask: "k=abc", want: "pass: 8 of 9/DAY (exact)"},
			{ask: "k=abd", want: "pass: 8 of 9/DAY (first)"},
			{ask: "k=ab", want: "pass: 8 of 9/DAY (first)"},
			{ask: "k=a", want: "pass: 8 of 9/DAY (second)"},
			{ask: "k=b", want: "pass: 8 of 9/DAY (any)"},
			{ask: "k=B", want: "pass: 8 of 9/DAY (any)"},
			{ask: "K=b", want: "pass: -"},
			{ask: "pair=xx", want: "pass: 8 of 9/DAY (pair)"},
			{ask: "pair=x", want: "pass: -"},
			{ask: "tree=exact, leaf=one", want: "pass: 8 of 9/DAY (one)"},
			{ask: "tree=exact, leaf=two", want: "pass: -"},
			{ask: "tree=other, leaf=two", want: "pass: 8 of 9/DAY (leaf)"},
			{ask: "leaf=two, tree=other", want: "pass: -"},
		},
	},
	{
		name:   "matching: an empty value",
		direct: true, // Envoy refuses an empty descriptor_value
		policy: `
domain: matching-empty
descriptors:
- { key: k, rate_limit: { name: any, unit: day, requests_per_unit: 9 } }
- { key: w, value: "*", rate_limit: { name: wild, unit: day, requests_per_unit: 9 } }
- { key: w, rate_limit: { name: any, unit: day, requests_per_unit: 9 } }`,
		steps: []step{
			{ask: "k=", want: "pass: 8 of 9/DAY (any)"},
			{ask: "w=", want: "pass: 8 of 9/DAY (wild)"},
		},
	},
	{
		name: "hits",
		policy: `
domain: hits
descriptors:
- { key: user, rate_limit: { unit: day, requests_per_unit: 10 } }
- { key: team, rate_limit: { unit: day, requests_per_unit: 20 } }`,
		steps: []step{
			{ask: "user=ann hits 3", want: "pass: 7 of 10/DAY"},
			{ask: "user=ann (hits 2)", want: "pass: 5 of 10/DAY"},
			{ask: "user=ann hits 1; team=x (hits 6)", want: "pass: 4 of 10/DAY; 14 of 20/DAY"},
			{ask: "user=ann; user=ann", want: "pass: 3 of 10/DAY; 2 of 10/DAY"},
			{ask: "user=ann hits 0", want: "pass: 2 of 10/DAY", times: 3},
			// What does not fit is refused whole, and counted whole.
			{ask: "user=ann hits 5", want: "refuse: over 10/DAY"},
			{ask: "user=ann", want: "refuse: over 10/DAY"},
			{ask: "user=ann hits 0", want: "refuse: over 10/DAY"},
			// A check of a limit that is exactly used up passes.
			{ask: "user=bob hits 10", want: "pass: 0 of 10/DAY"},
			{ask: "user=bob hits 0", want: "pass: 0 of 10/DAY"},
			{ask: "user=bob", want: "refuse: over 10/DAY"},
			{ask: "user=bob hits 0", want: "refuse: over 10/DAY"},
		},
	},
	{
		name: "refused requests go on counting",
		policy: `
domain: counting
descriptors:
- { key: user, rate_limit: { unit: day, requests_per_unit: 3 } }`,
		steps: []step{
			{ask: "user=ann", want: "pass: 0 of 3/DAY", times: 3},
			{ask: "user=ann", want: "refuse: over 3/DAY", times: 2},
			{ask: "user=ann limit 10/DAY", want: "pass: 4 of 10/DAY"},
		},
	},
	{
		name: "negative hits give back",
		policy: `
domain: giving-back
descriptors:
- { key: user, rate_limit: { unit: day, requests_per_unit: 5 } }`,
		steps: []step{
			{ask: "user=ann hits 5", want: "pass: 0 of 5/DAY"},
			{ask: "user=ann", want: "refuse: over 5/DAY"}, // 6 are counted
			{ask: "user=ann hits 2 negative", want: "pass: 1 of 5/DAY"},
			{ask: "user=ann", want: "pass: 0 of 5/DAY"},
			{ask: "user=ann hits 100 negative", want: "pass: 5 of 5/DAY"}, // never more than there was
			{ask: "user=ann", want: "pass: 4 of 5/DAY"},
			{ask: "user=bob hits 9", want: "refuse: over 5/DAY"},
			{ask: "user=bob hits 1 negative", want: "pass: 0 of 5/DAY"}, // never refused, though 8 are counted
			{ask: "user=bob", want: "refuse: over 5/DAY"},
		},
	},
	{
		name: "overrides",
		policy: `
domain: overrides
descriptors:
- { key: user, rate_limit: { name: user, unit: day, requests_per_unit: 1 } }
- { key: user, value: free, rate_limit: { unlimited: true } }
- { key: user, value: shady, shadow_mode: true, rate_limit: { unit: day, requests_per_unit: 1 } }
- { key: campaign, rate_limit: { replaces: [{ name: user }], unit: day, requests_per_unit: 9 } }`,
		steps: []step{
			{ask: "user=ann limit 3/DAY", want: "pass: 2 of 3/DAY"},
			{ask: "user=ann", want: "refuse: over 1/DAY (user)"}, // the same counter
			{ask: "user=ann limit 4/DAY", want: "pass: 1 of 4/DAY"},
			{ask: "user=ann limit 2/DAY", want: "refuse: over 2/DAY"},
			{ask: "user=ann limit 2/HOUR", want: "pass: 1 of 2/HOUR"}, // another window, another counter
			{ask: "user=ann limit 0/DAY", want: "refuse: over 0/DAY"},
			{ask: "user=free limit 2/DAY", want: "pass: 1 of 2/DAY"},
			{ask: "user=shady limit 1/DAY hits 2", want: "refuse: over 1/DAY"},
			{ask: "user=bob limit 1/DAY; campaign=x", want: "pass: 0 of 1/DAY; 8 of 9/DAY"}, // not replaced
			{ask: "stranger=x, than=fiction limit 2/DAY", want: "pass: 1 of 2/DAY"},
			{ask: "elsewhere: user=ann limit 1/DAY", want: "pass: -", times: 2},
		},
	},
	{
		name:   "overrides for several units",
		direct: true, // Envoy 1.40 has no field for unit_multiplier
		policy: `
domain: overrides-multiplied
descriptors:
- { key: user, rate_limit: { unit: day, requests_per_unit: 1 } }`,
		steps: []step{
			{ask: "user=ann limit 2/HOURx5", want: "pass: 1 of 2/HOURx5"},
			{ask: "user=ann limit 2/HOURx5", want: "pass: 0 of 2/HOURx5"},
			{ask: "user=ann limit 2/HOURx5", want: "refuse: over 2/HOURx5"},
			{ask: "user=ann limit 2/HOUR", want: "pass: 1 of 2/HOUR"},
		},
	},
	{
		name:  "quota beside a limit",
		quota: true,
		policy: `
domain: quota-and-limit
descriptors:
- { key: quota, quota_mode: true, rate_limit: { unit: day, requests_per_unit: 1 } }
- { key: limit, rate_limit: { unit: day, requests_per_unit: 1 } }`,
		steps: []step{
			{ask: "quota=a hits 2; quota=b; limit=x", want: "pass: over 1/DAY; 0 of 1/DAY; 0 of 1/DAY"},
			{ask: "quota=c; limit=x", want: "refuse: 0 of 1/DAY; over 1/DAY"},
			{ask: "quota=a; limit=y", want: "refuse: over 1/DAY; 0 of 1/DAY"},
		},
	},
	{
		name: "the largest figures",
		policy: `
domain: large
descriptors:
- { key: user, rate_limit: { unit: year, requests_per_unit: 4294967295 } }`,
		steps: []step{
			{ask: "user=ann hits 1000000000", want: "pass: 3294967295 of 4294967295/YEAR"},
			{ask: "user=ann hits 1000000000", want: "pass: 294967295 of 4294967295/YEAR", times: 3},
			{ask: "user=ann hits 1000000000", want: "refuse: over 4294967295/YEAR"},
		},
	},

	// Modes of the whole service.
	{
		name:  "global shadow",
		flags: []string{"--shadow"},
		policy: `
domain: all-shadow
descriptors:
- { key: user, rate_limit: { unit: day, requests_per_unit: 1 } }`,
		steps: []step{
			{ask: "user=ann", want: "pass: 0 of 1/DAY"},
			{ask: "user=ann", want: "pass: over 1/DAY", times: 3},
			{ask: "user=bob limit 1/DAY hits 2", want: "pass: over 1/DAY"},
		},
	},
	{
		name:  "global quota",
		flags: []string{"--quota"},
		quota: true,
		policy: `
domain: all-quota
descriptors:
- { key: user, rate_limit: { unit: day, requests_per_unit: 1 } }`,
		steps: []step{
			{ask: "user=ann; user=bob", want: "pass: 0 of 1/DAY; 0 of 1/DAY"},
			{ask: "user=ann; user=joe", want: "pass: over 1/DAY; 0 of 1/DAY"},
			{ask: "user=ann; user=bob", want: "refuse: over 1/DAY; over 1/DAY"},
			{ask: "user=ann; stranger=x", want: "pass: over 1/DAY; -"}, // what has no limit is a quota that is left
		},
	},
	{
		name:  "one domain in two files",
		flags: []string{"--merge-domains"},
		policy: `
domain: merged
descriptors:
- { key: user, rate_limit: { unit: day, requests_per_unit: 1 } }
---
domain: merged
descriptors:
- { key: team, rate_limit: { unit: day, requests_per_unit: 2 } }`,
		steps: []step{
			{ask: "user=ann; team=x", want: "pass: 0 of 1/DAY; 1 of 2/DAY"},
			{ask: "user=ann; team=x", want: "refuse: over 1/DAY; 0 of 2/DAY"},
		},
	},
}

// TestScenarios plays every scenario, with both stores, at the three doors.
func TestScenarios(t *testing.T) {
	onBothStores(t, func(t *testing.T, store func(testing.TB) string) {
		for _, flags := range [][]string{nil, {"--shadow"}, {"--quota"}, {"--merge-domains"}} {
			t.Run(strings.Join(append([]string{"serve"}, flags...), " "), func(t *testing.T) {
				others := func(s scenario) bool { return !slices.Equal(s.flags, flags) }
				group := slices.DeleteFunc(slices.Clone(scenarios), others)
				play(t, store(t), flags, group)
			})
		}
	})
}

// play runs scenarios that need the same flags. Each door has its own copy of each policy, under a domain of its own.
func play(t *testing.T, store string, flags []string, group []scenario) {
	policies := t.TempDir()
	for _, s := range group {
		for _, door := range []string{"envoy", "grpc", "json"} {
			for i, file := range strings.Split(s.policy, "\n---\n") {
				text := strings.Replace(file, "domain: "+s.domain(""), "domain: "+s.domain(door), 1)
				name := filepath.Join(policies, fmt.Sprintf("%s-%d.yaml", s.domain(door), i))
				if _, err := os.Stat(name); err == nil {
					t.Fatalf("two scenarios have the domain %s", s.domain(""))
				}
				put(t, name, text)
			}
		}
	}
	server, behind := startRation(t, store, policies, flags...), startUpstream(t)
	b := shipped(t, behind.addr, server.grpc)
	b.hitsByHeader(t)
	for _, s := range group {
		if !s.direct {
			b.virtualHost(s.domain("envoy"), s.routes(t)...)
		}
	}
	e := startEnvoy(t, b)

	for _, s := range group {
		doors := []door{grpcDoor(server), jsonDoor(server)}
		if !s.direct {
			doors = append(doors, envoyDoor(e, behind))
		}
		for _, door := range doors {
			t.Run(s.name+"/"+door.name, func(t *testing.T) {
				withinOneMinute()
				for n, step := range s.steps {
					for range max(1, step.times) - 1 {
						door.ask(t, s, n, false)
					}
					door.ask(t, s, n, true)
					if t.Failed() {
						t.Fatalf("in step %d: %s", n, step.ask)
					}
				}
			})
		}
	}
}

// domain returns the domain of a scenario at a door, and the one in its policy for none.
func (s scenario) domain(door string) string {
	_, rest, _ := strings.Cut(s.policy, "domain: ")
	name, _, _ := strings.Cut(rest, "\n")
	if door == "" {
		return name
	}
	return name + "." + door
}

// routes returns a route of Envoy for each step, at /0, /1 and so on: it makes the step's call.
func (s scenario) routes(t testing.TB) (routes []any) {
	for n, step := range s.steps {
		call := parseCall(step.ask, s.domain("envoy"))
		var limits []string
		for _, d := range call.Descriptors {
			var actions []string
			for _, e := range d.Entries {
				action := fmt.Sprintf(`{ generic_key: { descriptor_key: %q, descriptor_value: %q } }`, e.Key, e.Value)
				actions = append(actions, action)
			}
			limit := `actions: [` + strings.Join(actions, ", ") + `]`
			if d.HitsAddend != nil {
				limit += fmt.Sprintf(`, hits_addend: { number: %d, is_negative_hits: %v }`,
					d.HitsAddend.Value, d.IsNegativeHits)
			}
			if d.Limit != nil {
				limit += fmt.Sprintf(`, limit: { rate_limit: { requests_per_unit: %d, unit: %s } }`,
					d.Limit.RequestsPerUnit, d.Limit.Unit)
			}
			limits = append(limits, `{ `+limit+` }`)
		}
		route := limitedRoute(t, fmt.Sprintf("/%d", n), `[`+strings.Join(limits, ", ")+`]`)
		at(route, "typed_per_filter_config", "envoy.filters.http.ratelimit")["domain"] = call.Domain
		routes = append(routes, route)
	}
	return routes
}

// withinOneMinute returns when at least three seconds of the current minute are left, so that no window of a minute or
// more ends between the steps of a scenario.
func withinOneMinute() {
	const enough = 3 * time.Second
	if left := time.Until(time.Now().Truncate(time.Minute).Add(time.Minute)); left < enough {
		time.Sleep(left)
	}
}
