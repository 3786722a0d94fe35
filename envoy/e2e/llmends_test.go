package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// TestLLMEnds shows what the bootstraps tell ration when a call has ended, by how it did.
func TestLLMEnds(t *testing.T) {
	const whole = "input_tokens 25; cache_read 7; cache_write 0; output_tokens 15; done"
	asked := llmAPIs["messages"].ask("ann", "", map[string]any{"max_tokens": 100})
	facts := []struct {
		name   string
		answer http.HandlerFunc
		want   string
	}{
		{"JSON", say(messageJSON), whole},
		{"a stream", stream(messageStart, messageText, messageDelta, messageStop), whole},
		{"a stream that is broken off: its input, and its output by the bytes",
			stream(messageStart, strings.Repeat(messageText, 4), "abort"), "input_tokens 25; cache_read 7; cache_write 0; output_tokens 21; done"},
		{"never more output than was asked for",
			stream(messageStart, strings.Repeat(messageText, 50), "abort"), "input_tokens 25; cache_read 7; cache_write 0; output_tokens 100; done"},
		{"broken off before it has told of its input: by the bytes of the request",
			stream(": nothing yet\n\n", "abort"), fmt.Sprintf("input_tokens %d; output_tokens 0; done", len(asked.body)/4+1)},
		{"an error", refuse(500, `{"type":"error"}`), "failed"},
		{"an error, which has used something", refuse(529, messageJSON), "input_tokens 25; cache_read 7; cache_write 0; output_tokens 15; failed"},
		{"a whole answer that tells no usage", say(`{"model":"m"}`), "done"},
		{"a whole stream that tells none", stream(messageText, messageStop), "done"},
	}
	service, behind := startScripted(t), startModel(t)
	e := startEnvoy(t, fromFile(t, "../llm-reserve.yaml", behind.addr, service.addr))
	for _, f := range facts {
		t.Run(f.name, func(t *testing.T) {
			service.will(answering(ok))
			behind.at("/v1/messages", f.answer)
			_, _ = try(t.Context(), e.url, asked)
			service.ends(t, f.want)
		})
	}
}

// ends waits for the newest call of Envoy to be the end of a request, in short: what is recorded, and the last phase.
func (s *scripted) ends(t testing.TB, want string) {
	t.Helper()
	var got []string
	eventually(t, "Envoy tells of the end", func() error {
		calls := s.asked()
		if len(calls) < 2 {
			return fmt.Errorf("%d calls", len(calls))
		}
		got = nil
		for descriptor := range strings.SplitSeq(calls[len(calls)-1], "; ") {
			descriptor, _, _ = strings.Cut(descriptor, ", ration.provider.") // see TestLLMFollowsTheProvider
			last := descriptor[strings.LastIndex(descriptor, "=")+1:]
			got = append(got, strings.Replace(last, " hits", "", 1))
		}
		return nil
	})
	if strings.Join(got, "; ") != want {
		t.Errorf("Envoy tells %s\nwant        %s", strings.Join(got, "; "), want)
	}
}
