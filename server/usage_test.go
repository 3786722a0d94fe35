package server_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	rationv1 "github.com/rationhq/ration/gen/ration/v1"
	"github.com/rationhq/ration/server"
)

// record tells of usage for somebody.
func (o *office) record(t *testing.T, who *rationv1.Caller, input, output int64) {
	t.Helper()
	must[*rationv1.RecordResponse](t)(o.Record(t.Context(), &rationv1.RecordRequest{
		Caller: who, Usage: &rationv1.Usage{InputTokens: input, OutputTokens: output}}))
}

// Who has used most of a limit is told so, and when it will be used up.
func TestGetUsage(t *testing.T) {
	o := administer(t)
	o.record(t, user("alice"), 700, 100)
	got := must[*rationv1.GetUsageResponse](t)(o.GetUsage(t.Context(), &rationv1.GetUsageRequest{Caller: user("alice")}))
	if got.GetTier() != "free" || got.GetAskedAt() == nil || len(got.GetLimits()) != 6 {
		t.Errorf("%v", got)
	}
	if w := got.GetWarnings(); len(w) != 1 || w[0] != "You have used 80 % of your monthly quota." {
		t.Errorf("warned by %q", w)
	}
	first := got.GetLimits()[0]
	if s := first.GetStatus(); s.GetLimit() != "llm.user.tokens" || s.GetUsed() != 800 || s.GetRemaining() != 200 {
		t.Errorf("the scarcest is %v", first)
	}
	if (first.GetExhaustedIn() != nil) != strings.HasPrefix(first.GetForecast(), "exhausted in ") {
		t.Errorf("forecast %q, in %v", first.GetForecast(), first.GetExhaustedIn())
	}
	o.record(t, user("alice"), 200, 0)
	got = must[*rationv1.GetUsageResponse](t)(o.GetUsage(t.Context(), &rationv1.GetUsageRequest{Caller: user("alice")}))
	if f := got.GetLimits()[0]; f.GetForecast() != "exhausted" || f.GetExhaustedIn().AsDuration() != 0 {
		t.Errorf("used up: %v", f)
	}
}

// Explain says what Reserve would, from where the tier comes, and why each limit applies.
func TestExplain(t *testing.T) {
	o := administer(t)
	tier := "pro"
	must[*rationv1.PutSubjectResponse](t)(o.PutSubject(t.Context(), &rationv1.PutSubjectRequest{Subject: named("alice"), Actor: actor(), Tier: &tier}))
	o.record(t, user("alice"), 9_000, 0)
	got := must[*rationv1.ExplainResponse](t)(o.Explain(t.Context(), &rationv1.ExplainRequest{Caller: user("alice"), Estimate: estimate(1_000, 500)}))
	if got.GetDecision().GetVerdict() != rationv1.Verdict_VERDICT_EXHAUSTED || got.GetTierFrom() != "directory" {
		t.Errorf("decided %v, tier from %q", got.GetDecision().GetVerdict(), got.GetTierFrom())
	}
	first := got.GetReasons()[0]
	if first.GetStatus().GetLimit() != "llm.user.tokens" || !strings.HasPrefix(first.GetPlace(), "p.yaml:") ||
		strings.Join(first.GetBecause(), " ") != "user=alice" || first.GetMeaning() == "" {
		t.Errorf("it binds %v", first)
	}
	text := strings.Join(got.GetText(), "\n")
	for _, want := range []string{
		"Monthly quota used up", "It is made on the pro plan: the directory of subjects says so.",
		"llm.user.tokens, for user=alice (p.yaml:", "1,000 of 10,000 tokens per month left, resets on 1 ", ": it refuses",
		"llm.company, for everybody (p.yaml:",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("it does not say %q:\n%s", want, text)
		}
	}
	if used := o.stands(t, "tokens"); used != "tokens:9000/10000 pro" {
		t.Errorf("it has changed something: %s", used)
	}
}

