package loadgen

import (
	"bytes"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/test/bufconn"
)

// A scripted server answers the n-th request, from 1 (the greeting is the first), frame by frame as a test wants. It
// grants no flow control beyond what HTTP/2 begins with, and keeps no table of header fields.
type scripted struct {
	*http2.Framer
	conn    net.Conn
	encoder *hpack.Encoder
	block   bytes.Buffer
	pings   int
}

// withScript returns a client whose one connection leads to the script; answer is run for each request.
func withScript(t *testing.T, timeout time.Duration, answer func(s *scripted, n int, stream uint32) error) (*Client, error) {
	t.Helper()
	listener := bufconn.Listen(1 << 20)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		conn, err := listener.Accept()
		if err != nil {
			return // the client will say that nobody answers
		}
		server := &scripted{Framer: http2.NewFramer(conn, conn), conn: conn}
		server.encoder = hpack.NewEncoder(&server.block)
		// It ends with an error: either side closes the connection.
		_ = server.serve(answer)
		_ = conn.Close()
	}()
	ours, err := listener.DialContext(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	client, err := newClient(t.Context(), "script", []net.Conn{ours}, timeout, plainSleep)
	t.Cleanup(func() {
		_ = ours.Close()
		<-ended
	})
	return client, err
}

func (s *scripted) serve(answer func(s *scripted, n int, stream uint32) error) error {
	if _, err := io.ReadFull(s.conn, make([]byte, len(http2.ClientPreface))); err != nil {
		return err
	}
	if err := s.WriteSettings(http2.Setting{ID: http2.SettingHeaderTableSize, Val: 0}); err != nil {
		return err
	}
	s.ReadMetaHeaders = hpack.NewDecoder(0, nil)
	for n := 0; ; {
		frame, err := s.ReadFrame()
		if err != nil {
			return err
		}
		switch frame := frame.(type) {
		case *http2.DataFrame:
			n++
			if err := answer(s, n, frame.StreamID); err != nil {
				return err
			}
		case *http2.PingFrame:
			s.pings++
		}
	}
}

// headers sends header fields, given as name, value, name, value…
func (s *scripted) headers(stream uint32, end bool, fields ...string) error {
	s.block.Reset()
	for i := 0; i < len(fields); i += 2 {
		if err := s.encoder.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}); err != nil {
			return err
		}
	}
	return s.WriteHeaders(http2.HeadersFrameParam{
		StreamID: stream, BlockFragment: s.block.Bytes(), EndHeaders: true, EndStream: end,
	})
}

// okMessage is a RateLimitResponse with overall_code OK, as gRPC sends it.
var okMessage = []byte{0, 0, 0, 0, 2, 0x08, 0x01}

func (s *scripted) ok(stream uint32) error {
	if err := s.headers(stream, false, ":status", "200", "content-type", "application/grpc"); err != nil {
		return err
	}
	if err := s.WriteData(stream, false, okMessage); err != nil {
		return err
	}
	return s.headers(stream, true, "grpc-status", "0")
}

