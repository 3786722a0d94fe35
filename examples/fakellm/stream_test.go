package main

import (
	"bufio"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"unicode/utf8"
)

// textOf joins the text of a stream of whichever API.
func textOf(t *testing.T, stream string) string {
	t.Helper()
	var text strings.Builder
	for line := range strings.Lines(stream) {
		data, found := strings.CutPrefix(line, "data: {")
		if !found {
			continue
		}
		text.WriteString(deltaOf(t, "{"+data))
	}
	return text.String()
}

// deltaOf is the text in one event of whichever API.
func deltaOf(t *testing.T, data string) string {
	t.Helper()
	var delta any
	switch e := decode[map[string]any](t, data); {
	case e["type"] == "content_block_delta":
		delta = e["delta"].(map[string]any)["text"]
	case e["type"] == "response.output_text.delta":
		delta = e["delta"]
	case e["choices"] != nil && len(e["choices"].([]any)) > 0:
		delta = e["choices"].([]any)[0].(map[string]any)["delta"].(map[string]any)["content"]
	}
	text, _ := delta.(string)
	return text
}

// A body in pieces, a compressed one and one that ends late are the same body.
func TestSameBody(t *testing.T) {
	for api := range paths {
		t.Run(api, func(t *testing.T) {
			f := newFake(t, options{})
			plain := textOf(t, f.call(t, api, `"stream":true`, "").body)
			if utf8.RuneCountInString(plain) == len(plain) {
				t.Fatalf("there is no character of several bytes in %q", plain)
			}
			for _, words := range []string{
				"split=1", "split=3 chunk-tokens=20", "slow-close=1ms", "compress=true", "compress=true split=7",
			} {
				// Go's client asks for gzip by itself, and undoes it.
				if text := textOf(t, f.call(t, api, `"stream":true`, words).body); text != plain {
					t.Errorf("%s: %q, want %q", words, text, plain)
				}
			}
		})
	}
}

// A split body is written in pieces that cut through characters and lines.
func TestSplit(t *testing.T) {
	f := newFake(t, options{})
	w := &pieceWriter{ResponseWriter: httptest.NewRecorder()}
	f.routes().ServeHTTP(w, f.ask(t, "messages", `"stream":true`, "split=3"))
	inCharacter, inLine := 0, 0
	for _, piece := range w.pieces {
		if len(piece) > 3 {
			t.Fatalf("%q is longer than asked for", piece)
		}
		if !utf8.ValidString(piece) {
			inCharacter++
		}
		if !strings.HasSuffix(piece, "\n") {
			inLine++
		}
	}
	if inCharacter == 0 || inLine == 0 {
		t.Errorf("of %d pieces %d end within a character, and %d within a line", len(w.pieces), inCharacter, inLine)
	}
}

// pieceWriter keeps what each Write brought.
type pieceWriter struct {
	http.ResponseWriter
	pieces []string
}

func (w *pieceWriter) Write(data []byte) (int, error) {
	w.pieces = append(w.pieces, string(data))
	return w.ResponseWriter.Write(data)
}

func (w *pieceWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Bodies are compressed for those who take it only.
func TestCompress(t *testing.T) {
	f := newFake(t, options{Script: "compress"})
	for accept, want := range map[string]string{"gzip": "gzip", "br, gzip;q=0.5": "gzip", "identity": "", "gzip;q=0": ""} {
		r := f.ask(t, "chat", "", "")
		r.Header.Set("Accept-Encoding", accept)
		got := f.send(t, r)
		wantHeaders(t, got, map[string]string{"content-encoding": want})
		body := io.Reader(strings.NewReader(got.body))
		if want != "" {
			var err error
			if body, err = gzip.NewReader(body); err != nil {
				t.Fatal(err)
			}
		}
		document, err := io.ReadAll(body)
		if err != nil {
			t.Fatal(err)
		}
		decode[chatCompletion](t, string(document))
	}
}

// A stream that its script aborts has exactly so many tokens, and then the connection is reset. The ledger has them too.
func TestAbort(t *testing.T) {
	for api := range paths {
		t.Run(api, func(t *testing.T) {
			f := newFake(t, options{})
			response, err := f.http.Client().Do(f.ask(t, api, `"stream":true`,
				"output-tokens=50 reasoning-tokens=4 abort-after=11 input-tokens=6"))
			if err != nil {
				t.Fatal(err)
			}
			defer response.Body.Close()
			body, err := io.ReadAll(response.Body)
			if !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the stream ended with %v, want a reset", err)
			}
			if n := utf8.RuneCountInString(textOf(t, string(body))); n != 7*charactersPerToken {
				t.Errorf("%d characters arrived, want 7 tokens of 4", n)
			}
			served := tokens{Input: 6, Output: 11, Reasoning: 4}
			want := counts{Requests: 1, Broken: 1, Served: served, Unfinished: served}
			if got := f.total(t); got != want {
				t.Errorf("the ledger says %+v, want %+v", got, want)
			}
		})
	}
}