// What was used is reported by time and group, and adds up.
func TestQueryUsage(t *testing.T) {
	everywhere(t, testQueryUsage)
}

func testQueryUsage(t *testing.T, o *office) {
	team := func(c *rationv1.Caller, name string) *rationv1.Caller {
		c.Attributes["team"] = name
		return c
	}
	o.record(t, team(user("alice"), "a"), 100, 50)
	o.record(t, team(user("alice"), "b"), 200, 0)
	o.record(t, team(user("bob"), "a"), 30, 0)
	from := timestamppb.New(time.Now().Add(-time.Hour))
	query := func(r *rationv1.QueryUsageRequest) *rationv1.QueryUsageResponse {
		t.Helper()
		r.Domain, r.From = "llm", from
		return must[*rationv1.QueryUsageResponse](t)(o.QueryUsage(t.Context(), r))
	}
	total := query(&rationv1.QueryUsageRequest{Resolution: rationv1.Resolution_RESOLUTION_TOTAL})
	if u := total.GetTotal(); len(total.GetRows()) != 1 || u.GetRequests() != 3 || u.GetUsage().GetInputTokens() != 330 ||
		u.GetUsage().GetOutputTokens() != 50 || u.GetCost() != 430_000 || u.GetTokensPerRequest() != 127 {
		t.Errorf("in all: %v", total)
	}
	byTeam := query(&rationv1.QueryUsageRequest{Resolution: rationv1.Resolution_RESOLUTION_TOTAL, GroupBy: []string{"team", "tier"}}).GetRows()
	if len(byTeam) != 2 || byTeam[0].GetGroup()["team"] != "a" || byTeam[0].GetGroup()["tier"] != "free" || byTeam[0].GetUsage().GetInputTokens() != 130 ||
		byTeam[1].GetGroup()["team"] != "b" || byTeam[1].GetRequests() != 1 {
		t.Errorf("by team: %v", byTeam)
	}
	for i := range 40 { // more than are read at once
		o.record(t, user(fmt.Sprintf("u%02d", i)), int64(i+1), 0)
	}
	bySubject := query(&rationv1.QueryUsageRequest{Resolution: rationv1.Resolution_RESOLUTION_TOTAL, GroupBy: []string{"subject"}})
	hers := map[string]int64{}
	for _, row := range bySubject.GetRows() {
		hers[row.GetGroup()["subject"]] = row.GetUsage().GetInputTokens()
	}
	if len(hers) != 42 || hers["user=alice"] != 300 || hers["user=bob"] != 30 || hers["user=u00"] != 1 || hers["user=u39"] != 40 ||
		bySubject.GetTotal().GetUsage().GetInputTokens() != 330+40*41/2 {
		t.Errorf("by subject: %v, in all %v", hers, bySubject.GetTotal())
	}
	alice := query(&rationv1.QueryUsageRequest{Subject: "user=alice", Resolution: rationv1.Resolution_RESOLUTION_HOUR})
	if u := alice.GetTotal(); u.GetRequests() != 2 || u.GetUsage().GetInputTokens() != 300 {
		t.Errorf("hers: %v", alice)
	}
	for _, row := range alice.GetRows() {
		if at := row.GetStart().AsTime(); at.Truncate(time.Hour) != at || time.Since(at) > 2*time.Hour {
			t.Errorf("an hour begins at %v", at)
		}
	}
	top := must[*rationv1.TopUsageResponse](t)(o.TopUsage(t.Context(), &rationv1.TopUsageRequest{Domain: "llm", By: rationv1.Ranking_RANKING_TOKENS, Month: true}))
	if s := top.GetSubjects(); len(s) != 10 || s[0].GetSubject() != "user=alice" || s[0].GetAmount() != 350 || s[1].GetSubject() != "user=u39" ||
		s[1].GetAmount() != 40 || top.GetStart().AsTime().Day() != 1 {
		t.Errorf("the most: %v", top)
	}
}

