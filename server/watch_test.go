package server_test

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	rationv1 "github.com/rationhq/ration/gen/ration/v1"
	"github.com/rationhq/ration/server/failure"
)

// patience bounds every wait for something that is certain to happen.
const patience = 20 * time.Second

// watchOver watches over gRPC, from when it is certain that nothing is missed.
func watchOver(t *testing.T, c rationv1.UsageServiceClient, r *rationv1.WatchEventsRequest, token ...string) (rationv1.UsageService_WatchEventsClient, metadata.MD) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	for _, a := range token {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", a)
	}
	stream, err := c.WatchEvents(ctx, r)
	if err != nil {
		t.Fatal(err)
	}
	header, err := stream.Header()
	if err != nil {
		t.Fatal(err)
	}
	return stream, header
}

// watchAsJSON watches over HTTP.
func watchAsJSON(t *testing.T, addr, body string) (code int, header http.Header, lines *bufio.Scanner) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+addr+"/ration.v1.UsageService/WatchEvents", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = answer.Body.Close() })
	return answer.StatusCode, answer.Header, bufio.NewScanner(answer.Body)
}

// Whoever watches hears of a threshold at once, over gRPC and over HTTP, the same under the same id; and afterwards what
// it has missed.
func TestWatchEvents(t *testing.T) {
	everywhere(t, func(t *testing.T, o *office) {
		stream, md := watchOver(t, o, &rationv1.WatchEventsRequest{Domain: "llm", Subject: "user=alice", Kinds: []string{"threshold"}})
		after := md.Get("ration-after")
		if len(after) != 1 || after[0] == "" {
			t.Errorf("the header says %v", md)
		}
		code, header, lines := watchAsJSON(t, o.Addr("HTTP"), `{"subject": "user=alice", "kinds": ["threshold"]}`)
		if code != 200 || header.Get("Content-Type") != "application/x-ndjson" || header.Get("Ration-After") == "" {
			t.Errorf("over HTTP: %d %v", code, header)
		}
		o.record(t, user("bob"), 0, 900)
		o.record(t, user("alice"), 0, 900)
		e, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if e.GetKind() != "threshold" || e.GetDomain() != "llm" || e.GetSubject() != "user=alice" || e.GetLimit() != "llm.user.tokens" ||
			e.GetThresholdPercent() != 80 || e.GetUsed() != 900 || e.GetCapacity() != 1000 || time.Since(e.GetTime().AsTime()).Abs() > time.Minute ||
			!e.GetResetsAt().AsTime().After(time.Now()) ||
			!strings.HasPrefix(e.GetMessage(), "You have used 90 % of your monthly quota of 1,000 tokens: 900. It resets ") {
			t.Errorf("told %v", e)
		}
		var same struct{ ID, Subject, Used string }
		if !lines.Scan() || json.Unmarshal(lines.Bytes(), &same) != nil || same.ID != e.GetId() || same.Subject != "user=alice" || same.Used != "900" {
			t.Errorf("over HTTP: %s", lines.Text())
		}
		missed, _ := watchOver(t, o, &rationv1.WatchEventsRequest{After: after[0], Kinds: []string{"threshold"}})
		for _, want := range []string{"user=bob", "user=alice"} {
			if e, err := missed.Recv(); err != nil || e.GetSubject() != want {
				t.Errorf("missed: %v %v, want one of %s", e, err, want)
			}
		}
	})
}

