package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/rationhq/ration/store/redis/redistest"
)

// reporter is an Envoy whose requests end, and which reports what they have used.
type reporter struct {
	client   ratelimitv3.RateLimitServiceClient
	reported int // 5 tokens each
}

const reportedLimit = 1_000_000

func newReporter(t *testing.T, store string, more ...string) (*reporter, *process) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "policy.yaml")
	text := fmt.Sprintf("domain: d\ndescriptors:\n- { key: user, subject: true, limits: [ { name: tokens, meter: tokens, algorithm: calendar, limit: %d/year } ] }\n", reportedLimit)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p := serve(t, append([]string{"--policy", file, "--store", store, "--redis-timeout", "250ms"}, more...)...)
	return &reporter{client: limiter(t, p.addrs(t).GRPC)}, p
}

func (r *reporter) descriptor(hits uint64, reserved ...string) *ratelimitv3.RateLimitRequest {
	request := requestOf("d", append([]string{"user", "ann"}, reserved...)...)
	request.Descriptors[0].HitsAddend = wrapperspb.UInt64(hits)
	return request
}

// report tells of 5 tokens of a request, with the time that the bootstraps give ration at the end of a call. It answers in
// time whatever the store does, and says yes.
func (r *reporter) report(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	r.reported++
	request := r.descriptor(5, "ration.phase", "record", "ration.meter", "tokens", "ration.request", fmt.Sprint(r.reported))
	if got, err := r.client.ShouldRateLimit(ctx, request); err != nil || got.GetOverallCode() != ratelimitv3.RateLimitResponse_OK {
		t.Errorf("report %d: %v, %v, want OK", r.reported, got.GetOverallCode(), err)
	}
}

// landed waits until the store has all that was reported.
func (r *reporter) landed(t *testing.T) {
	t.Helper()
	eventually(t, "all has landed", func() error {
		got, err := r.client.ShouldRateLimit(t.Context(), r.descriptor(0))
		if err != nil || len(got.GetStatuses()) == 0 || got.GetStatuses()[0].GetCurrentLimit() == nil {
			return fmt.Errorf("%v (%w)", got, err)
		}
		if used := reportedLimit - int(got.GetStatuses()[0].GetLimitRemaining()); used != 5*r.reported {
			return fmt.Errorf("%d tokens are counted, want %d", used, 5*r.reported)
		}
		return nil
	})
}

// While only Redis is away, what Envoy reports waits and lands, each once.
func TestReportsWaitForRedis(t *testing.T) {
	t.Parallel()
	for name, disturb := range map[string]func(*testing.T, *redistest.Server) (end func()){
		"paused": func(t *testing.T, s *redistest.Server) func() {
			if err := s.Pause(); err != nil {
				t.Fatal(err)
			}
			return func() { _ = s.Resume() }
		},
		"killed and restarted": func(t *testing.T, s *redistest.Server) func() {
			s.Stop()
			return func() { redistest.StartAt(t, s.Addr) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			r, p := newReporter(t, server.URL())
			r.landed(t)
			end := disturb(t, server)
			for range 40 {
				r.report(t)
			}
			if _, body := get(t, "http://"+p.addrs(t).Metrics+"/metrics"); !strings.Contains(body, "\nration_reports_queued 40\n") {
				t.Error("the metrics do not say that 40 reports wait")
			}
			end()
			r.landed(t)
			_, body := get(t, "http://"+p.addrs(t).Metrics+"/metrics")
			for _, want := range []string{
				"ration_reports_queued 0", "ration_reports_queued_bytes 0", "ration_reports_landed_total 40",
				`ration_reports_lost_total{cause="full"} 0`, `ration_reports_lost_total{cause="unknown"} 0`,
			} {
				if !strings.Contains(body, "\n"+want+"\n") {
					t.Errorf("the metrics do not say %s", want)
				}
			}
			p.stop(t)
		})
	}
}

// SIGTERM waits for what waits, for as long as calls have to end; what has not landed by then is told of.
func TestSIGTERMFlushesReports(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	r, p := newReporter(t, server.URL())
	r.landed(t)
	if err := server.Pause(); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		r.report(t)
	}
	p.signal(t, syscall.SIGTERM)
	eventually(t, "it stops", func() error {
		if _, err := r.client.ShouldRateLimit(t.Context(), r.descriptor(0)); err == nil {
			return errors.New("it answers")
		}
		return nil
	})
	if err := server.Resume(); err != nil {
		t.Fatal(err)
	}
	if code := p.exit(t); code != exitOK {
		t.Errorf("exit code %d, want 0", code)
	}
	if lost := p.logged("usage that was reported is lost"); len(lost) > 0 {
		t.Errorf("the log says that reports are lost: %+v", lost)
	}
	next, other := newReporter(t, server.URL(), "--stop-timeout", "300ms")
	next.reported = r.reported
	next.landed(t)
	server.Stop()
	for range 3 {
		next.report(t)
	}
	other.signal(t, syscall.SIGTERM)
	other.exit(t)
	if lost := other.logged("usage that was reported is lost"); len(lost) != 1 || lost[0].Reports != 3 {
		t.Errorf("the log says %+v, want that 3 reports are lost", lost)
	}
}

// A second signal, which ends ration at once, loses what waits; the log says how much.
func TestSecondSIGTERMLosesReports(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	r, p := newReporter(t, server.URL(), "--drain-delay", "1h")
	r.landed(t)
	server.Stop()
	r.report(t)
	p.signal(t, syscall.SIGTERM)
	p.waitForLog(t, "draining", 1)
	eventually(t, "it ends", func() error {
		_ = p.cmd.Process.Signal(syscall.SIGTERM) // the first may still be taken for the one before, the last come too late
		if !p.hasExited() {
			return errors.New("it runs")
		}
		return nil
	})
	if lost := p.logged("usage that was reported is lost"); len(lost) != 1 || lost[0].Reports != 1 {
		t.Errorf("the log says %+v, want that 1 report is lost", lost)
	}
}

// Without a queue who reports gets the error.
func TestNoReportQueue(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	r, _ := newReporter(t, server.URL(), "--report-queue", "0")
	r.landed(t)
	server.Stop()
	request := r.descriptor(5, "ration.phase", "record", "ration.meter", "tokens", "ration.request", "1")
	if got, err := r.client.ShouldRateLimit(t.Context(), request); err == nil {
		t.Errorf("the answer is %v, want an error", got)
	}
}
