package policy

import (
	"fmt"
	"strings"
	"testing"
)

// What keeps a policy with lanes from being used: each with its place, and with what to write instead.
func TestLaneErrors(t *testing.T) {
	const tiers = "domain: d\nanonymous: unlimited\ntiers: [{name: free}, {name: pro}, {name: premium}]\n" +
		"descriptors: [{key: user, subject: true}]\nupstreams: [{name: anthropic, models: m, limits: [{name: x, rate: 5/day}]}]\nlanes:\n"
	for _, c := range []struct{ name, policy, want string }{
		{"of the wrong shape", "domain: d\nlanes: {name: a}\n", "policy.yaml:2:8: ´lanes´ must be a list, not a mapping\n"},
		{"of the wrong shape inside", tiers + `
- a
- {name: [a], drain: 5/second}
- {name: a, drain: [5], max_waiting: 5, weighted: [free]}
- {name: b, drain: ten/second, max_concurrent: three, max_wait: 1.5h, aging: 0s, max_waiting: {total: many, per_subject: -1}}
- {name: c, drain: 5/second, weighted: {free: ~, pro: 1.5, premium: 1}}
- {drain: 5/second}
`, `
policy.yaml:7:3: ´lanes´ is a list of mappings, not of ´a´
policy.yaml:8:10: ´name´ must be text, not a list
policy.yaml:9:20: ´drain´ must be text, not a list
policy.yaml:9:38: ´max_waiting´ must be a mapping, not ´5´
policy.yaml:9:51: ´weighted´ must be a mapping, not a list
policy.yaml:10:20: ´drain´: ´ten´ is no amount: write it as 10, 50_000, 5M, or the word unlimited
policy.yaml:10:48: ´max_concurrent´: ´three´ is no amount: write it as 10, 50_000, 5M, or the word unlimited
policy.yaml:10:65: ´max_wait´: ´1.5h´ has a fraction: write it in a smaller unit, as 90m for an hour and a half
policy.yaml:10:78: ´aging´: ´0s´ is no time at all
policy.yaml:10:103: ´total´: ´many´ is no whole number: write it as 20 or 1_000
policy.yaml:10:122: ´per_subject´: ´-1´ is no whole number: write it as 20 or 1_000
policy.yaml:11:47: ´weighted´ is empty
policy.yaml:11:55: ´weighted´: ´1.5´ is no whole number: write it as 20 or 1_000
policy.yaml:12:3: a lane has no name: callers name the lane that they wait in
`},
		{"keys in the wrong place or of nobody", "domain: d\nmax_wait: 5s\ndescriptors: [{key: a, lanes: [], drain: 5/s}]\n" + `
limits: [{name: x, algorithm: sliding_log, limit: 5/day, max_concurrent: 3, total: 5}]
lanes:
- {name: a, drain: 5/second, max_waits: 5s, total: 5, rate: 5/second, models: [m], key: user}
- {name: b, drain: 5/second, max_waiting: {totals: 5, name: x}}
`, `
policy.yaml:2:1: config error, unknown key 'max_wait': it belongs in an entry of ´lanes´
policy.yaml:3:24: ´lanes´ means nothing in a descriptor: it belongs in the top of the file
policy.yaml:3:35: config error, unknown key 'drain': it belongs in an entry of ´lanes´
policy.yaml:4:58: ´max_concurrent´ means nothing in an entry of ´limits´: it belongs in an entry of ´lanes´
policy.yaml:4:77: ´total´ means nothing in an entry of ´limits´: it belongs in ´max_waiting´
policy.yaml:6:30: unknown key ´max_waits´ in an entry of ´lanes´ (did you mean ´max_wait´?)
policy.yaml:6:45: ´total´ means nothing in an entry of ´lanes´: it belongs in ´max_waiting´
policy.yaml:6:55: ´rate´ means nothing in an entry of ´lanes´: it belongs in an entry of ´limits´ or a tier of a limit
policy.yaml:6:71: ´models´ means nothing in an entry of ´lanes´: it belongs in an entry of ´upstreams´ or ´prices´
policy.yaml:6:84: ´key´ means nothing in an entry of ´lanes´: it belongs in a descriptor
policy.yaml:7:44: unknown key ´totals´ in ´max_waiting´ (did you mean ´total´?)
policy.yaml:7:55: ´name´ means nothing in ´max_waiting´: it belongs in an entry of the top's ´tiers´, an entry of ´limits´, an entry of ´upstreams´ or an entry of ´lanes´
`},
		{"what they wait for", tiers + `
- {name: a, max_wait: 10s}
- {name: a, drain: 5/second}
- {name: b, upstream: antropic}
- {name: c, upstream: openai}
- {name: e, drain: 0/second}
- {name: f, drain: 5}
- {name: g, drain: 5/month}
- {name: h, drain: $5/second}
- {name: i, drain: unlimited}
- {name: j, drain: 2_000_000/second}
- {name: k, max_concurrent: 0}
- {name: l, max_concurrent: 3/second}
- {name: m, max_concurrent: $3}
- {name: n, max_concurrent: unlimited}
- {name: o, drain: 5/second, on_store_error: local}
- {name: p, drain: 5/second, on_store_error: denny}
- {name: q, upstream: anthropic, on_store_error: ignore}
`, `
policy.yaml:7:3: lane ´a´: there is nothing to wait for: write a ´drain´, as 5/second, ´max_concurrent´, or an ´upstream´ whose limits its callers share
policy.yaml:8:10: there is a lane ´a´ at policy.yaml:7:3 already
policy.yaml:9:23: lane ´b´: upstream ´antropic´ is unknown (did you mean ´anthropic´?)
policy.yaml:10:23: lane ´c´: upstream ´openai´ is unknown: it is anthropic
policy.yaml:11:20: lane ´e´: a ´drain´ of 0 lets nobody through: write 1/minute for a slow one
policy.yaml:12:20: lane ´f´: ´drain´: 5 in what time? Write it as 5/second
policy.yaml:13:20: lane ´g´: ´drain´: a month has no fixed length: write it in days
policy.yaml:14:20: lane ´h´: a lane lets calls through, not money: write ´drain´ as 5/second
policy.yaml:15:20: lane ´i´: nothing is to be said of a lane that lets calls through at any rate: leave ´drain´ out
policy.yaml:16:20: lane ´j´: a ´drain´ of 2,000,000 per second is more than one in a microsecond: leave it out
policy.yaml:17:29: lane ´k´: a ´max_concurrent´ of 0 lets nobody through: write at least 1
policy.yaml:18:29: lane ´l´: ´max_concurrent´ counts calls that are under way at the same time: write the number alone
policy.yaml:19:29: lane ´m´: ´max_concurrent´ counts calls that are under way at the same time: write the number alone
policy.yaml:20:29: lane ´n´: nothing is to be said of a lane that has places for all: leave ´max_concurrent´ out
policy.yaml:21:46: lane ´o´: a lane has no part for each process by itself, since its drain lets one call through at a time: ´on_store_error´ is allow, error or deny
policy.yaml:22:46: lane ´p´: on_store_error ´denny´ is unknown (did you mean ´deny´?)
policy.yaml:23:50: lane ´q´: on_store_error ´ignore´ is unknown: it is allow, error or deny
`},
		{"how long they wait, and how many", tiers + `
- {name: a, drain: 5/second, max_wait: 61m}
- {name: b, drain: 5/second, max_waiting: {total: 0}}
- {name: c, drain: 5/second, max_waiting: {total: 10_001}}
- {name: e, drain: 5/second, max_waiting: {per_subject: 0}}
- {name: f, drain: 5/second, max_waiting: {total: 10, per_subject: 11}}
- {name: g, drain: 5/second, max_waiting: {per_subject: 5_000}}
`, `
policy.yaml:7:40: lane ´a´: ´max_wait´ is 1 hour at most, and not 1 hour 1 minute
policy.yaml:8:51: lane ´b´: ´total´ is a number of calls that wait, 1 to 10,000
policy.yaml:9:51: lane ´c´: ´total´ is a number of calls that wait, 1 to 10,000
policy.yaml:10:57: lane ´e´: ´per_subject´ is a number of calls that wait, at least 1
policy.yaml:11:68: lane ´f´: a ´per_subject´ of 11 is above the 10 that wait in all
policy.yaml:12:57: lane ´g´: a ´per_subject´ of 5,000 is above the 1,000 that wait in all
`},
		{"who goes first", tiers + `
- {name: a, drain: 5/second, order: fifo}
- {name: b, drain: 5/second, order: weighted}
- {name: c, drain: 5/second, order: strict, aging: 5s, weighted: {free: 1, pro: 2, premium: 3}}
- {name: e, drain: 5/second, weighted: {free: 0, pro: 1_001, premum: 3}}
- {name: f, drain: 5/second, weighted: {free: 1, premium: 3}}
- {name: g, drain: 5/second, weighted: {}}
- {name: h, drain: 5/second, weighted: {gold: 1}}
- {name: i, drain: 5/second, turns_by: token}
- {name: j, drain: 5/second, turns_by: output_tokens}
- {name: l, drain: 5/second, max_wait: 1h, aging: 61m}
- {name: k, drain: 5/second, weighted: {free: 1, free: 2, pro: 2, premium: 3}}
`, `
policy.yaml:7:37: lane ´a´: order ´fifo´ is unknown: it is strict, or ´weighted: { TIER: 3, … }´ stands in its place
policy.yaml:8:37: lane ´b´: order ´weighted´ is unknown: it is strict, or ´weighted: { TIER: 3, … }´ stands in its place
policy.yaml:9:37: lane ´c´: ´weighted´ gives each tier a share, and ´order: strict´ lets the last go first: leave one of them out
policy.yaml:9:52: lane ´c´: ´aging´ goes with ´order: strict´: by weight every tier has its share anyway
policy.yaml:10:47: lane ´e´: a weight is 1 to 1000, and not 0: only how they compare counts
policy.yaml:10:55: lane ´e´: a weight is 1 to 1000, and not 1001: only how they compare counts
policy.yaml:10:62: tier ´premum´ is unknown (did you mean ´premium´?)
policy.yaml:11:40: lane ´f´: tier ´pro´ has no weight: every tier has one, 1 to 1000
policy.yaml:12:40: lane ´g´: tier ´free´ has no weight: every tier has one, 1 to 1000
policy.yaml:12:40: lane ´g´: tier ´pro´ has no weight: every tier has one, 1 to 1000
policy.yaml:12:40: lane ´g´: tier ´premium´ has no weight: every tier has one, 1 to 1000
policy.yaml:13:41: tier ´gold´ is unknown: it is free, pro or premium
policy.yaml:14:40: lane ´i´: turns_by ´token´ is unknown (did you mean ´tokens´?)
policy.yaml:15:40: lane ´j´: turns_by ´output_tokens´ is unknown: it is requests, tokens or cost
policy.yaml:16:51: lane ´l´: ´aging´ is 1 hour at most, as long as anybody waits, and not 1 hour 1 minute
policy.yaml:17:50: ´free´ is given twice
`},
		{"without tiers and upstreams", `
domain: d
lanes:
- {name: a, drain: 5/second, weighted: {free: 1}}
- {name: b, upstream: anthropic}
`, `
policy.yaml:3:40: lane ´a´: ´weighted´ needs tiers, and the domain declares no ´tiers´ at its top
policy.yaml:4:23: lane ´b´: upstream ´anthropic´ is unknown: the domain declares no ´upstreams´ at its top
`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, failures, _ := parse(t, unbroken(c.policy), Options{})
			if want := expected(c.want); failures != want {
				t.Errorf("got\n%swant\n%s", failures, want)
			}
		})
	}
}