// What cannot be answered says what to ask instead.
func TestUsageErrors(t *testing.T) {
	o := administer(t)
	invalid := func(field string) said { return said{codes.InvalidArgument, "INVALID_FIELD", field, false} }
	now := timestamppb.Now()
	old := timestamppb.New(time.Now().AddDate(-2, 0, 0))
	for _, c := range []struct {
		name, method string
		request      proto.Message
		want         said
		says         string
	}{
		{"no caller", "GetUsage", &rationv1.GetUsageRequest{}, invalid("caller.domain"), ""},
		{"no caller to explain", "Explain", &rationv1.ExplainRequest{}, invalid("caller.domain"), ""},
		{"no domain", "QueryUsage", &rationv1.QueryUsageRequest{From: now}, invalid("domain"), ""},
		{"unknown domain", "QueryUsage", &rationv1.QueryUsageRequest{Domain: "x", From: now}, said{codes.FailedPrecondition, "UNKNOWN_DOMAIN", "", false}, ""},
		{"no beginning", "QueryUsage", &rationv1.QueryUsageRequest{Domain: "llm"}, invalid("from"), "2026-11-01"},
		{"before it begins", "QueryUsage", &rationv1.QueryUsageRequest{Domain: "llm", From: now, To: old}, invalid("to"), "not after"},
		{"too many hours", "QueryUsage", &rationv1.QueryUsageRequest{Domain: "llm", From: old, Resolution: rationv1.Resolution_RESOLUTION_HOUR}, invalid("from"), "or for days"},
		{"no instant", "QueryUsage", &rationv1.QueryUsageRequest{Domain: "llm", From: &timestamppb.Timestamp{Seconds: -5}}, invalid("from"), "1970"},
		{"no subject", "QueryUsage", &rationv1.QueryUsageRequest{Domain: "llm", From: now, Subject: "alice"}, invalid("subject"), "user=alice"},
		{"no group", "QueryUsage", &rationv1.QueryUsageRequest{Domain: "llm", From: old, GroupBy: []string{"city"}}, invalid("group_by[0]"), "tier, model, team"},
		{"no resolution", "QueryUsage", &rationv1.QueryUsageRequest{Domain: "llm", From: now, Resolution: 9}, invalid("resolution"), "RESOLUTION_DAY"},
		{"no top", "TopUsage", &rationv1.TopUsageRequest{}, invalid("domain"), ""},
		{"too many", "TopUsage", &rationv1.TopUsageRequest{Domain: "llm", Limit: 1001}, invalid("limit"), "1000"},
		{"no ranking", "TopUsage", &rationv1.TopUsageRequest{Domain: "llm", By: 9}, invalid("by"), "RANKING_COST"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := client(t, o.Addr("gRPC")).Invoke(t.Context(), "/ration.v1.UsageService/"+c.method, c.request, &rationv1.GetUsageResponse{})
			if got := saidBy(t, err); got != c.want {
				t.Errorf("%+v, want %+v: %v", got, c.want, err)
			}
			if !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v does not say %q", err, c.says)
			}
		})
	}
}

// What somebody uses is told to callers on the same machine alone, as AccountingService is.
func TestUsageIsNotForEverybody(t *testing.T) {
	s := serve(t, accounts, nil, server.Config{GRPCAddr: ":0", HTTPAddr: ":0"})
	_, err := rationv1.NewUsageServiceClient(client(t, loopback(t, s.Addr("gRPC")))).GetUsage(t.Context(), &rationv1.GetUsageRequest{Caller: alice()})
	if got := saidBy(t, err); got != (said{codes.Unauthenticated, "NOT_AUTHENTICATED", "", false}) {
		t.Errorf("%+v: %v", got, err)
	}
	if got := post(t, loopback(t, s.Addr("HTTP")), "ration.v1.UsageService/TopUsage", `{"domain": "llm"}`); got.status != 401 {
		t.Errorf("as JSON: %+v", got)
	}
}
