package main

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// The program says where it listens, speaks HTTP/2 too, where aborting ends one stream and not the connection, and
// ends when it is told to, whatever is open.
func TestRun(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	out, in := io.Pipe()
	program := program{Addr: "127.0.0.1:0", options: options{limitOptions: limitOptions{Burst: time.Minute}}}
	ended := make(chan error, 1)
	go func() { ended <- program.run(ctx, in) }()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	url := strings.TrimSpace(strings.TrimPrefix(line, "fakellm listens on "))

	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	defer transport.CloseIdleConnections()
	ask := func(words string) *http.Response {
		body := strings.NewReader(`{"model":"m","stream":true,"messages":[{"role":"user","content":"[fake ` + words + `]"}]}`)
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+paths["chat"], body)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer key")
		response, err := transport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		return response
	}
	endless := ask("output-tokens=1000000 tokens-per-second=1")
	defer endless.Body.Close()
	aborted := ask("output-tokens=20 abort-after=3")
	defer aborted.Body.Close()
	if aborted.ProtoMajor != 2 {
		t.Errorf("the protocol is %s", aborted.Proto)
	}
	body, err := io.ReadAll(aborted.Body)
	if n := strings.Count(string(body), `"content":"`); err == nil || n != 4 {
		t.Errorf("%d chunks and then %v, want the role, 3 tokens and a reset", n, err)
	}
	completed := ask("output-tokens=3")
	defer completed.Body.Close()
	if _, err := io.ReadAll(completed.Body); err != nil {
		t.Error(err)
	}

	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if _, err := io.ReadAll(endless.Body); err == nil {
		t.Error("the endless stream ended in good order")
	}
}

// What makes no sense is said at the start.
func TestOptions(t *testing.T) {
	for _, o := range []options{
		{limitOptions: limitOptions{Burst: time.Minute, RPM: -1}},
		{limitOptions: limitOptions{Burst: time.Minute, TPM: maxPerMinute + 1}},
		{limitOptions: limitOptions{Burst: 0}},
		{limitOptions: limitOptions{Burst: 2 * time.Minute}},
		{limitOptions: limitOptions{Burst: time.Minute, Concurrency: -1}},
		{limitOptions: limitOptions{Burst: time.Minute}, Keep: -1},
		{limitOptions: limitOptions{Burst: time.Minute}, Script: "output-tokens=x"},
		{limitOptions: limitOptions{Burst: time.Minute}, Script: "outputs=1"},
	} {
		if _, err := newServer(o); err == nil {
			t.Errorf("accepted: %+v", o)
		}
	}
}
