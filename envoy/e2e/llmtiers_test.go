package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// TestLLMTiers shows that the caller's tier says which model answers and how much it writes at most, that this is what is held
// and charged, and that the tier's model leads to another cluster. ann is premium, bob pro and carol free.
func TestLLMTiers(t *testing.T) {
	policy, err := os.ReadFile(llmPolicy)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	// A model of one's own for those who pay nothing.
	own := strings.NewReplacer("openai_model: gpt-5-mini", "openai_model: house-small",
		"  models:\n    claude-haiku", "  models:\n    house-small: { input: \"0.01\", output: \"0.02\", cache_read: \"0\", cache_write: \"0\" }\n    claude-haiku").Replace(string(policy))
	house := startFakeLLM(t)
	l := startLLMWith(t, "llm-tiers.yaml", memory, policyFile(t, own), []string{"--response-metadata"}, func(b bootstrap) {
		b.endpoints(t, "house", house.addr)
	})
	asks := func(t *testing.T, r request) string {
		t.Helper()
		maps.Copy(r.header, forgeries)
		got := send(t, l.url, r)
		if got.code != http.StatusOK {
			t.Fatalf("code %d, want 200: %s", got.code, got.body)
		}
		var answer struct{ Model string }
		if err := json.Unmarshal([]byte(got.body), &answer); err != nil {
			t.Fatalf("%s: %v", got.body, err)
		}
		return answer.Model
	}
	lastCap := func(t *testing.T, m *fakellm, field string) (most float64) {
		t.Helper()
		var last struct{ Body json.RawMessage }
		told := send(t, "http://"+m.addr, request{path: "/fake/last"}).body
		if err := json.Unmarshal([]byte(told), &last); err != nil {
			t.Fatalf("%s: %v", told, err)
		}
		var text string
		body := map[string]any{}
		if json.Unmarshal(last.Body, &text) == nil {
			last.Body = json.RawMessage(text)
		}
		if err := json.Unmarshal(last.Body, &body); err != nil {
			t.Fatalf("%s: %v", told, err)
		}
		most, _ = body[field].(float64)
		return most
	}
	for _, f := range []struct {
		user, api, asked string
		most             any
		model            string
		cap              float64
	}{
		{"ann", "messages", "claude-sonnet-4-6", 100, "claude-sonnet-4-6", 100},
		{"ann", "messages", "claude-sonnet-4-6", 20000, "claude-sonnet-4-6", 16384},
		{"ann", "chat", "gpt-5", nil, "gpt-5", 16384},
		{"bob", "messages", "claude-opus-4-5", 20000, "claude-haiku-4-5", 4096},
		{"bob", "chat", "gpt-5-mini", nil, "gpt-5", 4096},
		{"bob", "responses", "gpt-5-mini", 100, "gpt-5", 100},
		{"carol", "messages", "claude-opus-4-5", 5000, "claude-haiku-4-5", 1024},
		{"carol", "messages", "no-such-model", 10, "claude-haiku-4-5", 10},
		{"carol", "chat", "gpt-5", 5000, "house-small", 1024},
	} {
		t.Run(fmt.Sprintf("%s asks %s for %v tokens of %s", f.user, f.api, f.most, f.asked), func(t *testing.T) {
			api := llmAPIs[f.api]
			served := l.model
			if f.model == "house-small" {
				served = house
			}
			r := api.ask(f.user, "input-tokens=10 output-tokens=100000", map[string]any{"model": f.asked, api.outputCap: f.most})
			if model := asks(t, r); model != f.model {
				t.Errorf("%s has answered, want %s", model, f.model)
			}
			if most := lastCap(t, served, api.outputCap); most != f.cap {
				t.Errorf("the model was to write %v tokens at most, want %v", most, f.cap)
			}
			l.ration.stands(t, f.user, "in-flight", standing{})
		})
	}
	t.Run("what is charged is what the tier's model costs", func(t *testing.T) {
		l.ration.stands(t, "carol", "tokens", standing{used: 10 + 1024 + 10 + 10 + 10 + 1024})
		l.ration.stands(t, "carol", "spend", standing{used: (10+10)*1000 + (1024+10)*5000 + 10*10 + 1024*20})
	})
	t.Run("who asks for the tier has not made a call by that", func(t *testing.T) {
		for user, want := range map[string]int64{"ann": 3, "bob": 3, "carol": 3} {
			if got := l.ration.used(t, began)[user]; got.Requests != want {
				t.Errorf("%s has made %d calls by ration's account, want %d", user, got.Requests, want)
			}
		}
	})
	t.Run("what is held is what the tier allows", func(t *testing.T) {
		before := l.ration.standings(t, "bob")["tokens"].used
		r := llmAPIs["messages"].ask("bob", "first-byte=10s", map[string]any{"max_tokens": 20000})
		conn, err := dial(t, strings.TrimPrefix(l.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nx-api-key: key-of-bob\r\nanthropic-version: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s",
			r.path, len(r.body), r.body)
		sent := strings.Replace(r.body, "20000", "4096", 1)
		l.ration.stands(t, "bob", "tokens", standing{used: before, held: int64(len(sent)/4+1) + 4096})
	})
}

// TestLLMTiersUnknown shows that nothing is served where ration was not told to tell the tier.
func TestLLMTiersUnknown(t *testing.T) {
	l := startLLM(t, "llm-tiers.yaml", memory)
	for name, api := range llmAPIs {
		if got := send(t, l.url, api.ask("ann", "output-tokens=4", nil)); got.code != http.StatusServiceUnavailable || !strings.Contains(got.body, "--response-metadata") {
			t.Errorf("%s: code %d, body %s", name, got.code, got.body)
		}
	}
	if total, _ := l.model.ledger(t); total.Requests > 0 {
		t.Error("the model was asked")
	}
}
