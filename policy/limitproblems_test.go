package policy

import (
	"strings"
	"testing"
)

// expected reads problems, one a line, in which ´ stands for the backtick.
func expected(lines string) string {
	return strings.ReplaceAll(strings.TrimPrefix(lines, "\n"), "´", "`")
}

// What keeps a policy with limits from being used: each with its place, and with what to write instead.
func TestLimitErrors(t *testing.T) {
	for _, c := range []struct{ name, policy, want string }{
		{"keys in the wrong place or of nobody", `
domain: d
limit: 5/minute
shadow: true
descriptors:
- key: a
  tiers: []
  burst: 5
  rate_limit: {unit: day, requests_per_unit: 1, limits: []}
  limits:
  - {name: x, algorithm: sliding_log, limit: 5/day, brust: 5, shadow_mode: true, unit: day, key: a, models: [m], requestsPerUnit: 1}
`, expected(`
policy.yaml:2:1: config error, unknown key 'limit': it belongs in an entry of ´limits´
policy.yaml:3:1: config error, unknown key 'shadow': it belongs in an entry of ´limits´
policy.yaml:6:3: ´tiers´ means nothing in a descriptor: it belongs in the top of the file or an entry of ´limits´
policy.yaml:7:3: config error, unknown key 'burst': it belongs in an entry of ´limits´
policy.yaml:8:49: ´limits´ means nothing in rate_limit: it belongs in the top of the file, a descriptor or an entry of ´upstreams´
policy.yaml:10:53: unknown key ´brust´ in an entry of ´limits´ (did you mean ´burst´?)
policy.yaml:10:63: unknown key ´shadow_mode´ in an entry of ´limits´ (did you mean ´shadow´?)
policy.yaml:10:82: unknown key ´unit´ in an entry of ´limits´ (did you mean ´limit´?)
policy.yaml:10:93: ´key´ means nothing in an entry of ´limits´: it belongs in a descriptor
policy.yaml:10:101: ´models´ means nothing in an entry of ´limits´: it belongs in an entry of ´upstreams´ or ´prices´
policy.yaml:10:114: unknown key ´requestsPerUnit´ in an entry of ´limits´
`)},
		{"limits of the wrong shape", `
domain: d
limits: {name: x}
tiers: free
upstreams: [a, {name: u, models: {a: b}, limits: 5}]
subjects: [alice]
trust_tier: 1
descriptors:
- {key: a, subject: "yes", limits: [x, ~]}
- {key: b, limits: [{name: [x], meter: ~, algorithm: "", clamp: 1, tiers: [free], warn_at: {a: b}, anchor: []}]}
- {key: c, limits: [{? [a] : b, name: x, name: y, limit: 1/day}]}
- {key: e, limits: [{<<: 5, name: x, algorithm: sliding_log, limit: 1/day}]}
`, expected(`
policy.yaml:2:9: ´limits´ must be a list, not a mapping
policy.yaml:3:8: ´tiers´ must be a list, not ´free´
policy.yaml:4:13: ´upstreams´ is a list of mappings, not of ´a´
policy.yaml:4:16: upstream ´u´ has no models: say which it serves, as in models: [claude-*]
policy.yaml:4:34: ´models´ must be text, not a mapping
policy.yaml:4:50: ´limits´ must be a list, not ´5´
policy.yaml:5:11: ´subjects´ must be a mapping, not a list
policy.yaml:6:13: ´trust_tier´ must be true or false, not ´1´
policy.yaml:8:21: ´subject´ must be true or false, not "yes"
policy.yaml:8:37: ´limits´ is a list of mappings, not of ´x´
policy.yaml:8:40: ´limits´ is a list of mappings, not of ´~´
policy.yaml:9:28: ´name´ must be text, not a list
policy.yaml:9:40: ´meter´ is empty
policy.yaml:9:54: ´algorithm´ is empty
policy.yaml:9:65: ´clamp´ must be true or false, not ´1´
policy.yaml:9:75: ´tiers´ of a limit must be a mapping, not a list
policy.yaml:9:92: ´warn_at´ must be text, not a mapping
policy.yaml:9:108: ´anchor´ must be a mapping, not a list
policy.yaml:10:21: limit ´x´: it needs an algorithm: sliding_window (close to exact, small), sliding_log (exact, up to 10000), fixed_window (anew with each window of the clock) or calendar (anew each hour, day or month of a time zone); a ´rate´ with a ´burst´ is a token_bucket
policy.yaml:10:24: a key must be text, not a list
policy.yaml:10:42: ´name´ is given twice
policy.yaml:11:26: ´<<´ merges a mapping or a list of mappings, not ´5´
`)},
		{"quantities that are none", `
domain: d
limits:
- {name: a, algorithm: sliding_log, limit: ten/minute}
- {name: b, algorithm: sliding_log, limit: -1/minute}
- {name: c, algorithm: sliding_log, limit: "10,000/minute"}
- {name: e, algorithm: sliding_log, limit: 10m/minute}
- {name: f, algorithm: sliding_log, limit: 1.5/minute}
- {name: g, algorithm: sliding_log, limit: 010/minute}
- {name: h, algorithm: sliding_log, limit: 9007199254740992/minute}
- {name: i, algorithm: sliding_log, limit: 80%}
- {name: j, algorithm: sliding_log, limit: /minute}
- {name: k, algorithm: sliding_log, limit: 10/}
- {name: l, algorithm: sliding_log, limit: 10/minuet}
- {name: m, algorithm: sliding_log, limit: 10/fortnight}
- {name: n, algorithm: sliding_log, limit: 10/5}
- {name: o, algorithm: sliding_log, limit: 10/1.5h}
- {name: p, algorithm: sliding_log, limit: 10/0s}
- {name: q, algorithm: sliding_log, limit: 10/300y}
- {name: r, algorithm: sliding_log, limit: 10/110000d}
- {name: s, algorithm: sliding_log, limit: 10}
- {name: t, algorithm: sliding_log, limit: Unlimited}
- {name: u, algorithm: sliding_log, limit: 1e3/day}
- {name: v, algorithm: sliding_log, limit: "5,5"}
`, expected(`
policy.yaml:3:44: ´limit´: ´ten´ is no amount: write it as 10, 50_000, 5M, or the word unlimited
policy.yaml:4:44: ´limit´: ´-1´ is negative: write 0 to refuse everything, or the word unlimited
policy.yaml:5:44: ´limit´: ´10,000´ has a comma: write 50_000 or 50k
policy.yaml:6:44: ´limit´: ´10m´ ends in a letter that is no multiple: k is a thousand, M a million, B a billion
policy.yaml:7:44: ´limit´: ´1.5´ is no whole number of units
policy.yaml:8:44: ´limit´: ´010´ begins with a zero: write it without
policy.yaml:9:44: ´limit´: ´9007199254740992´ is beyond 2^53 − 1, the largest amount
policy.yaml:10:44: ´limit´: ´80%´ is a part: only a ceiling and warn_at are written in percent
policy.yaml:11:44: ´limit´: an amount is missing: write it as 10/minute
policy.yaml:12:44: ´limit´: a length of time is missing behind the slash: write it as 10/minute or 5/10m
policy.yaml:13:44: ´limit´: ´minuet´ is no unit of time (did you mean ´minute´?)
policy.yaml:14:44: ´limit´: ´fortnight´ is no unit of time: there are microsecond, millisecond, second, minute, hour, day, week, month and year
policy.yaml:15:44: ´limit´: ´5´ is no length of time: write it as minute, 10m or 1h30m
policy.yaml:16:44: ´limit´: ´1.5h´ has a fraction: write it in a smaller unit, as 90m for an hour and a half
policy.yaml:17:44: ´limit´: ´0s´ is no time at all
policy.yaml:18:44: ´limit´: ´300y´ has no fixed length, and calendars have periods of one month or one year: write it in days
policy.yaml:19:44: ´limit´: ´110000d´ is beyond 2^53 − 1 microseconds, about 285 years
policy.yaml:20:44: limit ´s´: 10 in what time? Write it as 10/minute
policy.yaml:21:44: ´limit´: ´Unlimited´ is written unlimited
policy.yaml:22:44: ´limit´: ´1e3´ is no amount: write it as 10, 50_000, 5M, or the word unlimited
policy.yaml:23:44: ´limit´: ´5,5´ has a comma: write 50_000 or 50k
`)},
		{"what does not go together", `
domain: d
limits:
- {name: a, limit: 10/minute}
- {name: b, algorithm: leaky, limit: 10/minute}
- {name: c, algorithm: sliding_windw, limit: 10/minute}
- {name: e, meter: token, algorithm: sliding_log, limit: 10/minute}
- {name: f, algorithm: sliding_log, limit: 10_001/minute}
- {name: g, algorithm: sliding_log, limit: 10/month}
- {name: h, algorithm: calendar, limit: 10/5m}
- {name: i, algorithm: token_bucket, limit: 10/minute}
- {name: j, algorithm: sliding_log, rate: 10/minute}
- {name: k, algorithm: sliding_log, limit: 10/minute, burst: 5}
- {name: l, meter: concurrency, limit: 10/minute}
- {name: m, meter: concurrency, algorithm: sliding_log, limit: 10}
- {name: n, algorithm: concurrency, limit: 10}
- {name: o, meter: concurrency, limit: 10, per_request: 2, on_lapse: all, count_denied: true}
- {name: p, meter: requests, algorithm: sliding_log, limit: 10/day, clamp: true, count_cache_read: true}
- {name: q, algorithm: sliding_log, limit: 10/day, starts: epoch, time_zone: UTC, week_start: monday, anchor: 5}
- {name: r, algorithm: fixed_window, limit: 10/day, starts: now}
- {name: s, algorithm: calendar, limit: 10/day, week_start: monday}
- {name: t, algorithm: calendar, limit: 10/week, anchor: 1}
- {name: u, algorithm: calendar, limit: 10/month, anchor: {month: 2, day: 1}}
- {name: v, algorithm: calendar, limit: 10/year, anchor: {month: Feb, day: 30}}
- {name: w, algorithm: calendar, limit: 10/week, week_start: funday}
- {name: x, algorithm: calendar, limit: 10/month, anchor: 32}
- {name: y, algorithm: calendar, limit: 10/year, anchor: {month: 13, hour: 4}}
- {name: z, algorithm: calendar, limit: 10/month, time_zone: Berlin}
- {name: aa, algorithm: calendar, limit: 10/month, time_zone: Local}
- {name: ab, algorithm: sliding_log, limit: 10/day, on_lapse: some, on_store_error: ignore}
- {name: ac, algorithm: sliding_log}
- {algorithm: sliding_log, limit: 10/day}
- {name: a, algorithm: sliding_log, limit: 10/day}
- {name: ad, algorithm: sliding_log, limit: 10/day, per_request: 0}
- {name: ae, algorithm: sliding_log, limit: unlimited, per_request: 5}
- {name: af, algorithm: sliding_log, limit: 10/day, ceiling: 11}
- {name: ag, algorithm: sliding_log, limit: 10/day, ceiling: 101%}
- {name: ah, algorithm: sliding_log, limit: 10/day, ceiling: 1.234%}
- {name: ai, algorithm: fixed_window, limit: 10/day, warn_at: [80, 0%]}
- {name: aj, algorithm: sliding_window, limit: 10/60000d}
- {name: ak, rate: 10/minute, limit: 5/minute}
`, expected(`
policy.yaml:3:3: limit ´a´: it needs an algorithm: sliding_window (close to exact, small), sliding_log (exact, up to 10000), fixed_window (anew with each window of the clock) or calendar (anew each hour, day or month of a time zone); a ´rate´ with a ´burst´ is a token_bucket
policy.yaml:4:24: limit ´b´: algorithm ´leaky´ is unknown: it is token_bucket, sliding_window, sliding_log, fixed_window, calendar or concurrency
policy.yaml:5:24: limit ´c´: algorithm ´sliding_windw´ is unknown (did you mean ´sliding_window´?)
policy.yaml:6:20: limit ´e´: meter ´token´ is unknown (did you mean ´tokens´?)
policy.yaml:7:44: limit ´f´: a sliding_log remembers every unit, 10000 at most: take sliding_window, which remembers two numbers
policy.yaml:8:44: limit ´g´: a month has no fixed length: take algorithm calendar, or write it in days
policy.yaml:9:41: limit ´h´: a calendar has periods of one minute, hour, day, week, month or year, not of ´5m´
policy.yaml:10:45: limit ´i´: a token_bucket has a rate: write ´rate: 10/minute´, and ´burst´ for what may come at once
policy.yaml:11:43: limit ´j´: a ´rate´ is only for token_bucket: a sliding_log has a ´limit´
policy.yaml:12:62: limit ´k´: a ´burst´ is only for token_bucket
policy.yaml:13:40: limit ´l´: concurrency counts what is in flight at the same time, in no window: write the number alone
policy.yaml:14:44: limit ´m´: what is in flight at the same time takes both meter: concurrency and algorithm: concurrency (which is its default), not concurrency with sliding_log
policy.yaml:15:24: limit ´n´: what is in flight at the same time takes both meter: concurrency and algorithm: concurrency (which is its default), not requests with concurrency
policy.yaml:16:57: limit ´o´: a request takes one place, so there is no ´per_request´
policy.yaml:16:70: limit ´o´: ´on_lapse´ is only for the meters of tokens and cost: nothing else is held until it is known
policy.yaml:16:89: limit ´o´: ´count_denied´ is only for what is counted: a refused request takes no place
policy.yaml:17:76: limit ´p´: ´clamp´ is only for the meters output_tokens, tokens and cost: nothing else can be made smaller
policy.yaml:17:100: limit ´p´: ´count_cache_read´ is only for the meter input_tokens: tokens count cache reads anyway
policy.yaml:18:60: limit ´q´: ´starts´ is only for fixed_window
policy.yaml:18:78: limit ´q´: ´time_zone´ is only for the algorithm calendar
policy.yaml:18:95: limit ´q´: ´week_start´ is only for the algorithm calendar
policy.yaml:18:111: limit ´q´: ´anchor´ is only for the algorithm calendar
policy.yaml:19:61: limit ´r´: starts ´now´ is unknown: it is epoch or first_use
policy.yaml:20:61: limit ´s´: ´week_start´ is only for limits per week
policy.yaml:21:58: limit ´t´: an ´anchor´ is only for limits per month or year
policy.yaml:22:59: limit ´u´: a month has no month to begin in: write the day alone
policy.yaml:23:58: limit ´v´: February has no day 30
policy.yaml:24:62: limit ´w´: week_start ´funday´ is unknown (did you mean ´sunday´?)
policy.yaml:25:59: ´anchor´: ´32´ is no day of a month, 1…31
policy.yaml:26:66: ´month´: ´13´ is no month: write 1…12 or its name
policy.yaml:26:70: unknown key ´hour´ in ´anchor´
policy.yaml:27:62: ´Berlin´ is no time zone: write its name in the IANA database, such as Europe/Berlin, or UTC
policy.yaml:28:63: ´Local´ is no time zone: write its name in the IANA database, such as Europe/Berlin, or UTC
policy.yaml:29:63: limit ´ab´: on_lapse ´some´ is unknown: it is input, all or nothing
policy.yaml:29:85: limit ´ab´: on_store_error ´ignore´ is unknown: it is allow, local, error or deny
policy.yaml:30:3: limit ´ac´: it says no quantity: write ´limit: 10/minute´, ´limit´ or ´rate´ by tier, or the word unlimited
policy.yaml:31:3: a limit has no name: it is needed to tell its counters from others
policy.yaml:32:10: there is a limit ´a´ here at policy.yaml:3:3 already: limits of one place have names of their own
policy.yaml:33:66: limit ´ad´: a ´per_request´ of 0 refuses everything: a limit of 0 says that more clearly
policy.yaml:34:69: limit ´ae´: nothing stands beside unlimited: give a large limit if single requests are to be capped
policy.yaml:35:62: limit ´af´: a ceiling of 11 is above the limit, which is 10
policy.yaml:36:62: ´ceiling´: ´101%´ is more than 100%
policy.yaml:37:62: ´ceiling´: ´1.234%´ is finer than a hundredth of a percent
policy.yaml:38:64: ´warn_at´: ´80´ is no percentage: write it as 85%
policy.yaml:38:68: ´warn_at´: a warning at 0% would be due at once
policy.yaml:39:48: limit ´aj´: a sliding_window looks at the window before too, so it is at most 142 years
policy.yaml:40:38: limit ´ak´: a token_bucket has a rate: write ´rate: 10/minute´, and ´burst´ for what may come at once
`)},
		{"tiers", `
domain: d
tiers:
- {name: free, attributes: [a]}
- {attributes: {a: .nan}}
- {name: free}
- {name: pro}
limits:
- {name: root, algorithm: sliding_log, tiers: {free: {limit: 5/day}}}
- {name: ceil, algorithm: sliding_log, limit: 5/day, ceiling: {fre: 50%}}
upstreams:
- {name: u, models: a, limits: [{name: x, algorithm: sliding_log, tiers: {free: {limit: 5/day}}}]}
descriptors:
- {key: org, limits: [{name: x, algorithm: sliding_log, tiers: {free: {limit: 5/day}}}]}
- key: user
  subject: true
  limits:
  - {name: a, algorithm: sliding_log, tiers: {gold: {limit: 5/day}, pro: 5/day}}
  - {name: b, algorithm: sliding_log, tiers: {free: {limit: 5/day}, pro: {limit: 5/hour}}}
  - {name: c, algorithm: sliding_log, tiers: {free: {limit: 5/day}, pro: {per_request: 5}}}
  - {name: e, algorithm: sliding_log, tiers: {free: {limit: 5/day, burst: 5, algorithm: x}, pro: ~}}
  - {name: f, algorithm: sliding_log, limit: unlimited, tiers: {free: {limit: unlimited, ceiling: 5}, pro: {per_request: 5}}}
  descriptors:
  - {key: u2, subject: true}
- {key: "w*", subject: true, share_threshold: true}
subjects:
  a: {tier: gold}
  b: {tier: pro, time_zone: Nowhere, name: x}
`, expected(`
policy.yaml:3:28: ´attributes´ must be a mapping, not a list
policy.yaml:4:3: a tier has no name
policy.yaml:4:20: error parsing attributes: no number of JSON is ´.nan´
policy.yaml:5:10: there is a tier ´free´ at policy.yaml:3:3 already
policy.yaml:8:47: limit ´root´: ´tiers´ need a subject, whose tier counts: this limit is shared by callers of several tiers. Set ´subject: true´ on the descriptor of those who pay, or give each tier a ´ceiling´
policy.yaml:9:64: tier ´fre´ is unknown (did you mean ´free´?)
policy.yaml:11:74: limit ´x´: ´tiers´ need a subject, whose tier counts: this limit is shared by callers of several tiers. Set ´subject: true´ on the descriptor of those who pay, or give each tier a ´ceiling´
policy.yaml:13:64: limit ´x´: ´tiers´ need a subject, whose tier counts: this limit is shared by callers of several tiers. Set ´subject: true´ on the descriptor of those who pay, or give each tier a ´ceiling´
policy.yaml:17:74: a tier of a limit must be a mapping such as { limit: 10/minute }, or the word unlimited, not ´5/day´
policy.yaml:18:82: limit ´b´: ´hour´ here and ´day´ at policy.yaml:18:61: tiers share the window of a limit, so that moving tier keeps what was used. Make two limits of it
policy.yaml:19:69: limit ´c´: tier ´pro´ says no quantity: write ´limit: 10/minute´, or the word unlimited
policy.yaml:20:78: ´algorithm´ means nothing in a tier of a limit: it belongs in an entry of ´limits´
policy.yaml:20:98: a tier of a limit must be a mapping such as { limit: 10/minute }, or the word unlimited, not ´~´
policy.yaml:21:99: limit ´f´: unlimited has no ceiling
policy.yaml:21:122: limit ´f´: nothing stands beside unlimited: give a large limit if single requests are to be capped
policy.yaml:23:24: the way here has a subject already, ´user´ at policy.yaml:14:3: only one entry can name who pays
policy.yaml:24:24: a subject is one value, and with share_threshold all values count as one: leave one of them out
policy.yaml:26:13: tier ´gold´ is unknown: it is free or pro
policy.yaml:27:29: ´Nowhere´ is no time zone: write its name in the IANA database, such as Europe/Berlin, or UTC
policy.yaml:27:38: ´name´ means nothing in an entry of ´subjects´: it belongs in an entry of the top's ´tiers´, an entry of ´limits´, an entry of ´upstreams´ or an entry of ´lanes´
`)},
		{"tiers without a declaration", `
domain: d
subjects: {a: {tier: free}}
descriptors:
- {key: user, subject: true, limits: [{name: a, algorithm: sliding_log, tiers: {free: {limit: 5/day}}}]}
`, expected(`
policy.yaml:2:22: tier ´free´ is unknown: the domain declares no ´tiers´ at its top
policy.yaml:4:81: tier ´free´ is unknown: the domain declares no ´tiers´ at its top
`)},
		{"upstreams", `
domain: d
upstreams:
- {models: [a]}
- {name: a, models: [], limits: [{name: x, algorithm: sliding_log, limit: 5/day}]}
- {name: a, models: [b]}
`, expected(`
policy.yaml:3:3: an upstream has no name
policy.yaml:4:3: upstream ´a´ has no models: say which it serves, as in models: [claude-*]
policy.yaml:5:10: there is an upstream ´a´ at policy.yaml:4:3 already
`)},
		{"reserved keys", `
domain: d
descriptors:
- {key: ration.tier, value: pro}
- {key: a, descriptors: [{key: ration.x}]}
`, expected(`
policy.yaml:3:9: key 'ration.tier': keys that begin with ´ration.´ say something about a request, and are no part of its descriptor
policy.yaml:4:32: key 'ration.x': keys that begin with ´ration.´ say something about a request, and are no part of its descriptor
`)},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, failures, _ := parse(t, strings.TrimPrefix(c.policy, "\n"), Options{})
			if failures != c.want {
				t.Errorf("got\n%swant\n%s", failures, c.want)
			}
		})
	}
}

