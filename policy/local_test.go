package policy

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/rationhq/ration/limit"
)

// What a limit answers while the store cannot decide, and what `ration check` says about it.
func TestOnStoreError(t *testing.T) {
	p, failures, warnings := parse(t, `
domain: d
limits:
- {name: silent, algorithm: sliding_log, limit: 10/day}
- {name: allow, algorithm: sliding_log, limit: 10/day, on_store_error: allow}
- {name: deny, algorithm: sliding_log, limit: 10/day, on_store_error: deny}
- {name: error, algorithm: sliding_log, limit: 10/day, on_store_error: error}
- {name: local, algorithm: sliding_log, limit: 10/day, on_store_error: local}
- {name: share, algorithm: sliding_log, limit: 10/day, on_store_error: local, local_share: 33.5%}
- {name: places, meter: concurrency, limit: 3}
- {name: tokens, meter: tokens, limit: 3/month}
- {name: shadow, algorithm: sliding_log, limit: 10/day, on_store_error: deny, shadow: true}
- {name: cost, meter: cost, limit: $3/month}
- {name: milder, meter: cost, limit: $3/month, on_store_error: local}
`[1:], Options{})
	if failures != "" || warnings != "" {
		t.Fatal(failures, warnings)
	}
	var got []string
	for _, l := range p.Limits() {
		notes := ""
		if _, after, ok := strings.Cut(l.Explain()[0], "exactly; "); ok {
			notes = after
		}
		got = append(got, strings.TrimSpace(fmt.Sprintf("%s %v %v %d %s", l.Name, l.OnStoreError, l.LocalShare, l.For(0).Local.Limit, notes)))
	}
	want := `
silent allow 0% 0
allow allow 0% 0
deny deny 0% 0 refused while the store cannot decide
error error 0% 0 an error while the store cannot decide
local local 10% 1 while the store cannot decide, each replica admits 10% of it by itself
share local 33.5% 3 while the store cannot decide, each replica admits 33.5% of it by itself
places allow 0% 0
tokens allow 0% 0
shadow deny 0% 0 in shadow, so counted and reported but never refused
cost deny 0% 0
milder local 10% 300000000`
	if got := "\n" + strings.Join(got, "\n"); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// The order of the answers is that of their strictness: of several limits the largest counts.
func TestStrictness(t *testing.T) {
	for i, stricter := range []StoreError{StoreErrorLocal, StoreErrorFail, StoreErrorDeny} {
		if milder := []StoreError{StoreErrorAllow, StoreErrorLocal, StoreErrorFail}[i]; milder >= stricter {
			t.Errorf("%v is not milder than %v", milder, stricter)
		}
	}
}

func TestLocalShareProblems(t *testing.T) {
	_, failures, _ := parse(t, `
domain: d
limits:
- {name: a, algorithm: sliding_log, limit: 10/day, local_share: 10%}
- {name: b, algorithm: sliding_log, limit: 10/day, on_store_error: deny, local_share: 10%}
- {name: c, algorithm: sliding_log, limit: 10/day, on_store_error: local, local_share: 0%}
- {name: e, algorithm: sliding_log, limit: 10/day, on_store_error: local, local_share: 101%}
- {name: f, algorithm: sliding_log, limit: 10/day, on_store_error: local, local_share: 3}
`[1:], Options{})
	if want := expected(`
policy.yaml:3:65: limit ´a´: ´local_share´ is only for ´on_store_error: local´: else no process decides by itself
policy.yaml:4:87: limit ´b´: ´local_share´ is only for ´on_store_error: local´: else no process decides by itself
policy.yaml:5:88: limit ´c´: a ´local_share´ of 0% admits nothing: ´on_store_error: deny´ says that more clearly
policy.yaml:6:88: ´local_share´: ´101%´ is more than 100%
policy.yaml:7:88: ´local_share´: ´3´ is no percentage: write it as 85%
`); failures != want {
		t.Errorf("got\n%s\nwant\n%s", failures, want)
	}
	_, failures, warnings := parse(t, `
domain: d
limits:
- {name: a, algorithm: sliding_log, limit: 9/day, on_store_error: local}
- {name: b, meter: concurrency, limit: 3, on_store_error: local, local_share: 33%}
- {name: c, algorithm: sliding_log, limit: 0/day, on_store_error: local}
- {name: e, rate: 100/minute, burst: 9, on_store_error: local}
- {name: f, rate: 1/minute, burst: 10, on_store_error: local}
`[1:], Options{})
	if want := expected(`
policy.yaml:3:44: limit ´a´: 10% of 9 is less than 1, so nothing is admitted while the store cannot decide: write a larger ´local_share´, or ´on_store_error: deny´
policy.yaml:4:79: limit ´b´: 33% of 3 is less than 1, so nothing is admitted while the store cannot decide: write a larger ´local_share´, or ´on_store_error: deny´
policy.yaml:6:19: limit ´e´: 10% of 9 is less than 1, so nothing is admitted while the store cannot decide: write a larger ´local_share´, or ´on_store_error: deny´
`); failures != "" || warnings != want {
		t.Errorf("%s got\n%s\nwant\n%s", failures, warnings, want)
	}
}

// A local slice never holds more than its share, drains no faster, and is a Spec that a store takes.
func TestLocalSpec(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		amount := rapid.OneOf(rapid.Int64Range(0, 20), rapid.Int64Range(0, limit.MaxAmount))
		s := limit.Spec{
			Algorithm: rapid.SampledFrom([]limit.Algorithm{limit.FixedWindow, limit.TokenBucket, limit.SlidingWindow, limit.Concurrency}).Draw(r, "algorithm"),
			Limit:     amount.Draw(r, "limit"), Headroom: amount.Draw(r, "headroom"),
		}
		if s.Algorithm != limit.Concurrency {
			s.Window = limit.Micros(rapid.Int64Range(1, limit.MaxAmount/2).Draw(r, "window"))
		}
		if s.Algorithm == limit.TokenBucket {
			s.Burst = amount.Draw(r, "burst")
		}
		share := Share(rapid.Int64Range(1, int64(Whole)).Draw(r, "share"))
		local := localSpec(s, share)
		if err := local.Validate(); err != nil {
			r.Fatalf("%v: %+v", err, local)
		}
		if most := share.Of(s.Capacity()); local.Capacity() > most {
			r.Errorf("admits %d at once, of a share of %d", local.Capacity(), most)
		}
		if most := share.Of(s.Ceiling()); local.Ceiling() > most {
			r.Errorf("a ceiling of %d, of a share of %d", local.Ceiling(), most)
		}
		if s.Algorithm == limit.TokenBucket && local.Window < limit.Micros(limit.MaxAmount) &&
			float64(local.Limit)/float64(local.Window) > float64(s.Limit)/float64(s.Window)*float64(share)/float64(Whole)*(1+1e-12) {
			r.Errorf("%d per %d is faster than %v of %d per %d", local.Limit, local.Window, share, s.Limit, s.Window)
		}
	})
}
