package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

// hangUp sends a request for a stream and closes the connection when so many events with text have arrived.
func (l *llm) hangUp(t testing.TB, r request, events int) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), r.method, l.url+r.path, strings.NewReader(r.body))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range r.header {
		req.Header.Set(name, value)
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(resp.Body)
		t.Fatalf("code %d: %s", resp.StatusCode, body)
	}
	lines := bufio.NewScanner(resp.Body)
	for seen := 0; seen < events && lines.Scan(); {
		if line := lines.Text(); strings.HasPrefix(line, "data: ") && strings.Contains(line, `delta"`) {
			seen++
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
}

// TestLLMBrokenOff shows what is charged of a stream whose reader leaves: its input, by the bytes of the request where the API
// tells of it at the end only, and of its output four tokens for an event. So nobody reads for nothing, and where events have
// more tokens than that, what was read is charged in part.
func TestLLMBrokenOff(t *testing.T) {
	for _, file := range []string{"llm-anthropic.yaml", "llm-openai.yaml", "llm-reserve.yaml"} {
		t.Run(file, func(t *testing.T) {
			l := startLLM(t, file, memory)
			for name, api := range llmAPIs {
				if file == "llm-anthropic.yaml" && name != "messages" || file == "llm-openai.yaml" && name == "messages" {
					continue
				}
				for chunk, least := range map[int]float64{1: 1, 4: 0.9, 8: 0.4} {
					t.Run(fmt.Sprintf("%s, %d tokens to an event", name, chunk), func(t *testing.T) {
						testLLMBrokenOff(t, l, api, chunk, least)
					})
				}
			}
		})
	}
}

func testLLMBrokenOff(t *testing.T, l *llm, api llmAPI, chunk int, least float64) {
	const events, most = 100, 5
	send(t, "http://"+l.model.addr, request{method: http.MethodPost, path: "/fake/reset"})
	before := l.ration.standings(t, "ann")["tokens"].used
	r := api.ask("ann", fmt.Sprintf("input-tokens=30 output-tokens=10000 chunk-tokens=%d tokens-per-second=4000", chunk),
		map[string]any{"stream": true, api.outputCap: 5000})
	l.hangUp(t, r, events)
	input := int64(len(r.body)/4 + 1)
	if api.path == "/v1/messages" {
		input = 30 // told in the beginning
	}
	var charged, served int64
	eventually(t, "the call has ended everywhere", func() error {
		ledger, _ := l.model.ledger(t)
		stands := l.ration.standings(t, "ann")
		served, charged = ledger.Served.Output, stands["tokens"].used-before-input
		if ledger.Open > 0 || stands["tokens"].held > 0 || charged <= 0 {
			return fmt.Errorf("%d open at the model, %+v", ledger.Open, stands)
		}
		return nil
	})
	t.Logf("%d tokens of output were written, and %d charged", served, charged)
	if part := float64(charged) / float64(served); served < events || part < least || part > most {
		t.Errorf("%d of %d tokens of output were charged, want %.1f to %d of one", charged, served, least, most)
	}
}

// TestLLMBrokenOffAtMost shows that a stream which breaks is never charged more output than was asked for.
func TestLLMBrokenOffAtMost(t *testing.T) {
	l := startLLM(t, "llm-reserve.yaml", memory)
	for name, api := range llmAPIs {
		t.Run(name, func(t *testing.T) {
			before := l.ration.standings(t, "ann")["tokens"].used
			fields := map[string]any{"stream": true, api.outputCap: 100}
			if name == "chat" {
				fields["stream_options"] = map[string]any{"include_usage": true} // or Envoy says so, and the request is larger
			}
			r := api.ask("ann", "input-tokens=30 output-tokens=100 abort-after=90", fields)
			if _, err := try(t.Context(), l.url, r); err == nil {
				t.Error("the answer is whole")
			}
			input := int64(len(r.body)/4 + 1)
			if name == "messages" {
				input = 30
			}
			l.ration.stands(t, "ann", "tokens", standing{used: before + input + 100})
		})
	}
}