// unbroken takes empty lines out of a policy.
func unbroken(policy string) string {
	return strings.TrimPrefix(strings.ReplaceAll(policy, "\n\n", "\n"), "\n")
}

// What loads and is probably not meant.
func TestLaneWarnings(t *testing.T) {
	for _, c := range []struct{ name, policy, want string }{
		{"with tiers and subjects", `
domain: d
anonymous: unlimited
tiers: [{name: free}, {name: pro}, {name: premium}]
descriptors: [{key: user, subject: true}]
upstreams: [{name: none, models: m}, {name: some, models: n, limits: [{name: x, rate: 5/day}]}]
lanes:
- {name: a, upstream: none}
- {name: b, upstream: none, drain: 5/second}
- {name: c, upstream: some, on_store_error: deny}
- {name: e, drain: 2/hour, max_wait: 29m}
- {name: f, drain: 2/hour, max_wait: 30m}
- {name: g, drain: 5/second, max_waiting: {total: 20, per_subject: 20}}
- {name: h, drain: 5/second, max_waiting: {total: 1, per_subject: 1}}
- {name: i, drain: 5/second, max_wait: 9s, aging: 10s}
- {name: j, drain: 1/second, max_wait: 9s, aging: 2s}
- {name: k, drain: 1/second, max_wait: 9s, aging: 2001ms}
- {name: l, drain: 1/minute, max_wait: 10m}
- {name: m, drain: 1/minute, max_wait: 10m, weighted: {free: 1, pro: 1, premium: 1}}
`, `
policy.yaml:5:13: upstream ´none´ has no limits
policy.yaml:7:3: nobody waits in lane ´a´: upstream ´none´ has no limits, and the lane neither ´drain´ nor ´max_concurrent´
policy.yaml:9:45: lane ´c´: ´on_store_error´ has no effect without ´drain´ and ´max_concurrent´: the limits of the upstream say it themselves
policy.yaml:10:20: lane ´e´: ´drain´ lets 2 requests per hour through, and nobody waits for longer than 29 minutes: write a longer ´max_wait´
policy.yaml:12:68: lane ´g´: one subject can fill the line, and all others are refused at once: write a smaller ´per_subject´
policy.yaml:14:51: lane ´i´: ´aging´ of 10 seconds is above its ´max_wait´ of 9 seconds: a tier that others go before may wait in vain
policy.yaml:15:51: lane ´j´: ´drain´ lets 1 request per second through, and a tier that has waited for 2 seconds is next, so none goes first: write a longer ´aging´
policy.yaml:17:20: lane ´l´: ´drain´ lets 1 request per minute through, and a tier that has waited for 10 seconds is next, so none goes first: write a longer ´aging´
`},
		{"with neither", `
domain: d
lanes:
- {name: a, drain: 5/second, aging: 5s}
- {name: b, drain: 5/second, max_waiting: {per_subject: 5}}
- {name: c, drain: 5/second, turns_by: tokens}
- {name: e, drain: 5/second, max_waiting: {total: 5}, order: strict}
`, `
policy.yaml:3:37: lane ´a´: ´aging´ has no effect: no tier goes before another
policy.yaml:4:3: all callers are one to lane ´b´, with one ´per_subject´ and no turns to take: no descriptor has ´subject: true´
policy.yaml:5:3: all callers are one to lane ´c´, with one ´per_subject´ and no turns to take: no descriptor has ´subject: true´
`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, failures, warnings := parse(t, strings.TrimPrefix(c.policy, "\n"), Options{})
			want := expected(c.want)
			if got := strings.ReplaceAll(warnings, "warning: ", ""); failures != "" || got != want {
				t.Errorf("got\n%s%swant\n%s", failures, got, want)
			}
		})
	}
}

