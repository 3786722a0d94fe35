package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestCheckOfARequest walks through what ration check says of single requests: which limits apply, for
// which tier, and in which counters they count.
func TestCheckOfARequest(t *testing.T) {
	path := filepath.Join(t.TempDir(), "limits.yaml")
	if err := os.WriteFile(path, []byte(`
domain: llm
trust_tier: true
tiers: [{ name: free }, { name: pro }]
limits:
- { name: all, limit: 5M/month, ceiling: { free: 60%, pro: 100% } }
descriptors:
- key: user
  subject: true
  rate_limit: { unit: minute, requests_per_unit: 1000 }
  limits:
  - { name: requests, tiers: { free: { rate: 10/minute, burst: 5 }, pro: unlimited } }
  descriptors:
  - { key: model, value: big-*, limits: [{ name: big, algorithm: sliding_log, limit: 20/day }] }
- { key: path, value: "a,b", rate_limit: { unlimited: true } }
upstreams:
- { name: provider, models: [big-*], limits: [{ name: rpm, rate: 1_000/minute }] }
lanes:
- { name: provider, upstream: provider, drain: 5/second, max_concurrent: 3 }
subjects: { alice: { tier: pro } }
anonymous: unlimited
`), 0o600); err != nil {
		t.Fatal(err)
	}
	distrusting := filepath.Join(t.TempDir(), "limits.yaml")
	if err := os.WriteFile(distrusting, []byte(`
domain: llm
tiers: [{ name: free }, { name: pro }]
descriptors: [{ key: user, subject: true }]
anonymous: unlimited
`), 0o600); err != nil {
		t.Fatal(err)
	}
	spending := filepath.Join(t.TempDir(), "limits.yaml")
	if err := os.WriteFile(spending, []byte(`
domain: llm
tiers: [{ name: free }, { name: pro }]
limits: [{ name: all, meter: cost, limit: $5_000/month, ceiling: { free: 60%, pro: 100% } }]
descriptors:
- key: user
  subject: true
  limits: [{ name: pace, meter: cost, rate: $0.0125/minute, burst: $1.50, per_request: $0.25 }]
anonymous: unlimited
`), 0o600); err != nil {
		t.Fatal(err)
	}
	const all = `
  limit llm.all: 5,000,000 requests per calendar month (UTC), of which these callers may use 3,000,000
    counter all|calendar|month;UTC;1 of llm`
	for _, c := range []struct {
		name string
		args []string
		says string
	}{
		{"attributes", []string{path, "--attributes", "model=big-1,user=alice"}, `
domain llm, attributes model=big-1,user=alice
  the subject is "alice"
  the tier is pro: ´subjects´ say so
  limit llm.all: 5,000,000 requests per calendar month (UTC)
    counter all|calendar|month;UTC;1 of llm
  rule llm.user: 1000 requests per minute, aligned to the clock's minutes (UTC)
    counter llm|user=alice|60s
  limit llm.user.requests: unlimited and not counted
  limit llm.user.model_big-*.big: 20 requests in any day, exactly
    counter model=big-1|big|sliding_log|86400s of llm|user=alice
  limit llm.upstreams.provider.rpm: 1,000 requests per minute, flowing steadily, up to 1,000 at once
    counter rpm|token_bucket|60s of llm|upstreams|provider
`},
		{"a descriptor reaches what stands at its end", []string{path, "--descriptor", "user=eve,model=big-1"}, `
domain llm, descriptor user=eve,model=big-1
  the subject is "eve"
  the tier is free: the first` + all + `
  limit llm.user.model_big-*.big: 20 requests in any day, exactly
    counter model=big-1|big|sliding_log|86400s of llm|user=eve
`},
		{"a descriptor that says its model and its tier", []string{path, "--descriptor", "user=alice,ration.model=big-2,ration.tier=free"}, `
domain llm, descriptor user=alice,ration.model=big-2,ration.tier=free
  the subject is "alice"
  the tier is free: the request says so` + all + `
  rule llm.user: 1000 requests per minute, aligned to the clock's minutes (UTC)
    counter llm|user=alice|60s
  limit llm.user.requests: 10 requests per minute, flowing steadily, up to 5 at once
    counter requests|token_bucket|60s of llm|user=alice
  limit llm.upstreams.provider.rpm: 1,000 requests per minute, flowing steadily, up to 1,000 at once
    counter rpm|token_bucket|60s of llm|upstreams|provider
`},
		{"a lane", []string{path, "--descriptor", "org=a,ration.model=big-2,ration.lane=provider,ration.tier=pro"}, `
domain llm, descriptor org=a,ration.model=big-2,ration.lane=provider,ration.tier=pro
  the tier is pro: the request says so
  limit llm.all: 5,000,000 requests per calendar month (UTC)
    counter all|calendar|month;UTC;1 of llm
  limit llm.upstreams.provider.rpm: 1,000 requests per minute, flowing steadily, up to 1,000 at once
    counter rpm|token_bucket|60s of llm|upstreams|provider
  lane provider: calls wait while upstream provider or the lane has no room, for 30 seconds at most, 1,000 of them, 20 of one subject; pro before free, but a tier that has waited for a turn for 10 seconds is next; in a tier subjects take turns
  limit llm.lanes.provider.drain: 5 requests per second, flowing steadily, up to 1 at once
    counter drain|token_bucket|1s of llm|lanes|provider
  limit llm.lanes.provider.places: 3 requests at the same time
    counter places|concurrency|0s of llm|lanes|provider
`},
		{"a value with a comma, and a tier that is none", []string{path, "--descriptor", `path=a\,b,ration.tier=gold`}, `
domain llm, descriptor path=a\,b,ration.tier=gold
  the tier is free: the first, since there is no "gold"` + all + `
  rule llm.path_a,b: unlimited and not counted
`},
		{"money", []string{spending, "--attributes", "user=eve"}, `
domain llm, attributes user=eve
  the subject is "eve"
  the tier is free: the first
  limit llm.all: $5,000.00 per calendar month (UTC), of which these callers may use $3,000.00
    counter all|calendar|month;UTC;1 of llm
  limit llm.user.pace: $0.0125 per minute, flowing steadily, up to $1.50 at once, at most $0.25 in one request
    counter pace|token_bucket|60s of llm|user=eve
`},
		{"a tier that is not trusted", []string{distrusting, "--attributes", `user=eve,ration.tier=pro`}, `
domain llm, attributes user=eve,ration.tier=pro
  the subject is "eve"
  the tier is free: the first, and without trust_tier the request's "pro" means nothing
  nothing limits it
`},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, stdout, stderr := runs(t, nil, append([]string{"check"}, c.args...)...)
			want := strings.ReplaceAll(strings.TrimPrefix(c.says, "\n"), "´", "`")
			if code != exitOK || stderr != "" || stdout != want {
				t.Errorf("exit code %d, %q, and\n%swant\n%s", code, stderr, stdout, want)
			}
		})
	}
	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{path, "--attributes", "user"}, `--attributes: "user" is no KEY=VALUE`},
		{[]string{path, "--descriptor", "=user"}, `--descriptor: "=user" is no KEY=VALUE`},
		{[]string{path, "--attributes", "user=a,user=b"}, `--attributes: "user" is given twice: an attribute has one value`},
		{[]string{path, "--attributes", "ration.phase=done"}, `--attributes: "ration.phase" changes nothing about which limits apply`},
		{[]string{path, "--attributes", "ration.lane=fast"}, `--attributes: there is no lane "fast", only provider`},
		{[]string{spending, "--attributes", "ration.lane=fast"}, `--attributes: there is no lane "fast", nor any other`},
		{[]string{path, "--attributes", "a=b", "--descriptor", "a=b"}, `--attributes and --descriptor can't be used together`},
		{[]string{path, "--attributes", "a=b", "--domain", "x"}, `--domain: there is no "x", only llm`},
		{[]string{path, "../../examples/quickstart.yaml", "--attributes", "a=b"}, `--domain is missing: the policy has the domains llm, quickstart`},
	} {
		if code, stdout, stderr := runs(t, nil, append([]string{"check"}, c.args...)...); code != exitUsage || stdout != "" ||
			!strings.HasPrefix(stderr, "ration: "+c.says) {
			t.Errorf("%q: exit code %d, %q, %q, want 2 and %q", c.args, code, stdout, stderr, c.says)
		}
	}
}
