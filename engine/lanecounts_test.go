package engine_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rationhq/ration/engine"
	"github.com/rationhq/ration/policy"
	"github.com/rationhq/ration/store/memory"
)

// inLane runs a test on an engine with a policy, by a clock that goes on when all wait.
func inLane(t *testing.T, text string, test func(t *testing.T, b bench, m *engine.Metrics)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := memory.New(memory.Options{})
		defer s.Close()
		m := engine.NewMetrics()
		e := engine.New(s, engine.Options{Metrics: m})
		defer e.Close()
		reload(t, e, text)
		test(t, bench{e, nil, s}, m)
	})
}

const countedInLane = `
domain: llm
tiers: [ { name: free }, { name: pro } ]
trust_tier: true
anonymous: { by: remote_address }
prices: { models: { small: { input: $1, output: $2 } } }
descriptors:
  - key: user
    subject: true
    limits:
      - { name: requests, meter: requests, algorithm: fixed_window, limit: 4/day, count_denied: true, warn_at: 25% }
      - { name: trial, meter: requests, algorithm: fixed_window, limit: 1/day, shadow: true }
      - { name: size, meter: output_tokens, algorithm: fixed_window, limit: 100_000/day, per_request: 1_000 }
      - { name: spend, meter: cost, algorithm: calendar, limit: $1/day }
  - key: route
    rate_limit: { unit: day, requests_per_unit: 10, name: route }
lanes:
  - name: provider
    max_concurrent: 1
    max_wait: 30s
`

// tries has all who wait try in vain, so many times.
func tries(t *testing.T, b bench, n int) {
	for range n {
		reload(t, b.Engine, countedInLane)
		time.Sleep(time.Second)
		synctest.Wait()
	}
}

// However often a call tries, it is counted once: by its limits, in shadow or not, by `rate_limit` rules, in the rows of usage
// and in the metrics; and what it crosses is told of once. What has no turn is counted as a refusal, once, and by no limit.
func TestCountedOnceInALane(t *testing.T) {
	inLane(t, countedInLane, func(t *testing.T, b bench, m *engine.Metrics) {
		ctx, unwatch := context.WithCancel(t.Context())
		w := b.watch(ctx, t, engine.EventQuery{Subject: policy.Entry{Key: "user", Value: "ann"}})
		first := now(t, b.Engine, callOf("holder", "pro", 1))
		var answers []<-chan *engine.Decision
		for i := range 2 {
			done := make(chan *engine.Decision, 1)
			answers = append(answers, done)
			go func() {
				done <- b.askIn(t, "llm", entries("user=ann", "ration.tier=pro", fmt.Sprint("ration.request=", i), "ration.lane=provider"), entries("route=chat"))
			}()
			synctest.Wait()
		}
		tries(t, b, 5)
		settle(t, b.Engine, first, 1)
		if d := <-answers[0]; d.Over || d.Waiting.For < 5*time.Second {
			t.Errorf("%s %+v", d.Message(), d.Waiting)
		}
		tries(t, b, 5)
		if d := <-answers[1]; !d.Over || d.Waiting.Ended != engine.WaitedTooLong {
			t.Errorf("%s %+v", d.Message(), d.Waiting)
		}
		time.Sleep(2 * time.Second) // until refusals are in the rows
		counted := gather(t, m)
		for name, want := range map[string]float64{
			"ration_calls_total domain=llm stage=admitted":                                        1,
			"ration_decisions_total domain=llm rule=llm.route verdict=admitted":                   2,
			"ration_hits_total domain=llm rule=llm.route verdict=admitted":                        2,
			"ration_decisions_total domain=llm rule=llm.lanes.provider.places verdict=over_limit": 1,
			"ration_decisions_total domain=llm rule=llm.user.trial verdict=shadow":                1,
			"ration_lane_waiting domain=llm lane=provider":                                        0,
			"ration_usage_rows_lost_total":                                                        0,
			"ration_decisions_total domain=llm rule=llm.user.requests verdict=over_limit":         0,
			"ration_decisions_total domain=llm rule=llm.lanes.provider.places verdict=admitted":   2, // the holder's, too
		} {
			if counted[name] != want {
				t.Errorf("%s: %v, want %v", name, counted[name], want)
			}
		}
		d := b.askIn(t, "llm", hits(0, "user=ann", "ration.tier=pro"), hits(0, "route=chat"))
		expect(t, "its limits", sayLimits(d), "OK requests:1 trial:1? size:0 spend:0")
		expect(t, "what is left of its rule", fmt.Sprint(d.Statuses[1].Remaining), "8")
		const row = "[] requests 1 refusals [0 1 0 0 0] input 0+0+0 output 0 cost 0, 0 each; "
		expect(t, "its rows", b.used(t, "ann"), row+row)
		expect(t, "what is told", told(t, w, 1)[0], "threshold user=ann llm.user.requests 25")
		unwatch()
		if e, err := w.Next(ctx); err == nil {
			t.Errorf("told again: %+v", e)
		}
	})
}

