package gateway_test

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	rationv1 "github.com/rationhq/ration/gen/ration/v1"
	"github.com/rationhq/ration/server/failure"
	"github.com/rationhq/ration/server/gateway"
)

// teller is a service whose stream does what a test says.
type teller struct {
	rationv1.UnimplementedUsageServiceServer
	watch func(*rationv1.WatchEventsRequest, rationv1.UsageService_WatchEventsServer) error
}

func (s teller) WatchEvents(r *rationv1.WatchEventsRequest, stream rationv1.UsageService_WatchEventsServer) error {
	return s.watch(r, stream)
}

// stream calls WatchEvents of a gateway, whose server bounds what it reads and writes.
func stream(t *testing.T, opts gateway.Options, watch func(*rationv1.WatchEventsRequest, rationv1.UsageService_WatchEventsServer) error) answered {
	t.Helper()
	g := gateway.New(opts)
	rationv1.RegisterUsageServiceServer(g, teller{watch: watch})
	s := httptest.NewUnstartedServer(g)
	s.Config.ReadTimeout, s.Config.WriteTimeout = 50*time.Millisecond, 50*time.Millisecond
	s.Start()
	t.Cleanup(s.Close)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL+"/ration.v1.UsageService/WatchEvents", strings.NewReader(`{"subject": "user=a"}`))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer t")
	answer, err := s.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = answer.Body.Close() })
	return answered{answer.StatusCode, answer.Header, answer.Body}
}

// answered is an answer whose body is still to come.
type answered struct {
	code   int
	header http.Header
	body   io.ReadCloser
}

func textOf(t *testing.T, answer answered) string {
	t.Helper()
	text, err := io.ReadAll(answer.body)
	if err != nil {
		t.Errorf("the answer breaks off: %v", err)
	}
	return string(text)
}

// A message is a line, which comes at once; the header before any; what ends the stream is the last line. It lasts longer
// than other calls may.
func TestStream(t *testing.T) {
	next := make(chan string)
	answer := stream(t, gateway.Options{Heartbeat: time.Hour}, func(r *rationv1.WatchEventsRequest, s rationv1.UsageService_WatchEventsServer) error {
		md, _ := metadata.FromIncomingContext(s.Context())
		if r.GetSubject() != "user=a" || strings.Join(md.Get("authorization"), "") != "Bearer t" {
			t.Errorf("asked for %v by %v", r, md)
		}
		if err := s.SendHeader(metadata.Pairs("ration-after", "7")); err != nil {
			return err
		}
		for id := range next {
			if err := s.Send(&rationv1.WatchEventsResponse{Id: id, Used: 5}); err != nil || s.Context().Err() != nil {
				t.Errorf("send %s: %v, %v", id, err, s.Context().Err())
			}
		}
		return failure.New(codes.Aborted, failure.TooSlow, "too slow")
	})
	if answer.code != 200 || answer.header.Get("Content-Type") != "application/x-ndjson" || answer.header.Get("ration-after") != "7" {
		t.Errorf("%d %v", answer.code, answer.header)
	}
	lines := bufio.NewScanner(answer.body)
	for _, id := range []string{"1", "2", "3"} {
		time.Sleep(60 * time.Millisecond) // longer than the server's timeouts, which are for other calls
		next <- id
		if !lines.Scan() || !strings.HasPrefix(lines.Text(), `{"id":"`+id+`",`) || !strings.Contains(lines.Text(), `"used":"5"`) {
			t.Errorf("line %s: %q %v", id, lines.Text(), lines.Err())
		}
	}
	close(next)
	if !lines.Scan() || !strings.HasPrefix(lines.Text(), `{"error":{"code":10,"message":"too slow",`) || !strings.Contains(lines.Text(), `"TOO_SLOW"`) {
		t.Errorf("the last line: %q", lines.Text())
	}
	if lines.Scan() || lines.Err() != nil {
		t.Errorf("then: %q %v", lines.Text(), lines.Err())
	}
}

// patient is a service whose Reserve takes its time.
type patient struct {
	rationv1.UnimplementedAccountingServiceServer
	takes time.Duration
}

func (p patient) Reserve(ctx context.Context, _ *rationv1.ReserveRequest) (*rationv1.ReserveResponse, error) {
	select {
	case <-time.After(p.takes):
		return &rationv1.ReserveResponse{Replayed: true}, nil
	case <-ctx.Done():
		return nil, failure.Of(ctx.Err())
	}
}

