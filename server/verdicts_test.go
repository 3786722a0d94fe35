package server_test

import (
	"encoding/json"
	"maps"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	rationv1 "github.com/rationhq/ration/gen/ration/v1"
	"github.com/rationhq/ration/limit"
	"github.com/rationhq/ration/server"
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
			s := serve(t, accounts, nil, server.Config{})
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
			if w := d.GetRetryAfter().AsDuration(); w != c.wait || (d.GetRetryAfter() == nil) != (c.wait == 0) || binding.GetRetryAfter().AsDuration() != c.wait {
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
			titles := map[int32]string{400: "Bad Request", 403: "Forbidden", 429: "Too Many Requests"}
			if body.Status != c.http || body.Title != titles[c.http] || body.Error != c.error || body.Message != c.message {
				t.Errorf("body %s", h.GetBody())
			}
		})
	}
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
	if lapsed.GetState() != rationv1.State_STATE_LAPSED || lapsed.GetCost() != 220_000 || len(lapsed.GetWarnings()) != 1 {
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