// What refuses a call in a lane because of itself refuses it at once, and is not counted, whatever the limit says of refusals:
// it is asked about again and again.
func TestRefusedInALane(t *testing.T) {
	inLane(t, countedInLane, func(t *testing.T, b bench, _ *engine.Metrics) {
		first := now(t, b.Engine, callOf("holder", "pro", 1))
		refused := func(what string, c *engine.Call, want engine.Verdict, limit string) {
			t.Helper()
			a := now(t, b.Engine, c)
			if a.err != nil || a.Verdict() != want || a.Waiting.Ended != engine.WaitedForTurn || a.Statuses[a.Binding()].Limit.Name != limit {
				t.Errorf("%s: %v, %v %s %+v", what, a.err, a.Verdict(), a.Message(), a.Waiting)
			}
		}
		refused("more than one call may ask for", callOf("ann", "pro", 1_001), engine.Impossible, "size")
		dear := callOf("bob", "pro", 1)
		dear.Usage.Input = 2_000_000
		refused("more than the budget", dear, engine.Impossible, "spend")
		for range 4 {
			b.reserve(t, callOf("carol", "pro", 1))
		}
		for range 3 {
			refused("no requests left", callOf("carol", "pro", 1), engine.Throttled, "requests")
		}
		count := func() string {
			return sayLimits(b.askIn(t, "llm", hits(0, "user=carol", "ration.tier=pro")))
		}
		expect(t, "what is refused in a lane", count(), "OVER requests:0+4! trial:0+4? size:0+4 spend:0+8000")
		b.reserve(t, callOf("carol", "pro", 1))
		expect(t, "what is refused elsewhere", count(), "OVER requests:1+4! trial:0+4? size:0+4 spend:0+8000")
		settle(t, b.Engine, first, 1)
	})
}

// Who names no user takes turns by address; and where nobody is named at all, all come first served.
func TestNobodyInALane(t *testing.T) {
	for text, want := range map[string]string{
		countedInLane: "[1.a 2.a 1.b 1.c]",
		strings.Replace(countedInLane, "anonymous: { by: remote_address }\n", "", 1): "[1.a 1.b 1.c 2.a]",
	} {
		inLane(t, text, func(t *testing.T, b bench, _ *engine.Metrics) {
			first := now(t, b.Engine, callOf("holder", "pro", 1))
			order := make(chan string, 4)
			for _, who := range []string{"1.a", "1.b", "1.c", "2.a"} {
				address, _, _ := strings.Cut(who, ".")
				go func() {
					c := &engine.Call{Caller: engine.Caller{Domain: "llm", Attributes: []policy.Entry{{Key: "remote_address", Value: address}}}}
					var a acquired
					a.err = b.Acquire(t.Context(), c, &engine.Place{Lane: "provider"}, &a.Admission)
					order <- who
					settle(t, b.Engine, a, 1)
				}()
				synctest.Wait()
			}
			settle(t, b.Engine, first, 1)
			expect(t, "the order", fmt.Sprint([]string{<-order, <-order, <-order, <-order}), want)
			synctest.Wait()
		})
	}
}

