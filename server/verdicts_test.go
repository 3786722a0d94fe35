package server_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	rationv1 "github.com/rationhq/ration/gen/ration/v1"
	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/server"
	"github.com/rationhq/ration/store"
)

// Every verdict is an answer, no error: what it says, and what an application may answer by it.
func TestVerdicts(t *testing.T) {
	used := func(c *rationv1.Caller, n int64) func(*testing.T, *site) {
		return func(t *testing.T, s *site) {
			if _, err := s.Record(t.Context(), &rationv1.RecordRequest{Caller: c, Usage: tokens(n, 0), Requests: proto.Int64(0)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	unpriced := alice(func(c *rationv1.Caller) { c.Model = "smal" })
	for _, c := range []struct {
		name     string
		policy   string // other than accounts
		before   func(*testing.T, *site)
		ask      *rationv1.ReserveRequest
		verdict  rationv1.Verdict
		message  string
		wait     time.Duration // 0: it says none
		limit    string        // that binds
		tooLarge bool
		http     int32
		retry    string // x-should-retry
		error    string // in the body
	}{
		{
			name: "admitted", ask: &rationv1.ReserveRequest{Caller: alice(), Estimate: estimate(10, 10)},
			verdict: rationv1.Verdict_VERDICT_ADMITTED, limit: "llm.user.at-once", http: 200,
		},
		{
			name: "throttled",
			before: func(t *testing.T, s *site) {
				for range 5 {
					r, err := s.Reserve(t.Context(), &rationv1.ReserveRequest{Caller: alice()})
					if err != nil {
						t.Fatal(err)
					}
					if _, err := s.Settle(t.Context(), &rationv1.SettleRequest{ReservationId: r.GetReservation().GetId()}); err != nil {
						t.Fatal(err)
					}
				}
				s.clock.Advance(48*limit.Second + 1)
			},
			ask:     &rationv1.ReserveRequest{Caller: alice()},
			verdict: rationv1.Verdict_VERDICT_THROTTLED, wait: 12*time.Second - time.Microsecond, limit: "llm.user.requests", http: 429, retry: "true",
			message: "Rate limit reached: 5 requests per minute on the free plan. Try again in 12 s.", error: "rate_limited",
		},
		{
			name: "exhausted", before: used(alice(), 950), ask: &rationv1.ReserveRequest{Caller: alice(), Estimate: estimate(10, 100)},
			verdict: rationv1.Verdict_VERDICT_EXHAUSTED, wait: 12 * time.Hour, limit: "llm.user.tokens", http: 429, retry: "false",
			message: "Daily quota used up: 950 of 1,000 tokens; 50 left. Resets at 00:00 (UTC).", error: "quota_exhausted",
		},
		{
			name: "impossible", ask: &rationv1.ReserveRequest{Caller: alice(), Estimate: estimate(100, 801)},
			verdict: rationv1.Verdict_VERDICT_IMPOSSIBLE, limit: "llm.user.tokens", tooLarge: true, http: 400, retry: "false",
			message: "Request too large: 901 tokens, 900 per request. At most 800 output tokens would fit.", error: "request_too_large",
		},
		{
			name: "throttled by a plain rule", ask: &rationv1.ReserveRequest{Caller: as("plain")},
			before: func(t *testing.T, s *site) {
				if _, err := s.Reserve(t.Context(), &rationv1.ReserveRequest{Caller: as("plain")}); err != nil {
					t.Fatal(err)
				}
			},
			verdict: rationv1.Verdict_VERDICT_THROTTLED, wait: time.Minute, limit: "llm.plain", http: 429, retry: "true",
			message: "Rate limit reached: 1 request per minute. Try again in 60 s.", error: "rate_limited",
		},
		{
			name: "blocked by a plain rule", ask: &rationv1.ReserveRequest{Caller: as("closed")},
			verdict: rationv1.Verdict_VERDICT_BLOCKED, limit: "llm.closed", http: 403, retry: "false",
			message: "This request is not allowed: its limit is zero.", error: "blocked",
		},
		{
			name: "used up, of those who have to pay", before: used(as("paid"), 10), ask: &rationv1.ReserveRequest{Caller: as("paid"), Estimate: estimate(1, 0)},
			policy:  strings.Replace(accounts, "trust_tier: true", "trust_tier: true\nexhausted_status: 402", 1),
			verdict: rationv1.Verdict_VERDICT_EXHAUSTED, wait: 12 * time.Hour, limit: "llm.paid.tokens", http: 402, retry: "false",
			message: "Daily quota used up: 10 of 10 tokens. Resets at 00:00 (UTC).", error: "quota_exhausted",
		},
		{
			name: "blocked by a limit of zero", ask: &rationv1.ReserveRequest{Caller: as("banned")},
			verdict: rationv1.Verdict_VERDICT_BLOCKED, limit: "llm.banned.none", http: 403, retry: "false",
			message: "This request is not allowed: its limit is zero.", error: "blocked",
		},
		{
			name: "blocked by a model without a price", ask: &rationv1.ReserveRequest{Caller: unpriced},
			verdict: rationv1.Verdict_VERDICT_BLOCKED, limit: "llm.user.budget", http: 403, retry: "false",
			message: "This request is not allowed: the model smal has no price here. Did you mean small?", error: "blocked",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.policy == "" {
				c.policy = accounts
			}
			s := serve(t, c.policy, nil, server.Config{})
			if c.before != nil {
				c.before(t, s)
			}
			checked, err := s.Check(t.Context(), &rationv1.CheckRequest{Caller: c.ask.GetCaller(), Estimate: c.ask.GetEstimate()})
			if err != nil {
				t.Fatal(err)
			}
			got, err := s.Reserve(t.Context(), c.ask)
			if err != nil {
				t.Fatal(err)
			}
			d := got.GetDecision()
			if v := checked.GetDecision().GetVerdict(); v != c.verdict || d.GetVerdict() != c.verdict {
				t.Fatalf("Check says %v, Reserve %v, want %v", v, d.GetVerdict(), c.verdict)
			}
			admitted := c.verdict == rationv1.Verdict_VERDICT_ADMITTED
			if (got.GetReservation() != nil) != admitted || d.GetMessage() != c.message {
				t.Errorf("reservation %v, message %q\nwant    %q", got.GetReservation(), d.GetMessage(), c.message)
			}
			binding := d.GetLimits()[0]
			if binding.GetLimit() != c.limit || binding.GetRefuses() == admitted || binding.GetTooLarge() != c.tooLarge {
				t.Errorf("%v binds, want %s", binding, c.limit)
			}
			if w := d.GetRetryAfter().AsDuration(); w != c.wait || (d.GetRetryAfter() == nil) != (c.wait == 0) ||
				(binding.GetRetryAfter() == nil) != (c.wait == 0) || binding.GetRetryAfter().AsDuration() != c.wait {
				t.Errorf("retry after %v, of the limit %v, want %v", d.GetRetryAfter(), binding.GetRetryAfter(), c.wait)
			}
			h := d.GetHttp()
			if h.GetStatus() != c.http || h.GetHeaders()["x-should-retry"] != c.retry || (h.GetHeaders()["retry-after"] == "") != (c.wait == 0) {
				t.Errorf("status %d with %v, want %d, x-should-retry %q", h.GetStatus(), h.GetHeaders(), c.http, c.retry)
			}
			if admitted {
				if h.GetBody() != "" {
					t.Errorf("an admitted call has the body %s", h.GetBody())
				}
				return
			}
			var body struct {
				Title, Error, Message string
				Status                int32
			}
			if err := json.Unmarshal([]byte(h.GetBody()), &body); err != nil {
				t.Fatal(err)
			}
			titles := map[int32]string{400: "Bad Request", 402: "Payment Required", 403: "Forbidden", 429: "Too Many Requests"}
			if body.Status != c.http || body.Title != titles[c.http] || body.Error != c.error || body.Message != c.message {
				t.Errorf("body %s", h.GetBody())
			}
		})
	}
}

// Where no limit applies there is nothing to tell; and nothing bounds the output.
func TestNoLimits(t *testing.T) {
	s := serve(t, "domain: open\nlimits: []\n", nil, server.Config{})
	got, err := s.Check(t.Context(), &rationv1.CheckRequest{Caller: &rationv1.Caller{Domain: "open"}, Estimate: estimate(5, 6)})
	if err != nil {
		t.Fatal(err)
	}
	if len(got.GetDecision().GetPolicyVersion()) < 8 {
		t.Error("the policy has no version")
	}
	got.GetDecision().PolicyVersion = ""
	expectJSON(t, "checked", got, `{"decision": {"verdict": "VERDICT_ADMITTED", "http": {"status": 200}, "estimate": {"inputTokens": 5, "outputTokens": 6}}}`)
}

// Limits in shadow are told of, and that they refuse nobody; so are plain rules, and a price that is only assumed.
func TestShadowAndAssumed(t *testing.T) {
	s := serve(t, `
domain: llm
prices: { book: none, unknown_model: assume_max, models: { small: { input: "1.00", output: "2.00", cache_read: "0.50", cache_write: "1.25" } } }
limits: [ { name: all, meter: requests, algorithm: fixed_window, limit: 0/minute, shadow: true }, { name: spend, meter: cost, limit: $1/month } ]
descriptors: [ { key: user, shadow_mode: true, rate_limit: { unit: hour, requests_per_unit: 100 } } ]
`, nil, server.Config{})
	got, err := s.Check(t.Context(), &rationv1.CheckRequest{Caller: alice(func(c *rationv1.Caller) { c.Model = "new" }), Estimate: estimate(1, 1)})
	if err != nil {
		t.Fatal(err)
	}
	shadow := map[string]bool{}
	for _, l := range got.GetDecision().GetLimits() {
		shadow[l.GetLimit()] = l.GetShadow()
		if l.GetRefuses() {
			t.Errorf("%v refuses", l)
		}
	}
	if want := map[string]bool{"llm.all": true, "llm.user": true, "llm.spend": false}; !maps.Equal(shadow, want) {
		t.Errorf("in shadow are %v, want %v", shadow, want)
	}
	if d := got.GetDecision(); !d.GetPrice().GetAssumed() || d.GetVerdict() != rationv1.Verdict_VERDICT_ADMITTED {
		t.Errorf("%v by %v", d.GetVerdict(), d.GetPrice())
	}
}

// Without the store a call may be refused all the same, where that is so whatever was counted. Of the limits about which
// nothing is known nothing is told.
func TestRefusedForGoodWithoutTheStore(t *testing.T) {
	s := serve(t, `
domain: llm
limits:
  - { name: none, meter: requests, algorithm: fixed_window, limit: 0/minute, on_store_error: deny }
  - { name: some, meter: requests, algorithm: fixed_window, limit: 5/minute, on_store_error: deny }
`, failing{store.ErrUnavailable}, server.Config{})
	got, err := s.Reserve(t.Context(), &rationv1.ReserveRequest{Caller: &rationv1.Caller{Domain: "llm"}})
	if err != nil {
		t.Fatal(err)
	}
	d := got.GetDecision()
	if d.GetVerdict() != rationv1.Verdict_VERDICT_BLOCKED || d.GetDegraded() != "deny" || len(d.GetLimits()) != 1 || d.GetLimits()[0].GetLimit() != "llm.none" {
		t.Errorf("%v, degraded %q, by %v", d.GetVerdict(), d.GetDegraded(), d.GetLimits())
	}
	if p := d.GetHttp().GetHeaders()["ratelimit-policy"]; p != `"llm.none";q=0;w=60` {
		t.Errorf("ratelimit-policy: %s", p)
	}
}

// A call under way hears whether it may go on; no limit refuses it, however full it is.
func TestProgress(t *testing.T) {
	s := serve(t, `
domain: llm
descriptors: [ { key: user, subject: true, limits: [ { name: tokens, meter: tokens, algorithm: calendar, limit: 1_000/day } ] } ]
`, nil, server.Config{})
	reserved, err := s.Reserve(t.Context(), &rationv1.ReserveRequest{Caller: alice(), Estimate: estimate(100, 900)})
	if err != nil {
		t.Fatal(err)
	}
	id := reserved.GetReservation().GetId()
	progress := func(output int64, want string) {
		t.Helper()
		got, err := s.Progress(t.Context(), &rationv1.ProgressRequest{ReservationId: id, Usage: tokens(100, output), Lease: durationpb.New(time.Minute)})
		if err != nil {
			t.Fatal(err)
		}
		expectJSON(t, fmt.Sprint("after ", output), got, want)
	}
	const full = `{"limit": "llm.user.tokens", "name": "tokens", "meter": "METER_TOKENS", "quantity": "1,000 tokens per day", "capacity": "1000",
		"resetsAt": "2026-11-24T00:00:00Z"`
	progress(300, `{"advice": "ADVICE_CONTINUE", "maxOutputTokens": "900", "expiresAt": "2026-11-23T12:01:00Z", "state": "STATE_OPEN",
		"limits": [`+full+`, "held": "1000"}]}`)
	if _, err := s.Record(t.Context(), &rationv1.RecordRequest{Caller: alice(), Usage: tokens(200, 0)}); err != nil {
		t.Fatal(err)
	}
	progress(300, `{"advice": "ADVICE_WRAP_UP", "maxOutputTokens": "700", "expiresAt": "2026-11-23T12:01:00Z", "state": "STATE_OPEN",
		"limits": [`+full+`, "used": "200", "held": "1000", "remaining": "-200"}]}`)
	progress(700, `{"advice": "ADVICE_STOP", "maxOutputTokens": "700", "expiresAt": "2026-11-23T12:01:00Z", "state": "STATE_OPEN",
		"limits": [`+full+`, "used": "200", "held": "1000", "remaining": "-200"}]}`)
	if _, err := s.Settle(t.Context(), &rationv1.SettleRequest{ReservationId: id, Usage: tokens(100, 700)}); err != nil {
		t.Fatal(err)
	}
	progress(700, `{"advice": "ADVICE_STOP", "maxOutputTokens": "900", "state": "STATE_SETTLED",
		"limits": [`+full+`, "used": "1000"}]}`)
}

// What stands in the way is only held: it may be over earlier.
func TestEstimatedWait(t *testing.T) {
	s := serve(t, accounts, nil, server.Config{})
	var got *rationv1.ReserveResponse
	for range 4 {
		var err error
		if got, err = s.Reserve(t.Context(), &rationv1.ReserveRequest{Caller: alice()}); err != nil {
			t.Fatal(err)
		}
	}
	d := got.GetDecision()
	if d.GetVerdict() != rationv1.Verdict_VERDICT_THROTTLED || !d.GetRetryAfterEstimated() || d.GetRetryAfter().AsDuration() != 5*time.Minute {
		t.Errorf("%v after %v, estimated %t; want THROTTLED until the first lease ends, estimated",
			d.GetVerdict(), d.GetRetryAfter(), d.GetRetryAfterEstimated())
	}
}

func TestClampedEstimate(t *testing.T) {
	s := serve(t, accounts, nil, server.Config{})
	got, err := s.Check(t.Context(), &rationv1.CheckRequest{Caller: as("cut"), Estimate: estimate(10, 500)})
	if err != nil {
		t.Fatal(err)
	}
	d := got.GetDecision()
	if !d.GetClamped() || d.GetMaxOutputTokens() != 50 || d.GetEstimate().GetOutputTokens() != 50 {
		t.Errorf("clamped %t to %v, estimate %v; want 50", d.GetClamped(), d.MaxOutputTokens, d.GetEstimate())
	}
}

// Caps and choices count by their values, under whatever names; and a request that is sent again is the same one,
// although the order of a map is not.
func TestPrompt(t *testing.T) {
	s := serve(t, accounts, nil, server.Config{})
	r := &rationv1.ReserveRequest{
		Caller: as("other"), IdempotencyKey: "k",
		Estimate: &rationv1.Estimate{Of: &rationv1.Estimate_Prompt{Prompt: &rationv1.Prompt{
			Characters: 41, OutputCaps: map[string]int64{"max_tokens": 10, "whatever.maxOut": 30, "c": 11, "d": 12, "e": 13},
			Choices: map[string]int64{"n": 2, "best_of": 3, "x": 1},
		}}},
	}
	for i := range 20 {
		got, err := s.Reserve(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		if e := got.GetDecision().GetEstimate(); e.GetInputTokens() != 11 || e.GetOutputTokens() != 90 || got.GetReplayed() != (i > 0) {
			t.Fatalf("estimate %v, replayed %t: want 11 in, 90 out", e, got.GetReplayed())
		}
	}
}

func TestRecordAndRelease(t *testing.T) {
	s := serve(t, accounts, nil, server.Config{})
	reserved, err := s.Reserve(t.Context(), &rationv1.ReserveRequest{Caller: alice(), Estimate: estimate(100, 200)})
	if err != nil {
		t.Fatal(err)
	}
	for _, again := range []bool{false, true} {
		released, err := s.Release(t.Context(), &rationv1.ReleaseRequest{ReservationId: reserved.GetReservation().GetId()})
		if err != nil {
			t.Fatal(err)
		}
		if released.GetState() != rationv1.State_STATE_SETTLED || released.GetReplayed() != again {
			t.Errorf("released: %v", released)
		}
	}
	for _, again := range []bool{false, true} {
		recorded, err := s.Record(t.Context(), &rationv1.RecordRequest{Caller: alice(), Usage: tokens(1000, 500), IdempotencyKey: "r"})
		if err != nil {
			t.Fatal(err)
		}
		left := map[string]int64{}
		for _, l := range recorded.GetLimits() {
			left[l.GetName()] = l.GetRemaining()
		}
		want := map[string]int64{"requests": 4, "tokens": -500, "budget": 998_000_000}
		if recorded.GetReplayed() != again || recorded.GetCost() != 2_000_000 || recorded.GetPrice().GetEntry() != "small" || !maps.Equal(left, want) {
			t.Errorf("recorded: %v\nleft %v, want %v", recorded, left, want)
		}
	}
	unpriced, err := s.Record(t.Context(), &rationv1.RecordRequest{
		Caller: alice(func(c *rationv1.Caller) { c.Model = "new" }), Usage: tokens(1, 0), Requests: proto.Int64(3),
	})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(unpriced.GetWarnings(), []string{"The model new has no price here: no money was charged."}) || unpriced.GetPrice() != nil {
		t.Errorf("of a model without a price: %v", unpriced)
	}
	uncounted, err := s.Record(t.Context(), &rationv1.RecordRequest{Caller: alice(), Usage: tokens(1, 0), Requests: proto.Int64(0)})
	if err != nil {
		t.Fatal(err)
	}
	if slices.ContainsFunc(uncounted.GetLimits(), func(l *rationv1.LimitStatus) bool { return l.GetName() == "requests" }) {
		t.Errorf("usage of no request was counted as one: %v", uncounted)
	}
	for _, l := range unpriced.GetLimits() {
		if l.GetName() == "requests" && l.GetAmount() != 3 {
			t.Errorf("%d requests, want 3", l.GetAmount())
		}
	}
}

// A reservation that has lapsed is corrected; one of which nothing is known is recorded, where its caller is named.
func TestStates(t *testing.T) {
	s := serve(t, accounts, nil, server.Config{})
	reserved, err := s.Reserve(t.Context(), &rationv1.ReserveRequest{Caller: alice(), Estimate: estimate(100, 200)})
	if err != nil {
		t.Fatal(err)
	}
	s.clock.Advance(5 * 60 * limit.Second)
	lapsed, err := s.Settle(t.Context(), &rationv1.SettleRequest{
		ReservationId: reserved.GetReservation().GetId(), Usage: tokens(100, 60), Model: "new",
	})
	if err != nil {
		t.Fatal(err)
	}
	warning := []string{"The model new has no price here: the price of the one that was reserved was charged."}
	if lapsed.GetState() != rationv1.State_STATE_LAPSED || lapsed.GetCost() != 220_000 || !slices.Equal(lapsed.GetWarnings(), warning) {
		t.Errorf("lapsed: %v", lapsed)
	}
	unknown, err := s.Settle(t.Context(), &rationv1.SettleRequest{
		ReservationId: "00000000000000000000000000000001", Usage: tokens(10, 0), Caller: alice(),
	})
	if err != nil {
		t.Fatal(err)
	}
	if unknown.GetState() != rationv1.State_STATE_RECORDED {
		t.Errorf("unknown: %v", unknown)
	}
}