// What cannot be asked for is said before anything is told, over HTTP as every error.
func TestWatchEventsErrors(t *testing.T) {
	o := administer(t)
	for body, want := range map[string]said{
		`{"kinds": ["weather"]}`:  {codes.InvalidArgument, "INVALID_FIELD", "kinds[0]", false},
		`{"subject": "alice"}`:    {codes.InvalidArgument, "INVALID_FIELD", "subject", false},
		`{"after": "yesterday"}`:  {codes.InvalidArgument, "INVALID_FIELD", "after", false},
		`{"domain": "elsewhere"}`: {codes.FailedPrecondition, "UNKNOWN_DOMAIN", "", false},
	} {
		var r rationv1.WatchEventsRequest
		if err := json.Unmarshal([]byte(body), &r); err != nil {
			t.Fatal(err)
		}
		stream, err := o.WatchEvents(t.Context(), &r)
		if err == nil {
			_, err = stream.Recv()
		}
		if got := saidBy(t, err); got != want {
			t.Errorf("%s: %+v: %v", body, got, err)
		}
		code, _, lines := watchAsJSON(t, o.Addr("HTTP"), body)
		if lines.Scan(); code != 400 || !strings.Contains(lines.Text(), `"reason":"`+want.reason+`"`) {
			t.Errorf("%s over HTTP: %d %s", body, code, lines.Text())
		}
	}
}

// The end of the server ends those who watch, with a reason, and waits for none of them.
func TestWatchersEndWithTheServer(t *testing.T) {
	o := administer(t)
	stream, _ := watchOver(t, o, &rationv1.WatchEventsRequest{})
	_, _, lines := watchAsJSON(t, o.Addr("HTTP"), `{}`)
	o.halt()
	_, err := stream.Recv()
	if status.Code(err) != codes.Unavailable || failure.ReasonOf(err) != failure.Stopping {
		t.Errorf("over gRPC: %v", err)
	}
	var last string
	for lines.Scan() {
		last = lines.Text()
	}
	if !strings.HasPrefix(last, `{"error":{"code":14,`) || !strings.Contains(last, `"STOPPING"`) {
		t.Errorf("over HTTP the last line is %q", last)
	}
}

// Who is bound hears of its own alone; and no more once its token is gone, or means something else.
func TestWatchEventsByToken(t *testing.T) {
	g := gatedBy(t, func() time.Time { return time.Unix(0, 0) }, everybody)
	c := rationv1.NewUsageServiceClient(client(t, loopback(t, g.Addr("gRPC"))))
	looks, _ := watchOver(t, c, &rationv1.WatchEventsRequest{}, g.as("looks"))
	reader, _ := watchOver(t, c, &rationv1.WatchEventsRequest{Kinds: []string{"threshold"}}, g.as("reader"))
	for _, name := range []string{"bob", "alice"} {
		r := &rationv1.RecordRequest{Caller: user(name), Usage: &rationv1.Usage{OutputTokens: 900}}
		if got := g.ask(t, "AccountingService/Record", r, &rationv1.RecordResponse{}, g.as("app")); got != passes {
			t.Fatal(got)
		}
	}
	if e, err := looks.Recv(); err != nil || e.GetSubject() != "user=alice" {
		t.Errorf("alice hears %v %v", e, err)
	}
	for _, want := range []string{"user=bob", "user=alice"} {
		if e, err := reader.Recv(); err != nil || e.GetSubject() != want {
			t.Errorf("all is %v %v, want %s", e, err, want)
		}
	}
	for name, kinds := range map[string][]string{"looks": {"policy"}, "llm": {"degraded"}} {
		r := &rationv1.WatchEventsRequest{Kinds: kinds}
		stream, err := c.WatchEvents(metadata.AppendToOutgoingContext(t.Context(), "authorization", g.as(name)), r)
		if err == nil {
			_, err = stream.Recv()
		}
		if status.Code(err) != codes.PermissionDenied || failure.ReasonOf(err) != failure.OutOfScope {
			t.Errorf("%s asks for %v: %v", name, kinds, err)
		}
	}
	file := "tokens:\n" + strings.Replace(g.entries, everybody["looks"], "may: read, subjects: [user=bob]", 1)
	var without []string
	for line := range strings.Lines(file) {
		if !strings.Contains(line, "name: reader,") {
			without = append(without, line)
		}
	}
	g.set(t, strings.Join(without, ""))
	if _, err := looks.Recv(); status.Code(err) != codes.Aborted || failure.ReasonOf(err) != failure.TokenChanged {
		t.Errorf("a token that is for others now: %v", err)
	}
	if _, err := reader.Recv(); status.Code(err) != codes.Unauthenticated {
		t.Errorf("a token that is gone: %v", err)
	}
}