// What loads and is probably not meant.
func TestLimitWarnings(t *testing.T) {
	for _, c := range []struct{ name, policy, want string }{
		{"limits that are not what they look", `
domain: d
tiers: [{name: free}, {name: pro}]
limits:
- {name: a, algorithm: sliding_log, limit: 10/day, ceiling: {free: 50%}}
- {name: b, algorithm: sliding_log, limit: 10/day, per_request: 11}
- {name: c, algorithm: sliding_log, limit: 10/day, ceiling: 50%, per_request: 6}
- {name: e, algorithm: sliding_log, limit: unlimited}
- {name: f, algorithm: token_bucket, rate: 10/minute, burst: 0}
- {name: g, algorithm: sliding_log, limit: 10/day, warn_at: 80%}
- {name: h, algorithm: fixed_window, limit: 10/day, warn_at: [100%, 80%]}
- {name: i, algorithm: sliding_log, limit: 10/day, on_store_error: deny}
descriptors:
- key: user
  subject: true
  shadow_mode: true
  limits:
  - {name: a, algorithm: sliding_log, tiers: {free: {limit: 5/day}}}
  - {name: b, algorithm: sliding_log, limit: 10/day, ceiling: {free: 50%, pro: 100%}}
`, expected(`
policy.yaml:4:61: limit ´a´: tier ´pro´ has no ceiling, so it may use all: write ´pro: 100%´ if that is meant
policy.yaml:5:65: limit ´b´: ´per_request´ of 11 is above the 10 that fit at most, and never matters
policy.yaml:6:79: limit ´c´: ´per_request´ of 6 is above the 5 that fit at most, and never matters
policy.yaml:7:3: limit ´e´ has no effect: it is unlimited for everybody
policy.yaml:8:62: limit ´f´: a burst of 0 admits nothing, whatever the rate: write at least 1
policy.yaml:9:61: limit ´g´: ´warn_at´ has no effect on a sliding_log: it is due once in a period, which only fixed_window and calendar have
policy.yaml:13:3: whoever names no user passes all limits of subjects: write ´anonymous: { by: remote_address }´ at the top, which limits such callers too, ´anonymous: deny´, or ´anonymous: unlimited´ if that is meant
policy.yaml:15:16: ´shadow_mode´ has no effect: this descriptor has no rate_limit, and a limit has ´shadow´ itself
policy.yaml:17:46: limit ´a´: tier ´pro´ has no quantity, so nothing limits it: write ´pro: unlimited´ if that is meant
policy.yaml:18:63: limit ´b´: ´ceiling´ by tier leaves room to nobody here: the counter belongs to one subject, which has one tier
`)},
		{"upstreams that no model reaches", `
domain: d
upstreams:
- {name: a, models: [claude-*, gpt-5], limits: [{name: x, algorithm: sliding_log, limit: 5/day}]}
- {name: b, models: [claude-opus-*, gpt-5, "x*"], limits: [{name: x, algorithm: sliding_log, limit: 5/day}]}
- {name: c, models: ["claude-*-5"], limits: []}
- {name: e, models: ["claude-opus-4-1"], limits: [{name: x, algorithm: sliding_log, limit: 5/day}]}
`, expected(`
policy.yaml:4:22: upstream ´a´ at policy.yaml:3:3 serves ´claude-opus-*´ already, and comes first
policy.yaml:4:37: upstream ´a´ at policy.yaml:3:3 serves ´gpt-5´ already, and comes first
policy.yaml:5:3: upstream ´c´ has no limits
policy.yaml:5:3: no model reaches upstream ´c´
policy.yaml:5:22: upstream ´a´ at policy.yaml:3:3 serves ´claude-*-5´ already, and comes first
`)},
		{"nobody is a subject", `
domain: d
tiers: [{name: free}, {name: pro}]
subjects: {b: {tier: pro}, a: {}}
`, expected(`
policy.yaml:2:9: everybody is in tier ´free´: no descriptor has ´subject: true´
policy.yaml:3:12: subject ´b´ never asks: no descriptor has ´subject: true´
policy.yaml:3:28: subject ´a´ never asks: no descriptor has ´subject: true´
`)},
		{"a tier may be named and there is none", `
domain: d
trust_tier: true
`, expected(`
policy.yaml:2:13: ´trust_tier´ has no effect: the domain has no tiers
`)},
		{"one path for a rule and a limit", `
domain: d
descriptors:
- {key: a, limits: [{name: b, algorithm: sliding_log, limit: 5/day}], descriptors: [{key: b, rate_limit: {unit: day, requests_per_unit: 1}}]}
`, expected(`
policy.yaml:3:21: the limit is called 'd.a.b' in metrics and listings, as is what stands at policy.yaml:3:85
`)},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, failures, warnings := parse(t, strings.TrimPrefix(c.policy, "\n"), Options{})
			if failures != "" || warnings != c.want {
				t.Errorf("got errors\n%sand warnings\n%swant the warnings\n%s", failures, warnings, c.want)
			}
		})
	}
}
