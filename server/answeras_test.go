package server_test

import (
	"strings"
	"testing"

	rationv1 "github.com/rationhq/ration/gen/ration/v1"
	"github.com/rationhq/ration/server"
)

// An application that offers an API of its own has answers to hand on that are that API's. How it is answered makes no
// other request.
func TestAnswerAs(t *testing.T) {
	s := serve(t, accounts, nil, server.Config{})
	ask := &rationv1.ReserveRequest{Caller: alice(), Estimate: estimate(10, 10), IdempotencyKey: "call-1"}
	for api := range rationv1.ModelApi_name {
		ask.AnswerAs = rationv1.ModelApi(api)
		got, err := s.Reserve(t.Context(), ask)
		if err != nil {
			t.Fatalf("%v: %v", ask.GetAnswerAs(), err)
		}
		for name, of := range map[string]rationv1.ModelApi{
			"anthropic-ratelimit-": rationv1.ModelApi_MODEL_API_ANTHROPIC, "x-ratelimit-": rationv1.ModelApi_MODEL_API_OPENAI,
		} {
			told := false
			for field := range got.GetDecision().GetHttp().GetHeaders() {
				told = told || strings.HasPrefix(field, name)
			}
			if want := ask.GetAnswerAs() == rationv1.ModelApi_MODEL_API_UNSPECIFIED || ask.GetAnswerAs() == of; told != want {
				t.Errorf("%v: fields %s…: %v, want %v", ask.GetAnswerAs(), name, told, want)
			}
		}
	}
	blocked := &rationv1.CheckRequest{Caller: alice(func(c *rationv1.Caller) { c.Model = "smal" }), Estimate: estimate(10, 10)}
	for api, want := range map[rationv1.ModelApi]string{
		rationv1.ModelApi_MODEL_API_UNSPECIFIED: `"status":403,`,
		rationv1.ModelApi_MODEL_API_ANTHROPIC:   `{"type":"error","error":{"type":"permission_error",`,
		rationv1.ModelApi_MODEL_API_OPENAI:      `"code":"blocked",`,
	} {
		blocked.AnswerAs = api
		got, err := s.Check(t.Context(), blocked)
		if err != nil {
			t.Fatal(err)
		}
		if h := got.GetDecision().GetHttp(); h.GetStatus() != 403 || !strings.Contains(h.GetBody(), want) {
			t.Errorf("%v: %d, %s; want %s", api, h.GetStatus(), h.GetBody(), want)
		}
	}
}