// An answer in one document is aborted in the middle of it.
func TestAbortWhole(t *testing.T) {
	f := newFake(t, options{})
	response, err := f.http.Client().Do(f.ask(t, "chat", "", "output-tokens=50 abort-after=11 input-tokens=6"))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if body, err := io.ReadAll(response.Body); err == nil {
		t.Errorf("the body ended in good order: %s", body)
	}
	want := counts{Requests: 1, Broken: 1, Served: tokens{Input: 6}, Unfinished: tokens{Input: 6}}
	if got := f.total(t); got != want {
		t.Errorf("the ledger says %+v, want %+v", got, want)
	}
}

// Of a caller who hangs up the ledger says what was sent until it was seen: no less than arrived, and far less than
// what was planned.
func TestCallerHangsUp(t *testing.T) {
	for api := range paths {
		t.Run(api, func(t *testing.T) {
			f := newFake(t, options{})
			response, err := f.http.Client().Do(f.ask(t, api, `"stream":true,"max_tokens":900000`,
				"output-tokens=900000 chunk-tokens=1 tokens-per-second=1000 input-tokens=6"))
			if err != nil {
				t.Fatal(err)
			}
			arrived := int64(0)
			lines := bufio.NewScanner(response.Body)
			for arrived < 20 && lines.Scan() {
				if data, found := strings.CutPrefix(lines.Text(), "data: "); found && deltaOf(t, data) != "" {
					arrived++
				}
			}
			response.Body.Close()
			got := f.total(t)
			if got.Aborted != 1 || got.Served != got.Unfinished || got.Served.Input != 6 ||
				got.Served.Output < arrived || got.Served.Output > 100_000 {
				t.Errorf("%d tokens arrived, and the ledger says %+v", arrived, got)
			}
		})
	}
}

// The ledger has a row for every user and model, and forgets them on request; the last requests are shown as they came.
func TestLedger(t *testing.T) {
	f := newFake(t, options{UserHeader: "x-who", limitOptions: limitOptions{RPM: 3}, Keep: 2})
	send := func(user, words string) {
		r := f.ask(t, "chat", "", words)
		r.Header.Set("X-Who", user)
		f.send(t, r)
	}
	used := "input-tokens=10 cache-read-tokens=4 cache-write-tokens=2 output-tokens=8 reasoning-tokens=3"
	send("ada", used)
	send("ada", used)
	send("bob", "status=500")
	send("bob", used)
	send("bob", used)

	get := func(path string) answer {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, f.http.URL+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		return f.send(t, r)
	}
	got := decode[balance](t, get("/fake/ledger").body)
	once := tokens{Input: 10, CacheRead: 4, CacheWrite: 2, Output: 8, Reasoning: 3}
	twice := once
	twice.add(once)
	want := []row{
		{party{"chat", "key", "ada", "model"}, counts{Requests: 2, Completed: 2, Served: twice}},
		{party{"chat", "key", "bob", "model"}, counts{Requests: 3, Completed: 1, Failed: 1, Limited: 1, Served: once}},
	}
	if len(got.Rows) != 2 || got.Rows[0] != want[0] || got.Rows[1] != want[1] {
		t.Errorf("the ledger says %+v, want %+v", got.Rows, want)
	}
	twice.add(once)
	if total := (counts{Requests: 5, Completed: 3, Failed: 1, Limited: 1, Served: twice}); got.Total != total {
		t.Errorf("in total the ledger says %+v", got.Total)
	}

	kept := decode[[]arrival](t, get("/fake/requests").body)
	last := decode[arrival](t, get("/fake/last").body)
	if len(kept) != 2 || kept[1].Body != last.Body || last.Headers.Get("X-Who") != "bob" || last.Path != paths["chat"] ||
		decode[map[string]any](t, last.Body)["model"] != "model" {
		t.Errorf("the last requests are %+v", kept)
	}

	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, f.http.URL+"/fake/reset", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	f.send(t, r)
	if total := f.total(t); total != (counts{}) {
		t.Errorf("after a reset the ledger says %+v", total)
	}
	if got := get("/fake/last"); got.StatusCode != http.StatusNotFound {
		t.Errorf("after a reset a request is shown: %s", got.body)
	}
	wantStatus(t, f.call(t, "chat", "", ""), http.StatusOK)
}