func TestAnswersInEveryShape(t *testing.T) {
	tests := []struct {
		name   string
		answer func(s *scripted, stream uint32) error
		// wantError is empty where the answer is an OK.
		wantError string
	}{
		{"plain", (*scripted).ok, ""},
		{"in pieces, padded, with a PING in between", func(s *scripted, stream uint32) error {
			for _, step := range []func() error{
				func() error { return s.headers(stream, false, ":status", "200") },
				func() error { return s.WriteData(stream, false, okMessage[:3]) },
				func() error { return s.WritePing(false, [8]byte{1}) },
				func() error { return s.WriteDataPadded(stream, false, okMessage[3:], make([]byte, 9)) },
				func() error { return s.headers(stream, true, "grpc-status", "0") },
			} {
				if err := step(); err != nil {
					return err
				}
			}
			return nil
		}, ""},
		{"an error without a message", func(s *scripted, stream uint32) error {
			return s.headers(stream, true, ":status", "200", "grpc-status", "14", "grpc-message", "store%20down")
		}, "code = Unavailable desc = store down"},
		{"OK without a message", func(s *scripted, stream uint32) error {
			return s.headers(stream, true, ":status", "200", "grpc-status", "0")
		}, "not a gRPC message"},
		{"no grpc-status", func(s *scripted, stream uint32) error {
			return s.headers(stream, true, ":status", "200")
		}, `grpc-status ""`},
		{"ends with data", func(s *scripted, stream uint32) error {
			if err := s.headers(stream, false, ":status", "200"); err != nil {
				return err
			}
			return s.WriteData(stream, true, okMessage)
		}, "without grpc-status"},
		{"from a proxy without a server", func(s *scripted, stream uint32) error {
			return s.headers(stream, true, ":status", "503")
		}, "HTTP status 503"},
		{"a reset", func(s *scripted, stream uint32) error {
			return s.WriteRSTStream(stream, http2.ErrCodeRefusedStream)
		}, "reset the stream: REFUSED_STREAM"},
		{"the end of the connection", func(s *scripted, stream uint32) error {
			return s.WriteGoAway(stream, http2.ErrCodeEnhanceYourCalm, []byte("too_many_pings"))
		}, `GOAWAY ENHANCE_YOUR_CALM "too_many_pings"`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			client, err := withScript(t, time.Minute, func(s *scripted, n int, stream uint32) error {
				if n == 3 {
					return test.answer(s, stream)
				}
				return s.ok(stream)
			})
			if err != nil {
				t.Fatal(err)
			}
			report, err := client.Run(t.Context(), Plan{
				Mix: oneDescriptor(t, 1), Callers: 1, Duration: time.Minute, MaxRequests: 2,
			}, Meters{})
			if err != nil {
				t.Fatal(err)
			}
			wantErrors := uint64(0)
			if test.wantError != "" {
				wantErrors = 1
			}
			if report.OK != 2-wantErrors || report.Errors != wantErrors || !strings.Contains(report.FirstError, test.wantError) {
				t.Errorf("want %d errors with %q, got %+v", wantErrors, test.wantError, report)
			}
		})
	}
}

func TestPingsAreAnswered(t *testing.T) {
	pings := 0
	client, err := withScript(t, time.Minute, func(s *scripted, n int, stream uint32) error {
		if err := s.WritePing(false, [8]byte{byte(n)}); err != nil {
			return err
		}
		pings = s.pings
		return s.ok(stream)
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Run(t.Context(), Plan{
		Mix: oneDescriptor(t, 1), Callers: 1, Duration: time.Minute, MaxRequests: 10,
	}, Meters{}); err != nil {
		t.Fatal(err)
	}
	if pings < 9 {
		t.Errorf("%d of at least 9 pings were answered before the next request came", pings)
	}
}

func TestSilenceIsAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, err := withScript(t, time.Second, func(s *scripted, n int, stream uint32) error {
			if n > 1 {
				return nil
			}
			return s.ok(stream)
		})
		if err != nil {
			t.Fatal(err)
		}
		report, err := client.Run(t.Context(), Plan{Mix: oneDescriptor(t, 1), Callers: 2, Duration: 3 * time.Second}, Meters{})
		if err != nil {
			t.Fatal(err)
		}
		if report.Decisions != 0 || report.Errors != 6 || !strings.Contains(report.FirstError, "no answer within 1s") {
			t.Errorf("want each of 2 callers to give up 3 times, got %+v", report)
		}
	})
}

// HTTP/2 lets a client send 65,535 bytes until the server grants more, which this one never does.
func TestServerThatTakesNoMoreRequestsEndsTheRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, err := withScript(t, time.Second, func(s *scripted, _ int, stream uint32) error { return s.ok(stream) })
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		err = client.Prime(t.Context(), oneDescriptor(t, 10_000))
		if err == nil || !strings.Contains(err.Error(), "has taken no requests for 1s") {
			t.Errorf("got %v", err)
		}
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("noticed after %v", took)
		}
	})
}

func TestOversizedRequestIsRefused(t *testing.T) {
	address, _ := serve(t, &service{answer: alwaysOK})
	client := connect(t, address, 1)
	mix := Mix{Domain: "bench", Descriptors: []string{"key=" + strings.Repeat("x", maxRequest)}, Keys: 1}
	if err := client.Prime(t.Context(), mix); err == nil || !strings.Contains(err.Error(), "too long") {
		t.Errorf("got %v", err)
	}
}
