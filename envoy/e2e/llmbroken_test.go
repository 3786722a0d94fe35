package e2e

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// hangUpAfter sends a request for a stream and closes the connection when so many events with text have arrived.
func hangUpAfter(t testing.TB, e *envoy, r request, events int) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), r.method, e.url+r.path, strings.NewReader(r.body))
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
	lines := bufio.NewScanner(resp.Body)
	for events > 0 && lines.Scan() {
		if line := lines.Text(); strings.HasPrefix(line, "data: ") && hasText(line) {
			events--
		}
	}
	if events > 0 {
		t.Fatalf("code %d, and %d events have not arrived: %v", resp.StatusCode, events, lines.Err())
	}
}

// TestLLMBrokenOff shows what is charged of a stream whose reader leaves: its input, by the bytes of the request where the API
// tells of it at the end only, and of its output four tokens for an event. So nobody reads for nothing, and where events have
// more tokens than that, what was read is charged in part.
func TestLLMBrokenOff(t *testing.T) {
	for file, apis := range bootstrapsOf {
		t.Run(file, func(t *testing.T) {
			e, server, behind := startScriptedLLM(t, file, llmPolicy)
			provider := startFakeLLM(t)
			for _, name := range apis {
				for chunk, least := range map[int]float64{1: 3, 4: 1, 8: 0.5} {
					t.Run(fmt.Sprintf("%s, %d tokens to an event", name, chunk), func(t *testing.T) {
						const events, most = 100, 5
						api := llmAPIs[name]
						fields := map[string]any{"stream": true, api.outputCap: 5000}
						if name == "chat" {
							fields["stream_options"] = map[string]any{"include_usage": true} // or Envoy says so, and the request is larger
						}
						r := api.ask("ann", fmt.Sprintf("input-tokens=30 output-tokens=5000 chunk-tokens=%d", chunk), fields)
						behind.at(api.path, stream(beginning(send(t, "http://"+provider.addr, r).body, events), "hold"))
						before := server.standings(t, "ann")["tokens"].used
						hangUpAfter(t, e, r, events)

						input := int64(len(r.body)/4 + 1)
						if name == "messages" {
							input = 30 // told in the beginning
						}
						var charged int64
						eventually(t, "the call has ended", func() error {
							stands := server.standings(t, "ann")
							charged = stands["tokens"].used - before - input
							if stands["tokens"].held > 0 || charged <= 0 {
								return fmt.Errorf("%+v", stands)
							}
							return nil
						})
						part := float64(charged) / float64(events*chunk)
						t.Logf("%.1f tokens of output were charged for each", part)
						if part < least || part > most {
							t.Errorf("want %.1f to %d", least, most)
						}
					})
				}
			}
		})
	}
}

// beginning returns a stream of events until so many of them have had text.
func beginning(body string, events int) string {
	var begun strings.Builder
	for event := range strings.SplitAfterSeq(body, "\n\n") {
		begun.WriteString(event)
		if hasText(event) {
			events--
		}
		if events == 0 {
			break
		}
	}
	return begun.String()
}

// hasText says that an event, or the line with its data, has text of the model.
func hasText(event string) bool {
	return strings.Contains(event, `"text_delta"`) || strings.Contains(event, `"delta":{"content":"`) || strings.Contains(event, `"response.output_text.delta"`)
}

// TestLLMBrokenOffAtMost shows that a stream which breaks is never charged more output than was asked for.
func TestLLMBrokenOffAtMost(t *testing.T) {
	for file, apis := range bootstrapsOf {
		t.Run(file, func(t *testing.T) {
			l := startLLM(t, file, memory)
			for _, name := range apis {
				t.Run(name, func(t *testing.T) {
					api := llmAPIs[name]
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
						input = 30 // told in the beginning
					}
					l.ration.stands(t, "ann", "tokens", standing{used: before + input + 100})
				})
			}
		})
	}
}

// TestLLMLeftEarly shows that who leaves before there is an answer pays the input, by the bytes of the request.
func TestLLMLeftEarly(t *testing.T) {
	for file, apis := range bootstrapsOf {
		t.Run(file, func(t *testing.T) {
			e, server, behind := startScriptedLLM(t, file, llmPolicy)
			var input int64
			for _, name := range apis {
				r := llmAPIs[name].ask("ann", "", nil)
				behind.at(r.path, silence)
				leaving, leave := context.WithCancel(t.Context())
				left := make(chan error)
				go func() {
					_, err := try(leaving, e.url, r)
					left <- err
				}()
				eventually(t, "the model is asked", func() error {
					if behind.requests(r.path) == 0 {
						return fmt.Errorf("it was not")
					}
					return nil
				})
				leave()
				if err := <-left; err == nil {
					t.Error("there is an answer")
				}
				input += int64(len(r.body)/4 + 1)
				server.stands(t, "ann", "tokens", standing{used: input})
			}
		})
	}
}