// A drain lets calls through one at a time, evenly, however many wait, and for however long none has come.
func TestDrainOfALane(t *testing.T) {
	inLane(t, strings.Replace(countedInLane, "max_concurrent: 1", "drain: 5/second", 1), func(t *testing.T, b bench, _ *engine.Metrics) {
		for range 2 {
			time.Sleep(time.Hour)
			began := time.Now()
			at := make(chan time.Duration, 20)
			for i := range cap(at) {
				go func() {
					var a acquired
					a.err = b.Acquire(t.Context(), callOf(fmt.Sprint(i), "pro", 1), &engine.Place{Lane: "provider"}, &a.Admission)
					at <- time.Since(began)
					settle(t, b.Engine, a, 1)
				}()
			}
			for i := range cap(at) {
				if got, want := <-at, time.Duration(i)*200*time.Millisecond; got < want || got > want+time.Millisecond {
					t.Errorf("the call number %d goes after %v, want %v", i, got, want)
				}
			}
			synctest.Wait()
		}
	})
}

// A tier that is at its ceiling waits, and those above it do not.
func TestCeilingsInALane(t *testing.T) {
	text := strings.Replace(countedInLane, "lanes:\n", `upstreams:
  - name: provider
    models: [ small ]
    limits: [ { name: rpm, meter: requests, algorithm: token_bucket, rate: 60/minute, burst: 10, ceiling: { free: 50%, pro: 100% } } ]
lanes:
`, 1)
	text = strings.Replace(text, "max_concurrent: 1", "upstream: provider\n    drain: 1_000/second", 1)
	inLane(t, text, func(t *testing.T, b bench, _ *engine.Metrics) {
		began := time.Now()
		go1 := func(user, tier string) time.Duration {
			var a acquired
			a.err = b.Acquire(t.Context(), callOf(user, tier, 1), &engine.Place{Lane: "provider"}, &a.Admission)
			settle(t, b.Engine, a, 1)
			return time.Since(began)
		}
		for i := range 5 {
			go1(fmt.Sprint(i), "free")
		}
		free := make(chan time.Duration, 1)
		go func() { free <- go1("late", "free") }()
		synctest.Wait()
		for i := range 4 {
			if at := go1(fmt.Sprint("p", i), "pro"); at > 100*time.Millisecond {
				t.Errorf("the pro has waited until %v", at)
			}
		}
		// 9 are used, and a free user's is the sixth at most: one a second goes.
		if at := <-free; at < 3900*time.Millisecond || at > 5*time.Second {
			t.Errorf("the free one goes after %v", at)
		}
	})
}

// Tiers have their shares of the turns.
func TestWeightsOfALane(t *testing.T) {
	text := strings.Replace(countedInLane, "max_concurrent: 1", "drain: 100/second\n    max_wait: 1m\n    max_waiting: { total: 1_000 }\n    weighted: { free: 1, pro: 3 }", 1)
	inLane(t, strings.Replace(text, "    max_wait: 30s\n", "", 1), func(t *testing.T, b bench, _ *engine.Metrics) {
		ctx, leave := context.WithCancel(t.Context())
		turns := map[string]int{}
		served := make(chan string, 1_000)
		for i := range 800 {
			tier := []string{"free", "pro"}[i%2]
			go func() {
				var a engine.Admission
				if b.Acquire(ctx, callOf(fmt.Sprint(i), tier, 1), &engine.Place{Lane: "provider"}, &a) == nil {
					served <- tier
				}
			}()
		}
		for range 400 {
			turns[<-served]++
		}
		if n := turns["free"]; n < 95 || n > 105 {
			t.Errorf("of 400 turns the free had %d, want a quarter", n)
		}
		leave()
		synctest.Wait()
	})
}