// A lane puts fewer tiers in order than a domain may have.
func TestLanesWithManyTiers(t *testing.T) {
	for tiers, want := range map[int]string{
		MaxLaneTiers:     "",
		MaxLaneTiers + 1: "policy.yaml:3:9: lane ´a´: the domain has 33 tiers, and a lane puts 32 in order at most\n",
	} {
		policy := "domain: d\ntiers: ["
		for i := range tiers {
			policy += fmt.Sprintf("{name: t%d}, ", i)
		}
		_, failures, _ := parse(t, policy+"]\nlanes: [{name: a, drain: 5/second}]\n", Options{})
		if failures != expected(want) {
			t.Errorf("with %d tiers: %s", tiers, failures)
		}
	}
}

// A line's name is one that stores take.
func TestLongNamesOfLanes(t *testing.T) {
	parse := func(domain, name int) *Policy {
		p, _, _ := Parse([]Source{{Name: "llm.yaml", Data: []byte(fmt.Sprintf(
			"domain: %s\ndescriptors: [ { key: user } ]\nlanes: [ { name: %s, drain: 5/second } ]\n",
			strings.Repeat("d", domain), strings.Repeat("n", name)))}}, Options{})
		return p
	}
	longest := MaxLaneName - len(parse(1, 1).Domain("d").Lane("n").Owner()) + 1
	p := parse(1, longest)
	if p == nil || len(p.Domain("d").Lanes()[0].Owner()) != MaxLaneName {
		t.Fatalf("a lane whose name has %d bytes is refused", longest)
	}
	if parse(1, longest+1) != nil || parse(2, longest) != nil {
		t.Error("a lane has a name that no store takes")
	}
}