// A call that asks to wait may take longer than others, and than the server lets answers take.
func TestWaits(t *testing.T) {
	waits := func(request any) time.Duration {
		return request.(*rationv1.ReserveRequest).GetWait().GetLongest().AsDuration()
	}
	for body, want := range map[string]int{`{"wait": {"longest": "20s"}}`: 200, `{}`: 504} {
		g := gateway.New(gateway.Options{Timeout: time.Millisecond, Waits: waits})
		rationv1.RegisterAccountingServiceServer(g, patient{takes: 60 * time.Millisecond})
		s := httptest.NewUnstartedServer(g)
		s.Config.WriteTimeout = 50 * time.Millisecond
		s.Start()
		t.Cleanup(s.Close)
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+"/ration.v1.AccountingService/Reserve", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		answer, err := s.Client().Do(r)
		if err != nil {
			t.Fatalf("%s: %v", body, err)
		}
		_ = answer.Body.Close()
		if answer.StatusCode != want {
			t.Errorf("%s: %d, want %d", body, answer.StatusCode, want)
		}
	}
}

// A stream that is silent has empty lines.
func TestHeartbeat(t *testing.T) {
	ended := make(chan struct{})
	answer := stream(t, gateway.Options{Heartbeat: 5 * time.Millisecond}, func(_ *rationv1.WatchEventsRequest, s rationv1.UsageService_WatchEventsServer) error {
		defer close(ended)
		if err := s.SendHeader(nil); err != nil {
			return err
		}
		<-s.Context().Done()
		return s.Context().Err()
	})
	lines := bufio.NewScanner(answer.body)
	for range 3 {
		if !lines.Scan() || lines.Text() != "" {
			t.Fatalf("a line is %q: %v", lines.Text(), lines.Err())
		}
	}
	_ = answer.body.Close()
	select {
	case <-ended: // by the next line that cannot be written
	case <-time.After(20 * time.Second):
		t.Error("the stream goes on although its caller has left")
	}
}

// What goes wrong before the first line is an error as any other, and a panic ends its call alone.
func TestStreamErrors(t *testing.T) {
	for name, c := range map[string]struct {
		watch func(*rationv1.WatchEventsRequest, rationv1.UsageService_WatchEventsServer) error
		code  int
		says  string
	}{
		"refused": {func(*rationv1.WatchEventsRequest, rationv1.UsageService_WatchEventsServer) error {
			return failure.New(codes.PermissionDenied, failure.OutOfScope, "not for you")
		}, 403, `"OUT_OF_SCOPE"`},
		"panics":  {func(*rationv1.WatchEventsRequest, rationv1.UsageService_WatchEventsServer) error { panic("oh") }, 500, `"INTERNAL"`},
		"nothing": {func(*rationv1.WatchEventsRequest, rationv1.UsageService_WatchEventsServer) error { return nil }, 200, ""},
	} {
		answer := stream(t, gateway.Options{}, c.watch)
		if text := textOf(t, answer); answer.code != c.code || !strings.Contains(text, c.says) || c.says == "" && text != "" {
			t.Errorf("%s: %d %s", name, answer.code, text)
		}
	}
}

// What runs around calls may end one before its handler has, which writes nothing any more then.
func TestStreamIsEnded(t *testing.T) {
	ended, wrote := make(chan struct{}), make(chan error, 1)
	answer := stream(t, gateway.Options{Stream: func(service any, s grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		go func() { _ = handler(service, s) }()
		return failure.Unavailable(failure.Stopping, "the server stops", time.Second)
	}}, func(_ *rationv1.WatchEventsRequest, s rationv1.UsageService_WatchEventsServer) error {
		<-s.Context().Done()
		<-ended
		wrote <- s.Send(&rationv1.WatchEventsResponse{Id: "late"})
		return nil
	})
	if text := textOf(t, answer); answer.code != 503 || answer.header.Get("Retry-After") != "1" || !strings.Contains(text, "STOPPING") {
		t.Errorf("%d %s", answer.code, text)
	}
	close(ended)
	if err := <-wrote; err == nil || err.Error() != "the stream has ended" {
		t.Errorf("a message was written after the end: %v", err)
	}
}
